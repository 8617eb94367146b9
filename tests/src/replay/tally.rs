//! What became of all frames together.

use std::collections::BTreeMap;
use std::fmt;

use slice_common::drop_reason::DropReason;
use slice_common::layout::DropKey;

/// Enough to see what is wrong.
const COMPLAINTS_MAX: usize = 8;
const LOST_MAX: u64 = 10;

/// Counts of frames.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub sent: u64,
    /// Copies that pods got as the model says; one frame may reach several pods, or none.
    pub delivered: u64,
    /// Dropped and counted as the model says, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Left to a host that has no use for them.
    pub left_to_host: u64,
    pub wrong_deliveries: u64,
    pub forged_accepted: u64,
    /// Neither arrived nor counted.
    pub unaccounted: u64,
    /// Counted as dropped though the model says otherwise.
    pub misjudged: u64,
    /// Sent while paths broke because this machine was too busy: nobody knows which way they took.
    pub void: u64,
    pub complaints: Vec<String>,
}

impl Tally {
    pub fn is_clean(&self) -> bool {
        self.wrong_deliveries + self.forged_accepted + self.unaccounted + self.misjudged == 0
    }

    /// Whether so much is lost that it takes too long to wait for it.
    pub(super) fn has_lost_enough(&self) -> bool {
        self.unaccounted >= LOST_MAX
    }

    pub(super) fn complain(&mut self, complaint: impl FnOnce() -> String) {
        if self.complaints.len() < COMPLAINTS_MAX {
            self.complaints.push(complaint());
        }
    }

    pub(super) fn saw_drops(&mut self, key: DropKey, count: u64) {
        *self.dropped.entry(label(key).to_owned()).or_default() += count;
    }
}

pub(super) fn label(key: DropKey) -> &'static str {
    let reason = u8::try_from(key.reason)
        .ok()
        .and_then(DropReason::from_number);
    reason.map_or("unknown reason", DropReason::label)
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dropped: u64 = self.dropped.values().sum();
        write!(
            f,
            "{} frames: {} deliveries, {dropped} drops for {} reasons, {} left to hosts; {} wrong \
             deliveries, {} forged accepted, {} unaccounted, {} misjudged, {} void",
            self.sent,
            self.delivered,
            self.dropped.len(),
            self.left_to_host,
            self.wrong_deliveries,
            self.forged_accepted,
            self.unaccounted,
            self.misjudged,
            self.void,
        )?;
        self.complaints
            .iter()
            .try_for_each(|it| write!(f, "\n{it}"))
    }
}
