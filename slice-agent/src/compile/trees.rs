//! The classes of `htb` in which packets of slices wait, by the terms that they are judged by.
//!
//! The terms decide how much gets in; the classes only in which order and how fast it gets out. They are a trifle
//! faster than what gets in ([`served_bytes_per_s`]), or what a late timer loses once would wait for ever.

use std::collections::{BTreeMap, BTreeSet};

use slice_common::id::TrafficClass;
use slice_common::layout::{QueueClass, ShaperClass, ShaperKey, ShaperTerms};
use slice_common::shaper::{ByteCost, WireBytes, served_bytes_per_s};

use crate::image::{ClassTree, Prefixed, TreeClass};

/// More than any link carries: a terabit per second.
const LINE_BYTES_PER_S: u64 = 125_000_000_000;
/// The least that a class can have of its own.
const NEXT_TO_NOTHING_BYTES_PER_S: u64 = 1;
/// What a class makes up for at once, and may be ahead: 0.15 % of a second.
const BURST_NS: u64 = 1_500_000;
/// However slow a ceiling is, two packets in segments fit.
const ROOM_BYTES_MIN: u64 = 256 << 10;
/// Everything that is not ours has as much room as the kernel's own queue would give it, in large packets.
const OTHERS_ROOM_BYTES: u32 = 64 << 20;
/// In which everybody who borrows has a turn: longer than a packet takes, or shares would be those of packets.
const ROUND_NS: u64 = 8_000_000;
/// Packets in segments that fit into a round, where rates are high.
const ROUND_BYTES_MAX: u64 = 16 << 16;
/// Of classes in which no packet waits it means nothing.
const NO_QUANTUM: u32 = 2_000;
const FIRST: u32 = 0;
const AFTER: u32 = 1;

/// Of an uplink, with what slices may send by it.
pub fn tree(
    interface: &str,
    ifindex: u32,
    rates: &BTreeMap<Prefixed<ShaperKey>, ShaperTerms>,
) -> Option<ClassTree> {
    let slices = rates.iter().filter(|(at, _)| at.key.ifindex == ifindex);
    let slices: Vec<&ShaperTerms> = slices.map(|(_, terms)| terms).collect();
    let first = slices.first()?;
    let frame = first.frame();
    let contract = served(first.uplink().contract);
    let mut classes = BTreeMap::from([
        (QueueClass::Uplink, inner(None, [contract; 2])),
        (QueueClass::Others, inner(None, [LINE_BYTES_PER_S; 2])),
        (QueueClass::OthersLeaf, others_leaf(frame)),
    ]);
    for terms in slices {
        add_slice(&mut classes, terms, frame);
    }
    Some(ClassTree {
        interface: interface.to_owned(),
        frame_bytes: frame.count(),
        classes: classes
            .into_iter()
            .map(|(at, class)| (at.minor(), class))
            .collect(),
        waiting: BTreeSet::new(),
    })
}

fn add_slice(classes: &mut BTreeMap<QueueClass, TreeClass>, terms: &ShaperTerms, frame: WireBytes) {
    let slice = QueueClass::Slice(terms.clocks);
    let ceiling = served(terms.slice().ceiling);
    // Nobody can take anything from a slice where all ceilings fit.
    let guarantee = served(terms.uplink().guarantee).min(ceiling);
    classes.insert(slice, inner(Some(QueueClass::Uplink), [guarantee, ceiling]));
    let configured: Vec<&ShaperClass> = TrafficClass::all()
        .filter(|class| terms.has_class(*class))
        .map(|class| &terms.classes[usize::from(class.number())])
        .collect();
    let all: u64 = configured.iter().map(|class| own(class)).sum();
    let round_bytes = in_bytes(ceiling, ROUND_NS).min(ROUND_BYTES_MAX);
    for class in configured {
        let share = u128::from(round_bytes) * u128::from(own(class)) / u128::from(all.max(1));
        let turn_bytes = u32::try_from(share).unwrap_or(u32::MAX).max(frame.count());
        add_class(classes, slice, (class, ceiling), turn_bytes);
    }
}

fn add_class(
    classes: &mut BTreeMap<QueueClass, TreeClass>,
    slice: QueueClass,
    (class, ceiling): (&ShaperClass, u64),
    turn_bytes: u32,
) {
    let place = class.clocks;
    let parent = Some(QueueClass::Class(place));
    classes.insert(
        QueueClass::Class(place),
        inner(Some(slice), [own(class).min(ceiling), ceiling]),
    );
    let room = in_bytes(ceiling, class.room_ns).max(ROOM_BYTES_MIN);
    let leaf = |priority, rates| TreeClass {
        priority,
        quantum_bytes: turn_bytes,
        room_bytes: Some(u32::try_from(room).unwrap_or(u32::MAX)),
        ..inner(parent, rates)
    };
    // What waits for nothing is charged to its class and slice all the same.
    let front = leaf(FIRST, [LINE_BYTES_PER_S; 2]);
    classes.insert(QueueClass::Front(place), front);
    let back = leaf(AFTER, [NEXT_TO_NOTHING_BYTES_PER_S, ceiling]);
    classes.insert(QueueClass::Back(place), back);
}

/// What a class is entitled to.
fn own(class: &ShaperClass) -> u64 {
    served(class.terms().guarantee)
}

/// It has next to nothing of its own, so it waits for what slices are guaranteed where the link is slower than what
/// all want to send.
fn others_leaf(frame: WireBytes) -> TreeClass {
    TreeClass {
        quantum_bytes: 16 * frame.count(),
        priority: AFTER,
        room_bytes: Some(OTHERS_ROOM_BYTES),
        ..inner(
            Some(QueueClass::Others),
            [NEXT_TO_NOTHING_BYTES_PER_S, LINE_BYTES_PER_S],
        )
    }
}

/// A class with a rate of its own and what it may reach.
fn inner(parent: Option<QueueClass>, [rate, ceiling]: [u64; 2]) -> TreeClass {
    TreeClass {
        parent: parent.map_or(0, QueueClass::minor),
        rate_bytes_per_s: rate,
        ceiling_bytes_per_s: ceiling,
        burst_ticks: ticks(BURST_NS),
        ceiling_burst_ticks: ticks(BURST_NS),
        quantum_bytes: NO_QUANTUM,
        priority: FIRST,
        room_bytes: None,
    }
}

fn served(cost: ByteCost) -> u64 {
    served_bytes_per_s(cost).map_or(LINE_BYTES_PER_S, |rate| {
        rate.max(NEXT_TO_NOTHING_BYTES_PER_S)
    })
}

fn in_bytes(bytes_per_s: u64, ns: u64) -> u64 {
    let bytes = u128::from(bytes_per_s) * u128::from(ns) / 1_000_000_000;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// The kernel's unit of time for rates (PSCHED_SHIFT).
const fn ticks(ns: u64) -> u32 {
    (ns >> 6) as u32
}

#[cfg(test)]
mod tests {
    use slice_common::layout::{ShaperBackend, ShaperPlace};
    use slice_common::shaper::{Assured, ClassTerms, Patience, Rate, SliceTerms, UplinkTerms};

    use super::*;

    const PLACE: ShaperPlace = ShaperPlace {
        uplink: 1,
        slice: 2,
    };

    /// 50 Mbit/s of which three classes are entitled to 20, 15 and 10.
    fn tree() -> ClassTree {
        let rate = |bps| Rate::new_checked(bps).expect("in range");
        let (frame, patience) = (WireBytes::new(1538), Patience::for_round_trip(20_000_000));
        let ceiling = rate(50_000_000);
        let slice = SliceTerms::new(ceiling, Assured::new(ceiling, None), frame);
        let class = |bps| ClassTerms::new(rate(bps), patience, frame);
        let number = TrafficClass::from_low_bits;
        let htb = ShaperBackend::Htb;
        let terms = ShaperTerms::new(htb, PLACE, &UplinkTerms::NONE, &slice, &class(10_000_000))
            .with_class(number(2), &class(20_000_000))
            .with_class(number(3), &class(15_000_000));
        let key = Prefixed {
            prefix_bits: ShaperKey::BITS,
            key: ShaperKey {
                ifindex: 7,
                slice: 1,
            },
        };
        let rates = [(key, terms)].into();
        assert_eq!(
            super::tree("nic0", 8, &rates),
            None,
            "nothing is sent there"
        );
        super::tree("nic0", 7, &rates).expect("there are terms")
    }

    #[test]
    fn classes_are_promised_no_more_than_their_slice_has() {
        let tree = tree();
        let of = |class: QueueClass| tree.classes[&class.minor()];
        let slice = of(QueueClass::Slice(2));
        assert_eq!(slice.parent, QueueClass::Uplink.minor());
        // Between what gets in (0.99) and the ceiling.
        let ceiling = slice.ceiling_bytes_per_s;
        assert!((6_187_500..6_250_000).contains(&ceiling), "{ceiling}");
        let classes = [16, 18, 19].map(|place| of(QueueClass::Class(place)));
        let own: u64 = classes.iter().map(|class| class.rate_bytes_per_s).sum();
        assert!(own < ceiling, "{own}");
        for (class, bps) in classes.iter().zip([10_000_000, 20_000_000, 15_000_000]) {
            assert!(class.rate_bytes_per_s * 8 >= bps / 1000 * 1001);
            assert_eq!(class.ceiling_bytes_per_s, ceiling);
        }
    }

    #[test]
    fn nothing_waits_at_a_front_and_backs_share_by_what_they_are_entitled_to() {
        let tree = tree();
        let of = |class: QueueClass| tree.classes[&class.minor()];
        for place in [16, 18, 19] {
            let (front, back) = (of(QueueClass::Front(place)), of(QueueClass::Back(place)));
            assert_eq!(front.rate_bytes_per_s, LINE_BYTES_PER_S);
            assert!(front.priority < back.priority);
            assert_eq!(back.rate_bytes_per_s, NEXT_TO_NOTHING_BYTES_PER_S);
            assert_eq!(
                [front.parent, back.parent],
                [QueueClass::Class(place).minor(); 2]
            );
        }
        let turns = [16, 18, 19].map(|place| of(QueueClass::Back(place)).quantum_bytes);
        let round: u32 = turns.iter().sum();
        assert_eq!(
            turns.map(|turn| (turn * 45 + round / 2) / round),
            [10, 20, 15]
        );
        // A class, its front and its back, three times; the slice; the uplink, and two for what is not ours.
        assert_eq!(tree.classes.len(), 3 * 3 + 1 + 3);
    }
}
