//! A right configuration on a host that it does not fit.

mod config_support;

use std::net::Ipv4Addr;

use config_support::apply::apply;
use config_support::{RIGHT, check_text, east_1, right, right_but};
use slice_agent::compile::{compile, left_out, pods_without_mac};
use slice_agent::image::{HostFacts, LinkLayer, NodeImage, Program};
use slice_agent::model::{Validated, mismatches, render, unserved, validate_against};
use slice_agent::plan::Change;
use slice_common::layout::Capacity;
use slice_common::wire::vxlan::INNER_DESTINATION_MAC;

/// What people are told on a host where nothing is in force; the same configuration fits the unchanged host, and
/// where it is in force already it is told and not refused.
fn refusal(change: impl Fn(&mut HostFacts)) -> String {
    let (mut facts, nothing) = (east_1(), NodeImage::default());
    assert_eq!(validate_against(&right(), &facts, &nothing), Ok(Vec::new()));
    let (in_force, _) = compile(&right(), &facts).expect("fits the tables");
    change(&mut facts);
    let mut errors = validate_against(&right(), &facts, &nothing).expect_err("is noticed");
    assert_eq!(
        validate_against(&right(), &facts, &in_force).map(|told| shown(&told)),
        Ok(shown(&errors)),
        "told where it is in force"
    );
    assert_eq!(shown(&mismatches(&right(), &facts)), shown(&errors));
    assert_eq!(errors.len(), 1, "{errors:?}");
    shown(&[errors.remove(0)])
}

fn shown(errors: &[slice_agent::model::ConfigError]) -> String {
    let folder = errors.first().map(|error| folder_of(&error.place.file));
    let text = render(errors).trim_end().to_owned();
    text.replace(&folder.unwrap_or_default(), "")
}

fn folder_of(file: &str) -> String {
    file.trim_end_matches("node.yaml").to_owned()
}

#[test]
fn an_endpoint_whose_interface_is_not_there_is_named_and_alone_left_out() {
    let (configuration, mut facts) = (right(), east_1());
    assert!(unserved(&configuration, &facts).is_empty());
    let (whole, _) = compile(&configuration, &facts).expect("fits the tables");
    let gone = facts.interfaces.remove("p-web-0").expect("p-web-0");

    let (image, _) = compile(&configuration, &facts).expect("pods come and go");

    let mut expected = whole;
    expected.endpoints.remove(&gone.ifindex);
    expected.local.retain(|_, pod| pod.ifindex != gone.ifindex);
    expected.attachments.retain(|at| at.interface != "p-web-0");
    assert_eq!(image, expected);
    let missing = unserved(&configuration, &facts);
    let [(endpoint, error)] = missing.as_slice() else {
        panic!("{missing:?}");
    };
    assert_eq!(endpoint.name, "web-0");
    let message = error.to_string().replace(&folder_of(&error.place.file), "");
    assert_eq!(
        message,
        "node.yaml, document 1, Node east/east-1, endpoints[1].interface: this host has no \
         interface `p-web-0`; it has br0, lo, nic0, p-kafka-0"
    );
}

#[test]
fn control_characters_in_names_do_not_reach_the_terminal() {
    let message = refusal(|facts| {
        let gone = facts.interfaces.remove("nic0").expect("nic0");
        facts
            .interfaces
            .insert("\u{1b}[31m\n\u{9b}é".to_owned(), gone);
    });
    let expected = "it has \\u{1b}[31m\\n\\u{9b}é, br0, lo, p-kafka-0, p-web-0";
    assert!(message.ends_with(expected), "{message}");
}

#[test]
fn the_underlays_interface_is_not_there() {
    let message = refusal(|facts| drop(facts.interfaces.remove("nic0")));
    assert_eq!(
        message,
        "node.yaml, document 1, Node east/east-1, underlay.interface: this host has no interface \
         `nic0`; it has br0, lo, p-kafka-0, p-web-0"
    );
}

/// As one whose interface is not there: it alone is left out.
#[test]
fn an_endpoint_that_is_a_bridge_or_hardware_is_named_and_alone_left_out() {
    let (configuration, facts) = (right(), east_1());
    let (whole, _) = compile(&configuration, &facts).expect("fits the tables");
    for (kind, what) in [("bridge", "a bridge"), ("", "a hardware interface")] {
        let mut facts = facts.clone();
        let web_0 = facts.interfaces.get_mut("p-web-0").expect("p-web-0");
        web_0.kind = kind.to_owned();

        let (image, _) = compile(&configuration, &facts).expect("fits the tables");

        assert!(whole.endpoints.contains_key(&4) && !image.endpoints.contains_key(&4));
        let is_its = |at: &&slice_agent::image::Attachment| {
            at.ifindex == 4 && at.program != Program::UnderlayGuard
        };
        assert_eq!(image.attachments.iter().filter(is_its).count(), 0);
        assert_eq!(image.local.len(), whole.local.len() - 1);
        let [(_, error)] = unserved(&configuration, &facts).try_into().expect("one");
        assert_eq!(
            shown(&[error]),
            format!(
                "node.yaml, document 1, Node east/east-1, endpoints[1].interface: `p-web-0` is \
                 {what}, not a veth; only pods behind a veth pair can be attached, so give the host \
                 side of the pod's pair"
            )
        );
    }
}

#[test]
fn the_underlay_address_is_elsewhere() {
    let message = refusal(|facts| {
        let nic0 = facts.interfaces.get_mut("nic0").expect("nic0");
        nic0.addresses = ["172.20.1.99/24".parse().expect("a network")].into();
    });
    assert_eq!(
        message,
        "node.yaml, document 1, Node east/east-1, underlay.address: interface nic0 does not have \
         the address `172.20.1.11`; it has 172.20.1.99"
    );
}

#[test]
fn the_underlays_mtu_is_too_small() {
    let message = refusal(|facts| {
        facts.interfaces.get_mut("nic0").expect("nic0").mtu_bytes = 500;
    });
    assert_eq!(
        message,
        "node.yaml, document 1, Node east/east-1, underlay.interface: interface nic0 has an MTU of \
         500 bytes; the underlay needs 576 or more"
    );
}

#[test]
fn a_range_overlaps_a_network_of_the_host() {
    let message = refusal(|facts| {
        facts
            .local_networks
            .insert("10.77.128.0/24".parse().expect("a network"));
    });
    assert_eq!(
        message,
        "node.yaml, document 2, Slice kafka, spec.addressing.ranges[0]: the range 10.77.0.0/16 \
         overlaps 10.77.128.0/24, a network that this host already routes; choose another range \
         for the slice, or take that network off this host"
    );
}

#[test]
fn a_pod_that_the_host_never_talked_to_is_named_and_delivered_to_all_the_same() {
    let mut facts = east_1();
    assert!(pods_without_mac(&right(), &facts).is_empty());
    facts.neighbours.retain(|(ifindex, _), _| *ifindex != 4);

    let configuration = right();
    let names: Vec<_> = pods_without_mac(&configuration, &facts)
        .iter()
        .map(|pod| pod.name.as_str())
        .collect();
    assert_eq!(names, ["web-0"]);
    let (image, _) = compile(&configuration, &facts).expect("fits the tables");
    assert_eq!(image.endpoints.len(), 2, "both may send");
    let delivered: Vec<_> = image
        .local
        .values()
        .map(|pod| (pod.ifindex, pod.pod_mac))
        .collect();
    assert_eq!(
        delivered,
        [(3, [2, 0, 0, 0, 1, 10]), (4, INNER_DESTINATION_MAC)]
    );
}

#[test]
fn a_pod_behind_a_bridge_is_known_by_the_bridge() {
    let mut facts = east_1();
    let web_0 = facts.interfaces.values_mut().find(|it| it.ifindex == 4);
    web_0.expect("web-0 is there").controller_ifindex = 9;
    let of_web_0 = |facts: &HostFacts| {
        let (image, _) = compile(&right(), facts).expect("fits the host");
        let mut pods = image.local.into_values();
        pods.find(|pod| pod.ifindex == 4).map(|pod| pod.pod_mac)
    };
    assert_eq!(of_web_0(&facts), Some(INNER_DESTINATION_MAC));

    let on_its_port = facts
        .neighbours
        .iter()
        .find(|((ifindex, _), _)| *ifindex == 4);
    let ((_, address), mac) = on_its_port.map(|(at, mac)| (*at, *mac)).expect("known");
    facts.neighbours.insert((9, address), mac);
    assert_eq!(of_web_0(&facts), Some(mac));
}

/// A second range of the slice is new here, the first one in force.
#[test]
fn a_new_range_that_the_host_routes_is_refused_although_an_old_one_goes_on() {
    let with_another = right_but(&[(
        "ranges: [10.77.0.0/16]",
        "ranges: [10.77.0.0/16, 10.79.0.0/16]",
    )]);
    let with_another = check_text(with_another).expect("a right configuration");
    let mut facts = east_1();
    let (in_force, _) = compile(&right(), &facts).expect("fits the tables");
    let judged = |facts: &HostFacts, in_force: &NodeImage| {
        let judged = validate_against(&with_another, facts, in_force);
        judged.map_or_else(|new| Err(shown(&new)), |told| Ok(shown(&told)))
    };
    let overlap = |range: &str, index: usize, network: &str| {
        format!(
            "node.yaml, document 2, Slice kafka, spec.addressing.ranges[{index}]: the range {range} overlaps \
             {network}, a network that this host already routes; choose another range for the slice, or take \
             that network off this host"
        )
    };
    let old = overlap("10.77.0.0/16", 0, "10.77.128.0/24");
    let new = overlap("10.79.0.0/16", 1, "10.79.1.0/24");
    assert_eq!(judged(&facts, &in_force), Ok(String::new()));

    facts
        .local_networks
        .insert("10.77.128.0/24".parse().expect("a network"));
    assert_eq!(
        judged(&facts, &in_force),
        Ok(old.clone()),
        "the new one is applied"
    );
    facts
        .local_networks
        .insert("10.79.1.0/24".parse().expect("a network"));
    assert_eq!(judged(&facts, &in_force), Err(new.clone()));

    let (in_force, _) = compile(&with_another, &facts).expect("fits the tables");
    assert_eq!(judged(&facts, &in_force), Ok(format!("{old}\n{new}")));
}

/// The host lost its underlay's interface: what goes by it is left out, and pods stay.
#[test]
fn an_underlay_that_vanished_takes_paths_and_peers_with_it_and_nothing_else() {
    let (whole, _) = compile(&right(), &east_1()).expect("fits the tables");
    let mut facts = east_1();
    facts.interfaces.remove("nic0");
    let mut expected = whole.clone();
    expected.paths.clear();
    expected.path_groups.clear();
    expected.peers.clear();
    expected.routes.retain(|_, route| route.path_group == 0);
    expected.attachments.retain(|at| at.interface != "nic0");
    let own = Ipv4Addr::new(172, 20, 1, 11);
    expected.node_addresses.remove(&own.into());
    expected.settings = whole
        .settings
        .map(|settings| slice_common::layout::Settings {
            underlay_mac: [0; 6],
            ..settings
        });

    let (image, _) = compile(&right(), &facts).expect("fits the tables");

    assert_eq!(image, expected);
}

/// A name that is wrong does not take the interface from those that are served.
#[test]
fn another_interface_that_is_not_there_is_refused_while_the_old_one_works() {
    let wrong = RIGHT.replacen("interface: nic0", "interface: nic9", 1);
    let wrong = check_text(wrong).expect("a right configuration");
    let (mut in_force, _) = compile(&right(), &east_1()).expect("fits the tables");
    let new = validate_against(&wrong, &east_1(), &in_force).expect_err("is refused");
    let message = "underlay.interface: this host has no interface `nic9`; it has br0, lo, nic0, p-kafka-0, p-web-0";
    assert!(shown(&new).ends_with(message), "{}", shown(&new));

    in_force.attachments.retain(|at| at.interface != "nic0");
    let told = validate_against(&wrong, &east_1(), &in_force).expect("nothing works by another");
    assert_eq!(shown(&told), shown(&new));
}

#[test]
fn a_guarded_interface_that_lost_its_ethernet_header_is_told() {
    let listed = RIGHT.replacen("interface: nic0}", "interface: nic0, guarded: [br0]}", 1);
    let listed = check_text(listed).expect("a right configuration");
    let mut facts = east_1();
    let guards = |facts: &HostFacts| {
        let (image, _) = compile(&listed, facts).expect("fits the tables");
        let guards = image.attachments.iter();
        let guards = guards.filter(|at| at.program == Program::UnderlayGuard);
        guards.map(|at| at.interface.clone()).collect::<Vec<_>>()
    };
    assert_eq!(guards(&facts), ["br0", "nic0"]);
    let (in_force, _) = compile(&listed, &facts).expect("fits the tables");
    facts.interfaces.get_mut("br0").expect("br0").link_layer = LinkLayer::Other;
    assert_eq!(guards(&facts), ["nic0"]);
    let told = validate_against(&listed, &facts, &in_force).expect("in force");
    let message = "underlay.guarded[0]: packets of `br0` have no Ethernet header, which our programs read; give an \
                   Ethernet interface";
    assert!(shown(&told).ends_with(message), "{}", shown(&told));
}

/// `count` addresses on the interface `lo`, as services may be given.
fn with_addresses(count: usize) -> HostFacts {
    let mut facts = east_1();
    let lo = facts.interfaces.get_mut("lo").expect("lo");
    lo.addresses = (0..count as u32)
        .map(|number| {
            let address = Ipv4Addr::from(0x0a60_0000 + number);
            ipnet::Ipv4Net::new(address, 32).expect("a prefix")
        })
        .collect();
    facts
}

#[test]
fn of_too_many_addresses_those_are_left_out_that_pods_need_least() {
    let configuration: Validated = right();
    // Beside those of lo: nic0, br0, and one that both pods' interfaces share.
    let others = ["172.20.1.11", "169.254.1.1", "192.168.9.1"];
    let fit = Capacity::NODE_ADDRESSES - others.len();
    let known = |facts: &HostFacts| {
        let (image, _) = compile(&configuration, facts).expect("never refused");
        image.node_addresses
    };
    assert_eq!(left_out(&configuration, &with_addresses(fit)), None);
    assert_eq!(known(&with_addresses(fit)).len(), Capacity::NODE_ADDRESSES);

    let facts = with_addresses(fit + 2);
    let known = known(&facts);
    assert_eq!(known.len(), Capacity::NODE_ADDRESSES);
    for address in others {
        let address: Ipv4Addr = address.parse().expect("an address");
        assert!(known.contains_key(&address.into()), "{address} is known");
    }
    let told = left_out(&configuration, &facts).expect("two are left out");
    assert_eq!(
        shown(&[told]),
        "node.yaml, document 1, Node east/east-1: this host has 16386 addresses and our programs know 16384 at \
         most; not known are 10.96.63.253 of lo, 10.96.63.254 of lo, from which nobody reaches guarded pods: take \
         addresses off interfaces that pods have nothing to do with"
    );
}

/// The kernel's table has no room for new addresses beside old ones.
#[test]
fn a_full_table_of_addresses_gives_up_old_ones_before_it_takes_new_ones() {
    let (was, names) = compile(&right(), &with_addresses(20_000)).expect("never refused");
    let mut facts = with_addresses(20_000);
    let nic0 = facts.interfaces.get_mut("nic0").expect("nic0");
    nic0.addresses
        .insert("172.20.1.99/24".parse().expect("a network"));
    let (wanted, _) = compile(&right(), &facts).expect("never refused");
    assert_eq!(was.node_addresses.len(), Capacity::NODE_ADDRESSES);
    assert_ne!(was, wanted);

    let changes = slice_agent::plan::plan(&was, &wanted, &names);
    let mut image = was;
    for change in &changes {
        apply(&mut image, change);
        assert!(
            image.node_addresses.len() <= Capacity::NODE_ADDRESSES,
            "{change}"
        );
    }
    let is_one = |change: &&Change| matches!(change, Change::PutNodeAddress(_));
    assert_eq!(changes.iter().filter(is_one).count(), 1);
    image.settings = wanted.settings;
    assert_eq!(image, wanted);
}

#[test]
fn of_what_an_earlier_agent_left_pods_are_taken_whose_interface_is_gone() {
    let by_stack = right_but(&[(
        "  isolation: {level: Slice}",
        "  isolation: {level: Slice}\n  delivery: Stack",
    )]);
    let by_stack = check_text(by_stack).expect("a right configuration");
    let (left, _) = compile(&by_stack, &east_1()).expect("fits the tables");
    assert_eq!(left.without_vanished(&east_1()), left);
    let mut facts = east_1();
    let gone = facts.interfaces.remove("p-kafka-0").expect("p-kafka-0");

    let mut expected = left.clone();
    expected.endpoints.remove(&gone.ifindex);
    expected.local.retain(|_, pod| pod.ifindex != gone.ifindex);
    let pod = Ipv4Addr::new(10, 1, 1, 10);
    assert!(
        expected
            .ways_back
            .remove(&slice_agent::image::WayBack::From(pod))
    );
    assert!(expected.pod_routes.remove(&pod).is_some());
    assert_eq!(left.without_vanished(&facts), expected);
}
