//! `slice-lab bench shaper`: what `wan_egress` costs a packet, against the same program for a slice that
//! shares its uplink with nobody; and what it costs when two processors send for one slice at once.
//!
//! The kernel repeats one packet by itself (`BPF_PROG_TEST_RUN`), so there is neither network nor clock
//! reading in the figures. All cases of a round follow each other within milliseconds.

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::thread;

use anyhow::{Context, Result, ensure};
use aya::programs::SchedClassifier;
use aya::{TestRun as _, TestRunOptions};
use serde::Serialize;
use slice_common::layout::{ShaperBackend, ShaperKey, ShaperPlace, ShaperTerms};
use slice_common::shaper::{
    Assured, ClassTerms, Patience, Rate, SliceTerms, UplinkTerms, WireBytes,
};

use super::load::{ended, pinned};
use super::report::Machine;
use super::statistics::{Estimate, estimate};
use crate::arguments::ShaperArgs;
use crate::harness::object_file;
use crate::json_file::JsonFile;
use crate::packet::{Ipv4, Tcp, Vxlan};
use crate::testrun::actors::{EAST_1, KAFKA, KAFKA_0, KAFKA_1, NIC, NIC_MAC, ROUTER_MAC, WEST_1};
use crate::testrun::exchange::{CONTEXT_BYTES, IFINDEX_OFFSET};
use crate::testrun::{World, in_own_network};

const REPEAT: u32 = 50_000;
/// Never over, whatever waits.
const EVER_NS: u64 = u64::MAX >> 2;

/// What a packet meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Case {
    /// No terms for its slice on this uplink.
    Untouched,
    /// There is always room, and nothing waits: guaranteed.
    Free,
    /// It gets a departure in the future, borrowed or guaranteed.
    Waits,
    /// Too far in the future.
    TooLate,
}

impl Case {
    const ALL: [Self; 4] = [Self::Untouched, Self::Free, Self::Waits, Self::TooLate];

    fn terms(self) -> Option<ShaperTerms> {
        let rate = |bps| Rate::new_checked(bps).expect("in range");
        let (bps, backend) = match self {
            Self::Untouched => return None,
            Self::Free => (Rate::MAX_BPS, ShaperBackend::Vq),
            Self::Waits => (1_000_000_000, ShaperBackend::Edt),
            Self::TooLate => (Rate::MIN_BPS, ShaperBackend::Vq),
        };
        let (frame, patience) = (WireBytes::new(1538), Patience::for_round_trip(10_000_000));
        let mut class = ClassTerms::new(rate(bps / 2 + Rate::MIN_BPS / 2), patience, frame);
        if self == Self::Waits {
            (class.horizon_ns, class.mark_ns) = (EVER_NS, EVER_NS);
        }
        let ceiling = rate(bps);
        let slice = SliceTerms::new(ceiling, Assured::new(ceiling, None), frame);
        let place = ShaperPlace {
            uplink: 0,
            slice: 0,
        };
        let uplink = UplinkTerms::NONE;
        Some(ShaperTerms::new(backend, place, &uplink, &slice, &class))
    }
}

/// All figures: medians of the rounds, in nanoseconds for a packet and in ratios.
#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    repeat: u32,
    /// Of `wan_egress`, by this kernel's verifier.
    verified_instructions: Option<u32>,
    /// One processor, by case.
    ns: BTreeMap<Case, Estimate>,
    /// `Free` less `Untouched`.
    shaper_added_ns: Estimate,
    /// `Waits` less `Untouched`.
    shaper_added_waiting_ns: Estimate,
    /// The time of a packet of `Free` with two processors on one slice and class, by that with one.
    shaper_two_cpu_ratio: Option<Estimate>,
    /// The same for `Untouched`: what the machine itself makes of two busy processors.
    untouched_two_cpu_ratio: Option<Estimate>,
}

#[derive(Default)]
struct Rounds {
    ns: BTreeMap<Case, Vec<f64>>,
    pair_ns: BTreeMap<Case, Vec<f64>>,
    verified_instructions: Option<u32>,
}

/// Measures, prints, and writes what was asked for.
/// # Errors  when not root, or the object does not load.
pub fn run(args: &ShaperArgs) -> Result<u8> {
    let figures = args.json.as_deref().map(JsonFile::checked).transpose()?;
    let machine = Machine::here(0)?;
    let cpus = machine.cpus;
    let rounds = in_own_network(|| measure(args.rounds, cpus))?;
    let report = report(machine, &rounds)?;
    println!("{}", serde_json::to_string_pretty(&report)?);
    if let Some(figures) = figures {
        figures.write(&report)?;
    }
    Ok(0)
}

fn measure(count: usize, cpus: usize) -> Result<Rounds> {
    let file = object_file();
    let object = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut world = World::new(&object)?;
    let shaper = world.programs().iter().find(|it| it.name == "wan_egress");
    let mut rounds = Rounds {
        verified_instructions: shaper.and_then(|it| it.verified_instructions),
        ..Rounds::default()
    };
    for _ in 0..count {
        for case in Case::ALL {
            world.reset()?;
            let key = ShaperKey {
                ifindex: world.ifindex(NIC)?,
                slice: KAFKA.id,
            };
            let other = ShaperKey { slice: 1, ..key };
            let terms = match case.terms() {
                Some(terms) => (key, terms),
                None => (other, Case::Free.terms().context("has terms")?),
            };
            world.set_shaper_terms(&[terms])?;
            let ns = one_after_the_other(&world)?;
            rounds.ns.entry(case).or_default().push(ns);
            if cpus > 1 && matches!(case, Case::Untouched | Case::Free) {
                rounds
                    .pair_ns
                    .entry(case)
                    .or_default()
                    .push(at_once(&world)?);
            }
        }
    }
    Ok(rounds)
}

/// The time of a packet on one processor.
fn one_after_the_other(world: &World) -> Result<f64> {
    let (program, context) = subject(world)?;
    thread::scope(|scope| ended(pinned(scope, 0, || repeat(program, &context, 40_000))))
}

/// The time of a packet where two processors send at once, each one flow: the slower one's.
fn at_once(world: &World) -> Result<f64> {
    let (program, context) = subject(world)?;
    let start = Barrier::new(2);
    thread::scope(|scope| {
        let threads = [(0, 40_000), (1, 40_001)].map(|(cpu, port)| {
            let (start, context) = (&start, &context);
            pinned(scope, cpu, move || {
                start.wait();
                repeat(program, context, port)
            })
        });
        let ns = threads.map(ended);
        let [one, other] = ns;
        Ok(one?.max(other?))
    })
}

fn subject(world: &World) -> Result<(&SchedClassifier, [u8; CONTEXT_BYTES])> {
    let program = world.object().program("wan_egress").context("wan_egress")?;
    let mut context = [0; CONTEXT_BYTES];
    let ifindex = world.ifindex(NIC)?.to_ne_bytes();
    context[IFINDEX_OFFSET..IFINDEX_OFFSET + 4].copy_from_slice(&ifindex);
    Ok((program.try_into()?, context))
}

fn repeat(program: &SchedClassifier, context: &[u8], port: u16) -> Result<f64> {
    let inner = Ipv4::between(KAFKA_0.slice_address, KAFKA_1);
    let inner = inner.tcp(Tcp::new(port, 9092).ack().data(vec![7; 1000]));
    let frame = Vxlan::between(EAST_1, WEST_1.address)
        .slice(KAFKA.id, 0)
        .source_port(0xc000 | port)
        .carry(&inner)
        .frame(ROUTER_MAC, NIC_MAC);
    let mut frame_out = vec![0; frame.len()];
    let result = program.test_run(TestRunOptions {
        data_in: Some(&frame),
        data_out: Some(&mut frame_out),
        ctx_in: Some(context),
        repeat: REPEAT,
        ..TestRunOptions::new()
    })?;
    ensure!(frame_out == frame, "the packet changed");
    Ok(result.duration.as_nanos() as f64)
}

fn report(machine: Machine, rounds: &Rounds) -> Result<Report> {
    let of = |case| -> &[f64] { rounds.ns.get(&case).map_or(&[], Vec::as_slice) };
    let less_untouched = |case| {
        let both = of(case).iter().zip(of(Case::Untouched));
        estimate(&both.map(|(one, bare)| one - bare).collect::<Vec<_>>())
    };
    let ratio = |case| {
        let pairs = rounds.pair_ns.get(&case)?;
        let both = pairs.iter().zip(of(case));
        estimate(&both.map(|(two, one)| two / one).collect::<Vec<_>>()).ok()
    };
    let mut ns = BTreeMap::new();
    for case in Case::ALL {
        ns.insert(case, estimate(of(case))?);
    }
    Ok(Report {
        machine,
        repeat: REPEAT,
        verified_instructions: rounds.verified_instructions,
        ns,
        shaper_added_ns: less_untouched(Case::Free)?,
        shaper_added_waiting_ns: less_untouched(Case::Waits)?,
        shaper_two_cpu_ratio: ratio(Case::Free),
        untouched_two_cpu_ratio: ratio(Case::Untouched),
    })
}
