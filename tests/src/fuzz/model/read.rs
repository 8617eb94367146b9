//! Packets as the model reads them: bytes, and what the standards say they mean.

use slice_common::drop_reason::DropReason;

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const ICMP: u8 = 1;

/// What a packet is to a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A SYN without ACK.
    Opening,
    /// Any other TCP segment.
    Segment,
    Datagram,
    Ping,
    Pong,
    /// An ICMP error.
    Complaint,
    /// Of a datagram in parts, any but the first: no transport header.
    LaterPart,
}

/// Protocol, kind and ports; the identifier of an echo is its first port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transport {
    pub(super) protocol: u8,
    pub(super) kind: Kind,
    pub(super) ports: [u16; 2],
}

/// An IPv4 packet with whatever the frame has behind it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ip<'a>(&'a [u8]);

impl<'a> Ip<'a> {
    /// Nothing when there is less than a header without options.
    pub(super) fn at(frame: &'a [u8], offset: usize) -> Option<Self> {
        let bytes = frame.get(offset..)?;
        (bytes.len() >= 20).then_some(Self(bytes))
    }

    /// The IPv4 packet of a frame without tags.
    pub(super) fn of_frame(frame: &'a [u8]) -> Option<Self> {
        let is_ipv4 = frame.get(12..14) == Some(&[0x08, 0x00]);
        is_ipv4.then(|| Self::at(frame, 14)).flatten()
    }

    /// The IPv4 packet of a frame with up to two tags.
    pub(super) fn behind_tags(frame: &'a [u8]) -> Option<(Self, usize)> {
        let is_tag = |at: usize| matches!(frame.get(at..at + 2), Some([0x81, 0x00] | [0x88, 0xa8]));
        let tags = [12, 16].into_iter().take_while(|at| is_tag(*at)).count();
        let ethertype = 12 + 4 * tags;
        let is_ipv4 = frame.get(ethertype..ethertype + 2) == Some(&[0x08, 0x00]);
        let ip = is_ipv4.then(|| Self::at(frame, ethertype + 2)).flatten()?;
        Some((ip, ethertype + 2))
    }

    pub(super) fn version(self) -> u8 {
        self.0[0] >> 4
    }

    pub(super) fn header_bytes(self) -> usize {
        usize::from(self.0[0] & 15) * 4
    }

    pub(super) fn has_options(self) -> bool {
        self.header_bytes() > 20
    }

    pub(super) fn total_bytes(self) -> usize {
        usize::from(half(self.0, 2))
    }

    /// With what pads the packet in its frame, which travels too.
    pub(super) fn present_bytes(self) -> usize {
        self.0.len()
    }

    pub(super) fn tos(self) -> u8 {
        self.0[1]
    }

    pub(super) fn identification(self) -> u16 {
        half(self.0, 4)
    }

    pub(super) fn more_fragments(self) -> bool {
        self.0[6] & 0x20 != 0
    }

    pub(super) fn fragment_offset(self) -> u16 {
        half(self.0, 6) & 0x1fff
    }

    pub(super) fn is_fragment(self) -> bool {
        self.more_fragments() || self.fragment_offset() != 0
    }

    pub(super) fn ttl(self) -> u8 {
        self.0[8]
    }

    pub(super) fn protocol(self) -> u8 {
        self.0[9]
    }

    pub(super) fn source(self) -> [u8; 4] {
        four(self.0, 12)
    }

    pub(super) fn destination(self) -> [u8; 4] {
        four(self.0, 16)
    }

    /// Whether it is version 4, and header and packet are as long as they say.
    pub(super) fn is_whole(self) -> bool {
        let total = self.total_bytes();
        self.version() == 4 && (20..=total).contains(&self.header_bytes()) && total <= self.0.len()
    }

    /// What is behind the header, up to the end that the header names.
    fn payload(self) -> &'a [u8] {
        &self.0[self.header_bytes()..self.total_bytes()]
    }

    /// The transport header of a whole packet, or of a datagram's first fragment.
    /// # Errors  why the packet is none that slices carry.
    pub(super) fn transport(self) -> Result<Transport, DropReason> {
        let payload = self.payload();
        let (kind, ports) = match self.protocol() {
            TCP => (tcp_kind(payload)?, ports(payload)),
            UDP if payload.len() >= 8 => (Kind::Datagram, ports(payload)),
            ICMP if payload.len() >= 8 => icmp(payload)?,
            UDP | ICMP => return Err(DropReason::Malformed),
            _ => return Err(DropReason::UnsupportedProtocol),
        };
        Ok(Transport {
            protocol: self.protocol(),
            kind,
            ports,
        })
    }

    /// TCP: header length.
    pub(super) fn tcp_header_bytes(self) -> usize {
        usize::from(self.payload()[12] >> 4) * 4
    }

    /// TCP: SYN, in any company. A later part of a datagram has no flags.
    pub(super) fn has_syn(self) -> bool {
        self.protocol() == TCP && self.fragment_offset() == 0 && self.payload()[13] & 2 != 0
    }

    /// The packet that an ICMP error of a whole packet speaks of.
    /// # Errors  `IcmpError` when the quote is too short, or of a packet that slices do not carry.
    pub(super) fn quote(self) -> Result<Quote<'a>, DropReason> {
        let no_quote = DropReason::IcmpError;
        let ip = Ip::at(self.payload(), 8).ok_or(no_quote)?;
        let header = ip.header_bytes();
        let eight = ip.0.get(header..header + 8).ok_or(no_quote)?;
        if ip.version() != 4 || header < 20 || ip.fragment_offset() != 0 {
            return Err(no_quote);
        }
        let ports = match (ip.protocol(), eight[0], eight[1]) {
            (TCP | UDP, ..) => ports(eight),
            (ICMP, 0 | 8, 0) => [half(eight, 4), 0],
            _ => return Err(no_quote),
        };
        Ok(Quote {
            ip,
            offset: self.header_bytes() + 8,
            protocol: ip.protocol(),
            ports,
        })
    }
}

/// What an ICMP error quotes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quote<'a> {
    pub(super) ip: Ip<'a>,
    /// From the error's IPv4 header on.
    pub(super) offset: usize,
    pub(super) protocol: u8,
    pub(super) ports: [u16; 2],
}

fn tcp_kind(segment: &[u8]) -> Result<Kind, DropReason> {
    let words = segment.get(12).ok_or(DropReason::Malformed)? >> 4;
    if words < 5 || usize::from(words) * 4 > segment.len() {
        return Err(DropReason::Malformed);
    }
    let (syn, ack) = (segment[13] & 2 != 0, segment[13] & 16 != 0);
    Ok(if syn && !ack {
        Kind::Opening
    } else {
        Kind::Segment
    })
}

fn icmp(message: &[u8]) -> Result<(Kind, [u16; 2]), DropReason> {
    let identifier = [half(message, 4), 0];
    match (message[0], message[1]) {
        (8, 0) => Ok((Kind::Ping, identifier)),
        (0, 0) => Ok((Kind::Pong, identifier)),
        // Unreachable, time exceeded, parameter problem.
        (3 | 11 | 12, _) => Ok((Kind::Complaint, [0, 0])),
        _ => Err(DropReason::UnsupportedIcmp),
    }
}

fn ports(transport: &[u8]) -> [u16; 2] {
    [half(transport, 0), half(transport, 2)]
}

pub(super) fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub(super) fn four(bytes: &[u8], at: usize) -> [u8; 4] {
    [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]
}
