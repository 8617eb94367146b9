//! The base row again, with loads that begin one after the other by other gaps: in virtual time nothing else differs
//! from one run to the next.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::figures::Scenarios;
use super::observe::Manner;
use super::report::{Figures, Limits};
use super::{Bench, PROMISE, WARM_UP, plans};

/// How long after the one before it each kind of load begins. With the first the base row itself was played.
const OFFSETS_MS: [u64; 5] = [0, 100, 200, 300, 400];

/// Each figure as it came out with each offset.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Starts {
    pub offsets_ms: Vec<u64>,
    #[serde(flatten)]
    pub figures: BTreeMap<String, Spread>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
    /// In the order of the offsets.
    pub values: Vec<f64>,
}

impl Bench<'_> {
    /// Plays what depends on how loads begin, a quarter as long as the base row, and returns the figures by offset.
    pub(super) fn starts(&mut self) -> Result<Vec<Figures>> {
        let base = self.scenarios.clone();
        let plans = plans::staggered();
        let is_staggered = |name: &String| plans.iter().any(|plan| plan.name == name.as_str());
        let mut first = base.clone();
        first.retain(|name, _| is_staggered(name));
        let mut all = vec![Figures::of(&first, &base, &PROMISE)?];
        for offset_ms in &OFFSETS_MS[1..] {
            let manner = Manner {
                warm_up: WARM_UP / 2,
                length: self.length / 4,
                stagger: Duration::from_millis(*offset_ms),
                ..self.manner()
            };
            let mut played = Scenarios::new();
            for plan in &plans {
                let scenario = self.play(&format!("{offset_ms} ms apart: "), plan, &manner)?;
                played.insert(plan.name.to_owned(), scenario);
            }
            all.push(Figures::of(&played, &base, &PROMISE)?);
        }
        Ok(all)
    }
}

impl Starts {
    /// `reordered` was overtaken without a shaper.
    pub fn of(mut all: Vec<Figures>, reordered: i64) -> Self {
        all.iter_mut()
            .for_each(|it| it.reordered_by_shaper -= reordered);
        let mut values: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        // The limits do not matter here.
        for (name, value, _) in all.iter().flat_map(|it| it.limited(&Limits::EDT)) {
            values.entry(name.to_owned()).or_default().push(value);
        }
        let spreads = values
            .into_iter()
            .map(|(name, values)| (name, Spread::of(values)));
        Self {
            offsets_ms: OFFSETS_MS.to_vec(),
            figures: spreads.collect(),
        }
    }

    /// For people.
    pub fn lines(&self) -> Vec<String> {
        let line = |(name, it): (&String, &Spread)| {
            format!(
                "{name:<32} {:.4} ({:.4} to {:.4})",
                it.median, it.min, it.max
            )
        };
        self.figures.iter().map(line).collect()
    }

    /// What misses its limit: in the median; what must never be, with any offset.
    pub fn missed(&self, limits: &Limits) -> Vec<String> {
        let limits = Figures::default().limited(limits).into_iter();
        let missed = limits.filter_map(|(name, _, limit)| {
            let spread = self.figures.get(name)?;
            let value = match name {
                "ceiling_ratio_max_1s" | "reordered_by_shaper" => spread.max,
                _ => spread.median,
            };
            limit.missed_by(name, value)
        });
        missed.map(|it| format!("starts: {it}")).collect()
    }
}

impl Spread {
    fn of(values: Vec<f64>) -> Self {
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        Self {
            median: sorted[sorted.len() / 2],
            min: sorted[0],
            max: sorted[sorted.len() - 1],
            values,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts(ceilings: [f64; 5], guarantees: [f64; 5]) -> Starts {
        let figures = ceilings
            .into_iter()
            .zip(guarantees)
            .map(|(ceiling, guarantee)| Figures {
                ceiling_ratio_max_1s: ceiling,
                guarantee_ratio_min: guarantee,
                work_conservation_ratio: 1.0,
                catchup_share_of_rest: 1.0,
                reordered_by_shaper: 3,
                ..Figures::default()
            });
        Starts::of(figures.collect(), 3)
    }

    #[test]
    fn the_median_counts_and_of_the_ceiling_the_worst() {
        let good = starts([1.0; 5], [1.1, 0.9, 1.0, 1.2, 0.99]);
        assert_eq!(good.missed(&Limits::EDT), Vec::<String>::new());
        let spread = &good.figures["guarantee_ratio_min"];
        assert_eq!((spread.min, spread.median, spread.max), (0.9, 1.0, 1.2));
        assert_eq!(spread.values[1], 0.9, "in the order of the offsets");
        let once = starts([1.0, 1.0, 1.01, 1.0, 1.0], [1.0; 5]);
        assert_eq!(once.missed(&Limits::EDT).len(), 1);
        let mostly = starts([1.0; 5], [0.9, 0.9, 1.0, 0.9, 1.0]);
        assert_eq!(mostly.missed(&Limits::EDT).len(), 1);
        assert_eq!(
            starts([f64::NAN; 5], [1.0; 5]).missed(&Limits::EDT).len(),
            1
        );
    }
}
