//! `slice-lab bench qos`: whether what a slice's classes are promised on a paid link holds, and what it costs
//! those who wait for answers.
//!
//! Three clusters of the lab, a real agent on each node; the link from east to west delays and counts, and
//! has no limit of its own, so that whatever the shaper lets through too much is seen.

pub mod axes;
mod controls;
pub mod course;
pub mod figures;
pub mod guest;
pub mod load;
pub mod observe;
pub mod pictures;
pub mod plans;
pub mod report;
pub mod scene;
pub mod starts;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::report::Machine;
use crate::arguments::QosArgs;
use crate::json_file::JsonFile;
use crate::lab::LabOptions;
use controls::LINK_ALONE;
use figures::{Promise, Scenarios};
use load::CongestionControl;
use observe::Manner;
use pictures::Pictures;
use plans::{CLIENT, Plan, REPLICATION, plan, small, streams};
use report::{Backend, Figures, Limits, Measured, Report, Scenario};
use scene::{Link, Profile, Scene};
use starts::Starts;

const PROFILE: Profile = Profile {
    backend: None,
    ceiling_bps: 50_000_000,
    replication_percent: 40,
    client_percent: 30,
};
/// With nothing else configured, what is left (20 % beside the lane) goes to the four classes evenly.
const PROMISE: Promise = Promise {
    ceiling_bps: 50_000_000.0,
    replication_bps: 20_000_000.0,
    client_bps: 15_000_000.0,
};
const WARM_UP: Duration = Duration::from_secs(2);
/// The link may be so late at the worst, or times of answers say nothing.
const LATE_US_MAX: u64 = 5_000;
/// What they say nothing of is played so many times at most.
const PLAYS_MAX: u32 = 3;
/// What begins so must miss a limit.
const CONTROL: &str = "control_";

/// Runs everything and returns the exit code.
pub fn run(args: &QosArgs) -> Result<u8> {
    let figures = args.json.as_deref().map(JsonFile::checked).transpose()?;
    let report = measure(args)?;
    report.lines().iter().for_each(|line| println!("{line}"));
    if let Some(figures) = figures {
        figures.write(&report)?;
        let drawn = report.draw_beside(&figures)?;
        drawn
            .iter()
            .for_each(|it| println!("drawn: {}", it.display()));
    }
    Ok(report.exit_code())
}

/// Measures; everything that it makes is gone when it returns.
pub fn measure(args: &QosArgs) -> Result<Report> {
    let began = Instant::now();
    super::end_on_signals()?;
    ensure!(args.seconds >= 2, "--seconds {}: at least 2", args.seconds);
    let agent = super::agent_beside(args.agent.as_deref())?;
    let mut report = Report {
        is_short: args.short,
        is_full: args.full,
        congestion_control: args.congestion_control.clone(),
        ceiling_bps: PROFILE.ceiling_bps,
        machine: Machine::here(0)?,
        ..Report::default()
    };
    let options = LabOptions {
        lock_wait: args.wait,
        ..LabOptions::default()
    };
    let scene = Scene::build(&agent, options)?;
    for backend in Backend::ALL {
        if args.backend.as_ref().is_some_and(|it| it != backend.name()) {
            let why = "not asked for".to_owned();
            report.absent.insert(backend, why);
            continue;
        }
        measure_one(&scene, backend, args, &mut report)?;
    }
    drop(scene);
    if let Some(file) = &args.guest_figures {
        guest::add(&mut report, file)?;
    }
    report.seconds = began.elapsed().as_secs_f64();
    Ok(report)
}

/// Measures a backend, where the host has what it needs.
fn measure_one(scene: &Scene, backend: Backend, args: &QosArgs, report: &mut Report) -> Result<()> {
    let congestion_control = CongestionControl::of_name(&args.congestion_control)
        .with_context(|| format!("--congestion-control {}", args.congestion_control))?;
    let mut bench = Bench {
        scene,
        length: Duration::from_secs(args.seconds),
        extent: Extent::of(args),
        backend,
        congestion_control,
        scenarios: Scenarios::new(),
        pictures: Pictures::default(),
        faults: Vec::new(),
    };
    if backend != Backend::Vq {
        scene.free_roots()?;
    }
    scene.set_profile(Some(bench.profile()))?;
    if !scene.comes_to(backend)? {
        let why = format!(
            "the agents of this host have {} in its place",
            scene.backend()?
        );
        report.absent.insert(backend, why);
        return Ok(());
    }
    if backend == Backend::Vq {
        scene.configure_roots()?;
    }
    let measured = bench.measured();
    report.faults.append(&mut bench.faults);
    match measured {
        Ok(mut measured) => {
            measured.measured_in = format!("this host, Linux {}", report.machine.kernel_release);
            report.backends.insert(backend, measured);
        }
        Err(error) => report.faults.push(format!("{backend}: {error:#}")),
    }
    Ok(())
}

/// One stream of replication against sixteen of clients who also ask, on a link of the slice's ceiling: with the
/// shaper, and without.
pub fn with_and_without(
    agent: &Path,
    options: LabOptions,
    backend: Backend,
) -> Result<[Scenario; 2]> {
    let scene = Scene::build(agent, options)?;
    if backend != Backend::Vq {
        scene.free_roots()?;
    }
    let loads = [streams(REPLICATION, 1), streams(CLIENT, 16)];
    let plan = plan("with_and_without", &loads, &[small(CLIENT)]);
    let manner = Manner {
        warm_up: WARM_UP,
        length: Duration::from_secs(3),
        stagger: Duration::ZERO,
        congestion_control: CongestionControl::CUBIC,
    };
    let play = || anyhow::Ok(Scenario::of(&scene.observe(&plan, &manner)?));
    let profile = Profile {
        backend: Some(backend),
        ..PROFILE
    };
    scene.set_profile(Some(profile))?;
    ensure!(scene.comes_to(backend)?, "{} is there", scene.backend()?);
    let with = play().context("with the shaper")?;
    scene.set_profile(None)?;
    scene.set_link(&Link {
        rate_bps: Some(PROFILE.ceiling_bps),
        ..Link::default()
    })?;
    let without = play().context("without the shaper")?;
    Ok([with, without])
}

/// How much of it is played.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// What gives every figure once.
    Short,
    Base,
    /// Other rows and other starts too.
    Full,
}

impl Extent {
    const fn of(args: &QosArgs) -> Self {
        match (args.short, args.full) {
            (true, _) => Self::Short,
            (false, false) => Self::Base,
            (false, true) => Self::Full,
        }
    }
}

/// One backend's part of a run.
struct Bench<'a> {
    scene: &'a Scene,
    /// Of each scenario of the base row.
    length: Duration,
    extent: Extent,
    backend: Backend,
    congestion_control: CongestionControl,
    /// The base row, and the controls.
    scenarios: Scenarios,
    pictures: Pictures,
    /// What makes figures void, one sentence each.
    faults: Vec<String>,
}

impl Bench<'_> {
    /// The course of it: the base row, what varies it, and last what must fail, after which nothing is shaped.
    fn measured(&mut self) -> Result<Measured> {
        self.scene.set_profile(Some(self.profile()))?;
        self.base_row()?;
        let mut figures = Figures::of(&self.scenarios, &Scenarios::new(), &PROMISE)?;
        let mut measured = Measured::default();
        let mut begun = Vec::new();
        if self.extent == Extent::Full {
            begun = self.starts()?;
            measured.axes = self.axes()?;
        }
        measured.controls = self.controls(&Limits::of(self.backend))?;
        // At the same rate: at twenty times of it the lab itself has packets overtake each other.
        let reordered = self.scenarios[LINK_ALONE].reordered as i64;
        figures.reordered_by_shaper -= reordered;
        figures.controls_failed_as_they_should = measured.controls.values().all(|it| *it);
        measured.starts = (!begun.is_empty()).then(|| Starts::of(begun, reordered));
        Ok(Measured {
            figures,
            scenarios: std::mem::take(&mut self.scenarios),
            pictures: std::mem::take(&mut self.pictures),
            ..measured
        })
    }

    const fn profile(&self) -> Profile {
        Profile {
            backend: Some(self.backend),
            ..PROFILE
        }
    }

    fn base_row(&mut self) -> Result<()> {
        let plans = match self.extent {
            Extent::Short => plans::base_of_short_run(),
            Extent::Base | Extent::Full => plans::base(),
        };
        for plan in plans {
            let scenario = self.play("", &plan, &self.manner())?;
            self.scenarios.insert(plan.name.to_owned(), scenario);
        }
        Ok(())
    }

    const fn manner(&self) -> Manner {
        Manner {
            warm_up: WARM_UP,
            length: self.length,
            stagger: Duration::ZERO,
            congestion_control: self.congestion_control,
        }
    }

    /// `row`: what is said before the scenario's name. What somebody else's use of the machine makes void is played
    /// again.
    fn play(&mut self, row: &str, plan: &Plan, manner: &Manner) -> Result<Scenario> {
        let name = plan.name;
        let is_timed = !plan.exchanges.is_empty() && !name.starts_with(CONTROL);
        let mut plays = 1;
        let observed = loop {
            eprintln!("bench: {}: {row}{name}", self.backend);
            let observed = self.scene.observe(plan, manner);
            let observed = observed.with_context(|| format!("{row}{name}"))?;
            let late_us = observed.relay_late_us_max;
            if !is_timed || late_us <= LATE_US_MAX {
                break observed;
            }
            let fault = format!(
                "{row}{name}: the lab's link was {late_us} us late: somebody else uses the machine"
            );
            if plays == PLAYS_MAX {
                self.faults.push(fault);
                break observed;
            }
            eprintln!("bench: once more: {fault}");
            plays += 1;
        };
        if row.is_empty() {
            self.pictures.note(plan, &observed);
        }
        let scenario = Scenario::of(&observed);
        Ok(Scenario { plays, ..scenario })
    }
}
