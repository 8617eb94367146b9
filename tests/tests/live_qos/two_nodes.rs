//! Two nodes of a cluster send a slice's packets by one link: its ceiling holds for both together.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use slice_tests::bench::qos::load::{CongestionControl, StreamSpec, Streams};
use slice_tests::child::poll_until;
use slice_tests::harness::say;
use slice_tests::lab::config::node_documents;
use slice_tests::lab::inventory::{NODES, NodeSpec, cluster_index};
use slice_tests::lab::{Lab, LabOptions, Wan};
use slice_tests::relay::Settings;

pub(super) const CEILING_BPS: f64 = 40e6;
const LIMIT: Duration = Duration::from_secs(30);
/// What the ceiling lets pass in half a second, and in two.
const SETTLING_BYTES: u64 = 2_500_000;
const MEASURED_BYTES: u64 = 10_000_000;
/// Ethernet's part of each packet on the link, gaps included.
const ETHERNET_BYTES: u64 = 38;

/// In the lab with agents, over a link that carries whatever comes.
pub(super) fn the_ceiling_holds_for_both(agent: &Path, options: LabOptions) -> Result<()> {
    let lab = Lab::up(&LabOptions {
        wan: Wan::relay(Settings::with_delay(Duration::from_millis(5))),
        ..options
    })?;
    lab.start_agents(agent)?;
    set_nodes(&lab, 2)?;
    let streams = [stream(&lab, "web-0")?, stream(&lab, "web-1")?];
    let together = carried(&lab, &streams)?;
    let both_used = poll_until(LIMIT, || {
        let used = used(&lab)?;
        Ok(used.iter().all(|part| *part > 0.9).then_some(used))
    })?;
    let both_used = both_used.context("two nodes do not use their parts of the ceiling")?;
    set_nodes(&lab, 1)?;
    let each = carried(&lab, &streams)?;
    let seen = format!(
        "as parts of the ceiling: {together:.3?} in sum of two nodes, {each:.3?} where each takes itself for the \
         only one; the agents said that {both_used:.3?} of each part is used"
    );
    say(&seen);
    ensure!(both_used.iter().all(|part| *part < 1.05), "{seen}");
    ensure!(together.whole < 1.03, "{seen}");
    ensure!(together.whole > 0.9, "vacuous: {seen}");
    ensure!(together.by_stream.iter().all(|part| *part > 0.4), "{seen}");
    ensure!(each.whole > 1.5, "the control holds the ceiling: {seen}");
    streams.into_iter().try_for_each(Streams::stop)
}

/// What passed, as parts of the ceiling.
#[derive(Debug)]
struct Carried {
    whole: f64,
    by_stream: [f64; 2],
}

fn carried(lab: &Lab, streams: &[Streams; 2]) -> Result<Carried> {
    let bytes = || -> Result<_> {
        let of_streams = [streams[0].wire_bytes(), streams[1].wire_bytes()];
        Ok((Instant::now(), wire_bytes(lab)?, of_streams))
    };
    // What was under way when rates changed has passed.
    wait_for(lab, SETTLING_BYTES)?;
    let (began, wire, of_streams) = bytes()?;
    wait_for(lab, MEASURED_BYTES)?;
    let (ended, wire_after, of_streams_after) = bytes()?;
    let seconds = (ended - began).as_secs_f64();
    let part = |bytes: u64| bytes as f64 * 8.0 / seconds / CEILING_BPS;
    Ok(Carried {
        whole: part(wire_after - wire),
        by_stream: [0, 1].map(|at| part(of_streams_after[at] - of_streams[at])),
    })
}

/// Until the link carried so much more.
fn wait_for(lab: &Lab, more_bytes: u64) -> Result<()> {
    let begun = wire_bytes(lab)?;
    let carried = poll_until(LIMIT, || {
        Ok((wire_bytes(lab)? >= begun + more_bytes).then_some(()))
    })?;
    carried.context("the link carries next to nothing")
}

/// What the link carried from east to west since it exists.
fn wire_bytes(lab: &Lab) -> Result<u64> {
    Ok(wire_bytes_at(lab)?.0)
}

/// That, and when it had, by the clock of the link.
pub(super) fn wire_bytes_at(lab: &Lab) -> Result<(u64, u64)> {
    let index = |cluster| cluster_index(cluster).with_context(|| format!("no {cluster}"));
    let stats = lab.relay()?.stats()?;
    let direction = stats.directions[index("east")?][index("west")?];
    let bytes = direction.bytes_out + ETHERNET_BYTES * direction.packets_out;
    Ok((bytes, stats.at_ns))
}

/// From a pod of cluster east to the one in west.
pub(super) fn stream(lab: &Lab, from: &str) -> Result<Streams> {
    let spec = StreamSpec {
        port: 5201,
        flows: 4,
        on_and_off: None,
        congestion_control: CongestionControl::CUBIC,
    };
    Streams::start(&lab.pod(from)?.place()?, &lab.pod("web-2")?.place()?, spec)
}

/// How much of its part each node of cluster east uses, as its agent says.
fn used(lab: &Lab) -> Result<[f64; 2]> {
    let counters = lab.counters()?;
    Ok(["east-1", "east-2"].map(|node| {
        let of_node = [("node", node), ("slice", "shop")];
        counters.sum("sliceplane_ceiling_used_ratio", &of_node)
    }))
}

/// Gives slice shop a ceiling on links that so many nodes of each cluster send by.
fn set_nodes(lab: &Lab, nodes: u32) -> Result<()> {
    configure(lab, nodes, |node| {
        with_ceiling(&node_documents(node)?, nodes)
    })
}

/// Gives every node such documents, by which so many send by a link.
pub(super) fn configure(
    lab: &Lab,
    nodes: u32,
    documents: impl Fn(&NodeSpec) -> Result<String>,
) -> Result<()> {
    for node in &NODES {
        let text = documents(node)?;
        let file = lab.node(node.name)?.config;
        let beside = file.with_extension("new");
        std::fs::write(&beside, text)?;
        std::fs::rename(&beside, &file)?;
    }
    let wanted = CEILING_BPS / 8.0 / f64::from(nodes);
    let taken = poll_until(LIMIT, || {
        let counters = lab.counters()?;
        let all = counters.iter();
        let ceilings = all.filter(|(it, _)| it.name == "sliceplane_ceiling_bytes_per_second");
        let ceilings: Vec<_> = ceilings.map(|(_, value)| value).collect();
        Ok((ceilings == vec![wanted; NODES.len()]).then_some(()))
    })?;
    taken.with_context(|| format!("not every agent took over that {nodes} nodes send"))
}

pub(super) fn with_ceiling(text: &str, nodes: u32) -> Result<String> {
    let documents = text.split("---\n").map(|document| {
        let uplinks =
            format!("uplinks: [{{name: wan, interface: nic0, rate: 100M, nodes: {nodes}}}]\n");
        let qos = format!("spec:\n  qos: {{ceiling: {{default: \"{CEILING_BPS}\"}}}}\n");
        match () {
            () if document.contains("kind: Node\n") => format!("{document}{uplinks}"),
            () if document.contains("name: shop\n") => document.replacen("spec:\n", &qos, 1),
            () => document.to_owned(),
        }
    });
    let whole = documents.collect::<Vec<_>>().join("---\n");
    ensure!(
        whole.contains("uplinks:") && whole.contains("ceiling:"),
        "no place for a ceiling in\n{text}"
    );
    Ok(whole)
}
