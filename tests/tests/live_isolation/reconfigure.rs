//! One node with another configuration for a while.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use slice_tests::child::poll_until;
use slice_tests::harness::agent_file;
use slice_tests::lab::{Lab, Node};

const LIMIT: Duration = Duration::from_secs(20);
const NOTHING_TO_CHANGE: &str = "Nothing to change";

/// Plays while the node's configuration is what `edit` makes of it; puts the first one back.
pub(crate) fn with_configuration(
    lab: &Lab,
    node: &str,
    edit: impl Fn(&str) -> String,
    play: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let node = lab.node(node)?;
    let first = fs::read_to_string(&node.config)?;
    let edited = edit(&first);
    ensure!(edited != first, "not vacuous: the configuration changes");
    let played = put(&node, &edited).and_then(|()| play());
    put(&node, &first)?;
    played
}

/// Writes a configuration and waits until the node is as it says.
fn put(node: &Node, text: &str) -> Result<()> {
    let aside = node.config.with_extension("next");
    fs::write(&aside, text)?;
    fs::rename(aside, &node.config)?;
    settled(node)
}

/// Waits until the node is as its configuration says.
pub(crate) fn settled(node: &Node) -> Result<()> {
    let mut last = String::new();
    let done = poll_until(LIMIT, || {
        last = plan(node)?;
        Ok(last.starts_with(NOTHING_TO_CHANGE).then_some(()))
    })?;
    done.with_context(|| format!("{}: still to do after {LIMIT:?}: {last}", node.name))
}

/// What the configuration would still change, in the agent's own words.
fn plan(node: &Node) -> Result<String> {
    let mut command = node.netns.command(agent_file());
    command.args(["plan", "--config"]).arg(&node.config);
    command.arg("--bpffs").arg(&node.bpffs);
    let planned = command.output().context("run slice-agent plan")?;
    let text = String::from_utf8([planned.stdout, planned.stderr].concat())?;
    ensure!(planned.status.success(), "{}: plan: {text}", node.name);
    Ok(text)
}
