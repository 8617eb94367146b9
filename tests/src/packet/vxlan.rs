//! VXLAN (RFC 7348): a whole Ethernet frame behind an outer IPv4 and UDP header.

use super::checksum::Checksum;
use super::ipv4::{Ipv4, Mac, ethernet};
use super::transport::Udp;

/// A tunnel packet as a peer builds it; sound unless told otherwise.
#[derive(Clone, Debug)]
pub struct Vxlan {
    outer: Ipv4,
    source_port: u16,
    destination_port: u16,
    flags: u8,
    reserved: [u8; 3],
    vni: u32,
    last: u8,
    udp_checksum: Checksum,
    inner_destination: Mac,
    inner_source: Mac,
    inner_ethertype: u16,
    cut_to_bytes: Option<usize>,
    inner: Vec<u8>,
}

impl Vxlan {
    /// A tunnel packet between two nodes, to port 6085, with VNI 0 and nothing inside.
    pub fn between(source: impl Into<[u8; 4]>, destination: impl Into<[u8; 4]>) -> Self {
        Self {
            outer: Ipv4::between(source, destination),
            source_port: 0xc000,
            destination_port: 6085,
            flags: 0x08,
            reserved: [0; 3],
            vni: 0,
            last: 0,
            udp_checksum: Checksum::Absent,
            // "SLP" among the locally administered addresses: what our nodes write.
            inner_destination: [0x02, 0x53, 0x4c, 0x50, 0x00, 0x02],
            inner_source: [0x02, 0x53, 0x4c, 0x50, 0x00, 0x01],
            inner_ethertype: 0x0800,
            cut_to_bytes: None,
            inner: Vec::new(),
        }
    }

    /// The network identifier as a slice and a class.
    pub fn slice(self, slice: u32, class: u8) -> Self {
        Self {
            vni: slice << 3 | u32::from(class),
            ..self
        }
    }

    pub fn source_port(self, source_port: u16) -> Self {
        Self {
            source_port,
            ..self
        }
    }

    pub fn destination_port(self, destination_port: u16) -> Self {
        Self {
            destination_port,
            ..self
        }
    }

    /// The flags byte; 0x08 says "the VNI is valid" and is the only one that we write.
    pub fn flags(self, flags: u8) -> Self {
        Self { flags, ..self }
    }

    /// The three reserved bytes after the flags.
    pub fn reserved(self, reserved: [u8; 3]) -> Self {
        Self { reserved, ..self }
    }

    /// The reserved byte after the VNI.
    pub fn last(self, last: u8) -> Self {
        Self { last, ..self }
    }

    /// UDP over IPv4 may go without; we do.
    pub fn udp_checksum(self, udp_checksum: Checksum) -> Self {
        Self {
            udp_checksum,
            ..self
        }
    }

    pub fn inner_ethertype(self, inner_ethertype: u16) -> Self {
        Self {
            inner_ethertype,
            ..self
        }
    }

    /// Changes the outer IPv4 header.
    pub fn outer(self, change: impl FnOnce(Ipv4) -> Ipv4) -> Self {
        Self {
            outer: change(self.outer),
            ..self
        }
    }

    /// Cuts the UDP payload short: a VXLAN header that is not all there.
    pub fn cut_to(self, bytes: usize) -> Self {
        Self {
            cut_to_bytes: Some(bytes),
            ..self
        }
    }

    /// What is inside.
    pub fn carry(self, inner: &Ipv4) -> Self {
        self.carry_bytes(inner.build())
    }

    /// As [`Vxlan::carry`], with any bytes behind the inner Ethernet header.
    pub fn carry_bytes(self, inner: impl Into<Vec<u8>>) -> Self {
        Self {
            inner: inner.into(),
            ..self
        }
    }

    /// The packet in an outer Ethernet frame.
    pub fn frame(&self, destination: Mac, source: Mac) -> Vec<u8> {
        let mut payload = vec![self.flags];
        payload.extend(self.reserved);
        payload.extend(&self.vni.to_be_bytes()[1..]);
        payload.push(self.last);
        let (to, from) = (self.inner_destination, self.inner_source);
        payload.extend(ethernet(to, from, self.inner_ethertype, &self.inner));
        payload.truncate(self.cut_to_bytes.unwrap_or(usize::MAX));
        let datagram = Udp::new(self.source_port, self.destination_port)
            .checksum(self.udp_checksum)
            .data(payload);
        self.outer.clone().udp(datagram).frame(destination, source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Tcp;

    #[test]
    fn a_tunnel_packet_is_fifty_bytes_longer_than_what_it_carries() {
        let inner = Ipv4::between([10, 77, 0, 2], [10, 77, 64, 2]).tcp(Tcp::new(1, 2).syn());
        let frame = Vxlan::between([172, 20, 1, 11], [172, 20, 2, 11])
            .slice(7, 2)
            .carry(&inner)
            .frame([0; 6], [0; 6]);
        assert_eq!(frame.len(), 14 + 50 + inner.build().len());
        assert_eq!(frame[42..50], [0x08, 0, 0, 0, 0, 0, 7 << 3 | 2, 0]);
        assert_eq!(frame[64..], inner.build());
    }
}
