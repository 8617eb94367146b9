//! The lab's command line.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use slice_tests::arguments::{BenchArgs, DemoArgs};
use slice_tests::fuzz::FuzzArgs;
use slice_tests::guard::watch_over;
use slice_tests::kafka::{ConsumeArgs, ProduceArgs};
use slice_tests::lab::Lab;
use slice_tests::lab::command::{self, DegradeArgs, ExecArgs, UpArgs};
use slice_tests::relay::{self, RelayArgs};
use slice_tests::{bench, demo};

/// Runs the lab and its workloads.
#[derive(Parser)]
enum SliceLab {
    /// Bring the lab up
    Up(UpArgs),
    /// Show what runs in the lab
    Status,
    /// Run a command in a pod or on a node
    Exec(ExecArgs),
    /// Change the WAN of a lab that is up
    Degrade(DegradeArgs),
    /// Remove the lab, also what a killed run left of one
    Down,
    /// Play the demo: three clusters and a real Kafka stretched over them
    Demo(DemoArgs),
    /// Measure the data path against the kernel's own ways
    Bench(BenchArgs),
    /// Run random and mutated packets through the kernel programs
    Fuzz(FuzzArgs),
    /// Carry packets between the clusters (started by `up --wan relay`)
    Relay(RelayArgs),
    /// Write checked records to Kafka
    KafkaProduce(ProduceArgs),
    /// Read and check records from Kafka
    KafkaConsume(ConsumeArgs),
}

fn main() -> ExitCode {
    match run(SliceLab::parse()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("slice-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: SliceLab) -> Result<u8> {
    match command {
        SliceLab::Up(args) => watch_over(|| args.run(), Lab::remove_own),
        SliceLab::Status => command::status(),
        SliceLab::Exec(args) => args.run(),
        SliceLab::Degrade(args) => args.run(),
        SliceLab::Down => watch_over(command::down, Lab::remove_own),
        SliceLab::Demo(args) => watch_over(|| demo::run(&args), Lab::remove_own),
        SliceLab::Bench(args) => bench::run(&args),
        SliceLab::Fuzz(args) => args.run(),
        SliceLab::Relay(args) => done(relay::run(&args)),
        SliceLab::KafkaProduce(args) => done(args.run()),
        SliceLab::KafkaConsume(args) => done(args.run()),
    }
}

fn done(result: Result<()>) -> Result<u8> {
    result.map(|()| 0)
}
