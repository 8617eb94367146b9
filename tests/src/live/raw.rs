//! Packets that no honest socket would send.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};

use crate::netns::NetNs;

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
