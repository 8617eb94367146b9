//! What must miss a limit, or the measurement sees nothing.

use std::borrow::Borrow;
use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};
use slice_agent::image::Prefixed;
use slice_common::layout::{ShaperKey, ShaperTerms};
use slice_common::shaper::ByteCost;

use super::plans::{
    CLIENT, IDLE, OTHER_SLICE, Plan, REPLICATION, on_and_off, one_against_64, plan, small, streams,
};
use super::report::{Backend, Limits, Scenario};
use super::scene::{Elsewhere, Link, OtherSlice, Profile, Rates, Scene};
use super::{Bench, PROMISE};
use crate::lab::Lab;
use crate::live::maps_of;

/// The node of cluster east that the brokers' packets leave by.
const SENDER: &str = "east-1";
const TERMS: &str = "SHAPER_TERMS";
/// What nothing shapes, on a link of the slice's ceiling.
pub(super) const LINK_ALONE: &str = "control_link_alone";

impl Bench<'_> {
    /// Plays them all and returns whether each missed what it should. Nothing is shaped after it.
    pub(super) fn controls(&mut self, limits: &Limits) -> Result<BTreeMap<String, bool>> {
        let mut verdicts = BTreeMap::new();
        // With `htb` the device's own classes bound who is in front, whatever the lane lets pass.
        if self.backend != Backend::Htb {
            verdicts.insert("unbounded_lane", self.unbounded_lane(limits)?);
        }
        verdicts.insert("static_split", self.static_split(limits)?);
        verdicts.insert("no_shaper", self.no_shaper(limits)?);
        verdicts.insert("link_alone", self.link_alone(limits)?);
        let named = verdicts.into_iter();
        Ok(named.map(|(name, it)| (name.to_owned(), it)).collect())
    }

    /// Thin flows pass at once, however many there are: 64 streams of clients are thin. The limit is the ceiling's,
    /// or, where a device keeps that, the other class's guarantee.
    fn unbounded_lane(&mut self, limits: &Limits) -> Result<bool> {
        self.scene.set_profile(Some(self.profile()))?;
        let many = Plan {
            name: "control_unbounded_lane",
            ..one_against_64()
        };
        let seen = self.play_without_bound(&many)?;
        let has_less = seen.streams_bps[0] / PROMISE.replication_bps < limits.guarantee_ratio_min;
        Ok(has_less || seen.wire_bps_max_1s / PROMISE.ceiling_bps > limits.ceiling_ratio_max)
    }

    /// The agent puts the bound back when it looks. The next play is over before it looks again.
    fn play_without_bound(&mut self, plan: &Plan) -> Result<Scenario> {
        for _ in 0..2 {
            self.scene.unbind_lane()?;
            let seen = self.play_control(plan)?;
            if self.scene.is_lane_unbound()? {
                return Ok(seen);
            }
        }
        bail!("the agent of {SENDER} put the lane's bound back twice while it was measured without")
    }

    /// The link divided for good: 40 % for replication, the rest for clients, who stay in the other slice. Neither
    /// has what the other leaves.
    fn static_split(&mut self, limits: &Limits) -> Result<bool> {
        let whole = self.profile();
        let part_bps = PROMISE.replication_bps as u64;
        let rest_bps = whole.ceiling_bps - part_bps;
        let rates = Rates {
            link_bps: whole.ceiling_bps,
            other: Some(OtherSlice {
                ceiling_bps: rest_bps,
                guarantee_bps: rest_bps,
            }),
            ..Rates::from(Profile {
                ceiling_bps: part_bps,
                ..whole
            })
        };
        self.scene.set_rates(Some(rates))?;
        let clients = streams(OTHER_SLICE, 8);
        let split = plan("control_static_split", &[on_and_off(REPLICATION, 4)], &[])
            .beside(Elsewhere::OtherSlice, clients);
        let seen = self.play_control(&split)?;
        Ok(seen.wire_bps / PROMISE.ceiling_bps < limits.work_conservation_min)
    }

    fn no_shaper(&mut self, limits: &Limits) -> Result<bool> {
        self.scene.set_profile(None)?;
        self.scene.configure_roots()?;
        let seen = self.play_control(&backlog("control_no_shaper"))?;
        Ok(seen.wire_bps_max_1s / PROMISE.ceiling_bps > limits.ceiling_ratio_max)
    }

    fn link_alone(&mut self, limits: &Limits) -> Result<bool> {
        self.scene.set_link(&Link {
            rate_bps: Some(PROMISE.ceiling_bps as u64),
            ..Link::default()
        })?;
        let seen = self.play_control(&backlog(LINK_ALONE))?;
        self.scene.set_link(&Link::default())?;
        let added_ms = seen.p99_ms[0] - self.scenarios[IDLE].p99_ms[0];
        Ok(added_ms > limits.client_p99_added_ms_max)
    }

    fn play_control(&mut self, plan: &Plan) -> Result<Scenario> {
        let scenario = self.play("", plan, &self.manner())?;
        self.scenarios
            .insert(plan.name.to_owned(), scenario.clone());
        Ok(scenario)
    }
}

/// Replication saturates the link, and a client asks.
fn backlog(name: &'static str) -> Plan {
    plan(name, &[streams(REPLICATION, 8)], &[small(CLIENT)])
}

type Table = BTreeMap<Prefixed<ShaperKey>, ShaperTerms>;

impl<L: Borrow<Lab>> Scene<L> {
    /// Takes the bound off the lane: in what the agent wrote for the kernel, because no configuration can. It stays
    /// so until the agent has something to change, or looks (once a minute).
    fn unbind_lane(&self) -> Result<()> {
        let maps = maps_of(self.lab(), SENDER)?;
        let mut table: Table = maps.table(TERMS)?;
        ensure!(!table.is_empty(), "nothing is shaped at {SENDER}");
        for terms in table.values_mut() {
            terms.lane = ByteCost::FREE.word();
        }
        maps.swap(TERMS, &table)
    }

    fn is_lane_unbound(&self) -> Result<bool> {
        let table: Table = maps_of(self.lab(), SENDER)?.table(TERMS)?;
        let mut lanes = table.values().map(|terms| terms.lane);
        Ok(lanes.all(|lane| lane == ByteCost::FREE.word()))
    }
}
