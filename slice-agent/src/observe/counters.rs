//! What the programs counted, summed over the CPUs.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use aya::Pod;
use aya::maps::PerCpuValues;
use slice_common::layout::{Counter, CounterKey, DropKey, ShaperCounts};

use super::path_mtu;
use crate::apply::maps::{Maps, spec};

/// The kernel's counters, and what it takes for the sizes of paths, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub traffic: BTreeMap<CounterKey, Counter>,
    pub drops: BTreeMap<DropKey, u64>,
    /// By path.
    pub path_mtu_bytes: BTreeMap<u32, u32>,
    /// By path group.
    pub unproven: BTreeMap<u32, u64>,
    /// What became of the packets of shaped classes, by the places of their clocks; [`shaped`] reads it.
    pub shaped: BTreeMap<u32, ShaperCounts>,
}

pub fn read(maps: &Maps) -> Result<Counters> {
    Ok(Counters {
        traffic: per_cpu(maps, "COUNTERS", add)?,
        drops: drops(maps)?,
        path_mtu_bytes: path_mtu::read(maps)?,
        unproven: unproven(maps)?,
        shaped: BTreeMap::new(),
    })
}

/// Packets dropped, by slice and reason.
pub fn drops(maps: &Maps) -> Result<BTreeMap<DropKey, u64>> {
    per_cpu(maps, "DROPS", u64::wrapping_add)
}

/// Packets that took a path which nothing proved, by path group.
pub fn unproven(maps: &Maps) -> Result<BTreeMap<u32, u64>> {
    per_cpu(maps, "PATH_UNPROVEN", u64::wrapping_add)
}

/// What became of the packets of the classes with these places.
pub fn shaped(maps: &Maps, places: &[u32]) -> Result<BTreeMap<u32, ShaperCounts>> {
    let what = || "cannot read the map SHAPER_COUNTS";
    let map = maps.per_cpu_array::<ShaperCounts>("SHAPER_COUNTS")?;
    let mut sums = BTreeMap::new();
    for place in places {
        let values = map.get(place, 0).with_context(what)?;
        if let Some(sum) = values.iter().copied().reduce(add_shaped) {
            sums.insert(*place, sum);
        }
    }
    Ok(sums)
}

fn add_shaped(a: ShaperCounts, b: ShaperCounts) -> ShaperCounts {
    let mut waited = a.waited;
    for (sum, more) in waited.iter_mut().zip(b.waited) {
        *sum = sum.wrapping_add(more);
    }
    ShaperCounts {
        guaranteed: add(a.guaranteed, b.guaranteed),
        borrowed: add(a.borrowed, b.borrowed),
        lane: add(a.lane, b.lane),
        over_horizon: add(a.over_horizon, b.over_horizon),
        marked: a.marked.wrapping_add(b.marked),
        with_socket: a.with_socket.wrapping_add(b.with_socket),
        waited,
        latest_wait_ns: a.latest_wait_ns.max(b.latest_wait_ns),
    }
}

fn add(a: Counter, b: Counter) -> Counter {
    Counter {
        packets: a.packets.wrapping_add(b.packets),
        bytes: a.bytes.wrapping_add(b.bytes),
    }
}

fn per_cpu<K: Pod + Ord, V: Pod>(
    maps: &Maps,
    name: &str,
    add: impl Fn(V, V) -> V,
) -> Result<BTreeMap<K, V>> {
    let what = || format!("cannot read the map {name}");
    let map = maps.per_cpu_hash::<K, V>(name)?;
    let mut sums = BTreeMap::new();
    // The kernel only adds, so the walk ends; the bound is for a map that somebody else empties.
    for entry in map.iter().take(2 * spec(name)?.capacity) {
        let (key, values): (K, PerCpuValues<V>) = entry.with_context(what)?;
        if let Some(sum) = values.iter().copied().reduce(&add) {
            sums.insert(key, sum);
        }
    }
    Ok(sums)
}
