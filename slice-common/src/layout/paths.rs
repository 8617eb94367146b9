//! How to reach other nodes, and who they are.

use super::layout;
use crate::address::Address;

layout! {
    /// Value of `PEERS` (key: underlay address).
    pub struct Peer: 16 {
        pub group: u32,
        pub cluster: u32,
        /// This peer's bit among the members of its group.
        pub member: u64,
    }
}

layout! {
    /// Value of `PATH_GROUPS` (key: path group): paths in order of preference.
    pub struct PathGroup: 32 {
        /// How many of `paths` are in use, 0..=7.
        pub count: u32,
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
        pub reserved: u16,
        pub reserved_64: u64,
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
    #[inline(always)]
    pub const fn ends(&self) -> PathEnds {
        PathEnds {
            local: self.local,
            remote: self.remote,
        }
    }
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
