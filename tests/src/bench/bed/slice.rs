//! Our own way: a real agent on each node, with a configuration of ordinary size.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::{Bed, NODE_ADDRESSES, POD_ADDRESSES, agent};
use crate::lab::network::ip;

pub(super) const SLICE_ADDRESSES: [Ipv4Addr; 2] =
    [Ipv4Addr::new(10, 92, 0, 2), Ipv4Addr::new(10, 92, 64, 2)];
const BLOCKS: [&str; 2] = ["10.92.0.0/29", "10.92.64.0/29"];
const PORT_OWNER: &str = "sliceplane0";
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Starts an agent on both nodes and ends them when they are ready.
///
/// The kernel side goes on alone. An agent that runs would put back what the negative control takes
/// away, and would have its own bursts of work on the CPU that is measured.
pub(super) fn set_up(bed: &Bed, binary: &Path) -> Result<()> {
    let mut agents = Vec::new();
    for index in 0..2 {
        let node = &bed.nodes[index];
        agent::prepare(node, &documents(index))?;
        agents.push(agent::start(node, binary)?);
    }
    for (started, node) in agents.iter_mut().zip(&bed.nodes) {
        agent::wait_until_ready(started, node)?;
    }
    for started in &mut agents {
        started.stop(STOP_LIMIT)?;
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
