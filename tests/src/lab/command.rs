//! `slice-lab up|status|exec|degrade|down`.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{SigHandler, Signal, signal};

use crate::lab::inventory::{CLUSTERS, NODES, PODS, cluster_index, find_node, find_pod};
use crate::lab::{Lab, LabOptions, Wan, agents};
use crate::relay::{Settings, WanFlags};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum WanKind {
    /// A plain router, as fast as the machine
    #[default]
    Router,
    /// The userspace relay: delay, jitter, loss, rate
    Relay,
}

/// Options of `slice-lab up`.
#[derive(Clone, Debug, clap::Args)]
pub struct UpArgs {
    /// What joins the clusters
    #[arg(long, value_enum, default_value_t)]
    wan: WanKind,
    #[command(flatten)]
    relay: WanFlags,
    /// The agent to start on every node; the `slice-agent` beside this program if absent
    #[arg(long, value_name = "PATH")]
    agents: Option<PathBuf>,
    /// Start no agents: the pods reach each other by plain routing only
    #[arg(long, conflicts_with = "agents")]
    no_agents: bool,
    /// Seconds to wait for another lab on this machine to go down
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    wait: u64,
    /// If something fails, leave what was built, for a look
    #[arg(long)]
    keep: bool,
}

/// Options of `slice-lab exec`.
#[derive(Clone, Debug, clap::Args)]
pub struct ExecArgs {
    /// A pod or a node, for example kafka-0 or east-1
    place: String,
    /// The command and its arguments
    #[arg(required = true, last = true)]
    command: Vec<OsString>,
}

/// Options of `slice-lab degrade`.
#[derive(Clone, Debug, clap::Args)]
pub struct DegradeArgs {
    /// Only what leaves this cluster
    #[arg(long, value_name = "CLUSTER", value_parser = parse_cluster)]
    from: Option<usize>,
    /// Only what goes to this cluster
    #[arg(long, value_name = "CLUSTER", value_parser = parse_cluster)]
    to: Option<usize>,
    #[command(flatten)]
    change: WanFlags,
}

impl UpArgs {
    pub fn run(&self) -> Result<u8> {
        if self.wan == WanKind::Router && !self.relay.is_empty() {
            bail!("the plain router has no delay, loss or rate: add --wan relay");
        }
        let mut settings = Settings::default();
        self.relay.apply(&mut settings, None, None);
        let wan = match self.wan {
            WanKind::Router => Wan::Router,
            WanKind::Relay => Wan::relay(settings),
        };
        let agent = match self.no_agents {
            true => None,
            false => Some(agents::binary(self.agents.as_deref())?),
        };
        let keep_on_failure = self.keep;
        let lock_wait = Duration::from_secs(self.wait);
        let lab = Lab::up(&LabOptions {
            wan,
            keep_on_failure,
            lock_wait,
            ..LabOptions::default()
        })?;
        if let Some(binary) = &agent
            && let Err(error) = lab.start_agents(binary)
        {
            if self.keep {
                lab.leave_running()?;
            }
            return Err(error);
        }
        let lab_seconds = lab.began().elapsed().as_secs_f64();
        lab.leave_running()?;
        let agents = match agent {
            Some(_) => "with an agent on every node",
            None => "without agents, so no slice works yet",
        };
        println!(
            "The lab is up after {:.1} s, {agents}.\n\
             Look at it:  cargo xtask lab status\n\
             Use it:      cargo xtask lab exec kafka-0 -- ping -c 3 kafka-1\n\
             Remove it:   cargo xtask lab down",
            lab_seconds
        );
        Ok(0)
    }
}

impl ExecArgs {
    /// Becomes the command: signals and the exit code are its own. Returns only if that fails.
    pub fn run(&self) -> Result<u8> {
        let lab = Lab::attach()?;
        let (program, arguments) = self
            .command
            .split_first()
            .context("a command is required")?;
        let place = &self.place;
        let mut command = match (find_node(place), find_pod(place)) {
            (Some(_), _) => lab.node(place)?.netns.command(program),
            (None, Some(_)) => lab.pod(place)?.command(program),
            (None, None) => bail!(
                "no pod or node {place:?} in the lab; there are the pods {} and the nodes {}",
                PODS.map(|pod| pod.name).join(", "),
                NODES.map(|node| node.name).join(", ")
            ),
        };
        let error = command.args(arguments).exec();
        if error.kind() == std::io::ErrorKind::NotFound {
            bail!(
                "there is no program `{}`: a pod has the programs of this machine",
                program.display()
            );
        }
        Err(error).with_context(|| format!("cannot run `{}` in {place}", program.display()))
    }
}

impl DegradeArgs {
    pub fn run(&self) -> Result<u8> {
        if self.change.is_empty() {
            bail!("nothing to change: name at least one of --delay, --loss, --rate, ...");
        }
        let lab = Lab::attach()?;
        let mut settings = lab
            .relay()
            .context("only the relay can be degraded: bring the lab up with --wan relay")?
            .settings()?;
        self.change.apply(&mut settings, self.from, self.to);
        println!("{settings}");
        lab.set_wan(&Wan::relay(settings))?;
        Ok(0)
    }
}

/// Prints what runs in the lab.
pub fn status() -> Result<u8> {
    let lab = Lab::attach()?;
    // A reader that went away (`| head`) ends this without a word.
    // SAFETY: no handler of ours is involved.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }?;
    println!("WAN: {}", lab.describe_wan()?);
    println!("\n{:<8} {:<7} {:<13} AGENT", "NODE", "CLUSTER", "UNDERLAY");
    for node in lab.nodes()? {
        let agent = match lab.agent_pid(node.name)? {
            None => "-".to_owned(),
            Some(pid) if lab.agent_is_ready(node.name)? => format!("process {pid}, ready"),
            Some(pid) => format!("process {pid}, not ready"),
        };
        println!(
            "{:<8} {:<7} {:<13} {agent}",
            node.name, node.cluster, node.underlay
        );
    }
    println!(
        "\n{:<12} {:<7} {:<16} {:<11} {:<13} SLICE ADDRESS",
        "POD", "NODE", "SLICE/NAMESPACE", "POD ADDRESS", "PLAIN ADDRESS"
    );
    for pod in &PODS {
        let member = pod.member.map_or_else(
            || "-".to_owned(),
            |member| format!("{}/{}", member.slice, member.namespace),
        );
        let slice_address = pod
            .slice_address()
            .map_or("-".to_owned(), |it| it.to_string());
        println!(
            "{:<12} {:<7} {member:<16} {:<11} {:<13} {slice_address}",
            pod.name,
            pod.node,
            pod.pod_address().to_string(),
            pod.plain_address().to_string(),
        );
    }
    Ok(0)
}

/// Removes the lab.
pub fn down() -> Result<u8> {
    Lab::remove()?;
    println!("The lab is down.");
    Ok(0)
}

fn parse_cluster(name: &str) -> Result<usize, String> {
    let names = CLUSTERS.map(|cluster| cluster.name).join(", ");
    cluster_index(name).ok_or_else(|| format!("no cluster {name:?}; there are {names}"))
}
