//! Isolation level `Strict`: whom outside a pod may begin something with, and who may with it.

use anyhow::Result;
use slice_common::drop_reason::DropReason;
use slice_common::layout::{Endpoint, ReplyKey};

use super::{HOST_SIDE, POD_SIDE, from_pod};
use crate::packet::{Icmp, Ipv4, Ipv4Quote, Tcp, Udp, ethernet};
use crate::testrun::actors::*;
use crate::testrun::{Expected, Program, World};

/// From here on `kafka-0` is confined.
fn confine(world: &mut World) -> Result<()> {
    let ifindex = world.ifindex(KAFKA_0.device)?;
    let mut endpoint = world.endpoint(ifindex)?;
    endpoint.flags |= Endpoint::CONFINED;
    world.insert("ENDPOINTS", ifindex, endpoint)
}

fn to(destination: [u8; 4]) -> Ipv4 {
    Ipv4::between(KAFKA_0.pod_address, destination)
}

fn syn(port: u16) -> Tcp {
    Tcp::new(40_000, port).syn()
}

fn leaves(world: &mut World, what: &str, packet: &Ipv4) -> Result<()> {
    world
        .send(what, Program::PodEgress, KAFKA_0.device, from_pod(packet))
        .accepted()
}

fn stays(world: &mut World, what: &str, packet: &Ipv4) -> Result<()> {
    world
        .send(what, Program::PodEgress, KAFKA_0.device, from_pod(packet))
        .expect(Expected::dropped(KAFKA.id, DropReason::Confined))
}

fn arriving(packet: &Ipv4) -> Vec<u8> {
    packet.frame(KAFKA_0.mac, HOST_SIDE)
}

fn record(from: [u8; 4], to: [u8; 4], ports: [u16; 2], protocol: u32) -> ReplyKey {
    reply_record(ReplyKey::OUTSIDE, [from, to], ports, protocol)
}

/// The same packets leave before the pod is confined.
pub(super) fn drop_confined(world: &mut World) -> Result<()> {
    let packets = [
        ("SYN", to(STRANGER).tcp(syn(80))),
        ("SYN to a name server", to(NAME_SERVER).tcp(syn(80))),
        ("datagram", to(STRANGER).udp(Udp::new(5000, 80))),
        (
            "question to another server",
            to(STRANGER).udp(Udp::new(5000, 53)),
        ),
        ("ping", to(STRANGER).icmp(Icmp::echo_request(1, 1))),
        (
            "pong that nobody waits for",
            to(STRANGER).icmp(Icmp::echo_reply(1, 1)),
        ),
        (
            "beyond the named prefix",
            to([192, 0, 2, 128]).udp(Udp::new(123, 123)),
        ),
        (
            "under another name",
            to(STRANGER).source(INTERNET).udp(Udp::new(1, 2)),
        ),
        (
            "first part",
            to(STRANGER).udp(Udp::new(1, 2)).fragment(0, true),
        ),
        ("another protocol", to(STRANGER).raw(132, vec![0; 12])),
        ("a time request", to(CLOCK).icmp(Icmp::message(13, 0))),
        ("broadcast", to([255; 4]).udp(Udp::new(68, 67))),
    ];
    for (what, packet) in &packets {
        leaves(world, what, packet)?;
    }
    world.reset()?;
    confine(world)?;
    for (what, packet) in &packets {
        stays(world, what, packet)?;
    }
    Ok(())
}

pub(super) fn confined_pod_and_those_who_are_named(world: &mut World) -> Result<()> {
    confine(world)?;
    for (what, packet) in [
        ("its node", to(EAST_1).tcp(syn(6443))),
        (
            "its node, by datagram",
            to(EAST_1_POD_SIDE).udp(Udp::new(1, 2)),
        ),
        ("name server", to(NAME_SERVER).udp(Udp::new(5000, 53))),
        ("name server by TCP", to(NAME_SERVER).tcp(syn(53))),
        ("clock", to(CLOCK).udp(Udp::new(123, 123))),
        ("clock by echo", to(CLOCK).icmp(Icmp::echo_request(1, 1))),
        // As part of what others may begin.
        (
            "answer by TCP",
            to(STRANGER).tcp(Tcp::new(8443, 40_000).syn().ack()),
        ),
        ("data", to(STRANGER).tcp(Tcp::new(8443, 40_000).ack())),
        // Nothing without their first.
        (
            "later part",
            to(STRANGER).raw(17, vec![0; 8]).fragment(8, false),
        ),
        // Its slice is another matter.
        ("its slice", to(KAFKA_1).tcp(syn(9092))),
    ] {
        leaves(world, what, &packet)?;
    }
    // The answer is noted as ever.
    let question = from_pod(&to(NAME_SERVER).udp(Udp::new(6000, 53)));
    world
        .send(
            "question",
            Program::PodEgress,
            KAFKA_0.device,
            question.clone(),
        )
        .expect(Expected::untouched(&question).remembered(record(
            NAME_SERVER,
            KAFKA_0.pod_address,
            [53, 6000],
            17,
        )))?;
    let answer = arriving(&Ipv4::between(NAME_SERVER, KAFKA_0.pod_address).udp(Udp::new(53, 6000)));
    world
        .send(
            "answer",
            Program::PodIngress,
            KAFKA_0.device,
            answer.clone(),
        )
        .came_in_by(NIC)
        .expect(Expected::untouched(&answer))
}

/// Whom a rule lets in by datagram or echo is answered, and only then.
pub(super) fn confined_pod_answers_whom_it_must(world: &mut World) -> Result<()> {
    confine(world)?;
    let caller = [10, 1, 2, 77];
    let cases = [
        (
            Ipv4::between(STRANGER, KAFKA_0.pod_address).udp(Udp::new(5000, 4000)),
            to(STRANGER).udp(Udp::new(4000, 5000)),
            record(KAFKA_0.pod_address, STRANGER, [4000, 5000], 17),
            Some(record(STRANGER, KAFKA_0.pod_address, [5000, 4000], 17)),
        ),
        (
            Ipv4::between(caller, KAFKA_0.pod_address).icmp(Icmp::echo_request(9, 1)),
            to(caller).icmp(Icmp::echo_reply(9, 1)),
            record(KAFKA_0.pod_address, caller, [9, 0], 1),
            None,
        ),
    ];
    for (question, answer, noted, noted_of_answer) in cases {
        stays(world, "before", &answer)?;
        let question = arriving(&question);
        world
            .send(
                "question",
                Program::PodIngress,
                KAFKA_0.device,
                question.clone(),
            )
            .came_in_by(NIC)
            .expect(Expected::untouched(&question).remembered(noted))?;
        let answer = from_pod(&answer);
        let mut expected = Expected::untouched(&answer);
        if let Some(key) = noted_of_answer {
            expected = expected.remembered(key);
        }
        world
            .send("answer", Program::PodEgress, KAFKA_0.device, answer)
            .expect(expected)?;
    }
    let error = Icmp::port_unreachable(&Ipv4Quote::of(
        &Ipv4::between(STRANGER, KAFKA_0.pod_address).udp(Udp::new(5000, 4000)),
    ));
    leaves(world, "error", &to(STRANGER).icmp(error))
}

/// Whatever else could carry something is kept in, and out; who has an address may be asked.
pub(super) fn confined_pod_speaks_ipv4_only(world: &mut World) -> Result<()> {
    let ipv6 = |to, from| ethernet(to, from, 0x86dd, &[0x60; 60]);
    let tagged = |to, from| ethernet(to, from, 0x8100, &[0, 0, 0x08, 0x06, 0, 0]);
    let arp = |to, from| ethernet(to, from, 0x0806, &[0; 28]);
    for frame in [ipv6(HOST_SIDE, POD_SIDE), tagged(HOST_SIDE, POD_SIDE)] {
        world
            .send("control", Program::PodEgress, KAFKA_0.device, frame)
            .accepted()?;
    }
    world
        .send(
            "control",
            Program::PodIngress,
            KAFKA_0.device,
            ipv6(POD_SIDE, HOST_SIDE),
        )
        .accepted()?;
    confine(world)?;
    for frame in [ipv6(HOST_SIDE, POD_SIDE), tagged(HOST_SIDE, POD_SIDE)] {
        world
            .send("out", Program::PodEgress, KAFKA_0.device, frame)
            .expect(Expected::dropped(KAFKA.id, DropReason::Confined))?;
    }
    world
        .send(
            "in",
            Program::PodIngress,
            KAFKA_0.device,
            ipv6(POD_SIDE, HOST_SIDE),
        )
        .expect(Expected::dropped(KAFKA.id, DropReason::Isolated))?;
    for (program, frame) in [
        (Program::PodEgress, arp([0xff; 6], POD_SIDE)),
        (Program::PodIngress, arp(POD_SIDE, HOST_SIDE)),
    ] {
        world
            .send("who has it?", program, KAFKA_0.device, frame.clone())
            .expect(Expected::untouched(&frame))?;
    }
    Ok(())
}

/// At level `Slice` too.
pub(super) fn named_strangers_may_begin(world: &mut World) -> Result<()> {
    let from = |source| Ipv4::between(source, KAFKA_0.pod_address);
    let webhook = arriving(&from(STRANGER).tcp(syn(WEBHOOK_PORT)));
    world
        .send(
            "web hook",
            Program::PodIngress,
            KAFKA_0.device,
            webhook.clone(),
        )
        .came_in_by(NIC)
        .expect(Expected::untouched(&webhook))?;
    for (what, packet) in [
        ("another port", from(STRANGER).tcp(syn(8444))),
        ("somebody else", from(INTERNET).tcp(syn(WEBHOOK_PORT))),
        ("by datagram", from(STRANGER).udp(Udp::new(1, WEBHOOK_PORT))),
        ("whom the pod may call", from(CLOCK).udp(Udp::new(123, 124))),
        ("ping", from(STRANGER).icmp(Icmp::echo_request(1, 1))),
    ] {
        world
            .send(what, Program::PodIngress, KAFKA_0.device, arriving(&packet))
            .came_in_by(NIC)
            .expect(Expected::dropped(KAFKA.id, DropReason::Isolated))?;
    }
    // Another slice names nobody.
    let ifindex = world.ifindex(KAFKA_0.device)?;
    let mut endpoint = world.endpoint(ifindex)?;
    endpoint.slice = SHOP.id;
    world.insert("ENDPOINTS", ifindex, endpoint)?;
    world
        .send(
            "of another slice",
            Program::PodIngress,
            KAFKA_0.device,
            webhook,
        )
        .came_in_by(NIC)
        .expect(Expected::dropped(SHOP.id, DropReason::Isolated))
}
