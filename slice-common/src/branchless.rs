//! Decisions without branches, for where the verifier would follow every way through them.
//!
//! A comparison is a mask: all bits set or none, made by shifting a sign over all bits. LLVM must not know
//! by how much, or it would see a comparison and branch on it again.

/// Makes masks.
#[derive(Clone, Copy, Debug)]
pub struct Masks {
    sign: u32,
}

impl Masks {
    #[inline(always)]
    pub fn new() -> Self {
        Self {
            sign: core::hint::black_box(63),
        }
    }

    /// All bits set if `one` is less than `other`, else none. They are less than 2^63 apart, and the shorter
    /// way round counts: just behind `u64::MAX` comes 0.
    #[inline(always)]
    pub const fn is_less(self, one: u64, other: u64) -> u64 {
        let difference = one.wrapping_sub(other).cast_signed();
        difference.wrapping_shr(self.sign).cast_unsigned()
    }

    /// All bits set if the two are equal, else none; both below 2^63.
    #[inline(always)]
    pub const fn is_equal(self, one: u64, other: u64) -> u64 {
        self.is_less(one ^ other, 1)
    }
}

impl Default for Masks {
    fn default() -> Self {
        Self::new()
    }
}

/// `yes` where the mask's bits are set, `no` where they are not.
#[inline(always)]
pub const fn either(mask: u64, yes: u64, no: u64) -> u64 {
    yes & mask | no & !mask
}
