//! Which peers may deliver packets of which blocks.
//!
//! Blocks behind gateways may come by any of these, so the gateways of one cluster share a group and
//! have one bit each. Every other peer has a group of its own.

use std::collections::{BTreeMap, BTreeSet};

use slice_common::id::PeerGroupId;

use crate::model::{ConfigError, Problem, ValidatedNode};

const MEMBERS_MAX: usize = u64::BITS as usize;

/// Peers of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) group: u32,
    pub(super) bits: u64,
}

impl Member {
    pub(super) const NOBODY: Self = Self { group: 0, bits: 0 };

    /// Both, where both are of one group.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            group: other.group,
            bits: self.bits | other.bits,
        }
    }
}

/// The group and bit of every peer that is a gateway to somewhere.
pub(super) struct Delivery<'a> {
    gateways: BTreeMap<(&'a str, &'a str), Member>,
}

impl<'a> Delivery<'a> {
    pub(super) fn new(node: &'a ValidatedNode, errors: &mut Vec<ConfigError>) -> Self {
        let mut by_cluster: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for remote in &node.remotes {
            let names = by_cluster.entry(&remote.gateway_cluster).or_default();
            names.extend(remote.gateways.iter().map(String::as_str));
        }
        let mut gateways = BTreeMap::new();
        for (cluster, names) in by_cluster {
            if names.len() > MEMBERS_MAX {
                errors.push(node.place.error(Problem::TooMany {
                    what: "gateways of one cluster",
                    count: names.len(),
                    limit: MEMBERS_MAX,
                }));
                continue;
            }
            let group = PeerGroupId::from_name(&[cluster]).number();
            for (name, bits) in bits(cluster, &names) {
                gateways.insert((cluster, name), Member { group, bits });
            }
        }
        Self { gateways }
    }

    pub(super) fn of(&self, cluster: &str, name: &str) -> Member {
        let alone = || Member {
            group: PeerGroupId::from_name(&[cluster, name]).number(),
            bits: 1,
        };
        let gateway = self.gateways.get(&(cluster, name));
        gateway.copied().unwrap_or_else(alone)
    }
}

/// A bit for each name, by its hash: so that a gateway that comes or goes leaves the others theirs. Where
/// two meet the later name takes the next free bit.
fn bits<'a>(cluster: &str, names: &BTreeSet<&'a str>) -> Vec<(&'a str, u64)> {
    let mut taken = 0_u64;
    let bit_of = |name: &&'a str| {
        let first = PeerGroupId::from_name(&[cluster, name]).number() % u64::BITS;
        let free = (0..u64::BITS)
            .map(|step| 1 << ((first + step) % u64::BITS))
            .find(|bit| taken & bit == 0);
        // There are no more names than bits.
        let bit = free.unwrap_or(0);
        taken |= bit;
        (*name, bit)
    };
    names.iter().map(bit_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_gateway_has_a_bit_of_its_own() {
        let names: Vec<String> = (0..MEMBERS_MAX).map(|n| format!("gw-{n}")).collect();
        let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        let all = bits("west", &names);
        assert_eq!(all.len(), MEMBERS_MAX);
        assert_eq!(all.iter().fold(0, |sum, (_, bit)| sum | bit), u64::MAX);
        assert!(all.iter().all(|(_, bit)| bit.count_ones() == 1));
    }

    #[test]
    fn a_gateway_that_comes_leaves_the_others_their_bits() {
        let few = bits("west", &BTreeSet::from(["gw-1", "gw-2"]));
        let more = bits("west", &BTreeSet::from(["gw-1", "gw-2", "gw-3"]));
        assert!(few.iter().all(|one| more.contains(one)));
    }
}
