// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * A node's disk of compressed pages as the system's swap.
 *
 * usage: swap cases DEVICE      runs the cases, as KTAP on standard output
 *        swap make DEVICE PAGES FRAMES CHECKSUMS    makes the node's disk
 *        swap write DISK        writes pages of each kind to a disk, reads them back, says what each cost
 *        swap out DISK          the same by way of the system's swap, which this disk becomes
 *        swap fill DISK         how many pages a disk takes until it is full
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/swap.h>

#include "../../include/pnode_uapi.h"
#include "case.h"

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

static const char *device;
static char disk[32];

/* The kinds of pages that are measured. */
enum kind { TEXT, POINTERS, CODE, OBJECT, WORD, RANDOM, KINDS };
static const char *const names[KINDS] = { "text", "pointers", "code", "object", "one word", "random" };

static uint64_t numbers;

static uint64_t next(void)
{
	numbers ^= numbers << 13;
	numbers ^= numbers >> 7;
	numbers ^= numbers << 17;
	return numbers;
}

/* Page `number` of a file that every guest has, from its middle on, where code lies. */
static void from_file(const char *path, unsigned long number, unsigned char *page)
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

static void fill(enum kind kind, unsigned long number, unsigned char *page)
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
static enum kind mixed(unsigned long number)
{
	static const enum kind kinds[] = { TEXT, POINTERS, CODE, OBJECT, POINTERS, WORD, CODE, TEXT };

	return number % 32 == 7 ? RANDOM : kinds[number % 8];
}

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static unsigned char *pages_of(unsigned long count)
{
	return mmap(NULL, count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
}

static int make(uint64_t pages, uint64_t frames, unsigned int checksums)
{
	struct pnode_disk_setup setup = { .pages = pages, .frames = frames, .checksums = checksums };
	int fd = open(device, O_RDWR), rc = ioctl(fd, PNODE_IOC_DISK, &setup), error = errno;

	close(fd);
	errno = error;
	return rc ? -error : 0;
}

static uint64_t free_frames(void)
{
	struct pnode_query node = { 0 };
	int fd = open(device, O_RDWR);

	if (ioctl(fd, PNODE_IOC_QUERY, &node))
		node.free = 0;
	close(fd);
	return node.free;
}

/* The numbers of some fields of the disk's state in debugfs, all of one moment; false if one is not there. */
static bool read_state(const char *const *fields, uint64_t *values, int count)
{
	char path[64], line[64], name[32];
	unsigned long long found;
	int filled = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/sys/kernel/debug/pnode/%s", strrchr(disk, '/') + 1);
	file = fopen(path, "r");
	while (file && fgets(line, sizeof(line), file))
		for (int i = 0; i < count; i++)
			if (sscanf(line, "%31s %llu", name, &found) == 2 && !strcmp(name, fields[i])) {
				values[i] = found;
				filled++;
			}
	if (file)
		fclose(file);
	return filled == count;
}

static uint64_t state(const char *field)
{
	uint64_t value;

	return read_state(&field, &value, 1) ? value : UINT64_MAX;
}

static bool make_swap(const char *path)
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

static bool a_disk_keeps_what_is_written(void)
{
	const unsigned long count = 512;
	unsigned char *page = pages_of(2), *back = page + PAGE;
	int fd;

	CHECK(make(4096, UINT64_MAX, 1) == -EINVAL && make(4096, 2, 1) == -EINVAL && make(4096, 1024, 7) == -EINVAL);
	CHECK(make(0, 0, 0) == -ENXIO);
	CHECK(make(4096, 1024, 1) == 0 && make(4096, 1024, 1) == -EEXIST);
	for (int direct = 0; direct < 2; direct++) {
		fd = open(disk, O_RDWR | (direct ? O_DIRECT : 0));
		CHECK(fd >= 0 && lseek(fd, 0, SEEK_END) == 4096 * (off_t)PAGE);
		CHECK(make(0, 0, 0) == -EBUSY);
		/* What was never written is zeroes. */
		CHECK(pread(fd, back, PAGE, (4000 + direct) * PAGE) == PAGE);
		for (unsigned long b = 0; b < PAGE; b++)
			CHECK(back[b] == 0);
		for (unsigned long p = 0; p < count; p++) {
			fill(mixed(p + direct), p, page);
			CHECK(pwrite(fd, page, PAGE, p * PAGE) == PAGE);
		}
		CHECK(fsync(fd) == 0 && posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0);
		for (unsigned long p = 0; p < count; p++) {
			fill(mixed(p + direct), p, page);
			CHECK(pread(fd, back, PAGE, p * PAGE) == PAGE && memcmp(page, back, PAGE) == 0);
		}
		close(fd);
	}
	CHECK(state("pages") == count && state("pool") < count * PAGE && state("compressed") < state("pool"));
	CHECK(free_frames() > 0);
	/* Discarding a range empties it. */
	fd = open(disk, O_RDWR | O_DIRECT);
	uint64_t range[2] = { 0, count / 2 * PAGE };
	CHECK(ioctl(fd, 0x1277 | 0, range) == 0);
	CHECK(state("pages") == count / 2);
	CHECK(pread(fd, back, PAGE, 5 * PAGE) == PAGE && back[0] == 0 && back[PAGE - 1] == 0);
	close(fd);
	CHECK(make(0, 0, 0) == 0 && access(disk, F_OK) == -1);
	munmap(page, 2 * PAGE);
	return true;
}

static bool a_full_disk_fails_the_write(void)
{
	const unsigned long frames = 256;
	unsigned char *page = pages_of(2), *back = page + PAGE;
	unsigned long held = 0;
	uint64_t before = free_frames();
	int fd;

	CHECK(make(4096, frames, 0) == 0);
	fd = open(disk, O_RDWR | O_DIRECT);
	for (;; held++) {
		fill(RANDOM, held, page);
		if (pwrite(fd, page, PAGE, held * PAGE) != PAGE)
			break;
	}
	CHECK(errno == ENOSPC && held == frames && state("refused") > 0);
	CHECK(free_frames() == before - frames);
	for (unsigned long p = 0; p < held; p++) {
		fill(RANDOM, p, page);
		CHECK(pread(fd, back, PAGE, p * PAGE) == PAGE && memcmp(page, back, PAGE) == 0);
	}
	close(fd);
	CHECK(make(0, 0, 0) == 0 && free_frames() == before);
	munmap(page, 2 * PAGE);
	return true;
}

/* Tells the parent that a step is done, and goes on when it says so. */
static void step(int channel)
{
	char byte = 0;

	if (write(channel, &byte, 1) != 1 || read(channel, &byte, 1) != 1)
		_exit(3);
}

/* Fills more memory than the group may have, then reads and changes all of it in another order, twice. */
static int job(unsigned long count, int channel)
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

static bool a_job_larger_than_memory_finishes(void)
{
	/* The group has 8 MiB, the job up to 40: the rest lies compressed on the node, in fewer frames than pages. */
	const char *const fields[2] = { "pages", "pool" };
	uint64_t before = free_frames(), filled[2], changed[2];
	const unsigned long spare = before * 5 / 4, count = 2048 + (spare < 8192 ? spare : 8192);
	int channel[2];
	char byte;

	CHECK(make(16384, before, 1) == 0 && make_swap(disk) && swapon(disk, 0) == 0);
	CHECK(make(0, 0, 0) == -EBUSY);
	CHECK(mkdir("/cgroup", 0700) == 0 || errno == EEXIST);
	CHECK(write_to("/cgroup/cgroup.subtree_control", "+memory"));
	CHECK(mkdir("/cgroup/job", 0700) == 0 || errno == EEXIST);
	CHECK(write_to("/cgroup/job/memory.max", "8388608"));
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, channel) == 0);
	pid_t child = start_child();
	if (child == 0) {
		close(channel[0]);
		if (!write_to("/cgroup/job/cgroup.procs", "0"))
			_exit(2);
		_exit(job(count, channel[1]));
	}
	close(channel[1]);
	/* It stands still while its pages are counted; if it ended before that, it says so by its status. */
	if (read(channel[0], &byte, 1) == 1) {
		CHECK(read_state(fields, filled, 2) && write(channel[0], &byte, 1) == 1);
		if (read(channel[0], &byte, 1) == 1)
			CHECK(read_state(fields, changed, 2) && write(channel[0], &byte, 1) == 1);
	}
	close(channel[0]);
	CHECK(end_of_child(child, 0) == 0);
	printf("# filled: %llu pages on the node in %llu frames; each changed twice: %llu in %llu\n",
	       (unsigned long long)filled[0], (unsigned long long)filled[1] / PAGE, (unsigned long long)changed[0],
	       (unsigned long long)changed[1] / PAGE);
	CHECK(filled[0] > (count - 2048) / 2 && filled[1] < filled[0] * PAGE * 3 / 4);
	/* Changing pages leaves holes, which the shrinker closes only when the whole machine is short of memory. */
	CHECK(changed[0] > (count - 2048) / 2);
	/* What the job had swapped out goes with it, but for what each CPU keeps to free later, and the header. */
	EVENTUALLY(state("pages") <= 1 + 256ul * sysconf(_SC_NPROCESSORS_CONF));
	CHECK(swapoff(disk) == 0 && make(0, 0, 0) == 0 && free_frames() == before);
	CHECK(rmdir("/cgroup/job") == 0);
	return true;
}

/* A disk that is left behind would keep the module, and all that comes after. */
static void take_disk_away(void)
{
	swapoff(disk);
	rmdir("/cgroup/job");
	make(0, 0, 0);
}

static const struct test_case cases[] = {
	{ "a disk keeps what is written to it, and forgets what is discarded", a_disk_keeps_what_is_written },
	{ "a full disk fails the write, and keeps all it had", a_full_disk_fails_the_write },
	{ "a job larger than its memory finishes, with its swap on the node", a_job_larger_than_memory_finishes },
};

/* One page at a time by direct I/O. */
static int measure_writes(void)
{
	const unsigned long count = 512;
	unsigned char *pages = pages_of(count), *back = pages_of(1);
	int fd = open(disk, O_RDWR | O_DIRECT);

	for (int kind = 0; kind < KINDS; kind++) {
		uint64_t begin, written, read;

		for (unsigned long p = 0; p < count; p++)
			fill(kind, p, pages + p * PAGE);
		begin = now();
		for (unsigned long p = 0; p < count; p++)
			if (pwrite(fd, pages + p * PAGE, PAGE, (kind * count + p) * PAGE) != PAGE)
				return 1;
		written = now();
		for (unsigned long p = 0; p < count; p++)
			if (pread(fd, back, PAGE, (kind * count + p) * PAGE) != PAGE)
				return 1;
		read = now();
		for (unsigned long p = 0; p < count; p++)
			if (pread(fd, back, PAGE, (kind * count + p) * PAGE) != PAGE ||
			    memcmp(back, pages + p * PAGE, PAGE))
				return 1;
		printf("%s %llu %llu\n", names[kind], (unsigned long long)(written - begin) / count,
		       (unsigned long long)(read - written) / count);
	}
	return 0;
}

/* By way of swap: pages are pushed out, and come back when they are touched. */
static int measure_swap(void)
{
	const unsigned long count = 512;
	static unsigned char expected[PAGE];

	if (!make_swap(disk) || swapon(disk, 0))
		return 1;
	for (int kind = 0; kind < KINDS; kind++) {
		unsigned char *pages = pages_of(count);
		uint64_t begin, out, in;

		for (unsigned long p = 0; p < count; p++)
			fill(kind, p, pages + p * PAGE);
		begin = now();
		if (madvise(pages, count * PAGE, MADV_PAGEOUT))
			return 1;
		out = now();
		for (unsigned long p = 0; p < count; p++)
			(void)*(volatile unsigned char *)(pages + p * PAGE);
		in = now();
		for (unsigned long p = 0; p < count; p++) {
			fill(kind, p, expected);
			if (memcmp(pages + p * PAGE, expected, PAGE))
				return 1;
		}
		printf("%s %llu %llu\n", names[kind], (unsigned long long)(out - begin) / count,
		       (unsigned long long)(in - out) / count);
		munmap(pages, count * PAGE);
	}
	return swapoff(disk) != 0;
}

static int measure_capacity(void)
{
	unsigned char *page = pages_of(1);
	int fd = open(disk, O_RDWR | O_DIRECT);
	unsigned long held = 0;

	for (;; held++) {
		fill(mixed(held), held, page);
		if (pwrite(fd, page, PAGE, held * PAGE) != PAGE)
			break;
	}
	printf("%lu\n", held);
	return 0;
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc < 3)
		return 2;
	if (!strcmp(argv[1], "cases") || !strcmp(argv[1], "make")) {
		device = argv[2];
		snprintf(disk, sizeof(disk), "/dev/pnode_disk%s", device + strlen("/dev/pnode"));
		if (argv[1][0] == 'c')
			return run_cases(cases, sizeof(cases) / sizeof(*cases), take_disk_away);
		return argc < 6 ? 2 : make(atol(argv[3]), atol(argv[4]), atol(argv[5])) != 0;
	}
	snprintf(disk, sizeof(disk), "%s", argv[2]);
	if (!strcmp(argv[1], "write"))
		return measure_writes();
	if (!strcmp(argv[1], "out"))
		return measure_swap();
	return measure_capacity();
}
