//! The consumer: reads every partition from its start and checks each record.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, anyhow};
use clap::Args;
use rskafka::client::partition::{OffsetAt, PartitionClient};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::client::{self, Connection, Stop};
use super::record::Tally;

const ATTEMPT_LIMIT: Duration = Duration::from_secs(8);
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);
/// A fetch answers at once when there is data, else after this long.
const LONGEST_POLL_MS: i32 = 250;
const FETCH_BYTES: std::ops::Range<i32> = 1..1_000_000;

/// Arguments of `slice-lab kafka-consume`.
#[derive(Args, Clone, Debug)]
pub struct ConsumeArgs {
    /// NAME:PORT of brokers, comma-separated
    #[arg(long, value_delimiter = ',', required = true)]
    pub bootstrap: Vec<String>,
    #[arg(long)]
    pub topic: String,
    /// Partitions 0 to N-1 are read
    #[arg(long, default_value_t = 6)]
    pub partitions: i32,
    /// Records of other runs are counted as foreign
    #[arg(long)]
    pub run: u64,
    /// Go on reading until SIGTERM or SIGINT, then to the end; without it, only to the end
    #[arg(long)]
    pub follow: bool,
    /// The whole run ends after so long
    #[arg(long, default_value_t = 300)]
    pub limit_seconds: u64,
}

/// What the consumer saw.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConsumeReport {
    pub run: u64,
    pub tally: Tally,
    /// True if every partition was read to the end that it had when the consumer was told to stop.
    pub reached_end: bool,
    pub retries: u64,
    /// The first few errors, each followed by a retry.
    pub errors: Vec<String>,
    /// Between two answers with records, over all partitions.
    pub longest_silence_ms: f64,
    pub elapsed_ms: f64,
}

impl ConsumeArgs {
    /// Runs the consumer and prints progress and the report as JSON lines.
    pub fn run(self) -> Result<()> {
        client::run_to_stdout(|stop| consume(self, stop))
    }
}

async fn consume(args: ConsumeArgs, stop: Stop) -> Result<ConsumeReport> {
    let started = Instant::now();
    let shared = Arc::new(Shared {
        end: started + Duration::from_secs(args.limit_seconds),
        connection: Connection::new(args.bootstrap.clone(), args.topic.clone()),
        state: Mutex::new(State {
            last_records: None,
            report: ConsumeReport {
                run: args.run,
                reached_end: true,
                ..ConsumeReport::default()
            },
        }),
        stop,
        args,
    });
    let mut readers = JoinSet::new();
    for partition in 0..shared.args.partitions {
        readers.spawn(read_partition(Arc::clone(&shared), partition));
    }
    let progress = || shared.lock().report.tally.received.len();
    client::join_with_progress(&mut readers, progress).await?;
    let mut report = shared.lock().report.clone();
    report.elapsed_ms = client::milliseconds(started.elapsed());
    Ok(report)
}

struct Shared {
    args: ConsumeArgs,
    connection: Connection,
    end: Instant,
    stop: Stop,
    state: Mutex<State>,
}

struct State {
    last_records: Option<Instant>,
    report: ConsumeReport,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere ends the run anyway; the numbers up to then are still right.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True as soon as the partition's end is worth asking for.
    fn wants_end(&self) -> bool {
        !self.args.follow || self.stop.is_set()
    }
}

/// How far a partition has been read.
#[derive(Default)]
struct Position {
    client: Option<PartitionClient>,
    offset: i64,
    /// Known once the consumer has been told to stop.
    end: Option<i64>,
}

async fn read_partition(shared: Arc<Shared>, partition: i32) -> Result<()> {
    let mut position = Position::default();
    while position.end.is_none_or(|end| position.offset < end) {
        if Instant::now() >= shared.end {
            shared.lock().report.reached_end = false;
            return Ok(());
        }
        let failure = match timeout(ATTEMPT_LIMIT, step(&shared, partition, &mut position)).await {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => error,
            Err(_) => anyhow!("no answer within {ATTEMPT_LIMIT:?}"),
        };
        position.client = None;
        note_error(&shared, &failure);
        tokio::time::sleep(PAUSE_AFTER_ERROR).await;
    }
    Ok(())
}

/// One request: the partition's end if it is wanted and unknown, else the next records.
async fn step(shared: &Shared, partition: i32, position: &mut Position) -> Result<()> {
    let client = match &mut position.client {
        Some(client) => client,
        None => position
            .client
            .insert(shared.connection.partition(partition).await?),
    };
    if position.end.is_none() && shared.wants_end() {
        position.end = Some(client.get_offset(OffsetAt::Latest).await?);
        return Ok(());
    }
    let (records, _) = client
        .fetch_records(position.offset, FETCH_BYTES, LONGEST_POLL_MS)
        .await?;
    let Some(last) = records.last() else {
        return Ok(());
    };
    position.offset = last.offset + 1;
    let now = Instant::now();
    let mut state = shared.lock();
    let silence = state
        .last_records
        .replace(now)
        .map_or(0.0, |before| client::milliseconds(now - before));
    let report = &mut state.report;
    report.longest_silence_ms = report.longest_silence_ms.max(silence);
    for found in &records {
        report
            .tally
            .add(shared.args.run, found.record.value.as_deref());
    }
    Ok(())
}

fn note_error(shared: &Shared, error: &anyhow::Error) {
    const KEPT: usize = 10;
    let mut state = shared.lock();
    state.report.retries += 1;
    if state.report.errors.len() < KEPT {
        state.report.errors.push(format!("{error:#}"));
    }
}
