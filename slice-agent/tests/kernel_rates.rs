//! Ceilings on a real kernel: the terms that packets are judged by, live changes of them, and what people
//! see.

mod kernel_support;

use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;

use kernel_support::Node;
use kernel_support::links::NOTHING;
use nix::sys::signal::Signal;
use slice_common::layout::QueueClass;

const CEILING: &str = "sliceplane_ceiling_bytes_per_second{uplink=\"wan\",slice=\"kafka\"}";
const CONTROL: &str =
    "sliceplane_class_guarantee_bytes_per_second{uplink=\"wan\",slice=\"kafka\",class=\"control\"}";
const SENT: &str =
    "sliceplane_shaped_packets_total{uplink=\"wan\",slice=\"kafka\",class=\"default\"";

/// The node's configuration with an uplink, a peer on its network, and a slice that may send there.
fn with_rates(node: &Node, ceiling: &str) -> String {
    let changes = [
        (
            "interface: nic0}\n",
            "interface: nic0}\nuplinks: [{name: wan, interface: nic0, rate: 100M}]\n".to_owned(),
        ),
        ("172.20.2.11", "172.20.1.12".to_owned()),
        (
            "from: [kafka], to: [kafka]",
            "from: [kafka], to: [\"*\"]".to_owned(),
        ),
        (
            "qos:\n",
            format!("qos:\n    ceiling: {{default: {ceiling}}}\n"),
        ),
        ("dscp: 48", "dscp: 48, guaranteePercent: 45".to_owned()),
    ];
    let mut text = node.configuration();
    for (old, new) in changes {
        assert_eq!(text.matches(old).count(), 1, "`{old}` must occur once");
        text = text.replace(old, &new);
    }
    text
}

fn value(page: &str, series: &str) -> Option<u64> {
    let line = page.lines().find(|line| line.starts_with(series))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// All packets of the default class, however they went.
fn packets(page: &str) -> u64 {
    let lines = page.lines().filter(|line| line.starts_with(SENT));
    let counts = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    counts.sum()
}

/// As another tool finds out, on a device that nobody needs.
fn kernel_has_fq(node: &Node) -> bool {
    let added = std::process::Command::new("tc")
        .args(["-n", &node.netns])
        .args("qdisc add dev lo root fq".split(' '))
        .output();
    added.expect("run tc").status.success()
}

#[test]
fn a_ceiling_is_in_force_changes_live_and_outlives_the_agent() {
    let Some(mut node) = Node::build() else {
        return;
    };
    let plain = node.configuration();
    node.ip("neigh add 172.20.1.12 lladdr 02:00:00:00:00:12 dev nic0");
    node.open_way("kafka-0", "10.77.64.1");
    let slow = with_rates(&node, "40M");
    let fast = with_rates(&node, "80M");
    node.configure_with(&slow);
    node.start();
    let has_fq = kernel_has_fq(&node);
    let as_configured = match has_fq {
        true => NOTHING.to_owned(),
        false => format!(
            "{NOTHING}QUEUE: on nic0: this kernel has no fq; packets wait in classes of htb\n"
        ),
    };
    node.until("everything is in force", |node| {
        node.plan() == as_configured
    });
    let (backend, kind) = if has_fq {
        ("edt", "fq")
    } else {
        ("htb", "htb")
    };
    let root = format!("qdisc {kind} 51ce: root");
    assert!(node.tc("qdisc show dev nic0").contains(&root));
    let info = format!(
        "sliceplane_shaper_info{{uplink=\"wan\",slice=\"kafka\",backend=\"{backend}\"}} 1\n"
    );
    node.until("metrics tell of it", |node| {
        node.get("/metrics").contains(&info)
    });
    let page = node.get("/metrics");
    assert_eq!(value(&page, CEILING), Some(5_000_000), "{page}");
    // 18M, and half of the 18M that neither it nor thin flows are guaranteed.
    assert_eq!(value(&page, CONTROL), Some(3_375_000), "{page}");
    assert_eq!(packets(&page), 0, "{page}");

    let ping = |node: &Node| {
        let mut ping = node.spawn_in_pod("kafka-0", "ping", "-c 1 -W 1 10.77.64.1");
        ping.wait().expect("an end of ping");
    };
    ping(&node);
    let page = node.get("/metrics");
    assert_eq!(packets(&page), 1, "{page}");
    let waits =
        "sliceplane_queue_delay_seconds_count{uplink=\"wan\",slice=\"kafka\",class=\"default\"}";
    assert_eq!(value(&page, waits), Some(1), "{page}");

    let generation = value(&page, "sliceplane_config_generation");
    node.configure_with(&fast);
    node.until("the new rate is in force", |node| {
        value(&node.get("/metrics"), CEILING) == Some(10_000_000)
    });
    let page = node.get("/metrics");
    assert_eq!(value(&page, "sliceplane_config_generation"), generation);
    assert_eq!(packets(&page), 1, "the same clocks and counters");

    // What it may send when others send by the link too is not taken for all that may be sent.
    node.configure_with(&fast.replace("rate: 100M}", "rate: 100M, nodes: 2}"));
    node.until("people see both", |node| {
        let status = node.get("/status");
        let both = ["ceiling 80M bit/s of 2 nodes together", "this node's part"];
        both.iter().all(|text| status.contains(text))
    });
    node.configure_with(&fast);
    node.until("the node has it all again", |node| {
        value(&node.get("/metrics"), CEILING) == Some(10_000_000)
    });

    node.stop(Signal::SIGKILL);
    assert_eq!(node.plan(), as_configured);
    node.start();
    ping(&node);
    assert_eq!(packets(&node.get("/metrics")), 2);

    node.configure_with(&plain);
    node.until("nothing is shaped any more", |node| {
        let page = node.get("/metrics");
        value(&page, CEILING).is_none() && node.plan() == NOTHING
    });
    assert!(!node.tc("qdisc show dev nic0").contains("51ce:"));
}

/// With `htb` asked for, whatever the kernel has.
fn with_classes(node: &Node, ceiling: &str) -> String {
    let text = with_rates(node, ceiling);
    let asked = text.replace("rate: 100M}", "rate: 100M, shaper: Htb}");
    assert_ne!(asked, text);
    asked
}

/// The disciplines in which packets wait, by their numbers: others in their place have others.
fn leaves(node: &Node) -> Vec<String> {
    let shown = node.tc("qdisc show dev nic0");
    let leaves = shown.lines().filter(|line| line.contains("parent 51ce:"));
    let named = leaves.filter_map(|line| Some(line.split_once(" limit")?.0.to_owned()));
    named.collect()
}

#[test]
fn classes_are_put_there_mended_and_taken_off() {
    let Some(mut node) = Node::build() else {
        return;
    };
    let plain = node.configuration();
    let [slow, fast] = ["40M", "80M"].map(|ceiling| with_classes(&node, ceiling));
    node.configure_with(&slow);
    node.start();
    node.until("classes are there", |node| node.plan() == NOTHING);
    let shown = node.tc("qdisc show dev nic0");
    assert!(shown.contains("qdisc htb 51ce: root"), "{shown}");
    let before = leaves(&node);
    // One for what is not ours, and a front and a back of each of two classes.
    assert_eq!(before.len(), 5, "{shown}");

    // A rate changes where packets wait: the same disciplines stay.
    let rate = |node: &Node| node.tc("class show dev nic0 classid 51ce:20");
    let is_at = |node: &Node, rates: &str| rate(node).contains(rates);
    assert!(is_at(&node, "ceil 397"), "{}", rate(&node));
    node.configure_with(&fast);
    node.until("the new rate is in force", |node| is_at(node, "ceil 795"));
    assert_eq!(leaves(&node), before);

    // Somebody changes a class, and takes everything off.
    node.tc("class change dev nic0 parent 51ce:1 classid 51ce:20 htb rate 1mbit ceil 1mbit");
    node.until("the class is mended", |node| is_at(node, "ceil 795"));
    assert_eq!(leaves(&node), before);
    node.tc("qdisc del dev nic0 root");
    node.until("the tree is there again", |node| leaves(node).len() == 5);
    node.until("packets are sent to it again", |node| {
        node.plan() == NOTHING
    });

    // Without terms nothing is left.
    node.configure_with(&plain);
    node.until("nothing is shaped any more", |node| node.plan() == NOTHING);
    assert!(!node.tc("qdisc show dev nic0").contains("51ce:"));
}

const QUEUE: &str = "sliceplane_queue_info{uplink=\"wan\",";

fn queue_of(node: &Node) -> String {
    let page = node.get("/metrics");
    let mut lines = page.lines().filter_map(|line| line.strip_prefix(QUEUE));
    lines.next().unwrap_or_default().to_owned()
}

/// What somebody configured is never replaced, and everybody is told, until it is gone.
#[test]
fn what_somebody_configured_stays_and_is_told_until_it_is_gone() {
    let Some(mut node) = Node::build() else {
        return;
    };
    node.configure_with(&with_classes(&node, "40M"));
    node.tc("qdisc add dev nic0 root handle 7: tbf rate 50mbit burst 20k latency 50ms");
    let root = |node: &Node| node.tc("qdisc show dev nic0 root");
    let configured = root(&node);
    assert!(configured.contains("qdisc tbf 7: root"), "{configured}");
    node.start();
    let refused = "backend=\"vq\",root=\"tbf 7:\",owner=\"somebody\",refused=\"htb\"} 1";
    node.until("metrics have it", |node| queue_of(node) == refused);
    let why = "somebody configured tbf 7:, which stays";
    let status = node.get("/status");
    let line = format!("uplink wan on nic0, vq (htb refused): {why}");
    assert!(status.contains(&line), "{status}");
    assert!(status.contains("by uplink wan, vq: "), "{status}");
    let note = format!("NO QUEUE: on nic0: {why}");
    for told in [node.plan(), node.get("/readyz"), node.log()] {
        assert!(told.contains(&note), "{told}");
    }
    assert_eq!(root(&node), configured);

    node.tc("qdisc del dev nic0 root");
    let taken = "backend=\"htb\",root=\"htb 51ce:\",owner=\"agent\",refused=\"\"} 1";
    node.until("the agent takes over", |node| queue_of(node) == taken);
    let status = node.get("/status");
    let line = "uplink wan on nic0, htb: packets wait in classes of htb 51ce:, as asked for\n";
    assert!(status.contains(line), "{status}");
    assert!(status.contains("by uplink wan, htb: "), "{status}");
    assert_eq!(node.get("/readyz"), "ready\n");
    assert!(node.log().contains(line.trim_end()), "{}", node.log());
    assert_eq!(leaves(&node).len(), 5);

    // And when somebody configures something else again.
    node.tc("qdisc replace dev nic0 root handle 8: pfifo");
    let refused = "backend=\"vq\",root=\"pfifo 8:\",owner=\"somebody\",refused=\"htb\"} 1";
    node.until("it is told again", |node| queue_of(node) == refused);
    assert!(
        root(&node).contains("qdisc pfifo 8: root"),
        "{}",
        root(&node)
    );
}

/// Packets that went through a class.
fn went_through(node: &Node, class: QueueClass) -> u64 {
    let named = format!("{:x}:{:x}", QueueClass::TREE, class.minor());
    let shown = node.tc(&format!("-s class show dev nic0 classid {named}"));
    let count = shown
        .split_once(" bytes ")
        .and_then(|(_, rest)| rest.split_once(" pkt"));
    let count = count.and_then(|(count, _)| count.parse().ok());
    count.unwrap_or_else(|| panic!("{named}: {shown}"))
}

const MANY: u64 = 50;

/// Sends as a process would that may choose (it has CAP_NET_ADMIN in its own network namespace).
fn send_asking_for(class: QueueClass, to: &str) {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let priority = class.priority();
    // SAFETY: the value lives until the call returns, and its size is told.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PRIORITY,
            (&raw const priority).cast(),
            size_of::<u32>() as libc::socklen_t,
        )
    };
    assert_eq!(answer, 0, "{}", std::io::Error::last_os_error());
    for _ in 0..MANY {
        socket.send_to(b"now", (to, 9)).unwrap();
    }
}

/// Neither where its packet goes for a slice, nor otherwise: its priority ends at its veth.
#[test]
fn a_pod_chooses_no_class_of_ours_by_its_own_priority() {
    const OUTSIDE: &str = "172.20.1.99";
    const IN_SLICE: &str = "10.77.64.1";
    let Some(mut node) = Node::build() else {
        return;
    };
    let text = with_classes(&node, "40M");
    let ports = "{protocol: ICMP}]";
    assert_eq!(text.matches(ports).count(), 1);
    let opened = "{protocol: ICMP}, {protocol: UDP, port: 9}]";
    node.configure_with(&text.replace(ports, opened));
    for (address, mac) in [("172.20.1.12", "12"), (OUTSIDE, "99")] {
        node.ip(&format!(
            "neigh add {address} lladdr 02:00:00:00:00:{mac} dev nic0"
        ));
    }
    for address in [OUTSIDE, IN_SLICE] {
        node.open_way("kafka-0", address);
    }
    node.inside(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
    node.start();
    node.until("packets are sent to classes", |node| node.plan() == NOTHING);

    // Of class `control`. A packet of the node itself gets there: the control.
    let wanted = QueueClass::Back(1);
    assert_eq!(went_through(&node, wanted), 0);
    node.inside(|| send_asking_for(wanted, OUTSIDE));
    node.until("the node chooses", |node| {
        went_through(node, wanted) == MANY
    });

    // A pod's go where they would have gone without: what is not of a slice, and the front of the default class.
    for (to, place) in [
        (OUTSIDE, QueueClass::OthersLeaf),
        (IN_SLICE, QueueClass::Front(0)),
    ] {
        let before = went_through(&node, place);
        node.inside_pod("kafka-0", || send_asking_for(wanted, to));
        node.until("the pod's packets left", |node| {
            went_through(node, place) >= before + MANY
        });
        assert_eq!(went_through(&node, wanted), MANY, "{to}");
    }
}
