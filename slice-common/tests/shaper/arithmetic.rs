//! Words do not overflow, rounding gives nothing away, and nothing panics.

use proptest::prelude::*;
use slice_common::shaper::{
    Arrival, ByteCost, FlowReadings, Mode, Rate, Readings, Terms, Verdict, WireBytes, decide,
};

use super::plant::{FRAME, MS, Plant, Profile, SECOND, START, flow_words};

const YEAR: u64 = 366 * 24 * 3600 * SECOND;

proptest! {
    #[test]
    fn a_byte_costs_no_less_than_its_time_and_hardly_more(
        bps in Rate::MIN_BPS..=Rate::MAX_BPS, bytes in 0u64..=WireBytes::MAX.into(),
    ) {
        let cost = ByteCost::at(Rate::new_checked(bps).expect("in range"));
        let charged = u128::from(cost.ns_of(WireBytes::new(bytes)));
        let exact = u128::from(bytes) * 8_000_000_000;
        prop_assert!(charged * u128::from(bps) >= exact);
        let fair = exact / u128::from(bps);
        prop_assert!(charged <= fair + fair / 20_000 + 2, "{charged} for {fair}");
    }

    /// Whatever a map may hold: the program does not panic, and no packet departs in the past.
    #[test]
    fn any_words_give_a_decision(
        now_ns: u64, bytes: u32, shared: [u64; 7], flow: [u64; 5], favour_interactive: bool,
    ) {
        let plant = Plant::new(&[Profile::new(50_000_000, 10, &[40, 30])]);
        let slice = &plant.slices[0];
        let mut class = slice.classes[0].terms;
        class.favour_interactive = favour_interactive;
        let terms = Terms { uplink: &slice.uplink, slice: &slice.terms, class: &class };
        let [uplink_ns, uplink_guarantee_ns, ceiling_ns, lane_ns, guarantee_ns, front_ns, back_ns] = shared;
        let [departure_ns, thin_ns, pace_ns, waited_ns, stance] = flow;
        let flow = FlowReadings { departure_ns, thin_ns, pace_ns, waited_ns, stance };
        let read = Readings {
            uplink_ns, uplink_guarantee_ns, ceiling_ns, lane_ns, guarantee_ns, front_ns, back_ns, flow,
        };
        let arrival = Arrival { now_ns, bytes: WireBytes::new(bytes.into()) };
        let decision = decide(arrival, terms, &read);
        prop_assert!(decision.departure_ns >= now_ns && decision.departure_ns >= departure_ns);
        let charges = decision.charges;
        if decision.verdict == Verdict::Drop {
            let charged = [
                charges.uplink, charges.uplink_guarantee, charges.ceiling, charges.lane,
                charges.guarantee, charges.front, charges.back,
            ];
            prop_assert!(charged.iter().all(|it| it.add_ns == 0));
        } else {
            prop_assert!(decision.departure_ns - now_ns <= class.horizon_ns);
            prop_assert!(charges.ceiling.applied(ceiling_ns) >= ceiling_ns);
        }
    }
}

/// Packets of 64 KiB back to back at 100 Gbit/s, up to a year after the host started.
/// A segmentation-offload packet in segments of a byte has more headers than clocks can be charged for.
#[test]
fn what_cannot_be_charged_whole_is_dropped() {
    let plant = Plant::new(&[Profile::new(100_000_000_000, 10, &[40])]);
    let sent = |bytes: u64| {
        let flow = flow_words();
        plant
            .shape((0, 0), &flow, START, WireBytes::new(bytes))
            .verdict
    };
    let most = u64::from(WireBytes::MAX) - 1;
    assert_eq!(sent(most), Verdict::Send(Mode::Guaranteed));
    assert_eq!(sent(most + 1), Verdict::Drop);
    assert_eq!(sent(8_442_405), Verdict::Drop);
}

#[test]
fn a_year_at_a_hundred_gigabits_overflows_nothing() {
    let profile = Profile::new(100_000_000_000, 1, &[40, 30]);
    let plant = Plant::new(&[profile]);
    let flow = flow_words();
    let packet = WireBytes::new(44 * FRAME);
    for begin in [MS, YEAR / 2, YEAR - SECOND, YEAR] {
        let (mut sent, mut now) = (0u64, begin);
        while now < begin + 20 * MS {
            let decision = plant.shape((0, 0), &flow, now, packet);
            if decision.verdict != Verdict::Drop {
                sent += u64::from(packet.count());
            }
            assert!(decision.departure_ns - now <= 20 * MS);
            now += 5_000;
        }
        let bps = sent as f64 * 8.0 / 0.02;
        // Slightly more than the ceiling is offered, and a millisecond's burst is allowed.
        assert!((0.99e11..=1.11e11).contains(&bps), "{bps}");
    }
}

/// A million packets: what rounding up costs.
#[test]
fn rounding_keeps_below_the_ceiling_by_a_ten_thousandth() {
    let cost = ByteCost::at(Rate::new_checked(100_000_000_000).expect("in range"));
    let charged: u64 = (0..1_000_000)
        .map(|_| cost.ns_of(WireBytes::new(44 * FRAME)))
        .sum();
    let exact = 44 * FRAME * 8 * 1_000_000 / 100;
    assert!(
        charged >= exact && charged <= exact + exact / 5_000,
        "{charged} for {exact}"
    );
}
