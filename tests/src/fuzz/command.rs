//! `slice-lab fuzz`: as many packets as one has time for.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;

use super::campaign::Campaign;
use super::corpus::{self, PROGRAMS};
use crate::harness::object_file;
use crate::testrun::{Program, World, in_own_network};

/// A seed for so many.
const PACKETS_PER_SEED: u64 = 1_000_000;

/// How many packets, and which.
#[derive(Args)]
pub struct FuzzArgs {
    /// Packets for each program
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    packets: u64,
    /// The same seed makes the same packets; each further million has the next seed, so a run that was
    /// ended goes on from the last one that it named
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only this program
    #[arg(long, value_parser = program_of_name)]
    program: Option<Program>,
    /// Where cases are read from, and a mismatch is kept
    #[arg(long, value_name = "DIR", default_value_os_t = corpus::folder())]
    corpus: PathBuf,
}

impl FuzzArgs {
    /// Replays the corpus, then runs random packets. Ends with 1 after the first mismatch.
    /// # Errors  when the object cannot be loaded, or the kernel does not run a packet at all.
    pub fn run(&self) -> Result<u8> {
        let file = object_file();
        let object = std::fs::read(&file)
            .with_context(|| format!("cannot read the object {}", file.display()))?;
        in_own_network(|| self.run_in(&mut World::new(&object)?))
    }

    fn run_in(&self, world: &mut World) -> Result<u8> {
        let mut campaign = Campaign::new(world, |_| {})?;
        for (name, inputs) in corpus::read(&self.corpus)? {
            if let Some(mismatch) = campaign.check(&inputs)? {
                println!("{name}:\n{mismatch}");
                return Ok(1);
            }
        }
        for program in PROGRAMS {
            if self.program.is_some_and(|only| only != program) {
                continue;
            }
            if !self.run_program(&mut campaign, program)? {
                return Ok(1);
            }
        }
        print!("{}", campaign.coverage().describe());
        Ok(0)
    }

    fn run_program(&self, campaign: &mut Campaign, program: Program) -> Result<bool> {
        let (mut left, mut seed, name) = (self.packets, self.seed, program.name());
        let started = Instant::now();
        while left > 0 {
            let packets = left.min(PACKETS_PER_SEED);
            if let Some(mismatch) = campaign.run(program, packets, seed)? {
                let kept = corpus::keep(&self.corpus, &format!("{name}-{seed}"), &mismatch)?;
                println!("{name}, seed {seed}:\n{mismatch}kept as {}", kept.display());
                return Ok(false);
            }
            left -= packets;
            let (done, seconds) = (self.packets - left, started.elapsed().as_secs_f64());
            eprintln!(
                "{name}: {done} of {} packets in {seconds:.0} s, seed {seed}",
                self.packets
            );
            seed += 1;
        }
        let seconds = started.elapsed().as_secs_f64();
        let (packets, last) = (self.packets, seed - 1);
        println!(
            "{name}: {packets} packets of seeds {} to {last} in {seconds:.1} s, no mismatch",
            self.seed
        );
        Ok(true)
    }
}

fn program_of_name(name: &str) -> Result<Program, String> {
    let named = |program: &Program| program.name() == name;
    PROGRAMS.into_iter().find(named).ok_or_else(|| {
        let known = PROGRAMS.map(Program::name).join(", ");
        format!("the programs are {known}")
    })
}
