//! The word of a zone slot: whose zone is in it.

use crate::node::NodeId;

/// A zone slot's word: whose zone it is, as one value that a walker can compare before and after it took a block.
///
/// ```text
/// 63       32 31  19   18       17       16    15   0
/// |   use   | zero | closed | private | taken | node |
/// ```
///
/// *use* counts how often the slot was filled, so a slot that was emptied and filled again never shows the same word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ZoneWord(u64);

impl ZoneWord {
    const TAKEN: u64 = 1 << 16;
    const PRIVATE: u64 = 1 << 17;
    const CLOSED: u64 = 1 << 18;

    pub(super) const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    pub(super) const fn raw(self) -> u64 {
        self.0
    }

    pub(super) const fn is_taken(self) -> bool {
        self.0 & Self::TAKEN != 0
    }

    pub(super) const fn is_closed(self) -> bool {
        self.0 & Self::CLOSED != 0
    }

    /// The word of a zone that takes nothing new.
    pub(super) const fn closed(self) -> Self {
        Self(self.0 | Self::CLOSED)
    }

    /// The word of a zone that hands out.
    pub(super) const fn open(self) -> Self {
        Self(self.0 & !Self::CLOSED)
    }

    /// Whether both words are of one use of the slot: the same zone in the same hands, open or closed.
    #[inline]
    pub(super) const fn same_use(self, other: Self) -> bool {
        (self.0 ^ other.0) & !Self::CLOSED == 0
    }

    /// The node and kind of an open zone, comparable in one step; a closed or vacant slot equals no [`Owned`].
    #[inline]
    pub(super) const fn owner(self) -> Owned {
        Owned(self.0 as u32)
    }

    /// The node's number, which means nothing in a vacant slot.
    #[inline]
    pub(super) const fn node(self) -> NodeId {
        NodeId::masked(self.0 as u16)
    }

    /// The node of a zone in use.
    #[inline]
    pub(super) fn taken(self) -> Option<NodeId> {
        self.is_taken().then(|| self.node())
    }

    /// The word of the slot's next use.
    pub(super) const fn taken_by(self, owner: Owned) -> Self {
        Self(self.vacant().0.wrapping_add(1 << 32) | owner.0 as u64)
    }

    /// The word of the slot when it is given up.
    pub(super) const fn vacant(self) -> Self {
        Self(self.0 & !0xffff_ffff)
    }
}

/// A node and its kind, as the low half of a [`ZoneWord`] in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owned(u32);

impl Owned {
    #[inline]
    pub(super) const fn ordinary(node: NodeId) -> Self {
        Self(ZoneWord::TAKEN as u32 | node.get() as u32)
    }

    #[inline]
    pub(super) const fn private(node: NodeId) -> Self {
        Self(ZoneWord::PRIVATE as u32 | ZoneWord::TAKEN as u32 | node.get() as u32)
    }

    #[inline]
    pub(super) const fn is_ordinary(self) -> bool {
        self.0 & (ZoneWord::PRIVATE | ZoneWord::CLOSED | ZoneWord::TAKEN) as u32 == ZoneWord::TAKEN as u32
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    /// What a slot went through, written down: how often it was filled, whose it is, and whether it is shut.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct History {
        uses: u32,
        owner: Option<Owned>,
        shut: bool,
    }

    const VACANT: History = History { uses: 0, owner: None, shut: false };

    fn owners() -> [(Owned, u16); 4] {
        [0, 1023]
            .map(|number| (number, NodeId::new(number).unwrap()))
            .map(|(number, node)| [(Owned::ordinary(node), number), (Owned::private(node), number)])
            .as_flattened()
            .try_into()
            .unwrap()
    }

    /// Each word that some steps lead to, with the history of its slot.
    fn words(steps: u32) -> Vec<(ZoneWord, History)> {
        let mut all = std::vec![(ZoneWord::from_raw(0), VACANT)];
        let mut last = all.clone();
        for _ in 0..steps {
            last = last.iter().flat_map(|(word, history)| next(*word, *history)).collect();
            all.extend_from_slice(&last);
        }
        all
    }

    fn next(word: ZoneWord, history: History) -> Vec<(ZoneWord, History)> {
        match history.owner {
            None => owners()
                .map(|(owner, _)| {
                    let history = History { uses: history.uses + 1, owner: Some(owner), shut: false };
                    (word.taken_by(owner), history)
                })
                .into(),
            Some(_) => std::vec![
                (word.closed(), History { shut: true, ..history }),
                (word.open(), History { shut: false, ..history }),
                (word.vacant(), History { owner: None, shut: false, ..history }),
            ],
        }
    }

    #[test]
    fn a_word_tells_what_its_slot_went_through() {
        let words = words(if cfg!(miri) { 3 } else { 5 });
        for (word, history) in &words {
            let owned = history.owner.filter(|_| !history.shut);
            for (owner, number) in owners() {
                assert_eq!(word.owner() == owner, owned == Some(owner), "{word:?} {history:?}");
                if history.owner == Some(owner) {
                    assert_eq!((word.node().get(), word.taken().map(NodeId::get)), (number, Some(number)));
                }
            }
            let ordinary =
                owned.is_some_and(|owned| owners().iter().step_by(2).any(|(owner, _)| *owner == owned));
            assert_eq!(word.owner().is_ordinary(), ordinary, "{word:?} {history:?}");
            assert_eq!(
                (word.is_taken(), word.taken().is_some()),
                (history.owner.is_some(), history.owner.is_some())
            );
            assert_eq!(word.is_closed(), history.shut, "{word:?} {history:?}");
            for (other, its) in &words {
                let same = (history.uses, history.owner) == (its.uses, its.owner);
                assert_eq!(word.same_use(*other), same, "{word:?} {history:?}, {other:?} {its:?}");
                assert_eq!(word == other, history == its, "{word:?} {history:?}, {other:?} {its:?}");
            }
        }
    }

    #[test]
    fn the_count_of_uses_wraps_and_leaves_the_owner_alone() {
        let last = ZoneWord::from_raw(u64::MAX << 32);
        for (owner, _) in owners() {
            assert_eq!(last.taken_by(owner), ZoneWord::from_raw(u64::from(owner.0)));
        }
    }
}
