//! [`Charge`]: what a resident page counts for, in the account of whose page it is. A pure policy.

/// How a group of processes is charged for its resident pages.
///
/// The two ways of the discussion of the series: a whole page makes reclaim into compressed RAM look like no progress;
/// the compressed size leaks the difference, which somebody else may have to pay when the ratio falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Charge {
    /// A resident page counts as a page.
    #[default]
    Whole,
    /// A resident page counts as its share of the physical memory in use.
    Share,
    /// As the share, but no less than a part of a page, in thousandths: what was saved is not given away in full.
    ShareAtLeast {
        /// The least, in thousandths of a page.
        permille: u16,
    },
}

impl Charge {
    /// The bytes charged for `pages` of the `all` pages that are resident, each of `page_bytes`, while all of them use
    /// `used` bytes.
    ///
    /// Never more than whole pages; shares are rounded up, so that all accounts together cover what is used.
    pub const fn bytes(self, pages: u64, all: u64, page_bytes: u64, used: u64) -> u64 {
        let whole = pages.saturating_mul(page_bytes);
        let least = match self {
            Self::Whole => return whole,
            Self::Share => 0,
            Self::ShareAtLeast { permille } => whole as u128 * permille as u128 / 1000,
        };
        if all == 0 {
            return 0;
        }
        let share = (used as u128 * pages as u128).div_ceil(all as u128);
        let charged = if share > least { share } else { least };
        if charged > whole as u128 { whole } else { charged as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_what_is_used_and_never_pass_whole_pages() {
        for used in [0, 1, 4096, 10_000, 40_960, 1 << 40] {
            for (mine, yours) in [(1, 9), (3, 7), (5, 5), (0, 10)] {
                let bytes = |charge: Charge, pages| charge.bytes(pages, 10, 4096, used);
                let covered = bytes(Charge::Share, mine) + bytes(Charge::Share, yours);
                assert!(covered >= used.min(40_960), "{used} {mine}");
                for charge in [Charge::Whole, Charge::Share, Charge::ShareAtLeast { permille: 250 }] {
                    assert!(bytes(charge, mine) <= mine * 4096);
                }
                assert!(bytes(Charge::ShareAtLeast { permille: 250 }, mine) >= mine * 1024);
            }
        }
        assert_eq!(Charge::Whole.bytes(3, 10, 4096, 1), 3 * 4096);
        assert_eq!(Charge::ShareAtLeast { permille: 250 }.bytes(3, 10, 4096, 0), 3 * 1024);
        assert_eq!(Charge::Share.bytes(0, 0, 4096, 0), 0);
        assert_eq!(Charge::Share.bytes(u64::MAX, u64::MAX, 4096, u64::MAX), u64::MAX);
    }
}
