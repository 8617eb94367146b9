//! Sent = received + counted: what became of packets, by cause.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Result;

use super::ledger::{Counted, counted_since, drops_everywhere};
use crate::lab::{KernelDrops, Lab};
use crate::probe::Drops;

/// Counts again what `machine/rt_cache/in_no_route` counts.
const COUNTED_TWICE: &str = "IpExt.InNoRoutes";

/// All counters at the moment when an account begins.
#[derive(Debug)]
pub struct Books<'l> {
    lab: &'l Lab,
    ours: Drops,
    kernel: KernelDrops,
}

/// What became of so many packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    pub sent: u64,
    pub received: u64,
    /// Dropped by our programs.
    pub ours: Counted,
    /// Dropped by devices, queues, stacks.
    pub kernel: BTreeMap<String, u64>,
}

impl<'l> Books<'l> {
    /// # Errors  when a counter cannot be read.
    pub fn open(lab: &'l Lab) -> Result<Self> {
        Ok(Self {
            lab,
            ours: drops_everywhere(lab)?,
            kernel: lab.kernel_drops()?,
        })
    }

    /// What all counters have added since.
    /// # Errors  when a counter cannot be read.
    pub fn account(&self, sent: u64, received: u64) -> Result<Account> {
        let mut kernel = self.lab.kernel_drops()?.since(&self.kernel).counters;
        kernel.retain(|place, _| !place.ends_with(COUNTED_TWICE));
        Ok(Account {
            sent,
            received,
            ours: counted_since(self.lab, &self.ours)?,
            kernel,
        })
    }
}

impl Account {
    /// Packets that no counter knows.
    pub fn unaccounted(&self) -> u64 {
        self.sent.saturating_sub(self.received + self.explained())
    }

    /// Packets that somebody counted and nobody sent. Machine-wide counters also count what others on
    /// this machine lose.
    pub fn surplus(&self) -> u64 {
        let of_the_machine: u64 = self
            .kernel
            .iter()
            .filter_map(|(place, count)| place.starts_with("machine/").then_some(*count))
            .sum();
        let here = self.received + self.explained() - of_the_machine;
        here.saturating_sub(self.sent)
    }

    fn explained(&self) -> u64 {
        let ours: u64 = self.ours.values().sum();
        ours + self.kernel.values().sum::<u64>()
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
        for ((_, _, reason), count) in &self.ours {
            *reasons.entry(reason).or_default() += count;
        }
        write!(
            f,
            "{} sent = {} received + dropped by us {reasons:?} + by the kernel {:?} \
             + {} unaccounted (surplus {})",
            self.sent,
            self.received,
            self.kernel,
            self.unaccounted(),
            self.surplus()
        )
    }
}
