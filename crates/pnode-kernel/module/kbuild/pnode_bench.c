// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * What a frame costs: the kernel's page allocator and a private node, side by
 * side in one boot, in nanoseconds of the guest. Under QEMU's -icount a
 * nanosecond is an instruction (see guest/bench).
 *
 * Node 1 must be open to reclaim: insmod pnode.ko features=1. The two sides
 * differ: the page allocator keeps per-CPU lists, clears nothing here
 * (init_on_alloc=0) and maintains struct pages and zone statistics; a private
 * node checks the grant, validates every free in full, and counts.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/gfp.h>
#include <linux/ktime.h>
#include <linux/math64.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "pnode.h"
#include "pnode_linux.h"

#define ROUNDS 5
#define PAIRS 10000
#define HELD 1024

static struct pnode_grant *grant;
static void *held[HELD];

static bool kernel_alloc(void **block, unsigned int order)
{
	*block = alloc_pages(GFP_KERNEL | __GFP_NOWARN, order);
	return *block;
}

static bool kernel_free(void *block, unsigned int order)
{
	__free_pages(block, order);
	return true;
}

static bool node_alloc(void **block, unsigned int order)
{
	BUILD_BUG_ON(sizeof(*block) != sizeof(u64));
	return !pnode_alloc(grant, order, (u64 *)block);
}

static bool node_free(void *block, unsigned int order)
{
	return !pnode_free(grant, (uintptr_t)block, order);
}

static bool nothing_alloc(void **block, unsigned int order)
{
	*block = &held;
	return true;
}

static bool nothing_free(void *block, unsigned int order)
{
	return true;
}

struct side {
	const char *name;
	bool (*alloc)(void **block, unsigned int order);
	bool (*free)(void *block, unsigned int order);
};

static const struct side sides[] = {
	{ "page allocator", kernel_alloc, kernel_free },
	{ "private node", node_alloc, node_free },
	/* What the loop costs, which both figures contain. */
	{ "loop", nothing_alloc, nothing_free },
};

/* The mean cost of a pair, in the best of a few rounds. 0 if something failed. */
static u64 pair(const struct side *side, unsigned int order)
{
	u64 best = U64_MAX, begin;
	unsigned int round, i;
	void *block;

	for (round = 0; round < ROUNDS; round++) {
		begin = ktime_get_ns();
		for (i = 0; i < PAIRS; i++)
			if (!side->alloc(&block, order) || !side->free(block, order))
				return 0;
		best = min(best, div_u64(ktime_get_ns() - begin, PAIRS));
		cond_resched();
	}
	return best;
}

/* The mean costs of taking many single frames, and of giving them back. */
static bool many(const struct side *side, u64 *alloc, u64 *free)
{
	unsigned int round, i;
	u64 begin, middle;

	*alloc = *free = U64_MAX;
	for (round = 0; round < ROUNDS; round++) {
		begin = ktime_get_ns();
		for (i = 0; i < HELD; i++)
			if (!side->alloc(&held[i], 0))
				return false;
		middle = ktime_get_ns();
		for (i = 0; i < HELD; i++)
			if (!side->free(held[i], 0))
				return false;
		*alloc = min(*alloc, div_u64(middle - begin, HELD));
		*free = min(*free, div_u64(ktime_get_ns() - middle, HELD));
		cond_resched();
	}
	return true;
}

static int __init bench_init(void)
{
	static const unsigned int orders[] = { 0, 3, 9 };
	unsigned int i, s;
	u64 cost[3], alloc[2], free[2];
	int rc = pnode_service_grant(1, PNODE_REASON_RECLAIM, &grant);

	if (rc)
		return rc;
	rc = -EIO;
	for (i = 0; i < ARRAY_SIZE(orders); i++) {
		for (s = 0; s < ARRAY_SIZE(sides); s++) {
			cost[s] = pair(&sides[s], orders[i]);
			if (!cost[s])
				goto out;
		}
		pr_info("order %u, alloc and free: %s %llu, %s %llu, %llu permille, %s %llu of each\n",
			orders[i], sides[0].name, cost[0], sides[1].name, cost[1],
			div64_u64(1000 * cost[1], cost[0]), sides[2].name, cost[2]);
	}
	for (s = 0; s < 2; s++)
		if (!many(&sides[s], &alloc[s], &free[s]))
			goto out;
	pr_info("order 0, %u held, alloc: %s %llu, %s %llu, %llu %%\n", HELD, sides[0].name,
		alloc[0], sides[1].name, alloc[1], div64_u64(100 * alloc[1], alloc[0]));
	pr_info("order 0, %u held, free: %s %llu, %s %llu, %llu %%\n", HELD, sides[0].name,
		free[0], sides[1].name, free[1], div64_u64(100 * free[1], free[0]));
	rc = 0;
out:
	pnode_grant_put(grant);
	return rc;
}

static void __exit bench_exit(void)
{
}

module_init(bench_init);
module_exit(bench_exit);

MODULE_LICENSE("Dual MIT/GPL");
MODULE_DESCRIPTION("The cost of a frame: the page allocator beside a private node");
