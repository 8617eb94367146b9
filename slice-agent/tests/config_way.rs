//! The way from one state to another, as packets see it.

mod config_support;

use std::net::Ipv4Addr;

use config_support::apply::{apply, image_of};
use config_support::longest_match;
use proptest::prelude::*;
use slice_agent::image::{NodeImage, Prefixed, Program};
use slice_agent::plan::{Change, plan, render};
use slice_common::address::{Address, Port};
use slice_common::layout::{
    LocalEndpoint, LocalKey, PolicyKey, PolicyVerdict, Route, RouteKey, RouteKind,
};

/// A random configuration of east-1: which of eight blocks belongs to whom, who may talk.
#[derive(Clone, Debug)]
struct World {
    /// Per block: the owner (0 this node, 1 and 2 peers, 3 nobody) and its namespace.
    blocks: Vec<(usize, usize)>,
    /// Whether the first pod, on interface 3, and the second, on interface 4, are there.
    pods: [bool; 2],
    /// From, to, port.
    rules: Vec<(usize, usize, u16)>,
    open: bool,
}

const NAMESPACES: [&str; 3] = ["kafka", "audit", "analytics"];
const FIRST_PORT: u16 = 9090;

impl World {
    fn text(&self) -> String {
        let block = |owner: usize, separator: &str| -> String {
            let mine = self
                .blocks
                .iter()
                .enumerate()
                .filter(|(_, (of, _))| *of == owner);
            mine.map(|(at, (_, namespace))| {
                let name = NAMESPACES[*namespace];
                format!("{separator}{{slice: kafka, namespace: {name}, prefix: 10.77.{at}.0/29}}")
            })
            .collect()
        };
        // A pod takes part where its block is this node's.
        let pods = self.pods.iter().enumerate().map(|(at, there)| {
            let (owner, namespace) = self.blocks[at];
            let (interface, address) = [("p-kafka-0", 10), ("p-web-0", 20)][at];
            if !there || owner != 0 {
                return String::new();
            }
            format!(
                "\n- {{slice: kafka, namespace: {}, name: pod-{at}, interface: {interface}, \
                 address: 10.1.1.{address}, sliceAddress: 10.77.{at}.2}}",
                NAMESPACES[namespace]
            )
        });
        let pods: String = pods.collect();
        let rules = self.rules.iter().enumerate().map(|(at, (from, to, port))| {
            format!(
                "\n    - {{name: r{at}, action: Allow, from: [{}], to: [{}], \
                 ports: [{{protocol: TCP, port: {port}}}]}}",
                NAMESPACES[*from], NAMESPACES[*to]
            )
        });
        let rules: String = rules.collect();
        let default = if self.open { "Allow" } else { "Deny" };
        let listed = |list: String, key: &str| match list.as_str() {
            "" => String::new(),
            list => format!("{key}{list}\n"),
        };
        let peers: String = (1..=2)
            .map(|peer| {
                let blocks = block(peer, ", ");
                let blocks = blocks.trim_start_matches(", ");
                format!(
                    "\n- {{cluster: west, name: west-{peer}, underlay: 172.20.2.1{peer}, \
                     blocks: [{blocks}]}}"
                )
            })
            .collect();
        format!(
            "kind: Node\ncluster: east\nname: east-1\n\
             underlay: {{address: 172.20.1.11, interface: nic0}}\n\
             {}{}peers:{peers}\n---\nkind: Slice\nmetadata: {{name: kafka}}\nid: 7\nspec:\n  \
             addressing: {{mode: Mapped, ranges: [10.77.0.0/16]}}\n  policy:\n    \
             defaultAction: {default}\n{}  encryption: {{mode: None}}\n  acceptPlaintext: true\n",
            listed(pods, "endpoints:"),
            listed(block(0, "\n- "), "blocks:"),
            listed(rules, "    rules:"),
        )
    }
}

fn world() -> impl Strategy<Value = World> {
    let rule = (0usize..3, 0usize..3, FIRST_PORT..FIRST_PORT + 3);
    (
        prop::collection::vec(
            (prop_oneof![3 => Just(0usize), 4 => 1usize..4], 0usize..3),
            5,
        ),
        any::<[bool; 2]>(),
        prop::collection::vec(rule, 0..6),
        prop::bool::weighted(0.4),
    )
        .prop_map(|(blocks, pods, rules, open)| World {
            blocks,
            pods,
            rules,
            open,
        })
}

/// A TCP SYN between two blocks of the slice.
#[derive(Clone, Copy, Debug)]
struct Packet {
    from: u8,
    to: u8,
    port: u16,
}

fn host_in(block: u8) -> Address {
    Ipv4Addr::new(10, 77, block, 2).into()
}

fn route(image: &NodeImage, block: u8) -> Option<Route> {
    longest_match(
        &image.routes,
        RouteKey {
            table: 1,
            address: host_in(block),
        },
    )
}

fn may(image: &NodeImage, source_namespace: u32, destination_namespace: u32, port: u16) -> bool {
    let key = PolicyKey {
        slice: 7,
        source_namespace,
        destination_namespace,
        protocol: 6,
        reserved: 0,
        port: Port::new(port).network_word(),
    };
    let entry = longest_match(&image.policy, key);
    entry.is_some_and(|entry| entry.verdict == PolicyVerdict::Allow.number())
}

/// A packet's way through one state of the node.
#[derive(Clone, Copy, Debug, Default)]
struct Way {
    /// The sender may send from where it does.
    source: bool,
    /// There is somebody who gets it.
    destination: bool,
    /// The namespaces as the program sees them.
    namespaces: (u32, u32),
    passes: bool,
}

/// A pod of this node sends: the steps of `pod_egress`.
fn leaving(image: &NodeImage, packet: Packet) -> Way {
    let ifindex = u32::from(packet.from) + 3;
    let attached = image
        .attachments
        .iter()
        .any(|at| at.program == Program::PodEgress && at.ifindex == ifindex);
    let pod = image.endpoints.get(&ifindex).filter(|_| attached);
    let route = route(image, packet.to).filter(|route| match RouteKind::from_number(route.kind) {
        RouteKind::Local => local(image, packet.to).is_some(),
        RouteKind::Via => {
            let group = image.path_groups.get(&route.path_group);
            group.is_some_and(|group| image.paths.contains_key(&group.paths[0]))
        }
        RouteKind::Unreachable => false,
    });
    let (source, destination) = (
        pod.map(|pod| pod.namespace),
        route.map(|route| route.namespace),
    );
    judged(image, source, destination, packet.port)
}

/// A packet comes from a peer: the steps of `underlay_ingress`.
fn entering(image: &NodeImage, peer: u8, packet: Packet) -> Way {
    let attached = image
        .attachments
        .iter()
        .any(|at| at.program == Program::UnderlayIngress);
    let ready = attached && image.settings.is_some() && image.slices.contains_key(&7);
    let underlay = Address::from(Ipv4Addr::new(172, 20, 2, peer));
    let peer = image.peers.get(&underlay).filter(|_| ready);
    let source = peer.zip(route(image, packet.from)).filter(|(peer, route)| {
        route.deliver_group == peer.group && route.deliver_members & peer.member != 0
    });
    let (source, destination) = (
        source.map(|(_, route)| route.namespace),
        local(image, packet.to).map(|pod| pod.namespace),
    );
    judged(image, source, destination, packet.port)
}

fn judged(image: &NodeImage, source: Option<u32>, destination: Option<u32>, port: u16) -> Way {
    let namespaces = (source.unwrap_or(0), destination.unwrap_or(0));
    let (source, destination) = (source.is_some(), destination.is_some());
    let passes = source && destination && may(image, namespaces.0, namespaces.1, port);
    Way {
        source,
        destination,
        namespaces,
        passes,
    }
}

fn local(image: &NodeImage, block: u8) -> Option<LocalEndpoint> {
    image
        .local
        .get(&LocalKey {
            table: 1,
            address: host_in(block),
        })
        .copied()
}

/// Every packet between two of the five blocks, sent by a pod here or coming from either peer.
fn ways(image: &NodeImage) -> Vec<(Packet, Way)> {
    let mut ways = Vec::new();
    for (from, to) in (0..5u8).flat_map(|from| (0..5u8).map(move |to| (from, to))) {
        for port in FIRST_PORT..FIRST_PORT + 3 {
            let packet = Packet { from, to, port };
            let leaving = if from < 2 {
                leaving(image, packet)
            } else {
                Way::default()
            };
            let entering = [11, 12].map(|peer| entering(image, peer, packet));
            ways.extend([leaving, entering[0], entering[1]].map(|way| (packet, way)));
        }
    }
    ways
}

/// One of the two is there before, the other after, and both policies let such two talk: a packet
/// between them is nothing that either configuration forbids.
fn meet(
    states: [&NodeImage; 2],
    (before, after): (Way, Way),
    (packet, now): (Packet, Way),
) -> bool {
    let (source, destination) = now.namespaces;
    let allowed = states
        .iter()
        .all(|state| may(state, source, destination, packet.port));
    let crossed = before.source && after.destination || after.source && before.destination;
    allowed && crossed
}

/// A packet between blocks of which one changes its namespace is another packet.
fn changed_namespace(before: &World, after: &World, packet: Packet) -> bool {
    let blocks = [packet.from, packet.to].map(usize::from);
    blocks
        .iter()
        .any(|block| before.blocks[*block].1 != after.blocks[*block].1)
}

/// Plays every packet through every step of the way from one world to another.
fn play(before: &World, after: &World) -> Result<(), TestCaseError> {
    let (observed, _) = image_of(&before.text());
    let (wanted, names) = image_of(&after.text());
    let (was, is) = (ways(&observed), ways(&wanted));

    let mut image = observed.clone();
    let changes = plan(&observed, &wanted, &names);
    for change in &changes {
        apply(&mut image, change);
        for (at, (packet, now)) in ways(&image).into_iter().enumerate() {
            let (before_it, after_it) = (was[at].1, is[at].1);
            let all = || format!("{packet:?} at `{change}` of\n{}", render(&changes));
            if now.passes && image.settings.is_some_and(|it| it.generation == 1) {
                // The programs may remember it as the new configuration's answer.
                prop_assert!(after_it.passes, "passes in the new generation: {}", all());
            }
            if now.passes && !before_it.passes && !after_it.passes {
                let met = meet([&observed, &wanted], (before_it, after_it), (packet, now));
                prop_assert!(met, "denied before and after, passes: {}", all());
            }
            if !now.passes && before_it.passes && after_it.passes {
                let another = changed_namespace(before, after, packet);
                prop_assert!(another, "allowed before and after, lost: {}", all());
            }
        }
    }
    prop_assert_eq!(plan(&image, &wanted, &names), []);
    let generation = image.settings.map_or(0, |settings| settings.generation);
    prop_assert_eq!(generation, u32::from(!changes.is_empty()));
    image.settings = wanted.settings;
    prop_assert_eq!(&image, &wanted);
    prop_assert_eq!(plan(&wanted, &wanted, &names), []);
    Ok(())
}

fn quiet_world() -> World {
    World {
        blocks: vec![(0, 0), (0, 0), (1, 2), (3, 0), (3, 0)],
        pods: [true, true],
        rules: vec![(0, 0, FIRST_PORT), (2, 0, FIRST_PORT)],
        open: false,
    }
}

#[test]
fn a_block_that_moves_to_a_peer_stays_reachable() {
    let before = quiet_world();
    let mut after = before.clone();
    after.blocks[1].0 = 2;
    play(&before, &after).expect("no packet suffers");
    play(&after, &before).expect("no packet suffers on the way back");
}

#[test]
fn a_pod_that_leaves_does_not_enjoy_the_rules_that_come() {
    let before = quiet_world();
    let mut after = before.clone();
    after.pods[1] = false;
    after.rules = vec![
        (0, 0, FIRST_PORT),
        (0, 2, FIRST_PORT),
        (2, 0, FIRST_PORT + 1),
    ];
    play(&before, &after).expect("no packet passes");
    play(&after, &before).expect("no packet passes on the way back");
}

#[test]
fn a_block_does_not_take_its_old_permissions_to_its_new_namespace() {
    let before = quiet_world();
    let mut after = before.clone();
    after.blocks[2].1 = 1;
    after.rules = vec![(0, 0, FIRST_PORT), (2, 0, FIRST_PORT + 1)];
    play(&before, &after).expect("no packet passes");
    play(&after, &before).expect("no packet passes on the way back");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_plan_leads_where_it_should_and_no_packet_suffers_on_the_way(
        before in world(),
        after in world(),
        moves in prop::collection::vec(0..4, 5),
        same_rules: bool,
    ) {
        // Half of the blocks stay, and some move as they are: so there are packets to lose.
        let mut after = after;
        for (at, moves) in moves.into_iter().enumerate() {
            match moves {
                0 | 1 => after.blocks[at] = before.blocks[at],
                2 => after.blocks[at].1 = before.blocks[at].1,
                _ => {}
            }
        }
        if same_rules {
            after.rules.clone_from(&before.rules);
            after.open = before.open;
        }
        play(&before, &after)?;
    }

    #[test]
    fn nothing_comes_before_what_it_relies_on(after in world()) {
        let (wanted, names) = image_of(&after.text());
        let changes = plan(&NodeImage::default(), &wanted, &names);
        let mut image = NodeImage::default();
        for change in &changes {
            apply(&mut image, change);
            let groups = image.routes.values().filter(|route| route.path_group != 0);
            for route in groups {
                let group = &image.path_groups[&route.path_group];
                prop_assert!(image.paths.contains_key(&group.paths[0]));
            }
            if let Change::Attach(at) = change && at.program != Program::TunnelIngress {
                prop_assert!(image.settings.is_some(), "{} before the settings", change);
                prop_assert_eq!(&image.guards, &wanted.guards);
            }
        }
        let tunnel = changes.iter().position(|change| {
            matches!(change, Change::Attach(at) if at.program == Program::TunnelIngress)
        });
        prop_assert_eq!(tunnel, Some(1), "right after the device");
        prop_assert_eq!(image.routes.keys().copied().collect::<Vec<Prefixed<RouteKey>>>(),
            wanted.routes.keys().copied().collect::<Vec<_>>());
    }
}
