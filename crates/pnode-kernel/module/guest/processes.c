// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * /dev/pnodeN as a process sees it, as KTAP on standard output.
 *
 * usage: processes DEVICE DRIVER NAME   runs the cases; the device has this name for the driver in this folder of sysfs
 *        processes DEVICE               leaves a mark in each of 64 pages, for the machine outside to find in the
 *                                       device's memory
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "../../include/pnode_uapi.h"
#include "case.h"

#define PAGES 64ul

static const char *device, *driver, *name;

static sigjmp_buf on_bus_error;

static void bus_error(int signal)
{
	(void)signal;
	siglongjmp(on_bus_error, 1);
}

/* Touches a byte; false if that raised SIGBUS. */
static bool touch(volatile unsigned char *at, int value)
{
	if (sigsetjmp(on_bus_error, 1))
		return false;
	*at = value;
	return true;
}

static struct pnode_query query(int fd)
{
	struct pnode_query answer = { 0 };

	if (ioctl(fd, PNODE_IOC_QUERY, &answer))
		answer.page_size = 0;
	return answer;
}

static unsigned char *map(int fd, unsigned long pages)
{
	return mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
}

/* The frame behind an address of this process, 0 if there is none. */
static uint64_t pfn_of(const volatile void *address)
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
static bool is_stray(struct pnode_query node, const volatile void *address)
{
	uint64_t pfn = pfn_of(address);

	return pfn == 0 || (pfn >= node.first_pfn && pfn < node.first_pfn + node.managed);
}

static bool pages_are_frames_of_the_node(void)
{
	int fd = open(device, O_RDWR);
	struct pnode_query node = query(fd);
	unsigned char *pages = map(fd, PAGES);

	CHECK(fd >= 0 && node.page_size == PAGE && pages != MAP_FAILED);
	CHECK(node.free == node.managed && node.held_by_file == 0);
	for (unsigned long p = 0; p < PAGES; p++) {
		for (unsigned long b = 0; b < PAGE; b++)
			CHECK(pages[p * PAGE + b] == 0);
		CHECK(query(fd).held_by_file == p + 1 && query(fd).free == node.managed - p - 1);
		memset(pages + p * PAGE, p + 1, PAGE);
	}
	for (unsigned long p = 0; p < PAGES; p++)
		for (unsigned long b = 0; b < PAGE; b++)
			CHECK(pages[p * PAGE + b] == p + 1);
	close(fd);
	/* The mapping holds the file. */
	CHECK(touch(pages, 1));
	CHECK(munmap(pages, PAGES * PAGE) == 0);
	fd = open(device, O_RDWR);
	CHECK(query(fd).free == node.managed);
	close(fd);
	return true;
}

static bool the_file_is_one_object(void)
{
	int fd = open(device, O_RDWR);
	unsigned char *one = map(fd, PAGES), *two = map(fd, PAGES), *moved;

	CHECK(one != MAP_FAILED && two != MAP_FAILED);
	for (unsigned long p = 0; p < PAGES; p++)
		one[p * PAGE] = p + 1;
	CHECK(two[7 * PAGE] == 8 && query(fd).held_by_file == PAGES);

	pid_t child = start_child();
	if (child == 0) {
		two[9 * PAGE] = 99;
		_exit(one[8 * PAGE] == 9 ? 0 : 1);
	}
	CHECK(end_of_child(child, 0) == 0);
	CHECK(one[9 * PAGE] == 99);

	/* What was mapped stays in the object. */
	munmap(one, PAGES * PAGE);
	munmap(two, PAGES * PAGE);
	one = map(fd, PAGES);
	CHECK(one[63 * PAGE] == 64);
	moved = mremap(one, PAGES * PAGE, PAGES * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)0x700000000000);
	CHECK(moved != MAP_FAILED && moved[62 * PAGE] == 63);
	CHECK(mremap(moved, PAGES * PAGE, 2 * PAGES * PAGE, MREMAP_MAYMOVE) == MAP_FAILED);
	munmap(moved, PAGES * PAGE);
	close(fd);
	return true;
}

static bool private_mappings_and_pins_are_refused(void)
{
	int fd = open(device, O_RDWR);
	unsigned char byte, *page = map(fd, 1);
	struct iovec to = { &byte, 1 }, from = { page, 1 };

	CHECK(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0) == MAP_FAILED && errno == EINVAL);
	page[0] = 1;
	CHECK(process_vm_readv(getpid(), &to, 1, &from, 1, 0) == -1 && errno == EFAULT);
	munmap(page, PAGE);
	close(fd);
	return true;
}

static bool a_full_node_raises_sigbus(void)
{
	int fd = open(device, O_RDWR);
	struct pnode_query node = query(fd);
	unsigned char *pages = map(fd, node.managed + 1);
	struct pnode_span span = { .first = 3, .pages = 5 };

	CHECK(pages != MAP_FAILED);
	for (unsigned long p = 0; p < node.managed; p++)
		CHECK(touch(pages + p * PAGE, 0x5a));
	CHECK(query(fd).free == 0);
	CHECK(!touch(pages + node.managed * PAGE, 1));
	/* Pages that are given back come again, empty. */
	CHECK(ioctl(fd, PNODE_IOC_FREE, &span) == 0 && query(fd).free == 5);
	CHECK(touch(pages + node.managed * PAGE, 1) && query(fd).free == 4);
	CHECK(pages[3 * PAGE] == 0 && query(fd).free == 3);
	munmap(pages, (node.managed + 1) * PAGE);
	CHECK(query(fd).held_by_file == node.managed - 3);
	close(fd);
	fd = open(device, O_RDWR);
	CHECK(query(fd).free == node.managed);
	close(fd);
	return true;
}

static uint64_t numbers = 0x9e3779b97f4a7c15;

static uint64_t next(void)
{
	numbers ^= numbers << 13;
	numbers ^= numbers >> 7;
	numbers ^= numbers << 17;
	return numbers;
}

static bool hostile_calls_are_refused(void)
{
	static const uint64_t edges[] = { 0, 1, 63, 1ull << 32, 1ull << 51, 1ull << 52, INT64_MAX, UINT64_MAX };
	int fd = open(device, O_RDWR);
	unsigned char *pages = map(fd, PAGES);

	for (unsigned long i = 0; i < 20000; i++) {
		struct pnode_span span = { next(), next() };
		unsigned long command = next(), argument = next();

		if (next() % 2)
			span = (struct pnode_span){ edges[next() % 8], edges[next() % 8] };
		switch (next() % 4) {
		case 0:
			ioctl(fd, command, argument);
			break;
		case 1:
			/* Never an address of this process: those have the top bit clear. */
			CHECK(ioctl(fd, next() % 2 ? PNODE_IOC_QUERY : PNODE_IOC_FREE, argument | 1ul << 63) == -1);
			CHECK(errno == EFAULT);
			break;
		case 2:
			if (next() % 2) {
				struct pnode_move wild = { .address = span.first, .bytes = span.pages };

				/* Whatever this process has may move; most is refused. */
				ioctl(fd, next() % 2 ? PNODE_IOC_MOVE_IN : PNODE_IOC_MOVE_OUT, &wild);
			}
			if (ioctl(fd, PNODE_IOC_FREE, &span) == 0)
				CHECK(span.pages != 0 && span.first + span.pages > span.first);
			break;
		default:
			pages[next() % PAGES * PAGE] = 1;
		}
	}
	CHECK(query(fd).page_size == PAGE);
	munmap(pages, PAGES * PAGE);
	close(fd);
	return true;
}

/* Until the OOM killer acts, ordinary memory never comes from the node: anonymous pages and page cache, by frame. */
static bool exhausted_memory_stays_out(void)
{
	int fd = open(device, O_RDWR), status;
	struct pnode_query node = query(fd);
	struct { volatile unsigned long anonymous, cached, stray; } *seen =
		mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	pid_t child = start_child();
	if (child == 0) {
		int score = open("/proc/self/oom_score_adj", O_WRONLY), cache = memfd_create("cache", 0);
		unsigned long span = 1ul << 34;
		unsigned char *anonymous = mmap(NULL, span, PROT_READ | PROT_WRITE,
						MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		unsigned char *cached;

		if (write(score, "1000", 4) != 4 || ftruncate(cache, span))
			_exit(1);
		cached = mmap(NULL, span, PROT_READ | PROT_WRITE, MAP_SHARED, cache, 0);
		for (unsigned long p = 0; p < span / PAGE; p++) {
			anonymous[p * PAGE] = 1;
			seen->stray += is_stray(node, anonymous + p * PAGE);
			seen->anonymous++;
			if (p % 4 == 0) {
				cached[p * PAGE] = 1;
				seen->stray += is_stray(node, cached + p * PAGE);
				seen->cached++;
			}
		}
		_exit(0);
	}
	status = end_of_child(child, 0);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	printf("# %lu anonymous pages and %lu of page cache until the OOM killer acted, %lu on the node\n",
	       seen->anonymous, seen->cached, seen->stray);
	CHECK(seen->anonymous > 10000 && seen->cached > 2500 && seen->stray == 0);
	CHECK(query(fd).free == node.managed);
	close(fd);
	return true;
}

/* A page of anonymous memory says which one it is, and how often it was changed. */
static void sign(unsigned char *pages, unsigned long page, unsigned long version)
{
	uint64_t *words = (uint64_t *)(pages + page * PAGE);

	for (unsigned long i = 0; i < PAGE / 8; i++)
		words[i] = version << 48 | page << 16 | i;
}

static bool is_signed(const unsigned char *pages, unsigned long page, unsigned long version)
{
	const uint64_t *words = (const uint64_t *)(pages + page * PAGE);

	for (unsigned long i = 0; i < PAGE / 8; i++)
		if (words[i] != (version << 48 | page << 16 | i))
			return false;
	return true;
}

static unsigned char *anonymous(unsigned long pages)
{
	unsigned char *memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	/* Huge pages move as well, but are not what is counted here. */
	madvise(memory, pages * PAGE, MADV_NOHUGEPAGE);
	return memory;
}

/* How many pages of anonymous memory moved; -1 if the call failed. */
static long move(int fd, unsigned long command, void *memory, unsigned long pages)
{
	struct pnode_move span = { .address = (uintptr_t)memory, .bytes = pages * PAGE };

	return ioctl(fd, command, &span) ? -1 : (long)span.moved;
}

/*
 * Moves pages until so many have moved; a single call leaves those out that the
 * kernel looks at just then.
 */
static bool all_move(int fd, unsigned long command, void *memory, unsigned long pages, long wanted)
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
static unsigned long on_node(struct pnode_query node, const unsigned char *memory, unsigned long pages)
{
	unsigned long count = 0;

	for (unsigned long p = 0; p < pages; p++) {
		uint64_t pfn = pfn_of(memory + p * PAGE);

		count += pfn >= node.first_pfn && pfn < node.first_pfn + node.managed;
	}
	return count;
}

static bool anonymous_memory_moves_to_the_node_and_back(void)
{
	int fd = open(device, O_RDWR);
	struct pnode_query node = query(fd);
	unsigned char *memory = anonymous(PAGES);

	for (unsigned long p = 0; p < PAGES - 1; p++)
		sign(memory, p, 1);
	/* The last page was never touched, and moves as zeroes. */
	CHECK(all_move(fd, PNODE_IOC_MOVE_IN, memory, PAGES, PAGES));
	CHECK(on_node(node, memory, PAGES) == PAGES && query(fd).free == node.free - PAGES);
	CHECK(move(fd, PNODE_IOC_MOVE_IN, memory, PAGES) == 0);
	for (unsigned long p = 0; p < PAGES - 1; p++) {
		CHECK(is_signed(memory, p, 1));
		sign(memory, p, 2);
	}
	for (unsigned long b = 0; b < PAGE; b++)
		CHECK(memory[(PAGES - 1) * PAGE + b] == 0);
	CHECK(on_node(node, memory, PAGES) == PAGES);

	/* A child has them too, and what it changes is a copy of its own in ordinary memory. */
	pid_t child = start_child();
	if (child == 0) {
		for (unsigned long p = 0; p < 8; p++) {
			if (!is_signed(memory, p, 2))
				_exit(1);
			sign(memory, p, 3);
		}
		_exit(on_node(node, memory, PAGES) == PAGES - 8 && is_signed(memory, 7, 3) ? 0 : 2);
	}
	CHECK(end_of_child(child, 0) == 0);
	CHECK(is_signed(memory, 7, 2) && on_node(node, memory, PAGES) == PAGES);

	/* The kernel reads and writes them for system calls. */
	int channel[2];
	CHECK(pipe(channel) == 0 && write(channel[1], memory, PAGE) == (ssize_t)PAGE);
	CHECK(read(channel[0], memory + 9 * PAGE, PAGE) == (ssize_t)PAGE);
	CHECK(memcmp(memory, memory + 9 * PAGE, PAGE) == 0);
	sign(memory, 9, 2);
	memory = mremap(memory, PAGES * PAGE, PAGES * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)0x710000000000);
	CHECK(memory != MAP_FAILED && is_signed(memory, 62, 2) && on_node(node, memory, PAGES) == PAGES);

	CHECK(all_move(fd, PNODE_IOC_MOVE_OUT, memory, PAGES / 2, PAGES / 2));
	CHECK(on_node(node, memory, PAGES) == PAGES / 2 && query(fd).free == node.free - PAGES / 2);
	for (unsigned long p = 0; p < PAGES - 1; p++)
		CHECK(is_signed(memory, p, 2));
	/* The rest goes back by itself. */
	CHECK(munmap(memory, PAGES * PAGE) == 0);
	EVENTUALLY(query(fd).free == node.free);
	child = start_child();
	if (child == 0) {
		memory = anonymous(PAGES);
		memory[5 * PAGE] = 1;
		_exit(all_move(fd, PNODE_IOC_MOVE_IN, memory, PAGES, PAGES) ? 0 : 1);
	}
	CHECK(end_of_child(child, 0) == 0);
	EVENTUALLY(query(fd).free == node.free);
	close(fd);
	close(channel[0]);
	close(channel[1]);
	return true;
}

static bool what_cannot_move_stays(void)
{
	int fd = open(device, O_RDWR);
	struct pnode_query node = query(fd);
	unsigned char *memory = anonymous(PAGES), *mine = map(fd, 1);
	struct pnode_move odd = { .address = (uintptr_t)memory + 1, .bytes = PAGE };

	CHECK(ioctl(fd, PNODE_IOC_MOVE_IN, &odd) == -1 && errno == EINVAL);
	odd = (struct pnode_move){ .address = UINT64_MAX - PAGE + 1, .bytes = 2 * PAGE };
	CHECK(ioctl(fd, PNODE_IOC_MOVE_IN, &odd) == -1 && errno == EINVAL);
	mine[0] = 1;
	CHECK(move(fd, PNODE_IOC_MOVE_IN, mine, 1) == -1 && errno == EINVAL);
	munmap(mine, PAGE);
	CHECK(move(fd, PNODE_IOC_MOVE_IN, mine, 1) == -1 && errno == ENOMEM);
	close(fd);
	fd = open(device, O_RDWR);

	/* On a full node some pages find no room; none is lost. */
	mine = map(fd, node.managed);
	for (unsigned long p = 0; p < node.managed - PAGES / 2; p++)
		CHECK(touch(mine + p * PAGE, 1));
	for (unsigned long p = 0; p < PAGES; p++)
		sign(memory, p, 1);
	CHECK(all_move(fd, PNODE_IOC_MOVE_IN, memory, PAGES, PAGES / 2));
	CHECK(on_node(node, memory, PAGES) == PAGES / 2 && query(fd).free == 0);
	for (unsigned long p = 0; p < PAGES; p++)
		CHECK(is_signed(memory, p, 1));
	munmap(memory, PAGES * PAGE);
	munmap(mine, node.managed * PAGE);
	close(fd);
	return true;
}

/* Unbinds the device from its driver, or binds it again. */
static bool plug(const char *what)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", driver, what);
	return write_to(path, name);
}

static bool unplugging_takes_the_pages(void)
{
	int fd = open(device, O_RDWR);
	unsigned char *pages = map(fd, PAGES);
	struct pnode_query answer;

	unsigned char *memory = anonymous(PAGES);
	struct pnode_query node = query(fd);

	for (unsigned long p = 0; p < PAGES; p++)
		CHECK(touch(pages + p * PAGE, 1));
	for (unsigned long p = 0; p < PAGES; p++)
		sign(memory, p, 1);
	CHECK(all_move(fd, PNODE_IOC_MOVE_IN, memory, PAGES, PAGES) && on_node(node, memory, PAGES) == PAGES);
	CHECK(plug("unbind"));
	CHECK(access(device, F_OK) == -1);
	/* Anonymous memory is moved away with all that is in it. */
	CHECK(on_node(node, memory, PAGES) == 0 && move(fd, PNODE_IOC_MOVE_IN, memory, PAGES) == -1 && errno == ENODEV);
	for (unsigned long p = 0; p < PAGES; p++)
		CHECK(is_signed(memory, p, 1));
	munmap(memory, PAGES * PAGE);
	CHECK(!touch(pages, 1) && !touch(pages + (PAGES - 1) * PAGE, 1));
	CHECK(ioctl(fd, PNODE_IOC_QUERY, &answer) == -1 && errno == ENODEV);
	CHECK(plug("bind"));
	CHECK(!touch(pages, 1));
	munmap(pages, PAGES * PAGE);
	close(fd);
	fd = open(device, O_RDWR);
	answer = query(fd);
	CHECK(fd >= 0 && answer.free == answer.managed);
	close(fd);
	return true;
}

/* A device that a case has unplugged would be missing in all that come after. */
static void bind_again(void)
{
	plug("bind");
}

/* What a busy process does with the device, whether it is there or not, until told to stop. */
static void use_until(volatile unsigned long *stop, volatile unsigned long *touched, volatile unsigned long *lost)
{
	unsigned char *memory = anonymous(PAGES);

	for (unsigned long p = 0; p < PAGES; p++)
		sign(memory, p, 1);
	while (!*stop) {
		int fd = open(device, O_RDWR);
		unsigned char *pages = map(fd, PAGES);

		if (fd >= 0 && pages != MAP_FAILED)
			for (int i = 0; i < 500; i++) {
				struct pnode_span span = { next() % PAGES, 1 + next() % 4 };
				unsigned char *page = pages + next() % PAGES * PAGE;

				if (i % 100 == 7 && move(fd, PNODE_IOC_MOVE_IN, memory, PAGES) >= 0 && i % 200 == 7)
					move(fd, PNODE_IOC_MOVE_OUT, memory, PAGES);
				for (unsigned long p = 0; i % 100 == 7 && p < PAGES; p++)
					if (!is_signed(memory, p, 1))
						_exit(1);
				if (touch(page, 1))
					(*touched)++;
				else
					(*lost)++;
				if (i % 8 == 0)
					ioctl(fd, PNODE_IOC_FREE, &span);
			}
		munmap(pages, PAGES * PAGE);
		close(fd);
	}
	_exit(0);
}

static bool unplugging_under_load(void)
{
	struct { volatile unsigned long stop, touched[2], lost[2]; } *shared =
		mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct pnode_query answer;
	pid_t user[2];
	int fd;

	for (int i = 0; i < 2; i++) {
		numbers += 2 * i + 1;
		user[i] = start_child();
		if (user[i] == 0)
			use_until(&shared->stop, &shared->touched[i], &shared->lost[i]);
	}
	for (int round = 0; round < 4; round++) {
		/* As much as it takes for both to be at it again. */
		unsigned long before[2] = { shared->touched[0], shared->touched[1] };

		EVENTUALLY(shared->touched[0] >= before[0] + 500 && shared->touched[1] >= before[1] + 500);
		CHECK(plug("unbind"));
		CHECK(plug("bind"));
	}
	shared->stop = 1;
	for (int i = 0; i < 2; i++)
		CHECK(end_of_child(user[i], 0) == 0);
	printf("# %lu touches, %lu of them of pages that were taken away\n", shared->touched[0] + shared->touched[1],
	       shared->lost[0] + shared->lost[1]);
	CHECK(shared->lost[0] + shared->lost[1] > 0);
	fd = open(device, O_RDWR);
	answer = query(fd);
	CHECK(fd >= 0 && answer.free == answer.managed);
	close(fd);
	return true;
}

static const struct test_case cases[] = {
	{ "touched pages are zeroed frames of the node, one each", pages_are_frames_of_the_node },
	{ "an open file is one object: mappings, fork, mremap", the_file_is_one_object },
	{ "private mappings and pins are refused", private_mappings_and_pins_are_refused },
	{ "a full node raises SIGBUS, and pages given back come again", a_full_node_raises_sigbus },
	{ "hostile ioctls are refused", hostile_calls_are_refused },
	{ "with ordinary memory exhausted, no page comes from the node", exhausted_memory_stays_out },
	{ "anonymous memory moves to the node and back: fork, system calls, mremap, exit",
	  anonymous_memory_moves_to_the_node_and_back },
	{ "anonymous memory that cannot move stays", what_cannot_move_stays },
	{ "unplugging the device takes its pages from a process, and moves anonymous memory away",
	  unplugging_takes_the_pages },
	{ "unplugging under load, again and again", unplugging_under_load },
};

static int leave_marks(void)
{
	int fd = open(device, O_RDWR);
	unsigned char *pages = map(fd, PAGES);

	if (pages == MAP_FAILED)
		return 1;
	for (unsigned long p = 0; p < PAGES; p++)
		sprintf((char *)pages + p * PAGE, "written by a process to page %02lu\n", p);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc < 2)
		return 2;
	device = argv[1];
	if (argc == 2)
		return leave_marks();
	if (argc != 4)
		return 2;
	driver = argv[2];
	name = argv[3];
	signal(SIGBUS, bus_error);
	setvbuf(stdout, NULL, _IOLBF, 0);
	return run_cases(cases, sizeof(cases) / sizeof(*cases), bind_again);
}
