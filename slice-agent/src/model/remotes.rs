//! Which clusters lie behind which gateways.

use std::collections::{BTreeMap, BTreeSet};

use slice_common::layout::PathGroup;

use super::error::{Place, Problem};
use super::node::{check_blocks, check_elsewhere};
use super::scalar;
use super::unchecked::{NodeDocument, RemoteFields};
use super::validate::{Findings, Unique};
use super::validated::ValidatedRemote;

/// Peers as the document writes them: cluster and name by `cluster/name`.
type Peers<'a> = BTreeMap<String, (&'a str, &'a str)>;

pub(super) fn check(
    place: &Place,
    node: &NodeDocument,
    slices: &BTreeSet<&str>,
    found: &mut Findings,
) -> Vec<ValidatedRemote> {
    let named = |cluster, name| (format!("{cluster}/{name}"), (cluster, name));
    let peers: Peers = node
        .peers
        .iter()
        .map(|peer| named(peer.cluster.as_str(), peer.name.as_str()))
        .collect();
    let fellows: BTreeSet<_> = node
        .peers
        .iter()
        .filter(|peer| peer.fellow == Some(true))
        .map(|peer| format!("{}/{}", peer.cluster, peer.name))
        .collect();
    let mut remotes = Vec::new();
    for (index, fields) in node.remotes.iter().enumerate() {
        let place = place.item("remotes", index);
        if fields.cluster == node.cluster {
            let problem = Problem::RemoteIsOwnCluster(fields.cluster.clone());
            found.add(&place.field("cluster"), problem);
        }
        remotes.extend(check_remote(&place, fields, &peers, slices, found));
        let gateways = fields.gateways.len();
        if node.gateway == Some(true)
            && gateways > 0
            && fields.gateways.iter().all(|it| fellows.contains(it))
        {
            let gateways = fields.gateways.join(", ");
            found.add(&place.field("gateways"), Problem::OnlyFellows { gateways });
        }
        let others = fellows.iter().filter(|it| !fields.gateways.contains(it));
        let (count, limit) = (gateways + others.count(), PathGroup::PATHS_MAX);
        if gateways <= limit && count > limit {
            let problem = Problem::TooManyWays { count, limit };
            found.add(&place.field("gateways"), problem);
        }
    }
    remotes
}

fn check_remote(
    place: &Place,
    fields: &RemoteFields,
    peers: &Peers,
    slices: &BTreeSet<&str>,
    found: &mut Findings,
) -> Option<ValidatedRemote> {
    let cluster = found.take(&place.field("cluster"), scalar::label(&fields.cluster));
    let gateways = check_gateways(place, &fields.gateways, peers, found);
    let blocks = check_blocks(place, &fields.blocks, slices, found);
    let endpoints = check_elsewhere(place, &fields.endpoints, slices, found);
    let (gateway_cluster, _) = gateways.first()?;
    Some(ValidatedRemote {
        place: place.clone(),
        cluster: cluster?,
        gateway_cluster: (*gateway_cluster).to_owned(),
        gateways: gateways
            .iter()
            .map(|(_, name)| (*name).to_owned())
            .collect(),
        blocks,
        endpoints,
    })
}

/// The gateways that are peers, each with its cluster.
fn check_gateways<'a>(
    place: &Place,
    names: &[String],
    peers: &Peers<'a>,
    found: &mut Findings,
) -> Vec<(&'a str, &'a str)> {
    let list = place.field("gateways");
    if names.is_empty() {
        let remedy = "name the peers that lead to the cluster";
        found.add(&list, Problem::EmptyList(remedy));
    }
    let (count, limit) = (names.len(), PathGroup::PATHS_MAX);
    if count > limit {
        found.add(&list, Problem::TooManyGateways { count, limit });
    }
    let mut unique = Unique::new("gateway");
    let mut gateways: Vec<(&str, &str)> = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let place = place.item("gateways", index);
        unique.check(&place, name, found);
        let Some((cluster, peer)) = peers.get(name) else {
            found.add(&place, unknown(name, peers));
            continue;
        };
        if let Some((first_cluster, first)) = gateways.first()
            && first_cluster != cluster
        {
            let problem = Problem::GatewaysOfTwoClusters {
                gateway: name.clone(),
                first: format!("{first_cluster}/{first}"),
            };
            found.add(&place, problem);
        }
        gateways.push((*cluster, *peer));
    }
    gateways
}

fn unknown(name: &str, peers: &Peers) -> Problem {
    Problem::UnknownGateway {
        name: name.to_owned(),
        peers: super::listed(peers.keys().cloned()),
    }
}
