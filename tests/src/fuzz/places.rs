//! The oddities of the node under test, beside what the scenes have.

use anyhow::Result;
use slice_common::id::{PathGroupId, TrafficClass};
use slice_common::layout::{
    Class, ClassKey, Endpoint, LocalEndpoint, Path, PathGroup, Peer, PolicyEntry, PolicyKey,
    Probes, ReplyKey, Route, RouteKey, SentProbe, ShaperBackend, ShaperPlace, ShaperTerms,
};
use slice_common::shaper::{
    Assured, ClassTerms, Patience, Rate, SliceTerms, UplinkTerms, WireBytes,
};

use super::tables::{HERE, Tables, VIA};
use crate::testrun::actors::{
    ANALYTICS_0, ANALYTICS_2, EAST, EAST_1, EAST_2, INTERNET, KAFKA, KAFKA_0, KAFKA_1, NIC, NODES,
    Node, PODS, PORT_OWNER, Pod, SHOP, STRANGER, SliceActor, TABLE, WEB_0, WEST_1, address,
    cluster, reply_record,
};
use crate::testrun::{World, standard_path};

/// Same addresses as others, in a table of its own.
pub(super) const UPSTAIRS: SliceActor = SliceActor {
    name: "upstairs",
    id: 12,
    range: [10, 77, 0, 0],
};
pub(super) const OTHER_TABLE: u32 = 2;

/// Its interface is known, the pod is not yet.
pub(super) const HALF_ATTACHED: Pod = Pod {
    name: "kafka-9",
    device: PORT_OWNER,
    pod_address: [10, 1, 1, 60],
    slice_address: [10, 77, 0, 3],
    ..KAFKA_0
};

/// Its slice is of isolation level `Strict`, if not for the others in it.
const CONFINED: Pod = ANALYTICS_2;

/// The host's stack delivers to it.
const BY_STACK: Pod = ANALYTICS_2;

/// As wide as test runs can fill, and as narrow as the design allows.
pub(super) const WIDE: Node = node("wide-1", [172, 20, 4, 11], 3000);
pub(super) const THIN: Node = node("thin-1", [172, 20, 4, 13], 576);
/// In one group of peers with `WIDE`, but not entitled to deliver its block.
pub(super) const NOT_ENTITLED: [u8; 4] = [172, 20, 4, 12];
/// Another gateway of this node's cluster.
pub(super) const FELLOW: [u8; 4] = [172, 20, 4, 14];
const ENTITLED_BIT: u64 = 1 << 40;

const fn node(name: &'static str, address: [u8; 4], path_mtu: u32) -> Node {
    Node {
        cluster: "west",
        name,
        address,
        path_mtu,
    }
}

/// A slice for whose packets there is always room, so that they wait in no class of `htb`; two classes have terms of their own.
pub(super) fn without_limits() -> ShaperTerms {
    let most = Rate::new_checked(Rate::MAX_BPS).expect("in range");
    let (frame, patience) = (WireBytes::new(1538), Patience::WITHOUT_QUEUE);
    let class = ClassTerms::new(most, patience, frame);
    let slice = SliceTerms::new(most, Assured::new(most, None), frame);
    let place = ShaperPlace {
        uplink: 1,
        slice: 1,
    };
    ShaperTerms::new(
        ShaperBackend::Htb,
        place,
        &UplinkTerms::NONE,
        &slice,
        &class,
    )
    .with_class(TrafficClass::from_low_bits(2), &class)
    .with_class(TrafficClass::from_low_bits(3), &class)
}

/// A group of paths that nobody has heard of.
fn nowhere(name: &str) -> u32 {
    PathGroupId::from_name(&["nowhere", name]).number()
}

pub(super) fn endpoint(pod: &Pod) -> Endpoint {
    Endpoint {
        table: TABLE,
        slice: pod.slice.id,
        namespace: pod.slice.namespace(pod.namespace),
        cluster: cluster(EAST),
        pod_address: address(pod.pod_address),
        slice_address: address(pod.slice_address),
        flags: match pod.is_isolated {
            true if pod.name == CONFINED.name => Endpoint::ISOLATED | Endpoint::CONFINED,
            true => Endpoint::ISOLATED,
            false => 0,
        },
        class: own_class(pod),
    }
}

/// Of two pods, in which their slice's labels put them; the others are of none.
fn own_class(pod: &Pod) -> Class {
    let (class, dscp) = match pod.name {
        "kafka-0" => (3, 18),
        "analytics-2" => (4, 12),
        _ => (0, 0),
    };
    Class {
        class,
        dscp,
        reserved: 0,
    }
}

/// Every pod that packets can be handed to, with its table.
pub(super) fn local_pods() -> Vec<(u32, Pod)> {
    let mut pods: Vec<_> = PODS.into_iter().map(|pod| (TABLE, pod)).collect();
    let upstairs = Pod {
        slice: UPSTAIRS,
        slice_address: KAFKA_0.slice_address,
        ..WEB_0
    };
    // The second is left from a slice that gave its block to another.
    let stale = Pod {
        slice_address: [10, 77, 0, 4],
        ..WEB_0
    };
    pods.extend([(OTHER_TABLE, upstairs), (TABLE, stale)]);
    pods
}

pub(super) fn local(pod: &Pod, ifindex: u32) -> LocalEndpoint {
    LocalEndpoint {
        ifindex,
        slice: pod.slice.id,
        namespace: pod.slice.namespace(pod.namespace),
        pod_address: address(pod.pod_address),
        pod_mac: pod.mac,
        flags: if pod.name == BY_STACK.name {
            LocalEndpoint::BY_STACK
        } else {
            0
        },
    }
}

/// Blocks behind no path, behind paths of odd sizes, of no known kind, and of the second table.
pub(super) fn odd_routes() -> Vec<(u32, RouteKey, Route)> {
    let west = via(KAFKA, WEST_1.path_group(), WEST_1.peer_group(), 1);
    let lost = |group| Route {
        path_group: group,
        ..west
    };
    let wide = via(KAFKA, WIDE.path_group(), WIDE.peer_group(), ENTITLED_BIT);
    let thin = via(KAFKA, THIN.path_group(), THIN.peer_group(), 1);
    let thin = Route {
        class: 6,
        dscp: 33,
        ..thin
    };
    // Pods that their slice puts before kafka-0, and behind it.
    let before = Route {
        class: 2,
        dscp: 26,
        ..west
    };
    let behind = Route {
        namespace: KAFKA.namespace("analytics"),
        class: 7,
        dscp: 2,
        ..west
    };
    let here = Route {
        namespace: KAFKA.namespace(ANALYTICS_2.namespace),
        cluster: cluster(EAST),
        kind: HERE,
        class: own_class(&ANALYTICS_2).class,
        dscp: own_class(&ANALYTICS_2).dscp,
        path_group: 0,
        deliver_group: 0,
        deliver_members: 0,
        ..west
    };
    let unknown_kind = Route { kind: 9, ..west };
    let upstairs = via(UPSTAIRS, WEST_1.path_group(), WEST_1.peer_group(), 1);
    let upstairs_here = Route {
        kind: HERE,
        ..upstairs
    };
    vec![
        at(TABLE, [10, 77, 160, 0], 29, lost(nowhere("empty"))),
        at(TABLE, [10, 77, 161, 0], 29, lost(nowhere("unknown"))),
        at(TABLE, [10, 77, 162, 0], 29, lost(nowhere("dangling"))),
        at(TABLE, [10, 77, 163, 0], 29, wide),
        at(TABLE, [10, 77, 164, 0], 30, unknown_kind),
        at(TABLE, [10, 77, 165, 0], 29, thin),
        at(TABLE, KAFKA_1, 32, before),
        at(TABLE, ANALYTICS_0, 32, behind),
        at(TABLE, ANALYTICS_2.slice_address, 32, here),
        at(OTHER_TABLE, [10, 77, 64, 0], 29, upstairs),
        at(OTHER_TABLE, [10, 77, 0, 0], 29, upstairs_here),
    ]
}

fn via(slice: SliceActor, path_group: u32, deliver_group: u32, deliver_members: u64) -> Route {
    Route {
        slice: slice.id,
        cluster: cluster("west"),
        namespace: slice.namespace("kafka"),
        kind: VIA,
        class: 0,
        dscp: 0,
        path_group,
        deliver_group,
        deliver_members,
    }
}

fn at(table: u32, octets: [u8; 4], bits: u32, route: Route) -> (u32, RouteKey, Route) {
    let address = address(octets);
    (32 + bits, RouteKey { table, address }, route)
}

/// Rules for a slice, for a pair of namespaces, and for ranges with holes.
pub(super) fn odd_rules() -> Vec<(u32, PolicyKey, PolicyEntry)> {
    const ALLOW: u32 = 1;
    const DENY: u32 = 2;
    const UNKNOWN: u32 = 5;
    let rule = |bits, slice: SliceActor, namespace: &str, protocol, port: u16, verdict| {
        let key = PolicyKey {
            slice: slice.id,
            source_namespace: slice.namespace(namespace),
            destination_namespace: slice.namespace(namespace),
            protocol,
            reserved: 0,
            port: port.to_be(),
        };
        (bits, key, PolicyEntry { verdict, rule: 2 })
    };
    vec![
        rule(112 + 13, KAFKA, "kafka", 6, 9216, ALLOW),
        rule(112 + 15, KAFKA, "kafka", 6, 9220, DENY),
        rule(112 + 16, KAFKA, "kafka", 6, 9300, UNKNOWN),
        rule(112, KAFKA, "kafka", 17, 0, ALLOW),
        rule(112 + 16, KAFKA, "kafka", 17, 53, DENY),
        rule(96, SHOP, "web", 0, 0, ALLOW),
        rule(104, SHOP, "web", 17, 0, DENY),
        rule(32, UPSTAIRS, "kafka", 0, 0, ALLOW),
    ]
}

/// Classes for a slice, a protocol and a range of ports.
pub(super) fn odd_classes() -> Vec<(u32, ClassKey, Class)> {
    let entry = |bits, slice: SliceActor, protocol, port: u16, class, dscp| {
        let key = ClassKey {
            slice: slice.id,
            protocol,
            reserved: 0,
            port: port.to_be(),
        };
        let class = Class {
            class,
            dscp,
            reserved: 0,
        };
        (bits, key, class)
    };
    vec![
        entry(32, SHOP, 0, 0, 1, 8),
        entry(40, KAFKA, 17, 0, 5, 46),
        entry(48 + 13, KAFKA, 6, 9216, 7, 63),
        entry(64, KAFKA, 17, 5201, 6, 1),
    ]
}

/// Peers, groups and paths.
pub(super) fn add_nodes(tables: &mut Tables, world: &World) -> Result<()> {
    let ifindex = world.ifindex(NIC)?;
    for node in NODES.into_iter().chain([WIDE, THIN]) {
        let mut path = standard_path(&node, ifindex);
        if node.name == THIN.name {
            path.flags = Path::TO_FELLOW;
        }
        tables.paths.push((node.path(), path));
        let group = group(1, node.path());
        tables.groups.push((node.path_group(), group));
        let member = if node.name == WIDE.name {
            ENTITLED_BIT
        } else {
            1
        };
        let peer = peer(&node, member);
        tables.peers.push((node.address, peer));
        tables.probes.push((node.path(), probes(node.address)));
    }
    tables.peers.push((NOT_ENTITLED, peer(&WIDE, 1)));
    let fellow = Peer {
        flags: Peer::FELLOW | Peer::SAME_CLUSTER,
        ..peer(&EAST_2, 1)
    };
    tables.peers.push((FELLOW, fellow));
    tables
        .groups
        .push((nowhere("empty"), group(0, WEST_1.path())));
    tables
        .groups
        .push((nowhere("dangling"), group(1, nowhere("path"))));
    Ok(())
}

/// The last probes that were sent to a node.
fn probes(address: [u8; 4]) -> Probes {
    let sent = |at: usize| SentProbe {
        nonce: nonce(address, at),
        sent_ns: 1 + at as u64,
    };
    Probes {
        newest_ns: Probes::KEPT as u64,
        since_ns: 1,
        sent: std::array::from_fn(sent),
    }
}

/// The nonce of one of them.
pub(super) fn nonce(address: [u8; 4], at: usize) -> u64 {
    u64::from(u32::from_be_bytes(address)) << 8 | at as u64
}

fn group(count: u16, first: u32) -> PathGroup {
    PathGroup {
        count,
        fellows: 0,
        paths: [first, 0, 0, 0, 0, 0, 0],
    }
}

fn peer(node: &Node, member: u64) -> Peer {
    Peer {
        group: node.peer_group(),
        cluster: cluster(node.cluster),
        member,
        path: node.path(),
        flags: if node.cluster == EAST {
            Peer::SAME_CLUSTER
        } else {
            0
        },
    }
}

/// Addresses on both sides of every edge of every block.
pub(crate) fn edges(tables: &Tables) -> Vec<[u8; 4]> {
    let mut edges = Vec::new();
    for (bits, key, _) in &tables.routes {
        let first = u32::from_be_bytes(key.address.octets());
        let last = first | u32::MAX.checked_shr(bits - 32).unwrap_or(0);
        for edge in [
            first.wrapping_sub(1),
            first,
            first + 1,
            first + 2,
            last.saturating_sub(1),
            last,
            last.wrapping_add(1),
        ] {
            edges.push(edge.to_be_bytes());
        }
    }
    edges.sort_unstable();
    edges.dedup();
    edges
}

/// Answers that are awaited when a batch begins, some of them too late, in and outside of slices.
pub(super) fn known_answers() -> Vec<ReplyKey> {
    let mut keys = Vec::new();
    for (protocol, ports) in [
        (17, [5201, 40_000]),
        (17, [9092, 6000]),
        (17, [9092, 1]),
        (1, [40_000, 0]),
        (1, [9092, 0]),
        (1, [6000, 0]),
    ] {
        for (scope, from, to) in [
            (KAFKA.id, ANALYTICS_0, KAFKA_0.slice_address),
            (KAFKA.id, KAFKA_0.slice_address, ANALYTICS_0),
            (KAFKA.id, KAFKA_1, KAFKA_0.slice_address),
            (KAFKA.id, KAFKA_0.slice_address, KAFKA_1),
            (0, INTERNET, KAFKA_0.pod_address),
            (0, STRANGER, KAFKA_0.pod_address),
            (0, EAST_1, KAFKA_0.pod_address),
        ] {
            keys.push(reply_record(scope, [from, to], ports, protocol));
        }
    }
    keys
}
