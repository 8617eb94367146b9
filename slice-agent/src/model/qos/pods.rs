//! Whose packets are of a class.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::problem::QosProblem;
use crate::model::error::{ConfigError, Place, Problem};
use crate::model::scalar;
use crate::model::unchecked::MatchFields;
use crate::model::validate::Findings;
use crate::model::validated::{
    Labels, ValidatedElsewhere, ValidatedEndpoint, ValidatedNode, ValidatedSlice,
};

/// Pods by what they are. What is named must hold, all of it.
#[derive(Clone, Debug, PartialEq)]
pub struct PodMatch {
    pub place: Place,
    /// The pod is in one of these; none: in any.
    pub namespaces: Vec<String>,
    /// The pod has all of these; none: whatever labels it has.
    pub labels: Labels,
}

impl PodMatch {
    fn holds(&self, namespace: &str, labels: &Labels) -> bool {
        let is_there =
            self.namespaces.is_empty() || self.namespaces.iter().any(|it| it == namespace);
        is_there
            && self
                .labels
                .iter()
                .all(|(key, value)| labels.get(key) == Some(value))
    }
}

impl std::fmt::Display for PodMatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let labels: Vec<_> = self
            .labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        match (self.labels.is_empty(), self.namespaces.is_empty()) {
            (true, _) => write!(f, "in {}", self.namespaces.join(", ")),
            (false, true) => write!(f, "labelled {}", labels.join(", ")),
            (false, false) => {
                let namespaces = self.namespaces.join(", ");
                write!(f, "in {namespaces} and labelled {}", labels.join(", "))
            }
        }
    }
}

pub(super) fn check_match(place: &Place, fields: &MatchFields, found: &mut Findings) -> PodMatch {
    let mut namespaces = Vec::new();
    if fields.namespaces.as_ref().is_some_and(Vec::is_empty) {
        let remedy = "list namespaces, or remove `namespaces` to mean every one";
        found.add(&place.field("namespaces"), Problem::EmptyList(remedy));
    }
    for (index, name) in fields.namespaces.iter().flatten().enumerate() {
        namespaces.extend(found.take(&place.item("namespaces", index), scalar::label(name)));
    }
    if fields.pod_labels.as_ref().is_some_and(BTreeMap::is_empty) {
        let remedy = "list labels that the pods have, as in {app: kafka}";
        found.add(&place.field("podLabels"), Problem::EmptyList(remedy));
    }
    let labels = fields.pod_labels.as_ref();
    PodMatch {
        place: place.clone(),
        namespaces,
        labels: labels
            .map(|labels| check_labels(&place.field("podLabels"), labels, found))
            .unwrap_or_default(),
    }
}

/// Labels of a pod, or those that pods should have.
pub(in crate::model) fn check_labels(
    place: &Place,
    labels: &Labels,
    found: &mut Findings,
) -> Labels {
    let mut checked = Labels::new();
    for (key, value) in labels {
        let name = found.take(place, scalar::label_key(key));
        let value = found.take(&place.field(key), scalar::label_value(value));
        checked.extend(name.zip(value));
    }
    checked
}

/// The class of a pod itself, as on the wire; 0: of none.
pub(crate) fn class_of(slice: &ValidatedSlice, namespace: &str, labels: &Labels) -> u8 {
    matches_of(slice, namespace, labels)
        .first()
        .map_or(0, |it| it.0)
}

/// What makes the pod be of a class, each with the class: matches by label if there are any, because whoever
/// gives a pod a label means that pod, else those by namespace alone.
fn matches_of<'a>(
    slice: &'a ValidatedSlice,
    namespace: &str,
    labels: &Labels,
) -> Vec<(u8, &'a PodMatch)> {
    let all = (1u8..).zip(&slice.classes);
    let all = all.flat_map(|(number, class)| class.pods.iter().map(move |it| (number, it)));
    let holding = all.filter(|(_, it)| it.holds(namespace, labels));
    let (by_label, by_namespace): (Vec<_>, Vec<_>) =
        holding.partition(|(_, it)| !it.labels.is_empty());
    if by_label.is_empty() {
        by_namespace
    } else {
        by_label
    }
}

/// A pod that a node knows, its own or another's.
pub(crate) struct KnownPod<'a> {
    pub(crate) place: &'a Place,
    pub(crate) slice: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) slice_address: Ipv4Addr,
    pub(crate) labels: &'a Labels,
}

impl<'a> From<&'a ValidatedEndpoint> for KnownPod<'a> {
    fn from(pod: &'a ValidatedEndpoint) -> Self {
        Self {
            place: &pod.place,
            slice: &pod.slice,
            namespace: &pod.namespace,
            name: &pod.name,
            slice_address: pod.slice_address,
            labels: &pod.labels,
        }
    }
}

impl<'a> From<&'a ValidatedElsewhere> for KnownPod<'a> {
    fn from(pod: &'a ValidatedElsewhere) -> Self {
        Self {
            place: &pod.place,
            slice: &pod.slice,
            namespace: &pod.namespace,
            name: &pod.name,
            slice_address: pod.slice_address,
            labels: &pod.labels,
        }
    }
}

fn known_pods(node: &ValidatedNode) -> impl Iterator<Item = KnownPod<'_>> {
    let of_peers = node.peers.iter().flat_map(|peer| &peer.endpoints);
    let of_remotes = node.remotes.iter().flat_map(|remote| &remote.endpoints);
    let elsewhere = of_peers.chain(of_remotes).map(KnownPod::from);
    node.endpoints.iter().map(KnownPod::from).chain(elsewhere)
}

/// No pod is of two classes. Namespaces were compared with their matches.
pub(in crate::model) fn check_pods(
    node: &ValidatedNode,
    slices: &[ValidatedSlice],
    found: &mut Findings,
) {
    for pod in known_pods(node) {
        let Some(slice) = slices.iter().find(|slice| slice.name == pod.slice) else {
            continue;
        };
        let matches = matches_of(slice, pod.namespace, pod.labels);
        let Some(one) = matches.first() else {
            continue;
        };
        if let Some(other) = matches.iter().find(|it| it.0 != one.0) {
            let shown = |(number, by): &(u8, &PodMatch)| {
                let name = &slice.classes[usize::from(*number) - 1].name;
                format!("class {name} by {}", by.place)
            };
            let problem = QosProblem::TwoClasses {
                pod: format!("{}/{} of slice {}", pod.namespace, pod.name, slice.name),
                one: shown(one),
                other: shown(other),
            };
            found.add(&pod.place.field("labels"), problem.into());
        }
    }
}

/// Matches by label that no pod fits that the node knows. Of no interest where no pod sends.
pub(in crate::model) fn without_pods(
    node: &ValidatedNode,
    slice: &ValidatedSlice,
    found: &mut Vec<ConfigError>,
) {
    if node.endpoints.iter().all(|pod| pod.slice != slice.name) {
        return;
    }
    for class in &slice.classes {
        let by_label = class.pods.iter().filter(|it| !it.labels.is_empty());
        for wanted in by_label {
            let fits =
                |pod: KnownPod| pod.slice == slice.name && wanted.holds(pod.namespace, pod.labels);
            if !known_pods(node).any(fits) {
                let problem = QosProblem::NoSuchPod {
                    slice: slice.name.clone(),
                    wanted: wanted.to_string(),
                    class: class.name.clone(),
                };
                found.push(wanted.place.error(problem.into()));
            }
        }
    }
}
