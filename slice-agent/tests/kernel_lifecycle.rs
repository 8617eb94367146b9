//! The agent on a real kernel: start, restart, reload, damage, removal.

mod kernel_support;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use aya::maps::{HashMap, MapData, MapInfo};
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, TcAttachType};
use kernel_support::stranger::{self, Stranger};
use kernel_support::{Node, text};
use nix::sys::signal::Signal;
use slice_agent::apply::tcx::{self, LinkFacts};

const NOTHING: &str = "Nothing to change: this host is as the configuration wants it.\n";
const LINKS: [&str; 5] = [
    "nic0-underlay_guard",
    "nic0-underlay_ingress",
    "p-kafka-0-pod_egress",
    "p-kafka-0-pod_ingress",
    "sliceplane0-tunnel_ingress",
];

fn links(node: &Node) -> BTreeMap<PathBuf, LinkFacts> {
    let facts = |pin: PathBuf| (pin.clone(), tcx::facts(&pin).unwrap().unwrap());
    node.link_pins().into_iter().map(facts).collect()
}

fn link_ids(node: &Node) -> Vec<u32> {
    links(node).values().map(|link| link.link_id).collect()
}

fn program_ids(node: &Node) -> Vec<u32> {
    links(node).values().map(|link| link.program_id).collect()
}

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
    let Some(mut node) = Node::build() else {
        return;
    };
    node.add_pod("kafka-9", "10.1.1.19");
    node.configure(&[
        ("kafka-0", "10.1.1.10", "10.77.0.2"),
        ("kafka-9", "10.1.1.19", "10.77.0.3"),
    ]);
    node.open_way("kafka-0", "10.77.0.3");
    node.open_way("kafka-9", "10.77.0.2");
    node.start();
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
    let Some(mut node) = Node::build() else {
        return;
    };
    node.add_pod("kafka-9", "10.1.1.19");
    node.configure(&[
        ("kafka-0", "10.1.1.10", "10.77.0.2"),
        ("kafka-9", "10.1.1.19", "10.77.0.3"),
    ]);
    node.open_way("kafka-0", "10.77.0.3");
    node.open_way("kafka-9", "10.77.0.2");
    node.start();
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
    let Some(mut node) = Node::build() else {
        return;
    };
    node.add_pod("kafka-9", "10.1.1.19");
    node.configure(&[
        ("kafka-0", "10.1.1.10", "10.77.0.2"),
        ("kafka-9", "10.1.1.19", "10.77.0.3"),
    ]);
    node.open_way("kafka-0", "10.77.0.3");
    node.open_way("kafka-9", "10.77.0.2");
    node.start();
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

#[test]
fn uninstall_is_refused_while_an_agent_runs_and_then_leaves_nothing() {
    let Some(mut node) = Node::build() else {
        return;
    };
    let clean = [node.ip("rule show"), node.ip("-br link show")];
    node.start();
    assert_ne!([node.ip("rule show"), node.ip("-br link show")], clean);

    let refused = node.run("uninstall");
    assert!(!refused.status.success());
    let process = format!(
        "another agent runs on this node as process {};",
        node.agent_id()
    );
    assert!(text(&refused).contains(&process), "{}", text(&refused));
    assert_eq!(node.links(), LINKS);

    assert_eq!(node.stop(Signal::SIGTERM), Some(0));
    for _ in 0..2 {
        let done = node.run("uninstall");
        assert!(done.status.success(), "{}", text(&done));
        assert_eq!([node.ip("rule show"), node.ip("-br link show")], clean);
        assert_eq!(node.ip("route show table all proto 85"), "");
        assert!(!node.bpffs().join("sliceplane").exists());
        assert!(!node.state_dir().exists());
    }
}

#[test]
fn a_second_agent_is_refused_with_the_first_ones_process() {
    let Some(mut node) = Node::build() else {
        return;
    };
    node.start();
    let second = node.run("agent");
    assert_eq!(second.status.code(), Some(1));
    let process = format!("process {};", node.agent_id());
    assert!(text(&second).contains(&process), "{}", text(&second));
}

#[test]
fn agents_and_uninstalls_with_another_state_directory_are_kept_off_the_same_pins() {
    let Some(mut node) = Node::build() else {
        return;
    };
    node.start();
    let before = links(&node);
    let elsewhere = node.state_dir().with_file_name("elsewhere");
    for subcommand in ["agent", "uninstall"] {
        let refused = node.run_with_state_dir(subcommand, &elsewhere);
        assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
        let pins = node.bpffs().join("sliceplane");
        let told = format!("another agent or uninstall uses {}", pins.display());
        assert!(text(&refused).contains(&told), "{}", text(&refused));
    }
    assert_eq!(links(&node), before);
}

#[test]
fn a_missing_bpf_file_system_is_named_with_the_command_that_mounts_it() {
    let Some(node) = Node::build() else { return };
    nix::mount::umount(&node.bpffs()).unwrap();
    let output = node.run("agent");
    assert_eq!(output.status.code(), Some(1));
    let command = format!("mount -t bpf bpf {}", node.bpffs().display());
    assert!(text(&output).contains(&command), "{}", text(&output));
}

#[test]
fn uninstall_with_a_wrong_bpf_file_system_removes_nothing_and_says_so() {
    let Some(node) = Node::build() else { return };
    nix::mount::umount(&node.bpffs()).unwrap();
    let file = node.bpffs().join("sliceplane/notes.txt");
    fs::create_dir(file.parent().unwrap()).unwrap();
    fs::write(&file, "mine").unwrap();
    let refused = node.run("uninstall");
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    let told = text(&refused);
    assert!(
        told.contains("nothing was removed, because --bpffs must name"),
        "{told}"
    );
    assert!(told.contains("is not a BPF file system"), "{told}");
    assert_eq!(fs::read_to_string(file).unwrap(), "mine");
}

#[test]
fn a_device_of_our_name_that_is_not_ours_is_neither_removed_nor_taken() {
    let Some(mut node) = Node::build() else {
        return;
    };
    node.ip("link add sliceplane0 type vxlan external dstport 6085");
    let removal = node.run("uninstall");
    assert!(removal.status.success(), "{}", text(&removal));
    let told = "the device sliceplane0 stays, because it is not ours";
    assert!(text(&removal).contains(told), "{}", text(&removal));

    node.spawn();
    node.until("the trouble is told", |node| {
        node.get("/readyz")
            .contains("a device sliceplane0 exists that is not ours")
    });
    assert!(node.ip("link show sliceplane0").contains("state DOWN"));

    node.ip("link del sliceplane0");
    node.until("the agent tried again", |node| {
        node.get("/readyz") == "ready\n"
    });
}

#[test]
fn a_foreign_owner_of_the_port_is_named_and_the_agent_recovers_when_it_goes() {
    let Some(mut node) = Node::build() else {
        return;
    };
    node.ip("link add other0 type vxlan external dstport 6085");
    node.spawn();
    node.until("the trouble is told", |node| {
        node.get("/readyz")
            .contains("the VXLAN device other0 already owns UDP port 6085")
    });
    assert!(node.get("/metrics").contains("sliceplane_ready 0\n"));

    node.ip("link del other0");
    node.until("the agent tried again", |node| {
        node.get("/readyz") == "ready\n"
    });
    assert_eq!(node.plan(), NOTHING);
}
