//! The start of a frame for a pod: Ethernet and IPv4 header.

use super::ETHERTYPE_IPV4_BYTES;
use super::ipv4::{self, Ipv4Header};
use super::vxlan::INNER_SOURCE_MAC;

/// Bytes of [`start`] that belong to the frame.
pub const START_BYTES: u32 = super::ETHERNET_BYTES + ipv4::HEADER_BYTES;

/// Ethernet header and the fixed part of the IPv4 header in memory order, in words that the processor
/// writes at once; [`START_BYTES`] of them count.
#[inline(always)]
pub const fn start(destination_mac: [u8; 6], ip: Ipv4Header) -> [u64; 5] {
    let [to, from] = [destination_mac, INNER_SOURCE_MAC];
    let mut halves = [0; 17];
    let mut i = 0;
    while i < 3 {
        halves[i] = u16::from_ne_bytes([to[2 * i], to[2 * i + 1]]);
        halves[3 + i] = u16::from_ne_bytes([from[2 * i], from[2 * i + 1]]);
        i += 1;
    }
    halves[6] = u16::from_ne_bytes(ETHERTYPE_IPV4_BYTES);
    let ip = ip.halves();
    let mut i = 0;
    while i < 10 {
        halves[7 + i] = ip[i];
        i += 1;
    }
    super::joined(halves)
}
