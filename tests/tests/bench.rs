//! The bench at its shortest: figures of two rounds prove nothing, but every way must carry traffic.
//! Needs root and the agent that `cargo xtask build` makes.

use std::path::{Path, PathBuf};

use slice_tests::bench::bed::ground::{BENCH_DIR, Ground, NAMESPACE_PREFIX};
use slice_tests::bench::targets::CASES;
use slice_tests::bench::{self, PathArgs};
use slice_tests::netns::NetNs;

const ROUNDS: u32 = 2;

/// `None` where this machine cannot measure.
fn shortest() -> Option<PathArgs> {
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/slice-agent");
    let agent = std::env::var_os("SLICE_AGENT_BIN").map_or_else(built, PathBuf::from);
    let reason = if !nix::unistd::geteuid().is_root() {
        "the bench needs root".to_owned()
    } else if !agent.is_file() {
        format!("no agent at {}: run `cargo xtask build`", agent.display())
    } else {
        return Some(PathArgs {
            rounds: Some(ROUNDS),
            agent: Some(agent),
            ..PathArgs::default()
        });
    };
    let required = std::env::var_os("SLICE_TESTS_REQUIRED").is_some_and(|value| !value.is_empty());
    assert!(!required, "{reason}");
    eprintln!("SKIPPED: {reason}");
    None
}

#[test]
fn every_way_carries_every_load_and_nothing_is_left_behind() {
    let Some(shortest) = shortest() else { return };
    let report = bench::path(&shortest).unwrap();

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
