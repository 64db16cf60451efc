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
#include <linux/pagemap.h>
#include <linux/rwsem.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/version.h>
#include <linux/xarray.h>

#include "pnode.h"
#include "pnode_fail.h"
#include "pnode_module.h"
#include "pnode_trace.h"
#include "pnode_uapi.h"

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 17, 0)
#include <linux/pfn_t.h>
#else
#define __pfn_to_pfn_t(pfn, flags) ((void)(flags), pfn)
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
static void vm_flags_set(struct vm_area_struct *vma, vm_flags_t flags)
{
	vma->vm_flags |= flags;
}
#endif

/* Pages of a huge page. */
#define PNODE_RUN (PMD_SIZE >> PAGE_SHIFT)

/* Since 6.12 a huge entry of a page table can say that it has no struct pages behind it. */
#if defined(CONFIG_ARCH_SUPPORTS_PMD_PFNMAP) && defined(CONFIG_TRANSPARENT_HUGEPAGE)
#define PNODE_MAPS_HUGE
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
	struct pnode_file *file = pnode_fails() ? NULL : kzalloc(sizeof(*file), GFP_KERNEL);
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

/* Notes which frame a page of the object has. */
static int pnode_file_keep(struct pnode_file *file, unsigned long index, u64 pfn)
{
	if (pnode_fails())
		return -ENOMEM;
	return xa_err(xa_store(&file->pages, index, xa_mk_value(pfn), GFP_KERNEL));
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
	rc = pnode_fails() ? -ENOMEM : pnode_alloc(file->grant, 0, pfn);
	if (rc)
		return rc;
	/* Whatever its last user left there is nobody else's business. */
	memset(pnode_address(file->grant, *pfn), 0, PAGE_SIZE);
	rc = pnode_file_keep(file, index, *pfn);
	if (rc)
		WARN_ON_ONCE(pnode_free(file->grant, *pfn, 0));
	else
		file->held++;
	return rc;
}

/*
 * The frames of the pages that a huge page has, from `first` on, which lie side
 * by side and are taken from the node if there are none; -EEXIST if there are
 * some, and they do not. With file->lock held.
 */
static int pnode_file_run(struct pnode_file *file, unsigned long first, u64 *pfn)
{
	unsigned long index, count = 0;
	void *entry;
	int rc;

	xa_for_each_range(&file->pages, index, entry, first, first + PNODE_RUN - 1) {
		if (!count)
			*pfn = xa_to_value(entry);
		if (index != first + count || xa_to_value(entry) != *pfn + count)
			return -EEXIST;
		count++;
	}
	if (count)
		return count == PNODE_RUN && IS_ALIGNED(*pfn, PNODE_RUN) ? 0 : -EEXIST;

	rc = pnode_fails() ? -ENOMEM : pnode_alloc_frames(file->grant, PMD_SHIFT - PAGE_SHIFT, pfn);
	if (rc)
		return rc;
	memset(pnode_address(file->grant, *pfn), 0, PMD_SIZE);
	for (index = 0; !rc && index < PNODE_RUN; index++)
		rc = pnode_file_keep(file, first + index, *pfn + index);
	if (!rc) {
		file->held += PNODE_RUN;
		return 0;
	}
	for (index = 0; index < PNODE_RUN; index++) {
		xa_erase(&file->pages, first + index);
		WARN_ON_ONCE(pnode_free(file->grant, *pfn + index, 0));
	}
	return rc;
}

/*
 * Where the huge page around an address begins, if the mapping has all of it
 * and the object's pages lie like it.
 */
static bool pnode_file_run_at(struct vm_area_struct *vma, unsigned long *address,
			      unsigned long *first)
{
	*address &= PMD_MASK;
	if (*address < vma->vm_start || vma->vm_end - *address < PMD_SIZE)
		return false;
	*first = linear_page_index(vma, *address);
	return IS_ALIGNED(*first, PNODE_RUN);
}

#ifdef PNODE_MAPS_HUGE
/*
 * As one entry of the page table. The kernel's own settings for huge pages, of
 * the system and by madvise(), hold.
 */
static vm_fault_t pnode_file_huge_fault(struct vm_fault *vmf, unsigned int order)
{
	struct pnode_file *file = vmf->vma->vm_file->private_data;
	unsigned long address = vmf->address, first;
	vm_fault_t result = VM_FAULT_FALLBACK;
	u64 pfn = 0;
	int rc;

	if (order != PMD_SHIFT - PAGE_SHIFT || !pnode_file_run_at(vmf->vma, &address, &first))
		return VM_FAULT_FALLBACK;
	mutex_lock(&file->lock);
	/* Single pages may have been mapped meanwhile; none can be while the lock is held. */
	if (!pmd_none(*vmf->pmd) && !pmd_trans_huge(*vmf->pmd))
		rc = -EEXIST;
	else
		rc = file->grant ? pnode_file_run(file, first, &pfn) : -ENODEV;
	if (!rc)
		result = vmf_insert_pfn_pmd(vmf, __pfn_to_pfn_t(pfn, 0),
					    vmf->flags & FAULT_FLAG_WRITE);
	mutex_unlock(&file->lock);
	/* What fails here is tried again with a single page, which says why. */
	if (!rc)
		trace_pnode_fault(file->dev->id, first, pfn, PNODE_RUN, 0);
	return result;
}

static vm_fault_t pnode_file_around(struct pnode_file *file, struct vm_fault *vmf)
{
	return VM_FAULT_FALLBACK;
}
#else
/*
 * As single entries, all at once: this kernel does not know of a huge entry that
 * it must not look behind, and would let such pages be pinned. With
 * file->lock held.
 */
static vm_fault_t pnode_file_around(struct pnode_file *file, struct vm_fault *vmf)
{
	unsigned long address = vmf->address, first, i;
	vm_fault_t result = VM_FAULT_NOPAGE;
	u64 pfn;

	if (vmf->vma->vm_flags & VM_NOHUGEPAGE || !pnode_file_run_at(vmf->vma, &address, &first) ||
	    pnode_file_run(file, first, &pfn))
		return VM_FAULT_FALLBACK;
	for (i = 0; i < PNODE_RUN && result == VM_FAULT_NOPAGE; i++)
		result = vmf_insert_pfn(vmf->vma, address + i * PAGE_SIZE, pfn + i);
	trace_pnode_fault(file->dev->id, first, pfn, i, 0);
	return result;
}
#endif

static vm_fault_t pnode_file_fault(struct vm_fault *vmf)
{
	struct pnode_file *file = vmf->vma->vm_file->private_data;
	vm_fault_t result = VM_FAULT_SIGBUS;
	u64 pfn = 0;
	int rc = -ENODEV;

	mutex_lock(&file->lock);
	if (file->grant) {
		result = pnode_file_around(file, vmf);
		if (result != VM_FAULT_FALLBACK)
			goto out;
		result = VM_FAULT_SIGBUS;
		rc = pnode_file_page(file, vmf->pgoff, &pfn);
	}
	if (!rc)
		result = vmf_insert_pfn(vmf->vma, vmf->address, pfn);
	trace_pnode_fault(file->dev->id, vmf->pgoff, pfn, 1, rc);
out:
	mutex_unlock(&file->lock);
	return result;
}

static const struct vm_operations_struct pnode_file_vm_ops = {
	.fault = pnode_file_fault,
#ifdef PNODE_MAPS_HUGE
	.huge_fault = pnode_file_huge_fault,
#endif
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

static int pnode_file_free_span(struct pnode_file *file, u64 first, u64 end)
{
	int rc = -ENODEV;

	mutex_lock(&file->lock);
	if (file->grant) {
		unmap_mapping_range(file->mapping, first << PAGE_SHIFT,
				    (end - first) << PAGE_SHIFT, 1);
		pnode_file_free(file, first, end - 1);
		rc = 0;
	}
	mutex_unlock(&file->lock);
	return rc;
}

static int pnode_file_disk_add(struct pnode_chardev *dev, u32 pages, u64 frames, u32 checksums)
{
	struct pnode_disk *disk;

	if (!dev->node)
		return -ENODEV;
	if (dev->disk)
		return -EEXIST;
	disk = pnode_disk_add(dev->misc.parent, dev->id, dev->node, pages, frames, checksums);
	if (IS_ERR(disk))
		return PTR_ERR(disk);
	dev->disk = disk;
	return 0;
}

static int pnode_file_disk_remove(struct pnode_chardev *dev)
{
	if (!dev->node)
		return -ENODEV;
	if (!dev->disk)
		return -ENXIO;
	if (pnode_disk_is_open(dev->disk))
		return -EBUSY;
	pnode_disk_remove(dev->disk);
	dev->disk = NULL;
	return 0;
}

static int pnode_file_move(struct pnode_file *file, const struct pnode_call *call,
			   struct pnode_move __user *user)
{
	struct pnode_chardev *dev = file->dev;
	bool to_node = call->kind == PNODE_CALL_MOVE_IN;
	u64 moved = 0;
	int rc;

	down_read(&dev->pages_lock);
	rc = dev->pages ? pnode_pages_move(dev->pages, call->first, call->end, to_node, &moved) :
			  -ENODEV;
	up_read(&dev->pages_lock);
	trace_pnode_move(dev->id, call->first, call->end - call->first, to_node, moved, rc);
	/* What had moved before an error is told, too. */
	if (rc != -ENODEV && put_user(moved, &user->moved))
		return -EFAULT;
	return rc;
}

/* Arguments are copied here, and examined by the Rust half. */
static long pnode_file_ioctl(struct file *filp, unsigned int command, unsigned long argument)
{
	struct pnode_file *file = filp->private_data;
	struct pnode_chardev *dev = file->dev;
	void __user *user = (void __user *)argument;
	u64 bytes[PNODE_CALL_BYTES / sizeof(u64)];
	struct pnode_call call;
	int rc = pnode_call_bytes(command);

	if (rc < 0)
		return rc;
	if (command == PNODE_IOC_DISK && !capable(CAP_SYS_ADMIN))
		return -EPERM;
	if (copy_from_user(bytes, user, rc))
		return -EFAULT;
	rc = pnode_call_decode(command, bytes, TASK_SIZE, &call);
	if (rc)
		return rc;
	switch (call.kind) {
	case PNODE_CALL_QUERY:
		return pnode_file_query(file, user);
	case PNODE_CALL_FREE:
		return pnode_file_free_span(file, call.first, call.end);
	case PNODE_CALL_MOVE_IN:
	case PNODE_CALL_MOVE_OUT:
		return pnode_file_move(file, &call, user);
	default:
		mutex_lock(&dev->lock);
		if (call.kind == PNODE_CALL_DISK_ADD)
			rc = pnode_file_disk_add(dev, call.first, call.end, call.checksums);
		else
			rc = pnode_file_disk_remove(dev);
		mutex_unlock(&dev->lock);
		return rc;
	}
}

static const struct file_operations pnode_file_ops = {
	.owner = THIS_MODULE,
	.open = pnode_file_open,
	.release = pnode_file_close,
	.mmap = pnode_file_mmap,
	/* So that a large mapping can have huge pages. */
	.get_unmapped_area = thp_get_unmapped_area,
	.unlocked_ioctl = pnode_file_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.llseek = noop_llseek,
};

/* Makes /dev/pnode<id> for a node. */
struct pnode_chardev *pnode_chardev_add(struct device *parent, u32 id, struct pnode_node *node,
					struct pnode_pages *pages)
{
	struct pnode_chardev *dev = pnode_fails() ? NULL : kzalloc(sizeof(*dev), GFP_KERNEL);
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
	rc = pnode_fails() ? -ENOMEM : misc_register(&dev->misc);
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
