//! The C interface, called as C would, on a fake kernel.

mod fake;

use core::ptr;

use fake::{Device, Fake};
use pnode_kernel::Errno;

pnode_kernel::export_c_interface!(Fake);

const DEMOTION_REASON: u32 = 1;
const RECLAIM: u32 = 1;
const DEMOTION: u32 = 1 << 1;
const EPERM: i32 = Errno::EPERM.to_return();
const ENOMEM: i32 = Errno::ENOMEM.to_return();
const EFAULT: i32 = Errno::EFAULT.to_return();
const EBUSY: i32 = Errno::EBUSY.to_return();
const ENODEV: i32 = Errno::ENODEV.to_return();
const EINVAL: i32 = Errno::EINVAL.to_return();

/// A call whose arguments are what the header asks for, or null.
macro_rules! c {
    ($function:ident($($argument:expr),* $(,)?)) => {
        // SAFETY: the handles are live and the pointers valid or null, as the test that makes the call arranges.
        unsafe { $function($($argument),*) }
    };
}

fn range(device: &Device) -> Range {
    let frames = device.range();
    Range {
        first_pfn: frames.start().get(),
        frames: frames.frames(),
        mapping: device.base().as_ptr().cast::<c_void>(),
    }
}

fn space(nodes: u32) -> *mut Space {
    let mut space = ptr::null_mut();
    assert_eq!(c!(pnode_space_create(nodes, &mut space)), 0);
    space
}

fn register(space: *mut Space, id: u32, features: u32, device: &Device) -> Result<*mut Node, i32> {
    let mut node = ptr::null_mut();
    match c!(pnode_node_register(space, id, 0, features, &range(device), &mut node)) {
        0 => Ok(node),
        error => {
            assert!(node.is_null(), "a failed call wrote a result");
            Err(error)
        }
    }
}

fn grant(node: *mut Node) -> Result<*mut Grant, i32> {
    let mut grant = ptr::null_mut();
    match c!(pnode_node_grant(node, &mut grant)) {
        0 => Ok(grant),
        error => Err(error),
    }
}

fn stats(node: *mut Node) -> Stats {
    let mut stats = Stats::default();
    assert_eq!(c!(pnode_stats(node, &mut stats)), 0);
    stats
}

#[test]
fn a_node_lives_from_registration_to_teardown() {
    let device = Device::new(0x10_0000, 1024);
    let space = space(4);
    let node = register(space, 1, 0, &device).unwrap();
    let owner = grant(node).unwrap();
    assert_eq!(
        stats(node),
        Stats {
            first_pfn: 0x10_0000,
            managed_frames: 1024,
            free_frames: 1024,
            used_frames: 0,
            references: 1,
            draining: 0
        }
    );

    let mut pfn = 0;
    assert_eq!(c!(pnode_alloc(owner, 4, &mut pfn)), 0);
    assert!(pfn >= 0x10_0000 && pfn + 16 <= 0x10_0400 && pfn % 16 == 0);
    let address = c!(pnode_address(owner, pfn + 3)).cast::<u8>();
    assert_eq!(address.addr(), device.base().as_ptr().addr() + (pfn as usize + 3 - 0x10_0000) * 4096);
    assert!(c!(pnode_address(owner, 0x10_0400)).is_null());
    assert!(c!(pnode_address(owner, 0xf_ffff)).is_null());

    let mut other = 7;
    assert_eq!(
        c!(pnode_alloc_ordinary(space, 1, 0, &mut other)),
        ENOMEM,
        "an ordinary request never reaches the node"
    );
    assert_eq!(other, 7, "a failed call wrote a result");

    assert_eq!(c!(pnode_space_destroy(space)), EBUSY);
    assert_eq!(c!(pnode_node_unregister(node)), EBUSY, "a frame is held");
    assert_eq!(stats(node).draining, 1);
    assert_eq!(c!(pnode_alloc(owner, 0, &mut other)), EBUSY, "nothing is handed out any more");
    assert_eq!(grant(node), Err(EBUSY));

    assert_eq!(c!(pnode_free(owner, pfn, 3)), EINVAL, "another order");
    assert_eq!(c!(pnode_free(owner, pfn + 1, 4)), EINVAL, "misaligned");
    assert_eq!(c!(pnode_free(owner, 0x20_0000, 0)), EINVAL, "nobody's frame");
    assert_eq!(stats(node).used_frames, 16);
    assert_eq!(c!(pnode_free(owner, pfn, 4)), 0);
    assert_eq!(c!(pnode_free(owner, pfn, 4)), EINVAL, "a double free");
    assert_eq!(c!(pnode_audit(node)), 0);

    assert_eq!(c!(pnode_node_unregister(node)), EBUSY, "a grant is held");
    assert_eq!(c!(pnode_free(owner, pfn, 4)), EINVAL, "the range is gone already");
    c!(pnode_grant_put(owner));
    assert_eq!(c!(pnode_node_unregister(node)), 0);
    assert_eq!(c!(pnode_space_destroy(space)), 0);
    assert_eq!(Fake::live(), 0);
}

#[test]
fn doors_decide_who_gets_a_grant() {
    let (near, far) = (Device::new(0x1000, 64), Device::new(0x2000, 64));
    let space = space(3);
    let closed = register(space, 1, 0, &near).unwrap();
    let open = register(space, 2, RECLAIM | DEMOTION, &far).unwrap();
    for reason in 0..10 {
        let mut grant = ptr::null_mut();
        assert_eq!(c!(pnode_grant_ask(space, 1, reason, &mut grant)), EPERM, "reason {reason}");
        let answer = c!(pnode_grant_ask(space, 2, reason, &mut grant));
        assert_eq!(answer, if reason <= DEMOTION_REASON { 0 } else { EPERM }, "reason {reason}");
        c!(pnode_grant_put(grant));
    }
    let mut demotion = ptr::null_mut();
    assert_eq!(c!(pnode_grant_ask(space, 0, DEMOTION_REASON, &mut demotion)), ENODEV, "ordinary memory");
    assert_eq!(c!(pnode_grant_ask(space, 9, DEMOTION_REASON, &mut demotion)), ENODEV, "no such node");
    assert_eq!(c!(pnode_grant_ask(space, 2, 10, &mut demotion)), EINVAL, "no such reason");
    assert_eq!(c!(pnode_grant_ask(space, 2, DEMOTION_REASON, &mut demotion)), 0);

    // A grant is for its own node: frames, addresses and frees of the other one are refused.
    let owner = grant(closed).unwrap();
    let (mut theirs, mut ours) = (0, 0);
    assert_eq!(c!(pnode_alloc(demotion, 0, &mut theirs)), 0);
    assert_eq!(c!(pnode_alloc(owner, 0, &mut ours)), 0);
    assert!((0x2000..0x2040).contains(&theirs) && (0x1000..0x1040).contains(&ours));
    assert!(c!(pnode_address(owner, theirs)).is_null());
    assert_eq!(c!(pnode_free(owner, theirs, 0)), EINVAL);
    assert_eq!(c!(pnode_free(demotion, theirs, 0)), 0);
    assert_eq!(c!(pnode_free(owner, ours, 0)), 0);
    c!(pnode_grant_put(owner));
    c!(pnode_grant_put(demotion));
    assert_eq!(c!(pnode_node_unregister(closed)), 0);
    assert_eq!(c!(pnode_node_unregister(open)), 0);
    assert_eq!(c!(pnode_space_destroy(space)), 0);
}

#[test]
fn impossible_arguments_are_refused() {
    let device = Device::new(0x1000, 64);
    let space = space(3);
    let node = register(space, 1, 0, &device).unwrap();
    let overlapping = Device::new(0x103f, 64);
    assert_eq!(register(space, 1, 0, &Device::new(0x3000, 8)), Err(EBUSY), "the id is taken");
    assert_eq!(register(space, 2, 0, &overlapping), Err(EBUSY), "a frame is taken");
    assert_eq!(register(space, 0, 0, &overlapping), Err(EBUSY), "the kernel's own memory");
    assert_eq!(register(space, 3, 0, &overlapping), Err(ENODEV), "no slot");
    assert_eq!(register(space, 70_000, 0, &overlapping), Err(ENODEV), "no id");
    assert_eq!(register(space, 2, DEMOTION, &overlapping), Err(EINVAL), "demotion needs reclaim");
    assert_eq!(register(space, 2, 1 << 10, &overlapping), Err(EINVAL), "an unknown door");
    assert_eq!(register(space, 2, 1 << 16, &overlapping), Err(EINVAL), "an unknown door");

    let good = range(&overlapping);
    let mut out = ptr::null_mut();
    for (bad, error) in [
        (Range { frames: 0, ..good }, EINVAL),
        (Range { first_pfn: u64::MAX, ..good }, EINVAL),
        (Range { frames: u64::MAX >> 12, ..good }, EINVAL),
        (Range { mapping: ptr::null_mut(), ..good }, EFAULT),
    ] {
        assert_eq!(c!(pnode_node_register(space, 2, 0, 0, &bad, &mut out)), error, "{bad:?}");
    }
    assert_eq!(c!(pnode_node_register(space, 2, 4, 0, &good, &mut out)), EINVAL, "an unknown class");
    assert_eq!(c!(pnode_node_register(space, 2, 0, 0, ptr::null(), &mut out)), EFAULT);
    assert_eq!(c!(pnode_node_register(space, 2, 0, 0, &good, ptr::null_mut())), EFAULT);
    assert_eq!(c!(pnode_node_register(ptr::null_mut(), 2, 0, 0, &good, &mut out)), EFAULT);
    assert_eq!(c!(pnode_space_create(0, &mut ptr::null_mut())), EINVAL);
    assert_eq!(c!(pnode_space_create(u32::MAX, &mut ptr::null_mut())), EINVAL);
    assert_eq!(c!(pnode_space_create(2, ptr::null_mut())), EFAULT);
    assert_eq!(c!(pnode_space_destroy(ptr::null_mut())), EFAULT);
    assert_eq!(c!(pnode_node_unregister(ptr::null_mut())), EFAULT);
    assert_eq!(c!(pnode_node_grant(ptr::null_mut(), &mut ptr::null_mut())), EFAULT);
    assert_eq!(c!(pnode_node_grant(node, ptr::null_mut())), EFAULT);
    assert_eq!(c!(pnode_alloc(ptr::null_mut(), 0, &mut 0)), EFAULT);
    assert_eq!(c!(pnode_free(ptr::null_mut(), 0, 0)), EFAULT);
    assert_eq!(c!(pnode_stats(node, ptr::null_mut())), EFAULT);
    assert_eq!(c!(pnode_audit(ptr::null_mut())), EFAULT);
    assert_eq!(c!(pnode_selftest(ptr::null())), EFAULT);
    assert!(c!(pnode_address(ptr::null_mut(), 0)).is_null());
    c!(pnode_grant_put(ptr::null_mut()));

    let owner = grant(node).unwrap();
    let mut pfn = 7;
    assert_eq!(c!(pnode_alloc(owner, 19, &mut pfn)), EINVAL, "no such order");
    assert_eq!(c!(pnode_alloc(owner, 256, &mut pfn)), EINVAL, "no such order");
    assert_eq!(c!(pnode_alloc(owner, 7, &mut pfn)), ENOMEM, "larger than the node");
    assert_eq!(c!(pnode_alloc(owner, 0, ptr::null_mut())), EFAULT);
    assert_eq!(c!(pnode_free(owner, 0x1000, 300)), EINVAL, "no such order");
    assert_eq!((pfn, stats(node).used_frames), (7, 0));
    c!(pnode_grant_put(owner));
    assert_eq!(c!(pnode_node_unregister(node)), 0);
    assert_eq!(c!(pnode_space_destroy(space)), 0);
    assert_eq!(Fake::live(), 0);
}

/// Frames that are taken together and freed one by one, as those of a huge page are.
#[test]
fn adjacent_frames_are_freed_one_by_one() {
    let device = Device::new(0x1000, 1024);
    let space = space(2);
    let node = register(space, 1, 0, &device).unwrap();
    let owner = grant(node).unwrap();
    let (mut odd, mut first, mut second, mut none) = (0, 0, 0, 0);
    assert_eq!(c!(pnode_alloc(owner, 0, &mut odd)), 0);
    assert_eq!(c!(pnode_alloc_frames(owner, 9, &mut first)), 0);
    assert_eq!(first % 512, 0);
    assert_eq!(stats(node).used_frames, 513);
    assert_eq!(c!(pnode_alloc_frames(owner, 9, &mut second)), ENOMEM, "one frame of the other half is taken");
    assert_eq!(c!(pnode_alloc_frames(owner, 0, &mut none)), 0);
    assert_eq!(c!(pnode_free(owner, none, 0)), 0);
    assert_eq!(c!(pnode_alloc_frames(owner, 19, &mut none)), EINVAL);
    assert_eq!(c!(pnode_alloc_frames(owner, 0, ptr::null_mut())), EFAULT);
    assert_eq!(c!(pnode_free(owner, first, 9)), EINVAL, "it is no block of that order");
    for index in (0..512).rev() {
        assert_eq!(c!(pnode_free(owner, first + index, 0)), 0, "frame {index}");
        assert_eq!(c!(pnode_free(owner, first + index, 0)), EINVAL, "a double free");
    }
    assert_eq!(stats(node).used_frames, 1);
    assert_eq!(c!(pnode_alloc(owner, 9, &mut second)), 0, "they are a block again");
    assert_eq!(c!(pnode_free(owner, second, 9)), 0);
    assert_eq!(c!(pnode_free(owner, odd, 0)), 0);
    assert_eq!(c!(pnode_audit(node)), 0);
    c!(pnode_grant_put(owner));
    assert_eq!(c!(pnode_node_unregister(node)), 0);
    assert_eq!(c!(pnode_space_destroy(space)), 0);
    assert_eq!(Fake::live(), 0);
}

#[test]
fn the_map_shows_what_is_taken() {
    let device = Device::new(0x1000, 1024);
    let space = space(2);
    let node = register(space, 1, 0, &device).unwrap();
    let owner = grant(node).unwrap();
    let (mut pfn, mut text) = (0, [b'x'; 20]);
    assert_eq!(c!(pnode_alloc(owner, 9, &mut pfn)), 0);
    // Two rows of eight: each character is 64 frames.
    assert_eq!(c!(pnode_map(node, 8, 2, text.as_mut_ptr(), 18)), 0);
    let rows = [b"########".as_slice(), b"        ".as_slice()];
    let expected = if pfn == 0x1000 { [rows[0], rows[1]] } else { [rows[1], rows[0]] }.join(b"\n".as_slice());
    assert_eq!(text[..17], expected);
    assert_eq!(text[17..], *b"\0xx");
    assert_eq!(c!(pnode_map(node, 8, 2, text.as_mut_ptr(), 17)), Errno::ENOSPC.to_return());
    assert_eq!(text[0], 0, "nothing is shown of what does not fit");
    for (columns, rows) in [(0, 1), (1, 0), (1025, 1), (1, 1025)] {
        assert_eq!(c!(pnode_map(node, columns, rows, text.as_mut_ptr(), 20)), EINVAL);
    }
    assert_eq!(c!(pnode_map(node, 1, 1, ptr::null_mut(), 20)), EFAULT);
    assert_eq!(c!(pnode_map(ptr::null_mut(), 1, 1, text.as_mut_ptr(), 20)), EFAULT);
    assert_eq!(c!(pnode_free(owner, pfn, 9)), 0);
    c!(pnode_grant_put(owner));
    assert_eq!(c!(pnode_node_unregister(node)), 0);
    assert_eq!(c!(pnode_space_destroy(space)), 0);
}

#[test]
fn calls_of_processes_are_examined() {
    use pnode_kernel::calls::{DISK, FREE, QUERY};

    let mut call = CallArguments::default();
    let disk = [9u64, 8, 1];
    assert_eq!((c!(pnode_call_bytes(QUERY)), c!(pnode_call_bytes(FREE))), (0, 16));
    assert_eq!(c!(pnode_call_bytes(7)), Errno::ENOTTY.to_return());
    assert_eq!(c!(pnode_call_decode(DISK, disk.as_ptr().cast(), 0, &mut call)), 0);
    assert_eq!(call, CallArguments { kind: 4, checksums: 1, first: 9, end: 8 });
    assert_eq!(c!(pnode_call_decode(FREE, disk.as_ptr().cast(), 0, &mut call)), 0);
    assert_eq!(call, CallArguments { kind: 1, checksums: 0, first: 9, end: 17 });
    assert_eq!(c!(pnode_call_decode(7, disk.as_ptr().cast(), 0, &mut call)), Errno::ENOTTY.to_return());
    assert_eq!(c!(pnode_call_decode(FREE, ptr::null(), 0, &mut call)), EFAULT);
    assert_eq!(c!(pnode_call_decode(FREE, disk.as_ptr().cast(), 0, ptr::null_mut())), EFAULT);
}

/// A device that comes back finds its metadata again: binding and unbinding for ever needs no memory.
#[test]
fn a_range_that_comes_back_costs_nothing() {
    let device = Device::new(0x1000, 4096);
    let space = space(4);
    let mut live = None;
    for round in 0..50u32 {
        let node = register(space, 1 + round % 3, 0, &device).unwrap();
        assert_eq!(c!(pnode_node_unregister(node)), 0);
        assert_eq!(*live.get_or_insert(Fake::live()), Fake::live(), "round {round}");
    }
    assert_eq!(c!(pnode_space_destroy(space)), 0);
    assert_eq!(Fake::live(), 0);
}

/// A life from creation to destruction, in which each step that fails for want of memory is made again.
#[test]
fn every_allocation_may_fail_once() {
    let device = Device::new(0x1000, 64);
    let mut refused = 0;
    for nth in 0.. {
        Fake::fail_at(Some(nth));
        // A step that fails leaves as much memory in use as before it, and succeeds when made again.
        let mut again = |step: &mut dyn FnMut() -> i32| {
            let live = Fake::live();
            let mut status = step();
            if status == ENOMEM {
                assert_eq!(Fake::live(), live, "a failed step kept memory");
                refused += 1;
                status = step();
            }
            assert_eq!(status, 0, "allocation {nth}");
        };
        let (mut space, mut node) = (ptr::null_mut(), ptr::null_mut());
        let (mut owner, mut service) = (ptr::null_mut(), ptr::null_mut());
        again(&mut || c!(pnode_space_create(2, &mut space)));
        again(&mut || c!(pnode_node_register(space, 1, 0, RECLAIM, &range(&device), &mut node)));
        again(&mut || c!(pnode_node_grant(node, &mut owner)));
        again(&mut || c!(pnode_grant_ask(space, 1, 0, &mut service)));
        let (mut pfn, calls) = (0, Fake::calls());
        again(&mut || c!(pnode_alloc(owner, 2, &mut pfn)));
        again(&mut || c!(pnode_free(service, pfn, 2)));
        c!(pnode_grant_put(owner));
        c!(pnode_grant_put(service));
        again(&mut || c!(pnode_node_unregister(node)));
        again(&mut || c!(pnode_space_destroy(space)));
        assert_eq!(Fake::calls(), calls, "frames and teardown need no metadata");
        assert_eq!(Fake::live(), 0, "allocation {nth}");
        if !Fake::has_failed() {
            break;
        }
    }
    assert!(refused > 8, "only {refused} steps were refused");
}
