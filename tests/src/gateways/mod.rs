//! Clusters that reach each other through gateways, on one machine: a network namespace for each node, one
//! router between all of them, a real agent on each node, a pod on some.
//!
//! Every node has a link of its own to the router, which counts what goes from gateway to gateway and can
//! cut any pair, in either direction.

mod node;
mod plan;
mod router;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::bench::bed::ground::{Ground, NAMESPACE_PREFIX};
use crate::child::poll_until;
use crate::live::{are_steady, proven_since};
use crate::netns::NetNs;

pub use node::{GatewayNode, NodePod};
pub use plan::{NodePlan, Plan, Remote, SLICE_ID, UNKNOWN_HOST};
pub use router::Router;

/// For what takes milliseconds on an idle machine.
const LIMIT: Duration = Duration::from_secs(30);

/// Everything that is set up. What it made is removed with the ground.
#[derive(Debug)]
pub struct Gateways {
    pub plan: Plan,
    pub router: Router,
    /// In the order of the plan.
    pub nodes: Vec<GatewayNode>,
}

impl Gateways {
    /// Builds the network, starts every agent and waits until each is ready.
    pub fn build(_ground: &Ground, plan: Plan, agent: &Path) -> Result<Self> {
        let router = Router::create(&plan)?;
        let mut nodes = Vec::new();
        for index in 0..plan.nodes.len() {
            nodes.push(GatewayNode::create(&plan, index, &router)?);
        }
        let mut gateways = Self {
            plan,
            router,
            nodes,
        };
        gateways.start_agents(agent)?;
        Ok(gateways)
    }

    /// Starts the agents that do not run, and waits until all are ready.
    pub fn start_agents(&mut self, agent: &Path) -> Result<()> {
        for node in &mut self.nodes {
            node.start_agent(agent)?;
        }
        self.nodes
            .iter_mut()
            .try_for_each(GatewayNode::wait_until_ready)
    }

    /// SIGKILL: none of them can do anything any more.
    pub fn kill_agents(&mut self) -> Result<()> {
        self.nodes.iter_mut().try_for_each(GatewayNode::kill_agent)
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Result<&GatewayNode> {
        let found = self.nodes.iter().find(|node| node.name == name);
        found.with_context(|| format!("there is no node {name}"))
    }

    pub fn node_mut(&mut self, name: &str) -> Result<&mut GatewayNode> {
        let found = self.nodes.iter_mut().find(|node| node.name == name);
        found.with_context(|| format!("there is no node {name}"))
    }

    /// Waits until every path that is probed is proven by answers.
    pub fn wait_until_paths_are_up(&self) -> Result<()> {
        for node in &self.nodes {
            let all_up = poll_until(LIMIT, || Ok(node.paths_down()?.is_empty().then_some(())))?;
            ensure!(
                all_up.is_some(),
                "{}: these paths did not come up: {:?}",
                node.name,
                node.paths_down()?
            );
        }
        Ok(())
    }

    /// Waits until every path that is probed is taken where it is preferred.
    pub fn wait_until_paths_are_steady(&self) -> Result<()> {
        for node in &self.nodes {
            let maps = node.maps();
            let steady = poll_until(LIMIT, || {
                Ok(are_steady(proven_since(&maps)?.values())?.then_some(()))
            })?;
            steady.with_context(|| format!("{}: paths come and go", node.name))?;
        }
        Ok(())
    }
}

fn namespace(role: &str) -> Result<NetNs> {
    NetNs::create(&format!("{NAMESPACE_PREFIX}gw-{role}"))
}
