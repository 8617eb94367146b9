//! The agents' metrics as numbers that can be compared.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use crate::lab::Lab;
use crate::lab::agents::http_get;
use crate::lab::inventory::{METRICS_PORT, NODES};

/// Every sample of every node at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counters {
    samples: BTreeMap<Sample, f64>,
}

/// What one number is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sample {
    pub node: String,
    pub name: String,
    pub labels: BTreeMap<String, String>,
}

impl Lab {
    /// Reads the metrics of every node that has an agent.
    pub fn counters(&self) -> Result<Counters> {
        let mut counters = Counters::default();
        for node in &NODES {
            if self.agent_pid(node.name)?.is_some() {
                let answer = http_get(&self.node(node.name)?.netns, METRICS_PORT, "/metrics")?;
                if answer.status != 200 {
                    bail!("{}: /metrics answered {}", node.name, answer.status);
                }
                counters.add(node.name, &answer.body)?;
            }
        }
        Ok(counters)
    }
}

impl Counters {
    /// Adds the samples of one node, in Prometheus' text format.
    pub fn add(&mut self, node: &str, text: &str) -> Result<()> {
        for line in text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let Some((name, labels, value)) = parse_line(line) else {
                bail!("{node}: not a metric: {line:?}");
            };
            let (node, name) = (node.to_owned(), name.to_owned());
            self.samples.insert(Sample { node, name, labels }, value);
        }
        Ok(())
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Sample, f64)> {
        self.samples.iter().map(|(sample, value)| (sample, *value))
    }

    /// Sum over all samples of that name that have all these labels; `node` as a label selects one
    /// node.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let matches = |sample: &Sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(label, value)| sample.label(label) == Some(*value))
        };
        self.iter()
            .filter(|(sample, _)| matches(sample))
            .map(|(_, value)| value)
            .sum()
    }

    /// The sums of that metric for each value of `label`, without those that are zero.
    pub fn by_label(&self, name: &str, label: &str) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for (sample, value) in self.iter().filter(|(sample, _)| sample.name == name) {
            if let Some(label) = sample.label(label).filter(|_| value != 0.0) {
                *sums.entry(label.to_owned()).or_default() += value;
            }
        }
        sums
    }

    /// What was added since `earlier`; a sample that did not exist then counts from zero.
    pub fn since(&self, earlier: &Self) -> Self {
        let delta = |(sample, value): (&Sample, &f64)| {
            let before = earlier.samples.get(sample).copied().unwrap_or(0.0);
            (sample.clone(), value - before)
        };
        Self {
            samples: self.samples.iter().map(delta).collect(),
        }
    }
}

impl Sample {
    fn label(&self, label: &str) -> Option<&str> {
        match label {
            "node" => Some(&self.node),
            _ => self.labels.get(label).map(String::as_str),
        }
    }
}

/// NAME VALUE or NAME{LABEL="TEXT",...} VALUE
fn parse_line(line: &str) -> Option<(&str, BTreeMap<String, String>, f64)> {
    let name_end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(name_end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => parse_labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some((name, labels, value))
}

fn parse_labels(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, after) = rest.split_once("=\"")?;
        let (value, after) = parse_quoted(after)?;
        labels.insert(name.to_owned(), value);
        rest = after.strip_prefix(',').unwrap_or(after);
    }
}

/// Text up to the closing quote, with \\, \" and \n resolved.
fn parse_quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[index + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "# HELP drops Dropped packets.\n# TYPE drops counter\n\
         drops_total{reason=\"spoofed\",slice=\"kafka\"} 3\nup 1\n# EOF\n";
    const AFTER: &str = "drops_total{reason=\"spoofed\",slice=\"kafka\"} 5\n\
         drops_total{reason=\"a \\\"b\\\\c, }\",slice=\"shop\"} 2 1700000000\nup 1\n";

    fn counters(nodes: &[(&str, &str)]) -> Counters {
        let mut counters = Counters::default();
        for (node, text) in nodes {
            counters.add(node, text).unwrap();
        }
        counters
    }

    #[test]
    fn sums_select_by_label_and_node() {
        let counters = counters(&[("east-1", AFTER), ("west-1", BEFORE)]);
        assert_eq!(counters.sum("drops_total", &[]), 10.0);
        assert_eq!(counters.sum("drops_total", &[("reason", "spoofed")]), 8.0);
        assert_eq!(counters.sum("drops_total", &[("node", "west-1")]), 3.0);
        assert_eq!(counters.sum("drops_total", &[("reason", "absent")]), 0.0);
        assert_eq!(
            counters.by_label("drops_total", "reason"),
            BTreeMap::from([("spoofed".to_owned(), 8.0), ("a \"b\\c, }".to_owned(), 2.0)])
        );
    }

    #[test]
    fn a_delta_counts_new_samples_from_zero() {
        let delta = counters(&[("east-1", AFTER)]).since(&counters(&[("east-1", BEFORE)]));
        assert_eq!(delta.sum("drops_total", &[("slice", "kafka")]), 2.0);
        assert_eq!(delta.sum("drops_total", &[("slice", "shop")]), 2.0);
        assert_eq!(delta.sum("up", &[]), 0.0);
    }

    #[test]
    fn a_line_that_is_no_metric_is_an_error() {
        for line in [
            "drops_total",
            "drops_total{reason=\"x} 1",
            "drops_total{} many",
        ] {
            assert!(Counters::default().add("east-1", line).is_err(), "{line}");
        }
    }
}
