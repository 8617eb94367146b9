//! Two nodes of a cluster send a slice's packets by one link, and lend each other what they do not use of its ceiling.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use slice_tests::bench::qos::load::Streams;
use slice_tests::child::poll_until;
use slice_tests::harness::say;
use slice_tests::lab::config::node_documents;
use slice_tests::lab::inventory::{METRICS_PORT, NODES, NodeSpec};
use slice_tests::lab::{Lab, LabOptions, Wan};
use slice_tests::relay::Settings;

use super::two_nodes::{CEILING_BPS, configure, stream, wire_bytes_at, with_ceiling};

const LIMIT: Duration = Duration::from_secs(30);
const OWN_BYTES_PER_SECOND: f64 = CEILING_BPS / 2.0 / 8.0;
const SECOND_NS: u64 = 1_000_000_000;
/// Long enough that all that a stream begins with is over.
const LONE_SECONDS: u64 = 3;
const CEILING_LIMIT: f64 = 1.02;

/// In the lab with agents, over a link that carries whatever comes.
pub(super) fn follows_demand_and_ends_with_the_lender(
    agent: &Path,
    options: LabOptions,
) -> Result<()> {
    let lab = Lab::up(&LabOptions {
        wan: Wan::relay(Settings::with_delay(Duration::from_millis(5))),
        ..options
    })?;
    lab.start_agents(agent)?;
    configure(&lab, 2, |node| with_ceiling(&node_documents(node)?, 2))?;
    let mut watch = Watch::new(&lab);
    let busy = stream(&lab, "web-0")?;
    let alone = watch.steady(LONE_SECONDS)?;
    ensure!(
        alone < 0.52,
        "vacuous: without lending one node has {alone:.3}"
    );
    configure(&lab, 2, with_lending(&lab))?;
    grows(&lab, &mut watch)?;
    gives_back(&lab, &mut watch, &busy)?;
    outlives_the_lender(&lab, &mut watch)?;
    let busiest = watch.busiest_second();
    say(&format!(
        "the busiest second had {busiest:.4} of the ceiling"
    ));
    ensure!(busiest < CEILING_LIMIT, "{busiest}");
    busy.stop()
}

/// The busy node has what the idle one can spare, and both say so.
fn grows(lab: &Lab, watch: &mut Watch<'_>) -> Result<()> {
    let needed = watch.until("a busy node has more than its half", |it| {
        Ok(it.second() > 0.7)
    })?;
    let has = watch.steady(LONE_SECONDS)?;
    let (busy, idle) = (page(lab, "east-1")?, page(lab, "east-2")?);
    let seen =
        format!("{has:.3} of the ceiling {needed:.1?} after the configuration\n{busy}{idle}");
    say(&seen);
    ensure!(has > 0.8, "{seen}");
    ensure!(
        busy.contains("borrows 15M bit/s (75.0 %) from 172.20.1.12"),
        "{seen}"
    );
    ensure!(
        idle.contains("lends 15M bit/s (75.0 %) to 172.20.1.11"),
        "{seen}"
    );
    Ok(())
}

/// The idle node begins to send.
fn gives_back(lab: &Lab, watch: &mut Watch<'_>, busy: &Streams) -> Result<()> {
    let second = stream(lab, "web-1")?;
    let needed = watch.until("both nodes have their own parts", |_| {
        let counters = lab.counters()?;
        let of = |name| counters.sum(name, &[("slice", "shop")]);
        let loans = of("sliceplane_ceiling_lent_bytes_per_second")
            + of("sliceplane_ceiling_borrowed_bytes_per_second");
        Ok(loans == 0.0)
    })?;
    let sent = || [busy.wire_bytes(), second.wire_bytes()];
    let before = sent();
    let both = watch.steady(LONE_SECONDS)?;
    let after = sent();
    let halves = [0, 1].map(|at| part(after[at] - before[at], LONE_SECONDS * SECOND_NS));
    let seen = format!(
        "{needed:.1?} after it began the second node had its part: {halves:.3?}, {both:.3} in sum"
    );
    say(&seen);
    ensure!(halves.iter().all(|part| *part > 0.4), "{seen}");
    // Two questions, or a lease, and as much again for a machine that does other things.
    ensure!(needed < Duration::from_secs(8), "{seen}");
    second.stop()
}

/// The agent of the node that lends is killed.
fn outlives_the_lender(lab: &Lab, watch: &mut Watch<'_>) -> Result<()> {
    // While both sent the link had as much.
    watch.until("the busy node has more again", |it| {
        Ok(borrowed(lab)? > 0.4 * OWN_BYTES_PER_SECOND && it.second() > 0.7)
    })?;
    lab.end_agent("east-2", Signal::SIGKILL)?;
    let needed = watch.until("without the lender's agent it has its half", |it| {
        Ok(it.second() < 0.53)
    })?;
    let seen =
        format!("{needed:.1?} after the lender's agent was killed the other had its own part");
    say(&seen);
    // The last second is looked at, so it is later by that than when packets are let in at the own rate.
    ensure!(
        needed > Duration::from_millis(1500),
        "it did not end with the lease: {seen}"
    );
    ensure!(needed < Duration::from_secs(8), "{seen}");
    Ok(())
}

/// By the agent of the node that is busy all the time, in bytes a second.
fn borrowed(lab: &Lab) -> Result<f64> {
    let of_node = [("node", "east-1"), ("slice", "shop")];
    Ok(lab
        .counters()?
        .sum("sliceplane_ceiling_borrowed_bytes_per_second", &of_node))
}

/// What the agent of a node says of itself.
fn page(lab: &Lab, node: &str) -> Result<String> {
    let netns = &lab.node(node)?.netns;
    Ok(slice_tests::lab::agents::http_get(netns, METRICS_PORT, "/status")?.body)
}

/// Nodes of one cluster are partners; where there is but one, nothing is lent.
fn with_lending(lab: &Lab) -> impl Fn(&NodeSpec) -> Result<String> {
    |node| {
        let text = with_ceiling(&node_documents(node)?, 2)?;
        let others = NODES
            .iter()
            .filter(|it| it.cluster == node.cluster && it.name != node.name);
        let partners: Vec<_> = others
            .map(|it| format!("\"{}:{METRICS_PORT}\"", it.underlay()))
            .collect();
        if partners.is_empty() {
            return Ok(text);
        }
        let token = lab.node(node.name)?.config.with_extension("token");
        std::fs::write(
            &token,
            format!("known to nodes of {}\n", node.cluster).replace(' ', "-"),
        )?;
        let lending = format!(
            "nodes: 2, lending: {{partners: [{}], tokenFile: {}}}",
            partners.join(", "),
            token.display()
        );
        Ok(text.replace("nodes: 2", &lending))
    }
}

/// What the link carried, all the time.
struct Watch<'a> {
    lab: &'a Lab,
    /// Bytes until a moment of the relay's clock.
    samples: Vec<(u64, u64)>,
}

impl<'a> Watch<'a> {
    fn new(lab: &'a Lab) -> Self {
        Self {
            lab,
            samples: Vec::new(),
        }
    }

    fn sample(&mut self) -> Result<u64> {
        let (bytes, at_ns) = wire_bytes_at(self.lab)?;
        self.samples.push((at_ns, bytes));
        Ok(at_ns)
    }

    /// Watches until this holds; returns how long that took.
    fn until(&mut self, what: &str, holds: impl Fn(&Self) -> Result<bool>) -> Result<Duration> {
        let began = Instant::now();
        let held = poll_until(LIMIT, || {
            self.sample()?;
            Ok(holds(self)?.then_some(()))
        })?;
        held.with_context(|| format!("not within {LIMIT:?}: {what}; it has {:.3}", self.second()))?;
        Ok(began.elapsed())
    }

    /// Watches for some seconds; returns what passed, as a part of the ceiling.
    fn steady(&mut self, seconds: u64) -> Result<f64> {
        let began_ns = self.sample()?;
        let first = self.samples.len() - 1;
        let passed = poll_until(LIMIT, || {
            let now_ns = self.sample()?;
            Ok((now_ns >= began_ns + seconds * SECOND_NS).then_some(now_ns))
        })?;
        passed.context("the relay's clock stands still")?;
        Ok(self.between(first, self.samples.len() - 1))
    }

    fn between(&self, first: usize, last: usize) -> f64 {
        let ((began_ns, before), (ended_ns, after)) = (self.samples[first], self.samples[last]);
        part(after - before, ended_ns - began_ns)
    }

    /// The last second.
    fn second(&self) -> f64 {
        self.second_until(self.samples.len() - 1).unwrap_or(0.0)
    }

    fn second_until(&self, last: usize) -> Option<f64> {
        let began_ns = self.samples[last].0.checked_sub(SECOND_NS)?;
        let first = self.samples[..last]
            .iter()
            .rposition(|(at_ns, _)| *at_ns <= began_ns)?;
        Some(self.between(first, last))
    }

    fn busiest_second(&self) -> f64 {
        let seconds = (0..self.samples.len()).filter_map(|last| self.second_until(last));
        seconds.fold(0.0, f64::max)
    }
}

fn part(bytes: u64, ns: u64) -> f64 {
    bytes as f64 * 8.0 * 1e9 / ns.max(1) as f64 / CEILING_BPS
}
