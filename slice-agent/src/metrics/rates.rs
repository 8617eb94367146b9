//! What slices may send by uplinks, and what became of what they sent.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use slice_common::id::TrafficClass;
use slice_common::layout::{Counter, ShaperBackend, ShaperCounts, ShaperTerms};
use slice_common::shaper::{ByteCost, DELAY_BUCKETS, delay_bucket_end_ns};

use super::loans;
use super::names::{self, Metric};
use super::snapshot::{Labels, class_number, named, slice_label};
use crate::agent::status::State;
use crate::compile::UplinkQueue;
use crate::image::Names;

/// The part of a scrape that is about rates.
#[derive(Debug, Default)]
pub(super) struct Rates {
    pub(super) series: Vec<(Metric, BTreeMap<Labels, u64>)>,
    delays: BTreeMap<Labels, [u64; DELAY_BUCKETS]>,
}

/// All but the histogram, in the order of a scrape.
const SERIES: &[Metric] = &[
    names::QUEUE_INFO,
    names::SHAPER_INFO,
    names::CEILING,
    names::SLICE_GUARANTEE,
    names::CLASS_GUARANTEE,
    names::SHAPED_PACKETS,
    names::SHAPED_BYTES,
    names::SHAPED_MARKED,
    names::SHAPED_WITH_SOCKET,
    names::CEILING_USED,
    names::CLASS_GUARANTEE_USED,
    names::WITH_SOCKET,
    names::LENT,
    names::BORROWED,
    names::PARTNER_ANSWERS,
];

type Counts = BTreeMap<u32, ShaperCounts>;

/// Where the classes in force are counted.
pub(crate) fn places(state: &State) -> Vec<u32> {
    let classes = state.rates.values().flat_map(classes);
    classes.map(|(_, place)| place).collect()
}

/// The classes that are configured, with the places of their clocks.
pub(crate) fn classes(terms: &ShaperTerms) -> impl Iterator<Item = (TrafficClass, u32)> {
    let configured = TrafficClass::all().filter(|class| terms.has_class(*class));
    configured.map(|class| (class, ShaperTerms::class_clocks(terms.clocks, class)))
}

impl Rates {
    pub(super) fn new(state: &State, counts: &Counts) -> Self {
        let metrics = SERIES.iter().map(|metric| (*metric, BTreeMap::new()));
        let mut rates = Self {
            series: metrics.collect(),
            delays: BTreeMap::new(),
        };
        for queue in &state.queues {
            rates.put(names::QUEUE_INFO, &queue_labels(queue), 1);
        }
        for (key, terms) in &state.rates {
            let slice = vec![
                named(&state.names.uplinks, key.ifindex),
                slice_label(&state.names, key.slice),
            ];
            rates.add_slice(&slice, terms);
            // What is passed on has no socket here: 0 would say that senders cannot be slowed.
            let has_sockets = !state.only_forwarded.contains(&key.slice);
            for (class, place) in classes(terms) {
                let labels = with(&slice, class_label(&state.names, key.slice, class));
                let own = terms.classes[usize::from(class.number())].terms();
                rates.put(
                    names::CLASS_GUARANTEE,
                    &labels,
                    bytes_per_second(own.guarantee),
                );
                if let Some(counts) = counts.get(&place) {
                    rates.add_counts(&labels, counts);
                    let with_socket = has_sockets.then_some(counts.with_socket);
                    rates.put_some(names::SHAPED_WITH_SOCKET, &labels, with_socket);
                }
                let used = state.usage.slices.get(key);
                if let Some(used) = used.and_then(|it| it.classes.get(&class.number())) {
                    rates.put_some(names::CLASS_GUARANTEE_USED, &labels, used.sent.ratio());
                    let with_socket = used.with_socket.filter(|_| has_sockets);
                    rates.put_some(names::WITH_SOCKET, &labels, with_socket);
                }
            }
            if let Some(used) = state.usage.slices.get(key) {
                rates.put_some(names::CEILING_USED, &slice, used.sent.ratio());
            }
        }
        for (metric, labels, value) in loans::series(state) {
            rates.put(metric, &labels, value);
        }
        rates
    }

    /// What is not known has no series.
    fn put_some(&mut self, metric: Metric, labels: &Labels, value: Option<u64>) {
        if let Some(value) = value {
            self.put(metric, labels, value);
        }
    }

    fn add_slice(&mut self, labels: &Labels, terms: &ShaperTerms) {
        let ceiling = ceiling_bytes_per_second(terms);
        // Where all ceilings fit, nobody can take anything from a slice.
        let guarantee = terms.uplink().guarantee_bps();
        let guarantee = guarantee.map_or(ceiling, |bps| bps.div_ceil(8));
        let info = with(labels, backend(terms.backend));
        self.put(names::SHAPER_INFO, &info, 1);
        self.put(names::CEILING, labels, ceiling);
        self.put(names::SLICE_GUARANTEE, labels, guarantee);
    }

    fn add_counts(&mut self, labels: &Labels, counts: &ShaperCounts) {
        for (mode, counter) in modes(counts) {
            let labels = with(labels, mode.to_owned());
            self.put(names::SHAPED_PACKETS, &labels, counter.packets);
            self.put(names::SHAPED_BYTES, &labels, counter.bytes);
        }
        self.put(names::SHAPED_MARKED, labels, counts.marked);
        self.delays.insert(labels.clone(), counts.waited);
    }

    fn put(&mut self, metric: Metric, labels: &Labels, value: u64) {
        let mut series = self.series.iter_mut();
        if let Some((_, values)) = series.find(|(known, _)| known.name == metric.name) {
            values.insert(labels.clone(), value);
        }
    }

    pub(super) fn encode_delays(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let metric = names::QUEUE_DELAY;
        let mut encoder =
            encoder.encode_descriptor(metric.family(), metric.help, None, MetricType::Histogram)?;
        for (values, waited) in &self.delays {
            let labels: Vec<_> = metric.labels.iter().copied().zip(values.clone()).collect();
            let ends = (0..DELAY_BUCKETS).map(|bucket| delay_bucket_end_ns(bucket) as f64 / 1e9);
            let sum = ends
                .clone()
                .zip(waited)
                .map(|(end, count)| end * *count as f64)
                .sum();
            // The last bucket has no end.
            let ends = ends.take(DELAY_BUCKETS - 1).chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = ends.zip(waited.iter().copied()).collect();
            let mut encoder = encoder.encode_family(&labels)?;
            encoder.encode_histogram::<NoLabelSet>(sum, waited.iter().sum(), &buckets, None)?;
        }
        Ok(())
    }
}

fn queue_labels(queue: &UplinkQueue) -> Labels {
    vec![
        queue.uplink.clone(),
        queue.backend.label().to_owned(),
        queue.root.clone(),
        queue.owner.to_owned(),
        queue.refused.to_owned(),
    ]
}

fn modes(counts: &ShaperCounts) -> [(&'static str, Counter); 4] {
    [
        ("guaranteed", counts.guaranteed),
        ("borrowed", counts.borrowed),
        ("lane", counts.lane),
        ("dropped", counts.over_horizon),
    ]
}

/// As configured.
pub(crate) fn ceiling_bytes_per_second(terms: &ShaperTerms) -> u64 {
    terms.slice().ceiling_bps().map_or(0, |bps| bps.div_ceil(8))
}

/// A cost was rounded up when it was made of a rate.
pub(super) fn bytes_per_second(cost: ByteCost) -> u64 {
    cost.bps().map_or(0, |bps| bps.div_ceil(8))
}

pub(super) fn backend(number: u32) -> String {
    let known = ShaperBackend::from_number(number);
    known.map_or_else(|| number.to_string(), |it| it.label().to_owned())
}

pub(super) fn class_label(names: &Names, slice: u32, class: TrafficClass) -> String {
    let name = names.classes.get(&(slice, class.number()));
    name.cloned()
        .unwrap_or_else(|| class_number(class.number()))
}

fn with(labels: &Labels, one_more: String) -> Labels {
    let mut labels = labels.clone();
    labels.push(one_more);
    labels
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Instant;

    use slice_common::layout::{ShaperKey, ShaperPlace};
    use slice_common::shaper::{
        Assured, ClassTerms, Patience, Rate, SliceTerms, UplinkTerms, WireBytes,
    };

    use super::*;
    use crate::agent::status::Status;
    use crate::metrics::usage::tests::borrowing;
    use crate::observe::counters::Counters;

    /// Slice kafka with a class replication on uplink wan, which has room for it.
    pub(in crate::metrics) fn terms() -> ShaperTerms {
        let rate = |bps| Rate::new_checked(bps).expect("in range");
        let (frame, patience) = (WireBytes::new(1538), Patience::for_round_trip(20_000_000));
        let place = ShaperPlace {
            uplink: 0,
            slice: 3,
        };
        let slice = SliceTerms::new(
            rate(80_000_000),
            Assured::new(rate(80_000_000), None),
            frame,
        );
        let class = |bps| ClassTerms::new(rate(bps), patience, frame);
        ShaperTerms::new(
            ShaperBackend::Vq,
            place,
            &UplinkTerms::NONE,
            &slice,
            &class(16_000_000),
        )
        .with_class(TrafficClass::from_low_bits(2), &class(56_000_000))
    }

    /// Of uplink wan, where somebody configured another queue.
    pub(in crate::metrics) fn queue() -> UplinkQueue {
        UplinkQueue {
            uplink: "wan".into(),
            interface: "nic0".into(),
            backend: ShaperBackend::Vq,
            root: "tbf 7:".into(),
            owner: "somebody",
            refused: "fq",
            is_against_wish: false,
            is_without: true,
            why: "somebody configured it".into(),
        }
    }

    fn counter(packets: u64) -> Counter {
        Counter {
            packets,
            bytes: packets * 1538,
        }
    }

    /// Of slice kafka, which sent something of its class replication.
    fn status() -> Status {
        let key = ShaperKey {
            ifindex: 2,
            slice: 7,
        };
        let status = Status::new(Instant::now());
        status.update(|state| {
            state.queues = vec![queue()];
            state.rates = BTreeMap::from([(key, terms())]);
            state.usage = borrowing();
            state.names.uplinks = BTreeMap::from([(2, "wan".into())]);
            state.names.slices = BTreeMap::from([(7, "kafka".into())]);
            state.names.classes = BTreeMap::from([((7, 2), "replication".into())]);
        });
        status
    }

    fn page(status: &Status) -> String {
        let mut waited = [0; DELAY_BUCKETS];
        (waited[0], waited[DELAY_BUCKETS - 1]) = (5, 2);
        let counts = ShaperCounts {
            guaranteed: counter(4),
            borrowed: counter(2),
            lane: counter(1),
            over_horizon: counter(9),
            marked: 3,
            with_socket: 6,
            waited,
            latest_wait_ns: 0,
        };
        let counters = Counters {
            shaped: BTreeMap::from([(26, counts)]),
            ..Counters::default()
        };
        let (state, nothing) = (status.read(), BTreeMap::new());
        let snapshot = crate::metrics::Snapshot::new(&state, counters, nothing, &BTreeMap::new());
        crate::metrics::render(snapshot).expect("a page")
    }

    #[test]
    fn people_see_rates_and_what_became_of_packets() {
        let status = status();
        assert_eq!(places(&status.read()), [24, 26]);
        let page = page(&status);
        let of_class = "uplink=\"wan\",slice=\"kafka\",class=\"replication\"";
        for line in [
            "sliceplane_queue_info{uplink=\"wan\",backend=\"vq\",root=\"tbf 7:\",owner=\"somebody\",refused=\"fq\"} 1".to_owned(),
            "sliceplane_shaper_info{uplink=\"wan\",slice=\"kafka\",backend=\"vq\"} 1".to_owned(),
            "sliceplane_ceiling_bytes_per_second{uplink=\"wan\",slice=\"kafka\"} 10000000".to_owned(),
            "sliceplane_slice_guarantee_bytes_per_second{uplink=\"wan\",slice=\"kafka\"} 10000000".to_owned(),
            format!("sliceplane_class_guarantee_bytes_per_second{{{of_class}}} 7000000"),
            "sliceplane_class_guarantee_bytes_per_second{uplink=\"wan\",slice=\"kafka\",class=\"default\"} 2000000".to_owned(),
            format!("sliceplane_shaped_packets_total{{{of_class},mode=\"guaranteed\"}} 4"),
            format!("sliceplane_shaped_packets_total{{{of_class},mode=\"borrowed\"}} 2"),
            format!("sliceplane_shaped_packets_total{{{of_class},mode=\"lane\"}} 1"),
            format!("sliceplane_shaped_bytes_total{{{of_class},mode=\"dropped\"}} 13842"),
            format!("sliceplane_shaped_marked_total{{{of_class}}} 3"),
            format!("sliceplane_shaped_with_socket_total{{{of_class}}} 6"),
            "sliceplane_ceiling_used_ratio{uplink=\"wan\",slice=\"kafka\"} 0.8".to_owned(),
            format!("sliceplane_class_guarantee_used_ratio{{{of_class}}} 1.142857"),
            format!("sliceplane_shaped_with_socket_ratio{{{of_class}}} 0.95"),
            format!("sliceplane_queue_delay_seconds_bucket{{le=\"0.000016384\",{of_class}}} 5"),
            format!("sliceplane_queue_delay_seconds_bucket{{le=\"0.033554432\",{of_class}}} 5"),
            format!("sliceplane_queue_delay_seconds_bucket{{le=\"+Inf\",{of_class}}} 7"),
            format!("sliceplane_queue_delay_seconds_count{{{of_class}}} 7"),
        ] {
            assert!(page.contains(&line), "no line {line} in\n{page}");
        }
    }

    #[test]
    fn what_is_forwarded_has_no_part_with_a_socket() {
        let status = status();
        let of_sockets = "sliceplane_shaped_with_socket";
        let lines = |page: &str| {
            let lines = page.lines().filter(|line| line.starts_with(of_sockets));
            lines.count()
        };
        assert_eq!(lines(&page(&status)), 2, "vacuous");
        status.update(|state| state.only_forwarded = [7].into());
        let page = page(&status);
        assert_eq!(lines(&page), 0, "{page}");
        assert!(page.contains("mode=\"guaranteed\"} 4"), "{page}");
    }
}
