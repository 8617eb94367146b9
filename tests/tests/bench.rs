//! The bench at its shortest: figures of two rounds prove nothing, but every way must carry traffic.
//! Needs root and the agent that `cargo xtask build` makes.

use std::path::PathBuf;

use slice_tests::bench::bed::ground::{BENCH_DIR, Ground, NAMESPACE_PREFIX};
use slice_tests::bench::targets::CASES;
use slice_tests::bench::{self, PathArgs};
use slice_tests::netns::NetNs;

const ROUNDS: u32 = 2;

fn shortest() -> PathArgs {
    let built = || {
        let program = std::env::current_exe().unwrap();
        program.ancestors().nth(2).unwrap().join("slice-agent")
    };
    let agent = std::env::var_os("SLICE_AGENT_BIN").map_or_else(built, PathBuf::from);
    PathArgs {
        rounds: Some(ROUNDS),
        agent: Some(agent),
        ..PathArgs::default()
    }
}

#[test]
fn every_way_carries_every_load_and_nothing_is_left_behind() {
    let report = bench::path(&shortest()).unwrap();

    for case in CASES {
        let rounds = &report.rounds[case.key];
        assert_eq!(rounds.len(), ROUNDS as usize, "{}", case.key);
        for variant in case.variants {
            for readings in rounds.iter().map(|round| &round[variant]) {
                let name = format!("{} over {}", case.key, variant.key());
                assert_eq!(readings.get("lost_packets").unwrap_or(&0.0), &0.0, "{name}");
                let amounts = ["trips", "received_packets"];
                let amount = amounts.iter().find_map(|it| readings.get(it));
                assert!(amount.is_some_and(|it| *it > 100.0), "{name}: {readings:?}");
            }
        }
    }
    assert_ne!(report.exit_code(), 0, "two rounds resolve nothing");
    assert_eq!(NetNs::list(NAMESPACE_PREFIX), Vec::<String>::new());
    assert!(!PathBuf::from(BENCH_DIR).exists());

    let _ground = Ground::take().unwrap();
    let refused = Ground::take().unwrap_err().to_string();
    assert!(
        refused.contains("two would measure each other"),
        "{refused}"
    );
}
