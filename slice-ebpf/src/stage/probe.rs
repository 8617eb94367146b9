//! Is this node at the other end still there?

use slice_common::drop_reason::DropReason;
use slice_common::id::SliceId;
use slice_common::layout::Settings;
use slice_common::wire::ipv4::{self, Ipv4Header};
use slice_common::wire::probe::{self, ANSWER_WORD, BODY_OFFSET, Body};
use slice_common::wire::transport::UDP_CHECKSUM_OFFSET;
use slice_common::wire::{ETHERNET_BYTES, vxlan};

use crate::packet::Packet;
use crate::stage::tunnel::{UDP_OFFSET, VXLAN_OFFSET};
use crate::{health, maps};

const ETHERTYPE_OFFSET: u32 = BODY_OFFSET - 2;

/// Reads a probe, whose outer headers were checked.
#[inline(always)]
pub(crate) fn read(packet: Packet) -> Result<Body, DropReason> {
    packet.make_readable(BODY_OFFSET + probe::BODY_BYTES);
    if packet.gso_bytes() != 0 || packet.load::<u16>(ETHERTYPE_OFFSET) != Some(probe::ETHERTYPE) {
        return Err(DropReason::BadProbe);
    }
    let words: [u32; 3] = packet.load(BODY_OFFSET).ok_or(DropReason::BadProbe)?;
    probe::parse(words).ok_or(DropReason::BadProbe)
}

/// Makes a request the answer to its sender, as large as it is.
#[inline(always)]
pub(crate) fn answer(packet: Packet, outer: &Ipv4Header) -> Result<(), DropReason> {
    let bytes = outer.total_bytes() as u16;
    let header = ipv4::tunnel_header(outer.destination(), outer.source(), outer.tos(), bytes);
    packet.store(ETHERNET_BYTES, &header)?;
    packet.store_summed(BODY_OFFSET, &ANSWER_WORD)?;
    packet.store_summed(UDP_OFFSET + UDP_CHECKSUM_OFFSET, &0u16)?;
    Ok(())
}

/// Lets a probe leave that this node's prober sends: nobody else knows its nonce. Any other packet to a
/// tunnel without our mark is forged.
#[inline(always)]
pub(crate) fn check_own(
    packet: Packet,
    outer: &Ipv4Header,
    offset: u32,
    settings: &Settings,
) -> Result<(), DropReason> {
    packet.make_readable(BODY_OFFSET + probe::BODY_BYTES);
    let own_header = offset == ETHERNET_BYTES
        && outer.header_bytes() == ipv4::HEADER_BYTES
        && !outer.is_fragment()
        && outer.source() == settings.underlay_address;
    let vni = match packet.load::<[u32; 2]>(VXLAN_OFFSET) {
        Some(words) => vxlan::parse_words(words),
        None => None,
    };
    let is_probe = match vni {
        Some(vni) => own_header && vni.slice_number() == SliceId::PROBES,
        None => false,
    };
    if !is_probe {
        return Err(DropReason::ForgedUnderlay);
    }
    let body = read(packet)?;
    match maps::peer(outer.destination()) {
        Some(peer)
            if matches!(body.kind, probe::Kind::Request)
                && health::is_own_probe(peer.path, body.nonce) =>
        {
            Ok(())
        }
        _ => Err(DropReason::BadProbe),
    }
}
