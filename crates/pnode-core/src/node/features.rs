//! The doors that an owner may open: which services of the host may work on its node.

use core::fmt;
use core::ops::{BitOr, BitOrAssign};

/// Which services may work on a private node. [`Features::NONE`] is the default: every door is shut.
///
/// After the capability bits of the Linux series (`node_private.caps`, mail *Private Memory NUMA Nodes*, July 2026).
/// A set is checked as a whole by [`Features::check`] when a node is registered; it is refused, never trimmed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Features(u16);

impl Features {
    /// Every door is shut: only the owner allocates.
    pub const NONE: Self = Self(0);
    /// Reclaim may evict pages of the node.
    pub const RECLAIM: Self = Self(1 << 0);
    /// Reclaim elsewhere may demote pages into the node. Needs [`Features::RECLAIM`]: what comes in must be able to leave.
    pub const DEMOTION: Self = Self(1 << 1);
    /// The access scanner may find hot pages of the node and move them to ordinary memory.
    pub const PROMOTION: Self = Self(1 << 2);
    /// Compaction may move pages about within the node.
    pub const COMPACTION: Self = Self(1 << 3);
    /// Contiguous ranges may be claimed by address.
    pub const CONTIG: Self = Self(1 << 4);
    /// User policy may name the node: bind, move_pages, migrate_pages, home node.
    pub const USER_NUMA: Self = Self(1 << 5);
    /// Pages of the node may be pinned for long.
    pub const PIN: Self = Self(1 << 6);
    /// Pages may be migrated off when the node's memory is unplugged.
    pub const HOTUNPLUG: Self = Self(1 << 7);
    /// The node's memory counts when the host looks for a task whose end frees memory.
    pub const OOM: Self = Self(1 << 8);
    /// Pages are mapped read-only; a write moves the page to ordinary memory first. Excludes [`Features::USER_NUMA`] and
    /// [`Features::PIN`], which would leave a page writable in place.
    pub const WRITE_FENCE: Self = Self(1 << 9);

    /// Every door by name, lowest bit first.
    pub const DOORS: [(Self, &'static str); 10] = [
        (Self::RECLAIM, "RECLAIM"),
        (Self::DEMOTION, "DEMOTION"),
        (Self::PROMOTION, "PROMOTION"),
        (Self::COMPACTION, "COMPACTION"),
        (Self::CONTIG, "CONTIG"),
        (Self::USER_NUMA, "USER_NUMA"),
        (Self::PIN, "PIN"),
        (Self::HOTUNPLUG, "HOTUNPLUG"),
        (Self::OOM, "OOM"),
        (Self::WRITE_FENCE, "WRITE_FENCE"),
    ];

    /// (door, what it needs): the first is refused without the second.
    pub const NEEDS: [(Self, Self); 1] = [(Self::DEMOTION, Self::RECLAIM)];

    /// (door, door): the two are refused together.
    pub const EXCLUDES: [(Self, Self); 2] =
        [(Self::WRITE_FENCE, Self::USER_NUMA), (Self::WRITE_FENCE, Self::PIN)];

    const KNOWN: u16 = (1 << Self::DOORS.len()) - 1;

    /// The set with the bits `bits`, for a caller that carries sets across a binary interface.
    ///
    /// # Errors
    ///
    /// [`FeatureError::Unknown`] for a bit that is no door.
    pub const fn from_bits(bits: u16) -> Result<Self, FeatureError> {
        if bits & !Self::KNOWN != 0 {
            return Err(FeatureError::Unknown { bits: bits & !Self::KNOWN });
        }
        Ok(Self(bits))
    }

    /// The bits of the set.
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Whether every door of `doors` is open in this set.
    #[inline]
    pub const fn contains(self, doors: Self) -> bool {
        self.0 & doors.0 == doors.0
    }

    /// Whether some door of `doors` is open in this set.
    pub const fn intersects(self, doors: Self) -> bool {
        self.0 & doors.0 != 0
    }

    /// The doors in both sets.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// This set and `other`; like `|`, in constants.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The doors of this set that are not in `other`.
    #[must_use]
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Checks the set against [`Features::NEEDS`] and [`Features::EXCLUDES`].
    ///
    /// # Errors
    ///
    /// The first rule that the set breaks.
    pub fn check(self) -> Result<Self, FeatureError> {
        for (feature, needed) in Self::NEEDS {
            if self.contains(feature) && !self.contains(needed) {
                return Err(FeatureError::Needs { feature, needed: needed.difference(self) });
            }
        }
        for (feature, excluded) in Self::EXCLUDES {
            if self.contains(feature.union(excluded)) {
                return Err(FeatureError::Excludes { feature, excluded });
            }
        }
        Ok(self)
    }
}

impl BitOr for Features {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

impl BitOrAssign for Features {
    fn bitor_assign(&mut self, other: Self) {
        *self = self.union(other);
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Features {
    /// Prints names, as `RECLAIM|DEMOTION`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (_, name) in Self::DOORS.into_iter().filter(|(door, _)| self.contains(*door)) {
            write!(f, "{separator}{name}")?;
            separator = "|";
        }
        if separator.is_empty() { f.write_str("NONE") } else { Ok(()) }
    }
}

/// Why a set of features is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FeatureError {
    /// Bits that are no door.
    Unknown {
        /// Those bits.
        bits: u16,
    },
    /// A door that makes no sense without another one.
    Needs {
        /// The door.
        feature: Features,
        /// What must be open too.
        needed: Features,
    },
    /// Two doors that contradict each other.
    Excludes {
        /// The door.
        feature: Features,
        /// What must stay shut then.
        excluded: Features,
    },
}

impl fmt::Display for FeatureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { bits } => write!(f, "feature bits {bits:#x} are unknown; leave them out"),
            Self::Needs { feature, needed } => write!(f, "{feature} needs {needed}; open both or neither"),
            Self::Excludes { feature, excluded } => {
                write!(f, "{feature} excludes {excluded}; open one of them")
            }
        }
    }
}

impl core::error::Error for FeatureError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_is_accepted_or_names_a_rule_that_it_breaks() {
        let mut accepted = 0;
        for bits in 0..=u16::MAX {
            let set = match Features::from_bits(bits) {
                Ok(set) => set,
                Err(error) => {
                    // There are ten doors, so what is unknown is above the tenth bit.
                    assert_eq!(error, FeatureError::Unknown { bits: bits >> 10 << 10 });
                    continue;
                }
            };
            assert_eq!((set.bits(), bits >> 10), (bits, 0));
            // The rules once more, spelled out by hand.
            let demotion_alone = set.contains(Features::DEMOTION) && !set.contains(Features::RECLAIM);
            let fence_and_user = set.contains(Features::WRITE_FENCE) && set.contains(Features::USER_NUMA);
            let fence_and_pin = set.contains(Features::WRITE_FENCE) && set.contains(Features::PIN);
            assert_eq!(set.check().is_err(), demotion_alone || fence_and_user || fence_and_pin, "{set}");
            accepted += u32::from(set.check().is_ok());
        }
        // 1024 sets; a quarter lacks RECLAIM beside DEMOTION; of the rest, 3 in 8 pair the fence with one it excludes.
        assert_eq!(accepted, 768 - 288);
    }

    #[test]
    fn sets_are_sets_of_doors() {
        for (bit, (door, _)) in Features::DOORS.into_iter().enumerate() {
            assert_eq!(door.bits(), 1 << bit, "{door}");
        }
        let sets = || (0..1 << 10).step_by(31).map(|bits| Features::from_bits(bits).unwrap());
        for (a, b) in sets().flat_map(|a| sets().map(move |b| (a, b))) {
            let mut joined = a;
            joined |= b;
            assert_eq!((a | b, joined), (a.union(b), a.union(b)));
            let has = |set: Features, door| set.contains(door);
            for (door, _) in Features::DOORS {
                let (in_a, in_b) = (has(a, door), has(b, door));
                assert_eq!(has(a.union(b), door), in_a || in_b, "{a} and {b}");
                assert_eq!(has(a.intersection(b), door), in_a && in_b, "{a} and {b}");
                assert_eq!(has(a.difference(b), door), in_a && !in_b, "{a} and {b}");
            }
            let shared = Features::DOORS.into_iter().any(|(door, _)| has(a, door) && has(b, door));
            let within = Features::DOORS.into_iter().all(|(door, _)| has(a, door) || !has(b, door));
            assert_eq!((a.intersects(b), a.contains(b)), (shared, within), "{a} and {b}");
        }
    }
}
