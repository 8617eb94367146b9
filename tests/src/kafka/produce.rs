//! The producer: numbered, checksummed records, each retried until all in-sync replicas have it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, anyhow};
use chrono::{DateTime, Utc};
use clap::Args;
use rskafka::client::partition::{Compression, PartitionClient};
use rskafka::record::Record;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::client::{self, Connection, Stop};
use super::record::{RecordId, SequenceSet};

/// A request that takes longer is tried again on a new connection.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(8);
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);

/// Arguments of `slice-lab kafka-produce`.
#[derive(Args, Clone, Debug)]
pub struct ProduceArgs {
    /// NAME:PORT of brokers, comma-separated
    #[arg(long, value_delimiter = ',', required = true)]
    pub bootstrap: Vec<String>,
    #[arg(long)]
    pub topic: String,
    /// Partitions 0 to N-1 are written to
    #[arg(long, default_value_t = 6)]
    pub partitions: i32,
    /// Identifies this run's records
    #[arg(long)]
    pub run: u64,
    /// Stop after this many records; without it, on SIGTERM or SIGINT
    #[arg(long)]
    pub records: Option<u64>,
    /// Bytes of each record's value, at least 20
    #[arg(long, default_value_t = 1000)]
    pub record_bytes: usize,
    /// Records in one request
    #[arg(long, default_value_t = 100)]
    pub batch: u64,
    /// Records per second over all partitions; without it, as fast as they are acknowledged
    #[arg(long)]
    pub rate: Option<u64>,
    /// A record that is not acknowledged for so long is given up, and the run ends
    #[arg(long, default_value_t = 60)]
    pub give_up_seconds: u64,
    /// The whole run ends after so long
    #[arg(long, default_value_t = 300)]
    pub limit_seconds: u64,
}

/// What the producer did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProduceReport {
    pub run: u64,
    /// Sequence numbers that all in-sync replicas have.
    pub acked: SequenceSet,
    /// Records that were given up.
    pub given_up: u64,
    /// Requests that failed and were tried again.
    pub retries: u64,
    /// The first few errors, each seen by a retry or the end of the run.
    pub errors: Vec<String>,
    pub first_ack_ms: f64,
    /// Of single requests, retries included.
    pub slowest_ack_ms: f64,
    pub elapsed_ms: f64,
}

impl ProduceArgs {
    /// Runs the producer and prints progress and the report as JSON lines.
    pub fn run(self) -> Result<()> {
        client::run_to_stdout(|stop| produce(self, stop))
    }
}

async fn produce(args: ProduceArgs, stop: Stop) -> Result<ProduceReport> {
    let started = Instant::now();
    let shared = Arc::new(Shared {
        end: started + Duration::from_secs(args.limit_seconds),
        connection: Connection::new(args.bootstrap.clone(), args.topic.clone()),
        started,
        stop: stop.clone(),
        state: Mutex::new(State {
            next: 0,
            report: ProduceReport {
                run: args.run,
                ..ProduceReport::default()
            },
        }),
        args,
    });
    let mut writers = JoinSet::new();
    for partition in 0..shared.args.partitions {
        writers.spawn(write_partition(Arc::clone(&shared), partition));
    }
    let progress = || shared.lock().report.acked.len();
    client::join_with_progress(&mut writers, progress).await?;
    let mut report = shared.lock().report.clone();
    report.elapsed_ms = client::milliseconds(started.elapsed());
    Ok(report)
}

struct Shared {
    args: ProduceArgs,
    connection: Connection,
    started: Instant,
    end: Instant,
    stop: Stop,
    state: Mutex<State>,
}

struct State {
    /// First sequence number that no writer has taken.
    next: u64,
    report: ProduceReport,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere ends the run anyway; the numbers up to then are still right.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next batch of sequence numbers, or `None` when the run is over.
    fn take_batch(&self) -> Option<std::ops::Range<u64>> {
        if self.stop.is_set() || Instant::now() >= self.end {
            return None;
        }
        let mut state = self.lock();
        let first = state.next;
        let last = self.args.records.unwrap_or(u64::MAX);
        let batch = first..last.min(first + self.args.batch);
        state.next = batch.end;
        (!batch.is_empty()).then_some(batch)
    }

    /// When a batch may be sent at the wanted rate.
    fn due(&self, batch: &std::ops::Range<u64>) -> Instant {
        let rate = self.args.rate.map_or(f64::INFINITY, |rate| rate as f64);
        self.started + Duration::from_secs_f64(batch.start as f64 / rate)
    }

    fn note_error(&self, error: &anyhow::Error) {
        const KEPT: usize = 10;
        let mut state = self.lock();
        if state.report.errors.len() < KEPT {
            state.report.errors.push(format!("{error:#}"));
        }
    }
}

async fn write_partition(shared: Arc<Shared>, partition: i32) -> Result<()> {
    let mut client = None;
    while let Some(batch) = shared.take_batch() {
        let due = shared.due(&batch);
        tokio::select! {
            () = sleep_until(due.min(shared.end)) => {}
            // The batch was taken but not sent: it is neither acknowledged nor lost.
            () = shared.stop.wait() => return Ok(()),
        }
        let give_up = Instant::now() + Duration::from_secs(shared.args.give_up_seconds);
        if !write_until_acked(&shared, partition, &mut client, &batch, give_up).await {
            shared.lock().report.given_up += batch.end - batch.start;
            shared.stop.set();
        }
    }
    Ok(())
}

async fn write_until_acked(
    shared: &Shared,
    partition: i32,
    client: &mut Option<PartitionClient>,
    batch: &std::ops::Range<u64>,
    give_up: Instant,
) -> bool {
    let began = Instant::now();
    while Instant::now() < give_up.min(shared.end) {
        match timeout(ATTEMPT_LIMIT, attempt(shared, partition, client, batch)).await {
            Ok(Ok(())) => {
                note_ack(shared, batch, began);
                return true;
            }
            Ok(Err(error)) => shared.note_error(&error),
            Err(_) => shared.note_error(&anyhow!("no answer within {ATTEMPT_LIMIT:?}")),
        }
        // The old connection may hang; whether its request was stored is unknown, so a retry can
        // make a duplicate, never a loss.
        *client = None;
        shared.lock().report.retries += 1;
        tokio::time::sleep(PAUSE_AFTER_ERROR).await;
    }
    false
}

/// One request; the library always asks for acknowledgement by all in-sync replicas (acks = -1).
async fn attempt(
    shared: &Shared,
    partition: i32,
    client: &mut Option<PartitionClient>,
    batch: &std::ops::Range<u64>,
) -> Result<()> {
    let ready = match client {
        Some(ready) => ready,
        None => client.insert(shared.connection.partition(partition).await?),
    };
    let records = batch
        .clone()
        .map(|sequence| record(&shared.args, sequence))
        .collect();
    ready.produce(records, Compression::NoCompression).await?;
    Ok(())
}

fn note_ack(shared: &Shared, batch: &std::ops::Range<u64>, began: Instant) {
    let now = Instant::now();
    let mut state = shared.lock();
    let report = &mut state.report;
    if report.acked.is_empty() {
        report.first_ack_ms = client::milliseconds(now - shared.started);
    }
    report.slowest_ack_ms = report.slowest_ack_ms.max(client::milliseconds(now - began));
    for sequence in batch.clone() {
        report.acked.insert(sequence);
    }
}

fn record(args: &ProduceArgs, sequence: u64) -> Record {
    let id = RecordId {
        run: args.run,
        sequence,
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now_ms = now.map_or(0, |since| since.as_millis() as i64);
    Record {
        key: None,
        value: Some(id.encode(args.record_bytes)),
        headers: Default::default(),
        timestamp: DateTime::<Utc>::from_timestamp_millis(now_ms).unwrap_or_default(),
    }
}
