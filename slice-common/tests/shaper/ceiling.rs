//! The ceiling holds in every window, and is used.

use proptest::prelude::*;
use slice_common::shaper::ByteCost;

use super::plant::{FRAME, MS, Plant, Profile, SECOND, bytes_in, excess_bound_bytes};
use super::scenes::{CLIENTS, REPLICATION, base, measure, part_of, simulation};
use super::senders::{Sender, Tcp, Ticks};
use super::simulation::{Simulation, busiest_window_bytes, worst_excess_bytes};

/// Anybody who might send.
fn sender(ceiling_bps: u64) -> impl Strategy<Value = Sender> {
    let tcp = (any::<bool>(), 5u64..2000, 0u64..1500).prop_map(|(marks, on_ms, off_ms)| {
        let tcp = Tcp::new(10 * MS).on_off(on_ms, off_ms);
        Sender::Tcp(if marks { tcp } else { tcp.by_drops_only() })
    });
    let flood = (1u64..200, 0u64..50).prop_map(move |(percent, phase_ms)| {
        Sender::Ticks(Ticks::steady(ceiling_bps / 100 * percent, phase_ms * MS))
    });
    let bursts = (1u64..60, 1u64..2000, 64u64..5000).prop_map(|(packets, interval_ms, bytes)| {
        Sender::Ticks(Ticks {
            interval_ns: interval_ms * MS,
            phase_ns: 0,
            packets,
            packet_bytes: bytes,
        })
    });
    prop_oneof![tcp, flood, bursts]
}

fn mix() -> impl Strategy<Value = (Profile, Vec<(usize, Sender)>)> {
    let profile = (10u64..200, 1u64..100, 0u64..45, 0u64..45, any::<[u16; 2]>());
    profile.prop_flat_map(|(mbps, rtt_ms, first, second, weights)| {
        let ceiling_bps = mbps * 1_000_000;
        let weights = weights.map(|weight| weight.max(1));
        let profile = Profile::new(ceiling_bps, rtt_ms, &[first, second]).weights(&weights);
        let senders = prop::collection::vec((0usize..2, sender(ceiling_bps)), 1..24);
        (Just(profile), senders)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn no_window_exceeds_the_ceiling_by_more_than_the_bound((profile, senders) in mix()) {
        // Two classes of which none is left without anything.
        prop_assume!(profile.assured().entitlement(&profile.classes, 0).is_ok());
        prop_assume!(profile.assured().entitlement(&profile.classes, 1).is_ok());
        let mut simulation = simulation(&profile);
        for (class, sender) in senders {
            simulation.add(0, class, sender);
        }
        simulation.run_ms(1500);
        let slice = &simulation.plant.slices[0];
        let bound = excess_bound_bytes(&profile, slice, 10 * FRAME);
        let excess = worst_excess_bytes(&simulation.accepted, None, profile.ceiling_bps);
        prop_assert!(excess <= bound, "{excess} bytes above the ceiling, at most {bound}");
        let later = bytes_in(profile.ceiling_bps, slice.classes[0].terms.horizon_ns);
        let left = worst_excess_bytes(&simulation.departed, None, profile.ceiling_bps);
        prop_assert!(left <= bound + later, "{left} bytes above the ceiling left");
        prop_assert_eq!(simulation.steps_back(), 0);
    }
}

/// Many thin flows that together offer twice the ceiling.
fn thin_flows(lane_is_bounded: bool) -> (Profile, Simulation) {
    let profile = base();
    let mut plant = Plant::new(std::slice::from_ref(&profile));
    if !lane_is_bounded {
        plant.slices[0].terms.lane = ByteCost::FREE;
    }
    let mut simulation = Simulation::new(plant, profile.rtt_ns);
    for flow in 0..160 {
        let ticks = Ticks::steady(profile.ceiling_bps / 80, flow * MS / 8);
        simulation.ticks(flow as usize % 2, ticks);
    }
    simulation.run_ms(1000);
    (profile, simulation)
}

/// What was accepted above the ceiling, at the worst moment, and at most.
fn excess_and_bound((profile, simulation): &(Profile, Simulation)) -> (u64, u64) {
    (
        worst_excess_bytes(&simulation.accepted, None, profile.ceiling_bps),
        excess_bound_bytes(profile, &simulation.plant.slices[0], FRAME),
    )
}

fn only_ours_stays_below_the_bound(broken: (Profile, Simulation), ours: (Profile, Simulation)) {
    let (excess, bound) = excess_and_bound(&broken);
    assert!(
        excess > 2 * bound,
        "{excess} of {bound}: the test is vacuous"
    );
    let (excess, bound) = excess_and_bound(&ours);
    assert!(excess <= bound, "{excess} bytes above, at most {bound}");
}

#[test]
fn a_lane_without_bound_breaks_the_ceiling_and_ours_does_not() {
    only_ours_stays_below_the_bound(thin_flows(false), thin_flows(true));
}

/// Both classes and the lane flooded.
fn flooded(guarantees_fit: bool) -> (Profile, Simulation) {
    let profile = base();
    let mut simulation = simulation(&profile);
    if !guarantees_fit {
        for class in &mut simulation.plant.slices[0].classes {
            class.terms.guarantee = ByteCost::at(super::plant::rate(30_000_000));
        }
    }
    for class in [REPLICATION, CLIENTS] {
        simulation.ticks(class, Ticks::steady(100_000_000, 0));
    }
    simulation.run_ms(3000);
    (profile, simulation)
}

#[test]
fn guarantees_that_do_not_fit_let_the_ceiling_run_away_and_ours_fit() {
    only_ours_stays_below_the_bound(flooded(false), flooded(true));
}

/// Every whole second, and what all of them carried together, as parts of the ceiling.
fn seconds_of(simulation: &Simulation, profile: &Profile, seconds: u64) -> (f64, f64) {
    let (first_ns, mut by_second) = (simulation.now_ns - seconds * SECOND, vec![0; 64]);
    for (at_ns, bytes, _) in &simulation.departed {
        by_second[((at_ns - first_ns) / SECOND) as usize] += bytes;
    }
    let most = by_second.iter().copied().max().unwrap_or(0);
    let sum = by_second.iter().sum();
    let ceiling_bps = profile.ceiling_bps;
    (
        part_of(most, ceiling_bps, 1),
        part_of(sum, ceiling_bps, seconds),
    )
}

#[test]
fn whole_seconds_keep_to_the_ceiling_and_use_it() {
    let profile = base();
    let scenes: [(&str, usize, usize); 4] = [
        ("replication alone", 1, 0),
        ("clients alone", 0, 8),
        ("one against sixteen", 1, 16),
        ("four against eight", 4, 8),
    ];
    for (name, replication, clients) in scenes {
        let mut simulation = simulation(&profile);
        simulation.tcp(REPLICATION, replication);
        simulation.tcp(CLIENTS, clients);
        measure(&mut simulation, 10);
        let (most, sum) = seconds_of(&simulation, &profile, 10);
        println!("{name}: busiest second {most:.4}, all {sum:.4} of the ceiling");
        assert!(most <= 1.0, "{name}: {most}");
        assert!(sum >= 0.97, "{name}: {sum}");
    }
}

/// Four flows of replication, on for a second and off for one, against eight of clients.
fn on_and_off(profile: &Profile) -> Simulation {
    let mut simulation = simulation(profile);
    for _ in 0..4 {
        let tcp = Tcp::new(profile.rtt_ns).on_off(1000, 1000);
        simulation.add(0, REPLICATION, Sender::Tcp(tcp));
    }
    simulation.tcp(CLIENTS, 8);
    measure(&mut simulation, 10);
    simulation
}

/// What a waking class sends at once is paid for when it stops, and the worst second has what is kept spare:
/// a hundredth.
#[test]
fn a_class_that_wakes_up_borrows_from_later() {
    let profile = base();
    let simulation = on_and_off(&profile);
    let (_, sum) = seconds_of(&simulation, &profile, 10);
    let worst_second = busiest_window_bytes(&simulation.departed, SECOND);
    let worst = part_of(worst_second, profile.ceiling_bps, 1);
    println!("on and off: all {sum:.4}, worst second {worst:.4} of the ceiling");
    assert!((0.98..=0.991).contains(&sum), "{sum}");
    assert!(worst <= 1.003, "{worst}");
}

/// A ceiling for each class instead of borrowing.
#[test]
fn a_static_split_leaves_the_link_idle_and_ours_does_not() {
    let half = Profile::new(25_000_000, 10, &[80]);
    let mut split = Simulation::new(Plant::new(&[half.clone(), half]), 10 * MS);
    split.tcp(0, 4);
    measure(&mut split, 5);
    let used = part_of(split.slice_bytes(0), 50_000_000, 5);
    assert!(used < 0.6, "{used}: the test is vacuous");
    let mut ours = simulation(&base());
    ours.tcp(REPLICATION, 4);
    measure(&mut ours, 5);
    let used = part_of(ours.slice_bytes(0), 50_000_000, 5);
    assert!(used >= 0.97, "{used}");
}
