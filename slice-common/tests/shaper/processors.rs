//! Several processors charge the same clocks without a lock: no byte is lost, whoever interrupts whom.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
};

use slice_common::shaper::{
    Arrival, Charge, ClassTerms, FlowReadings, FlowWords, Readings, SliceTerms, TRIES, Terms,
    UplinkTerms, Verdict, Word, Words, claim_departure, decide, shape,
};

use super::plant::{
    Plant, Profile, START, class_words, flow_words, frames, slice_words, uplink_words,
};

#[derive(Debug, Default)]
struct Atomic(AtomicU64);

impl Word for Atomic {
    fn read(&self) -> u64 {
        self.0.load(Relaxed)
    }

    fn write(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    fn replace(&self, old: u64, new: u64) -> Result<(), u64> {
        self.0
            .compare_exchange(old, new, Relaxed, Relaxed)
            .map(|_| ())
    }

    fn add(&self, value: u64) {
        self.0.fetch_add(value, Relaxed);
    }
}

/// Terms of a slice in which nothing is ever dropped.
fn patient_terms() -> (UplinkTerms, SliceTerms, ClassTerms) {
    let plant = Plant::new(&[Profile::new(1_000_000_000, 10, &[40])]);
    let slice = &plant.slices[0];
    let mut class = slice.classes[0].terms;
    class.horizon_ns = u64::MAX / 4;
    class.borrowed_horizon_ns = class.horizon_ns;
    (slice.uplink, slice.terms, class)
}

/// Threads that send at one moment, so that every byte shows on the ceiling's clock.
#[test]
fn threads_lose_no_byte_and_no_order() {
    const THREADS: usize = 4;
    const PACKETS: u64 = 20_000;
    let (uplink, slice, class) = patient_terms();
    let terms = Terms {
        uplink: &uplink,
        slice: &slice,
        class: &class,
    };
    let (uplink_words, slice_words, class_words) = (
        uplink_words::<Atomic>(),
        slice_words::<Atomic>(),
        class_words::<Atomic>(),
    );
    let shared_flow = flow_words::<Atomic>();
    let send = |number: usize| {
        let own_flow = flow_words::<Atomic>();
        let (mut last_own, mut last_shared) = (0, 0);
        for packet in 0..PACKETS {
            let is_shared = packet % 4 == 0;
            let flow: &FlowWords<Atomic> = if is_shared { &shared_flow } else { &own_flow };
            let words = Words {
                uplink: &uplink_words,
                slice: &slice_words,
                class: &class_words,
                flow,
            };
            let bytes = frames(1 + (packet + number as u64) % 4);
            let decision = shape(
                Arrival {
                    now_ns: START,
                    bytes,
                },
                terms,
                &words,
            );
            assert_ne!(decision.verdict, Verdict::Drop);
            let last = if is_shared {
                &mut last_shared
            } else {
                &mut last_own
            };
            assert!(decision.departure_ns >= *last, "a step back");
            *last = decision.departure_ns;
        }
    };
    thread::scope(|scope| {
        for number in 0..THREADS {
            let send = &send;
            scope.spawn(move || send(number));
        }
    });
    let cost = |number: usize| -> u64 {
        (0..PACKETS)
            .map(|packet| {
                slice
                    .ceiling
                    .ns_of(frames(1 + (packet + number as u64) % 4))
            })
            .sum()
    };
    let charged: u64 = (0..THREADS).map(cost).sum();
    assert_eq!(
        slice_words.ceiling.read() - (START - slice.burst_ns),
        charged
    );
}

type Interruption = Rc<RefCell<Option<Box<dyn FnMut()>>>>;

/// A word on which another processor works whenever this one is about to replace it.
#[derive(Clone)]
struct Contested {
    value: Rc<Cell<u64>>,
    interruption: Interruption,
    /// Writes what it computed, whatever is there.
    is_careless: bool,
}

impl Contested {
    fn new(value: u64, is_careless: bool) -> Self {
        Self {
            value: Rc::new(Cell::new(value)),
            interruption: Rc::default(),
            is_careless,
        }
    }

    /// Lets the other processor do this, so many times.
    fn interrupt(&self, times: u32, mut work: impl FnMut(&Cell<u64>) + 'static) {
        let (value, mut left) = (Rc::clone(&self.value), times);
        let work = move || {
            if left > 0 {
                left -= 1;
                work(&value);
            }
        };
        *self.interruption.borrow_mut() = Some(Box::new(work));
    }
}

impl Word for Contested {
    fn read(&self) -> u64 {
        self.value.get()
    }

    fn write(&self, value: u64) {
        self.value.set(value);
    }

    fn replace(&self, old: u64, new: u64) -> Result<(), u64> {
        if let Some(work) = self.interruption.borrow_mut().as_mut() {
            work();
        }
        let seen = self.value.get();
        if seen != old && !self.is_careless {
            return Err(seen);
        }
        self.value.set(new);
        Ok(())
    }

    fn add(&self, value: u64) {
        self.value.set(self.value.get() + value);
    }
}

/// What the clock shows after a charge of 100 that others interrupt with charges of 1000 each.
fn interrupted(times: u32, is_careless: bool) -> u64 {
    let clock = Contested::new(START, is_careless);
    clock.interrupt(times, |value| value.set(value.get() + 1000));
    Charge {
        floor_ns: START - 50,
        add_ns: 100,
    }
    .charge(&clock);
    clock.read() - START
}

#[test]
fn a_charge_survives_any_number_of_interruptions() {
    assert!(
        interrupted(1, true) < 1100,
        "without comparing a charge is lost, or the test is vacuous"
    );
    for times in 0..=2 * TRIES {
        let worked = times.min(TRIES);
        assert_eq!(
            interrupted(times, false),
            100 + 1000 * u64::from(worked),
            "{times}"
        );
    }
}

#[test]
fn a_departure_is_never_before_one_that_was_claimed_meanwhile() {
    for times in 0..=2 * TRIES {
        let last = Contested::new(START, false);
        last.interrupt(times, |value| value.set(value.get() + 70));
        let departure = claim_departure(&last, START, START + 100);
        let claimed = START + 70 * u64::from(times.min(TRIES));
        assert!(departure >= claimed && departure >= START + 100, "{times}");
        let knows = last.read() >= departure || times >= TRIES;
        assert!(knows, "{times}: the record lags behind");
    }
}

/// Packets of different flows that are accepted at one moment by so many processors, when all of them
/// read before any of them charges.
fn accepted_at_once(processors: u64) -> u64 {
    let plant = Plant::new(&[Profile::new(50_000_000, 10, &[40])]);
    let slice = &plant.slices[0];
    let mut class = slice.classes[0].terms;
    // So that the first packet that is dropped is the last: borrowed ones are dropped no earlier than own.
    class.borrowed_horizon_ns = class.horizon_ns;
    let terms = Terms {
        uplink: &slice.uplink,
        slice: &slice.terms,
        class: &class,
    };
    let arrival = Arrival {
        now_ns: START,
        bytes: frames(1),
    };
    let (mut ceiling_ns, mut guarantee_ns, mut accepted) = (START, START, 0);
    loop {
        let decision = decide(arrival, terms, &reading(ceiling_ns, guarantee_ns));
        if decision.verdict == Verdict::Drop {
            break;
        }
        for _ in 0..processors {
            ceiling_ns = decision.charges.ceiling.applied(ceiling_ns);
            guarantee_ns = decision.charges.guarantee.applied(guarantee_ns);
            accepted += 1;
        }
    }
    let charged_ns = accepted * slice.terms.ceiling.ns_of(arrival.bytes);
    assert_eq!(ceiling_ns - START, charged_ns, "bytes are lost");
    accepted
}

/// A processor that decides on old readings adds a packet for each clock that it read: the ceiling's and
/// its class's.
#[test]
fn processors_that_decide_on_old_readings_are_off_by_two_packets_each() {
    let alone = accepted_at_once(1);
    for processors in 2..=8 {
        let accepted = accepted_at_once(processors);
        println!("{processors} processors accept {accepted}, one accepts {alone}");
        assert!(
            accepted <= alone + 2 * (processors - 1),
            "{processors}: {accepted}"
        );
    }
}

/// Of flows that never sent before.
fn reading(ceiling_ns: u64, guarantee_ns: u64) -> Readings {
    Readings {
        uplink_ns: 0,
        uplink_guarantee_ns: 0,
        ceiling_ns,
        lane_ns: u64::MAX / 2,
        guarantee_ns,
        front_ns: u64::MAX / 2,
        back_ns: u64::MAX / 2,
        flow: FlowReadings {
            departure_ns: 0,
            thin_ns: 0,
            pace_ns: 0,
            waited_ns: 0,
            stance: 0,
        },
    }
}
