//! What makes a case void: figures of a run that was not what it is called.

use super::bed::Variant;
use super::report::Round;
use super::targets::{Case, Link};

/// A packet on the link that is cut holds one segment; the last of a write may be shorter.
const CUT_SEGMENTS: std::ops::RangeInclusive<f64> = 0.85..=1.02;
/// Uncut packets hold many.
const UNCUT_SEGMENTS: f64 = 4.0;
/// Merged packets are at least so many times fewer.
const MERGED: f64 = 2.0;

/// One sentence for each thing that voids the case; empty if it is what it is called.
pub fn faults(case: &Case, rounds: &[Round]) -> Vec<String> {
    if case.link == Link::Any {
        return Vec::new();
    }
    let mut faults = Vec::new();
    for (index, round) in rounds.iter().enumerate() {
        for (variant, readings) in round {
            let reading = |name: &str| readings.get(name).copied().unwrap_or(f64::NAN);
            let mut fault = |what: String| {
                let (case, variant) = (case.key, variant.key());
                faults.push(format!("{case}, {variant}, round {index}: {what}"));
            };
            let segments = reading("link_segments_per_packet");
            match case.link {
                Link::Wire if !CUT_SEGMENTS.contains(&segments) => fault(format!(
                    "not wire mode: {segments:.2} segments in a packet on the link, expected 1"
                )),
                Link::Gso if segments < UNCUT_SEGMENTS => fault(format!(
                    "no segmentation offload: {segments:.2} segments in a packet on the link"
                )),
                _ => {}
            }
            let merged = reading("link_packets_per_pod_packet");
            if case.link == Link::Wire
                && *variant != Variant::OursWithoutPortOwner
                && merged < MERGED
            {
                fault(format!(
                    "not wire mode: the receiver merged {merged:.2} packets into one"
                ));
            }
            let unexplained = reading("retransmitted_unexplained_segments");
            if unexplained > 0.0 {
                fault(format!(
                    "{unexplained} segments were sent twice without a cause"
                ));
            }
        }
        faults.extend(different_segments(case, index, round));
    }
    faults
}

fn different_segments(case: &Case, index: usize, round: &Round) -> Option<String> {
    let sizes = round.iter().map(|(variant, readings)| {
        let size = readings.get("mss_bytes").copied().unwrap_or(f64::NAN);
        (variant.key(), size)
    });
    let sizes: Vec<_> = sizes.collect();
    let differ = sizes.iter().any(|(_, size)| *size != sizes[0].1);
    differ.then(|| format!("{}, round {index}: segments differ: {sizes:?}", case.key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::load::Readings;
    use crate::bench::targets::CASES;

    fn case(link: Link) -> &'static Case {
        CASES.iter().find(|case| case.link == link).unwrap()
    }

    fn round(variant: Variant, segments: f64, merged: f64) -> Round {
        let readings = Readings::from([
            ("mss_bytes", 1388.0),
            ("link_segments_per_packet", segments),
            ("link_packets_per_pod_packet", merged),
            ("retransmitted_unexplained_segments", 0.0),
        ]);
        Round::from([(variant, readings)])
    }

    #[test]
    fn wire_mode_is_cut_at_the_sender_and_merged_at_the_receiver() {
        let wire = |variant, segments, merged| {
            faults(case(Link::Wire), &[round(variant, segments, merged)])
        };
        assert_eq!(wire(Variant::Ours, 0.99, 30.0), Vec::<String>::new());
        assert!(wire(Variant::Ours, 30.0, 1.0)[0].contains("not wire mode: 30.00"));
        assert!(wire(Variant::Ours, 0.99, 1.0)[0].contains("merged 1.00"));
        assert_eq!(
            wire(Variant::OursWithoutPortOwner, 0.99, 1.0),
            Vec::<String>::new(),
            "the control is there to show what merging is worth"
        );
    }

    #[test]
    fn a_cut_stream_is_no_measurement_of_segmentation_offload() {
        let cut = faults(case(Link::Gso), &[round(Variant::Ours, 1.0, 1.0)]);
        assert!(cut[0].contains("no segmentation offload"), "{cut:?}");
    }

    #[test]
    fn unexplained_retransmits_and_unequal_segments_are_faults() {
        let mut one = round(Variant::Ours, 40.0, 1.0);
        let readings = one.get_mut(&Variant::Ours).unwrap();
        readings.insert("retransmitted_unexplained_segments", 3.0);
        let mut two = round(Variant::Plain, 40.0, 1.0);
        two.get_mut(&Variant::Plain)
            .unwrap()
            .insert("mss_bytes", 1448.0);
        one.append(&mut two);
        let found = faults(case(Link::Gso), &[one]).join("\n");
        assert!(found.contains("3 segments were sent twice"), "{found}");
        assert!(found.contains("segments differ"), "{found}");
    }
}
