// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Anonymous memory of ordinary processes on a node, and back.
 *
 * The device's frames have struct pages of coherent device memory, and the
 * kernel's device migration puts them in the place of a process's pages: the
 * process reads and writes them as before, fork, munmap and exit treat them as
 * any other page, and reclaim never sees them. What the kernel drops comes back
 * to the node by pnode_pages_free().
 *
 * Locks, outermost first: pnode_chardev.pages_lock (by the callers), mmap lock.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/highmem.h>
#include <linux/memremap.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/pfn.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/version.h>

#include "pnode.h"
#include "pnode_fail.h"
#include "pnode_module.h"

/* Pages that are moved at a time: two arrays of so many words. */
#define PNODE_PAGES_BATCH 256

/* The kernel has dropped its last reference to a page of the node; called in any context. */
static void pnode_pages_put(struct pnode_pages *pages, unsigned long pfn)
{
	WARN_ON_ONCE(pnode_free(pages->grant, pfn, 0));
	atomic64_dec(&pages->moved);
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 0, 0)
static void pnode_pages_free(struct folio *folio)
{
	pnode_pages_put(page_pgmap(folio_page(folio, 0))->owner, folio_pfn(folio));
}
#else
static void pnode_pages_free(struct page *page)
{
	pnode_pages_put(page->pgmap->owner, page_to_pfn(page));
}
#endif

static const struct dev_pagemap_ops pnode_pages_ops = {
#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 0, 0)
	.folio_free = pnode_pages_free,
#else
	.page_free = pnode_pages_free,
#endif
};

/* Maps device memory with struct pages that processes can have, or says why it cannot be. */
void *pnode_pages_map(struct device *dev, struct pnode_pages *pages, struct resource *res)
{
	pages->pagemap.type = MEMORY_DEVICE_COHERENT;
	pages->pagemap.range.start = res->start;
	pages->pagemap.range.end = res->end;
	pages->pagemap.nr_range = 1;
	pages->pagemap.ops = &pnode_pages_ops;
	pages->pagemap.owner = pages;
	return pnode_fails() ? ERR_PTR(-ENOMEM) : devm_memremap_pages(dev, &pages->pagemap);
}

/* A locked page of the node, or NULL. */
static struct page *pnode_pages_take(struct pnode_pages *pages)
{
	struct page *page;
	u64 pfn;

	if (pnode_fails() || pnode_alloc(pages->grant, 0, &pfn))
		return NULL;
	page = pfn_to_page(pfn);
	atomic64_inc(&pages->moved);
#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 0, 0)
	zone_device_page_init(page, &pages->pagemap, 0);
#else
	zone_device_page_init(page);
#endif
	return page;
}

/* A locked page of ordinary memory, or NULL. */
static struct page *pnode_pages_ordinary(gfp_t gfp)
{
	struct page *page = NULL;

	/* Who may not be refused is not. */
	if (gfp & __GFP_NOFAIL || !pnode_fails())
		page = alloc_page(GFP_HIGHUSER_MOVABLE | gfp);
	if (page)
		lock_page(page);
	return page;
}

/* Finds a page of the other kind for each one that the kernel has set aside, and copies it. */
static void pnode_pages_copy(struct pnode_pages *pages, unsigned long *src, unsigned long *dst,
			     unsigned long count, bool to_node, gfp_t gfp)
{
	struct page *from, *to;
	unsigned long i;

	for (i = 0; i < count; i++) {
		dst[i] = 0;
		if (!(src[i] & MIGRATE_PFN_MIGRATE))
			continue;
		to = to_node ? pnode_pages_take(pages) : pnode_pages_ordinary(gfp);
		if (!to)
			continue;
		from = migrate_pfn_to_page(src[i]);
		if (from)
			copy_highpage(to, from);
		else
			/* A page that was never touched. */
			clear_highpage(to);
		dst[i] = migrate_pfn(page_to_pfn(to));
		if (src[i] & MIGRATE_PFN_WRITE)
			dst[i] |= MIGRATE_PFN_WRITE;
	}
}

/* Moves part of a mapping; counts the pages that moved. */
static int pnode_pages_move_part(struct pnode_pages *pages, struct vm_area_struct *vma,
				 unsigned long start, unsigned long end, bool to_node,
				 unsigned long *words, u64 *moved)
{
	struct migrate_vma move = {
		.vma = vma,
		.start = start,
		.end = end,
		.src = words,
		.dst = words + PNODE_PAGES_BATCH,
		.pgmap_owner = pages,
		.flags = to_node ? MIGRATE_VMA_SELECT_SYSTEM : MIGRATE_VMA_SELECT_DEVICE_COHERENT,
	};
	unsigned long i;
	int rc;

	memset(words, 0, 2 * PNODE_PAGES_BATCH * sizeof(*words));
	rc = pnode_fails() ? -ENOMEM : migrate_vma_setup(&move);
	if (rc)
		return rc;
	pnode_pages_copy(pages, move.src, move.dst, move.npages, to_node, 0);
	migrate_vma_pages(&move);
	for (i = 0; i < move.npages; i++)
		if (move.dst[i] && move.src[i] & MIGRATE_PFN_MIGRATE)
			(*moved)++;
	migrate_vma_finalize(&move);
	return 0;
}

/*
 * Moves the anonymous memory of the calling process in [start, end), whose ends
 * are page-aligned, to the node or back. What cannot be moved now stays where it
 * is, usable as before.
 */
int pnode_pages_move(struct pnode_pages *pages, unsigned long start, unsigned long end,
		     bool to_node, u64 *moved)
{
	unsigned long *words = NULL;
	struct mm_struct *mm = current->mm;
	struct vm_area_struct *vma;
	unsigned long next;
	int rc = 0;

	*moved = 0;
	if (!pnode_fails())
		words = kvcalloc(2 * PNODE_PAGES_BATCH, sizeof(*words), GFP_KERNEL);
	if (!words)
		return -ENOMEM;
	while (!rc && start < end) {
		mmap_read_lock(mm);
		vma = vma_lookup(mm, start);
		if (!vma || !vma_is_anonymous(vma)) {
			rc = vma ? -EINVAL : -ENOMEM;
		} else {
			next = min3(end, vma->vm_end, start + PNODE_PAGES_BATCH * PAGE_SIZE);
			rc = pnode_pages_move_part(pages, vma, start, next, to_node, words, moved);
			start = next;
		}
		mmap_read_unlock(mm);
		cond_resched();
		if (fatal_signal_pending(current))
			rc = -EINTR;
	}
	kvfree(words);
	return rc;
}

/* Moves what any process has on the node back to ordinary memory, until nothing is left. */
void pnode_pages_evict(struct device *dev, struct pnode_pages *pages)
{
	unsigned long first = PHYS_PFN(pages->pagemap.range.start);
	unsigned long count = PHYS_PFN(range_len(&pages->pagemap.range));
	unsigned long *words = kvcalloc(2 * PNODE_PAGES_BATCH, sizeof(*words),
					GFP_KERNEL | __GFP_NOFAIL);
	unsigned long *src = words, *dst = words + PNODE_PAGES_BATCH;
	unsigned long done, part;
	unsigned int tries = 0;

	while (atomic64_read(&pages->moved)) {
		for (done = 0; done < count; done += part) {
			part = min_t(unsigned long, count - done, PNODE_PAGES_BATCH);
			migrate_device_range(src, first + done, part);
			pnode_pages_copy(pages, src, dst, part, false, __GFP_NOFAIL);
			migrate_device_pages(src, dst, part);
			migrate_device_finalize(src, dst, part);
			cond_resched();
		}
		if (!atomic64_read(&pages->moved))
			break;
		/* Somebody looks at a page right now, or has pinned it. */
		if (tries++ % 500 == 100)
			dev_warn(dev, "%lld pages of processes cannot be moved off the node yet\n",
				 atomic64_read(&pages->moved));
		msleep(20);
	}
	kvfree(words);
}
