//! The base row: 50 Mbit/s, ten milliseconds, replication is guaranteed 40 % and clients 30 %.

use super::plant::{Plant, Profile};
use super::simulation::Simulation;

pub(crate) const REPLICATION: usize = 0;
pub(crate) const CLIENTS: usize = 1;

pub(crate) fn base() -> Profile {
    Profile::new(50_000_000, 10, &[40, 30])
}

pub(crate) fn simulation(profile: &Profile) -> Simulation {
    Simulation::new(Plant::new(std::slice::from_ref(profile)), profile.rtt_ns)
}

/// With every class's terms changed.
pub(crate) fn with_terms(
    profile: &Profile,
    change: impl Fn(&mut slice_common::shaper::ClassTerms),
) -> Simulation {
    let mut simulation = simulation(profile);
    for class in &mut simulation.plant.slices[0].classes {
        change(&mut class.terms);
    }
    simulation
}

/// Runs the scene for two seconds, and then as long as is measured.
pub(crate) fn measure(simulation: &mut Simulation, seconds: u64) {
    simulation.run_ms(2000);
    simulation.measure_from_here();
    simulation.run_ms(1000 * seconds);
}

/// Part of `bps` that these bytes were, in so many seconds.
pub(crate) fn part_of(bytes: u64, bps: u64, seconds: u64) -> f64 {
    bytes as f64 * 8.0 / (bps * seconds) as f64
}
