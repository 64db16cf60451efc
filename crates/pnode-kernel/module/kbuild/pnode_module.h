/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* What the C files of the module share. */
#ifndef PNODE_MODULE_H
#define PNODE_MODULE_H

#include <linux/device.h>
#include <linux/fs.h>
#include <linux/memremap.h>
#include <linux/pci.h>

#include "pnode.h"

struct pnode_chardev;
struct pnode_device;
struct pnode_disk;

/* /sys/kernel/debug/pnode */
extern struct dentry *pnode_debugfs;

/* Frames of a node that have struct pages, so that processes can have them as anonymous memory. */
struct pnode_pages {
	struct dev_pagemap pagemap;
	/* On which they are taken; from when the node is registered until nobody has one. */
	struct pnode_grant *grant;
	/* Those that processes have. */
	atomic64_t moved;
};

void *pnode_pages_map(struct device *dev, struct pnode_pages *pages, struct resource *res);
int pnode_pages_move(struct pnode_pages *pages, unsigned long start, unsigned long end,
		     bool to_node, u64 *moved);
void pnode_pages_evict(struct device *dev, struct pnode_pages *pages);

/* As pnode_device_add(); `pages` is NULL or stays until pnode_device_remove() returns. */
struct pnode_device *pnode_device_add_pages(struct device *parent,
					    const struct pnode_range *range, u32 class,
					    u32 features, struct pnode_pages *pages);

/* What the parameters say about every device. */
extern unsigned int pnode_features;
int pnode_device_test(struct device *dev, const struct pnode_range *range);

int pnode_claims_init(void);
void pnode_claims_exit(void);

int pnode_devices_init(void);
void pnode_devices_exit(void);

struct pnode_chardev *pnode_chardev_add(struct device *parent, u32 id, struct pnode_node *node,
					struct pnode_pages *pages);
void pnode_chardev_remove(struct pnode_chardev *dev);

struct pnode_disk *pnode_disk_add(struct device *parent, u32 id, struct pnode_node *node,
				  u32 pages, u64 frames, u32 checksums);
bool pnode_disk_is_open(struct pnode_disk *disk);
void pnode_disk_remove(struct pnode_disk *disk);

extern struct pci_driver pnode_pci_driver;

#endif
