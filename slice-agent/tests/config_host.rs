//! A right configuration on a host that it does not fit.

mod config_support;

use config_support::{east_1, right};
use slice_agent::compile::{compile, pods_without_mac};
use slice_agent::image::HostFacts;
use slice_agent::model::render;

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
fn an_endpoints_interface_is_not_there() {
    let message = refusal(|facts| drop(facts.interfaces.remove("p-web-0")));
    assert_eq!(
        message,
        "node.yaml, document 1, Node east/east-1, endpoints[1].interface: this host has no \
         interface `p-web-0`; it has br0, lo, nic0, p-kafka-0"
    );
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
fn a_pod_that_the_host_never_talked_to_is_named_and_not_delivered_to() {
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
    let delivered: Vec<_> = image.local.values().map(|pod| pod.ifindex).collect();
    assert_eq!(delivered, [3]);
}
