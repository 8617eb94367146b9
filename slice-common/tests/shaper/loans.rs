//! A node that borrows a part of a slice's ceiling sends more in every class, until the loan is over.

use slice_common::shaper::Loan;

use super::plant::SECOND;
use super::scenes::{CLIENTS, REPLICATION, base, part_of, simulation};
use super::simulation::Simulation;

/// What two classes that both want everything send in two seconds, as parts of the ceiling.
fn sent_in_two_seconds(simulation: &mut Simulation) -> [f64; 2] {
    simulation.measure_from_here();
    simulation.run_ms(2000);
    [REPLICATION, CLIENTS].map(|class| part_of(simulation.class_bytes(class), 50_000_000, 2))
}

#[test]
fn a_loan_scales_ceiling_and_classes_and_ends_by_itself() {
    let mut simulation = simulation(&base());
    simulation.tcp(REPLICATION, 4);
    simulation.tcp(CLIENTS, 8);
    simulation.run_ms(2000);
    let own = sent_in_two_seconds(&mut simulation);
    for (parts, name) in [(Loan::WHOLE * 3 / 2, "borrowed"), (Loan::WHOLE / 2, "lent")] {
        let factor = f64::from(parts) / f64::from(Loan::WHOLE);
        let until_ns = simulation.now_ns + 3 * SECOND;
        simulation.plant.loan = Loan::having(parts, until_ns);
        // What was under way before has left.
        simulation.run_ms(1000);
        let during = sent_in_two_seconds(&mut simulation);
        simulation.run_ms(1000);
        let after = sent_in_two_seconds(&mut simulation);
        println!("{name}: {own:.3?}, during the loan {during:.3?}, after it {after:.3?}");
        let whole = |parts: [f64; 2]| parts.iter().sum::<f64>();
        assert!(
            (whole(during) / factor - 0.99).abs() < 0.02,
            "{name}: {during:?}"
        );
        assert!((whole(after) - 0.99).abs() < 0.02, "{name}: {after:?}");
        for class in [REPLICATION, CLIENTS] {
            let guarantee = [0.4, 0.3][class] * factor;
            assert!(during[class] >= 0.98 * guarantee, "{name}: {during:?}");
        }
    }
}
