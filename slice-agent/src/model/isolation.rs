//! The checks of a slice's isolation.

use ipnet::Ipv4Net;

use super::error::{Place, Problem};
use super::scalar;
use super::slice::{traffic_list, unknown};
use super::unchecked::{IsolationFields, OutsideFields};
use super::validate::Findings;
use super::validated::{Isolation, IsolationLevel, OutsideRule, Protocol, Traffic};

const DNS_PORT: u16 = 53;

pub(super) fn check(
    place: &Place,
    fields: Option<&IsolationFields>,
    found: &mut Findings,
) -> Option<Isolation> {
    let Some(fields) = fields else {
        return Some(Isolation {
            level: IsolationLevel::Slice,
            from_outside: Vec::new(),
            to_outside: Vec::new(),
        });
    };
    let level = level(&place.field("level"), &fields.level, found);
    if level == Some(IsolationLevel::Open) && !fields.from_outside.is_empty() {
        let remedy = "write level Slice or Strict, or remove it: at level Open everybody may begin";
        found.add(&place.field("fromOutside"), Problem::NotEnforced(remedy));
    }
    let is_strict = level == Some(IsolationLevel::Strict);
    let confines = [
        ("toOutside", !fields.to_outside.is_empty()),
        ("dns", fields.dns.is_some()),
    ];
    for (field, _) in confines
        .into_iter()
        .filter(|(_, given)| *given && !is_strict)
    {
        let remedy = "write level Strict, or remove it: at other levels pods may begin anything";
        found.add(&place.field(field), Problem::NotEnforced(remedy));
    }
    let from_outside = rules(place, "fromOutside", &fields.from_outside, found);
    let mut to_outside = rules(place, "toOutside", &fields.to_outside, found);
    if is_strict {
        to_outside.extend(dns(place, fields.dns.as_deref(), found));
    }
    Some(Isolation {
        level: level?,
        from_outside,
        to_outside,
    })
}

fn level(place: &Place, value: &str, found: &mut Findings) -> Option<IsolationLevel> {
    match value {
        "Open" => Some(IsolationLevel::Open),
        "Slice" => Some(IsolationLevel::Slice),
        "Strict" => Some(IsolationLevel::Strict),
        other => {
            let problem = unknown("the level", other, "Slice, Strict or Open");
            found.add(place, problem);
            None
        }
    }
}

fn rules(
    place: &Place,
    field: &str,
    list: &[OutsideFields],
    found: &mut Findings,
) -> Vec<OutsideRule> {
    let mut rules = Vec::new();
    for (index, fields) in list.iter().enumerate() {
        let place = place.item(field, index);
        if fields.addresses.is_empty() {
            let remedy = "list prefixes, or write [0.0.0.0/0] for everybody";
            found.add(&place.field("addresses"), Problem::EmptyList(remedy));
        }
        if fields.ports.as_ref().is_some_and(Vec::is_empty) {
            let remedy = "remove `ports` to mean TCP, UDP and ICMP, or list some";
            found.add(&place.field("ports"), Problem::EmptyList(remedy));
        }
        let ports = fields.ports.as_deref();
        rules.push(OutsideRule {
            addresses: prefixes(&place, "addresses", &fields.addresses, found),
            traffic: ports.map(|list| traffic_list(&place, "ports", list, found)),
        });
    }
    rules
}

fn dns(place: &Place, servers: Option<&[String]>, found: &mut Findings) -> Option<OutsideRule> {
    let addresses = match servers {
        None => vec![Ipv4Net::default()],
        Some(list) => prefixes(place, "dns", list, found),
    };
    let ask = |protocol| Traffic {
        protocol,
        first_port: DNS_PORT,
        last_port: DNS_PORT,
    };
    (!addresses.is_empty()).then(|| OutsideRule {
        addresses,
        traffic: Some([Protocol::Udp, Protocol::Tcp].map(ask).to_vec()),
    })
}

fn prefixes(place: &Place, field: &str, list: &[String], found: &mut Findings) -> Vec<Ipv4Net> {
    let one = |(index, text): (usize, &String)| {
        found.take(&place.item(field, index), scalar::prefix(text))
    };
    list.iter().enumerate().filter_map(one).collect()
}
