//! Packets that no honest socket would send.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, setsockopt,
    socket, sockopt,
};

use crate::netns::NetNs;
use crate::packet::Mac;

/// A checksum that a sender leaves to the network card: where it begins to sum, and where, from there,
/// the sum is written. Both in bytes, the first from the Ethernet header on.
#[derive(Clone, Copy, Debug)]
pub struct LeftChecksum {
    pub start: u16,
    pub offset: u16,
}

/// Sends a frame by a device of `namespace` past its stack, if wanted with a checksum left to the network
/// card.
/// # Errors  when the kernel refuses it.
pub fn inject_frame(
    namespace: &NetNs,
    device: &str,
    frame: &[u8],
    checksum: Option<LeftChecksum>,
) -> Result<()> {
    let needs_checksum = u8::from(checksum.is_some());
    let [start, offset] = checksum.map_or([0; 2], |checksum| [checksum.start, checksum.offset]);
    let mut packet = vec![needs_checksum, 0, 0, 0, 0, 0];
    packet.extend(start.to_ne_bytes());
    packet.extend(offset.to_ne_bytes());
    packet.extend(frame);
    namespace
        .enter(|| send_with_network_header(device, &packet))?
        .with_context(|| format!("{}: send a frame by {device}", namespace.name()))
}

fn send_with_network_header(device: &str, packet: &[u8]) -> Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
    set_packet_option(&socket, PACKET_VNET_HDR)?;
    send_by(&socket, if_nametoindex(device)?, packet)?;
    Ok(())
}

/// Switches an option of a packet socket on.
pub(super) fn set_packet_option(socket: &OwnedFd, option: libc::c_int) -> Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option is one integer, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    Errno::result(result).with_context(|| format!("option {option} of a packet socket"))?;
    Ok(())
}

fn send_by(socket: &OwnedFd, device: u32, packet: &[u8]) -> Result<(), Errno> {
    // SAFETY: all-zero is a valid sockaddr_ll.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_protocol = 0x0800u16.to_be();
    to.sll_ifindex = device.cast_signed();
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
    Errno::result(sent).map(drop)
}

/// A device that sends frames as they are, past its host's stack.
#[derive(Debug)]
pub struct Wire {
    socket: OwnedFd,
    device: u32,
    name: String,
}

impl Wire {
    /// # Errors  when there is no such device.
    pub fn of(namespace: &NetNs, device: &str) -> Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let name = format!("{device} in {}", namespace.name());
        let (socket, device) = namespace
            .enter(|| {
                let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
                anyhow::Ok((socket, if_nametoindex(device)?))
            })?
            .with_context(|| name.clone())?;
        Ok(Self {
            socket,
            device,
            name,
        })
    }

    /// Gives everything that is sent from now on a mark.
    /// # Errors  when the kernel refuses it.
    pub fn mark(&self, mark: u32) -> Result<()> {
        setsockopt(&self.socket, sockopt::Mark, &mark)?;
        Ok(())
    }

    /// Sends a frame from the Ethernet header on.
    /// # Errors  when the kernel refuses it.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        send_by(&self.socket, self.device, frame)
            .with_context(|| format!("{}: send {} bytes", self.name, frame.len()))
    }
}

/// The link-layer address of a device.
/// # Errors  when there is no such device.
pub fn mac_of(namespace: &NetNs, device: &str) -> Result<Mac> {
    let socket = namespace.enter(|| {
        let flags = SockFlag::SOCK_CLOEXEC;
        socket(AddressFamily::Inet, SockType::Datagram, flags, None)
    })??;
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (target, byte) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *target = byte.cast_signed() as libc::c_char;
    }
    // SAFETY: SIOCGIFHWADDR reads and writes one ifreq, which outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR, &raw mut request) };
    Errno::result(result).with_context(|| format!("{}: address of {device}", namespace.name()))?;
    // SAFETY: SIOCGIFHWADDR filled this member of the union.
    let address = unsafe { request.ifr_ifru.ifru_hwaddr }.sa_data;
    Ok(std::array::from_fn(|at| address[at] as u8))
}

// linux/if_packet.h
const PACKET_VNET_HDR: libc::c_int = 15;

/// Sends an IPv4 packet from inside `namespace` as it is, whatever source it names.
///
/// The kernel routes it by its destination. It writes the header checksum, and the identification
/// if that is 0; all other bytes stay.
/// # Errors  when the kernel refuses it, for example for want of a route.
pub fn inject(namespace: &NetNs, packet: &[u8]) -> Result<()> {
    Raw::of(namespace)?.send(packet)
}

/// Sends IPv4 packets as [`inject`] does, many of them.
#[derive(Debug)]
pub struct Raw {
    socket: OwnedFd,
    name: String,
}

impl Raw {
    /// # Errors  when the socket cannot be opened.
    pub fn of(namespace: &NetNs) -> Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let open = || socket(AddressFamily::Inet, SockType::Raw, flags, SockProtocol::Raw);
        Ok(Self {
            socket: namespace.enter(open)??,
            name: namespace.name().to_owned(),
        })
    }

    /// # Errors  when the kernel refuses the packet, for example for want of a route.
    pub fn send(&self, packet: &[u8]) -> Result<()> {
        ensure!(
            packet.len() >= 20,
            "an IPv4 packet of {} bytes",
            packet.len()
        );
        let destination = Ipv4Addr::new(packet[16], packet[17], packet[18], packet[19]);
        let to = SockaddrIn::from(SocketAddrV4::new(destination, 0));
        sendto(self.socket.as_raw_fd(), packet, &to, MsgFlags::empty())
            .with_context(|| format!("{}: send raw to {destination}", self.name))?;
        Ok(())
    }
}
