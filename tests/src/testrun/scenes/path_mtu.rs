//! Routers of the underlay that say how much they let through.

use anyhow::Result;
use slice_common::drop_reason::DropReason;
use slice_common::layout::{LearntMtu, PathEnds};
use slice_common::path_mtu::{LIFETIME_NS, PAUSE_NS};

use super::{from_pod, to_pod};
use crate::packet::{Icmp, Ipv4, Ipv4Quote, Tcp, Udp};
use crate::testrun::actors::*;
use crate::testrun::exchange::kernel_time_ns;
use crate::testrun::{Expected, Program, World};

const ROUTER: [u8; 4] = [172, 20, 1, 1];

/// A tunnel packet of 1500 bytes, as far as routers look.
fn tunnel_packet(to: [u8; 4]) -> Ipv4 {
    Ipv4::between(EAST_1, to).udp(Udp::new(0xc123, 6085).data(vec![0; 1472]))
}

fn complaint(said: u16, about: &Ipv4) -> Ipv4 {
    Ipv4::between(ROUTER, EAST_1).icmp(Icmp::fragmentation_needed(said, &Ipv4Quote::of(about)))
}

fn ends(node: Node) -> PathEnds {
    PathEnds {
        local: address(EAST_1),
        remote: address(node.address),
    }
}

/// The message goes on to the host as it came, and the path takes so many bytes from now on.
fn narrows(world: &mut World, said: u16, to: u32) -> Result<()> {
    let frame = complaint(said, &tunnel_packet(WEST_1.address)).frame(NIC_MAC, ROUTER_MAC);
    world
        .send("told", Program::UnderlayIngress, NIC, frame.clone())
        .expect(Expected::untouched(&frame).narrowed(ends(WEST_1), to))
}

fn changes_nothing(world: &mut World, who: &str, packet: &Ipv4) -> Result<()> {
    let frame = packet.frame(NIC_MAC, ROUTER_MAC);
    world
        .send(who, Program::UnderlayIngress, NIC, frame.clone())
        .expect(Expected::untouched(&frame))
}

fn segment(bytes: usize) -> Vec<u8> {
    let data = Tcp::new(40_000, 9092).ack().data(vec![1; bytes]);
    from_pod(&Ipv4::between(KAFKA_0.pod_address, KAFKA_1).tcp(data))
}

fn fits(world: &mut World, bytes: usize) -> Result<()> {
    world
        .send("fits", Program::PodEgress, KAFKA_0.device, segment(bytes))
        .accepted()
}

/// The pod is told of what fits without the tunnel.
fn is_told(world: &mut World, bytes: usize, mtu: u16) -> Result<()> {
    let data = Tcp::new(40_000, 9092).ack().data(vec![1; bytes]);
    let sent = Ipv4::between(KAFKA_0.pod_address, KAFKA_1).tcp(data);
    let answer = Ipv4::between(KAFKA_1, KAFKA_0.pod_address)
        .icmp(Icmp::fragmentation_needed(mtu, &Ipv4Quote::long(&sent)));
    let told = Expected::redirected(&to_pod(&KAFKA_0, &answer));
    world
        .send("told", Program::PodEgress, KAFKA_0.device, from_pod(&sent))
        .expect(told.but_dropped(KAFKA.id, DropReason::TooBig))
}

pub(super) fn router_narrows_a_path(world: &mut World) -> Result<()> {
    fits(world, 1410)?;
    narrows(world, 1400, 1400)?;
    fits(world, 1310)?;
    is_told(world, 1311, 1350)?;
    // A SYN announces what fits now, in both directions.
    let syn = |mss| {
        let syn = Tcp::new(40_000, 9092).syn().mss(mss);
        Ipv4::between(KAFKA_0.pod_address, KAFKA_1).tcp(syn)
    };
    let out = |mss| from_pod(&syn(mss));
    let clamped = world
        .send("SYN", Program::PodEgress, KAFKA_0.device, out(1460))
        .passed_on()?;
    let small = world
        .send("small SYN", Program::PodEgress, KAFKA_0.device, out(1310))
        .passed_on()?;
    anyhow::ensure!(clamped == small, "the SYN does not announce 1310 bytes");
    let arrives = |mss| {
        let syn = Tcp::new(40_000, 9092).syn().mss(mss);
        let inner = Ipv4::between(KAFKA_1, KAFKA_0.slice_address).tcp(syn);
        super::on_wire(&super::tunnel_in(WEST_1, KAFKA.id, 3, &inner))
    };
    let clamped = world
        .send("SYN", Program::UnderlayIngress, NIC, arrives(1460))
        .passed_on()?;
    let small = world
        .send("small SYN", Program::UnderlayIngress, NIC, arrives(1310))
        .passed_on()?;
    anyhow::ensure!(clamped == small, "the SYN does not arrive with 1310 bytes");
    // Other paths are as they were.
    let elsewhere = Tcp::new(40_000, 9092).ack().data(vec![1; 910]);
    let elsewhere = Ipv4::between(KAFKA_0.pod_address, KAFKA_2).tcp(elsewhere);
    world
        .send(
            "other path",
            Program::PodEgress,
            KAFKA_0.device,
            from_pod(&elsewhere),
        )
        .accepted()
}

/// Whoever does not quote a tunnel packet of this node that was too big; and then one who does.
pub(super) fn who_is_not_believed(world: &mut World) -> Result<()> {
    let about = || tunnel_packet(WEST_1.address);
    let ports = |from, to| {
        let datagram = Udp::new(from, to).data(vec![0; 1472]);
        Ipv4::between(EAST_1, WEST_1.address).udp(datagram)
    };
    let strangers = [
        ("another's packet", about().source(EAST_2.address)),
        ("a packet to nobody", tunnel_packet(NOBODY)),
        ("another port", ports(0xc123, 4789)),
        ("a source port that we never use", ports(0xbfff, 6085)),
        ("options that we never send", about().options(&[1; 4])),
        ("a fragment", about().fragment(0, true)),
        ("another protocol", about().tcp(Tcp::new(0xc123, 6085))),
    ];
    for (who, quoted) in strangers {
        changes_nothing(world, who, &complaint(1400, &quoted))?;
    }
    let quote = |bytes| Ipv4Quote::of(&about()).cut_to(bytes);
    for (what, message) in [
        (
            "a packet that fits",
            Icmp::fragmentation_needed(1500, &quote(28)),
        ),
        ("half a port", Icmp::fragmentation_needed(1400, &quote(23))),
        ("no packet", Icmp::fragmentation_needed(1400, &quote(0))),
        ("another complaint", Icmp::port_unreachable(&quote(28))),
    ] {
        changes_nothing(world, what, &Ipv4::between(ROUTER, EAST_1).icmp(message))?;
    }
    let right = complaint(1400, &about());
    for (what, packet) in [
        ("to another node", right.clone().destination(EAST_2.address)),
        ("in parts", right.clone().fragment(0, true)),
        ("later part", right.clone().fragment(8, false)),
        ("longer than it is", right.total_bytes(600)),
    ] {
        changes_nothing(world, what, &packet)?;
    }
    let overheard = complaint(1400, &about()).frame([0x0a, 0, 0, 0, 9, 9], ROUTER_MAC);
    world
        .send(
            "overheard",
            Program::UnderlayIngress,
            NIC,
            overheard.clone(),
        )
        .expect(Expected::untouched(&overheard))?;
    fits(world, 1410)?;
    narrows(world, 1400, 1400)
}

/// Nobody widens a path, nobody narrows it twice in a second, and nobody goes below what every host
/// takes.
pub(super) fn a_path_only_sinks(world: &mut World) -> Result<()> {
    narrows(world, 1400, 1400)?;
    for said in [1400, 1450, 1300] {
        changes_nothing(
            world,
            "again",
            &complaint(said, &tunnel_packet(WEST_1.address)),
        )?;
    }
    age(world, 1400, PAUSE_NS)?;
    changes_nothing(
        world,
        "wider",
        &complaint(1450, &tunnel_packet(WEST_1.address)),
    )?;
    narrows(world, 1300, 1300)?;
    age(world, 1300, PAUSE_NS)?;
    narrows(world, 0, 626)?;
    fits(world, 536)?;
    is_told(world, 537, 576)
}

pub(super) fn a_narrow_path_is_wide_again_later(world: &mut World) -> Result<()> {
    narrows(world, 1400, 1400)?;
    is_told(world, 1410, 1350)?;
    age(world, 1400, LIFETIME_NS)?;
    fits(world, 1410)?;
    narrows(world, 1400, 1400)?;
    is_told(world, 1410, 1350)?;
    // The last of all that was learnt is over: nobody looks any more.
    world.set_mtus_hold_until(kernel_time_ns()?)?;
    fits(world, 1410)?;
    age(world, 1400, 0)?;
    fits(world, 1410)
}

/// Makes what was learnt of the way to `west-1` so old.
fn age(world: &mut World, mtu: u32, age_ns: u64) -> Result<()> {
    let learnt = LearntMtu {
        mtu,
        reserved: 0,
        learnt_at_ns: kernel_time_ns()?.wrapping_sub(age_ns),
    };
    world.insert("PATH_MTU", ends(WEST_1), learnt)
}
