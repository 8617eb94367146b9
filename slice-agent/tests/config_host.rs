//! A right configuration on a host that it does not fit.

mod config_support;

use config_support::{east_1, right};
use slice_agent::compile::{compile, pods_without_mac};
use slice_agent::image::HostFacts;
use slice_agent::model::{missing_interfaces, render};
use slice_common::wire::vxlan::INNER_DESTINATION_MAC;

/// What people are told; the same configuration fits the unchanged host.
fn refusal(change: impl Fn(&mut HostFacts)) -> String {
    let mut facts = east_1();
    compile(&right(), &facts).expect("fits the host");
    change(&mut facts);
    let errors = compile(&right(), &facts).expect_err("a mistake that is noticed");
    render(&errors)
        .trim_end()
        .replace(&folder_of(&errors[0].place.file), "")
}

fn folder_of(file: &str) -> String {
    file.trim_end_matches("node.yaml").to_owned()
}

#[test]
fn an_endpoint_whose_interface_is_not_there_is_named_and_alone_left_out() {
    let (configuration, mut facts) = (right(), east_1());
    assert!(missing_interfaces(&configuration, &facts).is_empty());
    let (whole, _) = compile(&configuration, &facts).expect("fits the host");
    let gone = facts.interfaces.remove("p-web-0").expect("p-web-0");

    let (image, _) = compile(&configuration, &facts).expect("pods come and go");

    let mut expected = whole;
    expected.endpoints.remove(&gone.ifindex);
    expected.local.retain(|_, pod| pod.ifindex != gone.ifindex);
    expected.attachments.retain(|at| at.interface != "p-web-0");
    assert_eq!(image, expected);
    let missing = missing_interfaces(&configuration, &facts);
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

#[test]
fn an_endpoint_is_a_bridge_or_hardware() {
    let kind = |kind: &'static str| {
        refusal(move |facts| {
            facts.interfaces.get_mut("p-web-0").expect("p-web-0").kind = kind.to_owned();
        })
    };
    let message = |what| {
        format!(
            "node.yaml, document 1, Node east/east-1, endpoints[1].interface: `p-web-0` is {what}, \
             not a veth; only pods behind a veth pair can be attached, so give the host side of \
             the pod's pair"
        )
    };
    assert_eq!(kind("bridge"), message("a bridge"));
    assert_eq!(kind(""), message("a hardware interface"));
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
         for the slice"
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
    let (image, _) = compile(&configuration, &facts).expect("fits the host");
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
