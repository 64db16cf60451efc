//! pnode-core: a registry on memory of this program's stack, a private node, and who gets its frames.

use pnode_core::{
    AllocError, Denied, Distances, Features, FrameRange, MemoryClass, NodeId, Nodes, Pfn, Private, Reason,
    Request, Storage, WordZone,
};

use crate::say;

pub fn run() -> Result<(), &'static str> {
    let zone = |first, frames| FrameRange::new(Pfn::new(first), frames).ok().and_then(WordZone::new);
    let (dram, buffers) = (zone(0, 16).ok_or("no zone")?, zone(0x1_0000, 8).ok_or("no zone")?);
    let id = |number| NodeId::new(number).map_err(|_| "no node id");
    let mut storage = Storage::<WordZone, 2, 2>::new();
    let distances = Distances::uniform(2).map_err(|_| "no distances")?;
    let nodes = Nodes::new(storage.slots(), distances).map_err(|_| "no registry")?;
    let ordinary = nodes.ordinary(id(0)?, MemoryClass::DRAM).map_err(|_| "no ordinary node")?;
    ordinary.online(&dram).map_err(|_| "no ordinary memory")?;
    let claim = Private::class(MemoryClass::DEVICE_BUFFER);
    let nic = nodes.register(id(1)?, claim, Features::NONE).map_err(|_| "no private node")?;
    nic.online(&buffers).map_err(|_| "no private memory")?;

    let grant = nic.grant().map_err(|_| "no grant for the owner")?;
    let own = grant.alloc(Request::page()).map_err(|_| "the owner got no frame")?;
    say!("core: the owner's grant gives {:?} of {:?}", own.pfn(), own.node());

    let mut ordinary = 0;
    let refusal = loop {
        match nodes.alloc(Request::page().prefer(nic.id())) {
            Ok(frame) if frame.node() == nic.id() => {
                return Err("an ordinary request reached the private node");
            }
            Ok(_) => ordinary += 1,
            Err(refusal) => break refusal,
        }
    };
    if ordinary != 16 || !matches!(refusal, AllocError::NoMemory { .. }) {
        return Err("ordinary requests did not take exactly the ordinary frames");
    }
    say!(
        "core: {ordinary} ordinary requests that prefer {:?} got ordinary frames, then: {refusal}",
        nic.id()
    );

    match nodes.grant(nic.id(), Reason::Demotion) {
        Err(denied @ Denied::NotOpened { .. }) => say!("core: {denied}"),
        _ => return Err("demotion got a grant through a shut door"),
    }
    nodes.free(own).map_err(|_| "a frame was not taken back")?;
    Ok(())
}
