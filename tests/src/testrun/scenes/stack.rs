//! `delivery: Stack`: the host's stack gets what is judged, out of the tunnel's device.

use anyhow::Result;
use slice_common::drop_reason::DropReason;
use slice_common::layout::{Direction, LocalEndpoint, LocalKey};

use super::{from_pod, on_wire, to_pod, tunnel_in};
use crate::packet::{Ipv4, Tcp};
use crate::testrun::actors::*;
use crate::testrun::{Expected, Program, World};

const INNER_ETHERNET: usize = 50;

/// The addresses of an Ethernet header with the node's secret and the network.
fn proof(class: u8) -> [u8; 12] {
    let mut proof = [0; 12];
    proof[..8].copy_from_slice(&DETOUR_SECRET);
    proof[11] = (KAFKA.id << 3) as u8 | class;
    proof
}

/// The host's stack delivers to `kafka-0` from now on.
fn deliver_by_stack(world: &mut World) -> Result<()> {
    let key = LocalKey {
        table: TABLE,
        address: address(KAFKA_0.slice_address),
    };
    let pod = LocalEndpoint {
        ifindex: world.ifindex(KAFKA_0.device)?,
        slice: KAFKA.id,
        namespace: KAFKA.namespace(KAFKA_0.namespace),
        pod_address: address(KAFKA_0.pod_address),
        pod_mac: KAFKA_0.mac,
        flags: LocalEndpoint::BY_STACK,
    };
    world.insert("LOCAL", key, pod)
}

/// Judged and fitted to the path back at the interface, and mapped behind the tunnel's device.
pub(super) fn stack_gets_what_a_peer_sends(world: &mut World) -> Result<()> {
    let syn = |mss| {
        Ipv4::between(KAFKA_1, KAFKA_0.slice_address).tcp(Tcp::new(40_000, 9092).syn().mss(mss))
    };
    let seen = to_pod(&KAFKA_0, &syn(1410).destination(KAFKA_0.pod_address));
    let counted = |expected: Expected| expected.counted(KAFKA.id, "west", 5, Direction::In, 44);
    let arriving = on_wire(&tunnel_in(WEST_1, KAFKA.id, 5, &syn(1460)));
    world
        .send("by veth", Program::UnderlayIngress, NIC, arriving.clone())
        .expect(counted(Expected::redirected(&seen)))?;

    deliver_by_stack(world)?;
    let mut judged = on_wire(&tunnel_in(WEST_1, KAFKA.id, 5, &syn(1410)));
    judged[INNER_ETHERNET..INNER_ETHERNET + 12].copy_from_slice(&proof(5));
    world
        .send("at the interface", Program::UnderlayIngress, NIC, arriving)
        .expect(Expected::left_to_host(&judged))?;
    world
        .send(
            "behind the device",
            Program::TunnelIngress,
            PORT_OWNER,
            judged[INNER_ETHERNET..].to_vec(),
        )
        .expect(counted(Expected::left_to_host(&seen)))?;
    // What may not pass does not get there.
    let denied = Ipv4::between(KAFKA_1, KAFKA_0.slice_address).tcp(Tcp::new(40_000, 22).syn());
    world
        .send(
            "denied",
            Program::UnderlayIngress,
            NIC,
            on_wire(&tunnel_in(WEST_1, KAFKA.id, 5, &denied)),
        )
        .expect(Expected::dropped(KAFKA.id, DropReason::PolicyDenied))
}

pub(super) fn stack_gets_what_a_pod_of_the_node_sends(world: &mut World) -> Result<()> {
    let sent = Ipv4::between(ANALYTICS_2.pod_address, KAFKA_0.slice_address)
        .tcp(Tcp::new(40_000, 9092).ack());
    let named = sent.clone().source(ANALYTICS_2.slice_address);
    let seen = to_pod(&KAFKA_0, &named.clone().destination(KAFKA_0.pod_address));
    let counted =
        |expected: Expected| expected.counted(KAFKA.id, EAST, CLIENT.0, Direction::Local, 40);
    world
        .send(
            "by veth",
            Program::PodEgress,
            ANALYTICS_2.device,
            from_pod(&sent),
        )
        .expect(counted(Expected::redirected(&seen)))?;

    deliver_by_stack(world)?;
    let mut judged = from_pod(&named);
    judged[..12].copy_from_slice(&proof(CLIENT.0));
    // The second is remembered, the third follows it.
    for packet in ["first", "second", "third"] {
        world
            .send(
                packet,
                Program::PodEgress,
                ANALYTICS_2.device,
                from_pod(&sent),
            )
            .expect(Expected::redirected(&judged))?;
    }
    world
        .send("at the device", Program::TunnelIngress, PORT_OWNER, judged)
        .expect(counted(Expected::left_to_host(&seen)))
}

/// What came by the tunnel's device was judged; a stranger under the same address was not.
pub(super) fn isolated_pod_gets_from_the_stack_what_its_slice_sent(
    world: &mut World,
) -> Result<()> {
    let syn = Ipv4::between(KAFKA_1, KAFKA_0.pod_address).tcp(Tcp::new(40_000, 9092).syn());
    let frame = to_pod(&KAFKA_0, &syn);
    world
        .send(
            "of the slice",
            Program::PodIngress,
            KAFKA_0.device,
            frame.clone(),
        )
        .came_in_by(PORT_OWNER)
        .expect(Expected::untouched(&frame))?;
    world
        .send("a stranger", Program::PodIngress, KAFKA_0.device, frame)
        .came_in_by(NIC)
        .expect(Expected::dropped(KAFKA.id, DropReason::Isolated))
}
