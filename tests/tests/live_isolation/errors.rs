//! What a pod is told of packets that its peer did not take.

use std::io::ErrorKind;

use anyhow::{Context, Result};
use slice_tests::harness::Scene;
use slice_tests::lab::Lab;
use slice_tests::live::{Capture, Frame, Mailbox, expect_drops, inject, without_offload};
use slice_tests::packet::{Udp, internet_checksum};

use crate::{OPEN_PORT, ipv4, pods, same, slice_address};

pub(crate) const SCENES: &[Scene] = &[
    ("a_closed_port_is_told_across_clusters", closed_port),
    ("an_error_quotes_the_packet_as_it_was_sent", quote),
];

const CLOSED_PORT: u16 = OPEN_PORT;
const ICMP_UNREACHABLE: u8 = 3;

/// Across clusters both ways, and without leaving the node; where only the stacks do checksums too.
fn closed_port(lab: &Lab) -> Result<()> {
    tell_of_closed_port(lab)?;
    without_offload(|| tell_of_closed_port(lab))
}

fn tell_of_closed_port(lab: &Lab) -> Result<()> {
    for (from, to) in [
        ("kafka-0", "kafka-1"),
        ("kafka-2", "kafka-0"),
        // To itself, by the name that others use.
        ("kafka-0", "kafka-0"),
    ] {
        let [near, far] = pods(lab, [from, to])?;
        expect_drops(lab, &[], || {
            let mailbox = Mailbox::open(&near.netns, OPEN_PORT + 1)?;
            let said = mailbox.refusal((slice_address(&far)?, CLOSED_PORT))?;
            same("said", &said, &Some(ErrorKind::ConnectionRefused))
        })
        .with_context(|| format!("{from} to {to}"))?;
    }
    Ok(())
}

/// But for the UDP checksum, which nobody can check in a quote.
fn quote(lab: &Lab) -> Result<()> {
    let [kafka_0, kafka_1] = pods(lab, ["kafka-0", "kafka-1"])?;
    let told = Capture::of(&kafka_0.netns, "eth0")?;
    let sent = ipv4(kafka_0.pod_address, slice_address(&kafka_1)?)
        .identification(0x4711)
        .udp(Udp::new(OPEN_PORT, CLOSED_PORT).data(*b"is anybody there?"))
        .build();
    inject(&kafka_0.netns, &sent)?;
    let is_error = |frame: &Frame| {
        let packet = frame.ipv4().filter(|_| !frame.is_outgoing);
        packet.is_some_and(|it| it[9] == 1 && it[20] == ICMP_UNREACHABLE)
    };
    let error = told.wait_for(is_error)?.context("kafka-0 was not told")?;
    let error = error.ipv4().unwrap_or_default();
    same(
        "said by",
        &error[12..16].to_vec(),
        &slice_address(&kafka_1)?.octets().to_vec(),
    )?;
    same("ICMP checksum", &internet_checksum(&[&error[20..]]), &0)?;
    let mut quoted = error[28..28 + sent.len()].to_vec();
    same(
        "quoted header's checksum",
        &internet_checksum(&[&quoted[..20]]),
        &0,
    )?;
    // Kernels differ in whether the quote's TTL and checksums are those before or after routing.
    for at in [8, 10, 11, 26, 27] {
        quoted[at] = sent[at];
    }
    same("quote", &quoted, &sent)
}
