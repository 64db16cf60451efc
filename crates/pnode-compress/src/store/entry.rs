//! The page entry: the 8 bytes that the store keeps of each page, and what they say.
//!
//! ```text
//!  object   63            30 29        14 13 11  10   9     6 5    0
//!          +----------------+------------+------+----+--------+------+
//!          | place, in      | length - 1 | age  | dy | readers| tag  |
//!          | granules       |            |      |ing |        |      |
//!          +----------------+------------+------+----+--------+------+
//!  raw      63            30 29        14 13 11  10   9     6 5    0
//!          +----------------+------------+------+----+--------+------+
//!          | place, in      | half of its| age  | dy | readers| tag  |
//!          | granules       | checksum   |      |ing |        |      |
//!          +----------------+------------+------+----+--------+------+
//!  inline   63                                            6 5    0
//!          +------------------------------------------------+------+
//!          | a word, shortened to 58 bits                   | form |
//!          +------------------------------------------------+------+
//!  shared   63                                            6 5    0
//!          +------------------------------------------------+------+
//!          | the number of an object that pages share       | form |
//!          +------------------------------------------------+------+
//!  empty    0
//! ```
//!
//! The tag is the codec's, without its version bits; its codec bits are never 0, which tells objects from the others. A
//! raw object is as long as a page, so its entry has room for a half of its checksum; see [`super::pool`] for the other.
//! An object that several pages share has an entry of its own, past those of the pages; see [`super::share`].

use pnode_core::PageSize;

use crate::codec::{Codec, Tag};

/// Bytes a granule: places and sizes in the pool are multiples of it.
pub(crate) const GRANULE: usize = 32;

const TAG_MASK: u64 = 0x3f;
const CODEC_MASK: u64 = 0x07;
const RAW: u64 = Codec::Raw as u64;
const READERS_SHIFT: u32 = 6;
const READERS_MASK: u64 = 0xf << READERS_SHIFT;
const DYING: u64 = 1 << 10;
const AGE_SHIFT: u32 = 11;
const AGE_MASK: u64 = 0x7 << AGE_SHIFT;
const LENGTH_SHIFT: u32 = 14;
const LENGTH_MASK: u64 = 0xffff << LENGTH_SHIFT;
const PLACE_SHIFT: u32 = 30;

/// How many granules a pool can have: 512 GiB of them.
pub(crate) const MAX_PLACES: u64 = 1 << (64 - PLACE_SHIFT);

const INLINE_SHIFT: u32 = 6;
/// The word is the 58 bits, sign-extended.
const FORM_SIGNED: u64 = 0x08;
/// The word is the low 32 of the 58 bits, twice.
const FORM_HALVES: u64 = 0x10;
/// The 58 bits number a shared object.
const FORM_SHARED: u64 = 0x18;

/// One page entry as a value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry(u64);

/// An entry that holds a whole page as the word that it repeats, and so names no place in the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Inline(Entry);

impl Inline {
    /// The entry of a page that repeats `word`, if that fits an entry.
    pub(crate) const fn new(word: u64) -> Option<Self> {
        let signed = word as i64;
        if signed << INLINE_SHIFT >> INLINE_SHIFT == signed {
            return Some(Self(Entry(word << INLINE_SHIFT | FORM_SIGNED)));
        }
        let low = word & 0xffff_ffff;
        if word >> 32 == low { Some(Self(Entry(low << INLINE_SHIFT | FORM_HALVES))) } else { None }
    }

    pub(crate) const fn entry(self) -> Entry {
        self.0
    }
}

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No page is stored.
    Empty,
    /// The page repeats this word; it takes no bytes in the pool.
    Inline(u64),
    /// The page is an object in the pool.
    Object,
    /// The page is the object with this number, which it may share with other pages.
    Shared(u32),
}

impl Entry {
    /// No page.
    pub(crate) const EMPTY: Self = Self(0);
    /// The most readers that an entry can count.
    pub(crate) const MAX_READERS: u32 = (READERS_MASK >> READERS_SHIFT) as u32;
    /// The oldest age that a page reaches by not being used.
    pub(crate) const OLDEST: u8 = Self::SETTLED - 1;
    /// The age of an old page that recompression could not make smaller; a use makes it young like any other.
    pub(crate) const SETTLED: u8 = (AGE_MASK >> AGE_SHIFT) as u8;

    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    /// The entry of an object of `len` bytes, 1 to 65,536, at the granule `place`.
    pub(crate) const fn object(tag: Tag, place: u64, len: usize) -> Self {
        debug_assert!(place < MAX_PLACES && len >= 1 && len <= 1 << 16);
        Self(place << PLACE_SHIFT | (len as u64 - 1) << LENGTH_SHIFT | tag.to_byte() as u64 & TAG_MASK)
    }

    /// The entry of a raw page at the granule `place`, with the half of its checksum that is kept here.
    pub(crate) const fn raw(place: u64, half: u16) -> Self {
        debug_assert!(place < MAX_PLACES);
        Self(place << PLACE_SHIFT | (half as u64) << LENGTH_SHIFT | RAW)
    }

    /// The entry of a page that is the shared object `number`.
    pub(crate) const fn shared(number: u32) -> Self {
        Self((number as u64) << INLINE_SHIFT | FORM_SHARED)
    }

    #[inline]
    pub(crate) const fn kind(self) -> Kind {
        if self.0 == 0 {
            Kind::Empty
        } else if self.0 & CODEC_MASK != 0 {
            Kind::Object
        } else if self.0 & TAG_MASK == FORM_SIGNED {
            Kind::Inline((self.0 as i64 >> INLINE_SHIFT) as u64)
        } else if self.0 & TAG_MASK == FORM_HALVES {
            let low = self.0 >> INLINE_SHIFT & 0xffff_ffff;
            Kind::Inline(low << 32 | low)
        } else {
            Kind::Shared((self.0 >> INLINE_SHIFT) as u32)
        }
    }

    /// Whether the page is a shared object: `kind`'s answer by one test, for the paths that are walked for each page.
    #[inline]
    pub(crate) const fn is_shared(self) -> bool {
        self.0 & TAG_MASK == FORM_SHARED
    }

    #[inline]
    pub(crate) const fn is_object(self) -> bool {
        self.0 & CODEC_MASK != 0
    }

    /// Whether the page is kept as it is.
    #[inline]
    pub(crate) const fn is_raw(self) -> bool {
        self.0 & CODEC_MASK == RAW
    }

    /// The tag of an object's bytes; `None` if the entry is no object.
    #[inline]
    pub(crate) fn tag(self) -> Option<Tag> {
        if !self.is_object() {
            return None;
        }
        Tag::from_byte((self.0 & TAG_MASK) as u8 | Tag::VERSION << 6).ok()
    }

    /// The first granule of an object.
    #[inline]
    pub(crate) const fn place(self) -> u64 {
        self.0 >> PLACE_SHIFT
    }

    /// The length of an object in bytes, without its checksum, in a store of pages of size `page`.
    #[inline]
    pub(crate) const fn len(self, page: PageSize) -> usize {
        if self.is_raw() { page.bytes() } else { self.field() as usize + 1 }
    }

    /// What a raw page's entry keeps of its checksum.
    #[inline]
    pub(crate) const fn half_sum(self) -> u16 {
        self.field()
    }

    #[inline]
    const fn field(self) -> u16 {
        ((self.0 & LENGTH_MASK) >> LENGTH_SHIFT) as u16
    }

    #[inline]
    pub(crate) const fn readers(self) -> u32 {
        ((self.0 & READERS_MASK) >> READERS_SHIFT) as u32
    }

    /// Whether the page was removed while it was read: it is gone for everybody but its readers.
    #[inline]
    pub(crate) const fn is_dying(self) -> bool {
        self.is_object() && self.0 & DYING != 0
    }

    pub(crate) const fn age(self) -> u8 {
        ((self.0 & AGE_MASK) >> AGE_SHIFT) as u8
    }

    /// The same object with one reader more. The caller has seen fewer than [`Self::MAX_READERS`].
    #[inline]
    pub(crate) const fn with_reader(self) -> Self {
        Self(self.0 + (1 << READERS_SHIFT))
    }

    /// The same object with one reader, and not removed.
    pub(crate) const fn with_one_reader(self) -> Self {
        Self(self.0 & !(READERS_MASK | DYING) | 1 << READERS_SHIFT)
    }

    /// The same object with one reader less. The caller is a reader.
    #[inline]
    pub(crate) const fn without_reader(self) -> Self {
        Self(self.0 - (1 << READERS_SHIFT))
    }

    pub(crate) const fn dying(self) -> Self {
        Self(self.0 | DYING)
    }

    pub(crate) const fn with_age(self, age: u8) -> Self {
        Self(self.0 & !AGE_MASK | (age as u64) << AGE_SHIFT & AGE_MASK)
    }
}

impl core::fmt::Debug for Entry {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.kind() {
            Kind::Object => write!(
                f,
                "Object({:?}, {:#x} at {:#x}, readers {}, age {}{})",
                self.tag(),
                self.field(),
                self.place(),
                self.readers(),
                self.age(),
                if self.is_dying() { ", dying" } else { "" }
            ),
            kind => write!(f, "{kind:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inline_words_come_back() {
        let words = [0, 1, u64::MAX, (1 << 57) - 1, !0 << 57, 0x5a5a_5a5a_5a5a_5a5a, 0xdead_beef_dead_beef];
        for word in words {
            assert_eq!(
                Inline::new(word).map(|inline| inline.entry().kind()),
                Some(Kind::Inline(word)),
                "{word:#x}"
            );
        }
        for word in [1 << 57, 0x5a5a_5a5a_5a5a_5a5b, 1 << 63] {
            assert_eq!(Inline::new(word), None, "{word:#x}");
        }
    }

    #[test]
    fn a_shared_object_is_named_and_is_none_itself() {
        for number in [0, 1, u32::MAX] {
            let entry = Entry::shared(number);
            assert_eq!(
                (entry.kind(), entry.is_shared(), entry.is_object(), entry.is_dying()),
                (Kind::Shared(number), true, false, false)
            );
            assert_eq!(Entry::from_bits(entry.bits()), entry);
        }
    }

    #[test]
    fn object_fields_do_not_overlap() {
        let page = PageSize::KIB4;
        for codec in Codec::ALL.into_iter().filter(|codec| *codec != Codec::Raw) {
            for (place, len) in [(0, 1), (MAX_PLACES - 1, 1 << 16), (0x1_2345_6789, 1757)] {
                let mut entry = Entry::object(Tag::plain(codec), place, len).with_age(5);
                assert!(entry.is_object() && !entry.is_shared());
                for _ in 0..Entry::MAX_READERS {
                    entry = entry.with_reader();
                }
                let entry = entry.dying();
                assert_eq!((entry.kind(), entry.tag()), (Kind::Object, Some(Tag::plain(codec))));
                assert_eq!((entry.place(), entry.len(page), entry.age()), (place, len, 5));
                assert_eq!((entry.readers(), entry.is_dying()), (Entry::MAX_READERS, true));
                assert_eq!(entry.without_reader().readers(), Entry::MAX_READERS - 1);
            }
        }
    }

    #[test]
    fn a_raw_page_is_as_long_as_a_page_and_keeps_half_a_checksum() {
        for (place, half) in [(0, 0), (MAX_PLACES - 1, u16::MAX), (0x1_2345_6789, 0x8001)] {
            let entry = Entry::raw(place, half).with_age(7).with_reader().dying();
            assert!(entry.is_object() && entry.is_raw() && entry.is_dying());
            assert_eq!((entry.tag(), entry.place()), (Some(Tag::plain(Codec::Raw)), place));
            assert_eq!((entry.half_sum(), entry.age(), entry.readers()), (half, 7, 1));
            assert_eq!(entry.len(PageSize::KIB4), 4096);
        }
        assert!(!Entry::object(Tag::plain(Codec::Deep), 0, 1).is_raw() && !Entry::EMPTY.is_raw());
    }
}
