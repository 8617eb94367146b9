//! What the programs counted, summed over the CPUs.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use aya::Pod;
use aya::maps::{MapError, PerCpuValues};
use slice_common::layout::{Counter, CounterKey, DropKey, ReplyKey};

use crate::apply::maps::{Maps, spec};

/// The kernel's counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub traffic: BTreeMap<CounterKey, Counter>,
    pub drops: BTreeMap<DropKey, u64>,
}

pub fn read(maps: &Maps) -> Result<Counters> {
    Ok(Counters {
        traffic: per_cpu(maps, "COUNTERS", add)?,
        drops: per_cpu(maps, "DROPS", u64::wrapping_add)?,
    })
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

/// Removes replies that expired before `now_ns` (kernel time), and returns how many are left and how
/// many were removed. The kernel adds and renews meanwhile, but removes nothing, so the walk over
/// the keys ends. A record renewed in the moment between the look and the removal is lost; the next
/// request writes it again.
pub fn sweep_replies(maps: &Maps, now_ns: u64) -> Result<(usize, usize)> {
    let what = "cannot sweep the map REPLIES";
    let mut replies = maps.hash::<ReplyKey, u64>("REPLIES")?;
    let most = 2 * spec("REPLIES")?.capacity;
    let keys: Vec<ReplyKey> = replies
        .keys()
        .take(most)
        .collect::<Result<_, _>>()
        .context(what)?;
    let mut removed = 0;
    for key in &keys {
        let expiry_ns = match replies.get(key, 0) {
            Ok(expiry_ns) => expiry_ns,
            Err(MapError::KeyNotFound) => continue,
            Err(error) => return Err(error).context(what),
        };
        if !slice_common::reply::is_fresh(expiry_ns, now_ns) {
            replies.remove(key).context(what)?;
            removed += 1;
        }
    }
    Ok((keys.len() - removed, removed))
}

/// The kernel's monotonic clock, as `bpf_ktime_get_ns` reads it.
pub fn kernel_now_ns() -> Result<u64> {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .context("cannot read the monotonic clock")?;
    Ok(now.tv_sec().cast_unsigned() * 1_000_000_000 + now.tv_nsec().cast_unsigned())
}
