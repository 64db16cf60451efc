//! Any bytes as a call of `/dev/pnodeN`: what is accepted is what the words of the header say, in arithmetic that cannot
//! overflow, and nothing else is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pnode_core::PageSize;
use pnode_kernel::Errno;
use pnode_kernel::calls::{Call, DISK, FREE, MOVE_IN, MOVE_OUT, QUERY, argument_bytes, decode};

const COMMANDS: [u32; 5] = [QUERY, FREE, DISK, MOVE_IN, MOVE_OUT];

fuzz_target!(|input: (u32, u8, u64, Vec<u8>)| {
    let (wild, choice, user_end, bytes) = input;
    let command = COMMANDS.get(usize::from(choice)).copied().unwrap_or(wild);
    let page = [PageSize::KIB4, PageSize::KIB16, PageSize::KIB64][usize::from(choice) % 3];
    let answer = decode(command, &bytes, page, user_end);

    let known = COMMANDS.contains(&command);
    assert_eq!(argument_bytes(command).is_ok(), known);
    if !known {
        assert_eq!(answer, Err(Errno::ENOTTY));
        return;
    }
    // The model: numbers too wide to overflow, read byte by byte.
    let number = |at: usize, len: usize| {
        bytes.iter().skip(at).take(len).rev().fold(0u128, |number, byte| number << 8 | u128::from(*byte))
    };
    let (first, count) = (number(0, 8), number(8, 8));
    let size = page.bytes() as u128;
    let length = match command {
        QUERY => 0,
        FREE => 16,
        _ => 24,
    };
    let sense = bytes.len() == length
        && match command {
            QUERY => true,
            FREE => count > 0 && (first + count) * size < 1 << 63,
            DISK => first < 1 << 32 && number(20, 4) == 0 && (first == 0 || number(16, 4) < 2),
            _ => count > 0 && first % size == 0 && count % size == 0 && first + count <= u128::from(user_end),
        };
    let Ok(call) = answer else {
        assert_eq!(answer, Err(Errno::EINVAL));
        assert!(!sense, "refused what makes sense");
        return;
    };
    assert!(sense, "{call:?}");
    let range = |range: core::ops::Range<u64>| {
        assert_eq!((u128::from(range.start), u128::from(range.end)), (first, first + count));
    };
    match call {
        Call::Query => assert_eq!(command, QUERY),
        Call::Free(pages) => range(pages),
        Call::MoveIn(memory) => {
            assert_eq!(command, MOVE_IN);
            range(memory);
        }
        Call::MoveOut(memory) => {
            assert_eq!(command, MOVE_OUT);
            range(memory);
        }
        Call::AddDisk { pages, frames, checksums } => {
            assert_eq!((u128::from(pages), u128::from(frames), u128::from(checksums)), (first, count, number(16, 4)));
        }
        Call::RemoveDisk => assert_eq!(first, 0),
    }
});
