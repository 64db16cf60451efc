//! How much metadata a zone needs, and what lies where in it.
//!
//! ```text
//! | words: 16 an area | areas | level 2 | level 3 | level 4 | inboxes    | index: bitmaps by level, group, advert | counts       | ranges  | header |
//!   8 B a 32 frames     8 B an area ...                       8 B an area  1 bit a node and bitmap                  128 B a class   16 B a slot
//! ```

use pnode_core::{FrameRange, Pfn};

use crate::bitmap::Shape;
use crate::count::{COUNTERS, STRIDE};
use crate::error::ZoneError;
use crate::metadata::Line;
use crate::node::{CHILDREN, advert};
use crate::recover::HEADER_WORDS;
use crate::table;
use crate::word;

/// Levels of inner nodes: areas (1), and three above.
pub(crate) const LEVELS: usize = 4;
/// The level whose nodes have no parent.
pub(crate) const TOP: usize = LEVELS;
/// The largest zone, in frames.
pub(crate) const MAX_FRAMES: u64 = 1 << 40;
/// Frames in an area.
pub(crate) const AREA: u64 = 1 << AREA_ORDER;
/// The order of an area.
pub(crate) const AREA_ORDER: u8 = 9;
/// Classes of areas, one per migrate type.
pub(crate) const CLASSES: usize = 3;
/// Groups of areas: each class twice, for blocks below [`LARGE_ORDER`] and for others.
pub(crate) const GROUPS: usize = 2 * CLASSES;
/// Half a word: single frames among blocks of this order and more would leave no holes for them.
pub(crate) const LARGE_ORDER: u8 = word::ORDER - 1;

/// The order of a child of a node at `level`; at level 0, of a frame.
#[inline]
pub(crate) const fn child_order(level: usize) -> u8 {
    if level == 0 { 0 } else { word::ORDER + 4 * (level as u8 - 1) }
}

/// The order of a whole node at `level`; at level 0, of a word.
#[inline]
pub(crate) const fn node_order(level: usize) -> u8 {
    child_order(level + 1)
}

/// The group of areas that blocks of `order` and `class` belong into.
#[inline]
pub(crate) const fn group_of(order: u8, class: u8) -> u8 {
    class << 1 | (order >= LARGE_ORDER) as u8
}

/// The level at which blocks of `order` live.
#[inline]
pub(crate) const fn level_of(order: u8) -> usize {
    if order < word::ORDER { 0 } else { 1 + (order - word::ORDER) as usize / 4 }
}

/// One level of nodes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LevelLayout {
    /// Index of the first node in the metadata.
    pub(crate) nodes: usize,
    /// The number (pfn over node size) of the first node.
    pub(crate) first: u64,
    /// How many nodes.
    pub(crate) count: usize,
    /// Index of the first bitmap.
    maps: usize,
    /// The shape of each of the level's bitmaps.
    pub(crate) shape: Shape,
}

/// The size of the metadata of a zone, known before the zone is.
///
/// Metadata is about 0.0018 % of the memory that it describes at 4 KiB pages (76 KiB a GiB).
///
/// ```
/// use pnode_buddy::Geometry;
/// use pnode_core::{FrameRange, Pfn};
///
/// let gib = FrameRange::new(Pfn::new(0x10_0000), 1 << 18)?;
/// let geometry = Geometry::new(gib)?;
/// assert!(geometry.bytes() < 80 << 10);
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    range: FrameRange,
    pub(crate) levels: [LevelLayout; LEVELS],
    /// Index of the first area's inbox.
    pub(crate) inboxes: usize,
    /// Index of the first counter.
    pub(crate) counts: usize,
    /// Index of the table of ranges.
    pub(crate) table: usize,
    /// Index of the header.
    pub(crate) header: usize,
    words: usize,
}

impl Geometry {
    /// The geometry of a zone over `range`.
    ///
    /// # Errors
    ///
    /// [`ZoneError::TooLarge`] above 2^40 frames, or if the metadata would not fit into the address space.
    pub const fn new(range: FrameRange) -> Result<Self, ZoneError> {
        let frames = range.frames();
        if frames > MAX_FRAMES || (usize::BITS < 64 && frames > 1 << 31) {
            return Err(ZoneError::TooLarge { frames });
        }
        let last = Pfn::new(range.end().get() - 1);
        let none = LevelLayout { nodes: 0, first: 0, count: 0, maps: 0, shape: Shape::new(1) };
        let mut levels = [none; LEVELS];
        let mut level = 1;
        while level <= LEVELS {
            let shift = node_order(level) as u32;
            let first = range.start().get() >> shift;
            let count = ((last.get() >> shift) - first + 1) as usize;
            levels[level - 1] = LevelLayout { nodes: 0, first, count, maps: 0, shape: Shape::new(count) };
            level += 1;
        }
        let mut next = levels[0].count * CHILDREN as usize;
        level = 1;
        while level <= LEVELS {
            levels[level - 1].nodes = next;
            next = line_up(next + levels[level - 1].count);
            level += 1;
        }
        let inboxes = next;
        next = line_up(next + levels[0].count);
        level = 1;
        while level <= LEVELS {
            levels[level - 1].maps = next;
            next = line_up(next + levels[level - 1].shape.words() * maps_at(level));
            level += 1;
        }
        let counts = next;
        next += COUNTERS * STRIDE;
        let table = next;
        next = line_up(next + table::words(frames));
        let header = next;
        next = line_up(next + HEADER_WORDS);
        Ok(Self { range, levels, inboxes, counts, table, header, words: next })
    }

    /// The frames of the zone.
    pub const fn range(&self) -> FrameRange {
        self.range
    }

    /// How many [`Line`]s of metadata the zone needs.
    pub const fn lines(&self) -> usize {
        self.words.div_ceil(Line::WORDS)
    }

    /// How many bytes of metadata the zone needs.
    pub const fn bytes(&self) -> usize {
        self.lines() * size_of::<Line>()
    }

    #[inline]
    pub(crate) const fn level(&self, level: usize) -> &LevelLayout {
        &self.levels[level - 1]
    }

    /// The metadata index of the bitmap of nodes at `level` and of `group` that advertise at least `advert`.
    #[inline]
    pub(crate) const fn map(&self, level: usize, group: u8, advert: u8) -> usize {
        let layout = self.level(level);
        let map = if level == 1 {
            group as usize * advert::HALF as usize + (advert - 1) as usize
        } else {
            (advert - advert::CHILD) as usize
        };
        layout.maps + map * layout.shape.words()
    }

    /// The lowest advert that has a bitmap at `level`.
    #[inline]
    pub(crate) const fn first_advert(level: usize) -> u8 {
        if level == 1 { 1 } else { advert::CHILD }
    }
}

/// Bitmaps of one level: one per advert but "nothing" and "everything", for areas one set per group.
const fn maps_at(level: usize) -> usize {
    if level == 1 { GROUPS * advert::HALF as usize } else { (advert::HALF - advert::CHILD + 1) as usize }
}

const fn line_up(words: usize) -> usize {
    words.div_ceil(Line::WORDS) * Line::WORDS
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn geometry(start: u64, frames: u64) -> Geometry {
        Geometry::new(FrameRange::new(Pfn::new(start), frames).unwrap()).unwrap()
    }

    #[test]
    fn every_order_has_one_level() {
        let levels: Vec<_> = (0..=18).map(level_of).collect();
        assert_eq!(levels, [0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4]);
        assert_eq!(node_order(1), AREA_ORDER);
    }

    #[test]
    fn metadata_stays_below_eighty_kibibytes_a_gibibyte() {
        assert!(geometry(0, 1 << 18).bytes() <= 80 << 10);
        assert!(geometry(0, 1 << 28).bytes() <= 80 << 20);
    }

    #[test]
    fn no_two_parts_of_the_metadata_overlap() {
        for frames in [1, 1 << 14, 1 << 21, (1 << 24) + 5] {
            let geometry = geometry(512, frames);
            assert_eq!(geometry.bytes(), geometry.lines() * 64);
            let mut end = geometry.inboxes + geometry.level(1).count;
            for level in 1..=LEVELS {
                for class in 0..if level == 1 { CLASSES as u8 } else { 1 } {
                    for advert in Geometry::first_advert(level)..=advert::HALF {
                        let map = geometry.map(level, class, advert);
                        assert!(map >= end, "level {level}, class {class}, advert {advert}");
                        end = map + geometry.level(level).shape.words();
                    }
                }
            }
            assert!(geometry.counts >= end);
        }
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        let frames = MAX_FRAMES + 1;
        let range = FrameRange::new(Pfn::new(0), frames).unwrap();
        assert_eq!(Geometry::new(range).unwrap_err(), ZoneError::TooLarge { frames });
        // The last frames of the number space are ordinary frames.
        assert_eq!(geometry(u64::MAX - 1, 1).level(1).count, 1);
    }
}
