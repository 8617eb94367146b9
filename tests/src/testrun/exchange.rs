//! One packet through one program, and everything that came of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use aya::programs::SchedClassifier;
use aya::{TestRun as _, TestRunOptions};
use slice_common::drop_reason::DropReason;
use slice_common::layout::{
    Counter, CounterKey, Direction, DropKey, FirstFragment, FragmentKey, NewExchangesKey, PathEnds,
    ReplyKey, ShaperCounts,
};
use slice_common::reply;

use super::actors::{TUNNEL_MARK, cluster};
use super::early;
use super::state::{Change, PathNote, State};
use super::world::World;
use crate::packet::{describe, describe_difference, faults};

/// The programs that take packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    PodEgress,
    PodIngress,
    UnderlayIngress,
    TunnelIngress,
    UnderlayGuard,
    UnderlayFilter,
}

impl Program {
    pub fn name(self) -> &'static str {
        match self {
            Self::PodEgress => "pod_egress",
            Self::PodIngress => "pod_ingress",
            Self::UnderlayIngress => "underlay_ingress",
            Self::TunnelIngress => "tunnel_ingress",
            Self::UnderlayGuard => "underlay_guard",
            Self::UnderlayFilter => "underlay_filter",
        }
    }
}

/// What the kernel does next with the packet.
pub(crate) const NEXT: i32 = -1;
pub(crate) const PASS: i32 = 0;
pub(crate) const DROP: i32 = 2;
pub(crate) const REDIRECT: i32 = 7;

/// Set on every packet that goes in: whoever changes them without being asked is seen.
pub(super) const MARK: u32 = 0x5011_ce00;
pub(crate) const PRIORITY: u32 = 6;

/// The headers of the tunnel: IPv4, UDP, VXLAN and Ethernet.
const TUNNEL_BYTES: usize = 20 + 8 + 8 + 14;

/// Everything that is allowed to come of a packet.
#[derive(Clone, Debug)]
pub struct Expected {
    code: i32,
    /// Not said for drops: nobody sees the bytes any more.
    frame: Option<Vec<u8>>,
    change: Change,
}

impl Expected {
    /// The packet goes on byte for byte as it came, and nothing is noted.
    pub fn untouched(frame: &[u8]) -> Self {
        Self {
            code: NEXT,
            frame: Some(frame.to_vec()),
            change: Change::default(),
        }
    }

    /// The packet was judged, and goes on looking like `frame` in the host's stack.
    pub fn left_to_host(frame: &[u8]) -> Self {
        Self {
            code: PASS,
            frame: Some(frame.to_vec()),
            change: Change::default(),
        }
    }

    /// The packet is handed on by a redirect, looking like `frame`.
    pub fn redirected(frame: &[u8]) -> Self {
        Self {
            code: REDIRECT,
            frame: Some(frame.to_vec()),
            change: Change::default(),
        }
    }

    /// The packet is dropped and counted once, for this slice (0: unknown) and reason.
    pub fn dropped(slice: u32, reason: DropReason) -> Self {
        let key = DropKey {
            slice,
            reason: u32::from(reason.number()),
        };
        let change = Change {
            dropped: [(key, 1)].into(),
            ..Change::default()
        };
        Self {
            code: DROP,
            frame: None,
            change,
        }
    }

    /// What the first fragment says is noted for the later ones.
    pub fn noted(mut self, key: FragmentKey, first: FirstFragment) -> Self {
        self.change.first_fragments.insert(key, first);
        self
    }

    /// What is handed on is an answer: the packet itself was dropped, and that is counted.
    pub fn but_dropped(mut self, slice: u32, reason: DropReason) -> Self {
        self.change.dropped = Self::dropped(slice, reason).change.dropped;
        self
    }

    /// One packet of this many inner bytes is counted.
    pub fn counted(
        mut self,
        slice: u32,
        peer_cluster: &str,
        class: u8,
        direction: Direction,
        bytes: usize,
    ) -> Self {
        let direction = direction.number();
        let key = CounterKey {
            slice,
            cluster: cluster(peer_cluster),
            class,
            direction,
            reserved: 0,
        };
        self.change.counted.insert(
            key,
            Counter {
                packets: 1,
                bytes: bytes as u64,
            },
        );
        self
    }

    /// The path takes no more than so many bytes from now on.
    pub fn narrowed(mut self, path: PathEnds, mtu_bytes: u32) -> Self {
        self.change.narrowed.insert(path, mtu_bytes);
        self
    }

    /// Nothing more comes of the packet, and it is no drop.
    pub fn taken() -> Self {
        Self {
            code: DROP,
            frame: None,
            change: Change::default(),
        }
    }

    /// This is noted of a path.
    pub fn noted_path(mut self, path: u32, note: PathNote) -> Self {
        self.change.paths.insert((path, note));
        self
    }

    /// The packet took a path of this group that nothing proves.
    pub fn unproven(mut self, group: u32) -> Self {
        self.change.unproven.insert(group, 1);
        self
    }

    /// The shaper counts this at one of its places for classes.
    pub fn shaped(mut self, place: u32, counts: ShaperCounts) -> Self {
        self.change.shaped.insert(place, counts);
        self
    }

    /// The reply with these properties will be welcome for the next minute.
    pub fn remembered(mut self, reply: ReplyKey) -> Self {
        self.change.remembered.insert(reply);
        self
    }
}

/// A packet on its way.
pub struct Sent<'w> {
    pub(super) world: &'w mut World,
    pub(super) scene: String,
    pub(super) program: Program,
    pub(super) device: &'static str,
    pub(super) gso_bytes: u32,
    pub(super) mark: u32,
    /// Where the host got the packet from; `None`: it made it itself.
    pub(super) came_in_by: Option<&'static str>,
    /// When its sender wants it to leave, in kernel nanoseconds; 0: at once.
    pub(super) departure_ns: u64,
    /// How much of the frame lies in the first buffer; `None`: as much as there is room.
    pub(super) first_buffer_bytes: Option<usize>,
    pub(super) frame: Vec<u8>,
}

/// How the program left the packet.
struct Ended {
    code: i32,
    frame: Vec<u8>,
    mark: u32,
    priority: u32,
    departure_ns: u64,
    took: Duration,
}

impl early::Passed {
    /// There is no mark yet where this program runs.
    fn with_mark(self, mark: u32) -> Ended {
        let code = if self.passed { NEXT } else { DROP };
        Ended {
            code,
            frame: self.frame,
            mark,
            priority: PRIORITY,
            departure_ns: 0,
            took: self.took,
        }
    }
}

/// What came back.
#[derive(Debug)]
struct Outcome {
    code: i32,
    frame: Vec<u8>,
    mark: u32,
    priority: u32,
    departure_ns: u64,
    change: Change,
    late_replies: Vec<ReplyKey>,
    took: Duration,
}

impl Sent<'_> {
    /// Makes it a segmentation-offload packet with segments of this many payload bytes.
    pub fn segments_of(self, gso_bytes: u32) -> Self {
        Self { gso_bytes, ..self }
    }

    /// Makes it a packet that the host forwards and did not make itself.
    pub fn came_in_by(self, device: &'static str) -> Self {
        Self {
            came_in_by: Some(device),
            ..self
        }
    }

    /// Lets the driver write only this much of it into the first buffer.
    pub fn with_first_buffer_of(self, bytes: usize) -> Self {
        Self {
            first_buffer_bytes: Some(bytes),
            ..self
        }
    }

    /// Gives it the mark of what this node's programs put into the tunnel.
    pub fn marked_as_tunnelled(self) -> Self {
        Self {
            mark: TUNNEL_MARK,
            ..self
        }
    }

    /// Says when its sender wants it to leave.
    pub fn to_leave_at(self, departure_ns: u64) -> Self {
        Self {
            departure_ns,
            ..self
        }
    }

    /// Runs the program, which lets the packet go on, and returns when it is to leave and what it looks like
    /// then.
    pub fn departure(self) -> Result<(u64, Vec<u8>)> {
        let outcome = self.run()?;
        let mut complaints = String::new();
        if outcome.code != NEXT {
            let _ = writeln!(
                complaints,
                "expected next (-1), found {}\n{}",
                name_of(outcome.code),
                outcome.change.describe()
            );
        }
        for fault in faults(&outcome.frame) {
            let _ = writeln!(complaints, "what came out has a wrong {fault}");
        }
        self.judge(complaints)?;
        Ok((outcome.departure_ns, outcome.frame))
    }

    /// Runs the program, which lets the packet go on, and returns the class of `htb` that it is to wait in.
    pub fn queue(self) -> Result<u32> {
        let outcome = self.run()?;
        let mut complaints = String::new();
        if outcome.code != NEXT || outcome.departure_ns != self.departure_ns {
            let _ = writeln!(
                complaints,
                "expected next (-1) at once, found {} at {} ns\n{}",
                name_of(outcome.code),
                outcome.departure_ns,
                outcome.change.describe()
            );
        }
        if outcome.frame != self.frame {
            complaints.push_str(&describe_difference(&self.frame, &outcome.frame));
        }
        self.judge(complaints)?;
        Ok(outcome.priority)
    }

    /// Runs the program and compares everything.
    pub fn expect(self, expected: Expected) -> Result<()> {
        let outcome = self.run()?;
        let mut complaints = outcome.complaints_about_context(self.mark_afterwards(&outcome));
        if outcome.departure_ns != self.departure_ns {
            let _ = writeln!(complaints, "is to leave at {} ns", outcome.departure_ns);
        }
        if outcome.code != expected.code {
            let _ = writeln!(
                complaints,
                "return code: expected {}, found {}",
                name_of(expected.code),
                name_of(outcome.code)
            );
        }
        if outcome.change != expected.change {
            let (wanted, found) = (expected.change.describe(), outcome.change.describe());
            let _ = write!(complaints, "maps, expected:\n{wanted}maps, found:\n{found}");
        }
        if let Some(frame) = expected.frame.filter(|frame| *frame != outcome.frame) {
            let _ = write!(
                complaints,
                "{}",
                describe_difference(&frame, &outcome.frame)
            );
        }
        self.judge(complaints)
    }

    /// Runs the program and checks only that the packet is let through: the control of a drop scene,
    /// which shows that the packet reaches the stage in question and that only its fault is fatal.
    pub fn accepted(self) -> Result<()> {
        let outcome = self.run()?;
        let mut complaints = outcome.complaints_about_context(self.mark_afterwards(&outcome));
        if outcome.code == DROP || !outcome.change.dropped.is_empty() {
            let _ = write!(
                complaints,
                "control: dropped\n{}",
                outcome.change.describe()
            );
        }
        for fault in faults(&outcome.frame) {
            let _ = writeln!(complaints, "control: what came out has a wrong {fault}");
        }
        self.judge(complaints)
    }

    /// Runs the program and returns the frame that came out, for the next program on its way.
    pub fn passed_on(self) -> Result<Vec<u8>> {
        let outcome = self.run()?;
        let mut complaints = outcome.complaints_about_context(self.mark_afterwards(&outcome));
        if outcome.code != REDIRECT {
            let _ = write!(
                complaints,
                "expected a redirect, found {}\n{}",
                name_of(outcome.code),
                outcome.change.describe()
            );
        }
        let frame = outcome.frame;
        self.judge(complaints)?;
        Ok(frame)
    }

    /// Runs the program and returns how long it took; the packet must be handed on.
    pub fn time(self) -> Result<Duration> {
        let outcome = self.run()?;
        let took = outcome.took;
        if outcome.code != REDIRECT {
            self.judge(format!(
                "expected a redirect, found {}\n",
                name_of(outcome.code)
            ))?;
        }
        Ok(took)
    }

    /// What goes into the tunnel is marked, and nothing else changes any mark.
    fn mark_afterwards(&self, outcome: &Outcome) -> u32 {
        let longer_by = outcome.frame.len().saturating_sub(self.frame.len());
        match self.program {
            Program::PodEgress if longer_by == TUNNEL_BYTES => TUNNEL_MARK,
            Program::UnderlayIngress
                if outcome.code == REDIRECT && is_tunnelled(&outcome.frame) =>
            {
                TUNNEL_MARK
            }
            _ => self.mark,
        }
    }

    fn judge(&self, complaints: String) -> Result<()> {
        if complaints.is_empty() {
            return Ok(());
        }
        bail!(
            "{}: {} on {}\n{complaints}sent:\n{}",
            self.scene,
            self.program.name(),
            self.device,
            describe(&self.frame)
        )
    }

    fn run(&self) -> Result<Outcome> {
        let before = State::read(self.world.object())?;
        let earliest_ns = kernel_time_ns()?;
        let Ended {
            code,
            frame,
            mark,
            priority,
            departure_ns,
            took,
        } = match self.program {
            Program::UnderlayFilter => early::run(self.world, &self.frame, self.first_buffer_bytes)
                .with_context(|| format!("{}: test run of underlay_filter", self.scene))?
                .with_mark(self.mark),
            _ => self.run_in_traffic_control()?,
        };
        let after = State::read(self.world.object())?;
        let latest_ns = kernel_time_ns()?;
        let mut change = before.change_to(&after);
        let began = std::mem::take(&mut change.began);
        let expected = self.who_began(&before, &change, earliest_ns)?;
        if began != expected {
            let why = format!("new exchanges of {began:?}, not of {expected:?}");
            change.impossible.push(why);
        }
        let in_time = reply::expiry_ns(earliest_ns)..=reply::expiry_ns(latest_ns);
        let late = |key: &&ReplyKey| {
            !after
                .replies
                .get(key)
                .is_some_and(|ns| in_time.contains(ns))
        };
        let late_replies = change.remembered.iter().filter(late).copied().collect();
        Ok(Outcome {
            code,
            frame,
            mark,
            priority,
            departure_ns,
            change,
            late_replies,
            took,
        })
    }

    /// Every new record is counted against the pod that it was made at, but those of answers.
    fn who_began(
        &self,
        before: &State,
        change: &Change,
        now_ns: u64,
    ) -> Result<BTreeSet<NewExchangesKey>> {
        let begins = |key: &ReplyKey| begins(key, &before.replies, now_ns);
        if !change.remembered.iter().any(begins) {
            return Ok(BTreeSet::new());
        }
        let ifindex = self.world.ifindex(self.device)?;
        Ok(beginner(self.program, ifindex).into_iter().collect())
    }

    fn run_in_traffic_control(&self) -> Result<Ended> {
        let mut context_out = [0; CONTEXT_BYTES];
        let mut frame_out = vec![0; self.frame.len() + 512];
        let from = match self.came_in_by {
            Some(device) => self.world.ifindex(device)?,
            None => 0,
        };
        let context_in = self.context(self.world.ifindex(self.device)?, from);
        let program: &SchedClassifier = self
            .world
            .object()
            .program(self.program.name())
            .with_context(|| format!("the object has no program {}", self.program.name()))?
            .try_into()?;
        let result = program
            .test_run(TestRunOptions {
                data_in: Some(&self.frame),
                data_out: Some(&mut frame_out),
                ctx_in: Some(&context_in),
                ctx_out: Some(&mut context_out),
                repeat: 1,
                ..TestRunOptions::new()
            })
            .with_context(|| format!("{}: test run of {}", self.scene, self.program.name()))?;
        frame_out.truncate(result.data_size_out as usize);
        Ok(Ended {
            code: result.return_value.cast_signed(),
            frame: frame_out,
            mark: word(&context_out, MARK_OFFSET),
            priority: word(&context_out, PRIORITY_OFFSET),
            departure_ns: long_word(&context_out, DEPARTURE_OFFSET),
            took: result.duration,
        })
    }

    fn context(&self, ifindex: u32, ingress_ifindex: u32) -> [u8; CONTEXT_BYTES] {
        let mut context = [0; CONTEXT_BYTES];
        let segments = match self.gso_bytes {
            0 => 0,
            bytes => (self.frame.len() as u32).div_ceil(bytes),
        };
        for (offset, value) in [
            (MARK_OFFSET, self.mark),
            (PRIORITY_OFFSET, PRIORITY),
            (INGRESS_IFINDEX_OFFSET, ingress_ifindex),
            (IFINDEX_OFFSET, ifindex),
            (GSO_SEGMENTS_OFFSET, segments),
            (GSO_SIZE_OFFSET, self.gso_bytes),
        ] {
            context[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
        }
        let departure = &mut context[DEPARTURE_OFFSET..DEPARTURE_OFFSET + 8];
        departure.copy_from_slice(&self.departure_ns.to_ne_bytes());
        context
    }
}

/// Whether a packet with this record of its answer begins an exchange, by the records of questions before it.
pub(crate) fn begins(answer: &ReplyKey, before: &BTreeMap<ReplyKey, u64>, now_ns: u64) -> bool {
    let mut own = ReplyKey {
        source: answer.destination,
        destination: answer.source,
        ..*answer
    };
    // An echo's identifier is the same both ways.
    if answer.protocol != 1 {
        own.source_port = answer.destination_port;
        own.destination_port = answer.source_port;
    }
    let is_answer = before.get(&own).is_some_and(|until_ns| *until_ns > now_ns);
    !before.contains_key(answer) && !is_answer
}

/// Whose share a new record at a program is taken from: of nobody here if it came from another node.
pub(crate) fn beginner(program: Program, ifindex: u32) -> Option<NewExchangesKey> {
    match program {
        Program::PodEgress => Some(NewExchangesKey::of(ifindex)),
        Program::PodIngress => Some(NewExchangesKey::at(ifindex)),
        _ => None,
    }
}

// `struct __sk_buff` of linux/bpf.h, the fields that a test run may set.
pub(crate) const CONTEXT_BYTES: usize = 192;
pub(crate) const MARK_OFFSET: usize = 8;
pub(crate) const PRIORITY_OFFSET: usize = 32;
pub(crate) const INGRESS_IFINDEX_OFFSET: usize = 36;
pub(crate) const IFINDEX_OFFSET: usize = 40;
pub(crate) const DEPARTURE_OFFSET: usize = 152;
pub(crate) const GSO_SEGMENTS_OFFSET: usize = 164;
pub(crate) const GSO_SIZE_OFFSET: usize = 176;

impl Outcome {
    fn complaints_about_context(&self, mark: u32) -> String {
        let mut text = String::new();
        if (self.mark, self.priority) != (mark, PRIORITY) {
            let _ = writeln!(
                text,
                "mark and priority: expected {mark:#x} and {PRIORITY}, found {:#x} and {}",
                self.mark, self.priority
            );
        }
        for key in &self.late_replies {
            let _ = writeln!(
                text,
                "{key:?} does not expire {} ns from now",
                reply::LIFETIME_NS
            );
        }
        text
    }
}

fn name_of(code: i32) -> String {
    match code {
        NEXT => "next (-1)".to_owned(),
        PASS => "pass (0)".to_owned(),
        DROP => "drop (2)".to_owned(),
        REDIRECT => "redirect (7)".to_owned(),
        other => format!("{other}"),
    }
}

/// Whether a frame that came out of `underlay_ingress` is for another node.
fn is_tunnelled(frame: &[u8]) -> bool {
    frame[23] == 17 && frame[36..38] == 6085u16.to_be_bytes()
}

pub(crate) fn word(bytes: &[u8; CONTEXT_BYTES], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn long_word(bytes: &[u8; CONTEXT_BYTES], at: usize) -> u64 {
    let (low, high) = (word(bytes, at), word(bytes, at + 4));
    if cfg!(target_endian = "little") {
        u64::from(high) << 32 | u64::from(low)
    } else {
        u64::from(low) << 32 | u64::from(high)
    }
}

/// The clock that programs read.
pub(crate) fn kernel_time_ns() -> Result<u64> {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)?;
    Ok(now.tv_sec().cast_unsigned() * 1_000_000_000 + now.tv_nsec().cast_unsigned())
}
