//! One packet for one program, and what becomes of it.

use slice_common::drop_reason::DropReason;
use slice_common::layout::{CounterKey, DropKey, FirstFragment, FragmentKey, PathEnds, ReplyKey};

use crate::testrun::Program;
use crate::testrun::state::PathNote;

/// What goes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    pub program: Program,
    pub device: &'static str,
    /// Where the host got the packet from; `None`: it made it itself.
    pub came_in_by: Option<&'static str>,
    /// Payload bytes of each segment; 0: no segmentation offload.
    pub gso_bytes: u32,
    pub mark: u32,
    pub frame: Vec<u8>,
}

/// How a packet ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Goes on byte for byte as it came.
    Untouched,
    /// Was judged and goes on in the host's stack, looking like this.
    LeftToHost(Vec<u8>),
    /// Is handed on looking like this.
    Redirected(Vec<u8>),
    /// Nobody sees it any more.
    Dropped,
}

/// All that comes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forecast {
    pub ending: Ending,
    pub mark: u32,
    /// Inner bytes of the one packet that is counted.
    pub counted: Option<(CounterKey, u64)>,
    /// Also of a packet whose sender gets an answer.
    pub dropped: Option<DropKey>,
    /// The record of an answer that is welcome from now on, where one is written.
    pub remembered: Option<ReplyKey>,
    /// What is noted of a datagram's first part, where that is new.
    pub noted: Option<(FragmentKey, FirstFragment)>,
    /// The path that takes no more than so many bytes from now on.
    pub narrowed: Option<(PathEnds, u32)>,
    /// What is noted of a path.
    pub path: Option<(u32, PathNote)>,
    /// The shaper's place for the class that the packet is charged to, and its bytes on the link.
    pub shaped: Option<(u32, u64)>,
    /// The class of `htb` that it is sent to.
    pub queue: Option<u32>,
    /// Whose record the shaper keeps for it: the owner's word.
    pub record: Option<u64>,
}

impl Forecast {
    pub(super) fn untouched(mark: u32) -> Self {
        Self {
            ending: Ending::Untouched,
            mark,
            counted: None,
            dropped: None,
            remembered: None,
            noted: None,
            narrowed: None,
            path: None,
            shaped: None,
            queue: None,
            record: None,
        }
    }

    pub(super) fn dropped(mark: u32, slice: u32, reason: DropReason) -> Self {
        Self {
            ending: Ending::Dropped,
            dropped: Some(DropKey {
                slice,
                reason: u32::from(reason.number()),
            }),
            ..Self::untouched(mark)
        }
    }
}
