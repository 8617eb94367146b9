//! The lab with slice `kafka` under a profile, and what happens on its link from east to west.

use std::borrow::Borrow;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde::Deserialize as _;
use serde_yaml_ng::{Mapping, Value};

use super::load::{StreamSpec, Streams};
use super::report::Backend;
use crate::child::poll_until;
use crate::lab::inventory::{NODES, cluster_index};
use crate::lab::network::nic::give_real_qdisc;
use crate::lab::{Lab, LabOptions, Wan};
use crate::place::Place;
use crate::relay::Settings;

/// Ethernet's part of each packet on the link, gaps included.
const ETHERNET_BYTES: u64 = 38;
/// How long agents may take over a profile.
pub const RELOAD_LIMIT: Duration = Duration::from_secs(30);
/// First the queue is put there, then terms say so.
const BACKEND_LIMIT: Duration = Duration::from_secs(5);

/// What slice `kafka` may send.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    /// `None`: what agents choose.
    pub backend: Option<Backend>,
    pub ceiling_bps: u64,
    pub replication_percent: u64,
    pub client_percent: u64,
}

/// All that documents say of rates.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// Of slice `kafka`.
    pub profile: Profile,
    /// What is paid for.
    pub link_bps: u64,
    /// How many nodes of a cluster send by it.
    pub nodes: u32,
    /// What slice `kafka` can send whatever the other slice does; `None`: its ceiling.
    pub guarantee_bps: Option<u64>,
    /// `None`: the other slice is not shaped.
    pub other: Option<OtherSlice>,
}

/// What slice `shop` may send by the same link.
#[derive(Clone, Copy, Debug)]
pub struct OtherSlice {
    pub ceiling_bps: u64,
    pub guarantee_bps: u64,
}

impl From<Profile> for Rates {
    /// The slice has the link to itself.
    fn from(profile: Profile) -> Self {
        Self {
            profile,
            link_bps: profile.ceiling_bps,
            nodes: 1,
            guarantee_bps: None,
            other: None,
        }
    }
}

/// What the link between the clusters is like.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    pub one_way: Duration,
    /// What it carries at most, with a queue of a tenth of a second; `None`: all that comes.
    pub rate_bps: Option<u64>,
    /// The part that it loses from east to west.
    pub loss: f64,
    /// Of the series that says which.
    pub seed: u64,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            one_way: Duration::from_millis(5),
            rate_bps: None,
            loss: 0.0,
            seed: 1,
        }
    }
}

impl Link {
    fn settings(&self, [from, to]: [usize; 2]) -> Settings {
        let mut settings = Settings::with_delay(self.one_way);
        settings.seed = self.seed;
        settings.paths[from][to].loss = self.loss;
        if let Some(rate_bps) = self.rate_bps {
            settings = settings.with_rate(rate_bps);
            for uplink in &mut settings.uplinks {
                uplink.queue_bytes = rate_bps / 8 / 10;
            }
        }
        settings
    }
}

/// From where to where, besides from one broker to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elsewhere {
    /// In slice `shop`, by the same nodes.
    OtherSlice,
    /// From a client on the cluster's other node, who sends to the broker that fetches otherwise.
    OtherNode,
}

/// The lab, with agents: an own one, or one that is up.
#[derive(Debug)]
pub struct Scene<L: Borrow<Lab> = Lab> {
    lab: L,
    pub data: Place,
    pub fetcher: Place,
    pub(super) direction: [usize; 2],
}

impl Scene {
    /// # Errors  when the lab does not come up.
    pub fn build(agent: &Path, options: LabOptions) -> Result<Self> {
        let lab = Lab::up(&LabOptions {
            wan: Wan::relay(Settings::with_delay(Link::default().one_way)),
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

    pub(super) fn lab(&self) -> &Lab {
        self.lab.borrow()
    }

    pub fn set_link(&self, link: &Link) -> Result<()> {
        let settings = link.settings(self.direction);
        self.lab().set_wan(&Wan::relay(settings))
    }

    /// Has every agent take the profile over; `None`: nothing is shaped.
    pub fn set_profile(&self, profile: Option<Profile>) -> Result<()> {
        self.set_rates(profile.map(Rates::from))
    }

    /// Has every agent take the rates over; `None`: nothing is shaped.
    pub fn set_rates(&self, rates: Option<Rates>) -> Result<()> {
        self.write_rates(rates)?;
        let taken = poll_until(RELOAD_LIMIT, || Ok(self.have_taken(rates)?.then_some(())))?;
        taken.ok_or_else(|| self.not_taken())
    }

    /// Why rates that were written are not in force, as far as an agent says.
    pub fn not_taken(&self) -> anyhow::Error {
        let log = NODES
            .first()
            .and_then(|node| self.lab().node(node.name).ok());
        let log = log.and_then(|node| std::fs::read_to_string(node.log).ok());
        let lines: Vec<_> = log
            .iter()
            .flat_map(|text| text.lines().rev().take(5))
            .collect();
        anyhow!("the agents did not take the rates over, the last that one says: {lines:#?}")
    }

    /// Writes the rates into every agent's configuration.
    pub fn write_rates(&self, rates: Option<Rates>) -> Result<()> {
        for node in &NODES {
            let file = self.lab().node(node.name)?.config;
            let text = std::fs::read_to_string(&file)?;
            let whole = shaped(&text, rates)?;
            if whole == text {
                continue;
            }
            let beside = file.with_extension("new");
            std::fs::write(&beside, whole)?;
            std::fs::rename(&beside, &file)?;
        }
        Ok(())
    }

    /// Whether every agent has the rates in force.
    pub fn have_taken(&self, rates: Option<Rates>) -> Result<bool> {
        let nodes = rates.map_or(1, |it| u64::from(it.nodes));
        let ceiling = |bps: u64| vec![(bps / nodes) as f64 / 8.0; NODES.len()];
        let kafka = rates.map(|it| ceiling(it.profile.ceiling_bps));
        let other = rates.and_then(|it| it.other);
        let shop = other.map(|it| ceiling(it.ceiling_bps));
        Ok(self.ceilings("kafka")? == kafka.unwrap_or_default()
            && self.ceilings("shop")? == shop.unwrap_or_default())
    }

    /// Those in force, in bytes a second.
    fn ceilings(&self, slice: &str) -> Result<Vec<f64>> {
        let counters = self.lab().counters()?;
        let all = counters.iter();
        let of_slice = all.filter(|(it, _)| {
            it.name == "sliceplane_ceiling_bytes_per_second" && it.labels["slice"] == slice
        });
        Ok(of_slice.map(|(_, value)| value).collect())
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
            // Refused where the kernel's own choice stands there already.
            command.args(["qdisc", "del", "dev", "nic0", "root"]);
            command.output().context("run tc")?;
        }
        Ok(())
    }

    /// Puts there what the lab had, where no agent has anything of its own.
    pub fn configure_roots(&self) -> Result<()> {
        for node in &NODES {
            give_real_qdisc(&self.lab().node(node.name)?.netns, &["nic0"])?;
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

    /// Begins to send from elsewhere.
    /// # Errors  when nothing connects.
    pub(super) fn stream_from(&self, from: Elsewhere, spec: StreamSpec) -> Result<Streams> {
        let place = |pod| self.lab().pod(pod)?.place();
        match from {
            Elsewhere::OtherSlice => Streams::start(&place("web-0")?, &place("web-2")?, spec),
            Elsewhere::OtherNode => Streams::produce(&place("analytics-1")?, &self.fetcher, spec),
        }
    }

    /// What came to the link from east to west since it exists, and when it had; but what its queue had no room for.
    pub(super) fn wire_bytes(&self) -> Result<(u64, u64)> {
        let [from, to] = self.direction;
        let stats = self.lab().relay()?.stats()?;
        let direction = stats.directions[from][to];
        let packets = direction.packets_out + direction.drops_loss;
        let bytes = direction.bytes_out + direction.bytes_lost;
        Ok((bytes + ETHERNET_BYTES * packets, stats.at_ns))
    }
}

/// A node's documents, with the rates in place of what they say of any.
fn shaped(text: &str, rates: Option<Rates>) -> Result<String> {
    let documents = serde_yaml_ng::Deserializer::from_str(text).map(Value::deserialize);
    let mut documents = documents.collect::<Result<Vec<_>, _>>()?;
    for document in &mut documents {
        match (
            document["kind"].as_str(),
            document["metadata"]["name"].as_str(),
        ) {
            (Some("Node"), _) => set(document, "uplinks", rates.map(uplinks).transpose()?),
            (Some("Slice"), Some("kafka")) => {
                let qos = document["spec"]
                    .get_mut("qos")
                    .context("slice kafka has classes")?;
                let (ceiling, guarantee) = match rates {
                    Some(rates) => (Some(rates.profile.ceiling_bps), rates.guarantee_bps),
                    None => (None, None),
                };
                set(qos, "ceiling", ceiling.map(everywhere).transpose()?);
                set(
                    qos,
                    "sliceGuarantee",
                    guarantee.map(everywhere).transpose()?,
                );
                set_guarantees(qos, rates.map(|it| it.profile))?;
            }
            (Some("Slice"), Some("shop")) => {
                let other = rates.and_then(|it| it.other);
                let qos = other.map(of_other_slice).transpose()?;
                set(&mut document["spec"], "qos", qos);
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

fn uplinks(rates: Rates) -> Result<Value> {
    let Rates {
        profile,
        link_bps,
        nodes,
        ..
    } = rates;
    let shaper = profile.backend.map_or("Auto", Backend::asked_for_as);
    let text = format!(
        "[{{name: wan, interface: nic0, rate: \"{link_bps}\", nodes: {nodes}, shaper: {shaper}}}]"
    );
    Ok(serde_yaml_ng::from_str(&text)?)
}

fn everywhere(bps: u64) -> Result<Value> {
    Ok(serde_yaml_ng::from_str(&format!("{{default: \"{bps}\"}}"))?)
}

fn of_other_slice(slice: OtherSlice) -> Result<Value> {
    let mut qos = Value::Mapping(Mapping::new());
    set(&mut qos, "ceiling", Some(everywhere(slice.ceiling_bps)?));
    let guarantee = everywhere(slice.guarantee_bps)?;
    set(&mut qos, "sliceGuarantee", Some(guarantee));
    Ok(qos)
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
            backend: Some(Backend::Htb),
            ceiling_bps: 50_000_000,
            replication_percent: 40,
            client_percent: 30,
        };
        let alone = shaped(&text, Some(profile.into())).unwrap();
        assert!(!alone.contains("sliceGuarantee"), "{alone}");
        let rates = Rates {
            link_bps: 60_000_000,
            nodes: 2,
            guarantee_bps: Some(35_000_000),
            other: Some(OtherSlice {
                ceiling_bps: 30_000_000,
                guarantee_bps: 25_000_000,
            }),
            ..profile.into()
        };
        let with = shaped(&alone, Some(rates)).unwrap();
        for part in [
            "uplinks:",
            "60000000",
            "nodes: 2",
            "50000000",
            "35000000",
            "30000000",
            "25000000",
            "guaranteePercent: 40",
            "guaranteePercent: 30",
            "shaper: Htb",
        ] {
            assert!(with.contains(part), "{part} in\n{with}");
        }
        let without = shaped(&with, None).unwrap();
        assert_eq!(without, shaped(&text, None).unwrap());
        for part in ["uplinks", "guaranteePercent", "ceiling", "sliceGuarantee"] {
            assert!(!without.contains(part), "{part} in\n{without}");
        }
    }
}
