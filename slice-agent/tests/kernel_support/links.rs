//! What a node of these tests has when all is well.

use std::collections::BTreeMap;
use std::path::PathBuf;

use slice_agent::apply::tcx::{self, LinkFacts};

use super::Node;

pub(crate) const NOTHING: &str = "Nothing to change: this host is as the configuration wants it.\n";
pub(crate) const LINKS: [&str; 5] = [
    "nic0-underlay_guard",
    "nic0-underlay_ingress",
    "p-kafka-0-pod_egress",
    "p-kafka-0-pod_ingress",
    "sliceplane0-tunnel_ingress",
];

pub(crate) fn links(node: &Node) -> BTreeMap<PathBuf, LinkFacts> {
    let facts = |pin: PathBuf| (pin.clone(), tcx::facts(&pin).unwrap().unwrap());
    node.link_pins().into_iter().map(facts).collect()
}

pub(crate) fn link_ids(node: &Node) -> Vec<u32> {
    links(node).values().map(|link| link.link_id).collect()
}

pub(crate) fn program_ids(node: &Node) -> Vec<u32> {
    links(node).values().map(|link| link.program_id).collect()
}
