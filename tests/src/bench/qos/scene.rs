//! The lab with slice `kafka` under a profile, and what happens on its link from east to west.

use std::collections::VecDeque;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Deserialize as _;
use serde_yaml_ng::Value;

use super::load::{ExchangeSpec, Exchanges, StreamSpec, Streams};
use crate::child::poll_until;
use crate::lab::inventory::{NODES, cluster_index};
use crate::lab::observe::drops::{parse_protocols, tables};
use crate::lab::{Lab, LabOptions, Wan};
use crate::place::Place;
use crate::relay::Settings;

const ONE_WAY_DELAY: Duration = Duration::from_millis(5);
/// Ethernet's part of each packet on the link, gaps included.
const ETHERNET_BYTES: u64 = 38;
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);
/// Samples that make a second.
const WINDOW: usize = 10;
const RELOAD_LIMIT: Duration = Duration::from_secs(30);
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
    /// How often senders found out that segments had overtaken each other.
    pub reordered: u64,
    /// How late the lab's own link was, at the worst.
    pub relay_late_us_max: u64,
}

/// The lab, with agents.
#[derive(Debug)]
pub struct Scene {
    lab: Lab,
    data: Place,
    fetcher: Place,
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
        let index = |cluster| cluster_index(cluster).with_context(|| format!("no {cluster}"));
        Ok(Self {
            data: lab.pod("kafka-0")?.place()?,
            fetcher: lab.pod("kafka-1")?.place()?,
            direction: [index("east")?, index("west")?],
            lab,
        })
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
        self.lab.set_wan(&Wan::relay(settings))
    }

    /// Has every agent take the profile over; `None`: nothing is shaped.
    pub fn set_profile(&self, profile: Option<Profile>) -> Result<()> {
        for node in &NODES {
            let file = self.lab.node(node.name)?.config;
            let text = std::fs::read_to_string(&file)?;
            let whole = shaped(&text, profile)?;
            if whole == text {
                return Ok(());
            }
            let beside = file.with_extension("new");
            std::fs::write(&beside, whole)?;
            std::fs::rename(&beside, &file)?;
        }
        let taken = poll_until(RELOAD_LIMIT, || {
            let wanted: Vec<f64> = match profile {
                Some(profile) => vec![profile.ceiling_bps as f64 / 8.0; NODES.len()],
                None => Vec::new(),
            };
            Ok((self.ceilings()? == wanted).then_some(()))
        })?;
        taken.with_context(|| {
            let log = NODES.first().and_then(|node| self.lab.node(node.name).ok());
            let log = log.and_then(|node| std::fs::read_to_string(node.log).ok());
            let lines: Vec<_> = log
                .iter()
                .flat_map(|text| text.lines().rev().take(5))
                .collect();
            format!("the agents did not take the profile over, the last that one says: {lines:#?}")
        })
    }

    /// Those in force, in bytes a second.
    fn ceilings(&self) -> Result<Vec<f64>> {
        let counters = self.lab.counters()?;
        let all = counters.iter();
        let of_ceiling = all.filter(|(it, _)| it.name == "sliceplane_ceiling_bytes_per_second");
        Ok(of_ceiling.map(|(_, value)| value).collect())
    }

    /// What keeps packets to their time on the first node, as its agent says.
    pub fn backend(&self) -> Result<String> {
        let counters = self.lab.counters()?;
        let mut all = counters.iter();
        let info = all.find(|(it, _)| it.name == "sliceplane_shaper_info");
        let (info, _) = info.context("nothing is shaped")?;
        Ok(info.labels["backend"].clone())
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
        let relay_before = self.lab.relay()?.stats()?.uptime_ms;
        let reordered_before = self.reordered()?;
        let asking = exchanges
            .iter()
            .map(|spec| Exchanges::start(&self.data, &self.fetcher, *spec))
            .collect::<Result<Vec<_>>>()?;
        let mut meter = Meter::new(self.wire_bytes()?);
        let running = streams
            .iter()
            .map(|spec| Streams::start(&self.data, &self.fetcher, *spec))
            .collect::<Result<Vec<_>>>()?;
        self.sample(&mut meter, warm_up)?;
        asking.iter().for_each(Exchanges::restart);
        let streams_before: Vec<u64> = running.iter().map(Streams::wire_bytes).collect();
        let (began, bytes_before) = (Instant::now(), meter.last_bytes);
        self.sample(&mut meter, length)?;
        let seconds = began.elapsed().as_secs_f64();
        let rate = |(now, before): (u64, u64)| (now - before) as f64 * 8.0 / seconds;
        let streams_after: Vec<u64> = running.iter().map(Streams::wire_bytes).collect();
        let observed = Observed {
            wire_bps: rate((meter.last_bytes, bytes_before)),
            streams_bps: streams_after
                .into_iter()
                .zip(streams_before)
                .map(rate)
                .collect(),
            times_ns: asking
                .into_iter()
                .map(Exchanges::stop)
                .collect::<Result<_>>()?,
            wire_bps_max_1s: meter.max_bps,
            reordered: self.reordered()? - reordered_before,
            relay_late_us_max: self.lab.relay()?.stats()?.worst_lateness_us(relay_before).0,
        };
        running.into_iter().try_for_each(Streams::stop)?;
        Ok(observed)
    }

    fn sample(&self, meter: &mut Meter, length: Duration) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < length {
            crate::bench::stop_if_told()?;
            thread::sleep(SAMPLE_INTERVAL);
            meter.note(Instant::now(), self.wire_bytes()?);
        }
        Ok(())
    }

    /// What the link carried from east to west since it exists.
    fn wire_bytes(&self) -> Result<u64> {
        let [from, to] = self.direction;
        let stats = self.lab.relay()?.stats()?;
        let direction = stats.directions[from][to];
        Ok(direction.bytes_out + ETHERNET_BYTES * direction.packets_out)
    }

    /// Nothing of the scenario before is under way any more.
    fn wait_until_idle(&self) -> Result<()> {
        let mut last = self.wire_bytes()?;
        let idle = poll_until(DRAIN_LIMIT, || {
            thread::sleep(SAMPLE_INTERVAL);
            let now = self.wire_bytes()?;
            let is_idle = now - last < 2000;
            last = now;
            Ok(is_idle.then_some(()))
        })?;
        idle.context("the link does not come to rest")
    }

    /// How often senders found out that segments had overtaken each other, and were not lost.
    fn reordered(&self) -> Result<u64> {
        let [_, _, netstat] = tables(&self.data.netns)?;
        let counted = parse_protocols(&netstat).filter(|(name, _)| {
            [
                "TcpExt.TCPSACKReorder",
                "TcpExt.TCPTSReorder",
                "TcpExt.TCPRenoReorder",
            ]
            .contains(&name.as_str())
        });
        let counts: Vec<u64> = counted.map(|(_, count)| count).collect();
        ensure!(
            counts.len() == 3,
            "the kernel does not count what was overtaken"
        );
        Ok(counts.iter().sum())
    }
}

/// The link's bytes, second by second, at every tenth of one.
#[derive(Debug)]
struct Meter {
    samples: VecDeque<(Instant, u64)>,
    last_bytes: u64,
    max_bps: f64,
}

impl Meter {
    fn new(bytes: u64) -> Self {
        Self {
            samples: VecDeque::from([(Instant::now(), bytes)]),
            last_bytes: bytes,
            max_bps: 0.0,
        }
    }

    fn note(&mut self, at: Instant, bytes: u64) {
        self.samples.push_back((at, bytes));
        self.last_bytes = bytes;
        while self.samples.len() > WINDOW + 1 {
            self.samples.pop_front();
        }
        if let (true, Some((began, before))) = (self.samples.len() > WINDOW, self.samples.front()) {
            let seconds = at.duration_since(*began).as_secs_f64();
            self.max_bps = self.max_bps.max((bytes - before) as f64 * 8.0 / seconds);
        }
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

    #[test]
    fn the_meter_sees_the_busiest_second() {
        let start = Instant::now();
        let mut meter = Meter::new(0);
        let mut bytes = 0;
        for tenth in 1..=40u32 {
            bytes += if (15..25).contains(&tenth) {
                2500
            } else {
                1250
            };
            meter.note(start + tenth * SAMPLE_INTERVAL, bytes);
        }
        assert!(
            (meter.max_bps - 200_000.0).abs() < 2000.0,
            "{}",
            meter.max_bps
        );
    }
}
