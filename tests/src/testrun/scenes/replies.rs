//! UDP and echo have no connections: an answer needs the record that its question left.

use anyhow::Result;
use slice_common::drop_reason::DropReason;
use slice_common::layout::{Direction, NewExchangesKey};
use slice_common::reply;

use super::{from_pod, on_wire, tunnel_in, tunnel_out};
use crate::packet::{Icmp, Ipv4, Tcp, Udp};
use crate::testrun::actors::*;
use crate::testrun::exchange::kernel_time_ns;
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

/// From here on the pod has its share of new exchanges for the next minute behind it.
fn exhaust(world: &mut World, beginner: NewExchangesKey) -> Result<()> {
    let minute_ns = 60_000_000_000;
    let due_ns = kernel_time_ns()? + reply::NEW_AT_ONCE * 1_000_000_000 / reply::NEW_PER_SECOND;
    world.insert("NEW_EXCHANGES", beginner, due_ns + minute_ns)
}

/// To its slice and to the outside alike; what goes on goes on, and so do connections and other pods.
pub(super) fn drop_too_many_exchanges(world: &mut World) -> Result<()> {
    let pod = KAFKA_0.pod_address;
    let datagram = |from, to, port| from_pod(&Ipv4::between(from, to).udp(Udp::new(port, 5201)));
    let ping = |to, id| from_pod(&Ipv4::between(pod, to).icmp(Icmp::echo_request(id, 1)));
    let refused = Expected::dropped(KAFKA.id, DropReason::TooManyExchanges);
    let known = [datagram(pod, KAFKA_1, 6000), datagram(pod, STRANGER, 6000)];
    for frame in &known {
        world
            .send("control", Program::PodEgress, KAFKA_0.device, frame.clone())
            .accepted()?;
    }
    let beginner = NewExchangesKey::of(world.ifindex(KAFKA_0.device)?);
    exhaust(world, beginner)?;
    for (what, frame) in [
        ("datagram", datagram(pod, KAFKA_1, 6001)),
        ("ping", ping(KAFKA_1, 7)),
        ("datagram to the outside", datagram(pod, STRANGER, 6001)),
        ("ping to the outside", ping(STRANGER, 7)),
    ] {
        world
            .send(what, Program::PodEgress, KAFKA_0.device, frame)
            .expect(refused.clone())?;
    }
    for frame in known {
        world
            .send("goes on", Program::PodEgress, KAFKA_0.device, frame)
            .accepted()?;
    }
    let connection = Ipv4::between(pod, KAFKA_1).tcp(Tcp::new(40_000, 9092).syn());
    world
        .send(
            "a connection",
            Program::PodEgress,
            KAFKA_0.device,
            from_pod(&connection),
        )
        .accepted()?;
    let from_peer = from_client(|ip| ip.udp(Udp::new(6002, 5201)));
    world
        .send(
            "what a peer begins",
            Program::UnderlayIngress,
            NIC,
            from_peer,
        )
        .accepted()?;
    world
        .send(
            "another pod",
            Program::PodEgress,
            ANALYTICS_2.device,
            datagram(ANALYTICS_2.pod_address, STRANGER, 6001),
        )
        .accepted()?;
    // The share grows back.
    let due_ns = kernel_time_ns()?;
    world.insert("NEW_EXCHANGES", beginner, due_ns)?;
    world
        .send(
            "later",
            Program::PodEgress,
            KAFKA_0.device,
            datagram(pod, KAFKA_1, 6001),
        )
        .accepted()
}

/// What strangers begin with a pod is counted apart: they cannot use up what the pod may begin.
pub(super) fn others_may_begin_so_many_with_a_pod(world: &mut World) -> Result<()> {
    let question = |port| {
        let packet = Ipv4::between(STRANGER, KAFKA_0.pod_address).udp(Udp::new(port, 4000));
        packet.frame(KAFKA_0.mac, super::HOST_SIDE)
    };
    world
        .send("control", Program::PodIngress, KAFKA_0.device, question(1))
        .came_in_by(NIC)
        .accepted()?;
    let ifindex = world.ifindex(KAFKA_0.device)?;
    exhaust(world, NewExchangesKey::at(ifindex))?;
    world
        .send("one more", Program::PodIngress, KAFKA_0.device, question(2))
        .came_in_by(NIC)
        .expect(Expected::dropped(KAFKA.id, DropReason::TooManyExchanges))?;
    world
        .send("goes on", Program::PodIngress, KAFKA_0.device, question(1))
        .came_in_by(NIC)
        .accepted()?;
    // Answers are no questions, and the node gets what it is sent.
    exhaust(world, NewExchangesKey::of(ifindex))?;
    let answer = Ipv4::between(KAFKA_0.pod_address, STRANGER).udp(Udp::new(4000, 1));
    let to_node = Ipv4::between(KAFKA_0.pod_address, EAST_1).udp(Udp::new(53, 6000));
    for (what, packet) in [("an answer", answer), ("to the node", to_node)] {
        world
            .send(what, Program::PodEgress, KAFKA_0.device, from_pod(&packet))
            .accepted()?;
    }
    world.insert("NEW_EXCHANGES", NewExchangesKey::of(ifindex), 0_u64)?;
    let own = Ipv4::between(KAFKA_0.pod_address, STRANGER).udp(Udp::new(6000, 53));
    world
        .send(
            "the pod's own",
            Program::PodEgress,
            KAFKA_0.device,
            from_pod(&own),
        )
        .accepted()
}
