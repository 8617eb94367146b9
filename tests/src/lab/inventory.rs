//! What the lab consists of, as plain data: clusters, nodes, slices, pods and their addresses.
//!
//! Pod addresses overlap between clusters on purpose: `kafka-0`, `kafka-1` and `kafka-2` all have
//! 10.1.1.10. Each pod has a second, *plain* address that does not overlap, so that plain routing
//! can be measured over the same pods and NICs.

use std::net::Ipv4Addr;

/// The UDP port of the tunnel between nodes.
pub const TUNNEL_PORT: u16 = 6085;
/// The TCP port of metrics and health inside each node's namespace.
pub const METRICS_PORT: u16 = 9464;
/// The MTU of every lab device, in bytes.
pub const MTU_BYTES: u32 = 1500;

/// A block has eight addresses; the first two stay unused, as the block's network and spare.
const BLOCK_ADDRESSES: u32 = 8;
const BLOCK_PREFIX_LENGTH: u8 = 29;
const FIRST_ENDPOINT_IN_BLOCK: u32 = 2;
/// Each cluster cuts its blocks from its own /18 of the slice's range.
const CLUSTER_SHARE_ADDRESSES: u32 = 64 * 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterSpec {
    pub name: &'static str,
    /// Third octet of the underlay network, counted from 1.
    pub number: u8,
    pub pod_network: PodNetwork,
}

/// How nodes of a cluster connect their pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PodNetwork {
    /// A route to each pod's interface, as Calico does it.
    Routes,
    /// One bridge per node with the pods' interfaces as ports, as flannel and kubenet do it.
    Bridge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeSpec {
    pub name: &'static str,
    pub cluster: &'static str,
    /// The node's number inside its cluster, counted from 1.
    pub number: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceSpec {
    pub name: &'static str,
    pub id: u32,
    /// The first address of the slice's /16.
    pub range: Ipv4Addr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodSpec {
    pub name: &'static str,
    pub node: &'static str,
    /// Slice and namespace; `None` for pods outside every slice.
    pub member: Option<Membership>,
    /// Last octet of the pod address and of the plain address.
    pub host: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    pub slice: &'static str,
    pub namespace: &'static str,
}

/// Addresses of one namespace of one slice on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    pub member: Membership,
    pub node: &'static str,
    pub first: Ipv4Addr,
}

pub const CLUSTERS: [ClusterSpec; 3] = [
    ClusterSpec {
        name: "east",
        number: 1,
        pod_network: PodNetwork::Routes,
    },
    ClusterSpec {
        name: "west",
        number: 2,
        pod_network: PodNetwork::Routes,
    },
    ClusterSpec {
        name: "edge",
        number: 3,
        pod_network: PodNetwork::Bridge,
    },
];

pub const NODES: [NodeSpec; 5] = [
    NodeSpec {
        name: "east-1",
        cluster: "east",
        number: 1,
    },
    NodeSpec {
        name: "east-2",
        cluster: "east",
        number: 2,
    },
    NodeSpec {
        name: "west-1",
        cluster: "west",
        number: 1,
    },
    NodeSpec {
        name: "west-2",
        cluster: "west",
        number: 2,
    },
    NodeSpec {
        name: "edge-1",
        cluster: "edge",
        number: 1,
    },
];

pub const SLICES: [SliceSpec; 2] = [
    SliceSpec {
        name: "kafka",
        id: 7,
        range: Ipv4Addr::new(10, 77, 0, 0),
    },
    SliceSpec {
        name: "shop",
        id: 8,
        range: Ipv4Addr::new(10, 78, 0, 0),
    },
];

pub const PODS: [PodSpec; 13] = [
    pod("kafka-0", "east-1", member("kafka", "kafka"), 10),
    pod("audit-0", "east-1", member("kafka", "audit"), 30),
    pod("web-0", "east-1", member("shop", "web"), 20),
    pod("stranger-0", "east-1", None, 50),
    pod("analytics-1", "east-2", member("kafka", "analytics"), 10),
    pod("web-1", "east-2", member("shop", "web"), 20),
    pod("kafka-1", "west-1", member("kafka", "kafka"), 10),
    pod("analytics-0", "west-1", member("kafka", "analytics"), 11),
    pod("web-2", "west-2", member("shop", "web"), 20),
    pod("stranger-1", "west-2", None, 50),
    pod("kafka-2", "edge-1", member("kafka", "kafka"), 10),
    pod("producer-0", "edge-1", member("kafka", "producers"), 11),
    pod("stranger-2", "edge-1", None, 50),
];

const fn pod(
    name: &'static str,
    node: &'static str,
    member: Option<Membership>,
    host: u8,
) -> PodSpec {
    PodSpec {
        name,
        node,
        member,
        host,
    }
}

const fn member(slice: &'static str, namespace: &'static str) -> Option<Membership> {
    Some(Membership { slice, namespace })
}

impl ClusterSpec {
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::new(172, 20, self.number, 1)
    }

    /// The /24 of the cluster's underlay.
    pub fn underlay_network(&self) -> Ipv4Addr {
        Ipv4Addr::new(172, 20, self.number, 0)
    }

    /// The /16 of the cluster's plain pod addresses.
    pub fn plain_network(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 200 + self.number, 0, 0)
    }

    pub fn fabric_namespace(&self) -> String {
        format!("sl-fabric-{}", self.name)
    }

    pub fn nodes(&self) -> impl Iterator<Item = &'static NodeSpec> + use<> {
        let name = self.name;
        NODES.iter().filter(move |node| node.cluster == name)
    }
}

impl NodeSpec {
    pub fn cluster(&self) -> &'static ClusterSpec {
        CLUSTERS
            .iter()
            .find(|cluster| cluster.name == self.cluster)
            .expect("every node's cluster is in the inventory (tested)")
    }

    pub fn underlay(&self) -> Ipv4Addr {
        Ipv4Addr::new(172, 20, self.cluster().number, 10 + self.number)
    }

    /// The /24 of the node's pods; the same in every cluster.
    pub fn pod_network(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 1, self.number, 0)
    }

    /// The /24 of the node's plain pod addresses; different in every cluster.
    pub fn plain_network(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 200 + self.cluster().number, self.number, 0)
    }

    pub fn namespace(&self) -> String {
        format!("sl-{}", self.name)
    }

    /// The node's port on the fabric's bridge.
    pub fn fabric_port(&self) -> String {
        format!("n-{}", self.name)
    }

    pub fn pods(&self) -> impl Iterator<Item = &'static PodSpec> + use<> {
        let name = self.name;
        PODS.iter().filter(move |pod| pod.node == name)
    }

    pub fn blocks(&self) -> impl Iterator<Item = Block> + use<> {
        let name = self.name;
        blocks().into_iter().filter(move |block| block.node == name)
    }
}

impl PodSpec {
    pub fn node(&self) -> &'static NodeSpec {
        find_node(self.node).expect("every pod's node is in the inventory (tested)")
    }

    pub fn pod_address(&self) -> Ipv4Addr {
        with_host(self.node().pod_network(), self.host)
    }

    pub fn plain_address(&self) -> Ipv4Addr {
        with_host(self.node().plain_network(), self.host)
    }

    pub fn slice_address(&self) -> Option<Ipv4Addr> {
        let member = self.member?;
        let block = self.node().blocks().find(|block| block.member == member)?;
        let same_block = |pod: &&PodSpec| pod.member == Some(member);
        let before = self
            .node()
            .pods()
            .filter(same_block)
            .position(|pod| pod.name == self.name)?;
        let offset = FIRST_ENDPOINT_IN_BLOCK + u32::try_from(before).ok()?;
        (offset < BLOCK_ADDRESSES).then(|| Ipv4Addr::from(u32::from(block.first) + offset))
    }

    pub fn namespace(&self) -> String {
        format!("sl-pod-{}", self.name)
    }

    /// The host side of the pod's veth pair.
    pub fn host_interface(&self) -> String {
        format!("p-{}", self.name)
    }
}

impl Block {
    pub fn prefix(&self) -> String {
        format!("{}/{BLOCK_PREFIX_LENGTH}", self.first)
    }
}

pub fn find_node(name: &str) -> Option<&'static NodeSpec> {
    NODES.iter().find(|node| node.name == name)
}

pub fn find_pod(name: &str) -> Option<&'static PodSpec> {
    PODS.iter().find(|pod| pod.name == name)
}

/// The cluster's place in [`CLUSTERS`].
pub fn cluster_index(name: &str) -> Option<usize> {
    CLUSTERS.iter().position(|cluster| cluster.name == name)
}

/// The place in [`CLUSTERS`] of the cluster behind an underlay or plain address.
///
/// Overlapping pod addresses belong to no cluster in particular, so they give `None`.
pub fn cluster_of(address: Ipv4Addr) -> Option<usize> {
    let [first, second, third, _] = address.octets();
    let number = match (first, second) {
        (172, 20) => third,
        (10, second) => second.checked_sub(200)?,
        _ => return None,
    };
    CLUSTERS.iter().position(|cluster| cluster.number == number)
}

/// Every block, cut one after the other per slice and cluster, in the order of [`PODS`].
pub fn blocks() -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for pod in &PODS {
        let Some(member) = pod.member else { continue };
        if blocks
            .iter()
            .any(|block| block.member == member && block.node == pod.node)
        {
            continue;
        }
        let cluster = pod.node().cluster;
        let in_same_share = |block: &&Block| {
            block.member.slice == member.slice
                && find_node(block.node).is_some_and(|node| node.cluster == cluster)
        };
        let position = blocks.iter().filter(in_same_share).count() as u32;
        let share = u32::from(pod.node().cluster().number - 1) * CLUSTER_SHARE_ADDRESSES;
        let range = SLICES
            .iter()
            .find(|slice| slice.name == member.slice)
            .expect("every pod's slice is in the inventory (tested)")
            .range;
        let first = Ipv4Addr::from(u32::from(range) + share + position * BLOCK_ADDRESSES);
        blocks.push(Block {
            member,
            node: pod.node,
            first,
        });
    }
    blocks
}

fn with_host(network: Ipv4Addr, host: u8) -> Ipv4Addr {
    let [first, second, third, _] = network.octets();
    Ipv4Addr::new(first, second, third, host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_three_brokers_share_one_pod_address_and_differ_in_every_other() {
        let brokers = ["kafka-0", "kafka-1", "kafka-2"].map(|name| find_pod(name).unwrap());
        let pod: BTreeSet<_> = brokers.map(|broker| broker.pod_address()).into();
        let plain: BTreeSet<_> = brokers.map(|broker| broker.plain_address()).into();
        let slice: Vec<_> = brokers
            .iter()
            .filter_map(|broker| broker.slice_address())
            .collect();
        assert_eq!(pod, BTreeSet::from([Ipv4Addr::new(10, 1, 1, 10)]));
        assert_eq!(plain.len(), 3);
        assert_eq!(
            slice,
            [
                Ipv4Addr::new(10, 77, 0, 2),
                Ipv4Addr::new(10, 77, 64, 2),
                Ipv4Addr::new(10, 77, 128, 2)
            ]
        );
    }

    #[test]
    fn no_address_but_the_overlapping_ones_is_given_twice() {
        let slice: Vec<_> = PODS.iter().filter_map(PodSpec::slice_address).collect();
        let plain: Vec<_> = PODS.iter().map(PodSpec::plain_address).collect();
        let members = PODS.iter().filter(|pod| pod.member.is_some()).count();
        assert_eq!(slice.len(), members, "every member has a slice address");
        let all: BTreeSet<_> = slice.iter().chain(&plain).collect();
        assert_eq!(all.len(), slice.len() + plain.len());
    }

    #[test]
    fn blocks_do_not_overlap_and_stay_in_their_slice() {
        let blocks = blocks();
        let firsts: BTreeSet<_> = blocks.iter().map(|block| block.first).collect();
        assert_eq!(firsts.len(), blocks.len());
        for block in &blocks {
            let range = SLICES
                .iter()
                .find(|slice| slice.name == block.member.slice)
                .unwrap()
                .range;
            assert_eq!(block.first.octets()[..2], range.octets()[..2], "{block:?}");
            assert_eq!(u32::from(block.first) % BLOCK_ADDRESSES, 0, "{block:?}");
        }
    }

    #[test]
    fn device_names_fit_the_kernel_and_references_resolve() {
        const IFNAMSIZ: usize = 16;
        for node in &NODES {
            assert!(CLUSTERS.contains(node.cluster()));
            assert!(node.fabric_port().len() < IFNAMSIZ);
        }
        for pod in &PODS {
            assert!(find_node(pod.node).is_some());
            assert!(pod.host_interface().len() < IFNAMSIZ, "{}", pod.name);
        }
    }

    #[test]
    fn underlay_and_plain_addresses_tell_their_cluster_and_overlapping_ones_do_not() {
        for node in &NODES {
            let index = cluster_index(node.cluster);
            assert_eq!(cluster_of(node.underlay()), index);
            assert_eq!(cluster_of(node.plain_network()), index);
            assert_eq!(cluster_of(node.pod_network()), None);
        }
        assert_eq!(cluster_of(Ipv4Addr::new(10, 77, 0, 2)), None);
    }
}
