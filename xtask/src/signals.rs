//! Waiting for a command that cleans up after itself: a signal must not end us before it has.

use std::{
    os::unix::process::ExitStatusExt as _,
    process::Command,
    sync::atomic::{AtomicI32, Ordering},
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    libc::{c_int, c_void, siginfo_t},
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction},
    unistd::{Pid, write},
};

use crate::shell;

const ENDING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// The process that is waited for; 0 before it runs.
static CHILD: AtomicI32 = AtomicI32::new(0);
/// A signal that came before the child ran.
static EARLY: AtomicI32 = AtomicI32::new(0);

/// Runs a command to its end, whatever signals come meanwhile, and returns its exit code as a shell
/// would.
/// # Errors  when it cannot be started.
pub(crate) fn run_through(command: &mut Command) -> Result<u8> {
    let text = shell::describe(command);
    let before = ENDING.map(|signal| pass_on_from_now(signal).map(|action| (signal, action)));
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start `{text}`"))?;
    CHILD.store(child.id().cast_signed(), Ordering::SeqCst);
    if let Ok(early) = Signal::try_from(EARLY.swap(0, Ordering::SeqCst)) {
        pass_on(early);
    }
    let status = child
        .wait()
        .with_context(|| format!("cannot wait for `{text}`"))?;
    for (signal, action) in before.into_iter().flatten() {
        // SAFETY: puts back what there was.
        unsafe { sigaction(signal, &action) }?;
    }
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(u8::try_from(code).unwrap_or(1))
}

/// Returns what was done with the signal before. One that we are told to ignore (as by `nohup`) stays
/// ignored, here and in the child.
fn pass_on_from_now(signal: Signal) -> nix::Result<SigAction> {
    let handler = SigHandler::SigAction(on_signal);
    let action = SigAction::new(handler, SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler makes async-signal-safe calls and uses atomics only.
    let before = unsafe { sigaction(signal, &action) }?;
    if matches!(before.handler(), SigHandler::SigIgn) {
        // SAFETY: puts back what there was.
        unsafe { sigaction(signal, &before) }?;
    }
    Ok(before)
}

/// The terminal sends a key's signal to the child as well; what a process sends is for us alone.
extern "C" fn on_signal(number: c_int, info: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel gives a valid pointer to a handler with SA_SIGINFO.
    let is_sent_by_a_process = unsafe { (*info).si_code } <= 0;
    if CHILD.load(Ordering::SeqCst) == 0 {
        EARLY.store(number, Ordering::SeqCst);
    } else if let (true, Ok(signal)) = (is_sent_by_a_process, Signal::try_from(number)) {
        pass_on(signal);
    }
}

fn pass_on(signal: Signal) {
    let child = CHILD.load(Ordering::SeqCst);
    if kill(Pid::from_raw(child), signal) == Err(Errno::EPERM) {
        // Not `eprintln!`: this may run in a signal's handler.
        let text = b"xtask: sudo takes no signal from a user: end it by Ctrl-C, or as root\n";
        let _unread = write(std::io::stderr(), text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_is_told_to_end_is_waited_for_and_its_code_is_ours() {
        // The shell tells us to end when its trap stands, and then cleans up for a moment.
        let script = "trap 'i=0; while [ $i -lt 1000 ]; do i=$((i+1)); done; exit 143' TERM; \
                      kill -TERM $PPID; while :; do :; done";

        let code = run_through(Command::new("sh").args(["-c", script])).unwrap();

        assert_eq!(code, 143);
    }
}
