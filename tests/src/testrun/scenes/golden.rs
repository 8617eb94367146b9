//! Two packets in full, byte by byte: they freeze the wire format, which peers of other versions rely
//! on. Everything else is compared with packets from the builder.

use anyhow::Result;
use slice_common::layout::Direction;

use super::{from_pod, on_wire, tunnel_in};
use crate::packet::{Ipv4, Tcp};
use crate::testrun::actors::*;
use crate::testrun::{Expected, Program, World};

/// A SYN from kafka-0 (east-1) to port 9092 of kafka-1 (west-1), sent with an MSS of 1460.
#[rustfmt::skip]
const ENCAPSULATED: [u8; 108] = [
    0x0a, 0x00, 0x00, 0xff, 0x00, 0x00, 0x0a, 0x00, 0x00, 0x00, 0x01, 0x0a, // as the pod sent it
    0x08, 0x00,             // IPv4
    0x45, 0x4a, 0x00, 0x5e, // header of 20, DSCP 18 and ECT(0), 94 bytes in all
    0x00, 0x00, 0x40, 0x00, // identification 0, "don't fragment"
    0x40, 0x11, 0xdf, 0x06, // TTL 64, UDP, checksum
    0xac, 0x14, 0x01, 0x0b, // from 172.20.1.11
    0xac, 0x14, 0x02, 0x0b, // to 172.20.2.11
    0xc3, 0xc1, 0x17, 0xc5, // from 0xc000 and 14 bits of the flow's hash, to port 6085
    0x00, 0x4a, 0x00, 0x00, // 74 bytes, no checksum
    0x08, 0x00, 0x00, 0x00, // VXLAN: the VNI is valid
    0x00, 0x00, 0x3b, 0x00, // slice 7, class 3
    0x02, 0x53, 0x4c, 0x50, 0x00, 0x02, 0x02, 0x53, 0x4c, 0x50, 0x00, 0x01, // fixed addresses
    0x08, 0x00,             // IPv4
    0x45, 0x02, 0x00, 0x2c, // header of 20, ECT(0), 44 bytes in all
    0x00, 0x00, 0x40, 0x00, // identification 0, "don't fragment"
    0x40, 0x06, 0xe6, 0x2c, // TTL 64, TCP, checksum
    0x0a, 0x4d, 0x00, 0x02, // from 10.77.0.2: mapped
    0x0a, 0x4d, 0x40, 0x02, // to 10.77.64.2
    0x9c, 0x40, 0x23, 0x84, // from port 40000 to port 9092
    0x00, 0x00, 0x03, 0xe8, // sequence number
    0x00, 0x00, 0x00, 0x00, // acknowledgment number
    0x60, 0x02, 0xfa, 0x00, // header of 24, SYN, window
    0x86, 0x0d, 0x00, 0x00, // checksum of the mapped and clamped segment
    0x02, 0x04, 0x05, 0x82, // MSS 1410: 1500 less 50 and 40
];

/// The answer of kafka-1 as kafka-0 gets it.
#[rustfmt::skip]
const DECAPSULATED: [u8; 58] = [
    0x0a, 0x00, 0x00, 0x00, 0x01, 0x0a, 0x02, 0x53, 0x4c, 0x50, 0x00, 0x01, // to the pod's interface
    0x08, 0x00,             // IPv4
    0x45, 0x03, 0x00, 0x2c, // header of 20, "congestion experienced" from outside, 44 bytes in all
    0x00, 0x00, 0x40, 0x00, // identification 0, "don't fragment"
    0x40, 0x06, 0xe5, 0x6f, // TTL 64, TCP, checksum
    0x0a, 0x4d, 0x40, 0x02, // from 10.77.64.2
    0x0a, 0x01, 0x01, 0x0a, // to 10.1.1.10: mapped back
    0x23, 0x84, 0x9c, 0x40, // from port 9092 to port 40000
    0x00, 0x00, 0x03, 0xe8, // sequence number
    0x00, 0x00, 0x07, 0xd0, // acknowledgment number
    0x60, 0x12, 0xfa, 0x00, // header of 24, SYN and ACK, window
    0x7d, 0x71, 0x00, 0x00, // checksum of the mapped and clamped segment
    0x02, 0x04, 0x05, 0x82, // MSS 1410
];

pub(super) fn golden_encapsulation(world: &mut World) -> Result<()> {
    let syn = Ipv4::between(KAFKA_0.pod_address, KAFKA_1)
        .ecn(2)
        .tcp(Tcp::new(40_000, 9092).syn().mss(1460));
    world
        .send("golden", Program::PodEgress, KAFKA_0.device, from_pod(&syn))
        .expect(Expected::redirected(&ENCAPSULATED).counted(
            KAFKA.id,
            "west",
            CLIENT.0,
            Direction::Out,
            44,
        ))
}

pub(super) fn golden_decapsulation(world: &mut World) -> Result<()> {
    let answer = Ipv4::between(KAFKA_1, KAFKA_0.slice_address)
        .ecn(2)
        .tcp(Tcp::new(9092, 40_000).syn().ack().mss(1460));
    let tunnel = tunnel_in(WEST_1, KAFKA.id, CLIENT.0, &answer).outer(|outer| outer.ecn(3));
    world
        .send("golden", Program::UnderlayIngress, NIC, on_wire(&tunnel))
        .expect(Expected::redirected(&DECAPSULATED).counted(
            KAFKA.id,
            "west",
            CLIENT.0,
            Direction::In,
            44,
        ))
}
