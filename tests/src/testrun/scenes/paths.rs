//! Which path packets take, and the probes that tell.

use anyhow::Result;
use slice_common::drop_reason::DropReason;
use slice_common::health::REFLECTED_PER_SECOND;
use slice_common::layout::{Direction, PathGroup, PathHealth, Peer, Probes, SentProbe};

use super::{from_node, from_pod, on_wire, tunnel_in, tunnel_out};
use crate::packet::{Checksum, Ipv4, Tcp, Vxlan};
use crate::testrun::actors::*;
use crate::testrun::exchange::kernel_time_ns;
use crate::testrun::state::PathNote;
use crate::testrun::{Expected, Program, World};

const MS: u64 = 1_000_000;
const UNKNOWN: u32 = 0;
const NONCE: u64 = 0x0123_4567_89ab_cdef;
const PROBES: u32 = 0x1f_ffff;
const REQUEST: u8 = 1;
const ANSWER: u8 = 2;

/// Packets to west choose between its node and the one in edge.
fn two_paths(world: &mut World) -> Result<()> {
    let group = PathGroup {
        count: 2,
        fellows: 0,
        paths: [WEST_1.path(), EDGE_1.path(), 0, 0, 0, 0, 0],
    };
    world.insert("PATH_GROUPS", WEST_1.path_group(), group)?;
    for node in [WEST_1, EDGE_1] {
        let peer = Peer {
            group: node.peer_group(),
            cluster: cluster(node.cluster),
            member: 1,
            path: node.path(),
            flags: Peer::WATCHED,
        };
        world.insert("PEERS", address(node.address).network_word(), peer)?;
    }
    Ok(())
}

/// What is known of a path, in milliseconds before now; 0 for never.
#[derive(Clone, Copy, Default)]
pub(super) struct Known {
    pub(super) heard: u64,
    pub(super) heard_since: u64,
    pub(super) answered: u64,
    pub(super) answered_since: u64,
    pub(super) sent: u64,
    pub(super) sent_since: u64,
}

pub(super) const NOTHING: Known = Known {
    heard: 0,
    heard_since: 0,
    answered: 0,
    answered_since: 0,
    sent: 0,
    sent_since: 0,
};
pub(super) const ANSWERS: Known = Known {
    answered: 20,
    answered_since: 5000,
    ..NOTHING
};
const ANSWERS_AGAIN: Known = Known {
    answered: 20,
    answered_since: 500,
    ..NOTHING
};
pub(super) const ANSWERED_ONCE: Known = Known {
    answered: 400,
    answered_since: 5000,
    ..NOTHING
};
const HEARD: Known = Known {
    heard: 50,
    heard_since: 5000,
    sent: 10,
    sent_since: 60,
    ..NOTHING
};
const SILENT: Known = Known {
    heard: 900,
    heard_since: 5000,
    sent: 10,
    sent_since: 890,
    ..NOTHING
};
const SILENT_FOR_LONGER: Known = Known {
    heard: 2000,
    ..SILENT
};
/// Disproven once, but nobody has tried for a while.
const FORGOTTEN: Known = Known {
    heard: 9000,
    sent: 5000,
    sent_since: 7000,
    ..NOTHING
};

pub(super) fn know(world: &mut World, node: Node, known: Known, now: u64) -> Result<()> {
    let ago = |ms: u64| if ms == 0 { 0 } else { now - ms * MS };
    let health = PathHealth {
        heard_ns: ago(known.heard),
        heard_since_ns: ago(known.heard_since),
        answered_ns: ago(known.answered),
        answered_since_ns: ago(known.answered_since),
        sent_ns: ago(known.sent),
        sent_since_ns: ago(known.sent_since),
        ..PathHealth::NOTHING
    };
    world.insert("PATH_HEALTH", node.path(), health)
}

/// The prober sent its last probe so many milliseconds ago, and began a while before.
pub(super) fn prober(
    world: &mut World,
    node: Node,
    newest_ms: u64,
    since_ms: u64,
    now: u64,
) -> Result<()> {
    let sent_ns = now - newest_ms * MS;
    let mut sent = [SentProbe {
        nonce: 0,
        sent_ns: 0,
    }; Probes::KEPT];
    sent[2] = SentProbe {
        nonce: NONCE,
        sent_ns,
    };
    let probes = Probes {
        newest_ns: sent_ns,
        since_ns: now - since_ms * MS,
        sent,
    };
    world.insert("PROBES", node.path(), probes)
}

fn packet() -> Ipv4 {
    Ipv4::between(KAFKA_0.pod_address, KAFKA_1).tcp(Tcp::new(40_000, 9092).ack())
}

/// Why a path is taken.
#[derive(Clone, Copy)]
enum How {
    Proven,
    Unproven,
    /// Nothing is proven, and this one should have been heard of.
    InsteadOf(Node),
}

/// Sends a packet to west and sees which node it goes to.
fn goes_to(world: &mut World, scene: &str, node: Node, how: How) -> Result<()> {
    let inner = packet().source(KAFKA_0.slice_address);
    let frame = tunnel_out(node, KAFKA.id, CLIENT, &inner, [40_000, 9092]);
    let seen = Expected::redirected(&frame)
        .counted(KAFKA.id, "west", 3, Direction::Out, 40)
        .noted_path(node.path(), PathNote::Sent);
    let seen = match how {
        How::Proven => seen,
        How::Unproven => seen.unproven(WEST_1.path_group()),
        How::InsteadOf(silent) => seen
            .unproven(WEST_1.path_group())
            .noted_path(silent.path(), PathNote::Left),
    };
    world
        .send(
            scene,
            Program::PodEgress,
            KAFKA_0.device,
            from_pod(&packet()),
        )
        .expect(seen)
}

/// Every case of a living prober: only answers count.
pub(super) fn probed_path_is_chosen_by_its_answers(world: &mut World) -> Result<()> {
    use How::*;
    let cases = [
        ("both answer", ANSWERS, ANSWERS, WEST_1, Proven),
        ("the first does not", ANSWERED_ONCE, ANSWERS, EDGE_1, Proven),
        (
            "the first is heard, but does not answer",
            HEARD,
            ANSWERS,
            EDGE_1,
            Proven,
        ),
        (
            "the first came back just now",
            ANSWERS_AGAIN,
            ANSWERS,
            EDGE_1,
            Proven,
        ),
        (
            "both came back just now",
            ANSWERS_AGAIN,
            ANSWERS_AGAIN,
            WEST_1,
            Proven,
        ),
        (
            "only the first does",
            ANSWERS_AGAIN,
            ANSWERED_ONCE,
            WEST_1,
            Proven,
        ),
        (
            "none does, the second did",
            NOTHING,
            ANSWERED_ONCE,
            EDGE_1,
            Unproven,
        ),
        ("none ever did", NOTHING, NOTHING, WEST_1, Unproven),
    ];
    for (scene, first, second, node, how) in cases {
        world.reset()?;
        two_paths(world)?;
        let now = kernel_time_ns()?;
        for (known, node) in [(first, WEST_1), (second, EDGE_1)] {
            // Sent long ago, so that the note of this packet is seen.
            know(
                world,
                node,
                Known {
                    sent: known.sent.max(8),
                    ..known
                },
                now,
            )?;
            prober(world, node, 5, 9000, now)?;
        }
        goes_to(world, scene, node, how)?;
    }
    Ok(())
}

/// Without a prober whatever is heard counts, and silence only where something was said.
pub(super) fn unprobed_path_is_chosen_by_what_is_heard(world: &mut World) -> Result<()> {
    use How::*;
    let cases = [
        ("nothing is known", None, None, WEST_1, Unproven),
        ("the first is heard", Some(HEARD), None, WEST_1, Proven),
        ("the second is heard", None, Some(HEARD), EDGE_1, Proven),
        (
            "the first went silent",
            Some(SILENT),
            None,
            EDGE_1,
            InsteadOf(WEST_1),
        ),
        (
            "the second went silent",
            None,
            Some(SILENT),
            WEST_1,
            InsteadOf(EDGE_1),
        ),
        (
            "both did, the first later",
            Some(SILENT),
            Some(SILENT_FOR_LONGER),
            WEST_1,
            Unproven,
        ),
        (
            "both did, the second later",
            Some(SILENT_FOR_LONGER),
            Some(SILENT),
            EDGE_1,
            Unproven,
        ),
        (
            "the second, worth another try",
            Some(SILENT),
            Some(FORGOTTEN),
            EDGE_1,
            InsteadOf(WEST_1),
        ),
        (
            "answers of old do not count",
            Some(ANSWERS),
            Some(HEARD),
            EDGE_1,
            Proven,
        ),
    ];
    for (scene, first, second, node, how) in cases {
        world.reset()?;
        two_paths(world)?;
        let now = kernel_time_ns()?;
        for (known, node) in [(first, WEST_1), (second, EDGE_1)] {
            if let Some(known) = known {
                know(world, node, known, now)?;
            }
            // A prober that died, or has just begun.
            let (newest, since) = if matches!(how, Proven) {
                (400, 9000)
            } else {
                (10, 200)
            };
            prober(world, node, newest, since, now)?;
        }
        goes_to(world, scene, node, how)?;
    }
    Ok(())
}

/// What arrives from a peer proves its path, if packets choose it.
pub(super) fn arrival_proves_a_watched_path(world: &mut World) -> Result<()> {
    let answer = || Ipv4::between(KAFKA_1, KAFKA_0.slice_address).tcp(Tcp::new(9092, 40_000).ack());
    let tunnel = tunnel_in(WEST_1, KAFKA.id, 3, &answer());
    let frame = super::to_pod(&KAFKA_0, &answer().destination(KAFKA_0.pod_address));
    let seen = || Expected::redirected(&frame).counted(KAFKA.id, "west", 3, Direction::In, 40);
    world
        .send("unwatched", Program::UnderlayIngress, NIC, on_wire(&tunnel))
        .expect(seen())?;
    two_paths(world)?;
    world
        .send("watched", Program::UnderlayIngress, NIC, on_wire(&tunnel))
        .expect(seen().noted_path(WEST_1.path(), PathNote::Heard))?;
    // Once in a few milliseconds is enough, and what is not valid proves nothing.
    let forged = tunnel_in(WEST_1, KAFKA.id, 3, &answer().source(KAFKA_2));
    world.reset()?;
    two_paths(world)?;
    world
        .send("forged", Program::UnderlayIngress, NIC, on_wire(&forged))
        .expect(Expected::dropped(KAFKA.id, DropReason::WrongPeer))
}

fn body(kind: u8, nonce: u64, bytes: usize) -> Vec<u8> {
    let mut body = vec![1, kind, 0, 0];
    body.extend(nonce.to_ne_bytes());
    body.resize(bytes, 0);
    body
}

fn probe(from: [u8; 4], to: [u8; 4], body: Vec<u8>) -> Vxlan {
    Vxlan::between(from, to)
        .slice(PROBES, 0)
        .source_port(50_123)
        .inner_ethertype(0x88b5)
        .carry_bytes(body)
}

fn from_west(kind: u8, nonce: u64) -> Vxlan {
    probe(WEST_1.address, EAST_1, body(kind, nonce, 12))
}

/// A peer's probe comes back as it was, whatever its size.
pub(super) fn probe_is_answered(world: &mut World) -> Result<()> {
    for bytes in [12, 13, 1450] {
        let request = probe(WEST_1.address, EAST_1, body(REQUEST, NONCE, bytes))
            .outer(|outer| outer.dscp(48).ttl(3))
            .udp_checksum(Checksum::Right);
        let answer =
            probe(EAST_1, WEST_1.address, body(ANSWER, NONCE, bytes)).outer(|outer| outer.dscp(48));
        world
            .send("probe", Program::UnderlayIngress, NIC, on_wire(&request))
            .expect(
                Expected::redirected(&on_wire(&answer))
                    .noted_path(WEST_1.path(), PathNote::Reflected),
            )?;
    }
    two_paths(world)?;
    world
        .send(
            "watched",
            Program::UnderlayIngress,
            NIC,
            on_wire(&from_west(REQUEST, 7)),
        )
        .expect(
            Expected::redirected(&on_wire(&probe(
                EAST_1,
                WEST_1.address,
                body(ANSWER, 7, 12),
            )))
            .noted_path(WEST_1.path(), PathNote::Heard)
            .noted_path(WEST_1.path(), PathNote::Reflected),
        )
}

fn drops(world: &mut World, reason: DropReason, probe: &Vxlan) -> Result<()> {
    world
        .send(
            format!("drop {}", reason.label()),
            Program::UnderlayIngress,
            NIC,
            on_wire(probe),
        )
        .expect(Expected::dropped(UNKNOWN, reason))
}

/// An answer counts once, for the node that was asked, and for one of the last probes; nothing answers an
/// answer.
pub(super) fn drop_bad_probe(world: &mut World) -> Result<()> {
    let now = kernel_time_ns()?;
    prober(world, WEST_1, 20, 9000, now)?;
    for (peer, nonce) in [(EDGE_1, NONCE), (WEST_1, NONCE ^ 1), (WEST_1, 0)] {
        let forged = probe(peer.address, EAST_1, body(ANSWER, nonce, 12));
        drops(world, DropReason::BadProbe, &forged)?;
    }
    let answer = from_west(ANSWER, NONCE);
    world
        .send("answer", Program::UnderlayIngress, NIC, on_wire(&answer))
        .expect(Expected::taken().noted_path(WEST_1.path(), PathNote::Answered))?;
    drops(world, DropReason::BadProbe, &answer)?;
    let version = |version: u8| {
        let mut body = body(REQUEST, NONCE, 12);
        body[0] = version;
        probe(WEST_1.address, EAST_1, body)
    };
    for bad in [
        version(0),
        version(2),
        from_west(0, NONCE),
        from_west(3, NONCE),
        from_west(REQUEST, NONCE).inner_ethertype(0x0800),
        probe(WEST_1.address, EAST_1, body(REQUEST, NONCE, 11)),
    ] {
        drops(world, DropReason::BadProbe, &bad)?;
    }
    let stranger = probe(NOBODY, EAST_1, body(REQUEST, NONCE, 12));
    drops(world, DropReason::UnknownPeer, &stranger)
}

pub(super) fn drop_probe_limit(world: &mut World) -> Result<()> {
    let request = from_west(REQUEST, NONCE);
    for (already, second_ms, is_answered) in [
        (REFLECTED_PER_SECOND - 1, 10, true),
        (REFLECTED_PER_SECOND, 10, false),
        (REFLECTED_PER_SECOND, 1100, true),
    ] {
        let health = PathHealth {
            reflected_second_ns: kernel_time_ns()? - second_ms * MS,
            reflected: already,
            ..PathHealth::NOTHING
        };
        world.insert("PATH_HEALTH", WEST_1.path(), health)?;
        if is_answered {
            world
                .send("within", Program::UnderlayIngress, NIC, on_wire(&request))
                .accepted()?;
        } else {
            drops(world, DropReason::ProbeLimit, &request)?;
        }
    }
    Ok(())
}

/// The prober's packets have no mark: their nonces are the node's secret.
pub(super) fn only_the_probers_probes_leave(world: &mut World) -> Result<()> {
    let now = kernel_time_ns()?;
    prober(world, WEST_1, 20, 9000, now)?;
    let own = probe(EAST_1, WEST_1.address, body(REQUEST, NONCE, 400));
    let frame = |probe: &Vxlan| probe.frame(ROUTER_MAC, NIC_MAC);
    world
        .send("own", Program::UnderlayGuard, NIC, frame(&own))
        .expect(Expected::untouched(&frame(&own)))?;
    let cases = [
        (
            DropReason::BadProbe,
            probe(EAST_1, WEST_1.address, body(REQUEST, NONCE ^ 1, 400)),
        ),
        (
            DropReason::BadProbe,
            probe(EAST_1, WEST_1.address, body(ANSWER, NONCE, 400)),
        ),
        (
            DropReason::BadProbe,
            probe(EAST_1, EDGE_1.address, body(REQUEST, NONCE, 400)),
        ),
        (
            DropReason::BadProbe,
            probe(EAST_1, NOBODY, body(REQUEST, NONCE, 400)),
        ),
        (
            DropReason::ForgedUnderlay,
            probe(STRANGER, WEST_1.address, body(REQUEST, NONCE, 400)),
        ),
        (DropReason::ForgedUnderlay, own.clone().slice(KAFKA.id, 0)),
        (DropReason::ForgedUnderlay, own.clone().flags(0)),
    ];
    for (reason, forged) in cases {
        world
            .send("forged", Program::UnderlayGuard, NIC, frame(&forged))
            .expect(Expected::dropped(UNKNOWN, reason))?;
    }
    let plain = Ipv4::between(EAST_1, WEST_1.address).udp(crate::packet::Udp::new(1, 6085));
    world
        .send("short", Program::UnderlayGuard, NIC, from_node(&plain))
        .expect(Expected::dropped(UNKNOWN, DropReason::ForgedUnderlay))
}
