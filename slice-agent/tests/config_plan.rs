//! Which changes lead from one state to another, in which order, in words.

mod config_support;

use config_support::apply::image_of;
use config_support::{east_1, right, right_but};
use slice_agent::compile::compile;
use slice_agent::image::{Attachment, Names, NodeImage, Program};
use slice_agent::plan::{plan, render};

fn lines(observed: &NodeImage, wanted: &NodeImage, names: &Names) -> Vec<String> {
    render(&plan(observed, wanted, names))
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_first_plan_reads_like_a_description_of_the_node() {
    let (wanted, names) = compile(&right(), &east_1()).expect("fits the host");
    let expected = "\
+ device sliceplane0 owning UDP port 6085
+ program tunnel_ingress on sliceplane0
+ path west/west-1 from 172.20.1.11 to 172.20.2.11:6085 by interface #2, mtu 1500
+ path west/west-2 from 172.20.1.11 to 172.20.2.12:6085 by interface #2, mtu 1400
+ path group west/west-1: west/west-1
+ path group west/west-2: west/west-2
+ peer west/west-1 at 172.20.2.11
+ peer west/west-2 at 172.20.2.12
+ slice kafka (id 7)
+ slice shop (id 8)
+ delivery of 10.77.0.2 to pod 10.1.1.10 of kafka/kafka on interface #3
+ delivery of 10.78.0.2 to pod 10.1.1.20 of shop/web on interface #4
+ endpoint on interface #3: pod 10.1.1.10 is 10.77.0.2 of kafka/kafka, isolated
+ endpoint on interface #4: pod 10.1.1.20 is 10.78.0.2 of shop/web
+ node address 127.0.0.1
+ node address 169.254.1.1
+ node address 172.20.1.11
+ node address 192.168.9.1
~ routes: 7 added, 0 removed, 0 changed; 7 in all, swapped at once
    + route 10.77.0.0/29 kafka/kafka on this node
    + route 10.77.0.8/29 kafka/audit on this node
    + route 10.77.0.0/16 kafka unreachable
    + route 10.77.64.0/29 kafka/analytics via west/west-1
    + route 10.78.0.0/29 shop/web on this node
    + route 10.78.0.0/16 shop unreachable
    + route 10.78.64.0/29 shop/web via west/west-2
~ policy: 6 added, 0 removed, 0 changed; 6 in all, swapped at once
    + policy kafka/analytics -> kafka/kafka: allow TCP 9092 (rule kafka/clients)
    + policy kafka/kafka -> kafka/kafka: allow ICMP (rule kafka/brokers)
    + policy kafka/kafka -> kafka/kafka: allow TCP 9090-9091 (rule kafka/brokers)
    + policy kafka/kafka -> kafka/kafka: allow TCP 9092 (rule kafka/brokers)
    + policy kafka: deny by default
    + policy shop: deny by default
~ classes: 3 added, 0 removed, 0 changed; 3 in all, swapped at once
    + class kafka/client: TCP 9091, DSCP 18
    + class kafka/client: TCP 9092, DSCP 18
    + class kafka/control: TCP 9090, DSCP 48
+ guard route unreachable 10.77.0.0/16
+ guard route unreachable 10.78.0.0/16
~ settings: underlay 172.20.1.11, UDP port 6085, generation 1
+ program underlay_ingress on nic0
+ program underlay_guard on nic0
+ program pod_egress on p-kafka-0
+ program pod_egress on p-web-0
+ program pod_ingress on p-kafka-0
+ program pod_ingress on p-web-0";
    // Entries are sorted by number within one kind, and names hash to any order.
    let sorted = |mut lines: Vec<String>| {
        lines.sort();
        lines
    };
    let found = lines(&NodeImage::default(), &wanted, &names);
    let expected: Vec<String> = expected.lines().map(str::to_owned).collect();
    assert_eq!(sorted(found.clone()), sorted(expected.clone()));
    let kinds = |lines: &[String]| -> Vec<String> {
        let kind = |line: &String| line.trim_start().chars().take(6).collect::<String>();
        let mut kinds: Vec<_> = lines.iter().map(kind).collect();
        kinds.dedup();
        kinds
    };
    assert_eq!(kinds(&found), kinds(&expected));
}

#[test]
fn a_pod_that_leaves_is_detached_before_its_entries_go() {
    let (observed, names) = compile(&right(), &east_1()).expect("fits the host");
    let web_0 = "- {slice: shop, namespace: web, name: web-0,\n   interface: p-web-0, address: \
                 10.1.1.20, sliceAddress: 10.78.0.2}\n";
    let (wanted, _) = image_of(&right_but(&[(web_0, "")]));
    assert_eq!(
        lines(&observed, &wanted, &names),
        [
            "- program pod_ingress on p-web-0",
            "- program pod_egress on p-web-0",
            "- endpoint on interface #4: pod 10.1.1.20 is 10.78.0.2 of shop/web",
            "- delivery of 10.78.0.2 to pod 10.1.1.20 of shop/web on interface #4",
            "~ settings: underlay 172.20.1.11, UDP port 6085, generation 1",
        ]
    );
}

/// Who is met between the two generations may be remembered under the first, but not under the second.
#[test]
fn a_peer_that_leaves_is_followed_by_another_generation() {
    let (observed, names) = compile(&right(), &east_1()).expect("fits the host");
    let peer = "- {cluster: west, name: west-2, underlay: 172.20.2.12, mtu: 1400,\n   blocks: \
                [{slice: shop, namespace: web, prefix: 10.78.64.0/29}]}\n";
    let (wanted, _) = image_of(&right_but(&[(peer, "")]));
    let lines = lines(&observed, &wanted, &names);
    let at = |text: &str| {
        let found = lines.iter().position(|line| line.contains(text));
        found.unwrap_or_else(|| panic!("no `{text}` in {lines:#?}"))
    };
    let (first, second) = (at(", generation 1"), at(", generation 2"));
    let gone = at("- peer west/west-2");
    assert!(first < gone && gone < second, "{lines:#?}");
    assert_eq!(second, lines.len() - 1);
}

#[test]
fn a_block_that_changes_its_owner_is_closed_in_between() {
    let (observed, mut names) = compile(&right(), &east_1()).expect("fits the host");
    let moved = (
        "namespace: analytics, prefix: 10.77.64.0/29",
        "namespace: audit, prefix: 10.77.64.0/29",
    );
    let (wanted, new_names) = image_of(&right_but(&[moved]));
    names.namespaces.extend(new_names.namespaces);
    let routes = "~ routes: 0 added, 0 removed, 1 changed; 7 in all, swapped at once";
    assert_eq!(
        lines(&observed, &wanted, &names),
        [
            routes,
            "    ~ route 10.77.64.0/29 kafka unreachable",
            routes,
            "    ~ route 10.77.64.0/29 kafka/audit via west/west-1",
            "~ settings: underlay 172.20.1.11, UDP port 6085, generation 1",
        ]
    );
}

#[test]
fn another_port_replaces_the_device_with_its_program_first() {
    let (mut observed, names) = compile(&right(), &east_1()).expect("fits the host");
    observe_tunnel(&mut observed);
    let (wanted, _) = image_of(&right_but(&[(
        "interface: nic0}",
        "interface: nic0, port: 7000}",
    )]));
    let lines = lines(&observed, &wanted, &names);
    assert_eq!(
        lines[..4],
        [
            "- device sliceplane0 owning UDP port 6085",
            "- program tunnel_ingress on sliceplane0",
            "+ device sliceplane0 owning UDP port 7000",
            "+ program tunnel_ingress on sliceplane0",
        ]
    );
    let last = lines.last().expect("lines");
    assert_eq!(
        last,
        "~ settings: underlay 172.20.1.11, UDP port 7000, generation 1"
    );
}

#[test]
fn a_device_reborn_under_its_name_is_detached_before_it_is_attached() {
    let (observed, names) = compile(&right(), &east_1()).expect("fits the host");
    let mut facts = east_1();
    facts
        .interfaces
        .get_mut("p-web-0")
        .expect("p-web-0")
        .ifindex = 40;
    let (wanted, _) = compile(&right(), &facts).expect("fits the host");
    let programs: Vec<_> = lines(&observed, &wanted, &names)
        .into_iter()
        .filter(|line| line.contains("program"))
        .collect();
    assert_eq!(
        programs,
        [
            "- program pod_ingress on p-web-0",
            "- program pod_egress on p-web-0",
            "+ program pod_egress on p-web-0",
            "+ program pod_ingress on p-web-0",
        ]
    );
}

#[test]
fn a_second_plan_is_empty_although_the_kernel_knows_more_than_we_asked_for() {
    let (wanted, names) = compile(&right(), &east_1()).expect("fits the host");
    let mut observed = wanted.clone();
    observe_tunnel(&mut observed);
    observed.settings.as_mut().expect("settings").generation = 41;
    assert_eq!(plan(&observed, &wanted, &names), []);
}

/// The device that was asked for by name has got a number.
fn observe_tunnel(image: &mut NodeImage) {
    image.attachments = image
        .attachments
        .iter()
        .cloned()
        .map(|at| match at.program {
            Program::TunnelIngress => Attachment { ifindex: 77, ..at },
            _ => at,
        })
        .collect();
}
