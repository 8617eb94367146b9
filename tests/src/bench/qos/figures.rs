//! What scenarios come to.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::plans::{
    IDLE, IN_SYNC_CATCH_UP, IN_SYNC_IDLE, S1, S2, S3, S3_MANY, S3_TURNED, S4, S5, S6,
};
use super::report::{Figures, Scenario};

pub type Scenarios = BTreeMap<String, Scenario>;

/// A stream of a scenario, and what its class is guaranteed.
pub type Guaranteed<'a> = (&'a str, usize, f64);

/// Those in which somebody always has more to send.
const BUSY: [&str; 5] = [S1, S2, S3, S5, S6];

/// What one run of the base row is about.
#[derive(Clone, Copy, Debug)]
pub struct Promise {
    pub ceiling_bps: f64,
    pub replication_bps: f64,
    pub client_bps: f64,
}

impl Figures {
    /// Of what was played, beside what others played of the same: quiet, or with nothing but the link.
    /// # Errors  when a figure has no scenario.
    pub fn of(played: &Scenarios, beside: &Scenarios, promise: &Promise) -> Result<Self> {
        let of = |name: &str| {
            let found = played.get(name).or_else(|| beside.get(name));
            found.with_context(|| format!("no {name}"))
        };
        let ceiling = promise.ceiling_bps;
        let guaranteed = [
            (S3, 0, promise.replication_bps),
            (S3_MANY, 0, promise.replication_bps),
            (S3_TURNED, 1, promise.client_bps),
        ];
        let (idle, in_sync) = (of(IDLE)?, of(IN_SYNC_IDLE)?);
        let (answers, saturated, catch_up) = (of(S4)?, of(S5)?, of(IN_SYNC_CATCH_UP)?);
        let own_class = |class: usize| saturated.p99_ms[class] - idle.p99_ms[class];
        Ok(Self {
            ceiling_ratio_max_1s: fastest_bps(played) / ceiling,
            guarantee_ratio_min: least_share(played, &guaranteed),
            work_conservation_ratio: slowest_bps(played, &BUSY) / ceiling,
            client_p99_idle_ms: idle.p99_ms[0],
            client_p99_added_ms: answers.p99_ms[0] - idle.p99_ms[0],
            own_class_p99_added_ms: own_class(0).max(own_class(1)),
            insync_p99_ratio_during_catchup: catch_up.p99_ms[0] / in_sync.p99_ms[0],
            catchup_share_of_rest: catch_up.streams_bps[0] / (ceiling - in_sync.wire_bps),
            reordered_by_shaper: reordered(played),
            controls_failed_as_they_should: false,
        })
    }
}

pub fn fastest_bps(played: &Scenarios) -> f64 {
    let fastest = played.values().map(|it| it.wire_bps_max_1s);
    fastest.fold(0.0, f64::max)
}

pub fn reordered(played: &Scenarios) -> i64 {
    played.values().map(|it| it.reordered as i64).sum()
}

/// No number where none of them was played.
pub fn slowest_bps(played: &Scenarios, names: &[&str]) -> f64 {
    let rates = names
        .iter()
        .filter_map(|name| Some(played.get(*name)?.wire_bps));
    rates.fold(f64::NAN, f64::min)
}

/// The least part of what it is guaranteed that a stream had.
pub fn least_share(played: &Scenarios, guaranteed: &[Guaranteed]) -> f64 {
    let shares = guaranteed
        .iter()
        .filter_map(|(name, stream, bps)| Some(played.get(*name)?.streams_bps.get(*stream)? / bps));
    shares.fold(f64::NAN, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMISE: Promise = Promise {
        ceiling_bps: 50e6,
        replication_bps: 20e6,
        client_bps: 15e6,
    };

    fn scenario(streams_bps: &[f64], p99_ms: &[f64]) -> Scenario {
        Scenario {
            wire_bps: streams_bps.iter().sum(),
            wire_bps_max_1s: streams_bps.iter().sum::<f64>() * 1.01,
            streams_bps: streams_bps.to_vec(),
            p99_ms: p99_ms.to_vec(),
            reordered: 1,
            ..Scenario::default()
        }
    }

    fn named(all: &[(&str, Scenario)]) -> Scenarios {
        let owned = |(name, it): &(&str, Scenario)| ((*name).to_owned(), it.clone());
        all.iter().map(owned).collect()
    }

    #[test]
    fn figures_are_of_what_was_played_and_what_is_beside_is_for_comparison_only() {
        let quiet = named(&[
            (IDLE, scenario(&[], &[10.0, 10.1])),
            (
                IN_SYNC_IDLE,
                Scenario {
                    wire_bps: 5e6,
                    ..scenario(&[], &[11.0])
                },
            ),
            (S1, scenario(&[99e6], &[])),
        ]);
        let played = named(&[
            (S3, scenario(&[21e6, 29e6], &[])),
            (S3_TURNED, scenario(&[35e6, 14e6], &[])),
            (S4, scenario(&[50e6], &[10.3])),
            (S5, scenario(&[24e6, 25e6], &[10.2, 10.5])),
            (IN_SYNC_CATCH_UP, scenario(&[45e6], &[12.1])),
        ]);
        let figures = Figures::of(&played, &quiet, &PROMISE).unwrap();
        let near =
            |value: f64, wanted: f64| assert!((value - wanted).abs() < 1e-9, "{value} {wanted}");
        near(figures.ceiling_ratio_max_1s, 1.01);
        near(figures.guarantee_ratio_min, 14.0 / 15.0);
        near(figures.work_conservation_ratio, 0.98);
        near(figures.client_p99_added_ms, 0.3);
        near(figures.own_class_p99_added_ms, 0.4);
        near(figures.insync_p99_ratio_during_catchup, 1.1);
        near(figures.catchup_share_of_rest, 1.0);
        assert_eq!(figures.reordered_by_shaper, 5);
        assert!(Figures::of(&played, &named(&[]), &PROMISE).is_err());
    }

    #[test]
    fn what_was_not_played_is_no_number() {
        assert!(slowest_bps(&named(&[]), &BUSY).is_nan());
        assert!(least_share(&named(&[]), &[(S3, 0, 1.0)]).is_nan());
    }
}
