//! Classes by namespace and label: mistakes, and the tables that they become.

mod config_support;

use std::net::Ipv4Addr;

use config_support::apply::image_of;
use config_support::{check_text, longest_match, right_but};
use proptest::prelude::*;
use slice_agent::model::render;
use slice_agent::plan::{Change, plan};
use slice_common::layout::{Class, Endpoint, Route, RouteKey, RouteKind};

/// Of the pod kafka-0 here, of cache-1 and log-1 elsewhere, and of cache-2 behind a gateway.
const POD: &str = "address: 10.1.1.10, sliceAddress: 10.77.0.2}";
const PEER: &str = "   blocks: [{slice: kafka, namespace: analytics, prefix: 10.77.64.0/29}]}\n";
const LAST_PEER: &str = "   blocks: [{slice: shop, namespace: web, prefix: 10.78.64.0/29}]}\n";
const CLASSES: &str = "    - {name: client, match: [{protocol: TCP, port: 9091-9092}], dscp: 18}\n";

const LABELLED: &str = concat!(
    "   blocks: [{slice: kafka, namespace: analytics, prefix: 10.77.64.0/29}],\n",
    "   endpoints: [\n",
    "   {slice: kafka, namespace: analytics, name: cache-1, sliceAddress: 10.77.64.2, labels: {app: cache}},\n",
    "   {slice: kafka, namespace: analytics, name: log-1, sliceAddress: 10.77.64.3, labels: {app: log, tier: slow}},\n",
    "   {slice: kafka, namespace: analytics, name: bare-1, sliceAddress: 10.77.64.4}]}\n",
);
const REMOTE: &str = "\
- {cluster: east, name: gw-1, underlay: 172.20.1.101}
remotes:
- cluster: edge
  gateways: [east/gw-1]
  blocks: [{slice: kafka, namespace: kafka, prefix: 10.77.128.0/29}]
  endpoints:
  - {slice: kafka, namespace: kafka, name: cache-2, sliceAddress: 10.77.128.2, labels: {app: cache}}
";
/// Class 3 is a namespace, 4 a label, and 5 a label in a namespace.
const BY_PODS: &str = concat!(
    "    - {name: reports, match: [{namespaces: [analytics, audit]}], dscp: 8}\n",
    "    - {name: caches, match: [{podLabels: {app: cache}}], dscp: 16}\n",
    "    - {name: slow, match: [{podLabels: {tier: slow, app: log}, namespaces: [analytics]}], dscp: 24}\n",
);

fn labelled() -> String {
    right_but(&[
        (
            POD,
            "address: 10.1.1.10, sliceAddress: 10.77.0.2, labels: {app: kafka}}",
        ),
        (PEER, LABELLED),
        (LAST_PEER, &format!("{LAST_PEER}{REMOTE}")),
        (CLASSES, &format!("{CLASSES}{BY_PODS}")),
    ])
}

fn labelled_but(changes: &[(&str, &str)]) -> String {
    let mut text = labelled();
    for (old, new) in changes {
        assert_eq!(text.matches(old).count(), 1, "`{old}` must occur once");
        text = text.replace(old, new);
    }
    text
}

fn route(text: &str, address: [u8; 4]) -> Route {
    let (image, _) = image_of(text);
    let address = Ipv4Addr::from(address).into();
    longest_match(&image.routes, RouteKey { table: 1, address }).expect("a route")
}

fn class_behind(text: &str, address: [u8; 4]) -> (u8, u8) {
    let class = route(text, address).class();
    (class.class, class.dscp)
}

fn kafka_0(text: &str) -> Endpoint {
    image_of(text).0.endpoints[&3]
}

#[test]
fn a_pod_is_of_the_class_of_its_labels_else_of_its_namespace() {
    let text = labelled();
    let behind = |address| class_behind(&text, address);
    assert_eq!(behind([10, 77, 64, 2]), (4, 16), "cache-1");
    assert_eq!(behind([10, 77, 64, 3]), (5, 24), "log-1");
    assert_eq!(behind([10, 77, 64, 4]), (3, 8), "bare-1");
    assert_eq!(behind([10, 77, 64, 5]), (3, 8), "a pod that is not listed");
    assert_eq!(behind([10, 77, 128, 2]), (4, 16), "cache-2");
    assert_eq!(behind([10, 77, 128, 3]), (0, 0), "beside cache-2");
    assert_eq!(behind([10, 77, 0, 9]), (3, 8), "of namespace audit, here");
    assert_eq!(behind([10, 77, 0, 2]), (0, 0), "kafka-0");
    assert_eq!(kafka_0(&text).class, Class::DEFAULT);
}

#[test]
fn a_pod_here_is_of_its_class_when_it_sends_and_when_it_gets() {
    let text = labelled_but(&[("{app: kafka}", "{app: cache}")]);
    let here = kafka_0(&text).class;
    assert_eq!((here.class, here.dscp), (4, 16));
    let to_it = route(&text, [10, 77, 0, 2]);
    assert_eq!(to_it.class(), here);
    assert_eq!(to_it.kind, RouteKind::Local.number());
    assert_eq!(class_behind(&text, [10, 77, 0, 3]), (0, 0), "beside it");
}

/// Who may bring packets from there, by which way one gets there, and whose it is.
#[test]
fn a_pods_route_is_its_blocks_but_for_the_class() {
    let text = labelled();
    for (pod, beside) in [
        ([10, 77, 64, 2], [10, 77, 64, 5]),
        ([10, 77, 128, 2], [10, 77, 128, 3]),
    ] {
        let (own, block) = (route(&text, pod), route(&text, beside));
        assert_ne!(own.class(), block.class());
        let but_for_class = Route {
            class: block.class,
            dscp: block.dscp,
            ..own
        };
        assert_eq!(but_for_class, block);
    }
}

#[test]
fn only_pods_of_another_class_than_their_block_need_a_route() {
    let routes = |text: &str| image_of(text).0.routes.len();
    let without = routes(&labelled_but(&[(BY_PODS, "")]));
    assert_eq!(routes(&labelled()), without + 3, "cache-1, log-1, cache-2");
}

#[test]
fn a_new_label_changes_the_pods_class_and_nothing_else() {
    let (before, _) = image_of(&labelled());
    let text = labelled_but(&[("{app: kafka}", "{app: cache}")]);
    let (after, names) = image_of(&text);
    let lines: Vec<_> = plan(&before, &after, &names)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        lines,
        [
            "~ endpoint on interface #3: pod 10.1.1.10 is 10.77.0.2 of kafka/kafka, isolated, class caches",
            "~ routes: 1 added, 0 removed, 0 changed; 12 in all, swapped at once",
            "~ settings: underlay 172.20.1.11, UDP port 6085, generation 1",
        ]
    );
    let changes = plan(&before, &after, &names);
    assert!(matches!(changes.last(), Some(Change::Activate(_))));
}

/// `east-1` has the one pod and knows the other; `west-1` the other way round.
fn node(is_east: bool, pods: [&str; 2]) -> String {
    let side = |at: usize| {
        let (cluster, number, prefix) = [("east", 1, "10.77.0"), ("west", 2, "10.77.64")][at];
        (cluster, number, prefix, pods[at])
    };
    let (own, other) = if is_east {
        (side(0), side(1))
    } else {
        (side(1), side(0))
    };
    let (cluster, number, prefix, pod) = own;
    let (peer, peer_number, peer_prefix, peer_pod) = other;
    let (_, slices) = labelled()
        .split_once("---\n")
        .map(|(node, slices)| (node.to_owned(), slices.to_owned()))
        .expect("documents");
    format!(
        "kind: Node\n\
         cluster: {cluster}\n\
         name: {cluster}-1\n\
         underlay: {{address: 172.20.{number}.11, interface: nic0}}\n\
         endpoints:\n\
         - {{slice: kafka, name: pod-{number}, interface: p-kafka-0, address: 10.1.1.10, \
             sliceAddress: {prefix}.2, {pod}}}\n\
         blocks:\n\
         - {{slice: kafka, prefix: {prefix}.0/29, {}}}\n\
         peers:\n\
         - cluster: {peer}\n\
         \x20 name: {peer}-1\n\
         \x20 underlay: 172.20.{peer_number}.11\n\
         \x20 blocks: [{{slice: kafka, prefix: {peer_prefix}.0/29, {}}}]\n\
         \x20 endpoints: [{{slice: kafka, name: pod-{peer_number}, sliceAddress: {peer_prefix}.2, \
             {peer_pod}}}]\n\
         ---\n{slices}",
        namespace(pod),
        namespace(peer_pod),
    )
}

fn namespace(pod: &str) -> &str {
    pod.split(", ").next().expect("a namespace")
}

/// Each namespace and label that a class means, and some that none does.
fn any_pod() -> impl Strategy<Value = String> {
    let namespace = prop::sample::select(vec!["kafka", "analytics", "audit"]);
    let labels = prop::sample::select(vec![
        "",
        "app: cache",
        "app: log",
        "app: log, tier: slow",
        "tier: slow",
        "app: other, role: any",
    ]);
    (namespace, labels)
        .prop_map(|(namespace, labels)| format!("namespace: {namespace}, labels: {{{labels}}}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn both_clusters_put_a_conversation_into_the_same_class(one in any_pod(), other in any_pod()) {
        let seen_from = |is_east: bool, other_address: [u8; 4]| {
            let text = node(is_east, [&one, &other]);
            Class::between(kafka_0(&text).class, route(&text, other_address).class())
        };
        let in_east = seen_from(true, [10, 77, 64, 2]);
        let in_west = seen_from(false, [10, 77, 0, 2]);
        prop_assert_eq!(in_east, in_west);
        let is_plain = |pod: &str| pod.starts_with("namespace: kafka") && !pod.contains("cache");
        prop_assert_eq!(in_east == Class::DEFAULT, is_plain(&one) && is_plain(&other));
    }
}

macro_rules! refused {
    ($($name:ident: $old:expr => $new:expr, $message:expr;)*) => {
        $(
            #[test]
            fn $name() {
                let message = check_text(labelled_but(&[($old, $new)])).expect_err("a mistake");
                assert_eq!(message.trim_end().replace("node.yaml, document ", ""), $message);
            }
        )*
    };
}

refused! {
    a_pod_of_two_classes_by_label:
        "namespaces: [analytics]}" => "namespaces: [analytics]}, {podLabels: {app: cache}}",
        "1, Node east/east-1, peers[0].endpoints[0].labels: pod analytics/cache-1 of slice kafka is of class caches by \
         2, Slice kafka, spec.qos.classes[3].match[0] and of class slow by 2, Slice kafka, \
         spec.qos.classes[4].match[1]; a pod is of one class, so change its labels or one of the matches\n\
         1, Node east/east-1, remotes[0].endpoints[0].labels: pod kafka/cache-2 of slice kafka is of class caches by \
         2, Slice kafka, spec.qos.classes[3].match[0] and of class slow by 2, Slice kafka, \
         spec.qos.classes[4].match[1]; a pod is of one class, so change its labels or one of the matches";

    a_namespace_of_two_classes:
        "match: [{podLabels: {app: cache}}]" => "match: [{namespaces: [kafka, audit]}]",
        "2, Slice kafka, spec.qos.classes[3].match[0].namespaces[1]: namespace audit is also matched at 2, Slice \
         kafka, spec.qos.classes[2].match[0]; a packet is of one class, so remove one match";

    ports_and_pods_in_one_match:
        "{podLabels: {app: cache}}" => "{podLabels: {app: cache}, protocol: TCP, port: 6379}",
        "2, Slice kafka, spec.qos.classes[3].match[0]: a match names ports or pods, not both: ports count whoever \
         sends, and what a pod is counts for what no port decides; make two matches of it, or take the ports out";

    a_match_of_nothing:
        "{podLabels: {app: cache}}" => "{}",
        "2, Slice kafka, spec.qos.classes[3].match[0]: the match names nothing; give `protocol` (and `port`), \
         `namespaces` or `podLabels`";

    a_port_of_no_protocol:
        "{podLabels: {app: cache}}" => "{port: 6379}",
        "2, Slice kafka, spec.qos.classes[3].match[0].port: `port: 6379` is of no protocol; add `protocol: TCP` or \
         `protocol: UDP`";

    no_labels:
        "{podLabels: {app: cache}}" => "{podLabels: {}}",
        "2, Slice kafka, spec.qos.classes[3].match[0].podLabels: the list is empty; list labels that the pods have, \
         as in {app: kafka}";

    no_namespaces:
        "{podLabels: {app: cache}}" => "{podLabels: {app: cache}, namespaces: []}",
        "2, Slice kafka, spec.qos.classes[3].match[0].namespaces: the list is empty; list namespaces, or remove \
         `namespaces` to mean every one";

    every_namespace:
        "namespaces: [analytics, audit]" => "namespaces: [\"*\"]",
        "2, Slice kafka, spec.qos.classes[2].match[0].namespaces[0]: `*` is not a name: 1 to 63 of a-z, 0-9, `-`, a \
         letter or digit at both ends";

    a_key_that_is_none:
        "{app: kafka}" => "{\"app name\": kafka}",
        "1, Node east/east-1, endpoints[0].labels: `app name` is not the key of a label: 1 to 63 of a-z, A-Z, 0-9, \
         `-`, `_` and `.`, a letter or digit at both ends; before that there may be a domain and `/`, as in \
         example.com/role";

    a_key_without_a_name:
        "{podLabels: {app: cache}}" => "{podLabels: {example.com/: cache}}",
        "2, Slice kafka, spec.qos.classes[3].match[0].podLabels: `example.com/` is not the key of a label: 1 to 63 of \
         a-z, A-Z, 0-9, `-`, `_` and `.`, a letter or digit at both ends; before that there may be a domain and `/`, \
         as in example.com/role";

    a_value_that_is_none:
        "{app: kafka}" => "{app: kafka-}",
        "1, Node east/east-1, endpoints[0].labels.app: `kafka-` is not the value of a label: up to 63 of a-z, A-Z, \
         0-9, `-`, `_` and `.`, a letter or digit at both ends";

    a_pod_elsewhere_outside_its_blocks:
        "sliceAddress: 10.77.64.2" => "sliceAddress: 10.77.128.5",
        "1, Node east/east-1, peers[0].endpoints[0].sliceAddress: `10.77.128.5` lies outside the blocks of \
         kafka/analytics that peer west/west-1 has (10.77.64.0/29); take an address from one of them";

    a_pod_elsewhere_of_another_namespace:
        "namespace: kafka, name: cache-2" => "namespace: audit, name: cache-2",
        "1, Node east/east-1, remotes[0].endpoints[0]: cluster edge has no block of kafka/audit, so no address for \
         this endpoint; add one to its `blocks`";

    two_pods_at_one_address:
        "sliceAddress: 10.77.64.3" => "sliceAddress: 10.77.64.2",
        "1, Node east/east-1, peers[0].endpoints[1].sliceAddress: the sliceAddress `10.77.64.2` is already used at \
         1, Node east/east-1, peers[0].endpoints[0].sliceAddress; each needs its own";
}

fn doubts(text: &str) -> String {
    let configuration = check_text(text).unwrap_or_else(|errors| panic!("{errors}"));
    let told = render(configuration.doubts());
    let lines = told
        .lines()
        .map(|line| line.split_once(", document ").expect("a place").1);
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_match_that_nobody_fits_is_told() {
    assert_eq!(doubts(&labelled()), "");
    assert_eq!(
        doubts(&labelled_but(&[(
            "[analytics, audit]",
            "[analytics, audits]"
        )])),
        "2, Slice kafka, spec.qos.classes[2].match[0].namespaces[1]: no block of slice kafka that this node knows is \
         of namespace `audits`, so the match is for nobody there; correct the name (there are analytics, audit, \
         kafka), or list the blocks"
    );
    assert_eq!(
        doubts(&labelled_but(&[(
            "{tier: slow, app: log}",
            "{tier: fast, app: log}"
        )])),
        "2, Slice kafka, spec.qos.classes[4].match[0]: no pod of slice kafka that this node knows is in analytics and \
         labelled app=log, tier=fast, so nothing is of class slow by that here; correct the match, or give the pods \
         their labels in `endpoints` (of this node, of `peers` and of `remotes`)"
    );
}

/// A node that has no pod of the slice puts nothing into classes.
#[test]
fn nobody_is_missed_where_no_pod_sends() {
    let without = "- {slice: kafka, namespace: kafka, name: kafka-0,\n   interface: p-kafka-0, address: 10.1.1.10, \
                   sliceAddress: 10.77.0.2, labels: {app: kafka}}\n";
    let text = labelled_but(&[(without, ""), ("{tier: slow, app: log}", "{tier: fast}")]);
    assert_eq!(doubts(&text), "");
}
