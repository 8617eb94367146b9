//! Who owns which addresses: no two owners, and nothing of the underlay inside a slice.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::error::{Overlap, Place, Problem};
use super::slice::overlap;
use super::validate::Findings;
use super::validated::{
    Addressing, ValidatedBlock, ValidatedElsewhere, ValidatedEndpoint, ValidatedNode,
    ValidatedSlice,
};

pub(super) fn check(node: &ValidatedNode, slices: &[ValidatedSlice], found: &mut Findings) {
    let by_name: BTreeMap<&str, &ValidatedSlice> = slices
        .iter()
        .map(|slice| (slice.name.as_str(), slice))
        .collect();
    let owned = owned_blocks(node);
    for (_, block) in &owned {
        if let Some(slice) = by_name.get(block.slice.as_str()) {
            check_place_of_block(block, slice, slices, found);
        }
    }
    check_disjoint(&owned, found);
    for endpoint in &node.endpoints {
        if let Some(slice) = by_name.get(endpoint.slice.as_str()) {
            check_endpoint(node, endpoint, slice, found);
        }
    }
    for peer in &node.peers {
        let holder = format!("peer {}/{}", peer.cluster, peer.name);
        check_elsewhere(&holder, &peer.blocks, &peer.endpoints, found);
    }
    for remote in &node.remotes {
        let holder = format!("cluster {}", remote.cluster);
        check_elsewhere(&holder, &remote.blocks, &remote.endpoints, found);
    }
    check_underlay(node, slices, &owned, found);
}

/// Every block with the node that owns it.
fn owned_blocks(node: &ValidatedNode) -> Vec<(String, &ValidatedBlock)> {
    let own = node
        .blocks
        .iter()
        .map(|block| (format!("{}/{}", node.cluster, node.name), block));
    let peers = node.peers.iter().flat_map(|peer| {
        let owner = format!("{}/{}", peer.cluster, peer.name);
        peer.blocks.iter().map(move |block| (owner.clone(), block))
    });
    let remotes = node.remotes.iter().flat_map(|remote| {
        let owner = format!("cluster {}", remote.cluster);
        let blocks = remote.blocks.iter();
        blocks.map(move |block| (owner.clone(), block))
    });
    own.chain(peers).chain(remotes).collect()
}

fn check_place_of_block(
    block: &ValidatedBlock,
    slice: &ValidatedSlice,
    slices: &[ValidatedSlice],
    found: &mut Findings,
) {
    let place = block.place.field("prefix");
    let prefix = block.prefix;
    match &slice.addressing {
        Addressing::Mapped { ranges } => {
            if !ranges.iter().any(|range| range.contains(&prefix)) {
                let (prefix, slice) = (prefix.to_string(), slice.name.clone());
                let ranges = listed(ranges);
                found.add(
                    &place,
                    Problem::BlockOutsideRanges {
                        prefix,
                        slice,
                        ranges,
                    },
                );
            }
        }
        Addressing::Native => {
            if prefix.prefix_len() != 32 {
                let (prefix, slice) = (prefix.to_string(), slice.name.clone());
                found.add(&place, Problem::NativeBlockLength { prefix, slice });
            }
            for other in slices {
                if let Some(range) = other.ranges().iter().find(|range| overlap(**range, prefix)) {
                    let problem = Overlap {
                        prefix: prefix.to_string(),
                        owner: format!("slice {}", slice.name),
                        other_prefix: range.to_string(),
                        other: format!("slice {}", other.name),
                        first: other.place.field("spec.addressing.ranges").to_string(),
                        remedy: "choose a range that holds no pod address",
                    };
                    found.add(&place, Problem::Overlap(Box::new(problem)));
                }
            }
        }
    }
}

/// Sorted by first address, a block overlaps an earlier one only if it lies inside that one.
fn check_disjoint(owned: &[(String, &ValidatedBlock)], found: &mut Findings) {
    let mut sorted: Vec<_> = owned.iter().enumerate().collect();
    sorted.sort_by_key(|(at, (_, block))| (block.prefix.network(), block.prefix.prefix_len(), *at));
    let mut widest: Option<&(String, &ValidatedBlock)> = None;
    for (_, entry) in sorted {
        let (owner, block) = entry;
        match widest {
            Some((other, earlier)) if earlier.prefix.contains(&block.prefix) => {
                let problem = Overlap {
                    prefix: block.prefix.to_string(),
                    owner: format!("{}/{} on {owner}", block.slice, block.namespace),
                    other_prefix: earlier.prefix.to_string(),
                    other: format!("{}/{} on {other}", earlier.slice, earlier.namespace),
                    first: earlier.place.to_string(),
                    remedy: "a block has one owner, so remove it from one of them",
                };
                found.add(
                    &block.place.field("prefix"),
                    Problem::Overlap(Box::new(problem)),
                );
            }
            _ => widest = Some(entry),
        }
    }
}

fn check_endpoint(
    node: &ValidatedNode,
    endpoint: &ValidatedEndpoint,
    slice: &ValidatedSlice,
    found: &mut Findings,
) {
    let address = endpoint.slice_address;
    if slice.addressing == Addressing::Native && address != endpoint.address {
        let problem = Problem::NativeAddress {
            slice_address: address.to_string(),
            address: endpoint.address.to_string(),
            slice: slice.name.clone(),
        };
        found.add(&endpoint.place.field("sliceAddress"), problem);
        return;
    }
    let owner = (endpoint.slice.as_str(), endpoint.namespace.as_str());
    let pod = (&endpoint.place, owner, address);
    check_in_blocks(pod, "this node", &node.blocks, found);
}

fn check_elsewhere(
    holder: &str,
    blocks: &[ValidatedBlock],
    endpoints: &[ValidatedElsewhere],
    found: &mut Findings,
) {
    for endpoint in endpoints {
        let owner = (endpoint.slice.as_str(), endpoint.namespace.as_str());
        let pod = (&endpoint.place, owner, endpoint.slice_address);
        check_in_blocks(pod, holder, blocks, found);
    }
}

/// A pod's address is from a block that its node has for its slice and namespace.
fn check_in_blocks(
    (place, owner, address): (&Place, (&str, &str), Ipv4Addr),
    holder: &str,
    blocks: &[ValidatedBlock],
    found: &mut Findings,
) {
    let of_owner = blocks
        .iter()
        .filter(|block| (block.slice.as_str(), block.namespace.as_str()) == owner);
    let prefixes: Vec<Ipv4Net> = of_owner.map(|block| block.prefix).collect();
    let (holder, owner) = (holder.to_owned(), format!("{}/{}", owner.0, owner.1));
    if prefixes.is_empty() {
        found.add(place, Problem::NoBlock { holder, owner });
    } else if !prefixes.iter().any(|prefix| prefix.contains(&address)) {
        let problem = Problem::AddressOutsideBlocks {
            address: address.to_string(),
            owner,
            holder,
            blocks: listed(&prefixes),
        };
        found.add(&place.field("sliceAddress"), problem);
    }
}

/// Guard routes make a slice's addresses unreachable for the host: no node may live there, and in
/// mapped addressing no pod.
fn check_underlay(
    node: &ValidatedNode,
    slices: &[ValidatedSlice],
    owned: &[(String, &ValidatedBlock)],
    found: &mut Findings,
) {
    let ranges: Vec<(Ipv4Net, String)> = slices
        .iter()
        .flat_map(|slice| {
            slice
                .ranges()
                .iter()
                .map(|r| (*r, format!("slice {}", slice.name)))
        })
        .collect();
    let blocks: Vec<(Ipv4Net, String)> = owned
        .iter()
        .map(|(_, block)| (block.prefix, format!("slice {}", block.slice)))
        .collect();
    let mut refuse = |place: Place, address: Ipv4Addr, nets: &[(Ipv4Net, String)], remedy| {
        if let Some((prefix, owner)) = nets.iter().find(|(net, _)| net.contains(&address)) {
            let problem = Problem::AddressInSlice {
                address: address.to_string(),
                prefix: prefix.to_string(),
                owner: owner.clone(),
                remedy,
            };
            found.add(&place, problem);
        }
    };
    let taken: Vec<_> = ranges.iter().chain(&blocks).cloned().collect();
    let remedy = "the tunnel would run through itself, so give the slice other addresses";
    let place = node.place.field("underlay.address");
    refuse(place, node.underlay.address, &taken, remedy);
    for peer in &node.peers {
        refuse(peer.place.field("underlay"), peer.underlay, &taken, remedy);
    }
    let remedy = "pod addresses and slice addresses must differ in mode Mapped";
    for endpoint in &node.endpoints {
        refuse(
            endpoint.place.field("address"),
            endpoint.address,
            &ranges,
            remedy,
        );
    }
}

fn listed(nets: &[Ipv4Net]) -> String {
    nets.iter()
        .map(Ipv4Net::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}
