//! What a packet costs, to be counted where time follows executed instructions (a virtual machine with
//! qemu's `-icount`): there a duration says how many instructions ran, whatever else the machine does.

use std::time::Duration;

use anyhow::{Context, Result};

use super::actors::*;
use super::exchange::Program;
use super::scenes::{from_pod, on_wire, tunnel_in};
use super::world::World;
use crate::packet::{Ipv4, Tcp, Udp};

/// A packet whose cost is held to a budget.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub name: &'static str,
    program: Program,
    device: &'static str,
    /// The n-th packet.
    frame: fn(u16) -> Vec<u8>,
}

/// The n-th packet of the first is of a known flow, that of the others opens a new one. What only
/// passes by is the bare cost of being in its way.
pub const CASES: [Case; 4] = [
    Case {
        name: "pod_egress_hit",
        program: Program::PodEgress,
        device: KAFKA_0.device,
        frame: |_| from_pod(&Ipv4::between(KAFKA_0.pod_address, KAFKA_1).tcp(data())),
    },
    Case {
        name: "pod_egress_miss",
        program: Program::PodEgress,
        device: KAFKA_0.device,
        frame: |n| from_pod(&Ipv4::between(KAFKA_0.pod_address, KAFKA_1).udp(datagram(n))),
    },
    Case {
        name: "underlay_ingress_hit",
        program: Program::UnderlayIngress,
        device: NIC,
        frame: |_| arriving(&Ipv4::between(KAFKA_1, KAFKA_0.slice_address).tcp(data())),
    },
    Case {
        name: "underlay_ingress_miss",
        program: Program::UnderlayIngress,
        device: NIC,
        frame: |n| arriving(&Ipv4::between(KAFKA_1, KAFKA_0.slice_address).udp(datagram(n))),
    },
];

/// Interrupts only ever add.
const PACKETS: u16 = 15;

/// The shortest run of a case's program.
/// # Errors  when a packet is not handed on.
pub fn shortest(world: &mut World, case: &Case) -> Result<Duration> {
    world.reset()?;
    let mut shortest = None;
    for n in 0..PACKETS {
        let frame = (case.frame)(n);
        let took = world
            .send(case.name, case.program, case.device, frame)
            .time()?;
        shortest = Some(shortest.map_or(took, |least: Duration| least.min(took)));
    }
    shortest.context("no packet was sent")
}

fn data() -> Tcp {
    Tcp::new(40_000, 9092)
        .ack()
        .timestamps(9, 8)
        .data(vec![0x5a; 64])
}

fn datagram(n: u16) -> Udp {
    Udp::new(40_000 + n, 5201).data(vec![0x5a; 64])
}

fn arriving(inner: &Ipv4) -> Vec<u8> {
    on_wire(&tunnel_in(WEST_1, KAFKA.id, CLIENT.0, inner))
}
