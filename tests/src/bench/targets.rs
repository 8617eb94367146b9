//! What is measured, and what each figure is promised to be.

use std::time::Duration;

use anyhow::Result;

use super::bed::{Bed, Variant};
use super::load::{Readings, Run, datagrams, round_trip};
use super::statistics::Limit;

/// A load, and who carries it in turn.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub key: &'static str,
    /// In the order of even rounds; odd rounds go backwards.
    pub variants: &'static [Variant],
    pub rounds: u32,
    pub duration: Duration,
    pub load: fn(&Bed, Run) -> Result<Readings>,
}

const SHORT: Duration = Duration::from_millis(150);
const MANY_ROUNDS: u32 = 61;

/// Every case, in the order in which it is measured.
pub const CASES: &[Case] = &[
    Case {
        key: "rr64",
        variants: &[Variant::Plain, Variant::Ours, Variant::Vxlan],
        rounds: MANY_ROUNDS,
        duration: SHORT,
        load: round_trip::measure,
    },
    Case {
        key: "udp64",
        variants: &[Variant::Plain, Variant::Ours, Variant::Vxlan],
        rounds: MANY_ROUNDS,
        duration: SHORT,
        load: datagrams::measure,
    },
];

/// One reading of a variant divided by another's in the same round.
#[derive(Clone, Copy, Debug)]
pub struct Ratio {
    pub key: &'static str,
    pub case: &'static str,
    pub reading: &'static str,
    pub of: Variant,
    pub over: Variant,
    /// Without one the ratio is information.
    pub limit: Option<Limit>,
}

const fn ours_over(
    over: Variant,
    key: &'static str,
    case: &'static str,
    reading: &'static str,
    limit: Option<Limit>,
) -> Ratio {
    let of = Variant::Ours;
    Ratio {
        key,
        case,
        reading,
        of,
        over,
        limit,
    }
}

use Limit::{AtLeast, AtMost};
use Variant::{Plain, Vxlan};

/// Every figure that is a ratio.
pub const RATIOS: &[Ratio] = &[
    ours_over(
        Plain,
        "rr64_p50_ratio_vs_plain",
        "rr64",
        "p50_us",
        Some(AtMost(1.08)),
    ),
    ours_over(
        Vxlan,
        "rr64_p50_ratio_vs_vxlan",
        "rr64",
        "p50_us",
        Some(AtMost(0.93)),
    ),
    ours_over(Plain, "rr64_p99_ratio_vs_plain", "rr64", "p99_us", None),
    ours_over(Vxlan, "rr64_p99_ratio_vs_vxlan", "rr64", "p99_us", None),
    ours_over(
        Plain,
        "udp64_rate_ratio_vs_plain",
        "udp64",
        "received_per_second",
        None,
    ),
    ours_over(
        Vxlan,
        "udp64_rate_ratio_vs_vxlan",
        "udp64",
        "received_per_second",
        Some(AtLeast(1.15)),
    ),
];
