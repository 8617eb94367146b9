//! Packets explained: for the reader of a failed test, and for checking checksums.

use std::fmt::Write as _;

use super::checksum::{internet_checksum, pseudo_header};

const TUNNEL_PORT: u16 = 6085;

/// Explains a frame, one header per line, down to the last one that it understands.
pub fn describe(frame: &[u8]) -> String {
    let mut text = String::new();
    describe_frame(frame, 0, &mut text);
    text
}

/// Lists what does not fit in a frame: lengths and checksums, outer and inner. A UDP checksum of 0
/// fits, as over IPv4 it means "none".
pub fn faults(frame: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(packet) = ipv4_of(frame) {
        packet.faults("", &mut found);
        if let Some(inner) = packet.tunnelled().and_then(ipv4_of) {
            inner.faults("inner ", &mut found);
        }
    }
    found
}

/// Shows both frames and marks the rows of sixteen bytes in which they differ.
pub fn describe_difference(expected: &[u8], found: &[u8]) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "expected ({} bytes):\n{}",
        expected.len(),
        describe(expected)
    );
    let _ = writeln!(text, "found ({} bytes):\n{}", found.len(), describe(found));
    for at in (0..expected.len().max(found.len())).step_by(16) {
        let row = |bytes: &[u8]| hex(bytes.get(at..bytes.len().min(at + 16)).unwrap_or_default());
        let (left, right) = (row(expected), row(found));
        let mark = if left == right { ' ' } else { '!' };
        let _ = writeln!(text, "{mark} {at:04} {left:<48} | {right}");
    }
    text
}

/// A packet from its IPv4 header on.
struct Packet<'a> {
    bytes: &'a [u8],
    header_bytes: usize,
}

fn ipv4_of(frame: &[u8]) -> Option<Packet<'_>> {
    if half_word(frame, 12)? != 0x0800 {
        return None;
    }
    let bytes = &frame[14..];
    let header_bytes = usize::from(bytes.first()? & 0x0f) * 4;
    (header_bytes >= 20 && bytes.len() >= header_bytes).then_some(Packet {
        bytes,
        header_bytes,
    })
}

impl<'a> Packet<'a> {
    fn address(&self, at: usize) -> [u8; 4] {
        [
            self.bytes[at],
            self.bytes[at + 1],
            self.bytes[at + 2],
            self.bytes[at + 3],
        ]
    }

    fn protocol(&self) -> u8 {
        self.bytes[9]
    }

    fn is_later_fragment(&self) -> bool {
        half_word(self.bytes, 6).unwrap_or(0) & 0x1fff != 0
    }

    fn is_fragment(&self) -> bool {
        half_word(self.bytes, 6).unwrap_or(0) & 0x3fff != 0
    }

    /// What follows the header, without padding of the frame.
    fn payload(&self) -> &'a [u8] {
        let total = usize::from(half_word(self.bytes, 2).unwrap_or(0));
        self.bytes
            .get(self.header_bytes..total.min(self.bytes.len()))
            .unwrap_or_default()
    }

    /// The frame inside, when this is a tunnel packet.
    fn tunnelled(&self) -> Option<&'a [u8]> {
        let payload = self.payload();
        let is_tunnel = self.protocol() == 17
            && !self.is_fragment()
            && half_word(payload, 2) == Some(TUNNEL_PORT);
        if is_tunnel { payload.get(16..) } else { None }
    }

    fn faults(&self, whose: &str, found: &mut Vec<String>) {
        let total = usize::from(half_word(self.bytes, 2).unwrap_or(0));
        if total != self.bytes.len() {
            found.push(format!(
                "{whose}IPv4 length {total}, there are {} bytes",
                self.bytes.len()
            ));
        }
        if internet_checksum(&[&self.bytes[..self.header_bytes]]) != 0 {
            found.push(format!("{whose}IPv4 checksum"));
        }
        if self.is_fragment() {
            return;
        }
        let payload = self.payload();
        let pseudo = pseudo_header(
            self.address(12),
            self.address(16),
            self.protocol(),
            payload.len(),
        );
        let sum = internet_checksum(&[&pseudo, payload]);
        match self.protocol() {
            6 if sum != 0 => found.push(format!("{whose}TCP checksum")),
            17 if half_word(payload, 4).map(usize::from) != Some(payload.len()) => {
                found.push(format!("{whose}UDP length"));
            }
            17 if half_word(payload, 6) != Some(0) && sum != 0 => {
                found.push(format!("{whose}UDP checksum"));
            }
            1 if internet_checksum(&[payload]) != 0 => found.push(format!("{whose}ICMP checksum")),
            _ => {}
        }
    }
}

fn describe_frame(frame: &[u8], depth: usize, text: &mut String) {
    let margin = "  ".repeat(depth + 1);
    if frame.len() < 14 {
        let _ = writeln!(text, "{margin}{} bytes: {}", frame.len(), hex(frame));
        return;
    }
    let ethertype = half_word(frame, 12).unwrap_or(0);
    let (to, from) = (colons(&frame[..6]), colons(&frame[6..12]));
    let _ = writeln!(text, "{margin}Ethernet {from} > {to} type {ethertype:04x}");
    let Some(packet) = ipv4_of(frame) else { return };
    describe_ipv4(&packet, &margin, text);
    if let Some(inner) = packet.tunnelled() {
        describe_vxlan(packet.payload(), &margin, text);
        describe_frame(inner, depth + 1, text);
    }
}

fn describe_ipv4(packet: &Packet<'_>, margin: &str, text: &mut String) {
    let bytes = packet.bytes;
    let fragment = half_word(bytes, 6).unwrap_or(0);
    let (source, destination) = (dots(packet.address(12)), dots(packet.address(16)));
    let _ = writeln!(
        text,
        "{margin}IPv4 {source} > {destination} version {} header {} total {} id {} DF {} MF {} \
         offset {} TTL {} protocol {} DSCP {} ECN {}",
        bytes[0] >> 4,
        packet.header_bytes,
        half_word(bytes, 2).unwrap_or(0),
        half_word(bytes, 4).unwrap_or(0),
        fragment >> 14 & 1,
        fragment >> 13 & 1,
        (fragment & 0x1fff) * 8,
        bytes[8],
        packet.protocol(),
        bytes[1] >> 2,
        bytes[1] & 3,
    );
    if !packet.is_later_fragment() {
        describe_transport(packet, &source, &destination, margin, text);
    }
}

fn describe_transport(
    packet: &Packet<'_>,
    source: &str,
    destination: &str,
    margin: &str,
    text: &mut String,
) {
    let payload = packet.payload();
    let (Some(first), Some(second)) = (half_word(payload, 0), half_word(payload, 2)) else {
        return;
    };
    let _ = match packet.protocol() {
        6 if payload.len() >= 20 => writeln!(
            text,
            "{margin}TCP {source}:{first} > {destination}:{second} flags {} checksum {:04x} options {}",
            tcp_flags(payload[13]),
            half_word(payload, 16).unwrap_or(0),
            hex(payload
                .get(20..usize::from(payload[12] >> 4) * 4)
                .unwrap_or_default()),
        ),
        17 if payload.len() >= 8 => writeln!(
            text,
            "{margin}UDP {source}:{first} > {destination}:{second} length {} checksum {:04x}",
            half_word(payload, 4).unwrap_or(0),
            half_word(payload, 6).unwrap_or(0),
        ),
        1 => writeln!(
            text,
            "{margin}ICMP type {} code {} {}",
            payload[0],
            payload[1],
            hex(payload)
        ),
        _ => writeln!(text, "{margin}payload {}", hex(payload)),
    };
}

fn describe_vxlan(payload: &[u8], margin: &str, text: &mut String) {
    let Some(header) = payload.get(8..16) else {
        return;
    };
    let vni = u32::from_be_bytes([0, header[4], header[5], header[6]]);
    let _ = writeln!(
        text,
        "{margin}VXLAN flags {:02x} VNI {vni} (slice {} class {})",
        header[0],
        vni >> 3,
        vni & 7
    );
}

fn tcp_flags(flags: u8) -> String {
    let names = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
    let set: Vec<_> = (0..8)
        .filter(|bit| flags >> bit & 1 == 1)
        .map(|bit| names[bit])
        .collect();
    set.join("+")
}

fn half_word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

fn dots(address: [u8; 4]) -> String {
    std::net::Ipv4Addr::from(address).to_string()
}

fn colons(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<Vec<_>>()
        .join(":")
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Checksum, Icmp, Ipv4, Tcp, Udp, Vxlan};

    fn inner() -> Ipv4 {
        Ipv4::between([10, 77, 0, 2], [10, 77, 64, 2])
    }

    fn tunnelled(packet: &Ipv4) -> Vec<u8> {
        Vxlan::between([172, 20, 1, 11], [172, 20, 2, 11])
            .slice(7, 2)
            .carry(packet)
            .frame([2; 6], [4; 6])
    }

    #[test]
    fn a_tunnel_packet_is_explained_down_to_the_inner_ports() {
        let text = describe(&tunnelled(&inner().tcp(Tcp::new(40_000, 9092).syn().ack())));
        for part in [
            "172.20.1.11:49152 > 172.20.2.11:6085",
            "VNI 58 (slice 7 class 2)",
            "10.77.0.2:40000 > 10.77.64.2:9092 flags SYN+ACK",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn each_wrong_checksum_is_found_inside_a_tunnel_too() {
        let wrong = Checksum::Wrong;
        let cases = [
            (
                inner().tcp(Tcp::new(1, 2).checksum(wrong)),
                "inner TCP checksum",
            ),
            (
                inner().udp(Udp::new(1, 2).checksum(wrong)),
                "inner UDP checksum",
            ),
            (
                inner().icmp(Icmp::echo_request(1, 2).checksum(wrong)),
                "inner ICMP checksum",
            ),
            (
                inner().tcp(Tcp::new(1, 2)).checksum(wrong),
                "inner IPv4 checksum",
            ),
            (inner().udp(Udp::new(1, 2).length(9)), "inner UDP length"),
        ];
        for (packet, fault) in cases {
            assert_eq!(faults(&tunnelled(&packet)), [fault]);
        }
        assert!(faults(&tunnelled(&inner().tcp(Tcp::new(1, 2).syn()))).is_empty());
    }

    #[test]
    fn any_bytes_can_be_explained() {
        let frame = tunnelled(&inner().tcp(Tcp::new(1, 2).syn()));
        for length in 0..frame.len() {
            describe(&frame[..length]);
            faults(&frame[..length]);
        }
        for at in 0..frame.len() {
            let mut damaged = frame.clone();
            damaged[at] = !damaged[at];
            describe(&damaged);
            faults(&damaged);
        }
    }
}
