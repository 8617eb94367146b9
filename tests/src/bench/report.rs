//! The figures of a run, as people and programs read them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde::Serialize;

use super::bed::Variant;
use super::checks;
use super::load::Readings;
use super::statistics::{Estimate, Limit, Verdict, estimate};
use super::targets::{Case, PROGRAM_TIMES, RATIOS};

/// What every variant read in one round.
pub type Round = BTreeMap<Variant, Readings>;

/// Everything that a run found out. Units are in the names.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Medians by their key.
    #[serde(flatten)]
    pub medians: BTreeMap<String, f64>,
    /// The same keys, with interval, limit and verdict.
    pub figures: BTreeMap<String, Figure>,
    pub machine: Machine,
    /// By case: every round as it was measured.
    pub rounds: BTreeMap<&'static str, Vec<Round>>,
    /// Sums over all rounds, by case, variant and cause.
    pub retransmitted_segments: BTreeMap<&'static str, BTreeMap<Variant, Readings>>,
    /// Cases without figures, because they were not what they are called.
    pub void_cases: BTreeSet<&'static str>,
    /// What makes figures void or could not be measured, one sentence each.
    pub faults: Vec<String>,
    pub seconds: f64,
}

/// A figure and what it means.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Figure {
    #[serde(flatten)]
    pub estimate: Estimate,
    pub limit: Option<Limit>,
    pub verdict: Option<Verdict>,
}

/// Where it was measured.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Machine {
    pub kernel_release: String,
    pub cpus: usize,
    /// Everything runs on this one.
    pub cpu: usize,
    /// How many others wanted a CPU in the minute before.
    pub load_average_before: f64,
}

impl Machine {
    pub fn here(cpu: usize) -> Result<Self> {
        let name = nix::sys::utsname::uname()?;
        let load = std::fs::read_to_string("/proc/loadavg")?;
        Ok(Self {
            kernel_release: name.release().to_string_lossy().into_owned(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            cpu,
            load_average_before: load
                .split(' ')
                .next()
                .and_then(|word| word.parse().ok())
                .context("/proc/loadavg: expected a number first")?,
        })
    }
}

impl Report {
    /// Adds what a case measured; what voids it is a fault, and then no figure comes from it.
    pub fn add_rounds(&mut self, case: &Case, rounds: Vec<Round>) {
        let faults = checks::faults(case, &rounds);
        if !faults.is_empty() {
            self.void_cases.insert(case.key);
        }
        self.faults.extend(faults);
        self.retransmitted_segments
            .insert(case.key, retransmits(&rounds));
        self.rounds.insert(case.key, rounds);
    }

    /// Derives every figure that the rounds allow, of the cases that were wanted.
    pub fn judge(&mut self, wanted: impl Fn(&str) -> bool) -> Result<()> {
        for ratio in RATIOS.iter().filter(|ratio| wanted(ratio.case)) {
            if self.void_cases.contains(ratio.case) {
                continue;
            }
            let values = self.pairs(ratio.case, ratio.reading, ratio.of, ratio.over);
            let values = values.map(|(of, over)| of / over).collect();
            self.add(ratio.key, values, ratio.limit)?;
        }
        for time in PROGRAM_TIMES.iter().filter(|time| wanted(time.case)) {
            let values = self.pairs(time.case, time.reading, Variant::Ours, Variant::Plain);
            let values = values.map(|(ours, empty)| ours - empty).collect();
            self.add(time.key, values, Some(time.limit))?;
        }
        Ok(())
    }

    /// A reading of two variants, for each round in which both were measured.
    fn pairs(
        &self,
        case: &str,
        reading: &'static str,
        one: Variant,
        other: Variant,
    ) -> impl Iterator<Item = (f64, f64)> {
        let rounds = self.rounds.get(case).map_or(&[][..], Vec::as_slice);
        let value = move |round: &Round, variant| round.get(&variant)?.get(reading).copied();
        rounds
            .iter()
            .filter_map(move |round| Some((value(round, one)?, value(round, other)?)))
    }

    /// Adds a figure and its verdict, from one value for each round.
    fn add(&mut self, key: &str, values: Vec<f64>, limit: Option<Limit>) -> Result<()> {
        if values.is_empty() {
            self.faults.push(format!("{key}: not measured"));
            return Ok(());
        }
        let estimate = estimate(&values).context(key.to_owned())?;
        self.medians.insert(key.to_owned(), estimate.median);
        let verdict = limit.map(|limit| limit.judge(&estimate));
        let figure = Figure {
            estimate,
            limit,
            verdict,
        };
        self.figures.insert(key.to_owned(), figure);
        Ok(())
    }

    /// 0 when every limit is met, 1 when one is missed or something is void, 3 when one is unresolved.
    pub fn exit_code(&self) -> u8 {
        let any = |verdict| self.figures.values().any(|it| it.verdict == Some(verdict));
        if !self.faults.is_empty() || any(Verdict::Missed) {
            return 1;
        }
        if any(Verdict::Unresolved) { 3 } else { 0 }
    }

    /// A table for people.
    pub fn lines(&self) -> Vec<String> {
        let line = |(key, figure): (&String, &Figure)| {
            let Estimate {
                median, low, high, ..
            } = figure.estimate;
            let limit = match figure.limit {
                Some(Limit::AtMost(limit)) => format!("at most {limit}"),
                Some(Limit::AtLeast(limit)) => format!("at least {limit}"),
                None => String::new(),
            };
            let verdict = figure.verdict.map_or("", Verdict::word);
            format!("{key:<42} {median:>9.3}  [{low:.3}, {high:.3}]  {limit:<14} {verdict}")
        };
        let figures = self.figures.iter().map(line);
        figures
            .chain(self.faults.iter().map(|fault| format!("FAULT: {fault}")))
            .collect()
    }
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "MISSED",
            Self::Unresolved => "UNRESOLVED",
        }
    }
}

/// Sums of every reading about retransmitted segments; nothing for loads that do not count them.
fn retransmits(rounds: &[Round]) -> BTreeMap<Variant, Readings> {
    let mut sums = BTreeMap::<Variant, Readings>::new();
    for (variant, readings) in rounds.iter().flatten() {
        let counted = readings
            .iter()
            .filter(|(name, _)| name.starts_with("retransmitted_"));
        for (name, count) in counted {
            *sums.entry(*variant).or_default().entry(name).or_default() += count;
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounds of ping-pong in which ours takes `ours_us` and the others 10.
    fn rounds_with(ours_us: &[f64]) -> Vec<Round> {
        let reading = |us| Readings::from([("p50_us", us), ("p99_us", 2.0 * us)]);
        let round = |us: &f64| {
            Round::from([
                (Variant::Plain, reading(10.0)),
                (Variant::PlainConntrack, reading(12.0)),
                (Variant::Vxlan, reading(10.0)),
                (Variant::Ours, reading(*us)),
            ])
        };
        ours_us.iter().map(round).collect()
    }

    fn report_of(ours_us: &[f64]) -> Report {
        let mut report = Report::default();
        report.rounds.insert("rr64", rounds_with(ours_us));
        report.judge(|_| true).unwrap();
        report.faults.clear();
        report
    }

    #[test]
    fn each_round_is_compared_with_itself() {
        let report = report_of(&[9.0; 15]);
        assert_eq!(report.medians["rr64_p50_ratio_vs_plain"], 0.9);
        assert_eq!(report.exit_code(), 0);
    }

    #[test]
    fn the_exit_code_tells_a_missed_limit_from_an_unresolved_one() {
        assert_eq!(report_of(&[12.0; 15]).exit_code(), 1);
        let noisy: Vec<f64> = (0..15).map(|round| 8.0 + 0.25 * f64::from(round)).collect();
        let report = report_of(&noisy);
        let verdict = |key: &str| report.figures[key].verdict;
        assert_eq!(verdict("rr64_p50_ratio_vs_plain"), Some(Verdict::Met));
        assert_eq!(
            verdict("rr64_p50_ratio_vs_vxlan"),
            Some(Verdict::Unresolved)
        );
        assert_eq!(report.exit_code(), 3);
        assert_eq!(
            report_of(&[9.0; 3]).exit_code(),
            3,
            "three rounds prove nothing"
        );
    }

    #[test]
    fn what_was_not_measured_is_a_fault() {
        let mut report = Report::default();
        report.judge(|_| true).unwrap();
        assert_eq!(report.faults.len(), RATIOS.len() + PROGRAM_TIMES.len());
        assert_eq!(report.exit_code(), 1);
    }

    #[test]
    fn keys_stand_at_the_top_of_the_json() {
        let json = serde_json::to_value(report_of(&[9.0; 15])).unwrap();
        assert_eq!(json["rr64_p50_ratio_vs_plain"], 0.9);
        assert_eq!(
            json["figures"]["rr64_p50_ratio_vs_plain"]["limit"]["at_most"],
            1.08
        );
        assert_eq!(json["rounds"]["rr64"][0]["ours"]["p50_us"], 9.0);
    }
}
