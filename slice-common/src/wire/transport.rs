//! The first bytes of TCP (RFC 9293), UDP (RFC 768) and ICMP (RFC 792): ports, flags and kinds.

use crate::address::Port;
use crate::drop_reason::DropReason;
use crate::policy::PacketKind;

pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

pub const TCP_HEADER_BYTES: u32 = 20;
pub const UDP_HEADER_BYTES: u32 = 8;
pub const ICMP_HEADER_BYTES: u32 = 8;
pub const TCP_CHECKSUM_OFFSET: u32 = 16;
pub const ICMP_CHECKSUM_OFFSET: u32 = 2;
pub const UDP_CHECKSUM_OFFSET: u32 = 6;
/// The byte with the length of the TCP header, then the one with the flags.
pub const TCP_OFFSET_FLAGS_OFFSET: u32 = 12;

const TCP_SYN: u8 = 0x02;
const TCP_ACK: u8 = 0x10;

const ICMP_ECHO_REPLY: u8 = 0;
const ICMP_UNREACHABLE: u8 = 3;
const ICMP_ECHO: u8 = 8;
const ICMP_TIME_EXCEEDED: u8 = 11;
const ICMP_PARAMETER: u8 = 12;

/// What a packet's transport header says about its conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    pub protocol: u8,
    pub kind: PacketKind,
    /// Echo: the identifier.
    pub source_port: Port,
    /// Echo: 0.
    pub destination_port: Port,
}

/// The TCP flags and header length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpFlags {
    offset: u8,
    flags: u8,
}

impl TcpFlags {
    /// Takes the two bytes at [`TCP_OFFSET_FLAGS_OFFSET`].
    #[inline(always)]
    pub const fn from_bytes(bytes: [u8; 2]) -> Self {
        Self {
            offset: bytes[0],
            flags: bytes[1],
        }
    }

    /// With every bit of `bits` turned over.
    #[inline(always)]
    pub const fn mixed_with(self, bits: u8) -> Self {
        Self {
            offset: self.offset ^ bits,
            flags: self.flags ^ bits,
        }
    }

    /// 20..=60 in a sound header.
    #[inline(always)]
    pub const fn header_bytes(self) -> u32 {
        (self.offset >> 4) as u32 * 4
    }

    /// SYN in any company but ACK: the only packets that open a connection on any stack we know.
    #[inline(always)]
    pub const fn opens(self) -> bool {
        self.flags & (TCP_SYN | TCP_ACK) == TCP_SYN
    }

    /// Packets that carry options about the connection: SYN and SYN+ACK.
    #[inline(always)]
    pub const fn negotiates(self) -> bool {
        self.flags & TCP_SYN != 0
    }

    #[inline(always)]
    pub const fn kind(self) -> PacketKind {
        if self.opens() {
            PacketKind::TcpOpen
        } else {
            PacketKind::TcpOther
        }
    }
}

/// Judges an ICMP message by its type (the first byte) and code. Errors are those that say what became
/// of a packet; source quench is obsolete (RFC 6633), and redirects are for the sender's own network.
#[inline(always)]
pub const fn icmp_kind(icmp_type: u8, code: u8) -> Result<PacketKind, DropReason> {
    match (icmp_type, code) {
        (ICMP_ECHO, 0) => Ok(PacketKind::EchoRequest),
        (ICMP_ECHO_REPLY, 0) => Ok(PacketKind::EchoReply),
        (ICMP_UNREACHABLE | ICMP_TIME_EXCEEDED | ICMP_PARAMETER, _) => Ok(PacketKind::Error),
        _ => Err(DropReason::UnsupportedIcmp),
    }
}
