//! Many datagrams at once: UDP segmentation offload (`UDP_SEGMENT`) and what receivers get of it, with
//! and without `UDP_GRO`.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::LinkUnspec;
use rtnetlink::packet_route::link::LinkAttribute;
use slice_tests::child::poll_until;
use slice_tests::harness::Scene;
use slice_tests::lab::{Lab, Pod};
use slice_tests::live::{counted_since, drops_everywhere, expect_drops, without_offload};
use slice_tests::traffic::tcp::{self, TcpOptions};

use crate::{OPEN_PORT, pods, same, slice_address};

pub(crate) const SCENES: &[Scene] = &[
    ("datagrams_in_segments_arrive_one_by_one_and_merged", whole),
    ("datagrams_in_segments_arrive_cut_by_the_interface", cut),
    (
        "datagrams_in_segments_arrive_without_checksum_offload",
        bare,
    ),
    (
        "super_packets_longer_than_ipv4_can_say_are_counted",
        big_tcp,
    ),
];

const SEGMENT_BYTES: usize = 1200;
const SEGMENTS: usize = 40;
const ROUNDS: usize = 50;
const LIMIT: Duration = Duration::from_secs(3);
/// Across clusters both ways, on one node, and to and from pods on a bridge.
const PAIRS: [(&str, &str); 5] = [
    ("kafka-0", "kafka-1"),
    ("kafka-1", "kafka-0"),
    ("kafka-1", "kafka-1"),
    ("kafka-2", "kafka-0"),
    ("kafka-0", "kafka-2"),
];

fn whole(lab: &Lab) -> Result<()> {
    for (from, to) in PAIRS {
        let before = through_the_device(lab, to)?;
        exchange(lab, from, to)?;
        let detours = through_the_device(lab, to)? - before;
        let at_least = if from == to { 0 } else { 2 * ROUNDS as u64 };
        ensure!(
            detours >= at_least,
            "not vacuous: {detours} packets from {from} to {to} came by the kernel's device"
        );
    }
    Ok(())
}

fn cut(lab: &Lab) -> Result<()> {
    lab.set_wire_mode(true)?;
    let played = PAIRS
        .iter()
        .try_for_each(|(from, to)| exchange(lab, from, to));
    lab.set_wire_mode(false)?;
    played
}

fn bare(lab: &Lab) -> Result<()> {
    without_offload(|| {
        PAIRS
            .iter()
            .try_for_each(|(from, to)| exchange(lab, from, to))
    })
}

pub(crate) fn exchange(lab: &Lab, from: &str, to: &str) -> Result<()> {
    let [near, far] = pods(lab, [from, to])?;
    for merges in [false, true] {
        expect_drops(lab, &[], || send_rounds(&near, &far, merges))
            .with_context(|| format!("{from} to {to}, merged: {merges}"))?;
    }
    Ok(())
}

/// Every datagram arrives, whole and in order, before the next ones are sent.
fn send_rounds(near: &Pod, far: &Pod, merges: bool) -> Result<()> {
    let sender = near.netns.enter(|| UdpSocket::bind("0.0.0.0:0"))??;
    setsockopt(&sender, sockopt::UdpGsoSegment, &(SEGMENT_BYTES as i32))?;
    let receiver = far
        .netns
        .enter(|| UdpSocket::bind(("0.0.0.0", OPEN_PORT)))??;
    setsockopt(&receiver, sockopt::UdpGroSegment, &merges)?;
    receiver.set_read_timeout(Some(LIMIT))?;
    let to = (slice_address(far)?, OPEN_PORT);
    for round in 0..ROUNDS {
        let sent: Vec<u8> = (0..SEGMENTS)
            .flat_map(|number| segment(round, number))
            .collect();
        sender.send_to(&sent, to)?;
        let arrived = receive(&receiver, sent.len()).with_context(|| format!("round {round}"))?;
        same("bytes are right", &(arrived == sent), &true)?;
    }
    Ok(())
}

/// Numbered, so that none can take another's place.
fn segment(round: usize, number: usize) -> Vec<u8> {
    (0..SEGMENT_BYTES)
        .map(|at| (round * 7 + number * 31 + at % 251) as u8)
        .collect()
}

fn receive(socket: &UdpSocket, bytes: usize) -> Result<Vec<u8>> {
    let deadline = Instant::now() + LIMIT;
    let mut arrived = Vec::with_capacity(bytes);
    let mut buffer = vec![0; 65_536];
    while arrived.len() < bytes {
        let (length, _) = socket
            .recv_from(&mut buffer)
            .with_context(|| format!("{} of {bytes} bytes arrived", arrived.len()))?;
        ensure!(length % SEGMENT_BYTES == 0, "a datagram of {length} bytes");
        arrived.extend(&buffer[..length]);
        ensure!(Instant::now() < deadline, "too slow");
    }
    Ok(arrived)
}

const USUAL_BYTES: u32 = 65_536;
const BIG_BYTES: u32 = 262_144;
const BIG_LIMIT: Duration = Duration::from_secs(30);
const BIG_STREAM_BYTES: u64 = 4 << 20;

/// A pod with BIG TCP: each super-packet above what an IPv4 header can say is dropped and counted, and the
/// stream goes on with what its sender then tries.
fn big_tcp(lab: &Lab) -> Result<()> {
    let [near, far] = pods(lab, ["kafka-0", "kafka-1"])?;
    let too_big = (
        "east-1".to_owned(),
        "kafka".to_owned(),
        "too_big".to_owned(),
    );
    let before = drops_everywhere(lab)?;
    let is_seen = || Ok(counted_since(lab, &before)?.contains_key(&too_big));
    set_gso_max(&near, BIG_BYTES)?;
    let streamed = stream_until(&near, &far, is_seen);
    set_gso_max(&near, USUAL_BYTES)?;
    streamed?;
    let reasons: Vec<_> = counted_since(lab, &before)?.into_keys().collect();
    same("counted", &reasons, &vec![too_big])
}

/// Streams until enough arrived and `is_seen`; everything must arrive in the end.
pub(crate) fn stream_until(
    near: &Pod,
    far: &Pod,
    is_seen: impl Fn() -> Result<bool>,
) -> Result<()> {
    let options = TcpOptions {
        port: OPEN_PORT + 1,
        rate_bps: None,
        ..TcpOptions::default()
    };
    let load = tcp::start(&near.place()?, &far.place()?, &options)?;
    let done = poll_until(BIG_LIMIT, || {
        let is_done = load.verified_bytes() >= BIG_STREAM_BYTES && is_seen()?;
        Ok((is_done || load.has_ended()).then_some(()))
    })?;
    let report = load.stop()?;
    ensure!(report.is_whole(), "{report:?}");
    ensure!(
        done.is_some() && is_seen()?,
        "not vacuous: no super-packet was that long: {report:?}"
    );
    Ok(())
}

/// By netlink, because some versions of `ip` have no word for it.
fn set_gso_max(pod: &Pod, bytes: u32) -> Result<()> {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
    };
    pod.netns
        .enter(|| runtime()?.block_on(set_gso_ipv4_max("eth0", bytes)))?
}

async fn set_gso_ipv4_max(device: &str, bytes: u32) -> Result<()> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let connection = tokio::spawn(connection);
    let change = LinkUnspec::new_with_name(device)
        .append_extra_attribute(LinkAttribute::GsoIpv4MaxSize(bytes))
        .build();
    let changed = handle.link().set(change).execute().await;
    connection.abort();
    changed.with_context(|| format!("cannot set gso_ipv4_max_size of {device} to {bytes}"))
}

/// How many packets the kernel's device took out of tunnels at the pod's node.
fn through_the_device(lab: &Lab, pod: &str) -> Result<u64> {
    let node = lab.node(lab.pod(pod)?.node)?;
    let key = (node.netns.name().to_owned(), "sliceplane0".to_owned());
    let devices = lab.devices()?;
    let device = devices.get(&key).context("the node has no sliceplane0")?;
    Ok(device.rx_packets)
}
