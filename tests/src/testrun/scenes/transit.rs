//! What a gateway passes on between other nodes.

use anyhow::Result;
use slice_common::drop_reason::DropReason;
use slice_common::layout::{Class, Direction, FirstFragment, FragmentKey, Settings};

use super::{drops_from_wire, on_wire, tunnel_between, tunnel_in};
use crate::packet::{Checksum, Icmp, Ipv4, Ipv4Quote, Tcp, Udp, Vxlan};
use crate::testrun::actors::*;
use crate::testrun::{Expected, Program, World, standard_settings};

pub(super) const PORT: u16 = 0xc777;

/// East-1 passes packets on.
pub(super) fn gateway(world: &mut World) -> Result<()> {
    world.set_settings(Settings {
        flags: Settings::GATEWAY,
        ..standard_settings()
    })
}

/// From a pod of east-2 to a broker in west.
fn out() -> Ipv4 {
    Ipv4::between(ANALYTICS_1, KAFKA_1)
}

/// As east-2 sends it.
fn arrives(inner: &Ipv4) -> Vxlan {
    tunnel_in(EAST_2, KAFKA.id, 3, inner)
        .source_port(PORT)
        .outer(|outer| outer.dscp(18).ecn(1).ttl(9))
}

/// As east-1 sends it on: the Ethernet header is the neighbour layer's business.
pub(super) fn leaves(to: Node, inner: &Ipv4) -> Vec<u8> {
    let tunnel = tunnel_between(EAST_1, to.address, KAFKA.id, 3)
        .source_port(PORT)
        .outer(|outer| outer.dscp(18).ecn(1))
        .carry(inner);
    on_wire(&tunnel)
}

fn passes(
    world: &mut World,
    scene: &str,
    (tunnel, to): (&Vxlan, Node),
    inner: &Ipv4,
) -> Result<()> {
    let bytes = inner.build().len();
    let seen = Expected::redirected(&leaves(to, inner));
    world
        .send(scene, Program::UnderlayIngress, NIC, on_wire(tunnel))
        .expect(seen.counted(KAFKA.id, to.cluster, 3, Direction::Transit, bytes))
}

fn ack(packet: Ipv4) -> Ipv4 {
    packet.tcp(Tcp::new(40_000, 9092).ack().data(vec![7; 100]))
}

/// Addresses and TTLs change, and nothing else: not class, congestion marks, source port or the packet.
pub(super) fn stream_through_a_gateway(world: &mut World) -> Result<()> {
    gateway(world)?;
    let tunnel = arrives(&ack(out()));
    passes(world, "stream", (&tunnel, WEST_1), &ack(out().ttl(63)))
}

/// A checksum over the old addresses does not go on.
pub(super) fn outer_checksum_ends_at_a_gateway(world: &mut World) -> Result<()> {
    gateway(world)?;
    let tunnel = arrives(&ack(out())).udp_checksum(Checksum::Right);
    passes(
        world,
        "outer checksum",
        (&tunnel, WEST_1),
        &ack(out().ttl(63)),
    )
}

/// The next path may be narrower than the one that the packet came by.
pub(super) fn connection_through_a_gateway_fits_its_next_path(world: &mut World) -> Result<()> {
    gateway(world)?;
    let syn = |ip: Ipv4, mss| ip.tcp(Tcp::new(40_000, 9092).syn().mss(mss));
    let to_edge = || Ipv4::between(ANALYTICS_1, KAFKA_2);
    let tunnel = arrives(&syn(to_edge(), 1410));
    passes(
        world,
        "narrow",
        (&tunnel, EDGE_1),
        &syn(to_edge().ttl(63), 910),
    )
}

/// Merged segments are judged by their size, not by the size of all of them.
pub(super) fn merged_segments_through_a_gateway(world: &mut World) -> Result<()> {
    gateway(world)?;
    let stream = |ip: Ipv4| ip.tcp(Tcp::new(40_000, 9092).ack().data(vec![7; 3000]));
    let tunnel = arrives(&stream(out()));
    let inner = stream(out().ttl(63));
    world
        .send("merged", Program::UnderlayIngress, NIC, on_wire(&tunnel))
        .segments_of(1410)
        .expect(Expected::redirected(&leaves(WEST_1, &inner)).counted(
            KAFKA.id,
            "west",
            3,
            Direction::Transit,
            3040,
        ))?;
    world
        .send("too wide", Program::UnderlayIngress, NIC, on_wire(&tunnel))
        .segments_of(1411)
        .expect(told(
            DropReason::TooBig,
            &stream(out()),
            Icmp::fragmentation_needed,
        ))
}

/// A gateway remembers no questions: another one may have seen them.
pub(super) fn answers_pass_any_gateway(world: &mut World) -> Result<()> {
    gateway(world)?;
    let back = |ttl| Ipv4::between(KAFKA_1, ANALYTICS_1).ttl(ttl);
    let answers: [fn(Ipv4) -> Ipv4; 3] = [
        |ip| ip.udp(Udp::new(5201, 6000).data(vec![1; 20])),
        |ip| ip.icmp(Icmp::echo_reply(7, 1)),
        |ip| ip.tcp(Tcp::new(9092, 40_000).syn().ack()),
    ];
    for answer in answers {
        let tunnel = tunnel_in(WEST_1, KAFKA.id, 3, &answer(back(64)))
            .source_port(PORT)
            .outer(|outer| outer.dscp(18).ecn(1));
        passes(world, "answer", (&tunnel, EAST_2), &answer(back(63)))?;
    }
    // What begins an exchange needs a rule of its own.
    for question in [
        back(64).tcp(Tcp::new(9092, 40_000).syn()),
        back(64).icmp(Icmp::echo_request(7, 1)),
        back(64).udp(Udp::new(5202, 6000)),
    ] {
        let tunnel = tunnel_in(WEST_1, KAFKA.id, 3, &question);
        world
            .send("question", Program::UnderlayIngress, NIC, on_wire(&tunnel))
            .expect(Expected::dropped(KAFKA.id, DropReason::PolicyDenied))?;
    }
    Ok(())
}

pub(super) fn parts_through_a_gateway(world: &mut World) -> Result<()> {
    gateway(world)?;
    let data = |ttl| {
        let datagram = Udp::new(6000, 5201).data(vec![1; 1416]);
        let first = out().ttl(ttl).identification(0x1234).udp(datagram);
        first.fragment(0, true)
    };
    let rest = |ttl| {
        let later = out().ttl(ttl).identification(0x1234).raw(17, vec![3; 40]);
        later.fragment(1424, false)
    };
    let without_first = on_wire(&arrives(&rest(64)));
    world
        .send("lone", Program::UnderlayIngress, NIC, without_first)
        .expect(Expected::dropped(KAFKA.id, DropReason::Fragment))?;
    let key = FragmentKey {
        slice: KAFKA.id,
        source: address(ANALYTICS_1),
        destination: address(KAFKA_1),
        identification: 0x1234u16.to_be(),
        protocol: 17,
        reserved: 0,
    };
    let noted = FirstFragment {
        source_port: 6000u16.to_be(),
        destination_port: 5201u16.to_be(),
        class: Class::DEFAULT,
    };
    let seen = Expected::redirected(&leaves(WEST_1, &data(63)));
    let bytes = data(63).build().len();
    world
        .send(
            "first",
            Program::UnderlayIngress,
            NIC,
            on_wire(&arrives(&data(64))),
        )
        .expect(
            seen.counted(KAFKA.id, "west", 3, Direction::Transit, bytes)
                .noted(key, noted),
        )?;
    passes(world, "later", (&arrives(&rest(64)), WEST_1), &rest(63))
}

/// What is asked of a packet for this node is asked of one for another.
pub(super) fn what_a_gateway_does_not_pass_on(world: &mut World) -> Result<()> {
    gateway(world)?;
    let good = arrives(&ack(out()));
    let bad = |inner: Ipv4| arrives(&inner);
    let cases = [
        (
            DropReason::PolicyDenied,
            bad(out().tcp(Tcp::new(40_000, 22).syn())),
        ),
        (
            DropReason::WrongPeer,
            bad(ack(Ipv4::between(KAFKA_1, KAFKA_2))),
        ),
        (
            DropReason::WrongSlice,
            bad(ack(Ipv4::between(ANALYTICS_1, WEB_2))),
        ),
        (
            DropReason::NoRoute,
            bad(ack(Ipv4::between(ANALYTICS_1, NOBODYS_SLICE_ADDRESS))),
        ),
    ];
    for (reason, tunnel) in cases {
        drops_from_wire(world, KAFKA.id, reason, &good, &tunnel)?;
    }
    Ok(())
}

/// From west to east is fine, from west to west is a mistake in somebody's routes.
pub(super) fn drop_loop(world: &mut World) -> Result<()> {
    gateway(world)?;
    let answer =
        |to| Ipv4::between(KAFKA_1, to).tcp(Tcp::new(9092, 40_000).ack().data(vec![1; 10]));
    let good = tunnel_in(WEST_1, KAFKA.id, 3, &answer(ANALYTICS_1));
    let bad = tunnel_in(WEST_1, KAFKA.id, 3, &answer(ANALYTICS_0));
    drops_from_wire(world, KAFKA.id, DropReason::Loop, &good, &bad)
}

/// The answer to `about` that goes back to east-2, in the class that it came in.
fn told(reason: DropReason, about: &Ipv4, message: fn(u16, &Ipv4Quote) -> Icmp) -> Expected {
    let quote = Ipv4Quote::long(about);
    let answer = Ipv4::between(KAFKA_1, ANALYTICS_1).icmp(message(1450, &quote));
    let tunnel = tunnel_between(EAST_1, EAST_2.address, KAFKA.id, 3)
        .source_port(super::flow_port(KAFKA_1, ANALYTICS_1, [0, 0]))
        .outer(|outer| outer.dscp(18))
        .carry(&answer);
    Expected::redirected(&on_wire(&tunnel)).but_dropped(KAFKA.id, reason)
}

/// The sender of the packet is told, by the name that it knows the destination by.
pub(super) fn drop_ttl(world: &mut World) -> Result<()> {
    gateway(world)?;
    let tunnel = arrives(&ack(out().ttl(2)));
    passes(world, "one hop left", (&tunnel, WEST_1), &ack(out().ttl(1)))?;
    let exceeded: fn(u16, &Ipv4Quote) -> Icmp = |_, quote| Icmp::time_exceeded(quote);
    for ttl in [1, 0] {
        let late = ack(out().ttl(ttl));
        let frame = on_wire(&arrives(&late));
        world
            .send("no hop left", Program::UnderlayIngress, NIC, frame)
            .expect(told(DropReason::Ttl, &late, exceeded))?;
    }
    Ok(())
}

/// Nothing is said about errors and later parts, and we quote no options and nothing that is shorter
/// than a quote.
pub(super) fn late_without_a_word(world: &mut World) -> Result<()> {
    gateway(world)?;
    let about = Ipv4::between(KAFKA_1, ANALYTICS_1).tcp(Tcp::new(9092, 40_000).ack());
    let error = Icmp::port_unreachable(&Ipv4Quote::of(&about).followed_by(&[0; 20]));
    let silent = [
        out().icmp(error),
        ack(out().options(&[1, 1, 1, 1])),
        out().udp(Udp::new(6000, 5201)),
    ];
    for packet in silent {
        let good = arrives(&packet.clone().ttl(2));
        let bad = arrives(&packet.ttl(1));
        drops_from_wire(world, KAFKA.id, DropReason::Ttl, &good, &bad)?;
    }
    Ok(())
}
