//! When the loop looks at the kernel again.

use std::time::{Duration, Instant};

/// Events come in bursts: wait until they pause.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// But never longer than this, if they do not.
const DEBOUNCE_MAX: Duration = Duration::from_secs(1);
/// Finds what no event reports: a detached program, a map written by somebody else.
const RESYNC: Duration = Duration::from_secs(60);
/// The kernel asks three times, a second apart, before it gives a neighbour up.
const ASK_AGAIN: Duration = Duration::from_secs(4);
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// What to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Look {
    /// Only at the facts of the host; at the kernel if they changed.
    Host,
    Everything,
    /// Also at what was refused before: it is tried again.
    Periodic,
}

/// Times of the next looks.
#[derive(Debug)]
pub struct Schedule {
    pending: Option<(Look, Instant, Instant)>,
    resync_at: Instant,
    retry_at: Option<Instant>,
    retry_delay: Duration,
    ask_at: Option<Instant>,
}

impl Schedule {
    pub fn new(now: Instant) -> Self {
        let retry_delay = RETRY_FIRST;
        Self {
            pending: None,
            resync_at: now + RESYNC,
            retry_at: None,
            retry_delay,
            ask_at: None,
        }
    }

    /// Something happened.
    pub fn event(&mut self, look: Look, now: Instant) {
        let (before, first) = self
            .pending
            .map_or((look, now), |(before, first, _)| (before, first));
        self.pending = Some((look.max(before), first, now));
    }

    /// What is due now, if anything; it is then taken as done.
    pub fn due(&mut self, now: Instant) -> Option<Look> {
        let is_past = |at: Instant| now >= at;
        let settled = self.pending.filter(|(_, first, last)| {
            now.duration_since(*last) >= DEBOUNCE || now.duration_since(*first) >= DEBOUNCE_MAX
        });
        let timers = [
            is_past(self.resync_at).then_some(Look::Periodic),
            self.retry_at
                .filter(|at| is_past(*at))
                .map(|_| Look::Everything),
            self.ask_at.filter(|at| is_past(*at)).map(|_| Look::Host),
            settled.map(|(look, _, _)| look),
        ];
        let look = timers.into_iter().max().flatten();
        if look.is_some() {
            self.pending = None;
        }
        if look == Some(Look::Periodic) {
            self.resync_at = now + RESYNC;
        }
        look
    }

    /// Neighbours were asked for; looks at them again when their time to answer is over.
    pub fn asked(&mut self, any: bool, now: Instant) {
        self.ask_at = any.then_some(now + ASK_AGAIN);
    }

    /// Everything is as wanted.
    pub fn succeeded(&mut self) {
        self.retry_at = None;
        self.retry_delay = RETRY_FIRST;
    }

    /// Tries again later, each time after twice the delay; returns the delay.
    pub fn failed(&mut self, now: Instant) -> Duration {
        let delay = self.retry_delay;
        self.retry_at = Some(now + delay);
        self.retry_delay = (delay * 2).min(RETRY_MAX);
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn a_burst_of_events_is_looked_at_once_after_it_and_at_the_widest_look() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        schedule.event(Look::Everything, start);
        schedule.event(Look::Host, ms(start, 100));
        assert_eq!(schedule.due(ms(start, 250)), None);
        assert_eq!(schedule.due(ms(start, 301)), Some(Look::Everything));
        assert_eq!(schedule.due(ms(start, 600)), None);
    }

    #[test]
    fn events_that_never_pause_are_looked_at_all_the_same() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        let looked = (0..200).map(|step| ms(start, step * 10)).find(|now| {
            schedule.event(Look::Host, *now);
            schedule.due(*now).is_some()
        });
        assert_eq!(looked, Some(ms(start, 1000)));
    }

    #[test]
    fn failures_are_retried_with_growing_delays_until_one_succeeds() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        let delays: Vec<u64> = (0..7).map(|_| schedule.failed(start).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(schedule.due(ms(start, 30_000)), Some(Look::Everything));
        schedule.succeeded();
        assert_eq!(schedule.due(ms(start, 59_999)), None);
        assert_eq!(schedule.failed(start).as_secs(), 1);
    }

    #[test]
    fn neighbours_that_did_not_answer_are_looked_at_again_until_none_is_left() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        schedule.asked(true, start);
        assert_eq!(schedule.due(ms(start, 3_999)), None);
        assert_eq!(schedule.due(ms(start, 4_000)), Some(Look::Host));
        schedule.asked(false, ms(start, 4_000));
        assert_eq!(schedule.due(ms(start, 9_000)), None);
    }

    #[test]
    fn a_neighbour_that_never_answers_does_not_put_the_look_at_everything_off() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        schedule.asked(true, start);
        let mut looks = Vec::new();
        for second in 0..=60 {
            let now = ms(start, second * 1000);
            if let Some(look) = schedule.due(now) {
                looks.push(look);
                schedule.asked(true, now);
            }
        }
        assert_eq!(looks.pop(), Some(Look::Periodic));
        assert_eq!(looks, [Look::Host; 14]);
    }

    #[test]
    fn without_events_everything_is_looked_at_once_a_minute() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        assert_eq!(schedule.due(ms(start, 59_999)), None);
        assert_eq!(schedule.due(ms(start, 60_000)), Some(Look::Periodic));
    }

    #[test]
    fn whatever_else_is_looked_at_what_was_refused_is_tried_again_once_a_minute() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        let mut periodic = Vec::new();
        for second in 0..=180 {
            let now = ms(start, second * 1000);
            schedule.event(Look::Everything, now);
            let looks = [schedule.due(now), schedule.due(ms(now, 500))];
            periodic.extend(looks.contains(&Some(Look::Periodic)).then_some(second));
            assert!(looks.iter().any(Option::is_some), "vacuous");
        }
        assert_eq!(periodic, [60, 120, 180]);
    }
}
