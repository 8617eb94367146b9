//! `cargo xtask lab|demo|bench|fuzz|relay`: builds, then hands everything to `slice-lab`, which needs root.

use std::{ffi::OsString, process::ExitCode};

use anyhow::Result;

use crate::{
    build,
    setup::{self, Needs},
    shell, signals,
};

/// Runs `slice-lab` with these arguments and ends as it ends.
/// # Errors  when it cannot be built or started.
pub(crate) fn pass_through(arguments: &[OsString]) -> Result<ExitCode> {
    build::run(Needs::Lab)?;
    let missing = setup::missing_programs();
    if !missing.is_empty() {
        eprintln!("WARNING: not installed: {}", missing.join(", "));
    }
    let lab = shell::release_binary("slice-lab");
    let why = "the lab makes network namespaces and loads kernel programs";
    let mut command = shell::as_root(why, &lab, &variables())?;
    command.args(arguments);
    eprintln!("$ {}", shell::describe(&command));
    signals::run_through(&mut command).map(ExitCode::from)
}

/// Returns what everything of package `slice-tests` finds in its environment when xtask starts it.
pub(crate) fn variables() -> Vec<(&'static str, String)> {
    vec![
        ("PATH", shell::search_path()),
        (
            build::OBJECT_VARIABLE,
            build::object_path().display().to_string(),
        ),
        (
            "SLICE_AGENT_BIN",
            shell::release_binary("slice-agent").display().to_string(),
        ),
        (
            "SLICE_LAB_BIN",
            shell::release_binary("slice-lab").display().to_string(),
        ),
    ]
}
