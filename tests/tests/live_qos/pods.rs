//! Pods have classes of their own, by label or namespace, where no port decides: in both directions, and as
//! soon as somebody says so.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_yaml_ng::Value;
use slice_tests::child::poll_until;
use slice_tests::harness::say;
use slice_tests::lab::config::node_documents;
use slice_tests::lab::inventory::{NODES, NodeSpec, PodSpec, find_pod};
use slice_tests::lab::{Counters, Lab, LabOptions};
use slice_tests::traffic::tcp::{self, TcpLoad, TcpOptions};

const LIMIT: Duration = Duration::from_secs(30);
/// Enough that answers are counted too.
const MEASURED_BYTES: u64 = 300_000;
/// In no class of the lab's slice shop, and in one of its slice kafka, which this test replaces.
const SHOP_PORT: u16 = 5201;
const KAFKA_PORT: u16 = 9092;

/// Classes by label in slice shop. A pod with labels of both is of neither.
const SHOP_QOS: &str = "\
classes:
- {name: gold, match: [{podLabels: {tier: gold}}], dscp: 10}
- {name: silver, match: [{podLabels: {tier: silver}}, {podLabels: {cheap: \"yes\"}, namespaces: [web]}]}
";
/// The one class of slice kafka, before and after: the second by namespace.
const KAFKA_QOS: [&str; 2] = [
    "classes: [{name: reports, match: [{protocol: UDP, port: 9}]}]",
    "classes: [{name: reports, match: [{namespaces: [analytics]}]}]",
];

/// What pods are labelled with.
type Labelled<'a> = &'a [(&'a str, &'a str)];

/// Sends between the same two ports in different classes, and moves what is under way.
pub(super) fn are_of_the_classes_that_are_said(agent: &Path, options: LabOptions) -> Result<()> {
    let lab = Lab::up(&options)?;
    let unlabelled: Labelled = &[];
    write(&lab, KAFKA_QOS[0], unlabelled)?;
    lab.start_agents(agent)?;
    let flows = [
        flow(&lab, ["web-2", "web-0"], SHOP_PORT)?,
        flow(&lab, ["web-2", "web-1"], SHOP_PORT)?,
        flow(&lab, ["kafka-0", "kafka-2"], KAFKA_PORT)?,
        flow(&lab, ["analytics-1", "kafka-1"], KAFKA_PORT)?,
    ];
    let go_in = |scene: &str, classes: [&str; 4]| all_go_in(&lab, &flows, scene, classes);
    go_in("nothing is said", ["default"; 4])?;

    let labelled: Labelled = &[("web-0", "{tier: gold}"), ("web-1", "{tier: silver}")];
    write(&lab, KAFKA_QOS[1], labelled)?;
    go_in(
        "labels and a namespace",
        ["gold", "silver", "default", "reports"],
    )?;

    let labelled: Labelled = &[("web-0", "{tier: silver}"), ("web-1", "{tier: silver}")];
    write(&lab, KAFKA_QOS[1], labelled)?;
    let in_force = ["silver", "silver", "default", "reports"];
    go_in("another label", in_force)?;

    let before = generations(&lab)?;
    let ambiguous: Labelled = &[("web-0", "{tier: gold, cheap: \"yes\"}"), ("web-1", "{}")];
    write(&lab, KAFKA_QOS[0], ambiguous)?;
    let refused = poll_until(LIMIT, || {
        let counters = lab.counters()?;
        let is_refused = |node: &NodeSpec| {
            counters.sum("sliceplane_config_valid", &[("node", node.name)]) == 0.0
        };
        Ok(NODES.iter().all(is_refused).then_some(()))
    })?;
    refused.context("a pod of two classes is not refused")?;
    go_in("what is refused changes nothing", in_force)?;
    ensure!(generations(&lab)? == before, "something was put in force");
    for load in flows {
        let report = load.load.stop()?;
        ensure!(report.is_whole(), "{report:#?}");
    }
    Ok(())
}

/// A connection, and the nodes at its ends.
struct Flow {
    slice: &'static str,
    nodes: [&'static str; 2],
    load: TcpLoad,
}

fn flow(lab: &Lab, pods: [&'static str; 2], port: u16) -> Result<Flow> {
    let [from, to] = pods.map(|name| find_pod(name).with_context(|| format!("no pod {name}")));
    let (from, to) = (from?, to?);
    let places = [lab.pod(from.name)?.place()?, lab.pod(to.name)?.place()?];
    let options = TcpOptions {
        port,
        rate_bps: Some(20_000_000),
        ..TcpOptions::default()
    };
    Ok(Flow {
        slice: from.member.context("a member of a slice")?.slice,
        nodes: [from.node, to.node],
        load: tcp::start(&places[0], &places[1], &options)?,
    })
}

/// Waits until every flow goes in its class, in both directions and at both ends, and nothing in any other.
fn all_go_in(lab: &Lab, flows: &[Flow; 4], scene: &str, classes: [&str; 4]) -> Result<()> {
    let wanted = |slice: &str, node: &str| -> BTreeSet<String> {
        let both = flows.iter().zip(classes);
        let here = both.filter(|(flow, _)| flow.slice == slice && flow.nodes.contains(&node));
        here.map(|(_, class)| class.to_owned()).collect()
    };
    let mut seen = String::new();
    let settled = poll_until(LIMIT, || {
        let before = lab.counters()?;
        for flow in flows {
            flow.load.wait_for_more(MEASURED_BYTES, LIMIT)?;
        }
        let added = lab.counters()?.since(&before);
        seen.clear();
        let mut is_as_wanted = true;
        for slice in ["kafka", "shop"] {
            for node in &NODES {
                for direction in ["out", "in"] {
                    let used = classes_used(&added, slice, node.name, direction);
                    is_as_wanted &= used == wanted(slice, node.name);
                    seen += &format!("\n{slice} {direction} {}: {used:?}", node.name);
                }
            }
        }
        Ok(is_as_wanted.then_some(()))
    })?;
    settled.with_context(|| format!("{scene}: not in {classes:?}, but{seen}"))?;
    say(&format!("{scene}: in {classes:?}, both ways"));
    Ok(())
}

fn classes_used(added: &Counters, slice: &str, node: &str, direction: &str) -> BTreeSet<String> {
    let names = ["default", "gold", "silver", "reports"];
    let used = names.into_iter().filter(|class| {
        let labels = [
            ("node", node),
            ("slice", slice),
            ("class", *class),
            ("direction", direction),
        ];
        added.sum("sliceplane_traffic_packets_total", &labels) > 0.0
    });
    used.map(str::to_owned).collect()
}

fn generations(lab: &Lab) -> Result<Vec<f64>> {
    let counters = lab.counters()?;
    let of = |node: &NodeSpec| counters.sum("sliceplane_config_generation", &[("node", node.name)]);
    Ok(NODES.iter().map(of).collect())
}

/// Gives every node the same classes and the same labels of pods, its own and others'.
fn write(lab: &Lab, kafka_qos: &str, labelled: Labelled) -> Result<()> {
    for node in &NODES {
        let documents = node_documents(node)?;
        let documents = documents.split("---\n").map(|text| -> Result<String> {
            let mut document: Value = serde_yaml_ng::from_str(text)?;
            if document["kind"] == "Node" {
                for (name, labels) in labelled {
                    let pod = find_pod(name).with_context(|| format!("no pod {name}"))?;
                    add_labels(&mut document, node, pod, labels)?;
                }
            } else if document["metadata"]["name"] == "shop" {
                document["spec"]["qos"] = serde_yaml_ng::from_str(SHOP_QOS)?;
            } else {
                document["spec"]["qos"] = serde_yaml_ng::from_str(kafka_qos)?;
            }
            Ok(serde_yaml_ng::to_string(&document)?)
        });
        let text = documents.collect::<Result<Vec<_>>>()?.join("---\n");
        let file = lab.node(node.name)?.config;
        let beside = file.with_extension("new");
        std::fs::write(&beside, text)?;
        std::fs::rename(&beside, &file)?;
    }
    Ok(())
}

/// Where the pod is, its endpoint has them; elsewhere the peer is said to have such an endpoint.
fn add_labels(document: &mut Value, node: &NodeSpec, pod: &PodSpec, labels: &str) -> Result<()> {
    let labels: Value = serde_yaml_ng::from_str(labels)?;
    if pod.node == node.name {
        let endpoints = document["endpoints"].as_sequence_mut();
        let endpoint = endpoints
            .into_iter()
            .flatten()
            .find(|it| it["name"] == pod.name);
        endpoint.context("the pod is an endpoint")?["labels"] = labels;
        return Ok(());
    }
    let member = pod.member.context("a member of a slice")?;
    let address = pod.slice_address().context("a slice address")?;
    let mut endpoint = Value::from(serde_yaml_ng::Mapping::new());
    endpoint["slice"] = member.slice.into();
    endpoint["namespace"] = member.namespace.into();
    endpoint["name"] = pod.name.into();
    endpoint["sliceAddress"] = address.to_string().into();
    endpoint["labels"] = labels;
    let peers = document["peers"].as_sequence_mut();
    let peer = peers
        .into_iter()
        .flatten()
        .find(|it| it["name"] == pod.node);
    let of_peer = &mut peer.context("the pod's node is a peer")?["endpoints"];
    match of_peer.as_sequence_mut() {
        Some(listed) => listed.push(endpoint),
        None => *of_peer = Value::Sequence(vec![endpoint]),
    }
    Ok(())
}
