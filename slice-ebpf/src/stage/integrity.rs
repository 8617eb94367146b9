//! Will the headers still say on the wire what they say here?
//!
//! A pod that may open packet sockets can leave a checksum to the network card, and say where: over the
//! ports, the flags or the addresses that were judged. The card (or the kernel, behind our programs)
//! then writes two bytes of the sender's choice there.
//!
//! Internet sockets leave no such choice: TCP and UDP name their own checksum's place, raw ones compute
//! it, and a host does not forward what a socket of its own holds. Almost every packet of a pod is still
//! held by its socket, and so costs three loads here. (Packet sockets are of another family.)

use slice_common::drop_reason::DropReason;
use slice_common::wire::ipv4::{CHECKSUM_OFFSET, Ipv4Header};
use slice_common::wire::transport::{
    ICMP, ICMP_CHECKSUM_OFFSET, TCP, TCP_CHECKSUM_OFFSET, UDP, UDP_CHECKSUM_OFFSET,
};

use crate::packet::Packet;

/// Refuses a packet whose awaited checksum would be written before its protocol's own place. Behind it
/// lies nothing that anybody judges.
#[inline(always)]
pub(crate) fn check(packet: Packet, ip: &Ipv4Header, ip_offset: u32) -> Result<(), DropReason> {
    if packet.is_owned_by_internet_socket()
        || !packet.awaits_checksum(ip_offset + CHECKSUM_OFFSET)?
    {
        return Ok(());
    }
    let place = match ip.protocol() {
        _ if ip.is_later_fragment() => 0,
        TCP => TCP_CHECKSUM_OFFSET,
        UDP => UDP_CHECKSUM_OFFSET,
        ICMP => ICMP_CHECKSUM_OFFSET,
        _ => 0,
    };
    if packet.checksum_stands_from(ip_offset + ip.header_bytes() + place) {
        Ok(())
    } else {
        Err(DropReason::ForgedChecksum)
    }
}
