// SPDX-License-Identifier: GPL-2.0 OR MIT
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bug.h>
#include <linux/build_bug.h>
#include <linux/cpumask.h>
#include <linux/irqflags.h>
#include <linux/ktime.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/preempt.h>
#include <linux/printk.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include "pnode_fail.h"
#include "pnode_host.h"

/* src/lib.rs gives a lock this much room, aligned to a word. */
static_assert(sizeof(struct pnode_host_lock) <= 16);
static_assert(__alignof__(struct pnode_host_lock) <= 8);

/* Zeroed memory. May sleep. */
void *pnode_host_alloc(size_t bytes, size_t align)
{
	void *memory;

	if (pnode_fails() || align > PAGE_SIZE || bytes > SZ_1G)
		return NULL;
	/* The slab allocator aligns a power of two to its size. */
	if (align > ARCH_KMALLOC_MINALIGN)
		bytes = roundup_pow_of_two(max(bytes, align));
	memory = kvzalloc(bytes, GFP_KERNEL);
	pnode_count_memory(!!memory);
	return memory;
}

void pnode_host_free(void *memory)
{
	pnode_count_memory(-!!memory);
	kvfree(memory);
}

void pnode_host_log(u32 level, const char *text, size_t bytes)
{
	int width = min_t(size_t, bytes, 1000);

	switch (level) {
	case PNODE_HOST_ERROR:
		pr_err("%.*s\n", width, text);
		break;
	case PNODE_HOST_REPORT:
		pr_info("ktap: %.*s\n", width, text);
		break;
	default:
		pr_info("%.*s\n", width, text);
		break;
	}
}

/* The end of a Rust panic: an oops with its text, and with the stack of who panicked. */
void pnode_host_bug(const char *text, size_t bytes)
{
	pr_emerg("%.*s\n", (int)min_t(size_t, bytes, 1000), text);
	BUG();
}

void pnode_host_relax(void)
{
	cond_resched();
}

/* One more than the largest number of a CPU. */
u32 pnode_host_cpus(void)
{
	return nr_cpu_ids;
}

DEFINE_PER_CPU(u32, pnode_host_cpu);

void pnode_host_init(void)
{
	unsigned int cpu;

	for_each_possible_cpu(cpu)
		per_cpu(pnode_host_cpu, cpu) = cpu;
}

u64 pnode_host_nanoseconds(void)
{
	return ktime_get_ns();
}

void pnode_host_lock(struct pnode_host_lock *lock)
{
	unsigned long flags;

	local_irq_save(flags);
	preempt_disable();
	arch_spin_lock(&lock->lock);
	lock->flags = flags;
}

bool pnode_host_try_lock(struct pnode_host_lock *lock)
{
	unsigned long flags;

	local_irq_save(flags);
	preempt_disable();
	if (arch_spin_trylock(&lock->lock)) {
		lock->flags = flags;
		return true;
	}
	local_irq_restore(flags);
	preempt_enable();
	return false;
}

void pnode_host_unlock(struct pnode_host_lock *lock)
{
	unsigned long flags = lock->flags;

	arch_spin_unlock(&lock->lock);
	local_irq_restore(flags);
	preempt_enable();
}
