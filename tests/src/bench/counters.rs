//! What the kernels counted during a measurement, and why segments were sent twice.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use slice_agent::apply::maps::Maps;
use slice_agent::apply::pins::Pins;
use slice_agent::observe::counters;

use super::bed::Bed;
use crate::lab::KernelDrops;
use crate::lab::observe::drops::{parse_devices, parse_protocols, tables};

/// One skb of 64 KiB carries so many segments of the bench's size; one event can hit them all.
const SEGMENTS_PER_PACKET: u64 = 47;

/// Counters of a bed at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    drops: KernelDrops,
    program_drops: u64,
    /// Of TCP, in the client's pod.
    client: BTreeMap<String, u64>,
    /// In the server's pod.
    server: BTreeMap<String, u64>,
    /// Sent by the client's node over the link.
    link_packets: u64,
    /// Received in the server's pod.
    pod_packets: u64,
}

/// What was added between two moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    pub retransmitted_segments: u64,
    /// A veth's receive ring was full; its sending peer counts that.
    pub ring_drops: u64,
    /// Dropped anywhere else, also by our programs.
    pub other_drops: u64,
    /// Packets that arrived out of order.
    pub reordered: u64,
    /// Packets that arrived though they had been received, as the receiver tells the sender (DSACK); the
    /// sender may have closed before it hears of the last one.
    pub arrived_twice: u64,
    pub link_packets: u64,
    pub pod_packets: u64,
}

/// Retransmitted segments by their cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Causes {
    pub ring: u64,
    pub drop: u64,
    pub reorder: u64,
    /// Nothing was lost or overtaken: the sender did not wait long enough (a loss probe, a timeout).
    pub late: u64,
    pub unexplained: u64,
}

impl Snapshot {
    pub fn of(bed: &Bed) -> Result<Self> {
        let protocols = |index: usize| -> Result<(BTreeMap<String, u64>, u64)> {
            let [devices, snmp, netstat] = tables(&bed.pods[index])?;
            let all = parse_protocols(&snmp).chain(parse_protocols(&netstat));
            let tcp = all.filter(|(name, _)| name.starts_with("Tcp")).collect();
            let mut devices = parse_devices(&devices);
            let eth0 = devices.find(|(name, _)| name == "eth0");
            Ok((tcp, eth0.context("no eth0 in the pod")?.1.rx_packets))
        };
        let [devices, ..] = tables(&bed.nodes[0])?;
        let nic = parse_devices(&devices).find(|(name, _)| name == "nic0");
        let (server, pod_packets) = protocols(1)?;
        Ok(Self {
            drops: KernelDrops::of(bed.namespaces())?,
            program_drops: program_drops(bed)?,
            client: protocols(0)?.0,
            server,
            link_packets: nic.context("no nic0 on the node")?.1.tx_packets,
            pod_packets,
        })
    }

    pub fn since(&self, earlier: &Self) -> Delta {
        let added = |now: &BTreeMap<_, _>, before: &BTreeMap<_, _>, name: &str| {
            let value = |counters: &BTreeMap<String, u64>| counters.get(name).copied().unwrap_or(0);
            value(now).saturating_sub(value(before))
        };
        let drops = self.drops.since(&earlier.drops);
        let at_ring = drops.counters.iter();
        let ring_drops = at_ring
            .filter(|(name, _)| name.ends_with("/tx_drops"))
            .map(|(_, count)| count)
            .sum();
        let programs = self.program_drops.saturating_sub(earlier.program_drops);
        Delta {
            retransmitted_segments: added(&self.client, &earlier.client, "Tcp.RetransSegs"),
            ring_drops,
            other_drops: drops.total() - ring_drops + programs,
            reordered: added(&self.server, &earlier.server, "TcpExt.TCPOFOQueue"),
            arrived_twice: ["TcpExt.TCPDSACKOldSent", "TcpExt.TCPDSACKOfoSent"]
                .map(|name| added(&self.server, &earlier.server, name))
                .iter()
                .sum(),
            link_packets: self.link_packets - earlier.link_packets,
            pod_packets: self.pod_packets - earlier.pod_packets,
        }
    }
}

impl Delta {
    /// Gives each retransmitted segment to the first cause that can account for it.
    ///
    /// Drops come first: whatever follows a lost packet is out of order too.
    pub fn causes(&self) -> Causes {
        let mut left = self.retransmitted_segments;
        let mut take = |packets: u64| {
            let taken = left.min(packets * SEGMENTS_PER_PACKET);
            left -= taken;
            taken
        };
        let events = [
            self.ring_drops,
            self.other_drops,
            self.reordered,
            self.arrived_twice,
        ];
        let [ring, drop, reorder, late] = events.map(&mut take);
        Causes {
            ring,
            drop,
            reorder,
            late,
            unexplained: left,
        }
    }
}

fn program_drops(bed: &Bed) -> Result<u64> {
    let folders = bed.bpffs().into_iter().flatten();
    let drops = folders.map(|bpffs| counters::drops(&Maps::new(Pins::current(&bpffs))));
    drops.map(|drops| Ok(drops?.values().sum::<u64>())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_retransmit_has_one_cause_and_drops_come_before_reordering() {
        let causes_of = |[ring_drops, other_drops, reordered, arrived_twice]: [u64; 4]| {
            let delta = Delta {
                retransmitted_segments: 100,
                ring_drops,
                other_drops,
                reordered,
                arrived_twice,
                ..Delta::default()
            };
            let causes = delta.causes();
            [
                causes.ring,
                causes.drop,
                causes.reorder,
                causes.late,
                causes.unexplained,
            ]
        };
        assert_eq!(causes_of([3, 0, 500, 9]), [100, 0, 0, 0, 0]);
        assert_eq!(causes_of([1, 1, 500, 9]), [47, 47, 6, 0, 0]);
        assert_eq!(causes_of([0, 0, 1, 1]), [0, 0, 47, 47, 6]);
        assert_eq!(causes_of([0, 0, 0, 9]), [0, 0, 0, 100, 0]);
        assert_eq!(causes_of([0, 0, 0, 0]), [0, 0, 0, 0, 100]);
    }
}
