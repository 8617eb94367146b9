//! Random and mutated packets from pods, strangers, wrong peers and unknown hosts.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use slice_agent::image::Prefixed;
use slice_common::layout::{Peer, PolicyEntry, PolicyKey, PolicyVerdict};
use slice_tests::findings::Findings;
use slice_tests::harness::{Scene, say};
use slice_tests::lab::{KernelDrops, Lab};
use slice_tests::live::{maps_of, put_in_force};
use slice_tests::replay::{NodeTables, Replay, Tally};

pub(crate) const SCENES: &[Scene] = &[
    (
        "hostile_packets_go_where_the_model_says_and_nowhere_else",
        replay,
    ),
    ("a_rule_that_is_opened_in_secret_is_seen", opened_rule),
    ("a_peer_that_may_speak_for_another_is_seen", opened_peer),
];

const FRAMES: u64 = 100_000;
const SEED: u64 = 1;
/// Enough to meet what is open.
const FRAMES_TO_SEE: u64 = 4000;
/// Nothing is proved by frames that all end alike.
const SHARE_MIN: u64 = 10;

fn replay(lab: &Lab) -> Result<()> {
    let nodes = NodeTables::of_lab(lab)?;
    let (before, overheard) = (lab.kernel_drops()?, overheard_from_pods(lab)?);
    let started = Instant::now();
    let tally = run(lab, &nodes, FRAMES)?;
    let took = started.elapsed();
    let overheard = overheard_from_pods(lab)? - overheard;
    let lost = lost_on_the_way(&lab.kernel_drops()?.since(&before));
    say(&format!(
        "replay, seed {SEED}: {tally}; {overheard} overheard by hosts; lost on the way: {lost:?}; \
         {took:.1?}"
    ));
    let vanished = tally.unaccounted + tally.left_to_host.saturating_sub(overheard);
    let unaccounted = vanished.saturating_sub(lost.values().sum());
    Findings {
        packets_unaccounted: Some(unaccounted),
        wrong_deliveries: Some(tally.wrong_deliveries),
        forged_accepted: Some(tally.forged_accepted),
    }
    .report("replay")?;
    let is_right = tally.wrong_deliveries + tally.forged_accepted + tally.misjudged == 0;
    ensure!(is_right && unaccounted == 0, "{tally}; {lost:?}");
    let dropped: u64 = tally.dropped.values().sum();
    for (what, count) in [
        ("deliveries", tally.delivered),
        ("drops", dropped),
        ("frames left to hosts", tally.left_to_host),
    ] {
        ensure!(count * SHARE_MIN > FRAMES / 2, "too few {what}: {tally}");
    }
    Ok(())
}

fn overheard_from_pods(lab: &Lab) -> Result<u64> {
    lab.overheard_at(|device| device.starts_with("p-"))
}

fn opened_rule(lab: &Lab) -> Result<()> {
    let nodes = NodeTables::of_lab(lab)?;
    let mut originals = Vec::new();
    for node in &nodes {
        let maps = maps_of(lab, node.node.name)?;
        let policy = maps.table::<PolicyKey, PolicyEntry>("POLICY")?;
        maps.swap("POLICY", &with_all_open(&policy, 7))?;
        put_in_force(&maps)?;
        originals.push((maps, policy));
    }
    let tally = run(lab, &nodes, FRAMES_TO_SEE);
    for (maps, policy) in originals {
        maps.swap("POLICY", &policy)?;
        put_in_force(&maps)?;
    }
    let tally = tally?;
    ensure!(tally.wrong_deliveries > 0, "nobody noticed: {tally}");
    let tally = run(lab, &nodes, FRAMES_TO_SEE)?;
    ensure!(tally.is_clean(), "with the rule closed again: {tally}");
    Ok(())
}

fn with_all_open(
    policy: &BTreeMap<Prefixed<PolicyKey>, PolicyEntry>,
    slice: u32,
) -> BTreeMap<Prefixed<PolicyKey>, PolicyEntry> {
    let anything = PolicyKey {
        slice,
        source_namespace: 0,
        destination_namespace: 0,
        protocol: 0,
        reserved: 0,
        port: 0,
    };
    let at = Prefixed {
        key: anything,
        prefix_bits: PolicyKey::BITS_SLICE,
    };
    let allow = PolicyEntry {
        verdict: PolicyVerdict::Allow.number(),
        rule: 0,
    };
    policy
        .iter()
        .map(|(at, entry)| (*at, *entry))
        .chain([(at, allow)])
        .collect()
}

fn opened_peer(lab: &Lab) -> Result<()> {
    let nodes = NodeTables::of_lab(lab)?;
    let mut originals = Vec::new();
    for node in &nodes {
        let maps = maps_of(lab, node.node.name)?;
        let peers = maps.entries::<u32, Peer>("PEERS")?;
        let (first, others) = peers
            .iter()
            .next()
            .map(|first| (first, &peers))
            .context("peers")?;
        for underlay in others.keys() {
            maps.put("PEERS", *underlay, *first.1)?;
        }
        put_in_force(&maps)?;
        originals.push((maps, peers));
    }
    let tally = run(lab, &nodes, FRAMES_TO_SEE);
    for (maps, peers) in originals {
        for (underlay, peer) in peers {
            maps.put("PEERS", underlay, peer)?;
        }
        put_in_force(&maps)?;
    }
    let tally = tally?;
    ensure!(tally.forged_accepted > 0, "nobody noticed: {tally}");
    Ok(())
}

/// Runs with the order of each sender's packets kept.
fn run(lab: &Lab, nodes: &[NodeTables], frames: u64) -> Result<Tally> {
    lab.set_receive_steering(false)?;
    let mut replay = Replay::new(lab, nodes, SEED)?;
    let ran = replay.run(frames);
    let tally = replay.tally.clone();
    drop(replay);
    lab.set_receive_steering(true)?;
    ran?;
    Ok(tally)
}

/// Drops of queues between the programs. What stacks say is not about that: pods' stacks come behind the
/// captures, and what hosts get has left the programs.
fn lost_on_the_way(drops: &KernelDrops) -> BTreeMap<String, u64> {
    let of_queues = ["/tx_drops", "/qdisc_drops", "/backlog_drops"];
    let is_of_queue = |name: &str| of_queues.iter().any(|source| name.ends_with(source));
    let kept = drops.counters.iter().filter(|(name, _)| is_of_queue(name));
    kept.map(|(name, count)| (name.clone(), *count)).collect()
}
