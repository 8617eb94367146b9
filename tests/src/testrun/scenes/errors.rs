//! ICMP errors between slice pods: each end reads of its own packet under the names that it used.

use anyhow::Result;
use slice_common::drop_reason::DropReason;
use slice_common::layout::Direction;

use super::{from_pod, on_wire, to_pod, tunnel_in, tunnel_out};
use crate::packet::{Checksum, Icmp, Ipv4, Ipv4Quote, Tcp, Udp};
use crate::testrun::actors::*;
use crate::testrun::{Expected, Program, World};

const NO_PORTS: [u16; 2] = [0, 0];
const ERROR_BYTES: usize = 20 + 8 + 28;

fn syn(from: [u8; 4], to: [u8; 4]) -> Ipv4 {
    Ipv4::between(from, to).tcp(Tcp::new(40_000, 9092).syn())
}

/// UDP that has no checksum, so that its quote is the same under all names.
fn datagram(from: [u8; 4], to: [u8; 4], ports: [u16; 2]) -> Ipv4 {
    let udp = Udp::new(ports[0], ports[1]).checksum(Checksum::Absent);
    Ipv4::between(from, to).udp(udp)
}

fn echo(from: [u8; 4], to: [u8; 4]) -> Ipv4 {
    Ipv4::between(from, to).icmp(Icmp::echo_request(7, 1))
}

fn error(from: [u8; 4], to: [u8; 4], about: &Ipv4) -> Ipv4 {
    Ipv4::between(from, to).icmp(Icmp::port_unreachable(&Ipv4Quote::of(about)))
}

/// Rests on the rule for the quoted packet, and goes in its class.
pub(super) fn pod_tells_a_remote_sender(world: &mut World) -> Result<()> {
    let pod = KAFKA_0.pod_address;
    let seen_as = KAFKA_0.slice_address;
    let cases: [(Ipv4, Ipv4, (u8, u8)); 3] = [
        (syn(KAFKA_1, pod), syn(KAFKA_1, seen_as), CLIENT),
        (
            datagram(KAFKA_1, pod, [6000, 5201]),
            datagram(KAFKA_1, seen_as, [6000, 5201]),
            (0, 0),
        ),
        (echo(KAFKA_1, pod), echo(KAFKA_1, seen_as), (0, 0)),
    ];
    for (quoted, as_sent, class) in cases {
        let came = tunnel_in(WEST_1, KAFKA.id, 3, &as_sent);
        world
            .send(
                "what it is about",
                Program::UnderlayIngress,
                NIC,
                on_wire(&came),
            )
            .accepted()?;
        let sent = error(pod, KAFKA_1, &quoted);
        let inner = error(seen_as, KAFKA_1, &as_sent);
        let frame = tunnel_out(WEST_1, KAFKA.id, class, &inner, NO_PORTS);
        world
            .send("told", Program::PodEgress, KAFKA_0.device, from_pod(&sent))
            .expect(Expected::redirected(&frame).counted(
                KAFKA.id,
                "west",
                class.0,
                Direction::Out,
                ERROR_BYTES,
            ))?;
    }
    Ok(())
}

pub(super) fn pod_is_told_by_a_remote_receiver(world: &mut World) -> Result<()> {
    let own = KAFKA_0.pod_address;
    let known_as = KAFKA_0.slice_address;
    let pairs = [
        (syn(known_as, KAFKA_1), syn(own, KAFKA_1)),
        (
            datagram(known_as, KAFKA_1, [6000, 5201]),
            datagram(own, KAFKA_1, [6000, 5201]),
        ),
        (echo(known_as, KAFKA_1), echo(own, KAFKA_1)),
    ];
    for (quoted, as_sent) in pairs {
        world
            .send(
                "what it is about",
                Program::PodEgress,
                KAFKA_0.device,
                from_pod(&as_sent),
            )
            .accepted()?;
        let inner = error(KAFKA_1, known_as, &quoted);
        let seen = error(KAFKA_1, own, &as_sent);
        let tunnel = tunnel_in(WEST_1, KAFKA.id, 3, &inner);
        world
            .send("hears", Program::UnderlayIngress, NIC, on_wire(&tunnel))
            .expect(Expected::redirected(&to_pod(&KAFKA_0, &seen)).counted(
                KAFKA.id,
                "west",
                3,
                Direction::In,
                ERROR_BYTES,
            ))?;
    }
    Ok(())
}

pub(super) fn pod_tells_a_sender_on_its_node(world: &mut World) -> Result<()> {
    let quoted = syn(ANALYTICS_2.slice_address, KAFKA_0.pod_address);
    let as_sent = syn(ANALYTICS_2.pod_address, KAFKA_0.slice_address);
    let sent = error(KAFKA_0.pod_address, ANALYTICS_2.slice_address, &quoted);
    let seen = error(KAFKA_0.slice_address, ANALYTICS_2.pod_address, &as_sent);
    world
        .send(
            "same node",
            Program::PodEgress,
            KAFKA_0.device,
            from_pod(&sent),
        )
        .expect(Expected::redirected(&to_pod(&ANALYTICS_2, &seen)).counted(
            KAFKA.id,
            EAST,
            CLIENT.0,
            Direction::Local,
            ERROR_BYTES,
        ))
}

/// A rule for one direction must not carry data in the other: what was never sent is not spoken of.
pub(super) fn error_about_what_was_never_sent(world: &mut World) -> Result<()> {
    let denied = Expected::dropped(KAFKA.id, DropReason::PolicyDenied);
    let (pod, slice) = (KAFKA_0.pod_address, KAFKA_0.slice_address);
    for about in [
        datagram(ANALYTICS_0, pod, [6000, 5201]),
        echo(ANALYTICS_0, pod),
    ] {
        let sent = error(pod, ANALYTICS_0, &about);
        world
            .send("tells", Program::PodEgress, KAFKA_0.device, from_pod(&sent))
            .expect(denied.clone())?;
    }
    for about in [datagram(slice, KAFKA_1, [6000, 5201]), echo(slice, KAFKA_1)] {
        let tunnel = tunnel_in(WEST_1, KAFKA.id, 3, &error(KAFKA_1, slice, &about));
        world
            .send("hears", Program::UnderlayIngress, NIC, on_wire(&tunnel))
            .expect(denied.clone())?;
    }
    Ok(())
}

/// No rule for the packet, no error about it; on both ends.
pub(super) fn error_about_a_forbidden_packet(world: &mut World) -> Result<()> {
    let denied = Expected::dropped(KAFKA.id, DropReason::PolicyDenied);
    let (pod, slice) = (KAFKA_0.pod_address, KAFKA_0.slice_address);
    for ports in [[6000, 5202], [5201, 6000]] {
        let sent = error(pod, KAFKA_1, &datagram(KAFKA_1, pod, ports));
        world
            .send("tells", Program::PodEgress, KAFKA_0.device, from_pod(&sent))
            .expect(denied.clone())?;
        let inner = error(KAFKA_1, slice, &datagram(slice, KAFKA_1, ports));
        let tunnel = tunnel_in(WEST_1, KAFKA.id, 3, &inner);
        world
            .send("hears", Program::UnderlayIngress, NIC, on_wire(&tunnel))
            .expect(denied.clone())?;
    }
    Ok(())
}

/// The answer to a question was let pass by the question's record; an error about it is too.
pub(super) fn error_about_an_answer(world: &mut World) -> Result<()> {
    let (pod, slice) = (KAFKA_0.pod_address, KAFKA_0.slice_address);
    let inner = error(
        ANALYTICS_0,
        slice,
        &datagram(slice, ANALYTICS_0, [5201, 6000]),
    );
    let error = on_wire(&tunnel_in(WEST_1, KAFKA.id, 3, &inner));
    world
        .send("early", Program::UnderlayIngress, NIC, error.clone())
        .expect(Expected::dropped(KAFKA.id, DropReason::PolicyDenied))?;
    let question = tunnel_in(
        WEST_1,
        KAFKA.id,
        3,
        &datagram(ANALYTICS_0, slice, [6000, 5201]),
    );
    world
        .send(
            "question",
            Program::UnderlayIngress,
            NIC,
            on_wire(&question),
        )
        .accepted()?;
    let answer = datagram(pod, ANALYTICS_0, [5201, 6000]);
    world
        .send(
            "answer",
            Program::PodEgress,
            KAFKA_0.device,
            from_pod(&answer),
        )
        .accepted()?;
    world
        .send("error", Program::UnderlayIngress, NIC, error)
        .accepted()
}

/// A peer's error about somebody else's conversation, and about one that it has no part in.
pub(super) fn forged_errors_from_a_peer(world: &mut World) -> Result<()> {
    let slice = KAFKA_0.slice_address;
    for quoted in [
        syn(slice, ANALYTICS_0),
        syn(ANALYTICS_2.slice_address, KAFKA_1),
        syn(KAFKA_1, slice),
        syn(KAFKA_0.pod_address, KAFKA_1),
    ] {
        let tunnel = tunnel_in(WEST_1, KAFKA.id, 3, &error(KAFKA_1, slice, &quoted));
        world
            .send("forged", Program::UnderlayIngress, NIC, on_wire(&tunnel))
            .expect(Expected::dropped(KAFKA.id, DropReason::IcmpError))?;
    }
    Ok(())
}
