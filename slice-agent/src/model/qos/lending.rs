//! With whom a node lends parts of ceilings, and what it must prove to whom it asks.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;

use super::problem::QosProblem;
use crate::model::error::{ConfigError, Place, Problem};
use crate::model::scalar;
use crate::model::unchecked::{LendingFields, UplinkFields};
use crate::model::validate::Findings;
use crate::model::validated::{Lending, Underlay, ValidatedNode, ValidatedSlice};

/// `underlay` is `None` where it is wrong itself.
pub(super) fn check(
    place: &Place,
    uplink: &UplinkFields,
    underlay: Option<&Underlay>,
    found: &mut Findings,
) -> Option<Lending> {
    let fields = uplink.lending.as_ref()?;
    let place = place.field("lending");
    check_number(&place, fields, uplink, found);
    let mut known = BTreeSet::new();
    let mut partners = Vec::new();
    for (index, text) in fields.partners.iter().enumerate() {
        let at = place.item("partners", index);
        let Some(partner) = found.take(&at, partner(text)) else {
            continue;
        };
        let address = *partner.ip();
        if underlay.is_some_and(|own| own.address == address) {
            found.add(&at, QosProblem::PartnerOfItself(address).into());
        }
        if !known.insert(address) {
            found.add(&at, QosProblem::PartnerTwice(address).into());
        }
        partners.push(partner);
    }
    let token_file = found.take(&place.field("tokenFile"), token_file(&fields.token_file))?;
    Some(Lending {
        partners,
        token_file,
    })
}

/// Pods are no partners: whoever answers at a partner's address is believed, and gets to know the token.
pub(in crate::model) fn check_partners(
    node: &ValidatedNode,
    slices: &[ValidatedSlice],
    found: &mut Findings,
) {
    for uplink in &node.uplinks {
        let partners = uplink.lending.iter().flat_map(|it| &it.partners);
        for (index, partner) in partners.enumerate() {
            let address = *partner.ip();
            if let Some(whose) = pod_at(address, node, slices) {
                let place = uplink.place.field("lending").item("partners", index);
                found.add(&place, QosProblem::PartnerIsPod { address, whose }.into());
            }
        }
    }
}

/// Whose address it is, if it is one of pods, as far as this node knows.
fn pod_at(address: Ipv4Addr, node: &ValidatedNode, slices: &[ValidatedSlice]) -> Option<String> {
    let mut own = node.endpoints.iter();
    let pod = own.find(|it| it.address == address || it.slice_address == address);
    let mut slices = slices.iter();
    let of_pod = pod.map(|it| format!("pod {}/{} of this node", it.namespace, it.name));
    of_pod.or_else(|| {
        let slice = slices.find(|it| it.ranges().iter().any(|range| range.contains(&address)))?;
        Some(format!("in the `ranges` of slice {}", slice.name))
    })
}

/// Partners that most likely send by another link: what they lend must not be sent by this one.
pub(in crate::model) fn that_send_elsewhere(node: &ValidatedNode, found: &mut Vec<ConfigError>) {
    for uplink in &node.uplinks {
        let partners = uplink.lending.iter().flat_map(|it| &it.partners);
        for (index, partner) in partners.enumerate() {
            let mut peers = node.peers.iter();
            let address = *partner.ip();
            let elsewhere = peers.find(|it| it.underlay == address && it.cluster != node.cluster);
            if let Some(peer) = elsewhere {
                let problem = QosProblem::PartnerElsewhere {
                    address,
                    peer: format!("{}/{}", peer.cluster, peer.name),
                };
                let place = uplink.place.field("lending").item("partners", index);
                found.push(place.error(problem.into()));
            }
        }
    }
}

/// What nodes lend are parts of ceilings: without one, `lending` says more than happens.
pub(in crate::model) fn of_nothing(
    node: &ValidatedNode,
    slices: &[ValidatedSlice],
    found: &mut Vec<ConfigError>,
) {
    if slices.iter().any(|slice| slice.profile.is_some()) {
        return;
    }
    for uplink in node.uplinks.iter().filter(|it| it.lending.is_some()) {
        let problem = QosProblem::LendingOfNothing(uplink.name.clone());
        found.push(uplink.place.field("lending").error(problem.into()));
    }
}

/// Who sends by the link but this node may be a partner, and nobody else.
fn check_number(
    place: &Place,
    fields: &LendingFields,
    uplink: &UplinkFields,
    found: &mut Findings,
) {
    let nodes = uplink.nodes.unwrap_or(1);
    let partners = fields.partners.len();
    let is_right = partners > 0 && (partners as u64) < nodes;
    if !is_right {
        let problem = QosProblem::NumberOfPartners { partners, nodes };
        found.add(&place.field("partners"), problem.into());
    }
}

fn partner(text: &str) -> Result<SocketAddrV4, Problem> {
    let wrong = || QosProblem::NotAPartner(text.to_owned());
    let partner: SocketAddrV4 = text.parse().map_err(|_| wrong())?;
    scalar::host_address(&partner.ip().to_string())?;
    if partner.port() == 0 {
        return Err(wrong().into());
    }
    Ok(partner)
}

fn token_file(text: &str) -> Result<PathBuf, Problem> {
    let path = PathBuf::from(text);
    let is_of_file = path.file_name().is_some() && !text.ends_with('/');
    // It is told where the file cannot be read, on a line of its own.
    match path.is_absolute() && is_of_file && !text.contains(char::is_control) {
        true => Ok(path),
        false => Err(QosProblem::NotAFile(text.to_owned()).into()),
    }
}
