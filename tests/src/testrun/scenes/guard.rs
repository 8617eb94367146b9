//! What may leave the node by the underlay.

use anyhow::Result;
use slice_common::drop_reason::DropReason;

use super::{drop_in_guard, from_node, tunnel_out};
use crate::packet::{Icmp, Ipv4, Tcp, Udp, ethernet};
use crate::testrun::actors::*;
use crate::testrun::{Expected, Program, World};

const UNKNOWN: u32 = 0;

/// Somebody else takes them off, and the packet arrives as any.
const TAGS: [&[[u8; 2]]; 3] = [
    &[[0x81, 0x00]],
    &[[0x88, 0xa8]],
    &[[0x88, 0xa8], [0x81, 0x00]],
];

fn tagged(frame: &[u8], tags: &[[u8; 2]]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    for ethertype in tags.iter().rev() {
        frame.splice(12..12, [ethertype[0], ethertype[1], 0, 0]);
    }
    frame
}

fn syn() -> Ipv4 {
    Ipv4::between(KAFKA_0.slice_address, KAFKA_1).tcp(Tcp::new(40_000, 9092).syn())
}

/// The same bytes leave when our programs made them, whatever they say.
pub(super) fn drop_forged_underlay(world: &mut World) -> Result<()> {
    let reason = DropReason::ForgedUnderlay;
    let ours = tunnel_out(WEST_1, KAFKA.id, (0, 0), &syn(), [40_000, 9092]);
    drop_in_guard(world, UNKNOWN, reason, &ours)?;
    let to_peer = Ipv4::between(EAST_1, WEST_1.address);
    let plain = Udp::new(40_000, 6085).data(vec![8; 60]);
    for forged in [
        to_peer.clone().udp(plain.clone()),
        to_peer.clone().udp(plain.clone()).options(&[1, 1, 1, 1]),
        to_peer.clone().udp(plain.clone()).fragment(0, true),
        // To nobody that we know: another node may.
        Ipv4::between(EAST_1, INTERNET).udp(plain.clone()),
        // Not under the node's name: another node may masquerade it.
        Ipv4::between(STRANGER, WEST_1.address).udp(plain),
    ] {
        drop_in_guard(world, UNKNOWN, reason, &from_node(&forged))?;
        for tags in TAGS {
            let frame = tagged(&from_node(&forged), tags);
            drop_in_guard(world, UNKNOWN, reason, &frame)?;
        }
    }
    Ok(())
}

pub(super) fn drop_bare_slice_address(world: &mut World) -> Result<()> {
    for destination in [KAFKA_1, NOBODYS_SLICE_ADDRESS] {
        let bare = Ipv4::between(STRANGER, destination).tcp(Tcp::new(1, 9092).syn());
        let reason = DropReason::BareSliceAddress;
        drop_in_guard(world, KAFKA.id, reason, &from_node(&bare))?;
        for tags in TAGS {
            let frame = tagged(&from_node(&bare), tags);
            drop_in_guard(world, KAFKA.id, reason, &frame)?;
        }
    }
    Ok(())
}

pub(super) fn what_others_send_leaves(world: &mut World) -> Result<()> {
    let to_peer = Ipv4::between(EAST_1, WEST_1.address);
    let frames = [
        from_node(&to_peer.clone().tcp(Tcp::new(6085, 6085).syn())),
        from_node(&to_peer.clone().udp(Udp::new(6085, 4789).data(vec![8; 60]))),
        from_node(&to_peer.clone().icmp(Icmp::echo_request(1, 1))),
        from_node(&Ipv4::between(STRANGER, INTERNET).udp(Udp::new(1, 53))),
        // Later fragments have no ports: the first is judged.
        from_node(
            &to_peer
                .raw(17, vec![0x17, 0xc5, 0x17, 0xc5, 0, 0, 0, 0])
                .fragment(1480, false),
        ),
        // A tag proves nothing.
        tagged(
            &from_node(&Ipv4::between(STRANGER, INTERNET).udp(Udp::new(1, 53))),
            TAGS[0],
        ),
        ethernet([0xff; 6], NIC_MAC, 0x0806, &[0; 28]),
        ethernet(ROUTER_MAC, NIC_MAC, 0x86dd, &[0x60; 60]),
    ];
    for frame in frames {
        world
            .send("of others", Program::UnderlayGuard, NIC, frame.clone())
            .expect(Expected::untouched(&frame))?;
    }
    Ok(())
}
