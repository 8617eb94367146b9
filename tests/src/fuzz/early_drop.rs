//! `underlay_filter` only saves work: whatever it drops, `underlay_ingress` drops for the same reason. No
//! model is asked here, the two programs are compared with each other.

use anyhow::{Result, bail, ensure};

use super::campaign::{BATCH, Campaign};
use super::corpus;
use super::generate::{Cast, Generator};
use super::input::Input;
use super::kernel;
use crate::packet::describe;
use crate::testrun::exchange::DROP;
use crate::testrun::{Program, World};

impl Campaign<'_> {
    /// Runs `packets` random tunnel packets through `underlay_filter`, and those that it drops through
    /// `underlay_ingress`. Returns how many that were.
    /// # Errors  the first packet that the two end differently, or that the kernel does not run at all.
    pub fn compare_filter_with_ingress(&mut self, packets: u64, seed: u64) -> Result<u64> {
        let mut generator = Generator::new(seed, Cast::of_test_runs(&self.tables));
        let (mut left, mut dropped) = (packets, 0);
        while left > 0 {
            let count = left.min(BATCH as u64);
            left -= count;
            let batch: Vec<Input> = (0..count)
                .flat_map(|_| generator.next(Program::UnderlayIngress))
                .filter(|input| input.program == Program::UnderlayIngress)
                .collect();
            // Many flows are known then, and what belongs to them is judged the shorter way.
            for input in &batch {
                kernel::run(self.world, input)?;
            }
            match dropped_alike(self.world, &batch)? {
                Some(count) => dropped += count,
                None => return first_that_differs(self.world, &batch),
            }
        }
        Ok(dropped)
    }
}

fn first_that_differs(world: &World, batch: &[Input]) -> Result<u64> {
    for input in batch {
        ensure!(
            dropped_alike(world, std::slice::from_ref(input))?.is_some(),
            "underlay_ingress does not drop this for the same reason:\n{}\n{}",
            corpus::line(input),
            describe(&input.frame)
        );
    }
    bail!("a batch of packets was dropped for different reasons, once only")
}

/// How many of the packets the filter drops; nothing if the other program does not drop all of those,
/// counts them differently, or changes anything else.
fn dropped_alike(world: &World, inputs: &[Input]) -> Result<Option<u64>> {
    let (before, _) = kernel::state(world)?;
    let mut dropped = Vec::new();
    for input in inputs {
        let early = Input {
            program: Program::UnderlayFilter,
            ..input.clone()
        };
        if kernel::run(world, &early)?.code == DROP {
            dropped.push(input);
        }
    }
    let (between, _) = kernel::state(world)?;
    let mut all = true;
    for input in &dropped {
        all &= kernel::run(world, input)?.code == DROP;
    }
    let (after, _) = kernel::state(world)?;
    let alike = all && before.change_to(&between) == between.change_to(&after);
    Ok(alike.then_some(dropped.len() as u64))
}
