//! Gateways of one cluster that stand in for each other.

use anyhow::Result;
use slice_common::drop_reason::DropReason;
use slice_common::layout::{Direction, Path, PathGroup, Peer};

use super::paths::{ANSWERED_ONCE, ANSWERS, Known, NOTHING, know, prober};
use super::transit::{gateway, leaves};
use super::{drops_from_wire, on_wire, tunnel_in};
use crate::packet::{Ipv4, Tcp, Vxlan};
use crate::testrun::actors::*;
use crate::testrun::exchange::kernel_time_ns;
use crate::testrun::state::PathNote;
use crate::testrun::{Expected, Program, World, standard_path};

/// East-1 is a gateway and east-2 its fellow; edge-1 is a member of their cluster.
fn fellows(world: &mut World) -> Result<()> {
    gateway(world)?;
    let group = PathGroup {
        count: 2,
        fellows: 1,
        paths: [WEST_1.path(), EAST_2.path(), 0, 0, 0, 0, 0],
    };
    world.insert("PATH_GROUPS", WEST_1.path_group(), group)?;
    let peer = |node: Node, of: &str, flags| Peer {
        group: node.peer_group(),
        cluster: cluster(of),
        member: 1,
        path: node.path(),
        flags,
    };
    for (node, peer) in [
        (WEST_1, peer(WEST_1, WEST_1.cluster, Peer::WATCHED)),
        (EAST_2, peer(EAST_2, EAST, Peer::WATCHED | Peer::FELLOW)),
        (EDGE_1, peer(EDGE_1, EAST, 0)),
    ] {
        world.insert("PEERS", address(node.address).network_word(), peer)?;
    }
    let to_fellow = Path {
        flags: Path::TO_FELLOW,
        ..standard_path(&EAST_2, world.ifindex(NIC)?)
    };
    world.insert("PATHS", EAST_2.path(), to_fellow)
}

/// What the paths to west and to the fellow have shown, under a living prober.
fn shown(world: &mut World, west: Known, fellow: Known) -> Result<()> {
    let now = kernel_time_ns()?;
    for (node, known) in [(WEST_1, west), (EAST_2, fellow)] {
        know(world, node, Known { sent: 8, ..known }, now)?;
        prober(world, node, 5, 9000, now)?;
    }
    Ok(())
}

/// A broker of the member to one in west.
fn inner(ttl: u8) -> Ipv4 {
    let tcp = Tcp::new(40_000, 9092).ack().data(vec![7; 100]);
    Ipv4::between(KAFKA_2, KAFKA_1).ttl(ttl).tcp(tcp)
}

fn arrives(from: Node, inner: &Ipv4) -> Vxlan {
    tunnel_in(from, KAFKA.id, 3, inner)
        .source_port(super::transit::PORT)
        .outer(|outer| outer.dscp(18).ecn(1).ttl(9))
}

fn passed_to(node: Node) -> Expected {
    let bytes = inner(63).build().len();
    Expected::redirected(&leaves(node, &inner(63))).counted(
        KAFKA.id,
        "west",
        3,
        Direction::Transit,
        bytes,
    )
}

pub(super) fn a_fellow_takes_over_where_no_way_is_proven(world: &mut World) -> Result<()> {
    let cases = [
        ("both answer", ANSWERS, ANSWERS, WEST_1, true),
        ("only the fellow does", ANSWERED_ONCE, ANSWERS, EAST_2, true),
        ("none does", ANSWERED_ONCE, NOTHING, WEST_1, false),
    ];
    for (scene, west, fellow, to, is_proven) in cases {
        world.reset()?;
        fellows(world)?;
        shown(world, west, fellow)?;
        let seen = passed_to(to).noted_path(to.path(), PathNote::Sent);
        let seen = if is_proven {
            seen
        } else {
            seen.unproven(WEST_1.path_group())
        };
        let frame = on_wire(&arrives(EDGE_1, &inner(64)));
        world
            .send(scene, Program::UnderlayIngress, NIC, frame)
            .expect(seen)?;
    }
    Ok(())
}

/// Never to a fellow, whatever is known: it came from one because that one's ways are dead.
pub(super) fn what_a_fellow_brings_goes_out_by_own_ways(world: &mut World) -> Result<()> {
    fellows(world)?;
    shown(world, ANSWERED_ONCE, ANSWERS)?;
    let frame = on_wire(&arrives(EAST_2, &inner(64)));
    let heard = |seen: Expected| seen.noted_path(EAST_2.path(), PathNote::Heard);
    world
        .send("by own", Program::UnderlayIngress, NIC, frame)
        .expect(heard(passed_to(WEST_1)))?;
    // An error about a member's packet, say, is for the member.
    world.reset()?;
    fellows(world)?;
    let near_member = Path {
        cluster: cluster(EAST),
        ..standard_path(&EDGE_1, world.ifindex(NIC)?)
    };
    world.insert("PATHS", EDGE_1.path(), near_member)?;
    let answer = |ttl| {
        let tcp = Tcp::new(9092, 40_000).ack();
        Ipv4::between(KAFKA_1, KAFKA_2).ttl(ttl).tcp(tcp)
    };
    let seen = Expected::redirected(&leaves(EDGE_1, &answer(63)));
    let seen = seen.counted(KAFKA.id, EDGE_1.cluster, 3, Direction::Transit, 40);
    let frame = on_wire(&arrives(EAST_2, &answer(64)));
    world
        .send("to a member", Program::UnderlayIngress, NIC, frame)
        .expect(heard(seen))?;
    // Nor back to the one that it came from, if a route says so.
    world.reset()?;
    fellows(world)?;
    let back = Ipv4::between(KAFKA_1, ANALYTICS_1).tcp(Tcp::new(9092, 40_000).ack());
    let frame = on_wire(&arrives(EAST_2, &back));
    world
        .send("back", Program::UnderlayIngress, NIC, frame)
        .expect(heard(Expected::dropped(KAFKA.id, DropReason::Loop)))
}

/// For pods of other nodes, and of this slice; another peer does not.
pub(super) fn a_fellow_speaks_for_pods_of_other_nodes_only(world: &mut World) -> Result<()> {
    fellows(world)?;
    let from = |source| {
        let tcp = Tcp::new(40_000, 9092).ack().data(vec![7; 100]);
        Ipv4::between(source, KAFKA_1).tcp(tcp)
    };
    let good = arrives(EAST_2, &from(KAFKA_2));
    for (source, reason) in [
        (KAFKA_0.slice_address, DropReason::WrongPeer),
        (NOBODYS_SLICE_ADDRESS, DropReason::WrongPeer),
        (WEB_2, DropReason::WrongSlice),
    ] {
        let bad = arrives(EAST_2, &from(source));
        drops_from_wire(world, KAFKA.id, reason, &good, &bad)?;
    }
    let member = arrives(EDGE_1, &from(ANALYTICS_1));
    drops_from_wire(world, KAFKA.id, DropReason::WrongPeer, &good, &member)
}
