//! Frames of one sender at a time, sent and looked for.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::cast;
use super::crew::{Crew, Drops, Proven};
use super::journey::{Fate, Journey};
use super::stage::{Stage, StageNode, StagePod};
use super::tally::{Tally, label};
use crate::child::poll_until;
use crate::fuzz::corpus;
use crate::fuzz::generate::{Generator, Speaker};
use crate::fuzz::input::Input;
use crate::fuzz::random::Random;
use crate::live::are_steady;
use crate::packet::{Mac, describe};
use crate::testrun::Program;
use crate::testrun::actors::NIC_MAC;
use crate::testrun::exchange::kernel_time_ns;

/// Records live that long; well below the age at which they would be renewed.
const TURNS_PER_BATCH: usize = 12;
const DRAWS_PER_TURN: usize = 20;
/// How long a frame may be under way on a busy machine.
const LIMIT: Duration = Duration::from_secs(4);
/// No socket tells of a packet that is dropped and counted: so long after the last frame the counters
/// are read again.
const LOOK_AGAIN: Duration = Duration::from_micros(200);
/// Nobody's: a host overhears a frame for it, and drops it.
const NOBODYS_MAC: Mac = [0x02, 0, 0, 0, 0, 0x77];
const ICMP: u8 = 1;
/// The addresses of the packet in a tunnel packet.
const INNER_ENDS: std::ops::Range<usize> = 76..84;
const EVERYBODY: Mac = [0xff; 6];
/// For paths to be proven for long enough to be taken.
const STEADY_LIMIT: Duration = Duration::from_secs(60);

/// Who sends.
#[derive(Clone, Copy, Debug)]
pub enum Sender {
    /// A pod of a slice, into its own interface.
    Pod,
    /// A pod of none, on a bridge with pods of one.
    Stranger,
    /// Somebody on the underlay who mostly says what a node would.
    Underlay,
    /// A node that speaks for whatever others have.
    WrongPeer,
    /// An address of the underlay that is no node's.
    UnknownHost,
}

const SENDERS: [Sender; 8] = [
    Sender::Pod,
    Sender::Pod,
    Sender::Pod,
    Sender::Stranger,
    Sender::Underlay,
    Sender::Underlay,
    Sender::WrongPeer,
    Sender::UnknownHost,
];

/// A replay on a stage, which must have agents on all nodes and no receive steering.
pub struct Replay<'t> {
    stage: &'t Stage,
    crew: Crew,
    journey: Journey<'t>,
    generator: Generator,
    speakers: Vec<Speaker>,
    random: Random,
    counted: Drops,
    pub tally: Tally,
}

/// One sender's frames, each with what should become of it.
struct Turn<'t> {
    from: Origin<'t>,
    /// Under whose address those in tunnels come, where that is one for all.
    underlay_source: Option<[u8; 4]>,
    sent: Vec<(Input, Fate)>,
}

/// What came of it.
struct Seen {
    arrived: Vec<(&'static str, Vec<u8>)>,
    /// All that nodes dropped, so far.
    dropped: Drops,
}

#[derive(Clone, Copy)]
enum Origin<'t> {
    Pod(&'t StagePod),
    Beside(&'t StageNode),
}

impl<'t> Replay<'t> {
    /// Opens every socket. The models believe what the stage's nodes said when it was set.
    /// # Errors  when something of the stage is not there.
    pub fn new(stage: &'t Stage, seed: u64) -> Result<Self> {
        let cast = cast::of(stage)?;
        let crew = Crew::assemble(stage)?;
        crew.forget()?;
        Ok(Self {
            stage,
            counted: crew.dropped()?,
            crew,
            journey: Journey::over(stage),
            speakers: cast.speakers.clone(),
            generator: Generator::new(seed, cast),
            random: Random::new(!seed),
            tally: Tally::default(),
        })
    }

    /// Sends so many frames or a few more, and looks for all of them; fewer, when too many are lost.
    /// # Errors  when one cannot be sent, or a capture missed some.
    pub fn run(&mut self, frames: u64) -> Result<()> {
        let end = self.tally.sent + frames;
        let void_max = self.tally.void + frames;
        while self.tally.sent < end && !self.tally.has_lost_enough() {
            ensure!(
                self.tally.void < void_max,
                "paths break all the time: {}",
                self.tally
            );
            self.play_batch()?;
        }
        Ok(())
    }

    /// Turns without records from before. A path that breaks ends them: the next packets may take another,
    /// and no model knows which.
    fn play_batch(&mut self) -> Result<()> {
        let proven = self.wait_until_steady()?;
        self.crew.forget()?;
        self.journey.restart(kernel_time_ns()?);
        for _ in 0..TURNS_PER_BATCH {
            let sender = self.random.pick(&SENDERS);
            if matches!(sender, Sender::Stranger) && self.stage.stranger.is_none() {
                continue;
            }
            let turn = self.play(sender)?;
            let seen = self.see(&turn)?;
            if self.crew.proven_since()? != proven {
                self.tally.void += turn.sent.len() as u64;
                self.counted = seen.dropped;
                break;
            }
            self.judge(&turn, seen);
        }
        Ok(())
    }

    /// Waits until every path that is probed is taken when it is preferred. Returns since when they are proven.
    fn wait_until_steady(&self) -> Result<Proven> {
        let steady = poll_until(STEADY_LIMIT, || {
            let proven = self.crew.proven_since()?;
            Ok(are_steady(proven.values())?.then_some(proven))
        })?;
        steady.context("not all paths are proven without a break")
    }

    fn play(&mut self, sender: Sender) -> Result<Turn<'t>> {
        let stage = self.stage;
        let stranger = || stage.pod(stage.stranger.context("a stranger on a bridge")?);
        let mut speakers = self.speakers.clone();
        let mut program = Program::UnderlayIngress;
        let mut underlay_source = None;
        match sender {
            Sender::Pod => {
                program = Program::PodEgress;
                speakers.retain(|it| stage.is_at_home(it.device, it.node));
            }
            Sender::Stranger => {
                program = Program::PodIngress;
                let cluster = stage.node(stranger()?.node)?.cluster;
                speakers.retain(|it| {
                    stage
                        .node_at(it.node)
                        .is_some_and(|at| at.cluster == cluster)
                });
            }
            Sender::Underlay => {}
            Sender::WrongPeer => underlay_source = Some(self.random.pick(&stage.nodes()).underlay),
            Sender::UnknownHost => {
                underlay_source = Some(self.random.pick(&stage.unknown_hosts));
            }
        }
        let speaker = self.random.pick(&speakers);
        let from = match sender {
            Sender::Pod => Origin::Pod(stage.pod(speaker.device)?),
            Sender::Stranger => Origin::Pod(stranger()?),
            _ => Origin::Beside(stage.node_at(speaker.node).context("a node")?),
        };
        let mut turn = Turn {
            from,
            underlay_source,
            sent: Vec::new(),
        };
        for _ in 0..DRAWS_PER_TURN {
            for input in self
                .generator
                .next_about(program, &speaker, underlay_source)
            {
                self.send(&mut turn, input, &speaker)?;
            }
        }
        Ok(turn)
    }

    fn send(&mut self, turn: &mut Turn<'t>, input: Input, speaker: &Speaker) -> Result<()> {
        let Some(input) = self.as_sent(turn.from, input, speaker) else {
            return Ok(());
        };
        let node = match turn.from {
            Origin::Pod(pod) => pod.node,
            Origin::Beside(node) => node.name,
        };
        let fate = self.journey.fate(node, &input)?;
        match turn.from {
            Origin::Pod(pod) => self.crew.send_from_pod(pod.name, &input.frame)?,
            // What is none of our programs' business a node would route on: that is not ours to judge.
            Origin::Beside(_) if fate.is_left_to_host => return Ok(()),
            Origin::Beside(node) => self.crew.send_to_node(node.name, &input.frame)?,
        }
        turn.sent.push((input, fate));
        Ok(())
    }

    /// The input as this sender can send it: under right link-layer addresses, else the network between
    /// decides. Nothing for what no host takes for IPv4.
    fn as_sent(&self, from: Origin, input: Input, speaker: &Speaker) -> Option<Input> {
        let mut frame = input.frame;
        let ethertype = match frame.get(12..14)? {
            // The kernel drops a tagged frame that ends within two bytes behind the type (skb_vlan_untag),
            // and counts it nowhere.
            [0x81, 0x00] | [0x88, 0xa8] => frame.get(16..20)?.get(..2)?,
            untagged => untagged,
        };
        if ethertype != [0x08, 0x00] {
            return None;
        }
        let mut device = input.device;
        let mut program = input.program;
        match from {
            Origin::Pod(pod) if pod.member.is_none() => {
                (program, device) = (Program::PodEgress, pod.name);
                // Bridges look into what is for a multicast group, and drop what is malformed.
                let is_for_a_group = frame[0] & 1 == 1;
                let to = if is_for_a_group {
                    EVERYBODY
                } else {
                    speaker.mac
                };
                frame[..6].copy_from_slice(&to);
                frame[6..12].copy_from_slice(&pod.mac);
            }
            Origin::Pod(pod) => {
                device = pod.name;
                let stranger = self
                    .stage
                    .stranger
                    .and_then(|name| self.stage.pod(name).ok());
                let beside = stranger.filter(|it| it.node == pod.node);
                let to = beside.map_or(NOBODYS_MAC, |it| it.mac);
                frame[..6].copy_from_slice(&to);
                frame[6..12].copy_from_slice(&speaker.mac);
            }
            Origin::Beside(_) if frame[..6] != NIC_MAC => return None,
            Origin::Beside(_) => {}
        }
        Some(Input {
            program,
            device,
            came_in_by: None,
            gso_bytes: 0,
            mark: 0,
            frame,
        })
    }

    /// Waits for everything that should come of a turn, and gives what did.
    fn see(&self, turn: &Turn) -> Result<Seen> {
        let ends = |fate: &Fate| (fate.delivered.len() + fate.dropped.len()) as u64;
        let awaited: u64 = turn.sent.iter().map(|(_, fate)| ends(fate)).sum();
        let mut arrived = Vec::new();
        let deadline = Instant::now() + LIMIT;
        loop {
            arrived.extend(self.crew.arrived()?);
            let dropped = self.crew.dropped()?;
            let counted = dropped
                .keys()
                .map(|key| since(&dropped, &self.counted, key));
            // In all: one that arrives where it should have been dropped is not waited for.
            let is_all = arrived.len() as u64 + counted.sum::<u64>() >= awaited;
            if is_all || Instant::now() >= deadline {
                return Ok(Seen { arrived, dropped });
            }
            self.crew.wait_for_frames(LOOK_AGAIN)?;
        }
    }

    fn judge(&mut self, turn: &Turn, seen: Seen) {
        let mut due = Drops::new();
        for key in turn.sent.iter().flat_map(|(_, fate)| &fate.dropped) {
            *due.entry(*key).or_default() += 1;
        }
        let missing = self.compare_deliveries(turn, &seen.arrived);
        self.compare_drops(turn, &due, &seen.dropped, missing);
        self.counted = seen.dropped;
        self.tally.sent += turn.sent.len() as u64;
        let left = turn.sent.iter().filter(|(_, fate)| fate.is_left_to_host);
        self.tally.left_to_host += left.count() as u64;
    }

    /// Returns how many did not arrive, less those that arrived elsewhere or otherwise.
    fn compare_deliveries(&mut self, turn: &Turn, arrived: &[(&'static str, Vec<u8>)]) -> u64 {
        let mut awaited: BTreeMap<(&str, &[u8]), Vec<usize>> = BTreeMap::new();
        for (at, (_, fate)) in turn.sent.iter().enumerate() {
            for (pod, frame) in &fate.delivered {
                awaited.entry((pod, frame)).or_default().push(at);
            }
        }
        let (mut wrong, tally, stage) = (0_u64, &mut self.tally, self.stage);
        for (pod, frame) in arrived {
            let known = awaited.get_mut(&(*pod, &frame[..])).and_then(Vec::pop);
            let input = known.map(|at| &turn.sent[at].0);
            if stage.is_forged(turn, input, pod, frame) {
                tally.forged_accepted += 1;
                tally.complain(|| {
                    let of = input.map(corpus::line).unwrap_or_default();
                    format!("{pod} got under a foreign name\n{}of {of}", describe(frame))
                });
            }
            if known.is_some() && stage.is_within_slice(turn, pod) {
                tally.delivered += 1;
                continue;
            }
            wrong += 1;
            tally.complain(|| format!("{pod} got what nobody may send it:\n{}", describe(frame)));
        }
        tally.wrong_deliveries += wrong;
        let mut missing = 0_u64;
        for ((pod, frame), inputs) in &awaited {
            for at in inputs {
                missing += 1;
                tally.complain(|| {
                    let input = corpus::line(&turn.sent[*at].0);
                    format!("{pod} did not get\n{}of {input}", describe(frame))
                });
            }
        }
        missing.saturating_sub(wrong)
    }

    fn compare_drops(&mut self, turn: &Turn, due: &Drops, now: &Drops, missing: u64) {
        let (mut short, mut surplus) = (0, 0);
        for key in due
            .keys()
            .chain(now.keys().filter(|key| !due.contains_key(key)))
        {
            let wanted = due.get(key).copied().unwrap_or(0);
            let found = since(now, &self.counted, key);
            self.tally.saw_drops(key.1, found.min(wanted));
            short += wanted.saturating_sub(found);
            surplus += found.saturating_sub(wanted);
            if found != wanted {
                let (node, reason) = (key.0, label(key.1));
                self.tally.complain(|| {
                    let mut inputs = turn
                        .sent
                        .iter()
                        .filter(|(_, fate)| fate.dropped.contains(key));
                    let first = inputs.next().map(|(input, _)| corpus::line(input));
                    let first = first.unwrap_or_default();
                    format!("{node}: {found} dropped as {reason}, not {wanted}, such as\n{first}")
                });
            }
        }
        self.tally.misjudged += surplus;
        self.tally.unaccounted += (missing + short).saturating_sub(surplus);
    }
}

fn since(now: &Drops, before: &Drops, key: &(&'static str, slice_common::layout::DropKey)) -> u64 {
    let of = |drops: &Drops| drops.get(key).copied().unwrap_or(0);
    of(now) - of(before)
}

impl Stage {
    fn nodes(&self) -> Vec<&StageNode> {
        self.nodes.iter().collect()
    }

    /// Whether a frame got into a pod under a name that is not its sender's, by the inventory.
    fn is_forged(&self, turn: &Turn, input: Option<&Input>, pod: &str, frame: &[u8]) -> bool {
        let Some(&[a, b, c, d]) = frame.get(26..30) else {
            return false;
        };
        let source = [a, b, c, d];
        match turn.from {
            // What it gets back are answers to what it sent; strangers may say what they want to each other.
            Origin::Pod(sender) if sender.name == pod || self.stranger == Some(pod) => false,
            Origin::Pod(sender) => sender.member.is_some_and(|(_, own)| own != source),
            Origin::Beside(at) => {
                let node = input.map(|it| [it.frame[26], it.frame[27], it.frame[28], it.frame[29]]);
                let node = node.or(turn.underlay_source);
                // A gateway tells the sender that a packet did not get on, as from its destination.
                let is_told = |ends: &[u8]| frame[23] == ICMP && ends[4..] == source;
                let ends = input.and_then(|it| it.frame.get(INNER_ENDS));
                let source = match ends.filter(|ends| at.is_gateway && is_told(ends)) {
                    Some(ends) => [ends[0], ends[1], ends[2], ends[3]],
                    None => source,
                };
                node.is_some_and(|node| !self.is_entitled(at.name, node, source))
            }
        }
    }

    /// Whether the pod may get anything at all from this sender.
    fn is_within_slice(&self, turn: &Turn, pod: &str) -> bool {
        let slice = |pod: &StagePod| pod.member.map(|member| member.0);
        let to = self.pod(pod).ok().and_then(slice);
        match turn.from {
            Origin::Pod(sender) => slice(sender).is_none() || to.is_none() || slice(sender) == to,
            Origin::Beside(_) => to.is_some(),
        }
    }
}
