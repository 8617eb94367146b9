//! Ceilings on a real kernel: the terms that packets are judged by, live changes of them, and what people
//! see.

mod kernel_support;

use kernel_support::Node;
use kernel_support::links::NOTHING;
use nix::sys::signal::Signal;

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
            "{NOTHING}NO QUEUE: on nic0: this kernel has no fq; what is early leaves at once, and what would wait too \
             long is dropped\n"
        ),
    };
    node.until("everything is in force", |node| {
        node.plan() == as_configured
    });
    assert_eq!(
        node.tc("qdisc show dev nic0").contains("qdisc fq 51ce:"),
        has_fq
    );
    let page = node.get("/metrics");
    assert_eq!(value(&page, CEILING), Some(5_000_000), "{page}");
    // 18M, and half of the 18M that neither it nor thin flows are guaranteed.
    assert_eq!(value(&page, CONTROL), Some(3_375_000), "{page}");
    let backend = if has_fq { "edt" } else { "vq" };
    let info = format!(
        "sliceplane_shaper_info{{uplink=\"wan\",slice=\"kafka\",backend=\"{backend}\"}} 1\n"
    );
    assert!(page.contains(&info), "{page}");
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
    assert!(!node.tc("qdisc show dev nic0").contains("fq"));
}
