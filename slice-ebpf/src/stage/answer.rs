//! What do we tell the sender of a packet that goes no further?

use slice_common::drop_reason::DropReason;
use slice_common::policy::PacketKind;
use slice_common::wire::icmp::{self, QUOTED_BYTES};
use slice_common::wire::{ETHERNET_BYTES, vxlan};

use crate::packet::Packet;
use crate::stage::parse::Headers;

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
    let silent = matches!(
        headers.transport.kind,
        PacketKind::Error | PacketKind::LaterFragment
    );
    if silent || headers.ip.first_byte() != icmp::PLAIN_HEADER {
        return Err(DropReason::TooBig);
    }
    packet.make_readable(ETHERNET_BYTES + QUOTED_BYTES);
    let quoted: [u16; 20] = packet.load(ETHERNET_BYTES).ok_or(DropReason::TooBig)?;
    let answer = icmp::fragmentation_needed(
        headers.ip.destination(),
        headers.ip.source(),
        mtu_bytes.saturating_sub(vxlan::OVERHEAD_BYTES) as u16,
        &quoted,
    );
    packet.cut(ETHERNET_BYTES + QUOTED_BYTES)?;
    packet.make_room(icmp::HEADERS_BYTES)?;
    packet.store(ETHERNET_BYTES, &answer)?;
    Ok(())
}
