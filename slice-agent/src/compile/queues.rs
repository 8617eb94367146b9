//! What keeps packets to their time on an uplink: what stands at the root of its interface, and what is to.

use std::collections::BTreeMap;

use slice_common::layout::{ShaperBackend, ShaperKey, ShaperTerms};

use super::trees;
use crate::image::{ClassTree, FairQueue, HostFacts, Interface, Prefixed, RootQueue};
use crate::model::{Shaper, Validated, ValidatedUplink};

/// What an uplink has, and what it is to get.
pub(super) struct Choice {
    /// What the device does already, and goes on with: nobody waits for what may be refused.
    pub(super) backend: ShaperBackend,
    pub(super) ours: Option<Ours>,
    /// Why it is not more.
    pub(super) reason: Option<Reason>,
}

/// What of ours is to stand at the root.
pub(super) enum Ours {
    Fair { queues: u16 },
    Tree,
}

pub(super) enum Reason {
    Configured,
    /// Somebody's `fq`, where `htb` was asked for.
    Fair,
    NoFair(String),
    NoTree(String),
    Neither(String, String),
}

pub(super) fn choose(uplink: &ValidatedUplink, interface: &Interface, facts: &HostFacts) -> Choice {
    let asked = uplink.shaper;
    let takes_fair = matches!(asked, Shaper::Auto | Shaper::Edt);
    let no_fair = facts.fair_refused.get(&interface.ifindex);
    let is_fair_next = takes_fair && no_fair.is_none();
    let choice = |backend, ours, reason| Choice {
        backend,
        ours,
        reason,
    };
    let (vq, edt, htb) = (ShaperBackend::Vq, ShaperBackend::Edt, ShaperBackend::Htb);
    match (&interface.root_queue, asked) {
        (RootQueue::OurFair, _) if takes_fair => choice(edt, Some(Ours::Fair { queues: 1 }), None),
        (RootQueue::Fair { .. }, _) if takes_fair => choice(edt, None, None),
        // What is ours goes first; then the kernel's own choice is there again.
        (RootQueue::OurFair, _) | (_, Shaper::Vq) => choice(vq, None, None),
        (RootQueue::OurTree, _) if is_fair_next => choice(vq, None, None),
        (RootQueue::OurTree, Shaper::Auto | Shaper::Htb) => {
            let reason = no_fair.filter(|_| asked == Shaper::Auto);
            choice(htb, Some(Ours::Tree), reason.cloned().map(Reason::NoFair))
        }
        (RootQueue::OurTree, _) => choice(vq, None, no_fair.cloned().map(Reason::NoFair)),
        (RootQueue::Fair { .. }, _) => choice(vq, None, Some(Reason::Fair)),
        (RootQueue::Configured { .. }, _) => choice(vq, None, Some(Reason::Configured)),
        (RootQueue::Default { queues }, _) if is_fair_next => {
            let queues = *queues;
            choice(vq, Some(Ours::Fair { queues }), None)
        }
        (RootQueue::Default { .. }, _) => {
            let no_tree = facts.tree_refused.get(&interface.ifindex);
            match (asked, no_fair, no_tree) {
                (Shaper::Auto | Shaper::Htb, no_fair, None) => {
                    let reason = no_fair.filter(|_| asked == Shaper::Auto);
                    choice(vq, Some(Ours::Tree), reason.cloned().map(Reason::NoFair))
                }
                (Shaper::Auto, Some(fair), Some(tree)) => {
                    let reason = Reason::Neither(fair.clone(), tree.clone());
                    choice(vq, None, Some(reason))
                }
                (Shaper::Edt, Some(why), _) => choice(vq, None, Some(Reason::NoFair(why.clone()))),
                (_, _, why) => choice(vq, None, why.cloned().map(Reason::NoTree)),
            }
        }
    }
}

type Wanted = (BTreeMap<u32, FairQueue>, BTreeMap<u32, ClassTree>);

/// What of ours is to stand at the roots of uplinks where packets of slices shall wait.
pub(super) fn wanted(
    configuration: &Validated,
    facts: &HostFacts,
    rates: &BTreeMap<Prefixed<ShaperKey>, ShaperTerms>,
) -> Wanted {
    let mut wanted = Wanted::default();
    for (uplink, interface) in shaped_uplinks(configuration, facts) {
        let (ifindex, name) = (interface.ifindex, uplink.interface.clone());
        match choose(uplink, interface, facts).ours {
            Some(Ours::Fair { queues }) => {
                let fair = FairQueue {
                    interface: name,
                    queues,
                };
                wanted.0.insert(ifindex, fair);
            }
            Some(Ours::Tree) => {
                let tree = trees::tree(&name, ifindex, rates);
                wanted.1.extend(tree.map(|tree| (ifindex, tree)));
            }
            None => {}
        }
    }
    wanted
}

pub(super) fn shaped_uplinks<'a>(
    configuration: &'a Validated,
    facts: &'a HostFacts,
) -> impl Iterator<Item = (&'a ValidatedUplink, &'a Interface)> {
    let is_shaped = configuration
        .slices()
        .iter()
        .any(|slice| slice.profile.is_some());
    let uplinks = configuration.node().uplinks.iter();
    uplinks
        .filter(move |_| is_shaped)
        .filter_map(|uplink| Some((uplink, facts.interfaces.get(&uplink.interface)?)))
}
