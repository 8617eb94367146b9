//! Slice addresses without a program: of pods that have none (yet), of nodes, and in native addressing.

use std::io::ErrorKind;

use anyhow::{Context, Result, ensure};
use slice_tests::harness::Scene;
use slice_tests::lab::{Lab, Node};
use slice_tests::live::{Capture, Frame, Mailbox, expect_drops};
use slice_tests::netns::NetNs;

use crate::reconfigure::with_configuration;
use crate::{OPEN_PORT, pods, same, slice_address};

pub(crate) const SCENES: &[Scene] = &[
    ("what_no_program_takes_dies_in_the_host", no_program),
    ("native_slice_addresses_do_not_leave_bare_either", native),
];

/// A pod that is not attached (any more, or yet), by routes and by a bridge, and a process of a node.
fn no_program(lab: &Lab) -> Result<()> {
    let [kafka_0, kafka_1, kafka_2] = pods(lab, ["kafka-0", "kafka-1", "kafka-2"])?;
    let (east, edge) = (lab.node("east-1")?, lab.node("edge-1")?);
    let to_west = (slice_address(&kafka_1)?, OPEN_PORT);
    let forget = |pod: &'static str| move |text: &str| without_endpoint(text, pod);
    with_configuration(lab, "east-1", forget("kafka-0"), || {
        dies_at(lab, &kafka_0.netns, &east, to_west)
    })
    .context("without its program")?;
    with_configuration(lab, "edge-1", forget("kafka-2"), || {
        dies_at(lab, &kafka_2.netns, &edge, to_west)
    })
    .context("without its program, on a bridge")?;
    for node in [&east, &edge] {
        dies_at(lab, &node.netns, node, to_west).context("a process of the node")?;
    }
    // Not vacuous: with its program the same packet arrives.
    let at_kafka_1 = Mailbox::open(&kafka_1.netns, OPEN_PORT)?;
    Mailbox::open(&kafka_0.netns, OPEN_PORT)?.send(to_west, b"hello")?;
    at_kafka_1.receive().map(drop)
}

/// A slice whose addresses are the pods' own: here, of a pod that everybody else reaches by plain routes.
fn native(lab: &Lab) -> Result<()> {
    let [stranger, kafka_1] = pods(lab, ["stranger-0", "kafka-1"])?;
    let node = lab.node("east-1")?;
    let to = (kafka_1.plain_address, OPEN_PORT);
    let at_kafka_1 = Mailbox::open(&kafka_1.netns, OPEN_PORT)?;
    for sender in [&stranger.netns, &node.netns] {
        Mailbox::open(sender, OPEN_PORT)?.send(to, b"hello")?;
        at_kafka_1.receive().context("not vacuous")?;
    }
    let edit = |text: &str| {
        let block = format!(
            "name: west-1\n  underlay: 172.20.2.11\n  blocks:\n  \
             - {{slice: plain, namespace: all, prefix: {}/32}}\n",
            to.0
        );
        let text = text.replacen(
            "name: west-1\n  underlay: 172.20.2.11\n  blocks:\n",
            &block,
            1,
        );
        text + "---\nkind: Slice\nmetadata: {name: plain}\nid: 12\nspec: {addressing: {mode: Native}, \
                encryption: {mode: None}, acceptPlaintext: true}\n"
    };
    with_configuration(lab, "east-1", edit, || {
        for sender in [&stranger.netns, &node.netns] {
            dies_at(lab, sender, &node, to)?;
        }
        ensure!(at_kafka_1.is_empty()?, "a bare packet arrived");
        Ok(())
    })?;
    Mailbox::open(&stranger.netns, OPEN_PORT)?.send(to, b"hello")?;
    at_kafka_1.receive().context("afterwards").map(drop)
}

/// The sender is told, and nothing for that address is on the wire.
fn dies_at(lab: &Lab, sender: &NetNs, node: &Node, to: (std::net::Ipv4Addr, u16)) -> Result<()> {
    let fabric = NetNs::open(&node.spec.cluster().fabric_namespace())?;
    let wire = Capture::of(&fabric, &node.spec.fabric_port())?;
    expect_drops(lab, &[], || {
        match Mailbox::open(sender, OPEN_PORT + 1)?.refusal(to) {
            Ok(said) => same("said", &said, &Some(ErrorKind::HostUnreachable)),
            // A process of the node itself is told at once.
            Err(error) => {
                let text = format!("{error:#}");
                ensure!(text.contains("No route to host"), "{text}");
                Ok(())
            }
        }
    })?;
    let is_bare = |frame: &Frame| {
        frame
            .ipv4()
            .is_some_and(|packet| packet[16..20] == to.0.octets())
    };
    let seen = wire.take()?.iter().filter(|frame| is_bare(frame)).count();
    same("bare packets on the wire", &seen, &0)
}

/// The node's document without one of its endpoints.
fn without_endpoint(text: &str, pod: &str) -> String {
    let (document, rest) = text.split_once("---\n").unwrap_or((text, ""));
    let is_pod = |entry: &&str| entry.contains(&format!("name: {pod}\n"));
    let (before, list) = document
        .split_once("endpoints:\n")
        .unwrap_or((document, ""));
    let (list, after) = list.split_once("blocks:\n").unwrap_or((list, ""));
    let entries: String = list
        .split("- slice:")
        .filter(|entry| !is_pod(entry))
        .collect::<Vec<_>>()
        .join("- slice:");
    format!("{before}endpoints:\n{entries}blocks:\n{after}---\n{rest}")
}
