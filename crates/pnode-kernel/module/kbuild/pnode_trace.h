/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Tracepoints, in /sys/kernel/tracing/events/pnode. */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM pnode

#if !defined(PNODE_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define PNODE_TRACE_H

#include <linux/tracepoint.h>

/* A node came or went. */
TRACE_EVENT(pnode_node,
	TP_PROTO(u32 node, u64 first_pfn, u64 frames, bool added),
	TP_ARGS(node, first_pfn, frames, added),
	TP_STRUCT__entry(
		__field(u32, node)
		__field(u64, first_pfn)
		__field(u64, frames)
		__field(bool, added)
	),
	TP_fast_assign(
		__entry->node = node;
		__entry->first_pfn = first_pfn;
		__entry->frames = frames;
		__entry->added = added;
	),
	TP_printk("node=%u first_pfn=0x%llx frames=%llu %s", __entry->node, __entry->first_pfn,
		  __entry->frames, __entry->added ? "added" : "removed")
);

/* A process touched a page of /dev/pnodeN, so many were mapped; or an error, which is SIGBUS. */
TRACE_EVENT(pnode_fault,
	TP_PROTO(u32 node, unsigned long page, u64 pfn, unsigned long pages, int error),
	TP_ARGS(node, page, pfn, pages, error),
	TP_STRUCT__entry(
		__field(u32, node)
		__field(unsigned long, page)
		__field(unsigned long, pages)
		__field(u64, pfn)
		__field(int, error)
	),
	TP_fast_assign(
		__entry->node = node;
		__entry->page = page;
		__entry->pages = error ? 0 : pages;
		__entry->pfn = error ? 0 : pfn;
		__entry->error = error;
	),
	TP_printk("node=%u page=%lu pfn=0x%llx pages=%lu error=%d", __entry->node, __entry->page,
		  __entry->pfn, __entry->pages, __entry->error)
);

/* Anonymous memory was moved to a node or back. */
TRACE_EVENT(pnode_move,
	TP_PROTO(u32 node, u64 address, u64 bytes, bool to_node, u64 moved, int error),
	TP_ARGS(node, address, bytes, to_node, moved, error),
	TP_STRUCT__entry(
		__field(u32, node)
		__field(u64, address)
		__field(u64, bytes)
		__field(u64, moved)
		__field(int, error)
		__field(bool, to_node)
	),
	TP_fast_assign(
		__entry->node = node;
		__entry->address = address;
		__entry->bytes = bytes;
		__entry->moved = moved;
		__entry->error = error;
		__entry->to_node = to_node;
	),
	TP_printk("node=%u address=0x%llx bytes=%llu %s moved=%llu error=%d", __entry->node,
		  __entry->address, __entry->bytes, __entry->to_node ? "in" : "out",
		  __entry->moved, __entry->error)
);

/* A page was written to a node's disk, or read from it. */
TRACE_EVENT(pnode_disk,
	TP_PROTO(const char *disk, u32 slot, bool write, int error),
	TP_ARGS(disk, slot, write, error),
	TP_STRUCT__entry(
		__array(char, disk, 32)
		__field(u32, slot)
		__field(int, error)
		__field(bool, write)
	),
	TP_fast_assign(
		strscpy(__entry->disk, disk, sizeof(__entry->disk));
		__entry->slot = slot;
		__entry->error = error;
		__entry->write = write;
	),
	TP_printk("disk=%s slot=%u %s error=%d", __entry->disk, __entry->slot,
		  __entry->write ? "write" : "read", __entry->error)
);

/* The shrinker moved what a disk holds together. */
TRACE_EVENT(pnode_shrink,
	TP_PROTO(const char *disk, u64 freed),
	TP_ARGS(disk, freed),
	TP_STRUCT__entry(
		__array(char, disk, 32)
		__field(u64, freed)
	),
	TP_fast_assign(
		strscpy(__entry->disk, disk, sizeof(__entry->disk));
		__entry->freed = freed;
	),
	TP_printk("disk=%s freed=%llu frames", __entry->disk, __entry->freed)
);

#endif

#undef TRACE_INCLUDE_PATH
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_PATH .
#define TRACE_INCLUDE_FILE pnode_trace
#include <trace/define_trace.h>
