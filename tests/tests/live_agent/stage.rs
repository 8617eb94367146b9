//! The one lab that all scenes play in, and what can be done to it.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use slice_agent::apply::pins::Pins;
use slice_agent::apply::tcx;
use slice_tests::child::poll_until;
use slice_tests::harness::{Need, agent_file, can_run};
use slice_tests::lab::{Lab, LabOptions, Node};
use slice_tests::probe::{Listener, Outcome, attempt, drops_at};
use slice_tests::traffic::udp;

use super::LIMIT;
use super::edits::{Edit, Spoil, edited};
use super::inventory::{Inventories, Links, inventory, output};

/// Others on this machine may have a lab up.
const LAB_WAIT: Duration = Duration::from_secs(600);
const ATTEMPT_LIMIT: Duration = Duration::from_secs(4);
const NOTHING_TO_CHANGE: &str = "Nothing to change";

/// The one lab that all scenes play in.
pub(crate) struct Stage {
    pub(crate) lab: Lab,
    pub(crate) agent: PathBuf,
    /// Each node's first configuration.
    pub(crate) first: BTreeMap<&'static str, String>,
    /// What the nodes were before the first agent.
    pub(crate) bare: Inventories,
}

static STAGE: Mutex<Option<Stage>> = Mutex::new(None);

/// Plays one scene, in the state in which all agents run with their first configuration.
pub(crate) fn play(scene: impl FnOnce(&Stage) -> Result<()>) {
    if !can_run("agents under load", Need::Agent) {
        return;
    }
    let agent = agent_file();
    // A scene that failed leaves a lab that `reset` puts right.
    let mut stage = STAGE.lock().unwrap_or_else(PoisonError::into_inner);
    if stage.is_none() {
        *stage = Some(Stage::build(agent).unwrap());
        // SAFETY: the function neither unwinds nor needs anything that ends with a thread.
        unsafe { libc::atexit(take_down) };
    }
    let stage = stage.as_ref().expect("it was built");
    let played = stage.reset().and_then(|()| scene(stage));
    played.unwrap_or_else(|error| panic!("{error:?}"));
}

/// A static is never dropped, but its lab has to go down.
extern "C" fn take_down() {
    drop(STAGE.lock().unwrap_or_else(PoisonError::into_inner).take());
}

impl Stage {
    pub(crate) fn build(agent: PathBuf) -> Result<Self> {
        let lab = Lab::up(&LabOptions {
            lock_wait: LAB_WAIT,
            ..LabOptions::default()
        })?;
        let text = |node: Node| Ok((node.name, fs::read_to_string(node.config)?));
        let first = lab.nodes()?.into_iter().map(text).collect::<Result<_>>()?;
        let mut stage = Self {
            lab,
            agent,
            first,
            bare: Inventories::new(),
        };
        stage.wait_for_addresses()?;
        stage.bare = stage.inventories()?;
        Ok(stage)
    }

    /// IPv6 addresses and their routes come up a moment after the devices.
    pub(crate) fn wait_for_addresses(&self) -> Result<()> {
        let settled = poll_until(LIMIT, || {
            let tentative = self.lab.nodes()?.into_iter().map(|node| {
                let text = output(&node, "ip", &["-6", "-o", "addr", "show", "tentative"])?;
                Ok(text.trim().is_empty())
            });
            let all = tentative.collect::<Result<Vec<bool>>>()?;
            Ok(all.iter().all(|settled| *settled).then_some(()))
        })?;
        settled.context("IPv6 addresses stay tentative")
    }

    pub(crate) fn reset(&self) -> Result<()> {
        self.wait_for_ports()?;
        let nodes = self.lab.nodes()?;
        for node in &nodes {
            replace(&node.config, &self.first[node.name])?;
        }
        let runs = |node: &Node| Ok(self.lab.agent_pid(node.name)?.is_some());
        if !nodes
            .iter()
            .map(runs)
            .collect::<Result<Vec<_>>>()?
            .iter()
            .all(|it| *it)
        {
            self.lab.restart_agents(&self.agent)?;
        }
        nodes
            .iter()
            .try_for_each(|node| self.wait_until_in_force(node))
    }

    /// The threads of a load whose scene failed end a moment after it.
    pub(crate) fn wait_for_ports(&self) -> Result<()> {
        let port = udp::UdpOptions::default().port;
        for pod in ["kafka-0", "kafka-1"] {
            let netns = self.lab.pod(pod)?.netns;
            let free = poll_until(LIMIT, || {
                let bound = netns.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)))?;
                Ok(bound.ok().map(drop))
            })?;
            free.with_context(|| format!("{pod}: UDP port {port} stays in use"))?;
        }
        Ok(())
    }

    /// Edits every node's first configuration, and waits until each node is as it says.
    pub(crate) fn reload(&self, edit: Edit) -> Result<()> {
        let nodes = self.lab.nodes()?;
        let before = self.generations()?;
        for node in &nodes {
            let text = edited(&self.first[node.name], edit)?;
            let aside = node.config.with_extension("next");
            fs::write(&aside, &text)?;
            let plan = self.plan(node, &aside)?;
            ensure!(
                !plan.starts_with(NOTHING_TO_CHANGE),
                "not vacuous: {} has nothing to change",
                node.name
            );
            fs::rename(&aside, &node.config)?;
        }
        for node in &nodes {
            self.wait_until_in_force(node)?;
        }
        for (node, generation) in self.generations()? {
            let before = before[node];
            ensure!(
                generation > before,
                "{node}: generation {before}, then {generation}"
            );
        }
        Ok(())
    }

    /// Spoils every node's configuration, waits until each has seen it, and looks whether anything
    /// changed; then puts the good one back.
    pub(crate) fn refuse(&self, edit: Edit, spoil: Spoil, before: &InForce) -> Result<()> {
        let nodes = self.lab.nodes()?;
        for node in &nodes {
            let good = edited(&self.first[node.name], edit)?;
            let bad = spoil(&good);
            ensure!(bad != good, "not vacuous: the text was spoilt");
            fs::write(node.config.with_extension("good"), good)?;
            replace(&node.config, &bad)?;
        }
        for node in &nodes {
            self.wait_for_metric(node, "sliceplane_config_valid", 0.0)?;
        }
        for node in &nodes {
            let good = node.config.with_extension("good");
            let plan = self.plan(node, &good)?;
            ensure!(
                plan.starts_with(NOTHING_TO_CHANGE),
                "{} changed: {plan}",
                node.name
            );
            ensure!(
                self.lab.agent_is_ready(node.name)?,
                "{}: not ready",
                node.name
            );
        }
        assert_eq!(&self.what_is_in_force()?, before);
        for node in &nodes {
            fs::rename(node.config.with_extension("good"), &node.config)?;
        }
        nodes
            .iter()
            .try_for_each(|node| self.wait_until_in_force(node))
    }

    pub(crate) fn wait_until_in_force(&self, node: &Node) -> Result<()> {
        let mut last = String::new();
        let done = poll_until(LIMIT, || {
            last = self.plan(node, &node.config)?;
            Ok(last.starts_with(NOTHING_TO_CHANGE).then_some(()))
        })?;
        done.with_context(|| format!("{}: still to do after {LIMIT:?}: {last}", node.name))?;
        self.wait_for_metric(node, "sliceplane_config_valid", 1.0)?;
        self.wait_for_metric(node, "sliceplane_degraded", 0.0)
    }

    pub(crate) fn wait_for_metric(&self, node: &Node, metric: &str, wanted: f64) -> Result<()> {
        let mut last = f64::NAN;
        let done = poll_until(LIMIT, || {
            last = self.lab.counters()?.sum(metric, &[("node", node.name)]);
            Ok((last == wanted).then_some(()))
        })?;
        done.with_context(|| format!("{}: {metric} is {last}, not {wanted}", node.name))
    }

    pub(crate) fn generations(&self) -> Result<BTreeMap<&'static str, u64>> {
        let counters = self.lab.counters()?;
        let generation = |node: &Node| {
            let labels = [("node", node.name)];
            counters.sum("sliceplane_config_generation", &labels) as u64
        };
        let nodes = self.lab.nodes()?;
        Ok(nodes
            .iter()
            .map(|node| (node.name, generation(node)))
            .collect())
    }

    pub(crate) fn what_is_in_force(&self) -> Result<InForce> {
        let errors = self
            .lab
            .counters()?
            .sum("sliceplane_apply_errors_total", &[]);
        Ok(InForce {
            generations: self.generations()?,
            links: self.links()?,
            inventories: self.inventories()?,
            apply_errors: errors as u64,
        })
    }

    /// What a configuration would change on a node, in the agent's own words.
    pub(crate) fn plan(&self, node: &Node, config: &Path) -> Result<String> {
        let planned = node
            .netns
            .command(&self.agent)
            .args(["plan", "--config"])
            .arg(config)
            .arg("--bpffs")
            .arg(&node.bpffs)
            .output()?;
        let text = String::from_utf8([planned.stdout, planned.stderr].concat())?;
        ensure!(planned.status.success(), "{}: plan: {text}", node.name);
        Ok(text)
    }

    pub(crate) fn uninstall(&self, node: &Node) -> Result<std::process::Output> {
        let mut command = node.netns.command(&self.agent);
        command.arg("uninstall").arg("--bpffs").arg(&node.bpffs);
        command.arg("--state-dir").arg(&node.state_dir);
        Ok(command.output()?)
    }

    pub(crate) fn links(&self) -> Result<Links> {
        let mut links = Links::new();
        for node in self.lab.nodes()? {
            for (pin, _) in Pins::current(&node.bpffs).pinned_links()? {
                let facts = tcx::facts(&pin)?.context("a pin of a link")?;
                links.insert(pin, facts);
            }
        }
        Ok(links)
    }

    pub(crate) fn inventories(&self) -> Result<Inventories> {
        let nodes = self.lab.nodes()?;
        let inventory = |node: &Node| Ok((node.name, inventory(node)?));
        nodes.iter().map(inventory).collect()
    }

    pub(crate) fn listen_in(&self, pod: &str, ports: [u16; 2]) -> Result<Vec<Listener>> {
        let netns = self.lab.pod(pod)?.netns;
        ports
            .iter()
            .map(|port| Listener::open(&netns, *port))
            .collect()
    }

    /// From `kafka-0` to `kafka-1`.
    pub(crate) fn try_port(&self, port: u16) -> Result<Outcome> {
        let (from, to) = (self.lab.pod("kafka-0")?, self.lab.pod("kafka-1")?);
        let address = to.slice_address.context("a member of a slice")?;
        attempt(
            &from.netns,
            SocketAddrV4::new(address, port),
            ATTEMPT_LIMIT,
            || drops_at(&self.lab, &[from.node, to.node]),
        )
    }
}

/// What a configuration that is refused must leave as it is.
#[derive(Debug, PartialEq)]
pub(crate) struct InForce {
    pub(crate) generations: BTreeMap<&'static str, u64>,
    pub(crate) links: Links,
    pub(crate) inventories: Inventories,
    pub(crate) apply_errors: u64,
}

/// Written aside and renamed: an agent never reads half a file.
fn replace(config: &Path, text: &str) -> Result<()> {
    let aside = config.with_extension("next");
    fs::write(&aside, text)?;
    Ok(fs::rename(aside, config)?)
}
