//! Any sequence of what a host does agrees with a map: no page is lost, no name outlives its page, the node goes.
#![no_main]

#[path = "../pages.rs"]
mod pages;

use libfuzzer_sys::fuzz_target;
use pages::{PAGE, page};
use pnode_compress::codec::Scratch;
use pnode_compress::cram::{Bound, Cram, Curve, DemoteError, FaultError, Phase, Pressure, Resident, Retry};
use pnode_compress::device::{
    Cell, Device, DeviceConfig, DeviceMedium, DeviceStorage, MailboxConfig, Safeguards,
};
use pnode_core::PageOrigin;
use pnode_core::sync::{AtomicU64, Lock, SpinLock};

/// What every page of these tests is for, where nothing else is said.
const ANONYMOUS: PageOrigin = PageOrigin::PrivateAnonymous;
const FRAMES: u32 = 24;

fuzz_target!(|input: &[u8]| {
    let (mut contents, mut cells) = (vec![0; FRAMES as usize * PAGE], vec![Cell::default(); FRAMES as usize]);
    let (mut ring, mut scratch, mut buffer) = ([0; 4], Box::new(Scratch::new()), vec![0; PAGE]);
    let mailbox = MailboxConfig {
        payload: 3,
        depth: 2,
        failing: 100,
        silent: 50,
        hanging: 50,
        ..MailboxConfig::DEFAULT
    };
    let config = DeviceConfig { mailbox, ..DeviceConfig::new(10 * PAGE as u64) };
    let storage = DeviceStorage {
        contents: &mut contents,
        cells: &mut cells,
        ring: &mut ring,
        mailbox: &mut [0; 6],
        scratch: &mut scratch,
        buffer: &mut buffer,
    };
    let device: Lock<_, SpinLock> = Lock::new(Device::new(config, storage).unwrap());
    let (bound, clock) = (Bound::new(0), AtomicU64::new(0));
    let mut words: Vec<_> = (0..Cram::words(FRAMES)).map(|_| AtomicU64::new(u64::MAX)).collect();
    let cram = Cram::new(FRAMES, Curve::DEFAULT, &mut words).unwrap();
    let mut deferred = [Resident::NOBODY; 5];
    let mut handler =
        cram.deferring(DeviceMedium::new(&device, &bound, &clock, Safeguards::ALL), &mut deferred);
    let mut model: Vec<(Resident, Vec<u8>)> = Vec::new();
    let mut gone: Vec<Resident> = Vec::new();
    let mut out = vec![0; PAGE];
    for op in input.chunks_exact(4) {
        let at = usize::from(op[1]) % model.len().max(1);
        match op[0] % 16 {
            0..6 => {
                let page = page(op[2], op[3]);
                match handler.demote(ANONYMOUS, &page) {
                    Ok(resident) => {
                        assert!(model.iter().all(|(other, _)| other.frame() != resident.frame()));
                        model.push((resident, page));
                    }
                    Err(DemoteError::Pressure { pressure }) => assert!(!pressure.admits()),
                    Err(DemoteError::NotOpen { phase }) => assert_ne!(phase, Phase::Open),
                    Err(DemoteError::NoFrame | DemoteError::Full) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            6 | 7 if !model.is_empty() => {
                let (resident, page) = model.swap_remove(at);
                handler.write_fault(resident).unwrap().copy_to(&mut out).unwrap().finish();
                assert_eq!(out, page);
                gone.push(resident);
            }
            8 if !model.is_empty() => {
                let error = handler.write_fault(model[at].0).unwrap().no_memory();
                assert_eq!(error, FaultError::Retry(Retry::NoMemory));
            }
            9 if !model.is_empty() => {
                let (resident, _) = model.swap_remove(at);
                handler.free(resident).unwrap();
                gone.push(resident);
            }
            10 => drop(handler.flush()),
            11 => handler.medium().poll(),
            12 => cram.set_pressure(Pressure::new(u32::from(op[2]) * 5)),
            13 => drop(cram.inflate(u32::from(op[2]) % 8)),
            14 => drop(cram.deflate(u32::from(op[2]) % 8)),
            15 => drop(if op[2] % 2 == 0 { cram.close() } else { cram.reopen() }),
            _ => {}
        }
        for (resident, page) in &model {
            handler.read(*resident, &mut out).unwrap();
            assert_eq!(out, *page);
        }
        if let Some(stale) = gone.get(usize::from(op[3]) % gone.len().max(1)) {
            assert!(!matches!(handler.free(*stale), Ok(())), "{stale:?} was freed twice");
        }
        let used = device.lock().used();
        assert!(bound.bytes() >= used && used <= config.physical);
    }
    let _ = cram.close();
    for (resident, _) in model {
        handler.free(resident).unwrap();
    }
    handler.flush();
    cram.deflate(u32::MAX);
    cram.finish().unwrap();
    drop(handler);
    let device = device.lock();
    assert_eq!((device.used(), device.overruns()), (0, 0));
});
