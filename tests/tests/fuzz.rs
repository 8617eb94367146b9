//! Random and mutated packets through every program, on this machine's kernel. Needs root and the object
//! (`target/bpf/slice-ebpf.o`, or the file that `SLICE_EBPF_OBJ` names).

use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Trial;
use slice_tests::fuzz::corpus::{self, PROGRAMS};
use slice_tests::fuzz::{Campaign, Tables};
use slice_tests::harness::{self, Need, object_file};
use slice_tests::testrun::actors::{KAFKA_0, address};
use slice_tests::testrun::{Program, World, in_own_network};

/// For each program.
const PACKETS: u64 = 300_000;
const SEED: u64 = 1;
/// How often each end and turn of a program must be reached by that many packets.
const TIMES_MIN: u64 = 40;

fn main() -> ExitCode {
    harness::main_of_each("random packets", Need::Object, trials)
}

/// Each holds the maps of a world of its own.
fn trials() -> Vec<Trial> {
    let mut trials = vec![trial("the_corpus_is_judged_as_the_model_says", replay)];
    for program in PROGRAMS {
        let name = format!("{}_does_what_the_model_says", program.name());
        trials.push(trial(name, move |world| run(world, program)));
    }
    trials.push(trial(
        "what_the_driver_drops_underlay_ingress_would_drop_for_the_same_reason",
        filter_only_saves_work,
    ));
    for error in ERRORS {
        let name = format!("it_would_be_seen_if_{}", error.name);
        trials.push(trial(name, move |world| is_seen(world, error)));
    }
    trials
}

fn replay(world: &mut World) -> Result<()> {
    let cases = corpus::read(&corpus::folder())?;
    ensure!(!cases.is_empty(), "the corpus is empty");
    let mut campaign = Campaign::new(world, |_| {})?;
    for (name, inputs) in cases {
        if let Some(mismatch) = campaign.check(&inputs)? {
            bail!("{name}:\n{mismatch}");
        }
    }
    Ok(())
}

fn run(world: &mut World, program: Program) -> Result<()> {
    let mut campaign = Campaign::new(world, |_| {})?;
    if let Some(mismatch) = campaign.run(program, PACKETS, SEED)? {
        let name = format!("{}-{SEED}", program.name());
        let kept = corpus::keep(&corpus::folder(), &name, &mismatch)?;
        bail!("seed {SEED}:\n{mismatch}kept as {}", kept.display());
    }
    let missed = campaign.coverage().missed(program, TIMES_MIN);
    ensure!(missed.is_empty(), "the packets miss\n{}", missed.join("\n"));
    Ok(())
}

/// The model is not asked: both programs get the same packets and tables.
fn filter_only_saves_work(world: &mut World) -> Result<()> {
    let mut campaign = Campaign::new(world, |_| {})?;
    let dropped = campaign.compare_filter_with_ingress(PACKETS, SEED)?;
    ensure!(
        dropped > PACKETS / 20,
        "only {dropped} packets were dropped early"
    );
    Ok(())
}

/// What the model believes, and the maps do not say.
#[derive(Clone, Copy)]
struct Error {
    name: &'static str,
    program: Program,
    make: fn(&mut Tables),
}

/// Each changes one thing that one program decides by, or only counts by.
const ERRORS: [Error; 14] = [
    Error {
        name: "a_rule_were_missing",
        program: Program::PodEgress,
        make: |tables| {
            tables
                .policy
                .retain(|(_, key, _)| key.port != 9090u16.to_be())
        },
    },
    Error {
        name: "a_class_had_another_mark",
        program: Program::PodEgress,
        make: |tables| tables.classes[0].2.dscp ^= 1,
    },
    Error {
        name: "a_path_were_a_byte_wider",
        program: Program::PodEgress,
        make: |tables| tables.paths.iter_mut().for_each(|(_, path)| path.mtu += 1),
    },
    Error {
        name: "a_cluster_were_counted_as_another",
        program: Program::PodEgress,
        make: |tables| {
            tables
                .routes
                .iter_mut()
                .for_each(|(_, _, to)| to.cluster ^= 1)
        },
    },
    Error {
        name: "a_sender_were_of_another_class",
        program: Program::PodEgress,
        make: |tables| {
            let endpoints = tables.endpoints.iter_mut();
            endpoints.for_each(|(_, pod)| pod.class.class ^= 1);
        },
    },
    Error {
        name: "a_receiver_were_of_another_class",
        program: Program::PodEgress,
        make: |tables| {
            let routes = tables.routes.iter_mut();
            routes.for_each(|(_, _, to)| to.class ^= 1);
        },
    },
    Error {
        name: "a_peer_spoke_for_a_block_of_its_neighbour",
        program: Program::UnderlayIngress,
        make: |tables| {
            tables
                .peers
                .iter_mut()
                .for_each(|(_, peer)| peer.member = u64::MAX)
        },
    },
    Error {
        name: "a_pod_had_another_name",
        program: Program::UnderlayIngress,
        make: |tables| tables.locals[0].1.pod_address = address([10, 1, 1, 11]),
    },
    Error {
        name: "a_pod_were_not_isolated",
        program: Program::PodIngress,
        make: |tables| {
            let guarded = |(device, _): &&mut (&str, _)| *device == KAFKA_0.device;
            let pod = tables.endpoints.iter_mut().find(guarded);
            pod.into_iter().for_each(|(_, pod)| pod.flags = 0);
        },
    },
    Error {
        name: "an_address_were_not_the_nodes",
        program: Program::PodIngress,
        make: |tables| tables.node_addresses.truncate(1),
    },
    Error {
        name: "the_secret_mark_were_another",
        program: Program::UnderlayGuard,
        make: |tables| tables.settings.tunnel_mark ^= 1,
    },
    Error {
        name: "a_peer_were_not_known_to_the_driver",
        program: Program::UnderlayFilter,
        make: |tables| tables.peers.truncate(2),
    },
    Error {
        name: "the_tunnel_had_another_port",
        program: Program::UnderlayFilter,
        make: |tables| tables.settings.tunnel_port ^= 1,
    },
    Error {
        name: "a_block_were_twice_as_large",
        program: Program::UnderlayGuard,
        make: |tables| tables.routes[0].0 -= 1,
    },
];

fn is_seen(world: &mut World, error: Error) -> Result<()> {
    let mut campaign = Campaign::new(world, error.make)?;
    let mismatch = campaign.run(error.program, PACKETS, SEED)?;
    let mismatch = mismatch.context("no packet shows it")?;
    println!("{}: {} packet(s)", error.name, mismatch.inputs.len());
    Ok(())
}

fn trial(
    name: impl Into<String>,
    f: impl FnOnce(&mut World) -> Result<()> + Send + 'static,
) -> Trial {
    harness::trial(name, move || {
        let file = object_file();
        let object = std::fs::read(&file).with_context(|| file.display().to_string())?;
        in_own_network(|| f(&mut World::new(&object)?))
    })
}
