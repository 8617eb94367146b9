//! What a class is entitled to, it gets; what it leaves, others get.

use proptest::prelude::*;
use slice_common::shaper::{ByteCost, Rate};

use super::plant::{FRAME, MS, Profile, bytes_in};
use super::scenes::{CLIENTS, REPLICATION, base, measure, part_of, simulation, with_terms};
use super::senders::Ticks;

/// Part of its entitlement that a class with one flow gets against so many of the other class.
fn one_against(class: usize, others: usize, with_guarantees: bool) -> f64 {
    let profile = base();
    let mut simulation = with_terms(&profile, |terms| {
        if !with_guarantees {
            let nothing = ByteCost::at(Rate::new_checked(Rate::MIN_BPS).expect("in range"));
            terms.guarantee = nothing;
            terms.front = nothing;
            terms.back = nothing;
        }
    });
    simulation.tcp(class, 1);
    simulation.tcp(1 - class, others);
    measure(&mut simulation, 5);
    part_of(
        simulation.class_bytes(class),
        profile.entitlement_bps(class),
        5,
    )
}

#[test]
fn one_flow_gets_its_guarantee_against_many_and_without_the_clock_does_not() {
    for class in [REPLICATION, CLIENTS] {
        let without = one_against(class, 64, false);
        assert!(without < 0.5, "{without}: the test is vacuous");
        for others in [16, 64] {
            let got = one_against(class, others, true);
            println!("class {class} with 1 flow against {others}: {got:.4} of its entitlement");
            assert!(got >= 0.98, "class {class} against {others}: {got}");
        }
    }
}

#[test]
fn a_flood_takes_nothing_of_what_others_are_guaranteed() {
    let profile = base();
    let mut simulation = simulation(&profile);
    simulation.tcp(REPLICATION, 4);
    simulation.ticks(CLIENTS, Ticks::steady(200_000_000, 0));
    measure(&mut simulation, 5);
    let bps = profile.entitlement_bps(REPLICATION);
    let got = part_of(simulation.class_bytes(REPLICATION), bps, 5);
    assert!(got >= 0.98, "{got}");
}

#[test]
fn what_a_class_does_not_use_is_borrowed() {
    let profile = base();
    let mut simulation = simulation(&profile);
    simulation.tcp(CLIENTS, 8);
    let quarter = Ticks::answers(5_000_000, 10, 0);
    simulation.ticks(REPLICATION, quarter);
    measure(&mut simulation, 5);
    let all = part_of(simulation.slice_bytes(0), profile.ceiling_bps, 5);
    assert!(all >= 0.97, "{all}");
    let clients = part_of(
        simulation.class_bytes(CLIENTS),
        profile.entitlement_bps(CLIENTS),
        5,
    );
    assert!(
        clients >= 2.0,
        "clients have {clients} of their entitlement"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// Whoever offers its entitlement all the time gets it, in bytes, whatever the others do.
    #[test]
    fn an_offered_guarantee_is_kept_to_the_byte_and_a_bound(
        percents in (5u64..45, 5u64..45), rtt_ms in 1u64..80,
        floods in prop::collection::vec((1u64..300, 0u64..40), 0..6), burst in 1u64..60,
    ) {
        let profile = Profile::new(50_000_000, rtt_ms, &[percents.0, percents.1]);
        let entitled_bps = profile.entitlement_bps(0);
        let mut simulation = simulation(&profile);
        simulation.ticks(0, Ticks::steady(entitled_bps * 6 / 5, 0));
        for (percent, phase_ms) in floods {
            let ticks = Ticks::steady(profile.ceiling_bps / 100 * percent, phase_ms * MS);
            simulation.ticks(1, ticks);
        }
        let coordinated =
            Ticks { interval_ns: 30 * MS, phase_ns: 0, packets: burst, packet_bytes: 4 * FRAME };
        simulation.ticks(1, coordinated);
        simulation.run_ms(200);
        simulation.measure_from_here();
        simulation.run_ms(1000);
        let owed = bytes_in(entitled_bps, 1000 * MS);
        // The queue may have been full before and have room after.
        let terms = simulation.plant.slices[0].classes[0].terms;
        let bound = bytes_in(entitled_bps, terms.horizon_ns + terms.burst_ns) + 4 * FRAME;
        let got = simulation.class_bytes(0);
        prop_assert!(got + bound >= owed, "{got} of {owed} bytes, {bound} may be missing");
    }
}

/// Parts of their entitlements that the classes get which have flows, of three with weights 3, 1 and 1.
fn weighted(flows: [usize; 3]) -> [f64; 3] {
    let profile = Profile::new(100_000_000, 10, &[20, 20, 10]).weights(&[3, 1, 1]);
    let mut simulation = simulation(&profile);
    for (class, flows) in flows.into_iter().enumerate() {
        simulation.tcp(class, flows);
    }
    measure(&mut simulation, 5);
    let all = part_of(simulation.slice_bytes(0), profile.ceiling_bps, 5);
    assert!(all >= 0.97, "{all}");
    [0, 1, 2].map(|class| {
        part_of(
            simulation.class_bytes(class),
            profile.entitlement_bps(class),
            5,
        )
    })
}

/// Guarantees 20, 20, 10; of the 40 that are left the classes get 24, 8, 8; the lane's 10 go to whoever
/// comes first.
#[test]
fn excess_is_shared_by_weight_when_all_classes_send() {
    for flows in [[4, 4, 4], [1, 8, 16], [16, 4, 1]] {
        let got = weighted(flows);
        println!("{flows:?} flows: {got:.3?} of entitlements 44, 28, 18");
        for part in got {
            assert!((0.98..=1.6).contains(&part), "{flows:?}: {got:?}");
        }
    }
}

/// What an absent class leaves is not shared by weight, but by who takes it first.
#[test]
fn what_an_absent_class_leaves_goes_to_whoever_takes_it() {
    let few = weighted([2, 16, 0]);
    let many = weighted([16, 2, 0]);
    println!("2 and 16 flows: {few:.3?}; 16 and 2: {many:.3?}");
    for got in [few, many] {
        assert!(got[0] >= 0.98 && got[1] >= 0.98, "{got:?}");
    }
    assert!(few[1] > many[1] && many[0] > few[0], "{few:?} {many:?}");
}
