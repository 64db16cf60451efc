// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * /dev/pnodeN as a process sees it, as KTAP on standard output.
 *
 * usage: processes DEVICE DRIVER NAME   runs the cases; the device has this name for the driver in this folder of sysfs
 *        processes DEVICE               leaves a mark in each of 64 pages, for the machine outside to find in the
 *                                       device's memory
 */
#define _GNU_SOURCE
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "node.h"

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

/* Whether the kernel refuses to hold a page of the node for a pipe, which it takes without asking the driver. */
static bool cannot_be_spliced(void *page)
{
	struct iovec from = { page, PAGE };
	int channel[2];
	bool refused = pipe(channel) == 0 && vmsplice(channel[1], &from, 1, 0) == -1 && errno == EFAULT;

	close(channel[0]);
	close(channel[1]);
	return refused;
}

static bool private_mappings_and_pins_are_refused(void)
{
	int fd = open(device, O_RDWR);
	unsigned char byte, *page = map(fd, 1);
	struct iovec to = { &byte, 1 }, from = { page, 1 };

	CHECK(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0) == MAP_FAILED && errno == EINVAL);
	page[0] = 1;
	CHECK(process_vm_readv(getpid(), &to, 1, &from, 1, 0) == -1 && errno == EFAULT);
	CHECK(cannot_be_spliced(page));
	munmap(page, PAGE);
	close(fd);
	return true;
}

/* The counted faults of this process so far. */
static long faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_minflt;
}

/* One fault maps 512 pages, where the mapping and the node have room for that. */
static bool large_mappings_have_huge_pages(void)
{
	int fd = open(device, O_RDWR);
	struct pnode_query node = query(fd);
	const unsigned long runs = node.managed < 4 * RUN ? 1 : 3, pages = runs * RUN;
	unsigned char *memory = map(fd, pages), *other, byte;
	struct pnode_span span = { .first = 100, .pages = 3 };
	struct iovec to = { &byte, 1 }, from = { memory, 1 };
	long before = faults();

	CHECK(memory != MAP_FAILED && (uintptr_t)memory % (RUN * PAGE) == 0);
	for (unsigned long p = 0; p < pages; p++)
		CHECK(touch(memory + p * PAGE, 0x5a));
	/* The bound is for what the test itself touches. */
	CHECK(faults() - before < (long)(runs + RUN / 8));
	CHECK(query(fd).held_by_file == pages && query(fd).free == node.free - pages);
	for (unsigned long p = 0; p < pages; p++) {
		for (unsigned long b = 1; b < PAGE; b += 511)
			CHECK(memory[p * PAGE + b] == 0);
		sign(memory, p, 1);
	}
	CHECK(process_vm_readv(getpid(), &to, 1, &from, 1, 0) == -1 && errno == EFAULT);
	CHECK(cannot_be_spliced(memory + 7 * PAGE));

	/* The same pages elsewhere: huge in a second mapping, single in one that is not aligned like them. */
	before = faults();
	other = map(fd, pages);
	CHECK(all_signed(other, pages, 1));
	CHECK(faults() - before < (long)(runs + RUN / 8));
	munmap(other, pages * PAGE);
	other = mmap(memory + (pages + 1) * PAGE, 3 * PAGE, PROT_READ, MAP_SHARED, fd, 5 * PAGE);
	CHECK(other != MAP_FAILED && memcmp(other, memory + 5 * PAGE, 3 * PAGE) == 0);
	munmap(other, 3 * PAGE);
	pid_t child = start_child();
	if (child == 0) {
		if (!all_signed(memory, pages, 1))
			_exit(1);
		sign(memory, 8, 2);
		_exit(0);
	}
	CHECK(end_of_child(child, 0) == 0 && is_signed(memory, 8, 2));

	/* Pages out of the middle go back by themselves, and come again empty. */
	CHECK(ioctl(fd, PNODE_IOC_FREE, &span) == 0 && query(fd).free == node.free - pages + 3);
	CHECK(is_signed(memory, 99, 1) && is_signed(memory, 103, 1) && query(fd).held_by_file == pages - 3);
	for (unsigned long b = 0; b < 3 * PAGE; b++)
		CHECK(memory[100 * PAGE + b] == 0);
	CHECK(query(fd).held_by_file == pages);
	/* Part of a huge page is unmapped, another moved. */
	munmap(memory + 200 * PAGE, 10 * PAGE);
	CHECK(is_signed(memory, 199, 1) && is_signed(memory, 210, 1));
	memory = mremap(memory, 64 * PAGE, 64 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)0x720000001000);
	CHECK(memory != MAP_FAILED && is_signed(memory, 63, 1));
	munmap(memory, 64 * PAGE);
	close(fd);

	/* A process that wants single pages has them. */
	fd = open(device, O_RDWR);
	memory = map(fd, RUN);
	madvise(memory, RUN * PAGE, MADV_NOHUGEPAGE);
	CHECK(touch(memory + PAGE, 1) && query(fd).held_by_file == 1);
	madvise(memory, RUN * PAGE, MADV_HUGEPAGE);
	/* There are no 512 frames side by side for what is touched in part. */
	CHECK(touch(memory, 1) && query(fd).held_by_file == 2);
	munmap(memory, RUN * PAGE);
	close(fd);
	return true;
}

/* The map of the node in debugfs: how many of its characters are not blank; -1 if there is no map. */
static int marks(void)
{
	char path[64], text[8192];
	int count = 0;

	snprintf(path, sizeof(path), "/sys/kernel/debug/pnode/map%s", device + strlen("/dev/pnode"));
	int fd = open(path, O_RDONLY);
	ssize_t bytes = read(fd, text, sizeof(text));

	close(fd);
	/* The first line says how many frames a character stands for. */
	char *map = bytes > 0 ? memchr(text, '\n', bytes) : NULL;

	for (char *at = map; at && at < text + bytes; at++)
		count += *at != ' ' && *at != '\n';
	return map && (text + bytes - map - 1) % 65 == 0 ? count : -1;
}

static bool the_map_shows_where_pages_are(void)
{
	int fd = open(device, O_RDWR);
	unsigned char *pages = map(fd, PAGES);
	struct pnode_query node = query(fd);

	CHECK(node.free == node.managed && marks() == 0);
	for (unsigned long p = 0; p < PAGES; p++)
		CHECK(touch(pages + p * PAGE, 1));
	/* Each character is for a 2,048th of the node. */
	CHECK(marks() >= (int)(PAGES / (node.managed / 2048 + 1)) && marks() <= (int)PAGES);
	munmap(pages, PAGES * PAGE);
	close(fd);
	CHECK(marks() == 0);
	return true;
}

static bool the_file_mode_decides_who_may(void)
{
	struct pnode_disk_setup disk = { .pages = 64, .frames = 64 };
	struct stat about;
	int fd = open(device, O_RDWR);

	CHECK(stat(device, &about) == 0 && (about.st_mode & 0777) == 0600 && about.st_uid == 0);
	pid_t child = start_child();
	if (child == 0) {
		unsigned char *page;

		if (setgid(1000) || setuid(1000))
			_exit(1);
		if (open(device, O_RDWR) != -1 || errno != EACCES || open(device, O_RDONLY) != -1 || errno != EACCES)
			_exit(2);
		/* Who was given an open file may use it, but make no disk. */
		page = map(fd, 1);
		if (page == MAP_FAILED || !touch(page, 1) || query(fd).held_by_file != 1)
			_exit(3);
		if (ioctl(fd, PNODE_IOC_DISK, &disk) != -1 || errno != EPERM)
			_exit(4);
		_exit(0);
	}
	CHECK(end_of_child(child, 0) == 0);
	close(fd);
	CHECK(chmod(device, 0666) == 0);
	child = start_child();
	if (child == 0)
		_exit(setuid(1000) || open(device, O_RDWR) == -1);
	CHECK(end_of_child(child, 0) == 0 && chmod(device, 0600) == 0);
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
			if (next() % 64 == 0) {
				struct pnode_disk_setup wild = { .pages = span.first, .frames = span.pages % 64,
								 .checksums = next() % 3, .reserved = next() % 2 };
				struct pnode_disk_setup none = { 0 };

				/* Of those that are made none is large: the kernel has no memory for more. */
				if (wild.pages <= 1ul << 20 && ioctl(fd, PNODE_IOC_DISK, &wild) == 0)
					CHECK(wild.pages && wild.checksums < 2 && !wild.reserved);
				ioctl(fd, PNODE_IOC_DISK, &none);
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
	madvise(mine, node.managed * PAGE, MADV_NOHUGEPAGE);
	for (unsigned long p = 0; p < node.managed - PAGES / 2; p++)
		CHECK(touch(mine + p * PAGE, 1));
	sign_all(memory, PAGES, 1);
	CHECK(all_move(fd, PNODE_IOC_MOVE_IN, memory, PAGES, PAGES / 2));
	CHECK(on_node(node, memory, PAGES) == PAGES / 2 && query(fd).free == 0);
	CHECK(all_signed(memory, PAGES, 1));
	munmap(memory, PAGES * PAGE);
	munmap(mine, node.managed * PAGE);
	close(fd);
	return true;
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
	sign_all(memory, PAGES, 1);
	CHECK(all_move(fd, PNODE_IOC_MOVE_IN, memory, PAGES, PAGES) && on_node(node, memory, PAGES) == PAGES);
	CHECK(plug("unbind"));
	CHECK(access(device, F_OK) == -1);
	/* Anonymous memory is moved away with all that is in it. */
	CHECK(on_node(node, memory, PAGES) == 0 && move(fd, PNODE_IOC_MOVE_IN, memory, PAGES) == -1 && errno == ENODEV);
	CHECK(all_signed(memory, PAGES, 1));
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

	sign_all(memory, PAGES, 1);
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
	const char *wanted = getenv("PNODE_ROUNDS");
	const int rounds = wanted && *wanted ? atoi(wanted) : 4;
	pid_t user[2];
	int fd;

	for (int i = 0; i < 2; i++) {
		numbers += 2 * i + 1;
		user[i] = start_child();
		if (user[i] == 0)
			use_until(&shared->stop, &shared->touched[i], &shared->lost[i]);
	}
	for (int round = 0; round < rounds; round++) {
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
	{ "large mappings have huge pages, which can be taken apart", large_mappings_have_huge_pages },
	{ "the map of the node shows where pages are", the_map_shows_where_pages_are },
	{ "the file's mode decides who may", the_file_mode_decides_who_may },
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
