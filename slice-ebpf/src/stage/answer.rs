//! What do we tell the sender of a packet that goes no further?

use slice_common::address::Port;
use slice_common::drop_reason::DropReason;
use slice_common::id::Vni;
use slice_common::policy::PacketKind;
use slice_common::wire::icmp::{self, QUOTED_BYTES};
use slice_common::wire::ipv4::Ipv4Header;
use slice_common::wire::vxlan::{self, Tunnel};
use slice_common::wire::{ETHERNET_BYTES, ecn};

use crate::packet::Packet;
use crate::stage::parse::Headers;

/// What is wrong with the packet.
#[derive(Clone, Copy)]
pub(crate) enum Message {
    /// It is larger than this many bytes.
    FragmentationNeeded(u16),
    TimeExceeded,
}

impl Message {
    /// It does not fit a path of `mtu_bytes`.
    #[inline(always)]
    pub(crate) fn fragmentation_needed(mtu_bytes: u32) -> Self {
        Self::FragmentationNeeded(mtu_bytes.saturating_sub(vxlan::OVERHEAD_BYTES) as u16)
    }
}

/// Makes the packet the answer that it does not fit a path of `mtu_bytes`, from its destination to its sender. A
/// packet without DF gets it too: we cannot cut it, but Linux senders then do.
/// # Errors  nothing is said about errors and later fragments (RFC 1122), nor to packets with options;
/// the packet may be spoilt by then.
#[inline(always)]
pub(crate) fn fragmentation_needed(
    packet: Packet,
    headers: &Headers,
    mtu_bytes: u32,
) -> Result<(), DropReason> {
    if !may_be_told(headers) {
        return Err(DropReason::TooBig);
    }
    packet.make_readable(ETHERNET_BYTES + QUOTED_BYTES);
    let quoted: [u16; 20] = packet.load(ETHERNET_BYTES).ok_or(DropReason::TooBig)?;
    let answer = words(headers, Message::fragmentation_needed(mtu_bytes), &quoted);
    packet.cut(ETHERNET_BYTES + QUOTED_BYTES)?;
    packet.make_room(icmp::HEADERS_BYTES)?;
    packet.store(ETHERNET_BYTES, &answer)?;
    Ok(())
}

/// Makes a tunnel packet one that carries the answer back to the peer that it came from.
///
/// The kernel does not cut a packet that it takes for a tunnel packet itself (merged segments, or what
/// a neighbour on the same host sent). Such a one keeps its length, which fitted on its way here. Merged
/// ones did not come in one piece: nothing is said about them, but a sender that hears nothing repeats a
/// single segment.
/// # Errors  as for [`fragmentation_needed`].
#[inline(always)]
pub(crate) fn in_tunnel(
    packet: Packet,
    outer: &Ipv4Header,
    (vni, port): (Vni, u16),
    headers: &Headers,
    message: Message,
) -> Result<(), DropReason> {
    if !may_be_told(headers) {
        return Err(DropReason::Ttl);
    }
    let quoted_end = headers.ip_offset + QUOTED_BYTES;
    packet.make_readable(quoted_end);
    let quoted: [u16; 20] = packet.load(headers.ip_offset).ok_or(DropReason::Ttl)?;
    let answer = words(headers, message, &quoted);
    let is_merged = packet.gso_bytes() != 0;
    let has_room = packet.len() >= quoted_end + icmp::HEADERS_BYTES;
    match packet.cut(quoted_end) {
        Err(_) if is_merged => return Err(DropReason::Ttl),
        Err(_) if has_room => packet.store(headers.ip_offset + icmp::HEADERS_BYTES, &quoted)?,
        Ok(()) | Err(_) => packet.make_room(icmp::HEADERS_BYTES)?,
    }
    let nobody = Port::new(0);
    let (from, to) = (headers.ip.destination(), headers.ip.source());
    let tunnel = Tunnel {
        source: outer.destination(),
        destination: outer.source(),
        source_port: vxlan::source_port(vxlan::flow_hash(from, to, nobody, nobody)),
        destination_port: Port::from_network_word(port),
        vni,
        tos: ecn::outer_tos(outer.tos() >> 2, 0),
    };
    let inner_bytes = icmp::HEADERS_BYTES + QUOTED_BYTES;
    packet.store(ETHERNET_BYTES, &vxlan::header(tunnel, inner_bytes))?;
    packet.store(headers.ip_offset, &answer)?;
    Ok(())
}

#[inline(always)]
fn may_be_told(headers: &Headers) -> bool {
    let silent = matches!(
        headers.transport.kind,
        PacketKind::Error | PacketKind::LaterFragment
    );
    !silent && headers.ip.first_byte() == icmp::PLAIN_HEADER
}

#[inline(always)]
fn words(headers: &Headers, message: Message, quoted: &[u16; 20]) -> [u16; 14] {
    let (from, to) = (headers.ip.destination(), headers.ip.source());
    match message {
        Message::FragmentationNeeded(bytes) => icmp::fragmentation_needed(from, to, bytes, quoted),
        Message::TimeExceeded => icmp::time_exceeded(from, to, quoted),
    }
}
