//! Packets that no honest socket would send.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};

use crate::netns::NetNs;

/// A checksum that a sender leaves to the network card: where it begins to sum, and where, from there,
/// the sum is written. Both in bytes, the first from the Ethernet header on.
#[derive(Clone, Copy, Debug)]
pub struct LeftChecksum {
    pub start: u16,
    pub offset: u16,
}

/// Sends a frame by a device of `namespace` past its stack, with a checksum left to the network card.
/// # Errors  when the kernel refuses it.
pub fn inject_frame(
    namespace: &NetNs,
    device: &str,
    frame: &[u8],
    checksum: LeftChecksum,
) -> Result<()> {
    const NEEDS_CHECKSUM: u8 = 1;
    let mut packet = vec![NEEDS_CHECKSUM, 0, 0, 0, 0, 0];
    packet.extend(checksum.start.to_ne_bytes());
    packet.extend(checksum.offset.to_ne_bytes());
    packet.extend(frame);
    namespace
        .enter(|| send_with_network_header(device, &packet))?
        .with_context(|| format!("{}: send a frame by {device}", namespace.name()))
}

fn send_with_network_header(device: &str, packet: &[u8]) -> Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
    let on: libc::c_int = 1;
    // SAFETY: the option is one integer, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            PACKET_VNET_HDR,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    Errno::result(result).context("PACKET_VNET_HDR")?;
    // SAFETY: all-zero is a valid sockaddr_ll.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_protocol = 0x0800u16.to_be();
    to.sll_ifindex = if_nametoindex(device)?.cast_signed();
    // SAFETY: packet and address are readable for the lengths given and outlive the call.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            packet.as_ptr().cast(),
            packet.len(),
            0,
            (&raw const to).cast(),
            size_of_val(&to) as libc::socklen_t,
        )
    };
    Errno::result(sent)?;
    Ok(())
}

// linux/if_packet.h
const PACKET_VNET_HDR: libc::c_int = 15;

/// Sends an IPv4 packet from inside `namespace` as it is, whatever source it names.
///
/// The kernel routes it by its destination. It writes the header checksum, and the identification
/// if that is 0; all other bytes stay.
/// # Errors  when the kernel refuses it, for example for want of a route.
pub fn inject(namespace: &NetNs, packet: &[u8]) -> Result<()> {
    ensure!(
        packet.len() >= 20,
        "an IPv4 packet of {} bytes",
        packet.len()
    );
    let destination = Ipv4Addr::new(packet[16], packet[17], packet[18], packet[19]);
    let to = SockaddrIn::from(SocketAddrV4::new(destination, 0));
    namespace.enter(|| {
        let socket = socket(
            AddressFamily::Inet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::Raw,
        )?;
        sendto(socket.as_raw_fd(), packet, &to, MsgFlags::empty())
            .with_context(|| format!("{}: send raw to {destination}", namespace.name()))?;
        Ok(())
    })?
}
