//! The tunnel: what we read from a packet on the underlay, and what we write around one.

use slice_common::address::{Address, Port};
use slice_common::drop_reason::DropReason;
use slice_common::id::{TrafficClass, Vni};
use slice_common::layout::{Class, Path, Settings};
use slice_common::shaper::FlowEnds;
use slice_common::wire::ecn::{self, Ecn};
use slice_common::wire::ipv4::{self, Ipv4Header};
use slice_common::wire::transport::{UDP, UDP_CHECKSUM_OFFSET, UDP_HEADER_BYTES};
use slice_common::wire::vxlan::{self, Tunnel};
use slice_common::wire::{ETHERNET_BYTES, ETHERTYPE_IPV4};

use crate::packet::Packet;
use crate::stage::parse::Headers;

const ETHERTYPE_OFFSET: u32 = ETHERNET_BYTES - 2;
pub(crate) const UDP_OFFSET: u32 = ETHERNET_BYTES + ipv4::HEADER_BYTES;
pub(crate) const VXLAN_OFFSET: u32 = UDP_OFFSET + UDP_HEADER_BYTES;
const INNER_ETHERTYPE_OFFSET: u32 = ETHERNET_BYTES + vxlan::OVERHEAD_BYTES - 2;

/// Where the inner IPv4 header stands in a tunnel packet.
pub(crate) const INNER_OFFSET: u32 = ETHERNET_BYTES + vxlan::OVERHEAD_BYTES;
const INNER_ADDRESSES_OFFSET: u32 = INNER_OFFSET + ipv4::SOURCE_OFFSET;

/// Whether a packet on the underlay is for this node's tunnel. Only then is any fault in it ours to
/// drop; a first look that needs no more than the fixed header.
#[inline(always)]
pub(crate) fn is_ours(packet: Packet, outer: &Ipv4Header, settings: &Settings) -> bool {
    outer.destination() == settings.underlay_address
        && packet.is_for_this_host()
        && is_to_tunnel_port(packet, outer, ETHERNET_BYTES, settings)
}

/// Whether a packet is for anybody's tunnel port. Later fragments have no ports: without the first
/// nobody puts them together.
#[inline(always)]
pub(crate) fn is_to_tunnel_port(
    packet: Packet,
    outer: &Ipv4Header,
    outer_offset: u32,
    settings: &Settings,
) -> bool {
    let Some(port_offset) = vxlan::destination_port_offset(*outer) else {
        return false;
    };
    let port_offset = outer_offset + port_offset;
    packet.make_readable(port_offset + 2);
    match packet.load::<u16>(port_offset) {
        Some(port) => port == settings.tunnel_port,
        None => false,
    }
}

/// Reads slice and class from a tunnel packet's headers, and makes them readable up to those of the inner
/// packet: drivers and receive offload leave what is behind the UDP header in page fragments.
#[inline(always)]
pub(crate) fn read(packet: Packet, outer: &Ipv4Header) -> Result<Vni, DropReason> {
    packet.make_readable(INNER_OFFSET + ipv4::HEADER_BYTES);
    if !vxlan::is_carrier(*outer, packet.len().saturating_sub(ETHERNET_BYTES)) {
        return Err(DropReason::BadTunnelHeader);
    }
    let words: [u32; 2] = packet
        .load(VXLAN_OFFSET)
        .ok_or(DropReason::BadTunnelHeader)?;
    vxlan::parse_words(words).ok_or(DropReason::BadTunnelHeader)
}

/// The inner IPv4 header of a packet that was [`read`].
#[inline(always)]
pub(crate) fn inner(packet: Packet) -> Result<Ipv4Header, DropReason> {
    match packet.load::<u16>(INNER_ETHERTYPE_OFFSET) {
        Some(ETHERTYPE_IPV4) => packet.load(INNER_OFFSET).ok_or(DropReason::Malformed),
        Some(_) => Err(DropReason::InnerNotIpv4),
        None => Err(DropReason::BadTunnelHeader),
    }
}

/// The inner TOS byte once the outer header is gone.
#[inline(always)]
pub(crate) fn tos_after_pop(outer: &Ipv4Header, inner: &Ipv4Header) -> Result<u8, DropReason> {
    match ecn::decapsulate(Ecn::of_tos(inner.tos()), Ecn::of_tos(outer.tos())) {
        Ok(ecn) => Ok(inner.tos() & !3 | ecn.bits()),
        Err(ecn::CongestedButNotCapable) => Err(DropReason::EcnNotCapable),
    }
}

/// Puts the packet into the tunnel. Its IPv4 header is written anew, as `headers` have it.
#[inline(always)]
pub(crate) fn push(
    packet: Packet,
    headers: &Headers,
    slice: u32,
    class: Class,
    path: &Path,
    settings: &Settings,
) -> Result<(), DropReason> {
    packet.push_tunnel()?;
    let transport = &headers.transport;
    let hash = vxlan::flow_hash(
        headers.ip.source(),
        headers.ip.destination(),
        transport.source_port,
        transport.destination_port,
    );
    let tunnel = Tunnel {
        source: path.local,
        destination: path.remote,
        source_port: vxlan::source_port(hash),
        destination_port: Port::from_network_word(path.port),
        vni: Vni::from_parts(slice, TrafficClass::from_low_bits(class.class as u32)),
        tos: ecn::outer_tos(class.dscp, headers.ip.tos()),
    };
    packet.store(ETHERTYPE_OFFSET, &vxlan::encapsulated(tunnel, headers.ip))?;
    mark(packet, settings);
    Ok(())
}

/// Marks a tunnel packet that the programs of this node made: `underlay_guard` asks for it.
#[inline(always)]
pub(crate) fn mark(packet: Packet, settings: &Settings) {
    packet.set_mark(settings.tunnel_mark);
}

/// Takes one from the inner packet's time to live, which is 2 or more.
#[inline(always)]
pub(crate) fn take_hop(packet: Packet, headers: &Headers) -> Result<(), DropReason> {
    let (ttl, protocol) = (headers.ip.ttl(), headers.ip.protocol());
    let from = u16::from_ne_bytes([ttl, protocol]);
    let to = u16::from_ne_bytes([ttl.wrapping_sub(1), protocol]);
    let checksum = headers.ip_offset + ipv4::CHECKSUM_OFFSET;
    packet.replace_header_checksum(checksum, from as u32, to as u32, 2)?;
    packet.store(headers.ip_offset + ipv4::TTL_OFFSET, &to)?;
    Ok(())
}

/// Addresses a tunnel packet to the other end of the path, in place. What the sender of the tunnel says
/// about class, congestion and flow stays.
#[inline(always)]
pub(crate) fn readdress(packet: Packet, outer: &Ipv4Header, path: &Path) -> Result<(), DropReason> {
    let total_bytes = outer.total_bytes() as u16;
    let header = ipv4::tunnel_header(path.local, path.remote, outer.tos(), total_bytes);
    packet.store(ETHERNET_BYTES, &header)?;
    // A checksum that covers the old addresses.
    let checksum = UDP_OFFSET + UDP_CHECKSUM_OFFSET;
    if packet.load::<u16>(checksum) != Some(0) {
        packet.store_summed(checksum, &0u16)?;
    }
    Ok(())
}

/// Whether a packet was put into the tunnel by the programs of this node. The mark stays on it: the device
/// may stand on another one with a guard of its own, as a VLAN does on its card.
#[inline(always)]
pub(crate) fn is_marked(packet: Packet, settings: &Settings) -> bool {
    packet.mark() == settings.tunnel_mark
}

/// A tunnel packet on its way out.
#[derive(Clone, Copy)]
pub(crate) struct Departing {
    pub(crate) vni: Vni,
    pub(crate) destination: Address,
    /// Of the tunnel, in network order: a hash of the inner flow.
    pub(crate) source_port: u16,
    /// Source and destination of the inner packet; zeros in what is too short for them.
    pub(crate) inner_addresses: [u32; 2],
}

impl Departing {
    #[inline(always)]
    pub(crate) fn flow(&self) -> FlowEnds {
        let [source, destination] = self.inner_addresses.map(Address::from_network_word);
        FlowEnds {
            slice: self.vni.slice_number(),
            source,
            destination,
            source_port: self.source_port,
        }
    }
}

/// Reads a packet that the programs of this node marked; nothing where somebody else wrapped it up since.
#[inline(always)]
pub(crate) fn departing(packet: Packet, outer: &Ipv4Header) -> Option<Departing> {
    if outer.protocol() != UDP || outer.header_bytes() != ipv4::HEADER_BYTES {
        return None;
    }
    packet.make_readable(INNER_OFFSET + ipv4::HEADER_BYTES);
    let [ports, _, flags, vni]: [u32; 4] = packet.load(UDP_OFFSET)?;
    let [high, low, ..] = ports.to_ne_bytes();
    Some(Departing {
        vni: vxlan::parse_words([flags, vni])?,
        destination: outer.destination(),
        source_port: u16::from_ne_bytes([high, low]),
        inner_addresses: packet.load(INNER_ADDRESSES_OFFSET).unwrap_or([0; 2]),
    })
}

/// Takes the packet out of the tunnel, and returns its headers where they stand from now on, with the
/// ECN that survives in them: still to be written.
#[inline(always)]
pub(crate) fn pop(packet: Packet, headers: &Headers, tos: u8) -> Result<Headers, DropReason> {
    packet.pop_tunnel()?;
    let mut moved = *headers;
    moved.ip_offset -= vxlan::OVERHEAD_BYTES;
    moved.transport_offset -= vxlan::OVERHEAD_BYTES;
    moved.ip = headers.ip.with_tos(tos);
    Ok(moved)
}
