//! What producer and consumer share: the connection, the end of a run, the process around them.
//!
//! Clients are processes of their own: they see their pod's hosts file, and one that crashes takes
//! nothing with it. They speak JSON lines on stdout: `{"progress": N}` while they run, then
//! `{"report": …}` once.

use std::future::Future;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use rskafka::BackoffConfig;
use rskafka::client::partition::{PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{ConsumeArgs, ConsumeReport, ProduceArgs, ProduceReport};
use crate::child::{ManagedChild, poll_until};
use crate::place::Place;

const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// A producer or consumer running in a place; killed when dropped.
#[derive(Debug)]
pub struct ClientProcess<Report> {
    process: ManagedChild,
    progress: Arc<AtomicU64>,
    reader: JoinHandle<Option<Report>>,
    complaints: JoinHandle<String>,
}

impl ClientProcess<ProduceReport> {
    /// Starts `PROGRAM kafka-produce`, where PROGRAM is the `slice-lab` executable.
    pub fn produce(program: &Path, place: &Place, args: &ProduceArgs) -> Result<Self> {
        let mut flags = common_flags("kafka-produce", &args.bootstrap, &args.topic);
        flags.extend([
            format!("--partitions={}", args.partitions),
            format!("--run={}", args.run),
            format!("--record-bytes={}", args.record_bytes),
            format!("--batch={}", args.batch),
            format!("--give-up-seconds={}", args.give_up_seconds),
            format!("--limit-seconds={}", args.limit_seconds),
        ]);
        flags.extend(args.records.map(|records| format!("--records={records}")));
        flags.extend(args.rate.map(|rate| format!("--rate={rate}")));
        Self::start(program, place, "producer", &flags)
    }
}

impl ClientProcess<ConsumeReport> {
    /// Starts `PROGRAM kafka-consume`, where PROGRAM is the `slice-lab` executable.
    pub fn consume(program: &Path, place: &Place, args: &ConsumeArgs) -> Result<Self> {
        let mut flags = common_flags("kafka-consume", &args.bootstrap, &args.topic);
        flags.extend([
            format!("--partitions={}", args.partitions),
            format!("--run={}", args.run),
            format!("--limit-seconds={}", args.limit_seconds),
        ]);
        flags.extend(args.follow.then(|| "--follow".to_owned()));
        Self::start(program, place, "consumer", &flags)
    }
}

impl<Report: DeserializeOwned + Send + 'static> ClientProcess<Report> {
    /// Records acknowledged (producer) or read (consumer) so far.
    pub fn progress(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    /// Waits until at least `records` were acknowledged or read.
    pub fn wait_for_progress(&mut self, records: u64, limit: Duration) -> Result<()> {
        let reached = poll_until(limit, || {
            let ended = self.process.try_wait()?.is_some();
            let enough = self.progress() >= records;
            Ok((enough || ended).then_some(enough))
        })?;
        anyhow::ensure!(
            reached == Some(true),
            "{}: {} records, expected {records} within {limit:?}",
            self.process.name(),
            self.progress()
        );
        Ok(())
    }

    /// Waits for the end of a bounded run.
    pub fn finish(mut self, limit: Duration) -> Result<Report> {
        let waited = self.process.wait(limit);
        self.collect(waited.map(|_| ()))
    }

    /// Tells it to stop (the consumer still reads to the end) and waits for the report.
    pub fn stop(mut self, limit: Duration) -> Result<Report> {
        self.process.signal(Signal::SIGTERM)?;
        self.finish(limit)
    }

    fn start(program: &Path, place: &Place, role: &str, flags: &[String]) -> Result<Self> {
        let mut command = place.command(program);
        command.args(flags).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process =
            ManagedChild::spawn(&format!("Kafka {role} in {}", place.name), &mut command)?;
        let stdout = process
            .child_mut()
            .stdout
            .take()
            .context("stdout is a pipe")?;
        let stderr = process
            .child_mut()
            .stderr
            .take()
            .context("stderr is a pipe")?;
        let progress = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&progress);
        Ok(Self {
            process,
            progress,
            reader: std::thread::spawn(move || read_lines(BufReader::new(stdout), &counter)),
            complaints: std::thread::spawn(move || {
                std::io::read_to_string(stderr).unwrap_or_default()
            }),
        })
    }

    fn collect(mut self, waited: Result<()>) -> Result<Report> {
        // Also after an error: only when the process is gone do the pipes end.
        self.process.kill()?;
        let report = self.reader.join().ok().flatten();
        let complaints = self.complaints.join().unwrap_or_default();
        waited.with_context(|| complaints.clone())?;
        report.with_context(|| {
            format!(
                "{}: ended without a report; it said: {complaints}",
                self.process.name()
            )
        })
    }
}

/// One line that a client prints.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line<Report> {
    Progress(u64),
    Report(Report),
}

fn read_lines<Report: DeserializeOwned>(
    lines: impl BufRead,
    progress: &AtomicU64,
) -> Option<Report> {
    for line in lines.lines() {
        match serde_json::from_str(&line.ok()?) {
            Ok(Line::Progress(records)) => progress.store(records, Ordering::Relaxed),
            Ok(Line::Report(report)) => return Some(report),
            Err(_) => {}
        }
    }
    None
}

fn common_flags(command: &str, bootstrap: &[String], topic: &str) -> Vec<String> {
    vec![
        command.to_owned(),
        format!("--bootstrap={}", bootstrap.join(",")),
        format!("--topic={topic}"),
    ]
}

/// Runs a client to its end and prints its report.
pub(super) fn run_to_stdout<Report, Run>(client: impl FnOnce(Stop) -> Run) -> Result<()>
where
    Report: Serialize,
    Run: Future<Output = Result<Report>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let report = runtime.block_on(async {
        let stop = Stop::on_signal()?;
        client(stop).await
    })?;
    println!("{}", serde_json::to_string(&Line::Report(report))?);
    Ok(())
}

/// Waits for all tasks and prints progress on the way.
pub(super) async fn join_with_progress(
    tasks: &mut JoinSet<Result<()>>,
    progress: impl Fn() -> u64,
) -> Result<()> {
    let mut interval = tokio::time::interval(PROGRESS_INTERVAL);
    loop {
        tokio::select! {
            ended = tasks.join_next() => match ended {
                Some(result) => result??,
                None => return Ok(()),
            },
            _ = interval.tick() => {
                println!("{}", serde_json::to_string(&Line::<()>::Progress(progress()))?);
            }
        }
    }
}

pub(super) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Set once, seen by every task.
#[derive(Clone, Debug)]
pub(super) struct Stop(Arc<watch::Sender<bool>>);

impl Stop {
    /// Set by SIGTERM or SIGINT.
    fn on_signal() -> Result<Self> {
        let stop = Self(Arc::new(watch::Sender::new(false)));
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let setter = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            setter.set();
        });
        Ok(stop)
    }

    pub(super) fn set(&self) {
        self.0.send_replace(true);
    }

    pub(super) fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    pub(super) async fn wait(&self) {
        // The sender is in self, so the channel cannot close before the value comes.
        let _ = self.0.subscribe().wait_for(|set| *set).await;
    }
}

/// Makes partition clients; the cluster connection is shared until one of them fails.
#[derive(Debug)]
pub(super) struct Connection {
    bootstrap: Vec<String>,
    topic: String,
    client: Mutex<Option<Arc<Client>>>,
}

impl Connection {
    pub(super) fn new(bootstrap: Vec<String>, topic: String) -> Self {
        Self {
            bootstrap,
            topic,
            client: Mutex::new(None),
        }
    }

    /// Finds the partition's leader and connects to it.
    pub(super) async fn partition(&self, partition: i32) -> Result<PartitionClient> {
        // Taken out, and put back only after success: a hanging connection is not used again.
        let cached = self.slot().take();
        let client = match cached {
            Some(client) => client,
            None => Arc::new(self.connect().await?),
        };
        let topic = self.topic.clone();
        let found = client
            .partition_client(topic, partition, UnknownTopicHandling::Retry)
            .await?;
        self.slot().replace(client);
        Ok(found)
    }

    async fn connect(&self) -> Result<Client> {
        // The library's own longest pause is 500 s: far longer than a broker is away here.
        let backoff = BackoffConfig {
            init_backoff: Duration::from_millis(50),
            max_backoff: Duration::from_millis(500),
            deadline: Some(Duration::from_secs(5)),
            ..BackoffConfig::default()
        };
        let builder = ClientBuilder::new(self.bootstrap.clone()).backoff_config(backoff);
        Ok(builder.client_id("slice-lab").build().await?)
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Arc<Client>>> {
        self.client
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_kept_and_the_report_returned_whatever_else_is_printed() {
        let progress = AtomicU64::new(0);
        let text = "{\"progress\":5}\nnoise\n{\"progress\":9}\n{\"report\":[1,2]}\n";
        let report: Option<Vec<u32>> = read_lines(text.as_bytes(), &progress);
        assert_eq!(report, Some(vec![1, 2]));
        assert_eq!(progress.load(Ordering::Relaxed), 9);
    }

    #[test]
    fn a_client_that_died_has_no_report() {
        let progress = AtomicU64::new(0);
        let report: Option<Vec<u32>> = read_lines("{\"progress\":5}\n".as_bytes(), &progress);
        assert_eq!(report, None);
    }
}
