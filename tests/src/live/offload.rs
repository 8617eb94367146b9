//! Devices that help no stack: on a veth pair nobody looks at a checksum that a device promises.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::lab::inventory::{NODES, PODS};
use crate::netns::NetNs;

/// Plays a scene while no device completes or verifies checksums: the stacks do, and mind.
pub fn without_offload(play: impl FnOnce() -> Result<()>) -> Result<()> {
    let nics = NODES
        .iter()
        .map(|node| (node.namespace(), "nic0".to_owned()));
    let pods = PODS.iter().map(|pod| (pod.namespace(), "eth0".to_owned()));
    let hosts = PODS
        .iter()
        .map(|pod| (pod.node().namespace(), pod.host_interface()));
    let devices: Vec<(NetNs, String)> = nics
        .chain(pods)
        .chain(hosts)
        .map(|(namespace, device)| Ok((NetNs::open(&namespace)?, device)))
        .collect::<Result<_>>()?;
    let switch = |to: &str| -> Result<()> {
        devices
            .iter()
            .try_for_each(|(namespace, device)| checksum_offload(namespace, device, to))
    };
    switch("off")?;
    let played = play();
    switch("on")?;
    played
}

fn checksum_offload(namespace: &NetNs, device: &str, to: &str) -> Result<()> {
    let mut command: Command = namespace.command("ethtool");
    let output = command
        .args(["-K", device, "tx", to, "rx", to])
        .output()
        .context("cannot run ethtool")?;
    ensure!(
        output.status.success(),
        "ethtool -K {device} in {}: {}",
        namespace.name(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
