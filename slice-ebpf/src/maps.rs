//! The maps, by writer. Names, layouts and capacities are those of `slice_common::layout::MAPS`,
//! which also says what happens when one is full; the agent compares before it uses a pinned map.

use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{
    Array, ArrayOfMaps, HashMap, LpmTrie, LruHashMap, PerCpuArray, PerCpuHashMap, ProgramArray,
};
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::TcContext;
use slice_common::address::Address;
use slice_common::layout::{
    CalledProgram, Capacity, Class, ClassClocks, ClassKey, Counter, CounterKey, DropKey, Endpoint,
    FLOW_WORDS, FirstFragment, Flow, FlowClocks, FlowKey, FragmentKey, LearntMtu, LocalEndpoint,
    LocalKey, NewExchangesKey, OutsideEntry, OutsideKey, Path, PathEnds, PathGroup, PathHealth,
    Peer, PolicyEntry, PolicyKey, Probes, ReplyKey, Route, RouteKey, Settings, ShaperCounts,
    ShaperKey, ShaperLoan, ShaperTerms, Slice, SliceClocks, UplinkClocks,
};

// Written by the agent.

#[btf_map]
static SETTINGS: Array<Settings, 1> = Array::new();
#[btf_map]
static PATHS: HashMap<u32, Path, { Capacity::PATHS }> = HashMap::new();
#[btf_map]
static PATH_GROUPS: HashMap<u32, PathGroup, { Capacity::PATH_GROUPS }> = HashMap::new();
#[btf_map]
static PEERS: HashMap<Address, Peer, { Capacity::PEERS }> = HashMap::new();
#[btf_map]
static SLICES: HashMap<u32, Slice, { Capacity::SLICES }> = HashMap::new();
#[btf_map]
static LOCAL: HashMap<LocalKey, LocalEndpoint, { Capacity::LOCAL }> = HashMap::new();
#[btf_map]
static ENDPOINTS: HashMap<u32, Endpoint, { Capacity::ENDPOINTS }> = HashMap::new();
#[btf_map]
static NODE_ADDRESSES: HashMap<Address, u32, { Capacity::NODE_ADDRESSES }> = HashMap::new();

#[btf_map]
static PROBES: HashMap<u32, Probes, { Capacity::PATHS }> = HashMap::new();
#[btf_map]
static PROGRAMS: ProgramArray<{ Capacity::PROGRAMS }> = ProgramArray::new();
#[btf_map]
static SHAPER_LOANS: Array<ShaperLoan, { Capacity::SLICE_CLOCKS }> = Array::new();

// Written by the agent and swapped whole: a reader sees the old table or the new one.

#[btf_map]
static ROUTES: ArrayOfMaps<LpmTrie<RouteKey, Route, { Capacity::ROUTES }>, 1> = ArrayOfMaps::new();
#[btf_map]
static POLICY: ArrayOfMaps<LpmTrie<PolicyKey, PolicyEntry, { Capacity::POLICY }>, 1> =
    ArrayOfMaps::new();
#[btf_map]
static CLASSES: ArrayOfMaps<LpmTrie<ClassKey, Class, { Capacity::CLASSES }>, 1> =
    ArrayOfMaps::new();

#[btf_map]
static OUTSIDE: ArrayOfMaps<LpmTrie<OutsideKey, OutsideEntry, { Capacity::OUTSIDE }>, 1> =
    ArrayOfMaps::new();

#[btf_map]
static SHAPER_TERMS: ArrayOfMaps<LpmTrie<ShaperKey, ShaperTerms, { Capacity::SLICE_CLOCKS }>, 1> =
    ArrayOfMaps::new();

// Written here. Full of what expired is its normal state; an exchange that goes on is looked up and
// so stays, while the new ones of a pod that floods push each other out.

#[btf_map]
static REPLIES: LruHashMap<ReplyKey, u64, { Capacity::REPLIES }> = LruHashMap::new();

// Written here: when the next new exchange of a pod would be due, if it kept to its share. What is given up
// is a pod that began nothing for long, and its share is whole again anyway.

#[btf_map]
static NEW_EXCHANGES: LruHashMap<NewExchangesKey, u64, { Capacity::NEW_EXCHANGES }> =
    LruHashMap::new();

// Written here: what the first fragment of a datagram says for all of them.

#[btf_map]
static FRAGMENTS: LruHashMap<FragmentKey, FirstFragment, { Capacity::FRAGMENTS }> =
    LruHashMap::new();

// Written here: what was decided for flows, and which were seen once. An entry is never changed in
// place, so a reader sees one decision and not a mixture of two.

#[btf_map]
static FLOWS: LruHashMap<FlowKey, Flow, { Capacity::FLOWS }> = LruHashMap::new();
#[btf_map]
static FLOW_SIGHTINGS: Array<u32, { Capacity::FLOW_SIGHTINGS }> = Array::new();

// Written here: what routers on the way said that they let through, and until when the last of it
// holds; 0 while nothing does, so that a packet costs one load.

#[btf_map]
static PATH_MTU: HashMap<PathEnds, LearntMtu, { Capacity::PATH_MTU }> = HashMap::new();
#[btf_map]
static PATH_MTU_UNTIL: Array<u64, 1> = Array::new();

// Written here: what is known of paths. An entry stays as long as the map does.

#[btf_map]
static PATH_HEALTH: HashMap<u32, PathHealth, { Capacity::PATHS }> = HashMap::new();

// Written here: the shaper's clocks, each record on a cache line of its own.

#[btf_map]
static UPLINK_CLOCKS: Array<UplinkClocks, { Capacity::UPLINK_CLOCKS }> = Array::new();
#[btf_map]
static SLICE_CLOCKS: Array<SliceClocks, { Capacity::SLICE_CLOCKS }> = Array::new();
#[btf_map]
static CLASS_CLOCKS: Array<ClassClocks, { Capacity::CLASS_CLOCKS }> = Array::new();
#[btf_map]
static FLOW_CLOCKS: Array<FlowClocks, { Capacity::FLOW_CLOCKS }> = Array::new();

// Written here, one copy per CPU: a shared counter next to hot state costs ten times as much.

#[btf_map]
static COUNTERS: PerCpuHashMap<CounterKey, Counter, { Capacity::COUNTERS }> = PerCpuHashMap::new();
#[btf_map]
static SHAPER_COUNTS: PerCpuArray<ShaperCounts, { Capacity::CLASS_CLOCKS }> = PerCpuArray::new();
#[btf_map]
static DROPS: PerCpuHashMap<DropKey, u64, { Capacity::DROPS }> = PerCpuHashMap::new();
#[btf_map]
static PATH_UNPROVEN: PerCpuHashMap<u32, u64, { Capacity::PATH_GROUPS }> = PerCpuHashMap::new();

const KEY_ANY: u64 = 0;
/// Not on the stack, where there is no room for it.
static NOTHING_KNOWN: PathHealth = PathHealth::NOTHING;

/// Goes on in another program, which does not return; returns if there is none.
#[inline(always)]
pub(crate) fn call(context: &TcContext, program: CalledProgram) {
    // SAFETY: nothing on the stack needs to be dropped.
    unsafe { PROGRAMS.tail_call(context, program.number()) };
}

#[inline(always)]
pub(crate) fn settings() -> Option<Settings> {
    SETTINGS.get(0).copied()
}

#[inline(always)]
pub(crate) fn path(id: u32) -> Option<&'static Path> {
    // SAFETY: values are plain integers, in memory that stays the map's. The kernel reuses a replaced
    // entry's memory at once, so one read in that moment may be another valid entry of this map.
    unsafe { PATHS.get(id) }
}

#[inline(always)]
pub(crate) fn path_group(id: u32) -> Option<&'static PathGroup> {
    // SAFETY: as for `path`.
    unsafe { PATH_GROUPS.get(id) }
}

/// The probes that the agent sent into a path.
#[inline(always)]
pub(crate) fn probes(path: u32) -> Option<&'static Probes> {
    // SAFETY: as for `path`; a nonce that is half of one probe and half of another is nobody's.
    unsafe { PROBES.get(path) }
}

/// What is known of a path.
#[inline(always)]
pub(crate) fn path_health(path: u32) -> &'static PathHealth {
    // SAFETY: as for `path`; each stamp is written by one store and means something by itself.
    unsafe { PATH_HEALTH.get(path) }.unwrap_or(&NOTHING_KNOWN)
}

/// The place where what is known of a path is noted; made if it is not there.
#[inline(always)]
#[expect(
    clippy::needless_borrows_for_generic_args,
    reason = "without the borrow the value is copied onto the stack"
)]
pub(crate) fn path_health_slot(path: u32) -> Option<*mut PathHealth> {
    if let Some(slot) = PATH_HEALTH.get_ptr_mut(path) {
        return Some(slot);
    }
    let _full = PATH_HEALTH.insert(path, &NOTHING_KNOWN, KEY_ANY);
    PATH_HEALTH.get_ptr_mut(path)
}

#[inline(always)]
pub(crate) fn count_unproven(path_group: u32) {
    match PATH_UNPROVEN.get_ptr_mut(path_group) {
        // SAFETY: as for `count_traffic`.
        Some(packets) => unsafe { *packets += 1 },
        None => {
            let _full = PATH_UNPROVEN.insert(path_group, 1u64, KEY_ANY);
        }
    }
}

#[inline(always)]
pub(crate) fn peer(underlay_address: Address) -> Option<&'static Peer> {
    // SAFETY: as for `path`.
    unsafe { PEERS.get(underlay_address) }
}

#[inline(always)]
pub(crate) fn slice(number: u32) -> Option<&'static Slice> {
    // SAFETY: as for `path`.
    unsafe { SLICES.get(number) }
}

#[inline(always)]
pub(crate) fn local_endpoint(table: u32, address: Address) -> Option<&'static LocalEndpoint> {
    // SAFETY: as for `path`.
    unsafe { LOCAL.get(LocalKey { table, address }) }
}

#[inline(always)]
pub(crate) fn endpoint(ifindex: u32) -> Option<&'static Endpoint> {
    // SAFETY: as for `path`.
    unsafe { ENDPOINTS.get(ifindex) }
}

#[inline(always)]
pub(crate) fn is_node_address(address: Address) -> bool {
    NODE_ADDRESSES.get_ptr(address).is_some()
}

#[inline(always)]
pub(crate) fn route(table: u32, address: Address) -> Option<&'static Route> {
    let key = Key::new(64, RouteKey { table, address });
    // SAFETY: as for `path`; a swapped-out table is freed only after this run.
    ROUTES
        .get_value_ptr_mut(0, &key)
        .map(|route| unsafe { &*route })
}

#[inline(always)]
pub(crate) fn policy_verdict(key: PolicyKey) -> Option<u32> {
    let key = Key::new(PolicyKey::BITS, key);
    // SAFETY: as for `route`.
    POLICY
        .get_value_ptr_mut(0, &key)
        .map(|entry| unsafe { (*entry).verdict })
}

#[inline(always)]
pub(crate) fn class(key: ClassKey) -> Option<Class> {
    let key = Key::new(ClassKey::BITS, key);
    // SAFETY: as for `route`.
    CLASSES
        .get_value_ptr_mut(0, &key)
        .map(|class| unsafe { *class })
}

#[inline(always)]
pub(crate) fn outside_allows(key: OutsideKey) -> bool {
    let key = Key::new(OutsideKey::BITS, key);
    OUTSIDE.get_value_ptr_mut(0, &key).is_some()
}

#[inline(always)]
pub(crate) fn shaper_terms(ifindex: u32, slice: u32) -> Option<&'static ShaperTerms> {
    let key = Key::new(ShaperKey::BITS, ShaperKey { ifindex, slice });
    // SAFETY: as for `route`.
    SHAPER_TERMS
        .get_value_ptr_mut(0, &key)
        .map(|terms| unsafe { &*terms })
}

#[inline(always)]
pub(crate) fn uplink_clocks(place: u32) -> Option<*mut UplinkClocks> {
    UPLINK_CLOCKS.get_ptr_mut(place)
}

#[inline(always)]
pub(crate) fn slice_clocks(place: u32) -> Option<*mut SliceClocks> {
    SLICE_CLOCKS.get_ptr_mut(place)
}

#[inline(always)]
pub(crate) fn shaper_loan(place: u32) -> Option<&'static ShaperLoan> {
    SHAPER_LOANS.get(place)
}

#[inline(always)]
pub(crate) fn class_clocks(place: u32) -> Option<*mut ClassClocks> {
    CLASS_CLOCKS.get_ptr_mut(place)
}

#[inline(always)]
pub(crate) fn flow_clocks(place: u32) -> Option<*mut FlowClocks> {
    FLOW_CLOCKS.get_ptr_mut(place)
}

#[inline(always)]
pub(crate) fn shaper_counts(place: u32) -> Option<&'static mut ShaperCounts> {
    // SAFETY: as for `count_traffic`.
    SHAPER_COUNTS
        .get_ptr_mut(place)
        .map(|counts| unsafe { &mut *counts })
}

#[inline(always)]
pub(crate) fn reply_expiry_ns(key: &ReplyKey) -> Option<u64> {
    // SAFETY: one aligned 64-bit load.
    REPLIES
        .get_ptr(key)
        .map(|expiry| unsafe { expiry.read_volatile() })
}

#[inline(always)]
pub(crate) fn set_reply_expiry(key: &ReplyKey, expiry_ns: u64) {
    match REPLIES.get_ptr_mut(key) {
        // SAFETY: one aligned 64-bit store; a lost race writes nearly the same time.
        Some(slot) => unsafe { slot.write_volatile(expiry_ns) },
        None => {
            let _no_memory = REPLIES.insert(key, expiry_ns, KEY_ANY);
        }
    }
}

/// 0: nothing is known of it.
#[inline(always)]
pub(crate) fn new_exchange_due_ns(beginner: &NewExchangesKey) -> u64 {
    match NEW_EXCHANGES.get_ptr(beginner) {
        // SAFETY: one aligned 64-bit load.
        Some(due) => unsafe { due.read_volatile() },
        None => 0,
    }
}

#[inline(always)]
pub(crate) fn set_new_exchange_due(beginner: &NewExchangesKey, due_ns: u64) {
    match NEW_EXCHANGES.get_ptr_mut(beginner) {
        // SAFETY: one aligned 64-bit store; a lost race lets one more pass.
        Some(slot) => unsafe { slot.write_volatile(due_ns) },
        None => {
            let _no_memory = NEW_EXCHANGES.insert(beginner, due_ns, KEY_ANY);
        }
    }
}

#[inline(always)]
pub(crate) fn first_fragment(key: &FragmentKey) -> Option<FirstFragment> {
    // SAFETY: as for `path`; a lost race reads the ports of another datagram of the same two pods.
    unsafe { FRAGMENTS.get(key).copied() }
}

#[inline(always)]
pub(crate) fn set_first_fragment(key: &FragmentKey, first: FirstFragment) {
    let _no_memory = FRAGMENTS.insert(key, first, KEY_ANY);
}

#[inline(always)]
pub(crate) fn flow(key: &FlowKey) -> Option<Flow> {
    let entry = FLOWS.get_ptr(key)?;
    // SAFETY: a value is aligned for its words, and any are legal. They may be changing while they are
    // read; the seal tells.
    let words = unsafe { entry.cast::<[u64; FLOW_WORDS]>().read_volatile() };
    Flow::unsealed(words, key)
}

#[inline(always)]
pub(crate) fn set_flow(key: &FlowKey, flow: &Flow) {
    let _no_memory = FLOWS.insert(key, flow, KEY_ANY);
}

/// Whether this was the last one seen at its place; it is from now on.
#[inline(always)]
pub(crate) fn was_sighted(sighting: u32) -> bool {
    let place = (sighting >> 1) & (Capacity::FLOW_SIGHTINGS as u32 - 1);
    let Some(slot) = FLOW_SIGHTINGS.get_ptr_mut(place) else {
        return false;
    };
    // SAFETY: one aligned 32-bit load and store; a lost race costs one more look at the tables.
    unsafe {
        let is_second = slot.read_volatile() == sighting;
        slot.write_volatile(sighting);
        is_second
    }
}

#[inline(always)]
pub(crate) fn learnt_mtu(ends: &PathEnds) -> Option<LearntMtu> {
    // SAFETY: as for `path`; a lost race reads the size of one message with the time of another.
    unsafe { PATH_MTU.get(ends).copied() }
}

#[inline(always)]
pub(crate) fn set_learnt_mtu(ends: &PathEnds, learnt: LearntMtu) {
    let _full = PATH_MTU.insert(ends, learnt, KEY_ANY);
}

/// 0: nothing is learnt.
#[inline(always)]
pub(crate) fn mtus_hold_until_ns() -> u64 {
    match PATH_MTU_UNTIL.get_ptr(0) {
        // SAFETY: one aligned 64-bit load.
        Some(until_ns) => unsafe { until_ns.read_volatile() },
        None => 0,
    }
}

#[inline(always)]
pub(crate) fn set_mtus_hold_until_ns(until_ns: u64) {
    if let Some(slot) = PATH_MTU_UNTIL.get_ptr_mut(0) {
        // SAFETY: one aligned 64-bit store; who loses a race is told again by the next router.
        unsafe { slot.write_volatile(until_ns) };
    }
}

#[inline(always)]
pub(crate) fn count_traffic(key: CounterKey, bytes: u32) {
    match COUNTERS.get_ptr_mut(key) {
        // SAFETY: this CPU's copy; programs of one CPU do not interrupt each other (bottom halves are off).
        Some(counter) => unsafe {
            (*counter).packets += 1;
            (*counter).bytes += bytes as u64;
        },
        None => {
            let first = Counter {
                packets: 1,
                bytes: bytes as u64,
            };
            let _full = COUNTERS.insert(key, first, KEY_ANY);
        }
    }
}

#[inline(always)]
pub(crate) fn count_drop(key: DropKey) {
    match DROPS.get_ptr_mut(key) {
        // SAFETY: as for `count_traffic`.
        Some(packets) => unsafe { *packets += 1 },
        None => {
            let _full = DROPS.insert(key, 1u64, KEY_ANY);
        }
    }
}
