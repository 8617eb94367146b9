//! The checks that need to know the host.

use ipnet::Ipv4Net;

use super::error::{ConfigError, Place, Problem};
use super::slice::overlap;
use super::validate::Findings;
use super::validated::{Validated, ValidatedEndpoint, ValidatedNode};
use crate::image::{HostFacts, Interface, LinkLayer};

/// As netlink names the kind of a pod's interface.
const VETH: &str = "veth";
const MTU_BYTES_MIN: u32 = 576;
/// More interface names than this make a message unreadable.
const NAMES_MAX: usize = 20;

/// Checks a sound configuration against the host it is for.
///
/// An endpoint whose interface is not there is no mistake, because pods come and go:
/// [`missing_interfaces`] tells them.
///
/// # Errors
/// Every mismatch that waiting does not mend: no underlay interface, an underlay address that is not
/// on it, endpoints that are no veth, ranges that the host routes already.
pub fn validate_against(
    configuration: &Validated,
    facts: &HostFacts,
) -> Result<(), Vec<ConfigError>> {
    let mut found = Findings::default();
    check_underlay(&configuration.node, facts, &mut found);
    for endpoint in &configuration.node.endpoints {
        let name = &endpoint.interface;
        if let Some(interface) = facts.interfaces.get(name)
            && interface.kind != VETH
        {
            let place = endpoint.place.field("interface");
            found.add(&place, not_a_veth(name, interface));
        }
    }
    check_ranges(configuration, facts, &mut found);
    if found.errors.is_empty() {
        Ok(())
    } else {
        Err(found.errors)
    }
}

/// The endpoints that cannot be served until their interface appears, each with a sentence for a
/// person.
pub fn missing_interfaces<'a>(
    configuration: &'a Validated,
    facts: &HostFacts,
) -> Vec<(&'a ValidatedEndpoint, ConfigError)> {
    let endpoints = configuration.node.endpoints.iter();
    endpoints
        .filter_map(|endpoint| {
            let problem = interface(facts, &endpoint.interface).err()?;
            let place = endpoint.place.field("interface");
            Some((endpoint, place.error(problem)))
        })
        .collect()
}

fn check_underlay(node: &ValidatedNode, facts: &HostFacts, found: &mut Findings) {
    let place = node.place.field("underlay");
    let name = &node.underlay.interface;
    let result = interface(facts, name);
    let Some(interface) = found.take(&place.field("interface"), result) else {
        return;
    };
    let address = node.underlay.address;
    if !interface.addresses.iter().any(|net| net.addr() == address) {
        let problem = Problem::AddressNotOnInterface {
            address: address.to_string(),
            interface: name.clone(),
            existing: listed(interface.addresses.iter().map(|net| net.addr().to_string())),
        };
        found.add(&place.field("address"), problem);
    }
    check_link_layer(&place.field("interface"), name, interface, found);
    for (index, name) in node.underlay.guarded.iter().flatten().enumerate() {
        if let Some(interface) = facts.interfaces.get(name) {
            check_link_layer(&place.item("guarded", index), name, interface, found);
        }
    }
    if interface.mtu_bytes < MTU_BYTES_MIN {
        let (interface, mtu_bytes) = (name.clone(), interface.mtu_bytes);
        found.add(
            &place.field("interface"),
            Problem::SmallMtu {
                interface,
                mtu_bytes,
            },
        );
    }
}

/// Our programs read Ethernet headers.
fn check_link_layer(place: &Place, name: &str, interface: &Interface, found: &mut Findings) {
    if interface.link_layer != LinkLayer::Ethernet {
        found.add(place, Problem::NotEthernet(name.to_owned()));
    }
}

fn check_ranges(configuration: &Validated, facts: &HostFacts, found: &mut Findings) {
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
                let (range, network) = (range.to_string(), network.to_string());
                found.add(&place, Problem::RangeIsLocal { range, network });
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
