//! What a slice pod sends to its slice and how it leaves.

use anyhow::Result;
use slice_common::layout::Direction;

use super::{from_pod, to_pod, tunnel_out};
use crate::packet::{Checksum, Icmp, Ipv4, Tcp, Udp};
use crate::testrun::actors::*;
use crate::testrun::{Expected, Program, World};

const TO_BROKER: [u16; 2] = [40_000, 9092];

/// As the pod sends it.
fn to_kafka_1() -> Ipv4 {
    Ipv4::between(KAFKA_0.pod_address, KAFKA_1)
}

/// As it travels.
fn mapped(packet: Ipv4) -> Ipv4 {
    packet.source(KAFKA_0.slice_address)
}

fn client_syn() -> Tcp {
    Tcp::new(40_000, 9092).syn()
}

/// Sends from `kafka-0` to `kafka-1` and expects `inner` in a tunnel of the client class.
fn leaves_as(world: &mut World, scene: &str, sent: &Ipv4, inner: &Ipv4) -> Result<()> {
    let frame = tunnel_out(WEST_1, KAFKA.id, CLIENT, inner, TO_BROKER);
    world
        .send(scene, Program::PodEgress, KAFKA_0.device, from_pod(sent))
        .expect(Expected::redirected(&frame).counted(
            KAFKA.id,
            "west",
            CLIENT.0,
            Direction::Out,
            inner.build().len(),
        ))
}

pub(super) fn syn_to_a_remote_broker(world: &mut World) -> Result<()> {
    let sent = to_kafka_1().tcp(client_syn().mss(1460).timestamps(1, 0));
    let inner = mapped(to_kafka_1().tcp(client_syn().mss(1410).timestamps(1, 0)));
    leaves_as(world, "SYN to a remote broker", &sent, &inner)
}

/// The rule is for the way to the broker; the answer rests on its mirror image.
pub(super) fn answer_of_a_broker_to_a_client(world: &mut World) -> Result<()> {
    let answer = |mss| {
        Ipv4::between(KAFKA_0.pod_address, ANALYTICS_0)
            .tcp(Tcp::new(9092, 40_000).syn().ack().mss(mss))
    };
    let inner = mapped(answer(1410));
    let frame = tunnel_out(WEST_1, KAFKA.id, CLIENT, &inner, [9092, 40_000]);
    world
        .send(
            "broker answers",
            Program::PodEgress,
            KAFKA_0.device,
            from_pod(&answer(1460)),
        )
        .expect(Expected::redirected(&frame).counted(
            KAFKA.id,
            "west",
            CLIENT.0,
            Direction::Out,
            inner.build().len(),
        ))
}

pub(super) fn data_of_an_open_connection(world: &mut World) -> Result<()> {
    let data = to_kafka_1().tcp(
        Tcp::new(40_000, 9092)
            .ack()
            .timestamps(9, 8)
            .data(vec![0xab; 999]),
    );
    leaves_as(world, "data", &data, &mapped(data.clone()))
}

/// 0 means "no checksum" and must not turn into one.
pub(super) fn datagram_without_checksum(world: &mut World) -> Result<()> {
    for checksum in [Checksum::Absent, Checksum::Right] {
        let datagram = to_kafka_1().udp(Udp::new(6000, 5201).checksum(checksum).data(vec![7; 100]));
        let inner = mapped(datagram.clone());
        let frame = tunnel_out(WEST_1, KAFKA.id, (0, 0), &inner, [6000, 5201]);
        let answer = reply_record(KAFKA.id, [KAFKA_1, KAFKA_0.slice_address], [5201, 6000], 17);
        world.reset()?;
        world
            .send(
                "datagram",
                Program::PodEgress,
                KAFKA_0.device,
                from_pod(&datagram),
            )
            .expect(
                Expected::redirected(&frame)
                    .counted(KAFKA.id, "west", 0, Direction::Out, 128)
                    .remembered(answer),
            )?;
    }
    Ok(())
}

/// ICMP knows no addresses: only the IPv4 header changes.
pub(super) fn echo_to_a_remote_broker(world: &mut World) -> Result<()> {
    let echo = to_kafka_1().icmp(Icmp::echo_request(0x1234, 1).data(vec![1; 56]));
    let frame = tunnel_out(WEST_1, KAFKA.id, (0, 0), &mapped(echo.clone()), [0x1234, 0]);
    let answer = reply_record(KAFKA.id, [KAFKA_1, KAFKA_0.slice_address], [0x1234, 0], 1);
    world
        .send("ping", Program::PodEgress, KAFKA_0.device, from_pod(&echo))
        .expect(
            Expected::redirected(&frame)
                .counted(KAFKA.id, "west", 0, Direction::Out, 84)
                .remembered(answer),
        )
}

pub(super) fn packet_with_ip_options(world: &mut World) -> Result<()> {
    // Router alert, and one word of padding.
    let options = [0x94, 0x04, 0, 0, 1, 1, 1, 0];
    let packet = |mss| to_kafka_1().options(&options).tcp(client_syn().mss(mss));
    leaves_as(world, "IPv4 options", &packet(1460), &mapped(packet(1410)))
}

pub(super) fn largest_segment_size_at_an_odd_place(world: &mut World) -> Result<()> {
    let packet = |mss| to_kafka_1().tcp(client_syn().no_operation().mss(mss).timestamps(5, 0));
    leaves_as(
        world,
        "MSS at an odd place",
        &packet(8960),
        &mapped(packet(1410)),
    )
}

pub(super) fn largest_segment_size_of_a_narrow_path(world: &mut World) -> Result<()> {
    let packet = |mss| Ipv4::between(KAFKA_0.pod_address, KAFKA_2).tcp(client_syn().mss(mss));
    let inner = mapped(packet(910));
    let frame = tunnel_out(EDGE_1, KAFKA.id, CLIENT, &inner, TO_BROKER);
    world
        .send(
            "narrow path",
            Program::PodEgress,
            KAFKA_0.device,
            from_pod(&packet(1460)),
        )
        .expect(Expected::redirected(&frame).counted(
            KAFKA.id,
            "edge",
            CLIENT.0,
            Direction::Out,
            44,
        ))
}

pub(super) fn small_segment_size_is_left_alone(world: &mut World) -> Result<()> {
    let fits = to_kafka_1().tcp(client_syn().mss(1410));
    leaves_as(world, "MSS that fits", &fits, &mapped(fits.clone()))?;
    let none = to_kafka_1().tcp(client_syn());
    leaves_as(world, "no MSS", &none, &mapped(none.clone()))?;
    // Behind "end of options" there are no options.
    let hidden = to_kafka_1().tcp(client_syn().option(&[0, 0, 0, 0, 2, 4, 0x23, 0]));
    leaves_as(
        world,
        "MSS behind the end",
        &hidden,
        &mapped(hidden.clone()),
    )
}

pub(super) fn outer_congestion_bits_are_the_inner_ones(world: &mut World) -> Result<()> {
    for ecn in 0..4 {
        let packet = to_kafka_1()
            .ecn(ecn)
            .dscp(46)
            .tcp(Tcp::new(40_000, 9092).ack());
        leaves_as(
            world,
            &format!("ECN {ecn}"),
            &packet,
            &mapped(packet.clone()),
        )?;
    }
    Ok(())
}

/// Both names are mapped at once, and there is no tunnel.
pub(super) fn pod_to_pod_on_one_node(world: &mut World) -> Result<()> {
    let sent =
        Ipv4::between(ANALYTICS_2.pod_address, KAFKA_0.slice_address).tcp(client_syn().mss(1460));
    let seen = sent
        .clone()
        .source(ANALYTICS_2.slice_address)
        .destination(KAFKA_0.pod_address);
    world
        .send(
            "same node",
            Program::PodEgress,
            ANALYTICS_2.device,
            from_pod(&sent),
        )
        .expect(Expected::redirected(&to_pod(&KAFKA_0, &seen)).counted(
            KAFKA.id,
            EAST,
            CLIENT.0,
            Direction::Local,
            44,
        ))
}

/// A KRaft broker talks to itself by the name that it gives to others; no rule is needed.
pub(super) fn pod_to_its_own_slice_address(world: &mut World) -> Result<()> {
    world.set_policy(&[])?;
    let sent =
        Ipv4::between(KAFKA_0.pod_address, KAFKA_0.slice_address).tcp(Tcp::new(40_000, 9091).syn());
    let seen = sent
        .clone()
        .source(KAFKA_0.slice_address)
        .destination(KAFKA_0.pod_address);
    world
        .send(
            "to itself",
            Program::PodEgress,
            KAFKA_0.device,
            from_pod(&sent),
        )
        .expect(Expected::redirected(&to_pod(&KAFKA_0, &seen)).counted(
            KAFKA.id,
            EAST,
            REPLICATION.0,
            Direction::Local,
            40,
        ))
}

pub(super) fn native_addresses_are_not_mapped(world: &mut World) -> Result<()> {
    let packet = Ipv4::between(NATIVE_0.pod_address, NATIVE_1).tcp(Tcp::new(40_000, 80).ack());
    let frame = tunnel_out(WEST_1, NATIVE.id, (0, 0), &packet, [40_000, 80]);
    world
        .send(
            "native",
            Program::PodEgress,
            NATIVE_0.device,
            from_pod(&packet),
        )
        .expect(Expected::redirected(&frame).counted(NATIVE.id, "west", 0, Direction::Out, 40))
}
