//! Tunnel packets that no honest peer sends.

use anyhow::Result;
use slice_common::drop_reason::DropReason;

use super::{bad_headers, drops_from_wire, on_wire, tunnel_in};
use crate::packet::{Ipv4, Tcp, Vxlan};
use crate::testrun::actors::*;
use crate::testrun::{Expected, Program, World};

/// A SYN inside the tunnel.
fn syn(source: [u8; 4], destination: [u8; 4]) -> Ipv4 {
    Ipv4::between(source, destination).tcp(Tcp::new(40_000, 9092).syn())
}

fn good() -> Vxlan {
    tunnel_in(WEST_1, KAFKA.id, 3, &syn(KAFKA_1, KAFKA_0.slice_address))
}

const UNKNOWN: u32 = 0;

pub(super) fn drop_unknown_peer(world: &mut World) -> Result<()> {
    let bad = good().outer(|outer| outer.source(NOBODY));
    drops_from_wire(world, UNKNOWN, DropReason::UnknownPeer, &good(), &bad)
}

pub(super) fn drop_bad_tunnel_header(world: &mut World) -> Result<()> {
    // The bit of the Generic Protocol Extension.
    drops_from_wire(
        world,
        UNKNOWN,
        DropReason::BadTunnelHeader,
        &good(),
        &good().flags(0x0c),
    )
}

pub(super) fn every_other_tunnel_header_is_bad(world: &mut World) -> Result<()> {
    for tunnel in bad_headers(&good()) {
        drops_from_wire(
            world,
            UNKNOWN,
            DropReason::BadTunnelHeader,
            &good(),
            &tunnel,
        )?;
    }
    // The slice is known by then, and nothing follows.
    drops_from_wire(
        world,
        KAFKA.id,
        DropReason::BadTunnelHeader,
        &good(),
        &good().cut_to(8),
    )?;
    drops_from_wire(
        world,
        KAFKA.id,
        DropReason::BadTunnelHeader,
        &good(),
        &good().cut_to(21),
    )
}

pub(super) fn drop_unknown_slice(world: &mut World) -> Result<()> {
    for slice in [99, 0, 0x1f_fffe] {
        let bad = good().slice(slice, 3);
        drops_from_wire(world, UNKNOWN, DropReason::UnknownSlice, &good(), &bad)?;
    }
    Ok(())
}

pub(super) fn drop_wrong_slice(world: &mut World) -> Result<()> {
    let reason = DropReason::WrongSlice;
    drops_from_wire(world, SHOP.id, reason, &good(), &good().slice(SHOP.id, 3))?;
    // Only the destination belongs to another slice.
    let crossing = tunnel_in(WEST_1, KAFKA.id, 3, &syn(KAFKA_1, WEB_0.slice_address));
    drops_from_wire(world, KAFKA.id, reason, &good(), &crossing)
}

pub(super) fn drop_wrong_peer(world: &mut World) -> Result<()> {
    let reason = DropReason::WrongPeer;
    let other_node = good().outer(|outer| outer.source(EAST_2.address));
    drops_from_wire(world, KAFKA.id, reason, &good(), &other_node)?;
    // Addresses that no peer may speak for: nobody's, this node's, and one outside every slice.
    for source in [NOBODYS_SLICE_ADDRESS, ANALYTICS_2.slice_address, INTERNET] {
        let forged = tunnel_in(WEST_1, KAFKA.id, 3, &syn(source, KAFKA_0.slice_address));
        drops_from_wire(world, KAFKA.id, reason, &good(), &forged)?;
    }
    Ok(())
}

pub(super) fn drop_inner_not_ipv4(world: &mut World) -> Result<()> {
    let bad = good().inner_ethertype(0x86dd);
    drops_from_wire(world, KAFKA.id, DropReason::InnerNotIpv4, &good(), &bad)
}

pub(super) fn drop_ecn_not_capable(world: &mut World) -> Result<()> {
    let marked = |inner_ecn| {
        let inner = syn(KAFKA_1, KAFKA_0.slice_address).ecn(inner_ecn);
        tunnel_in(WEST_1, KAFKA.id, 3, &inner).outer(|outer| outer.ecn(3))
    };
    drops_from_wire(
        world,
        KAFKA.id,
        DropReason::EcnNotCapable,
        &marked(2),
        &marked(0),
    )
}

/// The same packet is good on the underlay interface and never on the device behind it.
/// Only what this node's own program sent through the kernel's device comes out of it.
pub(super) fn drop_slow_path(world: &mut World) -> Result<()> {
    let packet = syn(KAFKA_1, KAFKA_0.slice_address);
    let frame = |secret: [u8; 8]| {
        let [a, b, c, d, e, f, g, h] = secret;
        packet.frame([a, b, c, d, e, f], [g, h, 0, 0, 0, (KAFKA.id << 3) as u8])
    };
    world
        .send(
            "control",
            Program::TunnelIngress,
            PORT_OWNER,
            frame(DETOUR_SECRET),
        )
        .accepted()?;
    let unknown = || Expected::dropped(UNKNOWN, DropReason::SlowPath);
    for at in 0..8 {
        let mut guess = DETOUR_SECRET;
        guess[at] ^= 0x80;
        world
            .send("a guess", Program::TunnelIngress, PORT_OWNER, frame(guess))
            .expect(unknown())?;
    }
    world
        .send(
            "as a peer sent it",
            Program::TunnelIngress,
            PORT_OWNER,
            on_wire(&good()),
        )
        .expect(unknown())
}

pub(super) fn drop_not_local(world: &mut World) -> Result<()> {
    let for_edge = tunnel_in(WEST_1, KAFKA.id, 3, &syn(KAFKA_1, KAFKA_2));
    drops_from_wire(world, KAFKA.id, DropReason::NotLocal, &good(), &for_edge)
}

pub(super) fn arrival_for_nobody(world: &mut World) -> Result<()> {
    let cases = [
        (VACANT_HERE, DropReason::NoEndpoint),
        (NOBODYS_SLICE_ADDRESS, DropReason::NoRoute),
        (INTERNET, DropReason::NoRoute),
        (WEB_2, DropReason::WrongSlice),
    ];
    for (destination, reason) in cases {
        let tunnel = tunnel_in(WEST_1, KAFKA.id, 3, &syn(KAFKA_1, destination));
        drops_from_wire(world, KAFKA.id, reason, &good(), &tunnel)?;
    }
    Ok(())
}
