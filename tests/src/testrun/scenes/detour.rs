//! Datagrams in segments (UDP segmentation offload): the kernel's own device takes them out of tunnels.

use anyhow::Result;
use slice_common::drop_reason::DropReason;
use slice_common::layout::{Direction, ReplyKey};

use super::{from_pod, on_wire, to_pod, tunnel_in};
use crate::packet::{Icmp, Ipv4, Ipv4Quote, Mac, Udp};
use crate::testrun::actors::*;
use crate::testrun::{Expected, Program, World};

const SEGMENT_BYTES: u32 = 500;
const INNER_ETHERNET: usize = 50;

fn datagrams(from: [u8; 4], to: [u8; 4]) -> Ipv4 {
    Ipv4::between(from, to).udp(Udp::new(6000, 5201).data(vec![7; 1000]))
}

fn answer(from: [u8; 4], to: [u8; 4]) -> ReplyKey {
    reply_record(KAFKA.id, [to, from], [5201, 6000], 17)
}

/// Judged at the interface; taken out of the tunnel by the kernel; delivered behind its device.
pub(super) fn datagrams_in_segments_take_the_detour(world: &mut World) -> Result<()> {
    let inner = datagrams(KAFKA_1, KAFKA_0.slice_address);
    let arriving = on_wire(&tunnel_in(WEST_1, KAFKA.id, 5, &inner));
    let mut judged = arriving.clone();
    let [a, b, c, d, e, f, g, h] = DETOUR_SECRET;
    let addresses: [Mac; 2] = [[a, b, c, d, e, f], [g, h, 0, 0, 0, 7 << 3 | 5]];
    judged[INNER_ETHERNET..INNER_ETHERNET + 12].copy_from_slice(addresses.as_flattened());
    world
        .send(
            "at the interface",
            Program::UnderlayIngress,
            NIC,
            arriving.clone(),
        )
        .segments_of(SEGMENT_BYTES)
        .expect(
            Expected::left_to_host(&judged).remembered(answer(KAFKA_1, KAFKA_0.slice_address)),
        )?;
    let delivered = to_pod(&KAFKA_0, &datagrams(KAFKA_1, KAFKA_0.pod_address));
    let bytes = 20 + 8 + 1000;
    world
        .send(
            "behind the device",
            Program::TunnelIngress,
            PORT_OWNER,
            judged[INNER_ETHERNET..].to_vec(),
        )
        .segments_of(SEGMENT_BYTES)
        .expect(Expected::redirected(&delivered).counted(
            KAFKA.id,
            "west",
            5,
            Direction::In,
            bytes,
        ))?;
    // One by one they need none of it.
    world
        .send("one datagram", Program::UnderlayIngress, NIC, arriving)
        .expect(Expected::redirected(&delivered).counted(
            KAFKA.id,
            "west",
            5,
            Direction::In,
            bytes,
        ))?;
    // What may not pass does not get there.
    let denied =
        Ipv4::between(KAFKA_1, KAFKA_0.slice_address).udp(Udp::new(6000, 5202).data(vec![7; 1000]));
    world
        .send(
            "denied",
            Program::UnderlayIngress,
            NIC,
            on_wire(&tunnel_in(WEST_1, KAFKA.id, 5, &denied)),
        )
        .segments_of(SEGMENT_BYTES)
        .expect(Expected::dropped(KAFKA.id, DropReason::PolicyDenied))
}

pub(super) fn datagrams_in_segments_on_one_node(world: &mut World) -> Result<()> {
    let sent = datagrams(ANALYTICS_2.pod_address, KAFKA_0.slice_address);
    let seen = datagrams(ANALYTICS_2.slice_address, KAFKA_0.pod_address);
    world
        .send(
            "on one node",
            Program::PodEgress,
            ANALYTICS_2.device,
            from_pod(&sent),
        )
        .segments_of(SEGMENT_BYTES)
        .expect(
            Expected::redirected(&to_pod(&KAFKA_0, &seen))
                .counted(KAFKA.id, EAST, 0, Direction::Local, 20 + 8 + 1000)
                .remembered(answer(ANALYTICS_2.slice_address, KAFKA_0.slice_address)),
        )
}

/// 1500 bytes less 50 for the tunnel, 20 and 8. A test run cannot say of which kind the segments are,
/// and the kernel makes no room in those of no kind: whoever comes that far fits.
pub(super) fn segments_of_datagrams_must_fit(world: &mut World) -> Result<()> {
    let many =
        Ipv4::between(KAFKA_0.pod_address, KAFKA_1).udp(Udp::new(6000, 5201).data(vec![7; 3000]));
    let key = answer(KAFKA_0.slice_address, KAFKA_1);
    world
        .send("fits", Program::PodEgress, KAFKA_0.device, from_pod(&many))
        .segments_of(1422)
        .expect(Expected::dropped(KAFKA.id, DropReason::HelperFailed).remembered(key))?;
    let told = Ipv4::between(KAFKA_1, KAFKA_0.pod_address)
        .icmp(Icmp::fragmentation_needed(1450, &Ipv4Quote::long(&many)));
    world
        .send(
            "too big",
            Program::PodEgress,
            KAFKA_0.device,
            from_pod(&many),
        )
        .segments_of(1423)
        .expect(
            Expected::redirected(&to_pod(&KAFKA_0, &told))
                .but_dropped(KAFKA.id, DropReason::TooBig),
        )
}
