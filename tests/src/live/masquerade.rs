//! What a CNI does to packets that leave the cluster: they get the node's address.

use anyhow::{Context, Result, bail};

use crate::lab::Node;
use crate::lab::inventory::find_node;
use crate::netns::NetNs;

const TABLE: &str = "sliceplane_lab";

/// A node that masquerades its pods, until this is dropped.
#[derive(Debug)]
pub struct Masquerade {
    node: Node,
}

impl Masquerade {
    pub fn of(node: Node) -> Result<Self> {
        let spec = find_node(node.name).context("the node is in the inventory")?;
        let pods = spec.pod_network();
        let masquerading = Self { node };
        masquerading.nft(&format!(
            "table ip {TABLE} {{ chain postrouting {{ \
             type nat hook postrouting priority 100; \
             oifname \"nic0\" ip saddr {pods}/24 masquerade; }}; }}"
        ))?;
        Ok(masquerading)
    }

    fn nft(&self, script: &str) -> Result<()> {
        nft(&self.node.netns, script)
    }
}

impl Drop for Masquerade {
    fn drop(&mut self) {
        if let Err(error) = self.nft(&format!("delete table ip {TABLE}")) {
            eprintln!("{error:#}");
        }
    }
}

/// Changes a namespace's packet filter.
pub(super) fn nft(namespace: &NetNs, script: &str) -> Result<()> {
    let output = namespace.command("nft").arg(script).output();
    let output = output.context("cannot run nft (package nftables)")?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!(
            "nft at {}: {}\n{script}",
            namespace.name(),
            complaint.trim()
        );
    }
    Ok(())
}
