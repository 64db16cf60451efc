/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* What the C files of the module share. */
#ifndef PNODE_MODULE_H
#define PNODE_MODULE_H

#include <linux/device.h>
#include <linux/fs.h>
#include <linux/pci.h>

#include "pnode.h"

struct pnode_chardev;
struct pnode_disk;

/* /sys/kernel/debug/pnode */
extern struct dentry *pnode_debugfs;

int pnode_devices_init(void);
void pnode_devices_exit(void);

struct pnode_chardev *pnode_chardev_add(struct device *parent, u32 id, struct pnode_node *node);
void pnode_chardev_remove(struct pnode_chardev *dev);

struct pnode_disk *pnode_disk_add(struct device *parent, u32 id, struct pnode_node *node, u32 pages, u64 frames,
				  u32 checksums);
bool pnode_disk_is_open(struct pnode_disk *disk);
void pnode_disk_remove(struct pnode_disk *disk);

extern struct pci_driver pnode_pci_driver;

#endif
