//! Who has which record: nobody loses one while it sends, nobody overtakes itself, and few have to share.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use slice_common::address::Address;
use slice_common::layout::Capacity;
use slice_common::shaper::{
    Choice, FlowEnds, FlowWords, Holder, Owner, Record, RecordReadings, RecordWords, SILENCE_NS,
    Word, choose, find,
};

use super::plant::{MS, Plain, START};

const SECRET: [u32; 2] = [0x0123_4567, 0x89ab_cdef];

/// Flows between the pods of two clusters, as a hash spreads their ports.
fn flow(number: u32) -> FlowEnds {
    let port = number.wrapping_mul(0x9e37_79b1) >> 18;
    FlowEnds {
        slice: 1 + number % 3,
        source: Address::from_octets([10, 77, 16, (number % 29) as u8]),
        destination: Address::from_octets([10, 77, 32, (number / 29 % 31) as u8]),
        source_port: (0xc000 | port as u16).to_be(),
    }
}

fn owner(number: u32) -> Owner {
    flow(number).owner(SECRET)
}

#[derive(Debug, Default)]
struct Memory {
    owner: Plain,
    departure: Plain,
    thin: Plain,
    pace: Plain,
    waited: Plain,
    stance: Plain,
    joined: Plain,
    gone: Plain,
}

impl<'a> Record for &'a Memory {
    type Word = &'a Plain;

    fn words(self) -> RecordWords<Self::Word> {
        RecordWords {
            owner: &self.owner,
            flow: FlowWords {
                departure: &self.departure,
                thin: &self.thin,
                pace: &self.pace,
                waited: &self.waited,
                stance: &self.stance,
            },
            joined: &self.joined,
            gone: &self.gone,
        }
    }
}

/// All records, of which few are used.
#[derive(Default)]
struct Table(BTreeMap<u32, Memory>);

impl Table {
    /// The place of the flow's record, with a packet at this moment.
    fn find(&mut self, me: Owner, now_ns: u64) -> u32 {
        let places = [me.place(), me.second_place()];
        for place in places {
            self.0.entry(place).or_default();
        }
        let [first, second] = places.map(|place| &self.0[&place]);
        let found = find(me, now_ns, first, || Some(second)).expect("both are there");
        match std::ptr::eq(found, first) {
            true => places[0],
            false => places[1],
        }
    }
}

/// Flows of one pair of places.
fn neighbours() -> Vec<Owner> {
    let pair = owner(0).place() / 2;
    let all = (0..2_000_000).map(owner);
    let near: BTreeSet<Owner> = all.filter(|it| it.place() / 2 == pair).take(6).collect();
    assert_eq!(near.len(), 6, "flows meet");
    near.into_iter().collect()
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    gap_ns: u64,
    flow: usize,
    wait_ns: u64,
    /// How long something of it stays at the back of a class; 0: nothing does.
    stays_ns: u64,
    is_dropped: bool,
}

fn loads() -> impl Strategy<Value = Vec<Sent>> {
    let gap_ns = prop_oneof![
        8 => 0..20 * MS,
        2 => 100 * MS..900 * MS,
        1 => 1000 * MS..3000 * MS,
    ];
    let stays_ns = prop_oneof![2 => Just(0), 1 => 0..3000 * MS];
    let one = (gap_ns, 0..6usize, 0..40 * MS, stays_ns, 0..10u32);
    let one = one.prop_map(|(gap_ns, flow, wait_ns, stays_ns, dropped)| Sent {
        gap_ns,
        flow,
        wait_ns,
        stays_ns,
        is_dropped: dropped == 0,
    });
    proptest::collection::vec(one, 1..400)
}

/// What is known of a flow.
#[derive(Clone, Copy, Default)]
struct Known {
    place: Option<u32>,
    at_ns: u64,
    departure_ns: u64,
}

/// A packet as the shaper leaves it in the record.
fn note(record: &Memory, sent: &Sent, now_ns: u64) -> u64 {
    record.pace.write(now_ns + sent.wait_ns / 2);
    record.stance.write(now_ns | 1);
    let departure_ns = (now_ns + sent.wait_ns).max(record.departure.read());
    if !sent.is_dropped {
        record.departure.write(departure_ns);
        record.waited.write(now_ns + 2 * sent.wait_ns);
    }
    if sent.stays_ns > 0 {
        record.joined.write(now_ns);
        record.gone.write(now_ns + sent.stays_ns);
    }
    departure_ns
}

fn play(sent: &[Sent], flows: &[Owner]) -> Result<(), TestCaseError> {
    let mut table = Table::default();
    let mut known = vec![Known::default(); flows.len()];
    let mut now_ns = START;
    for packet in sent {
        now_ns += packet.gap_ns;
        let me = flows[packet.flow];
        let place = table.find(me, now_ns);
        let record = &table.0[&place];
        let is_own = record.owner.read() & !1 == me.word();
        let before = &mut known[packet.flow];
        if let Some(own) = before.place.filter(|_| now_ns < before.at_ns + SILENCE_NS) {
            prop_assert_eq!(place, own, "lost while it was sending");
            prop_assert!(is_own);
        } else if is_own && before.place != Some(place) {
            prop_assert_eq!(record.stance.read(), 0, "a stranger's stance");
            prop_assert!(record.pace.read() <= now_ns && record.waited.read() <= now_ns);
        }
        let departure_ns = note(record, packet, now_ns);
        prop_assert!(departure_ns >= before.departure_ns, "a step back");
        *before = Known {
            place: is_own.then_some(place),
            at_ns: now_ns,
            departure_ns: match packet.is_dropped {
                true => before.departure_ns,
                false => departure_ns,
            },
        };
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn who_has_a_record_keeps_it_while_it_sends_and_departures_never_step_back(
        sent in loads(), flows in 1..6usize,
    ) {
        let sent: Vec<Sent> = sent
            .into_iter()
            .map(|it| Sent { flow: it.flow % flows, ..it })
            .collect();
        play(&sent, &neighbours()[..flows])?;
    }

    #[test]
    fn two_flows_never_need_to_share(sent in loads()) {
        let flows = neighbours();
        let mut table = Table::default();
        let mut now_ns = START;
        for packet in sent {
            now_ns += packet.gap_ns;
            let me = flows[packet.flow % 2];
            let place = table.find(me, now_ns);
            prop_assert_eq!(table.0[&place].owner.read(), me.word());
            note(&table.0[&place], &packet, now_ns);
        }
    }

    /// Whatever words are in it, a record that is given up lies in the past.
    #[test]
    fn what_is_given_up_says_nothing_of_the_future(
        words in proptest::array::uniform5(0..4 * SILENCE_NS), is_mine: bool,
    ) {
        let now_ns = START;
        let [departure_ns, thin_ns, pace_ns, waited_ns, gone_ns] =
            words.map(|word| START - 2 * SILENCE_NS + word);
        let read = RecordReadings {
            owner: if is_mine { owner(1).word() } else { owner(2).word() },
            departure_ns,
            thin_ns,
            pace_ns,
            waited_ns,
            gone: gone_ns,
        };
        let holder = read.holder(owner(1), now_ns);
        prop_assert_eq!(holder == Holder::Me, is_mine);
        let latest_ns = departure_ns.max(thin_ns).max(pace_ns).max(waited_ns).max(gone_ns);
        if holder == Holder::Nobody {
            prop_assert!(latest_ns <= now_ns && departure_ns.max(pace_ns) + SILENCE_NS <= now_ns);
        } else if !is_mine {
            prop_assert!(latest_ns + SILENCE_NS > now_ns);
        }
    }
}

#[test]
fn its_own_record_comes_before_a_free_one() {
    let (me, nobody, other) = (Holder::Me, Holder::Nobody, Holder::Other);
    assert_eq!(choose(me, me), Choice::First);
    assert_eq!(choose(nobody, me), Choice::Second);
    assert_eq!(choose(other, me), Choice::Second);
    assert_eq!(choose(nobody, nobody), Choice::ClaimFirst);
    assert_eq!(choose(other, nobody), Choice::ClaimSecond);
    assert_eq!(choose(other, other), Choice::ShareFirst);
}

/// Flows that share a record, of so many that all send.
fn sharing(flows: u32, salt: u32) -> usize {
    let mut table = Table::default();
    let owners = || (0..flows).map(|number| owner(number + salt * 1_000_003));
    for me in owners() {
        let place = table.find(me, START);
        table.0[&place].pace.write(START);
    }
    let mut users: BTreeMap<u32, usize> = BTreeMap::new();
    for me in owners() {
        *users.entry(table.find(me, START)).or_default() += 1;
    }
    users.values().filter(|users| **users > 1).sum()
}

/// The same, where a hash alone decides.
fn sharing_by_hash(flows: u32, salt: u32) -> usize {
    let mut users: BTreeMap<u32, usize> = BTreeMap::new();
    for number in 0..flows {
        let place = owner(number + salt * 1_000_003).place();
        *users.entry(place).or_default() += 1;
    }
    users.values().filter(|users| **users > 1).sum()
}

#[test]
fn few_flows_share_a_record() {
    const SALTS: u32 = 20;
    let mean = |flows: u32, shared: fn(u32, u32) -> usize| {
        let all: usize = (0..SALTS).map(|salt| shared(flows, salt)).sum();
        all as f64 / f64::from(SALTS * flows)
    };
    for (flows, at_most) in [(1000, 0.001), (10_000, 0.05)] {
        let (now, before) = (mean(flows, sharing), mean(flows, sharing_by_hash));
        println!(
            "{:.2} % of {flows} flows share a record, {:.2} % by a hash alone",
            100.0 * now,
            100.0 * before
        );
        assert!(now <= at_most, "{now}");
        assert!(before > 5.0 * now, "vacuous: {before}");
    }
}

/// Places are as good as drawn, and who meets whom is the secret's choice.
#[test]
fn a_secret_spreads_flows() {
    let meet = |secret: [u32; 2]| {
        let mut at: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for number in 0..4096 {
            let place = flow(number).owner(secret).place();
            assert!((place as usize) < Capacity::FLOW_CLOCKS);
            at.entry(place / 2).or_default().push(number);
        }
        let met = at.into_values().filter(|met| met.len() > 1);
        met.collect::<BTreeSet<Vec<u32>>>()
    };
    let secrets = [SECRET, [0, 0], [7, 0x8000_0000], [0xffff_ffff, 0xdead_beef]];
    let met = secrets.map(meet);
    for pairs in &met {
        // 4,096 thrown into 32,768 at random: 256 pairs or so, with a deviation of 16.
        assert!((160..352).contains(&pairs.len()), "{}", pairs.len());
    }
    for (one, other) in [(0, 1), (0, 2), (1, 2), (2, 3)] {
        let both = met[one].intersection(&met[other]).count();
        assert!(both < 16, "{both} meet under either secret");
    }
}

/// A word at which another processor comes between, once.
#[derive(Clone, Copy)]
struct Interrupted<'a, 'w> {
    word: &'a Plain,
    interruption: &'a Interruption<'w>,
}

/// After so many uses of words.
struct Interruption<'w> {
    left: Cell<usize>,
    work: RefCell<Option<Box<dyn FnOnce() + 'w>>>,
}

impl Interrupted<'_, '_> {
    fn used(&self) {
        let left = self.interruption.left.get();
        self.interruption.left.set(left.saturating_sub(1));
        if left == 0
            && let Some(work) = self.interruption.work.take()
        {
            work();
        }
    }
}

impl Word for Interrupted<'_, '_> {
    fn read(&self) -> u64 {
        self.used();
        self.word.read()
    }

    fn write(&self, value: u64) {
        self.used();
        self.word.write(value);
    }

    fn replace(&self, old: u64, new: u64) -> Result<(), u64> {
        self.used();
        self.word.replace(old, new)
    }

    fn add(&self, value: u64) {
        self.used();
        self.word.add(value);
    }
}

#[derive(Clone, Copy)]
struct InterruptedRecord<'a, 'w> {
    memory: &'a Memory,
    interruption: &'a Interruption<'w>,
}

impl<'a, 'w> Record for InterruptedRecord<'a, 'w> {
    type Word = Interrupted<'a, 'w>;

    fn words(self) -> RecordWords<Self::Word> {
        let interruption = self.interruption;
        let it = |word| Interrupted { word, interruption };
        let words = self.memory.words();
        RecordWords {
            owner: it(words.owner),
            flow: FlowWords {
                departure: it(words.flow.departure),
                thin: it(words.flow.thin),
                pace: it(words.flow.pace),
                waited: it(words.flow.waited),
                stance: it(words.flow.stance),
            },
            joined: it(words.joined),
            gone: it(words.gone),
        }
    }
}

/// One processor finds the record of a flow while another does, and writes into it, after so many steps of the first.
/// What each found, and whose the records are then.
fn meet_at(step: usize, [mine, others]: [Owner; 2]) -> ([usize; 2], [u64; 2], bool) {
    let pair = [Memory::default(), Memory::default()];
    let places = |me: Owner| {
        let first = (me.place() % 2) as usize;
        [first, 1 - first].map(|at| &pair[at])
    };
    let at = |found: &Memory| usize::from(!std::ptr::eq(found, &raw const pair[0]));
    let theirs = Cell::new(None);
    let interruption = Interruption {
        left: Cell::new(step),
        work: RefCell::new(Some(Box::new(|| {
            let [first, second] = places(others);
            let found = find(others, START, first, || Some(second)).expect("there");
            found.pace.write(START);
            found.stance.write(START);
            theirs.set(Some(at(found)));
        }))),
    };
    let [first, second] = places(mine).map(|memory| InterruptedRecord {
        memory,
        interruption: &interruption,
    });
    let found = find(mine, START, first, || Some(second)).expect("there");
    let found = at(found.memory);
    let came_between = theirs.get().is_some();
    let owners = [pair[0].owner.read(), pair[1].owner.read()];
    ([found, theirs.get().unwrap_or(found)], owners, came_between)
}

#[test]
fn processors_that_look_for_a_record_at_once_agree() {
    let flows = neighbours();
    let mut steps = 0;
    for (mine, others) in [(0, 1), (1, 0), (0, 2), (3, 4)].map(|(a, b)| (flows[a], flows[b])) {
        for step in 0.. {
            let ([found, theirs], owners, came_between) = meet_at(step, [mine, others]);
            if !came_between {
                break;
            }
            steps += 1;
            assert_ne!(found, theirs, "two free places, and one is shared: {step}");
            assert_eq!(owners[found], mine.word(), "{step}");
            assert_eq!(owners[theirs], others.word(), "{step}");
        }
        // Packets of one flow on two processors.
        for step in 0.. {
            let ([found, theirs], owners, came_between) = meet_at(step, [mine, mine]);
            if !came_between {
                break;
            }
            assert_eq!((found, owners[found]), (theirs, mine.word()), "{step}");
            assert_eq!(owners[1 - found], 0, "it has two: {step}");
        }
    }
    assert!(steps > 20, "vacuous: {steps}");
}
