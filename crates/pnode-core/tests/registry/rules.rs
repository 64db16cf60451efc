//! The registry's rules once more: naive, on one thread, in vectors and maps. What is observable of the real registry must
//! be what is true here, after each step, accepted or refused.

use std::collections::BTreeMap;

use pnode_core::request::Depth;
use pnode_core::{
    AdoptError, AllocError, Denied, FeatureError, Features, FrameRange, FreeError, MemoryClass, MigrateType,
    NodeId, OfflineError, Offlined, OnlineError, Order, Pfn, Reason, RegisterError, ServiceError, Stale,
    UnregisterError, Watermarks,
};

use super::step::{Ask, CLASSES, NODES, Outcome, Refusal, SLOTS, SPANS, Step, TABLE, Who, id};

/// A life of a node id.
#[derive(Clone, Debug)]
struct Life {
    number: u32,
    private: bool,
    class: MemoryClass,
    features: Features,
    draining: bool,
    serviced: bool,
    references: u32,
}

/// A zone object, online or not.
#[derive(Clone, Debug, Default)]
struct Zone {
    isolated: bool,
    blocks: BTreeMap<Pfn, Order>,
}

/// A zone slot in use.
#[derive(Clone, Debug)]
struct Online {
    zone: usize,
    node: usize,
    marks: Watermarks,
}

/// What is true of a registry and of those who use it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    nodes: [Option<Life>; NODES],
    lives: u32,
    /// The node and life of each handle that was ever made, and whether it is an owner's.
    handles: Vec<(usize, u32, bool)>,
    slots: [Option<Online>; SLOTS],
    zones: [Zone; SPANS.len()],
    grants: Vec<(usize, Reason)>,
    blocks: Vec<(Pfn, Order)>,
}

/// What can be seen of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Seen {
    pub(crate) registered: bool,
    pub(crate) private: bool,
    pub(crate) memory: bool,
    pub(crate) serviced: bool,
    pub(crate) draining: bool,
    pub(crate) references: u32,
    pub(crate) class: Option<MemoryClass>,
}

impl Rules {
    /// What the step comes to; it happens unless it is refused.
    pub(crate) fn step(&mut self, step: &Step) -> Outcome {
        self.attempt(step).unwrap_or_else(Outcome::Refused)
    }

    /// What can be seen of `node` now.
    pub(crate) fn seen(&self, node: usize) -> Seen {
        self.nodes[node].as_ref().map_or_else(Seen::default, |life| Seen {
            registered: true,
            private: life.private,
            memory: self.zones_of(node).next().is_some(),
            serviced: life.serviced,
            draining: life.draining,
            references: life.references,
            class: Some(life.class),
        })
    }

    /// How many frames of a zone are handed out.
    pub(crate) fn used(&self, zone: usize) -> u64 {
        self.zones[zone].blocks.values().map(|order| order.frames()).sum()
    }

    /// The spans that handle number `handle` sees, lowest slot first; `None` if it is stale.
    pub(crate) fn ranges(&self, handle: usize) -> Option<Vec<FrameRange>> {
        let node = self.living(handle).ok()?;
        Some(self.zones_of(node).map(|online| SPANS[online.zone]).collect())
    }

    pub(crate) fn node_of(&self, pfn: Pfn) -> Option<NodeId> {
        let online = self.slots.iter().flatten().find(|online| SPANS[online.zone].contains(pfn));
        online.map(|online| id(online.node))
    }

    fn attempt(&mut self, step: &Step) -> Result<Outcome, Refusal> {
        match *step {
            Step::Register { node, who, features } => {
                let (private, class, features) = match who {
                    Who::Ordinary(class) => (false, class, Features::NONE),
                    Who::Private(class) => (true, class, sound(features).map_err(RegisterError::from)?),
                };
                if node >= NODES {
                    return Err(RegisterError::Unknown { node: id(node) }.into());
                }
                if self.nodes[node].is_some() {
                    return Err(RegisterError::Busy { node: id(node) }.into());
                }
                self.lives += 1;
                self.handles.push((node, self.lives, private));
                self.nodes[node] = Some(Life {
                    number: self.lives,
                    private,
                    class: CLASSES[class],
                    features,
                    draining: false,
                    serviced: false,
                    references: 0,
                });
                Ok(Outcome::Done)
            }
            Step::Join { handle, class, features } => {
                let Some((handle, life)) = self.owner(handle) else { return Ok(Outcome::NobodyThere) };
                let node = life.map_err(RegisterError::from)?;
                let same = self.nodes[node]
                    .as_ref()
                    .is_some_and(|life| life.class == CLASSES[class] && life.features.bits() == features);
                if !same {
                    return Err(RegisterError::Busy { node: id(node) }.into());
                }
                self.handles.push(self.handles[handle]);
                Ok(Outcome::Done)
            }
            Step::Online { handle, zone, marks } => self.on(handle, |rules, node| {
                let node = node.map_err(OnlineError::from)?;
                if rules.life(node).draining {
                    return Err(OnlineError::Draining { node: id(node) }.into());
                }
                let span = SPANS[zone];
                for online in rules.slots.iter().flatten() {
                    let with = SPANS[online.zone];
                    if span.intersection(with).is_some() {
                        return Err(OnlineError::Overlaps { span, with, node: id(online.node) }.into());
                    }
                }
                let free = rules.slots.iter_mut().find(|slot| slot.is_none());
                *free.ok_or(OnlineError::Full { zones: SLOTS })? = Some(Online { zone, node, marks });
                rules.zones[zone].isolated = false;
                Ok(Outcome::Done)
            }),
            Step::Watermarks { handle, zone, marks } => self.on_zone(handle, zone, |rules, _, slot| {
                if let Some(online) = &mut rules.slots[slot] {
                    online.marks = marks;
                }
                Ok(Outcome::Done)
            }),
            Step::Close { handle, zone } => self.on_zone(handle, zone, |rules, _, _| {
                rules.zones[zone].isolated = true;
                Ok(Outcome::Done)
            }),
            Step::Reopen { handle, zone } => self.on_zone(handle, zone, |rules, node, _| {
                if rules.life(node).draining {
                    return Err(OfflineError::Draining { node: id(node) }.into());
                }
                rules.zones[zone].isolated = false;
                Ok(Outcome::Done)
            }),
            Step::Offline { handle, zone } => self.on_zone(handle, zone, |rules, node, slot| {
                let frames = rules.used(zone);
                if frames > 0 {
                    return Err(OfflineError::StillUsed { range: SPANS[zone], frames }.into());
                }
                rules.slots[slot] = None;
                rules.zones[zone].isolated = true;
                let others = rules.zones_of(node).next().is_some();
                Ok(Outcome::Offlined(if others { Offlined::OthersRemain } else { Offlined::WasTheLast }))
            }),
            Step::Drain { handle } => self.on(handle, |rules, node| rules.drain(node?, true)),
            Step::Resume { handle } => self.on(handle, |rules, node| rules.drain(node?, false)),
            Step::Unregister { handle } => self.on(handle, |rules, node| {
                let node = node.map_err(UnregisterError::from)?;
                let references = rules.life(node).references;
                if rules.zones_of(node).next().is_some() {
                    return Err(UnregisterError::HasMemory { node: id(node) }.into());
                }
                if rules.life(node).serviced {
                    return Err(UnregisterError::Serviced { node: id(node) }.into());
                }
                if references > 0 {
                    return Err(UnregisterError::Referenced { node: id(node), references }.into());
                }
                rules.nodes[node] = None;
                Ok(Outcome::Done)
            }),
            Step::Serve { handle } => {
                let Some((_, life)) = self.owner(handle) else { return Ok(Outcome::NobodyThere) };
                let node = life.map_err(ServiceError::from)?;
                if self.life(node).draining {
                    return Err(ServiceError::Draining { node: id(node) }.into());
                }
                if self.life(node).serviced {
                    return Err(ServiceError::Busy { node: id(node) }.into());
                }
                if self.zones_of(node).next().is_none() {
                    return Err(ServiceError::NoMemory { node: id(node) }.into());
                }
                self.life_mut(node).serviced = true;
                Ok(Outcome::Done)
            }
            Step::EndService { handle } => {
                let Some((_, life)) = self.owner(handle) else { return Ok(Outcome::NobodyThere) };
                let node = life.map_err(ServiceError::from)?;
                if !self.life(node).serviced {
                    return Err(ServiceError::NotServiced { node: id(node) }.into());
                }
                let frames = self.zones_of(node).map(|online| self.used(online.zone)).sum();
                if frames > 0 {
                    return Err(ServiceError::StillUsed { node: id(node), frames }.into());
                }
                self.life_mut(node).serviced = false;
                Ok(Outcome::Done)
            }
            Step::OwnerGrant { handle } => {
                let Some((handle, life)) = self.owner(handle) else { return Ok(Outcome::NobodyThere) };
                let node = life.map_err(|_| Denied::Stale { node: id(self.handles[handle].0) })?;
                if self.life(node).draining {
                    return Err(Denied::Draining { node: id(node) }.into());
                }
                self.life_mut(node).references += 1;
                self.grants.push((node, Reason::Owner));
                Ok(Outcome::Done)
            }
            Step::Grant { node, reason } => {
                let unknown = Denied::Unknown { node: id(node) };
                let life = self.nodes.get(node).and_then(Option::as_ref).ok_or(unknown)?;
                if !life.private {
                    return Err(Denied::NotPrivate { node: id(node) }.into());
                }
                let door = door(reason).ok_or(Denied::OwnerOnly { node: id(node) })?;
                if !life.features.contains(door) {
                    return Err(Denied::NotOpened { node: id(node), reason, door }.into());
                }
                if life.draining && reason != Reason::HotUnplug {
                    return Err(Denied::Draining { node: id(node) }.into());
                }
                self.life_mut(node).references += 1;
                self.grants.push((node, reason));
                Ok(Outcome::Done)
            }
            Step::DropGrant { grant } => {
                let Some(grant) = grant.checked_rem(self.grants.len()) else {
                    return Ok(Outcome::NobodyThere);
                };
                let (node, _) = self.grants.swap_remove(grant);
                self.life_mut(node).references -= 1;
                Ok(Outcome::Done)
            }
            Step::Alloc { ref ask } => self.alloc(ask).map_err(Refusal::from),
            Step::GrantAlloc { grant, ref ask } => {
                let Some(grant) = grant.checked_rem(self.grants.len()) else {
                    return Ok(Outcome::NobodyThere);
                };
                let (node, reason) = self.grants[grant];
                self.alloc_granted(node, reason, ask).map_err(Refusal::from)
            }
            Step::Free { block } => {
                let Some(block) = block.checked_rem(self.blocks.len()) else {
                    return Ok(Outcome::NobodyThere);
                };
                let (pfn, order) = self.blocks.swap_remove(block);
                self.free(pfn, order).map_err(Refusal::from)
            }
            Step::FreeRaw { pfn, order } => {
                self.node_of(pfn).ok_or(AdoptError::NoZone { pfn })?;
                self.free(pfn, order)?;
                self.blocks.retain(|block| *block != (pfn, order));
                Ok(Outcome::Done)
            }
        }
    }

    /// The number and the node of an owner's handle; `None` if there is no handle, or it is of an ordinary node.
    fn owner(&self, handle: usize) -> Option<(usize, Result<usize, Stale>)> {
        let handle = handle.checked_rem(self.handles.len())?;
        self.handles[handle].2.then(|| (handle, self.living(handle)))
    }

    /// The node of handle number `handle`.
    fn living(&self, handle: usize) -> Result<usize, Stale> {
        let (node, number, _) = self.handles[handle];
        match &self.nodes[node] {
            Some(life) if life.number == number => Ok(node),
            _ => Err(Stale { node: id(node) }),
        }
    }

    fn on(
        &mut self,
        handle: usize,
        step: impl FnOnce(&mut Self, Result<usize, Stale>) -> Result<Outcome, Refusal>,
    ) -> Result<Outcome, Refusal> {
        match handle.checked_rem(self.handles.len()) {
            Some(handle) => {
                let node = self.living(handle);
                step(self, node)
            }
            None => Ok(Outcome::NobodyThere),
        }
    }

    fn on_zone(
        &mut self,
        handle: usize,
        zone: usize,
        step: impl FnOnce(&mut Self, usize, usize) -> Result<Outcome, Refusal>,
    ) -> Result<Outcome, Refusal> {
        self.on(handle, |rules, node| {
            let node = node.map_err(OfflineError::from)?;
            let slot = rules.slots.iter().position(|slot| {
                slot.as_ref().is_some_and(|online| online.node == node && online.zone == zone)
            });
            step(rules, node, slot.ok_or(OfflineError::UnknownRange { range: SPANS[zone] })?)
        })
    }

    fn drain(&mut self, node: usize, draining: bool) -> Result<Outcome, Refusal> {
        self.life_mut(node).draining = draining;
        let zones: Vec<usize> = self.zones_of(node).map(|online| online.zone).collect();
        zones.into_iter().for_each(|zone| self.zones[zone].isolated = draining);
        Ok(Outcome::Done)
    }

    fn alloc(&mut self, ask: &Ask) -> Result<Outcome, AllocError> {
        let from = ask.preferred.unwrap_or(0);
        if from >= NODES {
            return Err(AllocError::Unknown { node: id(from) });
        }
        let private = |node: usize| self.nodes[node].as_ref().is_some_and(|life| life.private);
        let mut reach: Vec<(u8, usize, usize)> = Vec::new();
        for (slot, online) in self.slots.iter().enumerate() {
            let Some(Online { node, .. }) = *online else { continue };
            if !private(node) && ask.allows(node) && (!ask.this_node_only || node == from) {
                reach.push((TABLE[from * NODES + node], (node + NODES - from) % NODES, slot));
            }
        }
        reach.sort_unstable();
        let ordinary_memory =
            self.slots.iter().flatten().any(|online| !private(online.node) && ask.allows(online.node));
        let private = private(from);
        if let Some(block) = self.take(reach.iter().map(|(.., slot)| *slot).collect(), ask) {
            return Ok(block);
        }
        if private && ask.this_node_only {
            Err(AllocError::Private { node: id(from) })
        } else if ask.mask.is_some() && !ordinary_memory || ask.this_node_only && !ask.allows(from) {
            Err(AllocError::Masked { node: id(from) })
        } else {
            Err(AllocError::NoMemory { order: ask.order })
        }
    }

    fn alloc_granted(&mut self, node: usize, reason: Reason, ask: &Ask) -> Result<Outcome, AllocError> {
        let for_frames = [
            Reason::Owner,
            Reason::Reclaim,
            Reason::Demotion,
            Reason::Compaction,
            Reason::Contig,
            Reason::UserPolicy,
            Reason::UserMigrate,
        ];
        if !for_frames.contains(&reason) {
            return Err(AllocError::NotForFrames { reason });
        }
        if let Some(preferred) = ask.preferred.filter(|preferred| *preferred != node) {
            return Err(AllocError::OtherNode { granted: id(node), preferred: id(preferred) });
        }
        let own = |slot: &Option<Online>| slot.as_ref().is_some_and(|online| online.node == node);
        let reach = (0..SLOTS).filter(|slot| own(&self.slots[*slot]) && ask.allows(node)).collect();
        if let Some(block) = self.take(reach, ask) {
            Ok(block)
        } else if self.life(node).draining {
            Err(AllocError::Draining { node: id(node) })
        } else if !ask.allows(node) {
            Err(AllocError::Masked { node: id(node) })
        } else {
            Err(AllocError::NoMemory { order: ask.order })
        }
    }

    /// Takes the lowest block of the first of these slots that has one to spare.
    fn take(&mut self, slots: Vec<usize>, ask: &Ask) -> Option<Outcome> {
        for depth in [Depth::Low, ask.depth] {
            for slot in &slots {
                let Some(Online { zone, node, marks }) = self.slots[*slot].clone() else { continue };
                if ask.below.is_some_and(|limit| SPANS[zone].end() > limit) {
                    continue;
                }
                let free = SPANS[zone].frames() - self.used(zone);
                let kept = match depth {
                    Depth::Emergency => 0,
                    // The lowmem reserve is for those who have no choice.
                    _ if ask.migrate == MigrateType::Unmovable || ask.below.is_some() => mark(&marks, depth),
                    _ => mark(&marks, depth).saturating_add(marks.lowmem_reserve()),
                };
                if self.zones[zone].isolated || kept > 0 && free < kept.saturating_add(ask.order.frames()) {
                    continue;
                }
                let fits = |pfn: &Pfn| {
                    FrameRange::block(*pfn, ask.order).is_some_and(|block| {
                        pfn.is_aligned(ask.order)
                            && SPANS[zone].contains_range(block)
                            && self.zones[zone].blocks.iter().all(|(pfn, order)| {
                                FrameRange::block(*pfn, *order)
                                    .is_some_and(|b| b.intersection(block).is_none())
                            })
                    })
                };
                if let Some(pfn) = SPANS[zone].iter().find(fits) {
                    self.zones[zone].blocks.insert(pfn, ask.order);
                    self.blocks.push((pfn, ask.order));
                    return Some(Outcome::Frame { pfn, order: ask.order, node: id(node) });
                }
            }
        }
        None
    }

    fn free(&mut self, pfn: Pfn, order: Order) -> Result<Outcome, FreeError> {
        let online = self.slots.iter().flatten().find(|online| SPANS[online.zone].contains(pfn));
        let zone = online.map(|online| online.zone).ok_or(FreeError::OutOfZone { pfn })?;
        if !FrameRange::block(pfn, order).is_some_and(|block| SPANS[zone].contains_range(block)) {
            return Err(FreeError::OutOfZone { pfn });
        }
        if !pfn.is_aligned(order) {
            return Err(FreeError::Misaligned { pfn, order });
        }
        let blocks = &mut self.zones[zone].blocks;
        let used = blocks.iter().any(|(p, o)| FrameRange::block(*p, *o).is_some_and(|b| b.contains(pfn)));
        if !used {
            return Err(FreeError::NotAllocated { pfn });
        }
        if blocks.get(&pfn) != Some(&order) {
            return Err(FreeError::WrongOrder { pfn, order });
        }
        blocks.remove(&pfn);
        Ok(Outcome::Done)
    }

    fn zones_of(&self, node: usize) -> impl Iterator<Item = &Online> {
        self.slots.iter().flatten().filter(move |online| online.node == node)
    }

    fn life(&self, node: usize) -> &Life {
        self.nodes[node].as_ref().expect("a living node")
    }

    fn life_mut(&mut self, node: usize) -> &mut Life {
        self.nodes[node].as_mut().expect("a living node")
    }
}

/// The watermark that holds for a walk of this depth.
fn mark(marks: &Watermarks, depth: Depth) -> u64 {
    if depth == Depth::Low { marks.low() } else { marks.min() }
}

/// The features with these bits, if they may stand together.
fn sound(bits: u16) -> Result<Features, FeatureError> {
    let features = Features::from_bits(bits)?;
    let has = |door| features.contains(door);
    if has(Features::DEMOTION) && !has(Features::RECLAIM) {
        return Err(FeatureError::Needs { feature: Features::DEMOTION, needed: Features::RECLAIM });
    }
    for excluded in [Features::USER_NUMA, Features::PIN] {
        if has(Features::WRITE_FENCE) && has(excluded) {
            return Err(FeatureError::Excludes { feature: Features::WRITE_FENCE, excluded });
        }
    }
    Ok(features)
}

/// The door that a reason needs, spelled out.
fn door(reason: Reason) -> Option<Features> {
    match reason {
        Reason::Reclaim => Some(Features::RECLAIM),
        Reason::Demotion => Some(Features::DEMOTION),
        Reason::Promotion => Some(Features::PROMOTION),
        Reason::Compaction => Some(Features::COMPACTION),
        Reason::Contig => Some(Features::CONTIG),
        Reason::UserPolicy | Reason::UserMigrate => Some(Features::USER_NUMA),
        Reason::Pin => Some(Features::PIN),
        Reason::HotUnplug => Some(Features::HOTUNPLUG),
        Reason::Oom => Some(Features::OOM),
        _ => None,
    }
}
