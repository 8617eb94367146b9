//! Isolation: who outside the slice may reach a pod by its pod address.

use anyhow::Result;
use slice_common::drop_reason::DropReason;

use super::from_pod;
use crate::packet::{Icmp, Ipv4, Ipv4Quote, Tcp, Udp};
use crate::testrun::actors::*;
use crate::testrun::{Expected, Program, World};

fn from_stranger() -> Ipv4 {
    Ipv4::between(STRANGER, KAFKA_0.pod_address)
}

fn to_stranger() -> Ipv4 {
    Ipv4::between(KAFKA_0.pod_address, STRANGER)
}

/// To the pod's interface, as the host's stack routes it.
fn routed(packet: &Ipv4) -> Vec<u8> {
    packet.frame(KAFKA_0.mac, [0x0a, 0, 0, 0xff, 0, 0])
}

fn passes(world: &mut World, scene: &str, packet: &Ipv4) -> Result<()> {
    let frame = routed(packet);
    world
        .send(scene, Program::PodIngress, KAFKA_0.device, frame.clone())
        .expect(Expected::untouched(&frame))
}

fn is_kept_out(world: &mut World, scene: &str, packet: &Ipv4) -> Result<()> {
    world
        .send(scene, Program::PodIngress, KAFKA_0.device, routed(packet))
        .expect(Expected::dropped(KAFKA.id, DropReason::Isolated))
}

/// TCP needs no record: only a SYN opens a connection.
pub(super) fn connection_begun_by_the_pod_is_answered(world: &mut World) -> Result<()> {
    passes(
        world,
        "SYN+ACK",
        &from_stranger().tcp(Tcp::new(443, 40_000).syn().ack()),
    )?;
    passes(
        world,
        "data",
        &from_stranger().tcp(Tcp::new(443, 40_000).ack().data(vec![1; 99])),
    )?;
    passes(
        world,
        "RST",
        &from_stranger().tcp(Tcp::new(443, 40_000).rst()),
    )?;
    is_kept_out(
        world,
        "SYN+FIN",
        &from_stranger().tcp(Tcp::new(443, 40_000).syn().fin()),
    )
}

pub(super) fn node_may_reach_its_pods(world: &mut World) -> Result<()> {
    for node in [EAST_1, EAST_1_POD_SIDE] {
        let from_node = Ipv4::between(node, KAFKA_0.pod_address);
        passes(
            world,
            "probe",
            &from_node.clone().tcp(Tcp::new(40_000, 8080).syn()),
        )?;
        passes(world, "ping", &from_node.icmp(Icmp::echo_request(1, 1)))?;
    }
    Ok(())
}

/// A NodePort gives forwarded packets the node's address: they are strangers' all the same.
pub(super) fn masqueraded_stranger_is_not_the_node(world: &mut World) -> Result<()> {
    let packet = Ipv4::between(EAST_1, KAFKA_0.pod_address).tcp(Tcp::new(40_000, 8080).syn());
    passes(world, "the node itself", &packet)?;
    world
        .send(
            "forwarded",
            Program::PodIngress,
            KAFKA_0.device,
            routed(&packet),
        )
        .came_in_by(NIC)
        .expect(Expected::dropped(KAFKA.id, DropReason::Isolated))
}

/// One pod must not be able to open the isolation of another by asking in its name.
pub(super) fn question_in_anothers_name_is_not_noted(world: &mut World) -> Result<()> {
    let forged = Ipv4::between([10, 9, 9, 9], STRANGER).udp(Udp::new(5353, 53));
    let forged = from_pod(&forged);
    world
        .send(
            "forged question",
            Program::PodEgress,
            KAFKA_0.device,
            forged.clone(),
        )
        .expect(Expected::untouched(&forged))
}

/// A frame for everybody reaches the pod as well, and a second tag would hide its packet from us.
pub(super) fn neither_broadcast_nor_tag_gets_around_isolation(world: &mut World) -> Result<()> {
    let isolated = || Expected::dropped(KAFKA.id, DropReason::Isolated);
    let everybody = Ipv4::between(STRANGER, [255; 4]).udp(Udp::new(6000, 6001));
    let broadcast = everybody.frame([0xff; 6], [0x0a, 0, 0, 0xff, 0, 0]);
    world
        .send("broadcast", Program::PodIngress, KAFKA_0.device, broadcast)
        .expect(isolated())?;
    // Linux takes these by the packet's address, whoever the frame is for.
    for group in [[255; 4], [10, 1, 1, 255], [10, 1, 255, 255], [224, 0, 0, 1]] {
        let packet = Ipv4::between(STRANGER, group).udp(Udp::new(6000, 6001));
        world
            .send(
                "group",
                Program::PodIngress,
                KAFKA_0.device,
                routed(&packet),
            )
            .expect(isolated())?;
    }
    let mut tagged = routed(&from_stranger().tcp(Tcp::new(40_000, 8080).syn()));
    tagged.splice(12..12, [0x81, 0x00, 0x00, 0x00]);
    world
        .send("tag", Program::PodIngress, KAFKA_0.device, tagged)
        .expect(isolated())
}

/// Nobody outside sees slice packets, so an error about one is made up to shrink the path's MTU.
pub(super) fn error_about_slice_packet_comes_from_no_stranger(world: &mut World) -> Result<()> {
    let outside = Ipv4Quote::of(&to_stranger().udp(Udp::new(5353, 53)));
    passes(
        world,
        "about its own packet to the outside",
        &from_stranger().icmp(Icmp::fragmentation_needed(600, &outside)),
    )?;
    let inside = Ipv4::between(KAFKA_0.pod_address, KAFKA_1);
    let inside = Ipv4Quote::of(&inside.udp(Udp::new(5353, 53)));
    is_kept_out(
        world,
        "about its own packet to the slice",
        &from_stranger().icmp(Icmp::fragmentation_needed(600, &inside)),
    )
}

/// Sends what the pod asks, so that it is noted.
fn asks(world: &mut World, question: &Ipv4) -> Result<()> {
    world
        .send(
            "question",
            Program::PodEgress,
            KAFKA_0.device,
            from_pod(question),
        )
        .accepted()
}

pub(super) fn datagram_from_outside_needs_a_question(world: &mut World) -> Result<()> {
    let answer = from_stranger().udp(Udp::new(53, 5353).data(vec![2; 50]));
    is_kept_out(world, "answer without question", &answer)?;
    asks(world, &to_stranger().udp(Udp::new(5353, 53)))?;
    passes(world, "answer", &answer)?;
    is_kept_out(
        world,
        "another port",
        &from_stranger().udp(Udp::new(53, 5354)),
    )
}

pub(super) fn echo_from_outside_needs_a_question(world: &mut World) -> Result<()> {
    let answer = from_stranger().icmp(Icmp::echo_reply(7, 1));
    is_kept_out(world, "answer without question", &answer)?;
    asks(world, &to_stranger().icmp(Icmp::echo_request(7, 1)))?;
    passes(world, "answer", &answer)?;
    is_kept_out(
        world,
        "another identifier",
        &from_stranger().icmp(Icmp::echo_reply(8, 1)),
    )
}

/// Whoever was pinged may answer, not ping back, even with the same identifier.
pub(super) fn echo_request_from_outside_is_no_answer(world: &mut World) -> Result<()> {
    asks(world, &to_stranger().icmp(Icmp::echo_request(7, 1)))?;
    passes(
        world,
        "control: the answer",
        &from_stranger().icmp(Icmp::echo_reply(7, 1)),
    )?;
    is_kept_out(
        world,
        "ping",
        &from_stranger().icmp(Icmp::echo_request(7, 1)),
    )
}

pub(super) fn error_about_the_pods_own_packet(world: &mut World) -> Result<()> {
    let own = Ipv4Quote::of(&to_stranger().udp(Udp::new(5353, 53)));
    let foreign = Ipv4Quote::of(&Ipv4::between(STRANGER, INTERNET).udp(Udp::new(5353, 53)));
    passes(
        world,
        "own",
        &from_stranger().icmp(Icmp::port_unreachable(&own)),
    )?;
    passes(
        world,
        "MTU",
        &from_stranger().icmp(Icmp::fragmentation_needed(1400, &own)),
    )?;
    is_kept_out(
        world,
        "foreign",
        &from_stranger().icmp(Icmp::time_exceeded(&foreign)),
    )?;
    is_kept_out(
        world,
        "no quote",
        &from_stranger().icmp(Icmp::message(3, 3)),
    )
}

pub(super) fn open_slice_lets_strangers_in(world: &mut World) -> Result<()> {
    let syn = Ipv4::between(STRANGER, WEB_0.pod_address).tcp(Tcp::new(40_000, 80).syn());
    let frame = routed(&syn);
    world
        .send("open", Program::PodIngress, WEB_0.device, frame.clone())
        .expect(Expected::untouched(&frame))
}

/// Isolation guards the pod's address, not what it may route for others.
pub(super) fn traffic_through_the_pod_is_not_judged(world: &mut World) -> Result<()> {
    passes(
        world,
        "through",
        &Ipv4::between(STRANGER, INTERNET).tcp(Tcp::new(40_000, 80).syn()),
    )
}

/// Without the first one, which is judged, they are never put together.
pub(super) fn later_fragments_from_outside(world: &mut World) -> Result<()> {
    let datagram = from_stranger().udp(Udp::new(53, 5353).data(vec![3; 64]));
    is_kept_out(world, "first fragment", &datagram.clone().fragment(0, true))?;
    passes(world, "later fragment", &datagram.fragment(72, false))
}
