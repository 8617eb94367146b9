//! A command of `slice-lab` in a virtual machine, on a kernel that has what this one lacks.
//!
//! Time in it follows instructions (`-icount`), and jumps over idle: who else uses the host does not matter, and
//! latencies mean something on a processor that is emulated.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;

use super::{
    boot::{Ended, Machine},
    image::{self, Contents},
    kernel::{self, Kernel},
    lock::Lock,
};
use crate::{setup, shell};

/// What the lab runs besides our own programs.
const TOOLS: [&str; 3] = ["ip", "tc", "ethtool"];
/// What the lab and the shaper need of a kernel.
const MODULES: [&str; 8] = [
    "veth",
    "bridge",
    "tun",
    "vxlan",
    "sch_ingress",
    "cls_bpf",
    "sch_fq",
    "tcp_bbr",
];
const MEMORY_MIB: u32 = 2048;
/// An instruction takes one nanosecond.
const ICOUNT_SHIFT: u32 = 0;

/// What came of it.
pub(crate) struct Outcome {
    /// The kernel that it ran on, and by which clock.
    pub(crate) measured_in: String,
    pub(crate) exit_code: u8,
    /// What the command wrote to its `--json`.
    pub(crate) figures: Value,
}

/// The lines that the guest writes.
#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line {
    Kernel { release: String },
    Said { line: String },
    Ended { exit_code: Value, figures: Value },
    Error { message: String },
}

/// Where the command has to write its figures to.
pub(crate) const FIGURES: &str = "/tmp/figures.json";

/// Boots the kernel of that series and runs `slice-lab` with the arguments; what it says is handed over as it
/// says it. What runs there must have been built.
/// # Errors  when the machine ends before the command does, or the command left no figures.
pub(crate) fn run(series: &str, arguments: &[String], limit: Duration) -> Result<Outcome> {
    super::check_architecture()?;
    setup::install_vm_packages()?;
    let locked = Lock::load()?.choose(&[series.to_owned()])?;
    let kernel = kernel::prepare(locked.first().context("the lock has no such kernel")?)?;
    let folder = shell::target_dir().join("vm/run/lab");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let command = folder.join("command");
    fs::write(&command, arguments.join("\n")).context("cannot write the command")?;
    let machine = Machine {
        kernel: &kernel,
        image: &image::build(&kernel, &contents(&command)?, &folder)?,
        folder: &folder,
        memory_mib: MEMORY_MIB,
        icount_shift: Some(ICOUNT_SHIFT),
    };
    let ended = machine.boot(limit, |line| {
        if let Ok(Line::Said { line }) = serde_json::from_str(line) {
            eprintln!("guest: {line}");
        }
    })?;
    outcome(&kernel, &ended).with_context(|| {
        format!(
            "in a virtual machine with Linux {}; its console is in {}",
            kernel.release,
            machine.console().display()
        )
    })
}

fn contents(command: &Path) -> Result<Contents> {
    let ours = [
        (shell::release_binary("slice-lab"), "bin/slice-lab"),
        (shell::release_binary("slice-agent"), "bin/slice-agent"),
    ];
    let mut programs = Vec::from(ours);
    for (tool, place) in TOOLS.into_iter().zip(["bin/ip", "bin/tc", "bin/ethtool"]) {
        programs.push((tool_file(tool)?, place));
    }
    Ok(Contents {
        programs,
        files: vec![(command.to_owned(), "command")],
        modules: MODULES.into(),
    })
}

fn tool_file(tool: &str) -> Result<PathBuf> {
    shell::find_program(tool)
        .with_context(|| format!("the lab needs `{tool}`: run `cargo xtask setup`"))
}

fn outcome(kernel: &Kernel, ended: &Ended) -> Result<Outcome> {
    let mut release = None;
    let mut found = None;
    for line in ended.results.lines().filter(|line| line.starts_with('{')) {
        match serde_json::from_str(line).with_context(|| format!("a damaged line: {line}"))? {
            Line::Kernel { release: said } => release = Some(said),
            Line::Said { .. } => {}
            Line::Ended { exit_code, figures } => found = Some((exit_code, figures)),
            Line::Error { message } => bail!("{message}"),
        }
    }
    if let Some(fault) = &ended.fault {
        bail!("{fault}");
    }
    let (exit_code, figures) = found.context("it ended before the command did")?;
    if figures.is_null() {
        bail!("slice-lab ended with {exit_code} and without figures");
    }
    let exit_code = exit_code.as_u64().and_then(|code| u8::try_from(code).ok());
    let release = release.unwrap_or_else(|| kernel.release.clone());
    Ok(Outcome {
        measured_in: format!("guest with Linux {release}, virtual time (-icount)"),
        exit_code: exit_code.with_context(|| "slice-lab was killed")?,
        figures,
    })
}
