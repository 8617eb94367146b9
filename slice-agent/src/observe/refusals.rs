//! What kernel and drivers refused, and for how long that is not tried again.

use rtnetlink::Handle;

use crate::apply::{htb, queueing};
use crate::image::{HostFacts, RootQueue};
use crate::model::ValidatedUplink;

/// Takes over what was refused on interfaces that are still there. A queue is tried again where somebody put another
/// one at the root meanwhile, or took one away: it may have been refused because of that. What the agent itself puts
/// there is no reason to.
pub fn remember(facts: &mut HostFacts, before: &HostFacts) {
    for interface in facts.interfaces.values() {
        let ifindex = interface.ifindex;
        if let Some(why) = before.filter_refused.get(&ifindex) {
            facts.filter_refused.insert(ifindex, why.clone());
        }
        let then = root_queue(before, ifindex);
        let now = &interface.root_queue;
        let is_somebodys = |root: &RootQueue| root.is_somebodys();
        if then != Some(now) && (now.is_somebodys() || then.is_some_and(is_somebodys)) {
            continue;
        }
        if let Some(why) = before.fair_refused.get(&ifindex) {
            facts.fair_refused.insert(ifindex, why.clone());
        }
        if let Some(why) = before.tree_refused.get(&ifindex) {
            facts.tree_refused.insert(ifindex, why.clone());
        }
    }
}

/// Has queues tried again that were refused, but for those in whose place packets wait in classes of ours: they would
/// be lost each time.
pub fn forget(facts: &mut HostFacts) {
    let waits = |ifindex: u32| root_queue(facts, ifindex) == Some(&RootQueue::OurTree);
    let (mut fair, mut tree) = (facts.fair_refused.clone(), facts.tree_refused.clone());
    fair.retain(|ifindex, _| waits(*ifindex));
    tree.retain(|ifindex, _| waits(*ifindex));
    (facts.fair_refused, facts.tree_refused) = (fair, tree);
}

fn root_queue(facts: &HostFacts, ifindex: u32) -> Option<&RootQueue> {
    let mut interfaces = facts.interfaces.values();
    let interface = interfaces.find(|it| it.ifindex == ifindex);
    interface.map(|it| &it.root_queue)
}

/// Notes on which of these interfaces there will be no `fq`, and no `htb`, where it is not known yet.
pub async fn ask_for_queues(netlink: &Handle, uplinks: &[ValidatedUplink], facts: &mut HostFacts) {
    for uplink in uplinks {
        let Some(interface) = facts.interfaces.get(&uplink.interface) else {
            continue;
        };
        let ifindex = interface.ifindex;
        let has_default = matches!(interface.root_queue, RootQueue::Default { .. });
        if (has_default || interface.root_queue == RootQueue::OurTree)
            && !facts.fair_refused.contains_key(&ifindex)
            && let Some(why) = queueing::refusal(netlink, ifindex).await
        {
            facts.fair_refused.insert(ifindex, why);
        }
        if has_default
            && !facts.tree_refused.contains_key(&ifindex)
            && let Some(why) = htb::refusal(netlink, ifindex).await
        {
            facts.tree_refused.insert(ifindex, why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Interface;

    const IFINDEX: u32 = 2;

    /// A host with this at the root of its interface, where everything was refused.
    fn refusing(root_queue: RootQueue) -> HostFacts {
        let why = || [(IFINDEX, "no".to_owned())].into();
        HostFacts {
            filter_refused: why(),
            fair_refused: why(),
            tree_refused: why(),
            ..host(root_queue)
        }
    }

    fn host(root_queue: RootQueue) -> HostFacts {
        let interface = Interface {
            ifindex: IFINDEX,
            root_queue,
            ..Interface::default()
        };
        HostFacts {
            interfaces: [("nic0".to_owned(), interface)].into(),
            ..HostFacts::default()
        }
    }

    fn refused(facts: &HostFacts) -> [bool; 3] {
        let all = [
            &facts.filter_refused,
            &facts.fair_refused,
            &facts.tree_refused,
        ];
        all.map(|refused| refused.contains_key(&IFINDEX))
    }

    #[test]
    fn queues_are_tried_again_when_somebody_puts_one_there_or_takes_it_away() {
        let of_kernel = RootQueue::Default { queues: 1 };
        let tbf = |handle| RootQueue::Configured {
            kind: "tbf".to_owned(),
            handle,
        };
        let after = |then: &RootQueue, now: &RootQueue| {
            let mut facts = host(now.clone());
            remember(&mut facts, &refusing(then.clone()));
            refused(&facts)
        };
        let (all, queues_again) = ([true; 3], [true, false, false]);
        assert_eq!(after(&of_kernel, &of_kernel), all);
        assert_eq!(after(&tbf(7), &tbf(7)), all);
        for [then, now] in [
            [&of_kernel, &tbf(7)],
            [&tbf(7), &of_kernel],
            [&tbf(7), &tbf(8)],
            [&RootQueue::Fair { handle: 1 }, &of_kernel],
            [&RootQueue::OurTree, &tbf(7)],
        ] {
            assert_eq!(after(then, now), queues_again, "{then:?}, {now:?}");
        }
        // What the agent does itself: else it would go round in circles.
        for [then, now] in [
            [&of_kernel, &RootQueue::OurTree],
            [&RootQueue::OurTree, &of_kernel],
            [&of_kernel, &RootQueue::OurFair],
        ] {
            assert_eq!(after(then, now), all, "{then:?}, {now:?}");
        }
    }

    #[test]
    fn what_was_refused_on_a_device_that_is_gone_is_forgotten() {
        let mut facts = HostFacts::default();
        remember(&mut facts, &refusing(RootQueue::default()));
        assert_eq!(refused(&facts), [false; 3]);
    }

    #[test]
    fn queues_are_tried_again_from_time_to_time_where_no_classes_of_ours_are_in_their_place() {
        let after = |root_queue| {
            let mut facts = refusing(root_queue);
            forget(&mut facts);
            refused(&facts)
        };
        assert_eq!(after(RootQueue::default()), [true, false, false]);
        assert_eq!(after(RootQueue::OurTree), [true; 3]);
    }
}
