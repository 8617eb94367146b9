//! What the agent wrote, as plain lists: installed into the maps for the programs, searched from end to
//! end by the model.

use anyhow::Result;
use slice_common::address::Address;
use slice_common::layout::{
    Class, ClassKey, Endpoint, LocalEndpoint, LocalKey, OutsideEntry, OutsideKey, OutsideWay, Path,
    PathGroup, Peer, PolicyEntry, PolicyKey, Probes, Route, RouteKey, RouteKind, Settings,
    ShaperKey, ShaperTerms, Slice,
};
use slice_common::shaper::Loan;

use super::places::{self, HALF_ATTACHED, OTHER_TABLE, UPSTAIRS};
use crate::testrun::actors::{
    EAST_1, EAST_1_POD_SIDE, KAFKA, NATIVE, NIC, PODS, PORT_OWNER, SHOP, TABLE, address,
};
use crate::testrun::{
    World, standard_classes, standard_outside, standard_policy, standard_routes, standard_settings,
};

/// One list for each map that the agent writes.
#[derive(Clone, Debug)]
pub struct Tables {
    pub settings: Settings,
    /// By device.
    pub endpoints: Vec<(&'static str, Endpoint)>,
    pub locals: Vec<(LocalKey, LocalEndpoint)>,
    /// With the bits of the prefix, those of the table included.
    pub routes: Vec<(u32, RouteKey, Route)>,
    pub policy: Vec<(u32, PolicyKey, PolicyEntry)>,
    pub classes: Vec<(u32, ClassKey, Class)>,
    pub outside: Vec<(u32, OutsideKey, OutsideEntry)>,
    pub slices: Vec<(u32, Slice)>,
    pub peers: Vec<([u8; 4], Peer)>,
    pub groups: Vec<(u32, PathGroup)>,
    pub paths: Vec<(u32, Path)>,
    pub probes: Vec<(u32, Probes)>,
    pub node_addresses: Vec<[u8; 4]>,
    /// By device and slice.
    pub shaper: Vec<((&'static str, u32), ShaperTerms)>,
}

impl Tables {
    /// A node without configuration.
    pub fn empty() -> Self {
        Self {
            settings: Settings {
                generation: 0,
                underlay_address: Address::UNSPECIFIED,
                tunnel_port: 0,
                flags: 0,
                tunnel_mark: 0,
                detour_secret: [0; 4],
                underlay_mac: [0; 6],
                reserved_mac: 0,
                tunnel_ifindex: 0,
                flow_secret: [0; 2],
            },
            endpoints: Vec::new(),
            locals: Vec::new(),
            routes: Vec::new(),
            policy: Vec::new(),
            classes: Vec::new(),
            outside: Vec::new(),
            slices: Vec::new(),
            peers: Vec::new(),
            groups: Vec::new(),
            paths: Vec::new(),
            probes: Vec::new(),
            node_addresses: Vec::new(),
            shaper: Vec::new(),
        }
    }

    /// The node of the scenes, and oddities: paths of all widths and none, a second table of
    /// addresses, rules of every scope, a pod that is not all there.
    /// # Errors  when the world lacks a device.
    pub fn of(world: &World) -> Result<Self> {
        let mut tables = Self {
            settings: Settings {
                flags: Settings::GATEWAY,
                tunnel_ifindex: world.ifindex(PORT_OWNER)?,
                ..standard_settings()
            },
            routes: standard_routes(),
            policy: standard_policy(),
            classes: standard_classes(),
            outside: standard_outside(),
            node_addresses: vec![EAST_1, EAST_1_POD_SIDE],
            shaper: vec![((NIC, KAFKA.id), places::without_limits())],
            ..Self::empty()
        };
        for slice in [KAFKA, SHOP, NATIVE] {
            tables.slices.push(in_table(slice.id, TABLE));
        }
        tables.slices.push(in_table(UPSTAIRS.id, OTHER_TABLE));
        for pod in PODS.iter().chain([&HALF_ATTACHED]) {
            tables.endpoints.push((pod.device, places::endpoint(pod)));
        }
        for (table, pod) in places::local_pods() {
            let key = LocalKey {
                table,
                address: address(pod.slice_address),
            };
            let ifindex = world.ifindex(pod.device)?;
            tables.locals.push((key, places::local(&pod, ifindex)));
        }
        tables.routes.extend(places::odd_routes());
        tables.policy.extend(places::odd_rules());
        tables.classes.extend(places::odd_classes());
        places::add_nodes(&mut tables, world)?;
        Ok(tables)
    }

    /// Writes everything into the maps.
    /// # Errors  when the kernel refuses an entry.
    pub fn install(&self, world: &mut World) -> Result<()> {
        world.reset()?;
        world.set_settings(self.settings)?;
        world.set_routes(&self.routes)?;
        world.set_policy(&self.policy)?;
        world.set_classes(&self.classes)?;
        world.set_outside(&self.outside)?;
        for (device, endpoint) in &self.endpoints {
            let ifindex = world.ifindex(device)?;
            world.insert("ENDPOINTS", ifindex, *endpoint)?;
        }
        for (key, local) in &self.locals {
            world.insert("LOCAL", *key, *local)?;
        }
        for (number, slice) in &self.slices {
            world.insert("SLICES", *number, *slice)?;
        }
        for (underlay, peer) in &self.peers {
            world.insert("PEERS", address(*underlay).network_word(), *peer)?;
        }
        for (number, group) in &self.groups {
            world.insert("PATH_GROUPS", *number, *group)?;
        }
        for (number, path) in &self.paths {
            world.insert("PATHS", *number, *path)?;
        }
        for (path, probes) in &self.probes {
            world.insert("PROBES", *path, *probes)?;
        }
        let mut shaper = Vec::new();
        for ((device, slice), terms) in &self.shaper {
            let (ifindex, slice) = (world.ifindex(device)?, *slice);
            shaper.push((ShaperKey { ifindex, slice }, *terms));
            // Clocks move four times as far for a byte, but what is counted is what the link carries.
            world.set_loan(terms.clocks, Loan::having(Loan::LEAST, u64::MAX))?;
        }
        world.set_shaper_terms(&shaper)?;
        for node in &self.node_addresses {
            world.insert("NODE_ADDRESSES", address(*node).network_word(), 1u32)?;
        }
        Ok(())
    }

    pub fn endpoint(&self, device: &str) -> Option<&Endpoint> {
        find(&self.endpoints, |key| *key == device)
    }

    pub fn local(&self, table: u32, of: [u8; 4]) -> Option<&LocalEndpoint> {
        find(&self.locals, |key| {
            (key.table, key.address.octets()) == (table, of)
        })
    }

    pub fn shaper_terms(&self, device: &'static str, slice: u32) -> Option<&ShaperTerms> {
        find(&self.shaper, |key| *key == (device, slice))
    }

    pub fn slice(&self, number: u32) -> Option<&Slice> {
        find(&self.slices, |key| *key == number)
    }

    pub fn peer(&self, underlay: [u8; 4]) -> Option<&Peer> {
        find(&self.peers, |key| *key == underlay)
    }

    /// The narrowest prefix of the table that holds the address.
    pub fn route(&self, table: u32, of: [u8; 4]) -> Option<&Route> {
        let holds = |(bits, key, _): &&(u32, RouteKey, Route)| {
            key.table == table && same_bits(key.address.octets(), of, bits - 32)
        };
        let narrowest = self.routes.iter().filter(holds).max_by_key(|entry| entry.0);
        narrowest.map(|(_, _, route)| route)
    }

    /// The first path of a route's group.
    pub fn path(&self, route: &Route) -> Option<&Path> {
        let group = find(&self.groups, |key| *key == route.path_group)?;
        let first = group.paths[..group.count as usize].first()?;
        find(&self.paths, |key| key == first)
    }

    /// What the narrowest rule says; without any, no.
    pub fn allows(
        &self,
        slice: u32,
        namespaces: [u32; 2],
        protocol: u8,
        destination_port: u16,
    ) -> bool {
        let speaks_of = |(bits, key, _): &&(u32, PolicyKey, PolicyEntry)| {
            let pair = [key.source_namespace, key.destination_namespace];
            key.slice == slice
                && (*bits < 96 || pair == namespaces)
                && (*bits < 104 || key.protocol == protocol)
                && in_port_range(key.port, destination_port, bits.saturating_sub(112))
        };
        let rules = self.policy.iter().filter(speaks_of);
        let narrowest = rules.max_by_key(|entry| entry.0);
        narrowest.is_some_and(|(_, _, entry)| entry.verdict == 1)
    }

    /// Whether somebody outside is named, for this port or for all.
    pub fn names(&self, slice: u32, way: OutsideWay, protocol: u8, port: u16, of: [u8; 4]) -> bool {
        self.outside.iter().any(|(bits, key, _)| {
            (key.slice, key.way, key.protocol) == (slice, way.number(), protocol)
                && [0, port].contains(&u16::from_be(key.port))
                && same_bits(key.address.octets(), of, bits - 64)
        })
    }

    /// The class that the narrowest entry for this port gives.
    pub fn class(&self, slice: u32, protocol: u8, port: u16) -> Option<Class> {
        let speaks_of = |(bits, key, _): &&(u32, ClassKey, Class)| {
            key.slice == slice
                && (*bits < 40 || key.protocol == protocol)
                && in_port_range(key.port, port, bits.saturating_sub(48))
        };
        let entries = self.classes.iter().filter(speaks_of);
        entries.max_by_key(|entry| entry.0).map(|entry| entry.2)
    }
}

/// The kinds of route of this node's own and of a peer's blocks.
pub const HERE: u16 = RouteKind::Local.number();
pub const VIA: u16 = RouteKind::Via.number();

fn in_table(slice: u32, table: u32) -> (u32, Slice) {
    (slice, Slice { table, reserved: 0 })
}

fn find<K, V>(entries: &[(K, V)], is_it: impl Fn(&K) -> bool) -> Option<&V> {
    let found = entries.iter().find(|(key, _)| is_it(key));
    found.map(|(_, value)| value)
}

/// Whether the first `bits` of two addresses are the same.
fn same_bits(one: [u8; 4], other: [u8; 4], bits: u32) -> bool {
    let different = u32::from_be_bytes(one) ^ u32::from_be_bytes(other);
    different.leading_zeros() >= bits
}

/// Whether the first `bits` of two ports are the same; the rule's is in network order.
fn in_port_range(of_rule: u16, port: u16, bits: u32) -> bool {
    let different = u16::from_be(of_rule) ^ port;
    different.leading_zeros() >= bits
}
