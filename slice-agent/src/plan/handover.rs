//! What is in force while the tables of a change are replaced one after the other.
//!
//! Routes, pods and policy are separate tables, so in between a packet could meet new routes and
//! old rules, or the reverse, and pass although both configurations deny it. Therefore, while more than
//! the policy changes, only what both policies allow is allowed; and addresses that change their
//! owner in one step are unreachable until the pods that leave are gone. Packets that both
//! configurations allow, between addresses that keep their owner, do not notice. What may happen is
//! that a pod that leaves meets one that arrives, where both policies allow the two to talk.

use std::collections::{BTreeMap, BTreeSet};

use slice_common::layout::{Capacity, PolicyEntry, PolicyVerdict, Route, RouteKey, RouteKind};

use super::difference::{Policy, Routes};
use crate::image::{NodeImage, Prefixed, Trie};

/// The tables in force during the change.
pub(super) struct Meanwhile {
    /// The old and then the new routes, where addresses that change their owner lead nowhere.
    pub(super) old_routes: Routes,
    pub(super) new_routes: Routes,
    pub(super) policy: Policy,
}

impl Meanwhile {
    pub(super) fn between(observed: &NodeImage, wanted: &NodeImage) -> Self {
        let moved = moved_prefixes(&observed.routes, &wanted.routes);
        let mut meanwhile = Self {
            old_routes: closed_routes(&observed.routes, &wanted.routes, &moved),
            new_routes: closed_routes(&wanted.routes, &observed.routes, &moved),
            policy: if more_than_policy_changes(observed, wanted) {
                stricter_policy(&observed.policy, &wanted.policy)
            } else {
                observed.policy.clone()
            },
        };
        // No room for the finer tables: the slices in question are closed as a whole for a moment,
        // which needs none.
        if meanwhile.old_routes.len().max(meanwhile.new_routes.len()) > Capacity::ROUTES {
            let slices: BTreeSet<u32> = moved.values().flatten().copied().collect();
            meanwhile.old_routes.clone_from(&observed.routes);
            meanwhile.new_routes.clone_from(&wanted.routes);
            meanwhile
                .policy
                .retain(|at, _| !slices.contains(&at.key.slice));
        }
        if meanwhile.policy.len() > Capacity::POLICY {
            let changed = changed_slices(&observed.policy, &wanted.policy);
            meanwhile
                .policy
                .retain(|at, _| !changed.contains(&at.key.slice));
        }
        meanwhile
    }
}

fn more_than_policy_changes(was: &NodeImage, is: &NodeImage) -> bool {
    was.routes != is.routes
        || was.local != is.local
        || was.endpoints != is.endpoints
        || was.peers != is.peers
        || was.attachments != is.attachments
}

/// Prefixes that belong to one owner before and to another after, with the slices of both.
fn moved_prefixes(before: &Routes, after: &Routes) -> BTreeMap<Prefixed<RouteKey>, [u32; 2]> {
    let (was, is) = (Trie::new(before), Trie::new(after));
    let mut moved = BTreeMap::new();
    for at in before.keys().chain(after.keys()) {
        let owners = was
            .lookup(*at)
            .and_then(owner)
            .zip(is.lookup(*at).and_then(owner));
        if let Some((old, new)) = owners
            && old != new
        {
            moved.insert(*at, [old.0, new.0]);
        }
    }
    moved
}

/// Slice and namespace of a block.
fn owner(route: &Route) -> Option<(u32, u32)> {
    match RouteKind::from_number(route.kind) {
        RouteKind::Local | RouteKind::Via => Some((route.slice, route.namespace)),
        RouteKind::Unreachable => None,
    }
}

/// `routes` with the moved prefixes closed; prefixes of `others` in those that do not move stay.
fn closed_routes(
    routes: &Routes,
    others: &Routes,
    moved: &BTreeMap<Prefixed<RouteKey>, [u32; 2]>,
) -> Routes {
    let (open, moved_at) = (Trie::new(routes), Trie::new(moved));
    let mut closed = routes.clone();
    for at in routes.keys().chain(others.keys()) {
        let Some(route) = open.lookup(*at) else {
            continue;
        };
        if moved.contains_key(at) {
            closed.insert(*at, unreachable(route.slice));
        } else if moved_at.lookup(*at).is_some() {
            closed.insert(*at, *route);
        }
    }
    closed
}

fn unreachable(slice: u32) -> Route {
    Route {
        slice,
        cluster: 0,
        namespace: 0,
        kind: RouteKind::Unreachable.number(),
        class: 0,
        dscp: 0,
        path_group: 0,
        deliver_group: 0,
        deliver_members: 0,
    }
}

/// What both policies allow: the old table where the change only adds permissions, the new one
/// where it only takes some away, else a table made of both.
fn stricter_policy(before: &Policy, after: &Policy) -> Policy {
    let (was, is) = (Trie::new(before), Trie::new(after));
    let mut both = Policy::new();
    let (mut takes_away, mut adds) = (false, false);
    for at in before.keys().chain(after.keys()) {
        let (old, new) = (was.lookup(*at).copied(), is.lookup(*at).copied());
        takes_away |= allows(old) && !allows(new);
        adds |= allows(new) && !allows(old);
        let stricter = if allows(old) { new } else { old };
        both.insert(*at, stricter.unwrap_or(DENIED));
    }
    match (takes_away, adds) {
        (false, _) => before.clone(),
        (true, false) => after.clone(),
        (true, true) => both,
    }
}

const DENIED: PolicyEntry = PolicyEntry {
    verdict: PolicyVerdict::Deny.number(),
    rule: 0,
};

fn allows(entry: Option<PolicyEntry>) -> bool {
    entry.is_some_and(|entry| entry.verdict == PolicyVerdict::Allow.number())
}

fn changed_slices(before: &Policy, after: &Policy) -> BTreeSet<u32> {
    let changed = |one: &Policy, other: &Policy| -> Vec<u32> {
        let differing = one
            .iter()
            .filter(|(at, entry)| other.get(at) != Some(entry));
        differing.map(|(at, _)| at.key.slice).collect()
    };
    let mut slices: BTreeSet<u32> = changed(before, after).into_iter().collect();
    slices.extend(changed(after, before));
    slices
}
