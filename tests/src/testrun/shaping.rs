//! The shaper's maps.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use aya::maps::{Array, PerCpuArray, PerCpuValues};
use aya::{Ebpf, Pod as Plain};
use slice_common::address::Address;
use slice_common::id::Vni;
use slice_common::layout::{
    Capacity, ClassClocks, Counter, FlowClocks, Settings, ShaperCounts, ShaperKey, ShaperLoan,
    ShaperTerms, SliceClocks, UplinkClocks,
};
use slice_common::shaper::{DELAY_BUCKETS, FlowEnds, Loan, Owner};

use super::actors::FLOW_SECRET;
use super::state::{map, map_mut};
use super::world::{World, swap};

/// The first places for classes: those of two slices. Tests use no others.
const CLASSES: u32 = 16;
const SLICES: u32 = CLASSES / 8;
const UPLINKS: u32 = 2;

const NOTHING: Counter = Counter {
    packets: 0,
    bytes: 0,
};
/// Before the first packet.
pub(crate) const NOTHING_SHAPED: ShaperCounts = ShaperCounts {
    guaranteed: NOTHING,
    borrowed: NOTHING,
    lane: NOTHING,
    over_horizon: NOTHING,
    marked: 0,
    with_socket: 0,
    waited: [0; DELAY_BUCKETS],
    latest_wait_ns: 0,
};

/// What was counted, summed over the CPUs, where something was.
pub(super) fn counts(object: &Ebpf) -> Result<BTreeMap<u32, ShaperCounts>> {
    let counts: PerCpuArray<_, ShaperCounts> = map(object, "SHAPER_COUNTS")?.try_into()?;
    let mut found = BTreeMap::new();
    for place in 0..CLASSES {
        let values = counts.get(&place, 0).context("SHAPER_COUNTS")?;
        let sum = values.iter().fold(NOTHING_SHAPED, |sum, one| {
            combine(&sum, one, u64::wrapping_add)
        });
        if sum != NOTHING_SHAPED {
            found.insert(place, sum);
        }
    }
    Ok(found)
}

/// What was counted between two readings.
pub(super) fn counted_since(
    before: &BTreeMap<u32, ShaperCounts>,
    after: &BTreeMap<u32, ShaperCounts>,
) -> BTreeMap<u32, ShaperCounts> {
    let places = before.keys().chain(after.keys());
    let difference = places.map(|place| {
        let old = before.get(place).unwrap_or(&NOTHING_SHAPED);
        let new = after.get(place).unwrap_or(&NOTHING_SHAPED);
        (*place, combine(new, old, u64::wrapping_sub))
    });
    difference
        .filter(|(_, counts)| *counts != NOTHING_SHAPED)
        .collect()
}

/// Begins anew with the clocks that tests use, but for those of flows.
pub(super) fn clear(object: &mut Ebpf) -> Result<()> {
    let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
    let mut counts: PerCpuArray<_, ShaperCounts> = map_mut(object, "SHAPER_COUNTS")?.try_into()?;
    for place in 0..CLASSES {
        let nothing = PerCpuValues::try_from(vec![NOTHING_SHAPED; cpus])?;
        counts.set(place, nothing, 0).context("SHAPER_COUNTS")?;
    }
    let contract_ns = 0;
    let unused = [0; 7];
    let uplink = UplinkClocks {
        contract_ns,
        unused,
    };
    fill(object, "UPLINK_CLOCKS", UPLINKS, uplink)?;
    let slice = SliceClocks {
        uplink_guarantee_ns: 0,
        ceiling_ns: 0,
        lane_ns: 0,
        unused: [0; 5],
    };
    fill(object, "SLICE_CLOCKS", SLICES, slice)?;
    let class = ClassClocks {
        guarantee_ns: 0,
        front_ns: 0,
        back_ns: 0,
        joined_back_ns: 0,
        unused: [0; 4],
    };
    fill(object, "CLASS_CLOCKS", CLASSES, class)?;
    fill(object, "SHAPER_LOANS", SLICES, ShaperLoan::new(Loan::NONE))
}

fn fill<V: Plain>(object: &mut Ebpf, name: &str, places: u32, value: V) -> Result<()> {
    let mut clocks: Array<_, V> = map_mut(object, name)?.try_into()?;
    for place in 0..places {
        clocks
            .set(place, value, 0)
            .with_context(|| name.to_owned())?;
    }
    Ok(())
}

fn combine(one: &ShaperCounts, other: &ShaperCounts, f: fn(u64, u64) -> u64) -> ShaperCounts {
    let counter = |one: Counter, other: Counter| Counter {
        packets: f(one.packets, other.packets),
        bytes: f(one.bytes, other.bytes),
    };
    ShaperCounts {
        guaranteed: counter(one.guaranteed, other.guaranteed),
        borrowed: counter(one.borrowed, other.borrowed),
        lane: counter(one.lane, other.lane),
        over_horizon: counter(one.over_horizon, other.over_horizon),
        marked: f(one.marked, other.marked),
        with_socket: f(one.with_socket, other.with_socket),
        waited: std::array::from_fn(|bucket| f(one.waited[bucket], other.waited[bucket])),
        // No count.
        latest_wait_ns: 0,
    }
}

impl World {
    /// Replaces the shaper's terms, and says in the settings whether there are any.
    /// # Errors  when the kernel refuses an entry.
    pub fn set_shaper_terms(&mut self, terms: &[(ShaperKey, ShaperTerms)]) -> Result<()> {
        let entries: Vec<_> = terms
            .iter()
            .map(|(key, terms)| (ShaperKey::BITS, *key, *terms))
            .collect();
        let capacity = Capacity::SLICE_CLOCKS;
        swap(self.object_mut(), "SHAPER_TERMS", capacity, &entries)?;
        let mut settings: Array<_, Settings> =
            map_mut(self.object_mut(), "SETTINGS")?.try_into()?;
        let was = settings.get(&0, 0).context("SETTINGS")?;
        let flags = match terms.is_empty() {
            true => was.flags & !Settings::SHAPES,
            false => was.flags | Settings::SHAPES,
        };
        settings
            .set(0, Settings { flags, ..was }, 0)
            .context("SETTINGS")
    }

    /// What a slice has of its ceiling until a moment, by the place of its clocks.
    /// # Errors  when the kernel refuses the entry.
    pub fn set_loan(&mut self, place: u32, loan: Loan) -> Result<()> {
        let mut loans: Array<_, ShaperLoan> =
            map_mut(self.object_mut(), "SHAPER_LOANS")?.try_into()?;
        loans
            .set(place, ShaperLoan::new(loan), 0)
            .context("SHAPER_LOANS")
    }

    /// What the shaper knows of a flow whose record is there.
    /// # Errors  when the kernel has no such place.
    pub fn flow_record(&self, place: u32) -> Result<FlowClocks> {
        let flows: Array<_, FlowClocks> = map(self.object(), "FLOW_CLOCKS")?.try_into()?;
        flows.get(&place, 0).context("FLOW_CLOCKS")
    }

    /// Replaces it.
    /// # Errors  when the kernel has no such place.
    pub fn set_flow_record(&mut self, place: u32, record: FlowClocks) -> Result<()> {
        let mut flows: Array<_, FlowClocks> =
            map_mut(self.object_mut(), "FLOW_CLOCKS")?.try_into()?;
        flows.set(place, record, 0).context("FLOW_CLOCKS")
    }

    /// Forgets what is known of the flow that a tunnel packet belongs to.
    /// # Errors  when the kernel refuses the entry.
    pub fn forget_shaped_flow(&mut self, frame: &[u8]) -> Result<()> {
        let owner = flow_of(frame);
        for place in [owner.place(), owner.second_place()] {
            self.set_flow_record(place, FlowClocks::NOTHING)?;
        }
        Ok(())
    }
}

/// Whom a record is of that has to do with this tunnel packet.
pub(crate) fn flow_of(frame: &[u8]) -> Owner {
    let address = |at: usize| Address::from_octets([0, 1, 2, 3].map(|byte| frame[at + byte]));
    let vni = Vni::from_bytes([frame[46], frame[47], frame[48]]);
    let ends = FlowEnds {
        slice: vni.slice_number(),
        source: address(76),
        destination: address(80),
        source_port: u16::from_ne_bytes([frame[34], frame[35]]),
    };
    ends.owner(FLOW_SECRET)
}
