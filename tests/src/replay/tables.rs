//! What a node's agent wrote, read from the kernel.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use slice_agent::apply::maps::Maps;
use slice_common::address::Address;
use slice_common::layout::{
    Class, ClassKey, Endpoint, FirstFragment, FragmentKey, LocalEndpoint, LocalKey,
    NewExchangesKey, OutsideEntry, OutsideKey, Path, PathGroup, Peer, PolicyEntry, PolicyKey,
    Probes, ReplyKey, Route, RouteKey, Settings, Slice,
};

use crate::fuzz::Tables;
use crate::packet::Mac;

/// The node's tables; a pod's device goes by the name in `devices`, with the pod's link-layer address,
/// which the agent may not have learnt yet.
/// # Errors  when a map cannot be read, or speaks of an unknown device.
pub(super) fn of_node(
    node: &str,
    maps: &Maps,
    devices: &BTreeMap<u32, (&'static str, Mac)>,
) -> Result<Tables> {
    let endpoints = maps.entries::<u32, Endpoint>("ENDPOINTS")?;
    let named = |(ifindex, endpoint): (u32, Endpoint)| {
        let name = devices.get(&ifindex);
        let name = name.with_context(|| format!("{node}: whose is {ifindex}?"))?;
        Ok((name.0, endpoint))
    };
    let addressed = |(key, local): (LocalKey, LocalEndpoint)| {
        let mac = devices.get(&local.ifindex).map_or(local.pod_mac, |it| it.1);
        (
            key,
            LocalEndpoint {
                pod_mac: mac,
                ..local
            },
        )
    };
    let locals = maps.entries::<LocalKey, LocalEndpoint>("LOCAL")?;
    let octets = |word: u32| Address::from_network_word(word).octets();
    let node_addresses = maps.entries::<u32, u32>("NODE_ADDRESSES")?;
    Ok(Tables {
        settings: maps.array::<Settings>("SETTINGS")?.get(&0, 0)?,
        endpoints: endpoints.into_iter().map(named).collect::<Result<_>>()?,
        locals: locals.into_iter().map(addressed).collect(),
        routes: prefixes(maps.table::<RouteKey, Route>("ROUTES")?),
        policy: prefixes(maps.table::<PolicyKey, PolicyEntry>("POLICY")?),
        classes: prefixes(maps.table::<ClassKey, Class>("CLASSES")?),
        outside: prefixes(maps.table::<OutsideKey, OutsideEntry>("OUTSIDE")?),
        slices: list(maps.entries::<u32, Slice>("SLICES")?),
        peers: maps
            .entries::<u32, Peer>("PEERS")?
            .into_iter()
            .map(|(underlay, peer)| (octets(underlay), peer))
            .collect(),
        groups: list(maps.entries::<u32, PathGroup>("PATH_GROUPS")?),
        paths: list(maps.entries::<u32, Path>("PATHS")?),
        probes: list(maps.entries::<u32, Probes>("PROBES")?),
        node_addresses: node_addresses.into_keys().map(octets).collect(),
        shaper: Vec::new(),
    })
}

/// Forgets every question and every first part of a datagram.
/// # Errors  when a map cannot be read or written.
pub(super) fn forget(maps: &Maps) -> Result<()> {
    for key in maps.entries::<ReplyKey, u64>("REPLIES")?.keys() {
        maps.remove::<ReplyKey, u64>("REPLIES", *key)?;
    }
    for key in maps
        .entries::<NewExchangesKey, u64>("NEW_EXCHANGES")?
        .keys()
    {
        maps.remove::<NewExchangesKey, u64>("NEW_EXCHANGES", *key)?;
    }
    for key in maps
        .entries::<FragmentKey, FirstFragment>("FRAGMENTS")?
        .keys()
    {
        maps.remove::<FragmentKey, FirstFragment>("FRAGMENTS", *key)?;
    }
    Ok(())
}

fn list<K, V>(entries: BTreeMap<K, V>) -> Vec<(K, V)> {
    entries.into_iter().collect()
}

fn prefixes<K, V>(entries: BTreeMap<slice_agent::image::Prefixed<K>, V>) -> Vec<(u32, K, V)> {
    let entry = |(at, value): (slice_agent::image::Prefixed<K>, V)| (at.prefix_bits, at.key, value);
    entries.into_iter().map(entry).collect()
}
