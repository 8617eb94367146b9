//! What `demo` and `bench` are asked. `xtask` reads this file too, so that it refuses what is mistyped before it builds
//! for minutes.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};

/// Arguments of `slice-lab demo`.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// Write the figures to this file
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Leave the lab up at the end
    #[arg(long)]
    pub keep: bool,
    /// Seconds to wait for another lab on this machine to go down
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub wait: u64,
    /// The agent to run on every node; looked for beside this program if absent
    #[arg(long)]
    pub agent: Option<PathBuf>,
    /// Where Kafka is fetched to; `kafka` beside the folder of this program if absent
    #[arg(long)]
    pub kafka_dir: Option<PathBuf>,
}

/// Arguments of `slice-lab bench`.
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    #[command(subcommand)]
    pub what: Bench,
}

#[derive(Subcommand, Clone, Debug)]
pub enum Bench {
    /// The way of a packet: round trips, rates and streams, each as a ratio to the kernel's own ways
    Path(PathArgs),
    /// Gateways that die and links that are cut: how long traffic is away
    Failover(FailoverArgs),
    /// The shaper: what it adds to a packet, on one processor and on two
    Shaper(ShaperArgs),
    /// What classes of a slice are promised on a paid link, and what it costs those who wait for answers
    Qos(QosArgs),
}

/// The cases of `bench path`, in the order in which they are measured.
pub const CASES: [&str; 9] = [
    "rr64",
    "udp64",
    "connect",
    "stream_gso",
    "stream4_gso",
    "stream_wire",
    "stream4_wire",
    "program_hit",
    "program_miss",
];

/// The scenarios of `bench failover`.
pub const SCENARIOS: [&str; 7] = [
    "gateway_dies",
    "gateway_dies_without_agents",
    "link_cut",
    "link_cut_without_agents",
    "gateway_cut_off",
    "link_cut_forth",
    "link_cut_back",
];

/// Arguments of `slice-lab bench path`.
#[derive(Args, Clone, Debug, Default)]
pub struct PathArgs {
    /// Write figures and raw rounds to this file, and pictures beside it
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Rounds of every case; each case has its own number if absent
    #[arg(long)]
    pub rounds: Option<u32>,
    /// Only these cases; everything else is not measured, and not judged
    #[arg(long, value_name = "CASE", value_parser = PossibleValuesParser::new(CASES))]
    pub only: Vec<String>,
    /// The CPU that carries everything; the last one if absent
    #[arg(long)]
    pub cpu: Option<usize>,
    /// How long to wait for another bench on this machine to end
    #[arg(skip)]
    pub wait: Duration,
    /// The agent that sets our nodes up; looked for beside this program if absent
    #[arg(long)]
    pub agent: Option<PathBuf>,
}

/// Arguments of `slice-lab bench failover`.
#[derive(Args, Clone, Debug, Default)]
pub struct FailoverArgs {
    /// Write figures and every cut to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Cuts of every scenario
    #[arg(long, default_value_t = 20)]
    pub cuts: usize,
    /// Play only this scenario
    #[arg(long, value_parser = PossibleValuesParser::new(SCENARIOS))]
    pub scenario: Option<String>,
    /// How long to wait for another bench on this machine to end
    #[arg(skip)]
    pub wait: Duration,
    /// The agent of every node; looked for beside this program if absent
    #[arg(long)]
    pub agent: Option<PathBuf>,
}

/// Arguments of `slice-lab bench shaper`.
#[derive(Args, Clone, Debug)]
pub struct ShaperArgs {
    /// Write figures and every round to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Rounds of all cases
    #[arg(long, default_value_t = 40)]
    pub rounds: usize,
}

/// What streams of `bench qos` may find their rate by.
pub const CONGESTION_CONTROLS: [&str; 2] = ["cubic", "bbr"];

/// What keeps packets to their time in `bench qos`.
pub const BACKENDS: [&str; 3] = ["edt", "htb", "vq"];

/// Arguments of `slice-lab bench qos`.
#[derive(Args, Clone, Debug)]
pub struct QosArgs {
    /// Write figures to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Seconds that each scenario is measured for
    #[arg(long, default_value_t = 8)]
    pub seconds: u64,
    /// By what streams find their rate
    #[arg(long, default_value = CONGESTION_CONTROLS[0], value_parser = PossibleValuesParser::new(CONGESTION_CONTROLS))]
    pub congestion_control: String,
    /// Play only what gives every figure once
    #[arg(long)]
    pub short: bool,
    /// Vary the base row too: two slices, two nodes, 80 ms, BBR, 1 % loss, each alone; and how long after each other
    /// loads begin
    #[arg(long, conflicts_with = "short")]
    pub full: bool,
    /// Measure `edt` in a virtual machine even if this host's kernel has `fq`
    #[arg(long)]
    pub guest: bool,
    /// What was measured in a virtual machine, as xtask writes it
    #[arg(long, value_name = "FILE", hide = true)]
    pub guest_figures: Option<PathBuf>,
    /// What is to keep packets to their time; if absent, each in turn that this host has
    #[arg(long, value_parser = PossibleValuesParser::new(BACKENDS))]
    pub backend: Option<String>,
    /// How long to wait for another lab on this machine to go down
    #[arg(skip)]
    pub wait: Duration,
    /// The agent of every node; looked for beside this program if absent
    #[arg(long)]
    pub agent: Option<PathBuf>,
}
