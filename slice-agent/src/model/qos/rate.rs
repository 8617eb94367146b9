//! Rates as people write them: Kubernetes quantities in bits per second.

use std::fmt;

use slice_common::shaper::Rate;

use super::problem::QosProblem;
use crate::model::unchecked::RateText;

/// More digits than this on either side of the point make no rate more exact.
const DIGITS_MAX: usize = 18;

/// A rate that the shaper can keep: what is written is what is kept, to the bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BitRate(Rate);

impl BitRate {
    /// # Errors
    /// What is not a quantity, not a whole number of bits, or no rate that the shaper can keep.
    pub fn parse(text: &str) -> Result<Self, QosProblem> {
        let bps = whole_bits(text)?;
        Rate::new_checked(bps)
            .map(Self)
            .ok_or_else(|| QosProblem::out_of_range(text))
    }

    pub(super) fn read(text: &RateText) -> Result<Self, QosProblem> {
        match text {
            RateText::Number(number) => Self::parse(&number.to_string()),
            RateText::Other(number) => Self::parse(&number.to_string()),
            RateText::Text(text) => Self::parse(text),
        }
    }

    pub const fn rate(self) -> Rate {
        self.0
    }

    pub const fn bps(self) -> u64 {
        self.0.bps()
    }
}

impl fmt::Display for BitRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(self.bps()))
    }
}

/// As Kubernetes writes a quantity: no fraction, and the largest suffix that allows it.
pub(crate) fn shown(bps: u64) -> String {
    let suffixes = [("G", 1_000_000_000), ("M", 1_000_000), ("k", 1_000)];
    let fits = |(_, unit): &(&str, u64)| bps > 0 && bps.is_multiple_of(*unit);
    match suffixes.into_iter().find(fits) {
        Some((suffix, unit)) => format!("{}{suffix}", bps / unit),
        None => bps.to_string(),
    }
}

fn whole_bits(text: &str) -> Result<u64, QosProblem> {
    let wrong = || QosProblem::NotARate(text.to_owned());
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, suffix) = text.split_at(end.unwrap_or(text.len()));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    let has_digit = number.bytes().any(|byte| byte.is_ascii_digit());
    if !has_digit || fraction.contains('.') || fraction.len() > DIGITS_MAX {
        return Err(wrong());
    }
    if suffix == "m" {
        return Err(QosProblem::Thousandths(number.to_owned()));
    }
    let (factor, divisor) = unit(suffix).ok_or_else(wrong)?;
    if whole.len() > DIGITS_MAX {
        return Err(QosProblem::out_of_range(text));
    }
    // No more than 36 digits: they fit. What does not after the multiplication is far above any rate.
    let digits = format!("0{whole}{fraction}");
    let digits: u128 = digits.parse().map_err(|_| wrong())?;
    let divisor = divisor * 10u128.pow(fraction.len() as u32);
    let Some(scaled) = digits.checked_mul(factor) else {
        return Err(QosProblem::out_of_range(text));
    };
    if !scaled.is_multiple_of(divisor) {
        return Err(QosProblem::NotWhole(text.to_owned()));
    }
    u64::try_from(scaled / divisor).map_err(|_| QosProblem::out_of_range(text))
}

/// What a suffix multiplies and divides by.
fn unit(suffix: &str) -> Option<(u128, u128)> {
    let decimal = ["", "k", "M", "G", "T", "P", "E"];
    let binary = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    if let Some(power) = decimal.iter().position(|it| *it == suffix) {
        return Some((1000u128.pow(power as u32), 1));
    }
    if let Some(power) = binary.iter().position(|it| *it == suffix) {
        return Some((1 << (10 * power), 1));
    }
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let power = 10u128.checked_pow(exponent.unsigned_abs())?;
    match exponent.unsigned_abs() as usize {
        count if count > DIGITS_MAX => None,
        _ if exponent < 0 => Some((1, power)),
        _ => Some((power, 1)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bps(text: &str) -> u64 {
        match BitRate::parse(text) {
            Ok(rate) => rate.bps(),
            Err(problem) => panic!("{text}: {problem}"),
        }
    }

    fn refusal(text: &str) -> String {
        BitRate::parse(text).expect_err("no rate").to_string()
    }

    #[test]
    fn quantities_as_kubernetes_has_them() {
        assert_eq!(bps("200M"), 200_000_000);
        assert_eq!(bps("1.5G"), 1_500_000_000);
        assert_eq!(bps("100Mi"), 104_857_600);
        assert_eq!(bps("64000"), 64_000);
        assert_eq!(bps(".25M"), 250_000);
        assert_eq!(bps("0.400T"), 400_000_000_000);
        assert_eq!(bps("2e8"), 200_000_000);
        assert_eq!(bps("2E+8"), 200_000_000);
        assert_eq!(bps("12800000000e-2"), 128_000_000);
    }

    #[test]
    fn what_is_no_quantity_says_how_to_write_one() {
        for text in [
            "",
            ".",
            "M",
            "fast",
            "-5M",
            "+5M",
            "200 M",
            "200Mbit",
            "200MB",
            "1.2.3M",
            "200K",
            "1e",
            "1e99",
            "1e-99",
            "0x10",
            "１M",
            "1.0000000000000000001M",
        ] {
            let expected = format!(
                "`{text}` is no rate; write bits per second as a quantity, as in 200M, 1.5G or 100Mi"
            );
            assert_eq!(refusal(text), expected);
        }
    }

    #[test]
    fn a_small_m_is_a_thousandth() {
        let expected = "`200m` is 200 thousandths of a bit per second; write `200M` for megabits";
        assert_eq!(refusal("200m"), expected);
    }

    #[test]
    fn half_a_bit_is_not_sent() {
        let expected = "`8000.5` is no whole number of bits per second; round it";
        assert_eq!(refusal("8000.5"), expected);
        assert!(refusal("10.0003Ki").contains("round it"));
    }

    #[test]
    fn rates_that_nothing_can_keep() {
        for text in [
            "0",
            "0M",
            "7999",
            "400.000000001G",
            "1T",
            "9Ei",
            "1e18",
            "99999999999999999999",
        ] {
            let expected =
                format!("`{text}` is out of range; a rate is 8k to 400G bits per second");
            assert_eq!(refusal(text), expected);
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_as_the_same(bps in Rate::MIN_BPS..=Rate::MAX_BPS, zeros in 0u32..9) {
            let bps = (bps / 10u64.pow(zeros) * 10u64.pow(zeros)).max(Rate::MIN_BPS);
            let rate = BitRate::parse(&bps.to_string()).expect("in range");
            prop_assert_eq!(rate.bps(), bps);
            prop_assert_eq!(BitRate::parse(&rate.to_string()), Ok(rate));
        }

        #[test]
        fn a_point_and_a_suffix_only_move_the_digits(
            digits in 1u64..1_000_000_000,
            places in 0usize..=9,
            unit in prop_oneof![Just(("k", 3)), Just(("M", 6)), Just(("G", 9))],
        ) {
            let (suffix, power) = unit;
            let padded = format!("{digits:010}");
            let (whole, fraction) = padded.split_at(10 - places);
            let text = format!("{whole}.{fraction}{suffix}");
            let scaled = u128::from(digits) * 10u128.pow(power);
            let divisor = 10u128.pow(places as u32);
            let range = u128::from(Rate::MIN_BPS)..=u128::from(Rate::MAX_BPS);
            let expected = (scaled % divisor == 0)
                .then_some(scaled / divisor)
                .filter(|bps| range.contains(bps));
            prop_assert_eq!(BitRate::parse(&text).ok().map(|rate| u128::from(rate.bps())), expected);
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,24}|[0-9.]{0,50}(e|E)?-?[0-9]{0,12}[kMGTPEi]{0,2}") {
            if let Ok(rate) = BitRate::parse(&text) {
                prop_assert!(rate.bps() >= Rate::MIN_BPS);
            }
        }
    }
}
