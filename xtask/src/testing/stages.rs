//! What each stage does.

use anyhow::{Context as _, Result, bail};

use super::{
    Stage,
    executables::{self, Executable, Mode},
    totals::Totals,
};
use crate::{
    budgets,
    build::{self, Built},
    reference,
    setup::{self, Needs},
    shell, tidy, vm,
};

/// What earlier stages leave for later ones.
#[derive(Default)]
pub(super) struct Context {
    built: Option<Built>,
    /// Tests that need root, in release; built once for three stages.
    lab_tests: Option<Vec<Executable>>,
}

/// How a stage ended.
pub(super) struct Outcome {
    pub(super) totals: Totals,
    pub(super) problems: Vec<String>,
}

/// Runs one stage.
/// # Errors  count as one failure of the stage.
pub(super) fn run(stage: Stage, context: &mut Context) -> Result<Outcome> {
    if stage.needs_build() && context.built.is_none() {
        bail!("not run, because the build failed");
    }
    match stage {
        Stage::Setup => check(setup::run(Needs::Test).map(drop)),
        Stage::Fmt => check(shell::run(shell::cargo().args(["fmt", "--all", "--check"]))),
        Stage::Clippy => check(clippy()),
        Stage::Unit => unit(),
        Stage::Build => build(context),
        Stage::Tidy => tidy(),
        Stage::Reference => check(reference::run(true)),
        Stage::TestRun => in_lab(context, |test| is_test_run(&test.name)),
        Stage::Live => in_lab(context, |t| !is_test_run(&t.name) && !is_kafka(&t.name)),
        Stage::Kafka => in_lab(context, |test| is_kafka(&test.name)),
        Stage::Vm => kernel_matrix(context),
    }
}

fn check(result: Result<()>) -> Result<Outcome> {
    result.map(|()| Outcome {
        totals: Totals::one_passed(),
        problems: Vec::new(),
    })
}

fn clippy() -> Result<()> {
    let mut cargo = shell::cargo();
    shell::run(cargo.args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))
}

fn unit() -> Result<Outcome> {
    let all = executables::build(&["--workspace"], &[])?;
    let mut outcome = Outcome {
        totals: Totals::default(),
        problems: Vec::new(),
    };
    for executable in all.iter().filter(|executable| !executable.needs_root()) {
        outcome.add(&executable.name, executables::run(executable, Mode::User)?);
    }
    outcome.add("documentation", executables::documentation()?);
    Ok(outcome)
}

fn build(context: &mut Context) -> Result<Outcome> {
    let built = build::run(Needs::Build)?;
    let findings = budgets::check_object(&built)?;
    context.built = Some(built);
    Ok(Outcome::of_findings(findings))
}

fn tidy() -> Result<Outcome> {
    let findings = tidy::run()?;
    Ok(Outcome::of_findings(findings))
}

/// By name, so that a new file in tests/tests is in a stage without being listed anywhere.
fn is_test_run(name: &str) -> bool {
    name.starts_with("testrun") || name.starts_with("test_run")
}

fn is_kafka(name: &str) -> bool {
    name.starts_with("kafka")
}

fn in_lab(context: &mut Context, wanted: impl Fn(&Executable) -> bool) -> Result<Outcome> {
    if context.lab_tests.is_none() {
        // The packages and the variable of the release build, or cargo would build them anew.
        let arguments = [
            "--release",
            "-p",
            "slice-agent",
            "-p",
            "slice-tests",
            "--test",
            "*",
        ];
        let object = [(
            build::OBJECT_VARIABLE,
            build::object_path().display().to_string(),
        )];
        context.lab_tests = Some(executables::build(&arguments, &object)?);
    }
    let tests = context.lab_tests.as_deref().unwrap_or_default();
    let mut outcome = Outcome {
        totals: Totals::default(),
        problems: Vec::new(),
    };
    for executable in tests
        .iter()
        .filter(|test| test.needs_root() && wanted(test))
    {
        outcome.add(&executable.name, executables::run(executable, Mode::Root)?);
    }
    if outcome.totals == Totals::default() {
        bail!("no test of this stage was found below tests/tests");
    }
    Ok(outcome)
}

fn kernel_matrix(context: &Context) -> Result<Outcome> {
    let built = context
        .built
        .as_ref()
        .context("not run, because the build failed")?;
    let mut outcome = Outcome {
        totals: Totals::default(),
        problems: Vec::new(),
    };
    for report in vm::matrix(&vm::Arguments::default())? {
        println!("{report}");
        let failed = report.failed.len() + report.errors.len();
        let totals = Totals {
            passed: report.passed.len() as u64,
            failed: failed as u64,
            ..Totals::default()
        };
        outcome.add(&format!("kernel {}", report.series), totals);
        if report.series == budgets::VERIFIED_SERIES {
            budgets::keep_verified(&report.verified_instructions)?;
            let verified = &report.verified_instructions;
            let findings = budgets::check_verified(verified, &built.llvm_version)?;
            outcome.merge(Outcome::of_findings(findings));
        }
    }
    Ok(outcome)
}

impl Outcome {
    /// One check that passed, or one failure for each finding.
    fn of_findings(findings: Vec<String>) -> Self {
        let totals = if findings.is_empty() {
            Totals::one_passed()
        } else {
            Totals {
                failed: findings.len() as u64,
                ..Totals::default()
            }
        };
        Self {
            totals,
            problems: findings,
        }
    }

    fn add(&mut self, name: &str, totals: Totals) {
        if totals.failed > 0 {
            self.problems.push(format!("{name}: {totals}"));
        }
        self.totals.add(totals);
    }

    fn merge(&mut self, other: Self) {
        self.totals.add(other.totals);
        self.problems.extend(other.problems);
    }
}
