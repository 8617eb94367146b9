//! The checks of Slice documents.

use std::collections::BTreeSet;

use ipnet::Ipv4Net;
use slice_common::id::SliceId;

use super::error::{Overlap, Place, Problem};
use super::isolation;
use super::qos;
use super::scalar;
use super::unchecked::{AddressingFields, RuleFields, SliceDocument, SpecFields, TrafficFields};
use super::validate::{Findings, Unique};
use super::validated::{
    Action, Addressing, Delivery, Namespaces, Rule, Traffic, ValidatedBlock, ValidatedNode,
    ValidatedSlice,
};

pub(super) fn check(
    place: &Place,
    fields: &SliceDocument,
    found: &mut Findings,
) -> Option<ValidatedSlice> {
    let name = found.take(
        &place.field("metadata.name"),
        scalar::label(&fields.metadata.name),
    );
    let (least, most) = (SliceId::MIN.into(), SliceId::MAX.into());
    let id = found
        .take(
            &place.field("id"),
            scalar::number("a slice id", fields.id, least, most),
        )
        .and_then(|id| SliceId::new_checked(u32::try_from(id).ok()?));
    let spec = &fields.spec;
    let at = place.field("spec");
    let addressing = addressing(&at.field("addressing"), &spec.addressing, found);
    let isolation = isolation::check(&at.field("isolation"), spec.isolation.as_ref(), found);
    let (default_action, rules) = policy(&at.field("policy"), spec, found);
    let (profile, classes) = qos::check_classes(&at.field("qos"), spec.qos.as_ref(), found);
    encryption(&at, spec, found);
    let delivery = delivery(&at.field("delivery"), spec.delivery.as_deref(), found);
    Some(ValidatedSlice {
        place: place.clone(),
        name: name?,
        id: id?,
        addressing: addressing?,
        isolation: isolation?,
        delivery: delivery?,
        default_action: default_action?,
        rules,
        profile,
        classes,
    })
}

/// Names, numbers and ranges are each slice's own.
pub(super) fn check_together(slices: &[ValidatedSlice], found: &mut Findings) {
    let mut names = Unique::new("slice name");
    let mut ids = Unique::new("slice id");
    let mut ranges: Vec<(&ValidatedSlice, Place, Ipv4Net)> = Vec::new();
    for slice in slices {
        names.check(&slice.place.field("metadata.name"), &slice.name, found);
        ids.check(&slice.place.field("id"), slice.id.number(), found);
        for (index, range) in slice.ranges().iter().enumerate() {
            let place = slice.place.field("spec.addressing").item("ranges", index);
            for (other, first, earlier) in &ranges {
                if overlap(*range, *earlier) {
                    let problem = Overlap {
                        prefix: range.to_string(),
                        owner: format!("slice {}", slice.name),
                        other_prefix: earlier.to_string(),
                        other: format!("slice {}", other.name),
                        first: first.to_string(),
                        remedy: "give the slices disjoint ranges",
                    };
                    found.add(&place, Problem::Overlap(Box::new(problem)));
                }
            }
            ranges.push((slice, place, *range));
        }
    }
}

pub(super) fn overlap(one: Ipv4Net, other: Ipv4Net) -> bool {
    one.contains(&other) || other.contains(&one)
}

/// All namespaces of a slice that this node knows: from blocks, its own and its peers', and from
/// the rules.
pub(crate) fn namespaces(node: &ValidatedNode, slice: &ValidatedSlice) -> BTreeSet<String> {
    let blocks = blocks(node, slice);
    let mut names: BTreeSet<String> = blocks.map(|block| block.namespace.clone()).collect();
    for side in slice.rules.iter().flat_map(|rule| [&rule.from, &rule.to]) {
        if let Namespaces::Listed(listed) = side {
            names.extend(listed.iter().cloned());
        }
    }
    names
}

/// The prefixes that the slice's packets come from.
pub(crate) fn sources(node: &ValidatedNode, slice: &ValidatedSlice) -> Vec<Ipv4Net> {
    if let Addressing::Mapped { ranges } = &slice.addressing {
        return ranges.clone();
    }
    blocks(node, slice).map(|block| block.prefix).collect()
}

/// The blocks of a slice that this node knows, its own and others'.
pub(super) fn blocks<'a>(
    node: &'a ValidatedNode,
    slice: &'a ValidatedSlice,
) -> impl Iterator<Item = &'a ValidatedBlock> {
    let peers = node.peers.iter().flat_map(|peer| &peer.blocks);
    let remotes = node.remotes.iter().flat_map(|remote| &remote.blocks);
    let blocks = node.blocks.iter().chain(peers).chain(remotes);
    blocks.filter(|block| block.slice == slice.name)
}

fn addressing(
    place: &Place,
    fields: &AddressingFields,
    found: &mut Findings,
) -> Option<Addressing> {
    let mut ranges = Vec::new();
    for (index, range) in fields.ranges.iter().enumerate() {
        ranges.extend(found.take(&place.item("ranges", index), scalar::range(range)));
    }
    match fields.mode.as_str() {
        "Mapped" if fields.ranges.is_empty() => {
            found.add(&place.field("ranges"), Problem::NoRanges);
            None
        }
        "Mapped" => Some(Addressing::Mapped { ranges }),
        "Native" if !fields.ranges.is_empty() => {
            found.add(&place.field("ranges"), Problem::RangesInNative);
            None
        }
        "Native" => Some(Addressing::Native),
        other => {
            found.add(
                &place.field("mode"),
                unknown("mode", other, "Mapped or Native"),
            );
            None
        }
    }
}

fn policy(place: &Place, spec: &SpecFields, found: &mut Findings) -> (Option<Action>, Vec<Rule>) {
    let Some(fields) = &spec.policy else {
        return (Some(Action::Deny), Vec::new());
    };
    let default = fields.default_action.as_deref().unwrap_or("Deny");
    let default = found.take(&place.field("defaultAction"), action(default));
    let mut names = Unique::new("rule name");
    let mut rules = Vec::new();
    for (index, rule) in fields.rules.iter().enumerate() {
        let place = place.item("rules", index);
        names.check(&place.field("name"), &rule.name, found);
        rules.extend(check_rule(&place, rule, found));
    }
    (default, rules)
}

fn check_rule(place: &Place, fields: &RuleFields, found: &mut Findings) -> Option<Rule> {
    let name = found.take(&place.field("name"), scalar::label(&fields.name));
    let action = found.take(&place.field("action"), action(&fields.action));
    let from = namespace_list(place, "from", &fields.from, found);
    let to = namespace_list(place, "to", &fields.to, found);
    let traffic = match &fields.ports {
        None => None,
        Some(list) => {
            if list.is_empty() {
                let remedy = "remove `ports` to mean every protocol, or list some";
                found.add(&place.field("ports"), Problem::EmptyList(remedy));
            }
            Some(traffic_list(place, "ports", list, found))
        }
    };
    Some(Rule {
        place: place.clone(),
        name: name?,
        action: action?,
        from: from?,
        to: to?,
        traffic,
    })
}

fn namespace_list(
    place: &Place,
    field: &str,
    list: &[String],
    found: &mut Findings,
) -> Option<Namespaces> {
    if list.is_empty() {
        let remedy = "list namespaces, or write [\"*\"] for every one";
        found.add(&place.field(field), Problem::EmptyList(remedy));
        return None;
    }
    if list.iter().any(|name| name == "*") {
        if list.len() > 1 {
            found.add(&place.field(field), Problem::StarAndOthers);
        }
        return Some(Namespaces::Every);
    }
    let mut names = Vec::new();
    for (index, name) in list.iter().enumerate() {
        names.extend(found.take(&place.item(field, index), scalar::label(name)));
    }
    Some(Namespaces::Listed(names))
}

pub(super) fn traffic_list(
    place: &Place,
    field: &str,
    list: &[TrafficFields],
    found: &mut Findings,
) -> Vec<Traffic> {
    let mut traffic = Vec::new();
    for (index, fields) in list.iter().enumerate() {
        match scalar::traffic(fields) {
            Ok(one) => traffic.push(one),
            Err((inner, problem)) => found.add(&place.item(field, index).field(inner), problem),
        }
    }
    traffic
}

fn encryption(place: &Place, spec: &SpecFields, found: &mut Findings) {
    match spec
        .encryption
        .as_ref()
        .map(|encryption| encryption.mode.as_str())
    {
        Some("None") => {}
        Some(other) => {
            let problem = Problem::Encryption(other.to_owned());
            found.add(&place.field("encryption.mode"), problem);
        }
        None => found.add(&place.field("encryption"), Problem::NoEncryption),
    }
    if spec.accept_plaintext != Some(true) {
        found.add(
            &place.field("acceptPlaintext"),
            Problem::PlaintextNotAccepted,
        );
    }
}

fn delivery(place: &Place, value: Option<&str>, found: &mut Findings) -> Option<Delivery> {
    match value {
        None | Some("Peer") => Some(Delivery::Peer),
        Some("Stack") => Some(Delivery::Stack),
        Some(other) => {
            found.add(place, unknown("a delivery", other, "Peer or Stack"));
            None
        }
    }
}

fn action(value: &str) -> Result<Action, Problem> {
    match value {
        "Allow" => Ok(Action::Allow),
        "Deny" => Ok(Action::Deny),
        other => Err(unknown("an action", other, "Allow or Deny")),
    }
}

pub(super) fn unknown(what: &'static str, value: &str, choices: &'static str) -> Problem {
    let value = value.to_owned();
    Problem::UnknownValue {
        what,
        value,
        choices,
    }
}
