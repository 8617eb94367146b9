//! The bench at its shortest: a few rounds prove no figure, but every way must carry every load, and
//! what voids a run must void it. Needs root and the agent that `cargo xtask build` makes.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use slice_tests::bench::bed::ground::{BENCH_DIR, Ground, NAMESPACE_PREFIX};
use slice_tests::bench::bed::{Bed, Variant};
use slice_tests::bench::load::Run;
use slice_tests::bench::targets::{CASES, Link};
use slice_tests::bench::{self, PathArgs, checks};
use slice_tests::harness::{Need, agent_file, can_run};
use slice_tests::netns::NetNs;

const ROUNDS: u32 = 2;
/// Somebody may measure on this machine; it takes a quarter of an hour.
const WAIT: Duration = Duration::from_secs(1200);

#[test]
fn every_way_carries_every_load_and_nothing_is_left_behind() {
    if !can_run("the bench", Need::Agent) {
        return;
    }
    let agent = agent_file();
    let report = bench::path(&PathArgs {
        rounds: Some(ROUNDS),
        agent: Some(agent),
        wait: WAIT,
        ..PathArgs::default()
    });
    let report = report.unwrap();

    assert_eq!(report.faults, Vec::<String>::new());
    for case in CASES {
        let rounds = &report.rounds[case.key];
        assert_eq!(rounds.len(), ROUNDS as usize, "{}", case.key);
        for variant in case.variants {
            for readings in rounds.iter().map(|round| &round[variant]) {
                let name = format!("{} over {}", case.key, variant.key());
                assert_eq!(readings.get("lost_packets").unwrap_or(&0.0), &0.0, "{name}");
                let amounts = ["trips", "received_packets", "connects", "link_packets"];
                let amount = amounts.iter().find_map(|it| readings.get(it));
                assert!(amount.is_some_and(|it| *it > 100.0), "{name}: {readings:?}");
            }
        }
    }
    assert_eq!(report.exit_code(), 3, "two rounds resolve nothing");
}

#[test]
fn the_control_differs_by_the_device_alone_and_a_run_that_is_not_wire_mode_is_void() {
    if !can_run("the bench", Need::Agent) {
        return;
    }
    let agent = agent_file();
    let ground = Ground::take(WAIT).unwrap();
    let refused = Ground::take(Duration::ZERO).unwrap_err().to_string();
    assert!(
        refused.contains("two would measure each other"),
        "{refused}"
    );
    let bed = |variant| Bed::build(&ground, variant, 0, &agent).unwrap();
    let (ours, control) = (bed(Variant::Ours), bed(Variant::OursWithoutPortOwner));

    for index in 0..2 {
        let (with, without) = (setup(&ours.nodes[index]), setup(&control.nodes[index]));
        let differences: BTreeSet<_> = with.symmetric_difference(&without).collect();
        assert!(!differences.is_empty());
        for line in &differences {
            assert!(line.contains("sliceplane0"), "{differences:#?}");
        }
        assert!(
            with.iter()
                .any(|line| line.contains("nic0 ingress: underlay")),
            "{with:#?}"
        );
    }

    let wire = CASES.iter().find(|case| case.link == Link::Wire).unwrap();
    let run = Run {
        cpu: 0,
        duration: wire.duration,
    };
    let faults_with = |is_cut| {
        ours.set_wire_mode(is_cut).unwrap();
        let readings = (wire.load)(&ours, run).unwrap();
        checks::faults(wire, &[[(Variant::Ours, readings)].into()])
    };
    assert_eq!(faults_with(true), Vec::<String>::new());
    let uncut = faults_with(false);
    assert!(uncut[0].contains("not wire mode"), "{uncut:?}");

    drop(ground);
    assert_eq!(NetNs::list(NAMESPACE_PREFIX), Vec::<String>::new());
    assert!(!Path::new(BENCH_DIR).exists());
}

/// A node's devices, queues, programs, offloads and routes, a line each.
fn setup(node: &NetNs) -> BTreeSet<String> {
    let commands: [&[&str]; 5] = [
        &["ip", "-brief", "link"],
        &["tc", "qdisc", "show"],
        &["ip", "route", "show", "table", "all"],
        &["ip", "rule"],
        &["ethtool", "-k", "nic0"],
    ];
    let mut lines = BTreeSet::new();
    for command in commands {
        let output = node
            .command(command[0])
            .args(&command[1..])
            .output()
            .unwrap();
        assert!(output.status.success(), "{command:?}: {output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        lines.extend(
            text.lines()
                .map(|line| without_chosen_numbers(command[0], line)),
        );
    }
    lines.extend(bench::programs::describe(node).unwrap());
    lines
}

/// The kernel chooses link addresses, interface numbers and queue handles anew for each device.
fn without_chosen_numbers(command: &str, line: &str) -> String {
    let is_chosen = |word: &&str| word.matches(':').count() == 5 || word.ends_with(':');
    let words = line.split_whitespace().filter(|word| {
        let is_setting = command == "ethtool";
        is_setting || !is_chosen(word)
    });
    let text = words.collect::<Vec<_>>().join(" ");
    format!(
        "{command}: {}",
        text.split("@if").next().unwrap_or_default()
    )
}
