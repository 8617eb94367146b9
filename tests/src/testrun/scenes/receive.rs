//! What arrives in a tunnel and how a pod gets it.

use anyhow::Result;
use slice_common::drop_reason::DropReason;
use slice_common::layout::Direction;

use super::{on_wire, to_pod, tunnel_in};
use crate::packet::{Checksum, Ipv4, Tcp, Udp, Vxlan};
use crate::testrun::actors::*;
use crate::testrun::{Expected, Program, World};

/// As it travels.
fn from_kafka_1() -> Ipv4 {
    Ipv4::between(KAFKA_1, KAFKA_0.slice_address)
}

/// As the pod gets it.
fn delivered(packet: Ipv4) -> Ipv4 {
    packet.destination(KAFKA_0.pod_address)
}

/// Receives a tunnel packet of class 3 from `west-1` and expects `seen` in `kafka-0`.
fn arrives_as(world: &mut World, scene: &str, tunnel: &Vxlan, seen: &Ipv4) -> Result<()> {
    let bytes = seen.build().len();
    world
        .send(scene, Program::UnderlayIngress, NIC, on_wire(tunnel))
        .expect(Expected::redirected(&to_pod(&KAFKA_0, seen)).counted(
            KAFKA.id,
            "west",
            3,
            Direction::In,
            bytes,
        ))
}

/// The segment size is lowered on both ends: the far one may not know this path's MTU.
pub(super) fn syn_from_a_remote_broker(world: &mut World) -> Result<()> {
    let syn = |mss| from_kafka_1().tcp(Tcp::new(40_000, 9092).syn().mss(mss).timestamps(3, 0));
    let tunnel = tunnel_in(WEST_1, KAFKA.id, 3, &syn(1460));
    arrives_as(world, "SYN arrives", &tunnel, &delivered(syn(1410)))
}

/// RFC 6040, figure 4: by inner and outer code point, what the pod sees.
pub(super) fn all_sixteen_congestion_combinations(world: &mut World) -> Result<()> {
    const NOT: u8 = 0;
    const ECT_1: u8 = 1;
    const ECT_0: u8 = 2;
    const CE: u8 = 3;
    // Outer: not capable, ECT(1), ECT(0), congestion experienced.
    let table = [
        (NOT, [Some(NOT), Some(NOT), Some(NOT), None]),
        (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
        (ECT_0, [Some(ECT_0), Some(ECT_1), Some(ECT_0), Some(CE)]),
        (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
    ];
    for (inner, row) in table {
        for (outer, seen) in [NOT, ECT_1, ECT_0, CE].into_iter().zip(row) {
            let scene = format!("inner ECN {inner}, outer {outer}");
            let packet = from_kafka_1()
                .dscp(46)
                .ecn(inner)
                .tcp(Tcp::new(40_000, 9092).ack());
            let tunnel = tunnel_in(WEST_1, KAFKA.id, 3, &packet).outer(|ip| ip.dscp(18).ecn(outer));
            match seen {
                Some(ecn) => arrives_as(world, &scene, &tunnel, &delivered(packet).ecn(ecn))?,
                None => world
                    .send(scene, Program::UnderlayIngress, NIC, on_wire(&tunnel))
                    .expect(Expected::dropped(KAFKA.id, DropReason::EcnNotCapable))?,
            }
        }
    }
    Ok(())
}

pub(super) fn class_is_counted_as_the_tunnel_says(world: &mut World) -> Result<()> {
    let packet = from_kafka_1().tcp(Tcp::new(40_000, 9092).ack());
    for class in 0..8 {
        let tunnel = tunnel_in(WEST_1, KAFKA.id, class, &packet);
        let frame = to_pod(&KAFKA_0, &delivered(packet.clone()));
        world
            .send(
                format!("class {class}"),
                Program::UnderlayIngress,
                NIC,
                on_wire(&tunnel),
            )
            .expect(Expected::redirected(&frame).counted(
                KAFKA.id,
                "west",
                class,
                Direction::In,
                40,
            ))?;
    }
    Ok(())
}

pub(super) fn datagram_arrives_without_checksum(world: &mut World) -> Result<()> {
    for checksum in [Checksum::Absent, Checksum::Right] {
        let datagram =
            from_kafka_1().udp(Udp::new(6000, 5201).checksum(checksum).data(vec![7; 100]));
        let answer = reply_record(KAFKA.id, [KAFKA_0.slice_address, KAFKA_1], [5201, 6000], 17);
        let tunnel = tunnel_in(WEST_1, KAFKA.id, 0, &datagram);
        let frame = to_pod(&KAFKA_0, &delivered(datagram));
        world.reset()?;
        world
            .send("datagram", Program::UnderlayIngress, NIC, on_wire(&tunnel))
            .expect(
                Expected::redirected(&frame)
                    .counted(KAFKA.id, "west", 0, Direction::In, 128)
                    .remembered(answer),
            )?;
    }
    Ok(())
}

/// A middlebox may insist on one; what it says about the outer packet is not carried inside.
pub(super) fn outer_checksum_is_no_obstacle(world: &mut World) -> Result<()> {
    let packet = from_kafka_1().tcp(Tcp::new(40_000, 9092).ack().data(vec![5; 33]));
    let tunnel = tunnel_in(WEST_1, KAFKA.id, 3, &packet).udp_checksum(Checksum::Right);
    arrives_as(world, "outer checksum", &tunnel, &delivered(packet))
}

pub(super) fn native_destination_is_not_mapped(world: &mut World) -> Result<()> {
    let packet = Ipv4::between(NATIVE_1, NATIVE_0.pod_address).tcp(Tcp::new(40_000, 80).ack());
    let tunnel = tunnel_in(WEST_1, NATIVE.id, 0, &packet);
    let frame = to_pod(&NATIVE_0, &packet);
    world
        .send("native", Program::UnderlayIngress, NIC, on_wire(&tunnel))
        .expect(Expected::redirected(&frame).counted(NATIVE.id, "west", 0, Direction::In, 40))
}

pub(super) fn packet_with_ip_options_arrives(world: &mut World) -> Result<()> {
    let packet = from_kafka_1()
        .options(&[0x94, 4, 0, 0])
        .tcp(Tcp::new(40_000, 9092).ack());
    let tunnel = tunnel_in(WEST_1, KAFKA.id, 3, &packet);
    arrives_as(world, "IPv4 options", &tunnel, &delivered(packet))
}
