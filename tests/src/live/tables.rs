//! A node's tables in the hands of a test.

use std::collections::BTreeMap;

use anyhow::Result;
use slice_agent::apply::maps::Maps;
use slice_agent::apply::pins::Pins;
use slice_common::health;
use slice_common::layout::{PathHealth, Settings};

use crate::lab::Lab;
use crate::testrun::exchange::kernel_time_ns;

/// The pinned maps of a node.
/// # Errors  when there is no such node.
pub fn maps_of(lab: &Lab, node: &str) -> Result<Maps> {
    Ok(Maps::new(Pins::current(&lab.node(node)?.bpffs)))
}

/// What an agent does after a change of tables: what was remembered of the old ones counts no more.
/// # Errors  when the settings cannot be written.
pub fn put_in_force(maps: &Maps) -> Result<()> {
    let mut array = maps.array::<Settings>("SETTINGS")?;
    let mut settings = array.get(&0, 0)?;
    settings.generation = settings.next_generation();
    array.set(0, settings, 0)?;
    Ok(())
}

/// Since when each path that was ever probed is proven without a break, by kernel time; 0: it is not now.
pub fn proven_since(maps: &Maps) -> Result<BTreeMap<u32, u64>> {
    let now_ns = kernel_time_ns()?;
    let known = maps.entries::<u32, PathHealth>("PATH_HEALTH")?;
    let probed = known.into_iter().filter(|(_, it)| it.answered_ns != 0);
    let since = probed.map(|(path, it)| {
        let is_proven = now_ns.saturating_sub(it.answered_ns) <= health::PATIENCE_NS;
        (path, if is_proven { it.answered_since_ns } else { 0 })
    });
    Ok(since.collect())
}

/// Whether paths that are proven since these times are taken where they are preferred.
pub fn are_steady<'a>(since_ns: impl IntoIterator<Item = &'a u64>) -> Result<bool> {
    let now_ns = kernel_time_ns()?;
    let is_steady =
        |since_ns: &u64| *since_ns != 0 && now_ns.saturating_sub(*since_ns) > health::STEADY_NS;
    Ok(since_ns.into_iter().all(is_steady))
}
