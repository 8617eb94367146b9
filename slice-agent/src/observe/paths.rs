//! What is known of the paths that packets choose between.

use std::collections::BTreeMap;

use anyhow::Result;
use slice_common::health::{self, Moment};
use slice_common::layout::{PathHealth, Probes};

use crate::apply::maps::Maps;

/// A path that is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathState {
    /// Packets would take it for proven.
    pub is_up: bool,
    /// Of the last probe that was answered; 0 before the first.
    pub rtt_ns: u64,
}

/// The paths that have been probed, by their numbers.
pub fn read(maps: &Maps, now_ns: u64) -> Result<BTreeMap<u32, PathState>> {
    let probed: BTreeMap<u32, Probes> = maps.entries("PROBES")?;
    let known: BTreeMap<u32, PathHealth> = maps.entries("PATH_HEALTH")?;
    let state = |(path, probes): (u32, Probes)| {
        let health = known.get(&path).unwrap_or(&PathHealth::NOTHING);
        let probes = (probes.newest_ns, probes.since_ns);
        let preference =
            health::preference(health, probes, 0, Moment::at(now_ns, health::PATIENCE_NS));
        let state = PathState {
            is_up: health::is_proven(preference),
            rtt_ns: health.rtt_ns,
        };
        (path, state)
    };
    Ok(probed.into_iter().map(state).collect())
}

/// The clock that the kernel programs read.
pub fn kernel_now_ns() -> Result<u64> {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)?;
    Ok(now.tv_sec().cast_unsigned() * 1_000_000_000 + now.tv_nsec().cast_unsigned())
}
