//! Slices share an uplink. No scene can stop the clock, so rates are such that nothing depends on it: at
//! 8 kbit/s a packet of a thousand bytes takes a second.

use anyhow::{Result, ensure};
use slice_common::drop_reason::DropReason;
use slice_common::id::{SliceId, TrafficClass};
use slice_common::layout::{
    Counter, Peer, ShaperBackend, ShaperCounts, ShaperKey, ShaperPlace, ShaperTerms,
};
use slice_common::shaper::{
    Assured, ClassTerms, Loan, Patience, Rate, SliceTerms, UplinkTerms, WireBytes,
};

use super::{from_node, on_wire, tunnel_between, tunnel_out};
use crate::packet::{Ipv4, Tcp, Udp};
use crate::testrun::actors::*;
use crate::testrun::exchange::kernel_time_ns;
use crate::testrun::shaping::NOTHING_SHAPED;
use crate::testrun::{Expected, Program, World};

pub(super) const SLOW_BPS: u64 = Rate::MIN_BPS;
pub(super) const FAST_BPS: u64 = 10_000_000_000;
pub(super) const SECOND_NS: u64 = 1_000_000_000;
/// The places of slice `kafka`, and of its classes.
pub(super) const PLACE: ShaperPlace = ShaperPlace {
    uplink: 1,
    slice: 1,
};
pub(super) const DEFAULT_PLACE: u32 = 8;
pub(super) const REPLICATION_PLACE: u32 = DEFAULT_PLACE + REPLICATION.0 as u32;
const CLIENT_PLACE: u32 = DEFAULT_PLACE + CLIENT.0 as u32;
/// What a packet of [`leaving`] is on the link.
pub(super) const LINK_BYTES: u64 = 1000;

pub(super) fn rate(bps: u64) -> Rate {
    Rate::new_checked(bps).expect("rates of scenes are in range")
}

/// So small that none of the scenes' packets takes the lane, or fits into a burst.
fn least_frame() -> WireBytes {
    WireBytes::new(1)
}

/// A class with one clock: two sides would let a second packet through.
pub(super) fn class(bps: u64) -> ClassTerms {
    let patience = Patience::for_round_trip(10_000_000);
    ClassTerms {
        favour_interactive: false,
        ..ClassTerms::new(rate(bps), patience, least_frame())
    }
}

/// Terms of `kafka` at this ceiling, whose default class is entitled to as much.
pub(super) fn terms(backend: ShaperBackend, ceiling_bps: u64, default: &ClassTerms) -> ShaperTerms {
    let ceiling = rate(ceiling_bps);
    let slice = SliceTerms {
        burst_ns: 0,
        ..SliceTerms::new(ceiling, Assured::new(ceiling, None), least_frame())
    };
    ShaperTerms::new(backend, PLACE, &UplinkTerms::NONE, &slice, default)
}

pub(super) fn share(world: &mut World, terms: ShaperTerms) -> Result<()> {
    let ifindex = world.ifindex(NIC)?;
    let slice = KAFKA.id;
    world.set_shaper_terms(&[(ShaperKey { ifindex, slice }, terms)])
}

/// A tunnel packet of `kafka` that has [`LINK_BYTES`] on the link; each port is a flow of its own.
pub(super) fn leaving(world: &mut World, class: (u8, u8), port: u16) -> Result<Vec<u8>> {
    let frame = tunnel_of_class(class, port);
    world.forget_shaped_flow(&frame)?;
    Ok(frame)
}

pub(super) fn tunnel_of(port: u16) -> Vec<u8> {
    tunnel_of_class((0, 0), port)
}

pub(super) fn tunnel_of_class(class: (u8, u8), port: u16) -> Vec<u8> {
    // Behind preamble and gap, checksum, Ethernet and the tunnel's headers.
    let payload_bytes = LINK_BYTES as usize - 20 - 4 - 14 - 50 - 40;
    let tcp = Tcp::new(port, 9092).ack().data(vec![7; payload_bytes]);
    let packet = Ipv4::between(KAFKA_0.slice_address, KAFKA_1).tcp(tcp);
    tunnel_out(WEST_1, KAFKA.id, class, &packet, [port, 9092])
}

fn one() -> Counter {
    Counter {
        packets: 1,
        bytes: LINK_BYTES,
    }
}

fn guaranteed_at_once() -> ShaperCounts {
    let mut counts = NOTHING_SHAPED;
    counts.guaranteed = one();
    counts.waited[0] = 1;
    // Packets of test runs have one.
    counts.with_socket = 1;
    counts
}

fn leaves(world: &mut World, frame: &[u8], place: u32, counts: ShaperCounts) -> Result<()> {
    world
        .send("leaves", Program::UnderlayGuard, NIC, frame)
        .marked_as_tunnelled()
        .expect(Expected::untouched(frame).shaped(place, counts))
}

fn is_dropped(world: &mut World, frame: &[u8], place: u32) -> Result<()> {
    let counts = ShaperCounts {
        over_horizon: one(),
        ..NOTHING_SHAPED
    };
    let dropped = Expected::dropped(KAFKA.id, DropReason::OverHorizon);
    world
        .send("too late", Program::UnderlayGuard, NIC, frame)
        .marked_as_tunnelled()
        .expect(dropped.shaped(place, counts))
}

/// The first of two takes the link for a second.
pub(super) fn drop_over_horizon(world: &mut World) -> Result<()> {
    for (backend, port) in [
        (ShaperBackend::Vq, 50_001),
        (ShaperBackend::Edt, 50_002),
        (ShaperBackend::Htb, 50_003),
    ] {
        world.reset()?;
        let slow = terms(backend, SLOW_BPS, &class(SLOW_BPS));
        share(world, slow)?;
        let frame = leaving(world, (0, 0), port)?;
        match backend {
            ShaperBackend::Vq => leaves(world, &frame, DEFAULT_PLACE, guaranteed_at_once())?,
            ShaperBackend::Htb => world
                .send("control", Program::UnderlayGuard, NIC, frame.clone())
                .marked_as_tunnelled()
                .queue()
                .map(drop)?,
            ShaperBackend::Edt => world
                .send("control", Program::UnderlayGuard, NIC, frame.clone())
                .marked_as_tunnelled()
                .departure()
                .map(drop)?,
        }
        is_dropped(world, &frame, DEFAULT_PLACE)?;
        // Another flow has no slot either.
        let other = leaving(world, (0, 0), port + 10)?;
        is_dropped(world, &other, DEFAULT_PLACE)?;
    }
    Ok(())
}

pub(super) fn what_fits_the_ceiling_passes(world: &mut World) -> Result<()> {
    let fast = terms(ShaperBackend::Vq, FAST_BPS, &class(FAST_BPS));
    share(world, fast)?;
    let frame = leaving(world, (0, 0), 50_003)?;
    for _ in 0..100 {
        leaves(world, &frame, DEFAULT_PLACE, guaranteed_at_once())?;
    }
    Ok(())
}

/// What another class sends too much, it sends itself.
pub(super) fn a_class_keeps_its_guarantee(world: &mut World) -> Result<()> {
    let number = |(class, _): (u8, u8)| TrafficClass::from_low_bits(u32::from(class));
    let shared = terms(ShaperBackend::Vq, SLOW_BPS, &class(SLOW_BPS))
        .with_class(number(REPLICATION), &class(SLOW_BPS))
        .with_class(number(CLIENT), &class(FAST_BPS));
    share(world, shared)?;
    let bulk = leaving(world, REPLICATION, 50_004)?;
    leaves(world, &bulk, REPLICATION_PLACE, guaranteed_at_once())?;
    is_dropped(world, &bulk, REPLICATION_PLACE)?;
    let request = leaving(world, CLIENT, 50_005)?;
    for _ in 0..10 {
        leaves(world, &request, CLIENT_PLACE, guaranteed_at_once())?;
        is_dropped(world, &bulk, REPLICATION_PLACE)?;
    }
    Ok(())
}

/// Even where nothing else has a chance.
pub(super) fn probes_and_strangers_are_not_shaped(world: &mut World) -> Result<()> {
    share(world, terms(ShaperBackend::Vq, SLOW_BPS, &class(SLOW_BPS)))?;
    let frame = leaving(world, (0, 0), 50_006)?;
    leaves(world, &frame, DEFAULT_PLACE, guaranteed_at_once())?;
    is_dropped(world, &frame, DEFAULT_PLACE)?;
    let inner = Ipv4::between(KAFKA_0.slice_address, KAFKA_1).udp(Udp::new(1, 2).data(vec![1; 9]));
    let in_tunnel =
        |slice| on_wire(&tunnel_between(EAST_1, WEST_1.address, slice, 0).carry(&inner));
    let bare = from_node(&Ipv4::between(EAST_1, WEST_1.address).tcp(Tcp::new(6085, 6085).syn()));
    for untouched in [in_tunnel(SliceId::PROBES), in_tunnel(SHOP.id), bare] {
        world
            .send("not shaped", Program::UnderlayGuard, NIC, untouched.clone())
            .marked_as_tunnelled()
            .expect(Expected::untouched(&untouched))?;
    }
    // By another uplink, which nobody shares.
    world
        .send(
            "elsewhere",
            Program::UnderlayGuard,
            PORT_OWNER,
            frame.clone(),
        )
        .marked_as_tunnelled()
        .expect(Expected::untouched(&frame))?;
    // Without terms there is no shaper.
    world.set_shaper_terms(&[])?;
    world
        .send("no terms", Program::UnderlayGuard, NIC, frame.clone())
        .marked_as_tunnelled()
        .expect(Expected::untouched(&frame))
}

/// Nobody pays for what goes to another node of the cluster, though it leaves by the same interface.
pub(super) fn what_stays_in_the_cluster_is_not_shaped(world: &mut World) -> Result<()> {
    let slow = terms(ShaperBackend::Vq, SLOW_BPS, &class(SLOW_BPS));
    share(world, slow)?;
    let frame = leaving(world, (0, 0), 50_009)?;
    leaves(world, &frame, DEFAULT_PLACE, guaranteed_at_once())?;
    is_dropped(world, &frame, DEFAULT_PLACE)?;
    let nearby = Peer {
        group: WEST_1.peer_group(),
        cluster: cluster(EAST),
        member: 1,
        path: WEST_1.path(),
        flags: Peer::SAME_CLUSTER,
    };
    let underlay = address(WEST_1.address).network_word();
    world.insert("PEERS", underlay, nearby)?;
    for _ in 0..10 {
        world
            .send("nearby", Program::UnderlayGuard, NIC, frame.clone())
            .marked_as_tunnelled()
            .expect(Expected::untouched(&frame))?;
    }
    Ok(())
}

/// Terms under which packets wait for seconds, and those that wait for more than one are marked.
pub(super) fn patient() -> ShaperTerms {
    let default = ClassTerms {
        burst_ns: 0,
        mark_ns: SECOND_NS + SECOND_NS / 2,
        horizon_ns: 60 * SECOND_NS,
        ..class(SLOW_BPS)
    };
    terms(ShaperBackend::Edt, SLOW_BPS, &default)
}

/// Each a second after the one before, or when its sender wants it to leave, if that is later.
pub(super) fn packets_are_given_a_departure(world: &mut World) -> Result<()> {
    share(world, patient())?;
    let frame = leaving(world, (0, 0), 50_007)?;
    let sent = |world: &mut World, wanted_ns| {
        world
            .send("departure", Program::UnderlayGuard, NIC, frame.clone())
            .marked_as_tunnelled()
            .to_leave_at(wanted_ns)
            .departure()
    };
    let earliest_ns = kernel_time_ns()?;
    let (first_ns, _) = sent(world, 0)?;
    let latest_ns = kernel_time_ns()?;
    ensure!((earliest_ns..=latest_ns).contains(&first_ns), "{first_ns}");
    let (second_ns, _) = sent(world, 1)?;
    let apart_ns = second_ns - first_ns;
    ensure!(
        (SECOND_NS..SECOND_NS + 10).contains(&apart_ns),
        "{apart_ns}"
    );
    let wanted_ns = first_ns + 10 * SECOND_NS;
    let (third_ns, _) = sent(world, wanted_ns)?;
    ensure!(third_ns == wanted_ns, "{third_ns}");
    // Nobody may leave packets in a queue that is everybody's for longer than they may wait, and whoever wants to
    // does not overtake what came earlier.
    let (cut_ns, _) = sent(world, first_ns + 100 * SECOND_NS)?;
    let apart_ns = cut_ns - second_ns;
    let latest_ns = (2 + 60) * SECOND_NS;
    ensure!(
        (latest_ns..latest_ns + 30).contains(&apart_ns),
        "{apart_ns}"
    );
    // Such a time is of another clock.
    let (other_ns, _) = sent(world, first_ns + 2000 * SECOND_NS)?;
    let apart_ns = other_ns - second_ns;
    let three_ns = 3 * SECOND_NS;
    ensure!((three_ns..three_ns + 40).contains(&apart_ns), "{apart_ns}");
    let (last_ns, _) = sent(world, 0)?;
    let apart_ns = last_ns - second_ns;
    let four_ns = 4 * SECOND_NS;
    ensure!((four_ns..four_ns + 50).contains(&apart_ns), "{apart_ns}");
    Ok(())
}

/// Half a second after the one before for who has two parts, two for who has half a part, and one when it is
/// over, though no agent ended it.
pub(super) fn a_loan_changes_what_bytes_count_until_it_is_over(world: &mut World) -> Result<()> {
    let ever_ns = u64::MAX;
    let whole = Loan::WHOLE;
    let loans = [
        (Loan::having(2 * whole, ever_ns), SECOND_NS / 2),
        (Loan::having(whole / 2, ever_ns), 2 * SECOND_NS),
        (Loan::having(2 * whole, kernel_time_ns()?), SECOND_NS),
    ];
    for (number, (loan, wanted_ns)) in (0u16..).zip(loans) {
        share(world, patient())?;
        world.set_loan(PLACE.slice, loan)?;
        let frame = leaving(world, (0, 0), 50_020 + number)?;
        let departure = |world: &mut World| {
            world
                .send("lent", Program::UnderlayGuard, NIC, frame.clone())
                .marked_as_tunnelled()
                .to_leave_at(0)
                .departure()
        };
        let (first_ns, _) = departure(world)?;
        let (second_ns, _) = departure(world)?;
        let apart_ns = second_ns - first_ns;
        ensure!(
            (wanted_ns..wanted_ns + 10).contains(&apart_ns),
            "{loan:?}: {apart_ns}"
        );
        world.reset()?;
    }
    Ok(())
}

/// In the tunnel's header, and only who understands it.
pub(super) fn whoever_waits_long_is_told(world: &mut World) -> Result<()> {
    share(world, patient())?;
    let plain = leaving(world, (0, 0), 50_008)?;
    let with_ecn = |ecn| {
        let inner = Ipv4::between(KAFKA_0.slice_address, KAFKA_1).ecn(ecn);
        let inner = inner.tcp(Tcp::new(50_008, 9092).ack().data(vec![7; 872]));
        tunnel_out(WEST_1, KAFKA.id, (0, 0), &inner, [50_008, 9092])
    };
    let sent = |world: &mut World, frame: &[u8]| {
        world
            .send("told", Program::UnderlayGuard, NIC, frame)
            .marked_as_tunnelled()
            .departure()
    };
    for frame in [&plain, &with_ecn(2)] {
        // At once, or after a second.
        let (_, left) = sent(world, frame)?;
        ensure!(left == *frame, "told too early");
    }
    for (ecn, told) in [(0, 0), (1, 3), (2, 3), (3, 3)] {
        let frame = with_ecn(ecn);
        let (_, left) = sent(world, &frame)?;
        ensure!(left[15] & 3 == told, "{ecn} became {}", left[15] & 3);
        ensure!(
            left[34..] == frame[34..],
            "more than the outer header changed"
        );
    }
    Ok(())
}

pub(super) fn segments_are_counted_as_the_link_carries_them(world: &mut World) -> Result<()> {
    share(world, terms(ShaperBackend::Vq, FAST_BPS, &class(FAST_BPS)))?;
    for (port, timestamps, header_bytes) in [(50_009, false, 40), (50_010, true, 52)] {
        let mut tcp = Tcp::new(port, 9092).ack().data(vec![7; 2950]);
        if timestamps {
            tcp = tcp.timestamps(1, 2);
        }
        let packet = Ipv4::between(KAFKA_0.slice_address, KAFKA_1).tcp(tcp);
        let frame = tunnel_out(WEST_1, KAFKA.id, (0, 0), &packet, [port, 9092]);
        world.forget_shaped_flow(&frame)?;
        let mut counts = guaranteed_at_once();
        // Eleven segments, the last one of fifty bytes.
        counts.guaranteed.bytes = 2950 + 11 * (header_bytes + 50 + 38);
        world
            .send("segments", Program::UnderlayGuard, NIC, frame.clone())
            .marked_as_tunnelled()
            .segments_of(290)
            .expect(Expected::untouched(&frame).shaped(DEFAULT_PLACE, counts))?;
    }
    Ok(())
}

/// A peer of another configuration may name any class.
pub(super) fn a_class_without_terms_is_the_default_one(world: &mut World) -> Result<()> {
    share(world, terms(ShaperBackend::Vq, SLOW_BPS, &class(SLOW_BPS)))?;
    let known = leaving(world, (0, 0), 50_011)?;
    leaves(world, &known, DEFAULT_PLACE, guaranteed_at_once())?;
    let unknown = leaving(world, (7, 0), 50_012)?;
    is_dropped(world, &unknown, DEFAULT_PLACE)
}
