//! What a flow does: request and answer, or pushing all it can. Known by how fast it sends and how much it
//! waits, and by nothing else: no port, no parsing.
//!
//! A flow begins as interactive. It is backlogged once it runs further ahead of the class's pace than a
//! burst, or once too much of it had to wait. Of flows that wait together the fastest is judged first, so
//! when it leaves the front, the others wait no more; a thin flow, such as the lane takes, never is. A
//! backlogged flow comes back after a second below the pace with nothing waiting; if it then fails again,
//! only after two, and so on up to a minute, so it does not flap.
//!
//! A slow flow whose packets stand behind bulk looks like bulk: only a try can tell. One of 16,000 packets
//! of such a flow is a try; one of four times as many each time that a try fails.

use super::clock::{earlier, later};
use super::cost::WireBytes;
use super::terms::Habits;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Goes before the backlogged flows of its class.
    Interactive,
    Backlogged,
}

/// One word: bit 0 says backlogged, bits 1 to 3 how many tries failed, the rest is a moment in steps of
/// 16 ns: since when the flow is interactive, or when it was last seen to push.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stance(u64);

impl Stance {
    const BACKLOGGED: u64 = 1;
    const MOMENT: u64 = !0xf;
    /// 64 times a second.
    const MOST_FAILED: u64 = 6;
    /// Packets to the first try, as a power of two; two more for each that failed.
    const TRY_BITS: u64 = 14;

    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.0
    }

    #[inline(always)]
    pub const fn behaviour(self) -> Behaviour {
        if self.0 & Self::BACKLOGGED == 0 {
            Behaviour::Interactive
        } else {
            Behaviour::Backlogged
        }
    }

    /// Tries that failed one after the other, `0..=7`.
    #[inline(always)]
    const fn failed(self) -> u64 {
        self.0 >> 1 & 7
    }

    #[inline(always)]
    const fn interactive(since_ns: u64, failed: u64) -> Self {
        Self(since_ns & Self::MOMENT | failed << 1)
    }

    #[inline(always)]
    const fn backlogged(since_ns: u64, failed: u64) -> Self {
        Self(since_ns & Self::MOMENT | failed << 1 | Self::BACKLOGGED)
    }

    /// Whether a packet that comes at this moment is to be a try: by a hash of the moment (Fibonacci's).
    #[inline(always)]
    const fn is_try(self, now_ns: u64) -> bool {
        let bits = Self::TRY_BITS + 2 * self.failed();
        now_ns.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - bits) == 0
    }

    /// With a packet at `now_ns` of a flow that is so far ahead of now, this packet included.
    #[inline(always)]
    pub(super) const fn after(self, now_ns: u64, ahead: Ahead, habits: &Habits) -> Self {
        let failed = self.failed();
        let lasted_ns = now_ns.saturating_sub(self.0 & Self::MOMENT);
        let is_long = lasted_ns > habits.calm_ns << failed;
        match self.behaviour() {
            Behaviour::Interactive => {
                // Who has just come back is on probation.
                let patience_ns = if is_long {
                    habits.patience_ns
                } else {
                    habits.patience_ns / 4
                };
                if ahead.pace_ns <= habits.burst_ns && ahead.waited_ns <= patience_ns {
                    self
                } else if is_long {
                    Self::backlogged(now_ns, 0)
                } else {
                    Self::backlogged(now_ns, earlier(failed + 1, Self::MOST_FAILED))
                }
            }
            Behaviour::Backlogged => {
                // The packet itself is ahead of the pace until it had its time.
                let is_slow = ahead.pace_ns <= habits.burst_ns / 4;
                let is_calm = is_slow && !ahead.has_waiting;
                if (is_calm && is_long) || (is_slow && self.is_try(now_ns)) {
                    Self::interactive(now_ns, failed)
                } else if is_calm {
                    self
                } else {
                    Self::backlogged(now_ns, failed)
                }
            }
        }
    }
}

/// How far a flow is ahead of now by what it sent, this packet included, and by what it waited.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    pub(super) pace_ns: u64,
    pub(super) waited_ns: u64,
    /// A packet of it has not left yet.
    pub(super) has_waiting: bool,
}

/// Until when a flow has used the rate of a thin flow by what had to wait, with a packet at `now_ns` that
/// waits for `delay_ns` and takes `thin_cost_ns` at that rate. Not further ahead than twice the patience.
#[inline(always)]
pub(super) const fn waited_after(
    waited_ns: u64,
    now_ns: u64,
    delay_ns: u64,
    thin_cost_ns: u64,
    habits: &Habits,
) -> u64 {
    let cost_ns = if delay_ns > habits.standing_ns {
        thin_cost_ns
    } else {
        0
    };
    let used_ns = later(waited_ns, now_ns).saturating_add(cost_ns);
    earlier(used_ns, now_ns.saturating_add(habits.patience_ns << 1))
}

/// Until when a flow has used its pace, with this packet. Not further than two bursts ahead, so that what
/// it did long ago is forgiven.
#[inline(always)]
pub(super) const fn pace_after(
    pace_ns: u64,
    now_ns: u64,
    bytes: WireBytes,
    habits: &Habits,
) -> u64 {
    let begin_ns = later(pace_ns, now_ns);
    let used_ns = begin_ns.saturating_add(habits.pace.ns_of(bytes));
    earlier(used_ns, now_ns.saturating_add(habits.burst_ns << 1))
}
