//! Changes in words.

use std::collections::BTreeMap;
use std::fmt::{self, Display};

use ipnet::Ipv4Net;
use slice_common::address::{Address, Port};
use slice_common::layout::{
    Class, ClassKey, Endpoint, LocalEndpoint, LocalKey, OutsideKey, OutsideWay, Path, PathGroup,
    Peer, PolicyEntry, PolicyKey, PolicyVerdict, Route, RouteKey, RouteKind, Settings,
};
use slice_common::wire::transport;

use super::Change;
use crate::image::{ClassTree, FairQueue, Names, PortOwner, Prefixed, WayBack};

pub(super) fn change(change: &Change, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match change {
        Change::CreatePortOwner(owner) => {
            write!(
                f,
                "+ device {} owning UDP port {}",
                owner.interface, owner.port
            )
        }
        Change::RemovePortOwner(owner) => {
            write!(
                f,
                "- device {} owning UDP port {}",
                owner.interface, owner.port
            )
        }
        Change::PutPath(put) => put.fmt(f),
        Change::PutPathGroup(put) => put.fmt(f),
        Change::PutPeer(put) => put.fmt(f),
        Change::PutSlice(put) => put.fmt(f),
        Change::PutLocal(put) => put.fmt(f),
        Change::PutEndpoint(put) => put.fmt(f),
        Change::PutNodeAddress(put) => put.fmt(f),
        Change::RemovePath(remove) => remove.fmt(f),
        Change::RemovePathGroup(remove) => remove.fmt(f),
        Change::RemovePeer(remove) => remove.fmt(f),
        Change::RemoveSlice(remove) => remove.fmt(f),
        Change::RemoveLocal(remove) => remove.fmt(f),
        Change::RemoveEndpoint(remove) => remove.fmt(f),
        Change::RemoveNodeAddress(remove) => remove.fmt(f),
        Change::SwapRoutes(swap) => write!(f, "~ routes: {swap}"),
        Change::SwapPolicy(swap) => write!(f, "~ policy: {swap}"),
        Change::SwapClasses(swap) => write!(f, "~ classes: {swap}"),
        Change::SwapOutside(swap) => write!(f, "~ outside: {swap}"),
        Change::SwapRates(swap) => write!(f, "~ rates: {swap}"),
        Change::AddFairQueue(_, queue) => write!(f, "+ {}", fair_queue(queue)),
        Change::RemoveFairQueue(_, queue) => write!(f, "- {}", fair_queue(queue)),
        Change::BuildTree(_, tree) => write!(f, "+ {}", self::tree(tree)),
        Change::MendTree(_, mending) => write!(
            f,
            "~ queueing discipline htb on {}: {} classes",
            mending.interface,
            mending.classes.len()
        ),
        Change::TrimTree(_, trimming) => write!(
            f,
            "- queueing discipline htb on {}: {} classes",
            trimming.interface,
            trimming.classes.len()
        ),
        Change::RemoveTree(_, tree) => write!(f, "- {}", self::tree(tree)),
        Change::AddGuard(prefix) => write!(f, "+ guard route unreachable {prefix}"),
        Change::RemoveGuard(prefix) => write!(f, "- guard route unreachable {prefix}"),
        Change::PutPodRoute(pod, route) => {
            let ifindex = route.ifindex;
            write!(
                f,
                "+ delivery by the stack to pod {pod} on interface #{ifindex}"
            )
        }
        Change::RemovePodRoute(pod) => write!(f, "- delivery by the stack to pod {pod}"),
        Change::EnforcePodRoutes => {
            f.write_str("+ the stack delivers for slices to these pods only")
        }
        Change::ForgetPodRoutes => {
            f.write_str("- the stack delivers for slices to these pods only")
        }
        Change::AddWayBack(way) => write!(f, "+ {}", way_back(*way)),
        Change::RemoveWayBack(way) => write!(f, "- {}", way_back(*way)),
        Change::Activate(settings) => write!(
            f,
            "~ settings: underlay {}, UDP port {}, generation {}{}{}",
            settings.underlay_address,
            u16::from_be(settings.tunnel_port),
            settings.generation,
            if settings.flags & Settings::GATEWAY != 0 {
                ", a gateway"
            } else {
                ""
            },
            if settings.flags & Settings::SHAPES != 0 {
                ", with rates"
            } else {
                ""
            }
        ),
        Change::Attach(at) => write!(f, "+ program {} on {}", at.program.name(), at.interface),
        Change::Detach(at) => write!(f, "- program {} on {}", at.program.name(), at.interface),
    }
}

fn way_back(way: WayBack) -> String {
    let device = PortOwner::INTERFACE;
    match way {
        WayBack::To(prefix) => format!("reverse path of {prefix} by device {device}"),
        WayBack::From(pod) => format!("reverse paths for pod {pod}"),
    }
}

pub(super) fn path(names: &Names, id: u32, path: &Path) -> String {
    format!(
        "path {} from {} to {}:{} by interface #{}, mtu {}",
        named(&names.paths, id),
        path.local,
        path.remote,
        u16::from_be(path.port),
        path.ifindex,
        path.mtu
    )
}

pub(super) fn path_group(names: &Names, id: u32, group: &PathGroup) -> String {
    let used = (group.count as usize).min(PathGroup::PATHS_MAX);
    let paths: Vec<_> = group.paths[..used]
        .iter()
        .map(|path| named(&names.paths, *path))
        .collect();
    format!(
        "path group {}: {}",
        named(&names.path_groups, id),
        paths.join(", ")
    )
}

pub(super) fn peer(names: &Names, underlay: Address, peer: &Peer) -> String {
    format!(
        "peer {} at {underlay}",
        named(&names.peer_groups, peer.group)
    )
}

pub(super) fn slice(names: &Names, id: u32) -> String {
    format!("slice {} (id {id})", named(&names.slices, id))
}

pub(super) fn local(names: &Names, key: &LocalKey, pod: &LocalEndpoint) -> String {
    format!(
        "delivery of {} to pod {} of {} on interface #{}{}",
        key.address,
        pod.pod_address,
        named(&names.namespaces, pod.namespace),
        pod.ifindex,
        if pod.door().is_by_stack() {
            ", by the host's stack"
        } else {
            ""
        }
    )
}

pub(super) fn endpoint(names: &Names, ifindex: u32, endpoint: &Endpoint) -> String {
    let isolated = match endpoint.flags & (Endpoint::ISOLATED | Endpoint::CONFINED) {
        0 => "",
        Endpoint::ISOLATED => ", isolated",
        _ => ", isolated and confined",
    };
    format!(
        "endpoint on interface #{ifindex}: pod {} is {} of {}{isolated}{}",
        endpoint.pod_address,
        endpoint.slice_address,
        named(&names.namespaces, endpoint.namespace),
        of_class(names, endpoint.slice, endpoint.class.class)
    )
}

pub(super) fn node_address(address: Address) -> String {
    format!("node address {address}")
}

pub(super) fn route(names: &Names, key: &Prefixed<RouteKey>, route: &Route) -> String {
    let length = u8::try_from(key.prefix_bits.saturating_sub(32))
        .unwrap_or(32)
        .min(32);
    let prefix = Ipv4Net::new_assert(key.key.address.into(), length);
    let owner = match route.namespace {
        0 => named(&names.slices, route.slice),
        namespace => named(&names.namespaces, namespace),
    };
    let class = of_class(names, route.slice, route.class);
    match RouteKind::from_number(route.kind) {
        RouteKind::Local => format!("route {prefix} {owner} on this node{class}"),
        RouteKind::Via => {
            format!(
                "route {prefix} {owner} via {}{class}",
                named(&names.path_groups, route.path_group)
            )
        }
        RouteKind::Unreachable => format!("route {prefix} {owner} unreachable"),
    }
}

pub(super) fn policy(names: &Names, key: &Prefixed<PolicyKey>, entry: &PolicyEntry) -> String {
    let Prefixed { key, prefix_bits } = *key;
    let verdict = match PolicyVerdict::from_number(entry.verdict) {
        PolicyVerdict::Allow => "allow",
        PolicyVerdict::Deny => "deny",
    };
    let slice = named(&names.slices, key.slice);
    if prefix_bits <= PolicyKey::BITS_SLICE {
        return format!("policy {slice}: {verdict} by default");
    }
    let traffic = match prefix_bits {
        PolicyKey::BITS_NAMESPACES => "every protocol".to_owned(),
        bits => traffic(
            key.protocol,
            key.port,
            bits.checked_sub(PolicyKey::BITS_BEFORE_PORT),
        ),
    };
    let rule = match entry.rule {
        0 => String::new(),
        rule => format!(" (rule {})", named(&names.rules, rule)),
    };
    format!(
        "policy {} -> {}: {verdict} {traffic}{rule}",
        named(&names.namespaces, key.source_namespace),
        named(&names.namespaces, key.destination_namespace)
    )
}

pub(super) fn class(names: &Names, key: &Prefixed<ClassKey>, class: &Class) -> String {
    let Prefixed { key, prefix_bits } = *key;
    let name = class_name(names, key.slice, class.class);
    format!(
        "class {}/{name}: {}, DSCP {}",
        named(&names.slices, key.slice),
        traffic(
            key.protocol,
            key.port,
            prefix_bits.checked_sub(ClassKey::BITS_BEFORE_PORT)
        ),
        class.dscp
    )
}

/// What is said of a pod or a block that has a class of its own.
fn of_class(names: &Names, slice: u32, class: u8) -> String {
    match class {
        0 => String::new(),
        number => format!(", class {}", class_name(names, slice, number)),
    }
}

fn class_name(names: &Names, slice: u32, class: u8) -> String {
    let name = names.classes.get(&(slice, class)).cloned();
    name.unwrap_or_else(|| format!("#{class}"))
}

pub(super) fn outside(names: &Names, key: &Prefixed<OutsideKey>) -> String {
    let Prefixed { key, prefix_bits } = *key;
    let direction = if key.way == OutsideWay::In.number() {
        "from"
    } else {
        "to"
    };
    let any_or_one = if key.port == 0 { None } else { Some(16) };
    format!(
        "outside of {}: {direction} {}/{} {}",
        named(&names.slices, key.slice),
        key.address,
        prefix_bits.saturating_sub(OutsideKey::BITS_BEFORE_ADDRESS),
        traffic(key.protocol, key.port, any_or_one)
    )
}

/// `port_bits`: how many bits of the port count; `None` when the key ends before it.
fn traffic(protocol: u8, port: u16, port_bits: Option<u32>) -> String {
    let protocol = match protocol {
        transport::TCP => "TCP".to_owned(),
        transport::UDP => "UDP".to_owned(),
        transport::ICMP => "ICMP".to_owned(),
        other => format!("protocol {other}"),
    };
    let first = Port::from_network_word(port).number();
    match port_bits {
        None | Some(0) => protocol,
        Some(16..) => format!("{protocol} {first}"),
        Some(bits) => format!("{protocol} {first}-{}", first | u16::MAX >> bits),
    }
}

fn fair_queue(queue: &FairQueue) -> String {
    let FairQueue { interface, queues } = queue;
    match queues {
        1 => format!("queueing discipline fq on {interface}"),
        more => format!("queueing discipline fq on each of {more} queues of {interface}"),
    }
}

fn tree(tree: &ClassTree) -> String {
    let ClassTree {
        interface, classes, ..
    } = tree;
    format!(
        "queueing discipline htb on {interface}, {} classes",
        classes.len()
    )
}

/// The name, or the number of what the wanted configuration no longer names.
pub(super) fn named(names: &BTreeMap<u32, String>, id: u32) -> String {
    names.get(&id).cloned().unwrap_or_else(|| format!("#{id}"))
}
