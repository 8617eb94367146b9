//! The agent on a real kernel: start, restart, reload, pods that come and go.

mod kernel_support;

use kernel_support::Node;
use kernel_support::links::{LINKS, NOTHING, link_ids, links, program_ids};
use nix::sys::signal::Signal;

#[test]
fn a_node_is_planned_applied_and_then_as_configured() {
    let Some(mut node) = Node::build() else {
        return;
    };
    let planned = node.plan();
    assert!(
        planned.contains("+ program pod_egress on p-kafka-0\n"),
        "{planned}"
    );
    assert!(!node.bpffs().join("sliceplane").exists(), "plan only reads");

    node.start();

    assert_eq!(node.plan(), NOTHING);
    assert_eq!(node.links(), LINKS);
    assert!(
        node.ip("route show table 6085")
            .contains("unreachable 10.77.0.0/16")
    );
    assert!(node.ip("rule show").contains("100:\tfrom all lookup 6085"));
    let device = node.ip("-d link show sliceplane0");
    assert!(
        device.contains("vxlan external")
            && device.contains("dstport 6085")
            && device.contains("alias sliceplane: owns UDP port 6085"),
        "{device}"
    );
    let page = node.get("/metrics");
    for line in [
        "sliceplane_ready 1\n",
        "sliceplane_map_entries{map=\"LOCAL\"} 1\n",
    ] {
        assert!(page.contains(line), "{page}");
    }
    assert_eq!(node.get("/healthz"), "alive\n");
}

#[test]
fn a_killed_agent_leaves_everything_and_the_next_one_replaces_programs_in_place() {
    let Some(mut node) = Node::build() else {
        return;
    };
    node.start();
    let before = links(&node);

    node.stop(Signal::SIGKILL);
    assert_eq!(links(&node), before, "nothing changes when the agent dies");
    assert_eq!(node.plan(), NOTHING);

    let (ids, programs) = (link_ids(&node), program_ids(&node));
    node.start();
    assert_eq!(link_ids(&node), ids, "the same links");
    for (old, new) in programs.iter().zip(program_ids(&node)) {
        assert_ne!(*old, new, "with new programs");
    }
    assert_eq!(node.plan(), NOTHING);

    assert_eq!(node.stop(Signal::SIGTERM), Some(0));
    assert_eq!(link_ids(&node), ids);
}

#[test]
fn a_changed_configuration_is_followed_and_a_bad_one_changes_nothing() {
    let Some(mut node) = Node::build() else {
        return;
    };
    node.add_pod("kafka-9", "10.1.1.19");
    node.start();

    let both = [
        ("kafka-0", "10.1.1.10", "10.77.0.2"),
        ("kafka-9", "10.1.1.19", "10.77.0.3"),
    ];
    node.configure(&both);
    node.until("the second pod is attached and found", |node| {
        node.links().contains(&"p-kafka-9-pod_egress".to_owned())
            && node
                .get("/metrics")
                .contains("sliceplane_map_entries{map=\"LOCAL\"} 2\n")
            && node.plan() == NOTHING
    });
    let before = links(&node);

    node.configure_with("kind: Node\nclster: east\n");
    node.until("the mistake is noticed", |node| {
        node.get("/metrics").contains("sliceplane_config_valid 0\n")
    });
    assert_eq!(links(&node), before);
    assert!(node.log().contains("clster"), "{}", node.log());

    node.configure(&both[..1]);
    node.until("the second pod is gone", |node| node.links() == LINKS);
    node.until("the configuration is valid again", |node| {
        let page = node.get("/metrics");
        page.contains("sliceplane_config_valid 1\n")
            && page.contains("sliceplane_map_entries{map=\"ENDPOINTS\"} 1\n")
    });
    assert_eq!(node.plan(), NOTHING);
}

#[test]
fn a_pod_without_an_interface_keeps_nothing_else_waiting_and_is_served_when_it_appears() {
    let Some(mut node) = Node::build() else {
        return;
    };
    let both = [
        ("kafka-0", "10.1.1.10", "10.77.0.2"),
        ("kafka-9", "10.1.1.19", "10.77.0.3"),
    ];
    let missing = "endpoints without an interface on this host: 1 (p-kafka-9)";
    let told = |node: &Node| {
        let log = node.log();
        let sentence = "this host has no interface `p-kafka-9`; it has";
        log.matches(sentence).count()
    };
    node.configure(&both);
    node.open_way("kafka-0", "10.77.0.3");

    node.start();

    assert_eq!(node.links(), LINKS, "the other pod is served");
    let planned = node.plan();
    let for_those_here = "Nothing to change for the pods that are here.\nNOT SERVED: pod kafka-9: ";
    assert!(planned.starts_with(for_those_here), "{planned}");
    assert_eq!(node.run("plan").status.code(), Some(3));
    let readiness = format!("ready, but degraded: {missing}\n");
    assert_eq!(node.get("/readyz"), readiness);
    assert_eq!(told(&node), 1);
    let page = node.get("/metrics");
    for line in [
        "sliceplane_config_valid 1\n",
        "sliceplane_endpoints_without_interface 1\n",
        "sliceplane_map_entries{map=\"LOCAL\"} 1\n",
    ] {
        assert!(page.contains(line), "{line} {page}");
    }
    let no_endpoint = "sliceplane_drops_total{slice=\"kafka\",reason=\"no_endpoint\"} 1\n";
    assert!(!page.contains(no_endpoint), "{page}");
    let ping = |node: &Node| node.spawn_in_pod("kafka-0", "ping", "-c 1 -W 1 10.77.0.3");
    ping(&node).wait().unwrap();
    let page = node.get("/metrics");
    assert!(page.contains(no_endpoint), "counted: {page}");

    node.add_pod("kafka-9", "10.1.1.19");
    node.open_way("kafka-9", "10.77.0.2");
    node.until("the new interface is attached", |node| {
        node.get("/readyz") == "ready\n" && node.links().len() == LINKS.len() + 2
    });
    node.until("its pod is found", |node| {
        ping(node).wait().unwrap().success()
    });

    node.ip("link del p-kafka-9");
    node.until("the absence is told again", |node| {
        node.get("/readyz") == readiness && told(node) == 2
    });
    let page = node.get("/metrics");
    for line in [
        "sliceplane_map_entries{map=\"LOCAL\"} 1\n",
        "sliceplane_map_entries{map=\"ENDPOINTS\"} 1\n",
    ] {
        assert!(page.contains(line), "nothing stale: {line} {page}");
    }
}

#[test]
fn a_pod_interface_that_vanishes_and_comes_back_is_attached_again() {
    let Some(mut node) = Node::build() else {
        return;
    };
    node.start();
    let before = node.link_pins();

    node.ip("link del p-kafka-0");
    node.until("the pins of the interface are gone", |node| {
        node.link_pins().len() == LINKS.len() - 2
    });

    node.add_pod("kafka-0", "10.1.1.10");
    node.until("the new interface is attached", |node| {
        node.links() == LINKS && node.plan() == NOTHING
    });
    assert_ne!(node.link_pins(), before, "under another interface number");
    node.until("the node is well again", |node| {
        node.get("/readyz") == "ready\n"
    });
}
