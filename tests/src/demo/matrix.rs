//! Who may talk to whom: every pair of pods tried with real packets.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::Result;

use crate::lab::Lab;
use crate::lab::inventory::{PODS, PodSpec};
use crate::netns::NetNs;
use crate::probe::{Listener, Outcome, attempt, drops_at};

/// Kafka's client port, and the shop's.
const PORTS: [u16; 2] = [9092, 80];
/// Longer than a round trip over the WAN and two lost SYNs.
const LIMIT: Duration = Duration::from_secs(4);

/// One cell of the matrix.
#[derive(Clone, Debug)]
pub struct Cell {
    pub from: &'static PodSpec,
    pub to: &'static PodSpec,
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
    /// Denied cells by what stopped them.
    pub stopped_by: std::collections::BTreeMap<String, usize>,
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

/// Tries all cells, one after the other, so that every counted drop belongs to one cell.
pub fn run(lab: &Lab, cells: &[Cell], mut progress: impl FnMut(usize)) -> Result<Matrix> {
    let mut listeners = Vec::new();
    for pod in &PODS {
        let namespace = NetNs::open(&pod.namespace())?;
        for port in PORTS {
            listeners.push(Listener::open(&namespace, port)?);
        }
    }
    let mut matrix = Matrix::default();
    for (done, cell) in cells.iter().enumerate() {
        let nodes = [cell.from.node, cell.to.node];
        let to = SocketAddrV4::new(cell.address, cell.port);
        let from = NetNs::open(&cell.from.namespace())?;
        let outcome = attempt(&from, to, LIMIT, || drops_at(lab, &nodes))?;
        matrix.enter(cell, outcome);
        progress(done + 1);
    }
    Ok(matrix)
}

impl Matrix {
    fn enter(&mut self, cell: &Cell, outcome: Outcome) {
        if !cell.expected.is_met_by(&outcome) {
            self.surprises.push(Surprise {
                cell: cell.clone(),
                outcome,
            });
            self.count(cell.expected);
            return;
        }
        self.count(cell.expected);
        let stopped_by = match cell.expected {
            Expected::Connects => return,
            Expected::Drops(reason) => reason.to_owned(),
            Expected::Unreachable => "the host's guard route".to_owned(),
        };
        *self.stopped_by.entry(stopped_by).or_default() += 1;
    }

    fn count(&mut self, expected: Expected) {
        match expected {
            Expected::Connects => self.allowed += 1,
            Expected::Drops(_) | Expected::Unreachable => self.denied += 1,
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
    Some(Cell {
        from,
        to,
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
        matrix.enter(&cell, Outcome::Connected);
        assert_eq!(
            (matrix.denied, matrix.denied_wrong(), matrix.allowed_wrong()),
            (1, 1, 0)
        );
    }
}
