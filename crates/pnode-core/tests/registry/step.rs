//! What can be done to a registry, from bytes, and what it comes to.

use pnode_core::grant::DOORS;
use pnode_core::request::Depth;
use pnode_core::{
    AdoptError, AllocError, Denied, FrameRange, FreeError, MemoryClass, MigrateType, NodeId, NodeMask,
    OfflineError, Offlined, OnlineError, Order, Pfn, Reason, RegisterError, Request, ServiceError, Stale,
    UnregisterError, Watermarks,
};

/// How many node ids the registry has slots for; steps may name one more.
pub(crate) const NODES: usize = 3;
/// How many zones can be online at once: fewer than there are.
pub(crate) const SLOTS: usize = 3;
/// The zones. The second and third overlap; the last starts at an odd frame.
pub(crate) const SPANS: [FrameRange; 5] = [span(0, 3), span(64, 4), span(66, 4), span(128, 1), span(193, 2)];
/// The classes that nodes claim.
pub(crate) const CLASSES: [MemoryClass; 2] = [MemoryClass::DRAM, MemoryClass::FAR];
/// Distances, not symmetric: each node has another nearest one.
pub(crate) const TABLE: [u8; NODES * NODES] = [10, 30, 20, 20, 10, 20, 25, 20, 10];

const fn span(start: u64, frames: u64) -> FrameRange {
    match FrameRange::new(Pfn::new(start), frames) {
        Ok(range) => range,
        Err(_) => panic!("a short range"),
    }
}

/// Who registers, and the number of the class.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Who {
    Ordinary(usize),
    Private(usize),
}

/// One call. Handles, grants and blocks are named by number, modulo how many there are.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Register { node: usize, who: Who, features: u16 },
    Join { handle: usize, class: usize, features: u16 },
    Online { handle: usize, zone: usize, marks: Watermarks },
    Watermarks { handle: usize, zone: usize, marks: Watermarks },
    Close { handle: usize, zone: usize },
    Reopen { handle: usize, zone: usize },
    Offline { handle: usize, zone: usize },
    Drain { handle: usize },
    Resume { handle: usize },
    Unregister { handle: usize },
    Serve { handle: usize },
    EndService { handle: usize },
    OwnerGrant { handle: usize },
    Grant { node: usize, reason: Reason },
    DropGrant { grant: usize },
    Alloc { ask: Ask },
    GrantAlloc { grant: usize, ask: Ask },
    Free { block: usize },
    FreeRaw { pfn: Pfn, order: Order },
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) preferred: Option<usize>,
    pub(crate) mask: Option<u8>,
    pub(crate) this_node_only: bool,
    pub(crate) depth: Depth,
    pub(crate) order: Order,
    pub(crate) migrate: MigrateType,
    pub(crate) below: Option<Pfn>,
}

/// What a step came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// The step names a handle, a grant or a block, and there is none.
    NobodyThere,
    Offlined(Offlined),
    Frame {
        pfn: Pfn,
        order: Order,
        node: NodeId,
    },
    Refused(Refusal),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Register(RegisterError),
    Online(OnlineError),
    Offline(OfflineError),
    Service(ServiceError),
    Unregister(UnregisterError),
    Stale(Stale),
    Denied(Denied),
    Alloc(AllocError),
    Adopt(AdoptError),
    Free(FreeError),
}

macro_rules! refusals {
    ($($variant:ident($error:ty)),*) => {$(
        impl From<$error> for Refusal {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        }
    )*};
}
refusals!(
    Register(RegisterError),
    Online(OnlineError),
    Offline(OfflineError),
    Service(ServiceError),
    Unregister(UnregisterError),
    Stale(Stale),
    Denied(Denied),
    Alloc(AllocError),
    Adopt(AdoptError),
    Free(FreeError)
);

pub(crate) fn id(node: usize) -> NodeId {
    u16::try_from(node).ok().and_then(|node| NodeId::new(node).ok()).expect("a small number")
}

impl Ask {
    pub(crate) fn allows(&self, node: usize) -> bool {
        self.mask.is_none_or(|mask| mask >> node & 1 == 1)
    }

    pub(crate) fn nodemask(&self) -> Option<NodeMask> {
        self.mask.map(|_| (0..8).filter(|node| self.allows(*node)).map(id).collect())
    }

    pub(crate) fn request<'r>(&self, mask: Option<&'r NodeMask>) -> Request<'r> {
        let mut request = Request::order(self.order).depth(self.depth).migrate(self.migrate);
        if let Some(node) = self.preferred {
            request = request.prefer(id(node));
        }
        if self.this_node_only {
            request = request.this_node_only();
        }
        if let Some(limit) = self.below {
            request = request.below(limit);
        }
        match mask {
            Some(mask) => request.nodemask(mask),
            None => request,
        }
    }

    fn decode(a: u8, b: u8) -> Self {
        let mask = b & 0b1111;
        Self {
            preferred: usize::from(a & 0b111).checked_sub(3).filter(|node| *node <= NODES),
            mask: (mask < 8).then_some(mask),
            this_node_only: a & 0b1000 != 0,
            depth: [Depth::Low, Depth::Min, Depth::Min, Depth::Emergency][usize::from(b >> 4 & 0b11)],
            order: order(a >> 4),
            migrate: MigrateType::ALL[usize::from(b >> 6) % 3],
            // The second span ends here.
            below: (b >> 4 & 0b11 == 2).then_some(Pfn::new(68)),
        }
    }
}

/// Orders 0 to 2, small ones more often; now and then the largest.
fn order(byte: u8) -> Order {
    let order = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 18][usize::from(byte % 16)];
    Order::new(order).expect("at most the largest")
}

impl Step {
    /// The step that four bytes stand for: every four bytes stand for one.
    pub(crate) fn decode([kind, a, b, c]: [u8; 4]) -> Self {
        let (handle, node) = (usize::from(a), usize::from(a) % (NODES + 1));
        let zone = usize::from(b) % SPANS.len();
        let class = usize::from(b) % CLASSES.len();
        let marks = match c % 8 {
            1 => Watermarks::new(1, 1, 1),
            2 => Watermarks::new(1, 2, 3),
            3 => Watermarks::new(u64::MAX, u64::MAX, u64::MAX),
            4 => Watermarks::new(0, 1, 1).and_then(|marks| marks.with_lowmem_reserve(2)),
            _ => Watermarks::new(0, 0, 0),
        }
        .expect("they rise");
        // All doors, none, or any bits, unknown ones among them.
        let features = match c % 4 {
            0 => 0,
            1 => 0b01_1111_1111,
            _ => u16::from_le_bytes([b, c]) >> 4,
        };
        let reason = DOORS[usize::from(b) % DOORS.len()].0;
        match kind % 32 {
            0 | 1 => Self::Register { node, who: Who::Private(class), features },
            2 => Self::Register { node, who: Who::Ordinary(class), features },
            3 => Self::Join { handle, class, features },
            4..=6 => Self::Online { handle, zone, marks },
            7 => Self::Watermarks { handle, zone, marks },
            8 => Self::Close { handle, zone },
            9 => Self::Reopen { handle, zone },
            10 | 11 => Self::Offline { handle, zone },
            12 => Self::Drain { handle },
            13 => Self::Resume { handle },
            14 | 15 => Self::Unregister { handle },
            16 => Self::Serve { handle },
            17 => Self::EndService { handle },
            18 | 19 => Self::OwnerGrant { handle },
            20 | 21 => Self::Grant { node, reason },
            22 | 23 => Self::DropGrant { grant: handle },
            24 | 25 => Self::Alloc { ask: Ask::decode(a, b) },
            26 | 27 => Self::GrantAlloc { grant: usize::from(c), ask: Ask::decode(a, b) },
            28..=30 => Self::Free { block: handle },
            _ => {
                let span = SPANS[zone];
                Self::FreeRaw { pfn: Pfn::new(span.start().get() + u64::from(c % 8)), order: order(a) }
            }
        }
    }
}
