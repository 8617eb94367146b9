//! What happens to addresses that change their owner in one step.
//!
//! Routes and policy are two tables, so between their swaps a packet could be judged as the new
//! owner by the old rules and pass although both configurations deny it. Such addresses are
//! unreachable during the change, and their slices allow what both policies allow. Packets between
//! addresses that keep their owner do not notice.

use std::collections::{BTreeMap, BTreeSet};

use slice_common::layout::{
    Capacity, PolicyEntry, PolicyKey, PolicyVerdict, Route, RouteKey, RouteKind,
};

use crate::image::{NodeImage, Prefixed, Trie};

type Routes = BTreeMap<Prefixed<RouteKey>, Route>;
type Policy = BTreeMap<Prefixed<PolicyKey>, PolicyEntry>;

/// The tables in force during the change.
pub(super) struct Closed {
    pub(super) routes: Routes,
    pub(super) policy: Policy,
}

/// Returns the tables in force during the change, or `None` when no address changes its owner.
pub(super) fn close(observed: &NodeImage, wanted: &NodeImage) -> Option<Closed> {
    let moved = moved_prefixes(&observed.routes, &wanted.routes);
    let mut slices: BTreeSet<u32> = moved.values().flatten().copied().collect();
    slices.extend(slices_of_moved_pods(observed, wanted));
    if slices.is_empty() {
        return None;
    }
    let closed = Closed {
        routes: closed_routes(&observed.routes, &wanted.routes, &moved),
        policy: closed_policy(&observed.policy, &wanted.policy, &slices),
    };
    if closed.routes.len() <= Capacity::ROUTES && closed.policy.len() <= Capacity::POLICY {
        return Some(closed);
    }
    // No room for the finer tables: the slices are closed as a whole, which needs none.
    let policy = observed
        .policy
        .iter()
        .filter(|(at, _)| !slices.contains(&at.key.slice));
    Some(Closed {
        routes: observed.routes.clone(),
        policy: policy.map(|(at, entry)| (*at, *entry)).collect(),
    })
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

fn slices_of_moved_pods(was: &NodeImage, is: &NodeImage) -> BTreeSet<u32> {
    let mut slices = BTreeSet::new();
    for (ifindex, old) in &was.endpoints {
        if let Some(new) = is.endpoints.get(ifindex)
            && (old.slice, old.namespace) != (new.slice, new.namespace)
        {
            slices.extend([old.slice, new.slice]);
        }
    }
    for (address, old) in &was.local {
        if let Some(new) = is.local.get(address)
            && (old.slice, old.namespace) != (new.slice, new.namespace)
        {
            slices.extend([old.slice, new.slice]);
        }
    }
    slices
}

fn closed_routes(
    before: &Routes,
    after: &Routes,
    moved: &BTreeMap<Prefixed<RouteKey>, [u32; 2]>,
) -> Routes {
    let (was, moved_at) = (Trie::new(before), Trie::new(moved));
    let mut closed = before.clone();
    for at in before.keys().chain(after.keys()) {
        let Some(route) = was.lookup(*at) else {
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
        path_group: 0,
        deliver_group: 0,
        deliver_members: 0,
    }
}

/// What both policies allow, in `slices`; the other slices keep the old rules.
fn closed_policy(before: &Policy, after: &Policy, slices: &BTreeSet<u32>) -> Policy {
    let (was, is) = (Trie::new(before), Trie::new(after));
    let mut closed = before.clone();
    for at in before
        .keys()
        .chain(after.keys())
        .filter(|at| slices.contains(&at.key.slice))
    {
        closed.insert(*at, stricter(was.lookup(*at), is.lookup(*at)));
    }
    closed
}

fn stricter(old: Option<&PolicyEntry>, new: Option<&PolicyEntry>) -> PolicyEntry {
    let denied = PolicyEntry {
        verdict: PolicyVerdict::Deny.number(),
        rule: 0,
    };
    let allows = |entry: PolicyEntry| entry.verdict == PolicyVerdict::Allow.number();
    let (old, new) = (
        old.copied().unwrap_or(denied),
        new.copied().unwrap_or(denied),
    );
    if allows(old) { new } else { old }
}
