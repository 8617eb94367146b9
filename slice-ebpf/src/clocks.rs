//! The shaper's clocks: words of maps that processors move without a lock.

use slice_common::layout::{
    ClassClocks, FlowClocks, ShaperClass, ShaperTerms, SliceClocks, UplinkClocks,
};
use slice_common::shaper::{ClassWords, FlowWords, LeafWords, SliceWords, UplinkWords, Word};

use crate::maps;

/// A word in a map's value.
#[derive(Clone, Copy)]
pub(crate) struct Clock(*mut u64);

/// All words that a packet is judged by.
pub(crate) struct Clocks {
    pub(crate) uplink: UplinkWords<Clock>,
    pub(crate) slice: SliceWords<Clock>,
    pub(crate) class: ClassWords<Clock>,
    pub(crate) flow: FlowWords<Clock>,
    pub(crate) leaf: LeafWords<Clock, Clock>,
}

macro_rules! clock {
    ($record:expr, $field:ident) => {
        // SAFETY: the record is a map's value, alive during this run.
        Clock(unsafe { &raw mut (*$record).$field })
    };
}

/// Those of a class and a flow. Nothing where the agent names a place that no map has.
#[inline(always)]
pub(crate) fn of(terms: &ShaperTerms, class: &ShaperClass, flow_place: u32) -> Option<Clocks> {
    let uplink: *mut UplinkClocks = maps::uplink_clocks(terms.uplink_clocks)?;
    let slice: *mut SliceClocks = maps::slice_clocks(terms.clocks)?;
    let of_class: *mut ClassClocks = maps::class_clocks(class.clocks)?;
    let flow: *mut FlowClocks = maps::flow_clocks(flow_place)?;
    Some(Clocks {
        uplink: UplinkWords {
            contract: clock!(uplink, contract_ns),
        },
        slice: SliceWords {
            uplink_guarantee: clock!(slice, uplink_guarantee_ns),
            ceiling: clock!(slice, ceiling_ns),
            lane: clock!(slice, lane_ns),
        },
        class: ClassWords {
            guarantee: clock!(of_class, guarantee_ns),
            front: clock!(of_class, front_ns),
            back: clock!(of_class, back_ns),
        },
        flow: FlowWords {
            departure: clock!(flow, departure_ns),
            thin: clock!(flow, thin_ns),
            pace: clock!(flow, pace_ns),
            waited: clock!(flow, waited_ns),
            stance: clock!(flow, stance),
        },
        leaf: LeafWords {
            back: clock!(of_class, joined_back_ns),
            joined: clock!(flow, joined_ns),
            joined_at: clock!(flow, joined_at_ns),
        },
    })
}

impl Word for Clock {
    #[inline(always)]
    fn read(&self) -> u64 {
        // SAFETY: one aligned 64-bit load of a map's value.
        unsafe { self.0.read_volatile() }
    }

    #[inline(always)]
    fn write(&self, value: u64) {
        // SAFETY: one aligned 64-bit store to a map's value.
        unsafe { self.0.write_volatile(value) };
    }

    #[inline(always)]
    fn replace(&self, old: u64, new: u64) -> Result<(), u64> {
        // SAFETY: an aligned word of a map's value.
        let found = unsafe { atomic::replace(self.0, old, new) };
        if found == old { Ok(()) } else { Err(found) }
    }

    #[inline(always)]
    fn add(&self, value: u64) {
        // SAFETY: an aligned word of a map's value.
        unsafe { atomic::add(self.0, value) };
    }
}

/// The BPF target has the instructions, but `core` offers atomic types only where there are all of them.
#[cfg(target_arch = "bpf")]
mod atomic {
    use core::intrinsics::AtomicOrdering::Relaxed;
    use core::intrinsics::{atomic_cxchg, atomic_xadd};

    /// Returns what was there.
    #[inline(always)]
    pub(super) unsafe fn replace(word: *mut u64, old: u64, new: u64) -> u64 {
        // SAFETY: the caller's word.
        unsafe { atomic_cxchg::<u64, { Relaxed }, { Relaxed }>(word, old, new) }.0
    }

    #[inline(always)]
    pub(super) unsafe fn add(word: *mut u64, value: u64) {
        // SAFETY: the caller's word.
        unsafe { atomic_xadd::<u64, u64, { Relaxed }>(word, value) };
    }
}

/// So that it compiles on a host, where nothing runs it.
#[cfg(not(target_arch = "bpf"))]
mod atomic {
    use core::sync::atomic::AtomicU64;
    use core::sync::atomic::Ordering::Relaxed;

    pub(super) unsafe fn replace(word: *mut u64, old: u64, new: u64) -> u64 {
        // SAFETY: the caller's word.
        let word = unsafe { AtomicU64::from_ptr(word) };
        match word.compare_exchange(old, new, Relaxed, Relaxed) {
            Ok(found) | Err(found) => found,
        }
    }

    pub(super) unsafe fn add(word: *mut u64, value: u64) {
        // SAFETY: the caller's word.
        unsafe { AtomicU64::from_ptr(word) }.fetch_add(value, Relaxed);
    }
}
