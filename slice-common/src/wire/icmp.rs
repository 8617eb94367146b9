//! The ICMP errors (RFC 792, RFC 1191) that we build.

use super::checksum;
use super::ipv4;
use super::transport::ICMP;
use crate::address::Address;

/// Bytes of the packet in question that an answer quotes, from its IPv4 header on: a header without
/// options and 20 bytes behind it, because the kernel does not cut a packet within a TCP header whose
/// checksum it has still to write.
pub const QUOTED_BYTES: u32 = 40;
/// IPv4 and ICMP header of an answer.
pub const HEADERS_BYTES: u32 = 28;

/// Type and code.
pub const UNREACHABLE_FRAGMENTATION_NEEDED: [u8; 2] = [3, 4];
/// The first byte of an IPv4 header without options.
pub const PLAIN_HEADER: u8 = 0x45;
const TIME_EXCEEDED_IN_TRANSIT: [u8; 2] = [11, 0];

/// IPv4 and ICMP header, in memory order, of the answer that `quoted` does not fit `mtu_bytes`.
#[inline(always)]
pub const fn fragmentation_needed(
    source: Address,
    destination: Address,
    mtu_bytes: u16,
    quoted: &[u16; 20],
) -> [u16; 14] {
    error(
        source,
        destination,
        UNREACHABLE_FRAGMENTATION_NEEDED,
        mtu_bytes,
        quoted,
    )
}

/// The same of the answer that `quoted` passed as many gateways as it may.
#[inline(always)]
pub const fn time_exceeded(source: Address, destination: Address, quoted: &[u16; 20]) -> [u16; 14] {
    error(source, destination, TIME_EXCEEDED_IN_TRANSIT, 0, quoted)
}

/// `last`: the last two of the four bytes behind the checksum.
#[inline(always)]
const fn error(
    source: Address,
    destination: Address,
    type_and_code: [u8; 2],
    last: u16,
    quoted: &[u16; 20],
) -> [u16; 14] {
    let total_bytes = (HEADERS_BYTES + QUOTED_BYTES) as u16;
    let ip = ipv4::header(source, destination, 0, total_bytes, ICMP);
    let kind = u16::from_ne_bytes(type_and_code);
    let mut sum = checksum::add_word(checksum::add_word(0, kind), last.to_be());
    let mut i = 0;
    while i < quoted.len() {
        sum = checksum::add_word(sum, quoted[i]);
        i += 1;
    }
    [
        ip[0],
        ip[1],
        ip[2],
        ip[3],
        ip[4],
        ip[5],
        ip[6],
        ip[7],
        ip[8],
        ip[9],
        kind,
        checksum::finish(sum),
        0,
        last.to_be(),
    ]
}
