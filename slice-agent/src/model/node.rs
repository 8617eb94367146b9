//! The checks of a Node document, value by value.

use std::collections::BTreeSet;

use slice_common::wire::vxlan;

use super::error::{Place, Problem};
use super::unchecked::{
    BlockFields, ElsewhereFields, EndpointFields, NodeDocument, PeerFields, UnderlayFields,
};
use super::validate::{Findings, Unique};
use super::validated::{
    EarlyDrop, Underlay, ValidatedBlock, ValidatedElsewhere, ValidatedEndpoint, ValidatedNode,
    ValidatedPeer, ValidatedRemote,
};
use super::{qos, remotes, scalar};

/// The least that every IPv4 network carries (RFC 791), and the most that a length field can say.
const MTU_BYTES_MIN: u64 = 576;
const MTU_BYTES_MAX: u64 = 65_535;

pub(super) fn check(
    place: &Place,
    fields: &NodeDocument,
    slices: &[&str],
    found: &mut Findings,
) -> Option<ValidatedNode> {
    let cluster = found.take(&place.field("cluster"), scalar::label(&fields.cluster));
    let name = found.take(&place.field("name"), scalar::subdomain(&fields.name));
    let underlay = check_underlay(&place.field("underlay"), &fields.underlay, found);
    let known: BTreeSet<&str> = slices.iter().copied().collect();
    let mut endpoints = Vec::new();
    for (index, endpoint) in fields.endpoints.iter().enumerate() {
        let place = place.item("endpoints", index);
        endpoints.extend(check_endpoint(&place, endpoint, &known, found));
    }
    let blocks = check_blocks(place, &fields.blocks, &known, found);
    let mut peers = Vec::new();
    for (index, peer) in fields.peers.iter().enumerate() {
        peers.extend(check_peer(&place.item("peers", index), peer, &known, found));
    }
    let remotes = remotes::check(place, fields, &known, found);
    let uplinks = qos::check_uplinks(place, &fields.uplinks, underlay.as_ref(), found);
    let node = ValidatedNode {
        place: place.clone(),
        cluster: cluster?,
        name: name?,
        underlay: underlay?,
        endpoints,
        blocks,
        peers,
        is_gateway: fields.gateway.unwrap_or(false),
        remotes,
        uplinks,
    };
    let is_elsewhere = |remote: &ValidatedRemote| remote.gateway_cluster != node.cluster;
    if !node.is_gateway && node.blocks.is_empty() && node.remotes.iter().any(is_elsewhere) {
        found.add(&place.field("gateway"), Problem::GatewayUnsaid);
    }
    check_endpoints_together(&node, found);
    check_peers_together(&node, found);
    Some(node)
}

fn check_underlay(
    place: &Place,
    fields: &UnderlayFields,
    found: &mut Findings,
) -> Option<Underlay> {
    let address = found.take(
        &place.field("address"),
        scalar::host_address(&fields.address),
    );
    let interface = found.take(
        &place.field("interface"),
        scalar::interface(&fields.interface),
    );
    let port = fields.port.unwrap_or(vxlan::DEFAULT_PORT.into());
    let port = found.take(
        &place.field("port"),
        scalar::number("a UDP port", port, 1, 65_535),
    );
    let early_drop = found.take(&place.field("earlyDrop"), early_drop(fields));
    let guarded = fields.guarded.as_ref().map(|listed| {
        let names = listed.iter().enumerate();
        let checked = names.filter_map(|(index, name)| {
            found.take(&place.item("guarded", index), scalar::interface(name))
        });
        checked.collect()
    });
    Some(Underlay {
        address: address?,
        interface: interface?,
        port: u16::try_from(port?).ok()?,
        early_drop: early_drop?,
        guarded,
    })
}

fn early_drop(fields: &UnderlayFields) -> Result<EarlyDrop, Problem> {
    match fields.early_drop.as_deref() {
        None | Some("Auto") => Ok(EarlyDrop::Auto),
        Some("Off") => Ok(EarlyDrop::Off),
        Some("On") => Ok(EarlyDrop::On),
        Some(other) => Err(Problem::UnknownValue {
            what: "early drop",
            value: other.to_owned(),
            choices: "Auto, Off or On",
        }),
    }
}

fn check_endpoint(
    place: &Place,
    fields: &EndpointFields,
    slices: &BTreeSet<&str>,
    found: &mut Findings,
) -> Option<ValidatedEndpoint> {
    let slice = check_slice_name(place, &fields.slice, slices, found);
    let namespace = found.take(&place.field("namespace"), scalar::label(&fields.namespace));
    let name = found.take(&place.field("name"), scalar::subdomain(&fields.name));
    let interface = found.take(
        &place.field("interface"),
        scalar::interface(&fields.interface),
    );
    let address = found.take(
        &place.field("address"),
        scalar::host_address(&fields.address),
    );
    let slice_address = found.take(
        &place.field("sliceAddress"),
        scalar::host_address(&fields.slice_address),
    );
    let labels = qos::check_labels(&place.field("labels"), &fields.labels, found);
    Some(ValidatedEndpoint {
        place: place.clone(),
        slice: slice?,
        namespace: namespace?,
        name: name?,
        interface: interface?,
        address: address?,
        slice_address: slice_address?,
        labels,
    })
}

/// Pods of other nodes.
pub(super) fn check_elsewhere(
    place: &Place,
    fields: &[ElsewhereFields],
    slices: &BTreeSet<&str>,
    found: &mut Findings,
) -> Vec<ValidatedElsewhere> {
    let mut endpoints = Vec::new();
    for (index, fields) in fields.iter().enumerate() {
        let place = place.item("endpoints", index);
        let slice = check_slice_name(&place, &fields.slice, slices, found);
        let namespace = found.take(&place.field("namespace"), scalar::label(&fields.namespace));
        let name = found.take(&place.field("name"), scalar::subdomain(&fields.name));
        let address = scalar::host_address(&fields.slice_address);
        let address = found.take(&place.field("sliceAddress"), address);
        let labels = qos::check_labels(&place.field("labels"), &fields.labels, found);
        if let (Some(slice), Some(namespace), Some(name), Some(slice_address)) =
            (slice, namespace, name, address)
        {
            endpoints.push(ValidatedElsewhere {
                place,
                slice,
                namespace,
                name,
                slice_address,
                labels,
            });
        }
    }
    endpoints
}

pub(super) fn check_blocks(
    place: &Place,
    fields: &[BlockFields],
    slices: &BTreeSet<&str>,
    found: &mut Findings,
) -> Vec<ValidatedBlock> {
    let mut blocks = Vec::new();
    for (index, block) in fields.iter().enumerate() {
        let place = place.item("blocks", index);
        let slice = check_slice_name(&place, &block.slice, slices, found);
        let namespace = found.take(&place.field("namespace"), scalar::label(&block.namespace));
        let prefix = found.take(&place.field("prefix"), scalar::prefix(&block.prefix));
        if let (Some(slice), Some(namespace), Some(prefix)) = (slice, namespace, prefix) {
            blocks.push(ValidatedBlock {
                place,
                slice,
                namespace,
                prefix,
            });
        }
    }
    blocks
}

fn check_peer(
    place: &Place,
    fields: &PeerFields,
    slices: &BTreeSet<&str>,
    found: &mut Findings,
) -> Option<ValidatedPeer> {
    let cluster = found.take(&place.field("cluster"), scalar::label(&fields.cluster));
    let name = found.take(&place.field("name"), scalar::subdomain(&fields.name));
    let underlay = found.take(
        &place.field("underlay"),
        scalar::host_address(&fields.underlay),
    );
    let blocks = check_blocks(place, &fields.blocks, slices, found);
    let endpoints = check_elsewhere(place, &fields.endpoints, slices, found);
    let mtu_bytes = match fields.mtu {
        None => None,
        Some(mtu) => {
            let checked = scalar::number("a path's MTU", mtu, MTU_BYTES_MIN, MTU_BYTES_MAX);
            Some(u32::try_from(found.take(&place.field("mtu"), checked)?).ok()?)
        }
    };
    Some(ValidatedPeer {
        place: place.clone(),
        cluster: cluster?,
        name: name?,
        underlay: underlay?,
        mtu_bytes,
        blocks,
        endpoints,
        is_fellow: fields.fellow.unwrap_or(false),
    })
}

fn check_slice_name(
    place: &Place,
    name: &str,
    known: &BTreeSet<&str>,
    found: &mut Findings,
) -> Option<String> {
    if known.contains(name) {
        return Some(name.to_owned());
    }
    found.add_unknown_slice(&place.field("slice"), name);
    None
}

fn check_endpoints_together(node: &ValidatedNode, found: &mut Findings) {
    let mut names = Unique::new("endpoint name");
    let mut interfaces = Unique::new("interface");
    let mut addresses = Unique::new("address");
    let mut slice_addresses = Unique::new("sliceAddress");
    for endpoint in &node.endpoints {
        let place = &endpoint.place;
        let name = format!(
            "{}/{}/{}",
            endpoint.slice, endpoint.namespace, endpoint.name
        );
        names.check(&place.field("name"), name, found);
        interfaces.check(&place.field("interface"), &endpoint.interface, found);
        addresses.check(&place.field("address"), endpoint.address, found);
        slice_addresses.check(&place.field("sliceAddress"), endpoint.slice_address, found);
        if endpoint.interface == node.underlay.interface {
            let problem = Problem::EndpointOnUnderlay(endpoint.interface.clone());
            found.add(&place.field("interface"), problem);
        }
    }
    let of_peers = node.peers.iter().flat_map(|peer| &peer.endpoints);
    let of_remotes = node.remotes.iter().flat_map(|remote| &remote.endpoints);
    for endpoint in of_peers.chain(of_remotes) {
        let place = endpoint.place.field("sliceAddress");
        slice_addresses.check(&place, endpoint.slice_address, found);
    }
}

fn check_peers_together(node: &ValidatedNode, found: &mut Findings) {
    let mut names = Unique::new("peer name");
    let mut underlays = Unique::new("underlay address");
    for peer in &node.peers {
        let name = format!("{}/{}", peer.cluster, peer.name);
        if (&peer.cluster, &peer.name) == (&node.cluster, &node.name) {
            found.add(&peer.place.field("name"), Problem::PeerIsSelf(name.clone()));
        }
        if peer.is_fellow && peer.cluster != node.cluster {
            let problem = Problem::FellowOfOtherCluster(name.clone());
            found.add(&peer.place.field("fellow"), problem);
        }
        if peer.is_fellow && !node.is_gateway {
            found.add(&peer.place.field("fellow"), Problem::FellowOfNoGateway);
        }
        if peer.underlay == node.underlay.address {
            let problem = Problem::PeerIsSelf(peer.underlay.to_string());
            found.add(&peer.place.field("underlay"), problem);
        }
        names.check(&peer.place.field("name"), name, found);
        underlays.check(&peer.place.field("underlay"), peer.underlay, found);
    }
}
