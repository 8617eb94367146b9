//! What packet does this ICMP error speak of, and what is that called on the other side?

use slice_common::address::Address;
use slice_common::drop_reason::DropReason;
use slice_common::wire::ipv4;

use crate::packet::Packet;
use crate::stage::parse::Quote;

/// Whether the quoted packet went from `receiver` of the error to its `sender`. Nobody on the way
/// speaks with slice addresses, so only the packet's destination can tell of it; and what it can tell
/// concerns its own conversations alone.
#[inline(always)]
pub(crate) fn check(quote: &Quote, receiver: Address, sender: Address) -> Result<(), DropReason> {
    if quote.ip.source() == receiver && quote.ip.destination() == sender {
        Ok(())
    } else {
        Err(DropReason::IcmpError)
    }
}

/// Maps the quoted source: the error's receiver knows itself by this name.
#[inline(always)]
pub(crate) fn map_source(
    packet: Packet,
    quote: &Quote,
    ip_offset: u32,
    to: Address,
) -> Result<(), DropReason> {
    replace(
        packet,
        ip_offset,
        ipv4::SOURCE_OFFSET,
        quote.ip.source(),
        to,
    )
}

/// Maps the quoted destination: the error's receiver knows its sender by this name.
#[inline(always)]
pub(crate) fn map_destination(
    packet: Packet,
    quote: &Quote,
    ip_offset: u32,
    to: Address,
) -> Result<(), DropReason> {
    replace(
        packet,
        ip_offset,
        ipv4::DESTINATION_OFFSET,
        quote.ip.destination(),
        to,
    )
}

/// The quoted header's checksum changes by as much as its address does, so the sum over the header,
/// and with it the checksum of the ICMP message, stays. The quoted transport checksum is left as it
/// is: it covers bytes that are not there, and nobody can check it.
#[inline(always)]
fn replace(
    packet: Packet,
    ip_offset: u32,
    field_offset: u32,
    from: Address,
    to: Address,
) -> Result<(), DropReason> {
    if from == to {
        return Ok(());
    }
    let (from, to) = (from.network_word(), to.network_word());
    packet.replace_header_checksum(ip_offset + ipv4::CHECKSUM_OFFSET, from, to, 4)?;
    packet.store(ip_offset + field_offset, &to)?;
    Ok(())
}
