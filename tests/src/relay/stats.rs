//! What the relay did, and how far it can be trusted.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::model::WanDrop;
use super::settings::SITES;

/// How many past seconds of lateness are kept.
const SECONDS_KEPT: usize = 900;
/// Departures per second of which each one's lateness is kept; more are counted in the maximum.
const SAMPLES_PER_SECOND: usize = 100_000;

/// A snapshot of the relay; counters run from its start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayStats {
    /// Since the relay's start.
    pub uptime_ms: u64,
    /// When the counters were read, on the monotonic clock: who asks gets the answer later.
    pub at_ns: u64,
    /// Whether the kernel granted real-time scheduling.
    pub realtime: bool,
    /// `directions[from][to]`
    pub directions: [[DirectionStats; SITES]; SITES],
    /// Packets to an address that belongs to no site, or that are no IPv4.
    pub drops_no_destination: u64,
    /// Packets that the far kernel refused.
    pub drops_write_failed: u64,
    pub drops_memory: u64,
    /// The last seconds in which packets left, oldest first.
    pub seconds: VecDeque<SecondStats>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectionStats {
    pub packets_in: u64,
    /// Those that came in of which can be told whether they were overtaken on their way.
    pub tcp_packets: u64,
    pub tcp_overtaken: u64,
    pub packets_out: u64,
    /// IP bytes.
    pub bytes_out: u64,
    pub drops_queue: u64,
    pub drops_loss: u64,
    /// IP bytes of those.
    pub bytes_lost: u64,
    pub drops_too_big: u64,
}

/// How late packets left in one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecondStats {
    /// End of the second, since the relay's start.
    pub end_ms: u64,
    pub packets: u64,
    pub late_max_us: u64,
    pub late_p99_us: u64,
}

impl RelayStats {
    /// The worst second after `since_ms` of uptime: (largest maximum, largest p99) in µs.
    ///
    /// A test takes `uptime_ms` before its run and voids the run if this is above its tolerance.
    pub fn worst_lateness_us(&self, since_ms: u64) -> (u64, u64) {
        let seconds = self
            .seconds
            .iter()
            .filter(|second| second.end_ms > since_ms);
        seconds.fold((0, 0), |(max, p99), second| {
            (max.max(second.late_max_us), p99.max(second.late_p99_us))
        })
    }

    pub(super) fn count_drop(&mut self, [from, to]: [usize; 2], bytes: usize, reason: WanDrop) {
        let direction = &mut self.directions[from][to];
        match reason {
            WanDrop::Queue => direction.drops_queue += 1,
            WanDrop::Loss => {
                direction.drops_loss += 1;
                direction.bytes_lost += bytes as u64;
            }
            WanDrop::TooBig => direction.drops_too_big += 1,
            WanDrop::Memory => self.drops_memory += 1,
        }
    }
}

/// Collects lateness within the current second.
#[derive(Debug, Default)]
pub(super) struct LatenessMeter {
    samples_us: Vec<u32>,
    packets: u64,
    max_us: u64,
}

impl LatenessMeter {
    pub(super) fn add(&mut self, late_ns: u64) {
        let late_us = late_ns / 1000;
        self.packets += 1;
        self.max_us = self.max_us.max(late_us);
        if self.samples_us.len() < SAMPLES_PER_SECOND {
            self.samples_us
                .push(u32::try_from(late_us).unwrap_or(u32::MAX));
        }
    }

    /// Ends the second; nothing is recorded for one without packets.
    pub(super) fn end_second(&mut self, end_ms: u64, seconds: &mut VecDeque<SecondStats>) {
        if self.packets == 0 {
            return;
        }
        let rank = (self.samples_us.len() - 1) * 99 / 100;
        let (_, p99, _) = self.samples_us.select_nth_unstable(rank);
        seconds.push_back(SecondStats {
            end_ms,
            packets: self.packets,
            late_max_us: self.max_us,
            late_p99_us: u64::from(*p99),
        });
        if seconds.len() > SECONDS_KEPT {
            seconds.pop_front();
        }
        self.samples_us.clear();
        self.packets = 0;
        self.max_us = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_late_packet_in_a_hundred_shows_in_the_maximum_only() {
        let mut meter = LatenessMeter::default();
        let mut stats = RelayStats::default();
        for late_us in std::iter::repeat_n(50, 199).chain([210_000]) {
            meter.add(late_us * 1000);
        }
        meter.end_second(1000, &mut stats.seconds);
        meter.end_second(2000, &mut stats.seconds);
        let only = SecondStats {
            end_ms: 1000,
            packets: 200,
            late_max_us: 210_000,
            late_p99_us: 50,
        };
        assert_eq!(
            stats.seconds,
            [only],
            "a second without packets is not recorded"
        );
        assert_eq!(stats.worst_lateness_us(0), (210_000, 50));
        assert_eq!(stats.worst_lateness_us(1000), (0, 0), "before the run");
    }
}
