//! Who is there, and who reaches whom through whom.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

/// The number of the slice below.
pub const SLICE_ID: u32 = 7;
/// An address of the underlay that is no node's.
pub const UNKNOWN_HOST: Ipv4Addr = Ipv4Addr::new(172, 31, 1, 200);
/// The slice that all pods but strangers belong to; ports 7000 to 7009 are open between them.
const SLICE: &str = "kind: Slice
metadata: {name: bench}
id: 7
spec:
  addressing: {mode: Mapped, ranges: [10.92.0.0/16]}
  isolation: {level: Slice}
  policy:
    defaultAction: Deny
    rules:
    - name: load
      action: Allow
      from: [kafka]
      to: [kafka]
      ports: [{protocol: TCP, port: 7000-7009}, {protocol: UDP, port: 7000-7009}, {protocol: ICMP}]
  encryption: {mode: None}
  acceptPlaintext: true
";

const USUAL_MTU_BYTES: u32 = 1500;

/// Every node.
#[derive(Clone, Debug)]
pub struct Plan {
    pub nodes: Vec<NodePlan>,
}

/// A node.
#[derive(Clone, Debug)]
pub struct NodePlan {
    pub cluster: &'static str,
    /// Unique among all, unlike in real life: the router and the reader know nodes by it.
    pub name: &'static str,
    pub address: Ipv4Addr,
    pub is_gateway: bool,
    /// What its link and its pods' links carry.
    pub mtu_bytes: u32,
    /// The slice address of the node's pod, if it has one. It goes by the node's name.
    pub pod: Option<Ipv4Addr>,
    /// The name of another pod, which is in no slice.
    pub stranger: Option<&'static str>,
    /// Names of nodes.
    pub peers: Vec<&'static str>,
    /// Peers that are gateways of the same cluster.
    pub fellows: Vec<&'static str>,
    pub remotes: Vec<Remote>,
}

/// What lies behind gateways.
#[derive(Clone, Debug)]
pub struct Remote {
    pub cluster: &'static str,
    /// Names of nodes, in order of preference.
    pub gateways: Vec<&'static str>,
    /// Names of the nodes whose blocks it is.
    pub members: Vec<&'static str>,
}

impl Plan {
    /// Two clusters, two gateways each that are fellows, a member with a pod on both sides.
    pub fn two_by_two() -> Self {
        let mut nodes = Vec::new();
        for (cluster, far, member, gateways, far_member, far_gateways) in [
            (
                "east",
                "west",
                "east-1",
                ["east-gw-1", "east-gw-2"],
                "west-1",
                ["west-gw-1", "west-gw-2"],
            ),
            (
                "west",
                "east",
                "west-1",
                ["west-gw-1", "west-gw-2"],
                "east-1",
                ["east-gw-1", "east-gw-2"],
            ),
        ] {
            let remote = |gateways: [&'static str; 2]| Remote {
                cluster: far,
                gateways: gateways.to_vec(),
                members: vec![far_member],
            };
            let (side, stranger) = match cluster {
                "east" => (1, "east-stranger"),
                _ => (2, "west-stranger"),
            };
            let address = |host| Ipv4Addr::new(172, 31, side, host);
            nodes.push(NodePlan {
                cluster,
                name: member,
                address: address(11),
                is_gateway: false,
                mtu_bytes: USUAL_MTU_BYTES,
                pod: Some(Ipv4Addr::new(10, 92, 64 * (side - 1), 2)),
                stranger: Some(stranger),
                peers: gateways.to_vec(),
                fellows: Vec::new(),
                remotes: vec![remote(gateways)],
            });
            for (host, name) in (101..).zip(gateways) {
                let mut fellows = gateways.to_vec();
                fellows.retain(|it| *it != name);
                nodes.push(NodePlan {
                    cluster,
                    name,
                    address: address(host),
                    is_gateway: true,
                    mtu_bytes: USUAL_MTU_BYTES,
                    pod: None,
                    stranger: None,
                    peers: [vec![member], fellows.clone(), far_gateways.to_vec()].concat(),
                    fellows,
                    remotes: vec![remote(far_gateways)],
                });
            }
        }
        Self { nodes }
    }

    /// The same, with wide links but for those of both second gateways.
    pub fn wide_and_narrow(wide_bytes: u32, narrow_bytes: u32) -> Self {
        let mut plan = Self::two_by_two();
        for node in &mut plan.nodes {
            let is_narrow = node.name.ends_with("gw-2");
            node.mtu_bytes = if is_narrow { narrow_bytes } else { wide_bytes };
        }
        plan
    }

    /// East and west, joined by the gateway of a cluster between them.
    pub fn hub_and_spokes() -> Self {
        let mut plan = Self { nodes: Vec::new() };
        plan.add_cluster(1, "east", &[("west", "hub-gw", "west-1")]);
        plan.add_cluster(2, "west", &[("east", "hub-gw", "east-1")]);
        plan.add_gateway(
            3,
            "hub",
            &["east-gw", "west-gw"],
            &[("east", "east-gw", "east-1"), ("west", "west-gw", "west-1")],
        );
        plan
    }

    /// East says that south is behind west, and west that it is behind east.
    pub fn loop_of_two() -> Self {
        let mut plan = Self { nodes: Vec::new() };
        plan.add_cluster(1, "east", &[("south", "west-gw", "south-1")]);
        plan.add_cluster(
            2,
            "west",
            &[
                ("south", "east-gw", "south-1"),
                ("east", "east-gw", "east-1"),
            ],
        );
        plan.add_cluster(3, "south", &[]);
        plan
    }

    /// A member with a pod and its gateway; behind other gateways lie clusters, each with one member.
    fn add_cluster(
        &mut self,
        side: u8,
        cluster: &'static str,
        behind: &[(&'static str, &'static str, &'static str)],
    ) {
        let (member, gateway) = match cluster {
            "east" => ("east-1", "east-gw"),
            "west" => ("west-1", "west-gw"),
            _ => ("south-1", "south-gw"),
        };
        let remotes = behind
            .iter()
            .map(|(cluster, _, far)| (*cluster, gateway, *far));
        self.nodes.push(NodePlan {
            cluster,
            name: member,
            address: Ipv4Addr::new(172, 31, side, 11),
            is_gateway: false,
            mtu_bytes: USUAL_MTU_BYTES,
            pod: Some(Ipv4Addr::new(10, 92, 64 * (side - 1), 2)),
            stranger: None,
            peers: vec![gateway],
            fellows: Vec::new(),
            remotes: remotes.map(Remote::new).collect(),
        });
        let mut peers = vec![member];
        for (_, far_gateway, _) in behind {
            if !peers.contains(far_gateway) {
                peers.push(far_gateway);
            }
        }
        self.add_gateway(side, cluster, &peers, behind);
    }

    fn add_gateway(
        &mut self,
        side: u8,
        cluster: &'static str,
        peers: &[&'static str],
        behind: &[(&'static str, &'static str, &'static str)],
    ) {
        self.nodes.push(NodePlan {
            cluster,
            name: match cluster {
                "east" => "east-gw",
                "west" => "west-gw",
                "hub" => "hub-gw",
                _ => "south-gw",
            },
            address: Ipv4Addr::new(172, 31, side, 101),
            is_gateway: true,
            mtu_bytes: USUAL_MTU_BYTES,
            pod: None,
            stranger: None,
            peers: peers.to_vec(),
            fellows: Vec::new(),
            remotes: behind.iter().copied().map(Remote::new).collect(),
        });
    }

    pub fn node(&self, name: &str) -> Option<&NodePlan> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// Gateways of different clusters, both ways round.
    pub fn gateway_pairs(&self) -> Vec<(&NodePlan, &NodePlan)> {
        let gateways = || self.nodes.iter().filter(|node| node.is_gateway);
        gateways()
            .flat_map(|from| gateways().map(move |to| (from, to)))
            .filter(|(from, to)| from.cluster != to.cluster)
            .collect()
    }

    /// Who tells a node of which blocks: underlay addresses, and the blocks' first addresses.
    pub fn heard_by(&self, node: &NodePlan) -> Vec<(Ipv4Addr, Ipv4Addr)> {
        let mut heard = Vec::new();
        for peer in node.peers.iter().filter_map(|name| self.node(name)) {
            heard.extend(peer.pod.map(|pod| (peer.address, first_of_block(pod))));
        }
        for remote in &node.remotes {
            let blocks = remote
                .members
                .iter()
                .filter_map(|name| self.node(name)?.pod);
            for block in blocks.map(first_of_block) {
                let gateways = remote.gateways.iter().filter_map(|name| self.node(name));
                heard.extend(gateways.map(|gateway| (gateway.address, block)));
            }
        }
        // A fellow speaks for all of them.
        let blocks: BTreeSet<_> = heard.iter().map(|(_, block)| *block).collect();
        for fellow in node.fellows.iter().filter_map(|name| self.node(name)) {
            heard.extend(blocks.iter().map(|block| (fellow.address, *block)));
        }
        heard
    }

    /// The configuration of a node.
    pub(super) fn documents(&self, node: &NodePlan) -> String {
        let mut text = format!(
            "kind: Node\ncluster: {}\nname: {}\nunderlay: {{address: {}, interface: nic0}}\n\
             gateway: {}\n",
            node.cluster, node.name, node.address, node.is_gateway
        );
        if let Some(pod) = node.pod {
            let _ = write!(
                text,
                "endpoints:\n- {{slice: bench, namespace: kafka, name: pod, interface: pod0, \
                 address: {}, sliceAddress: {pod}}}\nblocks:\n- {}\n",
                super::node::POD_ADDRESS,
                block(pod)
            );
        }
        text.push_str("peers:\n");
        for peer in node.peers.iter().filter_map(|name| self.node(name)) {
            let blocks: Vec<_> = peer.pod.map(block).into_iter().collect();
            let is_narrow = peer.mtu_bytes < node.mtu_bytes;
            let narrow = is_narrow.then(|| format!(", mtu: {}", peer.mtu_bytes));
            let _ = writeln!(
                text,
                "- {{cluster: {}, name: {}, underlay: {}, blocks: [{}], fellow: {}{}}}",
                peer.cluster,
                peer.name,
                peer.address,
                blocks.join(", "),
                node.fellows.contains(&peer.name),
                narrow.unwrap_or_default()
            );
        }
        if !node.remotes.is_empty() {
            text.push_str("remotes:\n");
        }
        for remote in &node.remotes {
            let gateways = remote.gateways.iter().filter_map(|name| self.node(name));
            let gateways: Vec<_> = gateways
                .map(|gateway| format!("{}/{}", gateway.cluster, gateway.name))
                .collect();
            let members = remote.members.iter().filter_map(|name| self.node(name));
            let blocks: Vec<_> = members.filter_map(|member| member.pod.map(block)).collect();
            let _ = writeln!(
                text,
                "- {{cluster: {}, gateways: [{}], blocks: [{}]}}",
                remote.cluster,
                gateways.join(", "),
                blocks.join(", ")
            );
        }
        format!("{text}---\n{SLICE}")
    }
}

impl Remote {
    /// One member behind one gateway.
    fn new((cluster, gateway, member): (&'static str, &'static str, &'static str)) -> Self {
        Self {
            cluster,
            gateways: vec![gateway],
            members: vec![member],
        }
    }
}

/// The block around a pod's slice address.
fn block(pod: Ipv4Addr) -> String {
    let first = first_of_block(pod);
    format!("{{slice: bench, namespace: kafka, prefix: {first}/29}}")
}

fn first_of_block(pod: Ipv4Addr) -> Ipv4Addr {
    Ipv4Addr::from_bits(pod.to_bits() & !7)
}
