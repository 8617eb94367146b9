//! Who is here, and where an address leads.

use super::{Class, OutsideWay, layout};
use crate::address::Address;

layout! {
    /// Value of `ENDPOINTS` (key: ifindex of the pod's interface on the host).
    pub struct Endpoint: 32 {
        /// The address table that this pod's packets are looked up in.
        pub table: u32,
        pub slice: u32,
        pub namespace: u32,
        /// The cluster this node belongs to: names the peer cluster of same-node traffic.
        pub cluster: u32,
        pub pod_address: Address,
        pub slice_address: Address,
        pub flags: u32,
        /// Of the pod itself, by its namespace or labels.
        pub class: Class,
    }
}

impl Endpoint {
    /// Senders outside the slice are kept out (isolation level `Slice`).
    pub const ISOLATED: u32 = 1;
    /// The pod itself may begin nothing with them either (isolation level `Strict`).
    pub const CONFINED: u32 = 2;
}

layout! {
    /// Key of `LOCAL`.
    pub struct LocalKey: 8 {
        pub table: u32,
        pub address: Address,
    }
}

layout! {
    /// Value of `LOCAL`: a pod on this node, by slice address.
    pub struct LocalEndpoint: 24 {
        pub ifindex: u32,
        pub slice: u32,
        pub namespace: u32,
        pub pod_address: Address,
        pub pod_mac: [u8; 6],
        pub flags: u16,
    }
}

impl LocalEndpoint {
    /// The host's stack delivers to this pod (`delivery: Stack`).
    pub const BY_STACK: u16 = 1;
}

layout! {
    /// Key data of `ROUTES`; a prefix of `n` bits has a key prefix of `32 + n` bits.
    pub struct RouteKey: 8 {
        pub table: u32,
        pub address: Address,
    }
}

layout! {
    /// Value of `ROUTES`: what lies behind a prefix of slice addresses.
    pub struct Route: 32 {
        pub slice: u32,
        pub cluster: u32,
        pub namespace: u32,
        /// One of [`RouteKind`].
        pub kind: u16,
        /// Of whoever is behind the prefix, by namespace or labels: as in [`Class`].
        pub class: u8,
        pub dscp: u8,
        /// Where to send, for [`RouteKind::Via`]; else 0.
        pub path_group: u32,
        /// Which peers may deliver packets from this prefix: the group, and its members by bit.
        pub deliver_group: u32,
        pub deliver_members: u64,
    }
}

impl Route {
    /// Of whoever is behind the prefix.
    #[inline(always)]
    pub const fn class(&self) -> Class {
        Class {
            class: self.class,
            dscp: self.dscp,
            reserved: 0,
        }
    }
}

/// The kinds of routes, as numbers in [`Route::kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteKind {
    /// A block of this node.
    Local,
    /// Behind a path group.
    Via,
    /// In a slice's range, but nobody's.
    Unreachable,
}

impl RouteKind {
    pub const fn number(self) -> u16 {
        match self {
            Self::Local => 1,
            Self::Via => 2,
            Self::Unreachable => 3,
        }
    }

    /// Anything unknown leads nowhere.
    #[inline(always)]
    pub const fn from_number(number: u16) -> Self {
        match number {
            1 => Self::Local,
            2 => Self::Via,
            _ => Self::Unreachable,
        }
    }
}

layout! {
    /// Value of `SLICES` (key: slice number): a slice that this node takes part in.
    pub struct Slice: 8 {
        pub table: u32,
        pub reserved: u32,
    }
}

layout! {
    /// The one value of `SETTINGS`.
    pub struct Settings: 44 {
        /// Counts the configurations applied; 0 before the first.
        pub generation: u32,
        pub underlay_address: Address,
        /// UDP port of the tunnel, network order in the low half word.
        pub tunnel_port: u16,
        pub flags: u16,
        /// Marks packets that the programs of this node put into the tunnel; not 0, and a secret of
        /// the node.
        pub tunnel_mark: u32,
        /// What `underlay_ingress` writes into the inner Ethernet header of a packet that the kernel's
        /// device takes out of the tunnel: a secret of the node, as in memory.
        pub detour_secret: [u16; 4],
        /// The link-layer address of the underlay interface: what is sent to another is not for us.
        pub underlay_mac: [u8; 6],
        pub reserved_mac: u16,
        /// Of the device that owns the tunnel's port: the host's stack sees what it delivers to pods
        /// arrive there. 0: not known.
        pub tunnel_ifindex: u32,
        /// What the shaper finds the records of flows by: a secret of the node.
        pub flow_secret: [u32; 2],
    }
}

impl Settings {
    /// The node passes packets on between other nodes.
    pub const GATEWAY: u16 = 1;
    /// `SHAPER_TERMS` has entries: tunnel packets that leave are looked at once more.
    pub const SHAPES: u16 = 2;
    /// In a wanted or observed image: that of the port owner, which may be created by the same plan.
    pub const PORT_OWNERS: u32 = 0;

    #[inline(always)]
    pub const fn shapes(&self) -> bool {
        self.flags & Self::SHAPES != 0
    }

    /// 0 means "never configured", so the count skips it when it wraps.
    pub const fn next_generation(&self) -> u32 {
        match self.generation.checked_add(1) {
            Some(next) => next,
            None => 1,
        }
    }
}

layout! {
    /// Key of `NEW_EXCHANGES` (value: when the next one would be due, in kernel nanoseconds): who begins
    /// exchanges.
    pub struct NewExchangesKey: 8 {
        /// Of the pod.
        pub ifindex: u32,
        /// [`OutsideWay`]: what the pod begins, or what others outside begin with it.
        pub way: u32,
    }
}

impl NewExchangesKey {
    /// What the pod begins.
    #[inline(always)]
    pub const fn of(ifindex: u32) -> Self {
        let way = OutsideWay::Out.number() as u32;
        Self { ifindex, way }
    }

    /// What others outside begin with the pod.
    #[inline(always)]
    pub const fn at(ifindex: u32) -> Self {
        let way = OutsideWay::In.number() as u32;
        Self { ifindex, way }
    }
}

layout! {
    /// Key of `REPLIES` (value: expiry in kernel nanoseconds): the reply that is allowed, as it will
    /// be seen. Addresses are slice addresses for slice traffic and the pod's own ones otherwise;
    /// `scope` is the slice for the former and [`ReplyKey::OUTSIDE`] for the latter.
    pub struct ReplyKey: 20 {
        pub scope: u32,
        pub source: Address,
        pub destination: Address,
        /// Network order; an echo's identifier for ICMP.
        pub source_port: u16,
        /// Network order; 0 for ICMP.
        pub destination_port: u16,
        pub protocol: u32,
    }
}

impl ReplyKey {
    /// No slice has this number.
    pub const OUTSIDE: u32 = 0;
}
