//! The order of a change. Each line of `additions` may rely on those above it.

use super::difference::{puts, removals, swap};
use super::{Change, describe, handover};
use crate::image::{Attachment, Names, NodeImage, Program};

pub(super) fn plan(observed: &NodeImage, wanted: &NodeImage, names: &Names) -> Vec<Change> {
    let devices = Devices::compare(observed, wanted);
    let writes = additions(observed, wanted, names);
    let mut removed = entries_removed(observed, wanted, names);
    let activate = activate(observed, wanted, !(writes.is_empty() && removed.is_empty()));

    let mut changes = devices.port_owner_first();
    changes.extend(writes);
    changes.extend(activate);
    changes.extend(devices.attach());
    changes.extend(devices.detach());
    changes.append(&mut removed);
    changes.extend(devices.port_owner_last());
    changes
}

fn additions(observed: &NodeImage, wanted: &NodeImage, names: &Names) -> Vec<Change> {
    let (was, is) = (observed, wanted);
    let mut list = Vec::new();
    let (mut routes, mut policy) = (&was.routes, &was.policy);
    let closed = handover::close(was, is);
    if let Some(closed) = &closed {
        list.extend(
            swap(routes, &closed.routes, |k, v| describe::route(names, k, v))
                .map(Change::SwapRoutes),
        );
        list.extend(
            swap(policy, &closed.policy, |k, v| describe::policy(names, k, v))
                .map(Change::SwapPolicy),
        );
        (routes, policy) = (&closed.routes, &closed.policy);
    }
    list.extend(
        puts(&was.paths, &is.paths, |k, v| describe::path(names, *k, v))
            .into_iter()
            .map(Change::PutPath),
    );
    list.extend(
        puts(&was.path_groups, &is.path_groups, |k, v| {
            describe::path_group(names, *k, v)
        })
        .into_iter()
        .map(Change::PutPathGroup),
    );
    list.extend(
        puts(&was.peers, &is.peers, |k, v| describe::peer(names, *k, v))
            .into_iter()
            .map(Change::PutPeer),
    );
    list.extend(
        puts(&was.slices, &is.slices, |k, _| describe::slice(names, *k))
            .into_iter()
            .map(Change::PutSlice),
    );
    list.extend(
        puts(&was.local, &is.local, |k, v| describe::local(names, k, v))
            .into_iter()
            .map(Change::PutLocal),
    );
    list.extend(
        puts(&was.endpoints, &is.endpoints, |k, v| {
            describe::endpoint(names, *k, v)
        })
        .into_iter()
        .map(Change::PutEndpoint),
    );
    list.extend(
        puts(&was.node_addresses, &is.node_addresses, |k, _| {
            describe::node_address(*k)
        })
        .into_iter()
        .map(Change::PutNodeAddress),
    );
    list.extend(
        swap(routes, &is.routes, |k, v| describe::route(names, k, v)).map(Change::SwapRoutes),
    );
    list.extend(
        swap(policy, &is.policy, |k, v| describe::policy(names, k, v)).map(Change::SwapPolicy),
    );
    list.extend(
        swap(&was.classes, &is.classes, |k, v| {
            describe::class(names, k, v)
        })
        .map(Change::SwapClasses),
    );
    list.extend(
        is.guards
            .difference(&was.guards)
            .copied()
            .map(Change::AddGuard),
    );
    list
}

/// The map entries and guards that nothing uses any more, those that led to others first.
fn entries_removed(was: &NodeImage, is: &NodeImage, names: &Names) -> Vec<Change> {
    let mut list: Vec<Change> = was
        .guards
        .difference(&is.guards)
        .copied()
        .map(Change::RemoveGuard)
        .collect();
    list.extend(
        removals(&was.node_addresses, &is.node_addresses, |k, _| {
            describe::node_address(*k)
        })
        .into_iter()
        .map(Change::RemoveNodeAddress),
    );
    list.extend(
        removals(&was.endpoints, &is.endpoints, |k, v| {
            describe::endpoint(names, *k, v)
        })
        .into_iter()
        .map(Change::RemoveEndpoint),
    );
    list.extend(
        removals(&was.local, &is.local, |k, v| describe::local(names, k, v))
            .into_iter()
            .map(Change::RemoveLocal),
    );
    list.extend(
        removals(&was.slices, &is.slices, |k, _| describe::slice(names, *k))
            .into_iter()
            .map(Change::RemoveSlice),
    );
    list.extend(
        removals(&was.peers, &is.peers, |k, v| describe::peer(names, *k, v))
            .into_iter()
            .map(Change::RemovePeer),
    );
    list.extend(
        removals(&was.path_groups, &is.path_groups, |k, v| {
            describe::path_group(names, *k, v)
        })
        .into_iter()
        .map(Change::RemovePathGroup),
    );
    list.extend(
        removals(&was.paths, &is.paths, |k, v| describe::path(names, *k, v))
            .into_iter()
            .map(Change::RemovePath),
    );
    list
}

/// The next generation, when anything that packets are judged by changes.
fn activate(observed: &NodeImage, wanted: &NodeImage, entries_change: bool) -> Option<Change> {
    let mut next = wanted.settings?;
    let generation = observed.settings.map_or(0, |settings| settings.generation);
    next.generation = generation;
    if observed.settings == Some(next) && !entries_change {
        return None;
    }
    // 0 means "never configured", so the count skips it when it wraps.
    next.generation = generation.checked_add(1).unwrap_or(1);
    Some(Change::Activate(next))
}

/// What happens to the port owner and to the programs.
struct Devices<'a> {
    observed: &'a NodeImage,
    wanted: &'a NodeImage,
    create_owner: bool,
    missing: Vec<&'a Attachment>,
    obsolete: Vec<&'a Attachment>,
}

impl<'a> Devices<'a> {
    fn compare(observed: &'a NodeImage, wanted: &'a NodeImage) -> Self {
        let create_owner = wanted.port_owner.is_some() && observed.port_owner != wanted.port_owner;
        let kept = |have: &Attachment, want: &Attachment| {
            same_place(have, want) && !(create_owner && want.program == Program::TunnelIngress)
        };
        let missing = in_order(&wanted.attachments, |want| {
            !observed.attachments.iter().any(|have| kept(have, want))
        });
        let obsolete = in_order(&observed.attachments, |have| {
            !wanted.attachments.iter().any(|want| kept(have, want))
        });
        Self {
            observed,
            wanted,
            create_owner,
            missing,
            obsolete,
        }
    }

    /// The drop-all program is on the port owner before any packet can go up into it. A device
    /// cannot change its port, so it is replaced; meanwhile our program still takes every packet.
    fn port_owner_first(&self) -> Vec<Change> {
        let mut list = Vec::new();
        if self.create_owner {
            list.extend(
                self.observed
                    .port_owner
                    .clone()
                    .map(Change::RemovePortOwner),
            );
        }
        if self.wanted.port_owner.is_some() {
            list.extend(self.obsolete_tunnel());
        }
        if self.create_owner {
            list.extend(self.wanted.port_owner.clone().map(Change::CreatePortOwner));
        }
        for missing in self
            .missing
            .iter()
            .filter(|at| at.program == Program::TunnelIngress)
        {
            let ifindex = if self.create_owner {
                0
            } else {
                missing.ifindex
            };
            list.push(Change::Attach(Attachment {
                ifindex,
                ..(*missing).clone()
            }));
        }
        list
    }

    fn attach(&self) -> Vec<Change> {
        let mut list = Vec::new();
        for missing in self
            .missing
            .iter()
            .filter(|at| at.program != Program::TunnelIngress)
        {
            list.extend(
                self.obsolete
                    .iter()
                    .filter(|old| was_replaced(old, missing))
                    .map(|old| Change::Detach((*old).clone())),
            );
            list.push(Change::Attach((*missing).clone()));
        }
        list
    }

    fn detach(&self) -> Vec<Change> {
        self.obsolete
            .iter()
            .rev()
            .filter(|old| old.program != Program::TunnelIngress)
            .filter(|old| !self.missing.iter().any(|new| was_replaced(old, new)))
            .map(|old| Change::Detach((*old).clone()))
            .collect()
    }

    /// The device goes before its drop-all program does.
    fn port_owner_last(&self) -> Vec<Change> {
        let mut list = Vec::new();
        if self.wanted.port_owner.is_none() {
            list.extend(
                self.observed
                    .port_owner
                    .clone()
                    .map(Change::RemovePortOwner),
            );
            list.extend(self.obsolete_tunnel());
        }
        list
    }

    fn obsolete_tunnel(&self) -> impl Iterator<Item = Change> {
        self.obsolete
            .iter()
            .filter(|old| old.program == Program::TunnelIngress)
            .map(|old| Change::Detach((*old).clone()))
    }
}

/// First what receives from peers, then what lets a pod send, then what keeps strangers from it: a
/// pod that already talks keeps its replies, because its requests are noted before any is judged.
fn in_order(
    attachments: &std::collections::BTreeSet<Attachment>,
    keep: impl Fn(&Attachment) -> bool,
) -> Vec<&Attachment> {
    let mut list: Vec<_> = attachments.iter().filter(|at| keep(at)).collect();
    list.sort_by_key(|at| match at.program {
        Program::TunnelIngress => 0,
        Program::UnderlayIngress => 1,
        Program::PodEgress => 2,
        Program::PodIngress => 3,
    });
    list
}

fn same_place(have: &Attachment, want: &Attachment) -> bool {
    let named = want.ifindex == 0 && have.interface == want.interface;
    have.program == want.program && (named || have.ifindex == want.ifindex)
}

/// Whether the device of `old` was deleted and `new` is another one by its name.
fn was_replaced(old: &Attachment, new: &Attachment) -> bool {
    old.program == new.program && old.interface == new.interface
}
