//! Nobody gets the node's frames but through a grant, and nobody gets a grant but by an open door.

use pnode_core::grant::DOORS;
use pnode_core::{AllocError, Denied, Features, NodeMask, Order, Private, Request};

use super::{DEVICE, DRAM, Machine, Must, check};
use crate::kernel::Kernel;
use crate::report::Failure;

pub(super) fn closed_by_default<K: Kernel>(machine: &Machine<'_, '_, K>) -> Result<(), Failure> {
    let device = machine.device(Features::NONE)?;
    let id = device.id();
    for (reason, door, _) in DOORS {
        let answer = machine.nodes.grant(id, reason);
        let shut = match door {
            Some(_) => matches!(answer, Err(Denied::NotOpened { .. })),
            None => matches!(answer, Err(Denied::OwnerOnly { .. })),
        };
        check!(shut, "a shut door", door.unwrap_or_default().bits());
    }
    let claim = Private::class(pnode_core::MemoryClass::DEVICE_BUFFER);
    check!(
        machine.nodes.register(id, claim, Features::NONE).is_err(),
        "another claim to be refused",
        id.get()
    );
    machine.take_down(&device)?;

    // Each door alone, with what it needs: it opens to its own reasons and to no other.
    for (door, _) in Features::DOORS {
        let needs = Features::NEEDS.iter().find(|(needing, _)| *needing == door).map(|(_, needed)| *needed);
        let features = door | needs.unwrap_or_default();
        let device = machine.device(features)?;
        for (reason, needed, _) in DOORS {
            let open = needed.is_some_and(|needed| features.contains(needed));
            check!(
                machine.nodes.grant(id, reason).is_ok() == open,
                "the doors that were opened",
                features.bits()
            );
        }
        machine.take_down(&device)?;
    }

    for refused in [Features::DEMOTION, Features::WRITE_FENCE | Features::PIN] {
        let claim = Private::class(pnode_core::MemoryClass::DEVICE_BUFFER);
        check!(
            machine.nodes.register(id, claim, refused).is_err(),
            "a contradiction to be refused",
            refused.bits()
        );
    }
    Ok(())
}

pub(super) fn ordinary_requests_stay_out<K: Kernel>(machine: &Machine<'_, '_, K>) -> Result<(), Failure> {
    let device = machine.device(Features::NONE)?;
    let (dram, node) = (machine.id(DRAM)?, device.id());
    let masks =
        [None, Some(NodeMask::of(node)), Some(NodeMask::of(dram)), Some(NodeMask::of(dram).with(node))];
    for order in Order::all() {
        for preferred in [None, Some(dram), Some(node)] {
            for mask in &masks {
                for insists in [Request::order(order), Request::order(order).this_node_only()] {
                    let request = preferred.map_or(insists, |node| insists.prefer(node));
                    let request = mask.as_ref().map_or(request, |mask| request.nodemask(mask));
                    ask(machine, request)?;
                }
            }
        }
    }
    // With the last ordinary frame gone, and the device wholly free, requests fail.
    let mut taken = machine.list(super::ORDINARY_FRAMES)?;
    let mut count = 0;
    let last = loop {
        match machine.nodes.alloc(Request::page().prefer(node)) {
            Ok(frame) => {
                check!(frame.node() == dram, "an ordinary frame", frame.pfn().get());
                *taken.get_mut(count).must("no more frames than there are")? = frame.into_raw().0.get();
                count += 1;
            }
            Err(error) => break error,
        }
    };
    check!(matches!(last, AllocError::NoMemory { .. }), "NoMemory", count);
    check!(count as u64 == super::ORDINARY_FRAMES, "every ordinary frame", count);
    check!(device.used_frames() == 0, "an untouched device", device.used_frames());
    for pfn in taken.iter() {
        let frame = machine.nodes.adopt(pnode_core::Pfn::new(*pfn), Order::ZERO).must("a token")?;
        machine.nodes.free(frame).must("the frame to be taken back")?;
    }
    check!(node.get() == DEVICE, "the device's id", node.get());
    machine.take_down(&device)
}

/// Makes one request; wherever it is served, it is not on the device.
fn ask<K: Kernel>(machine: &Machine<'_, '_, K>, request: Request<'_>) -> Result<(), Failure> {
    let Ok(frame) = machine.nodes.alloc(request) else {
        return Ok(());
    };
    let outside = !machine.mapping.range().contains(frame.pfn()) && frame.node().get() == DRAM;
    check!(outside, "a frame outside the device", frame.pfn().get());
    machine.nodes.free(frame).must("the frame to be taken back")
}
