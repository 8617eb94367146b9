//! The list of maps. The kernel programs declare them with these capacities, the agent compares
//! every pinned map with this list before it uses it (aya 0.14 does not).

use super::*;
use crate::address::Address;
use crate::id::TrafficClass;

/// Entries a map can hold, named where both sides need them.
pub struct Capacity;

impl Capacity {
    pub const ENDPOINTS: usize = 4096;
    pub const LOCAL: usize = 4096;
    pub const ROUTES: usize = 65_536;
    pub const SLICES: usize = 1024;
    pub const PEERS: usize = 8192;
    pub const PATH_GROUPS: usize = 8192;
    pub const PATHS: usize = 16_384;
    pub const POLICY: usize = 65_536;
    pub const CLASSES: usize = 8192;
    pub const OUTSIDE: usize = 8192;
    pub const REPLIES: usize = 131_072;
    pub const NEW_EXCHANGES: usize = 2 * Self::ENDPOINTS;
    pub const FRAGMENTS: usize = 16_384;
    pub const FLOWS: usize = 65_536;
    /// A power of two.
    pub const FLOW_SIGHTINGS: usize = 16_384;
    pub const PATH_MTU: usize = Self::PEERS;
    pub const NODE_ADDRESSES: usize = 16_384;
    /// Slices on uplinks, that is.
    pub const SLICE_CLOCKS: usize = 128;
    pub const CLASS_CLOCKS: usize = Self::SLICE_CLOCKS * TrafficClass::COUNT;
    pub const UPLINK_CLOCKS: usize = 64;
    /// A power of two.
    pub const FLOW_CLOCKS: usize = 65_536;
    pub const PROGRAMS: usize = CalledProgram::ALL.len();
    pub const COUNTERS: usize = 16_384;
    pub const DROPS: usize = 16_384;
}

/// The kernel's map types that we use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapKind {
    Array,
    Hash,
    /// A hash that makes room for a new entry by giving up one that was not used for long.
    LruHash,
    PerCpuHash,
    PerCpuArray,
    /// Programs that others call in their place.
    Programs,
    /// An array of one longest-prefix trie, replaced as a whole: the reader sees the old table or the
    /// new one. Sizes are those of the inner trie; its keys start with a 32-bit prefix length.
    SwappedLpmTrie,
}

/// The programs that others call, as places in `PROGRAMS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CalledProgram {
    UnderlayTransit,
    UnderlayProbe,
    WanEgress,
}

impl CalledProgram {
    pub const ALL: [Self; 3] = [Self::UnderlayTransit, Self::UnderlayProbe, Self::WanEgress];

    pub const fn number(self) -> u32 {
        match self {
            Self::UnderlayTransit => 0,
            Self::UnderlayProbe => 1,
            Self::WanEgress => 2,
        }
    }

    /// The name in the object.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnderlayTransit => "underlay_transit",
            Self::UnderlayProbe => "underlay_probe",
            Self::WanEgress => "wan_egress",
        }
    }
}

/// Who writes a map. A map has one writer; the other side only reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    Agent,
    Kernel,
}

/// One map.
#[derive(Clone, Copy, Debug)]
pub struct MapSpec {
    pub name: &'static str,
    pub kind: MapKind,
    pub key_bytes: usize,
    pub value_bytes: usize,
    pub capacity: usize,
    pub writer: Writer,
    /// What happens when it is full, for a person.
    pub when_full: &'static str,
}

const REFUSED: &str = "the agent refuses the configuration and keeps the last good one";

const fn map<K, V>(
    name: &'static str,
    kind: MapKind,
    capacity: usize,
    writer: Writer,
    when_full: &'static str,
) -> MapSpec {
    let (key_bytes, value_bytes) = (size_of::<K>(), size_of::<V>());
    MapSpec {
        name,
        kind,
        key_bytes,
        value_bytes,
        capacity,
        writer,
        when_full,
    }
}

/// Every map, in the order in which a configuration change is written (removals run in reverse).
pub const MAPS: &[MapSpec] = &[
    map::<u32, u32>(
        "PROGRAMS",
        MapKind::Programs,
        Capacity::PROGRAMS,
        Writer::Agent,
        "holds every program",
    ),
    map::<u32, Settings>(
        "SETTINGS",
        MapKind::Array,
        1,
        Writer::Agent,
        "holds one value",
    ),
    map::<u32, Path>(
        "PATHS",
        MapKind::Hash,
        Capacity::PATHS,
        Writer::Agent,
        REFUSED,
    ),
    map::<u32, PathGroup>(
        "PATH_GROUPS",
        MapKind::Hash,
        Capacity::PATH_GROUPS,
        Writer::Agent,
        REFUSED,
    ),
    map::<Address, Peer>(
        "PEERS",
        MapKind::Hash,
        Capacity::PEERS,
        Writer::Agent,
        REFUSED,
    ),
    map::<u32, Slice>(
        "SLICES",
        MapKind::Hash,
        Capacity::SLICES,
        Writer::Agent,
        REFUSED,
    ),
    map::<LocalKey, LocalEndpoint>(
        "LOCAL",
        MapKind::Hash,
        Capacity::LOCAL,
        Writer::Agent,
        REFUSED,
    ),
    map::<u32, Endpoint>(
        "ENDPOINTS",
        MapKind::Hash,
        Capacity::ENDPOINTS,
        Writer::Agent,
        REFUSED,
    ),
    map::<Address, u32>(
        "NODE_ADDRESSES",
        MapKind::Hash,
        Capacity::NODE_ADDRESSES,
        Writer::Agent,
        REFUSED,
    ),
    map::<RouteKey, Route>(
        "ROUTES",
        MapKind::SwappedLpmTrie,
        Capacity::ROUTES,
        Writer::Agent,
        REFUSED,
    ),
    map::<PolicyKey, PolicyEntry>(
        "POLICY",
        MapKind::SwappedLpmTrie,
        Capacity::POLICY,
        Writer::Agent,
        REFUSED,
    ),
    map::<ClassKey, Class>(
        "CLASSES",
        MapKind::SwappedLpmTrie,
        Capacity::CLASSES,
        Writer::Agent,
        REFUSED,
    ),
    map::<OutsideKey, OutsideEntry>(
        "OUTSIDE",
        MapKind::SwappedLpmTrie,
        Capacity::OUTSIDE,
        Writer::Agent,
        REFUSED,
    ),
    map::<ShaperKey, ShaperTerms>(
        "SHAPER_TERMS",
        MapKind::SwappedLpmTrie,
        Capacity::SLICE_CLOCKS,
        Writer::Agent,
        REFUSED,
    ),
    map::<u32, ShaperLoan>(
        "SHAPER_LOANS",
        MapKind::Array,
        Capacity::SLICE_CLOCKS,
        Writer::Agent,
        "has a place for each slice on an uplink",
    ),
    map::<ReplyKey, u64>(
        "REPLIES",
        MapKind::LruHash,
        Capacity::REPLIES,
        Writer::Kernel,
        "the exchange that was silent longest is forgotten",
    ),
    map::<NewExchangesKey, u64>(
        "NEW_EXCHANGES",
        MapKind::LruHash,
        Capacity::NEW_EXCHANGES,
        Writer::Kernel,
        "a pod that began nothing for long has its whole share again",
    ),
    map::<FragmentKey, FirstFragment>(
        "FRAGMENTS",
        MapKind::LruHash,
        Capacity::FRAGMENTS,
        Writer::Kernel,
        "the oldest datagram in parts is forgotten",
    ),
    map::<u32, Probes>(
        "PROBES",
        MapKind::Hash,
        Capacity::PATHS,
        Writer::Agent,
        "the paths that do not fit are not probed",
    ),
    map::<u32, PathHealth>(
        "PATH_HEALTH",
        MapKind::Hash,
        Capacity::PATHS,
        Writer::Kernel,
        "nothing is known of further paths, so the first of a group is taken",
    ),
    map::<u32, u64>(
        "PATH_UNPROVEN",
        MapKind::PerCpuHash,
        Capacity::PATH_GROUPS,
        Writer::Kernel,
        "further groups are not counted",
    ),
    map::<FlowKey, Flow>(
        "FLOWS",
        MapKind::LruHash,
        Capacity::FLOWS,
        Writer::Kernel,
        "the flow that was silent longest is judged anew",
    ),
    map::<u32, u32>(
        "FLOW_SIGHTINGS",
        MapKind::Array,
        Capacity::FLOW_SIGHTINGS,
        Writer::Kernel,
        "flows that share a place are cached later",
    ),
    map::<PathEnds, LearntMtu>(
        "PATH_MTU",
        MapKind::Hash,
        Capacity::PATH_MTU,
        Writer::Kernel,
        "holds one entry for each peer",
    ),
    map::<u32, u64>(
        "PATH_MTU_UNTIL",
        MapKind::Array,
        1,
        Writer::Kernel,
        "holds one value",
    ),
    map::<u32, UplinkClocks>(
        "UPLINK_CLOCKS",
        MapKind::Array,
        Capacity::UPLINK_CLOCKS,
        Writer::Kernel,
        "has a place for each uplink",
    ),
    map::<u32, SliceClocks>(
        "SLICE_CLOCKS",
        MapKind::Array,
        Capacity::SLICE_CLOCKS,
        Writer::Kernel,
        "has a place for each slice on an uplink",
    ),
    map::<u32, ClassClocks>(
        "CLASS_CLOCKS",
        MapKind::Array,
        Capacity::CLASS_CLOCKS,
        Writer::Kernel,
        "has a place for each class of those",
    ),
    map::<u32, FlowClocks>(
        "FLOW_CLOCKS",
        MapKind::Array,
        Capacity::FLOW_CLOCKS,
        Writer::Kernel,
        "of more flows than find one, some share a record and are one flow to the shaper",
    ),
    map::<u32, ShaperCounts>(
        "SHAPER_COUNTS",
        MapKind::PerCpuArray,
        Capacity::CLASS_CLOCKS,
        Writer::Kernel,
        "has a place for each class of a slice on an uplink",
    ),
    map::<CounterKey, Counter>(
        "COUNTERS",
        MapKind::PerCpuHash,
        Capacity::COUNTERS,
        Writer::Kernel,
        "new combinations are not counted",
    ),
    map::<DropKey, u64>(
        "DROPS",
        MapKind::PerCpuHash,
        Capacity::DROPS,
        Writer::Kernel,
        "new combinations are not counted",
    ),
];
