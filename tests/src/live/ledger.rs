//! Drops, counted exactly.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::child::poll_until;
use crate::lab::Lab;
use crate::lab::inventory::NODES;
use crate::probe::{Drops, drops_at};

/// How long a drop may take to be counted.
const LIMIT: Duration = Duration::from_secs(3);

/// How often each (node, slice, reason) was counted.
pub type Counted = BTreeMap<(String, String, String), u64>;

/// The drop counters of all nodes.
pub fn drops_everywhere(lab: &Lab) -> Result<Drops> {
    drops_at(lab, &NODES.map(|node| node.name))
}

/// What was counted since `before`, on any node, for any reason.
pub fn counted_since(lab: &Lab, before: &Drops) -> Result<Counted> {
    let now = drops_everywhere(lab)?;
    let added = now.into_iter().filter_map(|(key, count)| {
        let added = count - before.get(&key).copied().unwrap_or(0);
        (added > 0).then_some((key, added))
    });
    Ok(added.collect())
}

/// Does something and insists that all nodes together count just these drops because of it, as
/// (node, slice, reason, packets). Slice `0` stands for packets that name none.
/// # Errors  with what was counted instead.
pub fn expect_drops(
    lab: &Lab,
    expected: &[(&str, &str, &str, u64)],
    act: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let expected: Counted = expected
        .iter()
        .map(|(node, slice, reason, count)| {
            let key = ((*node).into(), (*slice).into(), (*reason).into());
            (key, *count)
        })
        .collect();
    let before = drops_everywhere(lab)?;
    act()?;
    poll_until(LIMIT, || {
        Ok((counted_since(lab, &before)? == expected).then_some(()))
    })?;
    let counted = counted_since(lab, &before)?;
    ensure!(
        counted == expected,
        "drops: expected {expected:?}, counted {counted:?}"
    );
    Ok(())
}
