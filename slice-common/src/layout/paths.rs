//! How to reach other nodes, and who they are.

use super::layout;
use crate::address::Address;

layout! {
    /// Value of `PEERS` (key: underlay address).
    pub struct Peer: 24 {
        pub group: u32,
        pub cluster: u32,
        /// This peer's bit among the members of its group.
        pub member: u64,
        /// The path to it.
        pub path: u32,
        pub flags: u32,
    }
}

impl Peer {
    /// Packets choose between the path to this peer and others, so what is heard of it counts.
    pub const WATCHED: u32 = 1;
    /// Another gateway of this cluster: it brings what lies behind other nodes when its own ways are dead.
    pub const FELLOW: u32 = 2;
    /// A node of this cluster: what goes to it stays off the paid link.
    pub const SAME_CLUSTER: u32 = 4;

    #[inline(always)]
    pub const fn is_fellow(&self) -> bool {
        self.flags & Self::FELLOW != 0
    }

    #[inline(always)]
    pub const fn is_of_same_cluster(&self) -> bool {
        self.flags & Self::SAME_CLUSTER != 0
    }
}

layout! {
    /// Value of `PATH_GROUPS` (key: path group): paths in order of preference.
    pub struct PathGroup: 32 {
        /// How many of `paths` are in use, 0..=7.
        pub count: u16,
        /// How many of these, at the end, lead to a fellow gateway: not for what comes from one.
        pub fellows: u16,
        pub paths: [u32; 7],
    }
}

impl PathGroup {
    pub const PATHS_MAX: usize = 7;
}

layout! {
    /// Value of `PATHS` (key: path).
    pub struct Path: 32 {
        pub local: Address,
        pub remote: Address,
        /// The device the packet leaves by.
        pub ifindex: u32,
        /// Largest outer IPv4 packet in bytes, 576..=65535.
        pub mtu: u32,
        /// One of [`Encapsulation`].
        pub encapsulation: u32,
        /// UDP destination port, network order.
        pub port: u16,
        pub flags: u16,
        /// The cluster of the node at the other end.
        pub cluster: u32,
        pub reserved_32: u32,
    }
}

layout! {
    /// Value of `PATH_HEALTH` (key: path). Stamps are kernel time, 0: never. Written by the programs of all
    /// CPUs at once, each stamp by itself: a lost race is a few milliseconds off.
    pub struct PathHealth: 96 {
        /// Anything valid came from the other end, without a break since then.
        pub heard_ns: u64,
        pub heard_since_ns: u64,
        /// An answer to a probe of ours came, without a break since then.
        pub answered_ns: u64,
        pub answered_since_ns: u64,
        /// When the probe was sent that was answered last.
        pub answered_sent_ns: u64,
        pub rtt_ns: u64,
        /// Packets went in, and got no answer of any kind since then.
        pub sent_ns: u64,
        pub sent_since_ns: u64,
        /// The last answer to a probe that was larger than it needs to be, and its size from the outer
        /// IPv4 header on.
        pub full_ns: u64,
        pub full_bytes: u64,
        /// The second in which probes of the other end are counted, and their count.
        pub reflected_second_ns: u64,
        pub reflected: u64,
    }
}

impl PathHealth {
    pub const NOTHING: Self = Self {
        heard_ns: 0,
        heard_since_ns: 0,
        answered_ns: 0,
        answered_since_ns: 0,
        answered_sent_ns: 0,
        rtt_ns: 0,
        sent_ns: 0,
        sent_since_ns: 0,
        full_ns: 0,
        full_bytes: 0,
        reflected_second_ns: 0,
        reflected: 0,
    };
}

layout! {
    /// A probe that was sent.
    pub struct SentProbe: 16 {
        pub nonce: u64,
        pub sent_ns: u64,
    }
}

layout! {
    /// Key of `PATH_MTU`: the ends of a path.
    pub struct PathEnds: 8 {
        pub local: Address,
        pub remote: Address,
    }
}

layout! {
    /// Value of `PATH_MTU`: what a router on the way said that it lets through.
    pub struct LearntMtu: 16 {
        /// Largest outer IPv4 packet in bytes.
        pub mtu: u32,
        pub reserved: u32,
        /// Kernel nanoseconds.
        pub learnt_at_ns: u64,
    }
}

impl Path {
    /// To another gateway of this cluster.
    pub const TO_FELLOW: u16 = 1;

    #[inline(always)]
    pub const fn is_to_fellow(&self) -> bool {
        self.flags & Self::TO_FELLOW != 0
    }

    #[inline(always)]
    pub const fn ends(&self) -> PathEnds {
        PathEnds {
            local: self.local,
            remote: self.remote,
        }
    }
}

layout! {
    /// Value of `PROBES` (key: path), written by the prober before it sends.
    pub struct Probes: 80 {
        /// When the prober sent last: it is alive if that is not long ago.
        pub newest_ns: u64,
        /// Since when it probes this path.
        pub since_ns: u64,
        /// The last few, in no order.
        pub sent: [SentProbe; Probes::KEPT],
    }
}

impl Probes {
    pub const KEPT: usize = 4;
}

/// The encapsulations, as numbers in [`Path::encapsulation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encapsulation {
    /// VXLAN with an inner Ethernet header over IPv4 and UDP.
    Vxlan,
}

impl Encapsulation {
    pub const fn number(self) -> u32 {
        match self {
            Self::Vxlan => 1,
        }
    }
}
