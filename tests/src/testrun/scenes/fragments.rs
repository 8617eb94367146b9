//! Datagrams in parts: the first says for all who they are for.

use anyhow::Result;
use slice_common::drop_reason::DropReason;
use slice_common::layout::{Class, Direction, FirstFragment, FragmentKey};

use super::{from_pod, on_wire, to_pod, tunnel_in, tunnel_out};
use crate::packet::{Icmp, Ipv4, Tcp, Udp};
use crate::testrun::actors::*;
use crate::testrun::{Expected, Program, World};

const UDP: u8 = 17;
const NUMBER: u16 = 0x1234;

fn key(source: [u8; 4], destination: [u8; 4], protocol: u8) -> FragmentKey {
    FragmentKey {
        slice: KAFKA.id,
        source: address(source),
        destination: address(destination),
        identification: NUMBER.to_be(),
        protocol,
        reserved: 0,
    }
}

fn first(ports: [u16; 2], (class, dscp): (u8, u8)) -> FirstFragment {
    FirstFragment {
        source_port: ports[0].to_be(),
        destination_port: ports[1].to_be(),
        class: Class {
            class,
            dscp,
            reserved: 0,
        },
    }
}

fn between(from: [u8; 4], to: [u8; 4]) -> Ipv4 {
    Ipv4::between(from, to).identification(NUMBER)
}

/// A later part of 40 bytes.
fn later(packet: Ipv4, protocol: u8) -> Ipv4 {
    packet.raw(protocol, vec![3; 40]).fragment(1424, false)
}

/// All parts travel with the first one's ports in the outer header, and in its class. Data of an open
/// connection, so that nothing but the fragment is noted.
pub(super) fn parts_leave_alike(world: &mut World) -> Result<()> {
    let ports = [40_000, 9092];
    let data = |ip: Ipv4| {
        let segment = Tcp::new(ports[0], ports[1]).ack().data(vec![1; 1404]);
        ip.tcp(segment).fragment(0, true)
    };
    let (pod, seen_as) = (KAFKA_0.pod_address, KAFKA_0.slice_address);
    let inner = data(between(seen_as, KAFKA_1));
    let frame = tunnel_out(WEST_1, KAFKA.id, CLIENT, &inner, ports);
    world
        .send(
            "first",
            Program::PodEgress,
            KAFKA_0.device,
            from_pod(&data(between(pod, KAFKA_1))),
        )
        .expect(
            Expected::redirected(&frame)
                .counted(KAFKA.id, "west", CLIENT.0, Direction::Out, 1444)
                .noted(key(seen_as, KAFKA_1, 6), first(ports, CLIENT)),
        )?;
    let inner = later(between(seen_as, KAFKA_1), 6);
    let frame = tunnel_out(WEST_1, KAFKA.id, CLIENT, &inner, ports);
    let sent = later(between(pod, KAFKA_1), 6);
    world
        .send("later", Program::PodEgress, KAFKA_0.device, from_pod(&sent))
        .expect(Expected::redirected(&frame).counted(
            KAFKA.id,
            "west",
            CLIENT.0,
            Direction::Out,
            60,
        ))
}

pub(super) fn parts_arrive(world: &mut World) -> Result<()> {
    let (pod, known_as) = (KAFKA_0.pod_address, KAFKA_0.slice_address);
    let echo = |ip: Ipv4| {
        ip.icmp(Icmp::echo_reply(9, 1).data(vec![1; 1400]))
            .fragment(0, true)
    };
    let tunnel = |inner: &Ipv4| on_wire(&tunnel_in(WEST_1, KAFKA.id, 3, inner));
    let question = Ipv4::between(pod, KAFKA_1).icmp(Icmp::echo_request(9, 1));
    world
        .send(
            "question",
            Program::PodEgress,
            KAFKA_0.device,
            from_pod(&question),
        )
        .accepted()?;
    world
        .send(
            "first",
            Program::UnderlayIngress,
            NIC,
            tunnel(&echo(between(KAFKA_1, known_as))),
        )
        .expect(
            Expected::redirected(&to_pod(&KAFKA_0, &echo(between(KAFKA_1, pod))))
                .counted(KAFKA.id, "west", 3, Direction::In, 1428)
                .noted(key(KAFKA_1, known_as, 1), first([9, 0], (3, 0))),
        )?;
    let inner = later(between(KAFKA_1, known_as), 1);
    let seen = later(between(KAFKA_1, pod), 1);
    world
        .send("later", Program::UnderlayIngress, NIC, tunnel(&inner))
        .expect(Expected::redirected(&to_pod(&KAFKA_0, &seen)).counted(
            KAFKA.id,
            "west",
            3,
            Direction::In,
            60,
        ))
}

pub(super) fn parts_stay_on_their_node(world: &mut World) -> Result<()> {
    let (from, to) = (&ANALYTICS_2, &KAFKA_0);
    let first = between(from.pod_address, to.slice_address)
        .udp(Udp::new(6000, 5201).data(vec![1; 1416]))
        .fragment(0, true);
    world
        .send("first", Program::PodEgress, from.device, from_pod(&first))
        .accepted()?;
    let sent = later(between(from.pod_address, to.slice_address), UDP);
    let seen = later(between(from.slice_address, to.pod_address), UDP);
    world
        .send("later", Program::PodEgress, from.device, from_pod(&sent))
        .expect(Expected::redirected(&to_pod(to, &seen)).counted(
            KAFKA.id,
            EAST,
            0,
            Direction::Local,
            60,
        ))
}

/// On both ends.
pub(super) fn what_is_denied_to_the_first_is_denied_to_all(world: &mut World) -> Result<()> {
    let (pod, slice) = (KAFKA_0.pod_address, KAFKA_0.slice_address);
    let first = |ip: Ipv4| {
        ip.udp(Udp::new(6000, 5202).data(vec![1; 64]))
            .fragment(0, true)
    };
    let denied = Expected::dropped(KAFKA.id, DropReason::PolicyDenied);
    let orphan = Expected::dropped(KAFKA.id, DropReason::Fragment);
    let tunnel = |inner: &Ipv4| on_wire(&tunnel_in(WEST_1, KAFKA.id, 3, inner));
    let leaving = first(between(pod, KAFKA_1));
    world
        .send(
            "first",
            Program::PodEgress,
            KAFKA_0.device,
            from_pod(&leaving),
        )
        .expect(denied.clone())?;
    let leaving = later(between(pod, KAFKA_1), UDP);
    world
        .send(
            "later",
            Program::PodEgress,
            KAFKA_0.device,
            from_pod(&leaving),
        )
        .expect(orphan.clone())?;
    let arriving = first(between(KAFKA_1, slice));
    world
        .send("first", Program::UnderlayIngress, NIC, tunnel(&arriving))
        .expect(denied)?;
    let arriving = later(between(KAFKA_1, slice), UDP);
    world
        .send("later", Program::UnderlayIngress, NIC, tunnel(&arriving))
        .expect(orphan)
}
