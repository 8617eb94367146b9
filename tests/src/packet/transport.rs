//! TCP (RFC 9293), UDP (RFC 768) and ICMP (RFC 792).

use super::checksum::{Checksum, internet_checksum, pseudo_header};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

/// A TCP segment; without flags until told, sound unless told otherwise.
#[derive(Clone, Debug)]
pub struct Tcp {
    source_port: u16,
    destination_port: u16,
    sequence: u32,
    acknowledgment: u32,
    flags: u8,
    options: Vec<u8>,
    header_words: Option<u8>,
    checksum: Checksum,
    payload: Vec<u8>,
}

impl Tcp {
    pub fn new(source_port: u16, destination_port: u16) -> Self {
        Self {
            source_port,
            destination_port,
            sequence: 1000,
            acknowledgment: 0,
            flags: 0,
            options: Vec::new(),
            header_words: None,
            checksum: Checksum::Right,
            payload: Vec::new(),
        }
    }

    pub fn syn(self) -> Self {
        self.flag(SYN)
    }

    pub fn ack(self) -> Self {
        let mut segment = self.flag(ACK);
        segment.acknowledgment = 2000;
        segment
    }

    pub fn fin(self) -> Self {
        self.flag(FIN)
    }

    pub fn rst(self) -> Self {
        self.flag(RST)
    }

    /// Sets PSH and the payload.
    pub fn data(self, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            payload: payload.into(),
            ..self.flag(PSH)
        }
    }

    /// The "maximum segment size" option.
    pub fn mss(self, bytes: u16) -> Self {
        let [high, low] = bytes.to_be_bytes();
        self.option(&[2, 4, high, low])
    }

    /// The timestamps option, alone on its words as usual.
    pub fn timestamps(self, value: u32, echo: u32) -> Self {
        let mut option = vec![1, 1, 8, 10];
        option.extend(value.to_be_bytes());
        option.extend(echo.to_be_bytes());
        self.option(&option)
    }

    /// One byte of padding: moves the next option to an odd place.
    pub fn no_operation(self) -> Self {
        self.option(&[1])
    }

    /// Any bytes among the options; together at most 40.
    pub fn option(mut self, bytes: &[u8]) -> Self {
        self.options.extend(bytes);
        self
    }

    /// A header length that lies, in 32-bit words.
    pub fn header_words(self, words: u8) -> Self {
        Self {
            header_words: Some(words),
            ..self
        }
    }

    pub fn checksum(self, checksum: Checksum) -> Self {
        Self { checksum, ..self }
    }

    pub(super) fn build(&self, source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
        let mut options = self.options.clone();
        options.resize(options.len().next_multiple_of(4), 0);
        let words = self.header_words.unwrap_or((5 + options.len() / 4) as u8);
        let mut segment = Vec::new();
        segment.extend(self.source_port.to_be_bytes());
        segment.extend(self.destination_port.to_be_bytes());
        segment.extend(self.sequence.to_be_bytes());
        segment.extend(self.acknowledgment.to_be_bytes());
        segment.extend([words << 4, self.flags]);
        segment.extend(64_000u16.to_be_bytes());
        segment.extend([0; 4]);
        segment.extend(options);
        segment.extend(&self.payload);
        let pseudo = pseudo_header(source, destination, 6, segment.len());
        let checksum = self.checksum.field(internet_checksum(&[&pseudo, &segment]));
        segment[16..18].copy_from_slice(&checksum);
        segment
    }

    fn flag(self, flag: u8) -> Self {
        Self {
            flags: self.flags | flag,
            ..self
        }
    }
}

/// A UDP datagram; sound unless told otherwise.
#[derive(Clone, Debug)]
pub struct Udp {
    source_port: u16,
    destination_port: u16,
    length: Option<u16>,
    checksum: Checksum,
    payload: Vec<u8>,
}

impl Udp {
    pub fn new(source_port: u16, destination_port: u16) -> Self {
        Self {
            source_port,
            destination_port,
            length: None,
            checksum: Checksum::Right,
            payload: Vec::new(),
        }
    }

    pub fn data(self, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            payload: payload.into(),
            ..self
        }
    }

    /// A length that lies.
    pub fn length(self, length: u16) -> Self {
        Self {
            length: Some(length),
            ..self
        }
    }

    pub fn checksum(self, checksum: Checksum) -> Self {
        Self { checksum, ..self }
    }

    pub(super) fn build(&self, source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
        let length = self.length.unwrap_or((8 + self.payload.len()) as u16);
        let mut datagram = Vec::new();
        datagram.extend(self.source_port.to_be_bytes());
        datagram.extend(self.destination_port.to_be_bytes());
        datagram.extend(length.to_be_bytes());
        datagram.extend([0; 2]);
        datagram.extend(&self.payload);
        let pseudo = pseudo_header(source, destination, 17, datagram.len());
        // 0 would mean "not computed", so RFC 768 sends the other zero.
        let right = match internet_checksum(&[&pseudo, &datagram]) {
            0 => 0xffff,
            sum => sum,
        };
        datagram[6..8].copy_from_slice(&self.checksum.field(right));
        datagram
    }
}

/// An ICMP message; sound unless told otherwise.
#[derive(Clone, Debug)]
pub struct Icmp {
    kind: u8,
    code: u8,
    word: [u8; 4],
    checksum: Checksum,
    payload: Vec<u8>,
}

impl Icmp {
    pub fn echo_request(identifier: u16, sequence: u16) -> Self {
        Self::echo(8, identifier, sequence)
    }

    pub fn echo_reply(identifier: u16, sequence: u16) -> Self {
        Self::echo(0, identifier, sequence)
    }

    /// "Destination unreachable, port unreachable", with the header and eight bytes of what it is about.
    pub fn port_unreachable(about: &Ipv4Quote) -> Self {
        Self {
            payload: about.0.clone(),
            ..Self::message(3, 3)
        }
    }

    /// "Fragmentation needed" with the MTU to use.
    pub fn fragmentation_needed(mtu: u16, about: &Ipv4Quote) -> Self {
        let [high, low] = mtu.to_be_bytes();
        Self {
            word: [0, 0, high, low],
            payload: about.0.clone(),
            ..Self::message(3, 4)
        }
    }

    /// "Time exceeded in transit".
    pub fn time_exceeded(about: &Ipv4Quote) -> Self {
        Self {
            payload: about.0.clone(),
            ..Self::message(11, 0)
        }
    }

    /// Any type and code, an empty second word and no data.
    pub fn message(kind: u8, code: u8) -> Self {
        Self {
            kind,
            code,
            word: [0; 4],
            checksum: Checksum::Right,
            payload: Vec::new(),
        }
    }

    /// The second word, as the type uses it.
    pub fn word(self, word: [u8; 4]) -> Self {
        Self { word, ..self }
    }

    pub fn data(self, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            payload: payload.into(),
            ..self
        }
    }

    pub fn checksum(self, checksum: Checksum) -> Self {
        Self { checksum, ..self }
    }

    pub(super) fn build(&self) -> Vec<u8> {
        let mut message = vec![self.kind, self.code, 0, 0];
        message.extend(self.word);
        message.extend(&self.payload);
        let checksum = self.checksum.field(internet_checksum(&[&message]));
        message[2..4].copy_from_slice(&checksum);
        message
    }

    fn echo(kind: u8, identifier: u16, sequence: u16) -> Self {
        let ([a, b], [c, d]) = (identifier.to_be_bytes(), sequence.to_be_bytes());
        Self {
            word: [a, b, c, d],
            ..Self::message(kind, 0)
        }
    }
}

/// The part of a packet that an ICMP error repeats.
#[derive(Clone, Debug)]
pub struct Ipv4Quote(Vec<u8>);

impl Ipv4Quote {
    /// The IPv4 header without options and the eight bytes after it.
    pub fn of(packet: &super::Ipv4) -> Self {
        let mut bytes = packet.build();
        bytes.truncate(28);
        Self(bytes)
    }

    /// The IPv4 header without options and the twenty bytes after it.
    pub fn long(packet: &super::Ipv4) -> Self {
        let mut bytes = packet.build();
        bytes.truncate(40);
        Self(bytes)
    }

    pub fn cut_to(mut self, bytes: usize) -> Self {
        self.0.truncate(bytes);
        self
    }

    pub fn followed_by(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syn_comes_out_byte_for_byte() {
        let segment = Tcp::new(0x9c40, 9092)
            .syn()
            .mss(1460)
            .build([10, 1, 1, 10], [10, 77, 0, 2]);
        let expected = [
            0x9c, 0x40, 0x23, 0x84, // ports
            0x00, 0x00, 0x03, 0xe8, // sequence number
            0x00, 0x00, 0x00, 0x00, // acknowledgment number
            0x60, 0x02, 0xfa, 0x00, // six words, SYN, window
            0xc5, 0x1f, 0x00, 0x00, // checksum (added up by another program), urgent pointer
            0x02, 0x04, 0x05, 0xb4, // MSS 1460
        ];
        assert_eq!(segment, expected);
    }

    #[test]
    fn a_datagram_whose_sum_is_zero_says_so_with_all_ones() {
        let (source, destination) = ([0, 0, 0, 0], [0, 0, 0, 0]);
        // 17 + 10 (twice the length of 10) and the payload make ffff.
        let rest = 0xffffu16 - 17 - 10 - 10;
        let datagram = Udp::new(0, 0)
            .data(rest.to_be_bytes())
            .build(source, destination);
        assert_eq!(datagram[6..8], [0xff, 0xff]);
    }

    #[test]
    fn broken_checksums_do_not_fit() {
        let (source, destination) = ([10, 1, 1, 10], [10, 77, 0, 2]);
        let segment = Tcp::new(1, 2)
            .checksum(Checksum::Wrong)
            .build(source, destination);
        let pseudo = pseudo_header(source, destination, 6, segment.len());
        assert_ne!(internet_checksum(&[&pseudo, &segment]), 0);
    }
}
