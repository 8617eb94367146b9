//! `cargo xtask`: everything a person or CI runs.

#[path = "../../tests/src/arguments.rs"]
#[allow(dead_code, unreachable_pub, reason = "slice-lab does what they say")]
mod arguments;
mod bench;
mod budgets;
mod build;
#[path = "../../tests/src/json_file.rs"]
#[allow(dead_code, unreachable_pub, reason = "slice-lab writes them")]
mod json_file;
mod lab;
mod reference;
mod setup;
mod shell;
mod signals;
mod testing;
mod tidy;
mod vm;

use std::{ffi::OsString, process::ExitCode};

use anyhow::Result;
use clap::Parser;

use crate::setup::Needs;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Everything a person or CI runs."
)]
enum Command {
    /// Install what is missing: the eBPF linker, rust-src, packages for the lab.
    Setup {
        /// Also what the kernel matrix needs: qemu and the kernels.
        #[arg(long)]
        vm: bool,
    },
    /// Build the eBPF object, check it, and build the agent and the lab.
    Build,
    /// Show two minutes of a real Kafka stretched over three clusters.
    #[command(disable_help_flag = true)]
    Demo(PassedOn),
    /// Measure: `bench path --json FILE`.
    #[command(disable_help_flag = true)]
    Bench(PassedOn),
    /// Make and use the lab: up, status, exec POD -- COMMAND, down.
    #[command(disable_help_flag = true)]
    Lab(PassedOn),
    /// Run random packets through the kernel programs: --packets N --seed S [--program NAME].
    #[command(disable_help_flag = true)]
    Fuzz(PassedOn),
    /// Run a WAN relay of the lab by itself.
    #[command(disable_help_flag = true)]
    Relay(PassedOn),
    /// Run every test, and print totals as the last line.
    Test(testing::Arguments),
    /// Check the house rules.
    Tidy,
    /// Write the generated pages below docs/reference.
    Reference {
        /// Compare only; end with 1 if a page is out of date.
        #[arg(long)]
        check: bool,
    },
    /// Compare the object with tests/budgets.toml.
    Budgets {
        /// Write the file anew from what was measured last.
        #[arg(long)]
        update: bool,
    },
    Vm(vm::Arguments),
}

/// Arguments that slice-lab reads.
#[derive(clap::Args)]
struct PassedOn {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

fn main() -> ExitCode {
    match run(Command::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Setup { vm: with_vm } => {
            setup::run(Needs::Test)?;
            if with_vm {
                vm::prefetch()?;
            }
        }
        Command::Build => build()?,
        Command::Demo(passed) => {
            understood::<arguments::DemoArgs>("demo", &passed).unwrap_or_else(|error| error.exit());
            return pass_on("demo", passed);
        }
        Command::Bench(passed) => {
            let understood = understood::<arguments::BenchArgs>("bench", &passed)
                .unwrap_or_else(|error| error.exit());
            return bench::run(&understood.what, passed.arguments);
        }
        Command::Lab(passed) => return lab::pass_through(&passed.arguments),
        Command::Fuzz(passed) => return pass_on("fuzz", passed),
        Command::Relay(passed) => return pass_on("relay", passed),
        Command::Test(arguments) => return Ok(code(testing::run(&arguments)?)),
        Command::Tidy => {
            let errors = tidy::run()?;
            errors.iter().for_each(|error| eprintln!("error: {error}"));
            return Ok(code(errors.is_empty()));
        }
        Command::Reference { check } => {
            build::run(Needs::Build)?;
            reference::run(check)?;
        }
        Command::Budgets { update } => return budgets(update),
        Command::Vm(arguments) => vm::run(&arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn build() -> Result<()> {
    let built = build::run(Needs::Build)?;
    // Whoever is at work on a program wants to see this and go on; `test` refuses it.
    for finding in budgets::check_object(&built)? {
        eprintln!("warning: {finding}");
    }
    Ok(())
}

fn budgets(update: bool) -> Result<ExitCode> {
    let built = build::object(&setup::run(Needs::Build)?)?;
    if update {
        budgets::update(&built)?;
        return Ok(ExitCode::SUCCESS);
    }
    let findings = budgets::check_object(&built)?;
    findings
        .iter()
        .for_each(|finding| eprintln!("error: {finding}"));
    Ok(code(findings.is_empty()))
}

/// Reads the arguments as `slice-lab` will, before anything is built.
fn understood<T: clap::Args>(command: &'static str, passed: &PassedOn) -> Result<T, clap::Error> {
    let shown = clap::Command::new(command).bin_name(format!("cargo xtask {command}"));
    let words = std::iter::once(OsString::from(command)).chain(passed.arguments.iter().cloned());
    let command = T::augment_args(shown);
    T::from_arg_matches(&command.try_get_matches_from(words)?)
}

fn pass_on(command: &str, passed: PassedOn) -> Result<ExitCode> {
    let mut arguments = vec![OsString::from(command)];
    arguments.extend(passed.arguments);
    lab::pass_through(&arguments)
}

fn code(is_good: bool) -> ExitCode {
    if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_after_lab_reaches_the_lab_untouched() {
        let typed = [
            "xtask", "lab", "exec", "kafka_a", "--", "ip", "--json", "-h",
        ];

        let Command::Lab(passed) = Command::parse_from(typed) else {
            panic!("not the lab")
        };

        assert_eq!(
            passed.arguments,
            typed[2..].iter().map(OsString::from).collect::<Vec<_>>()
        );
    }

    #[test]
    fn options_of_the_demo_need_no_separator() {
        let typed = ["xtask", "demo", "--json", "out.json", "--keep"];

        let Command::Demo(passed) = Command::parse_from(typed) else {
            panic!("not the demo")
        };

        assert_eq!(passed.arguments, ["--json", "out.json", "--keep"]);
    }

    #[test]
    fn what_is_mistyped_is_refused_before_anything_is_built() {
        let passed = |words: &[&str]| PassedOn {
            arguments: words.iter().map(OsString::from).collect(),
        };
        let demo = |words: &[&str]| {
            let understood = understood::<arguments::DemoArgs>("demo", &passed(words));
            understood.map(|_| ()).map_err(|error| error.to_string())
        };
        assert_eq!(demo(&["--json", "out.json", "--keep"]), Ok(()));
        let message = demo(&["--jsn", "out.json"]).unwrap_err();
        assert!(message.contains("unexpected argument '--jsn'"), "{message}");
        assert!(message.contains("Usage: cargo xtask demo"), "{message}");
        let bench = |words: &[&str]| {
            let understood = understood::<arguments::BenchArgs>("bench", &passed(words));
            understood.map(|_| ()).map_err(|error| error.to_string())
        };
        assert_eq!(bench(&["path", "--only", "rr64"]), Ok(()));
        let message = bench(&["path", "--only", "rr65"]).unwrap_err();
        assert!(message.contains("invalid value 'rr65'"), "{message}");
        let message = bench(&["failover", "--scenario", "all"]).unwrap_err();
        assert!(message.contains("invalid value 'all'"), "{message}");
    }
}
