//! Three clusters on one machine: network namespaces, real veth pairs, overlapping pod addresses,
//! a WAN between the clusters and, if wanted, a real agent process per node.

pub mod agents;
pub mod cleanup;
pub mod command;
pub mod config;
pub mod inventory;
pub(crate) mod network;
pub mod observe;
pub mod state;
mod wan;

use std::ffi::OsStr;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};

use crate::netns::NetNs;
use crate::place::Place;
use inventory::{Membership, NODES, NodeSpec, PODS, PodSpec};
use state::{Holder, LAB_DIR, LabLock, State, lab_path};

pub use network::nic::WireCheck;
pub use observe::drops::{DeviceCounters, Devices, KernelDrops, overheard};
pub use observe::metrics::Counters;
pub use observe::ping::{Ping, PingReport};
pub use wan::Wan;

const TURN_POLL_INTERVAL: Duration = Duration::from_millis(200);

/// How to bring the lab up.
#[derive(Clone, Debug, Default)]
pub struct LabOptions {
    pub wan: Wan,
    /// How long to wait for another lab on this machine to go down.
    pub lock_wait: Duration,
    /// The `slice-lab` program that runs the relay; looked for beside this program if absent.
    pub tool: Option<PathBuf>,
    /// Leave a lab that could not be brought up as it is, for a look.
    pub keep_on_failure: bool,
}

/// A running lab.
///
/// Made by [`Lab::up`], it goes down when dropped; see [`Lab::leave_running`].
#[derive(Debug)]
pub struct Lab {
    tool: Option<PathBuf>,
    /// When its turn had come, or it was attached to.
    began: Instant,
    /// Held by the owner; a lab that was attached to belongs to somebody else.
    lock: Option<LabLock>,
}

/// A node and where its agent's files lie.
#[derive(Clone, Debug)]
pub struct Node {
    pub spec: &'static NodeSpec,
    pub name: &'static str,
    pub cluster: &'static str,
    pub underlay: Ipv4Addr,
    pub netns: NetNs,
    pub bpffs: PathBuf,
    pub state_dir: PathBuf,
    pub config: PathBuf,
    pub log: PathBuf,
}

/// A pod and its addresses.
#[derive(Clone, Debug)]
pub struct Pod {
    pub spec: &'static PodSpec,
    pub name: &'static str,
    pub cluster: &'static str,
    pub node: &'static str,
    /// Slice and namespace, if it is a member of a slice.
    pub member: Option<Membership>,
    /// The same in several clusters, on purpose.
    pub pod_address: Ipv4Addr,
    /// Routed everywhere without any slice.
    pub plain_address: Ipv4Addr,
    pub slice_address: Option<Ipv4Addr>,
    pub netns: NetNs,
    pub hosts: PathBuf,
}

impl Lab {
    /// Builds the lab without agents, after removing what a killed run may have left.
    pub fn up(options: &LabOptions) -> Result<Self> {
        check_prerequisites()?;
        let lock = take_turn(options.lock_wait)?;
        let began = Instant::now();
        cleanup::remove_everything().context("remove what an earlier lab left")?;
        let lab = Self {
            tool: options.tool.clone(),
            began,
            lock: Some(lock),
        };
        if let Err(error) = lab.build(&options.wan) {
            if options.keep_on_failure {
                lab.leave_running()?;
            }
            return Err(error.context("bring the lab up"));
        }
        Ok(lab)
    }

    /// Opens a lab that somebody brought up.
    pub fn attach() -> Result<Self> {
        check_root()?;
        match State::load()? {
            Some(state) if state.ready => Ok(Self {
                tool: None,
                began: Instant::now(),
                lock: None,
            }),
            Some(_) => {
                // Only whoever has the lock can be at work on it.
                let _lock = LabLock::take(Duration::ZERO).context("the lab is not ready")?;
                bail!(
                    "the lab is half built or half removed, and nobody is at work on it: remove it \
                     with `cargo xtask lab down`, or bring up a new one with `cargo xtask lab up`"
                )
            }
            None => bail!("no lab is up: bring one up with `cargo xtask lab up`"),
        }
    }

    /// Removes the lab, whoever brought it up, unless its owner still runs.
    pub fn remove() -> Result<()> {
        check_root()?;
        let _lock = LabLock::take(Duration::ZERO)?;
        cleanup::remove_everything()
    }

    /// Removes what the process that this one watched over made before a signal ended it, and says
    /// what there was. Somebody else's lab stays.
    pub fn remove_own() -> Result<String> {
        if !nix::unistd::geteuid().is_root() {
            return Ok("nothing was made".to_owned());
        }
        let Ok(_lock) = LabLock::take(Duration::ZERO) else {
            return Ok(
                "another process has the lab by now, and removed what was left of ours".to_owned(),
            );
        };
        // A state file that cannot be read is nobody's lab.
        if let Ok(Some(state)) = State::load()
            && state.ready
            && state.unowned
            && state.maker.map(|it| it.process.pid) != Some(std::process::id().cast_signed())
        {
            return Ok("the lab that somebody else left up stays".to_owned());
        }
        cleanup::remove_everything()?;
        Ok("the lab is down, nothing of it is left".to_owned())
    }

    /// Ends every process of the lab and removes all its parts.
    pub fn down(mut self) -> Result<()> {
        match self.lock.take() {
            Some(_lock) => cleanup::remove_everything(),
            None => Self::remove(),
        }
    }

    /// Gives the lab up without removing it; `slice-lab down` will.
    pub fn leave_running(mut self) -> Result<()> {
        let mut state = self.state()?;
        state.unowned = true;
        state.save()?;
        self.lock = None;
        Ok(())
    }

    /// When building it began: after the wait for its turn.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// A pod by its name.
    pub fn pod(&self, name: &str) -> Result<Pod> {
        let spec = inventory::find_pod(name).with_context(|| {
            let names = PODS.map(|pod| pod.name).join(", ");
            format!("no pod {name:?} in the lab; there are {names}")
        })?;
        Ok(Pod {
            spec,
            name: spec.name,
            cluster: spec.node().cluster,
            node: spec.node,
            member: spec.member,
            pod_address: spec.pod_address(),
            plain_address: spec.plain_address(),
            slice_address: spec.slice_address(),
            netns: NetNs::open(&spec.namespace())?,
            hosts: lab_path("hosts"),
        })
    }

    /// Every pod of the lab.
    pub fn pods(&self) -> Result<Vec<Pod>> {
        PODS.iter().map(|spec| self.pod(spec.name)).collect()
    }

    /// A node by its name.
    pub fn node(&self, name: &str) -> Result<Node> {
        let spec = inventory::find_node(name).with_context(|| {
            let names = NODES.map(|node| node.name).join(", ");
            format!("no node {name:?} in the lab; there are {names}")
        })?;
        Ok(Node {
            spec,
            name: spec.name,
            cluster: spec.cluster,
            underlay: spec.underlay(),
            netns: NetNs::open(&spec.namespace())?,
            bpffs: lab_path(format!("bpf/{name}")),
            state_dir: lab_path(format!("state/{name}")),
            config: lab_path(format!("config/{name}.yaml")),
            log: agents::log_path(name),
        })
    }

    /// Every node of the lab.
    pub fn nodes(&self) -> Result<Vec<Node>> {
        NODES.iter().map(|spec| self.node(spec.name)).collect()
    }

    fn state(&self) -> Result<State> {
        State::load()?.context("the lab is gone: its state file does not exist")
    }

    fn build(&self, wan: &Wan) -> Result<()> {
        for folder in ["bpf", "state", "config", "log"] {
            fs::create_dir_all(lab_path(folder))
                .with_context(|| format!("cannot create {LAB_DIR}/{folder}"))?;
        }
        let maker = Some(Holder::this()?);
        State {
            maker,
            ..State::default()
        }
        .save()?;
        network::build()?;
        let machine = nix::unistd::gethostname().context("cannot read the machine's name")?;
        fs::write(
            lab_path("hosts"),
            config::hosts_file(&machine.to_string_lossy()),
        )?;
        for node in self.nodes()? {
            fs::create_dir_all(&node.state_dir)?;
            fs::create_dir_all(&node.bpffs)?;
            fs::write(&node.config, config::node_documents(node.spec)?)?;
            mount(
                Some("bpf"),
                &node.bpffs,
                Some("bpf"),
                MsFlags::empty(),
                None::<&str>,
            )
            .with_context(|| format!("mount bpffs at {}", node.bpffs.display()))?;
        }
        self.connect(wan)?;
        let mut state = self.state()?;
        state.ready = true;
        state.save()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.lock.is_some()
            && let Err(error) = cleanup::remove_everything()
        {
            eprintln!("the lab could not be removed whole, run `cargo xtask lab down`: {error:#}");
        }
    }
}

impl Pod {
    /// A command that runs in the pod and resolves the other pods' names to slice addresses.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.netns.command_with_hosts(program, &self.hosts)
    }

    /// The pod as others reach it through its slice.
    pub fn place(&self) -> Result<Place> {
        let address = self.slice_address.with_context(|| {
            format!("pod {} is in no slice: it has no slice address", self.name)
        })?;
        Ok(Place {
            address,
            ..self.plain_place()
        })
    }

    /// The pod as others reach it by plain routing.
    pub fn plain_place(&self) -> Place {
        Place {
            name: self.name.to_owned(),
            address: self.plain_address,
            netns: self.netns.clone(),
            hosts: Some(self.hosts.clone()),
        }
    }
}

/// Takes the lock at a moment when no lab is up.
fn take_turn(limit: Duration) -> Result<LabLock> {
    let deadline = Instant::now() + limit;
    loop {
        let lock = LabLock::take(deadline.saturating_duration_since(Instant::now()))?;
        let Some(state) = State::load()?.filter(|state| state.ready && state.unowned) else {
            return Ok(lock);
        };
        if Instant::now() >= deadline {
            bail!("{}", is_up_already(&state));
        }
        drop(lock);
        std::thread::sleep(TURN_POLL_INTERVAL);
    }
}

fn is_up_already(state: &State) -> String {
    let made = state.maker.as_ref().map_or_else(String::new, |maker| {
        format!(" by `{}` {}", maker.process.role, maker.since())
    });
    format!(
        "a lab is up already, left up{made}: look at it with `cargo xtask lab status`, remove it with \
         `cargo xtask lab down`"
    )
}

fn check_root() -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    bail!("the lab is made of network namespaces, which needs root: run this as root or with sudo")
}

fn check_prerequisites() -> Result<()> {
    check_root()?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    for (program, package) in [
        ("ip", "iproute2"),
        ("tc", "iproute2"),
        ("ethtool", "ethtool"),
    ] {
        if !std::env::split_paths(&path).any(|folder| folder.join(program).is_file()) {
            bail!(
                "the lab needs the program `{program}`, which is not in PATH: install the package \
                 {package} (or add /usr/sbin to PATH)"
            );
        }
    }
    Ok(())
}
