//! Medians with an interval that makes no assumption about the shape of the noise, and verdicts.

use anyhow::{Result, ensure};
use serde::Serialize;

/// How sure an interval is to hold the true median.
const COVERAGE_WANTED: f64 = 0.95;

/// A median and the interval that holds the true one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    pub median: f64,
    pub low: f64,
    pub high: f64,
    /// How sure the interval is, between 0 and 1; below 0.95 there were too few values.
    pub coverage: f64,
    pub values: usize,
}

/// Estimates the median from values of independent rounds.
///
/// The interval runs from the k-th smallest to the k-th largest value: as many of n values lie below
/// the true median as heads fall in n tosses, so its coverage is exact for any distribution.
/// # Errors  without a value, or with one that is no number.
pub fn estimate(values: &[f64]) -> Result<Estimate> {
    ensure!(
        !values.is_empty() && values.iter().all(|value| value.is_finite()),
        "a median needs at least one value, all of them finite; found {values:?}"
    );
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len();
    let mut outside = 0;
    while outside + 1 < count.div_ceil(2) && coverage(count, outside + 1) >= COVERAGE_WANTED {
        outside += 1;
    }
    Ok(Estimate {
        median: (sorted[(count - 1) / 2] + sorted[count / 2]) / 2.0,
        low: sorted[outside],
        high: sorted[count - 1 - outside],
        coverage: coverage(count, outside),
        values: count,
    })
}

/// The value that `percent` of sorted values do not exceed (nearest rank).
pub fn percentile(sorted: &[u64], percent: f64) -> Option<u64> {
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

/// What a figure is promised to be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

/// What an interval says about a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Met,
    Missed,
    /// The limit lies inside the interval, or the interval is not sure enough.
    Unresolved,
}

impl Limit {
    /// What is wrong with a value that stands for itself, if anything; no number is no pass.
    pub fn missed_by(self, name: &str, value: f64) -> Option<String> {
        let (is_met, words) = match self {
            Self::AtMost(limit) => (value <= limit, format!("at most {limit}")),
            Self::AtLeast(limit) => (value >= limit, format!("at least {limit}")),
        };
        (!is_met).then(|| format!("{name} {value:.4}, {words}"))
    }

    /// Judges a whole interval: its median alone proves nothing.
    pub fn judge(self, estimate: &Estimate) -> Verdict {
        let (is_met, is_missed) = match self {
            Self::AtMost(limit) => (estimate.high <= limit, estimate.low > limit),
            Self::AtLeast(limit) => (estimate.low >= limit, estimate.high < limit),
        };
        match (estimate.coverage >= COVERAGE_WANTED, is_met, is_missed) {
            (true, true, _) => Verdict::Met,
            (true, _, true) => Verdict::Missed,
            _ => Verdict::Unresolved,
        }
    }
}

/// The probability that the interval without `outside` values at each end holds the true median.
fn coverage(count: usize, outside: usize) -> f64 {
    let count_f = count as f64;
    // Binomial probabilities with p = 1/2, each from the one before; in logarithms, as 2^-n is small.
    let mut log_probability = -count_f * std::f64::consts::LN_2;
    let mut tail = 0.0;
    for heads in 0..=outside {
        tail += log_probability.exp();
        let heads = heads as f64;
        log_probability += ((count_f - heads) / (heads + 1.0)).ln();
    }
    (1.0 - 2.0 * tail).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_to(count: u32) -> Vec<f64> {
        (1..=count).map(f64::from).collect()
    }

    #[test]
    fn the_interval_is_that_of_the_sign_test() {
        // Tables of the sign test: n = 15 leaves out 3 at each end, 96.5 % sure.
        let found = estimate(&one_to(15)).unwrap();
        assert_eq!((found.median, found.low, found.high), (8.0, 4.0, 12.0));
        assert!((found.coverage - 0.9648).abs() < 1e-4, "{found:?}");
        let found = estimate(&one_to(61)).unwrap();
        assert_eq!((found.low, found.high), (23.0, 39.0));
        assert!(found.coverage >= 0.95);
        assert!(coverage(61, 23) < 0.95, "no narrower interval would do");
    }

    #[test]
    fn order_does_not_matter_and_one_wild_round_moves_nothing() {
        let mut values = one_to(15);
        values.reverse();
        values[0] = 1e9;
        let found = estimate(&values).unwrap();
        assert_eq!((found.median, found.low, found.high), (8.0, 4.0, 12.0));
    }

    #[test]
    fn too_few_values_resolve_nothing() {
        let found = estimate(&one_to(5)).unwrap();
        assert_eq!((found.low, found.high), (1.0, 5.0));
        assert_eq!(Limit::AtMost(100.0).judge(&found), Verdict::Unresolved);
        assert_eq!(estimate(&[2.0]).unwrap().coverage, 0.0);
        assert!(estimate(&[]).is_err());
        assert!(estimate(&[1.0, f64::NAN]).is_err());
    }

    #[test]
    fn a_limit_inside_the_interval_is_unresolved_whatever_the_median_says() {
        let found = estimate(&one_to(15)).unwrap();
        for (limit, expected) in [
            (Limit::AtMost(12.0), Verdict::Met),
            (Limit::AtMost(11.9), Verdict::Unresolved),
            (Limit::AtMost(4.0), Verdict::Unresolved),
            (Limit::AtMost(3.9), Verdict::Missed),
            (Limit::AtLeast(4.0), Verdict::Met),
            (Limit::AtLeast(4.1), Verdict::Unresolved),
            (Limit::AtLeast(12.1), Verdict::Missed),
        ] {
            assert_eq!(limit.judge(&found), expected, "{limit:?}");
        }
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let sorted: Vec<u64> = (1..=100).collect();
        assert_eq!(percentile(&sorted, 50.0), Some(50));
        assert_eq!(percentile(&sorted, 99.0), Some(99));
        assert_eq!(percentile(&sorted[..1], 99.0), Some(1));
        assert_eq!(percentile(&[], 50.0), None);
    }
}
