//! From documents to a validated configuration, or to all that is wrong with them.

use std::collections::BTreeMap;

use slice_common::id::{ClusterId, NamespaceId, PathGroupId, PathId, PeerGroupId, RuleId};

use super::error::{ConfigError, Place, Problem};
use super::unchecked::{Content, Document, NodeDocument, SliceDocument};
use super::validated::{Validated, ValidatedNode, ValidatedSlice};
use super::{blocks, doubts, node, qos, slice};

/// Checks the documents of one node.
///
/// # Errors
/// Every mistake that can be seen without looking at the host, in the order of the documents; those
/// that need several sound values together come last, once the values are.
pub fn validate(documents: &[Document]) -> Result<Validated, Vec<ConfigError>> {
    let mut found = Findings::default();
    let mut nodes: Vec<(Place, &NodeDocument)> = Vec::new();
    let mut slice_documents: Vec<(Place, &SliceDocument)> = Vec::new();
    for document in documents {
        let place = |object: String| Place {
            file: document.file.clone(),
            document: document.number,
            object: object.into(),
            ..Place::default()
        };
        match &document.content {
            Content::Node(node) => {
                nodes.push((place(format!("Node {}/{}", node.cluster, node.name)), node));
            }
            Content::Slice(slice) => {
                slice_documents.push((place(format!("Slice {}", slice.metadata.name)), slice));
            }
        }
    }
    let slices: Vec<_> = slice_documents
        .iter()
        .filter_map(|(place, fields)| slice::check(place, fields, &mut found))
        .collect();
    let known: Vec<&str> = slice_documents
        .iter()
        .map(|(_, fields)| fields.metadata.name.as_str())
        .collect();
    let node = only_node(documents, &nodes, &mut found)
        .and_then(|(place, fields)| node::check(place, fields, &known, &mut found));

    slice::check_together(&slices, &mut found);
    if let Some(node) = node
        && found.errors.is_empty()
    {
        blocks::check(&node, &slices, &mut found);
        check_hashes(&node, &slices, &mut found);
        qos::check_pods(&node, &slices, &mut found);
        qos::check_partners(&node, &slices, &mut found);
        qos::check_together(&node, &slices, &mut found);
        if found.errors.is_empty() {
            let doubts = doubts::check(&node, &slices);
            return Ok(Validated {
                node,
                slices,
                doubts,
            });
        }
    }
    Err(found.errors)
}

/// Collects mistakes, so that one does not hide the next.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) errors: Vec<ConfigError>,
    /// Where in `errors` the slice of a name is missed.
    unknown_slices: BTreeMap<String, usize>,
}

impl Findings {
    pub(super) fn add(&mut self, place: &Place, problem: Problem) {
        self.errors.push(place.error(problem));
    }

    /// Every pod and block of a slice names it: a missing one is told once.
    pub(super) fn add_unknown_slice(&mut self, place: &Place, name: &str) {
        let told = self.unknown_slices.get(name);
        let told = told.and_then(|at| self.errors.get_mut(*at));
        match told.map(|error| error.problem.as_mut()) {
            Some(Problem::UnknownSlice { count, .. }) => *count += 1,
            _ => {
                let at = self.errors.len();
                self.unknown_slices.insert(name.to_owned(), at);
                let name = name.to_owned();
                self.add(place, Problem::UnknownSlice { name, count: 1 });
            }
        }
    }

    /// The value, or a note of the mistake.
    pub(super) fn take<T>(&mut self, place: &Place, result: Result<T, Problem>) -> Option<T> {
        result.map_err(|problem| self.add(place, problem)).ok()
    }
}

/// Notices values that are used twice.
pub(super) struct Unique {
    what: &'static str,
    first: BTreeMap<String, String>,
}

impl Unique {
    pub(super) fn new(what: &'static str) -> Self {
        Self {
            what,
            first: BTreeMap::new(),
        }
    }

    pub(super) fn check(&mut self, place: &Place, value: impl ToString, found: &mut Findings) {
        let (what, value) = (self.what, value.to_string());
        match self.first.get(&value) {
            Some(first) => {
                let first = first.clone();
                found.add(place, Problem::Duplicate { what, value, first });
            }
            None => {
                self.first.insert(value, place.to_string());
            }
        }
    }
}

fn only_node<'a>(
    documents: &[Document],
    nodes: &'a [(Place, &'a NodeDocument)],
    found: &mut Findings,
) -> Option<(&'a Place, &'a NodeDocument)> {
    let Some((first, node)) = nodes.first() else {
        let file = documents
            .first()
            .map_or("the configuration", |document| &document.file);
        found.add(&Place::of_file(file), Problem::NoNode);
        return None;
    };
    for (place, _) in &nodes[1..] {
        found.add(
            place,
            Problem::SecondNode {
                first: first.to_string(),
            },
        );
    }
    Some((first, node))
}

/// Refuses names of one kind that would share a number in the kernel's tables.
fn check_hashes(node: &ValidatedNode, slices: &[ValidatedSlice], found: &mut Findings) {
    let mut hashes = Hashes::default();
    let nodes = std::iter::once((&node.cluster, &node.name))
        .chain(node.peers.iter().map(|peer| (&peer.cluster, &peer.name)));
    for (cluster, name) in nodes {
        let shown = format!("{cluster}/{name}");
        let parts: [&str; 2] = [cluster, name];
        hashes.add(
            "cluster",
            ClusterId::from_name(&[cluster]).number(),
            cluster.clone(),
        );
        hashes.add(
            "node",
            PathGroupId::from_name(&parts).number(),
            shown.clone(),
        );
        hashes.add(
            "peer",
            PeerGroupId::from_name(&parts).number(),
            shown.clone(),
        );
        let path = PathId::from_name(&[cluster, name, "0"]);
        hashes.add("path", path.number(), shown);
    }
    for remote in &node.remotes {
        let cluster = &remote.cluster;
        hashes.add(
            "cluster",
            ClusterId::from_name(&[cluster]).number(),
            cluster.clone(),
        );
        let group = PeerGroupId::from_name(&[&remote.gateway_cluster]);
        let shown = format!("gateways of {}", remote.gateway_cluster);
        hashes.add("peer", group.number(), shown);
        let (group, shown) = (remote.path_group(), remote.to_string());
        hashes.add("node", group.number(), shown);
    }
    let listed = slices.iter().flat_map(|slice| {
        super::slice::namespaces(node, slice)
            .into_iter()
            .map(move |name| (&slice.name, name))
    });
    for (slice, name) in listed {
        let id = NamespaceId::from_name(&[slice, &name]);
        hashes.add("namespace", id.number(), format!("{slice}/{name}"));
    }
    for slice in slices {
        for rule in &slice.rules {
            let id = RuleId::from_name(&[&slice.name, &rule.name]);
            hashes.add("rule", id.number(), format!("{}/{}", slice.name, rule.name));
        }
    }
    for problem in hashes.collisions {
        found.add(&node.place, problem);
    }
}

#[derive(Default)]
struct Hashes {
    names: BTreeMap<(&'static str, u32), String>,
    collisions: Vec<Problem>,
}

impl Hashes {
    fn add(&mut self, what: &'static str, number: u32, name: String) {
        let first = self
            .names
            .entry((what, number))
            .or_insert_with(|| name.clone());
        if *first != name {
            let (first, second) = (first.clone(), name);
            self.collisions.push(Problem::HashCollision {
                what,
                first,
                second,
                number,
            });
        }
    }
}
