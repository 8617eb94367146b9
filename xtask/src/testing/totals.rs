//! Counts of tests, read from what test executables print.

use std::fmt;

use serde::Serialize;

/// Passed, failed and skipped tests; a check that is not a test executable counts as one.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Totals {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Totals {
    pub(super) fn one_passed() -> Self {
        Self {
            passed: 1,
            ..Self::default()
        }
    }

    pub(super) fn one_failed() -> Self {
        Self {
            failed: 1,
            ..Self::default()
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(out, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

/// Follows the lines of one test executable.
#[derive(Debug, Default)]
pub(super) struct Reader {
    result: Option<Totals>,
    skips: u64,
}

impl Reader {
    pub(super) fn read(&mut self, line: &str) {
        // Uncaptured output begins behind `test name ... ` on the same line.
        if line.contains("SKIPPED: ") {
            self.skips += 1;
        }
        let Some((_, counts)) = line.split_once("test result: ") else {
            return;
        };
        let count = |what: &str| {
            let before = counts.split(what).next()?;
            before.rsplit([' ', '.']).next()?.parse::<u64>().ok()
        };
        if let (Some(passed), Some(failed), Some(skipped)) =
            (count(" passed"), count(" failed"), count(" ignored"))
        {
            self.result.get_or_insert_default().add(Totals {
                passed,
                failed,
                skipped,
            });
        }
    }

    /// Returns the totals. A test that skipped itself told the test harness that it passed; where
    /// skips are not allowed it has failed. An executable without a result, or one that ends with
    /// an error though no test failed, is one failure.
    pub(super) fn finish(self, ended_well: bool, skips_allowed: bool) -> Totals {
        let Some(mut totals) = self.result else {
            return Totals::one_failed();
        };
        let skips = self.skips.min(totals.passed);
        totals.passed -= skips;
        totals.skipped += skips;
        if !skips_allowed {
            totals.failed += totals.skipped;
            totals.skipped = 0;
        }
        if !ended_well && totals.failed == 0 {
            totals.failed = 1;
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESULT: &str = "test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; \
        2 filtered out; finished in 0.12s";

    fn totals(lines: &[&str], ended_well: bool, skips_allowed: bool) -> Totals {
        let mut reader = Reader::default();
        lines.iter().for_each(|line| reader.read(line));
        reader.finish(ended_well, skips_allowed)
    }

    #[test]
    fn counts_are_read_from_the_result_line() {
        let expected = Totals {
            passed: 5,
            failed: 0,
            skipped: 1,
        };

        assert_eq!(totals(&["running 6 tests", RESULT], true, true), expected);
    }

    #[test]
    fn a_test_that_skips_itself_did_not_pass() {
        let lines = ["test lab::up ... SKIPPED: needs root", "ok", RESULT];

        assert_eq!(
            totals(&lines, true, true),
            Totals {
                passed: 4,
                failed: 0,
                skipped: 2
            }
        );
    }

    #[test]
    fn a_skip_is_a_failure_where_everything_is_required() {
        let lines = ["SKIPPED: no java", RESULT];

        assert_eq!(
            totals(&lines, true, false),
            Totals {
                passed: 4,
                failed: 2,
                skipped: 0
            }
        );
    }

    #[test]
    fn an_executable_that_dies_is_a_failure_with_and_without_a_result() {
        assert_eq!(
            totals(&["running 6 tests"], false, true),
            Totals::one_failed()
        );
        assert_eq!(
            totals(&[RESULT], false, true),
            Totals {
                passed: 5,
                failed: 1,
                skipped: 1
            }
        );
    }

    #[test]
    fn several_results_of_one_command_add_up() {
        let failed =
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out";

        let expected = Totals {
            passed: 6,
            failed: 2,
            skipped: 1,
        };
        assert_eq!(totals(&[RESULT, failed], false, true), expected);
    }

    #[test]
    fn the_closing_line_names_skips_only_when_there_are_any() {
        let mut totals = Totals {
            passed: 12,
            failed: 0,
            skipped: 0,
        };
        assert_eq!(totals.to_string(), "12 passed, 0 failed");
        totals.skipped = 3;
        assert_eq!(totals.to_string(), "12 passed, 0 failed, 3 skipped");
    }
}
