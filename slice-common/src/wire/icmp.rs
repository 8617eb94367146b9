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

/// IPv4 and ICMP header, in memory order, of the answer that `quoted` does not fit `mtu_bytes`.
#[inline(always)]
pub const fn fragmentation_needed(
    source: Address,
    destination: Address,
    mtu_bytes: u16,
    quoted: &[u16; 20],
) -> [u16; 14] {
    let total_bytes = (HEADERS_BYTES + QUOTED_BYTES) as u16;
    let ip = ipv4::header(source, destination, 0, total_bytes, ICMP);
    let kind = u16::from_ne_bytes(UNREACHABLE_FRAGMENTATION_NEEDED);
    let mut sum = checksum::add_word(checksum::add_word(0, kind), mtu_bytes.to_be());
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
        mtu_bytes.to_be(),
    ]
}
