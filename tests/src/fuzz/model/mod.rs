//! What should become of a packet, in plain Rust: written from the design, ARCHITECTURE.md ("A packet's
//! life") and the reference of drop reasons, to be compared with what the kernel programs do.
//!
//! One behaviour is one function. It shares with the programs the layouts of the maps, the numbers of
//! the drop reasons and the hash that spreads tunnels over ports, and nothing else.

mod conversation;
mod parts;
mod path;
mod pod;
mod probe;
mod read;
mod rewrite;
mod transit;
mod underlay;
mod wan;

use std::collections::BTreeMap;

use slice_common::drop_reason::DropReason;
use slice_common::layout::{CounterKey, Direction, FirstFragment, FragmentKey, PathEnds, ReplyKey};

use super::coverage::Coverage;
use super::input::{Ending, Forecast, Input};
use super::tables::Tables;
use crate::testrun::Program;
use crate::testrun::state::PathNote;

/// An answer is welcome this long after the last packet that it answers.
pub const LIFETIME_NS: u64 = 60_000_000_000;
/// A record is not written anew before it is this old.
const REFRESH_AFTER_NS: u64 = 5_000_000_000;

/// The node as it should be.
pub struct Model<'t> {
    tables: &'t Tables,
    /// Which answers are welcome, and until when.
    replies: BTreeMap<ReplyKey, u64>,
    /// What the first parts of datagrams said.
    first_parts: BTreeMap<FragmentKey, FirstFragment>,
    /// Paths that routers said to be narrower than configured.
    narrow: BTreeMap<PathEnds, u32>,
    /// By path: when the probe was sent that was answered last.
    answered: BTreeMap<u32, u64>,
    /// Kernel time. A batch of packets is so short that its records are of one age.
    now_ns: u64,
    pub coverage: Coverage,
}

/// What a program decides; all but `Untouched` belong to a slice.
enum Decision {
    Untouched,
    /// For the kernel's tunnel device to take out of the tunnel, or for the stack to deliver.
    LeftToHost(Vec<u8>),
    /// For the programs themselves.
    Taken,
    Redirected(Vec<u8>),
    /// Handed on inside the tunnel, so marked.
    Tunnelled(Vec<u8>),
    /// Dropped, but the sender gets this answer.
    Answered(DropReason, Vec<u8>),
    /// The same, in the tunnel that the packet came by.
    ToldInTunnel(DropReason, Vec<u8>),
}

/// What is known of a packet before its end.
#[derive(Default)]
struct Notes {
    slice: u32,
    counted: Option<(CounterKey, u64)>,
    remembered: Option<ReplyKey>,
    noted: Option<(FragmentKey, FirstFragment)>,
    narrowed: Option<(PathEnds, u32)>,
    path: Option<(u32, PathNote)>,
    shaped: Option<(u32, u64)>,
    queue: Option<u32>,
    record: Option<u64>,
}

type Judgement = Result<Decision, DropReason>;

impl<'t> Model<'t> {
    pub fn new(tables: &'t Tables, coverage: Coverage) -> Self {
        Self {
            tables,
            replies: BTreeMap::new(),
            first_parts: BTreeMap::new(),
            narrow: BTreeMap::new(),
            answered: BTreeMap::new(),
            now_ns: 0,
            coverage,
        }
    }

    /// Begins anew with these records.
    pub fn restart(&mut self, now_ns: u64, replies: &[(ReplyKey, u64)]) {
        self.now_ns = now_ns;
        self.replies = replies.iter().copied().collect();
        self.first_parts.clear();
        self.narrow.clear();
        self.answered.clear();
    }

    /// What becomes of a packet.
    pub fn forecast(&mut self, input: &Input) -> Forecast {
        let mut notes = Notes::default();
        let judgement = match input.program {
            Program::PodEgress => self.pod_egress(input, &mut notes),
            Program::PodIngress => self.pod_ingress(input, &mut notes),
            Program::UnderlayIngress => self.underlay_ingress(input, &mut notes),
            Program::UnderlayGuard => self.underlay_guard(input, &mut notes),
            Program::TunnelIngress => self.tunnel_ingress(input, &mut notes),
            Program::UnderlayFilter => self.underlay_filter(input),
        };
        let mark = input.mark;
        let forecast = match judgement {
            Ok(Decision::Untouched) => Forecast::untouched(mark),
            Ok(Decision::LeftToHost(frame)) => Forecast {
                ending: Ending::LeftToHost(frame),
                counted: notes.counted,
                ..Forecast::untouched(mark)
            },
            Ok(Decision::Taken) => Forecast {
                ending: Ending::Dropped,
                ..Forecast::untouched(mark)
            },
            Ok(Decision::Redirected(frame)) => Forecast {
                ending: Ending::Redirected(frame),
                counted: notes.counted,
                ..Forecast::untouched(mark)
            },
            Ok(Decision::Tunnelled(frame)) => Forecast {
                ending: Ending::Redirected(frame),
                counted: notes.counted,
                ..Forecast::untouched(self.tables.settings.tunnel_mark)
            },
            Ok(Decision::Answered(reason, frame)) => {
                self.coverage.saw(input.program, reason.label());
                Forecast {
                    ending: Ending::Redirected(frame),
                    ..Forecast::dropped(mark, notes.slice, reason)
                }
            }
            Ok(Decision::ToldInTunnel(reason, frame)) => {
                self.coverage.saw(input.program, reason.label());
                self.coverage.saw(input.program, "told in the tunnel");
                Forecast {
                    ending: Ending::Redirected(frame),
                    ..Forecast::dropped(self.tables.settings.tunnel_mark, notes.slice, reason)
                }
            }
            Err(reason) => {
                self.coverage.saw(input.program, reason.label());
                Forecast::dropped(mark, notes.slice, reason)
            }
        };
        self.coverage.saw(input.program, name(&forecast.ending));
        Forecast {
            remembered: notes.remembered,
            noted: notes.noted,
            narrowed: notes.narrowed,
            path: notes.path,
            shaped: notes.shaped,
            queue: notes.queue,
            record: notes.record,
            ..forecast
        }
    }

    fn saw(&mut self, input: &Input, what: &'static str) {
        self.coverage.saw(input.program, what);
    }
}

impl Notes {
    fn count(&mut self, cluster: u32, class: u8, direction: Direction, bytes: usize) {
        let key = CounterKey {
            slice: self.slice,
            cluster,
            class,
            direction: direction.number(),
            reserved: 0,
        };
        self.counted = Some((key, bytes as u64));
    }
}

/// A test run cannot say which protocol a segmentation-offload packet is of, and the kernel lets
/// nobody make room in one that it does not know.
fn has_room_for_tunnel(input: &Input) -> Result<(), DropReason> {
    if input.gso_bytes == 0 {
        Ok(())
    } else {
        Err(DropReason::HelperFailed)
    }
}

fn name(ending: &Ending) -> &'static str {
    match ending {
        Ending::Untouched => "untouched",
        Ending::LeftToHost(_) => "left to the host",
        Ending::Redirected(_) => "redirected",
        Ending::Dropped => "dropped",
    }
}
