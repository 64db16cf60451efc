//! What a process may ask of `/dev/pnodeN`, examined: [`decode`].
//!
//! Arguments of system calls are the one place where anybody can hand the module any bytes. All that is to be checked
//! of them is checked here, by a pure function that the host tests and a fuzz target compare with the words of
//! `include/pnode_uapi.h`; what is left to the C half is to copy them, and to ask whether the caller is an administrator.

use core::ops::Range;

use pnode_core::PageSize;

use crate::errno::Errno;

/// A call whose argument makes sense.
///
/// Whether the pages, the memory or the disk that it names are there is for the callee to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// `PNODE_IOC_QUERY`.
    Query,
    /// `PNODE_IOC_FREE`: pages of the object, never none, whose offsets in bytes fit a signed 64-bit number.
    Free(Range<u64>),
    /// `PNODE_IOC_MOVE_IN`: addresses of the process, never none, page-aligned.
    MoveIn(Range<u64>),
    /// `PNODE_IOC_MOVE_OUT`, likewise.
    MoveOut(Range<u64>),
    /// `PNODE_IOC_DISK` with pages.
    AddDisk {
        /// Pages of the disk, not 0.
        pages: u32,
        /// The most frames that it takes.
        frames: u64,
        /// Whether damage is to be noticed, 0 or 1, as in the C interface.
        checksums: u32,
    },
    /// `PNODE_IOC_DISK` without pages.
    RemoveDisk,
}

/// `_IOC` of the kernel's headers for x86 and most other machines: what is to be copied, how much, a letter, a number.
const fn number(direction: u32, number: u32, bytes: u32) -> u32 {
    direction << 30 | bytes << 16 | (b'p' as u32) << 8 | number
}

/// The kernel reads the argument.
const WRITE: u32 = 1;
/// The kernel fills the argument in.
const READ: u32 = 2;

/// `PNODE_IOC_QUERY`.
pub const QUERY: u32 = number(READ, 0xd0, 40);
/// `PNODE_IOC_FREE`.
pub const FREE: u32 = number(WRITE, 0xd1, 16);
/// `PNODE_IOC_DISK`.
pub const DISK: u32 = number(WRITE, 0xd2, 24);
/// `PNODE_IOC_MOVE_IN`.
pub const MOVE_IN: u32 = number(READ | WRITE, 0xd3, 24);
/// `PNODE_IOC_MOVE_OUT`.
pub const MOVE_OUT: u32 = number(READ | WRITE, 0xd4, 24);

/// The most bytes that [`argument_bytes`] asks for.
pub const MAX_ARGUMENT: usize = 24;

/// How many bytes of a process are the argument of a command, before [`decode`]: 0 for one that only answers.
///
/// # Errors
///
/// [`Errno::ENOTTY`] for what is no command.
pub const fn argument_bytes(command: u32) -> Result<usize, Errno> {
    match command {
        QUERY => Ok(0),
        FREE => Ok(16),
        DISK | MOVE_IN | MOVE_OUT => Ok(24),
        _ => Err(Errno::ENOTTY),
    }
}

/// Examines a call of a process whose addresses end at `user_end`.
///
/// Reads the bytes as the machine's own numbers, as C would; of a `struct pnode_move` the part that is to be filled in
/// may be anything.
///
/// # Errors
///
/// [`Errno::ENOTTY`] for what is no command; [`Errno::EINVAL`] for an argument that makes no sense, or that is not as
/// long as [`argument_bytes`] says.
pub fn decode(command: u32, argument: &[u8], page: PageSize, user_end: u64) -> Result<Call, Errno> {
    if argument_bytes(command)? != argument.len() {
        return Err(Errno::EINVAL);
    }
    match command {
        FREE => Ok(Call::Free(pages_of_object(word(argument, 0)?, word(argument, 8)?, page)?)),
        MOVE_IN => {
            Ok(Call::MoveIn(memory_of_process(word(argument, 0)?, word(argument, 8)?, page, user_end)?))
        }
        MOVE_OUT => {
            Ok(Call::MoveOut(memory_of_process(word(argument, 0)?, word(argument, 8)?, page, user_end)?))
        }
        DISK => disk(word(argument, 0)?, word(argument, 8)?, half(argument, 16)?, half(argument, 20)?),
        _ => Ok(Call::Query),
    }
}

/// A `struct pnode_span`: its bytes must be offsets that a mapping could have.
fn pages_of_object(first: u64, pages: u64, page: PageSize) -> Result<Range<u64>, Errno> {
    let most = i64::MAX.unsigned_abs() >> page.shift();
    let end = first.checked_add(pages).filter(|end| pages != 0 && *end <= most).ok_or(Errno::EINVAL)?;
    Ok(first..end)
}

/// A `struct pnode_move`.
fn memory_of_process(address: u64, bytes: u64, page: PageSize, user_end: u64) -> Result<Range<u64>, Errno> {
    let aligned = (address | bytes).trailing_zeros() >= page.shift();
    let end = address.checked_add(bytes).filter(|end| bytes != 0 && aligned && *end <= user_end);
    Ok(address..end.ok_or(Errno::EINVAL)?)
}

/// A `struct pnode_disk_setup`.
fn disk(pages: u64, frames: u64, checksums: u32, reserved: u32) -> Result<Call, Errno> {
    let pages = u32::try_from(pages).map_err(|_| Errno::EINVAL)?;
    match (pages, checksums, reserved) {
        (0, _, 0) => Ok(Call::RemoveDisk),
        (_, 0 | 1, 0) => Ok(Call::AddDisk { pages, frames, checksums }),
        _ => Err(Errno::EINVAL),
    }
}

/// The 64-bit number at a byte of the argument.
fn word(argument: &[u8], at: usize) -> Result<u64, Errno> {
    let bytes = argument.get(at..).and_then(|rest| rest.first_chunk()).ok_or(Errno::EINVAL)?;
    Ok(u64::from_ne_bytes(*bytes))
}

/// The 32-bit number at a byte of the argument.
fn half(argument: &[u8], at: usize) -> Result<u32, Errno> {
    let bytes = argument.get(at..).and_then(|rest| rest.first_chunk()).ok_or(Errno::EINVAL)?;
    Ok(u32::from_ne_bytes(*bytes))
}
