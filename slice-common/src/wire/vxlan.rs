//! The tunnel header: outer IPv4, UDP, VXLAN (RFC 7348) and the inner Ethernet header.

use super::{ETHERTYPE_IPV4_BYTES, ipv4, word};
use crate::address::{Address, Port};
use crate::id::Vni;

/// What the tunnel adds to an IPv4 packet, without the outer Ethernet header.
pub const OVERHEAD_BYTES: u32 = 50;
/// Not a port of any CNI (4789, 8472 and 6081 are).
pub const DEFAULT_PORT: u16 = 6085;

/// Only the "VNI is valid" bit; a set reserved bit means another protocol (GPE, GBP).
const FLAGS: u8 = 0x08;
/// Locally administered, unicast, the same on every node: inner frames are never bridged.
pub const INNER_SOURCE_MAC: [u8; 6] = [0x02, 0x53, 0x4c, 0x50, 0x00, 0x01];
pub const INNER_DESTINATION_MAC: [u8; 6] = [0x02, 0x53, 0x4c, 0x50, 0x00, 0x02];

/// What the sender of a tunnel packet decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    pub source: Address,
    pub destination: Address,
    pub source_port: Port,
    pub destination_port: Port,
    pub vni: Vni,
    pub tos: u8,
}

/// Spreads flows: every bit of the result depends on every address and port (the finisher of
/// MurmurHash3). The same flow always has the same hash; its two directions need not.
#[inline(always)]
pub const fn flow_hash(
    source: Address,
    destination: Address,
    source_port: Port,
    destination_port: Port,
) -> u32 {
    let ports = (source_port.network_word() as u32) << 16 | destination_port.network_word() as u32;
    let mut hash = source.network_word();
    hash = mix(hash) ^ destination.network_word();
    hash = mix(hash) ^ ports;
    mix(hash)
}

#[inline(always)]
const fn mix(hash: u32) -> u32 {
    let hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    let hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

/// The UDP source port of a flow: `0xC000` and 14 bits of its hash, so that underlay routers and
/// receive queues spread flows.
#[inline(always)]
pub const fn source_port(flow_hash: u32) -> Port {
    Port::new(0xc000 | ((flow_hash ^ flow_hash >> 14) & 0x3fff) as u16)
}

/// Whether [`source_port`] gives such ports.
#[inline(always)]
pub const fn is_source_port(port: Port) -> bool {
    port.number() >= 0xc000
}

/// Builds the 50 bytes that stand between the outer Ethernet header and the inner IPv4 packet of
/// `inner_bytes`, as half words in memory order.
///
/// The lengths wrap for packets above 65,485 bytes; segmentation-offload packets have their lengths
/// written per segment by the kernel.
#[inline(always)]
pub const fn header(tunnel: Tunnel, inner_bytes: u32) -> [u16; 25] {
    let total = (inner_bytes + OVERHEAD_BYTES) as u16;
    let outer = ipv4::tunnel_header(tunnel.source, tunnel.destination, tunnel.tos, total);
    let vni = tunnel.vni.number().to_be_bytes();
    let udp_bytes = total.wrapping_sub(ipv4::HEADER_BYTES as u16);
    [
        outer[0],
        outer[1],
        outer[2],
        outer[3],
        outer[4],
        outer[5],
        outer[6],
        outer[7],
        outer[8],
        outer[9],
        tunnel.source_port.network_word(),
        tunnel.destination_port.network_word(),
        udp_bytes.to_be(),
        0,
        u16::from_ne_bytes([FLAGS, 0]),
        0,
        u16::from_ne_bytes([vni[1], vni[2]]),
        u16::from_ne_bytes([vni[3], 0]),
        pair(INNER_DESTINATION_MAC, 0),
        pair(INNER_DESTINATION_MAC, 2),
        pair(INNER_DESTINATION_MAC, 4),
        pair(INNER_SOURCE_MAC, 0),
        pair(INNER_SOURCE_MAC, 2),
        pair(INNER_SOURCE_MAC, 4),
        u16::from_ne_bytes(ETHERTYPE_IPV4_BYTES),
    ]
}

/// The VXLAN header by itself.
pub const fn header_alone(vni: Vni) -> [u8; 8] {
    let vni = vni.number().to_be_bytes();
    [FLAGS, 0, 0, 0, vni[1], vni[2], vni[3], 0]
}

/// What stands in a tunnel packet from the EtherType on, up to the transport header or options of the
/// inner packet: 72 bytes in memory order, in words that the processor writes at once.
#[inline(always)]
pub const fn encapsulated(tunnel: Tunnel, inner: ipv4::Ipv4Header) -> [u64; 9] {
    let outer = header(tunnel, inner.total_bytes());
    let (ip, ipv4) = (inner.halves(), u16::from_ne_bytes(ETHERTYPE_IPV4_BYTES));
    [
        word(ipv4, outer[0], outer[1], outer[2]),
        word(outer[3], outer[4], outer[5], outer[6]),
        word(outer[7], outer[8], outer[9], outer[10]),
        word(outer[11], outer[12], outer[13], outer[14]),
        word(outer[15], outer[16], outer[17], outer[18]),
        word(outer[19], outer[20], outer[21], outer[22]),
        word(outer[23], outer[24], ip[0], ip[1]),
        word(ip[2], ip[3], ip[4], ip[5]),
        word(ip[6], ip[7], ip[8], ip[9]),
    ]
}

/// Where the UDP destination port stands, from the outer IPv4 header on; nothing in what is no UDP, or a
/// later fragment: that has no ports.
#[inline(always)]
pub const fn destination_port_offset(outer: ipv4::Ipv4Header) -> Option<u32> {
    if outer.protocol() == super::transport::UDP && !outer.is_later_fragment() {
        Some(outer.header_bytes() + 2)
    } else {
        None
    }
}

/// Whether an outer header is like those that [`header`] writes: of a whole packet, within the
/// `available_bytes` from the header on, and without options.
#[inline(always)]
pub const fn is_carrier(outer: ipv4::Ipv4Header, available_bytes: u32) -> bool {
    outer.check(available_bytes).is_ok()
        && outer.header_bytes() == ipv4::HEADER_BYTES
        && !outer.is_fragment()
}

/// Reads the VXLAN header's eight bytes; `None` when it is not one that [`header`] writes.
#[inline(always)]
pub const fn parse(bytes: [u8; 8]) -> Option<Vni> {
    if bytes[0] != FLAGS || bytes[1] != 0 || bytes[2] != 0 || bytes[3] != 0 || bytes[7] != 0 {
        return None;
    }
    Some(Vni::from_bytes([bytes[4], bytes[5], bytes[6]]))
}

/// The same from the two words that a program loads.
#[inline(always)]
pub const fn parse_words(words: [u32; 2]) -> Option<Vni> {
    let [a, b, c, d] = words[0].to_ne_bytes();
    let [e, f, g, h] = words[1].to_ne_bytes();
    parse([a, b, c, d, e, f, g, h])
}

#[inline(always)]
const fn pair(mac: [u8; 6], at: usize) -> u16 {
    u16::from_ne_bytes([mac[at], mac[at + 1]])
}
