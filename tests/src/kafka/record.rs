//! The records that the clients write, and what became of them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Run id, sequence number and checksum.
const FIXED_BYTES: usize = 8 + 8 + 4;

/// A record's identity, and the bytes that prove it arrived whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordId {
    pub(super) run: u64,
    pub(super) sequence: u64,
}

impl RecordId {
    /// The record's value of `size_bytes` (at least 20): ids, filler, CRC-32C of all before it.
    pub(super) fn encode(self, size_bytes: usize) -> Vec<u8> {
        let filler = size_bytes.max(FIXED_BYTES) - FIXED_BYTES;
        let mut value = Vec::with_capacity(filler + FIXED_BYTES);
        value.extend(self.run.to_be_bytes());
        value.extend(self.sequence.to_be_bytes());
        // Differs from record to record, so that mixed-up payloads do not look right.
        value.extend((0..filler).map(|index| (self.sequence as u8).wrapping_add(index as u8)));
        let checksum = crc32c::crc32c(&value);
        value.extend(checksum.to_be_bytes());
        value
    }

    /// `None` if the value is too short or its checksum is wrong.
    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let (body, checksum) = value.split_last_chunk::<4>()?;
        if crc32c::crc32c(body) != u32::from_be_bytes(*checksum) {
            return None;
        }
        let (run, rest) = body.split_first_chunk::<8>()?;
        let sequence = rest.first_chunk::<8>()?;
        Some(Self {
            run: u64::from_be_bytes(*run),
            sequence: u64::from_be_bytes(*sequence),
        })
    }
}

/// A set of sequence numbers, kept as disjoint closed ranges in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceSet(Vec<(u64, u64)>);

impl SequenceSet {
    /// False if the number was in the set before.
    pub fn insert(&mut self, number: u64) -> bool {
        let next = self.0.partition_point(|&(first, _)| first <= number);
        if next > 0 && self.0[next - 1].1 >= number {
            return false;
        }
        let joins_left = next > 0 && self.0[next - 1].1 + 1 == number;
        let joins_right = self
            .0
            .get(next)
            .is_some_and(|&(first, _)| first == number + 1);
        match (joins_left, joins_right) {
            (true, true) => {
                self.0[next - 1].1 = self.0[next].1;
                self.0.remove(next);
            }
            (true, false) => self.0[next - 1].1 = number,
            (false, true) => self.0[next].0 = number,
            (false, false) => self.0.insert(next, (number, number)),
        }
        true
    }

    pub fn contains(&self, number: u64) -> bool {
        let next = self.0.partition_point(|&(first, _)| first <= number);
        next > 0 && self.0[next - 1].1 >= number
    }

    pub fn len(&self) -> u64 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().flat_map(|&(first, last)| first..=last)
    }
}

/// What one run's consumer saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    pub received: SequenceSet,
    /// Records that came again: a retry whose first attempt had been stored after all.
    pub duplicates: u64,
    /// Records whose checksum or form is wrong.
    pub corrupt: u64,
    /// Records of another run.
    pub foreign: u64,
}

impl Tally {
    pub(super) fn add(&mut self, run: u64, value: Option<&[u8]>) {
        match value.and_then(RecordId::decode) {
            None => self.corrupt += 1,
            Some(id) if id.run != run => self.foreign += 1,
            Some(id) => {
                if !self.received.insert(id.sequence) {
                    self.duplicates += 1;
                }
            }
        }
    }
}

/// What became of every record that the cluster acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    pub acked: u64,
    /// Acknowledged but not read: must be 0.
    pub lost: u64,
    /// The first few lost sequence numbers.
    pub lost_examples: Vec<u64>,
    /// Read but never acknowledged: allowed, the acknowledgement was lost.
    pub unacked_received: u64,
    pub duplicates: u64,
    pub corrupt: u64,
    pub foreign: u64,
}

impl Delivery {
    /// True if every acknowledged record arrived whole and nothing else was read.
    pub fn is_whole(&self) -> bool {
        self.lost == 0 && self.corrupt == 0 && self.foreign == 0
    }
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} records acknowledged, {} lost, {} duplicate, {} corrupt",
            self.acked, self.lost, self.duplicates, self.corrupt
        )
    }
}

/// Holds the acknowledged numbers against what the consumer read.
pub fn compare(acked: &SequenceSet, tally: &Tally) -> Delivery {
    const EXAMPLES: usize = 10;
    let lost: Vec<u64> = acked
        .iter()
        .filter(|number| !tally.received.contains(*number))
        .collect();
    let unacked = tally
        .received
        .iter()
        .filter(|number| !acked.contains(*number))
        .count();
    Delivery {
        acked: acked.len(),
        lost: lost.len() as u64,
        lost_examples: lost.into_iter().take(EXAMPLES).collect(),
        unacked_received: unacked as u64,
        duplicates: tally.duplicates,
        corrupt: tally.corrupt,
        foreign: tally.foreign,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: u64 = 42;

    fn value(sequence: u64) -> Vec<u8> {
        RecordId { run: RUN, sequence }.encode(100)
    }

    fn tally_of(values: &[Vec<u8>]) -> Tally {
        let mut tally = Tally::default();
        for value in values {
            tally.add(RUN, Some(value));
        }
        tally
    }

    fn acked(numbers: impl IntoIterator<Item = u64>) -> SequenceSet {
        let mut set = SequenceSet::default();
        for number in numbers {
            set.insert(number);
        }
        set
    }

    #[test]
    fn a_whole_run_is_whole() {
        let values: Vec<_> = (0..5).map(value).collect();
        let delivery = compare(&acked(0..5), &tally_of(&values));
        assert!(delivery.is_whole());
        assert_eq!(
            delivery.to_string(),
            "5 records acknowledged, 0 lost, 0 duplicate, 0 corrupt"
        );
    }

    #[test]
    fn a_missing_record_is_lost_and_named() {
        let values: Vec<_> = [0, 1, 3].map(value).to_vec();
        let delivery = compare(&acked(0..4), &tally_of(&values));
        assert_eq!(
            (delivery.lost, delivery.lost_examples.as_slice()),
            (1, [2].as_slice())
        );
        assert!(!delivery.is_whole());
    }

    #[test]
    fn a_flipped_bit_anywhere_is_corrupt() {
        for index in [0, 9, 50, 99] {
            let mut broken = value(7);
            broken[index] ^= 1;
            let tally = tally_of(&[broken]);
            assert_eq!(
                (tally.corrupt, tally.received.len()),
                (1, 0),
                "byte {index}"
            );
        }
        let mut tally = Tally::default();
        tally.add(RUN, None);
        tally.add(RUN, Some(b"short"));
        assert_eq!(tally.corrupt, 2);
    }

    #[test]
    fn a_record_that_comes_twice_is_a_duplicate_and_no_loss() {
        let delivery = compare(&acked(0..2), &tally_of(&[value(0), value(1), value(1)]));
        assert_eq!((delivery.duplicates, delivery.lost), (1, 0));
        assert!(delivery.is_whole());
    }

    #[test]
    fn a_record_of_another_run_is_foreign() {
        let mut tally = tally_of(&[value(0)]);
        tally.add(
            RUN,
            Some(
                &RecordId {
                    run: 1,
                    sequence: 1,
                }
                .encode(100),
            ),
        );
        let delivery = compare(&acked(0..1), &tally);
        assert_eq!(delivery.foreign, 1);
        assert!(!delivery.is_whole());
    }

    #[test]
    fn a_stored_record_without_acknowledgement_is_counted_apart() {
        let delivery = compare(&acked(0..1), &tally_of(&[value(0), value(1)]));
        assert_eq!((delivery.unacked_received, delivery.lost), (1, 0));
    }

    #[test]
    fn sequence_sets_join_ranges_in_any_order_of_insertion() {
        let mut set = SequenceSet::default();
        for number in [5, 3, 4, 9, 0, 1, 2] {
            assert!(set.insert(number), "{number} is new");
            assert!(!set.insert(number), "{number} was there");
        }
        assert_eq!(set, SequenceSet(vec![(0, 5), (9, 9)]));
        assert_eq!(set.len(), 7);
        assert!(set.contains(0) && set.contains(9) && !set.contains(6) && !set.contains(10));
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 9]);
    }
}
