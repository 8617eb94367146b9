//! Rows beside the base row: each differs from it in one thing.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::figures::{Scenarios, fastest_bps, reordered, slowest_bps};
use super::load::{CongestionControl, StreamSpec};
use super::observe::Manner;
use super::plans::{
    self, CLIENT, IDLE, OTHER_SLICE, Plan, S1, S3, S4, S5, both_saturated, client_answers, idle,
    one_against_16, streams,
};
use super::report::{Limits, Scenario};
use super::scene::{Elsewhere, Link, OtherSlice, Profile, Rates};
use super::{Bench, PROMISE, WARM_UP};
use crate::bench::statistics::Limit;

/// A class that has less than this part of what it is guaranteed starves.
const STARVES_BELOW: f64 = 0.5;

/// A row, and what is promised in it.
#[derive(Clone)]
struct Axis {
    name: &'static str,
    rates: Rates,
    link: Link,
    /// `None`: that of the base row.
    congestion_control: Option<CongestionControl>,
    /// An idle one if its link differs.
    plans: Vec<Plan>,
    warm_up: Duration,
    /// How much shorter than the base row it is measured.
    shorter: u32,
    /// What streams of [`S3`], by position, have together whatever others send.
    guaranteed_bps: Vec<(Vec<usize>, f64)>,
    gates: Gates,
}

/// What a row is judged by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gates {
    /// Everything.
    #[default]
    All,
    /// Who loses packets does not fill a link, and waits.
    CeilingOrderAndStarvation,
}

/// What a row came to. Units are in the names.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Row {
    pub gates: Gates,
    pub ceiling_ratio_max_1s: f64,
    /// Of what is guaranteed, or of what the same stream has alone if that is less.
    pub guarantee_ratio_min: f64,
    pub work_conservation_ratio: f64,
    pub client_p99_idle_ms: f64,
    pub client_p99_added_ms: f64,
    pub own_class_p99_added_ms: f64,
    pub reordered_by_shaper: i64,
    pub scenarios: Scenarios,
}

fn all(profile: Profile) -> Vec<Axis> {
    let base = Axis {
        name: "base",
        rates: profile.into(),
        link: Link::default(),
        congestion_control: None,
        plans: vec![one_against_16(), client_answers(), both_saturated()],
        warm_up: WARM_UP,
        shorter: 2,
        guaranteed_bps: vec![
            (vec![0], PROMISE.replication_bps),
            (vec![1], PROMISE.client_bps),
        ],
        gates: Gates::All,
    };
    let alone = plans::plan(S1, &[streams(plans::REPLICATION, 1)], &[]);
    let with_alone = [vec![idle(), alone], base.plans.clone()].concat();
    vec![
        two_slices(profile, &base),
        two_nodes(&base),
        Axis {
            name: "rtt_80_ms",
            link: Link {
                one_way: Duration::from_millis(40),
                ..Link::default()
            },
            plans: with_alone.clone(),
            warm_up: 2 * WARM_UP,
            // A loss takes CUBIC seconds to make up for, where the round trip is long.
            shorter: 1,
            ..base.clone()
        },
        Axis {
            name: "bbr",
            congestion_control: Some(CongestionControl::BBR),
            ..base.clone()
        },
        Axis {
            name: "loss_1_percent",
            link: Link {
                loss: 0.01,
                ..Link::default()
            },
            plans: with_alone,
            gates: Gates::CeilingOrderAndStarvation,
            ..base
        },
    ]
}

/// Each slice may have the whole link and is guaranteed half of it, and so are the classes of the first.
fn two_slices(profile: Profile, base: &Axis) -> Axis {
    let half_bps = profile.ceiling_bps / 2;
    Axis {
        name: "two_slices",
        rates: Rates {
            guarantee_bps: Some(half_bps),
            other: Some(OtherSlice {
                ceiling_bps: profile.ceiling_bps,
                guarantee_bps: half_bps,
            }),
            ..Rates::from(Profile {
                replication_percent: profile.replication_percent / 2,
                client_percent: profile.client_percent / 2,
                ..profile
            })
        },
        plans: beside(&base.plans, Elsewhere::OtherSlice, streams(OTHER_SLICE, 8)),
        guaranteed_bps: halves(),
        ..base.clone()
    }
}

/// Both nodes of the cluster send, each under its half of the ceiling.
fn two_nodes(base: &Axis) -> Axis {
    Axis {
        name: "two_nodes",
        rates: Rates {
            nodes: 2,
            ..base.rates
        },
        plans: beside(&base.plans, Elsewhere::OtherNode, streams(CLIENT, 8)),
        guaranteed_bps: halves(),
        ..base.clone()
    }
}

/// What those who share the link with somebody equal have: each of the two classes, both, and the other.
fn halves() -> Vec<(Vec<usize>, f64)> {
    vec![
        (vec![0], PROMISE.replication_bps / 2.0),
        (vec![1], PROMISE.client_bps / 2.0),
        (vec![0, 1], PROMISE.ceiling_bps / 2.0),
        (vec![2], PROMISE.ceiling_bps / 2.0),
    ]
}

/// The same plans with these streams beside each.
fn beside(plans: &[Plan], from: Elsewhere, spec: StreamSpec) -> Vec<Plan> {
    let with = |plan: &Plan| plan.clone().beside(from, spec);
    plans.iter().map(with).collect()
}

impl Bench<'_> {
    /// Plays every row.
    pub(super) fn axes(&mut self) -> Result<BTreeMap<String, Row>> {
        let mut rows = BTreeMap::new();
        for axis in all(self.profile()) {
            let row = self.row(&axis).with_context(|| axis.name)?;
            rows.insert(axis.name.to_owned(), row);
        }
        self.scene.set_link(&Link::default())?;
        Ok(rows)
    }

    fn row(&mut self, axis: &Axis) -> Result<Row> {
        self.scene.set_rates(Some(axis.rates))?;
        let base = self.manner();
        let manner = Manner {
            warm_up: axis.warm_up,
            length: self.length / axis.shorter,
            congestion_control: axis.congestion_control.unwrap_or(base.congestion_control),
            ..base
        };
        let idle = self.scenarios[IDLE].clone();
        let mut played = Scenarios::new();
        let seeds = Link::default().seed + 1..;
        for (seed, plan) in seeds.zip(&axis.plans) {
            // Another seed begins its series anew: what is lost does not depend on what was played before.
            self.scene.set_link(&Link { seed, ..axis.link })?;
            let scenario = self.play(&format!("{}: ", axis.name), plan, &manner)?;
            played.insert(plan.name.to_owned(), scenario);
        }
        axis.row(played, &idle)
    }
}

impl Axis {
    /// `idle` is the base row's.
    fn row(&self, played: Scenarios, idle: &Scenario) -> Result<Row> {
        let of = |name: &str| played.get(name).with_context(|| format!("no {name}"));
        let (contest, answers, saturated) = (of(S3)?, of(S4)?, of(S5)?);
        let idle = played.get(IDLE).unwrap_or(idle);
        let own_class = |class: usize| saturated.p99_ms[class] - idle.p99_ms[class];
        Ok(Row {
            gates: self.gates,
            ceiling_ratio_max_1s: fastest_bps(&played) / PROMISE.ceiling_bps,
            guarantee_ratio_min: self.least_share(contest, played.get(S1)),
            work_conservation_ratio: slowest_bps(&played, &[S3, S5]) / PROMISE.ceiling_bps,
            client_p99_idle_ms: idle.p99_ms[0],
            client_p99_added_ms: answers.p99_ms[0] - idle.p99_ms[0],
            own_class_p99_added_ms: own_class(0).max(own_class(1)),
            reordered_by_shaper: reordered(&played),
            scenarios: played,
        })
    }

    /// A stream that does not get as much as it is guaranteed when it is alone asks for no more than that.
    fn least_share(&self, contest: &Scenario, alone: Option<&Scenario>) -> f64 {
        let share = |(streams, guaranteed_bps): &(Vec<usize>, f64)| {
            let had_bps: f64 = streams.iter().map(|it| contest.streams_bps[*it]).sum();
            let alone_bps = match (alone, streams.as_slice()) {
                (Some(alone), [0]) => alone.streams_bps[0],
                _ => f64::INFINITY,
            };
            had_bps / guaranteed_bps.min(alone_bps)
        };
        let shares = self.guaranteed_bps.iter().map(share);
        shares.fold(f64::INFINITY, f64::min)
    }
}

impl Row {
    /// For people.
    pub fn line(&self) -> String {
        format!(
            "ceiling {:.4}, guarantee {:.3}, work {:.4}, answers {:+.2} ms, in a saturated class {:+.2} ms",
            self.ceiling_ratio_max_1s,
            self.guarantee_ratio_min,
            self.work_conservation_ratio,
            self.client_p99_added_ms,
            self.own_class_p99_added_ms,
        )
    }

    /// The figures that miss their limit, one sentence each.
    pub fn missed(&self, limits: &Limits) -> Vec<String> {
        let answers_ms = limits.client_p99_added_ms_max(self.client_p99_idle_ms);
        let least_share = match self.gates {
            Gates::All => limits.guarantee_ratio_min,
            Gates::CeilingOrderAndStarvation => STARVES_BELOW,
        };
        let always = [
            (
                "ceiling_ratio_max_1s",
                self.ceiling_ratio_max_1s,
                Limit::AtMost(limits.ceiling_ratio_max),
            ),
            (
                "guarantee_ratio_min",
                self.guarantee_ratio_min,
                Limit::AtLeast(least_share),
            ),
            (
                "reordered_by_shaper",
                self.reordered_by_shaper as f64,
                Limit::AtMost(0.0),
            ),
        ];
        let without_loss = [
            (
                "work_conservation_ratio",
                self.work_conservation_ratio,
                Limit::AtLeast(limits.work_conservation_min),
            ),
            (
                "client_p99_added_ms",
                self.client_p99_added_ms,
                Limit::AtMost(answers_ms),
            ),
            (
                "own_class_p99_added_ms",
                self.own_class_p99_added_ms,
                Limit::AtMost(limits.own_class_p99_added_ms_max),
            ),
        ];
        let is_judged = self.gates == Gates::All;
        let judged = without_loss.into_iter().filter(|_| is_judged);
        let all = always.into_iter().chain(judged);
        all.filter_map(|(name, value, limit)| limit.missed_by(name, value))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: Profile = super::super::PROFILE;

    fn scenario(streams_bps: &[f64], p99_ms: &[f64]) -> Scenario {
        Scenario {
            wire_bps: streams_bps.iter().sum(),
            wire_bps_max_1s: streams_bps.iter().sum(),
            streams_bps: streams_bps.to_vec(),
            p99_ms: p99_ms.to_vec(),
            ..Scenario::default()
        }
    }

    fn row(axis: &str, contest_bps: &[f64], alone_bps: f64) -> Row {
        let played = [
            (IDLE, scenario(&[], &[80.0, 80.0])),
            (S1, scenario(&[alone_bps], &[])),
            (S3, scenario(contest_bps, &[])),
            (S4, scenario(&[50e6], &[80.4])),
            (S5, scenario(&[25e6, 25e6], &[80.5, 80.3])),
        ];
        let played = played.map(|(name, it)| (name.to_owned(), it)).into();
        let all = all(PROFILE);
        let axis = all.iter().find(|it| it.name == axis).unwrap();
        axis.row(played, &Scenario::default()).unwrap()
    }

    #[test]
    fn each_row_differs_in_one_thing_and_asks_in_every_one() {
        let all = all(PROFILE);
        assert_eq!(all.len(), 5);
        for axis in &all {
            let differences = [
                axis.link.one_way != Link::default().one_way,
                axis.link.loss > 0.0,
                axis.congestion_control.is_some(),
                axis.rates.nodes > 1,
                axis.rates.other.is_some(),
            ];
            let count = differences.iter().filter(|it| **it).count();
            assert_eq!(count, 1, "{}", axis.name);
            let beside = axis.plans.iter().filter(|it| !it.beside.is_empty()).count();
            let is_shared = axis.rates.nodes > 1 || axis.rates.other.is_some();
            assert_eq!(beside, if is_shared { 3 } else { 0 }, "{}", axis.name);
            let is_idle_played = axis.plans.iter().any(|it| it.name == IDLE);
            let has_own_link = differences[0] || differences[1];
            assert_eq!(is_idle_played, has_own_link, "{}", axis.name);
        }
    }

    #[test]
    fn a_stream_that_cannot_have_its_guarantee_alone_is_no_fault_of_the_shaper() {
        assert_eq!(
            row("rtt_80_ms", &[18e6, 32e6], 50e6).guarantee_ratio_min,
            0.9
        );
        assert_eq!(
            row("rtt_80_ms", &[18e6, 32e6], 18e6).guarantee_ratio_min,
            1.0
        );
        let clients = row("rtt_80_ms", &[35e6, 12e6], 50e6);
        assert_eq!(clients.guarantee_ratio_min, 0.8);
    }

    #[test]
    fn of_two_slices_each_is_guaranteed_half_and_the_classes_too() {
        let share = |streams: &[f64]| row("two_slices", streams, 50e6).guarantee_ratio_min;
        assert_eq!(share(&[12e6, 13e6, 25e6]), 1.0);
        assert_eq!(share(&[9e6, 16e6, 25e6]), 0.9);
        assert_eq!(share(&[12e6, 13e6, 20e6]), 0.8);
        assert_eq!(share(&[10e6, 10e6, 30e6]), 0.8);
    }

    #[test]
    fn where_packets_are_lost_the_link_may_idle_but_nobody_starves() {
        let good = row("loss_1_percent", &[12e6, 20e6], 15e6);
        assert_eq!(good.missed(&Limits::EDT), Vec::<String>::new());
        let starved = row("loss_1_percent", &[7e6, 20e6], 15e6);
        assert_eq!(starved.missed(&Limits::EDT).len(), 1);
        let idle = row("rtt_80_ms", &[20e6, 20e6], 50e6);
        assert_eq!(idle.missed(&Limits::EDT).len(), 1, "{idle:?}");
        let fast = row("loss_1_percent", &[20e6, 31e6], 50e6);
        assert_eq!(fast.missed(&Limits::EDT).len(), 1, "{fast:?}");
    }
}
