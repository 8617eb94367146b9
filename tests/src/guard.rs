//! Commands that make things in the kernel work in a process of their own.
//!
//! A signal may come in the middle of anything: a namespace half made, a broker starting. So nothing
//! in the working process answers it. The process that watches over it kills it and all that it
//! started, and then removes what it made, as after any crash.

use std::fs;
use std::io::Write;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, kill, signal, sigprocmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getppid};

use crate::child::poll_until;

/// What ends a command: from the keyboard, from another process, by a terminal that is gone.
const ENDING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// The process that watches over this one.
static GUARD: OnceLock<u32> = OnceLock::new();

/// The process to send a signal to if this one's work is to end: its guard, where it has one.
pub fn responsible_pid() -> u32 {
    GUARD.get().copied().unwrap_or_else(std::process::id)
}

/// Does `work` in a process of its own and gives its exit code.
///
/// If a signal ends it, everything it started is killed, `clean_up` removes what it made and says
/// so, and the exit code is 128 and the signal's number. Must be called while the program has one
/// thread.
pub fn watch_over(
    work: impl FnOnce() -> Result<u8>,
    clean_up: impl FnOnce() -> Result<String>,
) -> Result<u8> {
    let before = SigSet::thread_get_mask()?;
    let awaited = awaited_signals()?;
    // Blocked before the fork: from here on none is lost.
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&awaited), None)?;
    prctl::set_child_subreaper(true).context("adopt what a killed process leaves")?;
    let own = Pid::this();
    // SAFETY: there is no other thread whose locks the new process could inherit.
    match unsafe { fork() }.context("start the working process")? {
        ForkResult::Child => std::process::exit(i32::from(worked(own, &before, work))),
        ForkResult::Parent { child } => {
            let (status, told) = wait_for_end(child, &awaited)?;
            let ended_by = told.or(match status {
                WaitStatus::Signaled(_, by, _) => Some(by),
                _ => None,
            });
            match (ended_by, status) {
                (Some(by), _) => Ok(clean_up_after(by, awaited, clean_up)),
                (None, WaitStatus::Exited(_, code)) => Ok(u8::try_from(code).unwrap_or(1)),
                (None, other) => anyhow::bail!("the working process ended with {other:?}"),
            }
        }
    }
}

fn worked(guard: Pid, mask: &SigSet, work: impl FnOnce() -> Result<u8>) -> u8 {
    let prepared = || -> Result<()> {
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(mask), None)?;
        // Without its guard nobody would clean up after it.
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        anyhow::ensure!(getppid() == guard, "the watching process has ended");
        let _first = GUARD.set(guard.as_raw().unsigned_abs());
        Ok(())
    };
    prepared().and_then(|()| work()).unwrap_or_else(|error| {
        say(&format!("{error:#}"));
        1
    })
}

/// The signals that this process has not been told to ignore (as `nohup` does), and SIGCHLD.
fn awaited_signals() -> Result<SigSet> {
    let mut awaited = SigSet::empty();
    for it in ENDING {
        // SAFETY: no handler of ours is involved.
        let inherited = unsafe { signal(it, SigHandler::SigDfl) }?;
        if matches!(inherited, SigHandler::SigIgn) {
            // SAFETY: as above.
            unsafe { signal(it, SigHandler::SigIgn) }?;
        } else {
            awaited.add(it);
        }
    }
    // SAFETY: as above. Ignored, the kernel would forget the exit status.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }?;
    awaited.add(Signal::SIGCHLD);
    Ok(awaited)
}

/// How the working process ended, and the first signal that told us to end it.
fn wait_for_end(child: Pid, awaited: &SigSet) -> Result<(WaitStatus, Option<Signal>)> {
    let mut told = None;
    loop {
        let came = awaited.wait().context("wait for signals")?;
        if came != Signal::SIGCHLD && told.is_none() {
            told = Some(came);
            kill(child, Signal::SIGKILL).context("end the working process")?;
        }
        match waitpid(child, Some(WaitPidFlag::WNOHANG))? {
            WaitStatus::StillAlive => {}
            status => return Ok((status, told)),
        }
    }
}

fn clean_up_after(by: Signal, awaited: SigSet, clean_up: impl FnOnce() -> Result<String>) -> u8 {
    say(&format!("ended by {by}: cleaning up"));
    std::thread::spawn(move || {
        while let Ok(again) = awaited.wait() {
            if again != Signal::SIGCHLD {
                say(&format!("{again} again: still cleaning up"));
            }
        }
    });
    match end_descendants().and_then(|()| clean_up()) {
        Ok(done) => say(&done),
        Err(error) => say(&format!("the clean-up failed: {error:#}")),
    }
    128_u8.saturating_add(u8::try_from(by as i32).unwrap_or(0))
}

/// Kills every process that the working process started, and what those started: whoever loses its
/// parent becomes our child.
fn end_descendants() -> Result<()> {
    let gone = poll_until(KILL_LIMIT, || {
        let children = children();
        for child in &children {
            match kill(*child, Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error).context(format!("cannot kill process {child}")),
            }
        }
        while matches!(
            waitpid(None, Some(WaitPidFlag::WNOHANG)),
            Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..))
        ) {}
        Ok(children.is_empty().then_some(()))
    })?;
    gone.with_context(|| format!("{:?} still run {KILL_LIMIT:?} after SIGKILL", children()))
}

fn children() -> Vec<Pid> {
    let own = std::process::id();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| parent_of(*pid) == Some(own))
        .map(Pid::from_raw)
        .collect()
}

/// The second field after the command's name, which may hold spaces and parentheses.
fn parent_of(pid: i32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_name = stat.rsplit_once(')')?.1;
    after_name.split_whitespace().nth(1)?.parse().ok()
}

/// A terminal that is gone is no reason to stop in the middle of cleaning up.
fn say(text: &str) {
    let _unread = writeln!(std::io::stderr(), "slice-lab: {text}");
}
