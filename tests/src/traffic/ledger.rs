//! Which numbered packets arrived: lost, duplicate and reordered ones.

use serde::{Deserialize, Serialize};

/// A run of consecutive packets that never arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    pub first: u64,
    pub count: u64,
}

/// Remembers every sequence number that arrived.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// One bit per number.
    seen: Vec<u64>,
    highest: Option<u64>,
    unique: u64,
    duplicates: u64,
    reordered: u64,
}

impl Ledger {
    /// Notes one arrival.
    pub fn arrived(&mut self, sequence: u64) {
        let (word, bit) = ((sequence / 64) as usize, 1 << (sequence % 64));
        if word >= self.seen.len() {
            self.seen.resize(word + 1, 0);
        }
        if self.seen[word] & bit != 0 {
            self.duplicates += 1;
            return;
        }
        self.seen[word] |= bit;
        self.unique += 1;
        if self.highest.is_some_and(|highest| sequence < highest) {
            self.reordered += 1;
        } else {
            self.highest = Some(sequence);
        }
    }

    /// Numbers that arrived at least once.
    pub fn unique(&self) -> u64 {
        self.unique
    }

    /// Arrivals of a number that had arrived before.
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// First arrivals that came after a higher number.
    pub fn reordered(&self) -> u64 {
        self.reordered
    }

    /// The first `at_most` gaps among the numbers below `sent`.
    pub fn gaps(&self, sent: u64, at_most: usize) -> Vec<Gap> {
        let mut gaps: Vec<Gap> = Vec::new();
        for sequence in (0..sent).filter(|sequence| !self.has(*sequence)) {
            let full = gaps.len() == at_most;
            match gaps.last_mut() {
                Some(gap) if gap.first + gap.count == sequence => gap.count += 1,
                _ if full => break,
                _ => gaps.push(Gap {
                    first: sequence,
                    count: 1,
                }),
            }
        }
        gaps
    }

    fn has(&self, sequence: u64) -> bool {
        let word = self
            .seen
            .get((sequence / 64) as usize)
            .copied()
            .unwrap_or(0);
        word & (1 << (sequence % 64)) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger_of(arrivals: &[u64]) -> Ledger {
        let mut ledger = Ledger::default();
        arrivals
            .iter()
            .for_each(|sequence| ledger.arrived(*sequence));
        ledger
    }

    fn counts(ledger: &Ledger) -> (u64, u64, u64) {
        (ledger.unique(), ledger.duplicates(), ledger.reordered())
    }

    #[test]
    fn packets_in_order_have_no_gap() {
        let ledger = ledger_of(&[0, 1, 2, 3]);
        assert_eq!(counts(&ledger), (4, 0, 0));
        assert_eq!(ledger.gaps(4, 10), []);
    }

    #[test]
    fn lost_packets_are_gaps_also_at_both_ends() {
        let ledger = ledger_of(&[1, 2, 5]);
        let gap = |first, count| Gap { first, count };
        assert_eq!(ledger.gaps(200, 10), [gap(0, 1), gap(3, 2), gap(6, 194)]);
        assert_eq!(ledger.gaps(200, 1), [gap(0, 1)]);
    }

    #[test]
    fn a_late_packet_is_reordered_and_not_lost() {
        let ledger = ledger_of(&[0, 2, 1, 3]);
        assert_eq!(counts(&ledger), (4, 0, 1));
        assert_eq!(ledger.gaps(4, 10), []);
    }

    #[test]
    fn a_repeated_packet_is_a_duplicate_and_does_not_hide_a_loss() {
        let ledger = ledger_of(&[0, 1, 1]);
        assert_eq!(counts(&ledger), (2, 1, 0));
        assert_eq!(ledger.gaps(3, 10), [Gap { first: 2, count: 1 }]);
    }
}
