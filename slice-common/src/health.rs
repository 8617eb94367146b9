//! Which path of a group a packet takes. Time is kernel time in nanoseconds and an argument; 0 in a
//! stamp means "never".
//!
//! While the agent's prober is alive, a path is proven by answers to its probes, so that a link that is
//! cut one way is noticed. When it is dead, anything valid from the other end proves a path, and silence
//! on a path that is being sent into disproves it. Health chooses; it never drops.

use crate::branchless::{Masks, either};
use crate::layout::{PathHealth, Probes};

/// How often the prober sends.
pub const INTERVAL_NS: u64 = 100_000_000;
/// What was not renewed for so long holds no more: an answer, what was heard, the prober itself.
pub const PATIENCE_NS: u64 = 3 * INTERVAL_NS;
/// The same at a gateway that has no prober. A gateway looks for another way before the nodes in front of it
/// look for another gateway, else both move at once, and may meet the way that died again.
pub const GATEWAY_PATIENCE_NS: u64 = 2 * INTERVAL_NS;
/// A path that is preferred is taken again when it was proven for so long without a break.
pub const STEADY_NS: u64 = 1_000_000_000;
/// A path that nothing was sent into for so long is not being sent into.
pub const IDLE_NS: u64 = 1_000_000_000;
/// Stamps are renewed only when they are this old, so that the CPUs do not fight for them.
pub const STAMP_NS: u64 = 4_000_000;

/// How good a path is, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Proven, for a while now.
    Steady,
    /// Proven, but not for long.
    Proven,
    /// Nobody can tell: nothing was sent into it lately.
    Unknown,
    /// It should have been heard of, and was not.
    Silent,
}

impl Standing {
    const fn rank(self) -> u64 {
        match self {
            Self::Steady => 0,
            Self::Proven => 1,
            Self::Unknown => 2,
            Self::Silent => 3,
        }
    }
}

/// Behind every path.
pub const NO_PATH: u64 = 4 << RANK_SHIFT;
const RANK_SHIFT: u32 = 60;
const TIES: u64 = (1 << RANK_SHIFT) - 1;

/// The moment of a choice. Nothing in a choice branches: the verifier would follow every way through what
/// the seven paths of a group can be.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    now_ns: u64,
    patience_ns: u64,
    masks: Masks,
}

impl Moment {
    /// `patience_ns`: how long what was heard holds where no prober asks, [`PATIENCE_NS`] or
    /// [`GATEWAY_PATIENCE_NS`].
    #[inline(always)]
    pub fn at(now_ns: u64, patience_ns: u64) -> Self {
        Self {
            now_ns,
            patience_ns,
            masks: Masks::new(),
        }
    }

    /// All bits set if the stamp is younger than `age_ns`, else none; a stamp of another CPU may be of a
    /// later moment. "Never" (0) is long ago.
    #[inline(always)]
    const fn has(self, stamp_ns: u64, age_ns: u64) -> u64 {
        self.is_less(self.now_ns.wrapping_sub(stamp_ns), age_ns)
    }

    #[inline(always)]
    const fn is_less(self, one: u64, other: u64) -> u64 {
        self.masks.is_less(one, other)
    }
}

#[inline(always)]
const fn is_within(stamp_ns: u64, age_ns: u64, now_ns: u64) -> bool {
    now_ns.wrapping_sub(stamp_ns).cast_signed() < age_ns.cast_signed()
}

/// How much a path is to be preferred, the smaller the more: its [`Standing`], then its place in the group;
/// where nothing is proven the path that was heard of last. `newest_ns` and `since_ns` are those of the
/// path's [`Probes`]: the prober looks after it if it sent lately, and did so long enough to be answered.
#[inline(always)]
pub const fn preference(
    health: &PathHealth,
    (newest_ns, since_ns): (u64, u64),
    place: u32,
    moment: Moment,
) -> u64 {
    let probed = moment.has(newest_ns, PATIENCE_NS) & !moment.has(since_ns, PATIENCE_NS);
    let proof_ns = either(probed, health.answered_ns, health.heard_ns);
    let proven_since_ns = either(probed, health.answered_since_ns, health.heard_since_ns);
    let proven =
        moment.has(proof_ns, moment.patience_ns) | (probed & moment.has(proof_ns, PATIENCE_NS));
    let fresh = moment.has(proven_since_ns, STEADY_NS);
    // Packets went in for a while, until lately, and nothing came.
    let unanswered = moment.has(health.sent_ns, IDLE_NS)
        & !moment.has(health.sent_since_ns, moment.patience_ns)
        & moment.is_less(health.heard_ns, health.sent_since_ns);
    let if_proven = Standing::Steady.rank() + (fresh & 1);
    let if_not = Standing::Unknown.rank() + ((probed | unanswered) & 1);
    let rank = either(proven, if_proven, if_not);
    let answered_last = moment.is_less(health.heard_ns, health.answered_ns);
    let last_proof_ns = either(answered_last, health.answered_ns, health.heard_ns);
    let tie = either(proven, place as u64, TIES - (last_proof_ns & TIES));
    rank << RANK_SHIFT | tie
}

/// The path with the smaller preference; of equals the second.
#[inline(always)]
pub const fn better(
    (path, preference): (u32, u64),
    (other, of_other): (u32, u64),
    moment: Moment,
) -> (u32, u64) {
    let mask = moment.is_less(preference, of_other);
    let path = either(mask, path as u64, other as u64) as u32;
    (path, either(mask, preference, of_other))
}

/// `path` if it should have been heard of and was not, by its preference, else `other`.
#[inline(always)]
pub const fn if_silent(preference: u64, path: u32, other: u32, moment: Moment) -> u32 {
    let below = (Standing::Silent.rank() << RANK_SHIFT) - 1;
    let mask = moment.is_less(below, preference);
    either(mask, path as u64, other as u64) as u32
}

/// Whether the path with this preference is proven.
#[inline(always)]
pub const fn is_proven(preference: u64) -> bool {
    preference >> RANK_SHIFT <= Standing::Proven.rank()
}

/// Whether the path with this preference should have been heard of, and was not.
#[inline(always)]
pub const fn is_silent(preference: u64) -> bool {
    preference >> RANK_SHIFT == Standing::Silent.rank()
}

/// The stamp of a thing that goes on, and since when it does; `None` while both are young enough.
#[inline(always)]
pub const fn renewed(
    stamp_ns: u64,
    since_ns: u64,
    break_ns: u64,
    now_ns: u64,
) -> Option<(u64, u64)> {
    if is_within(stamp_ns, STAMP_NS, now_ns) {
        return None;
    }
    if is_within(stamp_ns, break_ns, now_ns) {
        Some((now_ns, since_ns))
    } else {
        Some((now_ns, now_ns))
    }
}

/// When packets went last into a silent path, as far as it shall count now that they take another: the
/// silence is forgotten after the time that the other has to answer. `None`: it counts no longer anyway.
#[inline(always)]
pub const fn left(sent_ns: u64, now_ns: u64) -> Option<u64> {
    let until = now_ns.saturating_sub(IDLE_NS - PATIENCE_NS);
    if sent_ns > until { Some(until) } else { None }
}

/// Since when packets go into a path without an answer: silence is counted from the first packet after
/// the last that was heard.
#[inline(always)]
pub const fn sending_since(heard_ns: u64, since_ns: u64, now_ns: u64) -> u64 {
    if heard_ns >= since_ns {
        now_ns
    } else {
        since_ns
    }
}

/// Since when a path is proven that is proven again now.
#[inline(always)]
pub const fn proven_since(last_ns: u64, since_ns: u64, now_ns: u64) -> u64 {
    if is_within(last_ns, PATIENCE_NS, now_ns) {
        since_ns
    } else {
        now_ns
    }
}

/// When the probe was sent that an answer with this nonce belongs to, if one of the last few has it and
/// neither it nor a younger one was answered: an answer counts once.
#[inline(always)]
pub const fn answered_probe(probes: &Probes, nonce: u64, answered_sent_ns: u64) -> Option<u64> {
    let mut at = 0;
    while at < Probes::KEPT {
        let sent = probes.sent[at];
        if sent.nonce == nonce && sent.sent_ns > answered_sent_ns {
            return Some(sent.sent_ns);
        }
        at += 1;
    }
    None
}

/// Probes of one peer that are answered in a second; more than that is no prober of ours.
pub const REFLECTED_PER_SECOND: u64 = 1000;
const SECOND_NS: u64 = 1_000_000_000;

/// Counts one probe of a peer: the second that is being counted and its count with this one, or `None`
/// when the peer had its share.
#[inline(always)]
pub const fn reflected(second_ns: u64, count: u64, now_ns: u64) -> Option<(u64, u64)> {
    if second_ns == 0 || now_ns.saturating_sub(second_ns) >= SECOND_NS {
        return Some((now_ns, 1));
    }
    if count < REFLECTED_PER_SECOND {
        Some((second_ns, count + 1))
    } else {
        None
    }
}
