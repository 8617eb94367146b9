//! Packets: sound ones, ones with a few faults, damaged ones, and noise. Most of them say the right
//! things to get deep into a program; what they then meet there is chance.

mod cast;
mod inside;
mod wire;

use std::collections::VecDeque;

pub(crate) use self::cast::{Cast, Distant, NOWHERE, Speaker};
use super::input::Input;
use super::kernel::bytes_min;
use super::random::Random;
use crate::testrun::Program;
use crate::testrun::actors::*;

/// Set on packets that are not ours.
pub(super) const OTHER_MARK: u32 = 0x5011_ce00;
pub(super) const DEVICES: [&str; 7] = [
    KAFKA_0.device,
    ANALYTICS_2.device,
    WEB_0.device,
    NATIVE_0.device,
    PORT_OWNER,
    STRANGER_DEVICE,
    NIC,
];

/// Makes packets, each by the chance of those before it.
pub(crate) struct Generator {
    random: Random,
    cast: Cast,
    /// What was said lately, so that it can be answered, repeated and quoted.
    recent: VecDeque<Flow>,
}

/// Who speaks to whom, by names inside the slice or outside of any.
#[derive(Clone, Copy, Debug)]
struct Flow {
    from: [u8; 4],
    to: [u8; 4],
    ports: [u16; 2],
}

impl Generator {
    pub(crate) fn new(seed: u64, cast: Cast) -> Self {
        Self {
            random: Random::new(seed),
            cast,
            recent: VecDeque::new(),
        }
    }

    /// The next packet for a program; now and then one for another before it, such as a question.
    pub(super) fn next(&mut self, program: Program) -> Vec<Input> {
        let mut inputs = Vec::new();
        let asks_first = matches!(program, Program::PodIngress | Program::UnderlayIngress);
        if asks_first && self.random.percent(8) {
            inputs.push(self.one(Program::PodEgress));
        }
        if program == Program::PodEgress && self.random.percent(8) {
            inputs.push(self.one(Program::UnderlayIngress));
        }
        let pod = self.any_pod();
        inputs.extend(self.next_about(program, &pod, None));
        inputs
    }

    /// The next packet from or for this pod; those in tunnels come from `node`, if one is named.
    pub(crate) fn next_about(
        &mut self,
        program: Program,
        pod: &Speaker,
        node: Option<[u8; 4]>,
    ) -> Vec<Input> {
        let input = self.one_about(program, pod, node);
        let later_part = self.later_part(&input);
        std::iter::once(input).chain(later_part).collect()
    }

    /// Another part of the same datagram, if the packet is the first one.
    fn later_part(&mut self, first: &Input) -> Option<Input> {
        let ip = match first.program {
            Program::PodEgress => 14,
            Program::UnderlayIngress => 64,
            Program::PodIngress
            | Program::UnderlayGuard
            | Program::TunnelIngress
            | Program::UnderlayFilter => return None,
        };
        if first.frame.get(ip + 6..ip + 8) != Some(&[0x20, 0]) {
            return None;
        }
        let mut later = first.clone();
        later.frame[ip + 6] = self.random.pick(&[0, 0x20]);
        later.frame[ip + 7] = self.random.pick(&[1, 2, 3, 8, 185]);
        Some(later)
    }

    fn one(&mut self, program: Program) -> Input {
        let pod = self.any_pod();
        self.one_about(program, &pod, None)
    }

    fn one_about(&mut self, program: Program, pod: &Speaker, node: Option<[u8; 4]>) -> Input {
        let mut input = match program {
            Program::PodEgress => self.pod_sends(pod),
            Program::PodIngress => self.pod_is_reached(pod),
            Program::UnderlayIngress => self.tunnel_arrives(pod, node),
            Program::UnderlayGuard => self.packet_leaves(),
            Program::TunnelIngress => self.detour_ends(pod, node),
            Program::UnderlayFilter => Input {
                program,
                ..self.tunnel_arrives(pod, node)
            },
        };
        self.tag(&mut input.frame);
        if self.random.percent(20) {
            self.damage(&mut input.frame);
        }
        if self.random.percent(1) {
            let bytes = self.random.below(self.cast.frame_bytes_max);
            input.frame = self.random.bytes(bytes);
        }
        input.frame.truncate(self.cast.frame_bytes_max);
        while input.frame.len() < bytes_min(&input.frame) {
            input.frame.push(0);
        }
        input
    }

    /// A VLAN tag, rarely.
    fn tag(&mut self, frame: &mut Vec<u8>) {
        if frame.len() >= 14 && self.random.percent(2) {
            let ethertype: [u8; 2] = self
                .random
                .pick(&[[0x81, 0x00], [0x88, 0xa8], [0x91, 0x00]]);
            let tag = [ethertype[0], ethertype[1], 0, self.random.pick(&[0, 7])];
            frame.splice(12..12, tag);
        }
    }

    /// Changes, removes, repeats and adds bytes, mostly among the headers.
    fn damage(&mut self, frame: &mut Vec<u8>) {
        for _ in 0..1 + self.random.below(3) {
            if frame.is_empty() {
                return;
            }
            let reach = if self.random.percent(85) {
                130
            } else {
                frame.len()
            };
            let at = self.random.below(frame.len().min(reach));
            match self.random.below(8) {
                0 => frame[at] ^= 1 << self.random.below(8),
                1 => {
                    frame[at] = self
                        .random
                        .pick(&[0, 1, 0x7f, 0x80, 0xff, 0x45, 0x46, 4, 17])
                }
                2 => frame[at] = self.random.byte(),
                3 => frame[at] = frame[at].wrapping_add(1),
                4 => drop(frame.remove(at)),
                5 => {
                    let count = 1 + self.random.below(8);
                    let more = self.random.bytes(count);
                    drop(frame.splice(at..at, more));
                }
                6 => frame.truncate(at + self.random.below(64)),
                _ => {
                    let end = (at + 1 + self.random.below(40)).min(frame.len());
                    frame.extend_from_within(at..end);
                }
            }
        }
    }

    fn any_address(&mut self) -> [u8; 4] {
        match self.random.below(20) {
            0 => (self.random.word() as u32).to_be_bytes(),
            _ => self.random.pick(&self.cast.addresses),
        }
    }

    fn any_device(&mut self) -> &'static str {
        self.random.pick(&self.cast.devices)
    }

    /// 0, but for a few.
    fn segments(&mut self) -> u32 {
        match self.random.below(60) {
            0 => 1448,
            1 => 500,
            2 => self.random.below(65_536) as u32,
            _ => 0,
        }
    }

    fn any_pod(&mut self) -> Speaker {
        self.random.pick(&self.cast.speakers)
    }

    /// A node, and an address behind it, mostly of the pod's slice.
    fn any_remote(&mut self, slice: u32) -> Distant {
        let of_slice = |there: &&Distant| there.slice == slice;
        let there: Vec<Distant> = self.cast.distant.iter().filter(of_slice).copied().collect();
        if there.is_empty() || self.random.percent(3) {
            self.random.pick(&self.cast.distant)
        } else {
            self.random.pick(&there)
        }
    }

    fn any_peer(&mut self) -> [u8; 4] {
        match self.random.below(8) {
            0 => NOBODY,
            1 => self.cast.not_entitled,
            2 => self.any_address(),
            _ => self.random.pick(&self.cast.peers),
        }
    }

    /// What was said lately and matches, the other way round or again.
    fn said_before(&mut self, matches: impl Fn(&Flow) -> bool) -> Option<Flow> {
        if self.recent.is_empty() || !self.random.percent(25) {
            return None;
        }
        let flow = self.recent[self.random.below(self.recent.len())];
        let [own, other] = flow.ports;
        let answer = Flow {
            from: flow.to,
            to: flow.from,
            ports: [other, own],
        };
        [answer, flow].into_iter().find(matches)
    }

    fn remember(&mut self, flow: Flow) {
        self.recent.push_front(flow);
        self.recent.truncate(24);
    }

    fn any_ports(&mut self) -> [u16; 2] {
        const KNOWN: [u16; 18] = [
            9092,
            9092,
            9090,
            9091,
            9093,
            9215,
            9216,
            9219,
            9220,
            9221,
            9223,
            9224,
            9300,
            5201,
            53,
            6085,
            WEBHOOK_PORT,
            4000,
        ];
        let high = self.random.pick(&[40_000, 6000, 0, 0xffff, 1]);
        let known = match self.random.below(12) {
            0 => self.random.half_word(),
            _ => self.random.pick(&KNOWN),
        };
        if self.random.percent(70) {
            [high, known]
        } else {
            [known, high]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::Tables;

    /// A world is not needed to make packets: an empty node has addresses enough.
    #[test]
    fn the_same_seed_makes_the_same_packets() {
        let tables = Tables::empty();
        let packets = |seed| -> Vec<Input> {
            let mut generator = Generator::new(seed, Cast::of_test_runs(&tables));
            (0..200)
                .flat_map(|_| generator.next(Program::PodEgress))
                .collect()
        };
        assert_eq!(packets(7), packets(7));
        assert_ne!(packets(7), packets(8));
    }
}
