// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * A node's disk of compressed pages as the system's swap.
 *
 * usage: swap cases DEVICE      runs the cases, as KTAP on standard output
 *        swap make DEVICE PAGES FRAMES CHECKSUMS    makes the node's disk
 */
#define _GNU_SOURCE
#include <sys/ioctl.h>

#include "../../include/pnode_uapi.h"
#include "job.h"

static const char *device;
static char disk[32];

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

static uint64_t filled[2], changed[2];

static bool count_pages(int what)
{
	const char *const fields[2] = { "pages", "pool" };

	return read_state(fields, what ? changed : filled, 2);
}

static bool a_job_larger_than_memory_finishes(void)
{
	/* The group has 8 MiB, the job up to 40: the rest lies compressed on the node, in fewer frames than pages. */
	uint64_t before = free_frames();
	const unsigned long spare = before * 5 / 4, count = 2048 + (spare < 8192 ? spare : 8192);

	CHECK(make(16384, before, 1) == 0 && make_swap(disk) && swapon(disk, 0) == 0);
	CHECK(make(0, 0, 0) == -EBUSY);
	CHECK(run_job(count, count_pages) == 0);
	printf("# filled: %llu pages on the node in %llu frames; each changed twice: %llu in %llu\n",
	       (unsigned long long)filled[0], (unsigned long long)filled[1] / PAGE, (unsigned long long)changed[0],
	       (unsigned long long)changed[1] / PAGE);
	CHECK(filled[0] > (count - 2048) / 2 && filled[1] < filled[0] * PAGE * 3 / 4);
	/* Changing pages leaves holes, which those who save pages close as they go. */
	CHECK(changed[0] > (count - 2048) / 2 && changed[1] < changed[0] * PAGE * 3 / 4);
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

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc < 3)
		return 2;
	device = argv[2];
	snprintf(disk, sizeof(disk), "/dev/pnode_disk%s", device + strlen("/dev/pnode"));
	if (!strcmp(argv[1], "cases"))
		return run_cases(cases, sizeof(cases) / sizeof(*cases), take_disk_away);
	return argc < 6 ? 2 : make(atol(argv[3]), atol(argv[4]), atol(argv[5])) != 0;
}
