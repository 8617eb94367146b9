//! Did another program of ours send this packet through the kernel's tunnel device?
//!
//! What `underlay_ingress` cannot take out of the tunnel itself, and what the host's stack is to deliver,
//! goes up into the device that owns the port, and comes back at that device without its headers. A secret
//! in the inner Ethernet header proves where it was judged: a pod can send to the tunnel's port of its own
//! node, under any address that it likes. Marks would not do, because firewalls between the two change them.

use slice_common::drop_reason::DropReason;
use slice_common::id::{TrafficClass, Vni};
use slice_common::layout::{Class, Settings};
use slice_common::wire::ipv4::Ipv4Header;
use slice_common::wire::{ETHERNET_BYTES, detour, vxlan};

use crate::maps;
use crate::packet::Packet;
use crate::verdict::Verdict;

/// The tunnel's overhead ends with the inner Ethernet header.
const INNER_ETHERNET_OFFSET: u32 = vxlan::OVERHEAD_BYTES;

/// Hands a judged packet to the kernel's device.
#[inline(always)]
pub(crate) fn begin(packet: Packet, slice: u32, class: Class) -> Result<Verdict, DropReason> {
    let settings = maps::settings().ok_or(DropReason::SlowPath)?;
    packet.replace_bytes(INNER_ETHERNET_OFFSET, &proof(&settings, slice, class))?;
    Ok(Verdict::ToHost)
}

/// Hands a judged packet of a pod to the kernel's device, under this IPv4 header: it arrives there as one
/// that came out of a tunnel.
#[inline(always)]
pub(crate) fn jump(
    packet: Packet,
    ip: Ipv4Header,
    slice: u32,
    class: Class,
) -> Result<Verdict, DropReason> {
    let settings = maps::settings().ok_or(DropReason::SlowPath)?;
    packet.store(0, &proof(&settings, slice, class))?;
    packet.store(ETHERNET_BYTES, &ip)?;
    let code = packet.redirect_into(settings.tunnel_ifindex);
    Ok(Verdict::Redirected(code))
}

#[inline(always)]
fn proof(settings: &Settings, slice: u32, class: Class) -> [u16; 6] {
    let vni = Vni::from_parts(slice, TrafficClass::from_low_bits(class.class as u32));
    detour::addresses(settings.detour_secret, vni)
}

/// The network that the packet was judged in.
#[inline(always)]
pub(crate) fn end(packet: Packet) -> Result<Vni, DropReason> {
    let settings = maps::settings().ok_or(DropReason::SlowPath)?;
    let addresses: [u16; 6] = packet.load(0).ok_or(DropReason::SlowPath)?;
    detour::read(addresses, settings.detour_secret).ok_or(DropReason::SlowPath)
}
