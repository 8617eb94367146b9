//! The shaper's clocks: words of maps that processors move without a lock.

use slice_common::layout::{
    ClassClocks, FlowClocks, ShaperClass, ShaperTerms, SliceClocks, UplinkClocks,
};
use slice_common::shaper::{
    ClassWords, FlowWords, LeafWords, Owner, Record, RecordWords, SliceWords, UplinkWords, Word,
    find,
};

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

/// The record of a flow with a packet at that moment.
#[inline(always)]
pub(crate) fn of_flow(flow: Owner, now_ns: u64) -> Option<RecordWords<Clock>> {
    let first = record(flow.place())?;
    let second = || record(flow.second_place());
    Some(find(flow, unlinked(now_ns), first, second)?.words())
}

/// Those of a class and a flow. Nothing where the agent names a place that no map has.
#[inline(always)]
pub(crate) fn of(
    terms: &ShaperTerms,
    class: &ShaperClass,
    record: RecordWords<Clock>,
) -> Option<Clocks> {
    let uplink: *mut UplinkClocks = maps::uplink_clocks(terms.uplink_clocks)?;
    let slice: *mut SliceClocks = maps::slice_clocks(terms.clocks)?;
    let of_class: *mut ClassClocks = maps::class_clocks(class.clocks)?;
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
        flow: record.flow,
        leaf: LeafWords {
            back: clock!(of_class, joined_back_ns),
            joined: record.joined,
            gone: record.gone,
            thin: record.flow.thin,
        },
    })
}

/// The same number, of which the verifier knows nothing. What it learns of one by comparisons it knows of its copies
/// too, and would look at everything that follows once for each thing that it learnt.
#[inline(always)]
pub(crate) fn unlinked(number: u64) -> u64 {
    let whole = &raw const number;
    let halves: *const u32 = whole.cast();
    // SAFETY: both halves of a word that is there.
    let (low, high) = unsafe { (halves.read_volatile(), halves.add(1).read_volatile()) };
    (high as u64) << 32 | low as u64
}

#[inline(always)]
fn record(place: u32) -> Option<FlowRecord> {
    maps::flow_clocks(place).map(FlowRecord)
}

/// In a map.
#[derive(Clone, Copy)]
struct FlowRecord(*mut FlowClocks);

impl Record for FlowRecord {
    type Word = Clock;

    #[inline(always)]
    fn words(self) -> RecordWords<Clock> {
        RecordWords {
            owner: clock!(self.0, owner),
            flow: FlowWords {
                departure: clock!(self.0, departure_ns),
                thin: clock!(self.0, thin_ns),
                pace: clock!(self.0, pace_ns),
                waited: clock!(self.0, waited_ns),
                stance: clock!(self.0, stance),
            },
            joined: clock!(self.0, joined_ns),
            gone: clock!(self.0, gone),
        }
    }
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
