//! UDP and echo have no connections: an answer needs the record that its question left.

use anyhow::Result;
use slice_common::drop_reason::DropReason;
use slice_common::layout::Direction;

use super::{from_pod, on_wire, tunnel_in, tunnel_out};
use crate::packet::{Icmp, Ipv4, Udp};
use crate::testrun::actors::*;
use crate::testrun::{Expected, Program, World};

fn to_client(packet: fn(Ipv4) -> Ipv4) -> Ipv4 {
    packet(Ipv4::between(KAFKA_0.pod_address, ANALYTICS_0))
}

fn from_client(packet: fn(Ipv4) -> Ipv4) -> Vec<u8> {
    let inner = packet(Ipv4::between(ANALYTICS_0, KAFKA_0.slice_address));
    on_wire(&tunnel_in(WEST_1, KAFKA.id, 0, &inner))
}

/// No rule lets a broker talk to a client; the client's question does.
fn answer_needs_question(
    world: &mut World,
    question: fn(Ipv4) -> Ipv4,
    answer: fn(Ipv4) -> Ipv4,
    ports: [u16; 2],
) -> Result<()> {
    let sent = to_client(answer);
    world
        .send(
            "answer without question",
            Program::PodEgress,
            KAFKA_0.device,
            from_pod(&sent),
        )
        .expect(Expected::dropped(KAFKA.id, DropReason::PolicyDenied))?;
    world
        .send(
            "question",
            Program::UnderlayIngress,
            NIC,
            from_client(question),
        )
        .accepted()?;
    let inner = sent.clone().source(KAFKA_0.slice_address);
    let frame = tunnel_out(WEST_1, KAFKA.id, (0, 0), &inner, ports);
    world
        .send(
            "answer",
            Program::PodEgress,
            KAFKA_0.device,
            from_pod(&sent),
        )
        .expect(Expected::redirected(&frame).counted(
            KAFKA.id,
            "west",
            0,
            Direction::Out,
            inner.build().len(),
        ))
}

pub(super) fn datagram_answer_needs_a_question(world: &mut World) -> Result<()> {
    answer_needs_question(
        world,
        |ip| ip.udp(Udp::new(6000, 5201)),
        |ip| ip.udp(Udp::new(5201, 6000)),
        [5201, 6000],
    )
}

pub(super) fn echo_answer_needs_a_question(world: &mut World) -> Result<()> {
    answer_needs_question(
        world,
        |ip| ip.icmp(Icmp::echo_request(9, 1)),
        |ip| ip.icmp(Icmp::echo_reply(9, 1)),
        [9, 0],
    )
}

/// Whoever was pinged may answer, not ping back, even with the same identifier.
pub(super) fn echo_request_is_no_answer(world: &mut World) -> Result<()> {
    let question: fn(Ipv4) -> Ipv4 = |ip| ip.icmp(Icmp::echo_request(9, 1));
    world
        .send(
            "question",
            Program::UnderlayIngress,
            NIC,
            from_client(question),
        )
        .accepted()?;
    let ping_back = from_pod(&to_client(question));
    world
        .send("ping back", Program::PodEgress, KAFKA_0.device, ping_back)
        .expect(Expected::dropped(KAFKA.id, DropReason::PolicyDenied))
}

/// A record is written anew only when a good part of its life is gone.
pub(super) fn busy_exchange_is_noted_once(world: &mut World) -> Result<()> {
    let question: fn(Ipv4) -> Ipv4 = |ip| ip.udp(Udp::new(6000, 5201));
    world
        .send(
            "first",
            Program::UnderlayIngress,
            NIC,
            from_client(question),
        )
        .accepted()?;
    let seen = question(Ipv4::between(ANALYTICS_0, KAFKA_0.pod_address));
    let frame = super::to_pod(&KAFKA_0, &seen);
    world
        .send(
            "second",
            Program::UnderlayIngress,
            NIC,
            from_client(question),
        )
        .expect(Expected::redirected(&frame).counted(KAFKA.id, "west", 0, Direction::In, 28))
}

pub(super) fn answer_to_another_port_is_denied(world: &mut World) -> Result<()> {
    let question: fn(Ipv4) -> Ipv4 = |ip| ip.udp(Udp::new(6000, 5201));
    world
        .send(
            "question",
            Program::UnderlayIngress,
            NIC,
            from_client(question),
        )
        .accepted()?;
    for answer in [Udp::new(5201, 6001), Udp::new(5202, 6000)] {
        let sent = Ipv4::between(KAFKA_0.pod_address, ANALYTICS_0).udp(answer);
        world
            .send(
                "another port",
                Program::PodEgress,
                KAFKA_0.device,
                from_pod(&sent),
            )
            .expect(Expected::dropped(KAFKA.id, DropReason::PolicyDenied))?;
    }
    Ok(())
}
