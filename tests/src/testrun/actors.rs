//! Who is in the scenes. The node under test is `east-1`; names and addresses are those of the lab.

use slice_common::address::Address;
use slice_common::id::{ClusterId, NamespaceId, PathGroupId, PathId, PeerGroupId, TableId};
use slice_common::layout::ReplyKey;

use crate::packet::Mac;

/// A slice.
#[derive(Clone, Copy, Debug)]
pub struct SliceActor {
    pub name: &'static str,
    pub id: u32,
    /// First address of its /16.
    pub range: [u8; 4],
}

pub const KAFKA: SliceActor = SliceActor {
    name: "kafka",
    id: 7,
    range: [10, 77, 0, 0],
};
pub const SHOP: SliceActor = SliceActor {
    name: "shop",
    id: 8,
    range: [10, 78, 0, 0],
};
/// Pod addresses are slice addresses here; its range is a remote node's pod network.
pub const NATIVE: SliceActor = SliceActor {
    name: "native",
    id: 9,
    range: [10, 9, 0, 0],
};

/// A pod of the node under test.
#[derive(Clone, Copy, Debug)]
pub struct Pod {
    pub name: &'static str,
    pub device: &'static str,
    pub slice: SliceActor,
    pub namespace: &'static str,
    pub pod_address: [u8; 4],
    pub slice_address: [u8; 4],
    /// The pod's own interface, inside.
    pub mac: Mac,
    pub is_isolated: bool,
}

pub const KAFKA_0: Pod = Pod {
    name: "kafka-0",
    device: "p-kafka-0",
    slice: KAFKA,
    namespace: "kafka",
    pod_address: [10, 1, 1, 10],
    slice_address: [10, 77, 0, 2],
    mac: [0x0a, 0, 0, 0, 1, 10],
    is_isolated: true,
};
pub const ANALYTICS_2: Pod = Pod {
    name: "analytics-2",
    device: "p-analytics-2",
    slice: KAFKA,
    namespace: "analytics",
    pod_address: [10, 1, 1, 12],
    slice_address: [10, 77, 0, 10],
    mac: [0x0a, 0, 0, 0, 1, 12],
    is_isolated: true,
};
/// Its slice is of isolation level `Open`.
pub const WEB_0: Pod = Pod {
    name: "web-0",
    device: "p-web-0",
    slice: SHOP,
    namespace: "web",
    pod_address: [10, 1, 1, 20],
    slice_address: [10, 78, 0, 2],
    mac: [0x0a, 0, 0, 0, 1, 20],
    is_isolated: false,
};
pub const NATIVE_0: Pod = Pod {
    name: "native-0",
    device: "p-native-0",
    slice: NATIVE,
    namespace: "native",
    pod_address: [10, 1, 1, 40],
    slice_address: [10, 1, 1, 40],
    mac: [0x0a, 0, 0, 0, 1, 40],
    is_isolated: true,
};
pub const PODS: [Pod; 4] = [KAFKA_0, ANALYTICS_2, WEB_0, NATIVE_0];

/// A pod outside every slice.
pub const STRANGER_DEVICE: &str = "p-stranger-0";
pub const STRANGER: [u8; 4] = [10, 1, 1, 50];

/// Outside; slice `kafka` names them.
pub const NAME_SERVER: [u8; 4] = [10, 96, 0, 10];
pub const CLOCK: [u8; 4] = [192, 0, 2, 123];
/// Where a stranger may call pods of slice `kafka`.
pub const WEBHOOK_PORT: u16 = 8443;

/// The underlay interface of the node under test.
pub const NIC: &str = "nic0";
/// What this node's programs put into the tunnel has this mark.
pub const TUNNEL_MARK: u32 = 0x7a3c_19e5;
/// What stands in the inner Ethernet header on the way through the kernel's tunnel device, before the
/// network's number.
pub const DETOUR_SECRET: [u8; 8] = [0x5e, 0xc7, 0xe7, 0x01, 0x02, 0x03, 0x52, 0x04];
/// By which the shaper finds the records of flows.
pub const FLOW_SECRET: [u32; 2] = [0x0ca7_f00d, 0x5e1f_1e55];
pub const NIC_MAC: Mac = [0x0a, 0, 0, 0, 0, 1];
/// The device that owns the tunnel's port.
pub const PORT_OWNER: &str = "sl-port";
pub const ROUTER_MAC: Mac = [0x0a, 0, 0, 0, 0, 0xfe];
pub const EAST_1: [u8; 4] = [172, 20, 1, 11];
pub const EAST: &str = "east";
/// The node's other address, from which kubelet probes.
pub const EAST_1_POD_SIDE: [u8; 4] = [10, 1, 1, 1];

/// Another node.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    pub cluster: &'static str,
    pub name: &'static str,
    pub address: [u8; 4],
    pub path_mtu: u32,
}

pub const EAST_2: Node = Node {
    cluster: "east",
    name: "east-2",
    address: [172, 20, 1, 12],
    path_mtu: 1500,
};
pub const WEST_1: Node = Node {
    cluster: "west",
    name: "west-1",
    address: [172, 20, 2, 11],
    path_mtu: 1500,
};
/// Behind a narrow path.
pub const EDGE_1: Node = Node {
    cluster: "edge",
    name: "edge-1",
    address: [172, 20, 3, 11],
    path_mtu: 1000,
};
pub const NODES: [Node; 3] = [EAST_2, WEST_1, EDGE_1];
/// An address of the underlay that is no peer.
pub const NOBODY: [u8; 4] = [172, 20, 9, 9];

/// A block of slice addresses behind another node.
#[derive(Clone, Copy, Debug)]
pub struct RemoteBlock {
    pub node: Node,
    pub slice: SliceActor,
    pub namespace: &'static str,
    pub address: [u8; 4],
    pub prefix: u32,
}

pub const REMOTE_BLOCKS: [RemoteBlock; 6] = [
    remote(WEST_1, KAFKA, "kafka", [10, 77, 64, 0], 29),
    remote(WEST_1, KAFKA, "analytics", [10, 77, 64, 8], 29),
    remote(WEST_1, SHOP, "web", [10, 78, 64, 0], 29),
    remote(WEST_1, NATIVE, "native", [10, 9, 0, 2], 32),
    remote(EDGE_1, KAFKA, "kafka", [10, 77, 128, 0], 29),
    remote(EAST_2, KAFKA, "analytics", [10, 77, 32, 0], 29),
];

/// Remote pods, by slice address.
pub const KAFKA_1: [u8; 4] = [10, 77, 64, 2];
pub const ANALYTICS_0: [u8; 4] = [10, 77, 64, 10];
pub const WEB_2: [u8; 4] = [10, 78, 64, 2];
pub const NATIVE_1: [u8; 4] = [10, 9, 0, 2];
pub const KAFKA_2: [u8; 4] = [10, 77, 128, 2];
pub const ANALYTICS_1: [u8; 4] = [10, 77, 32, 2];

/// In the slice's range, in nobody's block.
pub const NOBODYS_SLICE_ADDRESS: [u8; 4] = [10, 77, 200, 2];
/// In this node's block, but no pod has it.
pub const VACANT_HERE: [u8; 4] = [10, 77, 0, 5];
/// In no slice.
pub const INTERNET: [u8; 4] = [198, 51, 100, 7];

/// Class and DSCP of port 9092 (clients) and 9091 (replication) in slice `kafka`.
pub const CLIENT: (u8, u8) = (3, 18);
pub const REPLICATION: (u8, u8) = (2, 10);

/// The table of the one hub.
pub const TABLE: u32 = TableId::HUB.0;

const fn remote(
    node: Node,
    slice: SliceActor,
    namespace: &'static str,
    address: [u8; 4],
    prefix: u32,
) -> RemoteBlock {
    RemoteBlock {
        node,
        slice,
        namespace,
        address,
        prefix,
    }
}

impl SliceActor {
    pub fn namespace(&self, namespace: &str) -> u32 {
        NamespaceId::from_name(&[self.name, namespace]).number()
    }
}

impl Node {
    pub fn path_group(&self) -> u32 {
        PathGroupId::from_name(&[self.cluster, self.name]).number()
    }

    pub fn path(&self) -> u32 {
        PathId::from_name(&[self.cluster, self.name, "direct"]).number()
    }

    pub fn peer_group(&self) -> u32 {
        PeerGroupId::from_name(&[self.cluster, self.name]).number()
    }
}

pub fn cluster(name: &str) -> u32 {
    ClusterId::from_name(&[name]).number()
}

pub fn address(octets: [u8; 4]) -> Address {
    Address::from_octets(octets)
}

/// The secret as the agent writes it.
pub(crate) fn detour_secret() -> [u16; 4] {
    let [a, b, c, d, e, f, g, h] = DETOUR_SECRET;
    [[a, b], [c, d], [e, f], [g, h]].map(u16::from_ne_bytes)
}

/// The record that makes an answer from `source` to `destination` welcome.
pub fn reply_record(
    scope: u32,
    [source, destination]: [[u8; 4]; 2],
    [source_port, destination_port]: [u16; 2],
    protocol: u32,
) -> ReplyKey {
    ReplyKey {
        scope,
        source: address(source),
        destination: address(destination),
        source_port: source_port.to_be(),
        destination_port: destination_port.to_be(),
        protocol,
    }
}
