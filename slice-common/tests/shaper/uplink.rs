//! Slices that share an uplink: each has its guarantee of it, and none has its ceiling alone.

use slice_common::shaper::{ByteCost, Rate, WireBytes, Word, check_uplink};

use super::plant::{FRAME, MS, Plant, Profile, START, bytes_in, flow_words, rate};
use super::scenes::{measure, part_of};
use super::senders::{Sender, Tcp, Ticks};
use super::simulation::{Simulation, worst_excess_bytes};

const UPLINK_BPS: u64 = 60_000_000;

/// Two slices with a ceiling of 50 Mbit/s each on an uplink of 60.
fn two_slices(guarantees_bps: [u64; 2], with_guarantees: bool) -> Simulation {
    let profiles = guarantees_bps.map(|guarantee_bps| {
        let mut profile = Profile::new(50_000_000, 10, &[10, 10]);
        profile.uplink_bps = Some((UPLINK_BPS, guarantee_bps));
        profile
    });
    check_uplink(rate(UPLINK_BPS), &guarantees_bps.map(rate)).expect("a contract that covers them");
    let mut plant = Plant::new(&profiles);
    let nothing = ByteCost::at(Rate::new_checked(Rate::MIN_BPS).expect("in range"));
    if !with_guarantees {
        for slice in &mut plant.slices {
            slice.uplink.guarantee = nothing;
            for class in &mut slice.classes {
                (class.terms.guarantee, class.terms.front, class.terms.back) =
                    (nothing, nothing, nothing);
            }
        }
    }
    Simulation::new(plant, 10 * MS)
}

fn tcp(simulation: &mut Simulation, slice: usize, flows: usize) {
    for flow in 0..flows {
        simulation.add(slice, flow % 2, Sender::Tcp(Tcp::new(10 * MS)));
    }
}

/// Parts of their guarantees that two slices get, with sixteen flows and two.
fn sixteen_against_two(guarantees_bps: [u64; 2], with_guarantees: bool) -> [f64; 2] {
    let mut simulation = two_slices(guarantees_bps, with_guarantees);
    tcp(&mut simulation, 0, 16);
    tcp(&mut simulation, 1, 2);
    measure(&mut simulation, 5);
    assert_eq!(simulation.steps_back(), 0);
    [0, 1].map(|slice| part_of(simulation.slice_bytes(slice), guarantees_bps[slice], 5))
}

#[test]
fn slices_get_their_guarantees_of_the_uplink_and_without_the_clock_do_not() {
    let without = sixteen_against_two([30_000_000; 2], false);
    assert!(without[1] < 0.8, "{without:?}: the test is vacuous");
    for guarantees_bps in [[30_000_000, 30_000_000], [40_000_000, 20_000_000]] {
        let got = sixteen_against_two(guarantees_bps, true);
        println!("16 flows against 2: {got:.4?} of {guarantees_bps:?} bit/s");
        assert!(
            got.iter().all(|part| (0.98..=1.02).contains(part)),
            "{got:?}"
        );
    }
}

#[test]
fn a_slice_alone_stops_at_its_ceiling() {
    let mut simulation = two_slices([30_000_000; 2], true);
    tcp(&mut simulation, 0, 8);
    measure(&mut simulation, 5);
    let used = part_of(simulation.slice_bytes(0), 50_000_000, 5);
    assert!((0.97..=1.005).contains(&used), "{used}");
}

#[test]
fn requests_pass_a_full_uplink() {
    let mut simulation = two_slices([30_000_000; 2], true);
    tcp(&mut simulation, 0, 16);
    tcp(&mut simulation, 1, 4);
    let requests = [0, 1].map(|slice| {
        let ticks = Ticks::requests((3 + slice as u64) * MS);
        simulation.add(slice, 1, Sender::Ticks(ticks))
    });
    measure(&mut simulation, 10);
    let wait_us = requests.map(|flow| simulation.figures(flow).p99_us());
    println!("requests wait {wait_us:?} us on a full uplink");
    assert!(wait_us.iter().all(|us| *us <= 1000), "{wait_us:?}");
}

/// Floods in every class of both slices: the contract holds as a ceiling does.
#[test]
fn the_contract_holds_against_floods() {
    let mut simulation = two_slices([30_000_000; 2], true);
    for slice in 0..2 {
        for class in 0..2 {
            let flood = Ticks::steady(100_000_000, (slice + class) as u64 * MS);
            simulation.add(slice, class, Sender::Ticks(flood));
        }
        for flow in 0..80 {
            let thin = Ticks::steady(400_000, flow * MS / 8);
            simulation.add(slice, flow as usize % 2, Sender::Ticks(thin));
        }
    }
    simulation.run_ms(3000);
    let terms = simulation.plant.slices[0].classes[0].terms;
    let own_ns = terms.burst_ns + terms.horizon_ns;
    // As the ceiling's, with the slices' guarantees and then their classes' instead of the classes'.
    let bound = bytes_in(UPLINK_BPS, MS + terms.horizon_ns + 3 * own_ns) + 64 * FRAME;
    let excess = worst_excess_bytes(&simulation.accepted, None, UPLINK_BPS);
    println!("floods: {excess} bytes above the contract, at most {bound}");
    assert!(excess <= bound, "{excess} of {bound}");
    for slice in 0..2 {
        let used = part_of(simulation.slice_bytes(slice), 30_000_000, 3);
        assert!((0.98..=1.02).contains(&used), "{used}");
    }
}

/// How far the contract's clock leads, at each tenth of a second: both slices send ever more than they are
/// guaranteed, in packets so small that rounding up counts.
fn contract_leads_ns(guarantees_are_slower: bool) -> Vec<u64> {
    const CONTRACT_BPS: u64 = 10_000_000_000;
    let mut profile = Profile::new(CONTRACT_BPS, 10, &[10, 10]);
    profile.uplink_bps = Some((CONTRACT_BPS, CONTRACT_BPS / 2));
    let mut plant = Plant::new(&[profile.clone(), profile]);
    if !guarantees_are_slower {
        let half = ByteCost::at(rate(CONTRACT_BPS / 2 / 100 * 99));
        for slice in &mut plant.slices {
            slice.uplink.guarantee = half;
        }
    }
    let flows = [flow_words(), flow_words()];
    let packet = WireBytes::new(150);
    let mut leads = Vec::new();
    let mut now = START;
    for _ in 0..5 {
        let end = now + 100 * MS;
        while now < end {
            for (slice, flow) in flows.iter().enumerate() {
                plant.shape((slice, 0), flow, now, packet);
            }
            now += 200;
        }
        leads.push(plant.uplink.contract.read().saturating_sub(now));
    }
    leads
}

#[test]
fn hours_of_rounding_up_do_not_carry_the_contract_away_from_what_it_guarantees() {
    let equal = contract_leads_ns(false);
    println!("the contract's clock leads by {equal:?} ns where guarantees sum up to its rate");
    assert!(equal[4] > equal[1] + MS, "{equal:?}: the test is vacuous");
    let ours = contract_leads_ns(true);
    println!("by {ours:?} ns where they are kept below it");
    assert!(ours[4] <= ours[1] + MS / 10, "{ours:?}");
}
