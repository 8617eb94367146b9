//! Every frame that a device sends or receives, as the kernel shows it to a packet socket.

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, setsockopt, socket, sockopt};

use super::raw::set_packet_option;
use crate::child::poll_until;
use crate::lab::inventory::TUNNEL_PORT;
use crate::netns::NetNs;

/// Room for a short transfer that is looked at afterwards.
const BUFFER_BYTES: usize = 64 << 20;
const FRAME_BYTES: usize = 1 << 17;
const LIMIT: Duration = Duration::from_secs(3);
const ETHERNET_BYTES: usize = 14;
// linux/if_packet.h
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

/// A running capture of one device. Frames wait in the kernel until they are taken.
#[derive(Debug)]
pub struct Capture {
    socket: OwnedFd,
}

/// One frame from the Ethernet header on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Whether the device sent it.
    pub is_outgoing: bool,
    pub bytes: Vec<u8>,
}

impl Frame {
    /// From the IPv4 header on; `None` for everything but IPv4.
    pub fn ipv4(&self) -> Option<&[u8]> {
        let is_ipv4 = self.bytes.get(12..ETHERNET_BYTES)? == [8, 0];
        is_ipv4.then(|| &self.bytes[ETHERNET_BYTES..])
    }
}

impl Capture {
    /// Begins to capture; what `device` carries from now on is not missed.
    pub fn of(namespace: &NetNs, device: &str) -> Result<Self> {
        let socket = namespace
            .enter(|| open(device))?
            .with_context(|| format!("capture {device} in {}", namespace.name()))?;
        Ok(Self { socket })
    }

    /// As [`Capture::of`], of what `device` receives only.
    pub fn of_arriving(namespace: &NetNs, device: &str) -> Result<Self> {
        let capture = Self::of(namespace, device)?;
        set_packet_option(&capture.socket, PACKET_IGNORE_OUTGOING)?;
        Ok(capture)
    }

    /// The frames since the last call, in order.
    /// # Errors  when the kernel had no room for some: then their absence says nothing.
    pub fn take(&self) -> Result<Vec<Frame>> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next()? {
            frames.push(frame);
        }
        let missed = self.missed()?;
        ensure!(missed == 0, "the capture missed {missed} frames");
        Ok(frames)
    }

    /// Takes frames until one fits, and gives it.
    pub fn wait_for(&self, mut fits: impl FnMut(&Frame) -> bool) -> Result<Option<Frame>> {
        poll_until(LIMIT, || {
            while let Some(frame) = self.next()? {
                if fits(&frame) {
                    return Ok(Some(frame));
                }
            }
            Ok(None)
        })
    }

    fn next(&self) -> Result<Option<Frame>> {
        // Not filled first: most calls find nothing.
        let mut bytes = [const { MaybeUninit::<u8>::uninit() }; FRAME_BYTES];
        // SAFETY: all-zero is a valid sockaddr_ll.
        let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        let mut from_bytes = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: buffer and address are writable for the lengths given and outlive the call.
        let received = unsafe {
            libc::recvfrom(
                self.socket.as_raw_fd(),
                bytes.as_mut_ptr().cast(),
                bytes.len(),
                MsgFlags::MSG_DONTWAIT.bits(),
                (&raw mut from).cast(),
                &raw mut from_bytes,
            )
        };
        match Errno::result(received) {
            Ok(length) => {
                let length = length.cast_unsigned();
                // SAFETY: the kernel wrote so many bytes.
                let bytes = unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), length) };
                Ok(Some(Frame {
                    is_outgoing: from.sll_pkttype == libc::PACKET_OUTGOING,
                    bytes: bytes.to_vec(),
                }))
            }
            Err(Errno::EAGAIN) => Ok(None),
            Err(error) => Err(error).context("receive a captured frame"),
        }
    }

    fn missed(&self) -> Result<u32> {
        // The kernel's struct tpacket_stats: packets and drops since it was last read.
        let mut statistics = [0_u32; 2];
        let mut bytes = size_of_val(&statistics) as libc::socklen_t;
        // SAFETY: the kernel writes at most `bytes` bytes into the array, which outlives the call.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                statistics.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        Errno::result(result).context("read a capture's statistics")?;
        Ok(statistics[1])
    }
}

/// Readable when a frame waits.
impl AsFd for Capture {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn open(device: &str) -> Result<OwnedFd> {
    let name = CString::new(device)?;
    let index = if_nametoindex(name.as_c_str())?;
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        // No protocol before it is bound: it would hear every device.
        None,
    )
    .context("open a packet socket, needs root")?;
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES)?;
    // SAFETY: all-zero is a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index.cast_signed();
    // SAFETY: bind reads one sockaddr_ll, which outlives the call.
    let bound = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    Errno::result(bound)?;
    Ok(socket)
}

/// What the tunnel headers of a frame say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelFrame<'a> {
    pub dscp: u8,
    pub slice: u32,
    pub class: u8,
    pub inner: Inner<'a>,
}

/// The carried IPv4 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner<'a>(pub &'a [u8]);

/// Reads a frame of our tunnel; `None` for any other.
pub fn tunnel_frame(frame: &Frame) -> Option<TunnelFrame<'_>> {
    tunnel_packet(frame.ipv4()?)
}

/// The same, from the outer IPv4 header on.
pub fn tunnel_packet(outer: &[u8]) -> Option<TunnelFrame<'_>> {
    let is_udp_without_options = outer.first() == Some(&0x45) && outer.get(9) == Some(&17);
    if !is_udp_without_options || outer.get(22..24)? != TUNNEL_PORT.to_be_bytes() {
        return None;
    }
    let vni = outer.get(32..35)?;
    let vni = u32::from_be_bytes([0, vni[0], vni[1], vni[2]]);
    Some(TunnelFrame {
        dscp: outer[1] >> 2,
        slice: vni >> 3,
        class: (vni & 7) as u8,
        inner: Inner(outer.get(50..)?),
    })
}

impl Inner<'_> {
    /// Source and destination port, if it is TCP.
    pub fn tcp_ports(&self) -> Option<(u16, u16)> {
        let tcp = self.tcp()?;
        let port = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
        Some((port(0), port(2)))
    }

    /// Source and destination address.
    pub fn addresses(&self) -> Option<[u8; 8]> {
        self.0.get(12..20)?.try_into().ok()
    }

    /// The number that its sender gave the packet (the identification).
    pub fn number(&self) -> Option<u16> {
        Some(u16::from_be_bytes(self.0.get(4..6)?.try_into().ok()?))
    }

    /// Whether it begins a connection, or agrees to one.
    pub fn is_syn(&self) -> bool {
        self.tcp().is_some_and(|tcp| tcp[13] & 2 != 0)
    }

    /// Bytes behind the TCP header, if it is TCP.
    pub fn tcp_payload_bytes(&self) -> Option<usize> {
        let tcp = self.tcp()?;
        Some(tcp.len() - usize::from(tcp[12] >> 4) * 4)
    }

    /// The MSS that a SYN announces as its first option, as Linux writes it.
    pub fn announced_mss(&self) -> Option<u16> {
        let tcp = self.tcp()?;
        let (is_syn, option) = (tcp[13] & 2 != 0, tcp.get(20..24)?);
        (is_syn && option[..2] == [2, 4]).then(|| u16::from_be_bytes([option[2], option[3]]))
    }

    fn tcp(&self) -> Option<&[u8]> {
        let header_bytes = usize::from(self.0.first()? & 15) * 4;
        let total_bytes = usize::from(u16::from_be_bytes([*self.0.get(2)?, *self.0.get(3)?]));
        let tcp = self.0.get(header_bytes..total_bytes)?;
        (self.0[9] == 6 && tcp.len() >= 20).then_some(tcp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Ipv4, Tcp, Vxlan};

    #[test]
    fn a_tunnel_frame_tells_slice_class_and_what_is_inside() {
        let inner = Ipv4::between([10, 77, 0, 2], [10, 77, 64, 2]);
        let syn = inner.tcp(Tcp::new(40_000, 9091).syn().mss(1410));
        let bytes = Vxlan::between([172, 20, 1, 11], [172, 20, 2, 11])
            .outer(|outer| outer.dscp(10))
            .slice(7, 2)
            .carry(&syn)
            .frame([2; 6], [4; 6]);
        let frame = Frame {
            is_outgoing: true,
            bytes,
        };
        let tunnel = tunnel_frame(&frame).unwrap();
        assert_eq!((tunnel.dscp, tunnel.slice, tunnel.class), (10, 7, 2));
        assert_eq!(tunnel.inner.0, syn.build());
        assert_eq!(tunnel.inner.tcp_ports(), Some((40_000, 9091)));
        assert_eq!(tunnel.inner.announced_mss(), Some(1410));
        assert_eq!(tunnel.inner.tcp_payload_bytes(), Some(0));
    }

    #[test]
    fn other_frames_are_no_tunnel_frames() {
        let other = Vxlan::between([172, 20, 1, 11], [172, 20, 2, 11]).destination_port(4789);
        for bytes in [Vec::new(), vec![0; 60], other.frame([2; 6], [4; 6])] {
            let frame = Frame {
                is_outgoing: true,
                bytes,
            };
            assert_eq!(tunnel_frame(&frame), None);
        }
    }
}
