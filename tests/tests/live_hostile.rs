//! Hostile packets between real agents' programs in one lab, and the account of all that is sent. Needs
//! root and a built agent (`SLICE_AGENT_BIN`, or `target/release/slice-agent`).

#[path = "live_hostile/accounts.rs"]
mod accounts;
#[path = "live_hostile/flip.rs"]
mod flip;
#[path = "live_hostile/mtu.rs"]
mod mtu;
#[path = "live_hostile/oddities.rs"]
mod oddities;
#[path = "live_hostile/parts.rs"]
mod parts;
#[path = "live_hostile/replay.rs"]
mod replay;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use slice_tests::lab::{Lab, LabOptions, Ping};

/// Others may have a lab up on this machine.
const LOCK_WAIT: Duration = Duration::from_secs(600);

/// A scene and what it shows.
type Scene = (&'static str, fn(&Lab) -> Result<()>);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One lab: each scene counts what it alone causes.
    arguments.test_threads = Some(1);
    if arguments.list {
        return libtest_mimic::run(&arguments, trials(None)).exit_code();
    }
    if let Some(reason) = reason_to_skip() {
        return skip(&reason);
    }
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    let options = LabOptions {
        lock_wait: LOCK_WAIT,
        ..LabOptions::default()
    };
    let lab = Arc::new(Lab::up(&options)?);
    lab.start_agents(&agent())?;
    introduce_nodes(&lab)?;
    let conclusion = libtest_mimic::run(arguments, trials(Some(&lab)));
    let lab = Arc::into_inner(lab).context("the lab is still in use")?;
    lab.down()?;
    Ok(conclusion.exit_code())
}

fn scenes() -> impl Iterator<Item = Scene> {
    [
        accounts::SCENES,
        replay::SCENES,
        flip::SCENES,
        oddities::SCENES,
        parts::SCENES,
        mtu::SCENES,
        oddities::LAST_SCENES,
    ]
    .into_iter()
    .flatten()
    .copied()
}

fn trials(lab: Option<&Arc<Lab>>) -> Vec<Trial> {
    let trial = |(name, play): Scene| {
        let lab = lab.cloned();
        Trial::test(name, move || {
            let lab = lab.ok_or_else(|| Failed::from("there is no lab to play in"))?;
            play(&lab).map_err(|error| Failed::from(format!("{error:#}")))
        })
    };
    scenes().map(trial).collect()
}

/// Every node learns the link-layer address of every other: a first packet would wait for it.
fn introduce_nodes(lab: &Lab) -> Result<()> {
    let nodes = lab.nodes()?;
    for from in &nodes {
        for to in nodes.iter().filter(|to| to.name != from.name) {
            let echo = Ping::default().run(&from.netns, Some(from.underlay), to.underlay)?;
            ensure!(
                echo.received() > 0,
                "{} does not reach {}",
                from.name,
                to.name
            );
        }
    }
    Ok(())
}

fn agent() -> PathBuf {
    match std::env::var_os("SLICE_AGENT_BIN").filter(|name| !name.is_empty()) {
        Some(file) => file.into(),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/release/slice-agent"),
    }
}

fn reason_to_skip() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("the lab needs root".to_owned());
    }
    let agent = agent();
    let missing = !agent.is_file();
    missing.then(|| {
        format!(
            "there is no agent {}; `cargo xtask build` makes it",
            agent.display()
        )
    })
}

fn skip(reason: &str) -> ExitCode {
    eprintln!("SKIPPED: the live hostile scenes: {reason}");
    let required = std::env::var_os("SLICE_TESTS_REQUIRED").is_some_and(|value| value == "1");
    if required {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// To stderr itself: what a passing test prints is not shown.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
