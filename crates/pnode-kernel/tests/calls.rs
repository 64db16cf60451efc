//! What a process may ask of `/dev/pnodeN`: the decoder against the words of `include/pnode_uapi.h`.

use std::collections::BTreeMap;

use pnode_core::PageSize;
use pnode_kernel::Errno;
use pnode_kernel::calls::{Call, DISK, FREE, MAX_ARGUMENT, MOVE_IN, MOVE_OUT, QUERY, argument_bytes, decode};

const HEADER: &str = include_str!("../include/pnode_uapi.h");
const PAGE: u64 = 4096;
/// Where the addresses of a process end on x86-64.
const USER_END: u64 = (1 << 47) - PAGE;

/// The bytes of each structure of the header: its fields are laid out without gaps.
fn structures() -> BTreeMap<&'static str, u32> {
    let bodies =
        HEADER.split("\nstruct ").skip(1).filter_map(|text| text.split_once("};")?.0.split_once(" {"));
    bodies
        .map(|(name, body)| {
            let words = body.matches("\t__u64 ").count() * 8 + body.matches("\t__u32 ").count() * 4;
            (name, u32::try_from(words).unwrap())
        })
        .collect()
}

#[test]
fn commands_have_the_numbers_of_the_header() {
    let structures = structures();
    let header: BTreeMap<_, _> = HEADER
        .lines()
        .filter_map(|line| line.strip_prefix("#define PNODE_IOC_"))
        .map(|line| {
            let (name, macro_) = line.split_once('\t').unwrap();
            let (direction, rest) = macro_.split_once("('p', 0x").unwrap();
            let (number, structure) = rest.split_once(", struct ").unwrap();
            let direction = match direction {
                "_IOR" => 2,
                "_IOW" => 1,
                "_IOWR" => 3,
                other => panic!("{other}"),
            };
            let bytes = structures[structure.trim_end_matches(')')];
            (name, direction << 30 | bytes << 16 | 0x7000 | u32::from_str_radix(number, 16).unwrap())
        })
        .collect();
    let rust =
        [("QUERY", QUERY), ("FREE", FREE), ("DISK", DISK), ("MOVE_IN", MOVE_IN), ("MOVE_OUT", MOVE_OUT)];
    assert_eq!(header, rust.into());
    for (name, command) in rust {
        let bytes = argument_bytes(command).unwrap();
        assert!(bytes <= MAX_ARGUMENT);
        // What the kernel only fills in is not read.
        assert_eq!(bytes as u32, if name == "QUERY" { 0 } else { command >> 16 & 0x3fff }, "{name}");
    }
}

fn ask(command: u32, words: &[u64]) -> Result<Call, Errno> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    decode(command, &bytes, PageSize::KIB4, USER_END)
}

#[test]
fn what_makes_sense_is_understood() {
    assert_eq!(ask(QUERY, &[]), Ok(Call::Query));
    assert_eq!(ask(FREE, &[3, 4]), Ok(Call::Free(3..7)));
    assert_eq!(ask(MOVE_IN, &[PAGE, 2 * PAGE, 77]), Ok(Call::MoveIn(PAGE..3 * PAGE)));
    assert_eq!(ask(MOVE_OUT, &[0, USER_END, u64::MAX]), Ok(Call::MoveOut(0..USER_END)));
    assert_eq!(ask(DISK, &[9, 8, 1]), Ok(Call::AddDisk { pages: 9, frames: 8, checksums: 1 }));
    assert_eq!(ask(DISK, &[0, 8, 7]), Ok(Call::RemoveDisk));
}

/// Every pair of numbers around every edge, against arithmetic that cannot overflow.
#[test]
fn edges_are_refused_as_the_header_says() {
    let edges: Vec<u64> = [0, PAGE, 1 << 32, i64::MAX as u64 >> 12, i64::MAX as u64, USER_END, 0]
        .into_iter()
        .flat_map(|edge| [edge.wrapping_sub(PAGE), edge.wrapping_sub(1), edge, edge.wrapping_add(1)])
        .collect();
    let mut accepted = 0;
    for &first in &edges {
        for &count in &edges {
            let end = u128::from(first) + u128::from(count);
            let span = count != 0 && end * u128::from(PAGE) <= i64::MAX as u128;
            assert_eq!(ask(FREE, &[first, count]).is_ok(), span, "{first:#x} {count:#x}");
            let memory = count != 0 && first % PAGE == 0 && count % PAGE == 0 && end <= u128::from(USER_END);
            for command in [MOVE_IN, MOVE_OUT] {
                assert_eq!(ask(command, &[first, count, 0]).is_ok(), memory, "{first:#x} {count:#x}");
            }
            let disk = u32::try_from(first).is_ok();
            assert_eq!(ask(DISK, &[first, count, 0]).is_ok(), disk, "{first:#x}");
            assert_eq!(ask(DISK, &[first, count, 1 << 32]), Err(Errno::EINVAL), "reserved");
            accepted += u32::from(span) + u32::from(memory);
        }
    }
    assert!(accepted > 20, "only {accepted}");
    assert_eq!(ask(DISK, &[1, 1, 2]), Err(Errno::EINVAL));
}

#[test]
fn other_commands_and_lengths_are_refused() {
    for bit in 0..32 {
        for command in [QUERY, FREE, DISK, MOVE_IN, MOVE_OUT] {
            assert_eq!(argument_bytes(command ^ 1 << bit), Err(Errno::ENOTTY), "{command:#x} bit {bit}");
        }
    }
    for bytes in 0..=MAX_ARGUMENT + 1 {
        for command in [QUERY, FREE, DISK, MOVE_IN, MOVE_OUT] {
            let answer = decode(command, &[0; MAX_ARGUMENT + 1][..bytes], PageSize::KIB4, USER_END);
            if Ok(bytes) != argument_bytes(command) {
                assert_eq!(answer, Err(Errno::EINVAL), "{command:#x} {bytes}");
            }
        }
    }
}
