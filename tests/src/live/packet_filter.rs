//! What a host's own packet filter does with what passes its stack.

use std::fs;

use anyhow::{Context, Result, bail};

use super::masquerade::nft;
use crate::netns::NetNs;

const TABLE: &str = "sliceplane_filter";

/// A table of rules of a namespace's packet filter, until this is dropped.
#[derive(Debug)]
pub struct PacketFilter {
    namespace: NetNs,
}

impl PacketFilter {
    /// `rules` are what stands inside the table.
    pub fn of(namespace: &NetNs, rules: &str) -> Result<Self> {
        nft(namespace, &format!("table ip {TABLE} {{ {rules}; }}"))?;
        Ok(Self {
            namespace: namespace.clone(),
        })
    }

    /// How many packets a named counter of the table has seen.
    pub fn packets(&self, counter: &str) -> Result<u64> {
        let mut command = self.namespace.command("nft");
        command.args(["list", "counter", "ip", TABLE, counter]);
        let output = command
            .output()
            .context("cannot run nft (package nftables)")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let mut words = text.split_whitespace();
        words
            .find(|word| *word == "packets")
            .and_then(|_| words.next())
            .with_context(|| format!("no counter {counter}: {text}"))?
            .parse()
            .context("packets of a counter")
    }
}

impl Drop for PacketFilter {
    fn drop(&mut self) {
        if let Err(error) = nft(&self.namespace, &format!("delete table ip {TABLE}")) {
            eprintln!("{error:#}");
        }
    }
}

/// Another value of a setting of a namespace's stack (below /proc/sys/net), until this is dropped.
#[derive(Debug)]
pub struct StackSetting {
    namespace: NetNs,
    path: String,
    before: String,
}

impl StackSetting {
    pub fn set(namespace: &NetNs, name: &str, value: &str) -> Result<Self> {
        let path = format!("/proc/sys/net/{name}");
        let before = namespace
            .enter(|| fs::read_to_string(&path))?
            .with_context(|| format!("{}: read {path}", namespace.name()))?;
        if before.trim() == value {
            bail!("not vacuous: {path} is {value} already");
        }
        let setting = Self {
            namespace: namespace.clone(),
            path,
            before,
        };
        setting.write(value)?;
        Ok(setting)
    }

    fn write(&self, value: &str) -> Result<()> {
        self.namespace
            .enter(|| fs::write(&self.path, value))?
            .with_context(|| format!("{}: write {value} to {}", self.namespace.name(), self.path))
    }
}

impl Drop for StackSetting {
    fn drop(&mut self) {
        if let Err(error) = self.write(&self.before) {
            eprintln!("{error:#}");
        }
    }
}
