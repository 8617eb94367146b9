//! `cargo xtask budgets`: what each program may cost, in a file that is part of the repository.
//!
//! Instructions in the object and stack are read from the object; verified instructions, and those that
//! run for a packet (program and kernel), come from the 6.12 machine of the kernel matrix. All depend on the compiler's LLVM, so the file says which
//! one they were measured with, and only that one is held to them.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::{build::Built, build::object_check::ObjectReport, shell, vm::KernelReport};

/// The kernel series whose verifier is the gate.
pub(crate) const VERIFIED_SERIES: &str = "6.12";
const TOLERANCE_PERCENT: u64 = 2;

/// The committed file.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Budgets {
    /// LLVM of the compiler that the figures were measured with.
    llvm: String,
    #[serde(default)]
    programs: BTreeMap<String, Budget>,
    /// Instructions that run for one packet, by case (`tests/src/testrun/cost.rs`).
    #[serde(default)]
    executed_instructions: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Budget {
    object_instructions: u64,
    stack_bytes: u64,
    /// Absent until a machine of the gate's series has measured the program.
    verified_instructions: Option<u64>,
}

/// What one run of the gate's kernel found, kept for `--update`.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// By program.
    verified_instructions: BTreeMap<String, u64>,
    /// By case.
    #[serde(default)]
    executed_instructions: BTreeMap<String, u64>,
}

impl Measured {
    pub(crate) fn of(report: &KernelReport) -> Self {
        Self {
            verified_instructions: report.verified_instructions.clone(),
            executed_instructions: report.executed_instructions.clone(),
        }
    }
}

/// Writes the committed file anew from the object and from the last machine's figures, where there
/// are any; else keeps the verified figures that the file has.
/// # Errors  when the file cannot be read or written.
pub(crate) fn update(built: &Built) -> Result<()> {
    let mut budgets = load().unwrap_or_default();
    let measured = match fs::read_to_string(measured_file()) {
        Ok(text) => serde_json::from_str(&text).context("target/vm/verified.json is damaged")?,
        Err(_) => Measured::default(),
    };
    budgets.replace(&built.report, &built.llvm_version, &measured);
    fs::write(file(), budgets.render()).with_context(|| format!("cannot write {:?}", file()))?;
    eprintln!("budgets: wrote {}", file().display());
    for (program, _) in budgets
        .programs
        .iter()
        .filter(|(_, b)| b.verified_instructions.is_none())
    {
        eprintln!(
            "budgets: {program} has no verified figure yet: run \
             `cargo xtask vm --kernel {VERIFIED_SERIES}`, then this again"
        );
    }
    Ok(())
}

/// Compares an object with the committed file. Returns one sentence for each program over budget,
/// without a budget, or in the file only.
/// # Errors  when the file cannot be read.
pub(crate) fn check_object(built: &Built) -> Result<Vec<String>> {
    let budgets = load()?;
    if !budgets.holds_for(&built.llvm_version) {
        return Ok(Vec::new());
    }
    Ok(budgets.compare_object(&built.report))
}

/// Keeps what a machine of series [`VERIFIED_SERIES`] measured for `budgets --update`.
/// # Errors  when the file below the target folder cannot be written.
pub(crate) fn keep(measured: &Measured) -> Result<()> {
    let text = serde_json::to_string_pretty(measured).context("cannot encode the figures")?;
    let kept = measured_file();
    if let Some(folder) = kept.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {folder:?}"))?;
    }
    fs::write(&kept, text).with_context(|| format!("cannot write {}", kept.display()))
}

/// Compares what a machine of series [`VERIFIED_SERIES`] measured with the committed file. Returns one
/// sentence for each program and case over budget or without one.
/// # Errors  when the file cannot be read.
pub(crate) fn check_measured(measured: &Measured, llvm_version: &str) -> Result<Vec<String>> {
    let budgets = load()?;
    if !budgets.holds_for(llvm_version) {
        return Ok(Vec::new());
    }
    let mut findings = budgets.compare_verified(&measured.verified_instructions);
    findings.extend(budgets.compare_executed(&measured.executed_instructions));
    Ok(findings)
}

fn load() -> Result<Budgets> {
    let path = file();
    let text = fs::read_to_string(&path).with_context(|| {
        format!(
            "cannot read {}; `cargo xtask budgets --update` writes it",
            path.display()
        )
    })?;
    toml::from_str(&text).with_context(|| format!("{} is damaged", path.display()))
}

fn file() -> PathBuf {
    shell::repo_root().join("tests/budgets.toml")
}

fn measured_file() -> PathBuf {
    shell::target_dir().join("vm/verified.json")
}

impl Budgets {
    fn holds_for(&self, llvm_version: &str) -> bool {
        let same = self.llvm == llvm_version;
        if !same {
            eprintln!(
                "budgets: not compared: measured with LLVM {}, this compiler has {llvm_version}",
                self.llvm
            );
        }
        same
    }

    fn compare_object(&self, report: &ObjectReport) -> Vec<String> {
        let mut findings = Vec::new();
        for (program, figures) in &report.programs {
            let Some(budget) = self.programs.get(program) else {
                findings.push(without_budget(program));
                continue;
            };
            let instructions = u64::from(figures.object_instructions);
            findings.extend(over(
                program,
                "instructions",
                instructions,
                budget.object_instructions,
            ));
            let stack = u64::from(figures.stack_bytes);
            findings.extend(over(program, "bytes of stack", stack, budget.stack_bytes));
        }
        let gone = self
            .programs
            .keys()
            .filter(|program| !report.programs.contains_key(*program));
        findings.extend(gone.map(|program| {
            format!("program {program} has a budget but is not in the object; {REMEDY}")
        }));
        findings
    }

    fn compare_verified(&self, verified_instructions: &BTreeMap<String, u64>) -> Vec<String> {
        let mut findings = Vec::new();
        for (program, &measured) in verified_instructions {
            match self
                .programs
                .get(program)
                .and_then(|budget| budget.verified_instructions)
            {
                Some(allowed) => {
                    findings.extend(over(program, "verified instructions", measured, allowed));
                }
                None => findings.push(without_budget(program)),
            }
        }
        findings
    }

    fn compare_executed(&self, executed_instructions: &BTreeMap<String, u64>) -> Vec<String> {
        let mut findings = Vec::new();
        for (case, &measured) in executed_instructions {
            match self.executed_instructions.get(case) {
                Some(&allowed) => {
                    findings.extend(over(case, "executed instructions", measured, allowed));
                }
                None => findings.push(without_budget(case)),
            }
        }
        findings
    }

    fn replace(&mut self, report: &ObjectReport, llvm_version: &str, measured: &Measured) {
        llvm_version.clone_into(&mut self.llvm);
        let old = std::mem::take(&mut self.programs);
        for (program, figures) in &report.programs {
            let verified = measured
                .verified_instructions
                .get(program)
                .copied()
                .or_else(|| {
                    old.get(program)
                        .and_then(|budget| budget.verified_instructions)
                });
            let budget = Budget {
                object_instructions: figures.object_instructions.into(),
                stack_bytes: figures.stack_bytes.into(),
                verified_instructions: verified,
            };
            self.programs.insert(program.clone(), budget);
        }
        if !measured.executed_instructions.is_empty() {
            self.executed_instructions
                .clone_from(&measured.executed_instructions);
        }
    }

    fn render(&self) -> String {
        let mut text = format!(
            "# What each program may cost; {TOLERANCE_PERCENT} % more fails `cargo xtask test`.\n\
             # Written by `cargo xtask budgets --update`: look at the difference, then commit it.\n\
             # Verified instructions are those of the verifier of Linux {VERIFIED_SERIES}.\n\n\
             llvm = \"{}\"\n",
            self.llvm
        );
        for (program, budget) in &self.programs {
            let _ = write!(
                text,
                "\n[programs.{program}]\nobject_instructions = {}\nstack_bytes = {}\n",
                budget.object_instructions, budget.stack_bytes
            );
            if let Some(verified) = budget.verified_instructions {
                let _ = writeln!(text, "verified_instructions = {verified}");
            }
        }
        let _ = write!(
            text,
            "\n# Run for one packet on Linux {VERIFIED_SERIES}, by program and kernel.\n\
             [executed_instructions]\n"
        );
        for (case, executed) in &self.executed_instructions {
            let _ = writeln!(text, "{case} = {executed}");
        }
        text
    }
}

const REMEDY: &str = "if that is meant, run `cargo xtask budgets --update` and commit the file";

fn over(program: &str, what: &str, measured: u64, allowed: u64) -> Option<String> {
    let limit = allowed + allowed * TOLERANCE_PERCENT / 100;
    (measured > limit)
        .then(|| format!("{program}: {measured} {what}, the budget is {allowed}; {REMEDY}"))
}

fn without_budget(program: &str) -> String {
    format!("{program} has no budget; {REMEDY}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::object_check::ProgramFigures;

    fn report(object_instructions: u32, stack_bytes: u32) -> ObjectReport {
        let figures = ProgramFigures {
            object_instructions,
            stack_bytes,
        };
        ObjectReport {
            programs: BTreeMap::from([("pod_egress".to_owned(), figures)]),
        }
    }

    fn budgets_of_1000_instructions() -> Budgets {
        let mut budgets = Budgets::default();
        let measured = Measured {
            verified_instructions: BTreeMap::from([("pod_egress".to_owned(), 5000)]),
            executed_instructions: BTreeMap::from([("pod_egress_hit".to_owned(), 500)]),
        };
        budgets.replace(&report(1000, 64), "22.1.2", &measured);
        budgets
    }

    #[test]
    fn two_percent_more_is_within_budget_and_one_instruction_above_is_not() {
        let budgets = budgets_of_1000_instructions();

        assert_eq!(
            budgets.compare_object(&report(1020, 64)),
            Vec::<String>::new()
        );
        let findings = budgets.compare_object(&report(1021, 64));
        assert_eq!(findings.len(), 1);
        assert!(findings[0].contains("pod_egress: 1021 instructions, the budget is 1000"));
    }

    #[test]
    fn a_deeper_stack_is_over_budget() {
        let findings = budgets_of_1000_instructions().compare_object(&report(1000, 96));

        assert_eq!(findings.len(), 1);
        assert!(findings[0].contains("96 bytes of stack, the budget is 64"));
    }

    #[test]
    fn programs_on_one_side_only_are_findings() {
        let mut other = report(10, 32);
        let figures = other.programs.remove("pod_egress").unwrap();
        other.programs.insert("pod_ingress".to_owned(), figures);

        let findings = budgets_of_1000_instructions().compare_object(&other);

        assert_eq!(findings.len(), 2);
        assert!(findings[0].contains("pod_ingress has no budget"));
        assert!(findings[1].contains("pod_egress has a budget but is not in the object"));
    }

    #[test]
    fn verified_instructions_are_held_to_the_same_tolerance() {
        let budgets = budgets_of_1000_instructions();
        let measured = |count| BTreeMap::from([("pod_egress".to_owned(), count)]);

        assert_eq!(
            budgets.compare_verified(&measured(5100)),
            Vec::<String>::new()
        );
        assert_eq!(budgets.compare_verified(&measured(5101)).len(), 1);
    }

    #[test]
    fn instructions_of_a_packet_are_held_to_the_same_tolerance() {
        let budgets = budgets_of_1000_instructions();
        let measured = |case: &str, count| BTreeMap::from([(case.to_owned(), count)]);

        let within = budgets.compare_executed(&measured("pod_egress_hit", 510));
        assert_eq!(within, Vec::<String>::new());
        let over = budgets.compare_executed(&measured("pod_egress_hit", 511));
        assert!(over[0].contains("pod_egress_hit: 511 executed instructions, the budget is 500"));
        let unknown = budgets.compare_executed(&measured("pod_egress_miss", 1));
        assert!(unknown[0].contains("pod_egress_miss has no budget"));
    }

    #[test]
    fn a_rewritten_file_reads_as_what_was_written_and_keeps_verified_figures() {
        let mut budgets = budgets_of_1000_instructions();

        budgets.replace(&report(900, 32), "22.1.4", &Measured::default());

        let read: Budgets = toml::from_str(&budgets.render()).unwrap();
        assert_eq!(read, budgets);
        assert_eq!(read.llvm, "22.1.4");
        assert_eq!(
            read.programs["pod_egress"].verified_instructions,
            Some(5000)
        );
    }

    #[test]
    fn another_llvm_is_not_held_to_the_figures() {
        let budgets = budgets_of_1000_instructions();

        assert!(budgets.holds_for("22.1.2"));
        assert!(!budgets.holds_for("23.1.0"));
    }
}
