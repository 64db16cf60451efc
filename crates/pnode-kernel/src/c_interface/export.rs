//! Symbols for the functions of the C interface.

/// Defines the functions of `include/pnode.h` for `$kernel`, a unit value that implements [`Kernel`](crate::Kernel), and
/// its types: `Space`, `Node`, `Grant`, `PageStore`, `Range`, `Stats`, `StoreStats` and
/// `CallArguments`.
#[macro_export]
macro_rules! export_c_interface {
    ($kernel:path) => {
        type Space = $crate::c_interface::Space<$kernel>;
        type Node = $crate::c_interface::NodeHandle<$kernel>;
        type Grant = $crate::c_interface::GrantHandle<$kernel>;
        type PageStore = $crate::c_interface::StoreHandle<$kernel>;
        use $crate::c_interface::{CallArguments, Range, Stats, StoreStats};
        use ::core::ffi::c_void;

        $crate::c_functions! {
            fn pnode_space_create(nodes: u32, space: *mut *mut Space) -> i32 = space_create($kernel, nodes, space);
            fn pnode_space_destroy(space: *mut Space) -> i32 = space_destroy($kernel, space);
            fn pnode_node_register(
                space: *mut Space, id: u32, class: u32, features: u32, range: *const Range, node: *mut *mut Node
            ) -> i32 = node_register(space, id, class, features, range, node);
            fn pnode_node_unregister(node: *mut Node) -> i32 = node_unregister($kernel, node);
            fn pnode_node_grant(node: *mut Node, grant: *mut *mut Grant) -> i32 = node_grant(node, grant);
            fn pnode_grant_ask(space: *mut Space, id: u32, reason: u32, grant: *mut *mut Grant) -> i32
                = grant_ask(space, id, reason, grant);
            fn pnode_grant_put(grant: *mut Grant) -> () = grant_put($kernel, grant);
            fn pnode_alloc(grant: *mut Grant, order: u32, pfn: *mut u64) -> i32 = alloc(grant, order, pfn);
            fn pnode_alloc_frames(grant: *mut Grant, order: u32, first: *mut u64) -> i32 = alloc_frames(grant, order, first);
            fn pnode_free(grant: *mut Grant, pfn: u64, order: u32) -> i32 = free(grant, pfn, order);
            fn pnode_address(grant: *mut Grant, pfn: u64) -> *mut c_void = address(grant, pfn);
            fn pnode_alloc_ordinary(space: *mut Space, preferred: u32, order: u32, pfn: *mut u64) -> i32
                = alloc_ordinary(space, preferred, order, pfn);
            fn pnode_stats(node: *mut Node, stats: *mut Stats) -> i32 = stats(node, stats);
            fn pnode_audit(node: *mut Node) -> i32 = audit(node);
            fn pnode_map(node: *mut Node, columns: u32, rows: u32, text: *mut u8, bytes: u32) -> i32
                = map(node, columns, rows, text, bytes);
            fn pnode_call_bytes(command: u32) -> i32 = call_bytes(command);
            fn pnode_call_decode(command: u32, argument: *const u8, user_end: u64, call: *mut CallArguments) -> i32
                = call_decode($kernel, command, argument, user_end, call);
            fn pnode_store_create(
                node: *mut Node, pages: u32, frames: u64, checksums: u32, store: *mut *mut PageStore
            ) -> i32 = store_create($kernel, node, pages, frames, checksums, store);
            fn pnode_store_destroy(store: *mut PageStore) -> () = store_destroy($kernel, store);
            fn pnode_store_save(store: *mut PageStore, slot: u32, page: *const u8) -> i32 = store_save(store, slot, page);
            fn pnode_store_load(store: *mut PageStore, slot: u32, page: *mut u8) -> i32 = store_load(store, slot, page);
            fn pnode_store_remove(store: *mut PageStore, slot: u32) -> i32 = store_remove(store, slot);
            fn pnode_store_compact(store: *mut PageStore, bytes: u64, freed: *mut u64) -> i32
                = store_compact(store, bytes, freed);
            fn pnode_store_stats(store: *mut PageStore, stats: *mut StoreStats) -> i32 = store_stats(store, stats);
            fn pnode_selftest(range: *const Range) -> i32 = selftest($kernel, range);
        }
    };
}

/// One symbol for each line.
#[macro_export]
#[doc(hidden)]
macro_rules! c_functions {
    ($(
        fn $symbol:ident($($name:ident: $type:ty),*) -> $result:ty = $function:ident($($argument:expr),*);
    )*) => {$(
        #[doc = concat!("`", stringify!($symbol), "` of `include/pnode.h`.")]
        ///
        /// # Safety
        ///
        /// As the header says, and
        #[doc = concat!("[`", stringify!($function), "`](", "::pnode_kernel::c_interface::", stringify!($function), ").")]
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $symbol($($name: $type),*) -> $result {
            // SAFETY: the caller makes the promises of the function that is called.
            unsafe { $crate::c_interface::$function($($argument),*) }
        }
    )*};
}
