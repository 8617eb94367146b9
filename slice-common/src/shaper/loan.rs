//! What a slice's bytes count while the nodes that send them by one link lend each other parts of its ceiling.
//!
//! Every clock of a slice moves in proportion to bytes, so a node that may send more for a while counts each
//! byte as less, and one that lent counts it as more: ceiling, lane and guarantees change together, and the
//! terms do not change at all. A loan ends by itself, whether or not an agent is there to end it.
//!
//! Only where nobody watches the uplink's contract: guarantees of its parts are not lent with it.

use super::cost::WireBytes;

/// What a node has of a slice's ceiling other than its own part, until a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loan {
    /// Of the monotonic clock. From then on the node has its own part.
    pub until_ns: u64,
    /// What a byte counts until then, in [`Loan::WHOLE`]ths.
    pub byte_parts: u32,
}

impl Loan {
    /// A node's own part, in the unit that parts of it are counted in.
    pub const WHOLE: u32 = 1 << 16;
    /// A node keeps this much at least: its packets, of 64 KiB and headers, must not count more than
    /// [`WireBytes::MAX`].
    pub const LEAST: u32 = Self::WHOLE / 4;
    /// Nobody has more than this: what 64 nodes have.
    pub const MOST: u32 = 64 * Self::WHOLE;
    pub const NONE: Self = Self {
        until_ns: 0,
        byte_parts: Self::WHOLE,
    };

    /// The node has so many parts, `LEAST..=MOST`. Rounded so that it never sends more.
    pub const fn having(parts: u32, until_ns: u64) -> Self {
        let parts = if parts < Self::LEAST {
            Self::LEAST
        } else if parts > Self::MOST {
            Self::MOST
        } else {
            parts
        };
        let whole = Self::WHOLE as u64;
        Self {
            until_ns,
            byte_parts: (whole * whole).div_ceil(parts as u64) as u32,
        }
    }

    /// What bytes count at a moment. One comparison, and one multiplication while a loan is on.
    #[inline(always)]
    pub const fn counted(self, now_ns: u64, bytes: WireBytes) -> WireBytes {
        // More than can be charged stays that.
        if now_ns >= self.until_ns || bytes.count() == WireBytes::MAX {
            return bytes;
        }
        let parts = bytes.count() as u64 * self.byte_parts as u64;
        WireBytes::new((parts + (Self::WHOLE - 1) as u64) >> Self::WHOLE.ilog2())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn half_a_part_makes_bytes_count_twice_until_the_loan_is_over() {
        let lent = Loan::having(Loan::WHOLE / 2, 1000);
        let bytes = WireBytes::new(1538);
        let counts = |loan: Loan, now_ns| loan.counted(now_ns, bytes).count();
        assert_eq!([counts(lent, 999), counts(lent, 1000)], [3076, 1538]);
        assert_eq!(counts(Loan::having(2 * Loan::WHOLE, 1000), 0), 769);
        let too_much = WireBytes::new(u64::from(WireBytes::MAX));
        assert_eq!(
            Loan::having(2 * Loan::WHOLE, 1000).counted(0, too_much),
            too_much
        );
        assert_eq!(counts(Loan::NONE, 0), 1538);
    }

    proptest! {
        #[test]
        fn nobody_sends_more_than_the_parts_that_a_node_has(
            parts in Loan::LEAST..=Loan::MOST,
            bytes in 1u64..=180_000,
        ) {
            let counted = Loan::having(parts, 1).counted(0, WireBytes::new(bytes)).count();
            let exact = bytes as f64 * f64::from(Loan::WHOLE) / f64::from(parts);
            prop_assert!(f64::from(counted) >= exact);
            prop_assert!(f64::from(counted) <= exact * 1.001 + 5.0);
        }
    }
}
