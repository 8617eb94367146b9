//! How much slices and their classes used of what they may send, over the last sample interval.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use slice_common::id::TrafficClass;
use slice_common::layout::{ShaperCounts, ShaperKey, ShaperTerms};

use super::rates::{bytes_per_second, ceiling_bytes_per_second, classes};

/// Ratios are kept in whole parts of this.
pub const PARTS: u64 = 1_000_000;

/// What had been counted for the classes in force, at one moment.
#[derive(Clone, Debug)]
pub struct Sample {
    pub at: Instant,
    /// The terms that were in force.
    pub rates: BTreeMap<ShaperKey, ShaperTerms>,
    /// By the places of the classes' clocks.
    pub counts: BTreeMap<u32, ShaperCounts>,
}

/// What was used between two samples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub interval: Duration,
    pub slices: BTreeMap<ShaperKey, SliceUsage>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceUsage {
    pub sent: Used,
    /// By number; those that are configured, and the default one.
    pub classes: BTreeMap<u8, ClassUsage>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassUsage {
    /// Of the guarantee; more than all of it where the class borrows.
    pub sent: Used,
    /// Of the packets that left, those whose sender's socket still knew of them, in [`PARTS`]; `None` where
    /// none left.
    pub with_socket: Option<u64>,
}

/// A rate, and what there is of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    pub bytes_per_second: u64,
    pub of_bytes_per_second: u64,
}

impl Used {
    /// In [`PARTS`]; `None` of nothing.
    pub fn ratio(self) -> Option<u64> {
        parts(
            self.bytes_per_second.into(),
            self.of_bytes_per_second.into(),
        )
    }
}

/// What was used from `before` to `after`: of uplinks and slices whose terms stayed as they are. Where terms
/// were changed meanwhile, what was sent would be compared with what was not in force.
pub fn between(before: &Sample, after: &Sample) -> Usage {
    let interval = after.at.saturating_duration_since(before.at);
    let stayed = after
        .rates
        .iter()
        .filter(|(key, terms)| before.rates.get(key) == Some(terms));
    let used = stayed.filter_map(|(key, terms)| {
        let usage = of_slice(terms, &before.counts, &after.counts, interval)?;
        Some((*key, usage))
    });
    Usage {
        interval,
        slices: used.collect(),
    }
}

/// `None` where something was not counted at both moments, or less than before: then it was begun anew.
fn of_slice(
    terms: &ShaperTerms,
    before: &BTreeMap<u32, ShaperCounts>,
    after: &BTreeMap<u32, ShaperCounts>,
    interval: Duration,
) -> Option<SliceUsage> {
    let mut of_classes = BTreeMap::new();
    let mut bytes = 0u64;
    for (class, place) in classes(terms) {
        let left = |counts: &BTreeMap<u32, ShaperCounts>| Some(Left::of(counts.get(&place)?));
        let left = left(after)?.since(left(before)?)?;
        bytes = bytes.saturating_add(left.bytes);
        of_classes.insert(class.number(), of_class(terms, class, left, interval)?);
    }
    Some(SliceUsage {
        sent: Used {
            bytes_per_second: per_second(bytes, interval)?,
            of_bytes_per_second: ceiling_bytes_per_second(terms),
        },
        classes: of_classes,
    })
}

fn of_class(
    terms: &ShaperTerms,
    class: TrafficClass,
    left: Left,
    interval: Duration,
) -> Option<ClassUsage> {
    let guarantee = terms.classes[usize::from(class.number())].terms().guarantee;
    Some(ClassUsage {
        sent: Used {
            bytes_per_second: per_second(left.bytes, interval)?,
            of_bytes_per_second: bytes_per_second(guarantee),
        },
        with_socket: parts(left.with_socket.into(), left.packets.into()),
    })
}

/// What of a class left the node; not what was dropped.
#[derive(Clone, Copy)]
struct Left {
    packets: u64,
    bytes: u64,
    with_socket: u64,
}

impl Left {
    fn of(counts: &ShaperCounts) -> Self {
        let modes = [counts.guaranteed, counts.borrowed, counts.lane];
        let sum = |of: fn(&slice_common::layout::Counter) -> u64| {
            modes.iter().map(of).fold(0, u64::wrapping_add)
        };
        Self {
            packets: sum(|counter| counter.packets),
            bytes: sum(|counter| counter.bytes),
            with_socket: counts.with_socket,
        }
    }

    fn since(self, before: Self) -> Option<Self> {
        Some(Self {
            packets: self.packets.checked_sub(before.packets)?,
            bytes: self.bytes.checked_sub(before.bytes)?,
            with_socket: self.with_socket.checked_sub(before.with_socket)?,
        })
    }
}

fn per_second(count: u64, interval: Duration) -> Option<u64> {
    let per_second = (u128::from(count) * 1_000_000_000).checked_div(interval.as_nanos())?;
    u64::try_from(per_second).ok()
}

fn parts(some: u128, all: u128) -> Option<u64> {
    let parts = (some * u128::from(PARTS)).checked_div(all)?;
    u64::try_from(parts).ok()
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use slice_common::layout::Counter;

    use super::*;
    use crate::metrics::rates::tests::terms;

    pub(in crate::metrics) const KEY: ShaperKey = ShaperKey {
        ifindex: 2,
        slice: 7,
    };
    /// Of the default class and of class 2, in [`terms`].
    const PLACES: [u32; 2] = [24, 26];

    fn counted(packets: u64, bytes: u64) -> Counter {
        Counter { packets, bytes }
    }

    fn sample(at: Instant, of_default: ShaperCounts, of_second: ShaperCounts) -> Sample {
        Sample {
            at,
            rates: BTreeMap::from([(KEY, terms())]),
            counts: BTreeMap::from([(PLACES[0], of_default), (PLACES[1], of_second)]),
        }
    }

    fn nothing() -> ShaperCounts {
        ShaperCounts {
            guaranteed: counted(0, 0),
            borrowed: counted(0, 0),
            lane: counted(0, 0),
            over_horizon: counted(0, 0),
            marked: 0,
            with_socket: 0,
            waited: Default::default(),
            latest_wait_ns: 0,
        }
    }

    /// In two seconds: class 2 sends a seventh more than its guarantee, and the default class nothing.
    pub(in crate::metrics) fn borrowing() -> Usage {
        let start = Instant::now();
        let after = ShaperCounts {
            guaranteed: counted(9_000, 14_000_000),
            borrowed: counted(990, 1_900_000),
            lane: counted(10, 100_000),
            over_horizon: counted(70_000, 90_000_000),
            with_socket: 9_500,
            ..nothing()
        };
        between(
            &sample(start, nothing(), nothing()),
            &sample(start + Duration::from_secs(2), nothing(), after),
        )
    }

    #[test]
    fn what_left_is_compared_with_what_is_in_force_and_what_was_dropped_is_not_counted() {
        let usage = borrowing();
        let of_slice = &usage.slices[&KEY];
        assert_eq!(usage.interval, Duration::from_secs(2));
        assert_eq!(of_slice.sent.bytes_per_second, 8_000_000);
        assert_eq!(of_slice.sent.ratio(), Some(800_000));
        let of_second = of_slice.classes[&2];
        assert_eq!(of_second.sent.ratio(), Some(1_142_857));
        assert_eq!(of_second.with_socket, Some(950_000));
        let of_default = of_slice.classes[&0];
        assert_eq!(of_default.sent.ratio(), Some(0));
        assert_eq!(of_default.with_socket, None, "no packet, no part of them");
        assert_eq!(of_slice.classes.len(), 2);
    }

    #[test]
    fn nothing_is_said_of_a_change_of_terms_of_counters_begun_anew_and_of_no_time() {
        let start = Instant::now();
        let later = start + Duration::from_secs(5);
        let some = ShaperCounts {
            guaranteed: counted(10, 10_000),
            ..nothing()
        };
        let before = sample(start, nothing(), some);
        let after = sample(later, nothing(), some);
        let known = |before: &Sample, after: &Sample| !between(before, after).slices.is_empty();
        assert!(known(&before, &after), "vacuous");
        let changed = Sample {
            rates: BTreeMap::from([(
                KEY,
                ShaperTerms {
                    burst_ns: terms().burst_ns + 1,
                    ..terms()
                },
            )]),
            ..after.clone()
        };
        assert!(!known(&before, &changed));
        assert!(!known(&before, &sample(later, nothing(), nothing())));
        assert!(!known(&before, &sample(start, nothing(), some)));
        let uncounted = Sample {
            counts: BTreeMap::new(),
            ..before.clone()
        };
        assert!(!known(&uncounted, &after));
    }

    proptest! {
        #[test]
        fn no_counts_and_no_times_make_it_panic(
            before in any::<[u64; 7]>(), after in any::<[u64; 7]>(), ns in any::<u64>(),
        ) {
            let counts = |it: [u64; 7]| ShaperCounts {
                guaranteed: counted(it[0], it[1]),
                borrowed: counted(it[2], it[3]),
                lane: counted(it[4], it[5]),
                with_socket: it[6],
                ..nothing()
            };
            let start = Instant::now();
            let usage = between(
                &sample(start, nothing(), counts(before)),
                &sample(start + Duration::from_nanos(ns), nothing(), counts(after)),
            );
            for used in usage.slices.values() {
                let sum: u128 = used.classes.values().map(|it| u128::from(it.sent.bytes_per_second)).sum();
                prop_assert!(u128::from(used.sent.bytes_per_second) >= sum);
            }
        }
    }
}
