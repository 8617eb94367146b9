//! `cargo xtask bench`: hands on to `slice-lab`, and first has measured in a virtual machine what this host's
//! kernel has not what it needs for.

use std::{ffi::OsString, fs, process::ExitCode, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    arguments::{Bench, QosArgs},
    build,
    json_file::JsonFile,
    lab,
    setup::Needs,
    shell,
    vm::guest_lab,
};

/// The series of tests/kernels.lock that a guest boots.
const GUEST_SERIES: &str = "6.12";
/// What a guest may take to boot and to bring the lab up, and for each second of measuring: emulated, all scenarios.
const GUEST_START_LIMIT: Duration = Duration::from_secs(600);
const GUEST_SECOND_LIMIT: Duration = Duration::from_secs(100);
/// How much longer everything takes than the base row.
const FULL_TIMES: u32 = 3;

/// Runs the bench and ends as it ends.
/// # Errors  when something cannot be built or started.
pub(crate) fn run(what: &Bench, passed: Vec<OsString>) -> Result<ExitCode> {
    let mut arguments = vec![OsString::from("bench")];
    arguments.extend(passed);
    if let Bench::Qos(qos) = what
        && qos.backend.as_deref().is_none_or(|it| it == "edt")
        && (qos.guest || !has_fq()?)
    {
        if let Some(file) = &qos.json {
            JsonFile::checked(file)?;
        }
        let figures = shell::target_dir().join("vm/run/guest-figures.json");
        let found = measured_in_guest(qos)?.to_string();
        fs::write(&figures, found).with_context(|| format!("write {}", figures.display()))?;
        arguments.extend(["--guest-figures".into(), figures.into()]);
    }
    lab::pass_through(&arguments)
}

/// Whether this kernel has the queueing discipline that keeps packets to their departure: asks for one in a
/// network namespace that ends with the question.
fn has_fq() -> Result<bool> {
    let why = "only root may ask the kernel for a queueing discipline";
    let mut command = shell::as_root(why, "unshare", &lab::variables())?;
    command.args(["--net", "tc", "qdisc", "add", "dev", "lo", "root", "fq"]);
    let output = command.output().context("cannot start `unshare`")?;
    Ok(output.status.success())
}

/// What `bench qos` reads of a guest. That there is none is for the report to say: what this host can measure is
/// measured.
fn measured_in_guest(qos: &QosArgs) -> Result<Value> {
    build::run(Needs::Lab)?;
    let mut words = vec![
        "--seconds".to_owned(),
        qos.seconds.to_string(),
        "--congestion-control".to_owned(),
        qos.congestion_control.clone(),
    ];
    if qos.short {
        words.push("--short".to_owned());
    }
    let mut seconds = u32::try_from(qos.seconds)?;
    if qos.full {
        words.push("--full".to_owned());
        seconds *= FULL_TIMES;
    }
    let limit = GUEST_START_LIMIT + GUEST_SECOND_LIMIT * seconds;
    Ok(match qos_in_guest(words, limit) {
        Ok(outcome) => {
            json!({"measured": {"place": outcome.measured_in, "report": outcome.figures}})
        }
        Err(error) => json!({"failed": format!("{error:#}")}),
    })
}

/// A short `bench qos` of `edt`; what is promised holds in it as in a long one. What runs there must have been built.
/// # Errors  when a limit is missed, or nothing is measured.
pub(crate) fn short_qos_in_guest() -> Result<()> {
    let words = ["--short", "--seconds", "2"].map(str::to_owned);
    let limit = GUEST_START_LIMIT + 2 * GUEST_SECOND_LIMIT;
    let outcome = qos_in_guest(words.into(), limit)?;
    ensure!(
        outcome.exit_code == 0,
        "bench qos in {}: a limit is missed or a figure is void, as it says above",
        outcome.measured_in
    );
    Ok(())
}

/// Runs `bench qos` in a guest whose agents may put `fq` on uplinks.
/// # Errors  when it ends without figures; that they miss a limit is none.
fn qos_in_guest(words: Vec<String>, limit: Duration) -> Result<guest_lab::Outcome> {
    let fixed = [
        "bench",
        "qos",
        "--backend",
        "edt",
        "--json",
        guest_lab::FIGURES,
    ];
    let arguments: Vec<String> = fixed.into_iter().map(str::to_owned).chain(words).collect();
    guest_lab::run(GUEST_SERIES, &arguments, limit)
}
