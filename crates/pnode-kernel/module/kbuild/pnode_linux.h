/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Private nodes for drivers of this kernel: device memory becomes a node of the
 * module's registry by pnode_device_add(), and frames of it are taken on
 * grants (pnode.h). All functions here sleep.
 */
#ifndef PNODE_LINUX_H
#define PNODE_LINUX_H

#include <linux/device.h>

#include "pnode.h"

struct pnode_device;

/*
 * Registers mapped device memory as a private node with the next free id, with
 * /dev/pnode<id> and a debugfs file. The range must stay mapped until
 * pnode_device_remove() returns. An error pointer on failure.
 */
struct pnode_device *pnode_device_add(struct device *parent, const struct pnode_range *range,
				      u32 class, u32 features);
/*
 * Takes the node away. Processes lose their pages; kernel clients are waited
 * for, and get nothing new meanwhile.
 */
void pnode_device_remove(struct pnode_device *device);

/* The node, for the driver that added it. */
struct pnode_node *pnode_device_node(struct pnode_device *device);
u32 pnode_device_id(struct pnode_device *device);

/* A grant for a service of this kernel on any node of the module; see pnode_grant_ask(). */
int pnode_service_grant(u32 id, u32 reason, struct pnode_grant **grant);

#endif
