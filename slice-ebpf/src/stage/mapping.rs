//! What is this endpoint called on the other side?

use slice_common::address::Address;
use slice_common::drop_reason::DropReason;
use slice_common::policy::PacketKind;
use slice_common::wire::ipv4;
use slice_common::wire::transport::{TCP, TCP_CHECKSUM_OFFSET, UDP, UDP_CHECKSUM_OFFSET};

use crate::packet::{ChecksumChange, Packet, Refused};
use crate::stage::parse::Headers;

/// Replaces the source address.
#[inline(always)]
pub(crate) fn map_source(packet: Packet, headers: &Headers, to: Address) -> Result<(), DropReason> {
    replace(
        packet,
        headers,
        ipv4::SOURCE_OFFSET,
        headers.ip.source(),
        to,
    )
}

/// Replaces the destination address.
#[inline(always)]
pub(crate) fn map_destination(
    packet: Packet,
    headers: &Headers,
    to: Address,
) -> Result<(), DropReason> {
    replace(
        packet,
        headers,
        ipv4::DESTINATION_OFFSET,
        headers.ip.destination(),
        to,
    )
}

#[inline(always)]
fn replace(
    packet: Packet,
    headers: &Headers,
    field_offset: u32,
    from: Address,
    to: Address,
) -> Result<(), DropReason> {
    if from == to {
        return Ok(());
    }
    let (from, to) = (from.network_word(), to.network_word());
    replace_in_transport_checksum(packet, headers, from, to)?;
    let ip_checksum = headers.ip_offset + ipv4::CHECKSUM_OFFSET;
    packet.replace_header_checksum(ip_checksum, from, to, 4)?;
    packet.store(headers.ip_offset + field_offset, &to)?;
    Ok(())
}

/// ICMP has no pseudo header, so its checksum does not know addresses; a later fragment has no
/// transport header, and the first one's checksum is for all.
#[inline(always)]
fn replace_in_transport_checksum(
    packet: Packet,
    headers: &Headers,
    from: u32,
    to: u32,
) -> Result<(), Refused> {
    if headers.transport.kind == PacketKind::LaterFragment {
        return Ok(());
    }
    let (offset, change) = match headers.transport.protocol {
        TCP => (TCP_CHECKSUM_OFFSET, ChecksumChange::TcpAddress),
        UDP => (UDP_CHECKSUM_OFFSET, ChecksumChange::UdpAddress),
        _ => return Ok(()),
    };
    packet.replace_transport_checksum(headers.transport_offset + offset, from, to, change)
}
