//! What others did to our maps, pins, links and hooks is found and put right.

mod kernel_support;

use std::fs;
use std::path::PathBuf;

use aya::maps::{HashMap, MapData, MapInfo};
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, TcAttachType};
use kernel_support::links::{LINKS, NOTHING, link_ids, links, program_ids};
use kernel_support::stranger::{self, Stranger};
use kernel_support::{Node, text};
use nix::sys::signal::Signal;

#[test]
fn a_map_that_is_not_ours_is_noticed_and_replaced_under_the_running_links() {
    let Some(mut node) = Node::build() else {
        return;
    };
    node.start();
    node.stop(Signal::SIGKILL);
    let ids = link_ids(&node);
    let stranger: HashMap<MapData, u32, u64> = HashMap::create(8, 0).unwrap();
    let pin = node.pins().join("maps/PEERS");
    fs::remove_file(&pin).unwrap();
    stranger.pin(&pin).unwrap();

    node.start();

    let log = node.log();
    assert!(
        log.contains("PEERS is a Hash with 4-byte keys, 8-byte values and 8 entries"),
        "{log}"
    );
    assert_eq!(link_ids(&node), ids, "the links were taken over");
    assert_eq!(node.links(), LINKS);
    assert_eq!(node.plan(), NOTHING);
    let left = slice_agent::apply::pins::entries(&node.bpffs().join("sliceplane")).unwrap();
    let kept = [node.bpffs().join("sliceplane/clsact"), node.pins()];
    assert_eq!(left, kept, "what was put aside is removed");
}

#[test]
fn no_packet_is_lost_while_agents_die_return_and_replace_damaged_maps() {
    let Some(mut node) = with_two_pods_that_talk() else {
        return;
    };
    let mut ping = node.spawn_in_pod("kafka-0", "ping", "-i 0.002 -c 3000 -W 2 10.77.0.3");

    for _ in 0..3 {
        node.stop(Signal::SIGKILL);
        node.start();
    }
    node.stop(Signal::SIGKILL);
    fs::remove_file(node.pins().join("maps/ROUTES")).unwrap();
    node.start();
    assert!(
        node.log().contains("ROUTES is not pinned"),
        "{}",
        node.log()
    );
    assert!(
        ping.try_wait().unwrap().is_none(),
        "packets were on their way all the time"
    );

    let output = ping.wait_with_output().unwrap();
    let shown = text(&output);
    assert!(
        shown.contains("3000 packets transmitted, 3000 received"),
        "{shown}"
    );
}

#[test]
fn pins_of_maps_that_vanish_or_are_replaced_are_made_again_without_losing_a_packet() {
    let Some(mut node) = Node::build() else {
        return;
    };
    node.add_pod("kafka-9", "10.1.1.19");
    let both = [
        ("kafka-0", "10.1.1.10", "10.77.0.2"),
        ("kafka-9", "10.1.1.19", "10.77.0.3"),
    ];
    node.configure(&both);
    node.open_way("kafka-0", "10.77.0.3");
    node.open_way("kafka-9", "10.77.0.2");
    node.start();
    let maps = node.pins().join("maps");
    let ids = || -> Vec<u32> {
        let pins = slice_agent::apply::pins::entries(&maps).unwrap();
        let id = |pin| Some(MapInfo::from_pin(pin).ok()?.id());
        pins.iter().filter_map(id).collect()
    };
    let before = (ids(), links(&node));
    let mut ping = node.spawn_in_pod("kafka-0", "ping", "-i 0.002 -c 1000 -W 2 10.77.0.3");

    for pin in slice_agent::apply::pins::entries(&maps).unwrap() {
        fs::remove_file(pin).unwrap();
    }
    let stranger: HashMap<MapData, u32, u64> = HashMap::create(8, 0).unwrap();
    stranger.pin(maps.join("PEERS")).unwrap();
    assert_ne!(ids(), before.0);
    node.hang_up();

    node.until("the pins are there again", |_| ids() == before.0);
    assert!(
        ping.try_wait().unwrap().is_none(),
        "packets were on their way all the time"
    );
    assert_eq!(links(&node), before.1);
    assert_eq!(node.plan(), NOTHING);
    assert!(node.log().contains("they are pinned again"));
    let shown = text(&ping.wait_with_output().unwrap());
    assert!(
        shown.contains("1000 packets transmitted, 1000 received"),
        "{shown}"
    );

    fs::remove_dir_all(node.bpffs().join("sliceplane")).unwrap();
    node.hang_up();
    node.until("links that went with their pins are made anew", |node| {
        node.links().len() == LINKS.len() + 2 && ids() == before.0 && node.plan() == NOTHING
    });
}

#[test]
fn pinned_links_with_a_strangers_program_or_on_another_hook_are_made_ours() {
    let Some(mut node) = Node::build() else {
        return;
    };
    node.start();
    let before = links(&node);
    let pin = |name: &str| {
        let named = |pin: &&PathBuf| pin.to_string_lossy().ends_with(name);
        before.keys().find(named).unwrap().clone()
    };
    let (egress, ingress) = (pin("pod_egress"), pin("pod_ingress"));
    let mut stranger = Stranger::load(&node);
    stranger.take_over(&egress);
    let last = TcAttachOptions::TcxOrder(LinkOrder::last());
    let mut other = Stranger::load(&node);
    let elsewhere = other.attach(&node, "p-kafka-0", TcAttachType::Ingress, last);
    stranger::pin_over(elsewhere, &ingress);
    node.stop(Signal::SIGKILL);

    let planned = node.plan();
    for line in [
        "+ program pod_egress on p-kafka-0\n",
        "+ program pod_ingress on p-kafka-0\n",
    ] {
        assert!(planned.contains(line), "{planned}");
    }
    node.start();

    let after = links(&node);
    assert_eq!(after[&egress].link_id, before[&egress].link_id);
    assert_ne!(after[&ingress].link_id, before[&ingress].link_id);
    assert!(!program_ids(&node).contains(&stranger.id()));
    assert_eq!(node.links(), LINKS);
}

#[test]
fn a_program_that_was_put_before_ours_comes_after_it_again_unless_its_owner_insists() {
    let Some(node) = with_two_pods_that_talk() else {
        return;
    };
    let before = links(&node);
    let ping = |count: u32| {
        let arguments = format!("-i 0.002 -c {count} -W 1 10.77.0.3");
        let ping = node.spawn_in_pod("kafka-0", "ping", &arguments);
        text(&ping.wait_with_output().unwrap())
    };
    let mut stranger = Stranger::load(&node);
    let mut insist = || {
        let first = TcAttachOptions::TcxOrder(LinkOrder::first());
        stranger.attach(&node, "p-kafka-0", TcAttachType::Ingress, first)
    };
    assert!(ping(1).contains("1 received"));

    for moves in 1..=2 {
        let _strangers = insist();
        assert!(ping(1).contains("0 received"), "the stranger drops it");
        node.hang_up();
        node.until("ours is first again", |node| {
            let log = node.log();
            log.matches("pod_egress on the ingress of p-kafka-0 came after program tunnel_ingress")
                .count()
                == moves
        });
        let shown = ping(200);
        assert!(shown.contains("200 received"), "{shown}");
        assert_eq!(node.get("/readyz"), "ready\n");
    }
    let after = links(&node);
    assert!(after.keys().eq(before.keys()), "{after:?}");

    let strangers = insist();
    node.hang_up();
    let told = "pod_egress on the ingress of p-kafka-0 by program tunnel_ingress #";
    node.until("the third time it is told", |node| {
        let page = node.get("/readyz");
        page.starts_with("ready, but degraded") && page.contains(told)
    });
    assert!(
        node.get("/metrics")
            .contains("sliceplane_hooks_preceded 1\n")
    );
    assert!(node.log().contains(told));
    assert_eq!(links(&node), after, "no fight");

    drop(strangers);
    node.hang_up();
    node.until("all is well", |node| node.get("/readyz") == "ready\n");
    assert!(
        node.get("/metrics")
            .contains("sliceplane_hooks_preceded 0\n")
    );
}

#[test]
fn no_packet_is_lost_while_our_program_moves_before_another() {
    let Some(node) = with_two_pods_that_talk() else {
        return;
    };
    // It passes slice packets of a pod on: to it, they come from nobody.
    let mut stranger = Stranger::load_named(&node, "pod_egress");
    let mut ping = node.spawn_in_pod("kafka-0", "ping", "-i 0.002 -c 1000 -W 2 10.77.0.3");
    let first = TcAttachOptions::TcxOrder(LinkOrder::first());
    let _strangers = stranger.attach(&node, "p-kafka-0", TcAttachType::Ingress, first);
    node.hang_up();
    node.until("ours is first again", |node| {
        node.log().contains("came after program pod_egress")
    });
    assert!(
        ping.try_wait().unwrap().is_none(),
        "packets were on their way all the time"
    );
    let shown = text(&ping.wait_with_output().unwrap());
    assert!(
        shown.contains("1000 packets transmitted, 1000 received"),
        "{shown}"
    );
}

/// A node whose agent runs, and whose pods `kafka-0` and `kafka-9` reach each other in the slice.
fn with_two_pods_that_talk() -> Option<Node> {
    let mut node = Node::build()?;
    node.add_pod("kafka-9", "10.1.1.19");
    node.configure(&[
        ("kafka-0", "10.1.1.10", "10.77.0.2"),
        ("kafka-9", "10.1.1.19", "10.77.0.3"),
    ]);
    node.open_way("kafka-0", "10.77.0.3");
    node.open_way("kafka-9", "10.77.0.2");
    node.start();
    Some(node)
}
