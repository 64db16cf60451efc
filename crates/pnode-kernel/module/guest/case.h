/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the guest's test programs share. */
#ifndef PNODE_CASE_H
#define PNODE_CASE_H

#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#define PAGE 4096ul

static const char *why;

/* A case that fails says why and returns false. */
#define CHECK(holds) do { if (!(holds)) { why = #holds; return false; } } while (0)

static bool write_to(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);
	bool done = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	close(fd);
	return done;
}

#endif
