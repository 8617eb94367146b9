//! Flows whose way is known: answers from the cache are those of the tables, and go with them.

use anyhow::Result;
use slice_common::drop_reason::DropReason;
use slice_common::layout::{Direction, ReplyKey};

use super::{from_pod, on_wire, to_pod, tunnel_in, tunnel_out};
use crate::packet::{Ipv4, Tcp, Udp};
use crate::testrun::actors::*;
use crate::testrun::world::standard_policy;
use crate::testrun::{Expected, Program, World};

/// One to be seen, one to be kept, one that follows.
const PACKETS: usize = 3;

fn data() -> Tcp {
    Tcp::new(40_000, 9092).ack().data(vec![0xab; 99])
}

/// Sends a packet so often that its flow is known, and then once more when no rule allows it any longer
/// but nobody has said so: what passes now passes by the cache. When the change is in force, nothing does.
fn follows_until_a_change(
    world: &mut World,
    (program, device): (Program, &'static str),
    frame: &[u8],
    expected: impl Fn() -> Expected,
) -> Result<()> {
    for _ in 0..PACKETS {
        world
            .send("by the rules", program, device, frame)
            .expect(expected())?;
    }
    world.set_policy_without_activating(&[])?;
    world
        .send("known flow", program, device, frame)
        .expect(expected())?;
    world.activate()?;
    world
        .send("after the change", program, device, frame)
        .expect(Expected::dropped(KAFKA.id, DropReason::PolicyDenied))?;
    world.set_policy(&standard_policy())?;
    world
        .send("allowed again", program, device, frame)
        .expect(expected())
}

pub(super) fn known_flow_to_another_node(world: &mut World) -> Result<()> {
    let sent = Ipv4::between(KAFKA_0.pod_address, KAFKA_1).tcp(data());
    let inner = sent.clone().source(KAFKA_0.slice_address);
    let frame = tunnel_out(WEST_1, KAFKA.id, CLIENT, &inner, [40_000, 9092]);
    let bytes = inner.build().len();
    let from = (Program::PodEgress, KAFKA_0.device);
    follows_until_a_change(world, from, &from_pod(&sent), || {
        Expected::redirected(&frame).counted(KAFKA.id, "west", CLIENT.0, Direction::Out, bytes)
    })
}

pub(super) fn known_flow_on_one_node(world: &mut World) -> Result<()> {
    let sent = Ipv4::between(ANALYTICS_2.pod_address, KAFKA_0.slice_address).tcp(data());
    let inner = sent
        .clone()
        .source(ANALYTICS_2.slice_address)
        .destination(KAFKA_0.pod_address);
    let bytes = inner.build().len();
    let frame = sent.frame(KAFKA_0.mac, ANALYTICS_2.mac);
    let from = (Program::PodEgress, ANALYTICS_2.device);
    follows_until_a_change(world, from, &frame, || {
        Expected::redirected(&to_pod(&KAFKA_0, &inner)).counted(
            KAFKA.id,
            EAST,
            CLIENT.0,
            Direction::Local,
            bytes,
        )
    })
}

pub(super) fn known_flow_from_another_node(world: &mut World) -> Result<()> {
    let inner = Ipv4::between(ANALYTICS_0, KAFKA_0.slice_address).tcp(data());
    let frame = on_wire(&tunnel_in(WEST_1, KAFKA.id, CLIENT.0, &inner));
    let arrives = inner.clone().destination(KAFKA_0.pod_address);
    let bytes = inner.build().len();
    let from = (Program::UnderlayIngress, NIC);
    follows_until_a_change(world, from, &frame, || {
        Expected::redirected(&to_pod(&KAFKA_0, &arrives)).counted(
            KAFKA.id,
            "west",
            CLIENT.0,
            Direction::In,
            bytes,
        )
    })
}

/// A broker may answer its client, not connect to it: not even where its answers are well known.
pub(super) fn syn_does_not_follow_a_known_flow(world: &mut World) -> Result<()> {
    let to_client = |tcp: Tcp| from_pod(&Ipv4::between(KAFKA_0.pod_address, ANALYTICS_0).tcp(tcp));
    for _ in 0..PACKETS {
        world
            .send(
                "broker answers",
                Program::PodEgress,
                KAFKA_0.device,
                to_client(Tcp::new(9092, 40_000).ack()),
            )
            .accepted()?;
    }
    world
        .send(
            "broker connects",
            Program::PodEgress,
            KAFKA_0.device,
            to_client(Tcp::new(9092, 40_000).syn()),
        )
        .expect(Expected::dropped(KAFKA.id, DropReason::PolicyDenied))?;
    let to_broker = |tcp: Tcp| {
        let inner = Ipv4::between(KAFKA_1, ANALYTICS_2.slice_address).tcp(tcp);
        on_wire(&tunnel_in(WEST_1, KAFKA.id, CLIENT.0, &inner))
    };
    for _ in 0..PACKETS {
        let answer = to_broker(Tcp::new(9092, 40_000).ack());
        world
            .send("answer arrives", Program::UnderlayIngress, NIC, answer)
            .accepted()?;
    }
    let opening = to_broker(Tcp::new(9092, 40_000).syn());
    world
        .send("connection arrives", Program::UnderlayIngress, NIC, opening)
        .expect(Expected::dropped(KAFKA.id, DropReason::PolicyDenied))
}

/// The cache must not let a record grow old while its exchange goes on.
pub(super) fn known_datagrams_keep_their_answers_welcome(world: &mut World) -> Result<()> {
    let sent = Ipv4::between(KAFKA_0.pod_address, KAFKA_1).udp(Udp::new(6000, 5201));
    let answer = reply_record(KAFKA.id, [KAFKA_1, KAFKA_0.slice_address], [5201, 6000], 17);
    let inner = sent.clone().source(KAFKA_0.slice_address);
    let frame = tunnel_out(WEST_1, KAFKA.id, (0, 0), &inner, [6000, 5201]);
    for _ in 0..PACKETS {
        world
            .send(
                "datagram",
                Program::PodEgress,
                KAFKA_0.device,
                from_pod(&sent),
            )
            .accepted()?;
    }
    world.remove::<ReplyKey, u64>("REPLIES", answer)?;
    world
        .send("known", Program::PodEgress, KAFKA_0.device, from_pod(&sent))
        .expect(
            Expected::redirected(&frame)
                .counted(KAFKA.id, "west", 0, Direction::Out, inner.build().len())
                .remembered(answer),
        )
}

/// Everything that the tables do not know is looked at for every packet: here the length, the sender's
/// address, and what congestion says.
pub(super) fn known_flow_is_still_looked_at(world: &mut World) -> Result<()> {
    let sent = |bytes| {
        let tcp = Tcp::new(40_000, 9092).ack().data(vec![1; bytes]);
        Ipv4::between(KAFKA_0.pod_address, KAFKA_1).tcp(tcp)
    };
    for _ in 0..PACKETS {
        let frame = from_pod(&sent(100));
        world
            .send("fits", Program::PodEgress, KAFKA_0.device, frame)
            .accepted()?;
    }
    let too_big = sent(1411);
    let answer = Ipv4::between(KAFKA_1, KAFKA_0.pod_address).icmp(
        crate::packet::Icmp::fragmentation_needed(1450, &crate::packet::Ipv4Quote::long(&too_big)),
    );
    world
        .send(
            "too big",
            Program::PodEgress,
            KAFKA_0.device,
            from_pod(&too_big),
        )
        .expect(
            Expected::redirected(&to_pod(&KAFKA_0, &answer))
                .but_dropped(KAFKA.id, DropReason::TooBig),
        )?;
    let spoofed = sent(100).source(ANALYTICS_2.pod_address);
    world
        .send(
            "another's address",
            Program::PodEgress,
            KAFKA_0.device,
            from_pod(&spoofed),
        )
        .expect(Expected::dropped(KAFKA.id, DropReason::SpoofedSource))?;
    let inner = Ipv4::between(ANALYTICS_0, KAFKA_0.slice_address).tcp(data());
    for _ in 0..PACKETS {
        let frame = on_wire(&tunnel_in(WEST_1, KAFKA.id, CLIENT.0, &inner));
        world
            .send("arrives", Program::UnderlayIngress, NIC, frame)
            .accepted()?;
    }
    let congested = tunnel_in(WEST_1, KAFKA.id, CLIENT.0, &inner).outer(|outer| outer.ecn(3));
    world
        .send(
            "congested, not capable",
            Program::UnderlayIngress,
            NIC,
            on_wire(&congested),
        )
        .expect(Expected::dropped(KAFKA.id, DropReason::EcnNotCapable))?;
    let other_peer = tunnel_in(EDGE_1, KAFKA.id, CLIENT.0, &inner);
    world
        .send(
            "another peer",
            Program::UnderlayIngress,
            NIC,
            on_wire(&other_peer),
        )
        .expect(Expected::dropped(KAFKA.id, DropReason::WrongPeer))
}
