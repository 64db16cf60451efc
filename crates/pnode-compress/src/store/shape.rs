//! What a store is to be, and how its metadata lies in the caller's words.

use core::fmt;

use pnode_core::{Order, PageSize};

use super::entry::{Entry, GRANULE, MAX_PLACES};
use crate::codec::{Codec, Tag};

/// The size of a block: a naturally aligned run of frames in which objects are packed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockSize(u32);

impl BlockSize {
    /// Blocks of 16 KiB, for pages of 4 KiB.
    pub const KIB16: Self = Self(14);
    /// Blocks of 64 KiB.
    pub const KIB64: Self = Self(16);
    /// Blocks of 128 KiB, the smallest that hold a raw page of 64 KiB.
    pub const KIB128: Self = Self(17);

    /// The block size of `bytes` bytes: a power of two from 16 to 128 KiB, or `None`.
    pub const fn from_bytes(bytes: usize) -> Option<Self> {
        if bytes.is_power_of_two() && bytes >= 1 << 14 && bytes <= 1 << 17 {
            Some(Self(bytes.trailing_zeros()))
        } else {
            None
        }
    }

    /// The size in bytes.
    pub const fn bytes(self) -> usize {
        1 << self.0
    }
}

impl fmt::Debug for BlockSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} KiB", self.bytes() >> 10)
    }
}

/// Whether each object has a checksum of four bytes, which is verified when the object is loaded or moved on. It lies
/// behind the object, but for a page that is kept as it is: that one covers frames and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Checksums {
    /// Damage is noticed, but for one chance in four thousand million.
    #[default]
    On,
    /// Only damage that breaks the encoding is noticed.
    Off,
}

/// What a store is to be.
///
/// ```
/// use pnode_compress::store::Config;
///
/// // 1,024 pages of 4 KiB, in at most 256 blocks of 16 KiB.
/// let config = Config::new(1024, 256);
/// assert_eq!(config.words()?, 1024 + 256 * 12);
/// # Ok::<(), pnode_compress::store::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    pub(crate) slots: u32,
    pub(crate) blocks: u32,
    pub(crate) page: PageSize,
    pub(crate) block: BlockSize,
    pub(crate) checksums: Checksums,
    pub(crate) shared: u32,
}

impl Config {
    /// A store with room for `slots` pages of 4 KiB in at most `blocks` blocks of 16 KiB, with checksums.
    pub const fn new(slots: u32, blocks: u32) -> Self {
        Self {
            slots,
            blocks,
            page: PageSize::KIB4,
            block: BlockSize::KIB16,
            checksums: Checksums::On,
            shared: 0,
        }
    }

    /// The same with pages of `page`, the size of every page that is stored; it need not be the size of a frame.
    pub const fn page(self, page: PageSize) -> Self {
        Self { page, ..self }
    }

    /// The same with blocks of `block`, which hold at least two pages.
    pub const fn block(self, block: BlockSize) -> Self {
        Self { block, ..self }
    }

    /// The same with or without checksums.
    pub const fn checksums(self, checksums: Checksums) -> Self {
        Self { checksums, ..self }
    }

    /// The same with room for `objects` objects that several pages share, which [`super::Store::deduplicate`] finds: two
    /// words of metadata each, and at most as many as there are slots. Without any, nothing is ever shared, and nothing
    /// is spent on it.
    pub const fn shared(self, objects: u32) -> Self {
        Self { shared: objects, ..self }
    }

    /// How many words of metadata the store takes, of 8 bytes each: one a page, two a shared object, and a few a block.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if there can be no such store.
    pub const fn words(self) -> Result<usize, ConfigError> {
        match Shape::new(self) {
            Ok(shape) => Ok(shape.words),
            Err(error) => Err(error),
        }
    }
}

/// Why a store cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A store has at least one page and one block a shard.
    Empty {
        /// The pages that were asked for.
        slots: u32,
        /// The blocks that were asked for.
        blocks: u32,
        /// The shards that were lent.
        shards: usize,
    },
    /// Blocks of this size are too small for raw pages of that size.
    BlockTooSmall {
        /// The page size.
        page: PageSize,
        /// The block size.
        block: BlockSize,
    },
    /// A page entry cannot name a place in so many blocks.
    TooManyBlocks {
        /// The blocks that were asked for.
        blocks: u32,
        /// The most blocks of this size that a store can have.
        most: u32,
    },
    /// There cannot be more shared objects than pages.
    TooManyShared {
        /// The shared objects that were asked for.
        shared: u32,
        /// The pages that were asked for.
        slots: u32,
    },
    /// The metadata would pass the end of the address space.
    TooLarge,
    /// Frames of the memory are larger than a block.
    FrameTooLarge {
        /// The size of a frame.
        frame: PageSize,
        /// The block size.
        block: BlockSize,
    },
    /// Too few words of metadata were lent.
    TooFewWords {
        /// The words that were lent.
        words: usize,
        /// The words that are needed; see [`Config::words`].
        needed: usize,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Empty { slots, blocks, shards } => {
                write!(
                    f,
                    "{slots} pages, {blocks} blocks and {shards} shards: a store has a page, a shard, and a block each shard"
                )
            }
            Self::BlockTooSmall { page, block } => {
                write!(f, "blocks of {block:?} do not hold two pages of {page:?}: use larger blocks")
            }
            Self::TooManyBlocks { blocks, most } => {
                write!(
                    f,
                    "{blocks} blocks: a store of this block size has at most {most}; use larger blocks or two stores"
                )
            }
            Self::TooManyShared { shared, slots } => {
                write!(
                    f,
                    "{shared} objects cannot be shared by {slots} pages: ask for half as many as pages at most"
                )
            }
            Self::TooLarge => f.write_str("the metadata would not fit the address space: use two stores"),
            Self::FrameTooLarge { frame, block } => {
                write!(f, "a frame of {frame:?} is larger than a block of {block:?}: use larger blocks")
            }
            Self::TooFewWords { words, needed } => {
                write!(
                    f,
                    "{words} words of metadata were lent, {needed} are needed: ask `Config::words` first"
                )
            }
        }
    }
}

impl core::error::Error for ConfigError {}

/// The derived numbers of a [`Config`], all checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) slots: u32,
    pub(crate) blocks: u32,
    pub(crate) page: PageSize,
    pub(crate) block: BlockSize,
    pub(crate) checksums: Checksums,
    /// Objects that several pages may share.
    pub(crate) shared: u32,
    /// Granules a block, as a power of two.
    pub(crate) places_shift: u32,
    /// Metadata words a block.
    pub(crate) stride: usize,
    /// The last of these words, which hold halves of checksums.
    pub(crate) sums: usize,
    /// Metadata words in all.
    pub(crate) words: usize,
}

/// Words of a block's descriptor before its bitmap; see [`super::pool`].
pub(crate) const BLOCK_HEADER_WORDS: usize = 3;

/// Halves of checksums a word.
const SUMS_A_WORD: usize = 4;

impl Shape {
    pub(crate) const fn new(config: Config) -> Result<Self, ConfigError> {
        let Config { slots, blocks, page, block, checksums, shared } = config;
        if slots == 0 || blocks == 0 {
            return Err(ConfigError::Empty { slots, blocks, shards: 1 });
        }
        if block.bytes() < 2 * page.bytes() {
            return Err(ConfigError::BlockTooSmall { page, block });
        }
        let places_shift = block.0 - GRANULE.trailing_zeros();
        let most = (MAX_PLACES >> places_shift) as u32;
        if blocks > most {
            return Err(ConfigError::TooManyBlocks { blocks, most });
        }
        if shared > slots {
            return Err(ConfigError::TooManyShared { shared, slots });
        }
        let Some(pages) = slots.checked_add(shared) else {
            return Err(ConfigError::TooLarge);
        };
        let sums = match checksums {
            Checksums::On => (block.bytes() / page.bytes()).div_ceil(SUMS_A_WORD),
            Checksums::Off => 0,
        };
        let stride = BLOCK_HEADER_WORDS + (1 << places_shift) / 64 + sums;
        let Some(described) = (blocks as usize).checked_mul(stride) else {
            return Err(ConfigError::TooLarge);
        };
        let Some(entries) = (pages as usize).checked_add(shared as usize) else {
            return Err(ConfigError::TooLarge);
        };
        let Some(words) = described.checked_add(entries) else {
            return Err(ConfigError::TooLarge);
        };
        if words > isize::MAX as usize / 8 {
            return Err(ConfigError::TooLarge);
        }
        Ok(Self { slots, blocks, page, block, checksums, shared, places_shift, stride, sums, words })
    }

    /// The order of a block's frames if a frame has `frame` bytes.
    pub(crate) fn order(&self, frame: PageSize) -> Result<Order, ConfigError> {
        let too_large = ConfigError::FrameTooLarge { frame, block: self.block };
        Order::for_frames((self.block.bytes() / frame.bytes()) as u64).ok_or(too_large)
    }

    /// Granules a block.
    #[inline]
    pub(crate) const fn places(&self) -> u32 {
        1 << self.places_shift
    }

    /// Bytes of a checksum that lies behind its object.
    #[inline]
    pub(crate) const fn checksum_bytes(&self) -> usize {
        match self.checksums {
            Checksums::On => 4,
            Checksums::Off => 0,
        }
    }

    /// The bytes of an object of `len` bytes in the pool, with the checksum that lies behind it.
    #[inline]
    pub(crate) const fn extent(&self, tag: Tag, len: usize) -> usize {
        if matches!(tag.codec(), Codec::Raw) { len } else { len + self.checksum_bytes() }
    }

    /// The granules of an object of `len` bytes.
    #[inline]
    pub(crate) const fn granules(&self, tag: Tag, len: usize) -> u32 {
        self.extent(tag, len).div_ceil(GRANULE) as u32
    }

    /// The bytes of an entry's object in the pool, with the checksum that lies behind it.
    #[inline]
    pub(crate) const fn spanned(&self, entry: Entry) -> usize {
        let len = entry.len(self.page);
        if entry.is_raw() { len } else { len + self.checksum_bytes() }
    }

    /// The granules that an entry's object covers.
    #[inline]
    pub(crate) const fn covered(&self, entry: Entry) -> u32 {
        self.spanned(entry).div_ceil(GRANULE) as u32
    }

    /// The word of a block's descriptor where the half of a raw page's checksum is that its entry has no room for, and
    /// by how many bits it is shifted there, if the page begins at the granule `first`. No two raw pages of a block have
    /// the same: each covers as many granules as there are between two halves.
    #[inline]
    pub(crate) const fn half_sum(&self, first: u32) -> (usize, u32) {
        let raw = first / (self.page.bytes() / GRANULE) as u32;
        (self.stride - self.sums + raw as usize / SUMS_A_WORD, raw % SUMS_A_WORD as u32 * 16)
    }
}
