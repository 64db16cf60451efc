//! Size classes: which size an object gets, and how large the slabs are that objects of it share.

use core::alloc::Layout;

/// Sizes of objects that share slabs: multiples of 16 bytes to 128, then four steps a doubling to 16 KiB. An object is
/// at most a fifth larger than asked for beyond 128 bytes. The spacing is that of jemalloc and its descendants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Class(u8);

const STEP: usize = 16;
const LINEAR: usize = 8;
const DOUBLINGS: usize = 7;

impl Class {
    pub(super) const COUNT: usize = LINEAR + 4 * DOUBLINGS;
    /// The largest size of a class.
    pub(super) const LARGEST: usize = (LINEAR * STEP) << DOUBLINGS;

    /// The class for `layout` where pages have `page` bytes; `None` if it needs a block of its own.
    pub(super) fn of(layout: Layout, page: usize) -> Option<Self> {
        let (size, align) = (layout.size().max(1), layout.align());
        if size > Self::LARGEST || align > page {
            return None;
        }
        let class = Self::at_least(size);
        if align <= STEP {
            return Some(class);
        }
        // A slab starts at a page, so objects are aligned to what divides their size.
        (class.0..Self::COUNT as u8).map(Self).find(|class| class.size() % align == 0)
    }

    /// The smallest class of objects of at least `size` bytes, which is 1 to [`Class::LARGEST`].
    const fn at_least(size: usize) -> Self {
        if size <= LINEAR * STEP {
            return Self(((size - 1) / STEP) as u8);
        }
        let last = size - 1;
        let log = last.ilog2();
        // The two bits below the highest one say which of the four steps of this doubling it is.
        let step = (last >> (log - 2)) & 3;
        Self((LINEAR + 4 * (log as usize - 7) + step) as u8)
    }

    pub(super) const fn index(self) -> usize {
        self.0 as usize
    }

    pub(super) const fn from_index(index: usize) -> Self {
        assert!(index < Self::COUNT);
        Self(index as u8)
    }

    /// The size of its objects.
    #[inline]
    pub(super) const fn size(self) -> usize {
        SIZES[self.0 as usize] as usize
    }

    const fn computed_size(self) -> usize {
        let index = self.0 as usize;
        if index < LINEAR {
            return (index + 1) * STEP;
        }
        let base = (LINEAR * STEP) << ((index - LINEAR) / 4);
        base + ((index - LINEAR) % 4 + 1) * base / 4
    }

    /// How many bytes its slabs have if there is room: 64 objects, but no more than 32 KiB unless that is fewer than 4.
    pub(super) fn slab_bytes(self, page: usize) -> usize {
        let most = (4 * self.size()).max(32 << 10);
        (64 * self.size()).min(most).max(page).next_power_of_two()
    }

    /// Which object begins at byte `offset` of a slab, if one does.
    pub(super) fn object_at(self, offset: usize) -> Option<usize> {
        let inverse = INVERSES[self.index()];
        let object = ((offset as u64 * inverse) >> 32) as usize;
        (object * self.size() == offset).then_some(object)
    }
}

const SIZES: [u32; Class::COUNT] = {
    let mut sizes = [0; Class::COUNT];
    let mut index = 0;
    while index < Class::COUNT {
        sizes[index] = Class(index as u8).computed_size() as u32;
        index += 1;
    }
    sizes
};

/// 2^32 divided by each size, rounded up. For offsets below 2^18, `offset * inverse >> 32` is the quotient: the product
/// is too large by less than `offset * size`, which is below 2^32.
const INVERSES: [u64; Class::COUNT] = {
    let mut inverses = [0; Class::COUNT];
    let mut index = 0;
    while index < Class::COUNT {
        inverses[index] = (1u64 << 32).div_ceil(Class(index as u8).size() as u64);
        index += 1;
    }
    inverses
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_gets_the_smallest_class_that_holds_it() {
        let sizes: Vec<usize> = (0..Class::COUNT).map(|index| Class::from_index(index).size()).collect();
        assert!(sizes.windows(2).all(|pair| pair[0] < pair[1]), "{sizes:?}");
        assert_eq!(sizes.last(), Some(&Class::LARGEST));
        for size in 1..=Class::LARGEST {
            let smallest = sizes.iter().position(|other| *other >= size).unwrap();
            assert_eq!(Class::at_least(size).index(), smallest, "{size}");
        }
    }

    #[test]
    fn an_alignment_is_kept_by_the_size() {
        for page in [4096, 16384, 65536] {
            for align in (0..=17).map(|shift| 1 << shift) {
                for size in (0..300).chain([4000, 4095, 4096, 5000, 16383, 16384, 16385, 1 << 20]) {
                    let class = Class::of(Layout::from_size_align(size, align).unwrap(), page);
                    let must = size <= Class::LARGEST && align <= page && align <= Class::LARGEST;
                    assert_eq!(class.is_some(), must, "{size} aligned to {align}");
                    if let Some(class) = class {
                        assert!(class.size() >= size && class.size() % align.min(4096) == 0);
                    }
                }
            }
        }
    }

    #[test]
    fn objects_are_found_by_their_first_byte_only() {
        for class in (0..Class::COUNT).map(Class::from_index) {
            for offset in 0..1 << 18 {
                let expected = (offset % class.size() == 0).then_some(offset / class.size());
                assert_eq!(class.object_at(offset), expected, "{class:?} at {offset}");
            }
        }
    }
}
