//! The pods and nodes of a stage as the generator sees them.

use anyhow::{Context, Result};

use super::stage::{Stage, StageNode, StagePod, first_of_block};
use crate::fuzz::generate::{Cast, Distant, NOWHERE, Speaker};
use crate::fuzz::places;

/// What a device of the lab carries, with its Ethernet header.
const FRAME_BYTES_MAX: usize = 1514;
const INTERNET: [u8; 4] = [198, 51, 100, 7];

/// Every pod of a slice speaks and is spoken to, at its own node and at every gateway.
/// # Errors  when there is nobody.
pub(super) fn of(stage: &Stage) -> Result<Cast> {
    let speakers = speakers(stage);
    let distant = speakers.iter().map(|pod| Distant {
        slice: pod.slice,
        node: pod.node,
        address: pod.slice_address,
    });
    // Once more for each node that hears them: most should be believed.
    let heard = stage.entitled.iter().filter_map(|(_, from, block)| {
        let is_in_block = |pod: &&Speaker| first_of_block(pod.slice_address) == *block;
        let pod = speakers.iter().find(is_in_block)?;
        Some(Distant {
            slice: pod.slice,
            node: *from,
            address: pod.slice_address,
        })
    });
    let strangers = stage.pods.iter().filter(|pod| pod.member.is_none());
    let strangers: Vec<_> = strangers.map(|pod| pod.address).collect();
    let underlay: Vec<_> = stage.nodes.iter().map(|node| node.underlay).collect();
    let mut addresses: Vec<_> = stage
        .nodes
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
    let near = speakers.first().context("a pod of a slice")?.slice_address;
    let unknown = *stage.unknown_hosts.first().context("an unknown host")?;
    Ok(Cast {
        distant: distant.chain(heard).collect(),
        near: speakers.iter().map(|pod| pod.slice_address).collect(),
        not_entitled: unknown,
        outside: [INTERNET]
            .into_iter()
            .chain(strangers.iter().copied())
            .collect(),
        callers: [INTERNET, near]
            .into_iter()
            .chain(underlay.last().copied())
            .chain(strangers.iter().copied())
            .collect(),
        peers: underlay,
        addresses,
        devices: speakers.iter().map(|pod| pod.device).collect(),
        slices: stage
            .slices
            .iter()
            .copied()
            .chain([0, 99, 0x1f_ffff])
            .collect(),
        overlapping: *stage.slices.last().context("a slice")?,
        frame_bytes_max: FRAME_BYTES_MAX,
        speakers,
    })
}

fn speakers(stage: &Stage) -> Vec<Speaker> {
    let at = |pod: &StagePod, node: &StageNode| {
        let (slice, slice_address) = pod.member?;
        Some(Speaker {
            device: pod.name,
            mac: pod.mac,
            pod_address: pod.address,
            slice_address,
            slice,
            node: node.underlay,
        })
    };
    let mut speakers = Vec::new();
    for pod in &stage.pods {
        let hears = |node: &&StageNode| node.name == pod.node || node.is_gateway;
        let nodes = stage.nodes.iter().filter(hears);
        speakers.extend(nodes.filter_map(|node| at(pod, node)));
    }
    speakers
}
