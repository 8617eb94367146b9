//! What is measured, and what each figure is promised to be.

use std::time::Duration;

use anyhow::Result;

use super::bed::{Bed, Variant};
use super::load::{Readings, Run, connects, datagrams, round_trip, stream};
use super::programs;
use super::statistics::Limit;

/// A load, and who carries it in turn.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub key: &'static str,
    /// In the order of even rounds; odd rounds go backwards.
    pub variants: &'static [Variant],
    pub rounds: u32,
    pub duration: Duration,
    pub link: Link,
    pub load: fn(&Bed, Run) -> Result<Readings>,
}

/// What crosses the link between the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Packets that are small anyway.
    Any,
    /// Packets that are left whole, as between NICs that segment tunnels themselves.
    Gso,
    /// Packets of the link's size, as between NICs without offload for tunnels.
    Wire,
}

const SHORT: Duration = Duration::from_millis(150);
const LONG: Duration = Duration::from_millis(400);
const MANY_ROUNDS: u32 = 61;
const ROUNDS: u32 = 31;

/// Ours stands in the middle, close to each of the others.
const WITHOUT_CONTROL: &[Variant] = &[
    Variant::Plain,
    Variant::PlainConntrack,
    Variant::Ours,
    Variant::Vxlan,
];
const WITH_CONTROL: &[Variant] = &[
    Variant::Plain,
    Variant::Ours,
    Variant::Vxlan,
    Variant::OursWithoutPortOwner,
];

/// Every case, in the order in which it is measured.
pub const CASES: &[Case] = &[
    small("rr64", round_trip::measure),
    small("udp64", datagrams::measure),
    small("connect", connects::measure),
    streams("stream_gso", Link::Gso, WITHOUT_CONTROL, stream::one),
    streams("stream4_gso", Link::Gso, WITHOUT_CONTROL, stream::four),
    streams("stream_wire", Link::Wire, WITH_CONTROL, stream::one),
    streams("stream4_wire", Link::Wire, WITH_CONTROL, stream::four),
];

/// Measured while the kernel takes the programs' times, which slows down everything else.
pub const PROGRAM_CASES: &[Case] = &[
    program_times("program_hit", programs::hit),
    program_times("program_miss", programs::miss),
];

const fn program_times(key: &'static str, load: fn(&Bed, Run) -> Result<Readings>) -> Case {
    Case {
        key,
        variants: &[Variant::Ours, Variant::Plain],
        rounds: ROUNDS,
        duration: SHORT,
        link: Link::Any,
        load,
    }
}

const fn small(key: &'static str, load: fn(&Bed, Run) -> Result<Readings>) -> Case {
    Case {
        key,
        variants: WITHOUT_CONTROL,
        rounds: MANY_ROUNDS,
        duration: SHORT,
        link: Link::Any,
        load,
    }
}

const fn streams(
    key: &'static str,
    link: Link,
    variants: &'static [Variant],
    load: fn(&Bed, Run) -> Result<Readings>,
) -> Case {
    Case {
        key,
        variants,
        rounds: ROUNDS,
        duration: LONG,
        link,
        load,
    }
}

/// A program's time less an empty program's at the same hook in the same round, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct ProgramTime {
    pub key: &'static str,
    pub case: &'static str,
    pub reading: &'static str,
    pub limit: Limit,
}

impl ProgramTime {
    const fn at_most(
        key: &'static str,
        case: &'static str,
        reading: &'static str,
        limit_ns: f64,
    ) -> Self {
        let limit = Limit::AtMost(limit_ns);
        Self {
            key,
            case,
            reading,
            limit,
        }
    }
}

/// Every figure that is a program's time.
#[rustfmt::skip]
pub const PROGRAM_TIMES: &[ProgramTime] = &[
    ProgramTime::at_most("pod_egress_hit_ns", "program_hit", "pod_egress_ns", 200.0),
    ProgramTime::at_most("underlay_ingress_hit_ns", "program_hit", "underlay_ingress_ns", 200.0),
    ProgramTime::at_most("pod_egress_miss_ns", "program_miss", "pod_egress_ns", 600.0),
    ProgramTime::at_most("underlay_ingress_miss_ns", "program_miss", "underlay_ingress_ns", 600.0),
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

impl Ratio {
    const fn ours(
        key: &'static str,
        case: &'static str,
        reading: &'static str,
        over: Variant,
    ) -> Self {
        Self {
            key,
            case,
            reading,
            of: Variant::Ours,
            over,
            limit: None,
        }
    }

    const fn at_most(mut self, limit: f64) -> Self {
        self.limit = Some(Limit::AtMost(limit));
        self
    }

    const fn at_least(mut self, limit: f64) -> Self {
        self.limit = Some(Limit::AtLeast(limit));
        self
    }

    const fn without_port_owner(mut self) -> Self {
        self.of = Variant::OursWithoutPortOwner;
        self
    }
}

use Variant::{Ours, Plain, PlainConntrack, Vxlan};

const RATE: &str = "received_per_second";
const CONNECTS: &str = "connects_per_second";
const BPS: &str = "received_bps";

/// Every figure that is a ratio.
#[rustfmt::skip]
pub const RATIOS: &[Ratio] = &[
    Ratio::ours("rr64_p50_ratio_vs_plain", "rr64", "p50_us", Plain).at_most(1.08),
    Ratio::ours("rr64_p50_ratio_vs_plain_conntrack", "rr64", "p50_us", PlainConntrack).at_most(0.95),
    Ratio::ours("rr64_p50_ratio_vs_vxlan", "rr64", "p50_us", Vxlan).at_most(0.93),
    Ratio::ours("rr64_p99_ratio_vs_plain", "rr64", "p99_us", Plain),
    Ratio::ours("rr64_p99_ratio_vs_plain_conntrack", "rr64", "p99_us", PlainConntrack),
    Ratio::ours("rr64_p99_ratio_vs_vxlan", "rr64", "p99_us", Vxlan),
    Ratio::ours("udp64_rate_ratio_vs_plain", "udp64", RATE, Plain),
    Ratio::ours("udp64_rate_ratio_vs_plain_conntrack", "udp64", RATE, PlainConntrack),
    Ratio::ours("udp64_rate_ratio_vs_vxlan", "udp64", RATE, Vxlan).at_least(1.15),
    Ratio::ours("connect_rate_ratio_vs_plain", "connect", CONNECTS, Plain),
    Ratio::ours("connect_rate_ratio_vs_plain_conntrack", "connect", CONNECTS, PlainConntrack),
    Ratio::ours("connect_rate_ratio_vs_vxlan", "connect", CONNECTS, Vxlan),
    Ratio::ours("stream_gso_ratio_vs_plain", "stream_gso", BPS, Plain).at_least(0.80),
    Ratio::ours("stream_gso_ratio_vs_plain_conntrack", "stream_gso", BPS, PlainConntrack),
    Ratio::ours("stream_gso_ratio_vs_vxlan", "stream_gso", BPS, Vxlan).at_least(1.15),
    Ratio::ours("stream4_gso_ratio_vs_plain", "stream4_gso", BPS, Plain),
    Ratio::ours("stream4_gso_ratio_vs_plain_conntrack", "stream4_gso", BPS, PlainConntrack),
    Ratio::ours("stream4_gso_ratio_vs_vxlan", "stream4_gso", BPS, Vxlan),
    Ratio::ours("stream_wire_ratio_vs_plain", "stream_wire", BPS, Plain),
    Ratio::ours("stream_wire_ratio_vs_vxlan", "stream_wire", BPS, Vxlan).at_least(1.0),
    Ratio::ours("stream_wire_ratio_without_port_owner", "stream_wire", BPS, Vxlan)
        .without_port_owner().at_most(0.8),
    Ratio::ours("stream_wire_ratio_without_port_owner_vs_ours", "stream_wire", BPS, Ours)
        .without_port_owner(),
    Ratio::ours("stream4_wire_ratio_vs_plain", "stream4_wire", BPS, Plain),
    Ratio::ours("stream4_wire_ratio_vs_vxlan", "stream4_wire", BPS, Vxlan),
    Ratio::ours("stream4_wire_ratio_without_port_owner", "stream4_wire", BPS, Vxlan)
        .without_port_owner(),
];
