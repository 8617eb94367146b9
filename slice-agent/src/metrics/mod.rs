//! The page that Prometheus scrapes: one snapshot of the kernel and the agent per scrape.

mod loans;
pub mod names;
pub(crate) mod rates;
mod snapshot;
pub mod status_page;
pub mod usage;

use std::fmt;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use crate::agent::status::State;
use crate::apply::maps::Maps;
use snapshot::Snapshot;

/// Reads the kernel's maps and writes the page.
pub fn page(state: &State, maps: &Maps) -> Result<String, fmt::Error> {
    render(Snapshot::take(state, maps))
}

fn render(snapshot: Snapshot) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(snapshot));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Instant;

    use slice_common::layout::{Counter, CounterKey, DropKey};

    use super::*;
    use crate::agent::status::Status;
    use crate::observe::counters::Counters;
    use crate::observe::paths::PathState;

    fn counter_key(cluster: u32, class: u8, direction: u8) -> CounterKey {
        CounterKey {
            slice: 7,
            cluster,
            class,
            direction,
            reserved: 0,
        }
    }

    fn page_of(counters: Counters) -> String {
        let status = Status::new(Instant::now());
        status.update(|state| {
            state.names.slices = BTreeMap::from([(7, "kafka".into())]);
            state.names.clusters = BTreeMap::from([(1, "west".into())]);
            state.names.paths = BTreeMap::from([(3, "west/west-1".into())]);
            state.names.classes = BTreeMap::from([((7, 2), "replication".into())]);
            state.config_valid = true;
        });
        render(Snapshot::new(
            &status.read(),
            counters,
            BTreeMap::from([("DROPS", 3)]),
            &BTreeMap::new(),
        ))
        .unwrap()
    }

    #[test]
    fn traffic_and_drops_have_names_for_labels() {
        let page = page_of(Counters {
            traffic: BTreeMap::from([(
                counter_key(1, 2, 1),
                Counter {
                    packets: 5,
                    bytes: 700,
                },
            )]),
            drops: BTreeMap::from([(
                DropKey {
                    slice: 7,
                    reason: 30,
                },
                9,
            )]),
            path_mtu_bytes: BTreeMap::from([(3, 1500)]),
            ..Counters::default()
        });
        for line in [
            "sliceplane_traffic_packets_total{slice=\"kafka\",peer_cluster=\"west\",\
             class=\"replication\",direction=\"out\"} 5",
            "sliceplane_traffic_bytes_total{slice=\"kafka\",peer_cluster=\"west\",\
             class=\"replication\",direction=\"out\"} 700",
            "sliceplane_drops_total{slice=\"kafka\",reason=\"policy_denied\"} 9",
            "sliceplane_path_mtu_bytes{path=\"west/west-1\"} 1500",
            "sliceplane_map_entries{map=\"DROPS\"} 3",
            "sliceplane_map_capacity{map=\"DROPS\"} 16384",
            "sliceplane_config_valid 1",
            "sliceplane_ready 0",
        ] {
            assert!(page.contains(line), "no line {line} in\n{page}");
        }
    }

    #[test]
    fn paths_have_the_names_of_their_peers() {
        let status = Status::new(Instant::now());
        status.update(|state| {
            state.names.paths = BTreeMap::from([(5, "east/gw-1".into())]);
            state.names.path_groups = BTreeMap::from([(9, "west behind east/gw-1".into())]);
            state.path_mtus = BTreeMap::from([(5, 1400)]);
        });
        let paths = BTreeMap::from([
            (
                5,
                PathState {
                    is_up: true,
                    rtt_ns: 12_500_000,
                },
            ),
            (
                6,
                PathState {
                    is_up: false,
                    rtt_ns: 0,
                },
            ),
        ]);
        let counters = Counters {
            unproven: BTreeMap::from([(9, 3)]),
            ..Counters::default()
        };
        let state = status.read();
        let page = render(Snapshot::new(&state, counters, BTreeMap::new(), &paths)).unwrap();
        for line in [
            "sliceplane_path_up{path=\"east/gw-1\"} 1",
            "sliceplane_path_up{path=\"6\"} 0",
            "sliceplane_path_rtt_seconds{path=\"east/gw-1\"} 0.0125",
            "sliceplane_path_probed_bytes{path=\"east/gw-1\"} 1400",
            "sliceplane_path_unproven_total{path_group=\"west behind east/gw-1\"} 3",
        ] {
            assert!(page.contains(line), "no line {line} in\n{page}");
        }
    }

    #[test]
    fn unknown_numbers_appear_as_numbers_and_nothing_is_lost() {
        let page = page_of(Counters {
            traffic: BTreeMap::from([(
                counter_key(99, 6, 77),
                Counter {
                    packets: 1,
                    bytes: 2,
                },
            )]),
            drops: BTreeMap::from([
                (
                    DropKey {
                        slice: 0,
                        reason: 200,
                    },
                    4,
                ),
                (
                    DropKey {
                        slice: 12,
                        reason: 70_000,
                    },
                    5,
                ),
            ]),
            path_mtu_bytes: BTreeMap::from([(4, 1400)]),
            ..Counters::default()
        });
        for line in [
            "sliceplane_traffic_packets_total{slice=\"kafka\",peer_cluster=\"99\",class=\"6\",\
             direction=\"77\"} 1",
            "sliceplane_drops_total{slice=\"\",reason=\"200\"} 4",
            "sliceplane_drops_total{slice=\"12\",reason=\"70000\"} 5",
            "sliceplane_path_mtu_bytes{path=\"4\"} 1400",
        ] {
            assert!(page.contains(line), "no line {line} in\n{page}");
        }
    }

    #[test]
    fn two_numbers_with_one_label_are_one_series() {
        let status = Status::new(Instant::now());
        // A slice may be called "12"; slice number 12 has no name here.
        status.update(|state| state.names.slices = BTreeMap::from([(7, "12".into())]));
        let counters = Counters {
            drops: BTreeMap::from([
                (
                    DropKey {
                        slice: 7,
                        reason: 30,
                    },
                    1,
                ),
                (
                    DropKey {
                        slice: 12,
                        reason: 30,
                    },
                    2,
                ),
            ]),
            ..Counters::default()
        };
        let page = render(Snapshot::new(
            &status.read(),
            counters,
            BTreeMap::new(),
            &BTreeMap::new(),
        ))
        .unwrap();
        let line = "sliceplane_drops_total{slice=\"12\",reason=\"policy_denied\"}";
        assert_eq!(page.matches(line).count(), 1, "{page}");
        assert!(page.contains(&format!("{line} 3")), "{page}");
    }

    #[test]
    fn the_page_has_every_metric_of_the_table() {
        let page = page_of(Counters::default());
        for metric in names::METRICS {
            assert!(
                page.contains(&format!("# TYPE {} ", metric.family())),
                "{}",
                metric.name
            );
        }
    }
}
