//! What packets of slices wait in on an uplink: chosen by what the host has, by what a node asks for, and never in
//! place of what somebody configured.

mod config_support;

use config_support::qos::{CLASSES, carried_out, image, shaped, shaped_but};
use config_support::{check_text, east_1};
use slice_agent::compile::{UplinkQueue, uplink_queues};
use slice_agent::image::{HostFacts, Names, NodeImage, RootQueue, TreeClass};
use slice_agent::observe::host;
use slice_agent::plan::{self, Change, plan};
use slice_common::id::TrafficClass;
use slice_common::layout::{QueueClass, ShaperBackend, ShaperTerms};

/// Slice kafka under a ceiling, on a host with this at the root of the uplink's interface.
fn behind(root_queue: RootQueue) -> (HostFacts, NodeImage, Names) {
    let mut facts = east_1();
    let nic = facts.interfaces.get_mut("nic0").expect("nic0");
    nic.root_queue = root_queue;
    let (image, names) = image(&shaped(), &facts);
    (facts, image, names)
}

fn backend_of(image: &NodeImage) -> u32 {
    image.rates.values().next().expect("one slice").backend
}

fn notes(text: &str, facts: &HostFacts) -> Vec<String> {
    let queues = queues(text, facts);
    queues.iter().filter_map(UplinkQueue::note).collect()
}

fn queues(text: &str, facts: &HostFacts) -> Vec<UplinkQueue> {
    uplink_queues(&check_text(text).expect("right"), facts)
}

fn asking(shaper: &str) -> String {
    shaped_but(&[("rate: 300M", &format!("rate: 300M, shaper: {shaper}"))])
}

/// When nothing is shaped any more, packets leave as they come first, and what they waited in goes then.
fn goes_after_the_rates(there: &NodeImage, facts: &HostFacts, is_removal: fn(&Change) -> bool) {
    let (after, names) = image(config_support::RIGHT, facts);
    let changes = plan(there, &after, &names);
    let place = |is: fn(&Change) -> bool| changes.iter().position(is).expect("there");
    assert!(place(|it| matches!(it, Change::SwapRates(_))) < place(is_removal));
}

const LEAVES_AT_ONCE: &str =
    "what is early leaves at once, and what would wait too long is dropped";

#[test]
fn a_fair_queue_that_is_there_is_used_and_stays() {
    let (facts, image, names) = behind(RootQueue::Fair { handle: 1 });
    assert_eq!(backend_of(&image), ShaperBackend::Edt.number());
    let text = plan::render(&plan(&NodeImage::default(), &image, &names));
    assert!(
        text.contains("by uplink wan, with departure times: 200M"),
        "{text}"
    );
    assert!(!text.contains("queueing discipline"), "{text}");
    assert_eq!(notes(&shaped(), &facts), [""; 0]);
}

/// Departures are written only when there is something that keeps packets until then.
#[test]
fn what_the_kernel_chose_is_replaced_by_a_fair_queue_first() {
    let (facts, wanted, names) = behind(RootQueue::Default { queues: 4 });
    assert_eq!(backend_of(&wanted), ShaperBackend::Vq.number());
    let text = plan::render(&plan(&NodeImage::default(), &wanted, &names));
    let added = "+ queueing discipline fq on each of 4 queues of nic0";
    assert!(text.contains(added), "{text}");
    assert_eq!(notes(&shaped(), &facts), [""; 0]);

    let there = carried_out(
        NodeImage::default(),
        &plan(&NodeImage::default(), &wanted, &names),
    );
    let (facts, next, names) = behind(RootQueue::OurFair);
    assert_eq!(backend_of(&next), ShaperBackend::Edt.number());
    let changes = plan(&there, &next, &names);
    assert!(
        matches!(&changes[..], [Change::SwapRates(_)]),
        "{}",
        plan::render(&changes)
    );
    goes_after_the_rates(&next, &facts, |it| {
        matches!(it, Change::RemoveFairQueue(..))
    });
}

#[test]
fn where_there_is_no_fair_queue_packets_wait_in_a_tree_of_classes_and_that_is_told() {
    let (mut facts, ..) = behind(RootQueue::Default { queues: 1 });
    facts
        .fair_refused
        .insert(2, "this kernel has none".to_owned());
    let (wanted, names) = image(&shaped(), &facts);
    assert!(wanted.fair_queues.is_empty());
    // Packets are sent to classes only when there are some.
    assert_eq!(backend_of(&wanted), ShaperBackend::Vq.number());
    let changes = plan(&NodeImage::default(), &wanted, &names);
    let text = plan::render(&changes);
    assert!(text.contains("htb on nic0"), "{text}");
    let told = "QUEUE: on nic0: this kernel has none; packets wait in classes of htb";
    assert_eq!(notes(&shaped(), &facts), [told]);

    let there = carried_out(NodeImage::default(), &changes);
    facts.interfaces.get_mut("nic0").expect("nic0").root_queue = RootQueue::OurTree;
    let (next, names) = image(&shaped(), &facts);
    assert_eq!(backend_of(&next), ShaperBackend::Htb.number());
    let changes = plan(&there, &next, &names);
    // What waits may wait longer than before, so there is more room before anything is sent there.
    assert!(
        matches!(&changes[..], [Change::MendTree(2, _), Change::SwapRates(_)]),
        "{}",
        plan::render(&changes)
    );
    goes_after_the_rates(&next, &facts, |it| matches!(it, Change::RemoveTree(..)));
}

#[test]
fn another_rate_changes_classes_where_they_are() {
    let (mut facts, ..) = behind(RootQueue::OurTree);
    let slower = shaped_but(&[("default: 200M", "default: 100M")]);
    let text = [shaped(), slower];
    facts
        .fair_refused
        .insert(2, "this kernel has none".to_owned());
    let [(before, _), (after, names)] = text.each_ref().map(|text| image(text, &facts));
    let changes = plan(&before, &after, &names);
    let trees: Vec<_> = changes
        .iter()
        .filter(|it| {
            matches!(
                it,
                Change::BuildTree(..) | Change::MendTree(..) | Change::TrimTree(..)
            )
        })
        .collect();
    assert!(
        matches!(trees[..], [Change::MendTree(2, _)]),
        "{}",
        plan::render(&changes)
    );
    assert_eq!(carried_out(before, &changes).trees, after.trees);
}

/// The kernel drops what waits in a class that is removed.
#[test]
fn a_class_that_is_not_wanted_any_more_stays_while_packets_wait_in_it() {
    let (mut facts, ..) = behind(RootQueue::OurTree);
    facts
        .fair_refused
        .insert(2, "this kernel has none".to_owned());
    let (wanted, names) = image(&shaped(), &facts);
    let of_class = [QueueClass::Class, QueueClass::Front, QueueClass::Back];
    let [class, front, back] = of_class.map(|part| part(1000).minor());
    let mut there = wanted.clone();
    let tree = there.trees.get_mut(&2).expect("a tree");
    let slice = *tree.classes.values().next().expect("a class");
    for (minor, parent) in [(class, slice.parent), (front, class), (back, class)] {
        tree.classes.insert(minor, TreeClass { parent, ..slice });
    }
    let removed = |waiting: &[u16]| {
        let mut there = there.clone();
        there.trees.get_mut(&2).expect("a tree").waiting = waiting.iter().copied().collect();
        let changes = plan(&there, &wanted, &names);
        match &changes[..] {
            [Change::TrimTree(2, trimming)] => trimming.classes.clone(),
            _ => panic!("{}", plan::render(&changes)),
        }
    };
    assert_eq!(removed(&[]), [back, front, class]);
    assert_eq!(removed(&[back]), [front]);
    // Those that are wanted are nobody's business.
    let others: Vec<u16> = wanted.trees[&2].classes.keys().copied().collect();
    assert_eq!(removed(&others), [back, front, class]);
}

/// Flows of a class that is removed go on to wait at its back, until nothing is there any more.
#[test]
fn the_back_of_a_class_that_is_removed_stays_while_packets_wait_there() {
    let (mut facts, ..) = behind(RootQueue::OurTree);
    facts
        .fair_refused
        .insert(2, "this kernel has none".to_owned());
    let (before, _) = image(&shaped(), &facts);
    let client = TrafficClass::from_low_bits(3);
    let terms = |image: &NodeImage| *image.rates.values().next().expect("one slice");
    let back = QueueClass::Back(ShaperTerms::class_clocks(terms(&before).clocks, client)).minor();
    let line = CLASSES.lines().last().expect("the class client");
    let without = shaped_but(&[(&format!("{line}\n"), "")]);
    let look = |there: &NodeImage| {
        let mut facts = facts.clone();
        let known = host::known_in(there, &facts.interfaces);
        host::remember(&mut facts, &known);
        let (wanted, names) = image(&without, &facts);
        let changes = plan(there, &wanted, &names);
        (changes.len(), carried_out(there.clone(), &changes))
    };
    let is_there = |image: &NodeImage| image.trees[&2].classes.contains_key(&back);
    // Whatever waits when the class is removed.
    let (_, mut there) = look(&before);
    assert!(is_there(&there) && terms(&there).is_vacated(client));
    there.trees.get_mut(&2).expect("a tree").waiting = [back].into();
    let (changes, mut there) = look(&there);
    assert_eq!(changes, 0);
    there.trees.get_mut(&2).expect("a tree").waiting.clear();
    let (_, there) = look(&there);
    assert!(!is_there(&there) && !terms(&there).is_vacated(client));
    assert_eq!(look(&there).0, 0);
}

#[test]
fn a_host_with_neither_fair_queue_nor_classes_is_told_so() {
    let (mut facts, ..) = behind(RootQueue::Default { queues: 1 });
    facts.fair_refused.insert(2, "no fq".to_owned());
    facts.tree_refused.insert(2, "no htb".to_owned());
    let (wanted, _) = image(&shaped(), &facts);
    assert!(wanted.fair_queues.is_empty() && wanted.trees.is_empty());
    assert_eq!(backend_of(&wanted), ShaperBackend::Vq.number());
    let told = format!("NO QUEUE: on nic0: no fq, no htb; {LEAVES_AT_ONCE}");
    assert_eq!(notes(&shaped(), &facts), [told]);
}

#[test]
fn a_node_may_name_what_keeps_packets_to_their_time() {
    let (facts, ..) = behind(RootQueue::Default { queues: 1 });
    // Without a wish it is a fair queue.
    let (best, _) = image(&asking("Auto"), &facts);
    assert_eq!((best.fair_queues.len(), best.trees.len()), (1, 0));
    let (tree, _) = image(&asking("Htb"), &facts);
    assert_eq!((tree.fair_queues.len(), tree.trees.len()), (0, 1));
    let (nothing, _) = image(&asking("Vq"), &facts);
    assert_eq!((nothing.fair_queues.len(), nothing.trees.len()), (0, 0));
    // What is ours goes first where another is wished for.
    let (facts, ..) = behind(RootQueue::OurFair);
    let (other, _) = image(&asking("Htb"), &facts);
    assert_eq!((other.fair_queues.len(), other.trees.len()), (0, 0));
    assert_eq!(backend_of(&other), ShaperBackend::Vq.number());
    let refused = check_text(asking("Cake")).expect_err("nobody knows it");
    let refused = refused.to_string();
    assert!(
        refused.contains("Cake") && refused.contains("Htb"),
        "{refused}"
    );
}

#[test]
fn what_somebody_configured_stays_and_is_named() {
    let (facts, wanted, _) = behind(RootQueue::Configured {
        kind: "htb".to_owned(),
        handle: 0x10,
    });
    assert!(wanted.fair_queues.is_empty());
    assert_eq!(backend_of(&wanted), ShaperBackend::Vq.number());
    let told = format!(
        "NO QUEUE: on nic0: somebody configured htb 10:, which stays; {LEAVES_AT_ONCE}; put fq there, or remove it \
         (`tc qdisc del dev nic0 root`)"
    );
    assert_eq!(notes(&shaped(), &facts), [told]);
}

/// What `slice-agent status` says of the uplink, and what a metric has: the root, whose it is, and what was refused.
fn told(text: &str, facts: &HostFacts) -> (String, [String; 3]) {
    let queues = queues(text, facts);
    let [queue] = &queues[..] else {
        panic!("one uplink: {queues:?}");
    };
    let metric = [&queue.root, queue.owner, queue.refused].map(str::to_owned);
    (queue.to_string(), metric)
}

#[test]
fn people_read_what_was_chosen_and_why() {
    let tbf = || RootQueue::Configured {
        kind: "tbf".to_owned(),
        handle: 7,
    };
    let fq = || RootQueue::Fair { handle: 1 };
    let scenes = [
        (
            "Auto",
            RootQueue::OurFair,
            "edt: packets wait in fq 51ce:, until their departure".to_owned(),
            ["fq 51ce:", "agent", ""],
        ),
        (
            "Edt",
            fq(),
            "edt: packets wait in fq 1:, which somebody configured, until their departure, as asked for".to_owned(),
            ["fq 1:", "somebody", ""],
        ),
        (
            "Htb",
            RootQueue::OurTree,
            "htb: packets wait in classes of htb 51ce:, as asked for".to_owned(),
            ["htb 51ce:", "agent", ""],
        ),
        (
            "Vq",
            tbf(),
            format!("vq: no queue, as asked for; {LEAVES_AT_ONCE}"),
            ["tbf 7:", "somebody", ""],
        ),
        (
            "Auto",
            RootQueue::default(),
            "vq: fq is put there next".to_owned(),
            ["", "kernel", ""],
        ),
        (
            "Auto",
            RootQueue::OurTree,
            "vq: htb 51ce: makes room for another queue next".to_owned(),
            ["htb 51ce:", "agent", ""],
        ),
        (
            "Auto",
            tbf(),
            format!(
                "vq (fq refused): somebody configured tbf 7:, which stays; {LEAVES_AT_ONCE}; put fq there, or remove it \
                 (`tc qdisc del dev nic0 root`)"
            ),
            ["tbf 7:", "somebody", "fq"],
        ),
        (
            "Htb",
            fq(),
            format!(
                "vq (htb refused): somebody configured fq 1:, which stays; {LEAVES_AT_ONCE}; ask for `shaper: Edt`, or \
                 remove it (`tc qdisc del dev nic0 root`)"
            ),
            ["fq 1:", "somebody", "htb"],
        ),
    ];
    for (shaper, root_queue, line, metric) in scenes {
        let (facts, ..) = behind(root_queue);
        let line = format!("uplink wan on nic0, {line}");
        assert_eq!(
            told(&asking(shaper), &facts),
            (line, metric.map(str::to_owned))
        );
    }
}

#[test]
fn people_read_what_the_kernel_refused() {
    let refusing = |root_queue| {
        let (mut facts, ..) = behind(root_queue);
        facts.fair_refused.insert(2, "no fq".to_owned());
        facts
    };
    let mut facts = refusing(RootQueue::OurTree);
    let line = "uplink wan on nic0, htb (fq refused): no fq; packets wait in classes of htb";
    assert_eq!(told(&shaped(), &facts).0, line);
    facts = refusing(RootQueue::default());
    facts.tree_refused.insert(2, "no htb".to_owned());
    let line = format!("uplink wan on nic0, vq (fq, htb refused): no fq, no htb; {LEAVES_AT_ONCE}");
    let metric = ["", "kernel", "fq, htb"].map(str::to_owned);
    assert_eq!(told(&shaped(), &facts), (line, metric));
    let against_wish = |text: &str| queues(text, &facts)[0].is_against_wish;
    assert!(against_wish(&asking("Edt")) && against_wish(&asking("Htb")));
    assert!(!against_wish(&shaped()) && !against_wish(&asking("Vq")));
}
