//! What is in the packet? Read once; later steps get values, not pointers.

use slice_common::address::Port;
use slice_common::drop_reason::DropReason;
use slice_common::policy::{Ground, PacketKind};
use slice_common::wire::ipv4::{HEADER_BYTES, Ipv4Header};
use slice_common::wire::transport::{
    ICMP, ICMP_HEADER_BYTES, TCP, TCP_HEADER_BYTES, TCP_OFFSET_FLAGS_OFFSET, TcpFlags, Transport,
    UDP, UDP_HEADER_BYTES, icmp_kind,
};
use slice_common::wire::{ETHERNET_BYTES, ETHERTYPE_IPV4};

use crate::packet::Packet;

const TAG_8021Q: u16 = 0x8100u16.to_be();
const TAG_8021AD: u16 = 0x88a8u16.to_be();

/// What RFC 792 promises of the transport header in a quote.
const QUOTED_TRANSPORT_BYTES: u32 = 8;

/// The headers of one IPv4 packet and where they stand.
#[derive(Clone, Copy)]
pub(crate) struct Headers {
    pub(crate) ip: Ipv4Header,
    pub(crate) ip_offset: u32,
    pub(crate) transport_offset: u32,
    pub(crate) transport: Transport,
    /// All zero unless the protocol is TCP.
    pub(crate) tcp: TcpFlags,
    /// Payload bytes of each segment of a segmentation-offload packet; 0 for others.
    pub(crate) gso_bytes: u32,
    /// From the IPv4 header on, what pads the packet counted: it travels too.
    pub(crate) present_bytes: u32,
}

impl Headers {
    /// What stands in each segment of a segmentation-offload packet before its payload.
    #[inline(always)]
    pub(crate) fn segment_header_bytes(&self) -> u32 {
        let transport_bytes = match self.ip.protocol() {
            TCP => self.tcp.header_bytes(),
            _ => UDP_HEADER_BYTES,
        };
        self.ip.header_bytes() + transport_bytes
    }

    /// Whether the kernel's helper would leave the packet such that its segments are lost: it keeps
    /// saying of one that was taken out of a tunnel that it is in one, and only TCP does not mind
    /// (`BPF_F_ADJ_ROOM_DECAP_L4_UDP` will tell it, in kernels to come).
    #[inline(always)]
    pub(crate) fn needs_detour(&self) -> bool {
        self.gso_bytes != 0 && self.ip.protocol() != TCP
    }
}

impl Headers {
    /// The same, of whatever protocol as far as the verifier knows: see
    /// [`unknown_zero`](crate::packet::unknown_zero). The kind of packet stays known, so nothing behind
    /// may ask for it.
    #[inline(always)]
    pub(crate) fn as_any(mut self, zero: u32) -> Self {
        const OFFSETS: u32 = 127;
        let half = zero as u16;
        self.ip = Ipv4Header(self.ip.0.map(|word| word ^ zero));
        self.transport_offset = (self.transport_offset ^ zero) & OFFSETS;
        self.transport.source_port =
            Port::from_network_word(self.transport.source_port.network_word() ^ half);
        self.transport.destination_port =
            Port::from_network_word(self.transport.destination_port.network_word() ^ half);
        self.tcp = self.tcp.mixed_with(zero as u8);
        self.gso_bytes ^= zero;
        self.present_bytes ^= zero;
        self
    }
}

/// Whether the frame is untagged IPv4: the only kind that our programs carry. A tag would survive a
/// redirect and choose the VLAN on the other side.
#[inline(always)]
pub(crate) fn is_untagged_ipv4(packet: Packet) -> bool {
    packet.ethertype() == ETHERTYPE_IPV4 && !packet.has_vlan()
}

/// Whether the frame has a VLAN tag, taken off already or still in it.
#[inline(always)]
pub(crate) fn is_tagged(packet: Packet) -> bool {
    packet.has_vlan() || matches!(packet.ethertype(), TAG_8021Q | TAG_8021AD)
}

/// Tags that a frame may have in it, beside one that the kernel took off: switches read no more.
const TAGS_MAX: u32 = 2;
const TAG_BYTES: u32 = 4;

/// The IPv4 header of a frame, and where it stands, whatever tags are before it.
#[inline(always)]
pub(crate) fn behind_tags(packet: Packet) -> Option<(Ipv4Header, u32)> {
    let mut offset = ETHERNET_BYTES;
    packet.make_readable(ETHERNET_BYTES + TAGS_MAX * TAG_BYTES);
    for _ in 0..TAGS_MAX {
        if matches!(packet.load(offset - 2), Some(TAG_8021Q | TAG_8021AD)) {
            offset += TAG_BYTES;
        }
    }
    match packet.load(offset - 2) {
        Some(ETHERTYPE_IPV4) => header(packet, offset).map(|ip| (ip, offset)),
        _ => None,
    }
}

/// The IPv4 header at `offset`, unchecked: enough to see whose packet it is.
#[inline(always)]
pub(crate) fn header(packet: Packet, offset: u32) -> Option<Ipv4Header> {
    packet.make_readable(offset + HEADER_BYTES);
    packet.load(offset)
}

/// The IPv4 header of an untagged frame.
#[inline(always)]
pub(crate) fn candidate(packet: Packet) -> Option<Ipv4Header> {
    if is_untagged_ipv4(packet) {
        header(packet, ETHERNET_BYTES)
    } else {
        None
    }
}

/// The same, where switches may have put a tag before the frame that names no VLAN.
#[inline(always)]
pub(crate) fn candidate_on_the_wire(packet: Packet) -> Option<Ipv4Header> {
    if packet.ethertype() == ETHERTYPE_IPV4 && (!packet.has_vlan() || packet.has_priority_tag()) {
        header(packet, ETHERNET_BYTES)
    } else {
        None
    }
}

/// Checks and reads a whole packet that will travel inside a slice.
#[inline(always)]
pub(crate) fn slice_packet(
    packet: Packet,
    ip: Ipv4Header,
    ip_offset: u32,
) -> Result<Headers, DropReason> {
    let present_bytes = packet.len().saturating_sub(ip_offset);
    // More than IPv4 can say (BIG TCP): no tunnel header can say it either.
    if packet.gso_bytes() != 0 && ip.total_bytes() == 0 {
        return Err(DropReason::TooBig);
    }
    ip.check(present_bytes)?;
    // A segmentation-offload packet is cut by what is there, whatever its header says.
    if packet.gso_bytes() != 0 && ip.total_bytes() != present_bytes {
        return Err(DropReason::Malformed);
    }
    let headers = if ip.is_later_fragment() {
        later_fragment(packet, ip, ip_offset)
    } else {
        transport(packet, ip, ip_offset)?
    };
    if headers.gso_bytes != 0 && (!matches!(ip.protocol(), TCP | UDP) || ip.is_fragment()) {
        return Err(DropReason::GsoNotTcp);
    }
    Ok(headers)
}

/// Reads a packet that may take the way of one before it: sound, whole, and of a kind whose verdict
/// is kept. Nothing for all others, which [`slice_packet`] judges.
#[inline(always)]
pub(crate) fn follower(packet: Packet, ip: Ipv4Header, ip_offset: u32) -> Option<Headers> {
    if ip.is_fragment() || !matches!(ip.protocol(), TCP | UDP) {
        return None;
    }
    let headers = slice_packet(packet, ip, ip_offset).ok()?;
    let keeps = headers.transport.kind.keeps_verdict(Ground::ForwardRule);
    keeps.then_some(headers)
}

#[inline(always)]
fn later_fragment(packet: Packet, ip: Ipv4Header, ip_offset: u32) -> Headers {
    Headers {
        ip,
        ip_offset,
        transport_offset: ip_offset + ip.header_bytes(),
        transport: Transport {
            protocol: ip.protocol(),
            kind: PacketKind::LaterFragment,
            source_port: Port::new(0),
            destination_port: Port::new(0),
        },
        tcp: TcpFlags::from_bytes([0, 0]),
        gso_bytes: packet.gso_bytes(),
        present_bytes: packet.len().saturating_sub(ip_offset),
    }
}

/// Reads the transport header of a checked packet or of a datagram's first fragment.
#[inline(always)]
pub(crate) fn transport(
    packet: Packet,
    ip: Ipv4Header,
    ip_offset: u32,
) -> Result<Headers, DropReason> {
    let offset = ip_offset + ip.header_bytes();
    packet.make_readable(offset + TCP_HEADER_BYTES);
    let payload_bytes = ip.total_bytes().saturating_sub(ip.header_bytes());
    let mut tcp = TcpFlags::from_bytes([0, 0]);
    let (kind, ports) = match ip.protocol() {
        TCP => {
            tcp = tcp_flags(packet, offset, payload_bytes)?;
            (tcp.kind(), ports(packet, offset)?)
        }
        UDP if payload_bytes >= UDP_HEADER_BYTES => (PacketKind::Datagram, ports(packet, offset)?),
        ICMP if payload_bytes >= ICMP_HEADER_BYTES => icmp(packet, offset)?,
        UDP | ICMP => return Err(DropReason::Malformed),
        _ => return Err(DropReason::UnsupportedProtocol),
    };
    let transport = Transport {
        protocol: ip.protocol(),
        kind,
        source_port: ports[0],
        destination_port: ports[1],
    };
    Ok(Headers {
        ip,
        ip_offset,
        transport_offset: offset,
        transport,
        tcp,
        gso_bytes: packet.gso_bytes(),
        present_bytes: packet.len().saturating_sub(ip_offset),
    })
}

/// The packet that an ICMP error speaks of, and where it stands.
#[derive(Clone, Copy)]
pub(crate) struct Quote {
    pub(crate) ip: Ipv4Header,
    pub(crate) ip_offset: u32,
    pub(crate) transport: Transport,
}

/// What the packet quotes, if it is an ICMP error.
#[inline(always)]
pub(crate) fn quote(packet: Packet, headers: &Headers) -> Result<Option<Quote>, DropReason> {
    match headers.transport.kind {
        PacketKind::Error => quoted(packet, headers).map(Some),
        _ => Ok(None),
    }
}

/// Reads an IPv4 header and eight bytes behind it at least (RFC 792), of a packet that slices carry.
#[inline(always)]
fn quoted(packet: Packet, error: &Headers) -> Result<Quote, DropReason> {
    let ip_offset = error.transport_offset + ICMP_HEADER_BYTES;
    let ip = header(packet, ip_offset).ok_or(DropReason::IcmpError)?;
    let offset = ip_offset + ip.header_bytes();
    let end = error.ip_offset + error.ip.total_bytes();
    if ip.version() != 4
        || ip.header_bytes() < HEADER_BYTES
        || ip.is_later_fragment()
        || offset + QUOTED_TRANSPORT_BYTES > end
    {
        return Err(DropReason::IcmpError);
    }
    packet.make_readable(offset + QUOTED_TRANSPORT_BYTES);
    let (kind, ports) = match ip.protocol() {
        TCP => (PacketKind::TcpOther, ports(packet, offset)),
        UDP => (PacketKind::Quoted, ports(packet, offset)),
        ICMP => (PacketKind::Quoted, quoted_echo(packet, offset)),
        _ => return Err(DropReason::IcmpError),
    };
    let Ok([source_port, destination_port]) = ports else {
        return Err(DropReason::IcmpError);
    };
    let transport = Transport {
        protocol: ip.protocol(),
        kind,
        source_port,
        destination_port,
    };
    Ok(Quote {
        ip,
        ip_offset,
        transport,
    })
}

/// An error about an error would go round for ever.
#[inline(always)]
fn quoted_echo(packet: Packet, offset: u32) -> Result<[Port; 2], DropReason> {
    match icmp(packet, offset)? {
        (PacketKind::EchoRequest | PacketKind::EchoReply, ports) => Ok(ports),
        _ => Err(DropReason::IcmpError),
    }
}

#[inline(always)]
fn tcp_flags(packet: Packet, offset: u32, payload_bytes: u32) -> Result<TcpFlags, DropReason> {
    let bytes: [u8; 2] = packet
        .load(offset + TCP_OFFSET_FLAGS_OFFSET)
        .ok_or(DropReason::Malformed)?;
    let flags = TcpFlags::from_bytes(bytes);
    if flags.header_bytes() < TCP_HEADER_BYTES || flags.header_bytes() > payload_bytes {
        return Err(DropReason::Malformed);
    }
    Ok(flags)
}

#[inline(always)]
fn ports(packet: Packet, offset: u32) -> Result<[Port; 2], DropReason> {
    let words: [u16; 2] = packet.load(offset).ok_or(DropReason::Malformed)?;
    Ok([
        Port::from_network_word(words[0]),
        Port::from_network_word(words[1]),
    ])
}

#[inline(always)]
fn icmp(packet: Packet, offset: u32) -> Result<(PacketKind, [Port; 2]), DropReason> {
    let words: [u16; 3] = packet.load(offset).ok_or(DropReason::Malformed)?;
    let [icmp_type, code] = words[0].to_ne_bytes();
    let kind = icmp_kind(icmp_type, code)?;
    let identifier = match kind {
        PacketKind::Error => Port::new(0),
        _ => Port::from_network_word(words[2]),
    };
    Ok((kind, [identifier, Port::new(0)]))
}
