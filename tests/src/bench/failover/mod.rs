//! `slice-lab bench failover`: how long traffic is away when a gateway dies or a link is cut, with agents
//! and without.

pub mod load;
pub mod report;

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::bed::ground::Ground;
use super::report::Machine;
pub use crate::arguments::FailoverArgs;
use crate::child::poll_until;
use crate::gateways::{Gateways, NodePlan, Plan};
use load::{CONNECTIONS, Load};
use report::{Cut, Gaps, Report};

const MEMBERS: [&str; 2] = ["east-1", "west-1"];
/// How long the active path is looked for; at 1,000 packets a second each way that is a hundred.
const LOOK: Duration = Duration::from_millis(100);
/// Fewer packets in that time are no active path.
const PACKETS_MIN: u64 = 20;
/// A cut is watched for so long, and longer if nothing arrives by then.
const WATCH: Duration = Duration::from_millis(1200);
const WATCH_MAX: Duration = Duration::from_secs(10);
/// Whoever was heard of so lately goes on.
const LATELY: Duration = Duration::from_millis(100);
const LIMIT: Duration = Duration::from_secs(30);

/// What happens to the path that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// A gateway's link and processes, of both ends in turn.
    GatewayDies,
    LinkCutBothWays,
    /// A gateway loses every way to the other cluster, but not to its members; of both ends in turn.
    GatewayCutOff,
    /// From east to west, where the load's first direction goes.
    LinkCutForth,
    LinkCutBack,
}

/// A fault, with or without agents.
#[derive(Clone, Copy, Debug)]
struct Scenario {
    name: &'static str,
    fault: Fault,
    with_agents: bool,
}

const SCENARIOS: [Scenario; 7] = [
    scenario("gateway_dies", Fault::GatewayDies, true),
    scenario("gateway_dies_without_agents", Fault::GatewayDies, false),
    scenario("link_cut", Fault::LinkCutBothWays, true),
    scenario("link_cut_without_agents", Fault::LinkCutBothWays, false),
    scenario("gateway_cut_off", Fault::GatewayCutOff, true),
    scenario("link_cut_forth", Fault::LinkCutForth, true),
    scenario("link_cut_back", Fault::LinkCutBack, true),
];

const fn scenario(name: &'static str, fault: Fault, with_agents: bool) -> Scenario {
    Scenario {
        name,
        fault,
        with_agents,
    }
}

/// Runs everything and returns the exit code.
pub fn run(args: &FailoverArgs) -> Result<u8> {
    let report = measure(args)?;
    report.lines().iter().for_each(|line| println!("{line}"));
    if let Some(json) = &args.json {
        report.write_json(json)?;
    }
    Ok(report.exit_code())
}

/// Measures; everything that it makes is gone when it returns.
pub fn measure(args: &FailoverArgs) -> Result<Report> {
    let began = Instant::now();
    super::end_on_signals()?;
    let agent = super::agent_beside(args.agent.as_deref())?;
    let known = |name: &String| SCENARIOS.iter().any(|it| it.name == *name);
    ensure!(
        args.scenario.as_ref().is_none_or(known),
        "--scenario: there are {}",
        SCENARIOS.map(|it| it.name).join(", ")
    );
    let mut report = Report {
        all: Gaps::default(),
        tcp_connections: 0,
        tcp_connections_lost: 0,
        scenarios: BTreeMap::new(),
        cuts_made: BTreeMap::new(),
        faults: Vec::new(),
        machine: Machine::here(0)?,
        seconds: 0.0,
    };
    let ground = Ground::take(args.wait)?;
    let mut gateways = Gateways::build(&ground, Plan::two_by_two(), &agent)?;
    for scenario in SCENARIOS {
        if args.scenario.as_ref().is_none_or(|it| it == scenario.name) {
            eprintln!("bench: {}, {} cuts", scenario.name, args.cuts);
            play(scenario, args.cuts, &mut gateways, &agent, &mut report)?;
        }
    }
    report.judge();
    report.seconds = began.elapsed().as_secs_f64();
    Ok(report)
}

fn play(
    scenario: Scenario,
    cuts: usize,
    gateways: &mut Gateways,
    agent: &Path,
    report: &mut Report,
) -> Result<()> {
    gateways.start_agents(agent)?;
    gateways.wait_until_paths_are_up()?;
    let load = {
        let [a, b] = MEMBERS.map(|name| gateways.node(name)?.pod());
        Load::start(&a?, &b?)?
    };
    if !scenario.with_agents {
        gateways.kill_agents()?;
    }
    for index in 0..cuts {
        super::stop_if_told()?;
        let cut = cut(scenario, index, gateways, agent, &load)?;
        if cut.packets_before < PACKETS_MIN || cut.packets_cut == 0 {
            report.faults.push(format!(
                "{}, cut {index}: {} was not the active path ({} packets before, {} cut)",
                scenario.name, cut.what, cut.packets_before, cut.packets_cut
            ));
        }
        report.cuts_made.entry(scenario.name).or_default().push(cut);
    }
    report.tcp_connections += CONNECTIONS;
    let lost = load.stop()?;
    report.tcp_connections_lost += lost.len();
    for why in lost {
        eprintln!("bench: {}: a connection was lost: {why}", scenario.name);
    }
    Ok(())
}

/// Gateways of the path that packets take in one direction.
#[derive(Clone, Debug)]
struct Active {
    from: NodePlan,
    to: NodePlan,
    packets: u64,
}

fn cut(
    scenario: Scenario,
    index: usize,
    gateways: &mut Gateways,
    agent: &Path,
    load: &Load,
) -> Result<Cut> {
    let from = match scenario.fault {
        Fault::LinkCutBack => MEMBERS[1],
        _ => MEMBERS[0],
    };
    let active = active_path(gateways, from)?;
    let victim = if index.is_multiple_of(2) {
        active.from.name
    } else {
        active.to.name
    };
    let stopped_before = stopped(scenario, gateways, &active)?;
    let began = Instant::now();
    match scenario.fault {
        Fault::GatewayDies => {
            gateways.node(victim)?.set_link(false)?;
            gateways.node_mut(victim)?.kill_agent()?;
        }
        fault => {
            for (from, to) in links(fault, victim, &active, gateways) {
                gateways.router.cut(from, to)?;
            }
        }
    }
    let until = watch(load)?;
    let packets_cut = stopped(scenario, gateways, &active)? - stopped_before;
    let gaps = load
        .datagrams
        .each_ref()
        .map(|lane| milliseconds(lane.longest_silence(began, until)));
    let stalls = load
        .answers
        .iter()
        .map(|lane| lane.longest_silence(began, until));
    let what = match scenario.fault {
        Fault::GatewayDies | Fault::GatewayCutOff => victim.to_owned(),
        _ => format!("{} to {}", active.from.name, active.to.name),
    };
    mend(scenario, victim, &active, gateways, agent)?;
    Ok(Cut {
        what,
        gaps_ms: gaps,
        tcp_stall_ms: milliseconds(stalls.max().unwrap_or_default()),
        packets_before: active.packets,
        packets_cut,
    })
}

/// The links that a fault cuts, from and to.
fn links<'a>(
    fault: Fault,
    victim: &str,
    active: &'a Active,
    gateways: &'a Gateways,
) -> Vec<(&'a NodePlan, &'a NodePlan)> {
    let (there, back) = ((&active.from, &active.to), (&active.to, &active.from));
    match fault {
        Fault::GatewayDies => Vec::new(),
        Fault::LinkCutBothWays => vec![there, back],
        Fault::LinkCutForth | Fault::LinkCutBack => vec![there],
        Fault::GatewayCutOff => {
            let mut pairs = gateways.plan.gateway_pairs();
            pairs.retain(|(from, to)| from.name == victim || to.name == victim);
            pairs
        }
    }
}

/// Packets that a fault stopped so far. A dead gateway stops those that its neighbours still send to it:
/// all that the router can no longer hand over.
fn stopped(scenario: Scenario, gateways: &Gateways, active: &Active) -> Result<u64> {
    if scenario.fault != Fault::GatewayDies {
        return Ok(gateways.router.passed()?.cut);
    }
    let others = gateways.router.passed()?.between;
    let pair = (active.from.name.to_owned(), active.to.name.to_owned());
    // Traffic that now goes another way.
    Ok(others
        .iter()
        .filter(|(it, _)| **it != pair)
        .map(|(_, packets)| packets)
        .sum())
}

fn active_path(gateways: &Gateways, member: &str) -> Result<Active> {
    let cluster = gateways.plan.node(member).context("a member")?.cluster;
    let found = poll_until(LIMIT, || {
        let before = gateways.router.passed()?.between;
        thread::sleep(LOOK);
        let after = gateways.router.passed()?.between;
        let mut best: Option<Active> = None;
        for (from, to) in gateways.plan.gateway_pairs() {
            let pair = (from.name.to_owned(), to.name.to_owned());
            let packets = after[&pair] - before[&pair];
            let is_more = best.as_ref().is_none_or(|best| best.packets < packets);
            if from.cluster == cluster && is_more {
                best = Some(Active {
                    from: from.clone(),
                    to: to.clone(),
                    packets,
                });
            }
        }
        Ok(best.filter(|best| best.packets >= PACKETS_MIN))
    })?;
    found.context("no path carries the load")
}

/// Waits for as long as a cut is watched, and until everything arrives again. Returns the end.
fn watch(load: &Load) -> Result<Instant> {
    thread::sleep(WATCH);
    // A lane that stays silent is a gap as long as the watch.
    let _still_silent = poll_until(WATCH_MAX, || {
        let arrives = |last: Option<Instant>| last.is_some_and(|at| at.elapsed() < LATELY);
        let mut lanes = load.datagrams.iter().chain(&load.answers);
        Ok(lanes.all(|lane| arrives(lane.last())).then_some(()))
    })?;
    Ok(Instant::now())
}

fn mend(
    scenario: Scenario,
    victim: &str,
    active: &Active,
    gateways: &mut Gateways,
    agent: &Path,
) -> Result<()> {
    match scenario.fault {
        Fault::GatewayDies => {
            gateways.node(victim)?.set_link(true)?;
            let node = gateways.plan.node(victim).context("a gateway")?;
            gateways.router.wait_for(node)?;
        }
        fault => {
            for (from, to) in links(fault, victim, active, gateways) {
                gateways.router.mend(from, to)?;
            }
        }
    }
    if scenario.with_agents {
        gateways.start_agents(agent)?;
        gateways.wait_until_paths_are_up()?;
    }
    Ok(())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_may_be_asked_for() {
        let names: Vec<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names, crate::arguments::SCENARIOS);
    }
}
