//! Isolation level `Strict`, with those whom a slice names.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use slice_tests::harness::Scene;
use slice_tests::lab::{Lab, Pod};
use slice_tests::live::{Mailbox, Masquerade, expect_drops, meet};
use slice_tests::netns::NetNs;
use slice_tests::probe::{attempt, drops_at};

use crate::reconfigure::with_configuration;
use crate::{echo, pods, same, slice_address};

pub(crate) const SCENES: &[Scene] = &[(
    "a_confined_pod_begins_only_what_is_named_and_answers_whom_it_must",
    confined,
)];

const LIMIT: Duration = Duration::from_secs(3);
const WEBHOOK_PORT: u16 = 8443;
const ASKED_PORT: u16 = 4000;

/// Somebody outside: the router of the cluster's network.
struct Router {
    address: Ipv4Addr,
    netns: NetNs,
}

fn confined(lab: &Lab) -> Result<()> {
    let [kafka_0, kafka_1, stranger] = pods(lab, ["kafka-0", "kafka-1", "stranger-0"])?;
    let cluster = lab.node("east-1")?.spec.cluster();
    let router = Router {
        address: cluster.gateway(),
        netns: NetNs::open(&cluster.fabric_namespace())?,
    };
    // Not vacuous: at level `Slice` the pod begins what it likes, and the stranger does not.
    begins(lab, &kafka_0, &stranger, true)?;
    kept_out(lab, &stranger, &kafka_0, WEBHOOK_PORT)?;
    let isolation = format!(
        "    level: Strict\n    fromOutside:\n    - addresses: [{0}/32]\n      ports:\n      \
         - {{protocol: TCP, port: {WEBHOOK_PORT}}}\n      - {{protocol: UDP, port: {ASKED_PORT}}}\n    \
         toOutside:\n    - addresses: [{1}/32]\n      ports: [{{protocol: UDP, port: 123}}]\n    \
         dns: [{1}/32]\n",
        stranger.pod_address, router.address
    );
    let edit = |text: &str| {
        let (before, kafka) = text.split_once("name: kafka\n").unwrap_or((text, ""));
        let kafka = kafka.replacen("    level: Slice\n", &isolation, 1);
        format!("{before}name: kafka\n{kafka}")
    };
    with_configuration(lab, "east-1", edit, || {
        begins(lab, &kafka_0, &stranger, false)?;
        whom_it_must_answer(lab, &kafka_0, &stranger)?;
        whom_it_may_ask(lab, &kafka_0, &router)?;
        strangers_stay_out(lab, &stranger, &kafka_0)?;
        // Its slice is another matter.
        let address = (slice_address(&kafka_1)?, 9092);
        meet(&kafka_0.netns, &kafka_1.netns, address).map(drop)
    })?;
    begins(lab, &kafka_0, &stranger, true)
}

/// A connection, a datagram and a ping to somebody whom nothing names.
fn begins(lab: &Lab, pod: &Pod, other: &Pod, may: bool) -> Result<()> {
    let refused = [(pod.node, "kafka", "confined", 1)];
    let drops: &[_] = if may { &[] } else { &refused };
    let address = SocketAddrV4::new(other.pod_address, 80);
    expect_drops(lab, drops, || {
        if may {
            return meet(&pod.netns, &other.netns, (*address.ip(), 80)).map(drop);
        }
        let outcome = attempt(&pod.netns, address, LIMIT, || drops_at(lab, &[pod.node]))?;
        ensure!(outcome.is_drop_for("confined"), "TCP: {outcome}");
        Ok(())
    })?;
    let at_other = Mailbox::open(&other.netns, 80)?;
    expect_drops(lab, drops, || {
        Mailbox::open(&pod.netns, 5000)?.send((other.pod_address, 80), b"hello")?;
        if may {
            at_other.receive()?;
        }
        Ok(())
    })?;
    ensure!(at_other.is_empty()?, "a datagram left");
    expect_drops(lab, drops, || {
        same("echo", &echo(pod, other.pod_address)?, &u32::from(may))
    })
}

/// kubelet, from the node; a web hook's caller and another, who are named.
fn whom_it_must_answer(lab: &Lab, pod: &Pod, stranger: &Pod) -> Result<()> {
    expect_drops(lab, &[], || {
        let node = lab.node(pod.node)?;
        meet(&node.netns, &pod.netns, (pod.pod_address, 9092)).context("a probe of kubelet")?;
        // And the pod may call its node.
        meet(&pod.netns, &node.netns, (node.underlay, 10_250)).context("its node")?;
        let webhook = (pod.pod_address, WEBHOOK_PORT);
        meet(&stranger.netns, &pod.netns, webhook).context("a web hook")?;
        let at_pod = Mailbox::open(&pod.netns, ASKED_PORT)?;
        let asks = Mailbox::open(&stranger.netns, 5000)?;
        asks.send((pod.pod_address, ASKED_PORT), b"a question")?;
        let (from, _) = at_pod.receive()?;
        at_pod.send((*from.ip(), from.port()), b"an answer")?;
        same("answer", &asks.receive()?.1, &b"an answer".to_vec())
    })
}

/// A name server and a clock.
fn whom_it_may_ask(lab: &Lab, pod: &Pod, router: &Router) -> Result<()> {
    // Pod addresses mean nothing to the router: several clusters have the same.
    let _masquerade = Masquerade::of(lab.node(pod.node)?)?;
    for port in [53, 123] {
        let server = Mailbox::open(&router.netns, port)?;
        let asks = Mailbox::open(&pod.netns, 5001)?;
        expect_drops(lab, &[], || {
            asks.send((router.address, port), b"a question")?;
            let (from, _) = server.receive()?;
            server.send((*from.ip(), from.port()), b"an answer")?;
            same("answer", &asks.receive()?.1, &b"an answer".to_vec())
        })
        .with_context(|| format!("port {port}"))?;
    }
    let elsewhere = [(pod.node, "kafka", "confined", 1)];
    expect_drops(lab, &elsewhere, || {
        Mailbox::open(&pod.netns, 5001)?.send((router.address, 124), b"a question")
    })
}

fn strangers_stay_out(lab: &Lab, stranger: &Pod, pod: &Pod) -> Result<()> {
    kept_out(lab, stranger, pod, WEBHOOK_PORT + 1)?;
    let isolated = [(pod.node, "kafka", "isolated", 1)];
    let at_pod = Mailbox::open(&pod.netns, 5002)?;
    expect_drops(lab, &isolated, || {
        Mailbox::open(&stranger.netns, 5003)?.send((pod.pod_address, 5002), b"hello")
    })?;
    ensure!(at_pod.is_empty()?, "a stranger's datagram came in");
    expect_drops(lab, &isolated, || {
        same("echo", &echo(stranger, pod.pod_address)?, &0)
    })
}

fn kept_out(lab: &Lab, stranger: &Pod, pod: &Pod, port: u16) -> Result<()> {
    expect_drops(lab, &[(pod.node, "kafka", "isolated", 1)], || {
        let address = SocketAddrV4::new(pod.pod_address, port);
        let outcome = attempt(&stranger.netns, address, LIMIT, || {
            drops_at(lab, &[pod.node])
        })?;
        ensure!(outcome.is_drop_for("isolated"), "port {port}: {outcome}");
        Ok(())
    })
}
