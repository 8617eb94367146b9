//! What the shaper has to cope with: loads that run together, by class.

use std::time::Duration;

use super::load::{CongestionControl, ExchangeSpec, StreamSpec};
use super::scene::Elsewhere;

pub const REPLICATION: u16 = 9091;
pub const CLIENT: u16 = 9092;
/// What slice `shop` allows, which has no classes.
pub const OTHER_SLICE: u16 = 5201;
const TEN_MS: Duration = Duration::from_millis(10);

/// Streams and questions that run together.
#[derive(Clone, Debug)]
pub struct Plan {
    pub name: &'static str,
    /// From broker to broker.
    pub streams: Vec<StreamSpec>,
    pub exchanges: Vec<ExchangeSpec>,
    /// Streams that share nothing but the link.
    pub beside: Vec<(Elsewhere, StreamSpec)>,
}

pub fn plan(name: &'static str, streams: &[StreamSpec], exchanges: &[ExchangeSpec]) -> Plan {
    Plan {
        name,
        streams: streams.to_vec(),
        exchanges: exchanges.to_vec(),
        beside: Vec::new(),
    }
}

impl Plan {
    #[must_use]
    pub fn beside(mut self, from: Elsewhere, streams: StreamSpec) -> Self {
        self.beside.push((from, streams));
        self
    }
}

pub const fn streams(port: u16, flows: usize) -> StreamSpec {
    StreamSpec {
        port,
        flows,
        on_and_off: None,
        congestion_control: CongestionControl::CUBIC,
    }
}

/// Silent every other second.
pub const fn on_and_off(port: u16, flows: usize) -> StreamSpec {
    StreamSpec {
        on_and_off: Some(Duration::from_secs(1)),
        ..streams(port, flows)
    }
}

/// A small answer a hundred times a second.
pub const fn small(port: u16) -> ExchangeSpec {
    ExchangeSpec {
        port,
        interval: TEN_MS,
        answer_bytes: 200,
    }
}

/// A follower in sync: a tenth of the ceiling.
const IN_SYNC: ExchangeSpec = ExchangeSpec {
    port: REPLICATION,
    interval: TEN_MS,
    answer_bytes: 5_500,
};

pub const IDLE: &str = "idle";
pub const S1: &str = "s1_replication";
pub const S2: &str = "s2_clients";
pub const S3: &str = "s3_1_against_16";
pub const S3_MANY: &str = "s3_1_against_64";
pub const S3_TURNED: &str = "s3_16_against_1";
pub const S4: &str = "s4_client_answers";
pub const S5: &str = "s5_both_saturated";
pub const S6: &str = "s6_on_and_off";
pub const IN_SYNC_IDLE: &str = "in_sync_idle";
pub const IN_SYNC_CATCH_UP: &str = "in_sync_and_catch_up";

/// What a short run leaves out: what is left gives every figure.
const LONG_RUN_ONLY: [&str; 5] = [S1, S2, S3_MANY, S3_TURNED, S6];
/// Those in which the order matters in which loads begin, and that a limit is for.
const STAGGERED: [&str; 6] = [S3, S3_MANY, S3_TURNED, S4, S5, IN_SYNC_CATCH_UP];

/// The base row.
pub fn base() -> Vec<Plan> {
    vec![
        idle(),
        plan(S1, &[streams(REPLICATION, 1)], &[]),
        plan(S2, &[streams(CLIENT, 8)], &[]),
        one_against_16(),
        one_against_64(),
        plan(
            S3_TURNED,
            &[streams(REPLICATION, 16), streams(CLIENT, 1)],
            &[],
        ),
        client_answers(),
        both_saturated(),
        plan(S6, &[on_and_off(REPLICATION, 4), streams(CLIENT, 8)], &[]),
        plan(IN_SYNC_IDLE, &[], &[IN_SYNC]),
        plan(IN_SYNC_CATCH_UP, &[streams(REPLICATION, 1)], &[IN_SYNC]),
    ]
}

pub fn base_of_short_run() -> Vec<Plan> {
    let is_played = |plan: &Plan| !LONG_RUN_ONLY.contains(&plan.name);
    base().into_iter().filter(is_played).collect()
}

pub fn staggered() -> Vec<Plan> {
    let is_staggered = |plan: &Plan| STAGGERED.contains(&plan.name);
    base().into_iter().filter(is_staggered).collect()
}

pub fn idle() -> Plan {
    plan(IDLE, &[], &[small(CLIENT), small(REPLICATION)])
}

pub fn one_against_16() -> Plan {
    plan(S3, &[streams(REPLICATION, 1), streams(CLIENT, 16)], &[])
}

pub fn one_against_64() -> Plan {
    plan(
        S3_MANY,
        &[streams(REPLICATION, 1), streams(CLIENT, 64)],
        &[],
    )
}

pub fn client_answers() -> Plan {
    plan(S4, &[streams(REPLICATION, 8)], &[small(CLIENT)])
}

pub fn both_saturated() -> Plan {
    plan(
        S5,
        &[streams(REPLICATION, 4), streams(CLIENT, 8)],
        &[small(CLIENT), small(REPLICATION)],
    )
}
