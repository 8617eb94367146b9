//! What lies behind gateways: mistakes, and the tables that it becomes.

mod config_support;

use std::net::Ipv4Addr;

use config_support::qos::{CEILING, UPLINKS};
use config_support::{check, check_text, east_1, longest_match, right_but};
use slice_agent::compile::{beside_fellows, compile};
use slice_agent::image::{Names, NodeImage};
use slice_agent::model::render;
use slice_common::layout::{Peer, Route, RouteKey, RouteKind, Settings};

/// The peers of the configuration that the scenes change, and what lies behind them.
const PEERS: &str = "   blocks: [{slice: shop, namespace: web, prefix: 10.78.64.0/29}]}\n";
const REMOTES: &str = "\
- {cluster: east, name: gw-1, underlay: 172.20.1.101}
- {cluster: east, name: gw-2, underlay: 172.20.1.102, mtu: 1400}
remotes:
- cluster: edge
  gateways: [east/gw-2, east/gw-1]
  blocks: [{slice: kafka, namespace: kafka, prefix: 10.77.128.0/29}]
- cluster: south
  gateways: [east/gw-1]
  blocks: [{slice: kafka, namespace: audit, prefix: 10.77.160.0/29}]
";

fn text(changes: &[(&str, &str)]) -> String {
    let mut remotes = REMOTES.to_owned();
    for (old, new) in changes {
        assert_eq!(remotes.matches(old).count(), 1, "`{old}` must occur once");
        remotes = remotes.replace(old, new);
    }
    right_but(&[(PEERS, &format!("{PEERS}{remotes}"))])
}

fn compiled(changes: &[(&str, &str)]) -> (NodeImage, Names) {
    let configuration = check_text(text(changes)).unwrap_or_else(|errors| panic!("{errors}"));
    compile(&configuration, &east_1()).unwrap_or_else(|errors| panic!("{}", render(&errors)))
}

fn route(image: &NodeImage, address: [u8; 4]) -> Route {
    let address = Ipv4Addr::from(address).into();
    longest_match(&image.routes, RouteKey { table: 1, address }).expect("a route")
}

macro_rules! refused {
    ($($name:ident: $old:expr => $new:expr, $message:expr;)*) => {
        $(
            #[test]
            fn $name() {
                let message = check_text(text(&[($old, $new)])).expect_err("a mistake");
                let place = "node.yaml, document 1, Node east/east-1, ";
                assert_eq!(message.trim_end().replace(place, ""), $message);
            }
        )*
    };
}

refused! {
    unknown_gateway:
        "[east/gw-1]"
        => "[east/gw-3]",
        "remotes[1].gateways[0]: no peer is called `east/gw-3`; add it to `peers`, or name one of \
         them as cluster/name: east/gw-1, east/gw-2, west/west-1, west/west-2";

    gateway_without_its_cluster:
        "[east/gw-1]"
        => "[gw-1]",
        "remotes[1].gateways[0]: no peer is called `gw-1`; add it to `peers`, or name one of them \
         as cluster/name: east/gw-1, east/gw-2, west/west-1, west/west-2";

    gateway_twice:
        "[east/gw-1]"
        => "[east/gw-1, east/gw-1]",
        "remotes[1].gateways[1]: the gateway `east/gw-1` is already used at \
         remotes[1].gateways[0]; each needs its own";

    no_gateway:
        "[east/gw-1]"
        => "[]",
        "remotes[1].gateways: the list is empty; name the peers that lead to the cluster";

    gateways_of_two_clusters:
        "[east/gw-1]"
        => "[east/gw-1, west/west-1]",
        "remotes[1].gateways[1]: `west/west-1` belongs to another cluster than `east/gw-1`; the \
         gateways of one entry are of one cluster, so make two entries with blocks of their own";

    own_cluster:
        "cluster: south"
        => "cluster: east",
        "remotes[1].cluster: `east` is this node's own cluster, whose nodes reach each other \
         directly; list its nodes and their blocks in `peers`";

    block_of_a_peer:
        "prefix: 10.77.160.0/29"
        => "prefix: 10.77.64.0/30",
        "remotes[1].blocks[0].prefix: 10.77.64.0/30 of kafka/audit on cluster south overlaps \
         10.77.64.0/29 of kafka/analytics on west/west-1 at peers[0].blocks[0]; a block has one \
         owner, so remove it from one of them";
}

const FELLOW: &str = "name: gw-2, underlay: 172.20.1.102, mtu: 1400";

#[test]
fn fellows_are_taken_last_and_only_where_they_are_no_gateway_anyway() {
    let fellow = format!("{FELLOW}, fellow: true");
    let (image, _) = compiled_as_gateway(&fellow);
    let shown = |address: [u8; 4]| {
        let group = image.path_groups[&route(&image, address).path_group];
        let remotes: Vec<_> = group.paths[..usize::from(group.count)]
            .iter()
            .map(|path| image.paths[path].remote.to_string())
            .collect();
        (remotes.join(" "), group.fellows)
    };
    let both = "172.20.1.102 172.20.1.101".to_owned();
    assert_eq!(shown([10, 77, 128, 2]), (both, 0));
    let with_fellow = "172.20.1.101 172.20.1.102".to_owned();
    assert_eq!(shown([10, 77, 160, 2]), (with_fellow, 1));
    let peer = image.peers[&Ipv4Addr::from([172, 20, 1, 102]).into()];
    let of_a_fellow = Peer::WATCHED | Peer::FELLOW | Peer::SAME_CLUSTER;
    assert_eq!(peer.flags, of_a_fellow);
    assert!(image.paths[&peer.path].is_to_fellow());
    let other = image.peers[&Ipv4Addr::from([172, 20, 1, 101]).into()];
    assert!(!other.is_fellow() && !image.paths[&other.path].is_to_fellow());
}

#[test]
fn fellow_of_a_member_is_refused() {
    let fellow = format!("{FELLOW}, fellow: true");
    let message = check_text(text(&[(FELLOW, &fellow)])).expect_err("a mistake");
    assert!(
        message.contains(
            "fellow: this node is no gateway, so it has no fellow gateways; set `gateway: true` or \
             remove `fellow`"
        ),
        "{message}"
    );
}

#[test]
fn fellow_of_another_cluster_is_refused() {
    let gateway = as_gateway(&format!("{FELLOW}, fellow: true"));
    let west = "underlay: 172.20.2.11,";
    assert_eq!(gateway.matches(west).count(), 1);
    let elsewhere = gateway.replace(west, &format!("{west} fellow: true,"));
    let message = check_text(elsewhere).expect_err("a mistake");
    assert!(
        message.contains(
            "peers[0].fellow: `west/west-1` is of another cluster; only a gateway of this node's own \
             cluster takes over what this node cannot send, so remove `fellow`"
        ),
        "{message}"
    );
}

fn as_gateway(fellow: &str) -> String {
    let underlay = "underlay: {";
    let text = text(&[(FELLOW, fellow)]);
    assert_eq!(text.matches(underlay).count(), 1);
    text.replace(underlay, &format!("gateway: true\n{underlay}"))
}

fn compiled_as_gateway(fellow: &str) -> (NodeImage, Names) {
    let configuration = check_text(as_gateway(fellow)).unwrap_or_else(|errors| panic!("{errors}"));
    compile(&configuration, &east_1()).unwrap_or_else(|errors| panic!("{}", render(&errors)))
}

#[test]
fn eight_gateways_are_too_many() {
    let mut peers = String::new();
    for n in 1..=8 {
        peers += &format!("- {{cluster: hub, name: gw-{n}, underlay: 172.20.9.{n}}}\n");
    }
    let list = |count: usize| {
        let names: Vec<_> = (1..=count).map(|n| format!("hub/gw-{n}")).collect();
        format!("[{}]", names.join(", "))
    };
    let with = |count| {
        let gateways = list(count);
        check_text(text(&[
            ("remotes:\n", &format!("{peers}remotes:\n")),
            ("[east/gw-1]", &gateways),
        ]))
    };
    with(7).expect("as many as a packet can choose among");
    let message = with(8).expect_err("one too many");
    assert!(
        message.contains("8 gateways, but a packet can choose among 7 at most; remove some"),
        "{message}"
    );
}

#[test]
fn paths_are_in_order_and_all_gateways_may_deliver() {
    let (image, names) = compiled(&[]);
    let edge = route(&image, [10, 77, 128, 2]);
    assert_eq!(edge.kind, RouteKind::Via.number());
    let group = image.path_groups[&edge.path_group];
    let remotes: Vec<_> = group.paths[..group.count as usize]
        .iter()
        .map(|path| image.paths[path].remote.to_string())
        .collect();
    assert_eq!(remotes, ["172.20.1.102", "172.20.1.101"]);
    assert_eq!(
        names.path_groups[&edge.path_group],
        "edge behind east/gw-2, east/gw-1"
    );

    let peer = |address: [u8; 4]| image.peers[&Ipv4Addr::from(address).into()];
    let (first, second) = (peer([172, 20, 1, 101]), peer([172, 20, 1, 102]));
    assert_eq!(first.group, second.group);
    assert_eq!(edge.deliver_group, first.group);
    assert_eq!(edge.deliver_members, first.member | second.member);
    assert_eq!(first.member & second.member, 0);

    let south = route(&image, [10, 77, 160, 2]);
    assert_eq!(
        (south.deliver_group, south.deliver_members),
        (first.group, first.member)
    );
    // What a peer owns comes from nobody else.
    let west = route(&image, [10, 77, 64, 2]);
    let owner = peer([172, 20, 2, 11]);
    assert_eq!(
        (west.deliver_group, west.deliver_members),
        (owner.group, owner.member)
    );
    assert_ne!(owner.group, first.group);
}

#[test]
fn paths_know_the_cluster_that_they_lead_to() {
    let (image, names) = compiled(&[]);
    let clusters: Vec<_> = image
        .paths
        .values()
        .map(|path| {
            (
                path.remote.to_string(),
                names.clusters[&path.cluster].clone(),
            )
        })
        .collect();
    assert!(clusters.contains(&("172.20.1.101".to_owned(), "east".to_owned())));
    assert!(clusters.contains(&("172.20.2.11".to_owned(), "west".to_owned())));
    // Counters name the cluster behind the gateways.
    let edge = route(&image, [10, 77, 128, 2]);
    assert_eq!(names.clusters[&edge.cluster], "edge");
}

#[test]
fn only_a_gateway_passes_packets_on() {
    let flags = |image: &NodeImage| image.settings.map(|settings| settings.flags);
    assert_eq!(flags(&compiled(&[]).0), Some(0));
    let gateway = ("remotes:\n", "gateway: true\nremotes:\n");
    assert_eq!(flags(&compiled(&[gateway]).0), Some(Settings::GATEWAY));
}

#[test]
fn the_examples_of_members_and_gateways_are_right() {
    for folder in ["member", "gateway"] {
        let examples = format!("{}/../deploy/examples/{folder}", env!("CARGO_MANIFEST_DIR"));
        let example = check(examples.as_ref()).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(example.node().is_gateway, folder == "gateway");
        assert_eq!(example.node().remotes.len(), 1);
        // Nor is anything more doubted when slices get ceilings.
        let mut files: Vec<_> = std::fs::read_dir(&examples)
            .expect("a folder")
            .map(|file| file.expect("a file").path())
            .collect();
        files.sort();
        let texts = files
            .iter()
            .map(|file| std::fs::read_to_string(file).expect("a text"));
        let text = texts.collect::<Vec<_>>().join("---\n");
        assert_eq!(doubts(&shaped(&text)), doubts(&text), "{folder}");
    }
}

/// `text` with its fellow as the only gateway to `south`; the other gateway of the same cluster may do.
#[test]
fn a_gateway_needs_another_way_to_a_cluster_than_its_fellow() {
    let gateway = |only: &str| {
        let text = text(&[
            (FELLOW, &format!("{FELLOW}, fellow: true")),
            ("gateways: [east/gw-1]", &format!("gateways: [{only}]")),
        ]);
        check_text(text.replacen("name: east-1\n", "name: east-1\ngateway: true\n", 1))
    };
    gateway("east/gw-1").expect("not a fellow");
    gateway("east/gw-2, east/gw-1").expect("not only the fellow");
    let message = gateway("east/gw-2").expect_err("a mistake");
    assert_eq!(
        message.trim_end(),
        "node.yaml, document 1, Node east/east-1, remotes[1].gateways: east/gw-2 are fellows of this gateway, which \
         take over what it cannot send and do not pass that on to others; name gateways of another cluster"
    );
}

fn doubts(text: &str) -> String {
    let configuration = check_text(text).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    let doubts = render(configuration.doubts());
    let lines = doubts
        .lines()
        .map(|line| line.split_once("node.yaml, ").expect("a place").1);
    lines.collect::<Vec<_>>().join("\n")
}

/// It may be meant (a cluster of one node), so it is told; with nothing of its own it can only be a gateway.
#[test]
fn a_member_that_names_another_clusters_gateway_is_told() {
    let elsewhere = text(&[("[east/gw-1]", "[west/west-1]")]);
    assert_eq!(doubts(&text(&[])), "");
    assert_eq!(
        doubts(&elsewhere),
        "document 1, Node east/east-1, remotes[1].gateways: this node is no gateway, so what it sends goes to gateways \
         of cluster west itself, and must be expected there (as a peer with its blocks); if cluster west expects \
         gateways of this cluster, name those, and if this node is one write `gateway: true`"
    );
    let gateway = |text: &str| text.replacen("name: east-1\n", "name: east-1\ngateway: true\n", 1);
    assert_eq!(doubts(&gateway(&elsewhere)), "");

    let between = |text: &str, from: &str, to: &str| {
        let (before, rest) = text.split_once(from).expect("its begin");
        let (_, after) = rest.split_once(to).expect("its end");
        format!("{before}{to}{after}")
    };
    let nothing_own = between(&elsewhere, "endpoints:\n", "peers:\n");
    check_text(gateway(&nothing_own)).expect("a gateway has no pods");
    assert_eq!(
        check_text(&nothing_own).expect_err("a mistake").trim_end(),
        "node.yaml, document 1, Node east/east-1, gateway: this node has no blocks of its own and names gateways of \
         another cluster, so it is a gateway; write `gateway: true`"
    );
}

#[test]
fn a_rule_for_a_namespace_that_nobody_is_in_is_told() {
    assert_eq!(doubts(&right_but(&[])), "");
    let mistyped = right_but(&[(
        "from: [analytics], to: [kafka]",
        "from: [analytic, kafka], to: [kafka]",
    )]);
    assert_eq!(
        doubts(&mistyped),
        "document 2, Slice kafka, spec.policy.rules[1].from[0]: no block of slice kafka that this node knows is of \
         namespace `analytic`, so the rule is for nobody there; correct the name (there are analytics, audit, kafka), or \
         list the blocks"
    );
}

/// With an uplink, and a ceiling for slice kafka.
fn shaped(text: &str) -> String {
    let uplinks = format!("interface: nic0}}\n{UPLINKS}");
    let ceiling = format!("  qos:\n{CEILING}");
    let mut text = text.to_owned();
    for (old, new) in [("interface: nic0}\n", uplinks), ("  qos:\n", ceiling)] {
        assert_eq!(text.matches(old).count(), 1, "`{old}` must occur once");
        text = text.replace(old, &new);
    }
    text
}

/// Two gateways come first, each for a cluster: nobody meant twice the ceiling.
#[test]
fn gateways_that_both_send_because_of_their_order_are_told() {
    let as_they_are = shaped(&text(&[]));
    assert_eq!(
        doubts(&as_they_are),
        "document 1, Node east/east-1, remotes[1].gateways: packets of slice kafka are sent to south behind east/gw-1, \
         and to edge behind east/gw-2, east/gw-1: the first gateways send at the same time, each up to the whole ceiling \
         of 200M where its `uplinks[].nodes` is 1, together 400M; name the same one first, or write `nodes: 2` on both, \
         unless each has a link of its own"
    );
    assert_eq!(doubts(&text(&[])), "", "nothing is shaped");
    for (right, why) in [
        (
            ("[east/gw-2, east/gw-1]", "[east/gw-1, east/gw-2]"),
            "one comes first",
        ),
        (
            ("[east/gw-2, east/gw-1]", "[east/gw-2]"),
            "neither stands in for the other: links of their own",
        ),
        (
            (
                "slice: kafka, namespace: audit",
                "slice: shop, namespace: web",
            ),
            "of two slices",
        ),
    ] {
        let right = text(&[right]).replace("prefix: 10.77.160.0/29}]", "prefix: 10.78.160.0/29}]");
        let right = match why {
            "of two slices" => right,
            _ => right.replace("10.78.160.0", "10.77.160.0"),
        };
        assert_eq!(doubts(&shaped(&right)), "", "{why}");
    }
}

/// Their own pods' packets leave by themselves, whatever members do.
#[test]
fn fellow_gateways_with_pods_of_one_slice_are_told() {
    let with = |fellow: &str| {
        let text = as_gateway(&format!("{FELLOW}, fellow: true{fellow}"));
        let one_order = text.replace("[east/gw-2, east/gw-1]", "[east/gw-1, east/gw-2]");
        assert_ne!(one_order, text);
        shaped(&one_order)
    };
    let pods = ", blocks: [{slice: kafka, namespace: kafka, prefix: 10.77.192.0/29}]";
    assert_eq!(
        doubts(&with(pods)),
        "document 1, Node east/east-1, uplinks[0].nodes: this gateway has pods of slice kafka, and so has its fellow \
         gw-2: what they send leaves by their own gateway, whichever one members choose, so each sends by uplink wan up \
         to 200M, together 400M where the ceiling is 200M; write `nodes: 2` on all of them, unless each has a link of its \
         own"
    );
    assert_eq!(doubts(&with("")), "", "the fellow has none");
    let divided = with(pods).replace("rate: 300M", "rate: 300M, nodes: 2");
    assert_eq!(doubts(&divided), "");

    // Whom members choose this file does not show, so the worst is told and not doubted.
    let worst = |text: &str| {
        let configuration = check_text(text).expect("right");
        beside_fellows(&configuration, &configuration.node().uplinks[0])
    };
    let told = worst(&with("")).expect("a fellow");
    assert!(
        told.starts_with("uplink wan: fellow gateways (gw-2) send as much beside this one"),
        "{told}"
    );
    assert!(told.ends_with("or write `nodes: 2`"), "{told}");
    assert_eq!(worst(&divided), None);
    assert_eq!(worst(&shaped(&text(&[]))), None, "no gateway");
}
