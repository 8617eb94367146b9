//! Which clocks a slice on an uplink is judged by: those that it has, for as long as both are configured,
//! so that a new rate takes nothing back of what is under way.

use std::collections::{BTreeMap, BTreeSet};

use slice_common::layout::{Capacity, ShaperKey, ShaperPlace};

/// A place for each slice on an uplink.
pub(super) fn places(
    wanted: &BTreeSet<ShaperKey>,
    before: &BTreeMap<ShaperKey, ShaperPlace>,
) -> BTreeMap<ShaperKey, ShaperPlace> {
    let uplinks: BTreeSet<u32> = wanted.iter().map(|key| key.ifindex).collect();
    let uplinks_before = before.iter().map(|(key, at)| (key.ifindex, at.uplink));
    let uplinks = settle(&uplinks, uplinks_before, Capacity::UPLINK_CLOCKS);
    let slices_before = before.iter().map(|(key, at)| (*key, at.slice));
    let slices = settle(wanted, slices_before, Capacity::SLICE_CLOCKS);
    slices
        .into_iter()
        .map(|(key, slice)| {
            let uplink = uplinks[&key.ifindex];
            (key, ShaperPlace { uplink, slice })
        })
        .collect()
}

/// Who has a place keeps it; the others get the first that are free. Of two at one place, which no agent
/// writes, one moves.
fn settle<K: Copy + Ord>(
    wanted: &BTreeSet<K>,
    before: impl Iterator<Item = (K, u32)>,
    capacity: usize,
) -> BTreeMap<K, u32> {
    let mut places = BTreeMap::new();
    let mut taken = BTreeSet::new();
    for (key, place) in before {
        let fits = (place as usize) < capacity && wanted.contains(&key);
        if fits && !places.contains_key(&key) && taken.insert(place) {
            places.insert(key, place);
        }
    }
    let mut free = (0u32..).filter(|place| !taken.contains(place));
    for key in wanted {
        places
            .entry(*key)
            .or_insert_with(|| free.next().unwrap_or(0));
    }
    places
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(ifindex: u32, slice: u32) -> ShaperKey {
        ShaperKey { ifindex, slice }
    }

    #[test]
    fn a_slice_keeps_its_clocks_when_another_comes_before_it_or_goes() {
        let first = places(&BTreeSet::from([key(2, 7), key(2, 9)]), &BTreeMap::new());
        let place = |uplink, slice| ShaperPlace { uplink, slice };
        assert_eq!(
            first,
            BTreeMap::from([(key(2, 7), place(0, 0)), (key(2, 9), place(0, 1))])
        );
        let more = places(&BTreeSet::from([key(1, 3), key(2, 5), key(2, 9)]), &first);
        let expected = [
            (key(1, 3), place(1, 0)),
            (key(2, 5), place(0, 2)),
            (key(2, 9), place(0, 1)),
        ];
        assert_eq!(more, BTreeMap::from(expected));
    }

    fn any_keys() -> impl Strategy<Value = BTreeSet<ShaperKey>> {
        let key = (1u32..6, 1u32..30).prop_map(|(ifindex, slice)| key(ifindex, slice));
        prop::collection::btree_set(key, 0..60)
    }

    proptest! {
        #[test]
        fn nobody_moves_nobody_shares_and_nobody_is_outside(
            rounds in prop::collection::vec(any_keys(), 1..6),
            damage in prop::collection::btree_map(
                (1u32..6, 1u32..30), (0u32..70, 0u32..200), 0..10),
        ) {
            let mut before: BTreeMap<_, _> = damage
                .into_iter()
                .map(|((ifindex, slice), (uplink, at))| {
                    (key(ifindex, slice), ShaperPlace { uplink, slice: at })
                })
                .collect();
            for (round, wanted) in rounds.iter().enumerate() {
                let now = places(wanted, &before);
                prop_assert_eq!(now.keys().copied().collect::<BTreeSet<_>>(), wanted.clone());
                let slices: BTreeSet<_> = now.values().map(|at| at.slice).collect();
                prop_assert_eq!(slices.len(), now.len());
                prop_assert!(slices.iter().all(|at| (*at as usize) < Capacity::SLICE_CLOCKS));
                let uplinks: BTreeSet<_> =
                    now.iter().map(|(key, at)| (key.ifindex, at.uplink)).collect();
                let at: BTreeSet<_> = uplinks.iter().map(|(_, at)| *at).collect();
                let ifindexes: BTreeSet<_> = uplinks.iter().map(|(ifindex, _)| *ifindex).collect();
                prop_assert_eq!((at.len(), ifindexes.len()), (uplinks.len(), uplinks.len()));
                if round > 0 {
                    for (key, place) in &now {
                        prop_assert!(before.get(key).is_none_or(|earlier| earlier == place));
                    }
                }
                before = now;
            }
        }
    }
}
