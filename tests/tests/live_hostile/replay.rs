//! Random and mutated packets from pods, strangers, wrong peers and unknown hosts.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use slice_agent::image::Prefixed;
use slice_common::layout::{Peer, PolicyEntry, PolicyKey, PolicyVerdict};
use slice_tests::harness::Scene;
use slice_tests::lab::Lab;
use slice_tests::live::put_in_force;
use slice_tests::replay::{Replay, Stage, Tally};

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

fn replay(lab: &Lab) -> Result<()> {
    let stage = Stage::of_lab(lab)?;
    in_order(lab, || {
        stage.replay_and_account("replay", SEED, FRAMES).map(drop)
    })
}

fn opened_rule(lab: &Lab) -> Result<()> {
    let stage = Stage::of_lab(lab)?;
    let mut originals = Vec::new();
    for node in &stage.nodes {
        let maps = node.maps();
        let policy = maps.table::<PolicyKey, PolicyEntry>("POLICY")?;
        maps.swap("POLICY", &with_all_open(&policy, 7))?;
        put_in_force(&maps)?;
        originals.push((maps, policy));
    }
    let tally = run(lab, &stage, FRAMES_TO_SEE);
    for (maps, policy) in originals {
        maps.swap("POLICY", &policy)?;
        put_in_force(&maps)?;
    }
    let tally = tally?;
    ensure!(tally.wrong_deliveries > 0, "nobody noticed: {tally}");
    let tally = run(lab, &stage, FRAMES_TO_SEE)?;
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
    let stage = Stage::of_lab(lab)?;
    let mut originals = Vec::new();
    for node in &stage.nodes {
        let maps = node.maps();
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
    let tally = run(lab, &stage, FRAMES_TO_SEE);
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

fn run(lab: &Lab, stage: &Stage, frames: u64) -> Result<Tally> {
    in_order(lab, || {
        let mut replay = Replay::new(stage, SEED)?;
        replay.run(frames)?;
        Ok(replay.tally.clone())
    })
}

/// Plays with the order of each sender's packets kept.
fn in_order<T>(lab: &Lab, play: impl FnOnce() -> Result<T>) -> Result<T> {
    lab.set_receive_steering(false)?;
    let played = play();
    lab.set_receive_steering(true)?;
    played
}
