//! One moment, with names for numbers, and how it becomes metrics.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use slice_common::drop_reason::DropReason;
use slice_common::layout::{Counter, CounterKey, Direction, DropKey, LAYOUT_VERSION, MAPS};

use super::names::{self, Kind, Metric};
use super::rates::{self, Rates};
use super::usage;
use crate::agent::status::State;
use crate::apply::maps::Maps;
use crate::image::Names;
use crate::observe::counters::{self, Counters};
use crate::observe::paths::{self, PathState};

/// Label values, in the order of the metric's label names.
pub(super) type Labels = Vec<String>;

/// What one scrape shows.
#[derive(Debug)]
pub(super) struct Snapshot {
    packets: BTreeMap<Labels, u64>,
    bytes: BTreeMap<Labels, u64>,
    drops: BTreeMap<Labels, u64>,
    path_mtu_bytes: BTreeMap<Labels, u64>,
    map_entries: BTreeMap<Labels, u64>,
    config_valid: bool,
    generation: u32,
    apply_errors: u64,
    degraded: bool,
    ready: bool,
    host_mismatches: u64,
    endpoints_without_interface: u64,
    hooks_preceded: u64,
    early_drop: bool,
    paths_up: BTreeMap<Labels, u64>,
    path_rtts_ns: BTreeMap<Labels, u64>,
    path_probed: BTreeMap<Labels, u64>,
    unproven: BTreeMap<Labels, u64>,
    rates: Rates,
}

impl Snapshot {
    /// Reads what the kernel counts; what cannot be read is logged and left out.
    pub(super) fn take(state: &State, maps: &Maps) -> Self {
        let mut counters = counters::read(maps).unwrap_or_else(|error| {
            tracing::warn!("the counters are missing from this scrape: {error:#}");
            Counters::default()
        });
        match counters::shaped(maps, &rates::places(state)) {
            Ok(shaped) => counters.shaped = shaped,
            Err(error) => {
                tracing::warn!("what was shaped is missing from this scrape: {error:#}");
            }
        }
        let entries = BTreeMap::from([
            ("COUNTERS", counters.traffic.len()),
            ("DROPS", counters.drops.len()),
        ]);
        let paths = paths::kernel_now_ns()
            .and_then(|now_ns| paths::read(maps, now_ns))
            .unwrap_or_else(|error| {
                tracing::warn!("the paths are missing from this scrape: {error:#}");
                BTreeMap::new()
            });
        Self::new(state, counters, entries, &paths)
    }

    pub(super) fn new(
        state: &State,
        counters: Counters,
        mut map_entries: BTreeMap<&'static str, usize>,
        paths: &BTreeMap<u32, PathState>,
    ) -> Self {
        map_entries.extend(&state.map_entries);
        let map_entries = map_entries
            .iter()
            .map(|(map, n)| (vec![map.to_string()], *n as u64));
        let (mut packets, mut bytes) = (BTreeMap::new(), BTreeMap::new());
        for (
            key,
            Counter {
                packets: count,
                bytes: volume,
            },
        ) in &counters.traffic
        {
            let labels = traffic_labels(&state.names, key);
            *packets.entry(labels.clone()).or_default() += count;
            *bytes.entry(labels).or_default() += volume;
        }
        let mut drops = BTreeMap::new();
        for (key, count) in &counters.drops {
            *drops.entry(drop_labels(&state.names, key)).or_default() += count;
        }
        let path_mtu_bytes = counters
            .path_mtu_bytes
            .iter()
            .map(|(path, mtu)| (vec![named(&state.names.paths, *path)], u64::from(*mtu)));
        let of_paths = |value: fn(&PathState) -> u64| {
            let label = |path: &u32| vec![named(&state.names.paths, *path)];
            paths
                .iter()
                .map(|(path, it)| (label(path), value(it)))
                .collect()
        };
        let mtus = state.path_mtus.iter();
        let unproven = counters.unproven.iter();
        Self {
            paths_up: of_paths(|path| u64::from(path.is_up)),
            path_rtts_ns: of_paths(|path| path.rtt_ns),
            path_probed: mtus
                .map(|(path, bytes)| (vec![named(&state.names.paths, *path)], u64::from(*bytes)))
                .collect(),
            unproven: unproven
                .map(|(group, count)| (vec![named(&state.names.path_groups, *group)], *count))
                .collect(),
            packets,
            bytes,
            drops,
            path_mtu_bytes: path_mtu_bytes.collect(),
            map_entries: map_entries.collect(),
            config_valid: state.config_valid,
            generation: state.generation,
            apply_errors: state.apply_errors,
            degraded: state.degraded.is_some(),
            ready: state.ready,
            host_mismatches: state.host_mismatches as u64,
            endpoints_without_interface: state.endpoints_without_interface as u64,
            hooks_preceded: state.hooks_preceded as u64,
            early_drop: state.early_drop,
            rates: Rates::new(state, &counters.shaped),
        }
    }

    /// Each metric with its series, in the order of the table.
    fn series(&self) -> Vec<(Metric, BTreeMap<Labels, u64>)> {
        let one = |value| BTreeMap::from([(Labels::new(), value)]);
        let capacity = MAPS
            .iter()
            .map(|map| (vec![map.name.to_owned()], map.capacity as u64));
        let build = vec![
            env!("CARGO_PKG_VERSION").to_owned(),
            LAYOUT_VERSION.to_string(),
        ];
        let mut series = vec![
            (names::TRAFFIC_PACKETS, self.packets.clone()),
            (names::TRAFFIC_BYTES, self.bytes.clone()),
            (names::DROPS, self.drops.clone()),
            (names::PATH_MTU_BYTES, self.path_mtu_bytes.clone()),
            (names::MAP_ENTRIES, self.map_entries.clone()),
            (names::MAP_CAPACITY, capacity.collect()),
            (names::BUILD_INFO, BTreeMap::from([(build, 1)])),
            (names::CONFIG_VALID, one(u64::from(self.config_valid))),
            (names::CONFIG_GENERATION, one(u64::from(self.generation))),
            (names::APPLY_ERRORS, one(self.apply_errors)),
            (names::DEGRADED, one(u64::from(self.degraded))),
            (names::READY, one(u64::from(self.ready))),
            (names::HOST_MISMATCHES, one(self.host_mismatches)),
            (
                names::ENDPOINTS_WITHOUT_INTERFACE,
                one(self.endpoints_without_interface),
            ),
            (names::HOOKS_PRECEDED, one(self.hooks_preceded)),
            (names::EARLY_DROP, one(self.early_drop.into())),
            (names::PATH_UP, self.paths_up.clone()),
            (names::PATH_RTT, self.path_rtts_ns.clone()),
            (names::PATH_PROBED, self.path_probed.clone()),
            (names::PATH_UNPROVEN, self.unproven.clone()),
        ];
        series.extend(self.rates.series.iter().cloned());
        series
    }
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (metric, series) in self.series() {
            let kind = match metric.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge | Kind::Seconds | Kind::Ratio => MetricType::Gauge,
                Kind::Delays => MetricType::Histogram,
            };
            let mut encoder =
                encoder.encode_descriptor(metric.family(), metric.help, None, kind)?;
            for (values, value) in series {
                encode_one(&mut encoder, &metric, values, value)?;
            }
        }
        self.rates.encode_delays(&mut encoder)
    }
}

fn encode_one(
    encoder: &mut MetricEncoder<'_>,
    metric: &Metric,
    values: Labels,
    value: u64,
) -> fmt::Result {
    if metric.labels.is_empty() {
        return encode_value(encoder, metric.kind, value);
    }
    let labels: Vec<(&str, String)> = metric.labels.iter().copied().zip(values).collect();
    encode_value(&mut encoder.encode_family(&labels)?, metric.kind, value)
}

fn encode_value(encoder: &mut MetricEncoder<'_>, kind: Kind, value: u64) -> fmt::Result {
    match kind {
        Kind::Counter => encoder.encode_counter::<NoLabelSet, _, u64>(&value, None),
        Kind::Gauge => encoder.encode_gauge(&value),
        Kind::Ratio => encoder.encode_gauge(&(value as f64 / usage::PARTS as f64)),
        Kind::Seconds | Kind::Delays => encoder.encode_gauge(&(value as f64 / 1e9)),
    }
}

fn traffic_labels(names: &Names, key: &CounterKey) -> Labels {
    let class = names.classes.get(&(key.slice, key.class)).cloned();
    let direction = Direction::from_number(key.direction);
    vec![
        slice_label(names, key.slice),
        names
            .clusters
            .get(&key.cluster)
            .cloned()
            .unwrap_or_else(|| key.cluster.to_string()),
        class.unwrap_or_else(|| class_number(key.class)),
        direction.map_or_else(
            || key.direction.to_string(),
            |known| known.label().to_owned(),
        ),
    ]
}

pub(super) fn class_number(class: u8) -> String {
    match class {
        0 => "default".to_owned(),
        other => other.to_string(),
    }
}

fn drop_labels(names: &Names, key: &DropKey) -> Labels {
    let reason = u8::try_from(key.reason)
        .ok()
        .and_then(DropReason::from_number);
    let reason = reason.map_or_else(|| key.reason.to_string(), |known| known.label().to_owned());
    vec![slice_label(names, key.slice), reason]
}

/// The name, or the number of what has none any more.
pub(super) fn named(names: &BTreeMap<u32, String>, id: u32) -> String {
    names.get(&id).cloned().unwrap_or_else(|| id.to_string())
}

pub(super) fn slice_label(names: &Names, slice: u32) -> String {
    match names.slices.get(&slice) {
        Some(name) => name.clone(),
        None if slice == 0 => String::new(),
        None => slice.to_string(),
    }
}
