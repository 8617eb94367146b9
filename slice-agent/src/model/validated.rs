//! The configuration with its meaning: every value is sound, every reference leads somewhere.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;

use ipnet::Ipv4Net;
use slice_common::id::{PathGroupId, SliceId};

use super::error::{ConfigError, Place};
use super::qos::{BitRate, PodMatch};

/// A configuration that [`super::validate`] accepted; there is no other way to make one.
#[derive(Clone, Debug, PartialEq)]
pub struct Validated {
    pub(super) node: ValidatedNode,
    pub(super) slices: Vec<ValidatedSlice>,
    pub(super) doubts: Vec<ConfigError>,
}

impl Validated {
    pub fn node(&self) -> &ValidatedNode {
        &self.node
    }

    pub fn slices(&self) -> &[ValidatedSlice] {
        &self.slices
    }

    /// What is likely not meant as it is written.
    pub fn doubts(&self) -> &[ConfigError] {
        &self.doubts
    }

    /// The slice that an endpoint or a block names.
    pub fn slice(&self, name: &str) -> Option<&ValidatedSlice> {
        self.slices.iter().find(|slice| slice.name == name)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedNode {
    pub place: Place,
    pub cluster: String,
    pub name: String,
    pub underlay: Underlay,
    pub endpoints: Vec<ValidatedEndpoint>,
    pub blocks: Vec<ValidatedBlock>,
    pub peers: Vec<ValidatedPeer>,
    /// Passes packets on between other nodes.
    pub is_gateway: bool,
    pub remotes: Vec<ValidatedRemote>,
    pub uplinks: Vec<ValidatedUplink>,
}

/// A link by which packets leave the cluster, and what is paid for of it.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedUplink {
    pub place: Place,
    pub name: String,
    pub interface: String,
    pub rate: BitRate,
    /// How many nodes send by it, this one among them.
    pub nodes: u32,
    pub shaper: Shaper,
    pub lending: Option<Lending>,
}

/// With whom a node lends parts of slices' ceilings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lending {
    /// Where the agents of others that send by the link listen. Each has an address of its own.
    pub partners: Vec<SocketAddrV4>,
    /// Has the secret that all of them know.
    pub token_file: PathBuf,
}

/// What is to keep packets to their time on an uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shaper {
    /// The best that kernel and device have: the first of the others.
    Auto,
    /// `fq`, which keeps each packet until its departure.
    Edt,
    /// Classes of `htb`.
    Htb,
    /// Nothing: what would wait too long is dropped.
    Vq,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Underlay {
    pub address: Ipv4Addr,
    pub interface: String,
    pub port: u16,
    pub early_drop: EarlyDrop,
    /// The interfaces to guard beside this one; `None`: every one that leads out.
    pub guarded: Option<Vec<String>>,
}

/// Whether tunnel packets of strangers are dropped by the driver of the underlay interface already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EarlyDrop {
    /// Where hardware can, and it costs no other traffic anything.
    Auto,
    Off,
    /// Wherever it can be done in native mode.
    On,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedEndpoint {
    pub place: Place,
    pub slice: String,
    pub namespace: String,
    pub name: String,
    pub interface: String,
    pub address: Ipv4Addr,
    pub slice_address: Ipv4Addr,
    pub labels: Labels,
}

/// What Kubernetes calls so: what whoever runs a pod says of it.
pub type Labels = BTreeMap<String, String>;

/// A pod of another node.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedElsewhere {
    pub place: Place,
    pub slice: String,
    pub namespace: String,
    pub name: String,
    pub slice_address: Ipv4Addr,
    pub labels: Labels,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedBlock {
    pub place: Place,
    pub slice: String,
    pub namespace: String,
    pub prefix: Ipv4Net,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedPeer {
    pub place: Place,
    pub cluster: String,
    pub name: String,
    pub underlay: Ipv4Addr,
    pub mtu_bytes: Option<u32>,
    pub blocks: Vec<ValidatedBlock>,
    /// Pods in these blocks, as far as their labels matter.
    pub endpoints: Vec<ValidatedElsewhere>,
    /// Another gateway of this node's cluster, which is one itself.
    pub is_fellow: bool,
}

/// What lies behind gateways.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedRemote {
    pub place: Place,
    pub cluster: String,
    /// The cluster that all the gateways belong to.
    pub gateway_cluster: String,
    /// Names of peers, in order of preference; 1 to 7.
    pub gateways: Vec<String>,
    pub blocks: Vec<ValidatedBlock>,
    /// Pods in these blocks, as far as their labels matter.
    pub endpoints: Vec<ValidatedElsewhere>,
}

impl ValidatedRemote {
    /// The same gateways in the same order are one group, whatever lies behind them.
    pub fn path_group(&self) -> PathGroupId {
        let gateways: Vec<_> = self.gateways.iter().map(|name| self.shown(name)).collect();
        let mut parts = vec![self.cluster.as_str()];
        parts.extend(gateways.iter().map(String::as_str));
        PathGroupId::from_name(&parts)
    }

    fn shown(&self, gateway: &str) -> String {
        format!("{}/{gateway}", self.gateway_cluster)
    }
}

impl std::fmt::Display for ValidatedRemote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let gateways: Vec<_> = self.gateways.iter().map(|name| self.shown(name)).collect();
        write!(f, "{} behind {}", self.cluster, gateways.join(", "))
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedSlice {
    pub place: Place,
    pub name: String,
    pub id: SliceId,
    pub addressing: Addressing,
    pub isolation: Isolation,
    pub delivery: Delivery,
    pub default_action: Action,
    /// The first that matches wins.
    pub rules: Vec<Rule>,
    /// `None`: its packets are not shaped.
    pub profile: Option<QosProfile>,
    /// Class `n` on the wire is the element `n - 1`; at most 7.
    pub classes: Vec<TrafficClassRule>,
}

impl ValidatedSlice {
    /// The slice's own ranges; none in native addressing.
    pub fn ranges(&self) -> &[Ipv4Net] {
        match &self.addressing {
            Addressing::Mapped { ranges } => ranges,
            Addressing::Native => &[],
        }
    }
}

/// How packets of a slice get into its pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// To the other end of the pod's veth.
    Peer,
    /// By the host's stack, which sees them come from the tunnel's device.
    Stack,
}

/// Who is kept out, and in.
#[derive(Clone, Debug, PartialEq)]
pub struct Isolation {
    pub level: IsolationLevel,
    /// Who outside may begin.
    pub from_outside: Vec<OutsideRule>,
    /// Whom pods may begin with, name servers among them.
    pub to_outside: Vec<OutsideRule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IsolationLevel {
    Open,
    Slice,
    Strict,
}

#[derive(Clone, Debug, PartialEq)]
pub struct OutsideRule {
    pub addresses: Vec<Ipv4Net>,
    /// `None`: every protocol that is carried.
    pub traffic: Option<Vec<Traffic>>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Addressing {
    Mapped { ranges: Vec<Ipv4Net> },
    Native,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Allow,
    Deny,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub place: Place,
    pub name: String,
    pub action: Action,
    pub from: Namespaces,
    pub to: Namespaces,
    /// `None`: every protocol.
    pub traffic: Option<Vec<Traffic>>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Namespaces {
    Every,
    Listed(Vec<String>),
}

/// A protocol and a run of its ports; all ports, where the protocol has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    pub protocol: Protocol,
    pub first_port: u16,
    pub last_port: u16,
}

impl Traffic {
    pub fn overlaps(self, other: Self) -> bool {
        self.protocol == other.protocol
            && self.first_port <= other.last_port
            && other.first_port <= self.last_port
    }
}

impl std::fmt::Display for Traffic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let protocol = self.protocol.name();
        match (self.first_port, self.last_port) {
            (0, u16::MAX) => write!(f, "{protocol}"),
            (first, last) if first == last => write!(f, "{protocol} {first}"),
            (first, last) => write!(f, "{protocol} {first}-{last}"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
    Icmp,
}

impl Protocol {
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Icmp];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Icmp => "ICMP",
        }
    }

    /// As in the IPv4 header.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => slice_common::wire::transport::TCP,
            Self::Udp => slice_common::wire::transport::UDP,
            Self::Icmp => slice_common::wire::transport::ICMP,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct TrafficClassRule {
    pub name: String,
    /// What is of the class whoever sends it.
    pub traffic: Vec<Traffic>,
    /// Whose packets are of the class, if no class has their ports.
    pub pods: Vec<PodMatch>,
    pub dscp: u8,
    /// Of the ceiling.
    pub guarantee_percent: u8,
    /// Of what nobody is guaranteed.
    pub weight: u16,
    /// Whether request and answer go before bulk.
    pub favour_interactive: bool,
}

impl TrafficClassRule {
    /// Of a class that does not say, and of what is of no class.
    pub const WEIGHT: u16 = 1;
}

/// How a slice shares the links that its packets leave by.
#[derive(Clone, Debug, PartialEq)]
pub struct QosProfile {
    pub ceiling: Rates,
    /// What other slices leave to this one on a link; `None`: as much as its ceiling.
    pub guarantee: Option<Rates>,
}

/// A rate that differs between links.
#[derive(Clone, Debug, PartialEq)]
pub struct Rates {
    pub default: BitRate,
    /// By name of a cluster, or of an uplink of this node.
    pub overrides: BTreeMap<String, BitRate>,
}

impl Rates {
    /// The rate on an uplink of a cluster; the closer name counts.
    pub fn on(&self, uplink: &str, cluster: &str) -> BitRate {
        let closer = self
            .overrides
            .get(uplink)
            .or_else(|| self.overrides.get(cluster));
        closer.copied().unwrap_or(self.default)
    }
}
