//! Packets wait in a real queue of the agent's, until their departure or for their turn.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use slice_agent::apply::htb;
use slice_agent::apply::queueing::{self, make_fair};
use slice_agent::compile::class_tree;
use slice_agent::image::{ClassTree, Prefixed};
use slice_common::layout::{ShaperBackend, ShaperKey, ShaperTerms};
use slice_common::shaper::ClassTerms;

use super::leaves::number;
use super::shaper::{LINK_BYTES, SECOND_NS, class, leaving, share, terms, tunnel_of_class};
use crate::child::poll_until;
use crate::live::{Capture, Wire};
use crate::netns::NetNs;
use crate::testrun::actors::*;
use crate::testrun::card::{attach_by_filter, with_netlink};
use crate::testrun::{Program, World};

const PACKETS: u32 = 20;
/// How long [`LINK_BYTES`] take at 2 Mbit/s: all of them less than the tenth of a second that our `fq` keeps a packet for.
const EACH: Duration = Duration::from_millis(4);
/// The same in classes of `htb`, which nothing bounds: a busy machine changes them meanwhile.
const EACH_IN_CLASS: Duration = Duration::from_millis(12);

/// Departures are kept by a real `fq` that the agent put there: packets that are sent at once leave one after the
/// other, in order. Without departures they leave at once: the control.
/// # Errors  what was not as it should be.
pub fn play_on_fq(object: &[u8]) -> Result<()> {
    let node = NetNs::create("edt-node")?;
    node.enter(|| {
        let mut world = World::new(object)?;
        let uplink = world.ifindex(NIC)?;
        with_netlink(async |netlink| make_fair(netlink, uplink, 1).await)?;
        attach_by_filter(&mut world, Program::UnderlayGuard, NIC)?;
        let at_once = time_of_arrival(&mut world, &node, ShaperBackend::Vq)?;
        let last = EACH * (PACKETS - 1);
        ensure!(at_once < last, "without departures they took {at_once:?}");
        let kept = time_of_arrival(&mut world, &node, ShaperBackend::Edt)?;
        ensure!(last <= kept && kept < 4 * last, "{kept:?}, not {last:?}");
        Ok(())
    })?
}

/// Packets wait in a real tree of the agent's classes. A live change of a rate, and of the flow's class, loses none of them and
/// keeps them in order. Another tree in its place loses what waits, and without a flow's record its packets overtake each other:
/// the controls.
/// # Errors  what was not as it should be.
pub fn play_on_htb(object: &[u8]) -> Result<()> {
    const NODE: &str = "htb-node";
    let node = NetNs::create(NODE)?;
    let played = play_in(&node, object);
    NetNs::delete(NODE)?;
    played
}

fn play_in(node: &NetNs, object: &[u8]) -> Result<()> {
    node.enter(|| {
        let mut world = World::new(object)?;
        let uplink = world.ifindex(NIC)?;
        attach_by_filter(&mut world, Program::UnderlayGuard, NIC)?;
        let slow = tree_of(uplink, EACH_IN_CLASS)?;
        let fast = tree_of(uplink, EACH_IN_CLASS / 2)?;
        let build = || with_netlink(async |netlink| htb::build(netlink, uplink, &slow).await);
        build()?;
        let seen = seen_after(&mut world, node, || {
            with_netlink(async |netlink| {
                let (before, _) = ours(netlink, uplink).await?;
                ensure!(before == slow, "{before:#?}, not {slow:#?}");
                for (minor, class) in &fast.classes {
                    htb::put_class(netlink, uplink, *minor, class).await?;
                }
                let (after, waits) = ours(netlink, uplink).await?;
                ensure!(after == fast, "{after:#?}, not {fast:#?}");
                ensure!(waits, "vacuous: nothing waited any more");
                Ok(())
            })
        })?;
        ensure!(seen.iter().copied().eq(0..PACKETS), "{seen:?}");
        let seen = seen_after(&mut world, node, build)?;
        ensure!(
            (seen.len() as u32) < PACKETS,
            "vacuous: nothing waited in the tree"
        );
        play_with_two_classes(&mut world, node)?;
        with_netlink(async |netlink| queueing::remove(netlink, uplink).await)
    })?
}

/// A flow's packets wait in one class, and then the flow is of another one.
fn play_with_two_classes(world: &mut World, node: &NetNs) -> Result<()> {
    let uplink = world.ifindex(NIC)?;
    let both = terms_of_two_classes();
    let tree = tree_by(uplink, both)?;
    with_netlink(async |netlink| htb::build(netlink, uplink, &tree).await)?;
    let replication = number(REPLICATION);
    let room = both.classes[usize::from(replication.number())].room();
    let one = patient_terms(ShaperBackend::Htb, EACH_IN_CLASS);
    let vacated = one.with_vacated(replication, room);
    let changes = [
        [(both, (0, 0)), (both, REPLICATION)],
        [(both, REPLICATION), (both, (0, 0))],
        [(both, REPLICATION), (vacated, REPLICATION)],
    ];
    for change in changes {
        let seen = seen_in(world, node, change, true)?;
        ensure!(seen.iter().copied().eq(0..PACKETS), "{seen:?}");
        let mut seen = seen_in(world, node, change, false)?;
        let [_, (terms, _)] = change;
        if terms == both {
            ensure!(!seen.is_sorted(), "vacuous: nothing is faster");
        }
        seen.sort_unstable();
        ensure!(seen.iter().copied().eq(0..PACKETS), "{seen:?}");
    }
    Ok(())
}

/// Of the default class and of replication, each with one half of what is slow.
fn terms_of_two_classes() -> ShaperTerms {
    let half = patient(2 * EACH_IN_CLASS);
    let ceiling_bps = bps_of(EACH_IN_CLASS);
    terms(ShaperBackend::Htb, ceiling_bps, &half).with_class(number(REPLICATION), &half)
}

/// The numbers of packets that came, of which the second half was sent under other terms, in another class. `is_known`: the
/// flow has a record.
fn seen_in(
    world: &mut World,
    node: &NetNs,
    [first, second]: [(ShaperTerms, (u8, u8)); 2],
    is_known: bool,
) -> Result<Vec<u32>> {
    world.reset()?;
    share(world, first.0)?;
    let frame = leaving(world, first.1, 50_022)?;
    let arrivals = Capture::of_arriving(node, "far-0")?;
    send_numbered(node, &frame, 0..PACKETS / 2)?;
    share(world, second.0)?;
    if !is_known {
        world.forget_shaped_flow(&frame)?;
    }
    let of_second = tunnel_of_class(second.1, 50_022);
    send_numbered(node, &of_second, PACKETS / 2..PACKETS)?;
    let mut seen = Vec::new();
    poll_until(Duration::from_secs(20), || {
        seen.extend(numbers(&arrivals, &frame)?);
        Ok((seen.len() >= PACKETS as usize).then_some(()))
    })?
    .context("some did not come")?;
    Ok(seen)
}

/// What of ours is there, and whether packets wait in it.
async fn ours(netlink: &rtnetlink::Handle, uplink: u32) -> Result<(ClassTree, bool)> {
    let interfaces = [(uplink, NIC.to_owned())].into();
    let mut ours = queueing::ours(netlink, &interfaces).await?;
    let mut tree = ours.trees.remove(&uplink).context("no tree")?;
    let waits = !std::mem::take(&mut tree.waiting).is_empty();
    Ok((tree, waits))
}

/// At which [`LINK_BYTES`] take so long.
fn tree_of(uplink: u32, each: Duration) -> Result<ClassTree> {
    tree_by(uplink, patient_terms(ShaperBackend::Htb, each))
}

fn tree_by(uplink: u32, terms: ShaperTerms) -> Result<ClassTree> {
    let key = Prefixed {
        prefix_bits: ShaperKey::BITS,
        key: ShaperKey {
            ifindex: uplink,
            slice: KAFKA.id,
        },
    };
    let tree = class_tree(NIC, uplink, &[(key, terms)].into()).context("no tree")?;
    Ok(ClassTree {
        frame_bytes: 1538,
        ..tree
    })
}

/// The numbers of packets that came, which were sent at once before something is done.
fn seen_after(
    world: &mut World,
    node: &NetNs,
    change: impl FnOnce() -> Result<()>,
) -> Result<Vec<u32>> {
    world.reset()?;
    share(world, patient_terms(ShaperBackend::Htb, EACH_IN_CLASS))?;
    let frame = leaving(world, (0, 0), 50_021)?;
    let arrivals = Capture::of_arriving(node, "far-0")?;
    send_numbered(node, &frame, 0..PACKETS)?;
    change()?;
    let mut seen = Vec::new();
    // All of them, or as many as there are.
    poll_until(Duration::from_secs(2), || {
        seen.extend(numbers(&arrivals, &frame)?);
        Ok((seen.len() >= PACKETS as usize).then_some(()))
    })?;
    Ok(seen)
}

/// From before the first of some packets is sent, the others right after it, until the last has come.
fn time_of_arrival(world: &mut World, node: &NetNs, backend: ShaperBackend) -> Result<Duration> {
    world.reset()?;
    share(world, patient_terms(backend, EACH))?;
    let frame = leaving(world, (0, 0), 50_020)?;
    let arrivals = Capture::of_arriving(node, "far-0")?;
    let began = Instant::now();
    send_numbered(node, &frame, 0..PACKETS)?;
    let mut seen = Vec::new();
    let all = poll_until(Duration::from_secs(20), || {
        seen.extend(numbers(&arrivals, &frame)?);
        Ok((seen.len() >= PACKETS as usize).then(Instant::now))
    })?;
    ensure!(
        seen.iter().copied().eq(0..PACKETS),
        "{backend:?}: what came is {seen:?}"
    );
    Ok(all.context("some came late")?.duration_since(began))
}

/// Of `kafka`, whose [`LINK_BYTES`] take so long each, however many wait.
fn patient_terms(backend: ShaperBackend, each: Duration) -> ShaperTerms {
    terms(backend, bps_of(each), &patient(each))
}

fn patient(each: Duration) -> ClassTerms {
    ClassTerms {
        burst_ns: 0,
        mark_ns: 50 * SECOND_NS,
        horizon_ns: 60 * SECOND_NS,
        borrowed_horizon_ns: 60 * SECOND_NS,
        ..class(bps_of(each))
    }
}

fn bps_of(each: Duration) -> u64 {
    LINK_BYTES * 8 * 1_000_000 / each.as_micros() as u64
}

fn send_numbered(node: &NetNs, frame: &[u8], numbers: Range<u32>) -> Result<()> {
    let wire = Wire::of(node, NIC)?;
    wire.mark(TUNNEL_MARK)?;
    for number in numbers {
        let mut numbered = frame.to_vec();
        let last = numbered.len() - 1;
        numbered[last] = number as u8;
        wire.send(&numbered)?;
    }
    Ok(())
}

/// Those that came meanwhile.
fn numbers(arrivals: &Capture, frame: &[u8]) -> Result<Vec<u32>> {
    // What follows the tunnel's headers, up to the number.
    let packet = &frame[50..frame.len() - 1];
    let arrived = arrivals.take()?;
    // The kernel's own packets (a card that has just come up asks for IPv6 neighbours) are not ours to count.
    let number = |bytes: &Vec<u8>| {
        let (number, rest) = bytes.split_last()?;
        rest.ends_with(packet).then_some(u32::from(*number))
    };
    Ok(arrived.iter().filter_map(|it| number(&it.bytes)).collect())
}
