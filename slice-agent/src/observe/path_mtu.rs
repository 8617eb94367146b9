//! What fits each path: what is configured, or what a router on the way said.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_gettime};
use slice_common::layout::{LearntMtu, Path, PathEnds};
use slice_common::path_mtu;

use crate::apply::maps::Maps;

/// The largest outer packet, in bytes, by path.
pub fn read(maps: &Maps) -> Result<BTreeMap<u32, u32>> {
    let paths = maps.entries("PATHS")?;
    let learnt = maps.entries("PATH_MTU")?;
    Ok(effective(&paths, &learnt, kernel_time_ns()?))
}

fn effective(
    paths: &BTreeMap<u32, Path>,
    learnt: &BTreeMap<PathEnds, LearntMtu>,
    now_ns: u64,
) -> BTreeMap<u32, u32> {
    let of_path = |path: &Path| match learnt.get(&path.ends()) {
        Some(learnt) => path_mtu::effective_bytes(path.mtu, *learnt, now_ns),
        None => path.mtu,
    };
    paths
        .iter()
        .map(|(id, path)| (*id, of_path(path)))
        .collect()
}

/// The clock that the programs read.
fn kernel_time_ns() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).context("cannot read the monotonic clock")?;
    Ok(now.tv_sec().cast_unsigned() * 1_000_000_000 + now.tv_nsec().cast_unsigned())
}

#[cfg(test)]
mod tests {
    use slice_common::address::Address;

    use super::*;

    fn path(remote: [u8; 4]) -> Path {
        Path {
            local: Address::from_octets([192, 0, 2, 1]),
            remote: Address::from_octets(remote),
            ifindex: 2,
            mtu: 1500,
            encapsulation: 1,
            port: 6085u16.to_be(),
            flags: 0,
            cluster: 0,
            reserved_32: 0,
        }
    }

    #[test]
    fn a_path_is_as_wide_as_configured_until_a_router_says_less_and_while_that_holds() {
        let (told, other) = (path([192, 0, 2, 2]), path([192, 0, 2, 3]));
        let learnt = LearntMtu {
            mtu: 1400,
            reserved: 0,
            learnt_at_ns: 1000,
        };
        let paths = BTreeMap::from([(1, told), (2, other)]);
        let learnt = BTreeMap::from([(told.ends(), learnt)]);
        let now = effective(&paths, &learnt, 1001);
        assert_eq!(now, BTreeMap::from([(1, 1400), (2, 1500)]));
        let later = effective(&paths, &learnt, 1000 + path_mtu::LIFETIME_NS);
        assert_eq!(later, BTreeMap::from([(1, 1500), (2, 1500)]));
    }
}
