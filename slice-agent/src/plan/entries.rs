//! The changes of map entries.

use slice_common::layout::Capacity;

use super::difference::{Policy, Routes, puts, removals, swap};
use super::{Change, describe, rates};
use crate::image::{Names, NodeImage, WayBack};

pub(super) struct Entries<'a> {
    pub(super) was: &'a NodeImage,
    pub(super) is: &'a NodeImage,
    pub(super) names: &'a Names,
}

impl Entries<'_> {
    pub(super) fn nodes_written(&self) -> Vec<Change> {
        let Self { was, is, names } = *self;
        let mut list = Vec::new();
        list.extend(
            puts(&was.paths, &is.paths, |k, v| describe::path(names, *k, v)).map(Change::PutPath),
        );
        list.extend(
            puts(&was.path_groups, &is.path_groups, |k, v| {
                describe::path_group(names, *k, v)
            })
            .map(Change::PutPathGroup),
        );
        list.extend(
            puts(&was.peers, &is.peers, |k, v| describe::peer(names, *k, v)).map(Change::PutPeer),
        );
        list.extend(
            puts(&was.slices, &is.slices, |k, _| describe::slice(names, *k)).map(Change::PutSlice),
        );
        list
    }

    pub(super) fn pods_written(&self) -> Vec<Change> {
        let Self { was, is, names } = *self;
        let mut list = Vec::new();
        list.extend(
            puts(&was.local, &is.local, |k, v| describe::local(names, k, v)).map(Change::PutLocal),
        );
        list.extend(
            puts(&was.endpoints, &is.endpoints, |k, v| {
                describe::endpoint(names, *k, v)
            })
            .map(Change::PutEndpoint),
        );
        if !self.has_room_for_node_addresses() {
            list.extend(self.node_addresses_removed());
        }
        list.extend(
            puts(&was.node_addresses, &is.node_addresses, |k, _| {
                describe::node_address(*k)
            })
            .map(Change::PutNodeAddress),
        );
        list
    }

    /// Whether those that come fit beside those that go, which is all the same to packets: these are then removed
    /// with the rest.
    fn has_room_for_node_addresses(&self) -> bool {
        let (was, is) = (&self.was.node_addresses, &self.is.node_addresses);
        let new = is.keys().filter(|address| !was.contains_key(address));
        was.len() + new.count() <= Capacity::NODE_ADDRESSES
    }

    fn node_addresses_removed(&self) -> impl Iterator<Item = Change> {
        let (was, is) = (&self.was.node_addresses, &self.is.node_addresses);
        removals(was, is, |k, _| describe::node_address(*k)).map(Change::RemoveNodeAddress)
    }

    pub(super) fn routes(&self, from: &Routes, to: &Routes) -> Vec<Change> {
        let text = |k: &_, v: &_| describe::route(self.names, k, v);
        swap(from, to, text)
            .map(Change::SwapRoutes)
            .into_iter()
            .collect()
    }

    pub(super) fn policy(&self, from: &Policy, to: &Policy) -> Vec<Change> {
        let text = |k: &_, v: &_| describe::policy(self.names, k, v);
        swap(from, to, text)
            .map(Change::SwapPolicy)
            .into_iter()
            .collect()
    }

    pub(super) fn classes(&self) -> Option<Change> {
        let text = |k: &_, v: &_| describe::class(self.names, k, v);
        swap(&self.was.classes, &self.is.classes, text).map(Change::SwapClasses)
    }

    pub(super) fn rates(&self) -> Option<Change> {
        let text = |k: &_, v: &_| rates::terms(self.names, k, v);
        swap(&self.was.rates, &self.is.rates, text).map(Change::SwapRates)
    }

    pub(super) fn fair_queues_added(&self) -> impl Iterator<Item = Change> {
        let missing = self.is.fair_queues.iter();
        missing
            .filter(|(ifindex, _)| !self.was.fair_queues.contains_key(ifindex))
            .map(|(ifindex, queue)| Change::AddFairQueue(*ifindex, queue.clone()))
    }

    pub(super) fn fair_queues_removed(&self) -> impl Iterator<Item = Change> {
        let obsolete = self.was.fair_queues.iter();
        obsolete
            .filter(|(ifindex, _)| !self.is.fair_queues.contains_key(ifindex))
            .map(|(ifindex, queue)| Change::RemoveFairQueue(*ifindex, queue.clone()))
    }

    pub(super) fn outside(&self) -> Option<Change> {
        let text = |k: &_, _: &_| describe::outside(self.names, k);
        swap(&self.was.outside, &self.is.outside, text).map(Change::SwapOutside)
    }

    pub(super) fn guards_added(&self) -> Vec<Change> {
        self.is
            .guards
            .difference(&self.was.guards)
            .copied()
            .map(Change::AddGuard)
            .collect()
    }

    /// Routes go with the device that they lead to.
    pub(super) fn ways_back_added(&self, is_device_new: bool) -> Vec<Change> {
        let is_there = |way: &WayBack| {
            let is_kept = !is_device_new || matches!(way, WayBack::From(_));
            is_kept && self.was.ways_back.contains(way)
        };
        let wanted = self.is.ways_back.iter();
        let added = wanted.filter(|way| !is_there(way));
        added.copied().map(Change::AddWayBack).collect()
    }

    pub(super) fn ways_back_removed(&self) -> Vec<Change> {
        let gone = self.was.ways_back.difference(&self.is.ways_back);
        gone.copied().map(Change::RemoveWayBack).collect()
    }

    /// The routes of all pods are there before any other one ends to be.
    pub(super) fn pod_routes_put(&self) -> Vec<Change> {
        let (was, is) = (self.was, self.is);
        let new = is.pod_routes.iter();
        let new = new.filter(|(pod, route)| was.pod_routes.get(pod) != Some(route));
        let mut list: Vec<_> = new
            .map(|(pod, route)| Change::PutPodRoute(*pod, *route))
            .collect();
        if is.pod_routes_in_force && !was.pod_routes_in_force {
            list.push(Change::EnforcePodRoutes);
        }
        list
    }

    pub(super) fn pod_routes_removed(&self) -> Vec<Change> {
        let (was, is) = (self.was, self.is);
        let gone = was.pod_routes.keys();
        let gone = gone.filter(|pod| !is.pod_routes.contains_key(pod));
        let mut list: Vec<_> = gone.copied().map(Change::RemovePodRoute).collect();
        if was.pod_routes_in_force && !is.pod_routes_in_force {
            list.push(Change::ForgetPodRoutes);
        }
        list
    }

    /// The entries of pods that left, the one that lets them send first.
    pub(super) fn pods_removed(&self) -> Vec<Change> {
        let Self { was, is, names } = *self;
        let mut list = Vec::new();
        list.extend(
            removals(&was.endpoints, &is.endpoints, |k, v| {
                describe::endpoint(names, *k, v)
            })
            .map(Change::RemoveEndpoint),
        );
        list.extend(
            removals(&was.local, &is.local, |k, v| describe::local(names, k, v))
                .map(Change::RemoveLocal),
        );
        list
    }

    /// The guards, and what no route leads to any more.
    pub(super) fn nodes_removed(&self) -> Vec<Change> {
        let Self { was, is, names } = *self;
        let mut list = Vec::new();
        list.extend(
            was.guards
                .difference(&is.guards)
                .copied()
                .map(Change::RemoveGuard),
        );
        if self.has_room_for_node_addresses() {
            list.extend(self.node_addresses_removed());
        }
        list.extend(
            removals(&was.slices, &is.slices, |k, _| describe::slice(names, *k))
                .map(Change::RemoveSlice),
        );
        list.extend(
            removals(&was.peers, &is.peers, |k, v| describe::peer(names, *k, v))
                .map(Change::RemovePeer),
        );
        list.extend(
            removals(&was.path_groups, &is.path_groups, |k, v| {
                describe::path_group(names, *k, v)
            })
            .map(Change::RemovePathGroup),
        );
        list.extend(
            removals(&was.paths, &is.paths, |k, v| describe::path(names, *k, v))
                .map(Change::RemovePath),
        );
        list
    }
}
