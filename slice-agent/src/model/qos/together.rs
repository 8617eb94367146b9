//! The checks that need the node and its slices.

use std::collections::BTreeSet;

use slice_common::shaper::{Rate, Refusal, check_uplink};

use super::problem::QosProblem;
use super::rate::shown;
use super::share::{share, whole};
use crate::model::error::{ConfigError, Place};
use crate::model::host::listed;
use crate::model::validate::Findings;
use crate::model::validated::{
    QosProfile, ValidatedNode, ValidatedPeer, ValidatedSlice, ValidatedUplink,
};

type Shaped<'a> = (&'a ValidatedSlice, &'a QosProfile);

pub(in crate::model) fn check(
    node: &ValidatedNode,
    slices: &[ValidatedSlice],
    found: &mut Findings,
) {
    let shaped: Vec<Shaped> = slices
        .iter()
        .filter_map(|slice| Some((slice, slice.profile.as_ref()?)))
        .collect();
    let clusters = clusters(node);
    for uplink in node
        .uplinks
        .iter()
        .filter(|it| clusters.contains(it.name.as_str()))
    {
        let problem = QosProblem::UplinkIsCluster(uplink.name.clone());
        found.add(&uplink.place.field("name"), problem.into());
    }
    if node.uplinks.is_empty() {
        for (slice, _) in &shaped {
            check_sends_nothing(node, slice, found);
        }
    }
    for uplink in &node.uplinks {
        check_shares(node, uplink, &shaped, found);
        check_lending(node, uplink, &shaped, found);
    }
}

fn qos(slice: &ValidatedSlice) -> Place {
    slice.place.field("spec.qos")
}

/// The clusters that this node knows.
fn clusters(node: &ValidatedNode) -> BTreeSet<&str> {
    let peers = node.peers.iter().map(|peer| peer.cluster.as_str());
    let remotes = node.remotes.iter().map(|remote| remote.cluster.as_str());
    peers
        .chain(remotes)
        .chain([node.cluster.as_str()])
        .collect()
}

/// A slice's document is the same on all nodes, so a name may mean an uplink of others. A wrong one leaves the default
/// in force. Who has no uplink has no use for any of them.
pub(in crate::model) fn overrides_of_others(
    node: &ValidatedNode,
    slice: &ValidatedSlice,
    found: &mut Vec<ConfigError>,
) {
    let Some(profile) = slice.profile.as_ref() else {
        return;
    };
    if node.uplinks.is_empty() {
        return;
    }
    let clusters = clusters(node);
    let uplinks = || node.uplinks.iter().map(|uplink| uplink.name.as_str());
    let rates = [
        ("ceiling", Some(&profile.ceiling)),
        ("sliceGuarantee", profile.guarantee.as_ref()),
    ];
    for (field, rates) in rates {
        for name in rates.into_iter().flat_map(|rates| rates.overrides.keys()) {
            if clusters.contains(name.as_str()) || uplinks().any(|uplink| uplink == name) {
                continue;
            }
            let known = uplinks().chain(clusters.iter().copied());
            let problem = QosProblem::UnknownOverride {
                name: name.clone(),
                known: listed(known.map(str::to_owned)),
            };
            let place = qos(slice).field(field).field("overrides").field(name);
            found.push(place.error(problem.into()));
        }
    }
}

/// Members that send by gateways need no uplink; who sends to other clusters itself does.
fn check_sends_nothing(node: &ValidatedNode, slice: &ValidatedSlice, found: &mut Findings) {
    if let Some(peer) = node.peers.iter().find(|peer| sends_to(node, peer, slice)) {
        let problem = QosProblem::NoUplink {
            peer: format!("{}/{}", peer.cluster, peer.name),
            interface: node.underlay.interface.clone(),
        };
        found.add(&qos(slice).field("ceiling"), problem.into());
    }
}

fn sends_to(node: &ValidatedNode, peer: &ValidatedPeer, slice: &ValidatedSlice) -> bool {
    let leads_to = node.remotes.iter().filter(|remote| {
        remote.gateway_cluster == peer.cluster && remote.gateways.contains(&peer.name)
    });
    let mut blocks = leads_to
        .flat_map(|remote| &remote.blocks)
        .chain(&peer.blocks);
    peer.cluster != node.cluster && blocks.any(|block| block.slice == slice.name)
}

/// Where ceilings do not fit into the uplink together, slices are guaranteed parts of it, and a loan would not
/// change those.
fn check_lending(
    node: &ValidatedNode,
    uplink: &ValidatedUplink,
    shaped: &[Shaped],
    found: &mut Findings,
) {
    let ceilings: Vec<_> = shaped
        .iter()
        .map(|(slice, profile)| (slice, whole(uplink, &node.cluster, profile).ceiling))
        .collect();
    let total_bps: u64 = ceilings.iter().map(|(_, ceiling)| ceiling.bps()).sum();
    let Some(excess_bps) = total_bps.checked_sub(uplink.rate.bps()) else {
        return;
    };
    if uplink.lending.is_none() || excess_bps == 0 {
        return;
    }
    let named = ceilings
        .iter()
        .map(|(slice, ceiling)| format!("{} {ceiling}", slice.name));
    let problem = QosProblem::LendingOversold {
        sum: named.collect::<Vec<_>>().join(" + "),
        total: shown(total_bps),
        rate: uplink.rate.to_string(),
        uplink: uplink.name.clone(),
        excess: shown(excess_bps),
    };
    found.add(&uplink.place.field("lending"), problem.into());
}

fn check_shares(
    node: &ValidatedNode,
    uplink: &ValidatedUplink,
    shaped: &[Shaped],
    found: &mut Findings,
) {
    let before = found.errors.len();
    for (slice, profile) in shaped {
        if let Err(problem) = share(uplink, &node.cluster, profile, &slice.classes) {
            let ceiling = whole(uplink, &node.cluster, profile).ceiling.to_string();
            let field = match &problem {
                QosProblem::PartTooSmall { rate, .. } if *rate != ceiling => "sliceGuarantee",
                QosProblem::GuaranteesAboveSliceGuarantee { .. } if profile.guarantee.is_none() => {
                    "ceiling"
                }
                QosProblem::GuaranteesAboveSliceGuarantee { .. }
                | QosProblem::GuaranteeAboveCeiling { .. } => "sliceGuarantee",
                QosProblem::Starved { .. } => "classes",
                _ => "ceiling",
            };
            found.add(&qos(slice).field(field), problem.into());
        }
    }
    let guarantees: Vec<_> = shaped
        .iter()
        .map(|(slice, profile)| (slice, whole(uplink, &node.cluster, profile).guarantee))
        .collect();
    let rates: Vec<Rate> = guarantees.iter().map(|(_, rate)| rate.rate()).collect();
    if before == found.errors.len()
        && let Err(Refusal::Oversold {
            guarantees_bps,
            contract_bps,
        }) = check_uplink(uplink.rate.rate(), &rates)
    {
        let named = guarantees
            .iter()
            .map(|(slice, rate)| format!("{} {rate}", slice.name));
        let problem = QosProblem::UplinkOversold {
            sum: named.collect::<Vec<_>>().join(" + "),
            total: shown(guarantees_bps),
            rate: shown(contract_bps),
            uplink: uplink.name.clone(),
            excess: shown(guarantees_bps - contract_bps),
        };
        found.add(&uplink.place.field("rate"), problem.into());
    }
}
