//! Agents on every node of one lab, while packets flow: reload, policy, upgrade, death, removal.
//! Needs root and the agent that `cargo xtask build` makes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Deserialize as _;
use serde_yaml_ng::Value;
use slice_agent::apply::maps::Maps;
use slice_agent::apply::pins::Pins;
use slice_agent::apply::tcx::{self, LinkFacts};
use slice_common::layout::MAPS;
use slice_tests::child::poll_until;
use slice_tests::demo::survival;
use slice_tests::harness::{Need, agent_file, can_run, say};
use slice_tests::lab::{KernelDrops, Lab, LabOptions, Node};
use slice_tests::probe::{Listener, Outcome, attempt, drops_at};
use slice_tests::traffic::{tcp, udp};

/// Others on this machine may have a lab up.
const LAB_WAIT: Duration = Duration::from_secs(600);
const LIMIT: Duration = Duration::from_secs(30);
const ATTEMPT_LIMIT: Duration = Duration::from_secs(4);
const AGENTS_DEAD_FOR: Duration = Duration::from_secs(60);
const PACKETS_PER_SECOND: u64 = 5000;
/// A second's worth of both directions.
const PACKETS_BETWEEN_STEPS: u64 = 2 * PACKETS_PER_SECOND;
const BYTES_BETWEEN_STEPS: u64 = 1_000_000;
const NOTHING_TO_CHANGE: &str = "Nothing to change";
const ALLOWED_PORT: u16 = 9092;
const DENIED_PORT: u16 = 8080;

#[test]
fn a_reload_under_load_loses_nothing_and_a_bad_configuration_changes_nothing() {
    play(|stage| {
        let loads = Loads::start(&stage.lab)?;
        loads.flow_on()?;
        for (what, edit) in GOOD_EDITS {
            stage.reload(edit).context(what)?;
            loads.flow_on().context(what)?;
            let before = stage.what_is_in_force()?;
            for (fault, spoil) in FAULTS {
                stage
                    .refuse(edit, spoil, &before)
                    .with_context(|| format!("{what}, then {fault}"))?;
                loads.flow_on().context(fault)?;
            }
            stage.reload(|_| {}).context("back to the first")?;
            loads.flow_on().context("back to the first")?;
        }
        loads.end_unharmed("reload")
    });
}

#[test]
fn a_denied_port_opens_and_closes_with_the_policy() {
    play(|stage| {
        let loads = Loads::start(&stage.lab)?;
        loads.flow_on()?;
        let _listeners = stage.listen_in("kafka-1", [ALLOWED_PORT, DENIED_PORT])?;
        assert_eq!(stage.try_port(ALLOWED_PORT)?, Outcome::Connected);
        let denied = stage.try_port(DENIED_PORT)?;
        assert!(denied.is_drop_for("policy_denied"), "{denied}");

        stage.reload(allow_the_denied_port)?;
        assert_eq!(stage.try_port(DENIED_PORT)?, Outcome::Connected);

        stage.reload(|_| {})?;
        let denied = stage.try_port(DENIED_PORT)?;
        assert!(denied.is_drop_for("policy_denied"), "{denied}");
        assert_eq!(stage.try_port(ALLOWED_PORT)?, Outcome::Connected);
        loads.end_unharmed("policy")
    });
}

#[test]
fn an_upgrade_under_load_replaces_programs_on_the_same_links_and_loses_nothing() {
    play(|stage| {
        let folder = tempfile::tempdir()?;
        let copy = folder.path().join("slice-agent");
        fs::copy(&stage.agent, &copy)?;
        let loads = Loads::start(&stage.lab)?;
        loads.flow_on()?;
        let before = stage.links()?;
        assert!(!before.is_empty(), "not vacuous");

        let began = Instant::now();
        stage.lab.stop_agents()?;
        assert_eq!(stage.links()?, before, "the programs stay");
        loads.flow_on()?;
        stage.lab.start_agents(&copy)?;
        let took = began.elapsed();
        loads.flow_on()?;

        let pid = stage.lab.agent_pid("east-1")?.context("it runs")?;
        assert_eq!(fs::read_link(format!("/proc/{pid}/exe"))?, copy);
        let after = stage.links()?;
        let link_ids = |links: &Links| -> Vec<_> { links.values().map(|it| it.link_id).collect() };
        assert_eq!(link_ids(&after), link_ids(&before), "the same links");
        for (pin, link) in &after {
            let old = before[pin].program_id;
            assert_ne!(link.program_id, old, "{}: a new program", pin.display());
        }
        say(&format!("upgrade: {} links in {took:.1?}", after.len()));
        loads.end_unharmed("upgrade")?;
        // The copy is gone after this scene, and so must be the agents that run it.
        stage.lab.restart_agents(&stage.agent)
    });
}

#[test]
fn nothing_is_lost_while_all_agents_are_dead_for_a_minute_and_return() {
    play(|stage| {
        let drops = stage.lab.kernel_drops()?;
        let before = stage.links()?;
        let survival = survival::run(&stage.lab, None, &stage.agent, AGENTS_DEAD_FOR)?;
        assert!(survival.dead >= AGENTS_DEAD_FOR, "{:?}", survival.dead);
        say(&format!("survival: dead for {:.1?}", survival.dead));
        judge("survival", &stage.lab, &drops, &survival.udp, &survival.tcp)?;
        let after = stage.links()?;
        for (pin, link) in &before {
            assert_eq!(after[pin].link_id, link.link_id, "{}", pin.display());
        }
        Ok(())
    });
}

#[test]
fn uninstall_takes_everything_of_ours_out_of_every_node() {
    play(|stage| {
        let nodes = stage.lab.nodes()?;
        let installed = stage.inventories()?;
        for node in &nodes {
            let (bare, now) = (&stage.bare[node.name], &installed[node.name]);
            for part in ["link", "rule", "route", "pins", "state"] {
                assert_ne!(bare[part], now[part], "not vacuous: {} {part}", node.name);
            }
            let refused = stage.uninstall(node)?;
            assert!(!refused.status.success(), "{}: an agent runs", node.name);
        }
        assert_eq!(stage.inventories()?, installed, "refused means untouched");
        let ours = KernelObjects::of(&nodes)?;
        assert_eq!(ours.loaded()?, ours, "not vacuous: all of it is loaded");

        stage.lab.stop_agents()?;
        // Twice: what is not there any more is no fault.
        for node in nodes.iter().chain(&nodes) {
            let done = stage.uninstall(node)?;
            let text = String::from_utf8_lossy(&done.stderr).into_owned();
            assert!(done.status.success(), "{}: {text}", node.name);
        }
        let after = stage.inventories()?;
        for node in &nodes {
            for (part, bare) in &stage.bare[node.name] {
                assert_eq!(&after[node.name][part], bare, "{} {part}", node.name);
            }
        }
        // The kernel frees programs and maps some time after their last user.
        let left = poll_until(LIMIT, || {
            Ok((ours.loaded()? == KernelObjects::default()).then_some(()))
        })?;
        assert!(left.is_some(), "still loaded: {:?}", ours.loaded()?);
        say(&format!(
            "uninstall: {} links, {} programs, {} maps of 5 nodes are gone",
            ours.links.len(),
            ours.programs.len(),
            ours.maps.len()
        ));
        Ok(())
    });
}

type Edit = fn(&mut [Value]);
type Spoil = fn(&str) -> String;
type Links = BTreeMap<PathBuf, LinkFacts>;
/// By node, then by part.
type Inventories = BTreeMap<&'static str, BTreeMap<&'static str, String>>;

const GOOD_EDITS: [(&str, Edit); 3] = [
    ("a new rule", allow_the_denied_port),
    ("a new block of a known peer", add_block),
    ("a new peer", add_peer),
];

/// Each is put behind or into a text that is right.
const FAULTS: [(&str, Spoil); 3] = [
    ("no YAML", |text| format!("{text}\nbroken: [")),
    ("a port that does not exist", |text| {
        text.replacen("port: 9092\n", "port: 70000\n", 1)
    }),
    ("a key that nobody knows", |text| {
        text.replacen("isolation:\n", "isolation:\n    colour: green\n", 1)
    }),
];

fn allow_the_denied_port(documents: &mut [Value]) {
    let rules = &mut documents[1]["spec"]["policy"]["rules"];
    push(
        rules,
        "{name: late, action: Allow, from: [kafka], to: [kafka], \
          ports: [{protocol: TCP, port: 8080}]}",
    );
}

fn add_peer(documents: &mut [Value]) {
    push(
        &mut documents[0]["peers"],
        "{cluster: west, name: west-9, underlay: 172.20.2.99, \
          blocks: [{slice: kafka, namespace: analytics, prefix: 10.77.120.0/29}]}",
    );
}

fn add_block(documents: &mut [Value]) {
    let block = "{slice: kafka, namespace: producers, prefix: 10.77.190.0/29}";
    let node = &mut documents[0];
    if node["name"] == "edge-1" {
        return push(&mut node["blocks"], block);
    }
    let peers = node["peers"].as_sequence_mut().expect("a list of peers");
    let edge = peers.iter_mut().find(|peer| peer["name"] == "edge-1");
    push(&mut edge.expect("edge-1 is a peer")["blocks"], block);
}

fn push(list: &mut Value, entry: &str) {
    let entry = serde_yaml_ng::from_str(entry).expect("YAML");
    list.as_sequence_mut().expect("a list").push(entry);
}

fn edited(text: &str, edit: Edit) -> Result<String> {
    let documents = serde_yaml_ng::Deserializer::from_str(text).map(Value::deserialize);
    let mut documents = documents.collect::<Result<Vec<_>, _>>()?;
    edit(&mut documents);
    let texts = documents.iter().map(serde_yaml_ng::to_string);
    Ok(texts.collect::<Result<Vec<_>, _>>()?.join("---\n"))
}

/// The one lab that all scenes play in.
struct Stage {
    lab: Lab,
    agent: PathBuf,
    /// Each node's first configuration.
    first: BTreeMap<&'static str, String>,
    /// What the nodes were before the first agent.
    bare: Inventories,
}

static STAGE: Mutex<Option<Stage>> = Mutex::new(None);

/// Plays one scene, in the state in which all agents run with their first configuration.
fn play(scene: impl FnOnce(&Stage) -> Result<()>) {
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
    fn build(agent: PathBuf) -> Result<Self> {
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
    fn wait_for_addresses(&self) -> Result<()> {
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

    fn reset(&self) -> Result<()> {
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
    fn wait_for_ports(&self) -> Result<()> {
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
    fn reload(&self, edit: Edit) -> Result<()> {
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
    fn refuse(&self, edit: Edit, spoil: Spoil, before: &InForce) -> Result<()> {
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

    fn wait_until_in_force(&self, node: &Node) -> Result<()> {
        let mut last = String::new();
        let done = poll_until(LIMIT, || {
            last = self.plan(node, &node.config)?;
            Ok(last.starts_with(NOTHING_TO_CHANGE).then_some(()))
        })?;
        done.with_context(|| format!("{}: still to do after {LIMIT:?}: {last}", node.name))?;
        self.wait_for_metric(node, "sliceplane_config_valid", 1.0)?;
        self.wait_for_metric(node, "sliceplane_degraded", 0.0)
    }

    fn wait_for_metric(&self, node: &Node, metric: &str, wanted: f64) -> Result<()> {
        let mut last = f64::NAN;
        let done = poll_until(LIMIT, || {
            last = self.lab.counters()?.sum(metric, &[("node", node.name)]);
            Ok((last == wanted).then_some(()))
        })?;
        done.with_context(|| format!("{}: {metric} is {last}, not {wanted}", node.name))
    }

    fn generations(&self) -> Result<BTreeMap<&'static str, u64>> {
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

    fn what_is_in_force(&self) -> Result<InForce> {
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
    fn plan(&self, node: &Node, config: &Path) -> Result<String> {
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

    fn uninstall(&self, node: &Node) -> Result<std::process::Output> {
        let mut command = node.netns.command(&self.agent);
        command.arg("uninstall").arg("--bpffs").arg(&node.bpffs);
        command.arg("--state-dir").arg(&node.state_dir);
        Ok(command.output()?)
    }

    fn links(&self) -> Result<Links> {
        let mut links = Links::new();
        for node in self.lab.nodes()? {
            for (pin, _) in Pins::current(&node.bpffs).pinned_links()? {
                let facts = tcx::facts(&pin)?.context("a pin of a link")?;
                links.insert(pin, facts);
            }
        }
        Ok(links)
    }

    fn inventories(&self) -> Result<Inventories> {
        let nodes = self.lab.nodes()?;
        let inventory = |node: &Node| Ok((node.name, inventory(node)?));
        nodes.iter().map(inventory).collect()
    }

    fn listen_in(&self, pod: &str, ports: [u16; 2]) -> Result<Vec<Listener>> {
        let netns = self.lab.pod(pod)?.netns;
        ports
            .iter()
            .map(|port| Listener::open(&netns, *port))
            .collect()
    }

    /// From `kafka-0` to `kafka-1`.
    fn try_port(&self, port: u16) -> Result<Outcome> {
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
struct InForce {
    generations: BTreeMap<&'static str, u64>,
    links: Links,
    inventories: Inventories,
    apply_errors: u64,
}

fn inventory(node: &Node) -> Result<BTreeMap<&'static str, String>> {
    let commands: [(&str, &str, &[&str]); 6] = [
        ("link", "ip", &["-j", "link", "show"]),
        ("address", "ip", &["-4", "-j", "addr", "show"]),
        ("rule", "ip", &["-j", "rule", "show"]),
        ("rule of IPv6", "ip", &["-6", "-j", "rule", "show"]),
        ("route", "ip", &["-j", "route", "show", "table", "all"]),
        ("qdisc", "tc", &["-j", "qdisc", "show"]),
    ];
    let mut parts = BTreeMap::new();
    for (part, program, arguments) in commands {
        // A new bridge says UNKNOWN until its first port carries, some time after the lab is up.
        let shown = output(node, program, arguments)?.replace("\"UNKNOWN\"", "\"UP\"");
        parts.insert(part, shown);
    }
    parts.insert("pins", listing(&node.bpffs)?);
    parts.insert("state", listing(&node.state_dir)?);
    Ok(parts)
}

fn output(node: &Node, program: &str, arguments: &[&str]) -> Result<String> {
    let output = node.netns.command(program).args(arguments).output()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    let command = format!("{}: {program} {}", node.name, arguments.join(" "));
    ensure!(output.status.success(), "{command}: {complaint}");
    Ok(String::from_utf8(output.stdout)?)
}

/// Every path below a folder, sorted; a folder that does not exist has none.
fn listing(folder: &Path) -> Result<String> {
    let mut paths = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        if !folder.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            folders.push(path.clone());
            paths.insert(path.display().to_string());
        }
    }
    Ok(paths.into_iter().collect::<Vec<_>>().join("\n"))
}

/// Ids of what nodes have in the kernel. Ids, not names: others on this machine may have programs
/// of the same names loaded.
#[derive(Debug, Default, PartialEq)]
struct KernelObjects {
    links: BTreeSet<u32>,
    programs: BTreeSet<u32>,
    maps: BTreeSet<u32>,
}

impl KernelObjects {
    fn of(nodes: &[Node]) -> Result<Self> {
        let mut objects = Self::default();
        for node in nodes {
            let pins = Pins::current(&node.bpffs);
            for (pin, _) in pins.pinned_links()? {
                let facts = tcx::facts(&pin)?.context("a pin of a link")?;
                objects.links.insert(facts.link_id);
                objects.programs.insert(facts.program_id);
            }
            let maps = Maps::new(pins).ids()?;
            assert!(maps.len() >= MAPS.len(), "{}: {maps:?}", node.name);
            objects.maps.extend(maps);
        }
        Ok(objects)
    }

    /// Those of them that are in the kernel now.
    fn loaded(&self) -> Result<Self> {
        let links = aya::programs::loaded_links().map(|it| Ok(it?.id()));
        let programs = aya::programs::loaded_programs().map(|it| Ok(it?.id()));
        let maps = aya::maps::loaded_maps().map(|it| Ok(it?.id()));
        Ok(Self {
            links: &links.collect::<Result<BTreeSet<u32>>>()? & &self.links,
            programs: &programs.collect::<Result<BTreeSet<u32>>>()? & &self.programs,
            maps: &maps.collect::<Result<BTreeSet<u32>>>()? & &self.maps,
        })
    }
}

/// UDP both ways between `kafka-0` in east and `kafka-1` in west, TCP from `kafka-2` in edge.
struct Loads<'a> {
    lab: &'a Lab,
    drops: KernelDrops,
    udp: udp::UdpLoad,
    tcp: tcp::TcpLoad,
}

impl<'a> Loads<'a> {
    fn start(lab: &'a Lab) -> Result<Self> {
        let place = |name| lab.pod(name)?.place();
        let options = udp::UdpOptions {
            packets_per_second: PACKETS_PER_SECOND,
            ..udp::UdpOptions::default()
        };
        Ok(Self {
            lab,
            drops: lab.kernel_drops()?,
            udp: udp::start(&place("kafka-0")?, &place("kafka-1")?, &options)?,
            tcp: tcp::start(
                &place("kafka-2")?,
                &place("kafka-0")?,
                &tcp::TcpOptions::default(),
            )?,
        })
    }

    /// What was just done to the nodes meets so many more packets and bytes.
    fn flow_on(&self) -> Result<()> {
        let packets = self.udp.received() + PACKETS_BETWEEN_STEPS;
        let bytes = self.tcp.verified_bytes() + BYTES_BETWEEN_STEPS;
        let flowed = poll_until(LIMIT, || {
            let now = (self.udp.received(), self.tcp.verified_bytes());
            Ok((now.0 >= packets && now.1 >= bytes).then_some(()))
        })?;
        flowed.context("traffic stalls")
    }

    fn end_unharmed(self, scene: &str) -> Result<()> {
        let (udp, tcp) = (self.udp.stop()?, self.tcp.stop()?);
        judge(scene, self.lab, &self.drops, &udp, &tcp)
    }
}

fn judge(
    scene: &str,
    lab: &Lab,
    before: &KernelDrops,
    udp: &udp::UdpReport,
    tcp: &tcp::TcpReport,
) -> Result<()> {
    let silence = udp.directions.iter().map(|it| it.longest_silence_ms);
    say(&format!(
        "{scene}: {} of {} packets lost in {:.1} s, longest silence {:.0} ms; TCP {} bytes, \
         {} resets, longest stall {:.0} ms",
        udp.lost(),
        udp.sent(),
        udp.elapsed_ms / 1e3,
        silence.fold(0.0, f64::max),
        tcp.bytes_verified,
        tcp.resets,
        tcp.longest_stall_ms
    ));
    let drops = lab.kernel_drops()?.since(before);
    assert_eq!(udp.lost(), 0, "{udp:#?}\nthe kernels' own drops: {drops:?}");
    let duplicates = udp.directions.iter().map(|it| it.duplicates);
    assert_eq!(duplicates.sum::<u64>(), 0, "{udp:#?}");
    assert!(
        tcp.is_whole(),
        "{tcp:#?}\nthe kernels' own drops: {drops:?}"
    );
    Ok(())
}

/// Written aside and renamed: an agent never reads half a file.
fn replace(config: &Path, text: &str) -> Result<()> {
    let aside = config.with_extension("next");
    fs::write(&aside, text)?;
    Ok(fs::rename(aside, config)?)
}
