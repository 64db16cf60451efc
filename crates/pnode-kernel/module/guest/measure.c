// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * What compressed pages cost and take, on any disk that keeps them.
 *
 * usage: measure write DISK        writes pages of each kind, reads them back, says what each cost
 *        measure out DISK          the same by way of the system's swap, which this disk becomes
 *        measure fill DISK         how many pages the disk takes until it is full
 *        measure job DISK PAGES    runs a job of so many pages whose swap this disk becomes; status 0 if it finished
 */
#define _GNU_SOURCE
#include "job.h"

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

static const char *disk;

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ull + time.tv_nsec;
}

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

static bool go_on(int what)
{
	(void)what;
	return true;
}

static int measure_job(unsigned long count)
{
	if (!make_swap(disk) || swapon(disk, 0))
		return 2;
	int status = run_job(count, go_on);

	return swapoff(disk) || rmdir("/cgroup/job") ? 2 : status != 0;
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc < 3)
		return 2;
	disk = argv[2];
	if (!strcmp(argv[1], "write"))
		return measure_writes();
	if (!strcmp(argv[1], "out"))
		return measure_swap();
	if (!strcmp(argv[1], "job"))
		return argc < 4 ? 2 : measure_job(atol(argv[3]));
	return measure_capacity();
}
