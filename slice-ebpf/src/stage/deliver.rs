//! Off it goes.

use slice_common::drop_reason::DropReason;
use slice_common::layout::{Door, Path};
use slice_common::wire::ipv4::Ipv4Header;
use slice_common::wire::{ETHERNET_BYTES, frame};

use crate::packet::Packet;
use crate::verdict::Verdict;

/// Into a pod of this node, past the host's stack, under this IPv4 header.
#[inline(always)]
pub(crate) fn to_pod(packet: Packet, ip: Ipv4Header, door: Door) -> Result<Verdict, DropReason> {
    packet.store_first(0, &frame::start(door.pod_mac, ip), frame::START_BYTES)?;
    packet.address_to_receiver();
    Ok(Verdict::Redirected(packet.redirect_to_peer(door.ifindex)))
}

/// The same under the IPv4 header that is in the packet.
#[inline(always)]
pub(crate) fn as_written(packet: Packet, door: Door) -> Result<Verdict, DropReason> {
    let ip = packet
        .load(ETHERNET_BYTES)
        .ok_or(DropReason::HelperFailed)?;
    to_pod(packet, ip, door)
}

/// To the host's stack, which knows the way to the pod.
#[inline(always)]
pub(crate) fn to_stack(packet: Packet, ip: Ipv4Header, door: Door) -> Result<Verdict, DropReason> {
    packet.store_first(0, &frame::start(door.pod_mac, ip), frame::START_BYTES)?;
    packet.address_to_receiver();
    Ok(Verdict::ToHost)
}

/// To a neighbour of the interface that it came by.
#[inline(always)]
pub(crate) fn back(packet: Packet) -> i32 {
    packet.redirect_to_neighbour(packet.ifindex())
}

/// To the node at the other end of the path.
#[inline(always)]
pub(crate) fn to_path(packet: Packet, path: &Path) -> Verdict {
    Verdict::Redirected(packet.redirect_to_neighbour(path.ifindex))
}
