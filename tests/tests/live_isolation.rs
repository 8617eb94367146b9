//! Who reaches whom, and as whom, between real agents' programs in one lab: slices, strangers,
//! nodes and forgers. Needs root and a built agent (`SLICE_AGENT_BIN`, or
//! `target/release/slice-agent`).
//!
//! Every scene about a packet that must not pass first sends the same one without the fault.

#[path = "live_isolation/addresses.rs"]
mod addresses;
#[path = "live_isolation/bare.rs"]
mod bare;
#[path = "live_isolation/errors.rs"]
mod errors;
#[path = "live_isolation/forgers.rs"]
mod forgers;
#[path = "live_isolation/narrow.rs"]
mod narrow;
#[path = "live_isolation/reconfigure.rs"]
mod reconfigure;
#[path = "live_isolation/segments.rs"]
mod segments;
#[path = "live_isolation/sizes.rs"]
mod sizes;
#[path = "live_isolation/strangers.rs"]
mod strangers;
#[path = "live_isolation/strict.rs"]
mod strict;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use slice_tests::lab::{Lab, LabOptions, Ping, Pod};
use slice_tests::packet::Ipv4;

/// Others may have a lab up on this machine.
const LOCK_WAIT: Duration = Duration::from_secs(600);
/// All on one machine: an answer that takes longer does not come.
const ECHO_LIMIT: Duration = Duration::from_millis(500);
/// TCP and UDP, from broker to broker, outside every class.
const OPEN_PORT: u16 = 7000;

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
    let conclusion = libtest_mimic::run(arguments, trials(Some(&lab)));
    let lab = Arc::into_inner(lab).context("the lab is still in use")?;
    lab.down()?;
    Ok(conclusion.exit_code())
}

fn scenes() -> impl Iterator<Item = Scene> {
    [
        addresses::SCENES,
        strangers::SCENES,
        forgers::SCENES,
        errors::SCENES,
        sizes::SCENES,
        narrow::SCENES,
        segments::SCENES,
        strict::SCENES,
        bare::SCENES,
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
    eprintln!("SKIPPED: the live isolation scenes: {reason}");
    let required = std::env::var_os("SLICE_TESTS_REQUIRED").is_some_and(|value| value == "1");
    if required {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// Several pods by name.
fn pods<const N: usize>(lab: &Lab, names: [&str; N]) -> Result<[Pod; N]> {
    let pods: Vec<Pod> = names
        .iter()
        .map(|name| lab.pod(name))
        .collect::<Result<_>>()?;
    pods.try_into()
        .map_err(|_| anyhow::anyhow!("as many pods as names"))
}

fn slice_address(pod: &Pod) -> Result<Ipv4Addr> {
    Ok(pod.place()?.address)
}

fn ipv4(from: Ipv4Addr, to: Ipv4Addr) -> Ipv4 {
    Ipv4::between(from.octets(), to.octets())
}

/// How many of one echo request are answered, from the pod's own address.
fn echo(from: &Pod, to: Ipv4Addr) -> Result<u32> {
    let ping = Ping {
        timeout: ECHO_LIMIT,
        ..Ping::default()
    };
    Ok(ping
        .run(&from.netns, Some(from.pod_address), to)?
        .received())
}

/// Compares with a message that names what is compared.
fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, expected: &T) -> Result<()> {
    ensure!(
        found == expected,
        "{what}: expected {expected:?}, found {found:?}"
    );
    Ok(())
}
