//! Ethernet (IEEE 802.3) and IPv4 (RFC 791).

use super::checksum::{Checksum, internet_checksum};
use super::transport::{Icmp, Tcp, Udp};

pub type Mac = [u8; 6];

/// An Ethernet frame without the trailing sum.
pub fn ethernet(destination: Mac, source: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(14 + payload.len());
    frame.extend(destination);
    frame.extend(source);
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An IPv4 packet; sound unless told otherwise.
#[derive(Clone, Debug)]
pub struct Ipv4 {
    source: [u8; 4],
    destination: [u8; 4],
    tos: u8,
    ttl: u8,
    identification: u16,
    dont_fragment: bool,
    more_fragments: bool,
    fragment_offset_bytes: u16,
    options: Vec<u8>,
    version: u8,
    header_words: Option<u8>,
    total_bytes: Option<u16>,
    checksum: Checksum,
    payload: Payload,
}

#[derive(Clone, Debug)]
enum Payload {
    Tcp(Tcp),
    Udp(Udp),
    Icmp(Icmp),
    Raw { protocol: u8, bytes: Vec<u8> },
}

impl Ipv4 {
    /// A packet without payload: TTL 64, "don't fragment", no options, protocol 253 (experiments).
    pub fn between(source: impl Into<[u8; 4]>, destination: impl Into<[u8; 4]>) -> Self {
        Self {
            source: source.into(),
            destination: destination.into(),
            tos: 0,
            ttl: 64,
            identification: 0,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset_bytes: 0,
            options: Vec::new(),
            version: 4,
            header_words: None,
            total_bytes: None,
            checksum: Checksum::Right,
            payload: Payload::Raw {
                protocol: 253,
                bytes: Vec::new(),
            },
        }
    }

    pub fn tcp(self, segment: Tcp) -> Self {
        Self {
            payload: Payload::Tcp(segment),
            ..self
        }
    }

    pub fn udp(self, datagram: Udp) -> Self {
        Self {
            payload: Payload::Udp(datagram),
            ..self
        }
    }

    pub fn icmp(self, message: Icmp) -> Self {
        Self {
            payload: Payload::Icmp(message),
            ..self
        }
    }

    /// Any protocol, any bytes.
    pub fn raw(self, protocol: u8, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            payload: Payload::Raw {
                protocol,
                bytes: bytes.into(),
            },
            ..self
        }
    }

    /// Keeps the transport, changes who speaks: how a packet looks after its source was mapped.
    pub fn source(self, source: impl Into<[u8; 4]>) -> Self {
        Self {
            source: source.into(),
            ..self
        }
    }

    /// As [`Ipv4::source`] for the destination.
    pub fn destination(self, destination: impl Into<[u8; 4]>) -> Self {
        Self {
            destination: destination.into(),
            ..self
        }
    }

    /// DSCP 0..=63; the ECN bits stay.
    pub fn dscp(self, dscp: u8) -> Self {
        Self {
            tos: dscp << 2 | self.tos & 3,
            ..self
        }
    }

    /// ECN: 0 not capable, 1 ECT(1), 2 ECT(0), 3 congestion experienced.
    pub fn ecn(self, ecn: u8) -> Self {
        Self {
            tos: self.tos & !3 | ecn & 3,
            ..self
        }
    }

    pub fn ttl(self, ttl: u8) -> Self {
        Self { ttl, ..self }
    }

    pub fn identification(self, identification: u16) -> Self {
        Self {
            identification,
            ..self
        }
    }

    /// A part of a datagram: `offset_bytes` is a multiple of 8; `more` follow or not.
    pub fn fragment(self, offset_bytes: u16, more: bool) -> Self {
        Self {
            dont_fragment: false,
            more_fragments: more,
            fragment_offset_bytes: offset_bytes,
            ..self
        }
    }

    /// Header options, padded with "end of options" to whole words; at most 40 bytes.
    pub fn options(self, options: &[u8]) -> Self {
        let mut options = options.to_vec();
        options.resize(options.len().next_multiple_of(4), 0);
        Self { options, ..self }
    }

    pub fn dont_fragment(self, dont_fragment: bool) -> Self {
        Self {
            dont_fragment,
            ..self
        }
    }

    /// Another version than 4.
    pub fn version(self, version: u8) -> Self {
        Self { version, ..self }
    }

    /// A header length that lies, in 32-bit words.
    pub fn header_words(self, words: u8) -> Self {
        Self {
            header_words: Some(words),
            ..self
        }
    }

    /// A total length that lies.
    pub fn total_bytes(self, bytes: u16) -> Self {
        Self {
            total_bytes: Some(bytes),
            ..self
        }
    }

    pub fn checksum(self, checksum: Checksum) -> Self {
        Self { checksum, ..self }
    }

    /// The packet from the IPv4 header on.
    pub fn build(&self) -> Vec<u8> {
        let (protocol, payload) = match &self.payload {
            Payload::Tcp(segment) => (6, segment.build(self.source, self.destination)),
            Payload::Udp(datagram) => (17, datagram.build(self.source, self.destination)),
            Payload::Icmp(message) => (1, message.build()),
            Payload::Raw { protocol, bytes } => (*protocol, bytes.clone()),
        };
        let mut packet = self.header(protocol, payload.len());
        packet.extend(payload);
        packet
    }

    /// The packet in an Ethernet frame.
    pub fn frame(&self, destination: Mac, source: Mac) -> Vec<u8> {
        ethernet(destination, source, 0x0800, &self.build())
    }

    fn header(&self, protocol: u8, payload_bytes: usize) -> Vec<u8> {
        let header_bytes = 20 + self.options.len();
        let words = self.header_words.unwrap_or((header_bytes / 4) as u8);
        let total = self
            .total_bytes
            .unwrap_or((header_bytes + payload_bytes) as u16);
        let flags = u16::from(self.dont_fragment) << 14 | u16::from(self.more_fragments) << 13;
        let fragment = flags | (self.fragment_offset_bytes / 8);
        let mut header = vec![self.version << 4 | words & 0x0f, self.tos];
        header.extend(total.to_be_bytes());
        header.extend(self.identification.to_be_bytes());
        header.extend(fragment.to_be_bytes());
        header.extend([self.ttl, protocol, 0, 0]);
        header.extend(self.source);
        header.extend(self.destination);
        header.extend(&self.options);
        let checksum = self.checksum.field(internet_checksum(&[&header]));
        header[10..12].copy_from_slice(&checksum);
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The header that every textbook computes: its checksum is b861.
    #[test]
    fn a_well_known_header_comes_out_byte_for_byte() {
        let packet = Ipv4::between([192, 168, 0, 1], [192, 168, 0, 199])
            .raw(17, vec![0; 95])
            .build();
        let header = [
            0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8,
            0x00, 0x01, 0xc0, 0xa8, 0x00, 0xc7,
        ];
        assert_eq!(packet[..20], header);
        assert_eq!(packet.len(), 115);
    }

    #[test]
    fn options_lengthen_the_header_in_whole_words() {
        let packet = Ipv4::between([10, 0, 0, 1], [10, 0, 0, 2])
            .options(&[1, 1, 1, 1, 1])
            .build();
        assert_eq!((packet[0], packet.len()), (0x47, 28));
        assert_eq!(internet_checksum(&[&packet]), 0);
    }

    #[test]
    fn a_fragment_says_its_place_in_units_of_eight_bytes() {
        let packet = Ipv4::between([10, 0, 0, 1], [10, 0, 0, 2])
            .fragment(1480, true)
            .build();
        assert_eq!(packet[6..8], [0x20, 185]);
    }
}
