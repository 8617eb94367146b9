//! Rules in an order become a table of prefixes.

use std::collections::{BTreeMap, BTreeSet};

use slice_common::address::Port;
use slice_common::id::{NamespaceId, RuleId};
use slice_common::layout::{Capacity, PolicyEntry, PolicyKey, PolicyVerdict};

use super::ports::PortMap;
use crate::image::{Names, Prefixed};
use crate::model::{Action, ConfigError, Namespaces, Problem, Protocol, Rule, ValidatedSlice};

pub(super) type Policy = BTreeMap<Prefixed<PolicyKey>, PolicyEntry>;

/// Adds the entries of one slice; `namespaces` are all that `*` stands for.
///
/// # Errors
/// A rule that needs more entries than the table has in all.
pub(super) fn add_slice(
    slice: &ValidatedSlice,
    namespaces: &BTreeSet<String>,
    names: &mut Names,
    policy: &mut Policy,
) -> Result<(), ConfigError> {
    let number = slice.id.number();
    let default = PolicyEntry {
        verdict: verdict(slice.default_action),
        rule: 0,
    };
    let mut key = PolicyKey {
        slice: number,
        source_namespace: 0,
        destination_namespace: 0,
        protocol: 0,
        reserved: 0,
        port: 0,
    };
    policy.insert(
        Prefixed {
            key,
            prefix_bits: PolicyKey::BITS_SLICE,
        },
        default,
    );
    for name in namespaces {
        let id = namespace_id(slice, name);
        names
            .namespaces
            .insert(id, format!("{}/{name}", slice.name));
    }
    for rule in &slice.rules {
        names.rules.insert(
            rule_id(slice, rule),
            format!("{}/{}", slice.name, rule.name),
        );
    }
    for ((from, to), rules) in pairs(slice, namespaces)? {
        key.source_namespace = namespace_id(slice, from);
        key.destination_namespace = namespace_id(slice, to);
        if policy.len() <= Capacity::POLICY {
            add_pair(slice, &rules, key, policy);
        }
    }
    if policy.len() > Capacity::POLICY {
        return Err(too_large(slice, policy));
    }
    Ok(())
}

/// The rules that speak of each pair of namespaces, in their order.
fn pairs<'a>(
    slice: &'a ValidatedSlice,
    namespaces: &'a BTreeSet<String>,
) -> Result<BTreeMap<(&'a str, &'a str), Vec<&'a Rule>>, ConfigError> {
    let mut pairs: BTreeMap<(&str, &str), Vec<&Rule>> = BTreeMap::new();
    for rule in &slice.rules {
        let (from, to) = (
            members(&rule.from, namespaces),
            members(&rule.to, namespaces),
        );
        // Each pair is at least one entry, so what cannot fit is refused before it is built.
        let of_rule = from.len().saturating_mul(to.len());
        if of_rule <= Capacity::POLICY {
            for source in &from {
                for destination in &to {
                    pairs.entry((source, destination)).or_default().push(rule);
                }
            }
        }
        let count = pairs.len().max(of_rule);
        if count > Capacity::POLICY {
            return Err(rule.place.error(Problem::PolicyTooLarge {
                rule: rule.name.clone(),
                slice: slice.name.clone(),
                of_rule,
                count,
                limit: Capacity::POLICY,
            }));
        }
    }
    Ok(pairs)
}

fn members<'a>(side: &'a Namespaces, every: &'a BTreeSet<String>) -> BTreeSet<&'a str> {
    match side {
        Namespaces::Every => every.iter().map(String::as_str).collect(),
        Namespaces::Listed(names) => names.iter().map(String::as_str).collect(),
    }
}

/// `key` names the pair. What no rule matches is left to the slice's default entry.
fn add_pair(slice: &ValidatedSlice, rules: &[&Rule], mut key: PolicyKey, policy: &mut Policy) {
    let entry = |at: usize| PolicyEntry {
        verdict: verdict(rules[at].action),
        rule: rule_id(slice, rules[at]),
    };
    let every_protocol = rules.iter().position(|rule| rule.traffic.is_none());
    if let Some(at) = every_protocol {
        policy.insert(
            Prefixed {
                key,
                prefix_bits: PolicyKey::BITS_NAMESPACES,
            },
            entry(at),
        );
    }
    for protocol in Protocol::ALL {
        let ports = ports_of(rules, protocol);
        key.protocol = protocol.number();
        key.port = 0;
        let (base, exceptions) = match every_protocol {
            None => ports.cover(),
            // A protocol that differs at few ports builds on the entry for all protocols.
            Some(at) => {
                let (base, list) = ports.cover();
                let above = ports.except(Some(at));
                if above.len() <= list.len() {
                    (None, above)
                } else {
                    (base, list)
                }
            }
        };
        if let Some(at) = base {
            policy.insert(
                Prefixed {
                    key,
                    prefix_bits: PolicyKey::BITS_PROTOCOL,
                },
                entry(at),
            );
        }
        for (prefix, at) in exceptions {
            let prefix_bits = match prefix.bits {
                0 => PolicyKey::BITS_PROTOCOL,
                bits => PolicyKey::BITS_BEFORE_PORT + bits,
            };
            key.port = Port::new(prefix.port).network_word();
            policy.insert(Prefixed { key, prefix_bits }, entry(at));
        }
    }
}

/// The index of the first rule that matches, for each port. ICMP has no ports: all are alike.
fn ports_of(rules: &[&Rule], protocol: Protocol) -> PortMap<usize> {
    let mut ports = PortMap::new();
    for (at, rule) in rules.iter().enumerate() {
        match &rule.traffic {
            None => ports.fill(0, u16::MAX, at),
            Some(list) => {
                for traffic in list.iter().filter(|traffic| traffic.protocol == protocol) {
                    ports.fill(traffic.first_port, traffic.last_port, at);
                }
            }
        }
    }
    ports
}

/// Names the rule with the most entries: the one to make smaller.
fn too_large(slice: &ValidatedSlice, policy: &Policy) -> ConfigError {
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    for (at, entry) in policy {
        if at.key.slice == slice.id.number() {
            *counts.entry(entry.rule).or_default() += 1;
        }
    }
    let of = |rule: &Rule| counts.get(&rule_id(slice, rule)).copied().unwrap_or(0);
    let largest = slice.rules.iter().max_by_key(|rule| of(rule));
    let (place, rule, of_rule) = match largest {
        Some(rule) => (rule.place.clone(), rule.name.clone(), of(rule)),
        None => (slice.place.clone(), String::new(), 0),
    };
    place.error(Problem::PolicyTooLarge {
        rule,
        slice: slice.name.clone(),
        of_rule,
        count: policy.len(),
        limit: Capacity::POLICY,
    })
}

pub(super) fn namespace_id(slice: &ValidatedSlice, namespace: &str) -> u32 {
    NamespaceId::from_name(&[&slice.name, namespace]).number()
}

fn rule_id(slice: &ValidatedSlice, rule: &Rule) -> u32 {
    RuleId::from_name(&[&slice.name, &rule.name]).number()
}

const fn verdict(action: Action) -> u32 {
    match action {
        Action::Allow => PolicyVerdict::Allow.number(),
        Action::Deny => PolicyVerdict::Deny.number(),
    }
}
