//! The start of a frame for a pod: Ethernet and IPv4 header.

use super::ipv4::{self, Ipv4Header};
use super::vxlan::INNER_SOURCE_MAC;
use super::{ETHERTYPE_IPV4_BYTES, word};

/// Bytes of [`start`] that belong to the frame.
pub const START_BYTES: u32 = super::ETHERNET_BYTES + ipv4::HEADER_BYTES;

/// Ethernet header and the fixed part of the IPv4 header in memory order, in words that the processor
/// writes at once; [`START_BYTES`] of them count.
#[inline(always)]
pub const fn start(destination_mac: [u8; 6], ip: Ipv4Header) -> [u64; 5] {
    let (to, from, ip) = (
        halves(destination_mac),
        halves(INNER_SOURCE_MAC),
        ip.halves(),
    );
    let ipv4 = u16::from_ne_bytes(ETHERTYPE_IPV4_BYTES);
    [
        word(to[0], to[1], to[2], from[0]),
        word(from[1], from[2], ipv4, ip[0]),
        word(ip[1], ip[2], ip[3], ip[4]),
        word(ip[5], ip[6], ip[7], ip[8]),
        word(ip[9], 0, 0, 0),
    ]
}

#[inline(always)]
const fn halves(mac: [u8; 6]) -> [u16; 3] {
    [
        u16::from_ne_bytes([mac[0], mac[1]]),
        u16::from_ne_bytes([mac[2], mac[3]]),
        u16::from_ne_bytes([mac[4], mac[5]]),
    ]
}
