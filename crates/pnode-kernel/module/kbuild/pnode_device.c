// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * The module's registry, and device memory as nodes of it: with an id, a character device and a
 * debugfs file.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/idr.h>
#include <linux/module.h>
#include <linux/seq_file.h>
#include <linux/slab.h>

#include "pnode.h"
#include "pnode_fail.h"
#include "pnode_linux.h"
#include "pnode_module.h"
#include "pnode_trace.h"

static bool selftest;
module_param(selftest, bool, 0444);
MODULE_PARM_DESC(selftest, "Test each device's memory before its node is registered, with a KTAP report in the log");

unsigned int pnode_features;
module_param_named(features, pnode_features, uint, 0444);
MODULE_PARM_DESC(features, "Doors that are open on every node, as bits of pnode.h (default 0: closed to all but the owner)");

/* Node 0 stands for the kernel's own memory. */
#define PNODE_FIRST_ID 1
#define PNODE_NODES 64

struct pnode_device {
	struct device *parent;
	u32 id;
	struct pnode_node *node;
	u64 first_pfn;
	u64 frames;
	struct pnode_chardev *chardev;
	/* NULL if the frames have no struct pages. */
	struct pnode_pages *pages;
	struct dentry *debugfs;
	struct dentry *map;
};

static struct pnode_space *pnode_space;
static DEFINE_IDA(pnode_ids);
struct dentry *pnode_debugfs;

static int pnode_state_show(struct seq_file *seq, void *unused)
{
	struct pnode_device *device = seq->private;
	struct pnode_stats stats;
	int rc = pnode_stats(device->node, &stats);

	if (rc)
		return rc;
	seq_printf(seq, "device     %s\n", dev_name(device->parent));
	seq_printf(seq, "first_pfn  %#llx\n", stats.first_pfn);
	seq_printf(seq, "managed    %llu\n", stats.managed_frames);
	seq_printf(seq, "free       %llu\n", stats.free_frames);
	seq_printf(seq, "used       %llu\n", stats.used_frames);
	if (device->pages)
		seq_printf(seq, "anonymous  %lld\n", atomic64_read(&device->pages->moved));
	seq_printf(seq, "references %u\n", stats.references);
	seq_printf(seq, "state      %s\n", stats.draining ? "draining" : "online");
	seq_printf(seq, "audit      %s\n", pnode_audit(device->node) ? "INCONSISTENT" : "ok");
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(pnode_state);

#define PNODE_MAP_COLUMNS 64
#define PNODE_MAP_ROWS 32

/* How full each part of the node is; see pnode_map(). */
static int pnode_map_show(struct seq_file *seq, void *unused)
{
	struct pnode_device *device = seq->private;
	const u32 rows = clamp_t(u64, device->frames / PNODE_MAP_COLUMNS, 1, PNODE_MAP_ROWS);
	const u32 bytes = (PNODE_MAP_COLUMNS + 1) * rows;
	char *text = pnode_fails() ? NULL : kmalloc(bytes, GFP_KERNEL);
	int rc;

	if (!text)
		return -ENOMEM;
	rc = pnode_map(device->node, PNODE_MAP_COLUMNS, rows, text, bytes);
	if (!rc)
		seq_printf(seq, "%llu frames a character\n%s\n",
			   DIV_ROUND_UP_ULL(device->frames, PNODE_MAP_COLUMNS * rows), text);
	kfree(text);
	return rc;
}
DEFINE_SHOW_ATTRIBUTE(pnode_map);

/* Tests the frames of a device that is about to become a node, if that was asked for. */
int pnode_device_test(struct device *dev, const struct pnode_range *range)
{
	int rc = selftest ? pnode_selftest(range) : 0;

	return rc ? dev_err_probe(dev, rc, "the self-test failed\n") : 0;
}

struct pnode_device *pnode_device_add_pages(struct device *parent,
					    const struct pnode_range *range, u32 class,
					    u32 features, struct pnode_pages *pages)
{
	struct pnode_device *device = pnode_fails() ? NULL : kzalloc(sizeof(*device), GFP_KERNEL);
	char name[16];
	int rc;

	if (!device)
		return ERR_PTR(-ENOMEM);
	device->parent = parent;
	device->pages = pages;
	device->first_pfn = range->first_pfn;
	device->frames = range->frames;

	rc = pnode_fails() ? -ENOSPC :
			     ida_alloc_range(&pnode_ids, PNODE_FIRST_ID, PNODE_NODES - 1,
					     GFP_KERNEL);
	if (rc < 0)
		goto err_free;
	device->id = rc;

	rc = pnode_node_register(pnode_space, device->id, class, features, range, &device->node);
	if (rc)
		goto err_id;

	if (pages) {
		rc = pnode_node_grant(device->node, &pages->grant);
		if (rc)
			goto err_node;
	}

	device->chardev = pnode_chardev_add(parent, device->id, device->node, pages);
	if (IS_ERR(device->chardev)) {
		rc = PTR_ERR(device->chardev);
		goto err_grant;
	}

	snprintf(name, sizeof(name), "node%u", device->id);
	device->debugfs = debugfs_create_file(name, 0400, pnode_debugfs, device, &pnode_state_fops);
	snprintf(name, sizeof(name), "map%u", device->id);
	device->map = debugfs_create_file(name, 0400, pnode_debugfs, device, &pnode_map_fops);
	trace_pnode_node(device->id, range->first_pfn, range->frames, true);
	dev_info(parent, "private node %u: %llu frames from pfn %#llx\n", device->id,
		 range->frames, range->first_pfn);
	return device;

err_grant:
	if (pages)
		pnode_grant_put(pages->grant);
err_node:
	/* Nobody but us has seen the node. */
	WARN_ON(pnode_node_unregister(device->node));
err_id:
	ida_free(&pnode_ids, device->id);
err_free:
	kfree(device);
	return ERR_PTR(rc);
}

struct pnode_device *pnode_device_add(struct device *parent, const struct pnode_range *range,
				      u32 class, u32 features)
{
	return pnode_device_add_pages(parent, range, class, features, NULL);
}
EXPORT_SYMBOL_GPL(pnode_device_add);

void pnode_device_remove(struct pnode_device *device)
{
	unsigned int tries = 0;
	int rc;

	/* All wait for callers that are inside. */
	debugfs_remove(device->map);
	debugfs_remove(device->debugfs);
	pnode_chardev_remove(device->chardev);
	if (device->pages) {
		pnode_pages_evict(device->parent, device->pages);
		pnode_grant_put(device->pages->grant);
	}
	while ((rc = pnode_node_unregister(device->node)) == -EBUSY) {
		if (tries++ % 500 == 0)
			dev_warn(device->parent, "node %u waits for kernel clients to give frames and grants back\n",
				 device->id);
		msleep(20);
	}
	WARN_ON(rc);
	trace_pnode_node(device->id, device->first_pfn, device->frames, false);
	ida_free(&pnode_ids, device->id);
	kfree(device);
}
EXPORT_SYMBOL_GPL(pnode_device_remove);

struct pnode_node *pnode_device_node(struct pnode_device *device)
{
	return device->node;
}
EXPORT_SYMBOL_GPL(pnode_device_node);

u32 pnode_device_id(struct pnode_device *device)
{
	return device->id;
}
EXPORT_SYMBOL_GPL(pnode_device_id);

int pnode_service_grant(u32 id, u32 reason, struct pnode_grant **grant)
{
	return pnode_grant_ask(pnode_space, id, reason, grant);
}
EXPORT_SYMBOL_GPL(pnode_service_grant);

int pnode_devices_init(void)
{
	int rc = pnode_space_create(PNODE_NODES, &pnode_space);

	if (!rc)
		pnode_debugfs = debugfs_create_dir(KBUILD_MODNAME, NULL);
	return rc;
}

void pnode_devices_exit(void)
{
	debugfs_remove(pnode_debugfs);
	WARN_ON(pnode_space_destroy(pnode_space));
	ida_destroy(&pnode_ids);
}

/* The Rust half's functions for clients with a node or a grant. */
EXPORT_SYMBOL_GPL(pnode_node_grant);
EXPORT_SYMBOL_GPL(pnode_grant_put);
EXPORT_SYMBOL_GPL(pnode_alloc);
EXPORT_SYMBOL_GPL(pnode_alloc_frames);
EXPORT_SYMBOL_GPL(pnode_free);
EXPORT_SYMBOL_GPL(pnode_address);
EXPORT_SYMBOL_GPL(pnode_stats);
EXPORT_SYMBOL_GPL(pnode_map);
EXPORT_SYMBOL_GPL(pnode_store_create);
EXPORT_SYMBOL_GPL(pnode_store_destroy);
EXPORT_SYMBOL_GPL(pnode_store_save);
EXPORT_SYMBOL_GPL(pnode_store_load);
EXPORT_SYMBOL_GPL(pnode_store_remove);
EXPORT_SYMBOL_GPL(pnode_store_compact);
EXPORT_SYMBOL_GPL(pnode_store_stats);
