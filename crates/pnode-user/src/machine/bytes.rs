//! What is done with a frame that a page has: its bytes, its fence, and giving it back.

use pnode_core::{Features, Frame, FrameRange, NodeId};

use super::Shared;
use super::inject::Point;
use super::site::Site;
use crate::fault::Protection;
use crate::sys::SysError;

impl Shared {
    /// Calls `each` with every block that a mapping, a process or an object holds, and its node.
    pub(super) fn each_frame(&self, mut each: impl FnMut(NodeId, FrameRange)) {
        for region in self.live_regions() {
            region.each_frame(&mut each);
        }
        for common in self.object_pages() {
            let inner = common.lock();
            if let Some((node, frames)) = inner
                .frame()
                .and_then(|frame| Some((frame.node(), FrameRange::block(frame.pfn(), frame.order())?)))
            {
                each(node, frames);
            }
        }
    }

    /// What a mapping of `frame` admits: its node may be fenced.
    pub(super) fn protection(&self, frame: &Frame) -> Protection {
        let fenced = |site: &Site| site.features.contains(Features::WRITE_FENCE);
        match self.site(frame.node()).is_some_and(fenced) {
            true => Protection::ReadOnly,
            false => Protection::ReadWrite,
        }
    }

    pub(super) fn give_back(&self, frame: Frame) {
        if let Some(frame) = self.kept_by_service(frame) {
            self.put_back(frame);
        }
    }

    /// Gives a block back that no page ever had.
    pub(super) fn put_back(&self, frame: Frame) {
        let pfn = frame.pfn();
        if let Err(error) = self.nodes.free(frame) {
            // The token came from `Nodes::alloc`; only a broken allocator refuses it.
            unreachable!("{pfn:?} was not taken back: {error}");
        }
    }

    pub(super) fn zero(&self, frame: &Frame) {
        if let Some((site, index)) = self.locate(frame.pfn()) {
            let zeroed = site.backing.zero(index);
            debug_assert!(zeroed, "{frame:?} is in its site");
        }
    }

    pub(super) fn copy(&self, to: &Frame, from: &Frame) -> Result<(), SysError> {
        self.check(Point::Copy)?;
        self.charge_copy(to.node(), from.node());
        if let (Some((to, to_index)), Some((from, from_index))) =
            (self.locate(to.pfn()), self.locate(from.pfn()))
        {
            let copied = to.backing.copy_frame(to_index, &from.backing, from_index);
            debug_assert!(copied, "both frames are in their sites");
        }
        Ok(())
    }
}
