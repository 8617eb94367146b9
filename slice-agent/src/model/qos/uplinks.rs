//! The links of a node that are paid for.

use super::lending;
use super::rate::BitRate;
use crate::model::error::{Place, Problem};
use crate::model::qos::QosProblem;
use crate::model::scalar;
use crate::model::unchecked::UplinkFields;
use crate::model::validate::{Findings, Unique};
use crate::model::validated::{Shaper, Underlay, ValidatedUplink};

/// Each gets an equal part; as many as the kernel's tables have peers for.
const NODES_MAX: u64 = slice_common::layout::Capacity::PEERS as u64;

/// `underlay` is `None` where it is wrong itself.
pub(in crate::model) fn check(
    place: &Place,
    fields: &[UplinkFields],
    underlay: Option<&Underlay>,
    found: &mut Findings,
) -> Vec<ValidatedUplink> {
    let mut names = Unique::new("uplink name");
    let mut interfaces = Unique::new("uplink's interface");
    let mut uplinks = Vec::new();
    for (index, fields) in fields.iter().enumerate() {
        let place = place.item("uplinks", index);
        names.check(&place.field("name"), &fields.name, found);
        interfaces.check(&place.field("interface"), &fields.interface, found);
        uplinks.extend(check_uplink(&place, fields, underlay, found));
    }
    uplinks
}

fn check_uplink(
    place: &Place,
    fields: &UplinkFields,
    underlay: Option<&Underlay>,
    found: &mut Findings,
) -> Option<ValidatedUplink> {
    let name = found.take(&place.field("name"), scalar::label(&fields.name));
    let at = place.field("interface");
    let interface = found.take(&at, scalar::interface(&fields.interface));
    if let (Some(interface), Some(underlay)) = (&interface, underlay)
        && *interface != underlay.interface
    {
        let problem = QosProblem::UplinkElsewhere {
            interface: interface.clone(),
            underlay: underlay.interface.clone(),
        };
        found.add(&at, problem.into());
    }
    let rate = BitRate::read(&fields.rate).map_err(Problem::from);
    let rate = found.take(&place.field("rate"), rate);
    let nodes = scalar::number("a number of nodes", fields.nodes.unwrap_or(1), 1, NODES_MAX);
    let nodes = found.take(&place.field("nodes"), nodes);
    let shaper = found.take(&place.field("shaper"), shaper(fields));
    let lending = lending::check(place, fields, underlay, found);
    Some(ValidatedUplink {
        place: place.clone(),
        name: name?,
        interface: interface?,
        rate: rate?,
        nodes: u32::try_from(nodes?).ok()?,
        shaper: shaper?,
        lending,
    })
}

fn shaper(fields: &UplinkFields) -> Result<Shaper, Problem> {
    match fields.shaper.as_deref() {
        None | Some("Auto") => Ok(Shaper::Auto),
        Some("Edt") => Ok(Shaper::Edt),
        Some("Htb") => Ok(Shaper::Htb),
        Some("Vq") => Ok(Shaper::Vq),
        Some(other) => Err(Problem::UnknownValue {
            what: "shaper",
            value: other.to_owned(),
            choices: "Auto, Edt, Htb or Vq",
        }),
    }
}
