//! The maximum segment size option of TCP SYNs (RFC 9293, 3.7.1): found, and lowered to what a path
//! can carry.

use super::{ipv4, transport};

/// Options take at most 40 bytes, so there are at most 40 of them.
pub const OPTIONS_MAX: u32 = 40;

/// How many options are looked at before the search is given up: stacks send the MSS first, and after it
/// four others. Each one-byte filler counts.
pub const STEPS_MAX: u32 = 16;

const KIND_END: u8 = 0;
const KIND_NOTHING: u8 = 1;
const KIND_MSS: u8 = 2;
const MSS_OPTION_BYTES: u8 = 4;

/// What one look at an option tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The value of the MSS option stands two bytes further on.
    Found,
    /// Go on this many bytes further, 1..=255.
    Skip(u32),
    /// No more options, or garbage.
    End,
}

/// Reads one option from its first two bytes.
#[inline(always)]
pub const fn step(kind_and_length: [u8; 2]) -> Step {
    match kind_and_length {
        [KIND_END, _] => Step::End,
        [KIND_NOTHING, _] => Step::Skip(1),
        [KIND_MSS, MSS_OPTION_BYTES] => Step::Found,
        [_, length] if length >= 2 => Step::Skip(length as u32),
        _ => Step::End,
    }
}

/// The largest TCP payload that fits a tunnel packet of `path_mtu_bytes` (576..=65535).
#[inline(always)]
pub const fn largest_for_path(path_mtu_bytes: u32) -> u16 {
    let headers = super::vxlan::OVERHEAD_BYTES + ipv4::HEADER_BYTES + transport::TCP_HEADER_BYTES;
    let mss = path_mtu_bytes.saturating_sub(headers);
    if mss > u16::MAX as u32 {
        u16::MAX
    } else {
        mss as u16
    }
}

/// The MSS to write, or `None` when the one that is there is small enough.
#[inline(always)]
pub const fn clamped(mss: u16, largest: u16) -> Option<u16> {
    if mss > largest { Some(largest) } else { None }
}
