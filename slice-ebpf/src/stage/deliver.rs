//! Off it goes.

use slice_common::drop_reason::DropReason;
use slice_common::layout::{LocalEndpoint, Path};
use slice_common::wire::vxlan;

use crate::packet::Packet;
use crate::verdict::Verdict;

/// Into a pod of this node, past the host's stack.
#[inline(always)]
pub(crate) fn to_pod(packet: Packet, pod: &LocalEndpoint) -> Result<Verdict, DropReason> {
    let destination = pod.pod_mac;
    let source = vxlan::INNER_SOURCE_MAC;
    let addresses = [
        u16::from_ne_bytes([destination[0], destination[1]]),
        u16::from_ne_bytes([destination[2], destination[3]]),
        u16::from_ne_bytes([destination[4], destination[5]]),
        u16::from_ne_bytes([source[0], source[1]]),
        u16::from_ne_bytes([source[2], source[3]]),
        u16::from_ne_bytes([source[4], source[5]]),
    ];
    packet.store(0, &addresses)?;
    packet.address_to_receiver();
    Ok(Verdict::Redirected(packet.redirect_to_peer(pod.ifindex)))
}

/// To the node at the other end of the path.
#[inline(always)]
pub(crate) fn to_path(packet: Packet, path: &Path) -> Verdict {
    Verdict::Redirected(packet.redirect_to_neighbour(path.ifindex))
}
