//! Hostile packets among gateways: random ones, and probes and answers that prove nothing.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::time::{ClockId, clock_gettime};
use slice_agent::apply::maps::Maps;
use slice_common::drop_reason::DropReason;
use slice_common::layout::{PathHealth, Peer, Probes};
use slice_tests::child::poll_until;
use slice_tests::gateways::{GatewayNode, Gateways, Router, SLICE_ID, UNKNOWN_HOST};
use slice_tests::harness::say;
use slice_tests::live::{Capture, Wire, mac_of, put_in_force};
use slice_tests::packet::{Icmp, Ipv4, Mac, Tcp, Vxlan, internet_checksum};
use slice_tests::replay::{Replay, Stage};

use crate::{LIMIT, meet, two_by_two};

const FRAMES: u64 = 100_000;
const SEED: u64 = 1;
/// Enough to meet what is open.
const FRAMES_TO_SEE: u64 = 30_000;
/// What only gateways and probes can be asked must be asked so often.
const TIMES_MIN: u64 = 20;
const ASKED: [DropReason; 8] = [
    DropReason::UnknownPeer,
    DropReason::UnknownSlice,
    DropReason::BadTunnelHeader,
    DropReason::WrongPeer,
    DropReason::BadProbe,
    DropReason::Loop,
    DropReason::Ttl,
    DropReason::Malformed,
];
const PROBES: u32 = 0x1f_ffff;
const PROBE: u16 = 0x88b5;
const REQUEST: u8 = 1;
const ANSWER: u8 = 2;
const EAST: Ipv4Addr = Ipv4Addr::new(10, 92, 0, 2);
const WEST: Ipv4Addr = Ipv4Addr::new(10, 92, 64, 2);
/// How many answers of a stranger must come to nothing.
const ANSWERS: u64 = 20;
/// Nothing that was sent longer ago is under way.
const PROBE_LIFETIME_NS: u64 = 1_000_000_000;
/// Behind the headers of Ethernet, IPv4, UDP, VXLAN and Ethernet.
const BODY: usize = 64;

pub(crate) fn replay() -> Result<()> {
    two_by_two(|gateways, [east, west]| {
        meet(&east, &west)?;
        let passed = passed_on(gateways)?;
        let stage = Stage::of_gateways(gateways)?;
        let tally = stage.replay_and_account("replay-gateways", SEED, FRAMES)?;
        let passed = passed_on(gateways)? - passed;
        ensure!(passed > FRAMES / 50, "only {passed} passed a gateway");
        for reason in ASKED {
            let count = tally.dropped.get(reason.label()).copied().unwrap_or(0);
            ensure!(
                count >= TIMES_MIN,
                "{count} dropped as {}: {tally}",
                reason.label()
            );
        }
        ensure!(
            gateways
                .nodes
                .iter()
                .all(|node| node.paths_down().is_ok_and(|it| it.is_empty())),
            "paths are down"
        );
        opened_peer(gateways)
    })
}

/// A gateway that takes an unknown host for a gateway of the other cluster: not vacuous.
fn opened_peer(gateways: &Gateways) -> Result<()> {
    let stage = Stage::of_gateways(gateways)?;
    let friend = address(gateways, "east-gw-1")?.to_bits().to_be();
    let unknown = UNKNOWN_HOST.to_bits().to_be();
    for name in ["west-gw-1", "west-gw-2"] {
        let maps = gateways.node(name)?.maps();
        let peers = maps.entries::<u32, Peer>("PEERS")?;
        let friend = peers.get(&friend).context("a gateway's peer")?;
        maps.put("PEERS", unknown, *friend)?;
        put_in_force(&maps)?;
    }
    let mut replay = Replay::new(&stage, SEED)?;
    replay.run(FRAMES_TO_SEE)?;
    let tally = &replay.tally;
    ensure!(
        tally.forged_accepted > 0 && tally.wrong_deliveries > 0,
        "nobody noticed: {tally}"
    );
    Ok(())
}

/// While probes go out, and none comes back: whoever knows a nonce proves the path only as the peer that
/// was asked. Then all agents die, and nothing that is not a valid packet of a peer changes what is known
/// of any path, on any node.
pub(crate) fn unproven() -> Result<()> {
    two_by_two(|gateways, [east, west]| {
        meet(&east, &west)?;
        let [near, far] = ["east-gw-1", "west-gw-1"];
        let (from, to) = (address(gateways, near)?, address(gateways, far)?);
        let victim = Victim::of(gateways, near)?;
        let old = wait_for_probe(&victim.capture, ANSWER, to, from)?;
        let plan = gateways.plan.clone();
        let (plan_near, plan_far) = (plan.node(near), plan.node(far));
        let (plan_near, plan_far) = (plan_near.context("near")?, plan_far.context("far")?);
        gateways.router.cut(plan_far, plan_near)?;
        let down = poll_until(LIMIT, || {
            let down = gateways.node(near)?.paths_down()?;
            Ok(down.iter().any(|line| line.contains(far)).then_some(()))
        })?;
        down.context("the path that is cut does not go down")?;
        let path = victim.path_to(to)?;
        let known = victim.known_of(path)?;
        let reason = DropReason::UnknownPeer;
        let refused = victim.node.dropped(reason)?;
        for _ in 0..ANSWERS {
            let request = wait_for_probe(&victim.capture, REQUEST, from, to)?;
            victim.hear(&answer_to(&request, UNKNOWN_HOST, from))?;
        }
        victim.wait_for_drops(reason, refused + ANSWERS)?;
        let still = victim.known_of(path)?;
        ensure!(
            still.answered_ns == known.answered_ns,
            "a stranger proved a path"
        );
        let request = wait_for_probe(&victim.capture, REQUEST, from, to)?;
        let answer = answer_to(&request, to, from);
        victim.hear(&answer)?;
        let proven = poll_until(LIMIT, || {
            let now = victim.known_of(path)?;
            Ok((now.answered_ns != known.answered_ns).then_some(()))
        })?;
        proven.context("not vacuous: the peer's own answer does prove it")?;
        gateways.router.mend(plan_far, plan_near)?;
        gateways.wait_until_paths_are_up()?;
        drop(victim);
        gateways.kill_agents()?;
        let mut sent = 0;
        for node in &gateways.nodes {
            sent += attack(gateways, node, &[old.clone(), answer.clone()])?;
        }
        say(&format!(
            "{sent} attacks changed nothing that is known of any path"
        ));
        Ok(())
    })
}

/// Sends everything to a node whose agent is dead. Returns how much that was.
fn attack(gateways: &Gateways, node: &GatewayNode, old_answers: &[Vec<u8>]) -> Result<u64> {
    let victim = Victim::of(gateways, node.name)?;
    let known = victim.known_when_quiet()?;
    let attacks = victim.attacks(old_answers)?;
    let mut due = BTreeMap::<DropReason, u64>::new();
    for (_, reason) in &attacks {
        *due.entry(*reason).or_default() += 1;
    }
    for (reason, count) in &mut due {
        *count += node.dropped(*reason)?;
    }
    for (frame, _) in &attacks {
        victim.hear(frame)?;
    }
    for (reason, count) in due {
        victim.wait_for_drops(reason, count)?;
    }
    let now = victim.known()?;
    ensure!(now == known, "{}: {known:?} became {now:?}", node.name);
    Ok(attacks.len() as u64)
}

/// A node, and somebody beside it.
struct Victim<'g> {
    gateways: &'g Gateways,
    node: &'g GatewayNode,
    maps: Maps,
    wire: Wire,
    mac: Mac,
    capture: Capture,
}

impl<'g> Victim<'g> {
    fn of(gateways: &'g Gateways, name: &str) -> Result<Self> {
        let node = gateways.node(name)?;
        let index = gateways.plan.nodes.iter().position(|it| it.name == name);
        let link = Router::link_to(index.context("a node of the plan")?);
        let router = gateways.router.namespace();
        Ok(Self {
            gateways,
            node,
            maps: node.maps(),
            wire: Wire::of(router, &link)?,
            mac: mac_of(&node.namespace, "nic0")?,
            capture: Capture::of(router, &link)?,
        })
    }

    fn hear(&self, frame: &[u8]) -> Result<()> {
        self.wire.send(&[&self.mac[..], &frame[6..]].concat())
    }

    fn known(&self) -> Result<BTreeMap<u32, PathHealth>> {
        self.maps.entries("PATH_HEALTH")
    }

    fn known_of(&self, path: u32) -> Result<PathHealth> {
        let known = self.known()?.remove(&path);
        known.context("nothing is known of the path")
    }

    /// After the last probe of anybody came to nothing.
    fn known_when_quiet(&self) -> Result<BTreeMap<u32, PathHealth>> {
        let mut last = self.known()?;
        let quiet = poll_until(LIMIT, || {
            let mut oldest = true;
            for node in &self.gateways.nodes {
                let probes = node.maps().entries::<u32, Probes>("PROBES")?;
                let newest_ns = probes.values().map(|it| it.newest_ns).max().unwrap_or(0);
                oldest &= monotonic_ns()? - newest_ns > PROBE_LIFETIME_NS;
            }
            let now = self.known()?;
            let is_same = now == last;
            last = now;
            Ok((oldest && is_same).then_some(()))
        })?;
        quiet.context("probes go on without agents")?;
        Ok(last)
    }

    fn path_to(&self, peer: Ipv4Addr) -> Result<u32> {
        let peers = self.peers()?;
        let found = peers.iter().find(|(address, _)| *address == peer);
        Ok(found.context("a peer")?.1)
    }

    /// Addresses and paths.
    fn peers(&self) -> Result<Vec<(Ipv4Addr, u32)>> {
        let peers = self.maps.entries::<u32, Peer>("PEERS")?;
        let peers = peers.into_iter();
        Ok(peers
            .map(|(address, peer)| (Ipv4Addr::from(address.to_ne_bytes()), peer.path))
            .collect())
    }

    fn wait_for_drops(&self, reason: DropReason, count: u64) -> Result<()> {
        let counted = poll_until(LIMIT, || {
            Ok((self.node.dropped(reason)? >= count).then_some(()))
        })?;
        let dropped = self.node.dropped(reason)?;
        let (name, label) = (self.node.name, reason.label());
        ensure!(
            counted.is_some() && dropped == count,
            "{name}: {dropped} dropped as {label}, not {count}"
        );
        Ok(())
    }

    /// Frames, each with why it must be dropped.
    fn attacks(&self, old_answers: &[Vec<u8>]) -> Result<Vec<(Vec<u8>, DropReason)>> {
        let own = address(self.gateways, self.node.name)?;
        let peers = self.peers()?;
        let is_stranger = |it: &Ipv4Addr| *it != own && peers.iter().all(|(peer, _)| peer != it);
        let nodes = self.gateways.plan.nodes.iter().map(|node| node.address);
        let mut strangers: Vec<_> = nodes.filter(is_stranger).collect();
        strangers.extend([UNKNOWN_HOST, Ipv4Addr::new(203, 0, 113, 9), own]);
        let probes = self.maps.entries::<u32, Probes>("PROBES")?;
        let nonces = |path: u32| probes.get(&path).map_or(vec![], |it| it.sent.to_vec());
        let mut attacks = Vec::new();
        let mut add = |tunnel: &Vxlan, reason| {
            attacks.push((tunnel.frame([0; 6], [2; 6]), reason));
        };
        for stranger in &strangers {
            for sent in probes.values().flat_map(|it| it.sent) {
                for kind in [REQUEST, ANSWER] {
                    let probe = probe(*stranger, own, kind, sent.nonce);
                    add(&probe, DropReason::UnknownPeer);
                }
            }
            for tunnel in transit(*stranger, own) {
                add(&tunnel, DropReason::UnknownPeer);
            }
        }
        for (peer, path) in &peers {
            // What another path was asked, and what nobody was.
            let others = probes.keys().filter(|other| *other != path);
            let others = others
                .flat_map(|other| nonces(*other))
                .map(|sent| sent.nonce);
            for nonce in others.chain([0, 1, u64::MAX]) {
                add(&probe(*peer, own, ANSWER, nonce), DropReason::BadProbe);
            }
            for tunnel in broken_probes(*peer, own) {
                add(&tunnel, DropReason::BadProbe);
            }
            for (tunnel, reason) in broken_transit(*peer, own) {
                add(&tunnel, reason);
            }
        }
        for (answer, peer) in old_answers
            .iter()
            .flat_map(|it| peers.iter().map(move |peer| (it, peer)))
        {
            attacks.push((between(answer, peer.0, own), DropReason::BadProbe));
        }
        Ok(attacks)
    }
}

fn probe(from: Ipv4Addr, to: Ipv4Addr, kind: u8, nonce: u64) -> Vxlan {
    let body = [&[1, kind, 0, 0], &nonce.to_ne_bytes()[..], &[0; 20]].concat();
    probe_with(from, to, body)
}

fn probe_with(from: Ipv4Addr, to: Ipv4Addr, body: Vec<u8>) -> Vxlan {
    let tunnel = Vxlan::between(from.octets(), to.octets()).slice(PROBES, 0);
    tunnel.inner_ethertype(PROBE).carry_bytes(body)
}

/// Of another version or kind, not all there, or something else.
fn broken_probes(from: Ipv4Addr, to: Ipv4Addr) -> Vec<Vxlan> {
    let bodies = [
        [2, REQUEST, 0, 0],
        [1, 0, 0, 0],
        [1, 3, 0, 0],
        [1, REQUEST, 1, 0],
        [1, ANSWER, 0, 1],
    ];
    let bodies = bodies.map(|head| [&head[..], &[7; 28]].concat());
    let mut broken: Vec<_> = bodies.map(|body| probe_with(from, to, body)).into();
    broken.push(probe_with(
        from,
        to,
        vec![1, REQUEST, 0, 0, 9, 9, 9, 9, 9, 9, 9],
    ));
    broken.push(probe_with(from, to, Vec::new()));
    broken.push(probe(from, to, REQUEST, 9).inner_ethertype(0x0800));
    broken
}

/// What a gateway of either cluster would pass on, and what it would not.
fn transit(from: Ipv4Addr, to: Ipv4Addr) -> Vec<Vxlan> {
    let mut tunnels = Vec::new();
    for (source, destination) in [(EAST, WEST), (WEST, EAST)] {
        let inner = Ipv4::between(source.octets(), destination.octets());
        let data = inner.clone().tcp(Tcp::new(40_000, 7000).ack());
        let tunnel = || Vxlan::between(from.octets(), to.octets()).slice(SLICE_ID, 0);
        tunnels.extend([
            tunnel().carry(&data),
            tunnel().carry(&data.clone().ttl(1)),
            tunnel().carry(&data.clone().ttl(0)),
            tunnel().carry(&inner.icmp(Icmp::echo_request(7, 1))),
            tunnel().slice(99, 0).carry(&data),
            tunnel().carry(&data).cut_to(30),
        ]);
    }
    tunnels
}

/// Under a peer's address, and yet not what it may say.
fn broken_transit(from: Ipv4Addr, to: Ipv4Addr) -> Vec<(Vxlan, DropReason)> {
    let data = |source: Ipv4Addr| {
        let inner = Ipv4::between(source.octets(), WEST.octets());
        inner.tcp(Tcp::new(40_000, 7000).ack())
    };
    let tunnel = || Vxlan::between(from.octets(), to.octets()).slice(SLICE_ID, 0);
    let nobodys = Ipv4Addr::new(10, 92, 128, 2);
    vec![
        (tunnel().carry(&data(nobodys)), DropReason::WrongPeer),
        (
            tunnel().slice(99, 0).carry(&data(EAST)),
            DropReason::UnknownSlice,
        ),
        (
            tunnel().flags(0).carry(&data(EAST)),
            DropReason::BadTunnelHeader,
        ),
        (
            tunnel().carry(&data(EAST)).cut_to(7),
            DropReason::BadTunnelHeader,
        ),
        (
            tunnel().carry(&data(EAST).total_bytes(2000)),
            DropReason::Malformed,
        ),
    ]
}

/// The next probe of this kind that the router passes on or gets, and none from before.
fn wait_for_probe(capture: &Capture, kind: u8, from: Ipv4Addr, to: Ipv4Addr) -> Result<Vec<u8>> {
    capture.take()?;
    let ends = [from.octets(), to.octets()].concat();
    let found = capture.wait_for(|frame| {
        frame.bytes.get(26..34) == Some(&ends[..])
            && frame.bytes.get(62..64) == Some(&PROBE.to_be_bytes()[..])
            && frame.bytes.get(BODY + 1) == Some(&kind)
    })?;
    Ok(found.context("no probe passes by")?.bytes)
}

fn answer_to(request: &[u8], from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let mut answer = between(request, from, to);
    answer[BODY + 1] = ANSWER;
    answer
}

/// The same packet between others.
fn between(frame: &[u8], from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[26..30].copy_from_slice(&from.octets());
    frame[30..34].copy_from_slice(&to.octets());
    frame[24..26].fill(0);
    let sum = internet_checksum(&[&frame[14..34]]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame[40..42].fill(0);
    frame
}

fn address(gateways: &Gateways, name: &str) -> Result<Ipv4Addr> {
    Ok(gateways.plan.node(name).context("a node")?.address)
}

fn passed_on(gateways: &Gateways) -> Result<u64> {
    gateways.nodes.iter().map(GatewayNode::passed_on).sum()
}

fn monotonic_ns() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(Duration::from(now).as_nanos() as u64)
}
