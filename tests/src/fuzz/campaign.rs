//! Batches of packets through kernel and model, compared.
//!
//! Verdicts and bytes are compared packet by packet. Reading all maps takes as long as hundreds of
//! packets, so they are compared once for a batch; a batch that differs is run again, packet by packet.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::{Context, Result, bail};
use slice_common::layout::{Counter, ReplyKey};

use super::coverage::Coverage;
use super::generate::{Cast, Generator};
use super::input::{Ending, Forecast, Input};
use super::kernel::{self, Outcome};
use super::minimize::minimize;
use super::model::{LIFETIME_NS, Model};
use super::places;
use super::tables::Tables;
use crate::packet::{describe, describe_difference, faults};
use crate::testrun::exchange::{DROP, NEXT, PASS, PRIORITY, REDIRECT, beginner, begins};
use crate::testrun::shaping::NOTHING_SHAPED;
use crate::testrun::{Change, Program, State, World};

pub(super) const BATCH: usize = 512;
/// What the tunnel adds.
const GROWTH_BYTES_MAX: usize = 50;

/// One world, and what is expected of it.
pub struct Campaign<'w> {
    pub(super) world: &'w mut World,
    pub(super) tables: Tables,
    state: State,
    coverage: Coverage,
}

/// Packets of which the last is judged otherwise than the model says.
#[derive(Clone, Debug)]
pub struct Mismatch {
    pub inputs: Vec<Input>,
    pub complaint: String,
}

impl<'w> Campaign<'w> {
    /// Fills the world's maps; the model believes `tables`, which are the same unless a test wants to see
    /// a difference.
    /// # Errors  when the kernel refuses an entry.
    pub fn new(world: &'w mut World, change: impl FnOnce(&mut Tables)) -> Result<Self> {
        let mut tables = Tables::of(world)?;
        tables.install(world)?;
        change(&mut tables);
        let (state, _) = kernel::state(world)?;
        Ok(Self {
            world,
            tables,
            state,
            coverage: Coverage::default(),
        })
    }

    pub fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    /// Runs `packets` random packets through a program. Returns the first mismatch, cut down to what it
    /// takes.
    /// # Errors  when the kernel does not run a packet at all.
    pub fn run(&mut self, program: Program, packets: u64, seed: u64) -> Result<Option<Mismatch>> {
        let mut generator = Generator::new(seed, Cast::of_test_runs(&self.tables));
        let mut left = packets;
        while left > 0 {
            let mut batch = Vec::with_capacity(BATCH);
            while batch.len() < BATCH && left > 0 {
                batch.extend(generator.next(program));
                left -= 1;
            }
            if let Some(mismatch) = self.check(&batch)? {
                return minimize(self, mismatch).map(Some);
            }
        }
        Ok(None)
    }

    /// Runs these packets in order, in a fresh state.
    /// # Errors  when the kernel does not run a packet at all.
    pub fn check(&mut self, inputs: &[Input]) -> Result<Option<Mismatch>> {
        let coverage = self.coverage.clone();
        let complaint = self.pass(inputs, None)?;
        let Some((at, complaint)) = complaint else {
            return Ok(None);
        };
        self.coverage = coverage;
        if at < inputs.len() {
            let inputs = inputs[..=at].to_vec();
            return Ok(Some(Mismatch { inputs, complaint }));
        }
        // The maps differ, so look at them after each packet.
        for end in 1..=inputs.len() {
            if let Some((_, complaint)) = self.pass(&inputs[..end], Some(end - 1))? {
                let inputs = inputs[..end].to_vec();
                return Ok(Some(Mismatch { inputs, complaint }));
            }
        }
        bail!("a batch of packets changed the maps, once only:\n{complaint}")
    }

    /// Runs the packets; compares the maps after those from `maps_from` on, or after all together.
    /// Returns the place of the packet that differs, or the end when it may be any.
    fn pass(
        &mut self,
        inputs: &[Input],
        maps_from: Option<usize>,
    ) -> Result<Option<(usize, String)>> {
        let now_ns = self.restart()?;
        let known = known_replies(now_ns);
        let coverage = std::mem::take(&mut self.coverage);
        let mut model = Model::new(&self.tables, coverage);
        model.restart(now_ns, &known);
        let mut expected = Change::default();
        let mut noted: BTreeMap<ReplyKey, u64> = known.iter().copied().collect();
        let mut found = None;
        let mut records = BTreeSet::new();
        for (at, input) in inputs.iter().enumerate() {
            if maps_from == Some(at) {
                self.state = kernel::state(self.world)?.0;
                expected = Change::default();
            }
            let forecast = model.forecast(input);
            let outcome = kernel::run(self.world, input)?;
            if let Some(complaint) = complaint(input, &forecast, &outcome) {
                found = Some((at, complaint));
                break;
            }
            add(&mut expected, &forecast);
            records.extend(forecast.record);
            if let Some(key) = forecast.remembered {
                if begins(&key, &noted, now_ns) {
                    let ifindex = self.world.ifindex(input.device)?;
                    expected.began.extend(beginner(input.program, ifindex));
                }
                noted.insert(key, u64::MAX);
            }
        }
        self.coverage = model.coverage;
        let (state, then_ns) = kernel::state(self.world)?;
        if found.is_none() {
            let change = self.state.change_to(&state);
            let complaint = complaint_about_maps(&expected, &change, &state, [now_ns, then_ns])
                .or(kernel::without_record(self.world, &records)?);
            found = complaint.map(|complaint| (inputs.len(), complaint));
        }
        self.state = state;
        Ok(found)
    }

    /// Puts the records of questions back to the known ones. Returns the kernel's time.
    fn restart(&mut self) -> Result<u64> {
        let (state, now_ns) = kernel::state(self.world)?;
        kernel::set_records(self.world, &state, &known_replies(now_ns))
            .context("cannot put the records back")?;
        (self.state, _) = kernel::state(self.world)?;
        Ok(now_ns)
    }
}

/// Records that every batch begins with: fresh, to be renewed, and too old.
fn known_replies(now_ns: u64) -> Vec<(ReplyKey, u64)> {
    let until = |age_s: u64| now_ns + LIFETIME_NS - age_s * 1_000_000_000;
    let ages_s = [1, 30, 90];
    let keys = places::known_answers().into_iter().enumerate();
    keys.map(|(number, key)| (key, until(ages_s[number % ages_s.len()])))
        .collect()
}

/// What differs between what came of a packet and what should have, and what must never come of any.
fn complaint(input: &Input, forecast: &Forecast, outcome: &Outcome) -> Option<String> {
    let mut text = String::new();
    let (code, frame) = match &forecast.ending {
        Ending::Untouched => (NEXT, Some(&input.frame)),
        Ending::LeftToHost(frame) => (PASS, Some(frame)),
        Ending::Redirected(frame) => (REDIRECT, Some(frame)),
        Ending::Dropped => (DROP, None),
    };
    if outcome.code != code {
        let _ = writeln!(
            text,
            "the model says {} and the kernel {}",
            words(code, forecast),
            outcome.code
        );
    } else if let Some(frame) = frame.filter(|frame| **frame != outcome.frame) {
        text.push_str(&describe_difference(frame, &outcome.frame));
    }
    let priority = forecast.queue.unwrap_or(PRIORITY);
    if (outcome.mark, outcome.priority) != (forecast.mark, priority) {
        let _ = writeln!(
            text,
            "mark and priority: the model says {:#x} and {priority:#x}, the kernel {:#x} and {:#x}",
            forecast.mark, outcome.mark, outcome.priority
        );
    }
    if outcome.frame.len() > input.frame.len() + GROWTH_BYTES_MAX {
        let _ = writeln!(text, "it grew to {} bytes", outcome.frame.len());
    }
    if outcome.code == REDIRECT && faults(&input.frame).is_empty() {
        for fault in faults(&outcome.frame) {
            let _ = writeln!(text, "it was sound and now has a wrong {fault}");
        }
    }
    (!text.is_empty()).then_some(text)
}

fn words(code: i32, forecast: &Forecast) -> String {
    match forecast.dropped {
        Some(key) => format!(
            "{code} with drop reason {} of slice {}",
            key.reason, key.slice
        ),
        None => code.to_string(),
    }
}

fn add(expected: &mut Change, forecast: &Forecast) {
    if let Some((key, bytes)) = forecast.counted {
        let counter = expected.counted.entry(key).or_insert(Counter {
            packets: 0,
            bytes: 0,
        });
        counter.packets += 1;
        counter.bytes += bytes;
    }
    if let Some(key) = forecast.dropped {
        *expected.dropped.entry(key).or_default() += 1;
    }
    expected.remembered.extend(forecast.remembered);
    expected.first_fragments.extend(forecast.noted);
    expected.narrowed.extend(forecast.narrowed);
    expected.paths.extend(forecast.path);
    if let Some((place, bytes)) = forecast.shaped {
        let counts = expected.shaped.entry(place).or_insert(NOTHING_SHAPED);
        counts.guaranteed.packets += 1;
        counts.guaranteed.bytes += bytes;
        // At once, and packets of test runs have a socket.
        counts.waited[0] += 1;
        counts.with_socket += 1;
    }
}

fn complaint_about_maps(
    expected: &Change,
    change: &Change,
    state: &State,
    [earliest_ns, latest_ns]: [u64; 2],
) -> Option<String> {
    let mut text = String::new();
    if change != expected {
        let (wanted, found) = (expected.describe(), change.describe());
        let _ = write!(
            text,
            "maps, by the model:\n{wanted}maps, by the kernel:\n{found}"
        );
    }
    let in_time = earliest_ns + LIFETIME_NS..=latest_ns + LIFETIME_NS;
    let replies: BTreeMap<_, _> = change
        .remembered
        .iter()
        .filter_map(|key| state.replies.get(key).map(|until| (key, until)))
        .collect();
    for (key, until) in replies {
        if !in_time.contains(until) {
            let _ = writeln!(text, "{key:?} is good until {until}, not in {in_time:?}");
        }
    }
    (!text.is_empty()).then_some(text)
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.complaint)?;
        for input in &self.inputs {
            writeln!(f, "{}", super::corpus::line(input))?;
            write!(f, "{}", describe(&input.frame))?;
        }
        Ok(())
    }
}
