// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * What the module does when it is refused something, as KTAP on standard output: each action is made with its first
 * point of failure refused, then with its second, until it passes no more of them. After each, nothing may be
 * left, and the action works.
 *
 * usage: refuse DEVICE DRIVER NAME [OPTION...]   as `processes`; loads the module, which is not, with the options
 */
#define _GNU_SOURCE
#include <sys/swap.h>
#include <sys/syscall.h>

#include "node.h"

#define PARAMETERS "/sys/module/pnode/parameters/"

static char options[256];

/* A number in a file; -1 if there is none. */
static long number_in(const char *path)
{
	char text[32] = "";
	int fd = open(path, O_RDONLY);
	ssize_t bytes = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	close(fd);
	return bytes > 0 ? strtol(text, NULL, 0) : -1;
}

static bool set(const char *parameter, long value)
{
	char path[64], text[32];

	snprintf(path, sizeof(path), PARAMETERS "%s", parameter);
	snprintf(text, sizeof(text), "%ld", value);
	return write_to(path, text);
}

/* Whether a file has a line with this in it. */
static bool says(const char *path, const char *what)
{
	char line[256];
	FILE *file = fopen(path, "r");
	bool found = false;

	while (file && fgets(line, sizeof(line), file))
		found |= !!strstr(line, what);
	if (file)
		fclose(file);
	return found;
}

static int load(long fail_at)
{
	char arguments[300];
	int fd = open("/modules/pnode.ko", O_RDONLY);

	snprintf(arguments, sizeof(arguments), "%s fail_at=%ld", options, fail_at);
	int rc = syscall(SYS_finit_module, fd, arguments, 0);
	close(fd);
	return rc;
}

static bool unload(void)
{
	/* The kernel may hold the memory of a process, and so an open file, for a moment after its exit. */
	EVENTUALLY(number_in("/sys/module/pnode/refcnt") <= 0);
	return syscall(SYS_delete_module, "pnode", O_NONBLOCK) == 0;
}

/* Whether the node is whole and unused. */
static bool is_at_rest(void)
{
	char path[64];
	int fd = open(device, O_RDWR);
	struct pnode_query node = query(fd);

	close(fd);
	snprintf(path, sizeof(path), "/sys/kernel/debug/pnode/node%s", device + strlen("/dev/pnode"));
	/* One grant is the module's own: pages that processes may have are taken on it. */
	return fd >= 0 && node.managed && node.free == node.managed && node.held_by_file == 0 &&
	       says(path, "audit      ok") && (says(path, "references 0\n") || says(path, "references 1\n"));
}

/*
 * Makes an action with each of its points refused in turn: `act` returns false
 * if something is wrong, whether it was refused or not.
 */
static bool walk(const char *what, bool (*act)(void))
{
	long points = 0;

	for (;; points++) {
		CHECK(set("fail_at", points + 1));
		bool fine = act();
		bool refused = number_in(PARAMETERS "fail_at") == 0;

		CHECK(set("fail_at", 0));
		if (!fine) {
			printf("# %s, refused at point %ld\n", what, points + 1);
			return false;
		}
		EVENTUALLY(is_at_rest());
		if (!refused)
			break;
	}
	printf("# %s: %ld points\n", what, points);
	CHECK(points > 0);
	return true;
}

static bool every_point_of_loading(void)
{
	long points = 0, bound = 0;

	for (bool refused = true; refused; points++) {
		int rc = load(points + 1);

		refused = rc || number_in(PARAMETERS "fail_at") == 0;
		if (!rc) {
			/* A device that could not be bound is no reason not to load. */
			bound += access(device, F_OK) == 0;
			/* What is yet to be refused is not to be a look at the node. */
			CHECK(set("fail_at", 0));
			CHECK(refused || is_at_rest());
			CHECK(unload());
		}
		CHECK(access("/sys/module/pnode", F_OK) && access(device, F_OK));
		CHECK(access("/sys/kernel/debug/pnode", F_OK) && !says("/proc/iomem", " : pnode\n"));
		CHECK(access(driver, F_OK));
	}
	printf("# loading: %ld points, after %ld of which there was a node\n", points - 1, bound);
	CHECK(points > 10 && bound >= 1);
	return true;
}

static long memory_unbound;

static bool bind_refused(void)
{
	CHECK(plug("unbind"));
	CHECK(access(device, F_OK) && !says("/proc/iomem", " : pnode\n"));
	/* What the range's metadata takes is kept for when it comes back. */
	long memory = number_in(PARAMETERS "memory");
	memory_unbound = memory_unbound ? memory_unbound : memory;
	CHECK(memory == memory_unbound);
	if (!plug("bind")) {
		CHECK(number_in(PARAMETERS "fail_at") == 0);
		CHECK(access(device, F_OK) && !says("/proc/iomem", " : pnode\n"));
		CHECK(number_in(PARAMETERS "memory") == memory);
		CHECK(plug("bind"));
	}
	return true;
}

/* Opens the device's file, a second time if it was refused for want of memory. */
static int open_again(void)
{
	int fd = open(device, O_RDWR);

	return fd < 0 && errno == ENOMEM ? open(device, O_RDWR) : fd;
}

static bool touch_refused(void)
{
	int fd = open_again();
	unsigned char *pages = map(fd, RUN + 2);
	unsigned long lost = 0;

	CHECK(pages != MAP_FAILED);
	for (unsigned long p = 0; p < RUN + 2; p += p < 3 ? 1 : 255)
		lost += !touch(pages + p * PAGE, 1);
	/* A page that was refused is there the next time; one that was not is as it was. */
	CHECK(lost <= 1 && (lost == 0 || number_in(PARAMETERS "fail_at") == 0));
	for (unsigned long p = 0; p < 3; p++)
		CHECK(touch(pages + p * PAGE, 2));
	CHECK(pages[5] == 0);
	munmap(pages, (RUN + 2) * PAGE);
	close(fd);
	return true;
}

static bool move_refused(void)
{
	unsigned char *memory = anonymous(PAGES);
	int fd = open_again();

	CHECK(fd >= 0);
	sign_all(memory, PAGES, 1);
	move(fd, PNODE_IOC_MOVE_IN, memory, PAGES);
	CHECK(all_signed(memory, PAGES, 1));
	move(fd, PNODE_IOC_MOVE_OUT, memory, PAGES);
	CHECK(all_signed(memory, PAGES, 1));
	munmap(memory, PAGES * PAGE);
	close(fd);
	return true;
}

static bool evict_refused(void)
{
	unsigned char *memory = anonymous(PAGES);
	int fd = open_again();

	CHECK(fd >= 0);
	sign_all(memory, PAGES, 1);
	move(fd, PNODE_IOC_MOVE_IN, memory, PAGES);
	close(fd);
	/* Leaving takes nothing that could be refused; coming back does. */
	CHECK(plug("unbind"));
	CHECK(all_signed(memory, PAGES, 1));
	munmap(memory, PAGES * PAGE);
	CHECK(plug("bind") || (number_in(PARAMETERS "fail_at") == 0 && plug("bind")));
	return true;
}

static bool disk_refused(void)
{
	struct pnode_disk_setup setup = { .pages = 256, .frames = 128, .checksums = 1 }, none = { 0 };
	static unsigned char page[2][PAGE] __attribute__((aligned(4096)));
	char path[40];
	int fd = open_again(), disk, made;

	CHECK(fd >= 0);
	snprintf(path, sizeof(path), "/dev/pnode_disk%s", device + strlen("/dev/pnode"));
	made = ioctl(fd, PNODE_IOC_DISK, &setup);
	if (made) {
		CHECK(number_in(PARAMETERS "fail_at") == 0 && access(path, F_OK));
		CHECK(ioctl(fd, PNODE_IOC_DISK, &none) == -1 && errno == ENXIO);
		CHECK(ioctl(fd, PNODE_IOC_DISK, &setup) == 0);
	}
	disk = open(path, O_RDWR | O_DIRECT);
	CHECK(disk >= 0);
	for (int p = 0; p < 8; p++) {
		memset(page[0], 0, PAGE);
		sign(page[0], 0, p + 1);
		/* What is refused is an error, and works when it is asked for again. */
		if (pwrite(disk, page[0], PAGE, p * PAGE) != (ssize_t)PAGE)
			CHECK(number_in(PARAMETERS "fail_at") == 0 &&
			      pwrite(disk, page[0], PAGE, p * PAGE) == (ssize_t)PAGE);
		if (pread(disk, page[1], PAGE, p * PAGE) != (ssize_t)PAGE)
			CHECK(number_in(PARAMETERS "fail_at") == 0 &&
			      pread(disk, page[1], PAGE, p * PAGE) == (ssize_t)PAGE);
		CHECK(memcmp(page[0], page[1], PAGE) == 0);
	}
	close(disk);
	EVENTUALLY(ioctl(fd, PNODE_IOC_DISK, &none) == 0);
	CHECK(access(path, F_OK));
	close(fd);
	return true;
}

static bool every_point_of_binding(void)
{
	CHECK(load(0) == 0);
	return walk("binding", bind_refused);
}

static bool every_point_of_touching(void)
{
	return walk("opening, mapping and touching", touch_refused);
}

static bool every_point_of_moving(void)
{
	return walk("moving anonymous memory", move_refused);
}

static bool every_point_of_leaving(void)
{
	return walk("leaving with memory on the node", evict_refused);
}

static bool every_point_of_a_disk(void)
{
	return walk("a disk", disk_refused);
}

/* Refusals at random, in runs of actions. */
static bool refused_at_random(void)
{
	long before = number_in(PARAMETERS "failed"), lost = 0;

	CHECK(set("fail_seed", 20261123) && set("fail_one_in", 7));
	for (int i = 0; i < 100; i++) {
		int fd = open(device, O_RDWR);
		unsigned char *memory = anonymous(PAGES), *pages = fd < 0 ? MAP_FAILED : map(fd, 2 * RUN);

		sign_all(memory, PAGES, i);
		move(fd, PNODE_IOC_MOVE_IN, memory, PAGES);
		for (unsigned long p = 0; pages != MAP_FAILED && p < 2 * RUN; p += 1 + next() % 64)
			lost += !touch(pages + p * PAGE, 1);
		move(fd, PNODE_IOC_MOVE_OUT, memory, PAGES / 2);
		CHECK(all_signed(memory, PAGES, i));
		munmap(memory, PAGES * PAGE);
		if (pages != MAP_FAILED)
			munmap(pages, 2 * RUN * PAGE);
		close(fd);
	}
	CHECK(set("fail_one_in", 0));
	printf("# seed 20261123: %ld refusals, %ld touches that found no page\n",
	       number_in(PARAMETERS "failed") - before, lost);
	CHECK(number_in(PARAMETERS "failed") - before > 100);
	EVENTUALLY(is_at_rest());
	return unload();
}

static const struct test_case cases[] = {
	{ "loading the module", every_point_of_loading },
	{ "binding a device", every_point_of_binding },
	{ "opening the file, mapping it, touching its pages", every_point_of_touching },
	{ "moving anonymous memory to the node and back", every_point_of_moving },
	{ "unbinding with anonymous memory on the node", every_point_of_leaving },
	{ "making a disk, writing to it and reading it", every_point_of_a_disk },
	{ "all of it, refused at random", refused_at_random },
};

static void go_on(void)
{
	set("fail_at", 0);
	set("fail_one_in", 0);
	plug("bind");
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc < 4)
		return 2;
	device = argv[1];
	driver = argv[2];
	name = argv[3];
	for (int i = 4; i < argc; i++)
		snprintf(options + strlen(options), sizeof(options) - strlen(options), " %s", argv[i]);
	signal(SIGBUS, bus_error);
	return run_cases(cases, sizeof(cases) / sizeof(*cases), go_on);
}
