//! What joins the clusters: a plain router, or the relay that delays, limits and loses.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use super::Lab;
use super::agents::log_path;
use super::network::{self, nic};
use super::state::{Process, lab_path};
use crate::child::{poll_until, spawn_detached};
use crate::netns::NetNs;
use crate::relay::{RelayClient, Settings};

const RELAY: &str = "relay";
const RELAY_LIMIT: Duration = Duration::from_secs(10);

/// What joins the clusters.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Wan {
    /// Forwards as fast as the machine can.
    #[default]
    Router,
    Relay(Box<Settings>),
}

impl Wan {
    pub fn relay(settings: Settings) -> Self {
        Self::Relay(Box::new(settings))
    }
}

impl Lab {
    /// Changes the WAN of the running lab.
    ///
    /// New settings of a running relay interrupt nothing; a change between router and relay loses
    /// the packets that are under way.
    pub fn set_wan(&self, wan: &Wan) -> Result<()> {
        let mut state = self.state()?;
        if let (Wan::Relay(settings), Some(_)) = (wan, &state.relay) {
            self.relay()?.set(settings)?;
            state.relay = Some(Settings::clone(settings));
            return state.save();
        }
        if state.relay.is_some() {
            self.stop_relay()?;
        } else {
            network::disconnect_router()?;
        }
        self.connect(wan)
    }

    /// Narrows, or widens, what leaves a cluster: its router then says so to senders.
    pub fn set_wan_mtu(&self, cluster: &str, mtu_bytes: u32) -> Result<()> {
        network::set_wan_mtu(cluster, mtu_bytes)
    }

    /// The running relay.
    pub fn relay(&self) -> Result<RelayClient> {
        if self.state()?.relay.is_none() {
            bail!("the lab's WAN is the plain router, there is no relay");
        }
        Ok(RelayClient::new(socket_path()))
    }

    /// The WAN in words, for `status`.
    pub fn describe_wan(&self) -> Result<String> {
        Ok(match self.state()?.relay {
            None => "plain router".to_owned(),
            Some(settings) => format!("relay\n{settings}"),
        })
    }

    pub(super) fn connect(&self, wan: &Wan) -> Result<()> {
        match wan {
            Wan::Router => network::connect_router()?,
            Wan::Relay(settings) => {
                self.start_relay()?;
                RelayClient::new(socket_path()).set(settings)?;
                network::connect_relay()?;
            }
        }
        let mut state = self.state()?;
        state.relay = match wan {
            Wan::Router => None,
            Wan::Relay(settings) => Some(Settings::clone(settings)),
        };
        state.save()?;
        if state.wire_mode {
            nic::set_wire_mode(true, state.relay.is_none())?;
        }
        Ok(())
    }

    fn start_relay(&self) -> Result<()> {
        let tool = self.tool.clone().map_or_else(find_tool, Ok)?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(log_path(RELAY))?;
        let mut command = NetNs::open(network::WAN_NAMESPACE)?.command(&tool);
        command.arg(RELAY).arg("--socket").arg(socket_path());
        let child = spawn_detached(&mut command, log)
            .with_context(|| format!("cannot start the relay, {}", tool.display()))?;
        let process = Process::of(RELAY, child.id())?;
        let mut state = self.state()?;
        state.set_process(process.clone());
        state.save()?;
        let client = RelayClient::new(socket_path());
        let answers = poll_until(RELAY_LIMIT, || {
            if !process.is_alive() {
                let log = fs::read_to_string(log_path(RELAY)).unwrap_or_default();
                bail!("the relay ended at once: {log}");
            }
            Ok(client.settings().ok())
        })?;
        answers.with_context(|| format!("the relay does not answer after {RELAY_LIMIT:?}"))?;
        Ok(())
    }

    fn stop_relay(&self) -> Result<()> {
        let mut state = self.state()?;
        if let Some(process) = state.process(RELAY) {
            // It has nothing to put in order: its devices go with it.
            process.end(Signal::SIGKILL, RELAY_LIMIT)?;
        }
        state.remove_process(RELAY);
        let _ = fs::remove_file(socket_path());
        state.save()
    }
}

fn socket_path() -> PathBuf {
    lab_path("relay.sock")
}

/// `slice-lab` beside this program, or beside its folder when this is a test (target/*/deps).
fn find_tool() -> Result<PathBuf> {
    let own = std::env::current_exe().context("where this program lies")?;
    let folders = own.ancestors().skip(1).take(2);
    let candidates: Vec<PathBuf> = folders
        .map(|folder: &Path| folder.join("slice-lab"))
        .collect();
    candidates
        .iter()
        .find(|path| path.is_file())
        .cloned()
        .with_context(|| {
            format!(
                "no slice-lab program at {}: build it first",
                candidates[0].display()
            )
        })
}
