/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0 */
/*
 * Private memory nodes, from C.
 *
 * A private node is device memory that is managed like ordinary page frames
 * and that nobody gets unless its owner opened that door. Frames come from a
 * grant, a value that names one node and one reason; there is no other way.
 *
 * Functions return 0 or a negative error number; when they fail, nothing has
 * changed. "Sleeps" means: may allocate memory, call it from process context
 * only. All others may be called in any context, from any number of CPUs.
 * Null pointers are refused with -EFAULT. A handle is good until the call that
 * gives it up, which must not run beside another call on the same handle.
 *
 * Implemented in Rust, in src/c_interface of this crate; tests/header.rs
 * compares the two.
 */
#ifndef PNODE_H
#define PNODE_H

#ifdef __KERNEL__
#include <linux/types.h>
#else
#include <stdint.h>
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
#endif

/* A registry: the nodes, and the gate between requests and frames. */
struct pnode_space;
/* The right to a private node, in the hands of who registered it. */
struct pnode_node;
/* The right to take frames of one node for one reason. */
struct pnode_grant;

/*
 * Frames of a device: pfn is the physical address in pages. The whole range is
 * mapped at `mapping` as ordinary cached memory for as long as it is in use.
 */
struct pnode_range {
	u64 first_pfn;
	u64 frames;
	void *mapping;
};

/* What the memory is made of. */
enum pnode_class {
	PNODE_CLASS_DEVICE_BUFFER = 0,
	PNODE_CLASS_ACCELERATOR = 1,
	PNODE_CLASS_FAR = 2,
	PNODE_CLASS_COMPRESSED = 3,
};

/* Doors that the owner may open. The default, 0, is closed to all but the owner. */
#define PNODE_RECLAIM		(1u << 0)
#define PNODE_DEMOTION		(1u << 1)	/* needs PNODE_RECLAIM */
#define PNODE_PROMOTION		(1u << 2)
#define PNODE_COMPACTION	(1u << 3)
#define PNODE_CONTIG		(1u << 4)
#define PNODE_USER_NUMA		(1u << 5)
#define PNODE_PIN		(1u << 6)
#define PNODE_HOTUNPLUG		(1u << 7)
#define PNODE_OOM		(1u << 8)
#define PNODE_WRITE_FENCE	(1u << 9)	/* excludes USER_NUMA and PIN */

/* What a service of the kernel wants with a node; each needs a door, see DOORS in pnode-core. */
enum pnode_reason {
	PNODE_REASON_RECLAIM = 0,
	PNODE_REASON_DEMOTION = 1,
	PNODE_REASON_PROMOTION = 2,
	PNODE_REASON_COMPACTION = 3,
	PNODE_REASON_CONTIG = 4,
	PNODE_REASON_USER_POLICY = 5,
	PNODE_REASON_USER_MIGRATE = 6,
	PNODE_REASON_PIN = 7,
	PNODE_REASON_HOT_UNPLUG = 8,
	PNODE_REASON_OOM = 9,
};

struct pnode_stats {
	u64 first_pfn;
	u64 managed_frames;
	u64 free_frames;
	u64 used_frames;
	/* Grants that are held now. */
	u32 references;
	/* Whether the node is being torn down. */
	u32 draining;
};

/* A registry for ids 0 to nodes - 1; id 0 stands for the kernel's own memory. Sleeps. */
int pnode_space_create(u32 nodes, struct pnode_space **space);
/* -EBUSY while a node or a grant of it is left. The space is gone after 0. Sleeps. */
int pnode_space_destroy(struct pnode_space *space);

/*
 * Registers node `id` as private, with the doors `features`, and brings the
 * range online. -EBUSY if the id or some frames are taken, -EINVAL for features
 * that contradict one another or an impossible range, -ENODEV for an id that
 * the space has no room for, -ENOMEM. Sleeps.
 */
int pnode_node_register(struct pnode_space *space, u32 id, u32 class, u32 features,
			const struct pnode_range *range, struct pnode_node **node);
/*
 * Closes the node: nothing new is handed out. Then gives it up if nobody holds
 * a frame or a grant of it; else -EBUSY, the node stays closed, and the call
 * is to be made again. The node's handle is gone after 0. Sleeps.
 */
int pnode_node_unregister(struct pnode_node *node);

/* A grant for the node's owner. -EBUSY once the node is closed. Sleeps. */
int pnode_node_grant(struct pnode_node *node, struct pnode_grant **grant);
/*
 * A grant for a service of the kernel: -EPERM if the owner did not open the
 * door that the reason needs, -ENODEV for no private node, -EBUSY once the node
 * is closed. Sleeps.
 */
int pnode_grant_ask(struct pnode_space *space, u32 id, u32 reason, struct pnode_grant **grant);
/* Gives a grant back. Frames taken on it stay taken. Sleeps. */
void pnode_grant_put(struct pnode_grant *grant);

/*
 * Takes 2^order frames, aligned to that. -ENOMEM if none are left: never from
 * another node. -EAGAIN if another CPU was just moving some: no shortage.
 */
int pnode_alloc(struct pnode_grant *grant, u32 order, u64 *pfn);
/*
 * Takes 2^order adjacent frames, aligned to that, each to be given back by
 * itself with order 0. -ENOMEM if there is no such run; -EAGAIN also if
 * somebody else took one of the frames meanwhile.
 */
int pnode_alloc_frames(struct pnode_grant *grant, u32 order, u64 *first);
/*
 * Gives frames back, on any grant of their node. -EINVAL for frames that were
 * not handed out with this order: a double free changes nothing.
 */
int pnode_free(struct pnode_grant *grant, u64 pfn, u32 order);
/* Where a frame of the grant's node is mapped, or NULL. */
void *pnode_address(struct pnode_grant *grant, u64 pfn);

/*
 * An ordinary request: no private node ever serves it, not even one that it
 * prefers. With only the kernel's own memory beside them, -ENOMEM.
 */
int pnode_alloc_ordinary(struct pnode_space *space, u32 preferred, u32 order, u64 *pfn);

int pnode_stats(struct pnode_node *node, struct pnode_stats *stats);
/* Checks the node's allocator from end to end; -EUCLEAN if it finds it inconsistent. */
int pnode_audit(struct pnode_node *node);
/*
 * Draws how full the node is, as text that ends in a zero: `rows` lines of
 * `columns` characters, each for as many frames, from ' ' (free) over .:-=+*%
 * to '#' (all taken). -ENOSPC if (columns + 1) * rows is more than `bytes`,
 * -EINVAL for none, or for more than 1024, of either. Takes long on a large node.
 */
int pnode_map(struct pnode_node *node, u32 columns, u32 rows, char *text, u32 bytes);

/* Compressed pages in frames of a node. */
struct pnode_store;

/* With checksums, damage to a page is noticed when it is loaded. */
enum pnode_checksums {
	PNODE_CHECKSUMS_OFF = 0,
	PNODE_CHECKSUMS_ON = 1,
};

struct pnode_store_stats {
	u64 pages;
	/* Of these, pages that repeat a word and take no frame. */
	u64 same_pages;
	/* The bytes of all pages, and of all that they were compressed to. */
	u64 original_bytes;
	u64 compressed_bytes;
	/* Pages that were compressed again, with a denser codec, since the store was made. */
	u64 recompressed_pages;
	/* What the store takes of the node, and of the kernel's memory beside it. */
	u64 pool_bytes;
	u64 metadata_bytes;
};

/*
 * A store for pages 0 to pages - 1 of PAGE_SIZE bytes, in at most `frames`
 * frames of the node, which it takes when it needs them. It keeps the node from
 * being given up. Sleeps.
 */
int pnode_store_create(struct pnode_node *node, u32 pages, u64 frames, u32 checksums,
		       struct pnode_store **store);
/* Gives every page up. Sleeps. */
void pnode_store_destroy(struct pnode_store *store);
/*
 * Keeps a copy of a page, in place of the one that had the slot. The page must
 * not change meanwhile. -ENOSPC if the store or the node is full, -EBUSY if the
 * old page is being loaded for long; the slot then has what it had. Sleeps.
 */
int pnode_store_save(struct pnode_store *store, u32 slot, const void *page);
/*
 * Copies a page out, which stays stored. -ENODATA if the slot is empty, -EUCLEAN
 * if the page is damaged; `page` then holds anything. Sleeps.
 */
int pnode_store_load(struct pnode_store *store, u32 slot, void *page);
/* Gives a page up. -ENODATA if the slot is empty. */
int pnode_store_remove(struct pnode_store *store, u32 slot);
/*
 * Moves about `bytes` bytes of what is stored closer together, and gives the
 * node back what becomes empty: `freed` frames. Sleeps.
 */
int pnode_store_compact(struct pnode_store *store, u64 bytes, u64 *freed);
int pnode_store_stats(struct pnode_store *store, struct pnode_store_stats *stats);

/* A call of a process on /dev/pnodeN (pnode_uapi.h) whose argument makes sense. */
enum pnode_call_kind {
	PNODE_CALL_QUERY = 0,
	PNODE_CALL_FREE = 1,
	PNODE_CALL_MOVE_IN = 2,
	PNODE_CALL_MOVE_OUT = 3,
	PNODE_CALL_DISK_ADD = 4,
	PNODE_CALL_DISK_REMOVE = 5,
};

struct pnode_call {
	u32 kind;
	u32 checksums;
	/* Pages of the object or addresses of the process; of a disk, its pages and frames. */
	u64 first;
	u64 end;
};

/* No argument is longer. */
#define PNODE_CALL_BYTES 24

/*
 * How many bytes of the process are the argument of a command: 0 for one that
 * only answers, -ENOTTY for none.
 */
int pnode_call_bytes(u32 command);
/*
 * Examines a call with a copy of those bytes. `user_end` is where the
 * addresses of processes end. -ENOTTY or -EINVAL.
 */
int pnode_call_decode(u32 command, const void *argument, u64 user_end, struct pnode_call *call);

/*
 * Tests private nodes on the frames of `range`, whose contents are lost, in a
 * space of its own, with a report in KTAP. 0 if all passed. Sleeps.
 */
int pnode_selftest(const struct pnode_range *range);

#endif
