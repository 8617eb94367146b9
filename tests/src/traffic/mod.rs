//! Loads that notice what a data plane does to them: a lost packet, a reset, a stall, a wrong byte.

pub mod ledger;
pub mod tcp;
pub mod udp;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep};

use crate::place::Place;

/// How often a blocked socket call returns to look whether it should stop.
const LOOK_UP_INTERVAL: Duration = Duration::from_millis(50);

/// Set once by the owner of a load, seen by its threads; set by itself at the deadline.
#[derive(Clone, Debug)]
struct StopSign {
    told: Arc<AtomicBool>,
    deadline: Instant,
}

impl StopSign {
    fn after(longest: Duration) -> Self {
        Self {
            told: Arc::new(AtomicBool::new(false)),
            deadline: Instant::now() + longest,
        }
    }

    fn set(&self) {
        self.told.store(true, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.told.load(Ordering::Relaxed) || Instant::now() >= self.deadline
    }
}

/// Ends a load's threads when its handle is gone.
#[derive(Debug)]
struct StopOnDrop(StopSign);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.set();
    }
}

/// Nanoseconds on the clock that no one sets.
pub(crate) fn now_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| {
        time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
    })
}

/// Sleeps until a time of [`now_ns`]; an absolute time, so that oversleeping does not add up.
pub(crate) fn sleep_until_ns(time_ns: u64) {
    let seconds = (time_ns / 1_000_000_000) as libc::time_t;
    let time = TimeSpec::new(seconds, (time_ns % 1_000_000_000) as libc::c_long);
    // An early return by a signal only makes the caller look at the clock again.
    let _ = clock_nanosleep(
        ClockId::CLOCK_MONOTONIC,
        ClockNanosleepFlags::TIMER_ABSTIME,
        &time,
    );
}

/// Gives the calling thread timers without slack and, where allowed, the lowest real-time priority, and returns
/// whether it was: on a busy machine an ordinary thread is woken milliseconds late.
pub(crate) fn be_punctual() -> bool {
    let _ = nix::sys::prctl::set_timerslack(1);
    let lowest = libc::sched_param { sched_priority: 1 };
    // SAFETY: the parameter outlives the call; 0 is the calling thread.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const lowest) == 0 }
}

/// A socket made inside the place's namespace, which it keeps wherever it is used.
fn socket_in<T: Send>(place: &Place, make: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let (name, address): (&str, Ipv4Addr) = (&place.name, place.address);
    place
        .netns
        .enter(make)?
        .map_err(|error| error.context(format!("socket in {name} ({address})")))
}

fn milliseconds(duration_ns: u64) -> f64 {
    duration_ns as f64 / 1e6
}
