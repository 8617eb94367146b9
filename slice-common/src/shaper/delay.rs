//! How long packets wait, in buckets that double.

/// From less than 16 µs to more than 33 ms: the longest horizon is 50 ms.
pub const DELAY_BUCKETS: usize = 13;

/// The first bucket ends at 2^14 ns.
const FIRST_BITS: u32 = 14;

/// The bucket of a wait. No loop and no way that forks, for the verifier.
#[inline(always)]
pub const fn delay_bucket(delay_ns: u64) -> usize {
    let longest = (1 << (FIRST_BITS as usize + DELAY_BUCKETS - 1)) - 1;
    let delay_ns = if delay_ns < longest {
        delay_ns
    } else {
        longest
    };
    (u64::BITS - (delay_ns >> FIRST_BITS).leading_zeros()) as usize
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
            for delay_ns in [delay_ns, delay_ns >> 30, delay_ns >> 40, delay_ns >> 50] {
                let bucket = delay_bucket(delay_ns);
                prop_assert!(bucket < DELAY_BUCKETS);
                let is_last = bucket == DELAY_BUCKETS - 1;
                prop_assert!(is_last || delay_ns < delay_bucket_end_ns(bucket));
                prop_assert!(bucket == 0 || delay_ns >= delay_bucket_end_ns(bucket - 1));
            }
        }
    }

    #[test]
    fn buckets_end_between_16_microseconds_and_67_milliseconds() {
        assert_eq!(delay_bucket_end_ns(0), 16_384);
        assert_eq!(delay_bucket_end_ns(DELAY_BUCKETS - 1), 67_108_864);
        assert_eq!(
            [delay_bucket(0), delay_bucket(16_383), delay_bucket(16_384)],
            [0, 0, 1]
        );
        assert_eq!([delay_bucket(50_000_000), delay_bucket(u64::MAX)], [12, 12]);
    }
}
