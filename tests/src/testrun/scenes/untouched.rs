//! What is none of our business passes byte for byte.

use anyhow::Result;
use slice_common::layout::{ReplyKey, Settings};

use super::{from_pod, on_wire, tunnel_in};
use crate::packet::{Icmp, Ipv4, Tcp, Udp, Vxlan, ethernet};
use crate::testrun::actors::*;
use crate::testrun::{Expected, Program, World};

fn untouched(
    world: &mut World,
    program: Program,
    device: &'static str,
    frame: &[u8],
) -> Result<()> {
    world
        .send("untouched", program, device, frame)
        .expect(Expected::untouched(frame))
}

/// Questions to the outside are noted, because isolation lets their answers in; nothing else happens.
pub(super) fn pod_to_the_internet(world: &mut World) -> Result<()> {
    let to_internet = |pod: Pod| {
        Ipv4::between(pod.pod_address, INTERNET)
            .identification(77)
            .ecn(2)
    };
    let syn = from_pod(&to_internet(KAFKA_0).tcp(Tcp::new(40_000, 443).syn().mss(8960)));
    untouched(world, Program::PodEgress, KAFKA_0.device, &syn)?;
    let fragment = from_pod(&to_internet(KAFKA_0).udp(Udp::new(1, 53)).fragment(64, true));
    untouched(world, Program::PodEgress, KAFKA_0.device, &fragment)?;
    let question = from_pod(&to_internet(KAFKA_0).udp(Udp::new(5353, 53).data(vec![1; 20])));
    let answer = reply_record(
        ReplyKey::OUTSIDE,
        [INTERNET, KAFKA_0.pod_address],
        [53, 5353],
        17,
    );
    world
        .send(
            "question",
            Program::PodEgress,
            KAFKA_0.device,
            question.clone(),
        )
        .expect(Expected::untouched(&question).remembered(answer))?;
    // Nothing guards a pod of an open slice, so there is nothing to note.
    let open = from_pod(&to_internet(WEB_0).udp(Udp::new(5353, 53)));
    untouched(world, Program::PodEgress, WEB_0.device, &open)
}

pub(super) fn other_protocols_of_a_pod(world: &mut World) -> Result<()> {
    for (ethertype, bytes) in [
        (0x0806, vec![0; 28]),
        (0x86dd, vec![0x60; 60]),
        (0x88cc, vec![1; 46]),
    ] {
        let frame = ethernet([0xff; 6], KAFKA_0.mac, ethertype, &bytes);
        untouched(world, Program::PodEgress, KAFKA_0.device, &frame)?;
        untouched(world, Program::PodIngress, KAFKA_0.device, &frame)?;
        untouched(world, Program::UnderlayIngress, NIC, &frame)?;
    }
    Ok(())
}

/// Even to a slice address: the guard routes stop it, not the program.
pub(super) fn pod_outside_every_slice(world: &mut World) -> Result<()> {
    let to_slice = from_pod(&Ipv4::between(STRANGER, KAFKA_1).tcp(Tcp::new(1, 9092).syn()));
    untouched(world, Program::PodEgress, STRANGER_DEVICE, &to_slice)?;
    let to_stranger = from_pod(&Ipv4::between(INTERNET, STRANGER).tcp(Tcp::new(443, 1).syn()));
    untouched(world, Program::PodIngress, STRANGER_DEVICE, &to_stranger)
}

pub(super) fn underlay_traffic_of_others(world: &mut World) -> Result<()> {
    let to_node = Ipv4::between(WEST_1.address, EAST_1);
    let packets = [
        to_node.clone().tcp(Tcp::new(6085, 6085).syn()),
        to_node.clone().udp(Udp::new(6085, 4789).data(vec![8; 60])),
        to_node.clone().icmp(Icmp::echo_request(1, 1)),
        // Later fragments have no ports; they may be anybody's.
        to_node
            .clone()
            .raw(17, vec![0x17, 0xc5, 0x17, 0xc5, 0, 0, 0, 0])
            .fragment(1480, false),
        to_node.udp(Udp::new(1, 2)).total_bytes(21),
    ];
    for packet in packets {
        untouched(
            world,
            Program::UnderlayIngress,
            NIC,
            &packet.frame(NIC_MAC, ROUTER_MAC),
        )?;
    }
    Ok(())
}

fn good_tunnel() -> Vxlan {
    let inner = Ipv4::between(KAFKA_1, KAFKA_0.slice_address).tcp(Tcp::new(40_000, 9092).syn());
    tunnel_in(WEST_1, KAFKA.id, 0, &inner)
}

pub(super) fn tunnel_port_of_another_address(world: &mut World) -> Result<()> {
    world
        .send(
            "control",
            Program::UnderlayIngress,
            NIC,
            on_wire(&good_tunnel()),
        )
        .accepted()?;
    let elsewhere = on_wire(&good_tunnel().outer(|outer| outer.destination(EAST_2.address)));
    untouched(world, Program::UnderlayIngress, NIC, &elsewhere)
}

/// A frame for another station, seen because something listens to all of them.
pub(super) fn overheard_tunnel_packet(world: &mut World) -> Result<()> {
    let frame = good_tunnel().frame([0x0a, 0, 0, 0, 9, 9], ROUTER_MAC);
    untouched(world, Program::UnderlayIngress, NIC, &frame)
}

/// Between attaching and the first configuration nothing is ours.
pub(super) fn node_without_configuration(world: &mut World) -> Result<()> {
    let none = Settings {
        generation: 0,
        underlay_address: address([0; 4]),
        tunnel_port: 0,
        flags: 0,
        tunnel_mark: 0,
        detour_secret: [0; 4],
        underlay_mac: [0; 6],
        reserved_mac: 0,
        tunnel_ifindex: 0,
        flow_secret: [0; 2],
    };
    world.set_settings(none)?;
    untouched(
        world,
        Program::UnderlayIngress,
        NIC,
        &on_wire(&good_tunnel()),
    )
}
