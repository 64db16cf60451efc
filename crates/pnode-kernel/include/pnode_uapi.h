/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0 WITH Linux-syscall-note */
/*
 * /dev/pnodeN: memory of private node N for a process.
 *
 * An open file is one object. Mapped with MAP_SHARED, its pages come from the
 * node when they are first touched, 512 at once where a huge page fits, filled
 * with zeroes; page p of the object is the same page in every mapping of the
 * file, also across fork. A page that cannot be had raises SIGBUS: nothing is
 * ever taken from elsewhere instead. The pages go back to the node when the
 * file is closed for the last time, by PNODE_IOC_FREE, or when the device goes;
 * touching them then raises SIGBUS.
 * File mode decides who may open the device.
 */
#ifndef PNODE_UAPI_H
#define PNODE_UAPI_H

#include <linux/ioctl.h>
#include <linux/types.h>

struct pnode_query {
	__u32 node;
	/* In bytes. */
	__u32 page_size;
	__u64 first_pfn;
	/* In pages of the node, and of this file. */
	__u64 managed;
	__u64 free;
	__u64 held_by_file;
};

/* Pages of the object, counted from its start. */
struct pnode_span {
	__u64 first;
	__u64 pages;
};

/* Anonymous memory of the calling process, in bytes; both a multiple of the page size. */
struct pnode_move {
	__u64 address;
	__u64 bytes;
	/* Filled in: how many pages moved. The others are where they were. */
	__u64 moved;
};

/*
 * A disk of compressed pages in frames of the node: /dev/pnode_disk<node>, good
 * for swap. 0 pages for none.
 */
struct pnode_disk_setup {
	__u64 pages;
	/* The most frames that the disk takes. */
	__u64 frames;
	/* 1 to notice damage to a page when it is read, 0 not to. */
	__u32 checksums;
	__u32 reserved;
};

/* Fills a struct pnode_query. */
#define PNODE_IOC_QUERY	_IOR('p', 0xd0, struct pnode_query)
/* Gives the pages of a span back; those that were never touched are skipped. */
#define PNODE_IOC_FREE	_IOW('p', 0xd1, struct pnode_span)
/*
 * Moves private anonymous memory to the node, or back from it: the process uses
 * it as before. A page that is locked, or in use by the kernel, stays. ENODEV if
 * the device's memory has no struct pages, EINVAL for memory that is no anonymous
 * memory, ENOMEM for a hole. When the device goes, what is left there moves back.
 */
#define PNODE_IOC_MOVE_IN	_IOWR('p', 0xd3, struct pnode_move)
#define PNODE_IOC_MOVE_OUT	_IOWR('p', 0xd4, struct pnode_move)
/*
 * Makes the node's disk, EEXIST if there is one; or takes it away with all that
 * is on it, EBUSY if it is open or swapped to. For administrators. When the
 * device goes, its disk goes with it.
 */
#define PNODE_IOC_DISK	_IOW('p', 0xd2, struct pnode_disk_setup)

#endif
