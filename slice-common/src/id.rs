//! Identifiers. Those that people choose by name become numbers by hashing the name, so that a
//! number never changes while the name stays: maps that outlive the agent keep their meaning.

/// A slice's number, granted by the hub or written in the file: `1..=0x1F_FFFE`.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SliceId(u32);

impl SliceId {
    pub const MIN: u32 = 1;
    /// One below the number whose VNIs carry probes.
    pub const MAX: u32 = Self::PROBES - 1;
    /// Reserved: packets with this slice in the VNI are probes and are never delivered to a pod.
    pub const PROBES: u32 = (1 << 21) - 1;

    pub const fn new_checked(number: u32) -> Option<Self> {
        if number >= Self::MIN && number <= Self::MAX {
            Some(Self(number))
        } else {
            None
        }
    }

    #[inline(always)]
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// A traffic class inside a slice, `0..=7`; 0 is the default.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TrafficClass(u8);

impl TrafficClass {
    pub const DEFAULT: Self = Self(0);
    pub const COUNT: usize = 8;

    pub const fn new_checked(number: u8) -> Option<Self> {
        if number < Self::COUNT as u8 {
            Some(Self(number))
        } else {
            None
        }
    }

    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT as u8).map(Self)
    }

    /// Keeps the lowest three bits: for values that come from a map or from the wire.
    #[inline(always)]
    pub const fn from_low_bits(bits: u32) -> Self {
        Self((bits & 7) as u8)
    }

    #[inline(always)]
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// The 24-bit VXLAN network identifier: `slice << 3 | class`.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vni(u32);

impl Vni {
    #[inline(always)]
    pub const fn new(slice: SliceId, class: TrafficClass) -> Self {
        Self(slice.0 << 3 | class.0 as u32)
    }

    /// As [`Vni::new`] for a slice number that comes from a map: only its lowest 21 bits count.
    #[inline(always)]
    pub const fn from_parts(slice_number: u32, class: TrafficClass) -> Self {
        Self((slice_number & SliceId::PROBES) << 3 | class.0 as u32)
    }

    /// Takes the three identifier bytes of a VXLAN header.
    #[inline(always)]
    pub const fn from_bytes(bytes: [u8; 3]) -> Self {
        Self((bytes[0] as u32) << 16 | (bytes[1] as u32) << 8 | bytes[2] as u32)
    }

    #[inline(always)]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The slice's number; 0 and [`SliceId::PROBES`] are not slices.
    #[inline(always)]
    pub const fn slice_number(self) -> u32 {
        self.0 >> 3
    }

    /// Whether the packet is a probe, which belongs to no slice.
    #[inline(always)]
    pub const fn is_of_probes(self) -> bool {
        self.slice_number() == SliceId::PROBES
    }

    #[inline(always)]
    pub const fn class(self) -> TrafficClass {
        TrafficClass::from_low_bits(self.0)
    }
}

macro_rules! named_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[repr(transparent)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(u32);

        impl $name {
            /// Hashes the name's parts; never 0. The agent refuses a configuration in which two
            /// names of one kind meet in one number.
            pub fn from_name(parts: &[&str]) -> Self {
                Self(stable_hash($kind, parts))
            }

            #[inline(always)]
            pub const fn from_number(number: u32) -> Self {
                Self(number)
            }

            #[inline(always)]
            pub const fn number(self) -> u32 {
                self.0
            }
        }
    };
}

named_id!(
    /// A namespace of a slice; parts: slice name, namespace name.
    NamespaceId, "namespace"
);
named_id!(
    /// A cluster; part: its name.
    ClusterId, "cluster"
);
named_id!(
    /// The ordered paths to one remote node or cluster; parts: cluster, node, or cluster and each
    /// gateway as `cluster/node`.
    PathGroupId, "path-group"
);
named_id!(
    /// One path; parts: cluster, node, entry.
    PathId, "path"
);
named_id!(
    /// Peers that may deliver the same blocks; parts: cluster, node, or the gateways' cluster alone.
    PeerGroupId, "peer-group"
);
named_id!(
    /// A policy rule; parts: slice name, rule name.
    RuleId, "rule"
);

/// The address table that a lookup asks. All slices of one hub share one, because their ranges are
/// disjoint: so a packet for another slice is seen and named, instead of missed.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(pub u32);

impl TableId {
    /// The table of the one hub there is today.
    pub const HUB: Self = Self(1);
}

/// FNV-1a over the kind and the parts with a separator that no name may contain.
fn stable_hash(kind: &str, parts: &[&str]) -> u32 {
    let mut hash = Fnv::new().text(kind);
    for part in parts {
        hash = hash.byte(0).text(part);
    }
    match hash.0 {
        0 => 1,
        other => other,
    }
}

struct Fnv(u32);

impl Fnv {
    const fn new() -> Self {
        Self(0x811c_9dc5)
    }

    fn byte(self, byte: u8) -> Self {
        Self((self.0 ^ byte as u32).wrapping_mul(0x0100_0193))
    }

    fn text(self, text: &str) -> Self {
        text.bytes().fold(self, Self::byte)
    }
}
