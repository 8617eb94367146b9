//! What is sound and may be meant, but more likely is not: told, and not refused.

use super::error::{ConfigError, Place, Problem};
use super::qos;
use super::slice::blocks;
use super::validated::{Namespaces, ValidatedNode, ValidatedSlice};

pub(super) fn check(node: &ValidatedNode, slices: &[ValidatedSlice]) -> Vec<ConfigError> {
    let mut found = Vec::new();
    direct_ways_to_gateways(node, &mut found);
    qos::partners_that_send_elsewhere(node, &mut found);
    qos::lending_of_nothing(node, slices, &mut found);
    for slice in slices {
        namespaces_without_addresses(node, slice, &mut found);
        qos::overrides_of_others(node, slice, &mut found);
        qos::without_pods(node, slice, &mut found);
        qos::gateways_that_both_send(node, slice, &mut found);
    }
    found
}

/// A node that is no gateway reaches others by those of its own cluster, where there are any.
fn direct_ways_to_gateways(node: &ValidatedNode, found: &mut Vec<ConfigError>) {
    if node.is_gateway {
        return;
    }
    for remote in &node.remotes {
        if remote.gateway_cluster != node.cluster {
            let gateway_cluster = remote.gateway_cluster.clone();
            let problem = Problem::GatewaysElsewhere { gateway_cluster };
            found.push(remote.place.field("gateways").error(problem));
        }
    }
}

/// Rules and classes for a namespace that nobody is in, as this node knows it.
fn namespaces_without_addresses(
    node: &ValidatedNode,
    slice: &ValidatedSlice,
    found: &mut Vec<ConfigError>,
) {
    let known: std::collections::BTreeSet<&str> = blocks(node, slice)
        .map(|block| block.namespace.as_str())
        .collect();
    let mut doubt = |place: Place, what, namespace: &String| {
        if !known.contains(namespace.as_str()) {
            let problem = Problem::NamespaceNowhere {
                what,
                namespace: namespace.clone(),
                slice: slice.name.clone(),
                known: super::listed(known.iter().map(ToString::to_string)),
            };
            found.push(place.error(problem));
        }
    };
    for rule in &slice.rules {
        for (field, side) in [("from", &rule.from), ("to", &rule.to)] {
            let Namespaces::Listed(listed) = side else {
                continue;
            };
            for (index, namespace) in listed.iter().enumerate() {
                doubt(rule.place.item(field, index), "rule", namespace);
            }
        }
    }
    for pods in slice.classes.iter().flat_map(|class| &class.pods) {
        for (index, namespace) in pods.namespaces.iter().enumerate() {
            doubt(pods.place.item("namespaces", index), "match", namespace);
        }
    }
}
