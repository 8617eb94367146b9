//! Between a slice's pods and those who are in no slice, or in another.

use std::io::ErrorKind;
use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use slice_common::layout::Capacity;
use slice_tests::harness::Scene;
use slice_tests::lab::{Lab, Pod};
use slice_tests::live::{Capture, Frame, Mailbox, expect_drops, inject, meet};
use slice_tests::packet::{Checksum, Icmp, Ipv4, Tcp, Udp, describe_difference};
use slice_tests::probe::{Outcome, attempt, drops_at};

use crate::{OPEN_PORT, echo, ipv4, pods, same, slice_address};

pub(crate) const SCENES: &[Scene] = &[
    (
        "a_stranger_is_told_that_slice_addresses_are_unreachable",
        by_slice_address,
    ),
    (
        "a_stranger_does_not_reach_a_pod_by_its_pod_address",
        by_pod_address,
    ),
    ("a_pod_of_another_slice_is_a_stranger_too", another_slice),
    (
        "an_echo_request_is_no_answer_to_an_echo_request",
        echo_is_no_answer,
    ),
    ("what_a_pod_sends_outside_arrives_byte_for_byte", untouched),
    ("answers_from_outside_come_back", answers),
    (
        "a_pod_that_asks_without_end_keeps_nobodys_answers_out",
        questions_without_end,
    ),
    ("the_node_itself_reaches_its_pod", node_itself),
    ("a_stranger_does_not_pass_for_the_node", forged_node_address),
];

const ICMP_UNREACHABLE: u8 = 3;
const LIMIT: Duration = Duration::from_secs(3);
const TRIES_MAX: usize = 3;

fn by_slice_address(lab: &Lab) -> Result<()> {
    let [kafka_0, kafka_1] = pods(lab, ["kafka-0", "kafka-1"])?;
    let at_kafka_0 = Mailbox::open(&kafka_0.netns, OPEN_PORT)?;
    let address = (slice_address(&kafka_0)?, OPEN_PORT);
    Mailbox::open(&kafka_1.netns, OPEN_PORT)?.send(address, b"a member")?;
    same("a member", &at_kafka_0.receive()?.1, &b"a member".to_vec())?;

    // On the pod's own node, and on one that has no pod of its slice.
    for stranger in pods(lab, ["stranger-0", "stranger-1"])? {
        expect_drops(lab, &[], || {
            let to = SocketAddrV4::new(address.0, 9092);
            let nodes = [kafka_0.node, stranger.node];
            let tcp = attempt(&stranger.netns, to, LIMIT, || drops_at(lab, &nodes))?;
            same("TCP", &tcp, &Outcome::Unreachable)?;
            let mailbox = Mailbox::open(&stranger.netns, OPEN_PORT)?;
            let udp = told_at_last(|| mailbox.refusal(address), is_time_out)?;
            same("UDP", &udp, &Some(ErrorKind::HostUnreachable))?;
            let told = Capture::of(&stranger.netns, "eth0")?;
            let ask = || {
                same("echo", &echo(&stranger, address.0)?, &0)?;
                told.wait_for(is_unreachable)
            };
            let echo = told_at_last(ask, |_| false)?;
            echo.with_context(|| format!("{} was told nothing of its echo", stranger.name))?;
            Ok(())
        })?;
    }
    ensure!(at_kafka_0.is_empty()?, "a stranger's datagram came in");
    Ok(())
}

/// A host tells one sender once a second that there is no way, after a few in a burst (`ip_error`, which
/// no setting of a namespace changes); scenes before may have used them up.
fn told_at_last<T>(
    ask: impl Fn() -> Result<Option<T>>,
    is_silence: impl Fn(&T) -> bool,
) -> Result<Option<T>> {
    for _ in 0..TRIES_MAX {
        if let Some(told) = ask()?.filter(|told| !is_silence(told)) {
            return Ok(Some(told));
        }
    }
    Ok(None)
}

fn is_time_out(error: &ErrorKind) -> bool {
    *error == ErrorKind::WouldBlock
}

fn is_unreachable(frame: &Frame) -> bool {
    let icmp = frame.ipv4().filter(|packet| packet[9] == 1);
    icmp.is_some_and(|packet| packet.get(20) == Some(&ICMP_UNREACHABLE))
}

fn by_pod_address(lab: &Lab) -> Result<()> {
    let [kafka_0, stranger] = pods(lab, ["kafka-0", "stranger-0"])?;
    // The pod's other address is no slice's business, so the same sender gets through to it.
    meet(
        &stranger.netns,
        &kafka_0.netns,
        (kafka_0.plain_address, 9092),
    )?;
    kept_out(lab, &stranger, &kafka_0)?;
    // As seen from another node of the cluster.
    let [analytics_1] = pods(lab, ["analytics-1"])?;
    meet(
        &stranger.netns,
        &analytics_1.netns,
        (analytics_1.plain_address, 9092),
    )?;
    kept_out(lab, &stranger, &analytics_1)?;
    // Past the node's stack, as a neighbour on the same bridge.
    let [kafka_2, stranger] = pods(lab, ["kafka-2", "stranger-2"])?;
    meet(
        &stranger.netns,
        &kafka_2.netns,
        (kafka_2.plain_address, 9092),
    )?;
    kept_out(lab, &stranger, &kafka_2)
}

fn another_slice(lab: &Lab) -> Result<()> {
    let [kafka_0, web_0, web_1] = pods(lab, ["kafka-0", "web-0", "web-1"])?;
    meet(&web_0.netns, &web_1.netns, (slice_address(&web_1)?, 80))?;
    kept_out(lab, &web_0, &kafka_0)?;
    // Not even a pod of the same slice: the slice's policy judges slice addresses only.
    kept_out(lab, &web_0, &web_1)
}

/// TCP, UDP and echo by pod address: each counted as isolated, none seen by the pod.
fn kept_out(lab: &Lab, from: &Pod, to: &Pod) -> Result<()> {
    let (address, slice) = (to.pod_address, to.member.context("a slice pod")?.slice);
    let at_pod = Capture::of(&to.netns, "eth0")?;
    let isolated = [(to.node, slice, "isolated", 1)];
    expect_drops(lab, &isolated, || {
        let tcp = SocketAddrV4::new(address, 9092);
        let outcome = attempt(&from.netns, tcp, LIMIT, || drops_at(lab, &[to.node]))?;
        ensure!(outcome.is_drop_for("isolated"), "TCP: {outcome}");
        Ok(())
    })?;
    let mailbox = Mailbox::open(&from.netns, OPEN_PORT)?;
    expect_drops(lab, &isolated, || {
        mailbox.send((address, OPEN_PORT), b"let me in")
    })?;
    expect_drops(lab, &isolated, || same("echo", &echo(from, address)?, &0))?;
    let frames = at_pod.take()?;
    let seen: Vec<_> = frames.iter().filter_map(Frame::ipv4).collect();
    ensure!(seen.is_empty(), "{} saw {seen:02x?}", to.name);
    Ok(())
}

fn echo_is_no_answer(lab: &Lab) -> Result<()> {
    const IDENTIFIER: u16 = 0x5150;
    let [kafka_0, stranger] = pods(lab, ["kafka-0", "stranger-0"])?;
    let to_pod = ipv4(stranger.pod_address, kafka_0.pod_address).identification(1);
    let request = to_pod.clone().icmp(Icmp::echo_request(IDENTIFIER, 1));
    let reply = to_pod.icmp(Icmp::echo_reply(IDENTIFIER, 9).data(*b"an answer"));
    let question = ipv4(kafka_0.pod_address, stranger.pod_address)
        .identification(1)
        .icmp(Icmp::echo_request(IDENTIFIER, 9));
    let isolated = [("east-1", "kafka", "isolated", 1)];

    expect_drops(lab, &isolated, || inject(&stranger.netns, &reply.build()))
        .context("before the pod asked, not even a reply is welcome")?;
    inject(&kafka_0.netns, &question.build())?;
    let at_pod = Capture::of(&kafka_0.netns, "eth0")?;
    inject(&stranger.netns, &reply.build())?;
    let came =
        at_pod.wait_for(|frame| frame.ipv4().is_some_and(|it| it.ends_with(b"an answer")))?;
    ensure!(came.is_some(), "not vacuous: the reply comes in");
    expect_drops(lab, &isolated, || inject(&stranger.netns, &request.build()))?;

    // The same inside the slice: analytics may ask kafka, kafka may not ask analytics.
    let [analytics_1] = pods(lab, ["analytics-1"])?;
    let (asker, asked) = (slice_address(&analytics_1)?, slice_address(&kafka_0)?);
    let question = ipv4(analytics_1.pod_address, asked).identification(1);
    let back = ipv4(kafka_0.pod_address, asker).identification(1);
    let at_asker = Capture::of(&analytics_1.netns, "eth0")?;
    let ask = question.icmp(Icmp::echo_request(IDENTIFIER, 1));
    inject(&analytics_1.netns, &ask.build())?;
    let answered = at_asker.wait_for(|frame| {
        frame
            .ipv4()
            .is_some_and(|it| !frame.is_outgoing && it[12..16] == asked.octets())
    })?;
    ensure!(answered.is_some(), "not vacuous: kafka-0 answers");
    let request = back.icmp(Icmp::echo_request(IDENTIFIER, 1));
    expect_drops(lab, &[("east-1", "kafka", "policy_denied", 1)], || {
        inject(&kafka_0.netns, &request.build())
    })
}

fn untouched(lab: &Lab) -> Result<()> {
    let [kafka_0, analytics_1, stranger] = pods(lab, ["kafka-0", "analytics-1", "stranger-0"])?;
    let at_stranger = Capture::of(&stranger.netns, "eth0")?;
    expect_drops(lab, &[], || {
        // analytics-1 is on the other node: one more router on the way.
        for (pod, routers) in [(&kafka_0, 1), (&analytics_1, 2)] {
            for (number, packet) in packets_outside(pod, &stranger).iter().enumerate() {
                let expected = packet.clone().ttl(64 - routers).build();
                inject(&pod.netns, &packet.build())?;
                let identification = &expected[4..6];
                let arrived = at_stranger
                    .wait_for(|frame| {
                        let packet = frame.ipv4().filter(|_| !frame.is_outgoing);
                        packet.is_some_and(|it| it[4..6] == *identification)
                    })?
                    .with_context(|| format!("{}: packet {number} did not arrive", pod.name))?;
                let found = arrived.ipv4().unwrap_or_default();
                ensure!(
                    found == expected,
                    "{}: packet {number}\n{}",
                    pod.name,
                    describe_difference(
                        &[&arrived.bytes[..14], &expected].concat(),
                        &arrived.bytes
                    )
                );
            }
        }
        Ok(())
    })
}

/// Everything that the programs treat in a special way, or not at all, when it goes to a slice.
fn packets_outside(from: &Pod, to: &Pod) -> Vec<Ipv4> {
    let base = || ipv4(from.pod_address, to.pod_address);
    let syn = Tcp::new(40_001, 9092).syn();
    let packets = [
        base().tcp(syn.clone().mss(1460)),
        base().dscp(46).ecn(3).tcp(syn.no_operation().mss(1460)),
        base().udp(Udp::new(40_002, 9092).data(vec![7; 1400])),
        base().udp(Udp::new(40_002, 9092).checksum(Checksum::Absent)),
        base().udp(
            Udp::new(40_002, 9092)
                .checksum(Checksum::Wrong)
                .data([1, 2, 3]),
        ),
        base()
            .options(&[1, 1, 1, 1])
            .udp(Udp::new(6085, 6084).data([8; 50])),
        base().icmp(Icmp::echo_request(1, 1).data([5; 33])),
        base().icmp(Icmp::echo_reply(1, 1).data([5; 8])),
        base().fragment(0, true).raw(17, vec![9; 64]),
        base().fragment(64, false).raw(17, vec![9; 24]),
        base().raw(50, vec![4; 100]),
        base().raw(132, vec![4; 32]),
    ];
    // By its identification each is recognized.
    let numbered = packets.into_iter().zip(0x4100..);
    numbered
        .map(|(packet, number)| packet.identification(number))
        .collect()
}

fn answers(lab: &Lab) -> Result<()> {
    let [kafka_0, analytics_1, stranger] = pods(lab, ["kafka-0", "analytics-1", "stranger-0"])?;
    let at_stranger = Mailbox::open(&stranger.netns, OPEN_PORT)?;
    let address = (stranger.pod_address, OPEN_PORT);
    for pod in [&kafka_0, &analytics_1] {
        expect_drops(lab, &[], || {
            let meeting = meet(&pod.netns, &stranger.netns, address)?;
            same("the stranger saw", &meeting.client, &pod.pod_address)?;
            same("echo", &echo(pod, stranger.pod_address)?, &1)?;
            let mailbox = Mailbox::open(&pod.netns, OPEN_PORT)?;
            mailbox.send(address, b"a question")?;
            let (asker, _) = at_stranger.receive()?;
            same("the stranger saw", asker.ip(), &pod.pod_address)?;
            at_stranger.send((*asker.ip(), asker.port()), b"an answer")?;
            same("UDP", &mailbox.receive()?.1, &b"an answer".to_vec())
        })?;
        // Only the socket that asked: another port of the same two hosts is no answer.
        let other_port = Mailbox::open(&stranger.netns, OPEN_PORT + 1)?;
        expect_drops(lab, &[(pod.node, "kafka", "isolated", 1)], || {
            other_port.send((pod.pod_address, OPEN_PORT), b"not asked")
        })?;
    }
    Ok(())
}

fn questions_without_end(lab: &Lab) -> Result<()> {
    let [kafka_0, web_0, stranger] = pods(lab, ["kafka-0", "web-0", "stranger-0"])?;
    let at_stranger = Mailbox::open(&stranger.netns, OPEN_PORT)?;
    let address = (stranger.pod_address, OPEN_PORT);
    let exchange = |mailbox: &Mailbox| -> Result<()> {
        mailbox.send(address, b"a question")?;
        let (asker, _) = at_stranger.receive()?;
        at_stranger.send((*asker.ip(), asker.port()), b"an answer")?;
        same("UDP", &mailbox.receive()?.1, &b"an answer".to_vec())
    };
    let lasting = Mailbox::open(&kafka_0.netns, OPEN_PORT)?;
    exchange(&lasting)?;
    let patient = Mailbox::open(&kafka_0.netns, OPEN_PORT + 2)?;
    patient.send(address, b"a question that takes long")?;
    let (asker, _) = at_stranger.receive()?;
    let too_many = || -> Result<u64> {
        let of = ["east-1", "shop", "too_many_exchanges"].map(str::to_owned);
        Ok(drops_at(lab, &["east-1"])?
            .get(&of.into())
            .copied()
            .unwrap_or(0))
    };
    let before = too_many()?;
    // More exchanges than the node can remember, all of one pod.
    let mut questions = 0;
    for source_port in OPEN_PORT.. {
        if questions > Capacity::REPLIES + Capacity::REPLIES / 4 {
            break;
        }
        let flood = Mailbox::open(&web_0.netns, source_port)?;
        for port in (1..=u16::MAX).filter(|port| *port != OPEN_PORT) {
            flood.send((stranger.pod_address, port), b"?")?;
            questions += 1;
            if port % 4096 == 0 {
                exchange(&lasting)?;
            }
        }
    }
    ensure!(
        too_many()? > before,
        "{questions} questions, and none too many"
    );
    exchange(&lasting)?;
    exchange(&Mailbox::open(&kafka_0.netns, OPEN_PORT + 1)?)?;
    // Nor is one forgotten that nothing was heard of since.
    at_stranger.send((*asker.ip(), asker.port()), b"at last")?;
    same("UDP", &patient.receive()?.1, &b"at last".to_vec())
}

fn node_itself(lab: &Lab) -> Result<()> {
    let [kafka_0, stranger] = pods(lab, ["kafka-0", "stranger-0"])?;
    let node = lab.node("east-1")?;
    expect_drops(lab, &[], || {
        let meeting = meet(&node.netns, &kafka_0.netns, (kafka_0.pod_address, 8080))?;
        same("the pod saw", &meeting.client, &node.underlay)
    })?;
    // Not because anyone may: on the same port a stranger is kept out.
    expect_drops(lab, &[("east-1", "kafka", "isolated", 1)], || {
        let to = SocketAddrV4::new(kafka_0.pod_address, 8080);
        let outcome = attempt(&stranger.netns, to, LIMIT, || drops_at(lab, &["east-1"]))?;
        ensure!(outcome.is_drop_for("isolated"), "{outcome}");
        Ok(())
    })
}

fn forged_node_address(lab: &Lab) -> Result<()> {
    let [kafka_0, stranger] = pods(lab, ["kafka-0", "stranger-0"])?;
    let node = lab.node("east-1")?;
    let at_kafka_0 = Mailbox::open(&kafka_0.netns, OPEN_PORT)?;
    let as_node = Mailbox::open(&node.netns, OPEN_PORT)?;
    as_node.send((kafka_0.pod_address, OPEN_PORT), b"a probe")?;
    let (sender, _) = at_kafka_0.receive().context("not vacuous")?;
    same("kafka-0 saw", sender.ip(), &node.underlay)?;

    // Linux itself refuses what claims to come from one of its own addresses but comes by a device
    // (a "martian source"). What isolation lets pass for the node's own relies on that.
    let datagram = Udp::new(OPEN_PORT, OPEN_PORT).data(*b"believe me");
    let forged = ipv4(node.underlay, kafka_0.pod_address).identification(1);
    let at_node = Capture::of(&node.netns, &stranger.spec.host_interface())?;
    inject(&stranger.netns, &forged.udp(datagram).build())?;
    let left = at_node.wait_for(|frame| frame.bytes.ends_with(b"believe me"))?;
    ensure!(left.is_some(), "not vacuous: it reaches the node");
    as_node.send((kafka_0.pod_address, OPEN_PORT), b"another probe")?;
    let next = at_kafka_0.receive()?.1;
    same("what came next", &next, &b"another probe".to_vec())?;
    ensure!(at_kafka_0.is_empty()?, "the forged datagram came in");
    Ok(())
}
