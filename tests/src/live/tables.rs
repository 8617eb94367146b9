//! A node's tables in the hands of a test.

use anyhow::Result;
use slice_agent::apply::maps::Maps;
use slice_agent::apply::pins::Pins;
use slice_common::layout::Settings;

use crate::lab::Lab;

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
