//! The IPv4 header (RFC 791) as ten half words in memory order.

use crate::address::Address;
use crate::drop_reason::DropReason;

pub const HEADER_BYTES: u32 = 20;
pub const SOURCE_OFFSET: u32 = 12;
pub const DESTINATION_OFFSET: u32 = 16;
pub const CHECKSUM_OFFSET: u32 = 10;
/// The byte with the TTL, then the one with the protocol.
pub const TTL_OFFSET: u32 = 8;

/// The fixed part of an IPv4 header, loaded from a packet: five words in memory order.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Header(pub [u32; 5]);

impl Ipv4Header {
    pub const fn from_bytes(bytes: [u8; 20]) -> Self {
        let mut words = [0; 5];
        let mut i = 0;
        while i < 5 {
            let at = i * 4;
            words[i] = u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
            i += 1;
        }
        Self(words)
    }

    #[inline(always)]
    pub const fn version(self) -> u8 {
        self.first_byte() >> 4
    }

    /// 20..=60 in a sound header; 0..=60 in general.
    #[inline(always)]
    pub const fn header_bytes(self) -> u32 {
        (self.first_byte() & 0x0f) as u32 * 4
    }

    #[inline(always)]
    pub const fn tos(self) -> u8 {
        self.0[0].to_ne_bytes()[1]
    }

    #[inline(always)]
    pub const fn total_bytes(self) -> u32 {
        (u32::from_be(self.0[0])) & 0xffff
    }

    /// Which datagram the packet is a part of, as in the packet.
    #[inline(always)]
    pub const fn identification(self) -> u16 {
        let [high, low, ..] = self.0[1].to_ne_bytes();
        u16::from_ne_bytes([high, low])
    }

    /// Whether a later fragment begins eight bytes into the datagram: within the header of TCP, to
    /// overwrite flags that were judged (RFC 1858).
    #[inline(always)]
    pub const fn begins_in_tcp_header(self) -> bool {
        let offset_bytes = (u32::from_be(self.0[1]) & 0x1fff) * 8;
        self.protocol() == super::transport::TCP
            && offset_bytes < super::transport::TCP_HEADER_BYTES
    }

    /// Whether the packet is a part of a datagram: more to come, or not the first.
    #[inline(always)]
    pub const fn is_fragment(self) -> bool {
        u32::from_be(self.0[1]) & 0x3fff != 0
    }

    /// Whether the packet is a part of a datagram other than the first: no transport header in it.
    #[inline(always)]
    pub const fn is_later_fragment(self) -> bool {
        u32::from_be(self.0[1]) & 0x1fff != 0
    }

    #[inline(always)]
    pub const fn ttl(self) -> u8 {
        self.0[2].to_ne_bytes()[0]
    }

    #[inline(always)]
    pub const fn protocol(self) -> u8 {
        self.0[2].to_ne_bytes()[1]
    }

    #[inline(always)]
    pub const fn source(self) -> Address {
        Address::from_network_word(self.0[3])
    }

    #[inline(always)]
    pub const fn destination(self) -> Address {
        Address::from_network_word(self.0[4])
    }

    /// Checks what every later step relies on: version 4, a header of 20..=60 bytes, and a total
    /// length that holds the header and lies within the `available_bytes` from the header on.
    #[inline(always)]
    pub const fn check(self, available_bytes: u32) -> Result<(), DropReason> {
        if self.version() != 4
            || self.header_bytes() < HEADER_BYTES
            || self.total_bytes() < self.header_bytes()
            || self.total_bytes() > available_bytes
        {
            return Err(DropReason::Malformed);
        }
        Ok(())
    }

    /// Version and header length.
    #[inline(always)]
    pub const fn first_byte(self) -> u8 {
        self.0[0].to_ne_bytes()[0]
    }

    /// The same packet from another source; the checksum follows.
    #[inline(always)]
    pub const fn with_source(self, source: Address) -> Self {
        self.with_word(3, source.network_word())
    }

    /// The same packet to another destination; the checksum follows.
    #[inline(always)]
    pub const fn with_destination(self, destination: Address) -> Self {
        self.with_word(4, destination.network_word())
    }

    /// The same packet with another TOS byte; the checksum follows.
    #[inline(always)]
    pub const fn with_tos(self, tos: u8) -> Self {
        let [first, _, third, fourth] = self.0[0].to_ne_bytes();
        self.with_word(0, u32::from_ne_bytes([first, tos, third, fourth]))
    }

    /// As half words in memory order.
    #[inline(always)]
    pub const fn halves(self) -> [u16; 10] {
        let Self(words) = self;
        let mut halves = [0; 10];
        let mut i = 0;
        while i < 5 {
            let bytes = words[i].to_ne_bytes();
            halves[2 * i] = u16::from_ne_bytes([bytes[0], bytes[1]]);
            halves[2 * i + 1] = u16::from_ne_bytes([bytes[2], bytes[3]]);
            i += 1;
        }
        halves
    }

    #[inline(always)]
    const fn with_word(self, index: usize, word: u32) -> Self {
        let Self(mut words) = self;
        if words[index] == word {
            return self;
        }
        let [ttl, protocol, high, low] = words[2].to_ne_bytes();
        let checksum = u16::from_ne_bytes([high, low]);
        let checksum = super::checksum::replaced(checksum, words[index], word).to_ne_bytes();
        words[2] = u32::from_ne_bytes([ttl, protocol, checksum[0], checksum[1]]);
        words[index] = word;
        Self(words)
    }
}

/// The header that carries a tunnel packet: DF set, identification 0 (RFC 6864), TTL 64, UDP.
#[inline(always)]
pub const fn tunnel_header(
    source: Address,
    destination: Address,
    tos: u8,
    total_bytes: u16,
) -> [u16; 10] {
    header(source, destination, tos, total_bytes, super::transport::UDP)
}

/// A header without options: DF set, identification 0 (RFC 6864), TTL 64.
#[inline(always)]
pub const fn header(
    source: Address,
    destination: Address,
    tos: u8,
    total_bytes: u16,
    protocol: u8,
) -> [u16; 10] {
    let (source, destination) = (halves(source), halves(destination));
    let mut words = [
        u16::from_ne_bytes([0x45, tos]),
        total_bytes.to_be(),
        0,
        0x4000u16.to_be(),
        u16::from_ne_bytes([64, protocol]),
        0,
        source[0],
        source[1],
        destination[0],
        destination[1],
    ];
    words[5] = super::checksum::of_header(words);
    words
}

#[inline(always)]
const fn halves(address: Address) -> [u16; 2] {
    let octets = address.octets();
    [
        u16::from_ne_bytes([octets[0], octets[1]]),
        u16::from_ne_bytes([octets[2], octets[3]]),
    ]
}
