//! The agents' configuration and the pods' hosts file, made from the inventory.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use serde::Serialize;

use super::inventory::{Block, NODES, NodeSpec, PODS, SLICES, SliceSpec, find_pod};

/// What the policy of slice `kafka` allows: name, from, to, ports.
const KAFKA_RULES: &[RuleSpec] = &[
    RuleSpec {
        name: "brokers",
        from: &["kafka"],
        to: &["kafka"],
        ports: &[("TCP", Some("9090-9092")), ("ICMP", None)],
    },
    RuleSpec {
        name: "clients",
        from: &["producers", "analytics"],
        to: &["kafka"],
        ports: &[("TCP", Some("9092")), ("ICMP", None)],
    },
    RuleSpec {
        name: "measure",
        from: &["kafka"],
        to: &["kafka"],
        ports: &[
            ("TCP", Some("5201")),
            ("UDP", Some("5201")),
            ("TCP", Some("6379")),
            ("UDP", Some("7000-7009")),
            ("TCP", Some("7000-7009")),
        ],
    },
];

const SHOP_RULES: &[RuleSpec] = &[RuleSpec {
    name: "web",
    from: &["web"],
    to: &["web"],
    ports: &[
        ("TCP", Some("80")),
        ("TCP", Some("5201")),
        ("UDP", Some("7000-7009")),
        ("ICMP", None),
    ],
}];

/// Class name, TCP ports, outer DSCP; the class number on the wire is the position + 1. Loads that stand for
/// Kafka's have ports of their own (7002, 7003) for when Kafka is there.
const KAFKA_CLASSES: &[(&str, &[&str], u8)] = &[
    ("control", &["9090"], 48),
    ("replication", &["9091", "7002"], 10),
    ("client", &["9092", "7003"], 18),
];

/// The YAML documents of one node: its Node and every Slice.
pub fn node_documents(node: &NodeSpec) -> Result<String> {
    let mut text = yaml(&node_document(node))?;
    for slice in &SLICES {
        text.push_str("---\n");
        text.push_str(&yaml(&slice_document(slice))?);
    }
    Ok(text)
}

/// One hosts file for all pods: every member's name leads to its slice address.
///
/// No pod's name leads to loopback: a Kafka broker binds and advertises by name, and a name that
/// means loopback inside its own pod makes it unreachable for the others. The machine's own name is
/// there, because programs look it up (each Java tool does) and pods have no name server to say no.
pub fn hosts_file(machine: &str) -> String {
    let mut text = String::from("127.0.0.1 localhost\n");
    if find_pod(machine).is_none() {
        let _ = writeln!(text, "127.0.1.1 {machine}");
    }
    for pod in &PODS {
        if let Some(address) = pod.slice_address() {
            let _ = writeln!(text, "{address} {}", pod.name);
        }
    }
    text
}

fn yaml(document: &impl Serialize) -> Result<String> {
    serde_yaml_ng::to_string(document).context("write a configuration document")
}

fn node_document(node: &NodeSpec) -> NodeDocument {
    let endpoints = node.pods().filter_map(|pod| {
        let member = pod.member?;
        Some(Endpoint {
            slice: member.slice,
            namespace: member.namespace,
            name: pod.name,
            interface: pod.host_interface(),
            address: pod.pod_address(),
            slice_address: pod.slice_address()?,
        })
    });
    let peers = NODES
        .iter()
        .filter(|other| other.name != node.name)
        .map(|other| Peer {
            cluster: other.cluster,
            name: other.name,
            underlay: other.underlay(),
            blocks: other.blocks().map(BlockEntry::from).collect(),
        });
    NodeDocument {
        kind: "Node",
        cluster: node.cluster,
        name: node.name,
        underlay: Underlay {
            address: node.underlay(),
            interface: "nic0",
        },
        endpoints: endpoints.collect(),
        blocks: node.blocks().map(BlockEntry::from).collect(),
        peers: peers.collect(),
    }
}

fn slice_document(slice: &SliceSpec) -> SliceDocument {
    let (rules, classes) = match slice.name {
        "kafka" => (KAFKA_RULES, KAFKA_CLASSES),
        _ => (SHOP_RULES, &[] as &[_]),
    };
    let classes: Vec<Class> = classes
        .iter()
        .map(|&(name, ports, dscp)| Class {
            name,
            matches: ports
                .iter()
                .map(|port| Port {
                    protocol: "TCP",
                    port: Some(port),
                })
                .collect(),
            dscp,
        })
        .collect();
    SliceDocument {
        kind: "Slice",
        metadata: Metadata { name: slice.name },
        id: slice.id,
        spec: Spec {
            addressing: Addressing {
                mode: "Mapped",
                ranges: vec![format!("{}/16", slice.range)],
            },
            isolation: Isolation { level: "Slice" },
            policy: Policy {
                default_action: "Deny",
                rules: rules.iter().map(Rule::from).collect(),
            },
            qos: (!classes.is_empty()).then_some(Qos { classes }),
            encryption: Encryption { mode: "None" },
            accept_plaintext: true,
        },
    }
}

struct RuleSpec {
    name: &'static str,
    from: &'static [&'static str],
    to: &'static [&'static str],
    ports: &'static [(&'static str, Option<&'static str>)],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeDocument {
    kind: &'static str,
    cluster: &'static str,
    name: &'static str,
    underlay: Underlay,
    endpoints: Vec<Endpoint>,
    blocks: Vec<BlockEntry>,
    peers: Vec<Peer>,
}

#[derive(Serialize)]
struct Underlay {
    address: Ipv4Addr,
    interface: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    slice: &'static str,
    namespace: &'static str,
    name: &'static str,
    interface: String,
    address: Ipv4Addr,
    slice_address: Ipv4Addr,
}

#[derive(Serialize)]
struct BlockEntry {
    slice: &'static str,
    namespace: &'static str,
    prefix: String,
}

#[derive(Serialize)]
struct Peer {
    cluster: &'static str,
    name: &'static str,
    underlay: Ipv4Addr,
    blocks: Vec<BlockEntry>,
}

#[derive(Serialize)]
struct SliceDocument {
    kind: &'static str,
    metadata: Metadata,
    id: u32,
    spec: Spec,
}

#[derive(Serialize)]
struct Metadata {
    name: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    addressing: Addressing,
    isolation: Isolation,
    policy: Policy,
    #[serde(skip_serializing_if = "Option::is_none")]
    qos: Option<Qos>,
    encryption: Encryption,
    accept_plaintext: bool,
}

#[derive(Serialize)]
struct Addressing {
    mode: &'static str,
    ranges: Vec<String>,
}

#[derive(Serialize)]
struct Isolation {
    level: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Policy {
    default_action: &'static str,
    rules: Vec<Rule>,
}

#[derive(Serialize)]
struct Rule {
    name: &'static str,
    action: &'static str,
    from: &'static [&'static str],
    to: &'static [&'static str],
    ports: Vec<Port>,
}

#[derive(Serialize)]
struct Port {
    protocol: &'static str,
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "number_or_range"
    )]
    port: Option<&'static str>,
}

#[derive(Serialize)]
struct Qos {
    classes: Vec<Class>,
}

#[derive(Serialize)]
struct Class {
    name: &'static str,
    #[serde(rename = "match")]
    matches: Vec<Port>,
    dscp: u8,
}

#[derive(Serialize)]
struct Encryption {
    mode: &'static str,
}

impl From<Block> for BlockEntry {
    fn from(block: Block) -> Self {
        Self {
            slice: block.member.slice,
            namespace: block.member.namespace,
            prefix: block.prefix(),
        }
    }
}

impl From<&RuleSpec> for Rule {
    fn from(rule: &RuleSpec) -> Self {
        let port = |&(protocol, port): &(_, _)| Port { protocol, port };
        Self {
            name: rule.name,
            action: "Allow",
            from: rule.from,
            to: rule.to,
            ports: rule.ports.iter().map(port).collect(),
        }
    }
}

/// A single port is written as a number, as people do, and a range as text.
fn number_or_range<S: serde::Serializer>(
    port: &Option<&'static str>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match port.map(|text| (text, text.parse::<u16>())) {
        Some((_, Ok(number))) => serializer.serialize_u16(number),
        Some((text, Err(_))) => serializer.serialize_str(text),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::inventory::find_node;

    #[test]
    fn a_node_lists_its_own_members_and_every_other_node() {
        let text = node_documents(find_node("east-1").unwrap()).unwrap();
        let first = text.split("---\n").next().unwrap();
        let node: serde_json::Value = serde_yaml_ng::from_str(first).unwrap();
        assert_eq!(
            node["endpoints"][0],
            serde_json::json!({
                "slice": "kafka", "namespace": "kafka", "name": "kafka-0",
                "interface": "p-kafka-0", "address": "10.1.1.10", "sliceAddress": "10.77.0.2",
            })
        );
        let names = |list: &str| -> Vec<String> {
            let entries = node[list].as_array().unwrap();
            entries
                .iter()
                .map(|entry| entry["name"].as_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(
            names("endpoints"),
            ["kafka-0", "audit-0", "web-0"],
            "no stranger"
        );
        assert_eq!(
            names("peers"),
            ["east-2", "west-1", "west-2", "edge-1"],
            "not itself"
        );
        assert_eq!(
            node["peers"][1],
            serde_json::json!({
                "cluster": "west", "name": "west-1", "underlay": "172.20.2.11",
                "blocks": [
                    {"slice": "kafka", "namespace": "kafka", "prefix": "10.77.64.0/29"},
                    {"slice": "kafka", "namespace": "analytics", "prefix": "10.77.64.8/29"},
                ],
            })
        );
    }

    #[test]
    fn every_node_carries_the_same_two_slices() {
        let slices = |node: &NodeSpec| -> Vec<serde_json::Value> {
            let text = node_documents(node).unwrap();
            let documents = text.split("---\n").skip(1);
            documents
                .map(|document| serde_yaml_ng::from_str(document).unwrap())
                .collect()
        };
        let east = slices(&NODES[0]);
        assert_eq!(east.len(), 2);
        assert_eq!(east[0]["id"], 7);
        assert_eq!(
            east[0]["spec"]["policy"]["rules"][0]["ports"][0]["port"],
            "9090-9092"
        );
        assert_eq!(
            east[0]["spec"]["qos"]["classes"][2]["match"][0]["port"],
            9092
        );
        assert!(east[1]["spec"].get("qos").is_none(), "shop has no classes");
        for node in &NODES {
            assert_eq!(slices(node), east, "{}", node.name);
        }
    }

    #[test]
    fn names_lead_to_slice_addresses_and_never_to_loopback() {
        let hosts = hosts_file("laptop");
        let members = PODS.iter().filter(|pod| pod.member.is_some()).count();
        assert!(hosts.contains("10.77.64.2 kafka-1\n"));
        assert_eq!(hosts.lines().count(), members + 2);
        let loopback: Vec<_> = hosts
            .lines()
            .filter(|line| line.starts_with("127."))
            .collect();
        assert_eq!(loopback, ["127.0.0.1 localhost", "127.0.1.1 laptop"]);
        assert!(!hosts.contains("stranger"));
    }
}
