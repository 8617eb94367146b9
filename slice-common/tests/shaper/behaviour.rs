//! Flows are told apart by what they do: without flapping, without reordering, and nobody starves.

use slice_common::shaper::{Behaviour, ByteCost, Rate, Word};

use super::plant::{FRAME, MS, Plain, Plant, SECOND, START, flow_words, frames};
use super::scenes::{CLIENTS, REPLICATION, base, part_of, simulation, with_terms};
use super::senders::{Sender, Tcp, Ticks};
use super::simulation::Simulation;

/// Tries double in distance: seven of them, and the first verdict.
const MOST_CHANGES: usize = 2 * 7 + 1;

#[test]
fn bulk_is_known_soon_and_for_good() {
    let mut simulation = simulation(&base());
    simulation.tcp(REPLICATION, 4);
    simulation.tcp(CLIENTS, 16);
    simulation.run_ms(1000);
    let known = |simulation: &Simulation, flows: std::ops::Range<usize>| {
        let is_backlogged = |flow: &usize| {
            let last = simulation.figures(*flow).behaviours.last();
            last.map(|it| it.1) == Some(Behaviour::Backlogged)
        };
        flows.filter(is_backlogged).count()
    };
    assert_eq!(known(&simulation, 0..4), 4, "after a second");
    simulation.run_ms(4000);
    // Sixteen flows that have three per cent of the link each.
    let slow = known(&simulation, 4..20);
    assert!(slow >= 15, "{slow} of 16 after five seconds");
    simulation.run_ms(55_000);
    let changes: Vec<_> = (0..20)
        .map(|flow| simulation.figures(flow).changes())
        .collect();
    println!("changes in a minute: {changes:?}");
    assert!(changes.iter().all(|it| *it <= MOST_CHANGES), "{changes:?}");
    assert_eq!(simulation.steps_back(), 0);
}

#[test]
fn who_comes_and_goes_changes_sides_ever_more_seldom() {
    let mut simulation = simulation(&base());
    for off_ms in [200, 1000, 1500, 3000] {
        let tcp = Tcp::new(10 * MS).on_off(1000, off_ms);
        simulation.add(0, REPLICATION, Sender::Tcp(tcp));
    }
    simulation.tcp(CLIENTS, 4);
    simulation.run_ms(60_000);
    for flow in 0..4 {
        let changes = simulation.figures(flow).changes();
        assert!(changes <= MOST_CHANGES, "flow {flow}: {changes}");
    }
}

#[test]
fn requests_stay_interactive_beside_bulk() {
    let mut simulation = simulation(&base());
    simulation.tcp(REPLICATION, 4);
    let flows = [
        simulation.ticks(REPLICATION, Ticks::requests(MS)),
        simulation.ticks(REPLICATION, Ticks::answers(5_000_000, 10, 3 * MS)),
    ];
    simulation.run_ms(30_000);
    for flow in flows {
        let behaviours = &simulation.figures(flow).behaviours;
        assert_eq!(behaviours.len(), 1, "{behaviours:?}");
        assert_eq!(behaviours[0].1, Behaviour::Interactive);
    }
}

/// One flow catches up, then only answers, a request at a time, while others push on.
#[test]
fn who_caught_up_comes_to_the_front_after_a_second() {
    let plant = Plant::new(&[base()]);
    let flow = flow_words();
    let mut now = START;
    let mut behaviour = Behaviour::Interactive;
    let push = |now: u64, frames_each: u64| {
        plant
            .shape((0, REPLICATION), &flow, now, frames(frames_each))
            .behaviour
    };
    while now < START + SECOND {
        behaviour = push(now, 10);
        now += 3 * MS;
    }
    assert_eq!(behaviour, Behaviour::Backlogged);
    let caught_up = now;
    while behaviour == Behaviour::Backlogged && now < caught_up + 5 * SECOND {
        now += 25 * MS;
        behaviour = push(now, 1);
    }
    let took_ms = (now - caught_up) / MS;
    assert!((1000..1300).contains(&took_ms), "{took_ms} ms");
}

/// A flow that waits because everybody does, and sends again before its last packet left, is taken for
/// backlogged; one of its packets is a try, and it comes back.
#[test]
fn who_was_misjudged_comes_back() {
    let mut simulation = simulation(&base());
    for _ in 0..8 {
        let tcp = Tcp::new(10 * MS).by_drops_only();
        simulation.add(0, REPLICATION, Sender::Tcp(tcp));
    }
    simulation.ticks(CLIENTS, Ticks::steady(100_000_000, 0));
    let misjudged = simulation.ticks(REPLICATION, Ticks::answers(5_000_000, 5, 0));
    simulation.plant.slices[0].classes[REPLICATION]
        .terms
        .favour_interactive = false;
    simulation.run_ms(3000);
    let was = simulation
        .figures(misjudged)
        .behaviours
        .last()
        .map(|it| it.1);
    assert_eq!(was, Some(Behaviour::Backlogged), "the test is vacuous");
    simulation.plant.slices[0].classes[REPLICATION]
        .terms
        .favour_interactive = true;
    simulation.run_ms(300_000);
    simulation.measure_from_here();
    simulation.run_ms(10_000);
    let figures = simulation.figures(misjudged);
    let is = figures.behaviours.last().map(|it| it.1);
    assert_eq!(is, Some(Behaviour::Interactive));
    assert!(figures.p99_us() <= 2000, "{} us", figures.p99_us());
}

/// What bulk gets of its class, in parts of the entitlement, while more interactive flows come and go than
/// the class can carry, each too short to be judged.
fn bulk_beside_a_crowd(with_back: bool) -> f64 {
    let profile = base();
    let mut simulation = with_terms(&profile, |terms| {
        if !with_back {
            let nothing = Rate::new_checked(Rate::MIN_BPS).expect("in range");
            terms.back = ByteCost::at(nothing);
        }
    });
    simulation.ticks(CLIENTS, Ticks::steady(100_000_000, 0));
    simulation.tcp(REPLICATION, 2);
    simulation.run_ms(2000);
    simulation.measure_from_here();
    for round in 0..40u64 {
        // Flows of a moment: each sends twice.
        for flow in 0..40 {
            let ticks = Ticks {
                interval_ns: 20_000 * MS,
                phase_ns: (flow * 5 + round % 5) * MS / 2,
                packets: 12,
                packet_bytes: FRAME,
            };
            simulation.ticks(REPLICATION, ticks);
        }
        simulation.run_ms(100);
    }
    let bulk = simulation.figures(1).sent_bytes + simulation.figures(2).sent_bytes;
    part_of(bulk, profile.entitlement_bps(REPLICATION), 4)
}

#[test]
fn bulk_keeps_a_quarter_of_its_class_whatever_the_front_does() {
    let without = bulk_beside_a_crowd(false);
    let with = bulk_beside_a_crowd(true);
    println!("bulk beside a crowd: {with:.3} of its class, {without:.3} without its own part");
    assert!(without < 0.15, "{without}: the test is vacuous");
    assert!(with >= 0.24, "{with}");
}

/// A flow that waits at the back and then goes to the front; `forgets` its last departure or not.
fn goes_to_the_front(forgets: bool) -> (u64, u64) {
    let plant = Plant::new(&[base()]);
    let (bulk, flow) = (flow_words(), flow_words::<Plain>());
    let mut now = START;
    // Bulk fills the class and the ceiling; the flow is at the back as well.
    flow.stance.write(now | 1);
    for _ in 0..12 {
        plant.shape((0, REPLICATION), &bulk, now, frames(4));
        plant.shape((0, CLIENTS), &flow_words(), now, frames(4));
    }
    let at_back = plant.shape((0, REPLICATION), &flow, now, frames(4));
    now += MS;
    flow.stance.write(0);
    if forgets {
        flow.departure.write(0);
    }
    let at_front = plant.shape((0, REPLICATION), &flow, now, frames(4));
    assert_eq!(at_back.behaviour, Behaviour::Backlogged);
    assert_eq!(at_front.behaviour, Behaviour::Interactive);
    (at_back.departure_ns, at_front.departure_ns)
}

#[test]
fn no_packet_overtakes_another_of_its_flow_when_it_changes_sides() {
    let (back, front) = goes_to_the_front(true);
    assert!(front < back, "the test is vacuous");
    let (back, front) = goes_to_the_front(false);
    assert!(front >= back, "{front} before {back}");
}
