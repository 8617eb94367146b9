//! A lab whose making is interrupted by a signal goes down whole. Needs root.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::MutexGuard;
use std::time::Duration;

use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::unistd::Pid;
use slice_tests::child::poll_until;
use slice_tests::harness::{self, Need, agent_file};
use slice_tests::lab::cleanup::Leftovers;
use slice_tests::lab::state::{LabLock, Process, State};

/// Another lab of this machine may have to go down first.
const TURN_LIMIT: Duration = Duration::from_secs(240);
const END_LIMIT: Duration = Duration::from_secs(60);

fn turn() -> Option<MutexGuard<'static, ()>> {
    harness::turn("a lab that is interrupted", Need::Agent)
}

/// `slice-lab` at work, with all that belongs to its lab when it was last looked at.
struct Making {
    child: Child,
    processes: Vec<Process>,
}

fn up(extra: &[&str]) -> Making {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slice-lab"));
    command.args(["up", "--wait", "240"]).args(extra);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    // A shell lets what it starts in the background ignore SIGINT, and we honour that.
    // SAFETY: the closure makes one async-signal-safe system call.
    unsafe {
        command.pre_exec(|| {
            signal(Signal::SIGINT, SigHandler::SigDfl)?;
            Ok(())
        });
    }
    Making {
        child: command.spawn().unwrap(),
        processes: Vec::new(),
    }
}

impl Making {
    fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Waits for a moment in the making of its lab.
    fn wait_until(&mut self, what: &str, reached: impl Fn(&State, &Leftovers) -> bool) {
        let pid = self.pid();
        let found = poll_until(TURN_LIMIT, || {
            assert_eq!(self.child.try_wait()?, None, "ended before {what}");
            let own = State::load()?.filter(|it| made_by(it, pid));
            let left = Leftovers::find();
            Ok(own
                .filter(|state| reached(state, &left))
                .map(|state| (state, left)))
        });
        let (state, left) = found.unwrap().expect(what);
        self.processes = state.processes;
        for pid in left.processes {
            self.processes
                .extend(Process::of("in a namespace", pid.unsigned_abs()));
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Waits for the end, and gives the exit code and what was said.
    fn end(&mut self) -> (Option<i32>, String) {
        let status = poll_until(END_LIMIT, || Ok(self.child.try_wait()?));
        let status = status.unwrap().expect("it ends after a signal");
        let mut text = String::new();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        (status.code(), text)
    }

    /// Every process that was seen is gone, and so is whatever belongs to this lab.
    fn assert_nothing_is_left(&self) {
        for process in &self.processes {
            assert!(!process.is_alive(), "{process} is left");
        }
        // Under the lock, for nobody to build the next lab meanwhile.
        let _lock = LabLock::take(TURN_LIMIT).unwrap();
        let left = Leftovers::find();
        let somebody_elses = State::load()
            .unwrap()
            .is_some_and(|it| !made_by(&it, self.pid()));
        assert!(left.is_empty() || somebody_elses, "{left:?}");
    }
}

fn made_by(state: &State, pid: i32) -> bool {
    state
        .maker
        .as_ref()
        .is_some_and(|maker| maker.process.pid == pid)
}

fn agents_run(state: &State, _: &Leftovers) -> bool {
    state.processes.len() >= 3
}

#[test]
fn an_interrupt_while_namespaces_are_made_leaves_none() {
    let Some(_turn) = turn() else { return };
    let mut up = up(&["--no-agents"]);
    up.wait_until("five namespaces", |state, left| {
        !state.ready && left.namespaces.len() >= 5
    });
    up.signal(Signal::SIGINT);
    let (code, said) = up.end();
    assert_eq!(code, Some(130), "{said}");
    assert!(
        said.contains("SIGINT") && said.contains("the lab is down"),
        "{said}"
    );
    up.assert_nothing_is_left();
}

#[test]
fn every_ending_signal_takes_agents_and_relay_down_too() {
    let Some(_turn) = turn() else { return };
    let agent = agent_file();
    let flags = ["--wan", "relay", "--agents", agent.to_str().unwrap()];
    for (signal, expected) in [
        (Signal::SIGINT, 130),
        (Signal::SIGTERM, 143),
        (Signal::SIGHUP, 129),
    ] {
        let mut up = up(&flags);
        up.wait_until("agents", agents_run);
        up.signal(signal);
        let (code, said) = up.end();
        assert_eq!(code, Some(expected), "{said}");
        assert!(up.processes.len() >= 3, "not vacuous: {:?}", up.processes);
        up.assert_nothing_is_left();
    }
}

#[test]
fn more_signals_during_the_clean_up_change_nothing() {
    let Some(_turn) = turn() else { return };
    let agent = agent_file();
    let mut up = up(&["--agents", agent.to_str().unwrap()]);
    up.wait_until("agents", agents_run);
    up.signal(Signal::SIGINT);
    let ended = poll_until(END_LIMIT, || {
        let ended = up.child.try_wait()?;
        if ended.is_none() {
            up.signal(Signal::SIGINT);
            up.signal(Signal::SIGTERM);
        }
        Ok(ended)
    });
    assert!(ended.unwrap().is_some());
    let (code, said) = up.end();
    assert_eq!(code, Some(130), "{said}");
    assert!(
        said.contains("again: still cleaning up"),
        "not vacuous: {said}"
    );
    up.assert_nothing_is_left();
}

#[test]
fn what_is_killed_in_the_middle_of_cleaning_up_is_cleaned_by_down() {
    let Some(_turn) = turn() else { return };
    let mut up = up(&["--no-agents"]);
    up.wait_until("five namespaces", |_, left| left.namespaces.len() >= 5);
    up.signal(Signal::SIGINT);
    up.signal(Signal::SIGKILL);
    assert_eq!(up.end().0, None, "killed");
    let down = Command::new(env!("CARGO_BIN_EXE_slice-lab"))
        .arg("down")
        .output();
    let down = down.unwrap();
    let said = String::from_utf8(down.stderr).unwrap();
    // Somebody else who waited for a lab may have been faster, and cleaned as well.
    assert!(
        down.status.success() || said.contains("has the lab"),
        "{said}"
    );
    up.assert_nothing_is_left();
}

#[test]
fn a_lab_that_was_left_up_survives_the_interrupt_of_one_that_waits_for_it() {
    let Some(_turn) = turn() else { return };
    let mut kept = up(&["--no-agents"]);
    assert_eq!(kept.end().0, Some(0));
    let mut waiting = up(&["--no-agents"]);
    let lock_seen = poll_until(TURN_LIMIT, || {
        let lock = std::fs::read_to_string("/run/sliceplane-lab.lock")?;
        Ok(lock
            .contains(&format!("\"pid\":{},", waiting.pid()))
            .then_some(()))
    });
    assert!(lock_seen.unwrap().is_some(), "it waits for its turn");
    waiting.signal(Signal::SIGTERM);
    let (code, said) = waiting.end();
    assert_eq!(code, Some(143), "{said}");
    let state = State::load().unwrap().expect("the kept lab stays");
    assert!(state.ready && made_by(&state, kept.pid()), "{said}");
    let down = Command::new(env!("CARGO_BIN_EXE_slice-lab"))
        .arg("down")
        .status();
    assert!(down.unwrap().success());
}
