//! The lab in a virtual machine: one command of `slice-lab`, as on any host. What it says goes over the line of
//! results while it says it, and its figures at the end.

use std::fs;
use std::io::{BufRead, BufReader, PipeReader};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::Results;

/// One argument a line; a machine that has this file is for the lab.
const COMMAND: &str = "/command";
const PROGRAM: &str = "/bin/slice-lab";
/// Where the lab finds the programs that it runs.
const SEARCH_PATH: &str = "/bin";
/// Where the command has to write its figures to.
const FIGURES: &str = "/tmp/figures.json";

/// The arguments of the command, if this machine is for the lab.
pub(super) fn command() -> Option<Vec<String>> {
    let text = fs::read_to_string(COMMAND).ok()?;
    Some(text.lines().map(str::to_owned).collect())
}

/// Runs the command and hands on what it found; that it missed a limit is no failure of the machine.
pub(super) fn run(arguments: &[String], results: &mut Results) -> Result<()> {
    let (reader, writer) = std::io::pipe().context("cannot create a pipe")?;
    let mut command = Command::new(PROGRAM);
    command.args(arguments).env("PATH", SEARCH_PATH);
    command.stdout(writer.try_clone()?).stderr(writer);
    let child = command
        .spawn()
        .with_context(|| format!("cannot start {PROGRAM}"))?;
    // It holds our copies of the writing end, and the pipe ends only without them.
    drop(command);
    let pid = Pid::from_raw(child.id().cast_signed());
    let status = std::thread::scope(|scope| {
        let speaker = scope.spawn(|| pass_on(reader, results));
        let status = wait_as_first_process(pid)?;
        // Its agents and its relay have its output too, and end before it does.
        speaker
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        anyhow::Ok(status)
    })?;
    let exit_code = match status {
        WaitStatus::Exited(_, code) => json!(code),
        other => json!(format!("{other:?}")),
    };
    results.write(json!({"event": "ended", "exit_code": exit_code, "figures": figures()?}))
}

fn pass_on(reader: PipeReader, results: &mut Results) -> Result<()> {
    for line in BufReader::new(reader).lines() {
        results.write(json!({"event": "said", "line": line?}))?;
    }
    Ok(())
}

/// Waits for the child, and buries whatever else ends meanwhile: orphans are the first process's.
fn wait_as_first_process(child: Pid) -> Result<WaitStatus> {
    loop {
        let status = waitpid(None, None).context("wait")?;
        if status.pid() == Some(child) {
            return Ok(status);
        }
    }
}

/// What the command wrote, or null where it failed before.
fn figures() -> Result<Value> {
    if !Path::new(FIGURES).exists() {
        return Ok(Value::Null);
    }
    let text = fs::read_to_string(FIGURES)?;
    serde_json::from_str(&text).with_context(|| format!("{FIGURES}: {text}"))
}
