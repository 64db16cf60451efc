// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Every place in the module that asks the kernel for something and may be
 * refused passes pnode_fails() first. `fail_at=N` refuses at the N-th place
 * from now on, once; `fail_one_in=N` at each place with odds of 1 to N, in an
 * order that `fail_seed` decides. A test walks N from 1 upwards until the
 * failure no longer comes, and finds all places that its action passes.
 */
#include <linux/atomic.h>
#include <linux/bug.h>
#include <linux/module.h>
#include <linux/spinlock.h>

#include "pnode_fail.h"

static DEFINE_SPINLOCK(pnode_fail_lock);

static unsigned int fail_at;
module_param(fail_at, uint, 0600);
MODULE_PARM_DESC(fail_at, "Refuse at the N-th point of failure from now on; 0 again once that has happened");

static unsigned int fail_one_in;
module_param(fail_one_in, uint, 0600);
MODULE_PARM_DESC(fail_one_in, "Refuse at each point of failure with odds of 1 to N; 0 never");

static unsigned long long fail_seed = 1;
module_param(fail_seed, ullong, 0600);
MODULE_PARM_DESC(fail_seed, "Where the odds of fail_one_in begin");

static unsigned int failed;
module_param(failed, uint, 0400);
MODULE_PARM_DESC(failed, "How often that has happened");

static atomic_t pnode_memory;

bool pnode_fails(void)
{
	unsigned long flags;
	bool fails = false;

	if (likely(!READ_ONCE(fail_at) && !READ_ONCE(fail_one_in)))
		return false;
	spin_lock_irqsave(&pnode_fail_lock, flags);
	if (fail_at)
		fails = !--fail_at;
	if (fail_one_in) {
		/* Knuth's generator; its high bits are the good ones. */
		fail_seed = fail_seed * 6364136223846793005ull + 1442695040888963407ull;
		fails |= (u32)(fail_seed >> 33) % fail_one_in == 0;
	}
	failed += fails;
	spin_unlock_irqrestore(&pnode_fail_lock, flags);
	return fails;
}

void pnode_count_memory(int pieces)
{
	atomic_add(pieces, &pnode_memory);
}

void pnode_check_memory(void)
{
	WARN_ON(atomic_read(&pnode_memory));
}

static int pnode_memory_get(char *text, const struct kernel_param *param)
{
	return sysfs_emit(text, "%d\n", atomic_read(&pnode_memory));
}

static const struct kernel_param_ops pnode_memory_ops = {
	.get = pnode_memory_get,
};
module_param_cb(memory, &pnode_memory_ops, NULL, 0400);
MODULE_PARM_DESC(memory, "Pieces of memory that the Rust half has from the kernel");
