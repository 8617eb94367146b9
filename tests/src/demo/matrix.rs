//! Who may talk to whom: every pair of pods tried with real packets.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;

use crate::lab::Lab;
use crate::lab::inventory::{PODS, PodSpec};
use crate::netns::NetNs;
use crate::probe::{Listener, Outcome, attempt_as, drops_at};

/// Kafka's client port, and the shop's.
const PORTS: [u16; 2] = [9092, 80];
/// What [`Matrix::stopped_by`] calls the host's route that refuses.
pub const GUARD_ROUTE: &str = "unreachable";
/// Longer than a round trip over the WAN and two lost SYNs.
const LIMIT: Duration = Duration::from_secs(4);

/// One cell of the matrix.
#[derive(Clone, Debug)]
pub struct Cell {
    pub from: &'static PodSpec,
    pub to: &'static PodSpec,
    /// Of the sender's addresses the one it sends from; unspecified, the one of its default route.
    pub source: Ipv4Addr,
    pub address: Ipv4Addr,
    pub port: u16,
    pub expected: Expected,
}

/// What should become of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    Connects,
    /// Dropped and counted for this reason.
    Drops(&'static str),
    /// Not steered by a program; the host's guard route says no.
    Unreachable,
}

impl Expected {
    fn is_met_by(self, outcome: &Outcome) -> bool {
        match self {
            Self::Connects => *outcome == Outcome::Connected,
            Self::Drops(reason) => outcome.is_drop_for(reason),
            Self::Unreachable => *outcome == Outcome::Unreachable,
        }
    }
}

/// A cell that did not go as it should.
#[derive(Clone, Debug)]
pub struct Surprise {
    pub cell: Cell,
    pub outcome: Outcome,
}

/// The whole matrix's result.
#[derive(Clone, Debug, Default)]
pub struct Matrix {
    pub allowed: usize,
    pub denied: usize,
    pub surprises: Vec<Surprise>,
    /// The allowed cells that connected.
    pub connected: Group,
    /// Denied cells by what stopped them: a drop reason, or [`GUARD_ROUTE`].
    pub stopped_by: BTreeMap<String, Group>,
}

/// Cells that went as they should, for the same reason.
#[derive(Clone, Debug, Default)]
pub struct Group {
    pub cells: usize,
    pub example: Option<Cell>,
}

impl Matrix {
    pub fn allowed_wrong(&self) -> usize {
        self.wrong(|expected| expected == Expected::Connects)
    }

    pub fn denied_wrong(&self) -> usize {
        self.wrong(|expected| expected != Expected::Connects)
    }

    fn wrong(&self, of: impl Fn(Expected) -> bool) -> usize {
        self.surprises
            .iter()
            .filter(|surprise| of(surprise.cell.expected))
            .count()
    }
}

/// Every cell: slice pod to slice pod by slice address; stranger to slice pod by slice address; and,
/// within a cluster, stranger to slice pod and slice pod to stranger by pod address.
pub fn cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for from in &PODS {
        for to in &PODS {
            for port in PORTS {
                cells.extend(by_slice_address(from, to, port));
            }
            cells.extend(by_pod_address(from, to));
        }
    }
    cells
}

/// Tries all cells: first those that a program judges, one after the other, so that every counted drop
/// belongs to one cell. Then those that the host refuses, each address of each stranger in a lane of
/// its own: Linux answers "unreachable" to an address five times at once and then once a second, and
/// for none of them a drop may be counted anywhere.
pub fn run(lab: &Lab, cells: &[Cell], progress: impl Fn(usize) + Sync) -> Result<Matrix> {
    let mut listeners = Vec::new();
    for pod in &PODS {
        let namespace = NetNs::open(&pod.namespace())?;
        for port in PORTS {
            listeners.push(Listener::open(&namespace, port)?);
        }
    }
    let done = AtomicUsize::new(0);
    let tried = |cell: &Cell| -> Result<(Cell, Outcome)> {
        let nodes = [cell.from.node, cell.to.node];
        let to = SocketAddrV4::new(cell.address, cell.port);
        let from = NetNs::open(&cell.from.namespace())?;
        let outcome = attempt_as(&from, cell.source, to, LIMIT, || drops_at(lab, &nodes))?;
        progress(done.fetch_add(1, Ordering::Relaxed) + 1);
        Ok((cell.clone(), outcome))
    };
    let mut matrix = Matrix::default();
    let mut lanes: BTreeMap<Lane, Vec<&Cell>> = BTreeMap::new();
    for cell in cells {
        if cell.expected == Expected::Unreachable {
            let lane = (cell.from.name, cell.source);
            lanes.entry(lane).or_default().push(cell);
        } else {
            matrix.enter(tried(cell)?);
        }
    }
    let refused = std::thread::scope(|scope| {
        let in_lane = |lane| scope.spawn(|| Vec::<&Cell>::into_iter(lane).map(tried).collect());
        let running: Vec<_> = lanes.into_values().map(in_lane).collect();
        let lanes = running.into_iter().map(|lane| match lane.join() {
            Ok(outcomes) => outcomes,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        lanes.collect::<Result<Vec<Vec<(Cell, Outcome)>>>>()
    })?;
    refused
        .into_iter()
        .flatten()
        .for_each(|tried| matrix.enter(tried));
    Ok(matrix)
}

/// A stranger and one of its addresses.
type Lane = (&'static str, Ipv4Addr);

impl Cell {
    /// How much it tells as an example: between clusters, and to Kafka, more.
    fn tells(&self) -> (bool, bool, bool) {
        let crosses = self.from.node().cluster != self.to.node().cluster;
        let to_kafka = self.to.name.starts_with("kafka") && self.port == PORTS[0];
        (to_kafka, crosses, !self.from.name.starts_with("kafka"))
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [from, to] = [self.from, self.to].map(|pod| {
            let place = pod.member.map_or_else(
                || "no slice".to_owned(),
                |it| format!("{}/{}", it.slice, it.namespace),
            );
            format!("{} ({place}, {})", pod.name, pod.node().cluster)
        });
        write!(f, "{from} to {to}, port {}", self.port)
    }
}

impl Matrix {
    fn enter(&mut self, (cell, outcome): (Cell, Outcome)) {
        let is_met = cell.expected.is_met_by(&outcome);
        match cell.expected {
            Expected::Connects => self.allowed += 1,
            Expected::Drops(_) | Expected::Unreachable => self.denied += 1,
        }
        if !is_met {
            self.surprises.push(Surprise { cell, outcome });
            return;
        }
        let group = match cell.expected {
            Expected::Connects => &mut self.connected,
            Expected::Drops(reason) => self.stopped_by.entry(reason.to_owned()).or_default(),
            Expected::Unreachable => self.stopped_by.entry(GUARD_ROUTE.to_owned()).or_default(),
        };
        group.cells += 1;
        if group
            .example
            .as_ref()
            .is_none_or(|it| it.tells() < cell.tells())
        {
            group.example = Some(cell);
        }
    }
}

fn by_slice_address(from: &'static PodSpec, to: &'static PodSpec, port: u16) -> Option<Cell> {
    let address = to.slice_address()?;
    let expected = match (from.member, to.member?) {
        (None, _) => Expected::Unreachable,
        (Some(from), to) if from.slice != to.slice => Expected::Drops("other_slice"),
        _ if from.name == to.name => Expected::Connects,
        (Some(from), to) if rule_allows(from.slice, from.namespace, to.namespace, port) => {
            Expected::Connects
        }
        _ => Expected::Drops("policy_denied"),
    };
    // A stranger has a second address, and must be kept out with either.
    let source = match expected {
        Expected::Unreachable if port == PORTS[1] => from.plain_address(),
        _ => Ipv4Addr::UNSPECIFIED,
    };
    Some(Cell {
        from,
        to,
        source,
        address,
        port,
        expected,
    })
}

/// Within a cluster, by the address that the CNI gave: strangers are kept out, a slice pod may go out.
fn by_pod_address(from: &'static PodSpec, to: &'static PodSpec) -> Option<Cell> {
    let same_cluster = from.node().cluster == to.node().cluster;
    let expected = match (from.member, to.member) {
        (None, Some(_)) => Expected::Drops("isolated"),
        (Some(_), None) => Expected::Connects,
        _ => return None,
    };
    let address = to.pod_address();
    // The sender's own address would never leave it.
    let reachable = same_cluster && from.pod_address() != address;
    reachable.then_some(Cell {
        from,
        to,
        source: Ipv4Addr::UNSPECIFIED,
        address,
        port: PORTS[0],
        expected,
    })
}

/// The rules of the two slices, as a person would say them: an independent second source.
fn rule_allows(slice: &str, from: &str, to: &str, port: u16) -> bool {
    match (slice, port) {
        ("kafka", 9092) => to == "kafka" && ["kafka", "producers", "analytics"].contains(&from),
        ("shop", 80) => from == "web" && to == "web",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_matrix_has_every_kind_of_cell() {
        let kinds: BTreeSet<String> = cells()
            .iter()
            .map(|cell| format!("{:?}", cell.expected))
            .collect();
        let expected = [
            "Connects",
            "Drops(\"isolated\")",
            "Drops(\"other_slice\")",
            "Drops(\"policy_denied\")",
            "Unreachable",
        ];
        assert_eq!(kinds, expected.map(str::to_owned).into());
    }

    #[test]
    fn a_connection_that_should_not_stand_is_a_wrong_denied_cell() {
        let cell = cells()
            .into_iter()
            .find(|cell| cell.expected == Expected::Drops("other_slice"))
            .expect("slices are isolated");
        let mut matrix = Matrix::default();
        matrix.enter((cell, Outcome::Connected));
        assert_eq!(
            (matrix.denied, matrix.denied_wrong(), matrix.allowed_wrong()),
            (1, 1, 0)
        );
    }
}
