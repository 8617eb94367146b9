//! What happens to a packet on its way: sizes, checksums, classes.

use std::net::{SocketAddrV4, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{getsockopt, sockopt};
use slice_tests::child::poll_until;
use slice_tests::harness::Scene;
use slice_tests::lab::{KernelDrops, Lab, Pod};
use slice_tests::live::{Capture, Frame, Mailbox, TunnelFrame, expect_drops, inject, meet};
use slice_tests::live::{Inner, set_mtu_discovery, tunnel_frame, without_offload};
use slice_tests::packet::{Checksum, Udp};
use slice_tests::traffic::tcp::{self, TcpOptions};

use crate::{OPEN_PORT, echo, ipv4, pods, same, slice_address};

pub(crate) const SCENES: &[Scene] = &[
    ("segments_of_a_stream_fit_the_tunnel", clamped_mss),
    (
        "a_datagram_that_fits_passes_and_one_byte_more_is_counted",
        datagram_sizes,
    ),
    ("a_sender_is_told_which_size_fits", told_of_the_size),
    ("datagrams_in_parts_arrive_whole", datagrams_in_parts),
    (
        "mapped_packets_have_right_checksums_without_offload",
        checksums,
    ),
    ("class_and_dscp_follow_the_ports", classes),
];

/// 1500 less 50 for the tunnel and 40 for IPv4 and TCP.
const PAYLOAD_MAX: usize = 1410;
const LIMIT: Duration = Duration::from_secs(20);

fn clamped_mss(lab: &Lab) -> Result<()> {
    let [kafka_0, kafka_1] = pods(lab, ["kafka-0", "kafka-1"])?;
    // Cut by the sending NIC, segments are seen one by one.
    lab.set_wire_mode(true)?;
    let at_pod = Capture::of(&kafka_0.netns, "eth0")?;
    let at_nic = Capture::of(&lab.node("east-1")?.netns, "nic0")?;
    let streamed = expect_drops(lab, &[], || {
        stream(&kafka_0, &kafka_1, OPEN_PORT + 1, 4 << 20)
    });
    lab.set_wire_mode(false)?;
    streamed?;

    let asked: Vec<u16> = at_pod
        .take()?
        .iter()
        .filter(|frame| frame.is_outgoing)
        .filter_map(|frame| Inner(frame.ipv4()?).announced_mss())
        .collect();
    same(
        "MSS that the pod announces: not vacuous",
        &asked,
        &vec![1460],
    )?;
    let frames = at_nic.take()?;
    let segments: Vec<_> = frames.iter().filter_map(tunnel_frame).collect();
    let announced: Vec<u16> = segments
        .iter()
        .filter_map(|segment| segment.inner.announced_mss())
        .collect();
    same("MSS in SYN and SYN+ACK", &announced, &vec![1410, 1410])?;
    let payloads = segments
        .iter()
        .filter_map(|segment| segment.inner.tcp_payload_bytes());
    let largest = payloads.clone().max().unwrap_or_default();
    let full = payloads.filter(|bytes| *bytes > 1300).count();
    ensure!(full > 1000, "not vacuous: {full} full segments");
    ensure!(largest <= PAYLOAD_MAX, "a segment of {largest} bytes");
    Ok(())
}

fn datagram_sizes(lab: &Lab) -> Result<()> {
    let [kafka_0, kafka_1] = pods(lab, ["kafka-0", "kafka-1"])?;
    let near = Mailbox::open(&kafka_0.netns, OPEN_PORT)?;
    let far = Mailbox::open(&kafka_1.netns, OPEN_PORT)?;
    let address = (slice_address(&kafka_1)?, OPEN_PORT);
    // 1500 less 50 for the tunnel and 28 for IPv4 and UDP.
    let fits = vec![0x5a; 1422];
    expect_drops(lab, &[], || {
        near.send(address, &fits)?;
        same("arrived", &far.receive()?.1, &fits)
    })?;
    expect_drops(lab, &[("east-1", "kafka", "too_big", 1)], || {
        near.send(address, &vec![0x5a; 1423])
    })?;
    ensure!(far.is_empty()?, "a datagram that is too big arrived");
    Ok(())
}

/// Their sender cuts them once it knows which size fits; every part is mapped, with checksums that the
/// receiver verifies.
fn datagrams_in_parts(lab: &Lab) -> Result<()> {
    without_offload(|| cut_and_put_together(lab))
}

/// One byte more than a packet holds.
const LEARNING_BYTES: usize = 1473;

fn cut_and_put_together(lab: &Lab) -> Result<()> {
    for (from, to) in [
        ("kafka-0", "kafka-2"),
        ("kafka-1", "kafka-0"),
        ("kafka-1", "kafka-1"),
    ] {
        let [near, far] = pods(lab, [from, to])?;
        let from_near = Mailbox::open(&near.netns, OPEN_PORT + 1)?;
        let at_far = Mailbox::open(&far.netns, OPEN_PORT)?;
        let address = (slice_address(&far)?, OPEN_PORT);
        // The first is too big where there is a tunnel, and its sender learns.
        let learnt = poll_until(LIMIT, || {
            from_near.send(address, &[1; LEARNING_BYTES])?;
            Ok((!at_far.is_empty()?).then_some(()))
        })?;
        ensure!(learnt.is_some(), "{from} to {to}: nothing arrives");
        at_far.receive()?;
        expect_drops(lab, &[], || {
            for bytes in [1500, 2900, 9000, 20_000, 65_507] {
                let datagram: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
                from_near.send(address, &datagram)?;
                let (_, mut arrived) = at_far.receive()?;
                while arrived.len() == LEARNING_BYTES {
                    (_, arrived) = at_far.receive()?;
                }
                ensure!(
                    arrived == datagram,
                    "{bytes} bytes came as {}",
                    arrived.len()
                );
            }
            Ok(())
        })
        .with_context(|| format!("{from} to {to}"))?;
    }
    Ok(())
}

/// Linux asks for no more than "don't fragment" to be told.
fn told_of_the_size(lab: &Lab) -> Result<()> {
    for (from, to) in [("kafka-1", "kafka-2"), ("kafka-2", "kafka-0")] {
        let [near, far] = pods(lab, [from, to])?;
        let at_far = Mailbox::open(&far.netns, OPEN_PORT)?;
        let address = SocketAddrV4::new(slice_address(&far)?, OPEN_PORT);
        let socket = near.netns.enter(|| UdpSocket::bind("0.0.0.0:0"))??;
        set_mtu_discovery(&socket, libc::IP_PMTUDISC_DO)?;
        socket.connect(address)?;
        expect_drops(lab, &[(near.node, "kafka", "too_big", 1)], || {
            socket.send(&[0x5a; 1472])?;
            Ok(())
        })?;
        let mtu_bytes = poll_until(LIMIT, || {
            let mtu_bytes = getsockopt(&socket, sockopt::IpMtu)?;
            Ok((mtu_bytes < 1500).then_some(mtu_bytes))
        })?;
        same("path MTU", &mtu_bytes, &Some(1450))?;
        let told = socket.take_error()?.and_then(|error| error.raw_os_error());
        same("the socket was told", &told, &Some(libc::EMSGSIZE))?;
        expect_drops(lab, &[], || {
            let refused = socket.send(&[0x5a; 1423]);
            let error = refused.map_err(|error| error.raw_os_error());
            same(
                "the pod's own stack says",
                &error,
                &Err(Some(libc::EMSGSIZE)),
            )
        })?;
        socket.send(&[0x5a; 1422])?;
        same("arrived", &at_far.receive()?.1.len(), &1422)?;
    }
    Ok(())
}

fn checksums(lab: &Lab) -> Result<()> {
    without_offload(|| carry_without_offload(lab))
}

fn carry_without_offload(lab: &Lab) -> Result<()> {
    let [kafka_0, kafka_1, kafka_2] = pods(lab, ["kafka-0", "kafka-1", "kafka-2"])?;
    let [analytics_0, stranger] = pods(lab, ["analytics-0", "stranger-0"])?;
    let far = Mailbox::open(&kafka_1.netns, OPEN_PORT)?;
    let address = (slice_address(&kafka_1)?, OPEN_PORT);

    // Somebody does look at checksums: a wrong one is noticed at the end, and only there.
    let before = lab.kernel_drops()?;
    let wrong = Udp::new(OPEN_PORT, OPEN_PORT).checksum(Checksum::Wrong);
    let wrong = ipv4(kafka_0.pod_address, address.0).udp(wrong.data(*b"wrong"));
    inject(&kafka_0.netns, &wrong.build())?;
    let noticed = poll_until(LIMIT, || {
        let wrong = checksum_errors(&lab.kernel_drops()?.since(&before));
        Ok((!wrong.is_empty()).then_some(wrong))
    })?;
    let expected = vec![("sl-pod-kafka-1/Udp.InCsumErrors".to_owned(), 1)];
    same("not vacuous: wrong checksums", &noticed, &Some(expected))?;
    ensure!(far.is_empty()?, "a datagram with a wrong checksum arrived");

    let before = lab.kernel_drops()?;
    let near = Mailbox::open(&kafka_0.netns, OPEN_PORT)?;
    for bytes in [0, 1, 2, 333, 1422] {
        let payload = vec![0xa5; bytes];
        near.send(address, &payload)?;
        same("UDP there", &far.receive()?.1, &payload)?;
        far.send((slice_address(&kafka_0)?, OPEN_PORT), &payload)?;
        same("UDP and back", &near.receive()?.1, &payload)?;
    }
    stream(&kafka_0, &kafka_1, OPEN_PORT + 1, 4 << 20)?;
    stream(&kafka_1, &kafka_2, OPEN_PORT + 2, 4 << 20)?;
    stream(&analytics_0, &kafka_1, 9092, 4 << 20).context("on one node")?;
    meet(
        &kafka_0.netns,
        &kafka_0.netns,
        (slice_address(&kafka_0)?, 9092),
    )?;
    meet(
        &kafka_0.netns,
        &stranger.netns,
        (stranger.pod_address, 9092),
    )?;
    same("echo", &echo(&kafka_0, address.0)?, &1)?;
    let errors = checksum_errors(&lab.kernel_drops()?.since(&before));
    same("wrong checksums", &errors, &Vec::new())
}

fn classes(lab: &Lab) -> Result<()> {
    let [kafka_0, kafka_1] = pods(lab, ["kafka-0", "kafka-1"])?;
    let capture = Capture::of(&lab.node("east-1")?.netns, "nic0")?;
    // Control, replication and client traffic of Kafka, and a port of no class: class, DSCP.
    for (port, expected) in [
        (9090, (1, 48)),
        (9091, (2, 10)),
        (9092, (3, 18)),
        (7005, (0, 0)),
    ] {
        meet(
            &kafka_0.netns,
            &kafka_1.netns,
            (slice_address(&kafka_1)?, port),
        )?;
        let frames = capture.take()?;
        let of_port = |frame: &Frame, packet: &TunnelFrame<'_>| {
            let (source, destination) = packet.inner.tcp_ports()?;
            let is_answer = !frame.is_outgoing && source == port;
            (is_answer || frame.is_outgoing && destination == port).then_some((
                frame.is_outgoing,
                packet.slice,
                packet.class,
                packet.dscp,
            ))
        };
        let mut seen: Vec<_> = frames
            .iter()
            .filter_map(|frame| of_port(frame, &tunnel_frame(frame)?))
            .collect();
        seen.sort_unstable();
        seen.dedup();
        // Both ways alike: the answers' listener is their source port.
        let (class, dscp) = expected;
        let both_ways = vec![(false, 7, class, dscp), (true, 7, class, dscp)];
        same(&format!("port {port}"), &seen, &both_ways)?;
    }
    Ok(())
}

/// Streams at least so many bytes and insists that all arrive, right and in order.
fn stream(from: &Pod, to: &Pod, port: u16, bytes: u64) -> Result<()> {
    let options = TcpOptions {
        port,
        rate_bps: Some(100_000_000),
        ..TcpOptions::default()
    };
    let load = tcp::start(&from.place()?, &to.place()?, &options)?;
    let arrived = poll_until(LIMIT, || {
        let is_enough = load.verified_bytes() >= bytes || load.has_ended();
        Ok(is_enough.then_some(()))
    })?;
    let report = load.stop()?;
    ensure!(
        arrived.is_some() && report.is_whole() && report.bytes_verified >= bytes,
        "stream: {report:?}"
    );
    Ok(())
}

fn checksum_errors(drops: &KernelDrops) -> Vec<(String, u64)> {
    let wrong = drops
        .counters
        .iter()
        .filter(|(name, _)| name.ends_with("CsumErrors"));
    wrong.map(|(name, count)| (name.clone(), *count)).collect()
}
