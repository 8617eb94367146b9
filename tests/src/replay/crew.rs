//! Who sends, and who listens.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, ppoll};
use slice_agent::apply::maps::Maps;
use slice_agent::observe::counters;
use slice_common::layout::DropKey;
use slice_common::wire::vxlan::{INNER_DESTINATION_MAC, INNER_SOURCE_MAC};

use super::journey::cut_padding;
use super::stage::Stage;
use super::tables;
use crate::live::{Capture, QuietPods, Wire, mac_of, proven_since};
use crate::netns::NetNs;
use crate::packet::Mac;

/// Drops by node and reason.
pub(super) type Drops = BTreeMap<(&'static str, DropKey), u64>;

/// Since when paths are proven without a break, by node and path; 0: not now.
pub(super) type Proven = BTreeMap<(&'static str, u32), u64>;

const ETHERTYPE: std::ops::Range<usize> = 12..14;
const ARP: [u8; 2] = [8, 6];
const SENDER: std::ops::Range<usize> = 6..12;

/// Sockets in all pods and beside all nodes.
pub(super) struct Crew {
    captures: Vec<(&'static str, Mac, Capture)>,
    pods: BTreeMap<&'static str, Wire>,
    /// Where somebody beside a node can send to it, and the address of its interface.
    fabrics: BTreeMap<&'static str, (Wire, Mac)>,
    maps: Vec<(&'static str, Maps)>,
    /// The nodes' own ends towards their pods.
    host_sides: Vec<Mac>,
    /// Their underlay addresses.
    nodes: Vec<[u8; 4]>,
    _quiet: QuietPods,
    _bridges: Vec<PlainBridges>,
}

impl Crew {
    /// # Errors  when a socket cannot be opened.
    pub(super) fn assemble(stage: &Stage) -> Result<Self> {
        let quiet = QuietPods::of(stage.pods.iter().map(|pod| pod.netns.clone()))?;
        let (mut captures, mut pods, mut host_sides) = (Vec::new(), BTreeMap::new(), Vec::new());
        for pod in &stage.pods {
            let capture = Capture::of_arriving(&pod.netns, "eth0")?;
            captures.push((pod.name, pod.mac, capture));
            pods.insert(pod.name, Wire::of(&pod.netns, "eth0")?);
            let node = stage.node(pod.node)?;
            host_sides.push(mac_of(&node.netns, &pod.host_interface)?);
        }
        let (mut fabrics, mut bridges) = (BTreeMap::new(), Vec::new());
        for node in &stage.nodes {
            let (fabric, port) = &node.beside;
            let nic = mac_of(&node.netns, "nic0")?;
            fabrics.insert(node.name, (Wire::of(fabric, port)?, nic));
            if node.has_bridge {
                host_sides.push(mac_of(&node.netns, BRIDGE)?);
                bridges.extend(PlainBridges::of(&node.netns)?);
            }
        }
        let maps = stage.nodes.iter().map(|node| (node.name, node.maps()));
        Ok(Self {
            captures,
            pods,
            fabrics,
            maps: maps.collect(),
            host_sides,
            nodes: stage.nodes.iter().map(|node| node.underlay).collect(),
            _quiet: quiet,
            _bridges: bridges,
        })
    }

    pub(super) fn send_from_pod(&self, pod: &str, frame: &[u8]) -> Result<()> {
        self.pods.get(pod).context("a pod of the lab")?.send(frame)
    }

    /// Sends to a node's interface, past everything before it.
    pub(super) fn send_to_node(&self, node: &str, frame: &[u8]) -> Result<()> {
        let (wire, nic) = self.fabrics.get(node).context("a node of the lab")?;
        wire.send(&[&nic[..], &frame[6..]].concat())
    }

    /// Every frame that arrived in a pod since the last call, but for ARP and what the pods' own nodes
    /// said. Frames for a pod whose own link-layer address its node has not learnt yet are as if it had.
    /// # Errors  when a capture missed some.
    pub(super) fn arrived(&self) -> Result<Vec<(&'static str, Vec<u8>)>> {
        let mut arrived = Vec::new();
        for (pod, mac, capture) in &self.captures {
            for mut frame in capture.take()? {
                if frame.bytes[..6] == INNER_DESTINATION_MAC {
                    frame.bytes[..6].copy_from_slice(mac);
                }
                if frame.bytes[SENDER] == INNER_SOURCE_MAC {
                    cut_padding(&mut frame.bytes);
                }
                let is_of_host = self
                    .host_sides
                    .iter()
                    .any(|mac| frame.bytes[SENDER] == *mac);
                if frame.bytes[ETHERTYPE] != ARP
                    && !(is_of_host && self.is_from_a_node(&frame.bytes))
                {
                    arrived.push((*pod, frame.bytes));
                }
            }
        }
        Ok(arrived)
    }

    /// Returns when a frame arrives in any pod, and after the limit at the latest.
    pub(super) fn wait_for_frames(&self, limit: Duration) -> Result<()> {
        let sockets = self.captures.iter().map(|(_, _, capture)| capture.as_fd());
        let mut sockets: Vec<_> = sockets
            .map(|socket| PollFd::new(socket, PollFlags::POLLIN))
            .collect();
        ppoll(&mut sockets, Some(limit.into()), None)?;
        Ok(())
    }

    /// Whether the packet is under an address of a node: what a node forwards is not.
    fn is_from_a_node(&self, frame: &[u8]) -> bool {
        let source = frame.get(26..30);
        source.is_some_and(|it| self.nodes.iter().any(|node| node[..] == *it))
    }

    /// Of each path that was ever probed.
    pub(super) fn proven_since(&self) -> Result<Proven> {
        let mut since = Proven::new();
        for (node, maps) in &self.maps {
            let of_node = proven_since(maps)?.into_iter();
            since.extend(of_node.map(|(path, since_ns)| ((*node, path), since_ns)));
        }
        Ok(since)
    }

    /// What all nodes have dropped so far.
    pub(super) fn dropped(&self) -> Result<Drops> {
        let mut drops = Drops::new();
        for (node, maps) in &self.maps {
            let counted = counters::drops(maps)?;
            drops.extend(
                counted
                    .into_iter()
                    .map(|(key, count)| ((*node, key), count)),
            );
        }
        Ok(drops)
    }

    /// Lets all nodes forget what they noted.
    pub(super) fn forget(&self) -> Result<()> {
        self.maps
            .iter()
            .try_for_each(|(_, maps)| tables::forget(maps))
    }
}

/// A namespace whose bridges look at link-layer addresses only, until this is dropped: where the packet
/// filter sees what is bridged, it drops malformed packets before our programs can.
struct PlainBridges(NetNs);

const BRIDGE: &str = "cni0";
const FILTER: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

impl PlainBridges {
    /// Nothing where bridges are plain anyway.
    fn of(namespace: &NetNs) -> Result<Option<Self>> {
        let is_on = || fs::read(FILTER).is_ok_and(|it| it.first() == Some(&b'1'));
        if !namespace.enter(is_on)? {
            return Ok(None);
        }
        namespace.enter(|| fs::write(FILTER, "0"))??;
        Ok(Some(Self(namespace.clone())))
    }
}

impl Drop for PlainBridges {
    fn drop(&mut self) {
        if let Err(error) = self.0.enter(|| fs::write(FILTER, "1")) {
            eprintln!("{error:#}");
        }
    }
}
