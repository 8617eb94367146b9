//! The tables that a configuration becomes.

mod config_support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use config_support::apply::compiled;
use config_support::{RIGHT, check_text, east_1, longest_match, right, right_but};
use proptest::prelude::*;
use slice_agent::compile::compile;
use slice_agent::image::{
    HostFacts, Interface, LinkLayer, NodeImage, PodRoute, PortOwner, Program, TrieKey, WayBack,
};
use slice_agent::model::{Validated, render, validate_against};
use slice_common::address::{Address, Port};
use slice_common::layout::{Capacity, Class, ClassKey, LocalEndpoint, PolicyKey, RouteKey};

fn address(text: &str) -> Address {
    text.parse::<Ipv4Addr>().expect("an address").into()
}

#[test]
fn the_table_keys_are_compared_as_they_lie_in_memory() {
    let key = PolicyKey {
        slice: 0x0102_0304,
        source_namespace: 0x0506_0708,
        destination_namespace: 0x090a_0b0c,
        protocol: 0x0d,
        reserved: 0x0e,
        port: 0x0f10,
    };
    // SAFETY: the layout is `repr(C)` without padding, so all its bytes are initialised.
    let bytes: [u8; 16] = unsafe { std::mem::transmute(key) };
    assert_eq!(key.trie_bits(), u128::from_be_bytes(bytes));

    let key = RouteKey {
        table: 1,
        address: address("10.77.0.2"),
    };
    // SAFETY: as above.
    let bytes: [u8; 8] = unsafe { std::mem::transmute(key) };
    assert_eq!((key.trie_bits() >> 64) as u64, u64::from_be_bytes(bytes));

    let key = ClassKey {
        slice: 7,
        protocol: 6,
        reserved: 0,
        port: 0x8223,
    };
    // SAFETY: as above.
    let bytes: [u8; 8] = unsafe { std::mem::transmute(key) };
    assert_eq!((key.trie_bits() >> 64) as u64, u64::from_be_bytes(bytes));
}

#[test]
fn east_1_knows_its_pods_its_peers_and_its_devices() {
    let (image, names) = compile(&right(), &east_1()).expect("fits the host");

    let endpoints: Vec<_> = image
        .endpoints
        .iter()
        .map(|(ifindex, pod)| {
            (
                *ifindex,
                pod.slice,
                pod.slice_address.to_string(),
                pod.flags,
            )
        })
        .collect();
    let isolated = slice_common::layout::Endpoint::ISOLATED;
    assert_eq!(
        endpoints,
        [
            (3, 7, "10.77.0.2".to_owned(), isolated),
            (4, 8, "10.78.0.2".to_owned(), 0)
        ]
    );
    assert_eq!(image.peers.len(), 2);
    let mtus: BTreeMap<_, _> = image
        .paths
        .values()
        .map(|path| (path.remote.to_string(), path.mtu))
        .collect();
    let expected = [
        ("172.20.2.11".to_owned(), 1500),
        ("172.20.2.12".to_owned(), 1400),
    ];
    assert_eq!(mtus, BTreeMap::from(expected));
    let guards: Vec<_> = image.guards.iter().map(ToString::to_string).collect();
    assert_eq!(guards, ["10.77.0.0/16", "10.78.0.0/16"]);
    assert!(image.node_addresses.contains_key(&address("192.168.9.1")));

    let attached: Vec<_> = image
        .attachments
        .iter()
        .map(|at| (at.interface.as_str(), at.ifindex, at.program))
        .collect();
    assert_eq!(
        attached,
        [
            ("nic0", 2, Program::UnderlayIngress),
            ("nic0", 2, Program::UnderlayGuard),
            ("p-kafka-0", 3, Program::PodEgress),
            ("p-kafka-0", 3, Program::PodIngress),
            ("p-web-0", 4, Program::PodEgress),
            ("p-web-0", 4, Program::PodIngress),
            (PortOwner::INTERFACE, 0, Program::TunnelIngress),
        ]
    );
    assert_eq!(names.classes[&(7, 2)], "client");
    assert_eq!(names.slices[&8], "shop");
}

#[test]
fn classes_are_numbered_by_their_position() {
    let image = compiled(&right());
    let class = |protocol, port| {
        let port = Port::new(port).network_word();
        longest_match(
            &image.classes,
            ClassKey {
                slice: 7,
                protocol,
                reserved: 0,
                port,
            },
        )
    };
    assert_eq!(
        class(6, 9090),
        Some(Class {
            class: 1,
            dscp: 48,
            reserved: 0
        })
    );
    assert_eq!(
        class(6, 9091),
        Some(Class {
            class: 2,
            dscp: 18,
            reserved: 0
        })
    );
    assert_eq!(
        class(6, 9092),
        Some(Class {
            class: 2,
            dscp: 18,
            reserved: 0
        })
    );
    assert_eq!(class(6, 9093), None);
    assert_eq!(class(17, 9090), None);
}

/// Hardware and what is stacked on it, and the uplink of a node that is a container itself; no pods, bridges
/// or tunnels. A list stands for the choice, but the underlay is always guarded.
#[test]
fn packets_for_tunnels_leave_by_no_interface_that_leads_out() {
    let mut facts = east_1();
    let ethernet = LinkLayer::Ethernet;
    for (ifindex, name, kind, link_layer, address) in [
        (10, "eth1", "", ethernet, None),
        (11, "eth1.7", "vlan", ethernet, Some("192.168.7.1/24")),
        (12, "bond0", "bond", ethernet, None),
        (13, "up0", "veth", ethernet, Some("192.168.8.2/24")),
        (14, "other-pod", "veth", ethernet, None),
        (15, "lone", "veth", ethernet, Some("169.254.1.1/32")),
        (16, "flannel.1", "vxlan", ethernet, Some("10.1.0.0/32")),
        (
            17,
            "wg0",
            "wireguard",
            LinkLayer::Other,
            Some("10.9.0.1/24"),
        ),
        (18, "ppp0", "", LinkLayer::Other, Some("192.0.2.7/24")),
        (19, "macsec0", "macsec", ethernet, None),
        (20, "tap0", "tun", ethernet, Some("192.168.10.2/24")),
        (21, "vm0", "tun", ethernet, None),
    ] {
        let interface = Interface {
            ifindex,
            kind: kind.to_owned(),
            link_layer,
            addresses: address
                .iter()
                .map(|at| at.parse().expect("a network"))
                .collect(),
            ..Interface::default()
        };
        facts.interfaces.insert(name.to_owned(), interface);
    }
    let guarded = |configuration: &Validated| -> Vec<String> {
        let (image, _) = compile(configuration, &facts).expect("fits the host");
        let guards = image.attachments.into_iter();
        let guards = guards.filter(|at| at.program == Program::UnderlayGuard);
        guards.map(|at| at.interface).collect()
    };
    assert_eq!(
        guarded(&right()),
        ["bond0", "eth1", "eth1.7", "macsec0", "nic0", "tap0", "up0"]
    );
    let listed = |list: &str| {
        let text = RIGHT.replacen("interface: nic0}", &format!("interface: nic0, {list}}}"), 1);
        check_text(text).expect("a right configuration")
    };
    assert_eq!(
        guarded(&listed("guarded: [other-pod, later0]")),
        ["nic0", "other-pod"]
    );
    assert_eq!(guarded(&listed("guarded: []")), ["nic0"]);
    let refusal = validate_against(&listed("guarded: [wg0]"), &facts, &NodeImage::default());
    let refusal = refusal.expect_err("is refused");
    let refused = "Node east/east-1, underlay.guarded[0]: packets of `wg0` have no Ethernet header, \
                   which our programs read; give an Ethernet interface\n";
    assert!(render(&refusal).ends_with(refused), "{}", render(&refusal));
}

/// Its pod is marked, and the host is told where its packets may come from; the other slice's is not.
#[test]
fn a_slice_that_the_stack_delivers_has_ways_back() {
    let kafka = (
        "  isolation: {level: Slice}",
        "  isolation: {level: Slice}\n  delivery: Stack",
    );
    let image = compiled(&check_text(right_but(&[kafka])).expect("a right configuration"));
    let flags: Vec<_> = image.local.values().map(|pod| pod.flags).collect();
    assert_eq!(flags, [LocalEndpoint::BY_STACK, 0]);
    let range = WayBack::To("10.77.0.0/16".parse().expect("a prefix"));
    let pod = WayBack::From(Ipv4Addr::new(10, 1, 1, 10));
    assert_eq!(image.ways_back, BTreeSet::from([range, pod]));
    assert!(compiled(&right()).ways_back.is_empty());
    let kafka_0 = PodRoute {
        ifindex: 3,
        neighbour: None,
    };
    assert_eq!(image.pod_routes, [([10, 1, 1, 10].into(), kafka_0)].into());
    assert!(image.pod_routes_in_force);
    let none = compiled(&right());
    assert!(none.pod_routes.is_empty() && !none.pod_routes_in_force);

    let native = [
        ("ranges: [10.78.0.0/16]", ""),
        ("mode: Mapped, }", "mode: Native}\n  delivery: Stack"),
        ("sliceAddress: 10.78.0.2", "sliceAddress: 10.1.1.20"),
        ("prefix: 10.78.0.0/29", "prefix: 10.1.1.20/32"),
        ("prefix: 10.78.64.0/29", "prefix: 10.1.2.20/32"),
    ];
    let image = compiled(&check_text(right_but(&native)).expect("a right configuration"));
    let to = |text: &str| WayBack::To(text.parse().expect("a prefix"));
    let pod = WayBack::From(Ipv4Addr::new(10, 1, 1, 20));
    let expected = [to("10.1.1.20/32"), to("10.1.2.20/32"), pod];
    assert_eq!(image.ways_back, BTreeSet::from(expected), "neighbours too");
}

/// A port of a bridge hears no answers to ARP: the pod's own end is asked, and ARP at the bridge only else.
#[test]
fn a_pod_behind_a_bridge_is_delivered_to_by_its_own_port_and_address() {
    let kafka = (
        "  isolation: {level: Slice}",
        "  isolation: {level: Slice}\n  delivery: Stack",
    );
    let configuration = check_text(right_but(&[kafka])).expect("a right configuration");
    let pod = Ipv4Addr::new(10, 1, 1, 10);
    let mut facts = east_1();
    let route = |facts: &HostFacts| {
        let (image, _) = compile(&configuration, facts).expect("fits the tables");
        assert!(image.pod_routes_in_force);
        image.pod_routes.get(&pod).copied()
    };
    let by_its_port = |neighbour| {
        Some(PodRoute {
            ifindex: 3,
            neighbour,
        })
    };
    let port = facts.interfaces.get_mut("p-kafka-0").expect("p-kafka-0");
    port.controller_ifindex = 5;
    assert_eq!(route(&facts), None, "nobody knows it yet");

    facts.neighbours.insert((5, pod.into()), [6; 6]);
    assert_eq!(route(&facts), by_its_port(Some([6; 6])));
    let port = facts.interfaces.get_mut("p-kafka-0").expect("p-kafka-0");
    port.peer_mac = Some([8; 6]);
    assert_eq!(
        route(&facts),
        by_its_port(Some([8; 6])),
        "who answers ARP may lie"
    );
}

#[test]
fn a_native_slice_guards_the_remote_pods_and_maps_nothing() {
    let native = [
        ("ranges: [10.78.0.0/16]", ""),
        ("mode: Mapped, }", "mode: Native}"),
        ("sliceAddress: 10.78.0.2", "sliceAddress: 10.1.1.20"),
        ("prefix: 10.78.0.0/29", "prefix: 10.1.1.20/32"),
        ("prefix: 10.78.64.0/29", "prefix: 10.1.2.20/32"),
    ];
    let image = compiled(&check_text(right_but(&native)).expect("a right configuration"));
    let guards: Vec<_> = image.guards.iter().map(ToString::to_string).collect();
    assert_eq!(guards, ["10.1.2.20/32", "10.77.0.0/16"], "not our own pod");
    let pod = image.endpoints[&4];
    assert_eq!(pod.pod_address, pod.slice_address);

    let refusal = |change: (&str, &str)| {
        let text = right_but(&native).replacen(change.0, change.1, 1);
        check_text(text)
            .expect_err("a mistake that is noticed")
            .trim_end()
            .to_owned()
    };
    assert_eq!(
        refusal(("sliceAddress: 10.1.1.20", "sliceAddress: 10.1.1.21")),
        "node.yaml, document 1, Node east/east-1, endpoints[1].sliceAddress: `10.1.1.21` differs \
         from the pod address `10.1.1.20`; in the Native slice shop they are the same"
    );
    assert_eq!(
        refusal(("prefix: 10.1.2.20/32", "prefix: 10.1.2.0/24")),
        "node.yaml, document 1, Node east/east-1, peers[1].blocks[0].prefix: 10.1.2.0/24 is a \
         block of the Native slice shop, where a block is one pod's address; write one /32 for \
         each pod"
    );
    assert_eq!(
        refusal(("prefix: 10.1.2.20/32", "prefix: 10.77.99.1/32")),
        "node.yaml, document 1, Node east/east-1, peers[1].blocks[0].prefix: 10.77.99.1/32 of \
         slice shop overlaps 10.77.0.0/16 of slice kafka at node.yaml, document 2, Slice kafka, \
         spec.addressing.ranges; choose a range that holds no pod address"
    );
}

/// Kube-proxy in IPVS mode gives the host an address for every service.
#[test]
fn addresses_of_services_are_not_the_nodes() {
    let service: Ipv4Addr = [10, 96, 0, 1].into();
    let addresses = BTreeSet::from([ipnet::Ipv4Net::new(service, 32).expect("a prefix")]);
    let with = |name: &str| {
        let mut facts = east_1();
        let interface = Interface {
            ifindex: 9,
            addresses: addresses.clone(),
            ..Default::default()
        };
        facts.interfaces.insert(name.to_owned(), interface);
        let (image, _) = compile(&right(), &facts).expect("a right configuration");
        image.node_addresses.contains_key(&service.into())
    };
    assert!(with("lo1"), "an address of the node counts");
    assert!(!with("kube-ipvs0"));
}

#[test]
fn the_order_of_documents_changes_nothing() {
    let mut documents: Vec<_> = RIGHT.split("---\n").collect();
    documents.reverse();
    let reversed = check_text(documents.join("---\n")).expect("a right configuration");
    assert_eq!(compiled(&reversed), compiled(&right()));
    assert_eq!(compile(&right(), &east_1()), compile(&right(), &east_1()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_routes_table_finds_the_block_that_holds_an_address(
        blocks in prop::collection::btree_map(0u32..64, (24u8..=32, 0usize..3), 0..12),
        probes in prop::collection::vec((0u32..66, 0u32..256), 20),
    ) {
        // Block n lies somewhere in 10.77.(128 + n).0/24, so no two overlap.
        let lines = |owner: usize| -> String {
            let mine = blocks.iter().filter(|(_, (_, of))| *of == owner);
            mine.map(|(n, (length, _))| format!(
                ", {{slice: kafka, namespace: audit, prefix: 10.77.{}.0/{length}}}", 128 + n,
            )).collect()
        };
        let own = lines(0).replace(", {", "\n- {");
        let text = right_but(&[
            ("prefix: 10.78.0.0/29}\n", &format!("prefix: 10.78.0.0/29}}{own}\n")),
            ("prefix: 10.77.64.0/29}", &format!("prefix: 10.77.64.0/29}}{}", lines(1))),
            ("prefix: 10.78.64.0/29}", &format!("prefix: 10.78.64.0/29}}{}", lines(2))),
        ]);
        let image = compiled(&check_text(&text).map_err(TestCaseError::fail)?);
        for (n, host) in probes {
            let address = Ipv4Addr::from(0x0a4d_8000 + (n << 8) + host);
            let key = RouteKey { table: 1, address: address.into() };
            let route = longest_match(&image.routes, key).expect("inside the slice's range");
            let block = blocks.get(&n).filter(|(length, _)| host < 1 << (32 - length));
            // 1 local, 2 via a peer, 3 unreachable.
            let kind = block.map_or(3, |(_, owner)| if *owner == 0 { 1 } else { 2 });
            prop_assert_eq!((route.kind, route.slice), (kind, 7));
            let peer = block.filter(|(_, owner)| *owner > 0).map(|(_, owner)| {
                image.peers[&Address::from(Ipv4Addr::new(172, 20, 2, 10 + *owner as u8))]
            });
            let group = peer.map_or(0, |peer| peer.group);
            prop_assert_eq!(route.deliver_group, group);
        }
        prop_assert!(image.routes.len() <= Capacity::ROUTES);
    }
}
