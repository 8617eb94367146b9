//! What nodes lend each other, in simulated time: never more than there is, and soon to who needs it.

mod lending_support;

use lending_support::{Fault, SECOND, Simulation, World};
use proptest::prelude::*;
use slice_agent::lending::ledger::{LEASE_NS, MARGIN_NS};
use slice_common::shaper::Loan;

const WHOLE: u64 = Loan::WHOLE as u64;

/// The most that all nodes together were allowed beyond the ceiling, and one alone.
fn after_two_minutes(nodes: usize, fault: Fault, seed: u64) -> (u64, u64) {
    let mut simulation = Simulation::new(World::hostile(nodes, fault), seed);
    simulation.run_for(120 * SECOND);
    let whole = nodes as u64 * WHOLE;
    (
        simulation.most.saturating_sub(whole),
        simulation.most_of_one,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn all_nodes_together_never_get_more_than_the_ceiling(nodes in 2usize..=5, seed in any::<u64>()) {
        let (beyond, _) = after_two_minutes(nodes, Fault::None, seed);
        prop_assert_eq!(beyond, 0);
    }
}

#[test]
fn parts_are_lent_in_a_hostile_world_too() {
    let seen = (0..100).map(|seed| after_two_minutes(2 + seed as usize % 4, Fault::None, seed).1);
    let borrowed = seen.filter(|most| *most > WHOLE * 3 / 2).count();
    assert!(
        borrowed > 80,
        "{borrowed} of 100 worlds saw somebody with half a part more"
    );
}

#[test]
fn what_is_done_wrong_is_noticed() {
    for fault in [
        Fault::AnswersFirst,
        Fault::CountsFromTheAnswer,
        Fault::ForgetsWhatIsLent,
        Fault::GoesByOldAnswers,
        Fault::TakesAnswersForGiven,
    ] {
        let worlds = (0..200).map(|seed| after_two_minutes(2 + seed as usize % 4, fault, seed).0);
        let noticed = worlds.filter(|beyond| *beyond > WHOLE / 100).count();
        println!("{fault:?}: noticed in {noticed} of 200 worlds");
        assert!(noticed > 0, "{fault:?}");
    }
}

/// Agents are there, and have measured.
fn started(nodes: usize, demands: &[f64], seed: u64) -> Simulation {
    let mut simulation = Simulation::new(World::calm(nodes), seed);
    for (node, demand) in demands.iter().enumerate() {
        simulation.demand(node, *demand);
    }
    simulation.run_for(3 * SECOND);
    simulation
}

/// How long it takes until this holds.
fn until(
    simulation: &mut Simulation,
    limit_ns: u64,
    holds: impl Fn(&Simulation) -> bool,
) -> Option<u64> {
    let began_ns = simulation.now_ns;
    while !holds(simulation) {
        if simulation.now_ns - began_ns > limit_ns {
            return None;
        }
        simulation.run_for(SECOND / 100);
    }
    Some(simulation.now_ns - began_ns)
}

#[test]
fn who_is_busy_among_idle_ones_gets_all_that_they_can_spare() {
    for nodes in 2..=5 {
        for seed in 0..20 {
            let mut simulation = started(nodes, &[], seed);
            assert!((simulation.allowed(0) - 1.0).abs() < 0.001);
            simulation.demand(0, 100.0);
            let due = 1.0 + 0.75 * (nodes - 1) as f64;
            let needed = until(&mut simulation, 10 * SECOND, |it| {
                it.allowed(0) > 0.99 * due
            });
            let needed = needed.unwrap_or_else(|| panic!("{nodes}: {}", simulation.allowed(0)));
            assert!(needed < 9 * SECOND, "{nodes} nodes: after {needed} ns");
            simulation.run_for(20 * SECOND);
            assert!(simulation.allowed(0) > 0.99 * due, "it does not last");
        }
    }
}

#[test]
fn who_needs_its_part_again_has_it_soon_and_at_the_end_of_the_lease_if_nobody_answers() {
    let mut longest = [0, 0];
    for nodes in 2..=5 {
        for seed in 0..20 {
            for (with_agents, limit_ns) in [
                (true, 4 * SECOND),
                (false, SECOND + (LEASE_NS + MARGIN_NS) * 102 / 100),
            ] {
                let mut simulation = started(nodes, &[100.0], seed);
                simulation.run_for(12 * SECOND);
                assert!(simulation.allowed(1) < 0.3, "{}", simulation.allowed(1));
                if !with_agents {
                    (0..nodes)
                        .filter(|it| *it != 1)
                        .for_each(|it| simulation.kill(it));
                }
                simulation.demand(1, 100.0);
                let needed = until(&mut simulation, limit_ns, |it| it.allowed(1) > 0.999);
                let needed = needed.unwrap_or_else(|| panic!("{nodes}, agents {with_agents}"));
                let longest = &mut longest[usize::from(!with_agents)];
                *longest = needed.max(*longest);
            }
        }
    }
    println!("with agents and without: {longest:?} ns at most");
}

#[test]
fn who_loses_its_lender_falls_back_to_its_own_part_by_itself() {
    for seed in 0..20 {
        let mut simulation = started(2, &[100.0], seed);
        simulation.run_for(12 * SECOND);
        assert!(simulation.allowed(0) > 1.7);
        simulation.kill(1);
        let needed = until(&mut simulation, LEASE_NS * 102 / 100, |it| {
            it.allowed(0) < 1.001
        });
        needed.expect("the lease ends");
    }
}

#[test]
fn those_who_want_everything_come_to_equal_parts_and_stay_there() {
    for nodes in 2..=5 {
        for busy in 2..=nodes {
            for seed in 0..10 {
                // The first is busy alone at first.
                let mut simulation = started(nodes, &[100.0], seed);
                simulation.run_for(12 * SECOND);
                (0..busy).for_each(|node| simulation.demand(node, 100.0));
                simulation.run_for(12 * SECOND);
                let spared = 0.75 * (nodes - busy) as f64 / busy as f64;
                for _ in 0..2000 {
                    for node in 0..busy {
                        let allowed = simulation.allowed(node);
                        let seen = format!("{busy} of {nodes}, node {node}: {allowed}");
                        assert!((allowed - 1.0 - spared).abs() < 0.02, "{seen}");
                    }
                    simulation.run_for(SECOND / 100);
                }
            }
        }
    }
}

#[test]
fn parts_of_who_sends_now_and_then_do_not_go_to_and_fro() {
    for seed in 0..20 {
        let mut simulation = started(2, &[100.0, 0.5], seed);
        let mut moves = 0;
        let mut before = simulation.allowed(0);
        for second in 0..120 {
            simulation.demand(1, if second % 3 == 0 { 0.55 } else { 0.35 });
            simulation.run_for(SECOND);
            let now = simulation.allowed(0);
            moves += u32::from(second > 20 && (now - before).abs() > 0.15);
            before = now;
        }
        assert_eq!(moves, 0, "seed {seed}");
    }
}
