//! Who outside a slice may exchange what with its pods becomes a table of prefixes.

use std::collections::BTreeMap;

use slice_common::address::{Address, Port};
use slice_common::layout::{Capacity, OutsideEntry, OutsideKey, OutsideWay};

use crate::image::Prefixed;
use crate::model::{OutsideRule, Protocol, Traffic, ValidatedSlice};

pub(super) type Outside = BTreeMap<Prefixed<OutsideKey>, OutsideEntry>;

/// Adds the entries of one slice, and stops where the table is more than full: that is refused.
pub(super) fn add_slice(slice: &ValidatedSlice, outside: &mut Outside) {
    let ways = [
        (OutsideWay::In, &slice.isolation.from_outside),
        (OutsideWay::Out, &slice.isolation.to_outside),
    ];
    for (way, rules) in ways {
        for key in rules.iter().flat_map(|rule| keys(slice, way, rule)) {
            if outside.len() > Capacity::OUTSIDE {
                return;
            }
            outside.insert(key, OutsideEntry::NAMED);
        }
    }
}

fn keys(
    slice: &ValidatedSlice,
    way: OutsideWay,
    rule: &OutsideRule,
) -> impl Iterator<Item = Prefixed<OutsideKey>> {
    let slice = slice.id.number();
    let called: Vec<(u8, u16)> = match &rule.traffic {
        None => Protocol::ALL.map(|any| (any.number(), 0)).to_vec(),
        Some(list) => list.iter().flat_map(|traffic| ports(*traffic)).collect(),
    };
    rule.addresses.iter().flat_map(move |prefix| {
        let (address, length) = (Address::from(prefix.network()), prefix.prefix_len());
        let key = move |(protocol, port): (u8, u16)| Prefixed {
            key: OutsideKey {
                slice,
                way: way.number(),
                protocol,
                port: Port::new(port).network_word(),
                address,
            },
            prefix_bits: OutsideKey::BITS_BEFORE_ADDRESS + u32::from(length),
        };
        called.clone().into_iter().map(key)
    })
}

/// One by one, but all of them are "any".
fn ports(traffic: Traffic) -> Vec<(u8, u16)> {
    let protocol = traffic.protocol.number();
    match (traffic.first_port, traffic.last_port) {
        (0, u16::MAX) => vec![(protocol, 0)],
        (first, last) => (first..=last).map(|port| (protocol, port)).collect(),
    }
}
