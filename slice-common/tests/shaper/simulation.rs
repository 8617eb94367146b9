//! Simulated time: senders send, packets depart when the shaper says so, acknowledgements come back.
//! Nothing is random; offsets are part of a scene.

use std::{cmp::Reverse, collections::BinaryHeap};

use slice_common::shaper::{Behaviour, FlowWords, Mode, Verdict, WireBytes};

use super::plant::{MS, Plain, Plant, START, flow_words};
use super::senders::{Sender, Tcp, Ticks};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A sender looks whether it may send.
    Turn(usize),
    /// A packet leaves for the link.
    Departure(usize, u64),
    Acknowledgement(usize, u64, bool),
    Loss(usize, u64),
}

/// What became of a flow's packets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) sent_bytes: u64,
    pub(crate) borrowed_bytes: u64,
    pub(crate) lane_bytes: u64,
    pub(crate) dropped: u64,
    pub(crate) delays_ns: Vec<u64>,
    pub(crate) behaviours: Vec<(u64, Behaviour)>,
    pub(crate) steps_back: u64,
    last_departure_ns: u64,
}

impl Figures {
    fn note(&mut self, bytes: u64, mode: Mode, delay_ns: u64) {
        self.sent_bytes += bytes;
        match mode {
            Mode::Borrowed => self.borrowed_bytes += bytes,
            Mode::Lane => self.lane_bytes += bytes,
            Mode::Guaranteed => {}
        }
        self.delays_ns.push(delay_ns);
    }

    /// The delay that 99 of 100 packets had at most, in microseconds.
    pub(crate) fn p99_us(&self) -> u64 {
        let mut sorted = self.delays_ns.clone();
        sorted.sort_unstable();
        sorted
            .get(sorted.len() * 99 / 100)
            .map_or(0, |ns| ns / 1000)
    }

    pub(crate) fn changes(&self) -> usize {
        self.behaviours.len().saturating_sub(1)
    }
}

struct Flow {
    /// Slice and class.
    place: (usize, usize),
    sender: Sender,
    words: FlowWords<Plain>,
    figures: Figures,
}

pub(crate) struct Simulation {
    pub(crate) plant: Plant,
    flows: Vec<Flow>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    order: u64,
    pub(crate) now_ns: u64,
    rtt_ns: u64,
    /// When, bytes, slice: as accepted and as departed.
    pub(crate) accepted: Vec<(u64, u64, usize)>,
    pub(crate) departed: Vec<(u64, u64, usize)>,
}

impl Simulation {
    pub(crate) fn new(plant: Plant, rtt_ns: u64) -> Self {
        Self {
            plant,
            flows: Vec::new(),
            events: BinaryHeap::new(),
            order: 0,
            now_ns: START,
            rtt_ns,
            accepted: Vec::new(),
            departed: Vec::new(),
        }
    }

    /// Adds a flow of a class, which begins now, and returns its number.
    pub(crate) fn add(&mut self, slice: usize, class: usize, sender: Sender) -> usize {
        let flow = self.flows.len();
        let phase_ns = match &sender {
            Sender::Ticks(ticks) => ticks.phase_ns,
            Sender::Tcp(_) => 0,
        };
        self.flows.push(Flow {
            place: (slice, class),
            sender,
            words: flow_words(),
            figures: Figures::default(),
        });
        self.at(self.now_ns + phase_ns, Event::Turn(flow));
        flow
    }

    pub(crate) fn tcp(&mut self, class: usize, count: usize) {
        let tcp = Tcp::new(self.rtt_ns);
        for _ in 0..count {
            self.add(0, class, Sender::Tcp(tcp.clone()));
        }
    }

    pub(crate) fn ticks(&mut self, class: usize, ticks: Ticks) -> usize {
        self.add(0, class, Sender::Ticks(ticks))
    }

    /// Goes on for so long.
    pub(crate) fn run_ms(&mut self, ms: u64) {
        let end_ns = self.now_ns + ms * MS;
        while let Some(Reverse((at_ns, _, event))) = self.events.peek().copied() {
            if at_ns > end_ns {
                break;
            }
            self.events.pop();
            self.now_ns = at_ns;
            self.happens(event);
        }
        self.now_ns = end_ns;
    }

    /// Forgets what was measured so far.
    pub(crate) fn measure_from_here(&mut self) {
        for flow in &mut self.flows {
            let now_is = flow.figures.behaviours.last().copied();
            flow.figures = Figures {
                last_departure_ns: flow.figures.last_departure_ns,
                steps_back: flow.figures.steps_back,
                behaviours: now_is.into_iter().collect(),
                ..Figures::default()
            };
        }
        self.accepted.clear();
        self.departed.clear();
    }

    pub(crate) fn figures(&self, flow: usize) -> &Figures {
        &self.flows[flow].figures
    }

    pub(crate) fn steps_back(&self) -> u64 {
        self.flows.iter().map(|flow| flow.figures.steps_back).sum()
    }

    /// Bytes that were let out of a class of slice 0.
    pub(crate) fn class_bytes(&self, class: usize) -> u64 {
        let of_class = self.flows.iter().filter(|flow| flow.place == (0, class));
        of_class.map(|flow| flow.figures.sent_bytes).sum()
    }

    pub(crate) fn slice_bytes(&self, slice: usize) -> u64 {
        let of_slice = self.flows.iter().filter(|flow| flow.place.0 == slice);
        of_slice.map(|flow| flow.figures.sent_bytes).sum()
    }

    fn at(&mut self, at_ns: u64, event: Event) {
        self.order += 1;
        self.events.push(Reverse((at_ns, self.order, event)));
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Turn(flow) => self.turn(flow),
            Event::Departure(flow, bytes) => {
                let slice = self.flows[flow].place.0;
                self.departed.push((self.now_ns, bytes, slice));
                if let Sender::Tcp(tcp) = &mut self.flows[flow].sender {
                    tcp.queued -= bytes;
                    self.turn(flow);
                }
            }
            Event::Acknowledgement(flow, bytes, is_marked) => {
                if let Sender::Tcp(tcp) = &mut self.flows[flow].sender {
                    tcp.acknowledged(self.now_ns, bytes, is_marked);
                    self.turn(flow);
                }
            }
            Event::Loss(flow, bytes) => {
                if let Sender::Tcp(tcp) = &mut self.flows[flow].sender {
                    tcp.lost(self.now_ns, bytes);
                    self.turn(flow);
                }
            }
        }
    }

    fn turn(&mut self, flow: usize) {
        match self.flows[flow].sender.clone() {
            Sender::Ticks(ticks) => {
                for _ in 0..ticks.packets {
                    self.send(flow, ticks.packet_bytes);
                }
                self.at(self.now_ns + ticks.interval_ns, Event::Turn(flow));
            }
            Sender::Tcp(tcp) => {
                if !tcp.is_on(self.now_ns) {
                    let period_ns = tcp.on_ns + tcp.off_ns;
                    let rest_ns = period_ns - (self.now_ns - START) % period_ns;
                    self.at(self.now_ns + rest_ns, Event::Turn(flow));
                }
                while let Some(bytes) = self.may_send(flow) {
                    self.send(flow, bytes);
                }
            }
        }
    }

    fn may_send(&self, flow: usize) -> Option<u64> {
        match &self.flows[flow].sender {
            Sender::Tcp(tcp) => tcp.next(self.now_ns),
            Sender::Ticks(_) => None,
        }
    }

    fn send(&mut self, number: usize, bytes: u64) {
        let now_ns = self.now_ns;
        let flow = &mut self.flows[number];
        let decision = self
            .plant
            .shape(flow.place, &flow.words, now_ns, WireBytes::new(bytes));
        let figures = &mut flow.figures;
        if figures.behaviours.last().map(|it| it.1) != Some(decision.behaviour) {
            figures.behaviours.push((now_ns, decision.behaviour));
        }
        if let Sender::Tcp(tcp) = &mut flow.sender {
            tcp.sent(bytes);
        }
        let Verdict::Send(mode) = decision.verdict else {
            figures.dropped += 1;
            self.at(now_ns + self.rtt_ns, Event::Loss(number, bytes));
            return;
        };
        let departure_ns = decision.departure_ns;
        figures.note(bytes, mode, departure_ns - now_ns);
        figures.steps_back += u64::from(departure_ns < figures.last_departure_ns);
        figures.last_departure_ns = departure_ns;
        if let Sender::Tcp(tcp) = &mut flow.sender {
            tcp.queued += bytes;
        }
        let slice = flow.place.0;
        self.accepted.push((now_ns, bytes, slice));
        self.at(departure_ns, Event::Departure(number, bytes));
        let acknowledged_ns = departure_ns + self.rtt_ns;
        let acknowledgement = Event::Acknowledgement(number, bytes, decision.is_marked);
        self.at(acknowledged_ns, acknowledgement);
    }
}

/// By how many bytes the worst window, of whatever length, exceeds the rate: the highest level of a bucket
/// that leaks at it.
pub(crate) fn worst_excess_bytes(log: &[(u64, u64, usize)], slice: Option<usize>, bps: u64) -> u64 {
    let (mut level, mut last_ns, mut worst) = (0.0f64, 0, 0.0f64);
    for (at_ns, bytes, of) in log {
        if slice.is_some_and(|slice| slice != *of) {
            continue;
        }
        let leaked = (at_ns - last_ns) as f64 * bps as f64 / 8e9;
        level = (level - leaked).max(0.0) + *bytes as f64;
        last_ns = *at_ns;
        worst = worst.max(level);
    }
    worst as u64
}

/// The most bytes in any window of this length that begins at a packet.
pub(crate) fn busiest_window_bytes(log: &[(u64, u64, usize)], length_ns: u64) -> u64 {
    let (mut begin, mut sum, mut most) = (0, 0, 0);
    for (at_ns, bytes, _) in log {
        sum += bytes;
        while log[begin].0 + length_ns <= *at_ns {
            sum -= log[begin].1;
            begin += 1;
        }
        most = most.max(sum);
    }
    most
}
