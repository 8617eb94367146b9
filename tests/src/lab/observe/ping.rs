//! ICMP echo from inside a namespace, so that no `ping` program is needed.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recvfrom, sendto,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::netns::NetNs;

const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
const PAYLOAD_BYTES: usize = 56;
const HEADER_BYTES: usize = 8;

/// What to send.
#[derive(Clone, Copy, Debug)]
pub struct Ping {
    pub count: u16,
    /// Between the starts of two requests; the next one also waits for this one's answer.
    pub interval: Duration,
    /// How long to wait for each answer.
    pub timeout: Duration,
}

/// What came back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PingReport {
    pub sent: u32,
    pub round_trips: Vec<Duration>,
}

impl Default for Ping {
    fn default() -> Self {
        Self {
            count: 1,
            interval: Duration::from_millis(10),
            timeout: Duration::from_secs(1),
        }
    }
}

impl Ping {
    /// Sends the requests from `namespace`, from `source` if given, and waits for the answers.
    pub fn run(
        &self,
        namespace: &NetNs,
        source: Option<Ipv4Addr>,
        destination: Ipv4Addr,
    ) -> Result<PingReport> {
        let socket = namespace.enter(|| open(source))??;
        let identifier = std::process::id() as u16;
        let mut report = PingReport::default();
        for sequence in 0..self.count {
            let started = Instant::now();
            report.sent += 1;
            if send(&socket, destination, identifier, sequence)?
                && receive(
                    &socket,
                    destination,
                    identifier,
                    sequence,
                    started + self.timeout,
                )?
            {
                report.round_trips.push(started.elapsed());
            }
            std::thread::sleep(self.interval.saturating_sub(started.elapsed()));
        }
        Ok(report)
    }
}

impl PingReport {
    pub fn received(&self) -> u32 {
        self.round_trips.len() as u32
    }

    /// The middle round trip; `None` without any answer.
    pub fn median(&self) -> Option<Duration> {
        let mut sorted = self.round_trips.clone();
        sorted.sort();
        sorted.get(sorted.len() / 2).copied()
    }
}

fn open(source: Option<Ipv4Addr>) -> Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Inet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::Icmp,
    )
    .context("open a raw ICMP socket, needs root")?;
    if let Some(source) = source {
        let address = SockaddrIn::from(std::net::SocketAddrV4::new(source, 0));
        nix::sys::socket::bind(socket.as_raw_fd(), &address)
            .with_context(|| format!("send from {source}"))?;
    }
    Ok(socket)
}

/// False if the kernel refused at once, for example for want of a route.
fn send(socket: &OwnedFd, to: Ipv4Addr, identifier: u16, sequence: u16) -> Result<bool> {
    let mut message = vec![0; HEADER_BYTES + PAYLOAD_BYTES];
    message[0] = ECHO_REQUEST;
    message[4..6].copy_from_slice(&identifier.to_be_bytes());
    message[6..8].copy_from_slice(&sequence.to_be_bytes());
    let checksum = checksum(&message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let address = SockaddrIn::from(std::net::SocketAddrV4::new(to, 0));
    match sendto(socket.as_raw_fd(), &message, &address, MsgFlags::empty()) {
        Ok(_) => Ok(true),
        Err(Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EPERM) => Ok(false),
        Err(error) => Err(error).with_context(|| format!("send an echo request to {to}")),
    }
}

/// Whether the answer comes before the deadline.
fn receive(
    socket: &OwnedFd,
    from: Ipv4Addr,
    identifier: u16,
    sequence: u16,
    deadline: Instant,
) -> Result<bool> {
    let mut buffer = [0; 2048];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        // A timeout of zero would mean to wait for ever.
        let microseconds = i64::try_from(left.as_micros()).unwrap_or(i64::MAX).max(1);
        setsockopt(
            socket,
            sockopt::ReceiveTimeout,
            &TimeVal::microseconds(microseconds),
        )?;
        match recvfrom::<SockaddrIn>(socket.as_raw_fd(), &mut buffer) {
            Ok((length, Some(sender))) => {
                if sender.ip() == from && is_answer(&buffer[..length], identifier, sequence) {
                    return Ok(true);
                }
            }
            Ok((_, None)) | Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(error) => return Err(error).context("receive an echo reply"),
        }
    }
}

/// A raw socket delivers the packet with its IP header.
fn is_answer(packet: &[u8], identifier: u16, sequence: u16) -> bool {
    let header = usize::from(packet.first().map_or(0, |first| first & 0x0f)) * 4;
    let Some(message) = packet.get(header..header + HEADER_BYTES) else {
        return false;
    };
    message[0] == ECHO_REPLY
        && message[4..6] == identifier.to_be_bytes()
        && message[6..8] == sequence.to_be_bytes()
}

fn checksum(message: &[u8]) -> u16 {
    let words = message.chunks(2).map(|pair| {
        u32::from(u16::from_be_bytes([
            pair[0],
            pair.get(1).copied().unwrap_or(0),
        ]))
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_reply_to_this_request_counts() {
        let mut packet = vec![0; 28];
        packet[0] = 0x45;
        packet[24..28].copy_from_slice(&[0, 7, 0, 3]);
        assert!(is_answer(&packet, 7, 3));
        assert!(!is_answer(&packet, 7, 4), "another sequence number");
        assert!(!is_answer(&packet[..27], 7, 3), "cut");
        packet[20] = ECHO_REQUEST;
        assert!(!is_answer(&packet, 7, 3), "a request");
    }

    #[test]
    fn a_message_with_its_checksum_sums_to_zero() {
        let mut message = vec![8, 0, 0, 0, 1, 2, 3, 4, 5];
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(checksum(&message), 0);
    }
}
