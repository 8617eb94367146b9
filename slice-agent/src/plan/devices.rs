//! The changes of devices and programs.

use std::collections::BTreeSet;

use super::Change;
use crate::image::{Attachment, NodeImage, Program};

/// What happens to the port owner and to the programs.
pub(super) struct Devices<'a> {
    observed: &'a NodeImage,
    wanted: &'a NodeImage,
    create_owner: bool,
    missing: Vec<&'a Attachment>,
    obsolete: Vec<&'a Attachment>,
}

impl<'a> Devices<'a> {
    pub(super) fn compare(observed: &'a NodeImage, wanted: &'a NodeImage) -> Self {
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

    pub(super) fn creates_owner(&self) -> bool {
        self.create_owner
    }

    /// The drop-all program is on the port owner before any packet can go up into it. A device
    /// cannot change its port, so it is replaced; meanwhile our program still takes every packet.
    pub(super) fn port_owner_first(&self) -> Vec<Change> {
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

    /// The programs of pods that left, of which the one that keeps strangers away goes first.
    pub(super) fn detach_pods(&self) -> Vec<Change> {
        self.obsolete
            .iter()
            .rev()
            .filter(|old| matches!(old.program, Program::PodEgress | Program::PodIngress))
            .map(|old| Change::Detach((*old).clone()))
            .collect()
    }

    pub(super) fn attach(&self) -> Vec<Change> {
        let mut list = Vec::new();
        for missing in self
            .missing
            .iter()
            .filter(|at| at.program != Program::TunnelIngress)
        {
            list.extend(
                self.obsolete
                    .iter()
                    .filter(|old| is_on_the_underlay(old))
                    .filter(|old| was_replaced(old, missing))
                    .map(|old| Change::Detach((*old).clone())),
            );
            list.push(Change::Attach((*missing).clone()));
        }
        list
    }

    pub(super) fn detach_underlay(&self) -> Vec<Change> {
        self.obsolete
            .iter()
            .filter(|old| is_on_the_underlay(old))
            .filter(|old| !self.missing.iter().any(|new| was_replaced(old, new)))
            .map(|old| Change::Detach((*old).clone()))
            .collect()
    }

    /// The device goes before its drop-all program does.
    pub(super) fn port_owner_last(&self) -> Vec<Change> {
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

fn is_on_the_underlay(attachment: &Attachment) -> bool {
    matches!(
        attachment.program,
        Program::UnderlayIngress | Program::UnderlayGuard | Program::UnderlayFilter
    )
}

/// First what receives from peers (of a new layout the filter before the rest, so that it never goes by older
/// tables than they), then what lets a pod send, then what keeps strangers from it: a
/// pod that already talks keeps its replies, because its requests are noted before any is judged. The
/// guard of the underlay comes last: it stops packets without the mark that `pod_egress` gives.
fn in_order(
    attachments: &BTreeSet<Attachment>,
    keep: impl Fn(&Attachment) -> bool,
) -> Vec<&Attachment> {
    let mut list: Vec<_> = attachments.iter().filter(|at| keep(at)).collect();
    list.sort_by_key(|at| match at.program {
        Program::TunnelIngress => 0,
        Program::UnderlayFilter => 1,
        Program::UnderlayIngress => 2,
        Program::PodEgress => 3,
        Program::PodIngress => 4,
        Program::UnderlayGuard => 5,
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
