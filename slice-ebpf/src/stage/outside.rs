//! What may a slice pod exchange with the world outside its slice?
//!
//! TCP needs no record: only a SYN opens a connection. A UDP packet or an echo is welcome when the
//! pod asked for it. Fragments after the first carry no ports and pass: without the first, which is
//! judged, they are never put together.

use slice_common::address::Address;
use slice_common::drop_reason::DropReason;
use slice_common::layout::{Endpoint, NewExchangesKey, OutsideKey, OutsideWay, ReplyKey};
use slice_common::policy::{Ground, PacketKind};
use slice_common::reply;
use slice_common::wire::ipv4::{HEADER_BYTES, Ipv4Header, SOURCE_OFFSET};
use slice_common::wire::transport::{ICMP_HEADER_BYTES, Transport};
use slice_common::wire::{ETHERNET_BYTES, ETHERTYPE_ARP};

use crate::packet::Packet;
use crate::stage::parse::Headers;
use crate::{maps, replies};

/// Whether a packet to the outside may be noted: the pod's own and sound, or one pod could open the
/// isolation of another. Later fragments carry no ports.
#[inline(always)]
pub(crate) fn may_ask(packet: Packet, endpoint: &Endpoint, ip: &Ipv4Header) -> bool {
    endpoint.flags & Endpoint::ISOLATED != 0
        && ip.source() == endpoint.pod_address
        && !ip.is_later_fragment()
        && ip
            .check(packet.len().saturating_sub(ETHERNET_BYTES))
            .is_ok()
}

/// Notes what a pod sends to the outside, so that the answer finds its way in; or what somebody outside who
/// may begin sends to it, so that the pod's answer finds its way out. The node's own answers find theirs without, so
/// what goes to the node is never too much.
#[inline(always)]
pub(crate) fn remember_question(
    headers: &Headers,
    beginner: &NewExchangesKey,
) -> Result<(), DropReason> {
    if headers.transport.kind.leaves_reply_record() {
        let own = record(headers, reply::key_of);
        let begun = replies::begin(&record(headers, reply::key_of_answer), &own, beginner);
        if begun.is_err() && !maps::is_node_address(headers.ip.destination()) {
            return begun;
        }
    }
    Ok(())
}

/// Whether the pod may begin nothing outside but what is named.
#[inline(always)]
pub(crate) fn is_confined(endpoint: &Endpoint) -> bool {
    endpoint.flags & Endpoint::CONFINED != 0
}

/// What else than untagged IPv4 a confined pod exchanges with anybody: nothing that could carry more
/// than the question who has an address.
#[inline(always)]
pub(crate) fn is_address_resolution(packet: Packet) -> bool {
    packet.ethertype() == ETHERTYPE_ARP && !packet.has_vlan()
}

/// Whether a confined pod may send this packet to somebody outside: it is for its node, continues or
/// answers what others may begin, or is named. Errors carry what the other end knows already.
#[inline(always)]
pub(crate) fn may_leave(endpoint: &Endpoint, headers: &Headers) -> bool {
    let destination = headers.ip.destination();
    let kind = headers.transport.kind;
    matches!(kind, PacketKind::TcpOther | PacketKind::Error)
        || maps::is_node_address(destination)
        || kind.may_rest_on(Ground::ReplyRecord) && answers_outside(headers)
        || is_named(endpoint, OutsideWay::Out, destination, &headers.transport)
}

/// Whether somebody outside may begin this.
#[inline(always)]
pub(crate) fn is_admitted(endpoint: &Endpoint, headers: &Headers) -> bool {
    let transport = &headers.transport;
    let begins = matches!(
        transport.kind,
        PacketKind::TcpOpen | PacketKind::Datagram | PacketKind::EchoRequest
    );
    begins && is_named(endpoint, OutsideWay::In, headers.ip.source(), transport)
}

/// A name for the port goes before one for all of them; which of the two does not matter.
#[inline(always)]
fn is_named(endpoint: &Endpoint, way: OutsideWay, address: Address, transport: &Transport) -> bool {
    if transport.kind == PacketKind::EchoReply {
        return false;
    }
    let port = transport.destination_port.network_word();
    [port, 0].into_iter().any(|port| {
        maps::outside_allows(OutsideKey {
            slice: endpoint.slice,
            way: way.number(),
            protocol: transport.protocol,
            port,
            address,
        })
    })
}

#[inline(always)]
fn answers_outside(headers: &Headers) -> bool {
    replies::is_expected(&record(headers, reply::key_of))
}

/// A record of what is said outside of every slice.
#[inline(always)]
fn record(
    headers: &Headers,
    key: impl FnOnce(u32, Address, Address, &Transport) -> ReplyKey,
) -> ReplyKey {
    let (source, destination) = (headers.ip.source(), headers.ip.destination());
    key(ReplyKey::OUTSIDE, source, destination, &headers.transport)
}

/// Whether the slice guards this pod at all.
#[inline(always)]
pub(crate) fn is_isolated(endpoint: &Endpoint) -> bool {
    endpoint.flags & Endpoint::ISOLATED != 0
}

/// Whether a packet reached the host's stack by the tunnel's device, where nothing passes that a slice
/// did not let pass. A packet keeps this through routing, whatever firewalls do to it.
#[inline(always)]
pub(crate) fn is_from_the_slice(packet: Packet) -> bool {
    match maps::settings() {
        Some(settings) if settings.tunnel_ifindex != 0 => {
            packet.arrived_by() == settings.tunnel_ifindex
        }
        Some(_) | None => false,
    }
}

/// Whether isolation has a say on this packet: it is for the pod's address or for everybody (by the
/// address of the packet or of the frame: Linux takes either), and not the node's own.
#[inline(always)]
pub(crate) fn is_guarded(packet: Packet, endpoint: &Endpoint, ip: &Ipv4Header) -> bool {
    (endpoint.pod_address.takes(ip.destination()) || is_for_a_group(packet))
        && !ip.is_later_fragment()
        && !is_from_the_node(packet, ip)
}

/// Broadcast and multicast frames have the lowest bit of their first byte set. Two bytes are loaded,
/// because LLVM turns the bound of one into a comparison that the verifier does not follow.
#[inline(always)]
fn is_for_a_group(packet: Packet) -> bool {
    match packet.load::<[u8; 2]>(0) {
        Some([first, _]) => first & 1 == 1,
        None => true,
    }
}

/// The node's own address alone proves nothing: a NodePort's masquerade gives it to strangers.
#[inline(always)]
fn is_from_the_node(packet: Packet, ip: &Ipv4Header) -> bool {
    packet.is_made_by_this_host() && maps::is_node_address(ip.source())
}

/// Whether a packet from outside continues or answers something that the pod began.
#[inline(always)]
pub(crate) fn is_invited(headers: &Headers) -> bool {
    match headers.transport.kind {
        PacketKind::TcpOpen => false,
        PacketKind::TcpOther => true,
        kind => kind.may_rest_on(Ground::ReplyRecord) && answers_outside(headers),
    }
}

#[inline(always)]
pub(crate) fn is_error(headers: &Headers) -> bool {
    headers.transport.kind == PacketKind::Error
}

/// Lets an ICMP error pass that quotes a packet of the pod to the outside. Nobody outside sees the
/// pod's packets to its slice, so an error about one of those is made up.
#[inline(always)]
pub(crate) fn check_error_quotes_pod(
    packet: Packet,
    ip: &Ipv4Header,
    ip_offset: u32,
    endpoint: &Endpoint,
) -> Result<(), DropReason> {
    let quote = ip_offset + ip.header_bytes() + ICMP_HEADER_BYTES;
    packet.make_readable(quote + HEADER_BYTES);
    let quoted: [u32; 2] = packet
        .load(quote + SOURCE_OFFSET)
        .ok_or(DropReason::Isolated)?;
    let destination = Address::from_network_word(quoted[1]);
    if quoted[0] != endpoint.pod_address.network_word()
        || maps::route(endpoint.table, destination).is_some()
    {
        return Err(DropReason::Isolated);
    }
    Ok(())
}
