//! What classes of a slice are promised on a paid link, in the lab with real agents: the fast part of
//! `cargo xtask bench qos`. Needs root.

#[path = "live_qos/lending.rs"]
mod lending;
#[path = "live_qos/pods.rs"]
mod pods;
#[path = "live_qos/two_nodes.rs"]
mod two_nodes;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use slice_tests::bench::qos::report::Backend;
use slice_tests::bench::qos::with_and_without;
use slice_tests::harness::{Need, agent_file, main_of_each, trial};
use slice_tests::lab::LabOptions;

const WAIT: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    main_of_each("what classes are promised", Need::Agent, || {
        vec![
            trial(
                "a_class_keeps_its_guarantee_and_answers_do_not_wait",
                || one_against_sixteen(Backend::Vq),
            ),
            trial("the_same_with_classes_of_htb", || {
                one_against_sixteen(Backend::Htb)
            }),
            trial("two_nodes_keep_a_ceiling_together", || {
                two_nodes::the_ceiling_holds_for_both(&agent_file(), options())
            }),
            trial(
                "what_nodes_lend_follows_demand_and_ends_with_the_lender",
                || lending::follows_demand_and_ends_with_the_lender(&agent_file(), options()),
            ),
            trial("pods_are_of_the_classes_that_are_said", || {
                pods::are_of_the_classes_that_are_said(&agent_file(), options())
            }),
        ]
    })
}

fn options() -> LabOptions {
    LabOptions {
        lock_wait: WAIT,
        tool: Some(env!("CARGO_BIN_EXE_slice-lab").into()),
        ..LabOptions::default()
    }
}

/// Limits are wide: what a quiet machine shows is for the bench.
fn one_against_sixteen(backend: Backend) -> Result<()> {
    let [with, without] = with_and_without(&agent_file(), options(), backend)?;
    let guarantee_bps = 20e6;
    let seen = format!("with the shaper {with:#?}\nwithout {without:#?}");
    ensure!(
        without.streams_bps[0] < guarantee_bps / 2.0,
        "vacuous: {seen}"
    );
    ensure!(without.p99_ms[0] > 60.0, "vacuous: {seen}");
    ensure!(with.streams_bps[0] > 0.95 * guarantee_bps, "{seen}");
    ensure!(with.wire_bps > 0.95 * 50e6, "{seen}");
    ensure!(with.wire_bps_max_1s < 1.03 * 50e6, "{seen}");
    ensure!(with.p50_ms[0] < 14.0, "{seen}");
    let p99_ms_max = if backend == Backend::Htb { 40.0 } else { 30.0 };
    ensure!(with.p99_ms[0] < p99_ms_max, "{seen}");
    ensure!(backend == Backend::Vq || with.reordered == 0, "{seen}");
    Ok(())
}
