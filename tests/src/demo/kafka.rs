//! A Kafka cluster stretched over three clusters, and what its clients saw.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::kafka::{ClientProcess, Delivery};
use crate::kafka::{
    Cluster, ClusterOptions, ConsumeArgs, ConsumeReport, Install, InstallError, ProduceArgs,
    ProduceReport, TopicSpec, compare,
};
use crate::lab::Lab;

/// The pods of the brokers, by node id.
pub const BROKERS: [&str; 3] = ["kafka-0", "kafka-1", "kafka-2"];
const RACKS: [&str; 3] = ["east", "west", "edge"];
const PRODUCER: &str = "producer-0";
const CONSUMER: &str = "analytics-0";
const PARTITIONS: i32 = 6;
const START_LIMIT: Duration = Duration::from_secs(90);

/// Kafka made ready, or why it cannot be had here.
pub enum Prepared {
    Ready(Box<Install>),
    /// The machine lacks Java or Maven: the sentence says what to install.
    Missing(String),
}

pub fn prepare(dir: &Path) -> Result<Prepared> {
    match Install::prepare(dir) {
        Ok(install) => Ok(Prepared::Ready(Box::new(install))),
        Err(error) if error.is_missing_tool() => Ok(Prepared::Missing(error.to_string())),
        Err(InstallError::MavenFailed { status, log }) => {
            bail!("Maven could not fetch Kafka ({status}):\n{log}")
        }
        Err(error) => Err(error).context("cannot make Kafka ready"),
    }
}

/// The stretched cluster, running.
pub struct Stretched {
    cluster: Cluster,
    program: PathBuf,
    runs: u64,
}

/// One producer's and one consumer's work.
pub struct Exchange {
    topic: String,
    producer: ClientProcess<ProduceReport>,
    consumer: ClientProcess<ConsumeReport>,
}

impl Stretched {
    /// Forms the cluster: a broker in each cluster, known to each other by name.
    pub fn form(lab: &Lab, install: &Install, run_dir: &Path, outlive_us: bool) -> Result<Self> {
        let places = BROKERS.iter().map(|name| lab.pod(name)?.place());
        let places = places.collect::<Result<Vec<_>>>()?;
        let options = ClusterOptions {
            racks: RACKS.map(str::to_owned).into(),
            start_limit: START_LIMIT,
            outlive_us,
            ..ClusterOptions::in_dir(run_dir)
        };
        let cluster = Cluster::start(install, &places, &options)?;
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        Ok(Self {
            cluster,
            program,
            runs: 0,
        })
    }

    /// Starts a producer in `edge` and a consumer in `west` on a topic of their own. Without
    /// `records` they run until they are told to stop.
    pub fn begin(
        &mut self,
        lab: &Lab,
        records: Option<u64>,
        rate: Option<u64>,
    ) -> Result<Exchange> {
        self.runs += 1;
        let topic = format!("orders-{}", self.runs);
        self.cluster
            .create_topic(&TopicSpec::replicated(&topic, PARTITIONS))?;
        let bootstrap: Vec<_> = BROKERS.iter().map(|name| format!("{name}:9092")).collect();
        let consume = ConsumeArgs {
            bootstrap: bootstrap.clone(),
            topic: topic.clone(),
            partitions: PARTITIONS,
            run: self.runs,
            follow: true,
            limit_seconds: 300,
        };
        let produce = ProduceArgs {
            bootstrap,
            topic: topic.clone(),
            partitions: PARTITIONS,
            run: self.runs,
            records,
            record_bytes: 1000,
            batch: 100,
            rate,
            give_up_seconds: 60,
            limit_seconds: 300,
        };
        Ok(Exchange {
            topic,
            consumer: ClientProcess::consume(
                &self.program,
                &lab.pod(CONSUMER)?.place()?,
                &consume,
            )?,
            producer: ClientProcess::produce(
                &self.program,
                &lab.pod(PRODUCER)?.place()?,
                &produce,
            )?,
        })
    }

    /// The brokers, numbered as [`BROKERS`] names them.
    pub fn cluster(&mut self) -> &mut Cluster {
        &mut self.cluster
    }

    /// The `slice-lab` executable that runs the clients, for a program that is another one.
    pub fn with_program(self, program: PathBuf) -> Self {
        Self { program, ..self }
    }

    pub fn stop(self) -> Result<()> {
        self.cluster.stop(Duration::from_secs(20)).map(drop)
    }

    /// Leaves the brokers running when this process ends.
    pub fn leave_running(self) {
        self.cluster.leave_running();
    }
}

impl Exchange {
    pub fn topic(&self) -> &str {
        &self.topic
    }

    pub fn acknowledged(&self) -> u64 {
        self.producer.progress()
    }

    pub fn wait_for_acknowledged(&mut self, records: u64, limit: Duration) -> Result<()> {
        self.producer.wait_for_progress(records, limit)
    }

    /// Waits until the producer has sent all its records, and compares with what was read.
    pub fn finish(self, limit: Duration) -> Result<(ProduceReport, ConsumeReport, Delivery)> {
        let produced = self.producer.finish(limit)?;
        Self::compared(produced, self.consumer, limit)
    }

    /// Stops a producer without end, and compares with what was read.
    pub fn stop(self, limit: Duration) -> Result<(ProduceReport, ConsumeReport, Delivery)> {
        let produced = self.producer.stop(limit)?;
        Self::compared(produced, self.consumer, limit)
    }

    fn compared(
        produced: ProduceReport,
        consumer: ClientProcess<ConsumeReport>,
        limit: Duration,
    ) -> Result<(ProduceReport, ConsumeReport, Delivery)> {
        let consumed = consumer.stop(limit)?;
        let delivery = compare(&produced.acked, &consumed.tally);
        Ok((produced, consumed, delivery))
    }
}
