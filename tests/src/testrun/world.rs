//! The loaded object with the maps of one node, `east-1`, as an agent would fill them.

use anyhow::{Context, Result, bail};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, ArrayOfMaps, HashMap, Map, MapData, ProgramArray};
use aya::programs::{Program as Loaded, SchedClassifier};
use aya::{Ebpf, EbpfLoader, Pod as Plain};
use slice_common::layout::{
    CalledProgram, Capacity, Class, ClassKey, Encapsulation, Endpoint, LocalEndpoint, LocalKey,
    MAPS, MapSpec, OutsideEntry, OutsideKey, OutsideWay, Path, PathGroup, Peer, PolicyEntry,
    PolicyKey, PolicyVerdict, Probes, Route, RouteKey, RouteKind, Settings, Slice, Writer,
};

use super::actors::*;
use super::devices::Devices;
use super::exchange::{MARK, Program, Sent};
use super::state::{self, State, map_mut};
use slice_agent::apply::table::create_trie;

/// The object, its maps and its devices. Belongs to the thread whose network namespace it was made in.
pub struct World {
    object: Ebpf,
    devices: Devices,
    programs: Vec<LoadedProgram>,
    /// Forgets its programs when nobody has it open.
    _called: ProgramArray<MapData>,
}

/// A program that the kernel accepted.
#[derive(Clone, Debug)]
pub struct LoadedProgram {
    pub name: String,
    /// How many instructions the verifier walked through.
    pub verified_instructions: Option<u32>,
}

impl World {
    /// Loads every program of the object and creates the devices, in the calling thread's network.
    /// # Errors  the first program that the kernel refuses, with the verifier's words.
    pub fn new(object: &[u8]) -> Result<Self> {
        state::check_that_every_map_is_read()?;
        let mut object = EbpfLoader::new()
            // As the agent loads it: the verifier then removes the log calls, and counts without them.
            .override_global("AYA_LOG_LEVEL", &0u8, false)
            .load(object)
            .context("cannot load the object")?;
        let mut names: Vec<_> = object.programs().map(|(name, _)| name.to_owned()).collect();
        names.sort();
        let mut programs = Vec::new();
        for name in names {
            let program = object
                .program_mut(&name)
                .with_context(|| format!("program {name} vanished"))?;
            let loaded = match program {
                Loaded::SchedClassifier(program) => program.load(),
                Loaded::Xdp(program) => program.load(),
                other => bail!("{name} is a program of kind {:?}", other.prog_type()),
            };
            loaded.with_context(|| format!("the kernel refused program {name}"))?;
            let verified_instructions = program.info()?.verified_instruction_count();
            programs.push(LoadedProgram {
                name,
                verified_instructions,
            });
        }
        let mut called: ProgramArray<_> = object
            .take_map("PROGRAMS")
            .context("the object has no map PROGRAMS")?
            .try_into()?;
        for program in CalledProgram::ALL {
            let loaded: &SchedClassifier = object
                .program(program.name())
                .with_context(|| format!("the object has no program {}", program.name()))?
                .try_into()?;
            called.set(program.number(), loaded.fd()?, 0)?;
        }
        let mut world = Self {
            object,
            _called: called,
            devices: Devices::create()?,
            programs,
        };
        world.reset()?;
        Ok(world)
    }

    pub fn programs(&self) -> &[LoadedProgram] {
        &self.programs
    }

    /// Puts every map back to how scenes find it.
    pub fn reset(&mut self) -> Result<()> {
        State::clear(&mut self.object)?;
        self.forget_probes()?;
        self.fill_paths()?;
        self.fill_slices()?;
        self.fill_pods()?;
        self.set_routes(&standard_routes())?;
        self.set_policy(&standard_policy())?;
        self.set_outside(&standard_outside())?;
        self.set_classes(&standard_classes())?;
        self.set_shaper_terms(&[])
    }

    /// Begins to send a frame into a program, as if it came by `device`.
    pub fn send(
        &mut self,
        scene: impl Into<String>,
        program: Program,
        device: &'static str,
        frame: impl Into<Vec<u8>>,
    ) -> Sent<'_> {
        let (scene, frame) = (scene.into(), frame.into());
        Sent {
            world: self,
            scene,
            program,
            device,
            gso_bytes: 0,
            mark: MARK,
            came_in_by: None,
            departure_ns: 0,
            first_buffer_bytes: None,
            frame,
        }
    }

    pub fn ifindex(&self, device: &str) -> Result<u32> {
        self.devices.index(device)
    }

    /// Replaces the routing table.
    pub fn set_routes(&mut self, routes: &[(u32, RouteKey, Route)]) -> Result<()> {
        self.set_routes_without_activating(routes)?;
        self.activate()
    }

    /// Replaces the routing table as an agent does in the middle of a change.
    pub(super) fn set_routes_without_activating(
        &mut self,
        routes: &[(u32, RouteKey, Route)],
    ) -> Result<()> {
        swap(&mut self.object, "ROUTES", Capacity::ROUTES, routes)
    }

    /// Replaces the policy.
    pub fn set_policy(&mut self, policy: &[(u32, PolicyKey, PolicyEntry)]) -> Result<()> {
        self.set_policy_without_activating(policy)?;
        self.activate()
    }

    /// Replaces the table of classes.
    pub fn set_classes(&mut self, classes: &[(u32, ClassKey, Class)]) -> Result<()> {
        swap(&mut self.object, "CLASSES", Capacity::CLASSES, classes)?;
        self.activate()
    }

    /// Replaces the policy as an agent does in the middle of a change.
    pub(super) fn set_policy_without_activating(
        &mut self,
        policy: &[(u32, PolicyKey, PolicyEntry)],
    ) -> Result<()> {
        swap(&mut self.object, "POLICY", Capacity::POLICY, policy)
    }

    /// Puts what was written in force, as an agent does: what programs remember of before is forgotten.
    pub(super) fn activate(&mut self) -> Result<()> {
        let map: Array<_, Settings> = map_mut(&mut self.object, "SETTINGS")?.try_into()?;
        let mut settings = map.get(&0, 0).context("SETTINGS")?;
        settings.generation += 1;
        self.set_settings(settings)
    }

    /// Replaces the table of those outside that slices name.
    pub fn set_outside(&mut self, outside: &[(u32, OutsideKey, OutsideEntry)]) -> Result<()> {
        swap(&mut self.object, "OUTSIDE", Capacity::OUTSIDE, outside)
    }

    /// Replaces the node's settings.
    pub fn set_settings(&mut self, settings: Settings) -> Result<()> {
        let mut map: Array<_, Settings> = map_mut(&mut self.object, "SETTINGS")?.try_into()?;
        map.set(0, settings, 0).context("SETTINGS")
    }

    /// Says until when sizes of paths that were learnt may hold, in kernel nanoseconds.
    pub fn set_mtus_hold_until(&mut self, until_ns: u64) -> Result<()> {
        let mut map: Array<_, u64> = map_mut(&mut self.object, "PATH_MTU_UNTIL")?.try_into()?;
        map.set(0, until_ns, 0).context("PATH_MTU_UNTIL")
    }

    /// Writes one entry of a hash map that the agent owns.
    pub fn insert<K: Plain, V: Plain>(&mut self, map: &str, key: K, value: V) -> Result<()> {
        let mut entries: HashMap<_, K, V> = map_mut(&mut self.object, map)?.try_into()?;
        entries
            .insert(key, value, 0)
            .with_context(|| format!("cannot write {map}"))?;
        self.activate_if_of_agent(map)
    }

    /// The pod behind an interface.
    pub fn endpoint(&mut self, ifindex: u32) -> Result<Endpoint> {
        let entries: HashMap<_, u32, Endpoint> =
            map_mut(&mut self.object, "ENDPOINTS")?.try_into()?;
        entries.get(&ifindex, 0).context("ENDPOINTS")
    }

    /// Removes one entry of a hash map that the agent owns.
    pub fn remove<K: Plain, V: Plain>(&mut self, map: &str, key: K) -> Result<()> {
        let mut entries: HashMap<_, K, V> = map_mut(&mut self.object, map)?.try_into()?;
        entries
            .remove(&key)
            .with_context(|| format!("cannot remove from {map}"))?;
        self.activate_if_of_agent(map)
    }

    fn activate_if_of_agent(&mut self, map: &str) -> Result<()> {
        let is_of_agent = |spec: &MapSpec| spec.name == map && spec.writer == Writer::Agent;
        if MAPS.iter().any(is_of_agent) {
            self.activate()?;
        }
        Ok(())
    }

    pub(crate) fn object(&self) -> &Ebpf {
        &self.object
    }

    pub(super) fn object_mut(&mut self) -> &mut Ebpf {
        &mut self.object
    }

    fn forget_probes(&mut self) -> Result<()> {
        let mut probes: HashMap<_, u32, Probes> =
            map_mut(&mut self.object, "PROBES")?.try_into()?;
        let paths: Vec<u32> = probes.keys().collect::<Result<_, _>>()?;
        for path in paths {
            probes.remove(&path)?;
        }
        Ok(())
    }

    fn fill_paths(&mut self) -> Result<()> {
        self.set_settings(Settings {
            tunnel_ifindex: self.ifindex(PORT_OWNER)?,
            ..standard_settings()
        })?;
        let ifindex = self.ifindex(NIC)?;
        for node in NODES {
            self.insert("PATHS", node.path(), standard_path(&node, ifindex))?;
            let group = PathGroup {
                count: 1,
                fellows: 0,
                paths: [node.path(), 0, 0, 0, 0, 0, 0],
            };
            self.insert("PATH_GROUPS", node.path_group(), group)?;
            let peer = Peer {
                group: node.peer_group(),
                cluster: cluster(node.cluster),
                member: 1,
                path: node.path(),
                flags: 0,
            };
            self.insert("PEERS", address(node.address).network_word(), peer)?;
        }
        Ok(())
    }

    fn fill_slices(&mut self) -> Result<()> {
        for slice in [KAFKA, SHOP, NATIVE] {
            self.insert(
                "SLICES",
                slice.id,
                Slice {
                    table: TABLE,
                    reserved: 0,
                },
            )?;
        }
        for node_address in [EAST_1, EAST_1_POD_SIDE] {
            self.insert("NODE_ADDRESSES", address(node_address).network_word(), 1u32)?;
        }
        Ok(())
    }

    fn fill_pods(&mut self) -> Result<()> {
        for pod in PODS {
            let ifindex = self.ifindex(pod.device)?;
            let namespace = pod.slice.namespace(pod.namespace);
            let endpoint = Endpoint {
                table: TABLE,
                slice: pod.slice.id,
                namespace,
                cluster: cluster(EAST),
                pod_address: address(pod.pod_address),
                slice_address: address(pod.slice_address),
                flags: if pod.is_isolated {
                    Endpoint::ISOLATED
                } else {
                    0
                },
                class: Class::DEFAULT,
            };
            self.insert("ENDPOINTS", ifindex, endpoint)?;
            let local = LocalEndpoint {
                ifindex,
                slice: pod.slice.id,
                namespace,
                pod_address: address(pod.pod_address),
                pod_mac: pod.mac,
                flags: 0,
            };
            let key = LocalKey {
                table: TABLE,
                address: address(pod.slice_address),
            };
            self.insert("LOCAL", key, local)?;
        }
        Ok(())
    }
}

/// The settings of the node under test, but for the number of its port owner.
pub fn standard_settings() -> Settings {
    Settings {
        generation: 1,
        underlay_address: address(EAST_1),
        tunnel_port: 6085u16.to_be(),
        flags: 0,
        tunnel_mark: TUNNEL_MARK,
        detour_secret: detour_secret(),
        underlay_mac: NIC_MAC,
        reserved_mac: 0,
        tunnel_ifindex: Settings::PORT_OWNERS,
        flow_secret: FLOW_SECRET,
    }
}

/// Its path to another node.
pub fn standard_path(to: &Node, ifindex: u32) -> Path {
    Path {
        local: address(EAST_1),
        remote: address(to.address),
        ifindex,
        mtu: to.path_mtu,
        encapsulation: Encapsulation::Vxlan.number(),
        port: 6085u16.to_be(),
        flags: 0,
        cluster: cluster(to.cluster),
        reserved_32: 0,
    }
}

/// The routes of `east-1`: its own blocks, those of the peers, and the rest of the ranges.
pub fn standard_routes() -> Vec<(u32, RouteKey, Route)> {
    let mut routes = Vec::new();
    for slice in [KAFKA, SHOP] {
        let nowhere = route(slice, 0, 0, RouteKind::Unreachable, None);
        routes.push((32 + 16, route_key(slice.range), nowhere));
    }
    for pod in PODS {
        let is_native = pod.pod_address == pod.slice_address;
        let prefix = if is_native { 32 } else { 29 };
        let mut block = pod.slice_address;
        block[3] &= if is_native { 0xff } else { 0xf8 };
        let namespace = pod.slice.namespace(pod.namespace);
        let here = route(pod.slice, cluster(EAST), namespace, RouteKind::Local, None);
        routes.push((32 + prefix, route_key(block), here));
    }
    for block in REMOTE_BLOCKS {
        let RemoteBlock {
            node,
            slice,
            namespace,
            ..
        } = block;
        let (cluster, namespace) = (cluster(node.cluster), slice.namespace(namespace));
        let there = route(slice, cluster, namespace, RouteKind::Via, Some(node));
        routes.push((32 + block.prefix, route_key(block.address), there));
    }
    routes
}

/// Brokers talk among themselves on 9090 to 9092 and UDP 5201, clients to brokers on 9092, and all of
/// them by echo; `analytics` may not talk to itself. Web pods and native pods talk as they like.
pub fn standard_policy() -> Vec<(u32, PolicyKey, PolicyEntry)> {
    const TCP: u8 = 6;
    const UDP: u8 = 17;
    const ICMP: u8 = 1;
    let pairs = [("kafka", "kafka"), ("analytics", "kafka")];
    let mut policy: Vec<_> = pairs
        .into_iter()
        .flat_map(|(from, to)| {
            [
                rule(KAFKA, from, to, TCP, Some(9092)),
                rule(KAFKA, from, to, ICMP, None),
            ]
        })
        .collect();
    policy.extend([
        rule(KAFKA, "kafka", "kafka", TCP, Some(9090)),
        rule(KAFKA, "kafka", "kafka", TCP, Some(9091)),
        rule(KAFKA, "kafka", "kafka", UDP, Some(5201)),
        rule(KAFKA, "analytics", "kafka", UDP, Some(5201)),
        rule(SHOP, "web", "web", TCP, None),
        rule(NATIVE, "native", "native", TCP, None),
        rule(NATIVE, "native", "native", UDP, None),
    ]);
    policy
}

/// Ports 9091 and 9092 of slice `kafka` have classes.
pub fn standard_classes() -> Vec<(u32, ClassKey, Class)> {
    [(9091u16, REPLICATION), (9092, CLIENT)]
        .into_iter()
        .map(|(port, (class, dscp))| {
            let key = ClassKey {
                slice: KAFKA.id,
                protocol: 6,
                reserved: 0,
                port: port.to_be(),
            };
            (
                ClassKey::BITS,
                key,
                Class {
                    class,
                    dscp,
                    reserved: 0,
                },
            )
        })
        .collect()
}

/// Slice `kafka` is called by a web hook of a stranger, and asks one name server and one clock.
pub fn standard_outside() -> Vec<(u32, OutsideKey, OutsideEntry)> {
    [
        (OutsideWay::In, 6, WEBHOOK_PORT, STRANGER, 32),
        (OutsideWay::In, 17, 4000, STRANGER, 32),
        (OutsideWay::In, 1, 0, [10, 1, 2, 0], 24),
        (OutsideWay::Out, 17, 53, NAME_SERVER, 32),
        (OutsideWay::Out, 6, 53, NAME_SERVER, 32),
        (OutsideWay::Out, 17, 0, [192, 0, 2, 0], 25),
        (OutsideWay::Out, 1, 0, [192, 0, 2, 0], 25),
    ]
    .into_iter()
    .map(|(way, protocol, port, octets, bits): (_, _, u16, _, _)| {
        let key = OutsideKey {
            slice: KAFKA.id,
            way: way.number(),
            protocol,
            port: port.to_be(),
            address: address(octets),
        };
        (
            OutsideKey::BITS_BEFORE_ADDRESS + bits,
            key,
            OutsideEntry::NAMED,
        )
    })
    .collect()
}

fn route(
    slice: SliceActor,
    cluster: u32,
    namespace: u32,
    kind: RouteKind,
    node: Option<Node>,
) -> Route {
    Route {
        slice: slice.id,
        cluster,
        namespace,
        kind: kind.number(),
        class: 0,
        dscp: 0,
        path_group: node.map_or(0, |node| node.path_group()),
        deliver_group: node.map_or(0, |node| node.peer_group()),
        deliver_members: u64::from(node.is_some()),
    }
}

fn route_key(octets: [u8; 4]) -> RouteKey {
    RouteKey {
        table: TABLE,
        address: address(octets),
    }
}

fn rule(
    slice: SliceActor,
    from: &str,
    to: &str,
    protocol: u8,
    port: Option<u16>,
) -> (u32, PolicyKey, PolicyEntry) {
    let bits = if port.is_some() {
        PolicyKey::BITS
    } else {
        PolicyKey::BITS_PROTOCOL
    };
    let key = PolicyKey {
        slice: slice.id,
        source_namespace: slice.namespace(from),
        destination_namespace: slice.namespace(to),
        protocol,
        reserved: 0,
        port: port.unwrap_or(0).to_be(),
    };
    (
        bits,
        key,
        PolicyEntry {
            verdict: PolicyVerdict::Allow.number(),
            rule: 1,
        },
    )
}

/// Fills a new trie and puts it in place of the old one.
pub(super) fn swap<K: Plain, V: Plain>(
    object: &mut Ebpf,
    name: &str,
    capacity: usize,
    entries: &[(u32, K, V)],
) -> Result<()> {
    let mut trie: LpmTrie<MapData, K, V> = create_trie(capacity as u32)?;
    for (bits, key, value) in entries {
        trie.insert(&Key::new(*bits, *key), *value, 0)
            .with_context(|| format!("cannot fill {name}"))?;
    }
    let map: &mut Map = map_mut(object, name)?;
    let mut outer: ArrayOfMaps<&mut MapData, LpmTrie<MapData, K, V>> = map.try_into()?;
    outer
        .set(0, &trie, 0)
        .with_context(|| format!("cannot replace {name}"))
}
