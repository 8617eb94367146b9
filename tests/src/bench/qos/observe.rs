//! One plan in a scene, from its first packet to its last answer.

use std::borrow::Borrow;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::course::{Course, Running, SAMPLE_INTERVAL};
use super::load::{CongestionControl, StreamSpec};
use super::plans::Plan;
use super::scene::Scene;
use crate::child::poll_until;
use crate::lab::Lab;
use crate::relay::DirectionStats;

const DRAIN_LIMIT: Duration = Duration::from_secs(20);

/// How a plan is played.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// TCP finds its rate.
    pub warm_up: Duration,
    /// What counts.
    pub length: Duration,
    /// Each kind of streams begins so long after what began before it.
    pub stagger: Duration,
    pub congestion_control: CongestionControl,
}

/// What one scenario did.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The most that the link carried in a second, from the first byte on.
    pub wire_bps_max_1s: f64,
    /// What each [`StreamSpec`] brought over, after the warm-up; those from elsewhere come last.
    pub streams_bps: Vec<f64>,
    /// The link as a whole, after the warm-up.
    pub wire_bps: f64,
    /// Of each [`super::load::ExchangeSpec`], sorted.
    pub times_ns: Vec<Vec<u64>>,
    /// How many packets of connections came to the link behind one that was sent later.
    pub reordered: u64,
    /// How late the lab's own link was, at the worst.
    pub relay_late_us_max: u64,
    /// All of it, the warm-up too.
    pub course: Course,
}

impl<L: Borrow<Lab>> Scene<L> {
    /// Runs everything together: warms up, then measures.
    /// # Errors  when a load fails.
    pub fn observe(&self, plan: &Plan, manner: &Manner) -> Result<Observed> {
        self.wait_until_idle()?;
        let relay_before = self.lab().relay()?.stats()?.uptime_ms;
        let (judged_before, overtaken_before) = self.overtaken()?;
        let of_manner = |spec: &StreamSpec| StreamSpec {
            congestion_control: manner.congestion_control,
            ..*spec
        };
        let mut running = Running::start(self, &plan.exchanges)?;
        for spec in &plan.streams {
            running.watch(manner.stagger)?;
            running.add(&[of_manner(spec)])?;
        }
        for (from, spec) in &plan.beside {
            running.watch(manner.stagger)?;
            running.add_from(*from, of_manner(spec))?;
        }
        running.watch(manner.warm_up)?;
        let span_ns = running.watch(manner.length)?;
        let course = running.stop()?;
        let (judged, overtaken) = self.overtaken()?;
        ensure!(
            judged > judged_before,
            "the lab's link cannot tell whether packets are in order"
        );
        let relay = self.lab().relay()?.stats()?;
        let streams = plan.streams.len() + plan.beside.len();
        Ok(Observed {
            wire_bps: course.wire_bps(&span_ns),
            streams_bps: (0..streams)
                .map(|stream| course.stream_bps(stream, &span_ns))
                .collect(),
            times_ns: (0..plan.exchanges.len())
                .map(|exchange| course.times_ns(exchange, &span_ns))
                .collect(),
            wire_bps_max_1s: course.wire_bps_max_1s(),
            reordered: overtaken - overtaken_before,
            relay_late_us_max: relay.worst_lateness_us(relay_before).0,
            course,
        })
    }

    /// Nothing of the scenario before is under way any more.
    fn wait_until_idle(&self) -> Result<()> {
        let sample_ns = SAMPLE_INTERVAL.as_nanos() as u64;
        let (mut last, mut last_ns) = self.wire_bytes()?;
        let idle = poll_until(DRAIN_LIMIT, || {
            let (now, now_ns) = self.wire_bytes()?;
            if now_ns < last_ns + sample_ns {
                return Ok(None);
            }
            let is_idle = now - last < 2000;
            (last, last_ns) = (now, now_ns);
            Ok(is_idle.then_some(()))
        })?;
        idle.context("the link does not come to rest")
    }

    /// How many packets of connections came to the link at all, and behind one that was sent later; both ways.
    fn overtaken(&self) -> Result<(u64, u64)> {
        let [from, to] = self.direction;
        let stats = self.lab().relay()?.stats()?;
        let both = [stats.directions[from][to], stats.directions[to][from]];
        let sum = |of: fn(&DirectionStats) -> u64| both.iter().map(of).sum();
        Ok((sum(|it| it.tcp_packets), sum(|it| it.tcp_overtaken)))
    }
}
