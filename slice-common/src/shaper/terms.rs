//! The terms that packets are shaped under: rates as costs, and times in nanoseconds. Computed once, in
//! user space, when a profile or a measured round trip changes; programs only read them.

use super::cost::{ByteCost, Rate, WireBytes};
use super::entitlement::{Assured, GUARANTEE_SPARE_PARTS, SPARE_PARTS};

const MS: u64 = 1_000_000;

/// How long packets may wait, by the round trip of the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Whatever would wait longer is dropped. 20–50 ms.
    pub horizon_ns: u64,
    /// The same for what a class borrows: a quarter more than the mark. A class that wakes up sends its
    /// guarantee beside what was let in before, so that much of the ceiling may be passed.
    pub borrowed_horizon_ns: u64,
    /// Whatever waits longer is marked: 0.8 round trips, 4–15 ms, never more than half the horizon. Less
    /// leaves the link idle after each mark; more only makes the queue longer.
    pub mark_ns: u64,
}

impl Patience {
    pub fn for_round_trip(rtt_ns: u64) -> Self {
        let mark_ns = (rtt_ns / 5).saturating_mul(4).clamp(4 * MS, 15 * MS);
        Self {
            horizon_ns: rtt_ns.saturating_mul(2).clamp(20 * MS, 50 * MS),
            borrowed_horizon_ns: mark_ns / 4 * 5,
            mark_ns,
        }
    }

    /// Where nothing waits: a class is as far ahead of its rate as its packets would wait, and drops are
    /// all that keeps the ceiling, so they come early (20 ms of a second are the 2 % by which a ceiling
    /// may be passed).
    pub const WITHOUT_QUEUE: Self = Self {
        horizon_ns: 20 * MS,
        borrowed_horizon_ns: 20 * MS,
        mark_ns: 4 * MS,
    };
}

/// The uplink that slices share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UplinkTerms {
    /// At the rate that is paid for, less what is kept spare.
    pub contract: ByteCost,
    /// At the rate that this slice is guaranteed of it, less [`GUARANTEE_SPARE_PARTS`]' one.
    pub guarantee: ByteCost,
    /// Credit of the contract's clock.
    pub burst_ns: u64,
    /// Credit of the guarantee's clock.
    pub guarantee_burst_ns: u64,
}

impl UplinkTerms {
    /// The slice has its link to itself.
    pub const NONE: Self = Self {
        contract: ByteCost::FREE,
        guarantee: ByteCost::FREE,
        burst_ns: 0,
        guarantee_burst_ns: 0,
    };

    /// `frame` is a full packet on the link.
    pub fn new(contract: Rate, guarantee: Rate, patience: Patience, frame: WireBytes) -> Self {
        let contract = sustained(contract, SPARE_PARTS);
        Self {
            contract,
            guarantee: sustained(guarantee, GUARANTEE_SPARE_PARTS),
            burst_ns: burst_ns(contract, frame),
            guarantee_burst_ns: patience.mark_ns / 2,
        }
    }

    /// What the slice is guaranteed of the uplink, as configured; `None` where it has the link to itself.
    pub fn guarantee_bps(&self) -> Option<u64> {
        configured_bps(self.guarantee, GUARANTEE_SPARE_PARTS)
    }
}

/// A slice on one uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceTerms {
    /// At the rate of the ceiling, less what is kept spare.
    pub ceiling: ByteCost,
    /// Credit of the ceiling's clock: a millisecond, or two frames. Hides late timers.
    pub burst_ns: u64,
    /// At the rate of all thin flows together.
    pub lane: ByteCost,
    /// How far thin flows together may be ahead of that rate: sixteen frames.
    pub lane_burst_ns: u64,
    /// At the rate up to which a flow is thin: a 64th of what is assured.
    pub thin: ByteCost,
    /// How far a thin flow may be ahead of that rate: two frames.
    pub thin_burst_ns: u64,
    /// Larger packets never take the lane: two frames.
    pub lane_packet: WireBytes,
}

/// A flow is thin up to this part of what its slice is assured.
const THIN_PARTS: u64 = 64;

impl SliceTerms {
    /// `frame` is a full packet on the link.
    pub fn new(ceiling: Rate, assured: Assured, frame: WireBytes) -> Self {
        let ceiling = sustained(ceiling, SPARE_PARTS);
        let lane = at_least(assured.lane_bps());
        let thin = at_least(assured.rate().bps() / THIN_PARTS);
        Self {
            ceiling,
            burst_ns: burst_ns(ceiling, frame),
            lane,
            lane_burst_ns: lane.ns_of(times(frame, 16)),
            thin,
            thin_burst_ns: thin.ns_of(times(frame, 2)),
            lane_packet: times(frame, 2),
        }
    }

    /// The ceiling as configured.
    pub fn ceiling_bps(&self) -> Option<u64> {
        configured_bps(self.ceiling, SPARE_PARTS)
    }
}

/// When a flow counts as backlogged, and when no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Habits {
    /// At the rate up to which a flow may be interactive.
    pub pace: ByteCost,
    /// Further ahead of that rate, a flow is backlogged.
    pub burst_ns: u64,
    /// Shorter waits do not count.
    pub standing_ns: u64,
    /// A flow is backlogged when what had to wait is so far ahead of the rate of a thin flow.
    pub patience_ns: u64,
    /// A backlogged flow comes back after so long below its pace with nothing waiting; after a multiple if
    /// that failed before.
    pub calm_ns: u64,
}

/// A class of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassTerms {
    /// At the rate that the class is entitled to.
    pub guarantee: ByteCost,
    /// Credit of its clocks: half of what may wait unmarked. More would be sent above the ceiling when
    /// the class wakes up while others hold slots.
    pub burst_ns: u64,
    pub horizon_ns: u64,
    /// Of packets that borrow.
    pub borrowed_horizon_ns: u64,
    pub mark_ns: u64,
    /// At the rate that interactive flows have ahead of backlogged ones: the rest of the guarantee.
    pub front: ByteCost,
    /// At the rate that backlogged flows have whatever interactive ones do: a quarter, or what the slowest clock
    /// keeps, if that is more.
    pub back: ByteCost,
    pub habits: Habits,
    /// Whether flows are told apart by what they do.
    pub favour_interactive: bool,
}

impl ClassTerms {
    /// `frame` is a full packet on the link.
    pub fn new(entitlement: Rate, patience: Patience, frame: WireBytes) -> Self {
        let back_bps = (entitlement.bps() / 4).max(Rate::MIN_BPS);
        let front_bps = entitlement.bps() - back_bps;
        // One flow alone must not fill the front.
        let pace = at_least(front_bps / 2);
        // An initial window (RFC 6928), and then some, is no backlog.
        let opening_ns = pace.ns_of(times(frame, 16));
        // At the rate of a thin flow: as many bytes as the whole slice sends in half a horizon.
        let patience_ns = THIN_PARTS / 2 * patience.horizon_ns;
        Self {
            guarantee: ByteCost::at(entitlement),
            burst_ns: patience.mark_ns / 2,
            horizon_ns: patience.horizon_ns,
            borrowed_horizon_ns: patience.borrowed_horizon_ns,
            mark_ns: patience.mark_ns,
            front: at_least(front_bps),
            back: at_least(back_bps),
            habits: Habits {
                pace,
                burst_ns: (2 * patience.horizon_ns).max(opening_ns),
                standing_ns: patience.mark_ns / 4,
                patience_ns,
                calm_ns: 1000 * MS,
            },
            favour_interactive: true,
        }
    }
}

/// What a rate's clock runs at when one of so many parts is kept spare.
fn sustained(rate: Rate, parts: u64) -> ByteCost {
    at_least(rate.bps() - rate.bps() / parts)
}

/// The rate that [`sustained`] was made of, as far as its roundings let it be known.
fn configured_bps(sustained: ByteCost, parts: u64) -> Option<u64> {
    Some(sustained.bps()? * parts / (parts - 1))
}

fn at_least(bps: u64) -> ByteCost {
    let bps = bps.clamp(Rate::MIN_BPS, Rate::MAX_BPS);
    Rate::new_checked(bps).map_or(ByteCost::FREE, ByteCost::at)
}

fn times(frame: WireBytes, count: u64) -> WireBytes {
    WireBytes::new(u64::from(frame.count()) * count)
}

fn burst_ns(cost: ByteCost, frame: WireBytes) -> u64 {
    MS.max(cost.ns_of(times(frame, 2)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::shaper::ClassShare;

    proptest! {
        /// Whatever is accepted: what all clocks of a slice let pass in the long run is no more than its ceiling,
        /// less what is kept spare.
        #[test]
        fn clocks_promise_no_more_than_the_ceiling(
            bps in prop_oneof![20_000u64..=400_000, Rate::MIN_BPS..=Rate::MAX_BPS],
            parts in prop::collection::vec((0u64..=12, 1u16..=4), 1..=8),
        ) {
            let shares: Vec<_> = parts
                .iter()
                .map(|(percent, weight)| ClassShare {
                    guarantee_bps: bps * percent / 100,
                    weight: *weight,
                })
                .collect();
            let ceiling = Rate::new_checked(bps).expect("in range");
            let assured = Assured::new(ceiling, None);
            let given: Result<Vec<_>, _> = (0..shares.len())
                .map(|class| assured.entitlement(&shares, class))
                .collect();
            prop_assume!(given.is_ok());
            let (frame, patience) = (WireBytes::new(1538), Patience::for_round_trip(20 * MS));
            let rate = |cost: ByteCost| cost.bps().expect("a rate");
            let mut promised_bps = rate(SliceTerms::new(ceiling, assured, frame).lane);
            for entitlement in given.expect("assumed") {
                let class = ClassTerms::new(entitlement, patience, frame);
                let sides_bps = rate(class.front) + rate(class.back);
                promised_bps += sides_bps.max(rate(class.guarantee));
            }
            prop_assert!(promised_bps <= bps - bps / SPARE_PARTS);
        }

        #[test]
        fn a_mark_comes_well_before_a_drop(rtt_ns: u64) {
            let patience = Patience::for_round_trip(rtt_ns);
            prop_assert!(patience.horizon_ns >= 2 * patience.mark_ns);
            prop_assert!(patience.horizon_ns > patience.borrowed_horizon_ns);
            prop_assert!(patience.borrowed_horizon_ns > patience.mark_ns);
            prop_assert!((20 * MS..=50 * MS).contains(&patience.horizon_ns));
        }
    }

    #[test]
    fn at_ten_milliseconds_packets_wait_for_eight_unmarked() {
        let patience = Patience::for_round_trip(10 * MS);
        assert_eq!((patience.mark_ns, patience.horizon_ns), (8 * MS, 20 * MS));
    }
}
