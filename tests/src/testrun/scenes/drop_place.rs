//! Packets from or to where they must not come from or go.

use anyhow::Result;
use slice_common::drop_reason::DropReason;
use slice_common::layout::{PathGroup, PolicyEntry, PolicyKey, PolicyVerdict};

use super::{drops_from_pod, drops_from_wire, from_pod, tunnel_in};
use crate::packet::{Ipv4, Tcp};
use crate::testrun::actors::*;
use crate::testrun::world::standard_policy;
use crate::testrun::{Expected, Program, World};

fn syn(destination: [u8; 4]) -> Ipv4 {
    Ipv4::between(KAFKA_0.pod_address, destination).tcp(Tcp::new(40_000, 9092).syn())
}

pub(super) fn drop_spoofed_source(world: &mut World) -> Result<()> {
    let spoofed = syn(KAFKA_1).source(ANALYTICS_2.pod_address);
    drops_from_pod(world, DropReason::SpoofedSource, &syn(KAFKA_1), &spoofed)?;
    // Its own slice address is no address of the pod.
    let slice_side = syn(KAFKA_1).source(KAFKA_0.slice_address);
    drops_from_pod(world, DropReason::SpoofedSource, &syn(KAFKA_1), &slice_side)
}

pub(super) fn drop_no_route(world: &mut World) -> Result<()> {
    drops_from_pod(
        world,
        DropReason::NoRoute,
        &syn(KAFKA_1),
        &syn(NOBODYS_SLICE_ADDRESS),
    )
}

pub(super) fn drop_other_slice(world: &mut World) -> Result<()> {
    drops_from_pod(world, DropReason::OtherSlice, &syn(KAFKA_1), &syn(WEB_2))?;
    drops_from_pod(
        world,
        DropReason::OtherSlice,
        &syn(KAFKA_1),
        &syn(WEB_0.slice_address),
    )
}

pub(super) fn drop_no_endpoint(world: &mut World) -> Result<()> {
    let own = KAFKA_0.slice_address;
    drops_from_pod(world, DropReason::NoEndpoint, &syn(own), &syn(VACANT_HERE))
}

pub(super) fn drop_policy_denied(world: &mut World) -> Result<()> {
    let to_port =
        |port| Ipv4::between(KAFKA_0.pod_address, KAFKA_1).tcp(Tcp::new(40_000, port).syn());
    drops_from_pod(
        world,
        DropReason::PolicyDenied,
        &to_port(9092),
        &to_port(22),
    )
}

pub(super) fn drop_isolated(world: &mut World) -> Result<()> {
    let syn = |source| {
        Ipv4::between(source, KAFKA_0.pod_address)
            .tcp(Tcp::new(40_000, 9092).syn())
            .frame(KAFKA_0.mac, [2; 6])
    };
    world
        .send(
            "control: the node",
            Program::PodIngress,
            KAFKA_0.device,
            syn(EAST_1_POD_SIDE),
        )
        .accepted()?;
    world
        .send(
            "a stranger",
            Program::PodIngress,
            KAFKA_0.device,
            syn(STRANGER),
        )
        .expect(Expected::dropped(KAFKA.id, DropReason::Isolated))
}

pub(super) fn drop_no_path(world: &mut World) -> Result<()> {
    let frame = from_pod(&syn(KAFKA_1));
    world
        .send("control", Program::PodEgress, KAFKA_0.device, frame.clone())
        .accepted()?;
    world.insert(
        "PATH_GROUPS",
        WEST_1.path_group(),
        PathGroup {
            count: 0,
            fellows: 0,
            paths: [0; 7],
        },
    )?;
    world
        .send(
            "empty group",
            Program::PodEgress,
            KAFKA_0.device,
            frame.clone(),
        )
        .expect(Expected::dropped(KAFKA.id, DropReason::NoPath))?;
    world.remove::<u32, PathGroup>("PATH_GROUPS", WEST_1.path_group())?;
    world
        .send("no group", Program::PodEgress, KAFKA_0.device, frame)
        .expect(Expected::dropped(KAFKA.id, DropReason::NoPath))
}

/// A test run cannot say what kind of segmentation a packet wants, and the kernel puts no tunnel
/// headers on a packet of unknown kind.
pub(super) fn drop_helper_failed(world: &mut World) -> Result<()> {
    let data = Ipv4::between(KAFKA_0.pod_address, KAFKA_1)
        .tcp(Tcp::new(40_000, 9092).ack().data(vec![1; 1000]));
    let frame = from_pod(&data);
    world
        .send("control", Program::PodEgress, KAFKA_0.device, frame.clone())
        .accepted()?;
    world
        .send(
            "segments of no kind",
            Program::PodEgress,
            KAFKA_0.device,
            frame,
        )
        .segments_of(500)
        .expect(Expected::dropped(KAFKA.id, DropReason::HelperFailed))
}

/// The far node asked the same question; this one does not rely on it.
pub(super) fn policy_is_judged_on_arrival_too(world: &mut World) -> Result<()> {
    let arriving = |port| {
        let inner = Ipv4::between(KAFKA_1, KAFKA_0.slice_address).tcp(Tcp::new(40_000, port).syn());
        tunnel_in(WEST_1, KAFKA.id, 0, &inner)
    };
    let denied = DropReason::PolicyDenied;
    drops_from_wire(world, KAFKA.id, denied, &arriving(9092), &arriving(22))
}

pub(super) fn no_rule_no_passage(world: &mut World) -> Result<()> {
    let frame = from_pod(&syn(KAFKA_1));
    world
        .send("control", Program::PodEgress, KAFKA_0.device, frame.clone())
        .accepted()?;
    world.set_policy(&[])?;
    world
        .send("no rules", Program::PodEgress, KAFKA_0.device, frame)
        .expect(Expected::dropped(KAFKA.id, DropReason::PolicyDenied))
}

/// A whole slice may be open but for one port.
pub(super) fn deny_wins_by_the_longer_prefix(world: &mut World) -> Result<()> {
    let anyone = PolicyKey {
        slice: KAFKA.id,
        source_namespace: 0,
        destination_namespace: 0,
        protocol: 0,
        reserved: 0,
        port: 0,
    };
    let port_9092 = standard_policy()
        .into_iter()
        .find(|(bits, key, _)| *bits == PolicyKey::BITS && key.port == 9092u16.to_be())
        .map(|(_, key, _)| key)
        .ok_or_else(|| anyhow::anyhow!("the standard policy has no rule for port 9092"))?;
    let verdict = |verdict: PolicyVerdict| PolicyEntry {
        verdict: verdict.number(),
        rule: 1,
    };
    world.set_policy(&[
        (PolicyKey::BITS_SLICE, anyone, verdict(PolicyVerdict::Allow)),
        (PolicyKey::BITS, port_9092, verdict(PolicyVerdict::Deny)),
    ])?;
    let to_port =
        |port| Ipv4::between(KAFKA_0.pod_address, KAFKA_1).tcp(Tcp::new(40_000, port).syn());
    drops_from_pod(
        world,
        DropReason::PolicyDenied,
        &to_port(22),
        &to_port(9092),
    )
}
