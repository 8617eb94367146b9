//! How bad the world of a simulation is, and chance in it.

use super::{MS, SECOND};

/// A series of numbers that a seed decides.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// `0..below`
    pub(crate) fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % below
    }

    pub(crate) fn hits(&mut self, percent: u64) -> bool {
        self.roll(100) < percent
    }
}

/// What is done wrong, to see that it is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// The lender answers first and writes its kernel when it looks again.
    AnswersFirst,
    /// The borrower counts from when the answer comes.
    CountsFromTheAnswer,
    /// A new agent takes nothing for lent.
    ForgetsWhatIsLent,
    /// The borrower goes by whichever answer comes last.
    GoesByOldAnswers,
    /// The lender takes the borrower's word for an answer that it may not have.
    TakesAnswersForGiven,
}

/// How bad the world is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct World {
    pub(crate) nodes: usize,
    pub(crate) lost_percent: u64,
    pub(crate) twice_percent: u64,
    pub(crate) delay_ns_max: u64,
    /// That an agent dies at a tick of its own; it comes back within some seconds.
    pub(crate) dies_percent: u64,
    /// That the kernel refuses a write.
    pub(crate) refuses_percent: u64,
    pub(crate) demand_changes: bool,
    pub(crate) fault: Fault,
}

impl World {
    pub(crate) fn calm(nodes: usize) -> Self {
        Self {
            nodes,
            lost_percent: 0,
            twice_percent: 0,
            delay_ns_max: MS,
            dies_percent: 0,
            refuses_percent: 0,
            demand_changes: false,
            fault: Fault::None,
        }
    }

    pub(crate) fn hostile(nodes: usize, fault: Fault) -> Self {
        Self {
            lost_percent: 15,
            twice_percent: 10,
            delay_ns_max: 5 * SECOND,
            dies_percent: 5,
            refuses_percent: 5,
            demand_changes: true,
            fault,
            ..Self::calm(nodes)
        }
    }
}
