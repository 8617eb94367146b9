//! Gateways that stand in for each other count as one sender of an uplink (`uplinks[].nodes`). Where one node's
//! configuration shows that two of them send at the same time, a slice may pass its ceiling.

use super::problem::QosProblem;
use super::rate::shown;
use super::share::whole;
use crate::model::error::ConfigError;
use crate::model::host::listed;
use crate::model::validated::{
    QosProfile, ValidatedNode, ValidatedRemote, ValidatedSlice, ValidatedUplink,
};

/// Of a slice with a ceiling.
pub(in crate::model) fn that_both_send(
    node: &ValidatedNode,
    slice: &ValidatedSlice,
    found: &mut Vec<ConfigError>,
) {
    let Some(profile) = &slice.profile else {
        return;
    };
    for uplink in &node.uplinks {
        with_pods_of_their_own(node, uplink, (slice, profile), found);
    }
    in_two_orders(node, (slice, profile), found);
}

/// What pods on gateways send leaves by their own gateway, whichever one members choose.
fn with_pods_of_their_own(
    node: &ValidatedNode,
    uplink: &ValidatedUplink,
    (slice, profile): (&ValidatedSlice, &QosProfile),
    found: &mut Vec<ConfigError>,
) {
    let is_of_slice = |name: &String| *name == slice.name;
    let has_pods = node.endpoints.iter().any(|pod| is_of_slice(&pod.slice));
    if !has_pods || !leaves_the_cluster(node, slice) {
        return;
    }
    let fellows = node.peers.iter().filter(|peer| {
        let mut blocks = peer.blocks.iter();
        peer.is_fellow && blocks.any(|block| is_of_slice(&block.slice))
    });
    let fellows: Vec<&str> = fellows.map(|peer| peer.name.as_str()).collect();
    let senders = 1 + fellows.len() as u64;
    if senders <= u64::from(uplink.nodes) {
        return;
    }
    let ceiling = whole(uplink, &node.cluster, profile).ceiling;
    let each_bps = ceiling.bps() / u64::from(uplink.nodes);
    let together = shown(each_bps.saturating_mul(senders));
    let problem = QosProblem::GatewaysWithPods {
        slice: slice.name.clone(),
        fellows: listed(fellows.iter().map(|name| (*name).to_owned())),
        uplink: uplink.name.clone(),
        sum: format!(
            "{}, together {together} where the ceiling is {ceiling}",
            shown(each_bps)
        ),
        senders,
    };
    found.push(uplink.place.field("nodes").error(problem.into()));
}

fn leaves_the_cluster(node: &ValidatedNode, slice: &ValidatedSlice) -> bool {
    let peers = node
        .peers
        .iter()
        .filter(|peer| peer.cluster != node.cluster);
    let blocks = peers.flat_map(|peer| &peer.blocks);
    let mut blocks = blocks.chain(node.remotes.iter().flat_map(|remote| &remote.blocks));
    blocks.any(|block| block.slice == slice.name)
}

/// One gateway comes first for some clusters, and another one for others: each sends on what it gets.
fn in_two_orders(
    node: &ValidatedNode,
    (slice, profile): (&ValidatedSlice, &QosProfile),
    found: &mut Vec<ConfigError>,
) {
    let is_passed_on = |remote: &&ValidatedRemote| {
        let mut blocks = remote.blocks.iter();
        remote.cluster != remote.gateway_cluster && blocks.any(|it| it.slice == slice.name)
    };
    let remotes: Vec<&ValidatedRemote> = node.remotes.iter().filter(is_passed_on).collect();
    for (at, remote) in remotes.iter().enumerate() {
        let before = &remotes[..at];
        // Each that comes first somewhere is told once.
        if before.iter().any(|it| first(it) == first(remote)) {
            continue;
        }
        let Some(other) = before.iter().find(|it| stand_in(it, remote)) else {
            continue;
        };
        let ceiling = profile.ceiling.on("", &remote.gateway_cluster);
        let problem = QosProblem::GatewaysInTwoOrders {
            slice: slice.name.clone(),
            one: other.to_string(),
            other: remote.to_string(),
            ceiling: ceiling.to_string(),
            together: shown(ceiling.bps().saturating_mul(2)),
        };
        found.push(remote.place.field("gateways").error(problem.into()));
    }
}

fn first(remote: &ValidatedRemote) -> (&str, Option<&String>) {
    (&remote.gateway_cluster, remote.gateways.first())
}

/// Whether the first gateway of one is named by the other too: then both have the same ways, and most likely one link.
fn stand_in(one: &ValidatedRemote, other: &ValidatedRemote) -> bool {
    let names = |list: &ValidatedRemote, first: &ValidatedRemote| {
        let first = first.gateways.first();
        first.is_some_and(|first| list.gateways.contains(first))
    };
    one.gateway_cluster == other.gateway_cluster && (names(one, other) || names(other, one))
}
