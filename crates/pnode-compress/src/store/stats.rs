//! What a store holds, in bytes that must not be mixed up.

/// Bytes and pages of a store. Exact while no call is in flight; sums of parts taken one after the other otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Pages that are stored.
    pub pages: u64,
    /// Of these, pages that repeat a word and lie in their entry alone.
    pub inline_pages: u64,
    /// Of these, pages that are an object which they may share with others.
    pub shared_pages: u64,
    /// Objects that pages share: `shared_pages` less this is the number of objects that sharing has saved.
    pub shared_objects: u64,
    /// The size of the stored pages before they were compressed: pages times the page size.
    pub original_bytes: u64,
    /// The bytes of all objects, without checksums; a shared object counts once.
    pub compressed_bytes: u64,
    /// The bytes of all blocks that the store holds frames for: what it takes from its node.
    pub pool_bytes: u64,
    /// The bytes that the caller lent for entries, block descriptors and shards.
    pub metadata_bytes: u64,
}

impl Stats {
    /// Original bytes over pool bytes, in thousandths; 0 while the store has no block.
    pub const fn ratio_permille(&self) -> u64 {
        match (self.original_bytes.saturating_mul(1000)).checked_div(self.pool_bytes) {
            Some(ratio) => ratio,
            None => 0,
        }
    }
}
