//! What a slice costs: round trips against the WAN's delay, throughput against plain routing.

use std::time::Duration;

use anyhow::Result;

use crate::lab::Lab;
use crate::place::Place;
use crate::throughput::{
    Comparison, PingResult, RedisLoad, Target, compare_interleaved, iperf3, ping, redis,
};

const CLIENT: &str = "kafka-0";
const SERVER: &str = "kafka-1";
const PINGS: u32 = 100;
const PING_INTERVAL: Duration = Duration::from_millis(20);
const ROUNDS: u32 = 5;
const STREAM_SECONDS: u32 = 2;
const REDIS_ROUNDS: u32 = 3;
const REDIS: RedisLoad = RedisLoad {
    value_bytes: 16 * 1024,
    requests: 10_000,
    connections: 8,
};

/// The same two pods by both routes.
pub(super) struct Pair {
    client: Place,
    server: Place,
    plain: Target,
    slice: Target,
}

impl Pair {
    pub(super) fn new(lab: &Lab) -> Result<Self> {
        let (client, server) = (lab.pod(CLIENT)?.place()?, lab.pod(SERVER)?.place()?);
        let plain = Target {
            name: "plain".to_owned(),
            address: lab.pod(SERVER)?.plain_address,
            bind: Some(lab.pod(CLIENT)?.plain_address),
        };
        let slice = Target {
            name: "slice".to_owned(),
            address: server.address,
            bind: None,
        };
        Ok(Self {
            client,
            server,
            plain,
            slice,
        })
    }

    /// Round trips: plain, then slice.
    pub(super) fn round_trips(&self) -> Result<[PingResult; 2]> {
        let plain = ping(&self.client, &self.plain, PINGS, PING_INTERVAL)?;
        let slice = ping(&self.client, &self.slice, PINGS, PING_INTERVAL)?;
        Ok([plain, slice])
    }

    /// One TCP stream, segmentation offload on, as the receiver counts it.
    pub(super) fn stream(&self) -> Result<Comparison> {
        compare_interleaved(ROUNDS, &self.plain, &self.slice, |target| {
            Ok(iperf3(&self.client, &self.server, target, STREAM_SECONDS)?.received_bps)
        })
    }

    /// redis-benchmark with values of 16 KiB: SET and GET requests per second, added.
    pub(super) fn redis(&self) -> Result<Comparison> {
        compare_interleaved(REDIS_ROUNDS, &self.plain, &self.slice, |target| {
            let results = redis(&self.client, &self.server, target, &REDIS)?;
            Ok(results
                .iter()
                .map(|result| result.requests_per_second)
                .sum())
        })
    }
}
