//! Is a frame, seen before the kernel makes a packet of it, one for this node's tunnel, and what does its
//! tunnel header say? The answers are those that `tunnel` gives about the packet that becomes of it.

use slice_common::drop_reason::DropReason;
use slice_common::id::Vni;
use slice_common::layout::Settings;
use slice_common::wire::ipv4::Ipv4Header;
use slice_common::wire::vxlan;
use slice_common::wire::{ETHERNET_BYTES, ETHERTYPE_IPV4};

use crate::frame::Frame;
use crate::stage::tunnel::VXLAN_OFFSET;

const ETHERTYPE_OFFSET: u32 = ETHERNET_BYTES - 2;
const VXLAN_BYTES: u32 = 8;

/// The outer IPv4 header of a frame for this node's tunnel. None for others, and for one whose headers lie
/// in more than one buffer: whoever cannot be seen here is seen later.
#[inline(always)]
pub(crate) fn for_tunnel(frame: Frame, settings: &Settings) -> Option<Ipv4Header> {
    if frame.load::<u16>(ETHERTYPE_OFFSET)? != ETHERTYPE_IPV4 {
        return None;
    }
    let outer: Ipv4Header = frame.load(ETHERNET_BYTES)?;
    let port_offset = ETHERNET_BYTES + vxlan::destination_port_offset(outer)?;
    let is_ours = outer.destination() == settings.underlay_address
        && frame.load::<u16>(port_offset)? == settings.tunnel_port
        && frame.load::<[u8; 6]>(0)? == settings.underlay_mac;
    if !is_ours {
        return None;
    }
    let visible = frame.visible_bytes();
    if visible < VXLAN_OFFSET + VXLAN_BYTES && visible < frame.len() {
        return None;
    }
    Some(outer)
}

/// Reads slice and class.
#[inline(always)]
pub(crate) fn read(frame: Frame, outer: &Ipv4Header) -> Result<Vni, DropReason> {
    if !vxlan::is_carrier(*outer, frame.len().saturating_sub(ETHERNET_BYTES)) {
        return Err(DropReason::BadTunnelHeader);
    }
    let header = frame.load(VXLAN_OFFSET);
    header
        .and_then(vxlan::parse)
        .ok_or(DropReason::BadTunnelHeader)
}
