//! The differences between two maps, as data.

use std::collections::BTreeMap;

use slice_common::layout::{PolicyEntry, PolicyKey, Route, RouteKey};

use super::{Put, Remove, Swap};
use crate::image::Prefixed;

pub(super) type Routes = BTreeMap<Prefixed<RouteKey>, Route>;
pub(super) type Policy = BTreeMap<Prefixed<PolicyKey>, PolicyEntry>;

/// More lines than this help nobody.
const LINES_MAX: usize = 500;

/// The entries to write: those that are new or have another value.
pub(super) fn puts<K: Copy + Ord, V: Clone + PartialEq>(
    observed: &BTreeMap<K, V>,
    wanted: &BTreeMap<K, V>,
    text: impl Fn(&K, &V) -> String,
) -> impl Iterator<Item = Put<K, V>> {
    wanted
        .iter()
        .filter(move |(key, value)| observed.get(key) != Some(value))
        .map(move |(key, value)| Put {
            key: *key,
            value: value.clone(),
            replaces: observed.contains_key(key),
            text: text(key, value),
        })
}

/// The entries to remove, in reverse order.
pub(super) fn removals<K: Copy + Ord, V>(
    observed: &BTreeMap<K, V>,
    wanted: &BTreeMap<K, V>,
    text: impl Fn(&K, &V) -> String,
) -> impl Iterator<Item = Remove<K>> {
    observed
        .iter()
        .rev()
        .filter(move |(key, _)| !wanted.contains_key(key))
        .map(move |(key, value)| Remove {
            key: *key,
            text: text(key, value),
        })
}

/// The swap of a whole table, or `None` when nothing differs.
pub(super) fn swap<K: Copy + Ord, V: Clone + PartialEq>(
    observed: &BTreeMap<Prefixed<K>, V>,
    wanted: &BTreeMap<Prefixed<K>, V>,
    text: impl Fn(&Prefixed<K>, &V) -> String,
) -> Option<Swap<K, V>> {
    let (mut added, mut removed, mut changed) = (0, 0, 0);
    let mut lines = Vec::new();
    for (key, value) in observed.iter().filter(|(key, _)| !wanted.contains_key(key)) {
        removed += 1;
        lines.push(format!("- {}", text(key, value)));
    }
    for (key, value) in wanted {
        match observed.get(key) {
            Some(before) if before == value => continue,
            Some(_) => {
                changed += 1;
                lines.push(format!("~ {}", text(key, value)));
            }
            None => {
                added += 1;
                lines.push(format!("+ {}", text(key, value)));
            }
        }
    }
    if lines.is_empty() {
        return None;
    }
    if lines.len() > LINES_MAX {
        let more = lines.len() - LINES_MAX;
        lines.truncate(LINES_MAX);
        lines.push(format!("... and {more} more"));
    }
    Some(Swap {
        table: wanted.clone(),
        added,
        removed,
        changed,
        lines,
    })
}
