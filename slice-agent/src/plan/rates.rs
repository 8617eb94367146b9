//! Rates in words, as the kernel has them.

use slice_common::id::TrafficClass;
use slice_common::layout::{ShaperBackend, ShaperKey, ShaperTerms};
use slice_common::shaper::ByteCost;

use super::describe::named;
use crate::image::{Names, Prefixed};

pub(super) fn terms(names: &Names, key: &Prefixed<ShaperKey>, terms: &ShaperTerms) -> String {
    let ShaperKey { ifindex, slice } = key.key;
    let classes = TrafficClass::all()
        .filter(|class| terms.has_class(*class))
        .map(|class| {
            let number = class.number();
            let name = names.classes.get(&(slice, number));
            let name = name.cloned().unwrap_or_else(|| format!("#{number}"));
            let class = terms.classes[usize::from(number)].terms();
            format!("{name} {}", rate(class.guarantee))
        });
    format!(
        "slice {} by uplink {}, {}: {} at most; when everybody sends {}",
        named(&names.slices, slice),
        named(&names.uplinks, ifindex),
        backend(terms.backend),
        of(terms.slice().ceiling_bps()),
        classes.collect::<Vec<_>>().join(", ")
    )
}

fn backend(number: u32) -> String {
    match ShaperBackend::from_number(number) {
        Some(ShaperBackend::Vq) => "with drops".to_owned(),
        Some(ShaperBackend::Edt) => "with departure times".to_owned(),
        Some(ShaperBackend::Htb) => "in classes".to_owned(),
        None => format!("with backend #{number}"),
    }
}

fn rate(cost: ByteCost) -> String {
    of(cost.bps())
}

fn of(bps: Option<u64>) -> String {
    bps.map_or_else(|| "any rate".to_owned(), shown)
}

/// Four digits, so that a rate that was rounded when it was written looks as it was meant.
pub(crate) fn shown(bps: u64) -> String {
    let (suffix, unit) = [("G", 1_000_000_000), ("M", 1_000_000), ("k", 1_000)]
        .into_iter()
        .find(|(_, unit)| bps >= *unit)
        .unwrap_or(("", 1));
    let whole = bps as f64 / unit as f64;
    let digits = 3 - (whole.log10() as usize).min(3);
    let text = format!("{whole:.digits$}");
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    format!("{text}{suffix}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use slice_common::shaper::Rate;

    use super::*;

    fn shown(bps: u64) -> String {
        rate(ByteCost::at(Rate::new_checked(bps).expect("in range")))
    }

    #[test]
    fn rates_look_as_they_were_written() {
        let rates = [
            8_000,
            200_000_000,
            66_666_666,
            1_500_000_000,
            400_000_000_000,
            18_000_000,
        ];
        let texts = ["8k", "200M", "66.67M", "1.5G", "400G", "18M"];
        assert_eq!(rates.map(shown), texts);
        assert_eq!(rate(ByteCost::FREE), "any rate");
    }

    proptest! {
        #[test]
        fn a_rate_with_three_digits_is_shown_with_them(
            digits in 1u64..=999,
            unit in prop_oneof![Just(("M", 1_000_000)), Just(("G", 1_000_000_000))],
        ) {
            let (suffix, unit) = unit;
            prop_assume!(digits * unit <= Rate::MAX_BPS);
            prop_assert_eq!(shown(digits * unit), format!("{digits}{suffix}"));
        }
    }
}
