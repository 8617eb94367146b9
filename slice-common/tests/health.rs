//! Which path of a group is taken, over simulated time.

use proptest::prelude::*;
use slice_common::health::{
    self, GATEWAY_PATIENCE_NS, IDLE_NS, INTERVAL_NS, Moment, PATIENCE_NS, REFLECTED_PER_SECOND,
    STAMP_NS, STEADY_NS,
};
use slice_common::layout::{PathHealth, Probes, SentProbe};

const MS: u64 = 1_000_000;
/// Simulations begin here: 0 means "never".
const START: u64 = 1_000_000_000_000;
const STEP: u64 = MS;

/// A node that sends a packet each millisecond to a far one, over two paths that fail and come back.
struct Simulation {
    now: u64,
    patience: u64,
    known: [PathHealth; 2],
    probes: Option<[Probes; 2]>,
    /// What is under way: when it arrives, by which path, and whether it answers a probe.
    under_way: Vec<(u64, usize, Option<u64>)>,
    last_delivered: u64,
    longest_silence: u64,
    taken: Vec<usize>,
}

impl Simulation {
    fn new(with_prober: bool) -> Self {
        let none = Probes {
            newest_ns: 0,
            since_ns: 0,
            sent: [SentProbe {
                nonce: 0,
                sent_ns: 0,
            }; Probes::KEPT],
        };
        Self {
            now: START,
            patience: PATIENCE_NS,
            known: [PathHealth::NOTHING; 2],
            probes: with_prober.then_some([none; 2]),
            under_way: Vec::new(),
            last_delivered: START,
            longest_silence: 0,
            taken: Vec::new(),
        }
    }

    fn gateway(with_prober: bool) -> Self {
        Self {
            patience: GATEWAY_PATIENCE_NS,
            ..Self::new(with_prober)
        }
    }

    fn moment(&self) -> Moment {
        Moment::at(self.now, self.patience)
    }

    fn preferences(&self) -> [u64; 2] {
        let preference = |place: usize| {
            let probes = self.probes.map_or((0, 0), |probes| {
                (probes[place].newest_ns, probes[place].since_ns)
            });
            health::preference(&self.known[place], probes, place as u32, self.moment())
        };
        [preference(0), preference(1)]
    }

    fn choose(&self) -> usize {
        let [first, second] = self.preferences();
        let (path, _) = health::better((0, first), (9, health::NO_PATH), self.moment());
        assert_eq!(path, 0, "any path is better than none");
        health::better((1, second), (0, first), self.moment()).0 as usize
    }

    /// One step with these paths alive; the far node answers every packet by the path that it came by.
    fn step(&mut self, alive: [bool; 2], rtt: u64) {
        self.now += STEP;
        let now = self.now;
        let arrived: Vec<_> = self
            .under_way
            .iter()
            .copied()
            .filter(|it| it.0 <= now)
            .collect();
        self.under_way.retain(|it| it.0 > now);
        for (_, path, nonce) in arrived {
            if !alive[path] {
                continue;
            }
            self.hear(path, nonce);
        }
        self.probe(alive, rtt);
        let path = self.choose();
        let preferences = self.preferences();
        self.taken.push(path);
        let is_try = !health::is_proven(preferences[path]) && !health::is_silent(preferences[path]);
        if is_try && health::is_silent(preferences[1 - path]) {
            let other = &mut self.known[1 - path];
            other.sent_ns = health::left(other.sent_ns, now).unwrap_or(other.sent_ns);
        }
        let known = &mut self.known[path];
        if let Some((sent, since)) =
            health::renewed(known.sent_ns, known.sent_since_ns, IDLE_NS, now)
        {
            known.sent_ns = sent;
            known.sent_since_ns = health::sending_since(known.heard_ns, since, now);
        }
        if alive[path] {
            self.under_way.push((now + rtt, path, None));
        }
    }

    fn hear(&mut self, path: usize, nonce: Option<u64>) {
        let (now, known) = (self.now, &mut self.known[path]);
        if let Some((heard, since)) =
            health::renewed(known.heard_ns, known.heard_since_ns, PATIENCE_NS, now)
        {
            known.heard_ns = heard;
            known.heard_since_ns = since;
        }
        match (nonce, &self.probes) {
            (Some(nonce), Some(probes)) => {
                let sent = health::answered_probe(&probes[path], nonce, known.answered_sent_ns);
                if let Some(sent) = sent {
                    known.answered_since_ns =
                        health::proven_since(known.answered_ns, known.answered_since_ns, now);
                    known.answered_ns = now;
                    known.answered_sent_ns = sent;
                }
            }
            _ => {
                self.longest_silence = self.longest_silence.max(now - self.last_delivered);
                self.last_delivered = now;
            }
        }
    }

    fn probe(&mut self, alive: [bool; 2], rtt: u64) {
        let now = self.now;
        let Some(probes) = &mut self.probes else {
            return;
        };
        if !(now - START).is_multiple_of(INTERVAL_NS) {
            return;
        }
        for (path, probes) in probes.iter_mut().enumerate() {
            let nonce = now + path as u64;
            let place = ((now / INTERVAL_NS) % Probes::KEPT as u64) as usize;
            probes.sent[place] = SentProbe {
                nonce,
                sent_ns: now,
            };
            if probes.since_ns == 0 {
                probes.since_ns = now;
            }
            probes.newest_ns = now;
            if alive[path] {
                self.under_way.push((now + rtt, path, Some(nonce)));
            }
        }
    }

    fn run(&mut self, alive: [bool; 2], rtt: u64, time: u64) {
        for _ in 0..time / STEP {
            self.step(alive, rtt);
        }
    }

    /// Forgets the silences so far.
    fn mark(&mut self) {
        self.longest_silence = 0;
        self.taken.clear();
    }

    fn changes(&self) -> usize {
        self.taken.windows(2).filter(|two| two[0] != two[1]).count()
    }
}

proptest! {
    /// With a prober or without: the path in use dies at any moment, and traffic is away for the patience and
    /// the round trip at most.
    #[test]
    fn traffic_moves_when_its_path_dies(
        with_prober: bool, is_gateway: bool, rtt_ms in 1u64..100, before_ms in 1500u64..4000,
    ) {
        let rtt = rtt_ms * MS;
        let mut simulation = if is_gateway {
            Simulation::gateway(with_prober)
        } else {
            Simulation::new(with_prober)
        };
        simulation.run([true; 2], rtt, before_ms * MS);
        let used = simulation.choose();
        simulation.mark();
        let mut alive = [true; 2];
        alive[used] = false;
        simulation.run(alive, rtt, 3000 * MS);
        let patience = if with_prober { PATIENCE_NS } else { simulation.patience };
        let limit = patience + 2 * STAMP_NS + 3 * rtt + 2 * STEP;
        prop_assert!(simulation.longest_silence <= limit, "{} ms", simulation.longest_silence / MS);
        prop_assert!(simulation.now - simulation.last_delivered < 10 * MS);
        prop_assert_eq!(simulation.choose(), 1 - used);
    }

    /// A path that comes back is not taken before it was good for a while, and then for good.
    #[test]
    fn a_path_that_comes_back_is_taken_once(
        rtt_ms in 1u64..100, away_ms in 500u64..3000,
    ) {
        let rtt = rtt_ms * MS;
        let mut simulation = Simulation::new(true);
        simulation.run([true; 2], rtt, 2000 * MS);
        simulation.run([false, true], rtt, away_ms * MS);
        prop_assert_eq!(simulation.choose(), 1);
        simulation.mark();
        simulation.run([true; 2], rtt, 900 * MS);
        prop_assert_eq!(simulation.choose(), 1, "not steady yet");
        simulation.run([true; 2], rtt, STEADY_NS);
        prop_assert_eq!(simulation.choose(), 0);
        prop_assert_eq!(simulation.changes(), 1);
        prop_assert!(simulation.longest_silence <= rtt + 20 * MS);
    }

    /// A path that comes and goes faster than it could be steady leaves traffic where it is.
    #[test]
    fn a_path_that_flaps_is_left_alone(
        rtt_ms in 1u64..50, up_ms in 100u64..600, down_ms in 400u64..900,
    ) {
        let rtt = rtt_ms * MS;
        let mut simulation = Simulation::new(true);
        simulation.run([true; 2], rtt, 2000 * MS);
        simulation.run([false, true], rtt, 1000 * MS);
        simulation.mark();
        for _ in 0..10 {
            simulation.run([true, true], rtt, up_ms * MS);
            simulation.run([false, true], rtt, down_ms * MS);
        }
        prop_assert_eq!(simulation.changes(), 0);
    }

    /// Both paths die, and one of them comes back: traffic finds it, prober or not.
    #[test]
    fn whichever_path_comes_back_is_found(
        with_prober: bool, is_gateway: bool, which in 0usize..2, away_ms in 0u64..5000, rtt_ms in 1u64..100,
    ) {
        let rtt = rtt_ms * MS;
        let mut simulation = if is_gateway {
            Simulation::gateway(with_prober)
        } else {
            Simulation::new(with_prober)
        };
        simulation.run([true; 2], rtt, 2000 * MS);
        simulation.run([false; 2], rtt, away_ms * MS);
        let mut alive = [false; 2];
        alive[which] = true;
        simulation.run(alive, rtt, IDLE_NS + 2 * PATIENCE_NS + 2 * rtt + 20 * MS);
        prop_assert_eq!(simulation.choose(), which);
        simulation.mark();
        simulation.run(alive, rtt, 3000 * MS);
        prop_assert_eq!(simulation.changes(), 0);
    }

    #[test]
    fn an_answer_counts_once_and_only_for_the_last_probes(
        sent in prop::collection::vec((1u64..1000, 1u64..10_000), Probes::KEPT), nonce in 1u64..1000,
        answered in 0u64..10_000,
    ) {
        let probes = Probes {
            newest_ns: 1,
            since_ns: 1,
            sent: std::array::from_fn(|at| SentProbe { nonce: sent[at].0, sent_ns: sent[at].1 }),
        };
        match health::answered_probe(&probes, nonce, answered) {
            Some(sent_ns) => {
                prop_assert!(sent.contains(&(nonce, sent_ns)) && sent_ns > answered);
                prop_assert_eq!(health::answered_probe(&probes, nonce, 10_000), None);
            }
            None => prop_assert!(sent.iter().all(|(of, at)| *of != nonce || *at <= answered)),
        }
    }

    /// However a peer spreads its probes, no window of a second sees more than twice the limit answered.
    #[test]
    fn a_peer_gets_its_share_of_answers(gaps_us in prop::collection::vec(0u64..2000, 4000)) {
        let (mut second, mut count, mut now) = (0, 0, START);
        let mut answered = Vec::new();
        for gap in gaps_us {
            now += gap * 1000;
            if let Some((new_second, new_count)) = health::reflected(second, count, now) {
                (second, count) = (new_second, new_count);
                answered.push(now);
            }
        }
        for (at, begin) in answered.iter().enumerate() {
            let within = answered[at..].partition_point(|it| it - begin < 1_000_000_000);
            prop_assert!(within as u64 <= 2 * REFLECTED_PER_SECOND);
        }
    }
}

/// Answers are what counts while there is a prober: a path that only brings packets may be cut the other way.
#[test]
fn what_is_heard_does_not_prove_a_path_that_is_probed() {
    let now = START;
    let heard = PathHealth {
        heard_ns: now - 10 * MS,
        heard_since_ns: now - 9000 * MS,
        answered_ns: now - 400 * MS,
        answered_since_ns: now - 9000 * MS,
        ..PathHealth::NOTHING
    };
    let probed = health::preference(
        &heard,
        (now - MS, now - 9000 * MS),
        0,
        Moment::at(now, PATIENCE_NS),
    );
    assert!(health::is_silent(probed));
    let unprobed = health::preference(&heard, (0, 0), 0, Moment::at(now, PATIENCE_NS));
    assert!(health::is_proven(unprobed));
}

/// A prober counts when it sent lately and long enough to be answered.
#[test]
fn a_prober_is_alive_after_three_intervals_and_for_three() {
    let now = START;
    let answers = PathHealth {
        answered_ns: now - 10 * MS,
        ..PathHealth::NOTHING
    };
    let is_alive = |newest_ms: u64, since_ms: u64| {
        let probes = (now - newest_ms * MS, now - since_ms * MS);
        health::is_proven(health::preference(
            &answers,
            probes,
            0,
            Moment::at(now, PATIENCE_NS),
        ))
    };
    assert!(is_alive(0, 300) && is_alive(299, 5000));
    assert!(!is_alive(300, 5000) && !is_alive(0, 299));
}

/// Standing comes first, then the order of the group, and where nothing is proven what was heard last.
#[test]
fn preferences_are_in_order() {
    let now = START;
    let heard = |ms: u64, since_ms: u64| PathHealth {
        heard_ns: now - ms * MS,
        heard_since_ns: now - since_ms * MS,
        ..PathHealth::NOTHING
    };
    let silent = |ms: u64| PathHealth {
        sent_ns: now - MS,
        sent_since_ns: now - 400 * MS,
        ..heard(ms, 9000)
    };
    let ordered = [
        (heard(10, 5000), 0),
        (heard(200, 1000), 6),
        (heard(10, 999), 0),
        (heard(299, 300), 5),
        (heard(300, 5000), 3),
        (heard(9000, 9000), 0),
        (PathHealth::NOTHING, 1),
        (silent(500), 4),
        (silent(900), 0),
    ];
    let preferences: Vec<u64> = ordered
        .iter()
        .map(|(health, place)| {
            health::preference(health, (0, 0), *place, Moment::at(now, PATIENCE_NS))
        })
        .collect();
    assert!(preferences.is_sorted(), "{preferences:x?}");
    let moment = Moment::at(now, PATIENCE_NS);
    for (at, two) in preferences.windows(2).enumerate() {
        assert!(two[0] < two[1], "{at}");
        assert_eq!(
            health::better((7, two[0]), (8, two[1]), moment),
            (7, two[0])
        );
        assert_eq!(
            health::better((8, two[1]), (7, two[0]), moment),
            (7, two[0])
        );
    }
    assert_eq!(
        health::better((8, 5), (7, 5), moment),
        (7, 5),
        "the first of equals"
    );
    let silent = preferences[7];
    assert_eq!(health::if_silent(silent, 4, 9, moment), 4);
    assert_eq!(health::if_silent(preferences[6], 4, 9, moment), 9);
}
