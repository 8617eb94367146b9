//! The figures of a run, and what they are promised to be.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::super::report::Machine;
use super::super::statistics::Limit;
use super::axes::Row;
use super::figures::Scenarios;
use super::observe::Observed;
use super::pictures::Pictures;
use super::starts::Starts;

/// What keeps packets to their time, as agents name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// Packets wait for their departure in `fq`.
    Edt,
    /// What is not urgent waits in classes of `htb`.
    Htb,
    /// Packets leave at once, and are dropped where they would have waited too long.
    Vq,
}

impl Backend {
    pub const ALL: [Self; 3] = [Self::Edt, Self::Htb, Self::Vq];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Edt => "edt",
            Self::Htb => "htb",
            Self::Vq => "vq",
        }
    }

    /// As a node's document asks for it.
    pub const fn asked_for_as(self) -> &'static str {
        match self {
            Self::Edt => "Edt",
            Self::Htb => "Htb",
            Self::Vq => "Vq",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Everything that a run found out.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// An object for each that was measured.
    #[serde(flatten)]
    pub backends: BTreeMap<Backend, Measured>,
    /// Why a backend was not measured.
    pub absent: BTreeMap<Backend, String>,
    /// What makes figures void, one sentence each.
    pub faults: Vec<String>,
    /// Not every scenario was played.
    pub is_short: bool,
    /// The rows beside the base row were played too.
    pub is_full: bool,
    pub congestion_control: String,
    pub ceiling_bps: u64,
    pub machine: Machine,
    pub seconds: f64,
}

/// What was found out about one backend.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Measured {
    #[serde(flatten)]
    pub figures: Figures,
    /// On which kernel, and by which clock.
    pub measured_in: String,
    /// Whether each missed what it should.
    pub controls: BTreeMap<String, bool>,
    pub scenarios: Scenarios,
    /// Rows that differ from the base row in one thing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub axes: BTreeMap<String, Row>,
    /// The base row with loads that begin by other gaps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starts: Option<Starts>,
    pub pictures: Pictures,
}

/// The figures of one backend. Units are in the names.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Figures {
    pub ceiling_ratio_max_1s: f64,
    pub guarantee_ratio_min: f64,
    pub work_conservation_ratio: f64,
    pub client_p99_idle_ms: f64,
    pub client_p99_added_ms: f64,
    pub own_class_p99_added_ms: f64,
    pub insync_p99_ratio_during_catchup: f64,
    pub catchup_share_of_rest: f64,
    /// How many packets came to the link behind one that was sent later, less those without a shaper.
    pub reordered_by_shaper: i64,
    pub controls_failed_as_they_should: bool,
}

/// What one scenario did.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Scenario {
    pub wire_bps: f64,
    pub wire_bps_max_1s: f64,
    pub streams_bps: Vec<f64>,
    pub p50_ms: Vec<f64>,
    pub p99_ms: Vec<f64>,
    pub answers: Vec<usize>,
    pub reordered: u64,
    pub relay_late_us_max: u64,
    /// The first ones were void.
    pub plays: u32,
}

impl Scenario {
    pub fn of(observed: &Observed) -> Self {
        let all = |percent| {
            observed
                .times_ns
                .iter()
                .map(|times| milliseconds(times, percent))
                .collect()
        };
        Self {
            wire_bps: observed.wire_bps,
            wire_bps_max_1s: observed.wire_bps_max_1s,
            streams_bps: observed.streams_bps.clone(),
            p50_ms: all(50.0),
            p99_ms: all(99.0),
            answers: observed.times_ns.iter().map(Vec::len).collect(),
            reordered: observed.reordered,
            relay_late_us_max: observed.relay_late_us_max,
            plays: 1,
        }
    }
}

fn milliseconds(sorted_ns: &[u64], percent: f64) -> f64 {
    let found = super::super::statistics::percentile(sorted_ns, percent);
    found.map_or(f64::NAN, |ns| ns as f64 / 1e6)
}

/// What a backend is promised to keep to.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub ceiling_ratio_max: f64,
    pub guarantee_ratio_min: f64,
    pub work_conservation_min: f64,
    pub client_p99_added_ms_max: f64,
    /// Where round trips are long, so much of one may be added, if that is more.
    pub client_p99_added_ratio_max: f64,
    pub own_class_p99_added_ms_max: f64,
}

impl Limits {
    pub const EDT: Self = Self {
        ceiling_ratio_max: 1.005,
        guarantee_ratio_min: 0.98,
        work_conservation_min: 0.97,
        client_p99_added_ms_max: 0.5,
        client_p99_added_ratio_max: 0.05,
        own_class_p99_added_ms_max: 1.0,
    };
    pub const HTB: Self = Self {
        ceiling_ratio_max: 1.005,
        guarantee_ratio_min: 0.98,
        work_conservation_min: 0.97,
        client_p99_added_ms_max: 2.0,
        client_p99_added_ratio_max: 0.0,
        own_class_p99_added_ms_max: 5.0,
    };
    pub const VQ: Self = Self {
        ceiling_ratio_max: 1.02,
        guarantee_ratio_min: 0.95,
        work_conservation_min: 0.95,
        client_p99_added_ms_max: 2.0,
        client_p99_added_ratio_max: 0.0,
        own_class_p99_added_ms_max: 5.0,
    };

    pub const fn of(backend: Backend) -> Self {
        match backend {
            Backend::Edt => Self::EDT,
            Backend::Htb => Self::HTB,
            Backend::Vq => Self::VQ,
        }
    }

    /// Where answers take as long without anything else.
    pub fn client_p99_added_ms_max(&self, idle_ms: f64) -> f64 {
        let part_ms = self.client_p99_added_ratio_max * idle_ms;
        self.client_p99_added_ms_max.max(part_ms)
    }

    /// What holds in every short run: its busiest second is that in which streams begin, and three answers are
    /// more than a hundredth of all.
    pub const fn in_short(self) -> Self {
        Self {
            ceiling_ratio_max: 1.02,
            client_p99_added_ms_max: 2.0 * self.client_p99_added_ms_max,
            own_class_p99_added_ms_max: 2.0 * self.own_class_p99_added_ms_max,
            ..self
        }
    }
}

const INSYNC_P99_RATIO_MAX: f64 = 1.2;
const CATCHUP_SHARE_MIN: f64 = 0.9;

impl Figures {
    /// Every figure that has a limit.
    pub fn limited(&self, limits: &Limits) -> [(&'static str, f64, Limit); 8] {
        use Limit::{AtLeast, AtMost};
        [
            (
                "ceiling_ratio_max_1s",
                self.ceiling_ratio_max_1s,
                AtMost(limits.ceiling_ratio_max),
            ),
            (
                "guarantee_ratio_min",
                self.guarantee_ratio_min,
                AtLeast(limits.guarantee_ratio_min),
            ),
            (
                "work_conservation_ratio",
                self.work_conservation_ratio,
                AtLeast(limits.work_conservation_min),
            ),
            (
                "client_p99_added_ms",
                self.client_p99_added_ms,
                AtMost(limits.client_p99_added_ms_max),
            ),
            (
                "own_class_p99_added_ms",
                self.own_class_p99_added_ms,
                AtMost(limits.own_class_p99_added_ms_max),
            ),
            (
                "insync_p99_ratio_during_catchup",
                self.insync_p99_ratio_during_catchup,
                AtMost(INSYNC_P99_RATIO_MAX),
            ),
            (
                "catchup_share_of_rest",
                self.catchup_share_of_rest,
                AtLeast(CATCHUP_SHARE_MIN),
            ),
            (
                "reordered_by_shaper",
                self.reordered_by_shaper as f64,
                AtMost(0.0),
            ),
        ]
    }

    /// The figures that miss their limit, one sentence each.
    pub fn missed(&self, limits: &Limits) -> Vec<String> {
        let limited = self.limited(limits).into_iter();
        let mut missed: Vec<String> = limited
            .filter_map(|(name, value, limit)| limit.missed_by(name, value))
            .collect();
        if !self.controls_failed_as_they_should {
            missed.push("a control did not fail as it should".to_owned());
        }
        missed
    }
}

impl Measured {
    /// What misses its limit, one sentence each.
    fn missed(&self, limits: &Limits) -> Vec<String> {
        let mut missed = self.figures.missed(limits);
        missed.extend(self.starts.iter().flat_map(|it| it.missed(limits)));
        for (name, row) in &self.axes {
            let of_row = row.missed(limits).into_iter();
            missed.extend(of_row.map(|it| format!("{name}: {it}")));
        }
        missed
    }
}

impl Report {
    pub fn missed(&self) -> Vec<String> {
        let missed = self.backends.iter().flat_map(|(backend, measured)| {
            let limits = Limits::of(*backend);
            let limits = if self.is_short {
                limits.in_short()
            } else {
                limits
            };
            let missed = measured.missed(&limits);
            missed.into_iter().map(move |it| format!("{backend}: {it}"))
        });
        missed.collect()
    }

    /// 0 when every limit is met, 1 when one is missed, a figure is void, or nothing was measured.
    pub fn exit_code(&self) -> u8 {
        let is_void = self.backends.is_empty() || !self.faults.is_empty();
        u8::from(is_void || !self.missed().is_empty())
    }

    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (backend, measured) in &self.backends {
            lines.extend(measured.lines(*backend));
        }
        lines.extend(self.missed().into_iter().map(|it| format!("MISSED: {it}")));
        lines.extend(self.faults.iter().map(|it| format!("VOID: {it}")));
        let absent = self.absent.iter();
        lines.extend(absent.map(|(backend, why)| format!("NOT MEASURED: {backend}: {why}")));
        lines
    }
}

impl Measured {
    fn lines(&self, backend: Backend) -> Vec<String> {
        let mut lines = vec![format!(
            "{:<24} {:>9} {:>9}  {:<26} {:<22} {:>6}",
            backend.name(),
            "Mbit/s",
            "max 1 s",
            "streams Mbit/s",
            "p50 / p99 ms",
            "late"
        )];
        let scenarios = self.scenarios.iter();
        lines.extend(scenarios.map(|(name, scenario)| scenario.line(name)));
        for (axis, row) in &self.axes {
            lines.push(format!("{backend}, {axis}"));
            let scenarios = row.scenarios.iter();
            lines.extend(scenarios.map(|(name, scenario)| scenario.line(name)));
            lines.push(row.line());
        }
        if let Some(starts) = &self.starts {
            lines.push(format!("{backend}, begun {:?} ms apart", starts.offsets_ms));
            lines.extend(starts.lines());
        }
        lines.push(format!("{backend}, measured in {}", self.measured_in));
        lines.push(format!("{backend}, controls: {:?}", self.controls));
        lines.push(format!("{backend}: {:#?}", self.figures));
        lines
    }
}

impl Scenario {
    fn line(&self, name: &str) -> String {
        let streams = self.streams_bps.iter();
        let streams: Vec<String> = streams.map(|bps| format!("{:.2}", bps / 1e6)).collect();
        let times = self.p50_ms.iter().zip(&self.p99_ms);
        let times: Vec<String> = times
            .map(|(p50, p99)| format!("{p50:.2} / {p99:.2}"))
            .collect();
        let again = match self.plays {
            0 | 1 => String::new(),
            plays => format!("  play {plays}: the others were void"),
        };
        format!(
            "{name:<24} {:>9.2} {:>9.2}  {:<26} {:<22} {:>6}{again}",
            self.wire_bps / 1e6,
            self.wire_bps_max_1s / 1e6,
            streams.join(", "),
            times.join(", "),
            self.relay_late_us_max,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Figures {
        Figures {
            ceiling_ratio_max_1s: 1.0,
            guarantee_ratio_min: 1.0,
            work_conservation_ratio: 1.0,
            client_p99_idle_ms: 10.0,
            client_p99_added_ms: 0.1,
            own_class_p99_added_ms: 0.2,
            insync_p99_ratio_during_catchup: 1.01,
            catchup_share_of_rest: 0.99,
            reordered_by_shaper: 0,
            controls_failed_as_they_should: true,
        }
    }

    #[test]
    fn a_short_run_is_judged_by_what_holds_in_one() {
        let missed = |is_short, ceiling_ratio_max_1s| {
            let mut report = Report {
                is_short,
                ..Report::default()
            };
            let figures = Figures {
                ceiling_ratio_max_1s,
                ..good()
            };
            let measured = Measured {
                figures,
                ..Measured::default()
            };
            report.backends.insert(Backend::Edt, measured);
            report.missed().len()
        };
        assert_eq!([missed(false, 1.015), missed(true, 1.015)], [1, 0]);
        assert_eq!(missed(true, 1.021), 1);
    }

    #[test]
    fn every_limit_counts_and_no_number_is_no_pass() {
        assert!(good().missed(&Limits::VQ).is_empty());
        let spoils: [fn(&mut Figures); 9] = [
            |it| it.ceiling_ratio_max_1s = 1.021,
            |it| it.guarantee_ratio_min = 0.949,
            |it| it.work_conservation_ratio = 0.949,
            |it| it.client_p99_added_ms = f64::NAN,
            |it| it.own_class_p99_added_ms = 5.1,
            |it| it.insync_p99_ratio_during_catchup = 1.21,
            |it| it.catchup_share_of_rest = 0.89,
            |it| it.reordered_by_shaper = 1,
            |it| it.controls_failed_as_they_should = false,
        ];
        for spoil in spoils {
            let mut figures = good();
            spoil(&mut figures);
            assert_eq!(figures.missed(&Limits::VQ).len(), 1, "{figures:?}");
        }
    }
}
