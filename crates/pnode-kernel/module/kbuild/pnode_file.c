// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * /dev/pnodeN: a node's memory for processes. See pnode_uapi.h for what a
 * process sees.
 *
 * Pages are inserted by frame number, so they have no owner but the file: they
 * cannot be pinned, and the file can take them away. Locks, outermost first:
 * pnode_chardev.pages_lock, mmap lock (by the caller of a fault),
 * pnode_chardev.lock, pnode_file.lock. A fault does not take pnode_chardev.lock.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/kref.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/overflow.h>
#include <linux/rwsem.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/version.h>
#include <linux/xarray.h>

#include "pnode.h"
#include "pnode_module.h"
#include "pnode_trace.h"
#include "pnode_uapi.h"

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
static void vm_flags_set(struct vm_area_struct *vma, vm_flags_t flags)
{
	vma->vm_flags |= flags;
}
#endif

struct pnode_chardev {
	struct miscdevice misc;
	char name[16];
	u32 id;
	struct kref ref;
	/* Protects the three below. */
	struct mutex lock;
	/* NULL once the device is gone. */
	struct pnode_node *node;
	struct list_head files;
	/* NULL for none. */
	struct pnode_disk *disk;
	/* Held while pages are moved to the node; never under a mmap lock. */
	struct rw_semaphore pages_lock;
	/* NULL if the frames have no struct pages, or once the device is gone. */
	struct pnode_pages *pages;
};

struct pnode_file {
	struct pnode_chardev *dev;
	struct list_head link;
	struct address_space *mapping;
	/* Protects the three below. */
	struct mutex lock;
	/* NULL once the device is gone. */
	struct pnode_grant *grant;
	/* Frame number by page of the object. */
	struct xarray pages;
	u64 held;
};

static void pnode_chardev_release(struct kref *ref)
{
	kfree(container_of(ref, struct pnode_chardev, ref));
}

/* Gives back the pages from first to last, with pnode_file.lock held; nobody maps them any more. */
static void pnode_file_free(struct pnode_file *file, unsigned long first, unsigned long last)
{
	unsigned long index;
	void *entry;

	xa_for_each_range(&file->pages, index, entry, first, last) {
		xa_erase(&file->pages, index);
		WARN_ON_ONCE(pnode_free(file->grant, xa_to_value(entry), 0));
		file->held--;
	}
}

/* Takes everything away from a file whose device goes. */
static void pnode_file_revoke(struct pnode_file *file)
{
	mutex_lock(&file->lock);
	if (file->grant) {
		/* No fault inserts a page between these two: it would need the lock. */
		unmap_mapping_range(file->mapping, 0, 0, 1);
		pnode_file_free(file, 0, ULONG_MAX);
		pnode_grant_put(file->grant);
		file->grant = NULL;
	}
	mutex_unlock(&file->lock);
}

static int pnode_file_open(struct inode *inode, struct file *filp)
{
	struct pnode_chardev *dev = container_of(filp->private_data, struct pnode_chardev, misc);
	struct pnode_file *file = kzalloc(sizeof(*file), GFP_KERNEL);
	int rc = -ENODEV;

	if (!file)
		return -ENOMEM;
	mutex_init(&file->lock);
	xa_init(&file->pages);
	file->dev = dev;
	file->mapping = filp->f_mapping;

	mutex_lock(&dev->lock);
	if (dev->node)
		rc = pnode_node_grant(dev->node, &file->grant);
	if (!rc) {
		list_add(&file->link, &dev->files);
		kref_get(&dev->ref);
		filp->private_data = file;
	}
	mutex_unlock(&dev->lock);
	if (rc)
		kfree(file);
	return rc;
}

static int pnode_file_close(struct inode *inode, struct file *filp)
{
	struct pnode_file *file = filp->private_data;
	struct pnode_chardev *dev = file->dev;

	mutex_lock(&dev->lock);
	list_del(&file->link);
	mutex_unlock(&dev->lock);
	/* No mapping is left: each one holds the file. */
	if (file->grant) {
		pnode_file_free(file, 0, ULONG_MAX);
		pnode_grant_put(file->grant);
	}
	xa_destroy(&file->pages);
	kfree(file);
	kref_put(&dev->ref, pnode_chardev_release);
	return 0;
}

/* The frame of a page of the object, taken from the node if there is none; with file->lock held. */
static int pnode_file_page(struct pnode_file *file, unsigned long index, u64 *pfn)
{
	void *entry = xa_load(&file->pages, index);
	int rc;

	if (entry) {
		*pfn = xa_to_value(entry);
		return 0;
	}
	rc = pnode_alloc(file->grant, 0, pfn);
	if (rc)
		return rc;
	/* Whatever its last user left there is nobody else's business. */
	memset(pnode_address(file->grant, *pfn), 0, PAGE_SIZE);
	rc = xa_err(xa_store(&file->pages, index, xa_mk_value(*pfn), GFP_KERNEL));
	if (rc)
		WARN_ON_ONCE(pnode_free(file->grant, *pfn, 0));
	else
		file->held++;
	return rc;
}

static vm_fault_t pnode_file_fault(struct vm_fault *vmf)
{
	struct pnode_file *file = vmf->vma->vm_file->private_data;
	vm_fault_t result = VM_FAULT_SIGBUS;
	u64 pfn = 0;
	int rc;

	mutex_lock(&file->lock);
	rc = file->grant ? pnode_file_page(file, vmf->pgoff, &pfn) : -ENODEV;
	if (!rc)
		result = vmf_insert_pfn(vmf->vma, vmf->address, pfn);
	mutex_unlock(&file->lock);
	trace_pnode_fault(file->dev->id, vmf->pgoff, pfn, rc);
	return result;
}

static const struct vm_operations_struct pnode_file_vm_ops = {
	.fault = pnode_file_fault,
};

static int pnode_file_mmap(struct file *filp, struct vm_area_struct *vma)
{
	/* A private mapping would copy pages to ordinary memory on a write, in silence. */
	if (!(vma->vm_flags & VM_SHARED))
		return -EINVAL;
	vm_flags_set(vma, VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP);
	vma->vm_ops = &pnode_file_vm_ops;
	return 0;
}

static int pnode_file_query(struct pnode_file *file, struct pnode_query __user *to)
{
	struct pnode_query query = { .node = file->dev->id, .page_size = PAGE_SIZE };
	struct pnode_stats stats;
	int rc = -ENODEV;

	mutex_lock(&file->dev->lock);
	if (file->dev->node)
		rc = pnode_stats(file->dev->node, &stats);
	mutex_unlock(&file->dev->lock);
	if (rc)
		return rc;
	query.first_pfn = stats.first_pfn;
	query.managed = stats.managed_frames;
	query.free = stats.free_frames;
	mutex_lock(&file->lock);
	query.held_by_file = file->held;
	mutex_unlock(&file->lock);
	return copy_to_user(to, &query, sizeof(query)) ? -EFAULT : 0;
}

static int pnode_file_free_span(struct pnode_file *file, const struct pnode_span __user *from)
{
	struct pnode_span span;
	int rc = -ENODEV;

	if (copy_from_user(&span, from, sizeof(span)))
		return -EFAULT;
	/* The span in bytes must be an offset that a mapping could have. */
	if (!span.pages || span.first > LLONG_MAX >> PAGE_SHIFT ||
	    span.pages > (LLONG_MAX >> PAGE_SHIFT) - span.first)
		return -EINVAL;
	mutex_lock(&file->lock);
	if (file->grant) {
		unmap_mapping_range(file->mapping, (loff_t)span.first << PAGE_SHIFT,
				    (loff_t)span.pages << PAGE_SHIFT, 1);
		pnode_file_free(file, span.first, span.first + span.pages - 1);
		rc = 0;
	}
	mutex_unlock(&file->lock);
	return rc;
}

static int pnode_file_disk(struct pnode_file *file, const struct pnode_disk_setup __user *from)
{
	struct pnode_chardev *dev = file->dev;
	struct pnode_disk_setup setup;
	struct pnode_disk *disk;
	int rc = 0;

	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	if (copy_from_user(&setup, from, sizeof(setup)))
		return -EFAULT;
	if (setup.pages > U32_MAX || setup.reserved)
		return -EINVAL;
	mutex_lock(&dev->lock);
	if (!dev->node) {
		rc = -ENODEV;
	} else if (setup.pages) {
		disk = dev->disk ? ERR_PTR(-EEXIST) :
				   pnode_disk_add(dev->misc.parent, dev->id, dev->node, setup.pages,
						  setup.frames, setup.checksums);
		if (IS_ERR(disk))
			rc = PTR_ERR(disk);
		else
			dev->disk = disk;
	} else if (!dev->disk) {
		rc = -ENXIO;
	} else if (pnode_disk_is_open(dev->disk)) {
		rc = -EBUSY;
	} else {
		pnode_disk_remove(dev->disk);
		dev->disk = NULL;
	}
	mutex_unlock(&dev->lock);
	return rc;
}

static int pnode_file_move(struct pnode_file *file, struct pnode_move __user *user, bool to_node)
{
	struct pnode_chardev *dev = file->dev;
	struct pnode_move move;
	u64 end;
	int rc;

	if (copy_from_user(&move, user, sizeof(move)))
		return -EFAULT;
	if (!move.bytes || !PAGE_ALIGNED(move.address | move.bytes) ||
	    check_add_overflow(move.address, move.bytes, &end) || end > TASK_SIZE)
		return -EINVAL;
	down_read(&dev->pages_lock);
	rc = dev->pages ? pnode_pages_move(dev->pages, move.address, end, to_node, &move.moved) :
			  -ENODEV;
	up_read(&dev->pages_lock);
	trace_pnode_move(dev->id, move.address, move.bytes, to_node,
			 rc == -ENODEV ? 0 : move.moved, rc);
	/* What had moved before an error is told, too. */
	if (rc != -ENODEV && copy_to_user(user, &move, sizeof(move)))
		return -EFAULT;
	return rc;
}

static long pnode_file_ioctl(struct file *filp, unsigned int command, unsigned long argument)
{
	switch (command) {
	case PNODE_IOC_QUERY:
		return pnode_file_query(filp->private_data, (void __user *)argument);
	case PNODE_IOC_FREE:
		return pnode_file_free_span(filp->private_data, (void __user *)argument);
	case PNODE_IOC_MOVE_IN:
		return pnode_file_move(filp->private_data, (void __user *)argument, true);
	case PNODE_IOC_MOVE_OUT:
		return pnode_file_move(filp->private_data, (void __user *)argument, false);
	case PNODE_IOC_DISK:
		return pnode_file_disk(filp->private_data, (void __user *)argument);
	default:
		return -ENOTTY;
	}
}

static const struct file_operations pnode_file_ops = {
	.owner = THIS_MODULE,
	.open = pnode_file_open,
	.release = pnode_file_close,
	.mmap = pnode_file_mmap,
	.unlocked_ioctl = pnode_file_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.llseek = noop_llseek,
};

/* Makes /dev/pnode<id> for a node. */
struct pnode_chardev *pnode_chardev_add(struct device *parent, u32 id, struct pnode_node *node,
					struct pnode_pages *pages)
{
	struct pnode_chardev *dev = kzalloc(sizeof(*dev), GFP_KERNEL);
	int rc;

	if (!dev)
		return ERR_PTR(-ENOMEM);
	kref_init(&dev->ref);
	mutex_init(&dev->lock);
	init_rwsem(&dev->pages_lock);
	dev->pages = pages;
	INIT_LIST_HEAD(&dev->files);
	dev->id = id;
	dev->node = node;
	snprintf(dev->name, sizeof(dev->name), "pnode%u", id);
	dev->misc.minor = MISC_DYNAMIC_MINOR;
	dev->misc.name = dev->name;
	dev->misc.fops = &pnode_file_ops;
	dev->misc.parent = parent;
	dev->misc.mode = 0600;
	rc = misc_register(&dev->misc);
	if (rc) {
		kfree(dev);
		return ERR_PTR(rc);
	}
	return dev;
}

/* Takes the device away from everybody: no file has a page or a grant of it when this returns. */
void pnode_chardev_remove(struct pnode_chardev *dev)
{
	struct pnode_file *file;

	misc_deregister(&dev->misc);
	down_write(&dev->pages_lock);
	dev->pages = NULL;
	up_write(&dev->pages_lock);
	mutex_lock(&dev->lock);
	if (dev->disk)
		pnode_disk_remove(dev->disk);
	dev->disk = NULL;
	dev->node = NULL;
	list_for_each_entry(file, &dev->files, link)
		pnode_file_revoke(file);
	mutex_unlock(&dev->lock);
	kref_put(&dev->ref, pnode_chardev_release);
}
