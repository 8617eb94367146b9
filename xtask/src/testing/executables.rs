//! Test executables: built by cargo as the user, found in its messages, run one by one, as root
//! where they need it.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::findings;
use super::totals::{Reader, Totals};
use crate::{lab, shell};

/// The folder of the package whose integration tests all need root and the object.
const LAB_FOLDER: &str = "tests";
/// How the integration tests of other packages that need them are named.
const KERNEL_PREFIX: &str = "kernel_";
/// A test executable that takes longer hangs.
const LIMIT_SECONDS: &str = "900";

/// A test executable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Executable {
    pub(super) name: String,
    /// Of `tests/`, as opposed to tests beside the code.
    pub(super) is_integration: bool,
    file: PathBuf,
    package_folder: PathBuf,
}

impl Executable {
    /// Tells whether this test loads programs or makes namespaces.
    pub(super) fn needs_root(&self) -> bool {
        let is_in_lab = self.package_folder == shell::repo_root().join(LAB_FOLDER);
        self.is_integration && (is_in_lab || self.name.starts_with(KERNEL_PREFIX))
    }
}

/// How to run an executable.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// As the user, tests side by side, skips allowed.
    User,
    /// As root, one test after the other, nothing may be skipped.
    Root,
}

/// Builds tests by `cargo test --no-run` with these arguments and returns their executables.
/// # Errors  when they do not build.
pub(super) fn build(arguments: &[&str], variables: &[(&str, String)]) -> Result<Vec<Executable>> {
    let mut cargo = shell::cargo();
    cargo
        .args([
            "test",
            "--no-run",
            "--message-format=json-render-diagnostics",
        ])
        .args(arguments);
    cargo.envs(variables.iter().map(|(name, value)| (name, value)));
    eprintln!("$ {}", shell::describe(&cargo));
    let output = cargo
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!("the tests do not build");
    }
    Ok(executables(&String::from_utf8_lossy(&output.stdout)))
}

/// Runs one executable, shows its lines and counts its tests.
/// # Errors  when it cannot be started.
pub(super) fn run(executable: &Executable, mode: Mode) -> Result<Totals> {
    let mut command = match mode {
        Mode::User => Command::new("timeout"),
        Mode::Root => {
            let mut variables = lab::variables();
            variables.push(("SLICE_TESTS_REQUIRED", "1".to_owned()));
            variables.push(("RUST_BACKTRACE", "1".to_owned()));
            let folder = findings::folder().display().to_string();
            variables.push((findings::FOLDER_VARIABLE, folder));
            shell::as_root(
                "these tests make namespaces and load programs",
                "timeout",
                &variables,
            )?
        }
    };
    // In the foreground, so that an interrupt from the keyboard reaches the tests.
    command
        .args(["--foreground", "--kill-after=10", LIMIT_SECONDS])
        .arg(&executable.file);
    if mode == Mode::Root {
        command.args(["--nocapture", "--test-threads=1"]);
    }
    command
        .current_dir(&executable.package_folder)
        .env("CARGO_MANIFEST_DIR", &executable.package_folder);
    let mut reader = Reader::default();
    let status = shell::stream(&mut command, |line| {
        reader.read(line);
        if is_worth_showing(line, mode) {
            eprintln!("{line}");
        }
    })?;
    Ok(reader.finish(status.success(), mode == Mode::User))
}

/// Runs the examples in the documentation of all crates.
/// # Errors  when cargo cannot be started.
pub(super) fn documentation() -> Result<Totals> {
    let mut reader = Reader::default();
    let mut cargo = shell::cargo();
    let status = shell::stream(cargo.args(["test", "--workspace", "--doc"]), |line| {
        reader.read(line);
        if is_worth_showing(line, Mode::User) {
            eprintln!("{line}");
        }
    })?;
    Ok(reader.finish(status.success(), true))
}

/// Hundreds of unit tests that pass are one line; of tests in the lab one wants to see each.
fn is_worth_showing(line: &str, mode: Mode) -> bool {
    let passed = line.starts_with("test ") && line.ends_with("... ok");
    mode == Mode::Root || !(passed || line.is_empty())
}

/// cargo's message about something it built.
#[derive(Deserialize)]
struct Message {
    reason: String,
    manifest_path: Option<PathBuf>,
    target: Option<Target>,
    profile: Option<Profile>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

fn executables(messages: &str) -> Vec<Executable> {
    let mut found: Vec<_> = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter(|message| message.reason == "compiler-artifact")
        .filter_map(|message| {
            let target = message.target?;
            message.profile.filter(|profile| profile.test)?;
            Some(Executable {
                name: target.name,
                is_integration: target.kind.iter().any(|kind| kind == "test"),
                file: message.executable?,
                package_folder: message.manifest_path?.parent().map(Path::to_path_buf)?,
            })
        })
        .collect();
    found.sort_by(|a, b| (&a.package_folder, &a.name).cmp(&(&b.package_folder, &b.name)));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_test_executables_are_taken_from_cargo_s_messages() {
        let artifact = |folder: &str, name: &str, kind: &str, is_test: bool, file: &str| {
            serde_json::json!({
                "reason": "compiler-artifact",
                "manifest_path": format!("/p/{folder}/Cargo.toml"),
                "target": { "name": name, "kind": [kind] },
                "profile": { "test": is_test },
                "executable": file,
            })
            .to_string()
        };
        let messages = [
            artifact("tests", "slice-lab", "bin", false, "/p/target/slice-lab"),
            artifact("tests", "lab", "test", true, "/p/target/lab-1"),
            artifact("common", "slice_common", "lib", true, "/p/target/common-2"),
            r#"{"reason":"build-finished","success":true}"#.to_owned(),
            "not json".to_owned(),
        ]
        .join("\n");

        let found = executables(&messages);

        let summary: Vec<_> = found
            .iter()
            .map(|e| (e.name.as_str(), e.is_integration, e.file.to_str()))
            .collect();
        assert_eq!(
            summary,
            [
                ("slice_common", false, Some("/p/target/common-2")),
                ("lab", true, Some("/p/target/lab-1")),
            ]
        );
    }

    #[test]
    fn passing_unit_tests_are_not_shown_and_everything_in_the_lab_is() {
        assert!(!is_worth_showing(
            "test id::tests::slice_id ... ok",
            Mode::User
        ));
        assert!(is_worth_showing(
            "test id::tests::slice_id ... FAILED",
            Mode::User
        ));
        assert!(is_worth_showing("test lab::up ... ok", Mode::Root));
    }
}
