//! The node's own addresses, and which of them our programs know when there are too many: only these reach
//! guarded pods as the node itself, and are always reached by confined ones.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use slice_common::layout::Capacity;

use super::tables::asked_by;
use crate::image::{HostFacts, Interface};
use crate::model::{self, ConfigError, Problem, Validated};

/// kube-proxy in IPVS mode puts the address of every service here; they are not the node's own.
const SERVICES_INTERFACE: &str = "kube-ipvs0";

/// The addresses that our programs know, and those, with their interfaces, that do not fit.
///
/// First come the underlay's and those that the host has where pods are (on their interfaces and bridges), by which
/// it talks to them; then interface after interface, and the ones with few addresses first: thousands on one are
/// those of services.
pub(super) fn by_need<'a>(
    configuration: &'a Validated,
    facts: &'a HostFacts,
) -> (impl Iterator<Item = Ipv4Addr>, Vec<(&'a str, Ipv4Addr)>) {
    let node = configuration.node();
    let of_pods: BTreeSet<u32> = node
        .endpoints
        .iter()
        .filter_map(|pod| facts.interfaces.get(&pod.interface))
        .flat_map(|interface| [interface.ifindex, asked_by(interface)])
        .collect();
    let mut interfaces: Vec<(&String, &Interface)> = facts
        .interfaces
        .iter()
        .filter(|(name, _)| *name != SERVICES_INTERFACE)
        .collect();
    interfaces.sort_by_key(|(name, interface)| {
        let is_underlay = **name == node.underlay.interface;
        let is_of_pods = of_pods.contains(&interface.ifindex);
        (!is_underlay, !is_of_pods, interface.addresses.len())
    });
    let all = interfaces.into_iter().flat_map(|(name, interface)| {
        let addresses = interface.addresses.iter();
        addresses.map(|net| (name.as_str(), net.addr()))
    });
    let underlay = (node.underlay.interface.as_str(), node.underlay.address);
    let is_there = |(_, address): &(&str, Ipv4Addr)| *address == underlay.1;
    let (first, others): (Vec<_>, Vec<_>) = all.partition(is_there);
    let mut seen = BTreeSet::new();
    let mut known: Vec<_> = first
        .into_iter()
        .chain(others)
        .filter(|(_, address)| seen.insert(*address))
        .collect();
    let left_out = known.split_off(known.len().min(Capacity::NODE_ADDRESSES));
    (known.into_iter().map(|(_, address)| address), left_out)
}

/// A sentence for a person, if this host has more addresses than our programs can know.
pub fn left_out(configuration: &Validated, facts: &HostFacts) -> Option<ConfigError> {
    let (known, left_out) = by_need(configuration, facts);
    if left_out.is_empty() {
        return None;
    }
    let (limit, left_out_count) = (known.count(), left_out.len());
    let shown = left_out
        .into_iter()
        .map(|(interface, address)| format!("{address} of {interface}"));
    let problem = Problem::TooManyNodeAddresses {
        count: limit + left_out_count,
        limit,
        left_out: model::listed(shown),
    };
    Some(configuration.node().place.error(problem))
}
