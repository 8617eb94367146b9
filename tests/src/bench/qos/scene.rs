//! The lab with slice `kafka` under a profile, and what happens on its link from east to west.

use std::borrow::Borrow;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde::Deserialize as _;
use serde_yaml_ng::Value;

use super::course::{Course, Running, SAMPLE_INTERVAL};
use super::load::{ExchangeSpec, StreamSpec};
use super::report::Backend;
use crate::child::poll_until;
use crate::lab::inventory::{NODES, cluster_index};
use crate::lab::{Lab, LabOptions, Wan};
use crate::place::Place;
use crate::relay::{DirectionStats, Settings};

const ONE_WAY_DELAY: Duration = Duration::from_millis(5);
/// Ethernet's part of each packet on the link, gaps included.
const ETHERNET_BYTES: u64 = 38;
/// How long agents may take over a profile.
pub const RELOAD_LIMIT: Duration = Duration::from_secs(30);
/// First the queue is put there, then terms say so.
const BACKEND_LIMIT: Duration = Duration::from_secs(5);
const DRAIN_LIMIT: Duration = Duration::from_secs(20);

/// What slice `kafka` may send.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    pub ceiling_bps: u64,
    pub replication_percent: u64,
    pub client_percent: u64,
}

/// What one scenario did.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The most that the link carried in a second, from the first byte on.
    pub wire_bps_max_1s: f64,
    /// What each [`StreamSpec`] brought over, after the warm-up.
    pub streams_bps: Vec<f64>,
    /// The link as a whole, after the warm-up.
    pub wire_bps: f64,
    /// Of each [`ExchangeSpec`], sorted.
    pub times_ns: Vec<Vec<u64>>,
    /// How many packets of connections came to the link behind one that was sent later.
    pub reordered: u64,
    /// How late the lab's own link was, at the worst.
    pub relay_late_us_max: u64,
    /// All of it, the warm-up too.
    pub course: Course,
}

/// The lab, with agents: an own one, or one that is up.
#[derive(Debug)]
pub struct Scene<L: Borrow<Lab> = Lab> {
    lab: L,
    pub data: Place,
    pub fetcher: Place,
    direction: [usize; 2],
}

impl Scene {
    /// # Errors  when the lab does not come up.
    pub fn build(agent: &Path, options: LabOptions) -> Result<Self> {
        let lab = Lab::up(&LabOptions {
            wan: Wan::relay(Settings::with_delay(ONE_WAY_DELAY)),
            ..options
        })?;
        lab.start_agents(agent)?;
        Self::in_lab(lab)
    }
}

impl<L: Borrow<Lab>> Scene<L> {
    /// In a lab whose agents run.
    pub fn in_lab(lab: L) -> Result<Self> {
        let index = |cluster| cluster_index(cluster).with_context(|| format!("no {cluster}"));
        let place = |pod| lab.borrow().pod(pod)?.place();
        Ok(Self {
            data: place("kafka-0")?,
            fetcher: place("kafka-1")?,
            direction: [index("east")?, index("west")?],
            lab,
        })
    }

    fn lab(&self) -> &Lab {
        self.lab.borrow()
    }

    /// A link that carries so much at most, with a queue of a tenth of a second; `None`: all that comes.
    pub fn set_link(&self, rate_bps: Option<u64>) -> Result<()> {
        let mut settings = Settings::with_delay(ONE_WAY_DELAY);
        if let Some(rate_bps) = rate_bps {
            settings = settings.with_rate(rate_bps);
            for uplink in &mut settings.uplinks {
                uplink.queue_bytes = rate_bps / 8 / 10;
            }
        }
        self.lab().set_wan(&Wan::relay(settings))
    }

    /// Has every agent take the profile over; `None`: nothing is shaped.
    pub fn set_profile(&self, profile: Option<Profile>) -> Result<()> {
        self.write_profile(profile)?;
        let taken = poll_until(RELOAD_LIMIT, || Ok(self.has_taken(profile)?.then_some(())))?;
        taken.ok_or_else(|| self.not_taken())
    }

    /// Why a profile that was written is not in force, as far as an agent says.
    pub fn not_taken(&self) -> anyhow::Error {
        let log = NODES
            .first()
            .and_then(|node| self.lab().node(node.name).ok());
        let log = log.and_then(|node| std::fs::read_to_string(node.log).ok());
        let lines: Vec<_> = log
            .iter()
            .flat_map(|text| text.lines().rev().take(5))
            .collect();
        anyhow!("the agents did not take the profile over, the last that one says: {lines:#?}")
    }

    /// Writes the profile into every agent's configuration.
    pub fn write_profile(&self, profile: Option<Profile>) -> Result<()> {
        for node in &NODES {
            let file = self.lab().node(node.name)?.config;
            let text = std::fs::read_to_string(&file)?;
            let whole = shaped(&text, profile)?;
            if whole == text {
                continue;
            }
            let beside = file.with_extension("new");
            std::fs::write(&beside, whole)?;
            std::fs::rename(&beside, &file)?;
        }
        Ok(())
    }

    /// Whether every agent has the profile in force.
    pub fn has_taken(&self, profile: Option<Profile>) -> Result<bool> {
        let wanted = match profile {
            Some(profile) => vec![profile.ceiling_bps as f64 / 8.0; NODES.len()],
            None => Vec::new(),
        };
        Ok(self.ceilings()? == wanted)
    }

    /// Those in force, in bytes a second.
    fn ceilings(&self) -> Result<Vec<f64>> {
        let counters = self.lab().counters()?;
        let all = counters.iter();
        let of_ceiling = all.filter(|(it, _)| it.name == "sliceplane_ceiling_bytes_per_second");
        Ok(of_ceiling.map(|(_, value)| value).collect())
    }

    /// What keeps packets to their time on the first node, as its agent says.
    pub fn backend(&self) -> Result<String> {
        let counters = self.lab().counters()?;
        let mut all = counters.iter();
        let info = all.find(|(it, _)| it.name == "sliceplane_shaper_info");
        let (info, _) = info.context("nothing is shaped")?;
        Ok(info.labels["backend"].clone())
    }

    /// Leaves the roots of the uplinks to the kernel, so that agents may put something of theirs there.
    pub fn free_roots(&self) -> Result<()> {
        for node in &NODES {
            let mut command = self.lab().node(node.name)?.netns.command("tc");
            command.args(["qdisc", "del", "dev", "nic0", "root"]);
            let output = command.output().context("run tc")?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{}: tc: {said}", node.name);
        }
        Ok(())
    }

    /// Waits for a backend; false: it does not come.
    pub fn comes_to(&self, backend: Backend) -> Result<bool> {
        let come = poll_until(BACKEND_LIMIT, || {
            Ok((self.backend()? == backend.name()).then_some(()))
        })?;
        Ok(come.is_some())
    }

    /// Runs everything together: warms up, then measures.
    /// # Errors  when a load fails.
    pub fn observe(
        &self,
        streams: &[StreamSpec],
        exchanges: &[ExchangeSpec],
        [warm_up, length]: [Duration; 2],
    ) -> Result<Observed> {
        self.wait_until_idle()?;
        let relay_before = self.lab().relay()?.stats()?.uptime_ms;
        let (judged_before, overtaken_before) = self.overtaken()?;
        let mut running = Running::start(self, exchanges)?;
        running.add(streams)?;
        running.watch(warm_up)?;
        let span_ns = running.watch(length)?;
        let course = running.stop()?;
        let (judged, overtaken) = self.overtaken()?;
        ensure!(
            judged > judged_before,
            "the lab's link cannot tell whether packets are in order"
        );
        let relay = self.lab().relay()?.stats()?;
        Ok(Observed {
            wire_bps: course.wire_bps(&span_ns),
            streams_bps: (0..streams.len())
                .map(|stream| course.stream_bps(stream, &span_ns))
                .collect(),
            times_ns: (0..exchanges.len())
                .map(|exchange| course.times_ns(exchange, &span_ns))
                .collect(),
            wire_bps_max_1s: course.wire_bps_max_1s(),
            reordered: overtaken - overtaken_before,
            relay_late_us_max: relay.worst_lateness_us(relay_before).0,
            course,
        })
    }

    /// What the link carried from east to west since it exists, and when it had.
    pub(super) fn wire_bytes(&self) -> Result<(u64, u64)> {
        let [from, to] = self.direction;
        let stats = self.lab().relay()?.stats()?;
        let direction = stats.directions[from][to];
        let bytes = direction.bytes_out + ETHERNET_BYTES * direction.packets_out;
        Ok((bytes, stats.at_ns))
    }

    /// Nothing of the scenario before is under way any more.
    fn wait_until_idle(&self) -> Result<()> {
        let (mut last, _) = self.wire_bytes()?;
        let idle = poll_until(DRAIN_LIMIT, || {
            thread::sleep(SAMPLE_INTERVAL);
            let (now, _) = self.wire_bytes()?;
            let is_idle = now - last < 2000;
            last = now;
            Ok(is_idle.then_some(()))
        })?;
        idle.context("the link does not come to rest")
    }

    /// How many packets of connections came to the link at all, and behind one that was sent later; both ways.
    fn overtaken(&self) -> Result<(u64, u64)> {
        let [from, to] = self.direction;
        let stats = self.lab().relay()?.stats()?;
        let both = [stats.directions[from][to], stats.directions[to][from]];
        let sum = |of: fn(&DirectionStats) -> u64| both.iter().map(of).sum();
        Ok((sum(|it| it.tcp_packets), sum(|it| it.tcp_overtaken)))
    }
}

/// A node's documents, with the profile in place of what they say of rates.
fn shaped(text: &str, profile: Option<Profile>) -> Result<String> {
    let documents = serde_yaml_ng::Deserializer::from_str(text).map(Value::deserialize);
    let mut documents = documents.collect::<Result<Vec<_>, _>>()?;
    for document in &mut documents {
        match (
            document["kind"].as_str(),
            document["metadata"]["name"].as_str(),
        ) {
            (Some("Node"), _) => set(document, "uplinks", profile.map(uplinks).transpose()?),
            (Some("Slice"), Some("kafka")) => {
                let qos = document["spec"]
                    .get_mut("qos")
                    .context("slice kafka has classes")?;
                set(qos, "ceiling", profile.map(ceiling).transpose()?);
                set_guarantees(qos, profile)?;
            }
            _ => {}
        }
    }
    let texts = documents.iter().map(serde_yaml_ng::to_string);
    Ok(texts.collect::<Result<Vec<_>, _>>()?.join("---\n"))
}

fn set(mapping: &mut Value, key: &str, value: Option<Value>) {
    if let Some(mapping) = mapping.as_mapping_mut() {
        match value {
            Some(value) => mapping.insert(key.into(), value),
            None => mapping.remove(key),
        };
    }
}

fn uplinks(profile: Profile) -> Result<Value> {
    let rate = profile.ceiling_bps;
    let text = format!("[{{name: wan, interface: nic0, rate: \"{rate}\"}}]");
    Ok(serde_yaml_ng::from_str(&text)?)
}

fn ceiling(profile: Profile) -> Result<Value> {
    let text = format!("{{default: \"{}\"}}", profile.ceiling_bps);
    Ok(serde_yaml_ng::from_str(&text)?)
}

fn set_guarantees(qos: &mut Value, profile: Option<Profile>) -> Result<()> {
    let classes = qos["classes"].as_sequence_mut().context("classes")?;
    for class in classes {
        let percent = profile.and_then(|profile| match class["name"].as_str() {
            Some("replication") => Some(profile.replication_percent),
            Some("client") => Some(profile.client_percent),
            _ => None,
        });
        set(class, "guaranteePercent", percent.map(Value::from));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::config::node_documents;

    #[test]
    fn a_profile_comes_and_goes() {
        let text = node_documents(&NODES[0]).unwrap();
        let profile = Profile {
            ceiling_bps: 50_000_000,
            replication_percent: 40,
            client_percent: 30,
        };
        let with = shaped(&text, Some(profile)).unwrap();
        for part in [
            "uplinks:",
            "50000000",
            "guaranteePercent: 40",
            "guaranteePercent: 30",
        ] {
            assert!(with.contains(part), "{part} in\n{with}");
        }
        let without = shaped(&with, None).unwrap();
        assert_eq!(without, shaped(&text, None).unwrap());
        assert!(!without.contains("uplinks") && !without.contains("guaranteePercent"));
    }
}
