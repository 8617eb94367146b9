//! The figures of a run.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::super::report::Machine;
use super::super::statistics::percentile;

/// Fewer cuts of a scenario say nothing about a hundredth.
pub const CUTS_MIN: usize = 20;
const GAP_P99_MS_MAX: f64 = 500.0;
const GAP_MS_MAX: f64 = 1000.0;

/// What one cut did.
#[derive(Clone, Debug, Serialize)]
pub struct Cut {
    /// What was cut.
    pub what: String,
    /// The longest silence of each receiver: of the far pod, of the near one.
    pub gaps_ms: [f64; 2],
    /// The longest time that a connection waited for an answer; retransmission timers are in it.
    pub tcp_stall_ms: f64,
    /// What went over the path in the tenth of a second before.
    pub packets_before: u64,
    /// What a cut link stopped, or went by a dead gateway's neighbours after it died.
    pub packets_cut: u64,
}

/// Gaps of one scenario, or of all.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Gaps {
    pub cuts: usize,
    pub gap_ms_p50: f64,
    pub gap_ms_p99: f64,
    pub gap_ms_max: f64,
    pub tcp_stall_ms_max: f64,
}

/// Everything that a run found out. Units are in the names.
#[derive(Debug, Serialize)]
pub struct Report {
    #[serde(flatten)]
    pub all: Gaps,
    pub tcp_connections: usize,
    pub tcp_connections_lost: usize,
    pub scenarios: BTreeMap<&'static str, Gaps>,
    pub cuts_made: BTreeMap<&'static str, Vec<Cut>>,
    /// What makes figures void, one sentence each.
    pub faults: Vec<String>,
    pub machine: Machine,
    pub seconds: f64,
}

impl Gaps {
    pub fn of<'a>(cuts: impl Iterator<Item = &'a Cut>) -> Self {
        let (mut gaps_us, mut gaps) = (Vec::new(), Self::default());
        for cut in cuts {
            gaps.cuts += 1;
            gaps.tcp_stall_ms_max = gaps.tcp_stall_ms_max.max(cut.tcp_stall_ms);
            gaps_us.extend(cut.gaps_ms.map(|ms| (ms * 1000.0) as u64));
        }
        gaps_us.sort_unstable();
        let at = |percent| percentile(&gaps_us, percent).map_or(0.0, |us| us as f64 / 1000.0);
        gaps.gap_ms_p50 = at(50.0);
        gaps.gap_ms_p99 = at(99.0);
        gaps.gap_ms_max = at(100.0);
        gaps
    }
}

impl Report {
    pub fn judge(&mut self) {
        for (scenario, cuts) in &self.cuts_made {
            self.scenarios.insert(scenario, Gaps::of(cuts.iter()));
        }
        self.all = Gaps::of(self.cuts_made.values().flatten());
    }

    /// 0 when every limit is met, 1 when one is missed or a figure is void, 3 when there were too few
    /// cuts to tell.
    pub fn exit_code(&self) -> u8 {
        let is_missed = self.all.gap_ms_p99 > GAP_P99_MS_MAX
            || self.all.gap_ms_max > GAP_MS_MAX
            || self.tcp_connections_lost > 0;
        if is_missed || !self.faults.is_empty() {
            1
        } else if self.scenarios.values().any(|gaps| gaps.cuts < CUTS_MIN) {
            3
        } else {
            0
        }
    }

    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{:<28} {:>5} {:>9} {:>9} {:>9} {:>14}",
            "scenario", "cuts", "p50 ms", "p99 ms", "max ms", "tcp stall ms"
        )];
        let all = self.scenarios.iter().map(|(name, gaps)| (*name, gaps));
        for (name, gaps) in all.chain([("all", &self.all)]) {
            lines.push(format!(
                "{name:<28} {:>5} {:>9.0} {:>9.0} {:>9.0} {:>14.0}",
                gaps.cuts, gaps.gap_ms_p50, gaps.gap_ms_p99, gaps.gap_ms_max, gaps.tcp_stall_ms_max
            ));
        }
        lines.push(format!(
            "connections lost: {} of {}; limits: p99 {GAP_P99_MS_MAX} ms, max {GAP_MS_MAX} ms, none lost",
            self.tcp_connections_lost, self.tcp_connections
        ));
        lines.extend(self.faults.iter().map(|fault| format!("VOID: {fault}")));
        lines
    }

    pub fn write_json(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(file, text + "\n").with_context(|| format!("write {}", file.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(gaps_ms: &[[f64; 2]], lost: usize) -> Report {
        let cut = |gaps_ms: &[f64; 2]| Cut {
            what: "a link".to_owned(),
            gaps_ms: *gaps_ms,
            tcp_stall_ms: 1.0,
            packets_before: 100,
            packets_cut: 10,
        };
        let mut report = Report {
            all: Gaps::default(),
            tcp_connections: 4,
            tcp_connections_lost: lost,
            scenarios: BTreeMap::new(),
            cuts_made: BTreeMap::from([("one", gaps_ms.iter().map(cut).collect())]),
            faults: Vec::new(),
            machine: Machine::default(),
            seconds: 1.0,
        };
        report.judge();
        report
    }

    #[test]
    fn every_limit_counts() {
        let good = vec![[300.0, 310.0]; CUTS_MIN];
        assert_eq!(report(&good, 0).exit_code(), 0);
        assert_eq!(report(&good[1..], 0).exit_code(), 3, "too few");
        assert_eq!(report(&good, 1).exit_code(), 1, "a connection lost");
        let slow = vec![[300.0, 501.0]; CUTS_MIN];
        assert_eq!(report(&slow, 0).exit_code(), 1, "p99");
        let mut one_slow = vec![[300.0, 310.0]; 200];
        one_slow[7][0] = 1001.0;
        assert_eq!(report(&one_slow, 0).exit_code(), 1, "max");
        let mut void = report(&good, 0);
        void.faults.push("nothing was cut".to_owned());
        assert_eq!(void.exit_code(), 1);
    }
}
