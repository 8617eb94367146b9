//! How much slices use of what they may send: looks at what the shaper counted every few seconds.

use std::time::{Duration, Instant};

use super::status::Status;
use crate::apply::maps::Maps;
use crate::metrics::rates;
use crate::metrics::usage::{Sample, Usage, between};
use crate::observe::counters;

/// Short enough to see what is going on, long enough that a burst is not taken for a rate.
const INTERVAL: Duration = Duration::from_secs(5);

pub(super) struct Meter {
    maps: Maps,
    status: Status,
    last: Option<Sample>,
    /// The last failure, so that it is reported once.
    failure: Option<String>,
}

impl Meter {
    pub(super) fn new(maps: Maps, status: Status) -> Self {
        Self {
            maps,
            status,
            last: None,
            failure: None,
        }
    }

    /// Takes a sample when it is time.
    pub(super) fn turn(&mut self, now: Instant) {
        let is_due = |last: &Sample| now.saturating_duration_since(last.at) >= INTERVAL;
        if !self.last.as_ref().is_none_or(is_due) {
            return;
        }
        let state = self.status.read();
        let counts = match counters::shaped(&self.maps, &rates::places(&state)) {
            Ok(counts) => counts,
            Err(error) => return self.fail(now, format!("{error:#}")),
        };
        self.failure = None;
        let sample = Sample {
            at: now,
            rates: state.rates,
            counts,
        };
        let usage = self.last.replace(sample.clone());
        let usage = usage
            .map(|last| between(&last, &sample))
            .unwrap_or_default();
        self.status.update(|state| state.usage = usage);
    }

    /// Nothing is known any more; tried again after an interval.
    fn fail(&mut self, now: Instant, why: String) {
        if self.failure.as_ref() != Some(&why) {
            tracing::warn!("what slices use of their rates is not known: {why}");
        }
        self.failure = Some(why);
        self.last = Some(Sample {
            at: now,
            rates: Default::default(),
            counts: Default::default(),
        });
        self.status.update(|state| state.usage = Usage::default());
    }
}
