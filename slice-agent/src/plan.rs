//! What must change to turn one state of a node into another: a pure, printable difference.
//!
//! The order is a packet's point of view. What a packet may be led to exists before anything leads
//! there, and is removed after nothing does: device, paths, peers, slices, pods, then each prefix
//! table in one swap, then the settings, then the programs; removals run backwards. A packet that
//! both states deny never passes in between, and one that both allow is not lost: `handover` says
//! how, and a test plays packets through every step.

mod describe;
mod devices;
mod difference;
mod entries;
mod handover;
mod order;
pub(crate) mod rates;
mod trees;

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use slice_common::address::Address;
use slice_common::layout::{
    Class, ClassKey, Endpoint, LocalEndpoint, LocalKey, OutsideEntry, OutsideKey, Path, PathGroup,
    Peer, PolicyEntry, PolicyKey, Route, RouteKey, Settings, ShaperKey, ShaperTerms, Slice,
};

use crate::image::{
    Attachment, ClassTree, FairQueue, Names, NodeImage, PodRoute, PortOwner, Prefixed, TreeClass,
    WayBack,
};

/// One step towards the wanted state; steps are executed in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Creates the device and leaves it *down*: [`Change::Attach`] of the tunnel program, which
    /// always follows, sets it up. So no tunnel packet ever enters the host's stack. A device that
    /// exists with the same port is kept.
    CreatePortOwner(PortOwner),
    RemovePortOwner(PortOwner),
    PutPath(Put<u32, Path>),
    RemovePath(Remove<u32>),
    PutPathGroup(Put<u32, PathGroup>),
    RemovePathGroup(Remove<u32>),
    PutPeer(Put<Address, Peer>),
    RemovePeer(Remove<Address>),
    PutSlice(Put<u32, Slice>),
    RemoveSlice(Remove<u32>),
    PutLocal(Put<LocalKey, LocalEndpoint>),
    RemoveLocal(Remove<LocalKey>),
    PutEndpoint(Put<u32, Endpoint>),
    RemoveEndpoint(Remove<u32>),
    PutNodeAddress(Put<Address, u32>),
    RemoveNodeAddress(Remove<Address>),
    SwapRoutes(Swap<RouteKey, Route>),
    SwapPolicy(Swap<PolicyKey, PolicyEntry>),
    SwapClasses(Swap<ClassKey, Class>),
    SwapOutside(Swap<OutsideKey, OutsideEntry>),
    SwapRates(Swap<ShaperKey, ShaperTerms>),
    AddFairQueue(u32, FairQueue),
    RemoveFairQueue(u32, FairQueue),
    BuildTree(u32, ClassTree),
    /// Packets that wait in it stay where they are.
    MendTree(u32, Mending),
    /// Takes classes out of it that no packet is sent to any more.
    TrimTree(u32, Trimming),
    RemoveTree(u32, ClassTree),
    AddGuard(Ipv4Net),
    RemoveGuard(Ipv4Net),
    /// How the stack sends what it delivers for a slice to this pod.
    PutPodRoute(Ipv4Addr, PodRoute),
    RemovePodRoute(Ipv4Addr),
    EnforcePodRoutes,
    ForgetPodRoutes,
    AddWayBack(WayBack),
    RemoveWayBack(WayBack),
    /// Writes the settings; `generation` is already the next one.
    Activate(Settings),
    /// An ifindex of 0 means the device that has the name when this is executed (the port owner may
    /// be created by the same plan).
    Attach(Attachment),
    /// The device may be gone already, and the link with it.
    Detach(Attachment),
}

/// Writes one entry of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put<K, V> {
    pub key: K,
    pub value: V,
    /// Whether an entry with this key is there already.
    pub replaces: bool,
    /// The entry for a person.
    pub text: String,
}

/// Classes of `htb` that are made or changed, parents first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mending {
    pub interface: String,
    /// Packets are counted by another size of frames.
    pub frame_bytes: Option<u32>,
    pub classes: Vec<(u16, TreeClass)>,
}

/// Classes of `htb` that go, children first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trimming {
    pub interface: String,
    pub classes: Vec<u16>,
}

/// Removes one entry of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remove<K> {
    pub key: K,
    /// The entry for a person.
    pub text: String,
}

/// Replaces a longest-prefix table as a whole: packets see the old one or the new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swap<K, V> {
    pub table: BTreeMap<Prefixed<K>, V>,
    pub added: usize,
    pub removed: usize,
    pub changed: usize,
    /// What is added, removed and changed, one line each, for a person.
    pub lines: Vec<String>,
}

/// Lists the changes that turn `observed` into `wanted`, in the order of execution; none when they
/// are equal but for the generation. Without wanted settings the observed ones stay.
pub fn plan(observed: &NodeImage, wanted: &NodeImage, names: &Names) -> Vec<Change> {
    order::plan(observed, wanted, names)
}

/// The plan as `slice-agent plan` prints it: one line a change, and under a table's its entries.
pub fn render(changes: &[Change]) -> String {
    let mut text = String::new();
    for change in changes {
        text.push_str(&format!("{change}\n"));
        for line in change.details() {
            text.push_str(&format!("    {line}\n"));
        }
    }
    text
}

impl Change {
    /// The entries behind a swapped table's line; none for the other changes.
    pub fn details(&self) -> &[String] {
        match self {
            Self::SwapRoutes(swap) => &swap.lines,
            Self::SwapPolicy(swap) => &swap.lines,
            Self::SwapClasses(swap) => &swap.lines,
            Self::SwapOutside(swap) => &swap.lines,
            Self::SwapRates(swap) => &swap.lines,
            _ => &[],
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        describe::change(self, f)
    }
}

impl<K, V> fmt::Display for Put<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.replaces { '~' } else { '+' };
        write!(f, "{sign} {}", self.text)
    }
}

impl<K> fmt::Display for Remove<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "- {}", self.text)
    }
}

impl<K, V> fmt::Display for Swap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            added,
            removed,
            changed,
            table,
            ..
        } = self;
        write!(
            f,
            "{added} added, {removed} removed, {changed} changed; {} in all, swapped at once",
            table.len()
        )
    }
}
