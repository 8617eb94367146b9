//! What a byte costs at a rate: time, as fixed point, so that no packet needs a division.

/// Bits per second on the wire, `MIN_BPS..=MAX_BPS`.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(u64);

impl Rate {
    /// Below this a full tunnel packet takes longer than any horizon.
    pub const MIN_BPS: u64 = 8_000;
    pub const MAX_BPS: u64 = 400_000_000_000;

    pub const fn new_checked(bps: u64) -> Option<Self> {
        if bps >= Self::MIN_BPS && bps <= Self::MAX_BPS {
            Some(Self(bps))
        } else {
            None
        }
    }

    #[inline(always)]
    pub const fn bps(self) -> u64 {
        self.0
    }
}

/// Bytes that a link carries for a packet, `0..=MAX`: all of its segments, with everything that is sent
/// around them. [`super::wire::wire_bytes`] computes it.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WireBytes(u32);

impl WireBytes {
    /// 64 KiB in segments of ten bytes, and their headers. What claims to be more counts as this, and is
    /// dropped where it would be charged.
    pub const MAX: u32 = 1 << 20;

    #[inline(always)]
    pub const fn new(bytes: u64) -> Self {
        if bytes > Self::MAX as u64 {
            Self(Self::MAX)
        } else {
            Self(bytes as u32)
        }
    }

    #[inline(always)]
    pub const fn count(self) -> u32 {
        self.0
    }
}

/// Nanoseconds per byte, times 2^20. `FREE` costs nothing; else `21_000..=2^40`.
///
/// Both roundings go up, so what is charged for bytes never sums to less than their time at the rate: a
/// ceiling is not exceeded by rounding. They cost at most a nanosecond for each packet and 0.005 % of
/// the rate.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteCost(u64);

impl ByteCost {
    const SHIFT: u32 = 20;
    const NS_PER_BYTE_AT_1_BPS: u64 = 8_000_000_000;
    /// A clock that this is charged to never moves: a level that does not exist.
    pub const FREE: Self = Self(0);

    /// Divides once: for user space, when a rate is configured.
    pub const fn at(rate: Rate) -> Self {
        Self((Self::NS_PER_BYTE_AT_1_BPS << Self::SHIFT).div_ceil(rate.0))
    }

    /// As a map holds it.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// The rate that it was made of, at most 0.005 % less; `None`: any.
    pub const fn bps(self) -> Option<u64> {
        (Self::NS_PER_BYTE_AT_1_BPS << Self::SHIFT).checked_div(self.0)
    }

    /// Out of a map that [`ByteCost::word`] was written to.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The time that `bytes` take, in nanoseconds; at most 2^40. One multiplication.
    #[inline(always)]
    pub const fn ns_of(self, bytes: WireBytes) -> u64 {
        (bytes.0 as u64 * self.0 + ((1 << Self::SHIFT) - 1)) >> Self::SHIFT
    }
}

// The largest product, at the lowest rate, and its rounding stay inside a word.
const _: () = {
    let dearest = ByteCost::at(Rate(Rate::MIN_BPS)).0;
    assert!(dearest <= 1 << 40);
    assert!(dearest.checked_mul(WireBytes::MAX as u64).is_some());
    assert!(dearest * (WireBytes::MAX as u64) < u64::MAX - (1 << ByteCost::SHIFT));
};
