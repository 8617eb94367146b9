//! `cargo xtask test`: every stage, however the ones before it ended, and one line of totals.

mod executables;
mod findings;
mod stages;
mod totals;

use std::{fs, path::PathBuf, time::Instant};

use anyhow::{Context as _, Result};
use serde::Serialize;

use self::{findings::Findings, stages::Context, totals::Totals};

/// Everything that is tested, or chosen stages.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Writes totals and the seconds of each stage to FILE.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Runs this stage and what it needs; may be given several times.
    #[arg(long, value_name = "STAGE", value_enum)]
    only: Vec<Stage>,
}

/// The stages in the order they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
enum Stage {
    /// Toolchain and programs.
    Setup,
    /// Formatting.
    Fmt,
    /// Lints.
    Clippy,
    /// Unit, property and documentation tests, as the user.
    Unit,
    /// The object, its check and its budgets; the binaries.
    Build,
    /// House rules.
    Tidy,
    /// Generated pages are up to date.
    Reference,
    /// Programs run on hand-made and on random packets in this kernel, as root.
    TestRun,
    /// The lab, as root.
    Live,
    /// The lab with Kafka, as root.
    Kafka,
    /// Three kernels in virtual machines.
    Vm,
}

impl Stage {
    const ALL: [Self; 11] = [
        Self::Setup,
        Self::Fmt,
        Self::Clippy,
        Self::Unit,
        Self::Build,
        Self::Tidy,
        Self::Reference,
        Self::TestRun,
        Self::Live,
        Self::Kafka,
        Self::Vm,
    ];

    fn needs_build(self) -> bool {
        matches!(
            self,
            Self::Reference | Self::TestRun | Self::Live | Self::Kafka | Self::Vm
        )
    }

    fn is_wanted(self, only: &[Self]) -> bool {
        let is_needed = match self {
            Self::Build => only.iter().any(|stage| stage.needs_build()),
            Self::Setup => true,
            _ => false,
        };
        only.is_empty() || only.contains(&self) || is_needed
    }
}

/// What `--json` writes.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    totals: Totals,
    #[serde(flatten)]
    findings: Findings,
    seconds: f64,
    stages: Vec<StageReport>,
}

#[derive(Debug, Serialize)]
struct StageReport {
    stage: Stage,
    #[serde(flatten)]
    totals: Totals,
    seconds: f64,
    problems: Vec<String>,
}

/// Runs the stages, prints the totals as the last line, and tells whether nothing failed.
/// # Errors  when the report cannot be written; failing tests are no error but `false`.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    let started = Instant::now();
    findings::forget()?;
    let mut context = Context::default();
    let mut stages = Vec::new();
    for stage in Stage::ALL
        .into_iter()
        .filter(|stage| stage.is_wanted(&arguments.only))
    {
        stages.push(run_stage(stage, &mut context));
    }
    let mut totals = Totals::default();
    stages.iter().for_each(|stage| totals.add(stage.totals));
    let report = Report {
        totals,
        findings: findings::collect()?,
        seconds: started.elapsed().as_secs_f64(),
        stages,
    };
    if let Some(file) = &arguments.json {
        let text = serde_json::to_string_pretty(&report).context("cannot encode the report")?;
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    print(&report);
    Ok(totals.failed == 0)
}

fn run_stage(stage: Stage, context: &mut Context) -> StageReport {
    let name = name(stage);
    eprintln!("\n== {name}");
    let started = Instant::now();
    let (totals, problems) = match stages::run(stage, context) {
        Ok(outcome) => (outcome.totals, outcome.problems),
        Err(error) => (Totals::one_failed(), vec![format!("{error:#}")]),
    };
    let seconds = started.elapsed().as_secs_f64();
    for problem in &problems {
        eprintln!("{name}: {problem}");
    }
    eprintln!("== {name}: {totals} in {seconds:.1} s");
    StageReport {
        stage,
        totals,
        seconds,
        problems,
    }
}

fn print(report: &Report) {
    println!("\nstage          seconds   result");
    for stage in &report.stages {
        println!(
            "{:<12} {:>9.1}   {}",
            name(stage.stage),
            stage.seconds,
            stage.totals
        );
        for problem in &stage.problems {
            println!(
                "               {}",
                problem.replace('\n', "\n               ")
            );
        }
    }
    println!("{:<12} {:>9.1}", "all", report.seconds);
    println!("{}", report.totals);
}

fn name(stage: Stage) -> String {
    use clap::ValueEnum as _;
    stage
        .to_possible_value()
        .map_or_else(String::new, |value| value.get_name().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chosen_stage_brings_what_it_needs_and_nothing_else() {
        let wanted = |only: &[Stage]| -> Vec<Stage> {
            Stage::ALL
                .into_iter()
                .filter(|stage| stage.is_wanted(only))
                .collect()
        };

        assert_eq!(wanted(&[]), Stage::ALL);
        assert_eq!(wanted(&[Stage::Fmt]), [Stage::Setup, Stage::Fmt]);
        assert_eq!(
            wanted(&[Stage::Kafka]),
            [Stage::Setup, Stage::Build, Stage::Kafka]
        );
    }

    #[test]
    fn the_report_has_totals_and_seconds_at_the_top() {
        let totals = Totals {
            passed: 3,
            failed: 1,
            skipped: 0,
        };
        let stage = StageReport {
            stage: Stage::TestRun,
            totals,
            seconds: 1.5,
            problems: Vec::new(),
        };
        let report = Report {
            totals,
            findings: Findings::default(),
            seconds: 2.0,
            stages: vec![stage],
        };

        let json = serde_json::to_value(&report).unwrap();

        assert_eq!(json["passed"], 3);
        assert_eq!(json["failed"], 1);
        assert_eq!(json["wrong_deliveries"], serde_json::Value::Null);
        assert_eq!(json["stages"][0]["stage"], "test-run");
        assert_eq!(json["stages"][0]["seconds"], 1.5);
    }
}
