//! A mismatch cut down to what it takes.

use anyhow::Result;

use super::campaign::{Campaign, Mismatch};
use super::input::Input;
use super::kernel::bytes_min;

/// Each try reads all maps twice.
const TRIES_MAX: usize = 1500;

/// Leaves out packets, then bytes, then writes zeros, while any mismatch remains.
/// # Errors  when the kernel does not run a packet at all.
pub(super) fn minimize(campaign: &mut Campaign, mismatch: Mismatch) -> Result<Mismatch> {
    let mut search = Search {
        campaign,
        best: mismatch,
        tries: 0,
    };
    search.leave_out_packets()?;
    search.cut_tails()?;
    search.write_zeros()?;
    Ok(search.best)
}

struct Search<'c, 'w> {
    campaign: &'c mut Campaign<'w>,
    best: Mismatch,
    tries: usize,
}

impl Search<'_, '_> {
    /// Takes these packets instead, if they differ too.
    fn takes(&mut self, inputs: Vec<Input>) -> Result<bool> {
        self.tries += 1;
        let is_packet = |input: &Input| input.frame.len() >= bytes_min(&input.frame);
        if self.tries > TRIES_MAX || inputs.is_empty() || !inputs.iter().all(is_packet) {
            return Ok(false);
        }
        let found = self.campaign.check(&inputs)?;
        if let Some(mismatch) = found {
            self.best = mismatch;
            return Ok(true);
        }
        Ok(false)
    }

    fn leave_out_packets(&mut self) -> Result<()> {
        let last = self.best.inputs[self.best.inputs.len() - 1..].to_vec();
        if self.takes(last)? {
            return Ok(());
        }
        let mut step = self.best.inputs.len() / 2;
        while step > 0 {
            let mut at = 0;
            while at < self.best.inputs.len() {
                let mut fewer = self.best.inputs.clone();
                drop(fewer.drain(at..(at + step).min(fewer.len())));
                if !self.takes(fewer)? {
                    at += step;
                }
            }
            step /= 2;
        }
        Ok(())
    }

    fn cut_tails(&mut self) -> Result<()> {
        for number in 0..self.best.inputs.len() {
            let mut step = 1024;
            while step > 0 && number < self.best.inputs.len() {
                let mut shorter = self.best.inputs.clone();
                let frame = &mut shorter[number].frame;
                frame.truncate(frame.len().saturating_sub(step));
                if !self.takes(shorter)? {
                    step /= 2;
                }
            }
        }
        Ok(())
    }

    fn write_zeros(&mut self) -> Result<()> {
        for number in 0..self.best.inputs.len() {
            let mut at = 0;
            while number < self.best.inputs.len() && at < self.best.inputs[number].frame.len() {
                if self.best.inputs[number].frame[at] != 0 {
                    let mut simpler = self.best.inputs.clone();
                    simpler[number].frame[at] = 0;
                    self.takes(simpler)?;
                }
                at += 1;
            }
        }
        Ok(())
    }
}
