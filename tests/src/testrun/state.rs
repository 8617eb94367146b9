//! What the programs write, read as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::{Context, Result, bail};
use aya::Ebpf;
use aya::maps::{Array, HashMap, PerCpuHashMap};
use slice_common::drop_reason::DropReason;
use slice_common::layout::{
    Counter, CounterKey, DropKey, FirstFragment, FragmentKey, LearntMtu, MAPS, NewExchangesKey,
    PathEnds, PathHealth, ReplyKey, ShaperCounts, Writer,
};

use super::shaping;

/// The maps that this file reads; a new one that programs write must be added here.
const READ_HERE: [&str; 10] = [
    "REPLIES",
    "NEW_EXCHANGES",
    "FRAGMENTS",
    "PATH_MTU",
    "PATH_MTU_UNTIL",
    "PATH_HEALTH",
    "PATH_UNPROVEN",
    "COUNTERS",
    "DROPS",
    "SHAPER_COUNTS",
];
/// Caches: that nothing else depends on them is what every scene shows.
const CACHES: [&str; 2] = ["FLOWS", "FLOW_SIGHTINGS"];

/// Moved by every packet that is shaped: what they decide is what scenes look at.
const CLOCKS: [&str; 4] = [
    "UPLINK_CLOCKS",
    "SLICE_CLOCKS",
    "CLASS_CLOCKS",
    "FLOW_CLOCKS",
];
/// The contents of every map that the programs write, summed over the CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub counters: BTreeMap<CounterKey, Counter>,
    pub drops: BTreeMap<DropKey, u64>,
    /// Expiry in kernel nanoseconds.
    pub replies: BTreeMap<ReplyKey, u64>,
    /// When the next would be due, in kernel nanoseconds.
    pub new_exchanges: BTreeMap<NewExchangesKey, u64>,
    pub fragments: BTreeMap<FragmentKey, FirstFragment>,
    pub path_mtu: BTreeMap<PathEnds, LearntMtu>,
    /// Kernel nanoseconds; 0: nothing is learnt.
    pub path_mtu_until_ns: u64,
    /// By path.
    pub health: BTreeMap<u32, PathHealth>,
    /// By path group.
    pub unproven: BTreeMap<u32, u64>,
    /// What the shaper counted, by place; nothing where it counted nothing.
    pub shaped: BTreeMap<u32, ShaperCounts>,
}

/// What a packet can tell of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathNote {
    Heard,
    Answered,
    Sent,
    /// Sent into before, silent, and no longer taken.
    Left,
    Reflected,
}

/// What one packet changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub counted: BTreeMap<CounterKey, Counter>,
    pub dropped: BTreeMap<DropKey, u64>,
    /// Records that were written or written anew.
    pub remembered: BTreeSet<ReplyKey>,
    /// Pods whose share of new exchanges became smaller.
    pub began: BTreeSet<NewExchangesKey>,
    /// First fragments that were noted, or noted in another way.
    pub first_fragments: BTreeMap<FragmentKey, FirstFragment>,
    /// Paths that turned out to take no more than so many bytes.
    pub narrowed: BTreeMap<PathEnds, u32>,
    /// What was noted of paths.
    pub paths: BTreeSet<(u32, PathNote)>,
    /// Packets that took an unproven path, by path group.
    pub unproven: BTreeMap<u32, u64>,
    /// What the shaper counted, by place.
    pub shaped: BTreeMap<u32, ShaperCounts>,
    /// Anything that programs must never do, such as a counter that went down.
    pub impossible: Vec<String>,
}

/// Makes sure that no map with the kernel as writer is overlooked.
pub(super) fn check_that_every_map_is_read() -> Result<()> {
    for map in MAPS.iter().filter(|map| map.writer != Writer::Agent) {
        let known = READ_HERE.iter().chain(&CACHES).chain(&CLOCKS);
        if !known.clone().any(|name| *name == map.name) {
            bail!(
                "the programs write {}, and the harness does not look at it: extend State",
                map.name
            );
        }
    }
    Ok(())
}

impl State {
    pub(crate) fn read(object: &Ebpf) -> Result<Self> {
        let mut state = Self::default();
        let counters: PerCpuHashMap<_, CounterKey, Counter> =
            map(object, "COUNTERS")?.try_into()?;
        for entry in counters.iter() {
            let (key, values) = entry.context("COUNTERS")?;
            let total = state.counters.entry(key).or_insert(Counter {
                packets: 0,
                bytes: 0,
            });
            for value in values.iter() {
                total.packets += value.packets;
                total.bytes += value.bytes;
            }
        }
        let drops: PerCpuHashMap<_, DropKey, u64> = map(object, "DROPS")?.try_into()?;
        for entry in drops.iter() {
            let (key, values) = entry.context("DROPS")?;
            state.drops.insert(key, values.iter().sum());
        }
        let replies: HashMap<_, ReplyKey, u64> = map(object, "REPLIES")?.try_into()?;
        for entry in replies.iter() {
            let (key, expiry_ns) = entry.context("REPLIES")?;
            state.replies.insert(key, expiry_ns);
        }
        let due: HashMap<_, NewExchangesKey, u64> = map(object, "NEW_EXCHANGES")?.try_into()?;
        for entry in due.iter() {
            let (key, due_ns) = entry.context("NEW_EXCHANGES")?;
            state.new_exchanges.insert(key, due_ns);
        }
        let fragments: HashMap<_, FragmentKey, FirstFragment> =
            map(object, "FRAGMENTS")?.try_into()?;
        for entry in fragments.iter() {
            let (key, first) = entry.context("FRAGMENTS")?;
            state.fragments.insert(key, first);
        }
        let learnt: HashMap<_, PathEnds, LearntMtu> = map(object, "PATH_MTU")?.try_into()?;
        for entry in learnt.iter() {
            let (key, learnt) = entry.context("PATH_MTU")?;
            state.path_mtu.insert(key, learnt);
        }
        let until: Array<_, u64> = map(object, "PATH_MTU_UNTIL")?.try_into()?;
        state.path_mtu_until_ns = until.get(&0, 0).context("PATH_MTU_UNTIL")?;
        let health: HashMap<_, u32, PathHealth> = map(object, "PATH_HEALTH")?.try_into()?;
        for entry in health.iter() {
            let (path, health) = entry.context("PATH_HEALTH")?;
            state.health.insert(path, health);
        }
        let unproven: PerCpuHashMap<_, u32, u64> = map(object, "PATH_UNPROVEN")?.try_into()?;
        for entry in unproven.iter() {
            let (group, values) = entry.context("PATH_UNPROVEN")?;
            state.unproven.insert(group, values.iter().sum());
        }
        state.shaped = shaping::counts(object)?;
        Ok(state)
    }

    /// Empties every map that the programs write.
    pub(super) fn clear(object: &mut Ebpf) -> Result<()> {
        let state = Self::read(object)?;
        let mut counters: PerCpuHashMap<_, CounterKey, Counter> =
            map_mut(object, "COUNTERS")?.try_into()?;
        for key in state.counters.keys() {
            counters.remove(key).context("COUNTERS")?;
        }
        let mut drops: PerCpuHashMap<_, DropKey, u64> = map_mut(object, "DROPS")?.try_into()?;
        for key in state.drops.keys() {
            drops.remove(key).context("DROPS")?;
        }
        let mut replies: HashMap<_, ReplyKey, u64> = map_mut(object, "REPLIES")?.try_into()?;
        for key in state.replies.keys() {
            replies.remove(key).context("REPLIES")?;
        }
        let mut due: HashMap<_, NewExchangesKey, u64> =
            map_mut(object, "NEW_EXCHANGES")?.try_into()?;
        for key in state.new_exchanges.keys() {
            due.remove(key).context("NEW_EXCHANGES")?;
        }
        let mut fragments: HashMap<_, FragmentKey, FirstFragment> =
            map_mut(object, "FRAGMENTS")?.try_into()?;
        for key in state.fragments.keys() {
            fragments.remove(key).context("FRAGMENTS")?;
        }
        let mut learnt: HashMap<_, PathEnds, LearntMtu> =
            map_mut(object, "PATH_MTU")?.try_into()?;
        for key in state.path_mtu.keys() {
            learnt.remove(key).context("PATH_MTU")?;
        }
        let mut until: Array<_, u64> = map_mut(object, "PATH_MTU_UNTIL")?.try_into()?;
        until.set(0, 0, 0).context("PATH_MTU_UNTIL")?;
        let mut health: HashMap<_, u32, PathHealth> = map_mut(object, "PATH_HEALTH")?.try_into()?;
        for path in state.health.keys() {
            health.remove(path).context("PATH_HEALTH")?;
        }
        let mut unproven: PerCpuHashMap<_, u32, u64> =
            map_mut(object, "PATH_UNPROVEN")?.try_into()?;
        for group in state.unproven.keys() {
            unproven.remove(group).context("PATH_UNPROVEN")?;
        }
        shaping::clear(object)
    }

    /// What happened between `self` and `later`.
    pub(crate) fn change_to(&self, later: &Self) -> Change {
        let mut change = Change::default();
        let nothing = Counter {
            packets: 0,
            bytes: 0,
        };
        for key in self.counters.keys().chain(later.counters.keys()) {
            let old = self.counters.get(key).unwrap_or(&nothing);
            let new = later.counters.get(key).unwrap_or(&nothing);
            if new.packets < old.packets || new.bytes < old.bytes {
                change
                    .impossible
                    .push(format!("{key:?} went from {old:?} to {new:?}"));
            } else if new != old {
                let (packets, bytes) = (new.packets - old.packets, new.bytes - old.bytes);
                change.counted.insert(*key, Counter { packets, bytes });
            }
        }
        for key in self.drops.keys().chain(later.drops.keys()) {
            let (old, new) = (
                self.drops.get(key).unwrap_or(&0),
                later.drops.get(key).unwrap_or(&0),
            );
            if new < old {
                change
                    .impossible
                    .push(format!("{key:?} went from {old} to {new}"));
            } else if new > old {
                change.dropped.insert(*key, new - old);
            }
        }
        for (key, expiry_ns) in &later.replies {
            if self.replies.get(key) != Some(expiry_ns) {
                change.remembered.insert(*key);
            }
        }
        for (key, due_ns) in &later.new_exchanges {
            if self.new_exchanges.get(key) != Some(due_ns) {
                change.began.insert(*key);
            }
        }
        for key in self
            .replies
            .keys()
            .filter(|key| !later.replies.contains_key(key))
        {
            change.impossible.push(format!("{key:?} vanished"));
        }
        for (key, first) in &later.fragments {
            if self.fragments.get(key) != Some(first) {
                change.first_fragments.insert(*key, *first);
            }
        }
        for key in self.fragments.keys() {
            if !later.fragments.contains_key(key) {
                change.impossible.push(format!("{key:?} vanished"));
            }
        }
        for (ends, learnt) in &later.path_mtu {
            if self.path_mtu.get(ends) != Some(learnt) {
                change.narrowed.insert(*ends, learnt.mtu);
            }
        }
        for (path, new) in &later.health {
            let old = self.health.get(path).unwrap_or(&PathHealth::NOTHING);
            change.paths.extend(notes(*path, old, new));
        }
        for (group, new) in &later.unproven {
            let old = self.unproven.get(group).unwrap_or(&0);
            if new != old {
                change.unproven.insert(*group, new - old);
            }
        }
        change.shaped = shaping::counted_since(&self.shaped, &later.shaped);
        change
    }
}

impl Change {
    /// Lists the changes, one per line.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for (key, counter) in &self.counted {
            let _ = writeln!(
                text,
                "  {key:?}: {} packets, {} bytes",
                counter.packets, counter.bytes
            );
        }
        for (key, packets) in &self.dropped {
            let reason = u8::try_from(key.reason)
                .ok()
                .and_then(DropReason::from_number);
            let label = reason.map_or("unknown reason", DropReason::label);
            let _ = writeln!(text, "  dropped {packets}: {label}, slice {}", key.slice);
        }
        for key in &self.remembered {
            let _ = writeln!(text, "  remembered {key:?}");
        }
        for key in &self.began {
            let _ = writeln!(text, "  began {key:?}");
        }
        for (key, first) in &self.first_fragments {
            let _ = writeln!(text, "  noted {key:?}: {first:?}");
        }
        for (ends, mtu) in &self.narrowed {
            let _ = writeln!(text, "  {ends:?} takes {mtu} bytes");
        }
        for (path, note) in &self.paths {
            let _ = writeln!(text, "  path {path}: {note:?}");
        }
        for (group, packets) in &self.unproven {
            let _ = writeln!(text, "  path group {group}: {packets} unproven");
        }
        for (place, counts) in &self.shaped {
            let _ = writeln!(text, "  shaped at {place}: {counts:?}");
        }
        for line in &self.impossible {
            let _ = writeln!(text, "  IMPOSSIBLE: {line}");
        }
        if text.is_empty() {
            "  nothing\n".to_owned()
        } else {
            text
        }
    }
}

fn notes(path: u32, old: &PathHealth, new: &PathHealth) -> Vec<(u32, PathNote)> {
    let changed = [
        (old.heard_ns != new.heard_ns, PathNote::Heard),
        (old.answered_ns != new.answered_ns, PathNote::Answered),
        (old.sent_ns < new.sent_ns, PathNote::Sent),
        (old.sent_ns > new.sent_ns, PathNote::Left),
        (old.reflected != new.reflected, PathNote::Reflected),
    ];
    let changed = changed.into_iter().filter(|(is_changed, _)| *is_changed);
    changed.map(|(_, note)| (path, note)).collect()
}

pub(super) fn map<'a>(object: &'a Ebpf, name: &str) -> Result<&'a aya::maps::Map> {
    object
        .map(name)
        .with_context(|| format!("the object has no map {name}"))
}

pub(super) fn map_mut<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut aya::maps::Map> {
    object
        .map_mut(name)
        .with_context(|| format!("the object has no map {name}"))
}
