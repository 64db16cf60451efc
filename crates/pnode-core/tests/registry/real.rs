//! The real registry, driven by steps and compared with the rules.

use pnode_core::{
    Distances, Features, FrameRange, FrameZone, Grant, NodeHandle, NodeOps, Nodes, Owner, Private,
    RegisterError, Service, Storage, WordZone,
};

use super::rules::{Rules, Seen};
use super::step::{CLASSES, NODES, Outcome, Refusal, SLOTS, SPANS, Step, TABLE, Who, id};

struct Silent;

impl NodeOps for Silent {}

static SERVICE: Service<'static> = Service::new(&Silent);

enum Handle<'m> {
    Ordinary(NodeHandle<'m, WordZone>),
    Owner(Owner<'m, WordZone>),
}

impl<'m> Handle<'m> {
    fn node(&self) -> &NodeHandle<'m, WordZone> {
        match self {
            Self::Ordinary(handle) => handle,
            Self::Owner(owner) => owner,
        }
    }
}

/// A registry with all that its users hold.
struct Real<'m> {
    nodes: &'m Nodes<'m, WordZone>,
    zones: &'m [WordZone],
    handles: Vec<Handle<'m>>,
    grants: Vec<Grant<'m, WordZone>>,
    frames: Vec<pnode_core::Frame>,
}

/// Does the steps on the real registry and by the rules.
///
/// # Panics
///
/// At the first step whose outcome, or after which anything that can be seen of the registry, differs.
#[track_caller]
pub(crate) fn check(steps: &[Step]) {
    let zones = SPANS.map(|span| WordZone::new(span).expect("few frames"));
    let mut storage = Storage::<WordZone, NODES, SLOTS>::new();
    let distances = Distances::from_table(NODES, &TABLE).expect("a sound table");
    let nodes = Nodes::new(storage.slots(), distances).expect("slots that fit");
    let mut real = Real { nodes: &nodes, zones: &zones, handles: vec![], grants: vec![], frames: vec![] };
    let mut rules = Rules::default();
    for (number, step) in steps.iter().enumerate() {
        let (outcome, expected) = (real.step(step), rules.step(step));
        assert_eq!(outcome, expected, "step {number}, {step:?}, of {steps:#?}");
        if let Some(difference) = real.difference(&rules) {
            panic!("after step {number}, {step:?}, {difference}; the steps: {steps:#?}");
        }
    }
}

impl<'m> Real<'m> {
    fn step(&mut self, step: &Step) -> Outcome {
        self.attempt(step).unwrap_or_else(Outcome::Refused)
    }

    fn attempt(&mut self, step: &Step) -> Result<Outcome, Refusal> {
        match *step {
            Step::Register { node, who, features } => {
                let handle = match who {
                    Who::Ordinary(class) => Handle::Ordinary(self.nodes.ordinary(id(node), CLASSES[class])?),
                    Who::Private(class) => {
                        let features = Features::from_bits(features).map_err(RegisterError::from)?;
                        let claim = Private::class(CLASSES[class]);
                        Handle::Owner(self.nodes.register(id(node), claim, features)?)
                    }
                };
                self.handles.push(handle);
                Ok(Outcome::Done)
            }
            Step::Join { handle, class, features } => self.owner(handle, |real, handle| {
                let features = Features::from_bits(features).unwrap_or(Features::WRITE_FENCE | Features::PIN);
                let joined = real.own(handle).join(Private::class(CLASSES[class]), features)?;
                real.handles.push(Handle::Owner(joined));
                Ok(Outcome::Done)
            }),
            Step::Online { handle, zone, marks } => {
                let zone = &self.zones[zone];
                self.handle(handle, |node| node.online_with(zone, marks).map_err(Refusal::from))
            }
            Step::Watermarks { handle, zone, marks } => {
                self.handle(handle, |node| node.set_watermarks(SPANS[zone], marks).map_err(Refusal::from))
            }
            Step::Close { handle, zone } => {
                self.handle(handle, |node| node.close(SPANS[zone]).map_err(Refusal::from))
            }
            Step::Reopen { handle, zone } => {
                self.handle(handle, |node| node.reopen(SPANS[zone]).map_err(Refusal::from))
            }
            Step::Offline { handle, zone } => match handle.checked_rem(self.handles.len()) {
                Some(handle) => Ok(Outcome::Offlined(self.handles[handle].node().offline(SPANS[zone])?)),
                None => Ok(Outcome::NobodyThere),
            },
            Step::Drain { handle } => self.handle(handle, |node| node.drain().map_err(Refusal::from)),
            Step::Resume { handle } => self.handle(handle, |node| node.resume().map_err(Refusal::from)),
            Step::Unregister { handle } => {
                self.handle(handle, |node| node.unregister().map_err(Refusal::from))
            }
            Step::Serve { handle } => self.owner(handle, |real, handle| {
                real.own(handle).serve(&SERVICE)?;
                Ok(Outcome::Done)
            }),
            Step::EndService { handle } => self.owner(handle, |real, handle| {
                real.own(handle).end_service()?;
                Ok(Outcome::Done)
            }),
            Step::OwnerGrant { handle } => self.owner(handle, |real, handle| {
                let grant = real.own(handle).grant()?;
                real.grants.push(grant);
                Ok(Outcome::Done)
            }),
            Step::Grant { node, reason } => {
                self.grants.push(self.nodes.grant(id(node), reason)?);
                Ok(Outcome::Done)
            }
            Step::DropGrant { grant } => match grant.checked_rem(self.grants.len()) {
                Some(grant) => {
                    self.grants.swap_remove(grant);
                    Ok(Outcome::Done)
                }
                None => Ok(Outcome::NobodyThere),
            },
            Step::Alloc { ref ask } => {
                let mask = ask.nodemask();
                let frame = self.nodes.alloc(ask.request(mask.as_ref()))?;
                Ok(self.keep(frame))
            }
            Step::GrantAlloc { grant, ref ask } => match grant.checked_rem(self.grants.len()) {
                Some(grant) => {
                    let mask = ask.nodemask();
                    let frame = self.grants[grant].alloc(ask.request(mask.as_ref()))?;
                    Ok(self.keep(frame))
                }
                None => Ok(Outcome::NobodyThere),
            },
            Step::Free { block } => match block.checked_rem(self.frames.len()) {
                Some(block) => {
                    let frame = self.frames.swap_remove(block);
                    self.nodes.free(frame)?;
                    Ok(Outcome::Done)
                }
                None => Ok(Outcome::NobodyThere),
            },
            Step::FreeRaw { pfn, order } => {
                self.nodes.free(self.nodes.adopt(pfn, order)?)?;
                // That block had a token; it is worth nothing now.
                self.frames.retain(|frame| (frame.pfn(), frame.order()) != (pfn, order));
                Ok(Outcome::Done)
            }
        }
    }

    fn keep(&mut self, frame: pnode_core::Frame) -> Outcome {
        let outcome = Outcome::Frame { pfn: frame.pfn(), order: frame.order(), node: frame.node() };
        self.frames.push(frame);
        outcome
    }

    fn handle(
        &mut self,
        handle: usize,
        step: impl FnOnce(&NodeHandle<'m, WordZone>) -> Result<(), Refusal>,
    ) -> Result<Outcome, Refusal> {
        match handle.checked_rem(self.handles.len()) {
            Some(handle) => step(self.handles[handle].node()).map(|()| Outcome::Done),
            None => Ok(Outcome::NobodyThere),
        }
    }

    fn owner(
        &mut self,
        handle: usize,
        step: impl FnOnce(&mut Self, usize) -> Result<Outcome, Refusal>,
    ) -> Result<Outcome, Refusal> {
        match handle.checked_rem(self.handles.len()) {
            Some(handle) if matches!(self.handles[handle], Handle::Owner(_)) => step(self, handle),
            _ => Ok(Outcome::NobodyThere),
        }
    }

    fn own(&self, handle: usize) -> &Owner<'m, WordZone> {
        match &self.handles[handle] {
            Handle::Owner(owner) => owner,
            Handle::Ordinary(_) => unreachable!("tested by the caller"),
        }
    }

    /// What can be seen and is not as the rules say.
    fn difference(&self, rules: &Rules) -> Option<String> {
        for node in 0..NODES {
            let state = self.nodes.state(id(node))?;
            let seen = Seen {
                registered: state.is_registered(),
                private: state.is_private(),
                memory: state.has_memory(),
                serviced: state.is_serviced(),
                draining: state.is_draining(),
                references: state.references(),
                class: self.nodes.class(id(node)),
            };
            if seen != rules.seen(node) {
                return Some(format!("node {node} is {seen:?}, not {:?}", rules.seen(node)));
            }
            // A callback holds a reference for as long as it runs.
            let held = self
                .nodes
                .with_service(id(node), |_| self.nodes.state(id(node)).map(|state| state.references()));
            if held != seen.serviced.then_some(Some(seen.references + 1)) {
                return Some(format!("a callback on node {node} ran with {held:?} references"));
            }
        }
        for (zone, real) in self.zones.iter().enumerate() {
            let (used, free) = (rules.used(zone), SPANS[zone].frames() - rules.used(zone));
            if (real.used_frames(), real.free_frames()) != (used, free) {
                return Some(format!("zone {zone} has {} frames used, not {used}", real.used_frames()));
            }
            for pfn in SPANS[zone].iter() {
                if self.nodes.node_of(pfn) != rules.node_of(pfn) {
                    return Some(format!("{pfn:?} is on {:?}", self.nodes.node_of(pfn)));
                }
            }
        }
        for (number, handle) in self.handles.iter().enumerate() {
            let mut ranges: Vec<FrameRange> = Vec::new();
            handle.node().ranges(|range| ranges.push(range));
            let expected = rules.ranges(number);
            if handle.node().state().is_ok() != expected.is_some() || ranges != expected.unwrap_or_default() {
                return Some(format!("handle {number} sees {ranges:?}"));
            }
        }
        None
    }
}
