//! What each stage does.

use anyhow::{Context as _, Result, bail};

use super::{
    Stage,
    executables::{self, Executable, Mode},
    totals::Totals,
};
use crate::{
    bench, budgets,
    build::{self, Built},
    reference,
    setup::{self, Needs},
    shell, tidy, vm,
};

/// What earlier stages leave for later ones.
#[derive(Default)]
pub(super) struct Context {
    built: Option<Built>,
    /// Integration tests in release; built once for three stages.
    root_tests: Vec<Executable>,
}

/// How a stage ended.
#[derive(Default)]
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
        Stage::TestRun => as_root(&context.root_tests, |test| is_test_run(&test.name)),
        Stage::Live => as_root(&context.root_tests, |t| {
            !is_test_run(&t.name) && !is_kafka(&t.name)
        }),
        Stage::Kafka => as_root(&context.root_tests, |test| is_kafka(&test.name)),
        Stage::Vm => virtual_machines(context),
    }
}

fn check(result: Result<()>) -> Result<Outcome> {
    result.map(|()| Outcome::of_findings(Vec::new()))
}

fn clippy() -> Result<()> {
    let mut cargo = shell::cargo();
    shell::run(cargo.args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--keep-going",
        "--",
        "-D",
        "warnings",
    ]))
}

fn unit() -> Result<Outcome> {
    let all = executables::build(&["--workspace"], &[])?;
    let mut outcome = Outcome::default();
    for executable in all.iter().filter(|executable| !executable.needs_root()) {
        outcome.add_run(executable, Mode::User);
    }
    outcome.add("documentation", executables::documentation()?);
    Ok(outcome)
}

fn build(context: &mut Context) -> Result<Outcome> {
    let built = build::object(&setup::run(Needs::Build)?)?;
    let findings = budgets::check_object(&built)?;
    // Builds the binaries too. Not by `build::run`: with the tests' own dependencies cargo chooses
    // other features for some crates, and would build everything above those a second time.
    let arguments = [
        "--release",
        "-p",
        "slice-agent",
        "-p",
        "slice-tests",
        "--test",
        "*",
    ];
    let object = (
        build::OBJECT_VARIABLE,
        build::object_path().display().to_string(),
    );
    context.root_tests = executables::build(&arguments, &[object])?;
    context.built = Some(built);
    Ok(Outcome::of_findings(findings))
}

fn tidy() -> Result<Outcome> {
    let findings = tidy::run()?;
    Ok(Outcome::of_findings(findings))
}

/// By name, so that a new file in tests/tests is in a stage without being listed anywhere.
fn is_test_run(name: &str) -> bool {
    ["testrun", "test_run", "fuzz"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

fn is_kafka(name: &str) -> bool {
    name.starts_with("kafka")
}

fn as_root(tests: &[Executable], wanted: impl Fn(&Executable) -> bool) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    for executable in tests
        .iter()
        .filter(|test| test.needs_root() && wanted(test))
    {
        outcome.add_run(executable, Mode::Root);
    }
    if outcome.totals == Totals::default() {
        bail!("no test of this stage was found below tests/tests");
    }
    Ok(outcome)
}

fn virtual_machines(context: &Context) -> Result<Outcome> {
    let mut outcome = kernel_matrix(context)?;
    let missed = bench::short_qos_in_guest().err();
    let findings = missed.map(|error| format!("{error:#}"));
    outcome.merge(Outcome::of_findings(findings.into_iter().collect()));
    Ok(outcome)
}

fn kernel_matrix(context: &Context) -> Result<Outcome> {
    let built = context
        .built
        .as_ref()
        .context("not run, because the build failed")?;
    let mut outcome = Outcome::default();
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
            let measured = budgets::Measured::of(&report);
            budgets::keep(&measured)?;
            let findings = budgets::check_measured(&measured, &built.llvm_version)?;
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

    /// Runs an executable; one that does not even start is a failure like any other.
    fn add_run(&mut self, executable: &Executable, mode: Mode) {
        match executables::run(executable, mode) {
            Ok(totals) => self.add(&executable.name, totals),
            Err(error) => {
                let problems = vec![format!("{}: {error:#}", executable.name)];
                self.merge(Self::of_findings(problems));
            }
        }
    }

    fn merge(&mut self, other: Self) {
        self.totals.add(other.totals);
        self.problems.extend(other.problems);
    }
}
