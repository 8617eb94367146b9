//! A real agent on a node that has nothing but a namespace.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};

use super::ground::bench_path;
use crate::child::{ManagedChild, poll_until};
use crate::lab::agents::http_get;
use crate::netns::NetNs;

pub const METRICS_PORT: u16 = 9464;
const READY_LIMIT: Duration = Duration::from_secs(60);

/// Gives a node its configuration, and a bpffs of its own.
pub fn prepare(node: &NetNs, documents: &str) -> Result<()> {
    let (config, bpffs) = (folder(node).join("config"), bpffs(node));
    for folder in [&config, &bpffs, &folder(node).join("state")] {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    configure(node, documents)?;
    let none = None::<&str>;
    mount(Some("bpf"), &bpffs, Some("bpf"), MsFlags::empty(), none)
        .with_context(|| format!("mount bpffs at {}", bpffs.display()))
}

/// Another configuration, from one moment to the next.
pub fn configure(node: &NetNs, documents: &str) -> Result<()> {
    let config = folder(node).join("config");
    let hidden = config.join(".bench.yaml");
    fs::write(&hidden, documents)?;
    Ok(fs::rename(hidden, config.join("bench.yaml"))?)
}

/// Takes everything off that an agent left, which must have ended.
pub fn uninstall(node: &NetNs, agent: &Path) -> Result<()> {
    let mut command = node.command(agent);
    command
        .arg("uninstall")
        .args([Path::new("--bpffs"), &bpffs(node)])
        .args([Path::new("--state-dir"), &folder(node).join("state")]);
    let output = command.output()?;
    if !output.status.success() {
        bail!("uninstall: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

pub fn start(node: &NetNs, agent: &Path) -> Result<ManagedChild> {
    let folder = folder(node);
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(log_path(node))?;
    let mut command = node.command(agent);
    command
        .arg("agent")
        .args([Path::new("--config"), &folder.join("config")])
        .args([Path::new("--bpffs"), &bpffs(node)])
        .args([Path::new("--state-dir"), &folder.join("state")])
        .args(["--listen", &format!("127.0.0.1:{METRICS_PORT}")])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    ManagedChild::spawn(&format!("agent in {}", node.name()), &mut command)
}

pub fn wait_until_ready(agent: &mut ManagedChild, node: &NetNs) -> Result<()> {
    let ready = poll_until(READY_LIMIT, || {
        if let Some(status) = agent.try_wait()? {
            let log = fs::read_to_string(log_path(node)).unwrap_or_default();
            bail!("{} ended with {status}:\n{log}", agent.name());
        }
        let answer = http_get(node, METRICS_PORT, "/readyz");
        Ok(answer.is_ok_and(|it| it.status == 200).then_some(()))
    })?;
    ready.with_context(|| {
        let log = fs::read_to_string(log_path(node)).unwrap_or_default();
        format!(
            "{} is not ready after {READY_LIMIT:?}:\n{log}",
            agent.name()
        )
    })
}

/// Where the node's programs are pinned.
pub fn bpffs(node: &NetNs) -> PathBuf {
    folder(node).join("bpf")
}

fn log_path(node: &NetNs) -> PathBuf {
    folder(node).join("agent.log")
}

fn folder(node: &NetNs) -> PathBuf {
    bench_path(node.name())
}
