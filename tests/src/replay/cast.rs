//! The lab's pods and nodes as the generator sees them.

use anyhow::{Context, Result};

use super::journey::NodeTables;
use crate::fuzz::generate::{Cast, Distant, NOWHERE, Speaker};
use crate::fuzz::places;
use crate::lab::inventory::{CLUSTERS, NODES, PODS, PodSpec, SLICES};
use crate::live::mac_of;
use crate::netns::NetNs;

/// What a device of the lab carries, with its Ethernet header.
const FRAME_BYTES_MAX: usize = 1514;
const INTERNET: [u8; 4] = [198, 51, 100, 7];

/// Every pod of a slice speaks and is spoken to.
/// # Errors  when a pod is not there.
pub(super) fn of_lab(nodes: &[NodeTables]) -> Result<Cast> {
    let members: Vec<&PodSpec> = PODS.iter().filter(|pod| pod.member.is_some()).collect();
    let speakers: Vec<Speaker> = members
        .iter()
        .map(|pod| speaker(pod))
        .collect::<Result<_>>()?;
    let distant = speakers.iter().map(|pod| Distant {
        slice: pod.slice,
        node: pod.node,
        address: pod.slice_address,
    });
    let strangers = PODS.iter().filter(|pod| pod.member.is_none());
    let strangers: Vec<_> = strangers.map(|pod| pod.pod_address().octets()).collect();
    let gateways = CLUSTERS.map(|cluster| cluster.gateway().octets());
    let underlay = NODES.map(|node| node.underlay().octets());
    let mut addresses: Vec<_> = nodes
        .iter()
        .flat_map(|node| places::edges(&node.tables))
        .collect();
    addresses.extend(
        speakers
            .iter()
            .flat_map(|it| [it.pod_address, it.slice_address]),
    );
    addresses.extend(strangers.iter().chain(&underlay).chain(&NOWHERE));
    addresses.push(INTERNET);
    Ok(Cast {
        distant: distant.collect(),
        near: speakers.iter().map(|pod| pod.slice_address).collect(),
        peers: underlay.to_vec(),
        not_entitled: gateways[0],
        outside: [INTERNET]
            .into_iter()
            .chain(strangers.iter().copied())
            .collect(),
        callers: [INTERNET, speakers[0].slice_address, underlay[4]]
            .into_iter()
            .chain(strangers.iter().copied())
            .collect(),
        addresses,
        devices: speakers.iter().map(|pod| pod.device).collect(),
        slices: SLICES
            .iter()
            .map(|slice| slice.id)
            .chain([0, 99, 0x1f_ffff])
            .collect(),
        overlapping: SLICES[1].id,
        frame_bytes_max: FRAME_BYTES_MAX,
        speakers,
    })
}

fn speaker(pod: &PodSpec) -> Result<Speaker> {
    let member = pod.member.context("a pod of a slice")?;
    let slice = SLICES.iter().find(|slice| slice.name == member.slice);
    Ok(Speaker {
        device: pod.name,
        mac: mac_of(&NetNs::open(&pod.namespace())?, "eth0")?,
        pod_address: pod.pod_address().octets(),
        slice_address: pod
            .slice_address()
            .context("an address in its slice")?
            .octets(),
        slice: slice.context("a slice of the lab")?.id,
        node: pod.node().underlay().octets(),
    })
}
