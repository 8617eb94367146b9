//! Our own way: a real agent on each node, with a configuration of ordinary size.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};

use super::ground::bench_path;
use super::{Bed, NODE_ADDRESSES, POD_ADDRESSES};
use crate::child::{ManagedChild, poll_until};
use crate::lab::agents::http_get;
use crate::lab::network::ip;
use crate::netns::NetNs;

pub(super) const SLICE_ADDRESSES: [Ipv4Addr; 2] =
    [Ipv4Addr::new(10, 92, 0, 2), Ipv4Addr::new(10, 92, 64, 2)];
const BLOCKS: [&str; 2] = ["10.92.0.0/29", "10.92.64.0/29"];
const PORT_OWNER: &str = "sliceplane0";
const METRICS_PORT: u16 = 9464;
const READY_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Starts an agent on both nodes and ends them when they are ready.
///
/// The kernel side goes on alone. An agent that runs would put back what the negative control takes
/// away, and would have its own bursts of work on the CPU that is measured.
pub(super) fn set_up(bed: &Bed, agent: &Path) -> Result<()> {
    let mut agents = Vec::new();
    for index in 0..2 {
        agents.push(start_agent(bed, index, agent)?);
    }
    for (agent, node) in agents.iter_mut().zip(&bed.nodes) {
        wait_until_ready(agent, node)?;
    }
    for agent in &mut agents {
        agent.stop(STOP_LIMIT)?;
    }
    Ok(())
}

/// Takes away the device that owns the tunnel's port, and with it the merging of received segments.
pub(super) fn disown_port(bed: &Bed) -> Result<()> {
    let delete = format!("link delete {PORT_OWNER}\n");
    bed.nodes
        .iter()
        .try_for_each(|node| ip(Some(node), &delete))
}

fn start_agent(bed: &Bed, index: usize, agent: &Path) -> Result<ManagedChild> {
    let node = &bed.nodes[index];
    let folder = bench_path(node.name());
    let [config, state_dir] = ["config", "state"].map(|name| folder.join(name));
    let bpffs = bpffs(node);
    for folder in [&config, &bpffs, &state_dir] {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    fs::write(config.join("bench.yaml"), documents(index))?;
    let none = None::<&str>;
    mount(Some("bpf"), &bpffs, Some("bpf"), MsFlags::empty(), none)
        .with_context(|| format!("mount bpffs at {}", bpffs.display()))?;
    let log = fs::File::create(log_path(node))?;
    let mut command = node.command(agent);
    command
        .arg("agent")
        .args([Path::new("--config"), &config, Path::new("--bpffs"), &bpffs])
        .args([Path::new("--state-dir"), &state_dir])
        .args(["--listen", &format!("127.0.0.1:{METRICS_PORT}")])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    ManagedChild::spawn(&format!("agent in {}", node.name()), &mut command)
}

fn wait_until_ready(agent: &mut ManagedChild, node: &NetNs) -> Result<()> {
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

pub(super) fn bpffs(node: &NetNs) -> PathBuf {
    bench_path(node.name()).join("bpf")
}

fn log_path(node: &NetNs) -> PathBuf {
    bench_path(node.name()).join("agent.log")
}

/// The node's configuration: one slice with rules and classes, and the other node as its peer.
fn documents(index: usize) -> String {
    let other = 1 - index;
    format!(
        "kind: Node
cluster: cluster{index}
name: node
underlay: {{address: {own}, interface: nic0}}
endpoints:
- slice: bench
  namespace: kafka
  name: pod
  interface: pod0
  address: {pod}
  sliceAddress: {slice}
blocks:
- {{slice: bench, namespace: kafka, prefix: {block}}}
peers:
- cluster: cluster{other}
  name: node
  underlay: {far}
  blocks:
  - {{slice: bench, namespace: kafka, prefix: {far_block}}}
---
{SLICE}",
        own = NODE_ADDRESSES[index],
        pod = POD_ADDRESSES[index],
        slice = SLICE_ADDRESSES[index],
        block = BLOCKS[index],
        far = NODE_ADDRESSES[other],
        far_block = BLOCKS[other],
    )
}

/// The load's ports, 7000 to 7009, are allowed by the last rule and belong to no class: the longest
/// way through both tables.
const SLICE: &str = "kind: Slice
metadata: {name: bench}
id: 7
spec:
  addressing: {mode: Mapped, ranges: [10.92.0.0/16]}
  isolation: {level: Slice}
  policy:
    defaultAction: Deny
    rules:
    - name: brokers
      action: Allow
      from: [kafka]
      to: [kafka]
      ports: [{protocol: TCP, port: 9090-9092}, {protocol: ICMP}]
    - name: never
      action: Deny
      from: [kafka]
      to: [kafka]
      ports: [{protocol: TCP, port: 22}]
    - name: measure
      action: Allow
      from: [kafka]
      to: [kafka]
      ports: [{protocol: TCP, port: 7000-7009}, {protocol: UDP, port: 7000-7009}]
  qos:
    classes:
    - {name: control, match: [{protocol: TCP, port: 9090}], dscp: 48}
    - {name: replication, match: [{protocol: TCP, port: 9091}], dscp: 10}
    - {name: client, match: [{protocol: TCP, port: 9092}], dscp: 18}
  encryption: {mode: None}
  acceptPlaintext: true
";
