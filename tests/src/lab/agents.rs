//! One real agent process per node.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use super::inventory::{METRICS_PORT, NODES};
use super::state::{Process, lab_path};
use super::{Lab, Node};
use crate::child::{poll_until, spawn_detached};
use crate::netns::NetNs;

/// The first start loads and verifies every program, on every node at once.
const READY_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(10);
const HTTP_LIMIT: Duration = Duration::from_secs(5);
const LOG_TAIL_LINES: usize = 25;

/// The agent's program: the one that was named, or the one beside this program.
/// # Errors  when there is none.
pub fn binary(named: Option<&Path>) -> Result<PathBuf> {
    let binary = match named {
        Some(named) => std::path::absolute(named)?,
        None => std::env::current_exe()
            .context("cannot find this program's own file")?
            .with_file_name("slice-agent"),
    };
    if !binary.is_file() {
        bail!(
            "there is no agent at {}: build it with `cargo xtask build`, or name another one",
            binary.display()
        );
    }
    Ok(binary)
}

impl Lab {
    /// Starts an agent on every node and waits until each is ready.
    pub fn start_agents(&self, binary: &Path) -> Result<()> {
        for node in &NODES {
            self.spawn_agent(node.name, binary)?;
        }
        self.wait_for_agents()
    }

    /// Starts the agent of one node and waits until it is ready.
    pub fn start_agent(&self, node: &str, binary: &Path) -> Result<()> {
        self.spawn_agent(node, binary)?;
        self.wait_for_agent(node)
    }

    /// Kills every agent at once with SIGKILL, so that none can clean up.
    pub fn kill_agents(&self) -> Result<()> {
        self.end_agents(Signal::SIGKILL)
    }

    /// Ends every agent with SIGTERM; their programs and maps stay in place.
    pub fn stop_agents(&self) -> Result<()> {
        self.end_agents(Signal::SIGTERM)
    }

    /// Ends the agent of one node and waits until it is gone.
    pub fn end_agent(&self, node: &str, signal: Signal) -> Result<()> {
        let mut state = self.state()?;
        let process = state
            .process(node)
            .with_context(|| format!("no agent runs on {node:?}: start one first"))?;
        process.end(signal, STOP_LIMIT)?;
        state.remove_process(node);
        state.save()
    }

    /// Stops every agent with SIGTERM and starts `binary` in its place.
    pub fn restart_agents(&self, binary: &Path) -> Result<()> {
        self.stop_agents()?;
        self.start_agents(binary)
    }

    /// Waits until every started agent answers /readyz with success.
    pub fn wait_for_agents(&self) -> Result<()> {
        let state = self.state()?;
        let mut started = NODES
            .iter()
            .filter(|node| state.process(node.name).is_some());
        started.try_for_each(|node| self.wait_for_agent(node.name))
    }

    /// The process id of a node's agent, if it runs.
    pub fn agent_pid(&self, node: &str) -> Result<Option<i32>> {
        let state = self.state()?;
        Ok(state
            .process(node)
            .filter(|it| it.is_alive())
            .map(|it| it.pid))
    }

    /// Whether the node's agent says that it has applied its configuration.
    pub fn agent_is_ready(&self, node: &str) -> Result<bool> {
        let node = self.node(node)?;
        Ok(http_get(&node.netns, METRICS_PORT, "/readyz").is_ok_and(|answer| answer.status == 200))
    }

    fn end_agents(&self, signal: Signal) -> Result<()> {
        let mut state = self.state()?;
        let is_agent = |process: &Process| NODES.iter().any(|node| node.name == process.role);
        let (agents, others) = state.processes.into_iter().partition::<Vec<_>, _>(is_agent);
        // All signals first: the agents are to die together, not one after the other.
        for agent in agents.iter().filter(|agent| agent.is_alive()) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(agent.pid), signal);
        }
        for agent in &agents {
            let gone = poll_until(STOP_LIMIT, || Ok((!agent.is_alive()).then_some(())))?;
            gone.with_context(|| {
                format!(
                    "agent on {agent} runs on {STOP_LIMIT:?} after {signal}\n{}",
                    log_tail(agent)
                )
            })?;
        }
        state.processes = others;
        state.save()
    }

    fn spawn_agent(&self, name: &str, binary: &Path) -> Result<()> {
        let node = self.node(name)?;
        let mut state = self.state()?;
        if let Some(process) = state.process(name).filter(|process| process.is_alive()) {
            bail!("an agent runs already on {process}: end it first");
        }
        let log = File::options().create(true).append(true).open(&node.log)?;
        let mut command = node.netns.command(binary);
        let child = spawn_detached(command.args(node.agent_arguments()), log)
            .with_context(|| format!("cannot start {} on {name}", binary.display()))?;
        state.set_process(Process::of(name, child.id())?);
        state.save()
    }

    fn wait_for_agent(&self, name: &str) -> Result<()> {
        let process = self
            .state()?
            .process(name)
            .cloned()
            .context("agent was started")?;
        let ready = poll_until(READY_LIMIT, || {
            if !process.is_alive() {
                bail!(
                    "the agent on {name} ended before it was ready\n{}",
                    log_tail(&process)
                );
            }
            Ok(self.agent_is_ready(name)?.then_some(()))
        })?;
        ready.with_context(|| {
            let tail = log_tail(&process);
            format!("the agent on {name} is not ready after {READY_LIMIT:?}\n{tail}")
        })
    }
}

impl Node {
    /// The arguments that an agent of this node is started with.
    pub fn agent_arguments(&self) -> Vec<std::ffi::OsString> {
        let listen = format!("0.0.0.0:{METRICS_PORT}");
        let flags: [(&str, &std::ffi::OsStr); 4] = [
            ("--config", self.config.as_os_str()),
            ("--bpffs", self.bpffs.as_os_str()),
            ("--state-dir", self.state_dir.as_os_str()),
            ("--listen", listen.as_ref()),
        ];
        let flags = flags
            .into_iter()
            .flat_map(|(flag, value)| [flag.into(), value.to_owned()]);
        std::iter::once("agent".into()).chain(flags).collect()
    }
}

/// An HTTP answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAnswer {
    pub status: u16,
    pub body: String,
}

/// GET from a server on loopback inside the namespace.
pub fn http_get(namespace: &NetNs, port: u16, path: &str) -> Result<HttpAnswer> {
    let server = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    // Only the connect must happen inside: a socket keeps its namespace.
    let mut stream = namespace
        .enter(|| TcpStream::connect_timeout(&server, HTTP_LIMIT))?
        .with_context(|| format!("connect to port {port} in {}", namespace.name()))?;
    stream.set_read_timeout(Some(HTTP_LIMIT))?;
    // HTTP/1.0: the answer ends with the connection and is never chunked.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    parse_http(&text).with_context(|| format!("{path}: no HTTP answer: {text:?}"))
}

fn parse_http(text: &str) -> Option<HttpAnswer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head
        .strip_prefix("HTTP/1.")?
        .split(' ')
        .nth(1)?
        .parse()
        .ok()?;
    Some(HttpAnswer {
        status,
        body: body.to_owned(),
    })
}

fn log_tail(process: &Process) -> String {
    let path = log_path(&process.role);
    let text = fs::read_to_string(&path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n");
    format!("last lines of {}:\n{tail}", path.display())
}

/// Where the output of a node's agent, or of the relay, goes.
pub(super) fn log_path(role: &str) -> PathBuf {
    lab_path(format!("log/{role}.log"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_body_are_read_and_nonsense_is_refused() {
        let text = "HTTP/1.0 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nwait";
        let answer = parse_http(text).unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (503, "wait"));
        for text in [
            "",
            "HTTP/1.1 200 OK",
            "SSH-2.0\r\n\r\n",
            "HTTP/1.1 abc\r\n\r\n",
        ] {
            assert_eq!(parse_http(text), None, "{text:?}");
        }
    }
}
