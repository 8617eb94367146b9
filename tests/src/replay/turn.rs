//! Frames of one sender at a time, sent and looked for.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::cast;
use super::crew::{Crew, Drops};
use super::journey::{Fate, Journey, NodeTables};
use super::tally::{Tally, label};
use crate::fuzz::corpus;
use crate::fuzz::generate::{Generator, Speaker};
use crate::fuzz::input::Input;
use crate::fuzz::random::Random;
use crate::lab::Lab;
use crate::lab::inventory::{CLUSTERS, NODES, NodeSpec, PODS, PodSpec, SLICES, blocks, find_pod};
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
const EVERYBODY: Mac = [0xff; 6];
/// A pod on a bridge, in no slice.
const STRANGER: &str = "stranger-2";

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

/// A replay in the lab, which must have agents on all nodes and no receive steering.
pub struct Replay<'t> {
    crew: Crew,
    journey: Journey<'t>,
    generator: Generator,
    speakers: Vec<Speaker>,
    stranger: Mac,
    random: Random,
    counted: Drops,
    pub tally: Tally,
}

/// One sender's frames, each with what should become of it.
struct Turn {
    from: Origin,
    /// Under whose address those in tunnels come, where that is one for all.
    underlay_source: Option<[u8; 4]>,
    sent: Vec<(Input, Fate)>,
}

#[derive(Clone, Copy)]
enum Origin {
    Pod(&'static PodSpec),
    Beside(&'static NodeSpec),
}

impl<'t> Replay<'t> {
    /// Opens every socket. The models believe `nodes`.
    /// # Errors  when something of the lab is not there.
    pub fn new(lab: &Lab, nodes: &'t [NodeTables], seed: u64) -> Result<Self> {
        let cast = cast::of_lab(nodes)?;
        let crew = Crew::assemble(lab, nodes)?;
        let strangers = nodes.iter().flat_map(|node| &node.pods);
        let stranger = strangers.into_iter().find(|(name, _)| *name == STRANGER);
        crew.forget()?;
        Ok(Self {
            counted: crew.dropped()?,
            crew,
            journey: Journey::over(nodes),
            speakers: cast.speakers.clone(),
            generator: Generator::new(seed, cast),
            stranger: stranger.context("a stranger on a bridge")?.1,
            random: Random::new(!seed),
            tally: Tally::default(),
        })
    }

    /// Sends so many frames or a few more, and looks for all of them; fewer, when too many are lost.
    /// # Errors  when one cannot be sent, or a capture missed some.
    pub fn run(&mut self, frames: u64) -> Result<()> {
        let end = self.tally.sent + frames;
        while self.tally.sent < end && !self.tally.has_lost_enough() {
            self.crew.forget()?;
            self.journey.restart(kernel_time_ns()?);
            for _ in 0..TURNS_PER_BATCH {
                let sender = self.random.pick(&SENDERS);
                let turn = self.play(sender)?;
                self.settle(&turn)?;
            }
        }
        Ok(())
    }

    fn play(&mut self, sender: Sender) -> Result<Turn> {
        let mut speaker = self.random.pick(&self.speakers);
        let mut program = Program::UnderlayIngress;
        let mut underlay_source = None;
        match sender {
            Sender::Pod => program = Program::PodEgress,
            Sender::Stranger => {
                program = Program::PodIngress;
                let on_bridge =
                    |it: &&Speaker| node_of(it.device).cluster == node_of(STRANGER).cluster;
                let there: Vec<_> = self.speakers.iter().filter(on_bridge).copied().collect();
                speaker = self.random.pick(&there);
            }
            Sender::Underlay => {}
            Sender::WrongPeer => {
                underlay_source = Some(self.random.pick(&NODES).underlay().octets());
            }
            Sender::UnknownHost => {
                let gateway = self.random.pick(&CLUSTERS).gateway().octets();
                underlay_source = Some(self.random.pick(&[gateway, [203, 0, 113, 9]]));
            }
        }
        let from = match sender {
            Sender::Pod => Origin::Pod(pod_named(speaker.device)),
            Sender::Stranger => Origin::Pod(pod_named(STRANGER)),
            _ => Origin::Beside(node_of(speaker.device)),
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

    fn send(&mut self, turn: &mut Turn, input: Input, speaker: &Speaker) -> Result<()> {
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
            [0x81, 0x00] | [0x88, 0xa8] => frame.get(16..18)?,
            untagged => untagged,
        };
        if ethertype != [0x08, 0x00] {
            return None;
        }
        let mut device = input.device;
        let mut program = input.program;
        match from {
            Origin::Pod(pod) if pod.name == STRANGER => {
                (program, device) = (Program::PodEgress, STRANGER);
                // Bridges look into what is for a multicast group, and drop what is malformed.
                let is_for_a_group = frame[0] & 1 == 1;
                let to = if is_for_a_group {
                    EVERYBODY
                } else {
                    speaker.mac
                };
                frame[..6].copy_from_slice(&to);
                frame[6..12].copy_from_slice(&self.stranger);
            }
            Origin::Pod(pod) => {
                device = pod.name;
                let is_beside_stranger = pod.node == node_of(STRANGER).name;
                let to = if is_beside_stranger {
                    self.stranger
                } else {
                    NOBODYS_MAC
                };
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

    /// Waits for everything that should come of a turn, and looks at what did.
    fn settle(&mut self, turn: &Turn) -> Result<()> {
        let mut due = Drops::new();
        for key in turn.sent.iter().flat_map(|(_, fate)| &fate.dropped) {
            *due.entry(*key).or_default() += 1;
        }
        let ends = |fate: &Fate| (fate.delivered.len() + fate.dropped.len()) as u64;
        let awaited: u64 = turn.sent.iter().map(|(_, fate)| ends(fate)).sum();
        let mut arrived = Vec::new();
        let deadline = Instant::now() + LIMIT;
        let now = loop {
            arrived.extend(self.crew.arrived()?);
            let now = self.crew.dropped()?;
            let counted: u64 = now.keys().map(|key| since(&now, &self.counted, key)).sum();
            // In all: one that arrives where it should have been dropped is not waited for.
            let is_all = arrived.len() as u64 + counted >= awaited;
            if is_all || Instant::now() >= deadline {
                break now;
            }
            self.crew.wait_for_frames(LOOK_AGAIN)?;
        };
        let missing = self.compare_deliveries(turn, &arrived);
        self.compare_drops(turn, &due, &now, missing);
        self.counted = now;
        self.tally.sent += turn.sent.len() as u64;
        let left = turn.sent.iter().filter(|(_, fate)| fate.is_left_to_host);
        self.tally.left_to_host += left.count() as u64;
        Ok(())
    }

    /// Returns how many did not arrive, less those that arrived elsewhere or otherwise.
    fn compare_deliveries(&mut self, turn: &Turn, arrived: &[(&'static str, Vec<u8>)]) -> u64 {
        let mut awaited: BTreeMap<(&str, &[u8]), Vec<usize>> = BTreeMap::new();
        for (at, (_, fate)) in turn.sent.iter().enumerate() {
            for (pod, frame) in &fate.delivered {
                awaited.entry((pod, frame)).or_default().push(at);
            }
        }
        let (mut wrong, tally) = (0_u64, &mut self.tally);
        for (pod, frame) in arrived {
            let known = awaited.get_mut(&(*pod, &frame[..])).and_then(Vec::pop);
            let input = known.map(|at| &turn.sent[at].0);
            if is_forged(turn, input, pod, frame) {
                tally.forged_accepted += 1;
            }
            if known.is_some() && is_within_slice(turn, pod) {
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

/// Whether a frame got into a pod under a name that is not its sender's, by what the lab's inventory says
/// about who is who.
fn is_forged(turn: &Turn, input: Option<&Input>, pod: &str, frame: &[u8]) -> bool {
    let Some(source) = frame.get(26..30) else {
        return false;
    };
    match turn.from {
        // What it gets back are answers to what it sent; strangers may say what they want to each other.
        Origin::Pod(sender) if sender.name == pod || pod == STRANGER => false,
        Origin::Pod(sender) => {
            let slice_address = sender.slice_address().map(|it| it.octets());
            slice_address.is_some_and(|own| own[..] != *source)
        }
        Origin::Beside(_) => {
            let node = input.map(|it| [it.frame[26], it.frame[27], it.frame[28], it.frame[29]]);
            let node = node.or(turn.underlay_source);
            node.is_some_and(|node| !may_speak_for(node, source))
        }
    }
}

fn may_speak_for(node: [u8; 4], source: &[u8]) -> bool {
    let source = u32::from_be_bytes([source[0], source[1], source[2], source[3]]);
    let node = NODES.iter().find(|it| it.underlay().octets() == node);
    let holds = |first: std::net::Ipv4Addr| u32::from(first) == source & !7;
    node.is_some_and(|node| {
        let blocks = blocks();
        let mut own = blocks.iter().filter(|block| block.node == node.name);
        own.any(|block| holds(block.first))
    })
}

/// Whether the pod may get anything at all from this sender.
fn is_within_slice(turn: &Turn, pod: &str) -> bool {
    let slice = |pod: &PodSpec| pod.member.map(|member| member.slice);
    match turn.from {
        Origin::Pod(sender) => {
            let (from, to) = (slice(sender), slice(pod_named(pod)));
            from.is_none() || to.is_none() || from == to
        }
        Origin::Beside(_) => SLICES
            .iter()
            .any(|it| Some(it.name) == slice(pod_named(pod))),
    }
}

fn node_of(pod: &str) -> &'static NodeSpec {
    pod_named(pod).node()
}

fn pod_named(name: &str) -> &'static PodSpec {
    find_pod(name).unwrap_or(&PODS[0])
}
