//! The figures of a demo, as people and programs read them.

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

use crate::json_file::JsonFile;
use crate::throughput::Comparison;

/// Every figure; `None` where its act was skipped or did not get that far. Units are in the names.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Where it is kept after every act, so that an ended run leaves what it found out.
    #[serde(skip)]
    pub file: Option<JsonFile>,
    /// False in what a run leaves that was ended, or could not begin.
    pub finished: bool,
    pub lab_up_seconds: Option<f64>,
    pub kafka_formation_seconds: Option<f64>,
    pub kafka_records_acked: Option<u64>,
    pub kafka_records_lost: Option<u64>,
    pub kafka_records_corrupt: Option<u64>,
    pub kafka_records_duplicate: Option<u64>,
    pub kafka_seconds: Option<f64>,
    pub allowed_cells: Option<usize>,
    pub allowed_cells_wrong: Option<usize>,
    pub denied_cells: Option<usize>,
    pub denied_cells_wrong: Option<usize>,
    pub wan_one_way_delay_ms: Option<f64>,
    pub rtt_slice_ms_avg: Option<f64>,
    pub rtt_plain_ms_avg: Option<f64>,
    pub wan_relay_lateness_ms_max: Option<f64>,
    pub stream_gso_ratio_vs_plain: Option<f64>,
    pub stream_gso: Option<Comparison>,
    pub redis_ratio_vs_plain: Option<f64>,
    pub redis: Option<Comparison>,
    pub agent_dead_seconds: Option<f64>,
    pub udp_packets_sent_over_agent_kill: Option<u64>,
    pub packets_lost_over_agent_kill: Option<u64>,
    pub connections_reset: Option<u64>,
    pub tcp_bytes_verified_over_agent_kill: Option<u64>,
    pub kafka_records_acked_over_agent_kill: Option<u64>,
    pub kafka_records_lost_over_agent_kill: Option<u64>,
    pub qos_link_bps: Option<u64>,
    /// What keeps packets to their time on this kernel.
    pub qos_backend: Option<String>,
    pub qos_client_p99_ms_idle: Option<f64>,
    pub qos_client_p99_ms_without: Option<f64>,
    pub qos_client_p99_ms_with: Option<f64>,
    /// Of what the full link adds to the answers' time, the part that the shaper takes away.
    pub qos_client_p99_spared_ratio: Option<f64>,
    pub qos_replication_guarantee_ratio_without: Option<f64>,
    pub qos_replication_guarantee_ratio: Option<f64>,
    pub qos_picture: Option<PathBuf>,
    pub skipped: Vec<String>,
    /// What went wrong, one sentence each; empty when everything held.
    pub faults: Vec<String>,
    pub seconds: f64,
}

/// A figure's name and value, whether a value holds, and what was expected in words.
type Promise = (&'static str, Option<f64>, fn(f64) -> bool, &'static str);

/// Records that the first Kafka act must see acknowledged.
pub(super) const KAFKA_RECORDS: u64 = 20_000;

/// What a class gets at least, of what it is guaranteed.
const GUARANTEE_RATIO_MIN: f64 = 0.95;
/// Wide: a machine that does something else besides answers late without any link.
const SPARED_RATIO_MIN: f64 = 0.75;

impl Report {
    /// Adds a sentence for every figure that is not as promised. Figures of skipped acts are not
    /// judged, nor those that are missing because of a fault that is named already.
    pub fn judge(&mut self) {
        let broke_off = !self.faults.is_empty();
        let promises = self.promises();
        let without_kafka = self.skipped.iter().any(|act| act == "kafka");
        for (name, figure, holds, expected) in promises {
            match figure {
                Some(figure) if holds(figure) => {}
                Some(figure) => {
                    self.faults
                        .push(format!("{name} is {figure}, expected {expected}"));
                }
                None if broke_off || without_kafka && name.starts_with("kafka") => {}
                None => self.faults.push(format!("{name} was not measured")),
            }
        }
    }

    fn promises(&self) -> [Promise; 10] {
        let count = |figure: Option<u64>| figure.map(|it| it as f64);
        let cells = |figure: Option<usize>| figure.map(|it| it as f64);
        let none = |name, figure| -> Promise { (name, figure, |it| it == 0.0, "0") };
        [
            (
                "kafka_records_acked",
                count(self.kafka_records_acked),
                |it| it >= KAFKA_RECORDS as f64,
                "20000 or more",
            ),
            none("kafka_records_lost", count(self.kafka_records_lost)),
            none("kafka_records_corrupt", count(self.kafka_records_corrupt)),
            none("denied_cells_wrong", cells(self.denied_cells_wrong)),
            none("allowed_cells_wrong", cells(self.allowed_cells_wrong)),
            none(
                "packets_lost_over_agent_kill",
                count(self.packets_lost_over_agent_kill),
            ),
            none("connections_reset", count(self.connections_reset)),
            none(
                "kafka_records_lost_over_agent_kill",
                count(self.kafka_records_lost_over_agent_kill),
            ),
            (
                "qos_replication_guarantee_ratio",
                self.qos_replication_guarantee_ratio,
                |it| it >= GUARANTEE_RATIO_MIN,
                "0.95 or more",
            ),
            (
                "qos_client_p99_spared_ratio",
                self.qos_client_p99_spared_ratio,
                |it| it >= SPARED_RATIO_MIN,
                "0.75 or more",
            ),
        ]
    }

    /// Whether the act about a shared link went as promised.
    pub(super) fn qos_holds(&self) -> bool {
        let promises = self.promises();
        let of_qos = promises
            .iter()
            .filter(|(name, ..)| name.starts_with("qos_"));
        of_qos
            .copied()
            .all(|(_, figure, holds, _)| figure.is_some_and(holds))
    }

    /// 0: everything held; 1: something did not; 3: an act was skipped and the rest held.
    pub fn exit_code(&self) -> u8 {
        match (self.faults.is_empty(), self.skipped.is_empty()) {
            (false, _) => 1,
            (true, false) => 3,
            (true, true) => 0,
        }
    }

    /// Writes what there is so far, if anybody wants it.
    pub fn keep(&self) -> Result<()> {
        self.file.as_ref().map_or(Ok(()), |file| file.write(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Report {
        Report {
            kafka_records_acked: Some(20_000),
            kafka_records_lost: Some(0),
            kafka_records_corrupt: Some(0),
            allowed_cells_wrong: Some(0),
            denied_cells_wrong: Some(0),
            packets_lost_over_agent_kill: Some(0),
            connections_reset: Some(0),
            kafka_records_lost_over_agent_kill: Some(0),
            qos_replication_guarantee_ratio: Some(1.3),
            qos_client_p99_spared_ratio: Some(0.99),
            ..Report::default()
        }
    }

    #[test]
    fn a_run_that_holds_every_promise_is_a_success() {
        let mut report = good();
        report.judge();
        assert_eq!(
            (report.faults.as_slice(), report.exit_code()),
            ([].as_slice(), 0)
        );
    }

    #[test]
    fn each_broken_promise_is_named_and_fails() {
        let mut report = Report {
            packets_lost_over_agent_kill: Some(3),
            ..good()
        };
        report.judge();
        assert_eq!(
            report.faults,
            ["packets_lost_over_agent_kill is 3, expected 0"]
        );
        assert_eq!(report.exit_code(), 1);
    }

    #[test]
    fn a_shaper_that_spares_nothing_fails_and_so_does_a_link_that_nothing_waits_for() {
        for spared in [0.74, -0.1, f64::NAN] {
            let mut report = Report {
                qos_client_p99_spared_ratio: Some(spared),
                ..good()
            };
            assert!(good().qos_holds() && !report.qos_holds());
            report.judge();
            let fault = format!("qos_client_p99_spared_ratio is {spared}, expected 0.75 or more");
            assert_eq!(report.faults, [fault]);
        }
    }

    #[test]
    fn a_figure_that_is_missing_without_a_skip_fails() {
        let mut report = Report {
            connections_reset: None,
            ..good()
        };
        report.judge();
        assert_eq!(report.faults, ["connections_reset was not measured"]);
    }

    #[test]
    fn a_run_that_broke_off_names_its_one_fault_and_what_is_wrong_already() {
        let mut report = Report {
            denied_cells_wrong: Some(2),
            connections_reset: None,
            faults: vec!["the lab fell over".into()],
            ..good()
        };
        report.judge();
        assert_eq!(
            report.faults,
            ["the lab fell over", "denied_cells_wrong is 2, expected 0"]
        );
    }

    #[test]
    fn without_kafka_the_rest_must_hold_and_the_code_says_skipped() {
        let mut report = Report {
            kafka_records_acked: None,
            kafka_records_lost: None,
            kafka_records_corrupt: None,
            kafka_records_lost_over_agent_kill: None,
            skipped: vec!["kafka".into()],
            ..good()
        };
        report.judge();
        assert_eq!(
            (report.faults.as_slice(), report.exit_code()),
            ([].as_slice(), 3)
        );
    }
}
