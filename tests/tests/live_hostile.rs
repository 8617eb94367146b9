//! Hostile packets between real agents' programs in one lab, and the account of all that is sent. Needs
//! root and a built agent (`SLICE_AGENT_BIN`, or `target/release/slice-agent`).

#[path = "live_hostile/accounts.rs"]
mod accounts;
#[path = "live_hostile/flip.rs"]
mod flip;
#[path = "live_hostile/mtu.rs"]
mod mtu;
#[path = "live_hostile/oddities.rs"]
mod oddities;
#[path = "live_hostile/parts.rs"]
mod parts;
#[path = "live_hostile/replay.rs"]
mod replay;

use std::process::ExitCode;

use anyhow::{Result, ensure};
use slice_tests::harness;
use slice_tests::lab::{Lab, Ping};

fn main() -> ExitCode {
    let scenes = [
        accounts::SCENES,
        replay::SCENES,
        flip::SCENES,
        oddities::SCENES,
        parts::SCENES,
        mtu::SCENES,
        oddities::LAST_SCENES,
    ];
    harness::main_in_lab("the live hostile scenes", &scenes, introduce_nodes)
}

/// Every node learns the link-layer address of every other: a first packet would wait for it.
fn introduce_nodes(lab: &Lab) -> Result<()> {
    let nodes = lab.nodes()?;
    for from in &nodes {
        for to in nodes.iter().filter(|to| to.name != from.name) {
            let echo = Ping::default().run(&from.netns, Some(from.underlay), to.underlay)?;
            ensure!(
                echo.received() > 0,
                "{} does not reach {}",
                from.name,
                to.name
            );
        }
    }
    Ok(())
}
