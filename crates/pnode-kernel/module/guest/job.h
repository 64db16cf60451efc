/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Pages like those of memory, and a job that needs more of them than it may have. */
#ifndef PNODE_JOB_H
#define PNODE_JOB_H

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/swap.h>

#include "case.h"

/* The kinds of pages that are measured. */
enum kind { TEXT, POINTERS, CODE, OBJECT, WORD, RANDOM, KINDS };
static const char *const names[KINDS] = { "text", "pointers", "code", "object", "one word", "random" };

static uint64_t numbers;

static inline uint64_t next(void)
{
	numbers ^= numbers << 13;
	numbers ^= numbers >> 7;
	numbers ^= numbers << 17;
	return numbers;
}

/* Page `number` of a file that every guest has, from its middle on, where code lies. */
static inline void from_file(const char *path, unsigned long number, unsigned char *page)
{
	int fd = open(path, O_RDONLY);
	struct stat about;
	unsigned long pages = fd < 0 || fstat(fd, &about) ? 0 : about.st_size / PAGE;

	if (pages < 8 ||
	    pread(fd, page, PAGE, (pages / 4 + number % (pages / 2)) * PAGE) != PAGE) {
		printf("# %s is of no use: %s\n", path, strerror(errno));
		exit(1);
	}
	close(fd);
}

static inline void fill(enum kind kind, unsigned long number, unsigned char *page)
{
	uint64_t *words = (uint64_t *)page;

	numbers = (number + 1) * 0x9e3779b97f4a7c15 | 1;
	switch (kind) {
	case TEXT:
		for (unsigned long at = 0; at < PAGE;) {
			static const char *const said[] = { "reset link", "queue is full", "memory at", "irq",
							    "timeout, retry" };
			char line[96];
			int length = sprintf(line, "[%5lu.%06lu] nic 0000:00:%02lx.0: %s %lu\n",
					     (unsigned long)(number + at / 64), (unsigned long)(next() % 1000000),
					     (unsigned long)(next() % 32), said[next() % 5],
					     (unsigned long)(next() % 4096));

			memcpy(page + at, line, at + length > PAGE ? PAGE - at : (unsigned long)length);
			at += length;
		}
		break;
	case POINTERS:
		/* As nodes of a tree: two pointers into a heap, a small number, flags. */
		for (unsigned long i = 0; i < PAGE / 8; i++)
			words[i] = i % 4 < 2 ? 0x7f3a50000000 | next() % (1 << 22) << 5 :
				   i % 4 == 2 ? next() % 1000 : 0;
		break;
	case CODE:
		from_file("/bin/busybox", number, page);
		break;
	case OBJECT:
		from_file("/modules/pnode.ko", number, page);
		break;
	case WORD:
		for (unsigned long i = 0; i < PAGE / 8; i++)
			words[i] = number % 2 ? number : 0;
		break;
	default:
		for (unsigned long i = 0; i < PAGE / 8; i++)
			words[i] = next();
	}
}

/* What memory holds: mostly what compresses to a half or a third, some that does not. */
static inline enum kind mixed(unsigned long number)
{
	static const enum kind kinds[] = { TEXT, POINTERS, CODE, OBJECT, POINTERS, WORD, CODE, TEXT };

	return number % 32 == 7 ? RANDOM : kinds[number % 8];
}

static inline unsigned char *pages_of(unsigned long count)
{
	return mmap(NULL, count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
}

static inline bool make_swap(const char *path)
{
	/* The header that the kernel looks for, version 1, without bad pages. */
	static unsigned char header[PAGE] __attribute__((aligned(4096)));
	uint32_t *info = (uint32_t *)(header + 1024);
	int fd = open(path, O_RDWR);
	off_t bytes = lseek(fd, 0, SEEK_END);

	if (fd < 0 || bytes < 16 * (off_t)PAGE)
		return false;
	info[0] = 1;
	info[1] = bytes / PAGE - 1;
	memcpy(header + PAGE - 10, "SWAPSPACE2", 10);
	bool done = pwrite(fd, header, PAGE, 0) == PAGE && fsync(fd) == 0;
	close(fd);
	return done;
}

/* Tells the parent that a step is done, and goes on when it says so. */
static inline void step(int channel)
{
	char byte = 0;

	if (write(channel, &byte, 1) != 1 || read(channel, &byte, 1) != 1)
		_exit(3);
}

/* Fills more memory than the group may have, then reads and changes all of it in another order, twice. */
static inline int job(unsigned long count, int channel)
{
	unsigned char *pages = mmap(NULL, count * PAGE, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	static unsigned char expected[PAGE];

	for (unsigned long p = 0; p < count; p++)
		fill(mixed(p), p, pages + p * PAGE);
	step(channel);
	for (unsigned long round = 1; round <= 2; round++)
		for (unsigned long i = 0; i < count; i++) {
			unsigned long p = i * 7919 % count;

			fill(mixed(p + round - 1), p, expected);
			if (memcmp(pages + p * PAGE, expected, PAGE))
				return 1;
			fill(mixed(p + round), p, pages + p * PAGE);
		}
	step(channel);
	return 0;
}

/*
 * Runs the job in a memory control group of 8 MiB, with swap elsewhere, and has
 * `at` called with `what` when it has filled its pages, and when it has changed
 * them. Its wait status, -1 if it could not begin.
 */
static inline int run_job(unsigned long count, bool (*at)(int what))
{
	int channel[2];
	char byte;

	if (mkdir("/cgroup", 0700) && errno != EEXIST)
		return -1;
	if (!write_to("/cgroup/cgroup.subtree_control", "+memory") ||
	    (mkdir("/cgroup/job", 0700) && errno != EEXIST) ||
	    !write_to("/cgroup/job/memory.max", "8388608") ||
	    socketpair(AF_UNIX, SOCK_STREAM, 0, channel))
		return -1;
	pid_t child = start_child();
	if (child == 0) {
		close(channel[0]);
		if (!write_to("/cgroup/job/cgroup.procs", "0"))
			_exit(2);
		_exit(job(count, channel[1]));
	}
	close(channel[1]);
	/* It stands still while its pages are counted; if it ended before that, it says so by its status. */
	for (int what = 0; what < 2 && read(channel[0], &byte, 1) == 1; what++)
		if (!at(what) || write(channel[0], &byte, 1) != 1)
			break;
	close(channel[0]);
	return end_of_child(child, 0);
}

#endif
