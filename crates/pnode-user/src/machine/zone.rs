//! The zone of a node: a buddy zone whose every block passes the machine's watchers, whoever asks for it.

use core::ops::Deref;
use std::sync::Arc;

use pnode_core::{
    FrameError, FrameRange, FrameSource, FrameZone, FreeError, MigrateType, NodeId, Order, Pfn, Watermarks,
};

use super::inject::Point;
use super::trace::{Note, What, Why};
use super::watch::Watch;

/// A zone that is watched: one load decides whether anybody looks.
pub(super) struct Zone {
    zone: pnode_buddy::Zone<'static>,
    node: NodeId,
    marks: Watermarks,
    watch: Arc<Watch>,
}

impl Zone {
    /// A zone of `node` that keeps `marks` back.
    pub(super) fn new(
        zone: pnode_buddy::Zone<'static>,
        marks: Watermarks,
        node: NodeId,
        watch: &Arc<Watch>,
    ) -> Self {
        Self { zone, node, marks, watch: Arc::clone(watch) }
    }

    pub(super) const fn marks(&self) -> Watermarks {
        self.marks
    }

    pub(super) fn watch(&self) -> &Watch {
        &self.watch
    }

    #[cold]
    fn watched(
        &self,
        take: impl FnOnce() -> Result<Pfn, FrameError>,
        order: Order,
    ) -> Result<Pfn, FrameError> {
        if self.watch.fails(Point::Alloc) {
            return Err(FrameError::Exhausted { order });
        }
        let taken = take();
        if let Ok(pfn) = taken {
            self.watch.note(|| Note::new(What::Alloc, Why::Asked).at(self.node, pfn).count(order.frames()));
        }
        taken
    }
}

impl Deref for Zone {
    type Target = pnode_buddy::Zone<'static>;

    fn deref(&self) -> &Self::Target {
        &self.zone
    }
}

impl FrameSource for Zone {
    #[inline]
    fn alloc(&self, order: Order, migrate: MigrateType) -> Result<Pfn, FrameError> {
        if self.watch.is_idle() {
            return self.zone.alloc(order, migrate);
        }
        self.watched(|| self.zone.alloc(order, migrate), order)
    }

    #[inline]
    fn free(&self, pfn: Pfn, order: Order) -> Result<(), FreeError> {
        if !self.watch.is_idle() {
            // Before the block is anybody else's.
            self.watch.note(|| Note::new(What::Free, Why::Asked).at(self.node, pfn).count(order.frames()));
        }
        self.zone.free(pfn, order)
    }
}

impl FrameZone for Zone {
    fn span(&self) -> FrameRange {
        self.zone.span()
    }

    fn free_frames(&self) -> u64 {
        self.zone.free_frames()
    }

    fn managed_frames(&self) -> u64 {
        self.zone.managed_frames()
    }

    fn alloc_at(&self, pfn: Pfn, order: Order, migrate: MigrateType) -> Result<(), FrameError> {
        let take = || FrameZone::alloc_at(&self.zone, pfn, order, migrate);
        if self.watch.is_idle() {
            return take();
        }
        self.watched(|| take().map(|()| pfn), order).map(|_| ())
    }

    fn isolate(&self) {
        self.zone.isolate();
    }

    fn reopen(&self) {
        self.zone.reopen();
    }

    fn used_frames(&self) -> u64 {
        self.zone.used_frames()
    }
}
