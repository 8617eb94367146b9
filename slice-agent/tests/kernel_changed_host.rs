//! A host that changes under a configuration in force is told of, and holds no removal back.

mod kernel_support;

use std::io::Write as _;
use std::process::{Command, Stdio};

use kernel_support::Node;
use kernel_support::links::{LINKS, NOTHING};
use nix::sys::signal::Signal;
use slice_common::layout::{Capacity, Settings};

const BOTH: [(&str, &str, &str); 2] = [
    ("kafka-0", "10.1.1.10", "10.77.0.2"),
    ("kafka-9", "10.1.1.19", "10.77.0.3"),
];
const ONE_POD: [&str; 3] = [
    "sliceplane_map_entries{map=\"LOCAL\"} 1\n",
    "sliceplane_map_entries{map=\"ENDPOINTS\"} 1\n",
    "sliceplane_config_valid 1\n",
];
const OVERLAP: &str =
    "the range 10.77.0.0/16 overlaps 10.77.128.0/24, a network that this host already routes";

fn shows(node: &Node, lines: &[&str]) -> bool {
    let page = node.get("/metrics");
    lines.iter().all(|line| page.contains(line))
}

/// A node with two pods, of which kafka-9 may go.
fn node_with_two_pods() -> Option<Node> {
    let mut node = Node::build()?;
    node.add_pod("kafka-9", "10.1.1.19");
    node.configure(&BOTH);
    Some(node)
}

fn route_into_the_range(node: &Node) {
    node.ip("route add 10.77.128.0/24 dev nic0");
}

#[test]
fn a_foreign_route_inside_a_range_is_told_and_pods_are_removed_all_the_same() {
    let Some(mut node) = node_with_two_pods() else {
        return;
    };
    node.start();
    assert!(shows(&node, &["sliceplane_map_entries{map=\"LOCAL\"} 2\n"]));
    assert!(shows(&node, &["sliceplane_host_mismatches 0\n"]));

    route_into_the_range(&node);
    node.until("the overlap is told", |node| {
        let told = node.get("/readyz");
        told.starts_with("ready, but degraded: ") && told.contains(OVERLAP)
    });
    assert!(shows(&node, &["sliceplane_host_mismatches 1\n"]));

    node.configure(&BOTH[..1]);
    node.until("the pod that was removed is gone", |node| {
        node.links() == LINKS && shows(node, &ONE_POD)
    });
    let planned = node.plan();
    assert!(planned.contains("DOES NOT FIT: "), "{planned}");
    assert!(planned.starts_with("Nothing to change"), "{planned}");
    let told = "the host does not fit the configuration that is in force";
    assert_eq!(node.log().matches(told).count(), 1, "{}", node.log());

    // The next agent finds it in force, too.
    node.stop(Signal::SIGKILL);
    node.spawn();
    node.until("the next agent is ready", |node| {
        node.get("/readyz").contains(OVERLAP) && shows(node, &ONE_POD)
    });

    node.ip("route del 10.77.128.0/24");
    node.until("the node is well again", |node| {
        node.get("/readyz") == "ready\n" && shows(node, &["sliceplane_host_mismatches 0\n"])
    });
}

/// Where nothing is in force the same overlap is a mistake; and a new range that overlaps is one anywhere.
#[test]
fn a_range_that_is_new_on_a_host_that_routes_it_is_refused() {
    let Some(mut node) = node_with_two_pods() else {
        return;
    };
    route_into_the_range(&node);
    node.spawn();
    node.until("it is refused", |node| node.log().contains(OVERLAP));
    assert!(shows(
        &node,
        &["sliceplane_config_valid 0\n", "sliceplane_ready 0\n"]
    ));
    assert_eq!(node.links(), [""; 0]);

    node.ip("route del 10.77.128.0/24");
    node.until("it fits", |node| node.get("/readyz") == "ready\n");
    node.ip("route add 10.79.1.0/24 dev nic0");
    let text = node.configuration();
    node.configure_with(&text.replace(
        "ranges: [10.77.0.0/16]",
        "ranges: [10.77.0.0/16, 10.79.0.0/16]",
    ));
    node.until("the new range is refused", |node| {
        node.log()
            .contains("the range 10.79.0.0/16 overlaps 10.79.1.0/24")
            && shows(node, &["sliceplane_config_valid 0\n"])
    });
    assert!(!node.ip("route show table 6085").contains("10.79.0.0/16"));
    assert!(shows(&node, &["sliceplane_map_entries{map=\"LOCAL\"} 2\n"]));
}

#[test]
fn pods_leave_a_host_that_has_more_addresses_than_fit() {
    let Some(mut node) = node_with_two_pods() else {
        return;
    };
    let limit = Capacity::NODE_ADDRESSES;
    node.start();

    give_addresses(&node, limit + 10);
    node.until("what is left out is told", |node| {
        let told = node.get("/readyz");
        told.contains("of lo") && told.contains(&format!("know {limit} at most"))
    });
    let full = format!("sliceplane_map_entries{{map=\"NODE_ADDRESSES\"}} {limit}\n");
    node.until("the table is full", |node| shows(node, &[&full]));

    node.configure(&BOTH[..1]);
    node.until("the pod that was removed is gone", |node| {
        node.links() == LINKS && shows(node, &ONE_POD)
    });
    node.ip("addr add 172.20.1.12/24 dev nic0");
    node.until("a new address takes the place of another one", |node| {
        node.plan().starts_with("Nothing to change") && shows(node, &[&full])
    });
}

fn give_addresses(node: &Node, count: usize) {
    let lines: String = (0..count)
        .map(|number| {
            let address = std::net::Ipv4Addr::from(0x0a60_0000 + number as u32);
            format!("addr add {address}/32 dev lo\n")
        })
        .collect();
    node.inside(|| {
        let mut batch = Command::new("ip")
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        batch
            .stdin
            .take()
            .unwrap()
            .write_all(lines.as_bytes())
            .unwrap();
        assert!(batch.wait().unwrap().success());
    });
}

/// Whatever else is wrong: the underlay lost its address, and then the configuration is refused as a whole.
#[test]
fn a_pod_that_vanishes_is_removed_from_a_host_that_does_not_fit() {
    let Some(mut node) = node_with_two_pods() else {
        return;
    };
    node.start();
    node.ip("addr del 172.20.1.11/24 dev nic0");
    node.until("the mismatch is told", |node| {
        node.get("/readyz")
            .contains("does not have the address `172.20.1.11`")
    });
    node.ip("link del p-kafka-9");
    node.until("the pod is gone", |node| {
        node.links() == LINKS && shows(node, &ONE_POD)
    });

    node.stop(Signal::SIGKILL);
    node.configure_with("kind: Node\nclster: east\n");
    node.ip("link del p-kafka-0");
    let left = |node: &Node| {
        let pins = slice_agent::apply::pins::Pins::current(&node.bpffs());
        let maps = slice_agent::apply::maps::Maps::new(pins);
        let endpoints = maps.entries::<u32, slice_common::layout::Endpoint>("ENDPOINTS");
        endpoints.unwrap().len()
    };
    assert_eq!(left(&node), 1, "not vacuous: a dead agent removes nothing");
    node.spawn();
    node.until("the agent without a configuration removed it", |node| {
        left(node) == 0
    });
}

/// The settings, as the programs have them.
fn settings(node: &Node) -> Settings {
    let pins = slice_agent::apply::pins::Pins::current(&node.bpffs());
    let maps = slice_agent::apply::maps::Maps::new(pins);
    let settings = maps.array::<Settings>("SETTINGS").unwrap();
    settings.get(&0, 0).unwrap()
}

fn mark(node: &Node) -> u32 {
    settings(node).tunnel_mark
}

/// Whether the host has a way to the peer for packets with this mark.
fn is_routed(node: &Node, mark: u32) -> bool {
    node.inside(|| {
        let mut ip = Command::new("ip");
        ip.args(["route", "get", "172.20.2.11", "mark", &mark.to_string()]);
        ip.output().unwrap().status.success()
    })
}

#[test]
fn a_routing_rule_that_takes_the_mark_of_tunnel_packets_has_another_one_drawn() {
    let Some(mut node) = Node::build() else {
        return;
    };
    node.ip("route add default via 172.20.1.1 dev nic0");
    node.ip("route add blackhole default table 77");
    node.start();
    let old = mark(&node);
    assert!(is_routed(&node, old));

    // A rule for four bits, as CNIs have them: it looks at some that our mark has.
    let bits = 0xf << (old.trailing_zeros() & !3);
    let fwmark = format!("{:#x}/{bits:#x}", old & bits);
    node.ip(&format!("rule add priority 50 fwmark {fwmark} table 77"));
    assert!(!is_routed(&node, old), "not vacuous");
    node.until("another mark is drawn", |node| mark(node) != old);
    assert!(is_routed(&node, mark(&node)));
    let told = format!("rule 50 (fwmark {fwmark})");
    assert!(node.log().contains(&told), "{}", node.log());
    node.until("nothing is left to do", |node| {
        node.get("/readyz") == "ready\n" && node.plan() == NOTHING
    });

    // The next agent draws none that the rule takes, if it draws one.
    let new = mark(&node);
    node.stop(Signal::SIGKILL);
    node.start();
    assert_eq!(mark(&node), new);

    node.ip("rule add priority 60 fwmark 0/0xffffffff table 77");
    node.until("that no mark does is told", |node| {
        let told = node.get("/readyz");
        told.contains("the routing rule 60 (fwmark 0x0/0xffffffff) of this host notices the mark")
    });
    assert_eq!(mark(&node), new, "another one would do no better");
    assert!(shows(&node, &["sliceplane_host_mismatches 1\n"]));
    node.ip("rule del priority 60");
    node.until("the node is well again", |node| {
        node.get("/readyz") == "ready\n"
    });
}

/// Packets that the node handed to an interface.
fn sent_to(node: &Node, interface: &str) -> u64 {
    let shown = node.ip(&format!("-s link show {interface}"));
    let mut lines = shown
        .lines()
        .skip_while(|line| !line.trim().starts_with("TX:"));
    let numbers = lines.nth(1).unwrap();
    numbers.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The stack delivers by address; the agent is dead, and another one has the address of a pod that is gone.
#[test]
fn who_inherits_a_pods_address_inherits_nothing_of_its_slice() {
    const QUESTIONS: u64 = 20;
    let Some(mut node) = node_with_two_pods() else {
        return;
    };
    let by_stack = "isolation: {level: Slice}\n  delivery: Stack";
    let text = node.configuration();
    node.configure_with(&text.replacen("isolation: {level: Slice}", by_stack, 1));
    node.inside(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
    for (pod, other) in [("kafka-0", "10.77.0.3"), ("kafka-9", "10.77.0.2")] {
        node.open_way(pod, other);
    }
    node.start();
    let ask = |node: &Node| {
        let arguments = format!("-c {QUESTIONS} -i 0.01 -W 1 10.77.0.3");
        let mut ping = node.spawn_in_pod("kafka-0", "ping", &arguments);
        ping.wait().unwrap().success()
    };
    node.until("the pod is delivered to", ask);

    node.stop(Signal::SIGKILL);
    node.ip("link del p-kafka-9");
    node.add_pod("heir", "10.1.1.19");
    // It hears nothing but what the node sends it: not even who asks for its address.
    node.ip("neigh replace 10.1.1.19 lladdr 02:00:00:00:00:09 dev p-heir");
    let before = sent_to(&node, "p-heir");
    assert!(!ask(&node));
    let nothing = sent_to(&node, "p-heir") - before;

    // By the host's own routes it would.
    node.ip("rule del iif sliceplane0 lookup 6087");
    let before = sent_to(&node, "p-heir");
    assert!(!ask(&node));
    let everything = sent_to(&node, "p-heir") - before;
    assert!(
        everything >= QUESTIONS,
        "not vacuous: {everything} of {QUESTIONS}"
    );
    assert!(
        nothing < QUESTIONS / 2,
        "a solicitation at most: {nothing} of {QUESTIONS}"
    );

    // The next agent takes what is left of the pod.
    node.spawn();
    node.until("the next agent found it gone", |node| {
        let told = node.get("/readyz");
        told.contains("endpoints without an interface on this host: 1 (p-kafka-9)")
    });
    assert!(!node.ip("route show table 6087").contains("10.1.1.19"));
    assert!(node.ip("route show table 6087").contains("10.1.1.10"));
}

/// Its tables may be changed and its generation not; then nothing is left to do, and flows would go by the tables before.
#[test]
fn a_plan_that_broke_off_raises_the_generation_when_it_is_looked_at_again() {
    let Some(mut node) = Node::build() else {
        return;
    };
    node.start();
    let before = settings(&node).generation;
    // Somebody else has the port for a moment, so the device cannot be made again, which comes first.
    node.inside(|| {
        let batch = "link del sliceplane0\nlink add other0 type vxlan external dstport 6085\n";
        let mut ip = Command::new("ip");
        let mut ip = ip
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        ip.stdin
            .take()
            .unwrap()
            .write_all(batch.as_bytes())
            .unwrap();
        assert!(ip.wait().unwrap().success());
    });
    node.until("the plan breaks off", |node| {
        node.get("/readyz").contains("already owns UDP port 6085")
    });
    node.until("flows are judged anew", |node| {
        settings(node).generation > before
    });
    node.ip("link del other0");
    node.until("the node is well again", |node| {
        node.get("/readyz") == "ready\n"
    });
}
