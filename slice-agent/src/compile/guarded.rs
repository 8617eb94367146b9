//! By which interfaces packets leave the node: `underlay_guard` belongs on each of them.

use crate::image::{HostFacts, Interface, LinkLayer};
use crate::model::{Validated, ValidatedNode};

/// Kinds that lead to a pod or a virtual machine, or out: a veth, a TAP device.
const EITHER_WAY: [&str; 2] = ["veth", "tun"];
/// Kinds of interfaces that lead to a wire, as netlink names them; hardware has none. Bridges are not among
/// them: what a bridge sends out leaves by one of its ports.
const WIRED: [&str; 8] = [
    "", "vlan", "bond", "team", "macvlan", "macvtap", "ipvlan", "macsec",
];

/// Names and numbers of the interfaces to guard.
pub(super) fn guarded<'a>(
    configuration: &'a Validated,
    facts: &'a HostFacts,
) -> impl Iterator<Item = (&'a str, u32)> {
    let node = configuration.node();
    let interfaces = facts.interfaces.iter();
    interfaces
        .filter(|(name, interface)| {
            let is_wanted = **name == node.underlay.interface
                || match &node.underlay.guarded {
                    Some(listed) => listed.contains(name),
                    None => leads_out(node, name, interface),
                };
            is_wanted && interface.link_layer == LinkLayer::Ethernet
        })
        .map(|(name, interface)| (name.as_str(), interface.ifindex))
}

/// Whether packets may leave the node by an interface, as far as one can see. A veth or TAP device with the
/// address of a network is an uplink (of a node that is itself a container, or by a program that is a network); those of
/// pods and virtual machines have none, or a lone address.
fn leads_out(node: &ValidatedNode, name: &str, interface: &Interface) -> bool {
    let is_pods = || node.endpoints.iter().any(|pod| pod.interface == name);
    let is_uplink = || {
        let mut addresses = interface.addresses.iter();
        interface.controller_ifindex == 0 && addresses.any(|net| net.prefix_len() < 32)
    };
    WIRED.contains(&interface.kind.as_str())
        || EITHER_WAY.contains(&interface.kind.as_str()) && is_uplink() && !is_pods()
}
