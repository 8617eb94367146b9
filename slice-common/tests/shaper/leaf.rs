//! Where packets wait in `htb`: whatever flows do, whatever classes they are of, and however late the device is within
//! its bounds, no packet overtakes one of its flow.

use std::collections::VecDeque;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use slice_common::shaper::{
    Arrival, ByteCost, FlowWords, Joining, LINK_BYTES, Leaf, LeafWords, Outgoing, Room, STAY_NS,
    Seat, Verdict, WireBytes, Word, charged_bytes, counted_bytes, is_urgent, join,
    served_bytes_per_s, wire_bytes,
};

use super::plant::{FRAME, MS, Plain, Plant, Profile, START, flow_words};

const FLOWS: usize = 32;
/// Of these loads are drawn.
const BUSY_FLOWS: usize = 6;
const CLASSES: usize = 2;
const HORIZON_NS: u64 = 20 * MS;
const BURST_NS: i64 = 1_500_000;
const STEP_NS: u64 = 100_000;

/// A rate as `htb` keeps it: time that may be used, not more than a burst of it.
#[derive(Clone, Copy, Debug)]
struct Tokens {
    bytes_per_s: u64,
    left_ns: i64,
}

impl Tokens {
    fn of(cost: ByteCost) -> Self {
        Self {
            bytes_per_s: served_bytes_per_s(cost).expect("a rate"),
            left_ns: BURST_NS,
        }
    }

    fn pass(&mut self, ns: u64) {
        self.left_ns = (self.left_ns + ns as i64).min(BURST_NS);
    }

    fn charge(&mut self, bytes: u64) {
        self.left_ns -= (bytes * 1_000_000_000 / self.bytes_per_s) as i64;
    }
}

/// A packet of a flow.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    flow: usize,
    number: u64,
    bytes: u64,
}

/// The backs of a slice's classes. What others lend goes to one of them as long as that has any packets.
struct Device {
    slice: Tokens,
    own: Vec<Tokens>,
    backs: Vec<VecDeque<Waiting>>,
    favourite: usize,
    now_ns: u64,
    /// Neither serves nor gets anything back.
    stalls: Vec<(u64, u64)>,
    /// The latest packet of each flow that left, and how many left behind a later one.
    left: [u64; FLOWS],
    overtaken: u64,
}

impl Device {
    fn leave(&mut self, packet: Waiting, class: usize, is_borrowed: bool) {
        self.slice.charge(packet.bytes);
        if !is_borrowed {
            self.own[class].charge(packet.bytes);
        }
        let last = &mut self.left[packet.flow];
        self.overtaken += u64::from(packet.number < *last);
        *last = packet.number.max(*last);
    }

    fn next(&self) -> Option<(usize, bool)> {
        let waits = |class: &usize| !self.backs[*class].is_empty();
        let own = (0..CLASSES)
            .filter(waits)
            .find(|class| self.own[*class].left_ns >= 0);
        let lent = || {
            let favourite = Some(self.favourite).filter(waits);
            favourite
                .or_else(|| (0..CLASSES).find(waits))
                .filter(|_| self.slice.left_ns >= 0)
        };
        own.map(|class| (class, false))
            .or_else(|| lent().map(|class| (class, true)))
    }

    fn run_until(&mut self, end_ns: u64) {
        while self.now_ns + STEP_NS <= end_ns {
            self.now_ns += STEP_NS;
            let now_ns = self.now_ns;
            if self
                .stalls
                .iter()
                .any(|(from_ns, to_ns)| (*from_ns..*to_ns).contains(&now_ns))
            {
                continue;
            }
            self.slice.pass(STEP_NS);
            self.own.iter_mut().for_each(|own| own.pass(STEP_NS));
            while let Some((class, is_borrowed)) = self.next() {
                let packet = self.backs[class].pop_front().expect("it waits");
                self.leave(packet, class, is_borrowed);
            }
        }
    }
}

/// A packet of a flow, so long after the one before.
#[derive(Clone, Copy, Debug)]
struct Sent {
    gap_ns: u64,
    flow: usize,
    class: usize,
    bytes: u64,
}

impl Sent {
    /// Of a flow in the class that it begins in.
    fn new(gap_ns: u64, flow: usize, bytes: u64) -> Self {
        let class = flow % CLASSES;
        Self {
            gap_ns,
            flow,
            class,
            bytes,
        }
    }
}

struct Run {
    overtaken: u64,
    /// In which class packets were judged.
    seats: Vec<usize>,
    /// How many packets of flows that had waited at the back went to the front.
    forward: u64,
    leaves: Vec<Option<Leaf>>,
}

/// `room`: what is taken as known of the device.
fn run(sent: &[Sent], stalls: &[(u64, u64)], favourite: usize, room: impl Fn(Room) -> Room) -> Run {
    run_with(sent, (stalls, favourite), room, Seat::new)
}

/// `seat`: in which class a packet is judged.
fn run_with(
    sent: &[Sent],
    (stalls, favourite): (&[(u64, u64)], usize),
    room: impl Fn(Room) -> Room,
    seat: impl Fn(u32, u64, u64, u64) -> Seat,
) -> Run {
    let plant = Plant::new(&[Profile::new(50_000_000, 10, &[40, 30])]);
    let slice = &plant.slices[0];
    let flows: Vec<FlowWords<Plain>> = (0..FLOWS).map(|_| flow_words()).collect();
    let backs = [Plain::default(), Plain::default()];
    let records: Vec<[Plain; 2]> = (0..FLOWS).map(|_| Default::default()).collect();
    let mut device = Device {
        slice: Tokens::of(slice.terms.ceiling),
        own: slice
            .classes
            .iter()
            .map(|class| Tokens::of(class.terms.guarantee))
            .collect(),
        backs: vec![VecDeque::new(); CLASSES],
        favourite,
        now_ns: START,
        stalls: stalls
            .iter()
            .map(|(from_ns, to_ns)| (START + from_ns, START + to_ns))
            .collect(),
        left: [0; FLOWS],
        overtaken: 0,
    };
    let (mut forward, mut seats, mut leaves) = (0, Vec::new(), Vec::new());
    let mut now_ns = START;
    for (number, packet) in sent.iter().enumerate() {
        now_ns += packet.gap_ns;
        device.run_until(now_ns);
        let flow = packet.flow;
        let [joined, gone] = &records[flow];
        let seat = seat(packet.class as u32, now_ns, joined.read(), gone.read());
        let class = seat.class as usize;
        seats.push(class);
        let bytes = WireBytes::new(packet.bytes);
        let terms = &slice.classes[class].terms;
        let had_waited = joined.read() != 0;
        let words = LeafWords {
            back: &backs[class],
            joined,
            gone,
            thin: &flows[flow].thin,
        };
        let thin_ns = words.thin_ns(Arrival { now_ns, bytes }, &slice.terms, terms);
        let decision = plant.shape((0, class), &flows[flow], now_ns, bytes);
        if matches!(decision.verdict, Verdict::Drop) {
            leaves.push(None);
            continue;
        }
        let joining = Joining {
            now_ns,
            cost_ns: slice.terms.ceiling.ns_of(bytes),
            is_urgent: is_urgent(&decision, now_ns, terms),
            thin_ns,
            seat,
            room: room(Room::new(terms, slice.terms.ceiling)),
        };
        let leaf = join(&joining, &words);
        let waiting = Waiting {
            flow,
            number: number as u64 + 1,
            bytes: packet.bytes,
        };
        match leaf {
            Leaf::Front => {
                forward += u64::from(had_waited);
                device.leave(waiting, class, false);
            }
            Leaf::Back => device.backs[class].push_back(waiting),
        }
        leaves.push(Some(leaf));
    }
    device.run_until(now_ns + 10_000 * MS);
    assert!(device.backs.iter().all(VecDeque::is_empty));
    Run {
        overtaken: device.overtaken,
        seats,
        forward,
        leaves,
    }
}

/// Bulk of two classes, and what comes between.
fn loads() -> impl Strategy<Value = Vec<Sent>> {
    let gap_ns = prop_oneof![
        20 => 0..2 * MS,
        3 => Just(0),
        1 => 5 * MS..60 * MS,
        1 => 150 * MS..400 * MS,
    ];
    let bytes = prop_oneof![4 => FRAME..=8 * FRAME, 2 => 128..=FRAME, 1 => Just(40 * FRAME)];
    let one = (gap_ns, 0..BUSY_FLOWS, bytes)
        .prop_map(|(gap_ns, flow, bytes)| Sent::new(gap_ns, flow, bytes));
    proptest::collection::vec(one, 50..600)
}

/// The same for less than [`STAY_NS`], and now and then all flows change their class.
fn loads_of_changing_classes() -> impl Strategy<Value = Vec<Sent>> {
    let changes = proptest::collection::vec(any::<u8>(), 600);
    (loads(), changes).prop_map(|(mut sent, changes)| {
        let (mut shift, mut now_ns) = (0, 0);
        sent.retain_mut(|packet| {
            now_ns += packet.gap_ns;
            now_ns < STAY_NS
        });
        for (packet, change) in sent.iter_mut().zip(changes) {
            shift += usize::from(change < 4);
            packet.class = (packet.flow + shift) % CLASSES;
        }
        sent
    })
}

/// Two flows fill the ceiling all the time, and a third one changes what it does.
fn changes(pause_ns: u64) -> Vec<Sent> {
    let bulk = |flow| Sent::new(MS, flow, 6 * FRAME);
    let fill = |ns: u64| (0..ns / (2 * MS)).flat_map(move |_| [bulk(0), bulk(1)]);
    let of_third = |bytes| Sent::new(0, 2, bytes);
    let mut sent: Vec<Sent> = fill(200 * MS).collect();
    sent.extend((0..100).flat_map(|_| [bulk(0), bulk(1), of_third(4 * FRAME)]));
    sent.extend(fill(pause_ns));
    sent.push(of_third(200));
    sent.extend(fill(200 * MS));
    sent
}

fn third_after(pause_ns: u64) -> (Option<Leaf>, u64) {
    let sent = changes(pause_ns);
    let run = run(&sent, &[], 0, |room| room);
    let last = sent
        .iter()
        .rposition(|it| it.flow == 2)
        .expect("there is one");
    (run.leaves[last], run.overtaken)
}

#[test]
fn a_flow_comes_forward_when_nothing_of_it_can_be_left() {
    assert_eq!(third_after(5 * MS), (Some(Leaf::Back), 0));
    // It is taken for one that asks and answers again.
    assert_eq!(third_after(1500 * MS), (Some(Leaf::Front), 0));
}

/// Who is judged in its own class at once has packets overtake each other.
#[test]
fn without_staying_flows_of_another_class_overtake_themselves() {
    let mut runner = TestRunner::deterministic();
    let (mut overtaken, mut stayed) = (0, 0);
    for _ in 0..20 {
        let sent = loads_of_changing_classes()
            .new_tree(&mut runner)
            .expect("loads")
            .current();
        let at_once = |own, _, _, _| Seat::own(own);
        overtaken += run_with(&sent, (&[], 0), |room| room, at_once).overtaken;
        let kept = run(&sent, &[], 0, |room| room);
        assert_eq!(kept.overtaken, 0);
        let judged = sent.iter().zip(&kept.seats);
        stayed += judged.filter(|(sent, seat)| sent.class != **seat).count();
    }
    assert!(overtaken > 0 && stayed > 0, "vacuous");
}

/// Who believes that nothing ever waits has packets overtake each other.
#[test]
fn without_the_rule_flows_overtake_themselves() {
    let nothing_waits = |_| Room {
        room_ns: 0,
        drained_ns: 0,
    };
    let mut runner = TestRunner::deterministic();
    let mut overtaken = 0;
    for _ in 0..20 {
        let sent = loads().new_tree(&mut runner).expect("loads").current();
        overtaken += run(&sent, &[], 0, nothing_waits).overtaken;
        assert_eq!(run(&sent, &[], 0, |room| room).overtaken, 0);
    }
    assert!(overtaken > 0, "vacuous");
}

#[test]
fn who_only_asks_and_answers_never_goes_to_the_back() {
    let mut sent = Vec::new();
    for tenth in 0..3000 {
        sent.push(Sent::new(MS, 0, 6 * FRAME));
        if tenth % 10 == 0 {
            sent.push(Sent::new(0, 2, 384));
            sent.push(Sent::new(0, 4, 4 * FRAME));
        }
    }
    let run = run(&sent, &[], 0, |room| room);
    let of = |flow| {
        let all = sent
            .iter()
            .zip(&run.leaves)
            .filter(move |(it, _)| it.flow == flow);
        all.filter(|(_, leaf)| **leaf == Some(Leaf::Back)).count()
    };
    assert!(of(0) > 1000, "vacuous: nothing waits");
    assert_eq!((of(2), of(4)), (0, 0));
    assert_eq!((run.overtaken, run.forward), (0, 0));
}

/// A flow fills the ceiling, another one asks and answers, and a crowd begins at once: more than the lane has room for.
#[test]
fn a_thin_flow_stays_at_the_front_while_a_crowd_begins() {
    let mut sent: Vec<Sent> = (0..300).map(|_| Sent::new(MS, 0, 6 * FRAME)).collect();
    sent.push(Sent::new(0, 2, 384));
    for flow in (4..FLOWS).step_by(CLASSES) {
        sent.extend([Sent::new(0, flow, FRAME); 3]);
    }
    sent.push(Sent::new(MS, 2, 384));
    sent.push(Sent::new(MS, 2, 4 * FRAME));
    let run = run(&sent, &[], 0, |room| room);
    let of = |flow: usize| -> Vec<_> {
        let all = sent.iter().zip(&run.leaves);
        all.filter(|(it, _)| it.flow == flow)
            .map(|(_, leaf)| *leaf)
            .collect()
    };
    let [front, back] = [Leaf::Front, Leaf::Back].map(Some);
    // Who sends more than a thin flow goes to the back, so nobody else's turn was there.
    assert_eq!(of(30)[2], back, "vacuous");
    assert_eq!(of(2), [front, front, back]);
    assert_eq!(run.overtaken, 0);
}

/// Two flows fill the ceiling. After a second one of them is to be of the other's class, and pauses for so long. Gives how
/// long it took until it was judged there, and how many packets were overtaken.
fn moves_after(pause_ns: u64) -> (Option<u64>, u64) {
    let mut sent = Vec::new();
    let mut times_ns = Vec::new();
    for now_ns in (0..12_000).map(|ms| ms * MS) {
        times_ns.push(now_ns);
        sent.push(Sent::new(MS, 1, 3 * FRAME));
        let is_late = now_ns >= 1000 * MS;
        if !is_late || now_ns >= 1000 * MS + pause_ns {
            times_ns.push(now_ns);
            sent.push(Sent {
                class: usize::from(is_late),
                ..Sent::new(0, 0, 3 * FRAME)
            });
        }
    }
    let run = run(&sent, &[], 0, |room| room);
    let judged = sent.iter().zip(&run.seats).zip(times_ns);
    let mut moved = judged.filter(|((sent, seat), _)| sent.flow == 0 && **seat == 1);
    let after_ns = moved.next().map(|(_, now_ns)| now_ns - 1000 * MS);
    (after_ns, run.overtaken)
}

#[test]
fn a_flow_of_another_class_stays_where_its_packets_wait() {
    assert_eq!(moves_after(300 * MS), (Some(300 * MS), 0));
    // Too soon, but who never pauses moves all the same.
    let (moved, _) = moves_after(10 * MS);
    let moved_ms = moved.expect("it moves") / MS;
    assert!((10_010..10_020).contains(&moved_ms), "{moved_ms} ms");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_packet_overtakes_one_of_its_flow_that_is_to_be_of_another_class(
        sent in loads_of_changing_classes(),
        favourite in 0..CLASSES,
        stall_ns in 0..2 * HORIZON_NS,
        at_ns in 0..1000 * MS,
    ) {
        let run = run(&sent, &[(at_ns, at_ns + stall_ns)], favourite, |room| room);
        prop_assert_eq!(run.overtaken, 0);
    }

    #[test]
    fn no_packet_overtakes_one_of_its_flow(
        sent in loads(),
        favourite in 0..CLASSES,
        stall_ns in 0..2 * HORIZON_NS,
        at_ns in 0..1000 * MS,
    ) {
        let run = run(&sent, &[(at_ns, at_ns + stall_ns)], favourite, |room| room);
        prop_assert_eq!(run.overtaken, 0);
    }

    /// What the device counts is next to what the link carries for what fills it, and never more than is charged.
    #[test]
    fn what_a_device_counts_is_what_full_segments_take(
        payload_bytes in 1u32..=65_000, mtu in 1280u32..=9000,
    ) {
        let frame = WireBytes::new(u64::from(mtu + LINK_BYTES));
        let packet = Outgoing {
            header_bytes: 102,
            payload_bytes,
            gso_bytes: mtu - 102,
            added_bytes: 0,
        };
        let carried = wire_bytes(packet);
        let counted = counted_bytes(102 + payload_bytes, frame);
        prop_assert_eq!(counted, carried);
        prop_assert_eq!(charged_bytes(carried, counted), carried);
        let more = charged_bytes(WireBytes::new(1), counted);
        prop_assert_eq!(more, counted);
    }

    /// Between what gets in and the ceiling.
    #[test]
    fn the_device_is_faster_than_what_gets_in(bps in 1_000_000u64..100_000_000_000) {
        let plant = Plant::new(&[Profile::new(bps, 10, &[40, 30])]);
        let cost = plant.slices[0].terms.ceiling;
        let served_bps = served_bytes_per_s(cost).expect("a rate") * 8;
        let gets_in_bps = cost.bps().expect("a rate");
        prop_assert!(served_bps > gets_in_bps);
        prop_assert!(served_bps < bps);
        prop_assert_eq!(served_bytes_per_s(ByteCost::FREE), None);
    }
}
