//! The network between the nodes: it routes, counts what goes from gateway to gateway, and cuts.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result, bail};

use super::plan::{NodePlan, Plan};
use super::{LIMIT, namespace};
use crate::child::poll_until;
use crate::lab::network::{Role, batch, configure, ip};
use crate::netns::NetNs;

/// What every node calls the router.
pub(super) const ADDRESS: &str = "169.254.1.1";
/// Packets that a cut stopped.
const CUT: &str = "cut";

/// The router.
#[derive(Debug)]
pub struct Router {
    pub(super) namespace: NetNs,
}

/// Packets from gateway to gateway, by their names; and what cuts stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    pub between: BTreeMap<(String, String), u64>,
    pub cut: u64,
}

impl Router {
    pub(super) fn create(plan: &Plan) -> Result<Self> {
        let namespace = namespace("router")?;
        configure(&namespace, Role::Router, "link set lo up\n")?;
        batch("nft", &["-f", "-"], Some(&namespace), &rules(plan))?;
        Ok(Self { namespace })
    }

    /// From now on nothing gets from `from` to `to`.
    pub fn cut(&self, from: &NodePlan, to: &NodePlan) -> Result<()> {
        self.change("add", from, to)
    }

    pub fn mend(&self, from: &NodePlan, to: &NodePlan) -> Result<()> {
        self.change("delete", from, to)
    }

    /// The router's end of the link to a node, by the node's place in the plan.
    pub fn link_to(index: usize) -> String {
        format!("n{index}")
    }

    pub fn namespace(&self) -> &NetNs {
        &self.namespace
    }

    /// The link to a node carries packets of so many bytes from now on.
    pub fn narrow(&self, node: &str, plan: &Plan, mtu_bytes: u32) -> Result<()> {
        let index = plan.nodes.iter().position(|it| it.name == node);
        let index = index.with_context(|| format!("there is no node {node}"))?;
        let link = Self::link_to(index);
        let command = format!("link set {link} mtu {mtu_bytes}\n");
        ip(Some(&self.namespace), &command)
    }

    /// Waits until packets reach a node and come back: the kernel takes up to a second to use a link that
    /// came up.
    pub fn wait_for(&self, node: &NodePlan) -> Result<()> {
        let reached = poll_until(LIMIT, || {
            let ping = self
                .namespace
                .command("ping")
                .args(["-c", "1", "-W", "1", &node.address.to_string()])
                .output()?;
            Ok(ping.status.success().then_some(()))
        })?;
        reached.with_context(|| format!("{} is not reached", node.name))
    }

    pub fn passed(&self) -> Result<Passed> {
        let output = self
            .namespace
            .command("nft")
            .args(["-j", "list", "counters", "table", "ip", "gateways"])
            .output()
            .context("cannot run nft (package nftables)")?;
        if !output.status.success() {
            bail!("nft: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let listed: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let mut passed = Passed::default();
        for object in listed["nftables"].as_array().context("nft: no objects")? {
            let (name, packets) = (&object["counter"]["name"], &object["counter"]["packets"]);
            let (Some(name), Some(packets)) = (name.as_str(), packets.as_u64()) else {
                continue;
            };
            match name.split_once("__") {
                Some((from, to)) => {
                    let pair = (from.replace('_', "-"), to.replace('_', "-"));
                    passed.between.insert(pair, packets);
                }
                None if name == CUT => passed.cut = packets,
                None => {}
            }
        }
        Ok(passed)
    }

    fn change(&self, verb: &str, from: &NodePlan, to: &NodePlan) -> Result<()> {
        let (from, to) = (from.address, to.address);
        let command = format!("{verb} element ip gateways cuts {{ {from} . {to} }}\n");
        batch("nft", &["-f", "-"], Some(&self.namespace), &command)
    }
}

fn rules(plan: &Plan) -> String {
    let (mut counters, mut rules) = (String::new(), String::new());
    for (from, to) in plan.gateway_pairs() {
        let name = format!("{}__{}", from.name, to.name).replace('-', "_");
        let _ = writeln!(counters, "  counter {name} {{ }}");
        let _ = writeln!(
            rules,
            "    ip saddr {} ip daddr {} counter name {name}",
            from.address, to.address
        );
    }
    format!(
        "table ip gateways {{\n  set cuts {{ type ipv4_addr . ipv4_addr; }}\n  counter {CUT} {{ }}\n\
         {counters}  chain forward {{\n    type filter hook forward priority 0;\n{rules}    \
         ip saddr . ip daddr @cuts counter name {CUT} drop\n  }}\n}}\n"
    )
}
