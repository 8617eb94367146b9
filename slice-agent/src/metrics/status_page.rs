//! How the agent is, in sentences: what `slice-agent status` prints.

use slice_common::id::TrafficClass;
use slice_common::layout::{ShaperKey, ShaperTerms};

use super::loans;
use super::rates::{backend, bytes_per_second, ceiling_bytes_per_second, class_label, classes};
use super::snapshot::{named, slice_label};
use super::usage::{PARTS, Used};
use crate::agent::status::State;
use crate::compile::SharedCeiling;
use crate::plan::rates::shown;

pub fn readiness(state: &State) -> String {
    match (state.ready, &state.degraded) {
        (true, None) => "ready".to_owned(),
        (true, Some(why)) => format!("ready, but degraded: {why}"),
        (false, Some(why)) => format!("not ready: {why}"),
        (false, None) if state.config_valid => {
            "not ready: the configuration is being applied".to_owned()
        }
        (false, None) => "not ready: no valid configuration yet".to_owned(),
    }
}

/// One line for the agent, one for each uplink, one for each slice on it, and one for each of its classes.
pub fn page(state: &State) -> String {
    let mut lines = vec![format!(
        "{}; configuration {} in force",
        readiness(state),
        state.generation
    )];
    lines.extend(state.queues.iter().map(ToString::to_string));
    for (key, terms) in &state.rates {
        lines.push(of_slice(state, key, terms));
        lines.extend(loans::line(state, key));
        for (class, _) in classes(terms) {
            lines.push(of_class(state, key, terms, class));
        }
    }
    lines.extend(loans::of_uplinks(state));
    lines.join("\n") + "\n"
}

fn of_slice(state: &State, key: &ShaperKey, terms: &ShaperTerms) -> String {
    let name = format!(
        "slice {} by uplink {}, {}",
        slice_label(&state.names, key.slice),
        named(&state.names.uplinks, key.ifindex),
        backend(terms.backend)
    );
    let part = state.shared_ceilings.get(key);
    match (state.usage.slices.get(key), part) {
        (Some(usage), _) => format!(
            "{name}: sent {} of {} in the last {:.1} s{}",
            of(usage.sent),
            if part.is_some() {
                "this node's part"
            } else {
                "its ceiling"
            },
            state.usage.interval.as_secs_f64(),
            part.map_or_else(String::new, |whole| format!("; {}", of_nodes(*whole)))
        ),
        (None, Some(whole)) => format!(
            "{name}: {}, this node's part {} bit/s; not yet known how much is used",
            of_nodes(*whole),
            bits(ceiling_bytes_per_second(terms))
        ),
        (None, None) => format!(
            "{name}: ceiling {} bit/s; not yet known how much is used",
            bits(ceiling_bytes_per_second(terms))
        ),
    }
}

fn of_nodes(whole: SharedCeiling) -> String {
    let SharedCeiling { bps, nodes } = whole;
    format!("ceiling {} bit/s of {nodes} nodes together", shown(bps))
}

fn of_class(state: &State, key: &ShaperKey, terms: &ShaperTerms, class: TrafficClass) -> String {
    let name = class_label(&state.names, key.slice, class);
    let usage = state.usage.slices.get(key);
    match usage.and_then(|usage| usage.classes.get(&class.number())) {
        Some(usage) => format!(
            "  class {name}: sent {} of its guarantee{}",
            of(usage.sent),
            match usage.with_socket {
                None => String::new(),
                Some(_) if state.only_forwarded.contains(&key.slice) =>
                    "; forwarded, so no socket here knows of its packets".to_owned(),
                Some(parts) =>
                    format!("; {} of its packets left with their socket", percent(parts)),
            }
        ),
        None => {
            let guarantee = terms.classes[usize::from(class.number())].terms().guarantee;
            let guarantee = bits(bytes_per_second(guarantee));
            format!("  class {name}: guarantee {guarantee} bit/s")
        }
    }
}

fn of(used: Used) -> String {
    let ratio = used.ratio().map_or_else(|| "part".to_owned(), percent);
    let (sent, all) = (bits(used.bytes_per_second), bits(used.of_bytes_per_second));
    format!("{sent} of {all} bit/s, {ratio}")
}

fn bits(bytes_per_second: u64) -> String {
    shown(bytes_per_second.saturating_mul(8))
}

pub(super) fn percent(parts: u64) -> String {
    format!("{:.1} %", parts as f64 * 100.0 / PARTS as f64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Instant;

    use super::*;
    use crate::agent::status::Status;
    use crate::metrics::rates::tests::{queue, terms};
    use crate::metrics::usage::Usage;
    use crate::metrics::usage::tests::{KEY, borrowing};

    fn state(usage: Usage) -> State {
        let status = Status::new(Instant::now());
        status.update(|state| {
            state.generation = 4;
            state.config_valid = true;
            state.ready = true;
            state.rates = BTreeMap::from([(KEY, terms())]);
            state.usage = usage;
            state.names.uplinks = BTreeMap::from([(2, "wan".into())]);
            state.names.slices = BTreeMap::from([(7, "kafka".into())]);
            state.names.classes = BTreeMap::from([((7, 2), "replication".into())]);
        });
        status.read()
    }

    #[test]
    fn people_read_how_much_is_used_of_what() {
        let page = page(&state(borrowing()));
        let expected = "\
ready; configuration 4 in force
slice kafka by uplink wan, vq: sent 64M of 80M bit/s, 80.0 % of its ceiling in the last 2.0 s
  class default: sent 0 of 16M bit/s, 0.0 % of its guarantee
  class replication: sent 64M of 56M bit/s, 114.3 % of its guarantee; 95.0 % of its packets left with their socket
";
        assert_eq!(page, expected);
    }

    #[test]
    fn what_is_not_known_is_not_shown_as_nothing() {
        let page = page(&state(Usage::default()));
        let expected = "\
ready; configuration 4 in force
slice kafka by uplink wan, vq: ceiling 80M bit/s; not yet known how much is used
  class default: guarantee 16M bit/s
  class replication: guarantee 56M bit/s
";
        assert_eq!(page, expected);
    }

    #[test]
    fn what_is_forwarded_is_not_taken_for_what_lost_its_socket() {
        let mut state = state(borrowing());
        state.only_forwarded = [KEY.slice].into();
        let page = page(&state);
        let class = page.lines().last().expect("a class");
        let expected = "  class replication: sent 64M of 56M bit/s, 114.3 % of its guarantee; forwarded, so no socket here \
                        knows of its packets";
        assert_eq!(class, expected);
    }

    #[test]
    fn a_part_of_a_ceiling_is_not_taken_for_the_whole() {
        let whole = SharedCeiling {
            bps: 240_000_000,
            nodes: 3,
        };
        let line = |usage| {
            let mut state = state(usage);
            state.shared_ceilings = BTreeMap::from([(KEY, whole)]);
            page(&state).lines().nth(1).map(str::to_owned)
        };
        let used = "slice kafka by uplink wan, vq: sent 64M of 80M bit/s, 80.0 % of this node's part in the last 2.0 s; \
                    ceiling 240M bit/s of 3 nodes together";
        assert_eq!(line(borrowing()).as_deref(), Some(used));
        let unknown = "slice kafka by uplink wan, vq: ceiling 240M bit/s of 3 nodes together, this node's part 80M bit/s; \
                       not yet known how much is used";
        assert_eq!(line(Usage::default()).as_deref(), Some(unknown));
    }

    #[test]
    fn what_packets_wait_in_is_told_before_what_slices_send() {
        let mut state = state(Usage::default());
        state.queues = vec![queue()];
        let page = page(&state);
        let line = page.lines().nth(1).expect("a second line");
        assert_eq!(line, queue().to_string());
        assert!(
            line.starts_with("uplink wan on nic0, vq (fq refused): "),
            "{line}"
        );
    }

    #[test]
    fn a_reason_is_told() {
        let mut state = state(Usage::default());
        state.degraded = Some("no veth".into());
        assert_eq!(readiness(&state), "ready, but degraded: no veth");
        state.ready = false;
        assert_eq!(readiness(&state), "not ready: no veth");
        state.degraded = None;
        assert_eq!(
            readiness(&state),
            "not ready: the configuration is being applied"
        );
    }
}
