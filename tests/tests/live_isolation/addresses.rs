//! Pods that share an address, slices that share a machine.

use anyhow::{Context, Result, ensure};
use slice_tests::demo::matrix;
use slice_tests::harness::Scene;
use slice_tests::lab::{Lab, Pod};
use slice_tests::live::{Capture, Mailbox, expect_drops, meet};

use crate::{OPEN_PORT, echo, pods, same, slice_address};

pub(crate) const SCENES: &[Scene] = &[
    (
        "pods_with_the_same_address_reach_each_other_and_not_themselves",
        overlapping_addresses,
    ),
    (
        "every_pair_of_pods_is_allowed_or_denied_as_configured",
        whole_matrix,
    ),
    ("udp_and_echo_stay_inside_their_slice", other_slice),
    ("a_pod_reaches_its_own_slice_address", own_slice_address),
    ("pods_of_one_node_talk_without_the_tunnel", same_node),
];

const BROKERS: [&str; 3] = ["kafka-0", "kafka-1", "kafka-2"];

fn overlapping_addresses(lab: &Lab) -> Result<()> {
    let brokers = pods(lab, BROKERS)?;
    let shared = brokers[0].pod_address;
    ensure!(brokers.iter().all(|pod| pod.pod_address == shared));
    let mailboxes: Vec<Mailbox> = brokers
        .iter()
        .map(|pod| Mailbox::open(&pod.netns, OPEN_PORT))
        .collect::<Result<_>>()?;
    for from in 0..brokers.len() {
        for to in (0..brokers.len()).filter(|to| *to != from) {
            let (source, target) = (&brokers[from], &brokers[to]);
            let what = format!("{} to {}", source.name, target.name);
            let address = (slice_address(target)?, OPEN_PORT);

            mailboxes[from].send(address, what.as_bytes())?;
            let (sender, heard) = mailboxes[to].receive().with_context(|| what.clone())?;
            same(&what, sender.ip(), &slice_address(source)?)?;
            same(&what, &heard, &what.clone().into_bytes())?;
            for mailbox in &mailboxes {
                ensure!(mailbox.is_empty()?, "{what}: one datagram came in twice");
            }

            let meeting = meet(&source.netns, &target.netns, address)?;
            same(&what, &meeting.client, &slice_address(source)?)?;
            same(&what, &meeting.server, &slice_address(target)?)?;
        }
    }
    Ok(())
}

fn whole_matrix(lab: &Lab) -> Result<()> {
    // The port that the other side's slice is about; the demo tries them all.
    let mut cells = matrix::cells();
    cells.retain(|cell| {
        let is_shop = cell.to.member.is_some_and(|it| it.slice == "shop");
        let own_port = if is_shop { 80 } else { 9092 };
        cell.port == own_port || cell.to.slice_address() != Some(cell.address)
    });
    let matrix = matrix::run(lab, &cells, |_| {})?;
    ensure!(
        matrix.allowed > 0 && matrix.denied > matrix.allowed,
        "not vacuous: {matrix:?}"
    );
    ensure!(matrix.surprises.is_empty(), "{:#?}", matrix.surprises);
    Ok(())
}

fn other_slice(lab: &Lab) -> Result<()> {
    let [kafka_0, kafka_1, web_0, web_2] = pods(lab, ["kafka-0", "kafka-1", "web-0", "web-2"])?;
    let open = |pod: &Pod| Mailbox::open(&pod.netns, OPEN_PORT);
    let (at_kafka_0, at_web_0, at_web_2) = (open(&kafka_0)?, open(&web_0)?, open(&web_2)?);
    let at_kafka_1 = open(&kafka_1)?;

    let in_kafka = (slice_address(&kafka_0)?, OPEN_PORT);
    at_web_2.send((slice_address(&web_0)?, OPEN_PORT), b"within shop")?;
    same("shop", &at_web_0.receive()?.1, &b"within shop".to_vec())?;
    at_kafka_1.send(in_kafka, b"within kafka")?;
    same("kafka", &at_kafka_0.receive()?.1, &b"within kafka".to_vec())?;

    // From a far node and from the pod's own.
    for (mailbox, node) in [(&at_web_2, "west-2"), (&at_web_0, "east-1")] {
        expect_drops(lab, &[(node, "shop", "other_slice", 1)], || {
            mailbox.send(in_kafka, b"across")
        })?;
    }
    ensure!(at_kafka_0.is_empty()?, "another slice's datagram came in");
    for (pod, node) in [(&web_2, "west-2"), (&web_0, "east-1")] {
        expect_drops(lab, &[(node, "shop", "other_slice", 1)], || {
            same("answers", &echo(pod, in_kafka.0)?, &0)
        })?;
    }
    same("echo within kafka", &echo(&kafka_1, in_kafka.0)?, &1)
}

fn own_slice_address(lab: &Lab) -> Result<()> {
    let before = lab.kernel_drops()?;
    // audit-0 may talk to nobody, and to itself.
    for pod in pods(lab, ["kafka-0", "audit-0"])? {
        let own = slice_address(&pod)?;
        let mailbox = Mailbox::open(&pod.netns, OPEN_PORT)?;
        expect_drops(lab, &[], || {
            mailbox.send((own, OPEN_PORT), b"to myself")?;
            let (sender, heard) = mailbox.receive()?;
            same(pod.name, sender.ip(), &own)?;
            same(pod.name, &heard, &b"to myself".to_vec())?;
            let meeting = meet(&pod.netns, &pod.netns, (own, 9093))?;
            same(pod.name, &meeting.client, &own)?;
            same("echo", &echo(&pod, own)?, &1)
        })?;
    }
    let dropped = lab.kernel_drops()?.since(&before);
    ensure!(
        !dropped
            .counters
            .keys()
            .any(|name| name.starts_with("sl-pod-")),
        "{dropped:?}"
    );
    Ok(())
}

fn same_node(lab: &Lab) -> Result<()> {
    let [kafka_0, kafka_1, analytics_0] = pods(lab, ["kafka-0", "kafka-1", "analytics-0"])?;
    let capture = Capture::of(&lab.node("west-1")?.netns, "nic0")?;
    let broker = (slice_address(&kafka_1)?, 9092);
    // Whatever the headers around it: the client's slice address is in each of its packets.
    let crossed = |client: &Pod| -> Result<bool> {
        let address = slice_address(client)?.octets();
        let names_client = |bytes: &[u8]| bytes.windows(4).any(|window| window == address);
        Ok(capture
            .take()?
            .iter()
            .any(|frame| names_client(&frame.bytes)))
    };

    meet(&kafka_0.netns, &kafka_1.netns, broker)?;
    ensure!(crossed(&kafka_0)?, "not vacuous: kafka-0 comes by nic0");

    let meeting = meet(&analytics_0.netns, &kafka_1.netns, broker)?;
    same("client", &meeting.client, &slice_address(&analytics_0)?)?;
    same("echo", &echo(&analytics_0, broker.0)?, &1)?;
    ensure!(!crossed(&analytics_0)?, "analytics-0 is seen on nic0");
    Ok(())
}
