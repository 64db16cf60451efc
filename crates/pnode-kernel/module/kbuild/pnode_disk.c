// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * A block device of compressed pages in a node's frames: mkswap and swapon make
 * it the system's swap.
 *
 * Sectors are pages and a request is served where it is submitted, so there is
 * no queue. What is written to a page replaces it, discarding it and freeing its
 * swap slot give its bytes back. A page that finds no room is a write error, after
 * which the page stays where it was.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/blkdev.h>
#include <linux/debugfs.h>
#include <linux/highmem.h>
#include <linux/module.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/shrinker.h>
#include <linux/slab.h>
#include <linux/version.h>

#include "pnode.h"
#include "pnode_fail.h"
#include "pnode_module.h"
#include "pnode_trace.h"

/* Bytes of objects that a call of the shrinker moves for each page that it is asked for. */
#define PNODE_DISK_MOVED (4 * PAGE_SIZE)

struct pnode_disk {
	struct gendisk *gendisk;
	/*
	 * Requests and the shrinker are waited for before it goes. Who still has
	 * the disk open then may free slots, and finds NULL under RCU.
	 */
	struct pnode_store *store;
	struct dentry *debugfs;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 7, 0)
	struct shrinker *shrinker;
#else
	struct shrinker shrinker;
#endif
	/* Pages that found no room, or were damaged. */
	atomic64_t refused;
	atomic64_t damaged;
	/* Frames that the shrinker gave back. */
	atomic64_t shrunk;
};

static int pnode_disk_load(struct pnode_disk *disk, u32 slot, struct page *page)
{
	void *to = kmap_local_page(page);
	int rc = pnode_fails() ? -EBUSY : pnode_store_load(disk->store, slot, to);

	if (rc == -ENODATA) {
		/* As a disk that was never written to. */
		clear_page(to);
		rc = 0;
	} else if (rc == -EUCLEAN) {
		atomic64_inc(&disk->damaged);
	}
	kunmap_local(to);
	return rc;
}

static int pnode_disk_save(struct pnode_disk *disk, u32 slot, struct page *page)
{
	void *from = kmap_local_page(page);
	int rc = pnode_fails() ? -ENOSPC : pnode_store_save(disk->store, slot, from);

	kunmap_local(from);
	if (rc == -ENOSPC)
		atomic64_inc(&disk->refused);
	return rc;
}

/*
 * A page that somebody may be writing to, as with direct I/O from a process, by
 * way of a page of our own: what is compressed must not change meanwhile.
 */
static int pnode_disk_bounce(struct pnode_disk *disk, u32 slot, struct page *page, bool write)
{
	struct page *own = pnode_fails() ? NULL : alloc_page(GFP_NOIO);
	int rc;

	if (!own)
		return -ENOMEM;
	if (write)
		copy_highpage(own, page);
	rc = write ? pnode_disk_save(disk, slot, own) : pnode_disk_load(disk, slot, own);
	if (!write && !rc)
		copy_highpage(page, own);
	__free_page(own);
	return rc;
}

static int pnode_disk_transfer(struct pnode_disk *disk, struct bio *bio)
{
	u32 slot = bio->bi_iter.bi_sector >> PAGE_SECTORS_SHIFT;
	bool write = op_is_write(bio_op(bio));
	struct bvec_iter iter;
	struct bio_vec part;
	int rc;

	bio_for_each_segment(part, bio, iter) {
		/* The alignments that the queue asks for make every part a page. */
		if (part.bv_offset || part.bv_len != PAGE_SIZE)
			return -EINVAL;
		/* Swap is the kernel's, and unmapped while it is written. */
		if (!(bio->bi_opf & REQ_SWAP))
			rc = pnode_disk_bounce(disk, slot, part.bv_page, write);
		else if (write)
			rc = pnode_disk_save(disk, slot, part.bv_page);
		else
			rc = pnode_disk_load(disk, slot, part.bv_page);
		trace_pnode_disk(disk->gendisk->disk_name, slot, write, rc);
		if (rc)
			return rc;
		if (!write)
			flush_dcache_page(part.bv_page);
		slot++;
	}
	return 0;
}

static void pnode_disk_discard(struct pnode_disk *disk, struct bio *bio)
{
	u32 slot = bio->bi_iter.bi_sector >> PAGE_SECTORS_SHIFT;
	u32 end = slot + (bio->bi_iter.bi_size >> PAGE_SHIFT);

	for (; slot < end; slot++) {
		/* There may be nothing to give up. */
		pnode_store_remove(disk->store, slot);
		cond_resched();
	}
}

static void pnode_disk_submit(struct bio *bio)
{
	struct pnode_disk *disk = bio->bi_bdev->bd_disk->private_data;
	unsigned long start;
	int rc = 0;

	switch (bio_op(bio)) {
	case REQ_OP_READ:
	case REQ_OP_WRITE:
		start = bio_start_io_acct(bio);
		rc = pnode_disk_transfer(disk, bio);
		bio_end_io_acct(bio, start);
		break;
	case REQ_OP_DISCARD:
	case REQ_OP_WRITE_ZEROES:
		pnode_disk_discard(disk, bio);
		break;
	default:
		rc = -EOPNOTSUPP;
		break;
	}
	bio->bi_status = errno_to_blk_status(rc);
	bio_endio(bio);
}

/* Called with locks of the swap code held. */
static void pnode_disk_slot_free(struct block_device *bdev, unsigned long slot)
{
	struct pnode_disk *disk = bdev->bd_disk->private_data;
	struct pnode_store *store;

	rcu_read_lock();
	store = READ_ONCE(disk->store);
	if (store)
		pnode_store_remove(store, slot);
	rcu_read_unlock();
}

/* The last one has closed the disk. */
static void pnode_disk_free(struct gendisk *gendisk)
{
	kfree(gendisk->private_data);
}

static const struct block_device_operations pnode_disk_ops = {
	.owner = THIS_MODULE,
	.submit_bio = pnode_disk_submit,
	.swap_slot_free_notify = pnode_disk_slot_free,
	.free_disk = pnode_disk_free,
};

static struct pnode_disk *pnode_disk_of(struct shrinker *shrinker)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 7, 0)
	return shrinker->private_data;
#else
	return container_of(shrinker, struct pnode_disk, shrinker);
#endif
}

/* Frames that hold nothing but the holes between objects: about so many can be given back. */
static unsigned long pnode_disk_count(struct shrinker *shrinker, struct shrink_control *control)
{
	struct pnode_store_stats stats;
	u64 objects;

	if (pnode_store_stats(pnode_disk_of(shrinker)->store, &stats))
		return 0;
	/* An eighth is not worth the trouble. */
	objects = stats.compressed_bytes + stats.compressed_bytes / 8;
	return stats.pool_bytes > objects ? (stats.pool_bytes - objects) >> PAGE_SHIFT : 0;
}

/*
 * Memory is short, so pages are about to be swapped out: what lies here is moved
 * together, which gives the node frames for them. Ordinary memory gains nothing
 * by this, so nothing is reported as freed of it.
 */
static unsigned long pnode_disk_scan(struct shrinker *shrinker, struct shrink_control *control)
{
	struct pnode_disk *disk = pnode_disk_of(shrinker);
	u64 freed = 0;

	if (pnode_store_compact(disk->store, control->nr_to_scan * PNODE_DISK_MOVED, &freed))
		return SHRINK_STOP;
	atomic64_add(freed, &disk->shrunk);
	trace_pnode_shrink(disk->gendisk->disk_name, freed);
	return 0;
}

static int pnode_disk_shrinker_add(struct pnode_disk *disk, const char *name)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 7, 0)
	struct shrinker *shrinker = pnode_fails() ? NULL : shrinker_alloc(0, "pnode:%s", name);

	if (!shrinker)
		return -ENOMEM;
	disk->shrinker = shrinker;
	shrinker->private_data = disk;
#else
	struct shrinker *shrinker = &disk->shrinker;
#endif
	shrinker->count_objects = pnode_disk_count;
	shrinker->scan_objects = pnode_disk_scan;
	shrinker->seeks = DEFAULT_SEEKS;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 7, 0)
	shrinker_register(shrinker);
	return 0;
#else
	return pnode_fails() ? -ENOMEM : register_shrinker(shrinker, "pnode:%s", name);
#endif
}

static void pnode_disk_shrinker_remove(struct pnode_disk *disk)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 7, 0)
	shrinker_free(disk->shrinker);
#else
	unregister_shrinker(&disk->shrinker);
#endif
}

static struct gendisk *pnode_disk_alloc(void)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 11, 0)
	struct queue_limits limits = {
		.logical_block_size = PAGE_SIZE,
		.physical_block_size = PAGE_SIZE,
		.io_min = PAGE_SIZE,
		.io_opt = PAGE_SIZE,
		.dma_alignment = PAGE_SIZE - 1,
		.max_hw_discard_sectors = UINT_MAX,
		.max_write_zeroes_sectors = UINT_MAX >> PAGE_SECTORS_SHIFT << PAGE_SECTORS_SHIFT,
		.discard_granularity = PAGE_SIZE,
		.features = BLK_FEAT_STABLE_WRITES | BLK_FEAT_SYNCHRONOUS,
	};

	return blk_alloc_disk(&limits, NUMA_NO_NODE);
#else
	struct gendisk *gendisk = blk_alloc_disk(NUMA_NO_NODE);
	struct request_queue *queue;

	if (!gendisk)
		return ERR_PTR(-ENOMEM);
	queue = gendisk->queue;
	blk_queue_logical_block_size(queue, PAGE_SIZE);
	blk_queue_physical_block_size(queue, PAGE_SIZE);
	blk_queue_io_min(queue, PAGE_SIZE);
	blk_queue_io_opt(queue, PAGE_SIZE);
	blk_queue_dma_alignment(queue, PAGE_SIZE - 1);
	blk_queue_max_discard_sectors(queue, UINT_MAX);
	blk_queue_max_write_zeroes_sectors(queue,
					   UINT_MAX >> PAGE_SECTORS_SHIFT << PAGE_SECTORS_SHIFT);
	queue->limits.discard_granularity = PAGE_SIZE;
	blk_queue_flag_set(QUEUE_FLAG_NONROT, queue);
	blk_queue_flag_set(QUEUE_FLAG_STABLE_WRITES, queue);
#ifdef QUEUE_FLAG_SYNCHRONOUS
	blk_queue_flag_set(QUEUE_FLAG_SYNCHRONOUS, queue);
#endif
	return gendisk;
#endif
}

static int pnode_disk_show(struct seq_file *seq, void *unused)
{
	struct pnode_disk *disk = seq->private;
	struct pnode_store_stats stats;
	int rc = pnode_store_stats(disk->store, &stats);

	if (rc)
		return rc;
	seq_printf(seq, "pages      %llu\n", stats.pages);
	seq_printf(seq, "same       %llu\n", stats.same_pages);
	seq_printf(seq, "original   %llu\n", stats.original_bytes);
	seq_printf(seq, "compressed %llu\n", stats.compressed_bytes);
	seq_printf(seq, "denser     %llu\n", stats.recompressed_pages);
	seq_printf(seq, "pool       %llu\n", stats.pool_bytes);
	seq_printf(seq, "metadata   %llu\n", stats.metadata_bytes);
	seq_printf(seq, "refused    %lld\n", atomic64_read(&disk->refused));
	seq_printf(seq, "damaged    %lld\n", atomic64_read(&disk->damaged));
	seq_printf(seq, "shrunk     %lld\n", atomic64_read(&disk->shrunk));
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(pnode_disk);

/* Makes /dev/pnode_disk<id>, of `pages` pages in at most `frames` frames of the node. */
struct pnode_disk *pnode_disk_add(struct device *parent, u32 id, struct pnode_node *node,
				  u32 pages, u64 frames, u32 checksums)
{
	struct pnode_disk *disk = pnode_fails() ? NULL : kzalloc(sizeof(*disk), GFP_KERNEL);
	struct gendisk *gendisk;
	int rc;

	if (!disk)
		return ERR_PTR(-ENOMEM);
	rc = pnode_store_create(node, pages, frames, checksums, &disk->store);
	if (rc)
		goto err_disk;
	gendisk = pnode_fails() ? ERR_PTR(-ENOMEM) : pnode_disk_alloc();
	if (IS_ERR(gendisk)) {
		rc = PTR_ERR(gendisk);
		goto err_store;
	}
	disk->gendisk = gendisk;
	gendisk->private_data = disk;
	gendisk->fops = &pnode_disk_ops;
	gendisk->flags |= GENHD_FL_NO_PART;
	snprintf(gendisk->disk_name, sizeof(gendisk->disk_name), "pnode_disk%u", id);
	set_capacity(gendisk, (sector_t)pages << PAGE_SECTORS_SHIFT);
	rc = pnode_disk_shrinker_add(disk, gendisk->disk_name);
	if (rc)
		goto err_gendisk;
	rc = pnode_fails() ? -ENOMEM : device_add_disk(parent, gendisk, NULL);
	if (rc)
		goto err_shrinker;
	disk->debugfs = debugfs_create_file(gendisk->disk_name, 0400, pnode_debugfs, disk,
					    &pnode_disk_fops);
	return disk;

err_shrinker:
	pnode_disk_shrinker_remove(disk);
err_gendisk:
	put_disk(gendisk);
err_store:
	pnode_store_destroy(disk->store);
err_disk:
	kfree(disk);
	return ERR_PTR(rc);
}

/* Whether somebody has the disk open, or swaps to it. */
bool pnode_disk_is_open(struct pnode_disk *disk)
{
	return disk_openers(disk->gendisk) > 0;
}

/* Takes the disk away from whoever uses it, with all that is on it. */
void pnode_disk_remove(struct pnode_disk *disk)
{
	struct pnode_store *store = disk->store;

	/* All three wait for callers that are inside. */
	debugfs_remove(disk->debugfs);
	del_gendisk(disk->gendisk);
	pnode_disk_shrinker_remove(disk);
	WRITE_ONCE(disk->store, NULL);
	synchronize_rcu();
	pnode_store_destroy(store);
	put_disk(disk->gendisk);
}
