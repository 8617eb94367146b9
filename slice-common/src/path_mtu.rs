//! How large a packet the way to a node lets through, when a router on it says less than the
//! configuration. Time is kernel time in nanoseconds and an argument.

use crate::layout::LearntMtu;
use crate::wire::vxlan;

/// What every IPv4 host takes (RFC 791), and the tunnel around it: no router may say less.
pub const FLOOR_BYTES: u32 = 576 + vxlan::OVERHEAD_BYTES;
/// A way that was narrow once may be wide again; then the next packet that is too big tells.
pub const LIFETIME_NS: u64 = 600_000_000_000;
/// No path's size is lowered again before this.
pub const PAUSE_NS: u64 = 1_000_000_000;

/// What fits a path that is configured to take `configured_bytes`.
#[inline(always)]
pub const fn effective_bytes(configured_bytes: u32, learnt: LearntMtu, now_ns: u64) -> u32 {
    if is_fresh(learnt, now_ns) && learnt.mtu < configured_bytes {
        learnt.mtu
    } else {
        configured_bytes
    }
}

/// What is known of a path after a router said that of a packet of `quoted_bytes` only `said_bytes`
/// would have fit; `None` when that is no news. What is known only ever sinks while it holds.
#[inline(always)]
pub const fn learn(
    known: Option<LearntMtu>,
    said_bytes: u32,
    quoted_bytes: u32,
    now_ns: u64,
) -> Option<LearntMtu> {
    // A router complains of packets that are larger than what it lets through.
    if quoted_bytes <= said_bytes {
        return None;
    }
    let mtu = if said_bytes < FLOOR_BYTES {
        FLOOR_BYTES
    } else {
        said_bytes
    };
    if let Some(known) = known {
        let too_soon = now_ns.wrapping_sub(known.learnt_at_ns) < PAUSE_NS;
        if is_fresh(known, now_ns) && (mtu >= known.mtu || too_soon) {
            return None;
        }
    }
    Some(LearntMtu {
        mtu,
        reserved: 0,
        learnt_at_ns: now_ns,
    })
}

/// When the last of what is learnt at `now_ns` ends.
#[inline(always)]
pub const fn holds_until_ns(now_ns: u64) -> u64 {
    now_ns.wrapping_add(LIFETIME_NS)
}

#[inline(always)]
const fn is_fresh(learnt: LearntMtu, now_ns: u64) -> bool {
    now_ns.wrapping_sub(learnt.learnt_at_ns) < LIFETIME_NS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW_NS: u64 = 5_000_000_000_000;

    fn learnt(mtu: u32, age_ns: u64) -> LearntMtu {
        LearntMtu {
            mtu,
            reserved: 0,
            learnt_at_ns: NOW_NS - age_ns,
        }
    }

    #[test]
    fn what_is_learnt_ends_after_ten_minutes() {
        let at_age = |age_ns| effective_bytes(1500, learnt(1400, age_ns), NOW_NS);
        assert_eq!(at_age(0), 1400);
        assert_eq!(at_age(LIFETIME_NS - 1), 1400);
        assert_eq!(at_age(LIFETIME_NS), 1500);
    }

    #[test]
    fn a_router_that_speaks_of_packets_that_fit_is_not_believed() {
        assert_eq!(learn(None, 1400, 1400, NOW_NS), None);
        assert_eq!(learn(None, 1400, 1401, NOW_NS), Some(learnt(1400, 0)));
        assert_eq!(learn(None, 65_535, 65_535, NOW_NS), None);
    }

    #[test]
    fn one_path_sinks_once_a_second() {
        let sinks = |age_ns| learn(Some(learnt(1400, age_ns)), 1300, 1500, NOW_NS).is_some();
        assert!(!sinks(0));
        assert!(!sinks(PAUSE_NS - 1));
        assert!(sinks(PAUSE_NS));
    }

    #[test]
    fn what_no_longer_holds_does_not_count() {
        let old = learnt(1300, LIFETIME_NS);
        let news = learn(Some(old), 1400, 1500, NOW_NS);
        assert_eq!(news, Some(learnt(1400, 0)));
    }

    proptest! {
        #[test]
        fn nobody_widens_a_path_or_goes_below_the_floor(
            configured in 576u32..=65_535,
            known in proptest::option::of((FLOOR_BYTES..=65_535, 0..2 * LIFETIME_NS)),
            said in 0u32..=65_535,
            quoted in 0u32..=65_535,
        ) {
            let known = known.map(|(mtu, age_ns)| learnt(mtu, age_ns));
            let before = known.map_or(configured, |known| effective_bytes(configured, known, NOW_NS));
            if let Some(news) = learn(known, said, quoted, NOW_NS) {
                let after = effective_bytes(configured, news, NOW_NS);
                prop_assert!(after <= before);
                prop_assert!(news.mtu >= FLOOR_BYTES);
                prop_assert!(after >= configured.min(FLOOR_BYTES));
            }
        }
    }
}
