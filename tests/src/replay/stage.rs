//! Where a replay plays, and who may say what there: by the inventory, not by what agents made of it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use nix::net::if_::if_nametoindex;
use slice_agent::apply::maps::Maps;
use slice_agent::apply::pins::Pins;

use super::tables;
use crate::fuzz::Tables;
use crate::gateways::{self, Gateways};
use crate::lab::Lab;
use crate::lab::inventory::{CLUSTERS, NODES, PODS, PodNetwork, SLICES, blocks, find_node};
use crate::live::mac_of;
use crate::netns::NetNs;
use crate::packet::Mac;

/// A pod on a bridge, in no slice.
const STRANGER: &str = "stranger-2";
const NOWHERE_NEAR: [u8; 4] = [203, 0, 113, 9];

/// Nodes with agents, and pods.
#[derive(Debug)]
pub struct Stage {
    pub nodes: Vec<StageNode>,
    pub(super) pods: Vec<StagePod>,
    /// By name, where a pod of no slice is on a bridge with others.
    pub(super) stranger: Option<&'static str>,
    /// Addresses of the underlay that are no node's.
    pub(super) unknown_hosts: Vec<[u8; 4]>,
    /// By number.
    pub(super) slices: Vec<u32>,
    /// Which node hears from which underlay address of which block, by its first address.
    pub(super) entitled: BTreeSet<(&'static str, [u8; 4], [u8; 4])>,
    /// Wherever a packet can get lost.
    pub(super) namespaces: Vec<NetNs>,
}

/// A node, and what its agent wrote.
#[derive(Debug)]
pub struct StageNode {
    pub name: &'static str,
    pub netns: NetNs,
    pub tables: Tables,
    pins: Pins,
    pub(super) cluster: &'static str,
    pub(super) underlay: [u8; 4],
    /// Where somebody beside the node can send to its `nic0`.
    pub(super) beside: (NetNs, String),
    pub(super) is_gateway: bool,
    pub(super) has_bridge: bool,
    /// The link-layer addresses of its pods, by their names.
    pub(super) pods: Vec<(&'static str, Mac)>,
}

#[derive(Debug)]
pub(super) struct StagePod {
    pub(super) name: &'static str,
    pub(super) node: &'static str,
    pub(super) netns: NetNs,
    pub(super) host_interface: String,
    pub(super) mac: Mac,
    pub(super) address: [u8; 4],
    /// Its slice, and its address there.
    pub(super) member: Option<(u32, [u8; 4])>,
}

/// A node before its maps are read.
struct Place {
    name: &'static str,
    netns: NetNs,
    pins: Pins,
    cluster: &'static str,
    underlay: [u8; 4],
    beside: (NetNs, String),
    is_gateway: bool,
    has_bridge: bool,
}

impl Stage {
    /// The lab with agents on all nodes: each reaches each.
    /// # Errors  when a map or a device cannot be read.
    pub fn of_lab(lab: &Lab) -> Result<Self> {
        let mut pods = Vec::new();
        for pod in &PODS {
            let slice = pod
                .member
                .and_then(|member| SLICES.iter().find(|slice| slice.name == member.slice));
            let address = pod.slice_address().map(|it| it.octets());
            let netns = NetNs::open(&pod.namespace())?;
            pods.push(StagePod {
                name: pod.name,
                node: pod.node,
                mac: mac_of(&netns, "eth0")?,
                netns,
                host_interface: pod.host_interface(),
                address: pod.pod_address().octets(),
                member: slice.map(|slice| slice.id).zip(address),
            });
        }
        let mut nodes = Vec::new();
        for node in lab.nodes()? {
            let cluster = node.spec.cluster();
            let fabric = NetNs::open(&cluster.fabric_namespace())?;
            let place = Place {
                name: node.name,
                pins: Pins::current(&node.bpffs),
                netns: node.netns,
                cluster: cluster.name,
                underlay: node.underlay.octets(),
                beside: (fabric, node.spec.fabric_port()),
                is_gateway: false,
                has_bridge: cluster.pod_network == PodNetwork::Bridge,
            };
            nodes.push(place.with_tables(&pods)?);
        }
        let mut entitled = BTreeSet::new();
        for block in blocks() {
            let owner = find_node(block.node).context("a node of the lab")?;
            let heard = (owner.underlay().octets(), block.first.octets());
            entitled.extend(NODES.iter().map(|node| (node.name, heard.0, heard.1)));
        }
        let routers = CLUSTERS.iter().map(|cluster| cluster.gateway().octets());
        Ok(Self {
            nodes,
            pods,
            stranger: Some(STRANGER),
            unknown_hosts: routers.chain([NOWHERE_NEAR]).collect(),
            slices: SLICES.iter().map(|slice| slice.id).collect(),
            entitled,
            namespaces: lab.namespaces()?,
        })
    }

    /// Clusters behind gateways, with agents on all nodes.
    /// # Errors  when a map or a device cannot be read.
    pub fn of_gateways(gateways: &Gateways) -> Result<Self> {
        let mut pods = Vec::new();
        for node in &gateways.nodes {
            for pod in &node.pods {
                pods.push(StagePod {
                    name: pod.name,
                    node: node.name,
                    mac: mac_of(&pod.netns, "eth0")?,
                    netns: pod.netns.clone(),
                    host_interface: pod.host_interface.to_owned(),
                    address: pod.address.octets(),
                    member: pod
                        .slice_address
                        .map(|it| (gateways::SLICE_ID, it.octets())),
                });
            }
        }
        let router = gateways.router.namespace();
        let (mut nodes, mut entitled) = (Vec::new(), BTreeSet::new());
        for (index, (plan, node)) in gateways.plan.nodes.iter().zip(&gateways.nodes).enumerate() {
            let place = Place {
                name: plan.name,
                netns: node.namespace.clone(),
                pins: node.pins(),
                cluster: plan.cluster,
                underlay: plan.address.octets(),
                beside: (router.clone(), gateways::Router::link_to(index)),
                is_gateway: plan.is_gateway,
                has_bridge: false,
            };
            nodes.push(place.with_tables(&pods)?);
            let heard = gateways.plan.heard_by(plan);
            entitled.extend(
                heard
                    .into_iter()
                    .map(|(from, block)| (plan.name, from.octets(), block.octets())),
            );
        }
        let namespaces = nodes.iter().map(|node| &node.netns);
        let namespaces = namespaces.chain(pods.iter().map(|pod| &pod.netns));
        Ok(Self {
            namespaces: namespaces.chain([router]).cloned().collect(),
            nodes,
            pods,
            stranger: None,
            unknown_hosts: vec![gateways::UNKNOWN_HOST.octets(), NOWHERE_NEAR],
            slices: vec![gateways::SLICE_ID],
            entitled,
        })
    }

    pub(super) fn node(&self, name: &str) -> Result<&StageNode> {
        let found = self.nodes.iter().find(|node| node.name == name);
        found.with_context(|| format!("there is no node {name}"))
    }

    pub(super) fn node_at(&self, underlay: [u8; 4]) -> Option<&StageNode> {
        self.nodes.iter().find(|node| node.underlay == underlay)
    }

    pub(super) fn pod(&self, name: &str) -> Result<&StagePod> {
        let found = self.pods.iter().find(|pod| pod.name == name);
        found.with_context(|| format!("there is no pod {name}"))
    }

    /// Whether the node with this underlay address is the pod's own.
    pub(super) fn is_at_home(&self, pod: &str, underlay: [u8; 4]) -> bool {
        let home = self.pod(pod).and_then(|pod| self.node(pod.node));
        home.is_ok_and(|home| home.underlay == underlay)
    }

    /// Whether `at` may hear from `from` of what is in a block around `source`.
    pub(super) fn is_entitled(&self, at: &'static str, from: [u8; 4], source: [u8; 4]) -> bool {
        self.entitled.contains(&(at, from, first_of_block(source)))
    }
}

/// Blocks have eight addresses.
pub(super) fn first_of_block([a, b, c, d]: [u8; 4]) -> [u8; 4] {
    [a, b, c, d & !7]
}

impl Place {
    fn with_tables(self, all: &[StagePod]) -> Result<StageNode> {
        let (mut devices, mut pods) = (BTreeMap::new(), Vec::new());
        for pod in all.iter().filter(|pod| pod.node == self.name) {
            let index = || if_nametoindex(pod.host_interface.as_str());
            devices.insert(self.netns.enter(index)??, (pod.name, pod.mac));
            pods.push((pod.name, pod.mac));
        }
        Ok(StageNode {
            tables: tables::of_node(self.name, &Maps::new(self.pins.clone()), &devices)?,
            name: self.name,
            netns: self.netns,
            pins: self.pins,
            cluster: self.cluster,
            underlay: self.underlay,
            beside: self.beside,
            is_gateway: self.is_gateway,
            has_bridge: self.has_bridge,
            pods,
        })
    }
}

impl StageNode {
    pub fn maps(&self) -> Maps {
        Maps::new(self.pins.clone())
    }

    pub(super) fn pod_with(&self, mac: &[u8]) -> Option<&'static str> {
        let found = self.pods.iter().find(|(_, its)| its == mac);
        found.map(|(name, _)| *name)
    }
}
