//! Agents on every node of one lab, while packets flow: reload, policy, upgrade, death, removal.
//! Needs root and the agent that `cargo xtask build` makes.

#[path = "live_agent/edits.rs"]
mod edits;
#[path = "live_agent/inventory.rs"]
mod inventory;
#[path = "live_agent/loads.rs"]
mod loads;
#[path = "live_agent/stage.rs"]
mod stage;

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context;
use edits::{FAULTS, GOOD_EDITS, allow_the_denied_port};
use inventory::{KernelObjects, Links};
use loads::{Loads, judge};
use slice_tests::child::poll_until;
use slice_tests::demo::survival;
use slice_tests::harness::say;
use slice_tests::probe::Outcome;
use stage::play;

const LIMIT: Duration = Duration::from_secs(30);
const AGENTS_DEAD_FOR: Duration = Duration::from_secs(60);
const ALLOWED_PORT: u16 = 9092;
const DENIED_PORT: u16 = 8080;

#[test]
fn a_reload_under_load_loses_nothing_and_a_bad_configuration_changes_nothing() {
    play(|stage| {
        let loads = Loads::start(&stage.lab)?;
        loads.flow_on()?;
        for (what, edit) in GOOD_EDITS {
            stage.reload(edit).context(what)?;
            loads.flow_on().context(what)?;
            let before = stage.what_is_in_force()?;
            for (fault, spoil) in FAULTS {
                stage
                    .refuse(edit, spoil, &before)
                    .with_context(|| format!("{what}, then {fault}"))?;
                loads.flow_on().context(fault)?;
            }
            stage.reload(|_| {}).context("back to the first")?;
            loads.flow_on().context("back to the first")?;
        }
        loads.end_unharmed("reload")
    });
}

#[test]
fn a_denied_port_opens_and_closes_with_the_policy() {
    play(|stage| {
        let loads = Loads::start(&stage.lab)?;
        loads.flow_on()?;
        let _listeners = stage.listen_in("kafka-1", [ALLOWED_PORT, DENIED_PORT])?;
        assert_eq!(stage.try_port(ALLOWED_PORT)?, Outcome::Connected);
        let denied = stage.try_port(DENIED_PORT)?;
        assert!(denied.is_drop_for("policy_denied"), "{denied}");

        stage.reload(allow_the_denied_port)?;
        assert_eq!(stage.try_port(DENIED_PORT)?, Outcome::Connected);

        stage.reload(|_| {})?;
        let denied = stage.try_port(DENIED_PORT)?;
        assert!(denied.is_drop_for("policy_denied"), "{denied}");
        assert_eq!(stage.try_port(ALLOWED_PORT)?, Outcome::Connected);
        loads.end_unharmed("policy")
    });
}

#[test]
fn an_upgrade_under_load_replaces_programs_on_the_same_links_and_loses_nothing() {
    play(|stage| {
        let folder = tempfile::tempdir()?;
        let copy = folder.path().join("slice-agent");
        fs::copy(&stage.agent, &copy)?;
        let loads = Loads::start(&stage.lab)?;
        loads.flow_on()?;
        let before = stage.links()?;
        assert!(!before.is_empty(), "not vacuous");

        let began = Instant::now();
        stage.lab.stop_agents()?;
        assert_eq!(stage.links()?, before, "the programs stay");
        loads.flow_on()?;
        stage.lab.start_agents(&copy)?;
        let took = began.elapsed();
        loads.flow_on()?;

        let pid = stage.lab.agent_pid("east-1")?.context("it runs")?;
        assert_eq!(fs::read_link(format!("/proc/{pid}/exe"))?, copy);
        let after = stage.links()?;
        let link_ids = |links: &Links| -> Vec<_> { links.values().map(|it| it.link_id).collect() };
        assert_eq!(link_ids(&after), link_ids(&before), "the same links");
        for (pin, link) in &after {
            let old = before[pin].program_id;
            assert_ne!(link.program_id, old, "{}: a new program", pin.display());
        }
        say(&format!("upgrade: {} links in {took:.1?}", after.len()));
        loads.end_unharmed("upgrade")?;
        // The copy is gone after this scene, and so must be the agents that run it.
        stage.lab.restart_agents(&stage.agent)
    });
}

#[test]
fn nothing_is_lost_while_all_agents_are_dead_for_a_minute_and_return() {
    play(|stage| {
        let drops = stage.lab.kernel_drops()?;
        let before = stage.links()?;
        let survival = survival::run(&stage.lab, None, &stage.agent, AGENTS_DEAD_FOR)?;
        assert!(survival.dead >= AGENTS_DEAD_FOR, "{:?}", survival.dead);
        say(&format!("survival: dead for {:.1?}", survival.dead));
        judge("survival", &stage.lab, &drops, &survival.udp, &survival.tcp)?;
        let after = stage.links()?;
        for (pin, link) in &before {
            assert_eq!(after[pin].link_id, link.link_id, "{}", pin.display());
        }
        Ok(())
    });
}

#[test]
fn uninstall_takes_everything_of_ours_out_of_every_node() {
    play(|stage| {
        let nodes = stage.lab.nodes()?;
        let installed = stage.inventories()?;
        for node in &nodes {
            let (bare, now) = (&stage.bare[node.name], &installed[node.name]);
            for part in ["link", "rule", "route", "pins", "state"] {
                assert_ne!(bare[part], now[part], "not vacuous: {} {part}", node.name);
            }
            let refused = stage.uninstall(node)?;
            assert!(!refused.status.success(), "{}: an agent runs", node.name);
        }
        assert_eq!(stage.inventories()?, installed, "refused means untouched");
        let ours = KernelObjects::of(&nodes)?;
        assert_eq!(ours.loaded()?, ours, "not vacuous: all of it is loaded");

        stage.lab.stop_agents()?;
        // Twice: what is not there any more is no fault.
        for node in nodes.iter().chain(&nodes) {
            let done = stage.uninstall(node)?;
            let text = String::from_utf8_lossy(&done.stderr).into_owned();
            assert!(done.status.success(), "{}: {text}", node.name);
        }
        let after = stage.inventories()?;
        for node in &nodes {
            for (part, bare) in &stage.bare[node.name] {
                assert_eq!(&after[node.name][part], bare, "{} {part}", node.name);
            }
        }
        // The kernel frees programs and maps some time after their last user.
        let left = poll_until(LIMIT, || {
            Ok((ours.loaded()? == KernelObjects::default()).then_some(()))
        })?;
        assert!(left.is_some(), "still loaded: {:?}", ours.loaded()?);
        say(&format!(
            "uninstall: {} links, {} programs, {} maps of 5 nodes are gone",
            ours.links.len(),
            ours.programs.len(),
            ours.maps.len()
        ));
        Ok(())
    });
}
