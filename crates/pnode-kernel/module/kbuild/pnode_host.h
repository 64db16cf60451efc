/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * What the Rust half asks of the kernel. Inline functions and macros of the
 * kernel have no symbol, so each one that is needed has a function here.
 */
#ifndef PNODE_HOST_H
#define PNODE_HOST_H

#include <linux/percpu.h>
#include <linux/spinlock.h>
#include <linux/types.h>

enum pnode_host_level {
	PNODE_HOST_ERROR,
	PNODE_HOST_INFO,
	/* A line of the self-test's report. */
	PNODE_HOST_REPORT,
};

/*
 * A lock whose unlocked state is all zeroes and which may move while nobody
 * holds it: that is what the Rust half's locks are made as. It is taken with
 * interrupts off; the holder keeps their former state beside it.
 */
struct pnode_host_lock {
	arch_spinlock_t lock;
	unsigned long flags;
};

void *pnode_host_alloc(size_t bytes, size_t align);
void pnode_host_free(void *memory);
void pnode_host_log(u32 level, const char *text, size_t bytes);
void pnode_host_bug(const char *text, size_t bytes) __noreturn;
void pnode_host_relax(void);
u32 pnode_host_cpus(void);
/*
 * The number of the CPU, read by the Rust half in line. What it reads is where
 * it runs or ran a moment ago: it may be moved at any time.
 */
DECLARE_PER_CPU(u32, pnode_host_cpu);
/* Fills that in; before anything else of the Rust half is called. */
void pnode_host_init(void);
u64 pnode_host_nanoseconds(void);
void pnode_host_lock(struct pnode_host_lock *lock);
bool pnode_host_try_lock(struct pnode_host_lock *lock);
void pnode_host_unlock(struct pnode_host_lock *lock);

#endif
