/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A node as a process sees it: its device, its pages, and memory that moves to it. */
#ifndef PNODE_NODE_H
#define PNODE_NODE_H

#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "../../include/pnode_uapi.h"
#include "case.h"

/* Pages that most cases use, and pages of a huge one. */
#define PAGES 64ul
#define RUN 512ul

static const char *device, *driver, *name;

static sigjmp_buf on_bus_error;

static inline void bus_error(int signal)
{
	(void)signal;
	siglongjmp(on_bus_error, 1);
}

/* Touches a byte; false if that raised SIGBUS. */
static inline bool touch(volatile unsigned char *at, int value)
{
	if (sigsetjmp(on_bus_error, 1))
		return false;
	*at = value;
	return true;
}

static inline struct pnode_query query(int fd)
{
	struct pnode_query answer = { 0 };

	if (ioctl(fd, PNODE_IOC_QUERY, &answer))
		answer.page_size = 0;
	return answer;
}

static inline unsigned char *map(int fd, unsigned long pages)
{
	return mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
}

/* The frame behind an address of this process, 0 if there is none. */
static inline uint64_t pfn_of(const volatile void *address)
{
	static int pagemap = -1;
	static pid_t owner;
	uint64_t entry = 0;

	/* A child would go on to read its parent's. */
	if (owner != getpid()) {
		close(pagemap);
		pagemap = open("/proc/self/pagemap", O_RDONLY);
		owner = getpid();
	}
	if (pread(pagemap, &entry, sizeof(entry), (uintptr_t)address / PAGE * sizeof(entry)) != sizeof(entry))
		return 0;
	return entry >> 63 ? entry & ((1ull << 55) - 1) : 0;
}

/* Whether an address of ordinary memory, which has a frame that can be known, has one of the node's. */
static inline bool is_stray(struct pnode_query node, const volatile void *address)
{
	uint64_t pfn = pfn_of(address);

	return pfn == 0 || (pfn >= node.first_pfn && pfn < node.first_pfn + node.managed);
}

static uint64_t numbers = 0x9e3779b97f4a7c15;

static inline uint64_t next(void)
{
	numbers ^= numbers << 13;
	numbers ^= numbers >> 7;
	numbers ^= numbers << 17;
	return numbers;
}

/* A page of anonymous memory says which one it is, and how often it was changed. */
static inline void sign(unsigned char *pages, unsigned long page, unsigned long version)
{
	uint64_t *words = (uint64_t *)(pages + page * PAGE);

	for (unsigned long i = 0; i < PAGE / 8; i++)
		words[i] = version << 48 | page << 16 | i;
}

static inline bool is_signed(const unsigned char *pages, unsigned long page, unsigned long version)
{
	const uint64_t *words = (const uint64_t *)(pages + page * PAGE);

	for (unsigned long i = 0; i < PAGE / 8; i++)
		if (words[i] != (version << 48 | page << 16 | i))
			return false;
	return true;
}

static inline void sign_all(unsigned char *pages, unsigned long count, unsigned long version)
{
	for (unsigned long p = 0; p < count; p++)
		sign(pages, p, version);
}

static inline bool all_signed(const unsigned char *pages, unsigned long count, unsigned long version)
{
	for (unsigned long p = 0; p < count; p++)
		if (!is_signed(pages, p, version))
			return false;
	return true;
}

static inline unsigned char *anonymous(unsigned long pages)
{
	unsigned char *memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	/* Huge pages move as well, but are not what is counted here. */
	madvise(memory, pages * PAGE, MADV_NOHUGEPAGE);
	return memory;
}

/* How many pages of anonymous memory moved; -1 if the call failed. */
static inline long move(int fd, unsigned long command, void *memory, unsigned long pages)
{
	struct pnode_move span = { .address = (uintptr_t)memory, .bytes = pages * PAGE };

	return ioctl(fd, command, &span) ? -1 : (long)span.moved;
}

/*
 * Moves pages until so many have moved; a single call leaves those out that the
 * kernel looks at just then.
 */
static inline bool all_move(int fd, unsigned long command, void *memory, unsigned long pages, long wanted)
{
	time_t patience = seconds() + PATIENCE;
	long moved = 0, part = 0;

	while (moved < wanted && part >= 0 && seconds() <= patience) {
		part = move(fd, command, memory, pages);
		moved += part;
	}
	return moved == wanted;
}

/* How many of the pages lie on the node. */
static inline unsigned long on_node(struct pnode_query node, const unsigned char *memory, unsigned long pages)
{
	unsigned long count = 0;

	for (unsigned long p = 0; p < pages; p++) {
		uint64_t pfn = pfn_of(memory + p * PAGE);

		count += pfn >= node.first_pfn && pfn < node.first_pfn + node.managed;
	}
	return count;
}

/* Unbinds the device from its driver, or binds it again. */
static inline bool plug(const char *what)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", driver, what);
	return write_to(path, name);
}

#endif
