//! `slice-lab bench qos`: whether what a slice's classes are promised on a paid link holds, and what it costs
//! those who wait for answers.
//!
//! Three clusters of the lab, a real agent on each node; the link from east to west delays and counts, and
//! has no limit of its own, so that whatever the shaper lets through too much is seen.

pub mod course;
pub mod guest;
pub mod load;
pub mod report;
pub mod scene;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::report::Machine;
use crate::arguments::QosArgs;
use crate::json_file::JsonFile;
use crate::lab::LabOptions;
use load::{CongestionControl, ExchangeSpec, StreamSpec};
use report::{Backend, Figures, Limits, Measured, Report, Scenario};
use scene::{Observed, Profile, Scene};

const REPLICATION: u16 = 9091;
const CLIENT: u16 = 9092;
const PROFILE: Profile = Profile {
    ceiling_bps: 50_000_000,
    replication_percent: 40,
    client_percent: 30,
};
/// With nothing else configured, what is left (20 % beside the lane) goes to the four classes evenly.
const REPLICATION_GUARANTEE_BPS: f64 = 20_000_000.0;
const CLIENT_GUARANTEE_BPS: f64 = 15_000_000.0;
const WARM_UP: Duration = Duration::from_secs(2);
/// The link may be so late at the worst, or times of answers say nothing.
const LATE_US_MAX: u64 = 5_000;
/// What a short run leaves out: what is left gives every figure.
const LONG_RUN_ONLY: [&str; 5] = [
    "s1_replication",
    "s2_clients",
    "s3_1_against_64",
    "s3_16_against_1",
    "s6_on_and_off",
];
/// What begins so must miss a limit.
const CONTROL: &str = "control_";
const TEN_MS: Duration = Duration::from_millis(10);

/// Streams and questions that run together.
struct Plan {
    name: &'static str,
    streams: Vec<StreamSpec>,
    exchanges: Vec<ExchangeSpec>,
}

fn plan(name: &'static str, streams: &[StreamSpec], exchanges: &[ExchangeSpec]) -> Plan {
    Plan {
        name,
        streams: streams.to_vec(),
        exchanges: exchanges.to_vec(),
    }
}

const fn streams(port: u16, flows: usize) -> StreamSpec {
    StreamSpec {
        port,
        flows,
        on_and_off: None,
        congestion_control: CongestionControl::CUBIC,
    }
}

/// A small answer a hundred times a second.
const fn small(port: u16) -> ExchangeSpec {
    ExchangeSpec {
        port,
        interval: TEN_MS,
        answer_bytes: 200,
    }
}

/// A follower in sync: a tenth of the ceiling.
const IN_SYNC: ExchangeSpec = ExchangeSpec {
    port: REPLICATION,
    interval: TEN_MS,
    answer_bytes: 5_500,
};

/// What the shaper has to cope with.
fn plans() -> Vec<Plan> {
    let half = StreamSpec {
        on_and_off: Some(Duration::from_secs(1)),
        ..streams(REPLICATION, 4)
    };
    vec![
        plan("idle", &[], &[small(CLIENT), small(REPLICATION)]),
        plan("s1_replication", &[streams(REPLICATION, 1)], &[]),
        plan("s2_clients", &[streams(CLIENT, 8)], &[]),
        plan(
            "s3_1_against_16",
            &[streams(REPLICATION, 1), streams(CLIENT, 16)],
            &[],
        ),
        plan(
            "s3_1_against_64",
            &[streams(REPLICATION, 1), streams(CLIENT, 64)],
            &[],
        ),
        plan(
            "s3_16_against_1",
            &[streams(REPLICATION, 16), streams(CLIENT, 1)],
            &[],
        ),
        plan(
            "s4_client_answers",
            &[streams(REPLICATION, 8)],
            &[small(CLIENT)],
        ),
        plan(
            "s5_both_saturated",
            &[streams(REPLICATION, 4), streams(CLIENT, 8)],
            &[small(CLIENT), small(REPLICATION)],
        ),
        plan("s6_on_and_off", &[half, streams(CLIENT, 8)], &[]),
        plan("in_sync_idle", &[], &[IN_SYNC]),
        plan(
            "in_sync_and_catch_up",
            &[streams(REPLICATION, 1)],
            &[IN_SYNC],
        ),
    ]
}

/// Runs everything and returns the exit code.
pub fn run(args: &QosArgs) -> Result<u8> {
    let figures = args.json.as_deref().map(JsonFile::checked).transpose()?;
    let report = measure(args)?;
    report.lines().iter().for_each(|line| println!("{line}"));
    if let Some(figures) = figures {
        figures.write(&report)?;
    }
    Ok(report.exit_code())
}

/// Measures; everything that it makes is gone when it returns.
pub fn measure(args: &QosArgs) -> Result<Report> {
    let began = Instant::now();
    super::end_on_signals()?;
    ensure!(args.seconds >= 2, "--seconds {}: at least 2", args.seconds);
    let congestion_control = CongestionControl::of_name(&args.congestion_control)
        .with_context(|| format!("--congestion-control {}", args.congestion_control))?;
    let agent = super::agent_beside(args.agent.as_deref())?;
    let mut report = Report {
        is_short: args.short,
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
    if args.free_roots {
        scene.free_roots()?;
    }
    scene.set_profile(Some(PROFILE))?;
    if args.free_roots {
        scene.comes_to(Backend::Edt)?;
    }
    let backend = scene.backend()?;
    let backend = Backend::of_name(&backend)
        .with_context(|| format!("the agents name a backend {backend}"))?;
    for other in Backend::ALL.into_iter().filter(|it| *it != backend) {
        let why = format!("the agents of this host chose {backend}");
        report.absent.insert(other, why);
    }
    let mut bench = Bench {
        scene: &scene,
        length: Duration::from_secs(args.seconds),
        is_short: args.short,
        backend,
        congestion_control,
        scenarios: BTreeMap::new(),
        faults: Vec::new(),
    };
    let figures = bench.figures();
    report.faults.append(&mut bench.faults);
    match figures {
        Ok(figures) => {
            let measured = Measured {
                figures,
                measured_in: format!("this host, Linux {}", report.machine.kernel_release),
                scenarios: bench.scenarios,
            };
            report.backends.insert(backend, measured);
        }
        Err(error) => report.faults.push(format!("{backend}: {error:#}")),
    }
    drop(scene);
    if let Some(file) = &args.guest_figures {
        guest::add(&mut report, file)?;
    }
    report.seconds = began.elapsed().as_secs_f64();
    Ok(report)
}

/// One stream of replication against sixteen of clients who also ask, on a link of the slice's ceiling: with the
/// shaper, and without.
pub fn with_and_without(agent: &Path, options: LabOptions) -> Result<[Scenario; 2]> {
    let scene = Scene::build(agent, options)?;
    let loads = [streams(REPLICATION, 1), streams(CLIENT, 16)];
    let play = || {
        let observed =
            scene.observe(&loads, &[small(CLIENT)], [WARM_UP, Duration::from_secs(3)])?;
        anyhow::Ok(Scenario::of(&observed))
    };
    scene.set_profile(Some(PROFILE))?;
    let with = play().context("with the shaper")?;
    scene.set_profile(None)?;
    scene.set_link(Some(PROFILE.ceiling_bps))?;
    let without = play().context("without the shaper")?;
    Ok([with, without])
}

/// One backend's part of a run.
struct Bench<'a> {
    scene: &'a Scene,
    length: Duration,
    /// Not every scenario.
    is_short: bool,
    backend: Backend,
    congestion_control: CongestionControl,
    scenarios: BTreeMap<String, Scenario>,
    /// What makes figures void, one sentence each.
    faults: Vec<String>,
}

impl Bench<'_> {
    fn figures(&mut self) -> Result<Figures> {
        self.scene.set_profile(Some(PROFILE))?;
        for plan in plans() {
            if !(self.is_short && LONG_RUN_ONLY.contains(&plan.name)) {
                self.play(&plan)?;
            }
        }
        let reordered: u64 = self.scenarios.values().map(|it| it.reordered).sum();
        let ceiling = PROFILE.ceiling_bps as f64;
        let fastest = self.scenarios.values().map(|it| it.wire_bps_max_1s);
        let ceiling_ratio = fastest.fold(0.0, f64::max) / ceiling;
        let controls_failed_as_they_should = self.controls(&Limits::of(self.backend))?;
        let of = |name: &str| {
            self.scenarios
                .get(name)
                .with_context(|| format!("no {name}"))
        };
        let busy = [
            "s1_replication",
            "s2_clients",
            "s3_1_against_16",
            "s5_both_saturated",
        ];
        let played = |name: &&str| !(self.is_short && LONG_RUN_ONLY.contains(name));
        let mut slowest = f64::INFINITY;
        for name in busy.iter().filter(|name| played(name)) {
            slowest = slowest.min(of(name)?.wire_bps / ceiling);
        }
        let guaranteed = [
            ("s3_1_against_16", 0, REPLICATION_GUARANTEE_BPS),
            ("s3_1_against_64", 0, REPLICATION_GUARANTEE_BPS),
            ("s3_16_against_1", 1, CLIENT_GUARANTEE_BPS),
        ];
        let mut least = f64::INFINITY;
        for (name, stream, bps) in guaranteed.iter().filter(|(name, ..)| played(name)) {
            least = least.min(of(name)?.streams_bps[*stream] / bps);
        }
        let (idle, in_sync) = (of("idle")?, of("in_sync_idle")?);
        let (answers, saturated) = (of("s4_client_answers")?, of("s5_both_saturated")?);
        let catch_up = of("in_sync_and_catch_up")?;
        let own_class = |class: usize| saturated.p99_ms[class] - idle.p99_ms[class];
        Ok(Figures {
            ceiling_ratio_max_1s: ceiling_ratio,
            guarantee_ratio_min: least,
            work_conservation_ratio: slowest,
            client_p99_idle_ms: idle.p99_ms[0],
            client_p99_added_ms: answers.p99_ms[0] - idle.p99_ms[0],
            own_class_p99_added_ms: own_class(0).max(own_class(1)),
            insync_p99_ratio_during_catchup: catch_up.p99_ms[0] / in_sync.p99_ms[0],
            catchup_share_of_rest: catch_up.streams_bps[0] / (ceiling - in_sync.wire_bps),
            // At the same rate: at twenty times of it the lab itself has packets overtake each other.
            reordered_by_shaper: reordered as i64 - of("control_link_alone")?.reordered as i64,
            controls_failed_as_they_should,
        })
    }

    /// What must miss its limit, or the measurement sees nothing: no shaper on a link without a limit, none on
    /// one with a limit, and a replication that may use nothing but its guarantee.
    fn controls(&mut self, limits: &Limits) -> Result<bool> {
        let ceiling = PROFILE.ceiling_bps as f64;
        let guarantee_only = Profile {
            ceiling_bps: REPLICATION_GUARANTEE_BPS as u64,
            ..PROFILE
        };
        self.scene.set_profile(Some(guarantee_only))?;
        let split = self.play(&plan("control_split", &[streams(REPLICATION, 1)], &[]))?;
        self.scene.set_profile(None)?;
        let load = [streams(REPLICATION, 8)];
        let unshaped = self.play(&plan("control_no_shaper", &load, &[small(CLIENT)]))?;
        self.scene.set_link(Some(PROFILE.ceiling_bps))?;
        let queued = self.play(&plan("control_link_alone", &load, &[small(CLIENT)]))?;
        self.scene.set_link(None)?;
        let idle = &self.scenarios["idle"];
        let added_ms = queued.p99_ms[0] - idle.p99_ms[0];
        Ok(split.wire_bps / ceiling < limits.work_conservation_min
            && unshaped.wire_bps_max_1s / ceiling > limits.ceiling_ratio_max
            && added_ms > limits.client_p99_added_ms_max)
    }

    fn play(&mut self, plan: &Plan) -> Result<Scenario> {
        eprintln!("bench: {}: {}", self.backend, plan.name);
        let with_control = |stream: &StreamSpec| StreamSpec {
            congestion_control: self.congestion_control,
            ..*stream
        };
        let streams: Vec<_> = plan.streams.iter().map(with_control).collect();
        let observed: Observed = self
            .scene
            .observe(&streams, &plan.exchanges, [WARM_UP, self.length])
            .with_context(|| plan.name.to_owned())?;
        let scenario = Scenario::of(&observed);
        let is_control = plan.name.starts_with(CONTROL);
        let is_timed = !plan.exchanges.is_empty() && !is_control;
        if is_timed && scenario.relay_late_us_max > LATE_US_MAX {
            self.faults.push(format!(
                "{}: the lab's link was {} us late: somebody else uses the machine",
                plan.name, scenario.relay_late_us_max
            ));
        }
        self.scenarios
            .insert(plan.name.to_owned(), scenario.clone());
        Ok(scenario)
    }
}
