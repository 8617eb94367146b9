//! Short requests do not wait, in any class, whatever fills the link.

use super::plant::MS;
use super::scenes::{CLIENTS, REPLICATION, base, measure, part_of, with_terms};
use super::senders::{Sender, Tcp, Ticks};
use super::simulation::Simulation;

/// Four flows of replication and eight of clients fill the link, with requests in both classes. Returns
/// what 99 of 100 requests wait at most, in microseconds.
fn requests_wait_us(with_lane: bool, favour_interactive: bool) -> [u64; 2] {
    let mut simulation = with_terms(&base(), |terms| {
        terms.favour_interactive = favour_interactive;
    });
    if !with_lane {
        simulation.plant.slices[0].terms.lane_burst_ns = 0;
    }
    simulation.tcp(REPLICATION, 4);
    simulation.tcp(CLIENTS, 8);
    let requests = [
        simulation.ticks(REPLICATION, Ticks::requests(3 * MS)),
        simulation.ticks(CLIENTS, Ticks::requests(5 * MS)),
    ];
    measure(&mut simulation, 10);
    requests.map(|flow| simulation.figures(flow).p99_us())
}

#[test]
fn requests_pass_a_saturated_class_by_the_lane_or_by_the_front() {
    let neither = requests_wait_us(false, false);
    assert!(
        neither.iter().all(|us| *us > 4000),
        "{neither:?}: the test is vacuous"
    );
    for (lane, front) in [(true, false), (false, true), (true, true)] {
        let wait_us = requests_wait_us(lane, front);
        println!("lane {lane}, front {front}: requests wait {wait_us:?} us");
        assert!(
            wait_us.iter().all(|us| *us <= 1000),
            "{lane} {front}: {wait_us:?}"
        );
    }
}

#[test]
fn clients_do_not_feel_replication() {
    let mut simulation = with_terms(&base(), |_| {});
    simulation.tcp(REPLICATION, 8);
    let requests = simulation.ticks(CLIENTS, Ticks::requests(3 * MS));
    measure(&mut simulation, 10);
    assert!(simulation.figures(requests).p99_us() <= 500);
}

struct CatchUp {
    simulation: Simulation,
    in_sync: usize,
}

/// Followers of one class: some that catch up, one in sync that takes a tenth of the ceiling in answers
/// every ten milliseconds.
fn catch_up(favour: bool, flows: usize, marks: bool, clients: usize) -> CatchUp {
    let mut simulation = with_terms(&base(), |terms| terms.favour_interactive = favour);
    let in_sync = simulation.ticks(REPLICATION, Ticks::answers(5_000_000, 10, 3 * MS));
    simulation.run_ms(500);
    let tcp = Tcp::new(10 * MS);
    let tcp = if marks { tcp } else { tcp.by_drops_only() };
    for _ in 0..flows {
        simulation.add(0, REPLICATION, Sender::Tcp(tcp.clone()));
    }
    simulation.tcp(CLIENTS, clients);
    measure(&mut simulation, 10);
    CatchUp {
        simulation,
        in_sync,
    }
}

/// The round trip is ten milliseconds: two more are 1.2 times as much.
#[test]
fn a_follower_in_sync_does_not_feel_one_that_catches_up() {
    for (flows, marks, clients) in [
        (1, true, 0),
        (1, true, 8),
        (1, false, 0),
        (4, true, 0),
        (4, true, 8),
        (4, false, 8),
    ] {
        let scene = format!("{flows} catch up, marks {marks}, {clients} clients");
        let without = catch_up(false, flows, marks, clients);
        let felt_us = without.simulation.figures(without.in_sync).p99_us();
        assert!(felt_us > 4000, "{scene}: {felt_us}, the test is vacuous");
        let with = catch_up(true, flows, marks, clients);
        let (simulation, in_sync) = (&with.simulation, with.simulation.figures(with.in_sync));
        println!(
            "{scene}: in sync waits {} us, {felt_us} us if not favoured",
            in_sync.p99_us()
        );
        assert!(in_sync.p99_us() <= 2000, "{scene}: {} us", in_sync.p99_us());
        assert_eq!(in_sync.dropped, 0, "{scene}");
        if clients == 0 {
            let catching_up = simulation.class_bytes(REPLICATION) - in_sync.sent_bytes;
            let share = part_of(catching_up, 45_000_000, 10);
            assert!(share >= 0.9, "{scene}: {share} of the rest");
        }
    }
}

/// As many answers as the front has room for, three quarters of what the class is entitled to.
#[test]
fn the_front_holds_three_quarters_of_the_class() {
    let profile = base();
    let mut simulation = with_terms(&profile, |_| {});
    simulation.tcp(REPLICATION, 4);
    simulation.tcp(CLIENTS, 8);
    let each_bps = profile.entitlement_bps(REPLICATION) * 6 / 10 / 12;
    let answers: Vec<_> = (0..12)
        .map(|flow| simulation.ticks(REPLICATION, Ticks::answers(each_bps, 20, flow * 2 * MS)))
        .collect();
    measure(&mut simulation, 10);
    let worst_us = answers
        .iter()
        .map(|flow| simulation.figures(*flow).p99_us())
        .max();
    println!("twelve flows with six tenths of the class wait {worst_us:?} us");
    assert!(worst_us <= Some(2000), "{worst_us:?} us");
}
