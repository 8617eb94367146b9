//! The head of the tests that not every machine can run: what they need, how a skip sounds, who plays when.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use libtest_mimic::{Arguments, Conclusion, Failed, Trial};

use crate::lab::{Lab, LabOptions};

/// Set to 1 where nothing may be skipped.
const REQUIRED: &str = "SLICE_TESTS_REQUIRED";
/// Others may have a lab up on this machine.
const LOCK_WAIT: Duration = Duration::from_secs(600);

/// What a test takes that may not be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    Root,
    /// Root, and the agent that was built in release.
    Agent,
    /// Root, and the object of the kernel programs.
    Object,
}

impl Need {
    fn missing(self) -> Option<String> {
        if !nix::unistd::geteuid().is_root() {
            return Some("this needs root".to_owned());
        }
        let (what, file) = match self {
            Self::Root => return None,
            Self::Agent => ("agent", agent_file()),
            Self::Object => ("object", object_file()),
        };
        (!file.is_file()).then(|| {
            format!(
                "there is no {what} {}; `cargo xtask build` makes it",
                file.display()
            )
        })
    }
}

/// The agent that `SLICE_AGENT_BIN` names, or else the one that a build leaves.
pub fn agent_file() -> PathBuf {
    named_or_built("SLICE_AGENT_BIN", "release/slice-agent")
}

/// The object that `SLICE_EBPF_OBJ` names, or else the one that a build leaves.
pub fn object_file() -> PathBuf {
    named_or_built("SLICE_EBPF_OBJ", "bpf/slice-ebpf.o")
}

fn named_or_built(variable: &str, built: &str) -> PathBuf {
    match std::env::var_os(variable).filter(|name| !name.is_empty()) {
        Some(file) => file.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../target")
            .join(built),
    }
}

/// To stderr itself: what a passing test prints is not shown.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Whether a test has what it needs; if not, it says so.
/// # Panics  where nothing may be skipped.
pub fn can_run(test: &str, need: Need) -> bool {
    let missing = need.missing();
    if let Some(reason) = &missing {
        skip(test, reason);
    }
    missing.is_none()
}

/// Says loudly that a test is skipped.
/// # Panics  where nothing may be skipped.
pub fn skip(test: &str, reason: &str) {
    let is_allowed = say_skipped(test, reason);
    assert!(
        is_allowed,
        "{test}: {reason}, and {REQUIRED}=1 allows no skip"
    );
}

fn say_skipped(test: &str, reason: &str) -> bool {
    say(&format!("SKIPPED: {test}: {reason}"));
    std::env::var_os(REQUIRED).is_none_or(|value| value != "1")
}

/// Gives a test its turn at the one lab of the machine, or `None` if it cannot have one.
/// # Panics  where nothing may be skipped.
pub fn turn(test: &str, need: Need) -> Option<MutexGuard<'static, ()>> {
    static TURN: Mutex<()> = Mutex::new(());
    // A test that failed in its turn has dropped its lab: the next one may go on.
    can_run(test, need).then(|| TURN.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The whole of a test program whose trials share something, and so take turns: `run` makes it and plays
/// them. Only asked which trials there are, it says those of `listed`.
pub fn main(
    name: &str,
    need: Need,
    listed: impl FnOnce() -> Vec<Trial>,
    run: impl FnOnce(&Arguments) -> Result<Conclusion>,
) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    if arguments.list {
        return libtest_mimic::run(&arguments, listed()).exit_code();
    }
    if let Some(reason) = need.missing() {
        return match say_skipped(name, &reason) {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        };
    }
    match run(&arguments) {
        Ok(conclusion) => conclusion.exit_code(),
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// As [`main`], of trials that each make what they need.
pub fn main_of_each(name: &str, need: Need, trials: impl Fn() -> Vec<Trial>) -> ExitCode {
    main(name, need, &trials, |arguments| {
        Ok(libtest_mimic::run(arguments, trials()))
    })
}

/// A trial whose error is told whole.
pub fn trial(name: impl Into<String>, play: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    Trial::test(name, move || {
        play().map_err(|error| Failed::from(format!("{error:#}")))
    })
}

/// What is shown, and how.
pub type Scene = (&'static str, fn(&Lab) -> Result<()>);

/// As [`main`], of scenes in one lab with an agent on each node: each counts what it alone causes.
/// `prepare` is what the lab needs before the first.
pub fn main_in_lab(
    name: &str,
    scenes: &[&[Scene]],
    prepare: impl FnOnce(&Lab) -> Result<()>,
) -> ExitCode {
    let trials = |lab: Option<&Arc<Lab>>| -> Vec<Trial> {
        let scene = |(name, play): &Scene| {
            let (lab, play) = (lab.cloned(), *play);
            trial(*name, move || {
                play(lab.as_ref().context("there is no lab to play in")?)
            })
        };
        scenes.iter().copied().flatten().map(scene).collect()
    };
    main(
        name,
        Need::Agent,
        || trials(None),
        |arguments| {
            let options = LabOptions {
                lock_wait: LOCK_WAIT,
                ..LabOptions::default()
            };
            let lab = Arc::new(Lab::up(&options)?);
            lab.start_agents(&agent_file())?;
            prepare(&lab)?;
            let conclusion = libtest_mimic::run(arguments, trials(Some(&lab)));
            let lab = Arc::into_inner(lab).context("the lab is still in use")?;
            lab.down()?;
            Ok(conclusion)
        },
    )
}
