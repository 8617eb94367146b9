//! The maximum segment size option of TCP SYNs (RFC 9293, 3.7.1): found, and lowered to what a path
//! can carry.

use super::{ipv4, transport};
use crate::branchless::{Masks, either};

/// Options take at most 40 bytes, so there are at most 40 of them.
pub const OPTIONS_MAX: u32 = 40;

/// How many options are looked at before the search is given up: stacks send the MSS first, and after it
/// four others. Each one-byte filler counts.
pub const STEPS_MAX: u32 = 16;

const KIND_END: u64 = 0;
const KIND_NOTHING: u64 = 1;
const KIND_MSS: u64 = 2;
const MSS_OPTION_BYTES: u64 = 4;
const LENGTH_MIN: u64 = 2;

/// A search for the MSS among the options of a SYN, one option at a time. It never branches, as the verifier
/// follows every way through all its steps; and it takes all of them, or what follows would be verified
/// once for every step at which it can end.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    options_bytes: u64,
    at: u64,
    found: u64,
    masks: Masks,
}

impl Search {
    /// Among `options_bytes` (0..=40) bytes of options.
    #[inline(always)]
    pub fn among(options_bytes: u32) -> Self {
        Self {
            options_bytes: options_bytes as u64,
            at: 0,
            found: NOWHERE,
            masks: Masks::new(),
        }
    }

    /// Where the next option stands, in bytes behind the first; when there is none, where none can be.
    #[inline(always)]
    pub const fn at(&self) -> u32 {
        self.at as u32
    }

    /// Looks at the option that begins with these two bytes at [`Search::at`].
    #[inline(always)]
    pub const fn look(self, kind: u8, length: u8) -> Self {
        let (kind, length, masks) = (kind as u64, length as u64, self.masks);
        // The last place where an MSS option fits.
        let inside = masks.is_less(self.at + MSS_OPTION_BYTES - 1, self.options_bytes);
        let is_nothing = masks.is_equal(kind, KIND_NOTHING);
        let is_mss =
            inside & masks.is_equal(kind, KIND_MSS) & masks.is_equal(length, MSS_OPTION_BYTES);
        let is_sound =
            is_nothing | !masks.is_equal(kind, KIND_END) & !masks.is_less(length, LENGTH_MIN);
        let next = self.at + either(is_nothing, 1, length);
        let goes_on = inside & is_sound & !is_mss & !masks.is_less(self.options_bytes, next);
        Self {
            at: either(goes_on, next, OPTIONS_MAX as u64),
            found: either(is_mss, self.at, self.found),
            ..self
        }
    }

    /// The same search, in which the verifier knows no values any more; `zero` is one that it does not know.
    #[inline(always)]
    pub const fn as_any(self, zero: u32) -> Self {
        Self {
            at: (self.at ^ zero as u64) & AT_BITS,
            found: self.found ^ zero as u64,
            ..self
        }
    }

    /// Where the value of the MSS option stands, in bytes behind the first option.
    #[inline(always)]
    pub const fn found(&self) -> Option<u32> {
        if self.found == NOWHERE {
            None
        } else {
            Some((self.found & AT_BITS) as u32 + 2)
        }
    }
}

const NOWHERE: u64 = 1 << 8;
/// Enough for [`OPTIONS_MAX`].
const AT_BITS: u64 = 63;

/// The largest TCP payload that fits a tunnel packet of `path_mtu_bytes` (576..=65535).
#[inline(always)]
pub const fn largest_for_path(path_mtu_bytes: u32) -> u16 {
    let headers = super::vxlan::OVERHEAD_BYTES + ipv4::HEADER_BYTES + transport::TCP_HEADER_BYTES;
    let mss = path_mtu_bytes.saturating_sub(headers);
    if mss > u16::MAX as u32 {
        u16::MAX
    } else {
        mss as u16
    }
}

/// The MSS to write, or `None` when the one that is there is small enough.
#[inline(always)]
pub const fn clamped(mss: u16, largest: u16) -> Option<u16> {
    if mss > largest { Some(largest) } else { None }
}
