//! How long packets wait, in buckets that double.

/// From less than 16 µs to more than a quarter of a second, five times the longest horizon that profiles get.
pub const DELAY_BUCKETS: usize = 16;

/// The first bucket ends at 2^14 ns.
const FIRST_BITS: u32 = 14;

/// A de Bruijn sequence: each four bits in a row occur once.
const SEQUENCE: u64 = 0b0000_1001_1010_1111;

/// By four bits in a row, where in [`SEQUENCE`] they are: sixteen numbers of four bits.
const PLACES: u64 = {
    let mut places = 0;
    let mut bit = 0;
    while bit < 16 {
        places |= bit << (4 * row(1 << bit));
        bit += 1;
    }
    places
};

/// The four bits in a row that a power of two selects.
#[inline(always)]
const fn row(power: u64) -> u64 {
    power.wrapping_mul(SEQUENCE) >> 12 & 15
}

/// The bucket of a wait. Neither loop nor fork nor table in memory; and the compiler must not see that the
/// last mask changes nothing, because the verifier wants it.
#[inline(always)]
pub const fn delay_bucket(delay_ns: u64) -> usize {
    let longest = (1 << (DELAY_BUCKETS - 1)) - 1;
    let units = delay_ns >> FIRST_BITS;
    let units = if units < longest { units } else { longest };
    // All bits below the highest one, then the power of two above.
    let units = units | units >> 1;
    let units = units | units >> 2;
    let units = units | units >> 4;
    let units = units | units >> 8;
    (PLACES >> (4 * row(units + 1)) & 15) as usize
}

/// Waits in a bucket are shorter than this; those in the last one may be longer.
pub const fn delay_bucket_end_ns(bucket: usize) -> u64 {
    1 << (FIRST_BITS as usize + bucket)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_wait_is_in_its_bucket(delay_ns: u64) {
            for bits in 0..64 {
                let delay_ns = delay_ns >> bits;
                let bucket = delay_bucket(delay_ns);
                prop_assert!(bucket < DELAY_BUCKETS);
                let is_last = bucket == DELAY_BUCKETS - 1;
                prop_assert!(is_last || delay_ns < delay_bucket_end_ns(bucket));
                prop_assert!(bucket == 0 || delay_ns >= delay_bucket_end_ns(bucket - 1));
            }
        }
    }

    #[test]
    fn buckets_end_where_they_say() {
        assert_eq!(delay_bucket_end_ns(0), 16_384);
        let buckets = [0, 16_383, 16_384, 32_767, 50_000_000, u64::MAX].map(delay_bucket);
        assert_eq!(buckets, [0, 0, 1, 1, 12, 15]);
    }
}
