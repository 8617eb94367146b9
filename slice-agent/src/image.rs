//! The state of one node's kernel as plain values: what `compile` wants and what `observe` finds.
//!
//! Everything is sorted, so two equal states are equal byte for byte and a plan is deterministic.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use slice_common::address::Address;
use slice_common::id::TrafficClass;
use slice_common::layout::{
    Class, ClassKey, Endpoint, LocalEndpoint, LocalKey, OutsideEntry, OutsideKey, Path, PathGroup,
    Peer, PolicyEntry, PolicyKey, Route, RouteKey, Settings, ShaperKey, ShaperPlace, ShaperTerms,
    Slice,
};
use slice_common::shaper::Room;

/// A key of a longest-prefix table: `prefix_bits` of `key` count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefixed<K> {
    pub key: K,
    pub prefix_bits: u32,
}

/// Keys of longest-prefix tables, as the kernel compares them: bit by bit from the first byte on.
pub trait TrieKey: Copy + Ord {
    /// The key's bytes as one number, the first byte on top; shorter keys leave the low end 0.
    fn trie_bits(&self) -> u128;
}

impl TrieKey for RouteKey {
    fn trie_bits(&self) -> u128 {
        top_aligned(&[&self.table.to_ne_bytes(), &self.address.octets()])
    }
}

impl TrieKey for PolicyKey {
    fn trie_bits(&self) -> u128 {
        top_aligned(&[
            &self.slice.to_ne_bytes(),
            &self.source_namespace.to_ne_bytes(),
            &self.destination_namespace.to_ne_bytes(),
            &[self.protocol, self.reserved],
            &self.port.to_ne_bytes(),
        ])
    }
}

impl TrieKey for ClassKey {
    fn trie_bits(&self) -> u128 {
        top_aligned(&[
            &self.slice.to_ne_bytes(),
            &[self.protocol, self.reserved],
            &self.port.to_ne_bytes(),
        ])
    }
}

impl TrieKey for ShaperKey {
    fn trie_bits(&self) -> u128 {
        top_aligned(&[&self.ifindex.to_ne_bytes(), &self.slice.to_ne_bytes()])
    }
}

fn top_aligned(fields: &[&[u8]]) -> u128 {
    let mut bytes = [0; 16];
    for (place, byte) in bytes.iter_mut().zip(fields.iter().copied().flatten()) {
        *place = *byte;
    }
    u128::from_be_bytes(bytes)
}

/// A longest-prefix table that answers as the kernel's does.
pub struct Trie<'a, K, V> {
    entries: BTreeMap<(u128, u32), &'a V>,
    /// Prefix lengths in use, longest first.
    lengths: Vec<u32>,
    key: std::marker::PhantomData<K>,
}

impl<'a, K: TrieKey, V> Trie<'a, K, V> {
    pub fn new(table: &'a BTreeMap<Prefixed<K>, V>) -> Self {
        let entries: BTreeMap<_, _> = table
            .iter()
            .map(|(at, value)| {
                (
                    (
                        first_bits(at.key.trie_bits(), at.prefix_bits),
                        at.prefix_bits,
                    ),
                    value,
                )
            })
            .collect();
        let lengths: BTreeSet<u32> = table.keys().map(|at| at.prefix_bits).collect();
        Self {
            entries,
            lengths: lengths.into_iter().rev().collect(),
            key: std::marker::PhantomData,
        }
    }

    /// The value of the longest prefix that holds all of `at`.
    pub fn lookup(&self, at: Prefixed<K>) -> Option<&'a V> {
        let bits = at.key.trie_bits();
        self.lengths
            .iter()
            .filter(|length| **length <= at.prefix_bits)
            .find_map(|length| {
                self.entries
                    .get(&(first_bits(bits, *length), *length))
                    .copied()
            })
    }
}

fn first_bits(bits: u128, count: u32) -> u128 {
    if count == 0 {
        0
    } else {
        bits & (u128::MAX << (128 - count.min(128)))
    }
}

/// The programs and where they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Program {
    PodEgress,
    PodIngress,
    UnderlayIngress,
    TunnelIngress,
    UnderlayGuard,
    UnderlayFilter,
}

impl Program {
    pub const ALL: [Self; 6] = [
        Self::PodEgress,
        Self::PodIngress,
        Self::UnderlayIngress,
        Self::TunnelIngress,
        Self::UnderlayGuard,
        Self::UnderlayFilter,
    ];

    /// The name in the object, at most 15 characters, so that tools show it whole.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PodEgress => "pod_egress",
            Self::PodIngress => "pod_ingress",
            Self::UnderlayIngress => "underlay_ingress",
            Self::TunnelIngress => "tunnel_ingress",
            Self::UnderlayGuard => "underlay_guard",
            Self::UnderlayFilter => "underlay_filter",
        }
    }

    /// Which side of the device: packets that a pod sends *enter* the host by its interface.
    pub const fn hook(self) -> Hook {
        match self {
            Self::PodEgress | Self::UnderlayIngress | Self::TunnelIngress => Hook::Ingress,
            Self::PodIngress | Self::UnderlayGuard => Hook::Egress,
            Self::UnderlayFilter => Hook::Driver,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    Ingress,
    Egress,
    /// XDP in native mode: before `Ingress`, and for one program only.
    Driver,
}

/// One program on one device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attachment {
    pub interface: String,
    pub ifindex: u32,
    pub program: Program,
}

/// The kernel VXLAN device that owns the tunnel's UDP port (for receive offload and the slow path).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortOwner {
    pub interface: String,
    pub port: u16,
}

impl PortOwner {
    pub const INTERFACE: &'static str = "sliceplane0";
}

/// What makes the host's check of reverse paths (`rp_filter`) take packets that its stack delivers for a
/// slice: a packet for such a pod may come in by the port owner from such a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WayBack {
    /// A route to slice addresses.
    To(Ipv4Net),
    /// A rule for a pod's address: who asks for the way from there asks those routes first.
    From(Ipv4Addr),
}

/// By which interface the host's stack sends what it delivers for a slice to a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodRoute {
    pub ifindex: u32,
    /// The pod's link-layer address, where the interface is a port of a bridge.
    pub neighbour: Option<[u8; 6]>,
}

/// The state of one node: every map that the agent writes, and every object it owns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeImage {
    /// `generation` is 0 in a wanted image: `plan` counts. `tunnel_ifindex` is [`Settings::PORT_OWNERS`]
    /// where it is right.
    pub settings: Option<Settings>,
    pub paths: BTreeMap<u32, Path>,
    pub path_groups: BTreeMap<u32, PathGroup>,
    pub peers: BTreeMap<Address, Peer>,
    pub slices: BTreeMap<u32, Slice>,
    pub local: BTreeMap<LocalKey, LocalEndpoint>,
    pub endpoints: BTreeMap<u32, Endpoint>,
    /// Addresses of the node itself; the value is 1.
    pub node_addresses: BTreeMap<Address, u32>,
    pub routes: BTreeMap<Prefixed<RouteKey>, Route>,
    pub policy: BTreeMap<Prefixed<PolicyKey>, PolicyEntry>,
    pub classes: BTreeMap<Prefixed<ClassKey>, Class>,
    /// Whom outside of it a slice names.
    pub outside: BTreeMap<Prefixed<OutsideKey>, OutsideEntry>,
    /// What slices may send by the uplinks of this node.
    pub rates: BTreeMap<Prefixed<ShaperKey>, ShaperTerms>,
    /// Interfaces with `fq` of ours, by number.
    pub fair_queues: BTreeMap<u32, FairQueue>,
    /// Interfaces with `htb` of ours, by number.
    pub trees: BTreeMap<u32, ClassTree>,
    /// `unreachable` routes for remote slice addresses, in a table of our own.
    pub guards: BTreeSet<Ipv4Net>,
    /// What lies behind the port owner for the host's check of reverse paths.
    pub ways_back: BTreeSet<WayBack>,
    /// By the pods' addresses.
    pub pod_routes: BTreeMap<Ipv4Addr, PodRoute>,
    /// Whether the stack delivers for slices by these routes, and to nobody else.
    pub pod_routes_in_force: bool,
    pub port_owner: Option<PortOwner>,
    pub attachments: BTreeSet<Attachment>,
}

/// An interface that the agent put `htb` on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassTree {
    pub interface: String,
    /// A full packet on the link: packets in segments are counted by it.
    pub frame_bytes: u32,
    /// By the lower half of their handles ([`slice_common::layout::QueueClass`]).
    pub classes: BTreeMap<u16, TreeClass>,
    /// In an observed image: those of them in which packets wait.
    pub waiting: BTreeSet<u16>,
}

/// A class of `htb`, in the kernel's units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeClass {
    /// 0: the tree itself.
    pub parent: u16,
    pub rate_bytes_per_s: u64,
    pub ceiling_bytes_per_s: u64,
    pub burst_ticks: u32,
    pub ceiling_burst_ticks: u32,
    pub quantum_bytes: u32,
    pub priority: u32,
    /// Of what waits here; `None`: nothing does, others are below it.
    pub room_bytes: Option<u32>,
}

/// An interface that the agent put `fq` on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FairQueue {
    pub interface: String,
    /// Of the device; each has its own.
    pub queues: u16,
}

impl NodeImage {
    /// The same without pods whose interfaces are gone.
    pub fn without_vanished(&self, facts: &HostFacts) -> Self {
        let interfaces = facts.interfaces.values();
        let present: BTreeSet<u32> = interfaces.map(|interface| interface.ifindex).collect();
        let mut left = self.clone();
        left.endpoints
            .retain(|ifindex, _| present.contains(ifindex));
        left.local.retain(|_, pod| present.contains(&pod.ifindex));
        let pods: BTreeSet<Ipv4Addr> = left
            .local
            .values()
            .map(|it| it.pod_address.into())
            .collect();
        left.ways_back.retain(|way| match way {
            WayBack::To(_) => true,
            WayBack::From(pod) => pods.contains(pod),
        });
        left.pod_routes.retain(|pod, _| pods.contains(pod));
        left
    }
}

/// Names behind the numbers, for metrics and messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    pub slices: BTreeMap<u32, String>,
    pub clusters: BTreeMap<u32, String>,
    /// By (slice, class).
    pub classes: BTreeMap<(u32, u8), String>,
    /// By namespace id: `slice/namespace`.
    pub namespaces: BTreeMap<u32, String>,
    /// By rule id: `slice/rule`.
    pub rules: BTreeMap<u32, String>,
    /// By path id, path group and peer group: `cluster/node`.
    pub paths: BTreeMap<u32, String>,
    pub path_groups: BTreeMap<u32, String>,
    pub peer_groups: BTreeMap<u32, String>,
    /// By number of the interface.
    pub uplinks: BTreeMap<u32, String>,
}

/// What `compile` needs to know of the host: read by `observe`, so that `compile` stays a function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// By name, in the host's network namespace.
    pub interfaces: BTreeMap<String, Interface>,
    /// Networks routed by the host other than by a default route: a slice's range must not overlap.
    pub local_networks: BTreeSet<Ipv4Net>,
    /// Link-layer addresses of pods by interface (of the pod, or its bridge) and pod address, where
    /// the host knows them.
    pub neighbours: BTreeMap<(u32, Address), [u8; 6]>,
    pub secrets: Secrets,
    /// The host's routing rules that look at marks.
    pub mark_rules: BTreeSet<MarkRule>,
    /// Where the clocks are by which slices on uplinks are judged now.
    pub clocks: BTreeMap<ShaperKey, ShaperPlace>,
    /// Classes of slices on uplinks at whose back packets may wait now.
    pub backs: BTreeMap<(ShaperKey, TrafficClass), Room>,
    /// Interfaces with our `underlay_filter`, by number: their XDP program is no stranger's.
    pub filtered: BTreeSet<u32>,
    /// Interfaces that `underlay_filter` was refused on, with the reason: not tried again until somebody
    /// changes the configuration.
    pub filter_refused: BTreeMap<u32, String>,
    /// Interfaces that `fq` was refused on, with the reason: tried again as `observe::refusals` says.
    pub fair_refused: BTreeMap<u32, String>,
    /// Interfaces that `htb` was refused on, with the reason: tried again likewise.
    pub tree_refused: BTreeMap<u32, String>,
}

/// What only this node's programs know: drawn once, and then kept. Zeros: not drawn yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Secrets {
    /// The mark of what they put into the tunnel.
    pub tunnel_mark: u32,
    /// Proves at the kernel's tunnel device where a packet was judged.
    pub detour: [u16; 4],
    /// By which the shaper finds the records of flows.
    pub flows: [u32; 2],
}

/// A routing rule that looks at packets' marks: those that agree with `mark` in the bits of `mask`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MarkRule {
    pub priority: u32,
    pub mark: u32,
    pub mask: u32,
}

impl MarkRule {
    /// Whether a packet with this mark is to the rule what one without a mark is.
    pub fn is_blind_to(&self, mark: u32) -> bool {
        let agrees = |mark: u32| (mark ^ self.mark) & self.mask == 0;
        agrees(mark) == agrees(0)
    }
}

impl fmt::Display for MarkRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            priority,
            mark,
            mask,
        } = self;
        write!(f, "rule {priority} (fwmark {mark:#x}/{mask:#x})")
    }
}

/// The queueing discipline at the root of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootQueue {
    /// What the kernel chose itself, on so many queues.
    Default { queues: u16 },
    /// `fq`, on all queues, put there by an agent.
    OurFair,
    /// `htb`, put there by an agent.
    OurTree,
    /// `fq`, on all queues, by somebody else.
    Fair { handle: u16 },
    /// Something else that somebody put there.
    Configured { kind: String, handle: u16 },
}

impl RootQueue {
    /// Whether neither the kernel nor an agent put it there.
    pub const fn is_somebodys(&self) -> bool {
        matches!(self, Self::Fair { .. } | Self::Configured { .. })
    }
}

impl Default for RootQueue {
    fn default() -> Self {
        Self::Default { queues: 1 }
    }
}

/// What packets have in front of their network header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinkLayer {
    #[default]
    Ethernet,
    /// Nothing leaves the host by it.
    Loopback,
    /// Nothing, or something else than Ethernet: our programs cannot read them.
    Other,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    pub ifindex: u32,
    pub mtu_bytes: u32,
    pub mac: [u8; 6],
    /// The bridge (or the like) that the interface is a port of; 0 if none.
    pub controller_ifindex: u32,
    pub addresses: BTreeSet<Ipv4Net>,
    /// Of a veth: the link-layer address of its other end, in another network namespace.
    pub peer_mac: Option<[u8; 6]>,
    pub link_layer: LinkLayer,
    /// The kind as netlink names it: `veth`, `bridge`, ...; empty for hardware.
    pub kind: String,
    /// The queueing discipline at its root.
    pub root_queue: RootQueue,
    /// The interface that this one is stacked on, as a VLAN is; 0 if none.
    pub lower_ifindex: u32,
    /// The XDP program on it, by the kernel's number; 0 if none.
    pub xdp_program: u32,
    /// Whether its driver runs XDP programs; `None` where the kernel does not tell (before Linux 6.3).
    pub native_xdp: Option<bool>,
    /// Whether its driver merges segments before the kernel sees them, which an XDP program would end.
    /// Only asked of hardware.
    pub merges: bool,
}
