/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* What the C files of the module share. */
#ifndef PNODE_MODULE_H
#define PNODE_MODULE_H

#include <linux/device.h>
#include <linux/pci.h>

#include "pnode.h"

struct pnode_chardev;

int pnode_devices_init(void);
void pnode_devices_exit(void);

struct pnode_chardev *pnode_chardev_add(struct device *parent, u32 id, struct pnode_node *node);
void pnode_chardev_remove(struct pnode_chardev *dev);

extern struct pci_driver pnode_pci_driver;

#endif
