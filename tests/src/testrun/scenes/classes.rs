//! Classes of pods: by what namespace and labels say, where no port decides.

use anyhow::Result;
use slice_common::layout::{
    Class, Direction, Endpoint, FirstFragment, FragmentKey, Route, RouteKey,
};

use super::{HOST_SIDE, from_pod, to_pod, tunnel_out};
use crate::packet::{Icmp, Ipv4, Ipv4Quote, Tcp};
use crate::testrun::actors::*;
use crate::testrun::world::standard_routes;
use crate::testrun::{Expected, Program, World};

const NONE: (u8, u8) = (0, 0);
const FIRST: (u8, u8) = (1, 40);
const FIFTH: (u8, u8) = (5, 12);

/// Policy lets brokers talk there, and no class names the port.
const PORTS: [u16; 2] = [40_000, 9090];

/// Gives a pod of this node a class, as the agent does: to what it sends, and to what is for it.
fn label(world: &mut World, pod: &Pod, of: (u8, u8)) -> Result<()> {
    let ifindex = world.ifindex(pod.device)?;
    let class = class(of);
    let before = world.endpoint(ifindex)?;
    world.insert("ENDPOINTS", ifindex, Endpoint { class, ..before })
}

fn class((class, dscp): (u8, u8)) -> Class {
    Class {
        class,
        dscp,
        reserved: 0,
    }
}

/// The routes, one address of which leads to a pod with a class.
fn routes_with(labelled: [u8; 4], (class, dscp): (u8, u8)) -> Vec<(u32, RouteKey, Route)> {
    let mut routes = standard_routes();
    let to = u32::from_be_bytes(labelled);
    let holds = |(bits, key, _): &&(u32, RouteKey, Route)| {
        let different = u32::from_be_bytes(key.address.octets()) ^ to;
        different.leading_zeros() >= bits - 32
    };
    let block = routes.iter().filter(holds).max_by_key(|entry| entry.0);
    let (_, key, block) = *block.expect("the address is in a block");
    let own = RouteKey {
        address: address(labelled),
        ..key
    };
    routes.push((
        64,
        own,
        Route {
            class,
            dscp,
            ..block
        },
    ));
    routes
}

fn data(from: [u8; 4], to: [u8; 4], ports: [u16; 2]) -> Ipv4 {
    let segment = Tcp::new(ports[0], ports[1]).ack().data(vec![0xab; 99]);
    Ipv4::between(from, to).tcp(segment)
}

/// What kafka-0 sends to kafka-1 leaves in this class.
fn leaves_in(world: &mut World, scene: &str, ports: [u16; 2], class: (u8, u8)) -> Result<()> {
    let inner = data(KAFKA_0.slice_address, KAFKA_1, ports);
    let frame = tunnel_out(WEST_1, KAFKA.id, class, &inner, ports);
    let sent = from_pod(&data(KAFKA_0.pod_address, KAFKA_1, ports));
    let bytes = inner.build().len();
    world
        .send(scene, Program::PodEgress, KAFKA_0.device, sent)
        .expect(Expected::redirected(&frame).counted(
            KAFKA.id,
            "west",
            class.0,
            Direction::Out,
            bytes,
        ))
}

/// The sender's class or the receiver's, and of two the one that the slice lists first, whoever has it.
pub(super) fn pods_have_classes_of_their_own(world: &mut World) -> Result<()> {
    leaves_in(world, "nobody has one", PORTS, NONE)?;
    label(world, &KAFKA_0, FIFTH)?;
    leaves_in(world, "the sender alone", PORTS, FIFTH)?;
    world.set_routes(&routes_with(KAFKA_1, FIRST))?;
    leaves_in(world, "the receiver's is first", PORTS, FIRST)?;
    label(world, &KAFKA_0, NONE)?;
    leaves_in(world, "the receiver alone", PORTS, FIRST)?;
    label(world, &KAFKA_0, FIRST)?;
    world.set_routes(&routes_with(KAFKA_1, FIFTH))?;
    leaves_in(world, "the sender's is first", PORTS, FIRST)?;
    // What is for the pod's neighbour is not for the pod.
    let beside = [KAFKA_1[0], KAFKA_1[1], KAFKA_1[2], KAFKA_1[3] + 1];
    label(world, &KAFKA_0, NONE)?;
    world.set_routes(&routes_with(beside, FIRST))?;
    leaves_in(world, "somebody else has one", PORTS, NONE)
}

pub(super) fn ports_count_before_pods(world: &mut World) -> Result<()> {
    label(world, &KAFKA_0, FIRST)?;
    world.set_routes(&routes_with(KAFKA_1, FIRST))?;
    leaves_in(world, "by no port", PORTS, FIRST)?;
    leaves_in(world, "to a port", [40_000, 9092], CLIENT)?;
    leaves_in(world, "from a port", [9092, 40_000], CLIENT)
}

/// Both pods are on this node, so both ways can be seen.
pub(super) fn answers_are_of_their_questions_class(world: &mut World) -> Result<()> {
    world.set_classes(&[])?;
    let both_ways = [
        (ANALYTICS_2, KAFKA_0, [40_000, 9092]),
        (KAFKA_0, ANALYTICS_2, [9092, 40_000]),
    ];
    let go_in = |world: &mut World, scene: &str, class: (u8, u8)| -> Result<()> {
        for (from, to, ports) in both_ways {
            let sent = data(from.pod_address, to.slice_address, ports);
            let seen = data(from.slice_address, to.pod_address, ports);
            let bytes = seen.build().len();
            let scene = format!("{scene}, from {}", from.name);
            let frame = sent.frame(HOST_SIDE, from.mac);
            world
                .send(scene, Program::PodEgress, from.device, frame)
                .expect(Expected::redirected(&to_pod(&to, &seen)).counted(
                    KAFKA.id,
                    EAST,
                    class.0,
                    Direction::Local,
                    bytes,
                ))?;
        }
        Ok(())
    };
    go_in(world, "nobody has a class", NONE)?;
    label(world, &ANALYTICS_2, FIFTH)?;
    world.set_routes(&routes_with(ANALYTICS_2.slice_address, FIFTH))?;
    go_in(world, "one has", FIFTH)?;
    label(world, &KAFKA_0, FIRST)?;
    let mut routes = routes_with(KAFKA_0.slice_address, FIRST);
    routes.extend(routes_with(ANALYTICS_2.slice_address, FIFTH).pop());
    world.set_routes(&routes)?;
    go_in(world, "both have", FIRST)
}

/// An error is about a packet between the same two pods; a later part follows its first.
pub(super) fn errors_and_parts_are_of_their_pods_class(world: &mut World) -> Result<()> {
    world.set_routes(&routes_with(KAFKA_1, FIFTH))?;
    let (pod, known_as) = (KAFKA_0.pod_address, KAFKA_0.slice_address);
    let about = |to| Ipv4::between(KAFKA_1, to).tcp(Tcp::new(PORTS[0], PORTS[1]).syn());
    let error = |from, about: &Ipv4| {
        Ipv4::between(from, KAFKA_1).icmp(Icmp::port_unreachable(&Ipv4Quote::of(about)))
    };
    let inner = error(known_as, &about(known_as));
    let frame = tunnel_out(WEST_1, KAFKA.id, FIFTH, &inner, [0, 0]);
    let bytes = inner.build().len();
    let sent = from_pod(&error(pod, &about(pod)));
    world
        .send("error", Program::PodEgress, KAFKA_0.device, sent)
        .expect(Expected::redirected(&frame).counted(
            KAFKA.id,
            "west",
            FIFTH.0,
            Direction::Out,
            bytes,
        ))?;

    let numbered = |from| Ipv4::between(from, KAFKA_1).identification(77);
    let first = |from| {
        let segment = Tcp::new(PORTS[0], PORTS[1]).ack().data(vec![1; 1404]);
        numbered(from).tcp(segment).fragment(0, true)
    };
    let later = |from| numbered(from).raw(6, vec![3; 40]).fragment(1424, false);
    for (scene, sent, inner) in [
        ("first", first(pod), first(known_as)),
        ("later", later(pod), later(known_as)),
    ] {
        let frame = tunnel_out(WEST_1, KAFKA.id, FIFTH, &inner, PORTS);
        let bytes = inner.build().len();
        let expected = Expected::redirected(&frame);
        let expected = expected.counted(KAFKA.id, "west", FIFTH.0, Direction::Out, bytes);
        let expected = match scene {
            "first" => expected.noted(part_77(), what_the_first_says()),
            _ => expected,
        };
        world
            .send(scene, Program::PodEgress, KAFKA_0.device, from_pod(&sent))
            .expect(expected)?;
    }
    Ok(())
}

fn part_77() -> FragmentKey {
    FragmentKey {
        slice: KAFKA.id,
        source: address(KAFKA_0.slice_address),
        destination: address(KAFKA_1),
        identification: 77u16.to_be(),
        protocol: 6,
        reserved: 0,
    }
}

fn what_the_first_says() -> FirstFragment {
    FirstFragment {
        source_port: PORTS[0].to_be(),
        destination_port: PORTS[1].to_be(),
        class: class(FIFTH),
    }
}

/// What is remembered of a flow goes with the change that gives one of its pods another class.
pub(super) fn known_flow_changes_its_class(world: &mut World) -> Result<()> {
    for _ in 0..3 {
        leaves_in(world, "by the tables", PORTS, NONE)?;
    }
    world.set_routes_without_activating(&routes_with(KAFKA_1, FIFTH))?;
    leaves_in(world, "as remembered", PORTS, NONE)?;
    world.activate()?;
    for _ in 0..3 {
        leaves_in(world, "after the change", PORTS, FIFTH)?;
    }
    world.set_routes(&standard_routes())?;
    label(world, &KAFKA_0, FIRST)?;
    leaves_in(world, "the sender's now", PORTS, FIRST)
}
