//! What a machine found: read from its result lines, shown to people, kept for budgets.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt, fs,
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::kernel::Kernel;

/// One kernel's results.
#[derive(Debug, Default, Serialize)]
pub(crate) struct KernelReport {
    pub(crate) series: String,
    pub(crate) release: String,
    /// Whether another build than the locked one was tested.
    pub(crate) is_substitute: bool,
    pub(crate) seconds: f64,
    /// Instructions the verifier walked through, by program.
    pub(crate) verified_instructions: BTreeMap<String, u64>,
    /// Instructions that ran for a packet, by case; only where time follows instructions.
    pub(crate) executed_instructions: BTreeMap<String, u64>,
    /// What a packet of a stranger costs the kernel behind a card's driver, by the program that drops it;
    /// nanoseconds of the guest, which only mean something where time follows instructions.
    pub(crate) flood_packet_ns: BTreeMap<String, u64>,
    /// `tcx` or `clsact`.
    pub(crate) attached_by: Option<String>,
    pub(crate) passed: Vec<String>,
    /// Name and message of each failed test.
    pub(crate) failed: Vec<(String, String)>,
    /// What went wrong besides tests: a program refused, no result, a damaged line.
    pub(crate) errors: Vec<String>,
    #[serde(skip)]
    console_tail: Vec<String>,
    /// Guest nanoseconds for an instruction, where time follows instructions.
    #[serde(skip)]
    ns_per_instruction: Option<u64>,
}

/// The lines that the guest writes.
#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line {
    Kernel {
        release: String,
    },
    Program {
        name: String,
        verified_instructions: Option<u64>,
        error: Option<String>,
    },
    Attach {
        by: String,
    },
    Test {
        name: String,
        failure: Option<String>,
    },
    /// The shortest run of a program for one packet.
    Time {
        name: String,
        ns: u64,
    },
    Flood {
        dropped_by: String,
        packet_ns: u64,
    },
    Error {
        message: String,
    },
}

const VERDICT: &str = "RESULT: ";

impl KernelReport {
    pub(super) fn new(kernel: &Kernel, seconds: f64, ns_per_instruction: Option<u64>) -> Self {
        Self {
            ns_per_instruction,
            series: kernel.series.clone(),
            release: kernel.release.clone(),
            is_substitute: kernel.is_substitute,
            seconds,
            ..Self::default()
        }
    }

    /// Takes the guest's lines. Without the last one the machine did not come to its end, and that is
    /// a failure however good the others look.
    pub(super) fn read(&mut self, text: &str) {
        let mut verdict = None;
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            match line.strip_prefix(VERDICT) {
                Some(word) => verdict = Some(word.to_owned()),
                None => self.read_line(line),
            }
        }
        match verdict.as_deref() {
            Some("SUCCESS") => {}
            Some(word) => self.fail(format!("the guest says {word}")),
            None => self.fail("no result: the machine ended before its tests did".to_owned()),
        }
        if self.passed.is_empty() {
            self.fail("no test ran".to_owned());
        }
    }

    pub(super) fn fail(&mut self, error: String) {
        self.errors.push(error);
    }

    /// Keeps the last words of the console for the reader.
    pub(super) fn attach_console(&mut self, console: &Path) {
        const LINES: usize = 40;
        let text = fs::read(console).unwrap_or_default();
        let mut tail = VecDeque::new();
        for line in String::from_utf8_lossy(&text).lines() {
            tail.push_back(line.trim_end().to_owned());
            if tail.len() > LINES {
                tail.pop_front();
            }
        }
        self.console_tail = tail.into();
    }

    /// Tells whether every program loaded, every test passed and the machine came to its end.
    pub(crate) fn succeeded(&self) -> bool {
        self.failed.is_empty() && self.errors.is_empty()
    }

    fn read_line(&mut self, line: &str) {
        match serde_json::from_str(line) {
            Ok(Line::Kernel { release }) if release == self.release => {}
            Ok(Line::Kernel { release }) => self.fail(format!("booted {release}")),
            Ok(Line::Program {
                name,
                error: Some(error),
                ..
            }) => {
                self.fail(format!("program {name} was refused: {error}"));
            }
            Ok(Line::Program {
                name,
                verified_instructions,
                error: None,
            }) => {
                self.verified_instructions
                    .insert(name, verified_instructions.unwrap_or(0));
            }
            Ok(Line::Flood {
                dropped_by,
                packet_ns,
            }) => {
                self.flood_packet_ns.insert(dropped_by, packet_ns);
            }
            Ok(Line::Attach { by }) => self.attached_by = Some(by),
            Ok(Line::Test {
                name,
                failure: None,
            }) => self.passed.push(name),
            Ok(Line::Test {
                name,
                failure: Some(failure),
            }) => self.failed.push((name, failure)),
            Ok(Line::Time { name, ns }) => {
                if let Some(ns_per_instruction) = self.ns_per_instruction {
                    self.executed_instructions
                        .insert(name, ns / ns_per_instruction);
                }
            }
            Ok(Line::Error { message }) => self.fail(message),
            Err(error) => self.fail(format!("damaged result line ({error}): {line}")),
        }
    }
}

impl fmt::Display for KernelReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.succeeded() { "ok" } else { "FAILED" };
        let substitute = if self.is_substitute {
            ", NOT THE LOCKED BUILD"
        } else {
            ""
        };
        writeln!(
            f,
            "kernel {} ({}{substitute}): {verdict}. {} passed; {} failed; {:.1} s; attached by {}",
            self.series,
            self.release,
            self.passed.len(),
            self.failed.len(),
            self.seconds,
            self.attached_by.as_deref().unwrap_or("nothing"),
        )?;
        for (program, instructions) in &self.verified_instructions {
            writeln!(f, "  {program:<18} {instructions:>7} verified instructions")?;
        }
        for (case, instructions) in &self.executed_instructions {
            writeln!(f, "  {case:<21} {instructions:>4} executed instructions")?;
        }
        for (program, ns) in &self.flood_packet_ns {
            writeln!(
                f,
                "  a stranger's packet that {program} drops: {ns} ns of the guest"
            )?;
        }
        for error in &self.errors {
            writeln!(f, "  error: {error}")?;
        }
        for (name, failure) in &self.failed {
            writeln!(f, "  test {name}: {}", failure.replace('\n', "\n    "))?;
        }
        for line in &self.console_tail {
            writeln!(f, "  console | {line}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "{\"event\":\"kernel\",\"release\":\"6.1.0-50\"}\n\
        {\"event\":\"program\",\"name\":\"pod_egress\",\"verified_instructions\":812,\"error\":null}\n\
        {\"event\":\"attach\",\"by\":\"clsact\"}\n\
        {\"event\":\"test\",\"name\":\"drop_fragment\",\"failure\":null}\n";

    fn report(text: &str) -> KernelReport {
        let mut report = KernelReport {
            release: "6.1.0-50".to_owned(),
            ..KernelReport::default()
        };
        report.read(text);
        report
    }

    #[test]
    fn a_machine_that_comes_to_its_end_succeeds() {
        let report = report(&format!("{GOOD}RESULT: SUCCESS\r\n"));
        assert!(report.succeeded(), "{report}");
        assert_eq!(report.verified_instructions["pod_egress"], 812);
        assert_eq!(report.passed, ["drop_fragment"]);
    }

    #[test]
    fn a_machine_that_dies_after_good_results_fails() {
        assert!(!report(GOOD).succeeded());
    }

    #[test]
    fn a_machine_that_ran_no_test_fails() {
        assert!(!report("RESULT: SUCCESS\n").succeeded());
    }

    #[test]
    fn a_refused_program_a_failed_test_and_a_damaged_line_each_fail() {
        for line in [
            "{\"event\":\"program\",\"name\":\"pod_egress\",\"error\":\"R1 invalid\"}",
            "{\"event\":\"test\",\"name\":\"drop_fragment\",\"failure\":\"bytes differ\"}",
            "{\"event\":\"te",
        ] {
            assert!(
                !report(&format!("{GOOD}{line}\nRESULT: SUCCESS\n")).succeeded(),
                "{line}"
            );
        }
    }
}
