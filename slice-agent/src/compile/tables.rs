//! The tables of one node.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use slice_common::address::{Address, Port};
use slice_common::id::{ClusterId, PathGroupId, PathId, TableId};
use slice_common::layout::{
    Capacity, Encapsulation, Endpoint, LocalEndpoint, LocalKey, Path, PathGroup, Peer, Route,
    RouteKey, RouteKind, Settings, Slice,
};
use slice_common::wire::vxlan;

use super::delivery::{Delivery, Member};
use super::ways::Way;
use super::{classes, early_drop, guarded, node_addresses, outside, policy, queues, shaping};
use crate::image::{
    Attachment, HostFacts, Interface, Names, NodeImage, PodRoute, PortOwner, Prefixed, Program,
    WayBack,
};
use crate::model::{
    self, Addressing, ConfigError, IsolationLevel, KnownPod, MTU_BYTES_MIN, Problem, Validated,
    ValidatedBlock, ValidatedElsewhere, ValidatedEndpoint, ValidatedPeer, ValidatedRemote,
    ValidatedSlice,
};

const TABLE: u32 = TableId::HUB.0;
/// The one entry of a node.
const ENTRY: &str = "0";

/// Compiles a configuration for the host that `facts` describes.
///
/// A pod whose link-layer address the host does not know gets a fixed one: the kernel takes what is
/// handed to the pod's end of a veth as addressed to it. Only sandboxes that look at frames
/// themselves (a virtual machine, gVisor) need the real one: see [`pods_without_mac`].
///
/// What does not fit the host ([`model::mismatches`]) is left out, as far as it must be: a pod whose interface is
/// no veth, what goes by an underlay that is not there, addresses of the node that are too many.
///
/// # Errors
/// Tables that would not fit the kernel's.
pub fn compile(
    configuration: &Validated,
    facts: &HostFacts,
) -> Result<(NodeImage, Names), Vec<ConfigError>> {
    let mut errors = Vec::new();
    let mut builder = Builder {
        configuration,
        facts,
        delivery: Delivery::new(configuration.node(), &mut errors),
        image: NodeImage::default(),
        names: Names::default(),
        errors,
    };
    builder.add_node();
    for slice in configuration.slices() {
        builder.add_slice(slice);
    }
    for endpoint in &configuration.node().endpoints {
        builder.add_endpoint(endpoint);
    }
    for peer in &configuration.node().peers {
        builder.add_peer(peer);
    }
    for remote in &configuration.node().remotes {
        builder.add_remote(remote);
    }
    builder.watch_peers();
    builder.add_rates();
    builder.check_capacities();
    if builder.errors.is_empty() {
        Ok((builder.image, builder.names))
    } else {
        Err(builder.errors)
    }
}

/// The endpoints whose link-layer address the host does not know (yet).
pub fn pods_without_mac<'a>(
    configuration: &'a Validated,
    facts: &HostFacts,
) -> Vec<&'a ValidatedEndpoint> {
    let endpoints = configuration.node().endpoints.iter();
    endpoints
        .filter(|endpoint| {
            let interface = facts.interfaces.get(&endpoint.interface);
            interface.is_none_or(|interface| mac(facts, interface, endpoint).is_none())
        })
        .collect()
}

/// Behind a bridge the host talks to the pod by the bridge.
fn mac(facts: &HostFacts, interface: &Interface, endpoint: &ValidatedEndpoint) -> Option<[u8; 6]> {
    facts
        .neighbours
        .get(&(asked_by(interface), endpoint.address.into()))
        .copied()
}

/// The interface by which the host would ask for the pod behind `interface`.
pub fn asked_by(interface: &Interface) -> u32 {
    match interface.controller_ifindex {
        0 => interface.ifindex,
        controller => controller,
    }
}

struct Builder<'a> {
    configuration: &'a Validated,
    facts: &'a HostFacts,
    delivery: Delivery<'a>,
    image: NodeImage,
    names: Names,
    errors: Vec<ConfigError>,
}

impl<'a> Builder<'a> {
    fn add_node(&mut self) {
        let node = self.configuration.node();
        let underlay = &node.underlay;
        let interface = self.underlay();
        let underlay_mac = interface.map(|interface| interface.mac).unwrap_or_default();
        self.image.settings = Some(Settings {
            generation: 0,
            underlay_address: underlay.address.into(),
            tunnel_port: Port::new(underlay.port).network_word(),
            flags: if node.is_gateway {
                Settings::GATEWAY
            } else {
                0
            },
            tunnel_mark: self.facts.secrets.tunnel_mark,
            detour_secret: self.facts.secrets.detour,
            underlay_mac,
            reserved_mac: 0,
            tunnel_ifindex: Settings::PORT_OWNERS,
            flow_secret: self.facts.secrets.flows,
        });
        let owner = PortOwner::INTERFACE.to_owned();
        let port = underlay.port;
        self.image.port_owner = Some(PortOwner {
            interface: owner.clone(),
            port,
        });
        // 0: the device may be created by the same plan.
        self.attach(&owner, 0, Program::TunnelIngress);
        if let Some(ifindex) = interface.map(|interface| interface.ifindex) {
            self.attach(&underlay.interface, ifindex, Program::UnderlayIngress);
            if early_drop::early_drop(self.configuration, self.facts) == Ok(true) {
                self.attach(&underlay.interface, ifindex, Program::UnderlayFilter);
            }
        }
        for (interface, ifindex) in guarded::guarded(self.configuration, self.facts) {
            self.attach(interface, ifindex, Program::UnderlayGuard);
        }
        let (known, _) = node_addresses::by_need(self.configuration, self.facts);
        self.image.node_addresses = known.map(|address| (address.into(), 1)).collect();
        let cluster = cluster_number(&node.cluster);
        self.names.clusters.insert(cluster, node.cluster.clone());
        for block in &node.blocks {
            self.add_block(block, Way::to_this_node(cluster));
        }
    }

    fn add_slice(&mut self, slice: &ValidatedSlice) {
        let number = slice.id.number();
        self.names.slices.insert(number, slice.name.clone());
        self.image.slices.insert(
            number,
            Slice {
                table: TABLE,
                reserved: 0,
            },
        );
        for range in slice.ranges() {
            self.image.guards.insert(*range);
            let route = Route {
                slice: number,
                cluster: 0,
                namespace: 0,
                kind: RouteKind::Unreachable.number(),
                class: 0,
                dscp: 0,
                path_group: 0,
                deliver_group: 0,
                deliver_members: 0,
            };
            // A block may be as large as the range; then the block counts.
            self.image.routes.entry(route_key(*range)).or_insert(route);
        }
        let namespaces = model::namespaces(self.configuration.node(), slice);
        let policy = &mut self.image.policy;
        self.errors
            .extend(policy::add_slice(slice, &namespaces, &mut self.names, policy).err());
        classes::add_slice(slice, &mut self.names, &mut self.image.classes);
        outside::add_slice(slice, &mut self.image.outside);
    }

    fn add_endpoint(&mut self, endpoint: &ValidatedEndpoint) {
        let Some(slice) = self.configuration.slice(&endpoint.slice) else {
            return;
        };
        let Ok(interface) = model::pods_interface(self.facts, &endpoint.interface) else {
            return;
        };
        let namespace = policy::namespace_id(slice, &endpoint.namespace);
        let cluster = cluster_number(&self.configuration.node().cluster);
        let (pod_address, slice_address) = (endpoint.address.into(), endpoint.slice_address.into());
        let value = Endpoint {
            table: TABLE,
            slice: slice.id.number(),
            namespace,
            cluster,
            pod_address,
            slice_address,
            flags: match slice.isolation.level {
                IsolationLevel::Open => 0,
                IsolationLevel::Slice => Endpoint::ISOLATED,
                IsolationLevel::Strict => Endpoint::ISOLATED | Endpoint::CONFINED,
            },
            class: classes::of_pod(slice, &endpoint.namespace, &endpoint.labels),
        };
        self.image.endpoints.insert(interface.ifindex, value);
        let key = LocalKey {
            table: TABLE,
            address: slice_address,
        };
        let local = LocalEndpoint {
            ifindex: interface.ifindex,
            slice: slice.id.number(),
            namespace,
            pod_address,
            pod_mac: mac(self.facts, interface, endpoint).unwrap_or(vxlan::INNER_DESTINATION_MAC),
            flags: match slice.delivery {
                model::Delivery::Peer => 0,
                model::Delivery::Stack => LocalEndpoint::BY_STACK,
            },
        };
        self.image.local.insert(key, local);
        self.add_pod_of_its_own_class(&endpoint.into(), Way::to_this_node(cluster));
        if slice.delivery == model::Delivery::Stack {
            let sources = model::sources(self.configuration.node(), slice);
            let ways = sources.into_iter().map(WayBack::To);
            self.image.ways_back.extend(ways);
            self.image.ways_back.insert(WayBack::From(endpoint.address));
            let by_arp = mac(self.facts, interface, endpoint);
            let neighbour = interface.peer_mac.or(by_arp);
            let is_port = interface.controller_ifindex != 0;
            let route = PodRoute {
                ifindex: interface.ifindex,
                neighbour: neighbour.filter(|_| is_port),
            };
            // Until a pod behind a bridge told its address, nobody gets what is for it.
            if !is_port || neighbour.is_some() {
                self.image.pod_routes.insert(endpoint.address, route);
            }
            self.image.pod_routes_in_force = true;
        }
        for program in [Program::PodEgress, Program::PodIngress] {
            self.attach(&endpoint.interface, interface.ifindex, program);
        }
    }

    fn add_peer(&mut self, peer: &ValidatedPeer) {
        let underlay = &self.configuration.node().underlay;
        let Some(interface) = self.underlay() else {
            return;
        };
        let shown = format!("{}/{}", peer.cluster, peer.name);
        let name: [&str; 2] = [&peer.cluster, &peer.name];
        let path = PathId::from_name(&[&peer.cluster, &peer.name, ENTRY]).number();
        let path_group = PathGroupId::from_name(&name).number();
        let member = self.delivery.of(&peer.cluster, &peer.name);
        let cluster = cluster_number(&peer.cluster);
        let mut flags = if peer.is_fellow { Peer::FELLOW } else { 0 };
        if peer.cluster == self.configuration.node().cluster {
            flags |= Peer::SAME_CLUSTER;
        }
        self.image
            .paths
            .insert(path, self.path_to(peer, underlay.address, interface));
        self.image.path_groups.insert(path_group, group_of(&[path]));
        self.image.peers.insert(
            peer.underlay.into(),
            Peer {
                group: member.group,
                cluster,
                member: member.bits,
                path,
                flags,
            },
        );
        let way = Way::by(path_group, cluster, member);
        self.add_elsewhere(&peer.blocks, &peer.endpoints, way);
        self.names.clusters.insert(cluster, peer.cluster.clone());
        self.names.paths.insert(path, shown.clone());
        self.names.path_groups.insert(path_group, shown.clone());
        let named = self.names.peer_groups.entry(member.group);
        // Gateways share a group; the plan prints their addresses beside its name.
        named
            .and_modify(|it| *it = format!("{}/gateways", peer.cluster))
            .or_insert(shown);
    }

    /// Blocks behind gateways: the paths to these, in order, and any of them may deliver. Behind them come
    /// fellow gateways: where a packet goes when no path to these is proven.
    fn add_remote(&mut self, remote: &ValidatedRemote) {
        let gateway_cluster: &str = &remote.gateway_cluster;
        let mut paths = Vec::new();
        let mut members = Member::NOBODY;
        for name in &remote.gateways {
            paths.push(PathId::from_name(&[gateway_cluster, name, ENTRY]).number());
            members = members.and(self.delivery.of(gateway_cluster, name));
        }
        let peers = &self.configuration.node().peers;
        let fellows = peers.iter().filter(|peer| peer.is_fellow);
        let to_fellows: Vec<_> = fellows
            .map(|it| PathId::from_name(&[&it.cluster, &it.name, ENTRY]).number())
            .filter(|path| !paths.contains(path))
            .collect();
        paths.extend(&to_fellows);
        let group = PathGroup {
            fellows: to_fellows.len() as u16,
            ..group_of(&paths)
        };
        let path_group = remote.path_group().number();
        let cluster = cluster_number(&remote.cluster);
        self.image.path_groups.insert(path_group, group);
        let way = Way::by(path_group, cluster, members);
        self.add_elsewhere(&remote.blocks, &remote.endpoints, way);
        self.names.clusters.insert(cluster, remote.cluster.clone());
        self.names
            .path_groups
            .insert(path_group, remote.to_string());
    }

    /// Marks the peers that packets choose between.
    fn watch_peers(&mut self) {
        let image = &mut self.image;
        let groups = image.path_groups.values().filter(|group| group.count > 1);
        let chosen: BTreeSet<u32> = groups.flat_map(|group| group.paths).collect();
        for peer in image.peers.values_mut() {
            if chosen.contains(&peer.path) {
                peer.flags |= Peer::WATCHED;
            }
        }
    }

    /// What slices may send by the uplinks.
    fn add_rates(&mut self) {
        for uplink in &self.configuration.node().uplinks {
            if let Some(interface) = self.facts.interfaces.get(&uplink.interface) {
                let name = uplink.name.clone();
                self.names.uplinks.insert(interface.ifindex, name);
            }
        }
        match shaping::rates(self.configuration, self.facts) {
            Ok(rates) => self.image.rates = rates,
            Err(errors) => self.errors.extend(errors),
        }
        let queues = queues::wanted(self.configuration, self.facts, &self.image.rates);
        (self.image.fair_queues, self.image.trees) = queues;
        if let Some(settings) = &mut self.image.settings
            && !self.image.rates.is_empty()
        {
            settings.flags |= Settings::SHAPES;
        }
    }

    fn add_elsewhere(
        &mut self,
        blocks: &[ValidatedBlock],
        endpoints: &[ValidatedElsewhere],
        way: Way,
    ) {
        for block in blocks {
            self.add_block(block, way);
            let slice = self.configuration.slice(&block.slice);
            if slice.is_some_and(|slice| slice.addressing == Addressing::Native) {
                self.image.guards.insert(block.prefix);
            }
        }
        for endpoint in endpoints {
            self.add_pod_of_its_own_class(&endpoint.into(), way);
        }
    }

    fn path_to(&self, peer: &ValidatedPeer, local: Ipv4Addr, interface: &Interface) -> Path {
        Path {
            local: local.into(),
            remote: peer.underlay.into(),
            ifindex: interface.ifindex,
            mtu: peer
                .mtu_bytes
                .unwrap_or(interface.mtu_bytes.clamp(MTU_BYTES_MIN, u16::MAX.into())),
            encapsulation: Encapsulation::Vxlan.number(),
            port: Port::new(self.configuration.node().underlay.port).network_word(),
            flags: if peer.is_fellow { Path::TO_FELLOW } else { 0 },
            cluster: cluster_number(&peer.cluster),
            reserved_32: 0,
        }
    }

    fn add_block(&mut self, block: &ValidatedBlock, way: Way) {
        if let Some(slice) = self.configuration.slice(&block.slice) {
            let class = classes::of_block(slice, &block.namespace);
            let route = way.route(slice, &block.namespace, class);
            self.image.routes.insert(route_key(block.prefix), route);
        }
    }

    /// A pod whose labels say something else than its block does has a route of its own, which differs in
    /// nothing but the class.
    fn add_pod_of_its_own_class(&mut self, pod: &KnownPod, way: Way) {
        let Some(slice) = self.configuration.slice(pod.slice) else {
            return;
        };
        let class = classes::of_pod(slice, pod.namespace, pod.labels);
        if class != classes::of_block(slice, pod.namespace) {
            let route = way.route(slice, pod.namespace, class);
            self.image
                .routes
                .insert(route_key(pod.slice_address.into()), route);
        }
    }

    fn attach(&mut self, interface: &str, ifindex: u32, program: Program) {
        let interface = interface.to_owned();
        self.image.attachments.insert(Attachment {
            interface,
            ifindex,
            program,
        });
    }

    /// The underlay's interface, if this host has one that does.
    fn underlay(&self) -> Option<&'a Interface> {
        let name = &self.configuration.node().underlay.interface;
        model::ethernet(self.facts, name).ok()
    }

    /// The policy's size was checked with its rules.
    fn check_capacities(&mut self) {
        let image = &self.image;
        let sizes = [
            (
                "paths (one for each peer)",
                image.paths.len(),
                Capacity::PATHS,
            ),
            (
                "path groups (one for each peer and each list of gateways)",
                image.path_groups.len(),
                Capacity::PATH_GROUPS,
            ),
            ("peers", image.peers.len(), Capacity::PEERS),
            ("slices", image.slices.len(), Capacity::SLICES),
            (
                "pods with a slice address",
                image.local.len(),
                Capacity::LOCAL,
            ),
            ("endpoints", image.endpoints.len(), Capacity::ENDPOINTS),
            (
                "blocks, ranges, and pods of another class than their block",
                image.routes.len(),
                Capacity::ROUTES,
            ),
            ("class entries", image.classes.len(), Capacity::CLASSES),
            (
                "slices with a ceiling, counted on each uplink",
                image.rates.len(),
                Capacity::SLICE_CLOCKS,
            ),
            (
                "entries of fromOutside and toOutside",
                image.outside.len(),
                Capacity::OUTSIDE,
            ),
        ];
        let place = &self.configuration.node().place;
        for (what, count, limit) in sizes {
            if count > limit {
                self.errors
                    .push(place.error(Problem::TooMany { what, count, limit }));
            }
        }
    }
}

/// A group of these paths, of which there are no more than fit (checked with the configuration).
fn group_of(paths: &[u32]) -> PathGroup {
    let mut group = PathGroup {
        count: 0,
        fellows: 0,
        paths: [0; PathGroup::PATHS_MAX],
    };
    for (place, path) in group.paths.iter_mut().zip(paths) {
        *place = *path;
        group.count += 1;
    }
    group
}

fn cluster_number(name: &str) -> u32 {
    ClusterId::from_name(&[name]).number()
}

fn route_key(prefix: ipnet::Ipv4Net) -> Prefixed<RouteKey> {
    let key = RouteKey {
        table: TABLE,
        address: Address::from(prefix.network()),
    };
    Prefixed {
        key,
        prefix_bits: 32 + u32::from(prefix.prefix_len()),
    }
}
