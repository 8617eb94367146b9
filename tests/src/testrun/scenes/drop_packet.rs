//! Packets that are not carried, whoever sends them.

use anyhow::Result;
use slice_common::drop_reason::DropReason;

use super::{drops_from_pod, from_pod, to_pod};
use crate::packet::{Icmp, Ipv4, Ipv4Quote, Tcp, Udp};
use crate::testrun::actors::*;
use crate::testrun::{Expected, Program, World};

fn to_kafka_1() -> Ipv4 {
    Ipv4::between(KAFKA_0.pod_address, KAFKA_1)
}

fn syn() -> Ipv4 {
    to_kafka_1().tcp(Tcp::new(40_000, 9092).syn())
}

pub(super) fn drop_malformed(world: &mut World) -> Result<()> {
    drops_from_pod(world, DropReason::Malformed, &syn(), &syn().total_bytes(41))
}

pub(super) fn every_lie_about_length_is_malformed(world: &mut World) -> Result<()> {
    let tcp = || Tcp::new(40_000, 9092).syn();
    let lies = [
        ("another version", syn().version(6)),
        ("header shorter than any", syn().header_words(4)),
        (
            "header longer than the packet says",
            syn().header_words(15).total_bytes(40),
        ),
        ("total shorter than the header", syn().total_bytes(19)),
        (
            "TCP header shorter than any",
            to_kafka_1().tcp(tcp().header_words(4)),
        ),
        (
            "TCP header longer than the packet",
            to_kafka_1().tcp(tcp().header_words(6)),
        ),
        ("no room for a TCP header", to_kafka_1().raw(6, vec![0; 19])),
        ("no room for a UDP header", to_kafka_1().raw(17, vec![0; 7])),
        (
            "no room for an ICMP header",
            to_kafka_1().raw(1, vec![8, 0, 0, 0, 0, 0, 0]),
        ),
        ("nothing after the header", to_kafka_1().raw(6, vec![])),
    ];
    for (lie, packet) in lies {
        world
            .send(lie, Program::PodEgress, KAFKA_0.device, from_pod(&packet))
            .expect(Expected::dropped(KAFKA.id, DropReason::Malformed))?;
    }
    Ok(())
}

pub(super) fn drop_fragment(world: &mut World) -> Result<()> {
    let datagram = to_kafka_1()
        .identification(7)
        .udp(Udp::new(6000, 5201).data(vec![1; 64]))
        .fragment(0, true);
    let later = |ip: Ipv4| ip.raw(17, vec![2; 40]).fragment(72, false);
    // Not vacuous: behind its first it passes.
    for packet in [&datagram, &later(to_kafka_1().identification(7))] {
        world
            .send(
                "control",
                Program::PodEgress,
                KAFKA_0.device,
                from_pod(packet),
            )
            .accepted()?;
    }
    for orphan in [
        later(to_kafka_1().identification(8)),
        later(Ipv4::between(KAFKA_0.pod_address, ANALYTICS_0).identification(7)),
        to_kafka_1()
            .identification(7)
            .raw(6, vec![2; 40])
            .fragment(72, false),
    ] {
        drops_from_pod(world, DropReason::Fragment, &syn(), &orphan)?;
    }
    // The header of TCP is not written twice.
    let first = to_kafka_1()
        .identification(9)
        .tcp(Tcp::new(40_000, 9092).ack().data([1; 12]));
    let overwriting = |offset| {
        let rest = to_kafka_1().identification(9).raw(6, vec![2; 40]);
        rest.fragment(offset, false)
    };
    world
        .send(
            "first",
            Program::PodEgress,
            KAFKA_0.device,
            from_pod(&first.fragment(0, true)),
        )
        .accepted()?;
    for offset in [8, 16] {
        let good = overwriting(24);
        drops_from_pod(world, DropReason::Fragment, &good, &overwriting(offset))?;
    }
    Ok(())
}

pub(super) fn drop_unsupported_protocol(world: &mut World) -> Result<()> {
    // The same bytes as SCTP.
    let bytes = syn().build().split_off(20);
    let control = to_kafka_1().raw(6, bytes.clone());
    drops_from_pod(
        world,
        DropReason::UnsupportedProtocol,
        &control,
        &to_kafka_1().raw(132, bytes),
    )
}

/// Quotes that nobody can mean.
pub(super) fn drop_icmp_error(world: &mut World) -> Result<()> {
    let syn = Tcp::new(40_000, 9092).syn();
    let about = Ipv4::between(KAFKA_1, KAFKA_0.pod_address).tcp(syn.clone());
    let error = |quote: Ipv4Quote| to_kafka_1().icmp(Icmp::port_unreachable(&quote));
    let good = error(Ipv4Quote::of(&about));
    let echo = about.clone().icmp(Icmp::echo_request(1, 1));
    drops_from_pod(
        world,
        DropReason::IcmpError,
        &good,
        &error(Ipv4Quote::of(&about).cut_to(27)),
    )?;
    let error_about = |packet: &Ipv4| error(Ipv4Quote::of(packet));
    for bad in [
        // Somebody else's conversation, from either side; the pod's own packet; its slice name.
        error_about(&about.clone().source(ANALYTICS_0)),
        error_about(&about.clone().destination(ANALYTICS_2.pod_address)),
        error_about(&to_kafka_1().tcp(syn.clone())),
        error_about(&about.clone().destination(KAFKA_0.slice_address)),
        // No ports, no protocol of ours, no IPv4, an error about an error, nothing at all.
        error_about(&about.clone().fragment(8, false)),
        error_about(&about.clone().raw(132, vec![0; 8])),
        error_about(&about.clone().version(6)),
        error_about(&about.clone().header_words(4)),
        error_about(&about.icmp(Icmp::port_unreachable(&Ipv4Quote::of(&echo)))),
        to_kafka_1().icmp(Icmp::message(3, 3)),
    ] {
        drops_from_pod(world, DropReason::IcmpError, &good, &bad)?;
    }
    Ok(())
}

pub(super) fn drop_unsupported_icmp(world: &mut World) -> Result<()> {
    // Type 13 asks for the time.
    let echo = to_kafka_1().icmp(Icmp::message(8, 0));
    drops_from_pod(
        world,
        DropReason::UnsupportedIcmp,
        &echo,
        &to_kafka_1().icmp(Icmp::message(13, 0)),
    )
}

pub(super) fn drop_gso_not_tcp(world: &mut World) -> Result<()> {
    let echo = to_kafka_1().icmp(Icmp::echo_request(7, 1).data(vec![1; 1000]));
    let part = to_kafka_1().udp(Udp::new(6000, 5201).data(vec![1; 1000]));
    for packet in [echo, part.fragment(0, true)] {
        let frame = from_pod(&packet);
        world
            .send("control", Program::PodEgress, KAFKA_0.device, frame.clone())
            .accepted()?;
        world
            .send("in segments", Program::PodEgress, KAFKA_0.device, frame)
            .segments_of(500)
            .expect(Expected::dropped(KAFKA.id, DropReason::GsoNotTcp))?;
    }
    Ok(())
}

/// 1450 bytes and 50 of tunnel headers fill the path; one more does not fit.
pub(super) fn drop_too_big(world: &mut World) -> Result<()> {
    let data = |bytes| to_kafka_1().tcp(Tcp::new(40_000, 9092).ack().data(vec![1; bytes]));
    world
        .send(
            "fits",
            Program::PodEgress,
            KAFKA_0.device,
            from_pod(&data(1410)),
        )
        .accepted()?;
    // The pod is told by its peer's name. The quote ends with the TCP header.
    for too_big in [data(1411), data(1411).dont_fragment(false), data(3000)] {
        let answer = Ipv4::between(KAFKA_1, KAFKA_0.pod_address)
            .icmp(Icmp::fragmentation_needed(1450, &Ipv4Quote::long(&too_big)));
        let told = Expected::redirected(&to_pod(&KAFKA_0, &answer));
        world
            .send(
                "too big",
                Program::PodEgress,
                KAFKA_0.device,
                from_pod(&too_big),
            )
            .expect(told.but_dropped(KAFKA.id, DropReason::TooBig))?;
    }
    Ok(())
}

/// Nothing is said about errors, and we quote no options.
/// A super-packet that is longer than its header can say (BIG TCP) has a length of 0.
pub(super) fn more_than_a_header_can_say(world: &mut World) -> Result<()> {
    let data = to_kafka_1().tcp(Tcp::new(40_000, 9092).ack().data(vec![1; 3000]));
    let frame = from_pod(&data.total_bytes(0));
    world
        .send(
            "one packet",
            Program::PodEgress,
            KAFKA_0.device,
            frame.clone(),
        )
        .expect(Expected::dropped(KAFKA.id, DropReason::Malformed))?;
    world
        .send("segments", Program::PodEgress, KAFKA_0.device, frame)
        .segments_of(1000)
        .expect(Expected::dropped(KAFKA.id, DropReason::TooBig))
}

pub(super) fn too_big_without_a_word(world: &mut World) -> Result<()> {
    let about = Ipv4::between(KAFKA_1, KAFKA_0.pod_address).tcp(Tcp::new(40_000, 9092).syn());
    let error = |bytes: usize| {
        let quote = Ipv4Quote::of(&about).followed_by(&vec![0; bytes - 28]);
        to_kafka_1().icmp(Icmp::port_unreachable(&quote))
    };
    drops_from_pod(world, DropReason::TooBig, &error(1422), &error(1423))?;
    let options = |bytes| {
        let data = Tcp::new(40_000, 9092).ack().data(vec![1; bytes]);
        to_kafka_1().options(&[1, 1, 1, 1]).tcp(data)
    };
    drops_from_pod(world, DropReason::TooBig, &options(1406), &options(1407))
}
