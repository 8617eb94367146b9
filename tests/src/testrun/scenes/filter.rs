//! What the driver of the underlay interface drops already, and what it leaves to `underlay_ingress`.

use anyhow::Result;
use slice_common::drop_reason::DropReason;

use super::{bad_headers, on_wire, tunnel_in};
use crate::packet::{Ipv4, Tcp, Udp, Vxlan, ethernet};
use crate::testrun::actors::*;
use crate::testrun::{Expected, Program, World, early};

const UNKNOWN: u32 = 0;
const PROBES: u32 = 0x1f_ffff;

fn data(bytes: usize) -> Ipv4 {
    Ipv4::between(KAFKA_1, KAFKA_0.slice_address)
        .tcp(Tcp::new(40_000, 9092).ack().data(vec![7; bytes]))
}

fn good() -> Vxlan {
    tunnel_in(WEST_1, KAFKA.id, 3, &data(20))
}

fn passes(world: &mut World, what: &str, frame: &[u8]) -> Result<()> {
    world
        .send(what, Program::UnderlayFilter, NIC, frame)
        .expect(Expected::untouched(frame))
}

/// Dropped early, and for the same reason by `underlay_ingress`.
fn dropped_by_both(world: &mut World, reason: DropReason, frame: &[u8]) -> Result<()> {
    for program in [Program::UnderlayFilter, Program::UnderlayIngress] {
        world
            .send(reason.label(), program, NIC, frame)
            .expect(Expected::dropped(UNKNOWN, reason))?;
    }
    Ok(())
}

pub(super) fn strangers_are_dropped_early(world: &mut World) -> Result<()> {
    passes(world, "control", &on_wire(&good()))?;
    let stranger = good().outer(|outer| outer.source(NOBODY));
    dropped_by_both(world, DropReason::UnknownPeer, &on_wire(&stranger))?;
    for slice in [99, 0, PROBES - 1] {
        let unknown = good().slice(slice, 3);
        dropped_by_both(world, DropReason::UnknownSlice, &on_wire(&unknown))?;
    }
    for tunnel in bad_headers(&good()) {
        dropped_by_both(world, DropReason::BadTunnelHeader, &on_wire(&tunnel))?;
    }
    Ok(())
}

/// A node under test that knew nobody would drop all of these, were they the tunnel's.
pub(super) fn what_is_not_the_tunnels_passes_early(world: &mut World) -> Result<()> {
    let stranger = good().outer(|outer| outer.source(NOBODY));
    let udp = |port| Ipv4::between(NOBODY, EAST_1).udp(Udp::new(6085, port).data(vec![8; 60]));
    let mut tagged = on_wire(&stranger);
    tagged.splice(12..12, [0x81, 0, 0, 5]);
    let frames = [
        on_wire(&stranger.clone().destination_port(4789)),
        on_wire(
            &stranger
                .clone()
                .outer(|outer| outer.destination(EAST_2.address)),
        ),
        // For another station, or for all.
        stranger.frame([0x0a, 0, 0, 0, 9, 9], ROUTER_MAC),
        stranger.frame([0xff; 6], ROUTER_MAC),
        tagged,
        // Only the first part of a datagram has ports.
        udp(6085).fragment(64, false).frame(NIC_MAC, ROUTER_MAC),
        udp(53).frame(NIC_MAC, ROUTER_MAC),
        Ipv4::between(NOBODY, EAST_1)
            .tcp(Tcp::new(6085, 6085).syn())
            .frame(NIC_MAC, ROUTER_MAC),
        ethernet([0xff; 6], ROUTER_MAC, 0x0806, &[0; 28]),
        ethernet(NIC_MAC, ROUTER_MAC, 0x86dd, &[0x60; 60]),
        // Cut off before one can tell.
        on_wire(&stranger)[..33].to_vec(),
        on_wire(&stranger)[..37].to_vec(),
    ];
    for frame in frames {
        passes(world, "not the tunnel's", &frame)?;
    }
    // What only the packet inside is wrong of is not asked here.
    let inner = good().inner_ethertype(0x86dd);
    passes(world, "inner", &on_wire(&inner))
}

/// The length counts that all buffers have together, and headers that do not lie in the first are left to
/// those who see the whole packet.
pub(super) fn frame_in_several_buffers(world: &mut World) -> Result<()> {
    let large = tunnel_in(WEST_1, KAFKA.id, 3, &data(6000));
    passes(world, "large", &on_wire(&large))?;
    let longer_than_all = large.clone().outer(|outer| outer.total_bytes(6200));
    let program = Program::UnderlayFilter;
    let bad = Expected::dropped(UNKNOWN, DropReason::BadTunnelHeader);
    world
        .send("lie", program, NIC, on_wire(&longer_than_all))
        .expect(bad)?;
    if !early::takes_small_first_buffers(world) {
        return Ok(());
    }
    let stranger = on_wire(&good().outer(|outer| outer.source(NOBODY)));
    for first in [20, 34, 42, 49] {
        world
            .send("headers in two buffers", program, NIC, stranger.clone())
            .with_first_buffer_of(first)
            .expect(Expected::untouched(&stranger))?;
    }
    world
        .send("headers in one buffer", program, NIC, stranger)
        .with_first_buffer_of(50)
        .expect(Expected::dropped(UNKNOWN, DropReason::UnknownPeer))
}

pub(super) fn probes_pass_early(world: &mut World) -> Result<()> {
    for class in [0, 7] {
        let probe = good().slice(PROBES, class);
        passes(world, "probe", &on_wire(&probe))?;
        // Those of strangers do not.
        let stranger = probe.outer(|outer| outer.source(NOBODY));
        dropped_by_both(world, DropReason::UnknownPeer, &on_wire(&stranger))?;
    }
    Ok(())
}
