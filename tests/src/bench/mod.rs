//! `slice-lab bench path`: what the data path costs, against the kernel's own ways, in one run.
//!
//! A machine's speed changes by a factor within a minute, so absolute figures mean little. Variants
//! take turns every fraction of a second, each round is compared with itself, and what is reported is
//! the median of the rounds' ratios with its 95 % interval.

pub mod bed;
pub mod checks;
pub mod counters;
pub mod failover;
pub mod load;
mod plot;
pub mod programs;
pub mod qos;
pub mod report;
pub mod shaper;
pub mod statistics;
pub mod targets;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use aya::sys::{Stats, enable_stats};
use nix::sys::signal::{SigHandler, Signal, signal};

use bed::ground::Ground;
use bed::{Bed, Variant, service_rules};
use load::Run;
use programs::EmptyPrograms;
use report::{Machine, Report, Round};
use targets::{CASES, Case, Link, PROGRAM_CASES};

pub use crate::arguments::PathArgs;
use crate::arguments::{Bench, BenchArgs};
use crate::json_file::JsonFile;

/// Above it somebody else uses the machine.
const QUIET_LOAD_AVERAGE: f64 = 0.5;

impl PathArgs {
    fn wants(&self, case: &Case) -> bool {
        self.only.is_empty() || self.only.iter().any(|key| key == case.key)
    }

    fn wants_any(&self, cases: &[Case]) -> bool {
        cases.iter().any(|case| self.wants(case))
    }
}

/// Runs what was asked for and returns the exit code: 0 when every limit is met, 1 when one is missed
/// or a figure is void, 3 when noise left one unresolved, 128 and its number when a signal ended it. The
/// figures that there are get written in any case.
pub fn run(args: &BenchArgs) -> Result<u8> {
    let args = match &args.what {
        Bench::Path(args) => args,
        Bench::Failover(args) => return failover::run(args),
        Bench::Shaper(args) => return shaper::run(args),
        Bench::Qos(args) => return qos::run(args),
    };
    let figures = args.json.as_deref().map(JsonFile::checked).transpose()?;
    let mut report = Report::default();
    let measured = fill(args, &mut report);
    if let Err(error) = &measured {
        report.faults.push(format!("{error:#}"));
    }
    report.lines().iter().for_each(|line| println!("{line}"));
    if let (Some(json), Some(figures)) = (&args.json, figures) {
        figures.write(&report)?;
        for picture in plot::write_beside(&report, json)? {
            println!("{}", picture.display());
        }
    }
    match TOLD_TO_STOP.load(Ordering::Relaxed) {
        0 => Ok(report.exit_code()),
        signal => Ok(128_u8.saturating_add(u8::try_from(signal).unwrap_or(0))),
    }
}

/// Measures the data path; everything that it makes is gone when it returns.
pub fn path(args: &PathArgs) -> Result<Report> {
    let mut report = Report::default();
    fill(args, &mut report)?;
    Ok(report)
}

fn fill(args: &PathArgs, report: &mut Report) -> Result<()> {
    let began = Instant::now();
    end_on_signals()?;
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let cpu = args.cpu.unwrap_or(cpus - 1);
    ensure!(
        cpu < cpus,
        "--cpu {cpu}: this machine has CPUs 0 to {}",
        cpus - 1
    );
    report.machine = Machine::here(cpu)?;
    if report.machine.load_average_before > QUIET_LOAD_AVERAGE {
        eprintln!(
            "WARNING: load average {}: others use this machine, these figures are not worth keeping",
            report.machine.load_average_before
        );
    }
    let ground = Ground::take(args.wait)?;
    let beds = build_beds(&ground, cpu, &agent_beside(args.agent.as_deref())?)?;
    for case in CASES.iter().filter(|case| args.wants(case)) {
        let rounds = measure(case, &beds, args.rounds.unwrap_or(case.rounds), cpu)?;
        report.add_rounds(case, rounds);
    }
    if args.wants_any(PROGRAM_CASES) {
        measure_programs(args, &beds, cpu, report)?;
    }
    let tracked = beds.iter().find(|it| it.variant == Variant::PlainConntrack);
    if args.wants_any(CASES)
        && let Some(Err(error)) = tracked.map(service_rules::ensure_walked)
    {
        report.faults.push(format!("{error:#}"));
    }
    report.judge(|case| args.only.is_empty() || args.only.iter().any(|key| key == case))?;
    report.seconds = began.elapsed().as_secs_f64();
    Ok(())
}

/// The agent that was named, or the one beside this program.
fn agent_beside(named: Option<&Path>) -> Result<PathBuf> {
    let agent = match named {
        Some(agent) => agent.to_owned(),
        None => std::env::current_exe()?.with_file_name("slice-agent"),
    };
    std::path::absolute(agent).context("--agent")
}

fn build_beds(ground: &Ground, cpu: usize, agent: &Path) -> Result<Vec<Bed>> {
    let mut variants: Vec<Variant> = CASES.iter().flat_map(|it| it.variants).copied().collect();
    variants.sort_unstable();
    variants.dedup();
    let build = |variant| {
        stop_if_told()?;
        eprintln!("bench: set up {}", Variant::key(variant));
        Bed::build(ground, variant, cpu, agent)
    };
    variants.into_iter().map(build).collect()
}

/// Times the programs of ours and an empty program in their place at plain.
fn measure_programs(args: &PathArgs, beds: &[Bed], cpu: usize, report: &mut Report) -> Result<()> {
    let plain = beds.iter().find(|bed| bed.variant == Variant::Plain);
    let _empty = EmptyPrograms::attach(plain.context("there is a plain variant")?)?;
    let _times = enable_stats(Stats::RunTime).context("let the kernel time programs")?;
    for case in PROGRAM_CASES.iter().filter(|case| args.wants(case)) {
        let rounds = measure(case, beds, args.rounds.unwrap_or(case.rounds), cpu)?;
        report.add_rounds(case, rounds);
    }
    Ok(())
}

/// Lets the variants take turns, and every other round the other way round: what comes first has no
/// advantage, and slow changes of the machine hit all alike.
fn measure(case: &Case, beds: &[Bed], rounds: u32, cpu: usize) -> Result<Vec<Round>> {
    eprintln!("bench: {}, {rounds} rounds", case.key);
    let run = Run {
        cpu,
        duration: case.duration,
    };
    for bed in beds {
        bed.set_wire_mode(case.link == Link::Wire)?;
    }
    let mut measured = Vec::new();
    for index in 0..rounds {
        let mut order = case.variants.to_vec();
        if index % 2 == 1 {
            order.reverse();
        }
        let mut round = Round::new();
        for variant in order {
            stop_if_told()?;
            let bed = beds.iter().find(|bed| bed.variant == variant);
            let bed = bed.context("every variant of a case has a bed")?;
            let readings = (case.load)(bed, run)
                .with_context(|| format!("{} over {}", case.key, variant.key()))?;
            round.insert(variant, readings);
        }
        measured.push(round);
    }
    Ok(measured)
}

/// The signal that said so, or 0.
static TOLD_TO_STOP: AtomicI32 = AtomicI32::new(0);

extern "C" fn note_signal(number: libc::c_int) {
    TOLD_TO_STOP.store(number, Ordering::Relaxed);
}

/// From now on SIGINT, SIGTERM and SIGHUP end the run between two measurements, and what it made is removed.
fn end_on_signals() -> Result<()> {
    for it in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only stores to an atomic.
        unsafe { signal(it, SigHandler::Handler(note_signal)) }?;
    }
    Ok(())
}

fn stop_if_told() -> Result<()> {
    if TOLD_TO_STOP.load(Ordering::Relaxed) != 0 {
        bail!("told to stop");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_may_be_asked_for() {
        let cases = CASES.iter().chain(PROGRAM_CASES);
        let keys: Vec<_> = cases.map(|case| case.key).collect();
        assert_eq!(keys, crate::arguments::CASES);
    }
}
