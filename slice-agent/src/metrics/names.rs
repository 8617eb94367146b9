//! Every metric: the one place for names, labels and help, and what the reference is printed from.

/// What a metric does over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    /// A gauge in seconds, kept in nanoseconds.
    Seconds,
    /// A gauge that is a part of something, kept in millionths; above 1 where it is more than that.
    Ratio,
    /// A histogram in seconds: waits, as the shaper counts them.
    Delays,
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// As Prometheus shows it; a counter ends in `_total`.
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

impl Metric {
    /// The encoder adds the suffix of counters itself.
    pub fn family(&self) -> &'static str {
        self.name.strip_suffix("_total").unwrap_or(self.name)
    }
}

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric {
        name,
        kind: Kind::Counter,
        labels,
        help,
    }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric {
        name,
        kind: Kind::Gauge,
        labels,
        help,
    }
}

const fn ratio(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric {
        kind: Kind::Ratio,
        ..gauge(name, labels, help)
    }
}

const TRAFFIC: &[&str] = &["slice", "peer_cluster", "class", "direction"];

pub const TRAFFIC_PACKETS: Metric = counter(
    "sliceplane_traffic_packets_total",
    TRAFFIC,
    "Packets between slice pods, without drops; a segmentation-offload packet counts once. \
     direction: out and in by a tunnel, local on this node",
);
pub const TRAFFIC_BYTES: Metric = counter(
    "sliceplane_traffic_bytes_total",
    TRAFFIC,
    "Bytes of the packets between slice pods, from the inner IPv4 header on",
);
pub const DROPS: Metric = counter(
    "sliceplane_drops_total",
    &["slice", "reason"],
    "Packets dropped by the kernel programs; slice is empty where it was not yet known",
);
pub const PATH_MTU_BYTES: Metric = gauge(
    "sliceplane_path_mtu_bytes",
    &["path"],
    "Largest packet with its tunnel headers that is sent on the path to another node: what is \
     configured, or less for ten minutes after a router on the way said so",
);
pub const MAP_ENTRIES: Metric = gauge(
    "sliceplane_map_entries",
    &["map"],
    "Entries in a kernel map",
);
pub const MAP_CAPACITY: Metric = gauge(
    "sliceplane_map_capacity",
    &["map"],
    "Entries that a kernel map can hold",
);
pub const BUILD_INFO: Metric = gauge(
    "sliceplane_build_info",
    &["version", "layout"],
    "Always 1; version of the agent and of the layout of its maps",
);
pub const CONFIG_VALID: Metric = gauge(
    "sliceplane_config_valid",
    &[],
    "1 when the configuration was accepted; at 0 the last good one is in force",
);
pub const CONFIG_GENERATION: Metric = gauge(
    "sliceplane_config_generation",
    &[],
    "Counts the configurations that were applied to the kernel; 0 before the first",
);
pub const APPLY_ERRORS: Metric = counter(
    "sliceplane_apply_errors_total",
    &[],
    "Changes that the kernel refused since the agent started",
);
pub const DEGRADED: Metric = gauge(
    "sliceplane_degraded",
    &[],
    "1 while the kernel is not as the configuration wants it; /readyz says why",
);
pub const READY: Metric = gauge(
    "sliceplane_ready",
    &[],
    "1 once a configuration was applied completely since the agent started",
);
pub const HOST_MISMATCHES: Metric = gauge(
    "sliceplane_host_mismatches",
    &[],
    "In how many ways this host does not fit the configuration that is in force; /readyz lists them",
);
pub const ENDPOINTS_WITHOUT_INTERFACE: Metric = gauge(
    "sliceplane_endpoints_without_interface",
    &[],
    "Endpoints that are not served because this host has no veth interface of their name",
);
pub const HOOKS_PRECEDED: Metric = gauge(
    "sliceplane_hooks_preceded",
    &[],
    "Hooks on which a program of somebody else runs before ours and may take its packets",
);

pub const EARLY_DROP: Metric = gauge(
    "sliceplane_early_drop",
    &[],
    "1 while the underlay interface's driver drops tunnel packets of strangers (underlay_filter); \
     slice-agent plan says why not",
);
pub const PATH_UP: Metric = gauge(
    "sliceplane_path_up",
    &["path"],
    "1 while a path that packets choose between is proven by answers to probes",
);
pub const PATH_RTT: Metric = Metric {
    kind: Kind::Seconds,
    ..gauge(
        "sliceplane_path_rtt_seconds",
        &["path"],
        "Round trip of the last probe that was answered",
    )
};
pub const PATH_PROBED: Metric = gauge(
    "sliceplane_path_probed_bytes",
    &["path"],
    "Largest packet that a probe found the path to carry, from the outer IPv4 header on",
);
pub const PATH_UNPROVEN: Metric = counter(
    "sliceplane_path_unproven_total",
    &["path_group"],
    "Packets that took a path although nothing proved any of its group",
);

const OF_SLICE: &[&str] = &["uplink", "slice"];
const OF_CLASS: &[&str] = &["uplink", "slice", "class"];
const OF_PARTNER: &[&str] = &["uplink", "slice", "partner"];
const OF_MODE: &[&str] = &["uplink", "slice", "class", "mode"];

pub const QUEUE_INFO: Metric = gauge(
    "sliceplane_queue_info",
    &["uplink", "backend", "root", "owner", "refused"],
    "Always 1; what keeps packets to their time on an uplink that slices with a ceiling send by. root: the \
     queueing discipline there, empty where the kernel chose; owner: kernel, agent, or somebody, who is \
     never overruled; refused: what would be better or was asked for and cannot be had (fq, htb), else empty; \
     slice-agent status says why",
);
pub const SHAPER_INFO: Metric = gauge(
    "sliceplane_shaper_info",
    &["uplink", "slice", "backend"],
    "Always 1; what keeps a slice to its rates on an uplink. edt: packets wait until their departure; htb: \
     in classes, for their turn; vq: they leave at once, and what would wait too long is dropped",
);
pub const CEILING: Metric = gauge(
    "sliceplane_ceiling_bytes_per_second",
    OF_SLICE,
    "What this node may send of a slice by an uplink, at most, as the link counts bytes",
);
pub const SLICE_GUARANTEE: Metric = gauge(
    "sliceplane_slice_guarantee_bytes_per_second",
    OF_SLICE,
    "What this node may send of a slice by an uplink whatever other slices send",
);
pub const CLASS_GUARANTEE: Metric = gauge(
    "sliceplane_class_guarantee_bytes_per_second",
    OF_CLASS,
    "What this node may send of a class by an uplink whatever others send: its guarantee, and its part by \
     weight of what nobody is guaranteed",
);
pub const SHAPED_PACKETS: Metric = counter(
    "sliceplane_shaped_packets_total",
    OF_MODE,
    "Tunnel packets that slices with a ceiling sent by an uplink; a segmentation-offload packet counts \
     once. mode: guaranteed, borrowed from what others left, lane of thin flows, or dropped because they \
     would have waited too long",
);
pub const SHAPED_BYTES: Metric = counter(
    "sliceplane_shaped_bytes_total",
    OF_MODE,
    "Bytes that the link carries for those packets: headers of every segment, and what Ethernet puts \
     around frames",
);
pub const SHAPED_MARKED: Metric = counter(
    "sliceplane_shaped_marked_total",
    OF_CLASS,
    "Packets of those marked (ECN CE), because they wait long",
);
pub const SHAPED_WITH_SOCKET: Metric = counter(
    "sliceplane_shaped_with_socket_total",
    OF_CLASS,
    "Packets of those that left and that their sender's socket still knew of, so that it sends no more \
     than leaves. What a gateway passes on has no socket there: missing where it has no pods of the slice",
);
pub const CEILING_USED: Metric = ratio(
    "sliceplane_ceiling_used_ratio",
    OF_SLICE,
    "What a slice sent by an uplink in the last five seconds, as a part of what this node may send of it at most; \
     above 1 where it has more of other nodes",
);
pub const CLASS_GUARANTEE_USED: Metric = ratio(
    "sliceplane_class_guarantee_used_ratio",
    OF_CLASS,
    "What a class sent by an uplink in the last five seconds, as a part of its guarantee; above 1 where it \
     borrows what others left",
);
pub const WITH_SOCKET: Metric = ratio(
    "sliceplane_shaped_with_socket_ratio",
    OF_CLASS,
    "The part of the packets that left in the last five seconds that their sender's socket still knew of; \
     missing where none left, and on a gateway without pods of the slice, which only passes packets on; one with \
     some counts both",
);
pub const LENT: Metric = gauge(
    "sliceplane_ceiling_lent_bytes_per_second",
    OF_PARTNER,
    "What this node lends another one that sends by the same link, of its part of a slice's ceiling",
);
pub const BORROWED: Metric = gauge(
    "sliceplane_ceiling_borrowed_bytes_per_second",
    OF_PARTNER,
    "What this node has of another one's part of a slice's ceiling, beyond its own",
);
pub const PARTNER_ANSWERS: Metric = gauge(
    "sliceplane_lending_partner_up",
    &["uplink", "partner"],
    "Whether the agent of a node that sends by the same link answered when it was asked last; without it \
     nothing is borrowed from there",
);
pub const QUEUE_DELAY: Metric = Metric {
    kind: Kind::Delays,
    ..gauge(
        "sliceplane_queue_delay_seconds",
        OF_CLASS,
        "How long those packets wait (vq: would wait) before they leave; the sum takes each wait for the \
         longest of its bucket",
    )
};

/// Every metric, in the order of a scrape.
pub const METRICS: &[Metric] = &[
    TRAFFIC_PACKETS,
    TRAFFIC_BYTES,
    DROPS,
    PATH_MTU_BYTES,
    MAP_ENTRIES,
    MAP_CAPACITY,
    BUILD_INFO,
    CONFIG_VALID,
    CONFIG_GENERATION,
    APPLY_ERRORS,
    DEGRADED,
    READY,
    HOST_MISMATCHES,
    ENDPOINTS_WITHOUT_INTERFACE,
    HOOKS_PRECEDED,
    EARLY_DROP,
    PATH_UP,
    PATH_RTT,
    PATH_PROBED,
    PATH_UNPROVEN,
    QUEUE_INFO,
    SHAPER_INFO,
    CEILING,
    SLICE_GUARANTEE,
    CLASS_GUARANTEE,
    SHAPED_PACKETS,
    SHAPED_BYTES,
    SHAPED_MARKED,
    SHAPED_WITH_SOCKET,
    CEILING_USED,
    CLASS_GUARANTEE_USED,
    WITH_SOCKET,
    LENT,
    BORROWED,
    PARTNER_ANSWERS,
    QUEUE_DELAY,
];

/// The table of all metrics in Markdown, as `slice-agent reference metrics` prints it.
pub fn reference() -> String {
    let mut text = String::from("| metric | kind | labels | meaning |\n|---|---|---|---|\n");
    for metric in METRICS {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge | Kind::Seconds | Kind::Ratio => "gauge",
            Kind::Delays => "histogram",
        };
        let labels = metric.labels.join(", ");
        text.push_str(&format!(
            "| `{}` | {kind} | {labels} | {}. |\n",
            metric.name, metric.help
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_ours_unique_and_end_as_prometheus_asks() {
        let names: BTreeSet<_> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), METRICS.len());
        for metric in METRICS {
            assert!(metric.name.starts_with("sliceplane_"), "{}", metric.name);
            let counts = metric.kind == Kind::Counter;
            assert_eq!(counts, metric.name.ends_with("_total"), "{}", metric.name);
        }
    }
}
