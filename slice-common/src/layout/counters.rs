//! What the kernel counts, per CPU.

use super::layout;

layout! {
    /// Key of `COUNTERS`.
    pub struct CounterKey: 12 {
        pub slice: u32,
        /// The cluster at the other end.
        pub cluster: u32,
        /// 0..=7.
        pub class: u8,
        /// One of [`Direction`].
        pub direction: u8,
        pub reserved: u16,
    }
}

layout! {
    /// Value of `COUNTERS`: inner IPv4 packets and their bytes, without tunnel headers. A
    /// segmentation-offload packet counts once.
    pub struct Counter: 16 {
        pub packets: u64,
        pub bytes: u64,
    }
}

layout! {
    /// Key of `DROPS` (value: packets).
    pub struct DropKey: 8 {
        /// 0 where the packet was dropped before its slice was known.
        pub slice: u32,
        /// A number of [`crate::drop_reason::DropReason`].
        pub reason: u32,
    }
}

/// The directions, as numbers in [`CounterKey::direction`], seen from this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// Left the node in a tunnel.
    Out,
    /// Came to the node in a tunnel.
    In,
    /// From pod to pod on this node.
    Local,
    /// Came in a tunnel and left in one; the cluster is the one that it goes to.
    Transit,
}

impl Direction {
    pub const ALL: [Self; 4] = [Self::Out, Self::In, Self::Local, Self::Transit];

    pub const fn number(self) -> u8 {
        match self {
            Self::Out => 1,
            Self::In => 2,
            Self::Local => 3,
            Self::Transit => 4,
        }
    }

    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Out),
            2 => Some(Self::In),
            3 => Some(Self::Local),
            4 => Some(Self::Transit),
            _ => None,
        }
    }

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::In => "in",
            Self::Local => "local",
            Self::Transit => "transit",
        }
    }
}
