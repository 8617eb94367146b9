//! What is this endpoint called on the other side?
//!
//! The transport checksum changes in the packet at once. The IPv4 header is a value: whatever sends the
//! packet on writes it, together with what stands around it.

use slice_common::address::Address;
use slice_common::drop_reason::DropReason;
use slice_common::wire::ipv4::Ipv4Header;
use slice_common::wire::transport::{TCP, TCP_CHECKSUM_OFFSET, UDP, UDP_CHECKSUM_OFFSET};

use crate::packet::{ChecksumChange, Packet, Refused};
use crate::stage::parse::Headers;

/// The IPv4 header under another source address.
#[inline(always)]
pub(crate) fn map_source(
    packet: Packet,
    headers: &Headers,
    to: Address,
) -> Result<Ipv4Header, DropReason> {
    replace_in_transport_checksum(packet, headers, headers.ip.source(), to)?;
    Ok(headers.ip.with_source(to))
}

/// The IPv4 header under another destination address.
#[inline(always)]
pub(crate) fn map_destination(
    packet: Packet,
    headers: &Headers,
    to: Address,
) -> Result<Ipv4Header, DropReason> {
    replace_in_transport_checksum(packet, headers, headers.ip.destination(), to)?;
    Ok(headers.ip.with_destination(to))
}

/// ICMP has no pseudo header, so its checksum does not know addresses; a later fragment has no
/// transport header, and the first one's checksum is for all.
#[inline(always)]
fn replace_in_transport_checksum(
    packet: Packet,
    headers: &Headers,
    from: Address,
    to: Address,
) -> Result<(), Refused> {
    if from == to || headers.ip.is_later_fragment() {
        return Ok(());
    }
    let (offset, change) = match headers.ip.protocol() {
        TCP => (TCP_CHECKSUM_OFFSET, ChecksumChange::TcpAddress),
        UDP => (UDP_CHECKSUM_OFFSET, ChecksumChange::UdpAddress),
        _ => return Ok(()),
    };
    let (from, to) = (from.network_word(), to.network_word());
    packet.replace_transport_checksum(headers.transport_offset + offset, from, to, change)
}
