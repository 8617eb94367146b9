//! The checks that need to know the host.

use ipnet::Ipv4Net;

use super::error::{ConfigError, Place, Problem};
use super::slice::overlap;
use super::validated::{Validated, ValidatedEndpoint, ValidatedNode};
use crate::image::{HostFacts, Interface, LinkLayer, NodeImage, Program};

/// As netlink names the kind of a pod's interface.
const VETH: &str = "veth";
pub(crate) const MTU_BYTES_MIN: u32 = 576;
/// More interface names than this make a message unreadable.
const NAMES_MAX: usize = 20;

/// Checks a sound configuration against the host it is for, where `in_force` is in force.
///
/// A host may change under a configuration, and that must not keep anything else from being applied, removals
/// least of all. So what does not fit, but is in force already, is told and not refused; [`crate::compile`] leaves
/// out what cannot be done. Nor is an endpoint whose interface is not there a mistake, because pods come and
/// go: [`unserved`] tells them.
///
/// # Errors
/// Every mismatch that would be new: an underlay without its interface or address, or that is no Ethernet, ranges
/// that the host routes already.
pub fn validate_against(
    configuration: &Validated,
    facts: &HostFacts,
    in_force: &NodeImage,
) -> Result<Vec<ConfigError>, Vec<ConfigError>> {
    let (known, new): (Vec<_>, Vec<_>) = all_mismatches(configuration, facts)
        .into_iter()
        .partition(|(subject, _)| subject.is_in_force(configuration.node(), in_force));
    let errors = |found: Vec<(Subject, ConfigError)>| found.into_iter().map(|it| it.1).collect();
    if new.is_empty() {
        Ok(errors(known))
    } else {
        Err(errors(new))
    }
}

/// Everything in which the host does not fit a configuration that is in force.
pub fn mismatches(configuration: &Validated, facts: &HostFacts) -> Vec<ConfigError> {
    let found = all_mismatches(configuration, facts);
    found.into_iter().map(|(_, error)| error).collect()
}

/// The endpoints that cannot be served until their interface appears, or is a veth, each with a sentence for a
/// person.
pub fn unserved<'a>(
    configuration: &'a Validated,
    facts: &HostFacts,
) -> Vec<(&'a ValidatedEndpoint, ConfigError)> {
    let endpoints = configuration.node.endpoints.iter();
    endpoints
        .filter_map(|endpoint| {
            let problem = pods_interface(facts, &endpoint.interface).err()?;
            let place = endpoint.place.field("interface");
            Some((endpoint, place.error(problem)))
        })
        .collect()
}

/// The interface of a pod: our programs go on veth pairs.
pub(crate) fn pods_interface<'a>(
    facts: &'a HostFacts,
    name: &str,
) -> Result<&'a Interface, Problem> {
    let interface = interface(facts, name)?;
    match interface.kind.as_str() {
        VETH => Ok(interface),
        _ => Err(not_a_veth(name, interface)),
    }
}

/// An interface that our programs can read packets of.
pub(crate) fn ethernet<'a>(facts: &'a HostFacts, name: &str) -> Result<&'a Interface, Problem> {
    let interface = interface(facts, name)?;
    match interface.link_layer {
        LinkLayer::Ethernet => Ok(interface),
        _ => Err(Problem::NotEthernet(name.to_owned())),
    }
}

/// What does not fit the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Underlay,
    Guarded,
    Range(Ipv4Net),
    Mark,
}

impl Subject {
    fn is_in_force(self, node: &ValidatedNode, in_force: &NodeImage) -> bool {
        let settings = in_force.settings;
        match self {
            // Programs on another interface would be given up for one that does not do.
            Self::Underlay => {
                let mut programs = in_force.attachments.iter();
                settings.is_some_and(|it| it.underlay_address == node.underlay.address.into())
                    && programs.all(|at| {
                        at.program != Program::UnderlayIngress
                            || at.interface == node.underlay.interface
                    })
            }
            // Nothing could be guarded there before.
            Self::Guarded => settings.is_some(),
            Self::Range(range) => in_force.guards.contains(&range),
            // There is none that would do better, and no configuration mends it.
            Self::Mark => true,
        }
    }
}

type Found = Vec<(Subject, ConfigError)>;

fn all_mismatches(configuration: &Validated, facts: &HostFacts) -> Found {
    let mut found = Found::new();
    check_underlay(&configuration.node, facts, &mut found);
    check_ranges(configuration, facts, &mut found);
    let mark = facts.secrets.tunnel_mark;
    for rule in facts.mark_rules.iter().filter(|it| !it.is_blind_to(mark)) {
        let problem = Problem::MarkNoticed(rule.to_string());
        found.push((Subject::Mark, configuration.node.place.error(problem)));
    }
    found
}

fn check_underlay(node: &ValidatedNode, facts: &HostFacts, found: &mut Found) {
    let place = node.place.field("underlay");
    let mut add = |place: Place, problem| found.push((Subject::Underlay, place.error(problem)));
    let name = &node.underlay.interface;
    match ethernet(facts, name) {
        Err(problem) => add(place.field("interface"), problem),
        Ok(interface) => {
            let address = node.underlay.address;
            if !interface.addresses.iter().any(|net| net.addr() == address) {
                let addresses = interface.addresses.iter();
                let problem = Problem::AddressNotOnInterface {
                    address: address.to_string(),
                    interface: name.clone(),
                    existing: listed(addresses.map(|net| net.addr().to_string())),
                };
                add(place.field("address"), problem);
            }
            if interface.mtu_bytes < MTU_BYTES_MIN {
                let (interface, mtu_bytes) = (name.clone(), interface.mtu_bytes);
                let problem = Problem::SmallMtu {
                    interface,
                    mtu_bytes,
                };
                add(place.field("interface"), problem);
            }
        }
    }
    for (index, name) in node.underlay.guarded.iter().flatten().enumerate() {
        // One that is not there yet is guarded when it appears.
        if let Err(problem @ Problem::NotEthernet(_)) = ethernet(facts, name) {
            let error = place.item("guarded", index).error(problem);
            found.push((Subject::Guarded, error));
        }
    }
}

fn check_ranges(configuration: &Validated, facts: &HostFacts, found: &mut Found) {
    let on_interfaces = facts
        .interfaces
        .values()
        .flat_map(|interface| &interface.addresses);
    let local: std::collections::BTreeSet<Ipv4Net> = facts
        .local_networks
        .iter()
        .chain(on_interfaces)
        .map(Ipv4Net::trunc)
        .collect();
    for slice in &configuration.slices {
        for (index, range) in slice.ranges().iter().enumerate() {
            if let Some(network) = local.iter().find(|network| overlap(**network, *range)) {
                let place = slice.place.field("spec.addressing").item("ranges", index);
                let problem = Problem::RangeIsLocal {
                    range: range.to_string(),
                    network: network.to_string(),
                };
                found.push((Subject::Range(*range), place.error(problem)));
            }
        }
    }
}

fn interface<'a>(facts: &'a HostFacts, name: &str) -> Result<&'a Interface, Problem> {
    facts
        .interfaces
        .get(name)
        .ok_or_else(|| Problem::NoInterface {
            name: name.to_owned(),
            existing: listed(facts.interfaces.keys().cloned()),
        })
}

fn not_a_veth(name: &str, interface: &Interface) -> Problem {
    let kind = match interface.kind.as_str() {
        "" => "a hardware interface".to_owned(),
        kind => format!("a {kind}"),
    };
    Problem::NotAVeth {
        name: name.to_owned(),
        kind,
    }
}

/// A list for a sentence; `none` when it is empty, cut when it is long.
pub(crate) fn listed(names: impl Iterator<Item = String>) -> String {
    let names: Vec<_> = names.collect();
    match names.len() {
        0 => "none".to_owned(),
        count if count > NAMES_MAX => {
            format!(
                "{} and {} more",
                names[..NAMES_MAX].join(", "),
                count - NAMES_MAX
            )
        }
        _ => names.join(", "),
    }
}
