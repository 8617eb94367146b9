//! What a class is entitled to when every class wants to send: its guarantee, and its part by weight of
//! what nobody is guaranteed. For user space, when a profile is configured.
//!
//! A weight costs nothing per packet, because it is turned into a guaranteed rate here. All entitlements
//! and the lane together are what the ceiling's clock runs at, no more: it cannot run away.

use super::cost::Rate;

/// The part of what is assured that no class is entitled to: a tenth. Thin flows may use it ahead of
/// everybody, but for what is kept spare.
pub const LANE_PARTS: u64 = 10;
/// The part of each ceiling that is kept spare: a hundredth. A class that wakes up sends its guarantee while
/// others still hold slots; what that is in the worst second fits in here.
pub const SPARE_PARTS: u64 = 100;
/// What a slice is guaranteed of an uplink is kept by a clock that is a 67th slower, not a hundredth as the
/// contract's: rounding up costs a fast clock more, so with equal parts the contract's would lead ever
/// further while slices fill their guarantees, and nobody could borrow for as long when one of them stops. A
/// 200th between them is what five million packets of a slice in a second are rounded up by.
pub(super) const GUARANTEE_SPARE_PARTS: u64 = 67;

/// What a class has at least: its interactive and its backlogged flows have clocks of their own, and none is slower
/// than [`Rate::MIN_BPS`].
pub const CLASS_MIN_BPS: u64 = 2 * Rate::MIN_BPS;

/// A class as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassShare {
    /// 0: none.
    pub guarantee_bps: u64,
    /// Of what is left when all guarantees are served; 0: none.
    pub weight: u16,
}

/// Why rates cannot be promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Guarantees and what is set aside are more than there is.
    TooMuch {
        guarantees_bps: u64,
        set_aside_bps: u64,
        available_bps: u64,
    },
    /// This class, by position, would get less than [`CLASS_MIN_BPS`] when the others send.
    Starved { class: usize },
    /// The guarantees of the slices of an uplink are more than its contract.
    Oversold {
        guarantees_bps: u64,
        contract_bps: u64,
    },
}

/// What can be promised inside a slice: its ceiling, or what the slice is guaranteed of its uplink if
/// that is less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assured(Rate);

impl Assured {
    pub fn new(ceiling: Rate, uplink_guarantee: Option<Rate>) -> Self {
        Self(uplink_guarantee.map_or(ceiling, |guarantee| guarantee.min(ceiling)))
    }

    pub const fn rate(self) -> Rate {
        self.0
    }

    /// What no class is entitled to: enough for the lane, whose clock is no slower than [`Rate::MIN_BPS`].
    pub const fn set_aside_bps(self) -> u64 {
        let least_bps = Rate::MIN_BPS + self.0.bps() / SPARE_PARTS;
        let part_bps = self.0.bps() / LANE_PARTS;
        if part_bps < least_bps {
            least_bps
        } else {
            part_bps
        }
    }

    /// The rate of all thin flows together.
    pub const fn lane_bps(self) -> u64 {
        self.set_aside_bps() - self.0.bps() / SPARE_PARTS
    }

    /// The rate that a class gets whatever the others do. Rounded down, so the sum never exceeds what is
    /// there.
    /// # Errors  when the guarantees do not fit, or this class could starve.
    pub fn entitlement(self, classes: &[ClassShare], class: usize) -> Result<Rate, Refusal> {
        let guarantees_bps = classes
            .iter()
            .fold(0u64, |sum, it| sum.saturating_add(it.guarantee_bps));
        let set_aside_bps = self.set_aside_bps();
        let promised_bps = guarantees_bps.saturating_add(set_aside_bps);
        let Some(left_bps) = self.0.bps().checked_sub(promised_bps) else {
            return Err(Refusal::TooMuch {
                guarantees_bps,
                set_aside_bps,
                available_bps: self.0.bps(),
            });
        };
        let weights: u64 = classes.iter().map(|it| u64::from(it.weight)).sum();
        let own = classes.get(class).ok_or(Refusal::Starved { class })?;
        let excess_bps = left_bps * u64::from(own.weight) / weights.max(1);
        let entitlement = Rate::new_checked(own.guarantee_bps + excess_bps);
        let lives = |rate: &Rate| rate.bps() >= CLASS_MIN_BPS;
        entitlement.filter(lives).ok_or(Refusal::Starved { class })
    }
}

/// Whether an uplink's contract covers what its slices are guaranteed of it.
/// # Errors  when it does not.
pub fn check_uplink(contract: Rate, guarantees: &[Rate]) -> Result<(), Refusal> {
    let guarantees_bps = guarantees
        .iter()
        .fold(0u64, |sum, it| sum.saturating_add(it.bps()));
    if guarantees_bps > contract.bps() {
        return Err(Refusal::Oversold {
            guarantees_bps,
            contract_bps: contract.bps(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const M: u64 = 1_000_000;

    fn assured(bps: u64) -> Assured {
        Assured::new(Rate::new_checked(bps).expect("in range"), None)
    }

    fn share(guarantee_bps: u64, weight: u16) -> ClassShare {
        ClassShare {
            guarantee_bps,
            weight,
        }
    }

    /// Half of them so low that floors matter.
    fn any_rate() -> impl Strategy<Value = u64> {
        prop_oneof![Rate::MIN_BPS..=300_000, Rate::MIN_BPS..=Rate::MAX_BPS,]
    }

    #[test]
    fn a_slice_that_is_accepted_has_enough_for_each_clock_of_its_classes() {
        let lowest = |classes: usize| {
            let weights = vec![share(0, 1); classes];
            let fits = |bps: &u64| {
                (0..classes).all(|class| assured(*bps).entitlement(&weights, class).is_ok())
            };
            (Rate::MIN_BPS..).find(fits)
        };
        // 16k for each class, 8k or a tenth for thin flows, and a hundredth that is spare.
        assert_eq!(lowest(1), Some(24_242));
        assert_eq!(lowest(8), Some(142_222));
    }

    #[test]
    fn what_nobody_is_guaranteed_is_shared_by_weight() {
        let classes = [share(40 * M, 3), share(30 * M, 1), share(0, 1)];
        let bps = |class| assured(100 * M).entitlement(&classes, class).map(Rate::bps);
        assert_eq!(
            [bps(0), bps(1), bps(2)],
            [Ok(52 * M), Ok(34 * M), Ok(4 * M)]
        );
    }

    #[test]
    fn a_slice_promises_no_more_than_its_uplink_does() {
        let rate = |bps| Rate::new_checked(bps).expect("in range");
        let below = Assured::new(rate(50 * M), Some(rate(20 * M)));
        let above = Assured::new(rate(50 * M), Some(rate(80 * M)));
        assert_eq!((below.rate(), above.rate()), (rate(20 * M), rate(50 * M)));
        assert_eq!(
            check_uplink(rate(60 * M), &[rate(40 * M), rate(20 * M)]),
            Ok(())
        );
        let oversold = Refusal::Oversold {
            guarantees_bps: 61 * M,
            contract_bps: 60 * M,
        };
        let sold = [rate(40 * M), rate(21 * M)];
        assert_eq!(check_uplink(rate(60 * M), &sold), Err(oversold));
    }

    #[test]
    fn a_class_with_nothing_is_refused_only_when_nothing_is_left() {
        let left = [share(89 * M, 0), share(0, 1)];
        assert_eq!(assured(100 * M).entitlement(&left, 1).map(Rate::bps), Ok(M));
        let none = [share(90 * M, 0), share(0, 1)];
        let starved = Err(Refusal::Starved { class: 1 });
        assert_eq!(assured(100 * M).entitlement(&none, 1), starved);
    }

    proptest! {
        #[test]
        fn entitlements_and_lane_are_never_more_than_there_is(
            bps in any_rate(),
            parts in prop::collection::vec((0u64..=30, any::<u16>()), 1..=8),
        ) {
            let assured = assured(bps);
            let classes: Vec<_> =
                parts.iter().map(|(percent, weight)| share(bps / 100 * percent, *weight)).collect();
            let given: Vec<_> =
                (0..classes.len()).map(|class| assured.entitlement(&classes, class)).collect();
            let guarantees: u64 = classes.iter().map(|it| it.guarantee_bps).sum();
            let sum: u64 = given.iter().flatten().map(|rate| rate.bps()).sum();
            let fits = guarantees + assured.set_aside_bps() <= bps;
            prop_assert!(!fits || sum + assured.lane_bps() <= bps - bps / SPARE_PARTS);
            prop_assert!(fits || sum == 0);
            prop_assert!(assured.lane_bps() >= Rate::MIN_BPS);
            for (class, given) in classes.iter().zip(given) {
                match given {
                    Ok(rate) => prop_assert!(fits && rate.bps() >= class.guarantee_bps),
                    Err(Refusal::TooMuch { .. }) => prop_assert!(!fits),
                    Err(_) => prop_assert!(fits && class.guarantee_bps < CLASS_MIN_BPS),
                }
            }
        }
    }
}
