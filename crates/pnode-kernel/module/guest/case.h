/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What the guest's test programs share.
 *
 * Nothing here waits for a time to pass: a case waits for what it needs to be
 * so, and gives up after much longer than the slowest machine takes.
 */
#ifndef PNODE_CASE_H
#define PNODE_CASE_H

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096ul

/* Seconds after which what a case waits for will not come any more. */
#define PATIENCE 120

static const char *why;

/* A case that fails says why and returns false. */
#define CHECK(holds) do { if (!(holds)) { why = #holds; return false; } } while (0)

static inline time_t seconds(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec;
}

/*
 * For what is true soon, but not when the call before returns: the kernel may
 * hold a process's memory for a moment after its exit, or look at a page just
 * when it is to move.
 */
#define EVENTUALLY(holds) do {						\
	time_t patience = seconds() + PATIENCE;				\
									\
	while (!(holds)) {						\
		if (seconds() > patience) {				\
			why = "in the end: " #holds;			\
			return false;					\
		}							\
		usleep(1000);						\
	}								\
} while (0)

static inline bool write_to(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);
	bool done = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	close(fd);
	return done;
}

/* Children that no case has waited for yet. */
static pid_t children[8];

/* As fork(); a case that fails leaves no child behind. */
static inline pid_t start_child(void)
{
	int free = 0;

	while (children[free])
		free++;
	pid_t child = fork();
	if (child > 0)
		children[free] = child;
	return child;
}

/* How the child ended, as waitpid() says it; -1 if it has not yet and `flags` say not to wait. */
static int end_of_child(pid_t child, int flags)
{
	int status;

	if (waitpid(child, &status, flags) != child)
		return -1;
	for (int i = 0; i < 8; i++)
		if (children[i] == child)
			children[i] = 0;
	return status;
}

struct test_case {
	const char *name;
	bool (*run)(void);
};

/* In a process of its own, so that one that fails takes its files and mappings with it. */
static inline bool passes(const struct test_case *test)
{
	pid_t child = fork();

	if (child == 0) {
		bool ok = test->run();

		if (!ok)
			printf("# failed: %s (errno %d, %s)\n", why, errno, strerror(errno));
		for (int i = 0; i < 8; i++)
			if (children[i]) {
				kill(children[i], SIGKILL);
				end_of_child(children[i], 0);
			}
		_exit(!ok);
	}
	int status = child > 0 ? end_of_child(child, 0) : -1;

	if (!WIFEXITED(status))
		printf("# failed: the case ended with wait status %#x\n", status);
	return status == 0;
}

/*
 * Runs the cases with a report in KTAP; an exit status. `undo` takes away what
 * a case that failed may have left, so that one failure is no more than one.
 */
static inline int run_cases(const struct test_case *cases, int count, void (*undo)(void))
{
	int failed = 0;

	printf("KTAP version 1\n1..%d\n", count);
	for (int i = 0; i < count; i++) {
		bool ok = passes(&cases[i]);

		if (!ok) {
			undo();
			failed++;
		}
		printf("%s %d %s\n", ok ? "ok" : "not ok", i + 1, cases[i].name);
	}
	return failed != 0;
}

#endif
