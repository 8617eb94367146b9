//! One broker: its settings, its files, its process.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::install::Install;
use super::{CLIENT_PORT, CONTROLLER_PORT, REPLICATION_PORT};
use crate::child::{ManagedChild, poll_until};

/// Any 16 bytes in base64; the same for all brokers of a cluster.
const CLUSTER_ID: &str = "U2xpY2VwbGFuZUxhYjAwMQ";
/// What the broker logs when it has joined and serves clients.
const STARTED_LINE: &str = "Kafka Server started";

const LOGGING: &str = "\
rootLogger.level=INFO
rootLogger.appenderRef.console.ref=console
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d %p %m (%c)%n
";

/// Settings that do not depend on the broker.
///
/// Socket buffers of -1 leave the size to the kernel: with the defaults of 64 and 100 KiB a path
/// of 20 ms carries some 40 Mbit/s. The lists of internal topics are cut to one partition because
/// each costs files and start-up time. Leaders stay where a test put them.
const COMMON_SETTINGS: &str = "\
process.roles=broker,controller
listener.security.protocol.map=CONTROLLER:PLAINTEXT,REPLICATION:PLAINTEXT,PLAIN:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=REPLICATION
num.network.threads=2
num.io.threads=2
log.cleaner.threads=1
log.cleaner.dedupe.buffer.size=8388608
offsets.topic.num.partitions=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.num.partitions=1
auto.create.topics.enable=false
auto.leader.rebalance.enable=false
group.initial.rebalance.delay.ms=0
socket.send.buffer.bytes=-1
socket.receive.buffer.bytes=-1
replica.socket.receive.buffer.bytes=-1
num.replica.fetchers=4
controller.quorum.election.timeout.ms=2000
controller.quorum.fetch.timeout.ms=4000
replica.selector.class=org.apache.kafka.common.replica.RackAwareReplicaSelector
";

/// What one broker is told.
#[derive(Clone, Debug)]
pub(super) struct BrokerSettings {
    pub(super) node_id: usize,
    /// The name that it advertises.
    pub(super) name: String,
    pub(super) rack: String,
    /// `ID@NAME:PORT` of all controllers.
    pub(super) voters: String,
    /// Bound address of all listeners.
    pub(super) bind: &'static str,
    /// Controller, replication, client.
    pub(super) ports: [u16; 3],
    pub(super) replication_factor: usize,
    /// Its own folder: settings, data, logs, temporary files.
    pub(super) directory: PathBuf,
}

impl BrokerSettings {
    /// The broker `node_id` of a cluster whose members are called `names`.
    pub(super) fn in_cluster(
        node_id: usize,
        names: &[String],
        rack: &str,
        directory: PathBuf,
    ) -> Self {
        let voters: Vec<String> = names
            .iter()
            .enumerate()
            .map(|(id, name)| format!("{id}@{name}:{CONTROLLER_PORT}"))
            .collect();
        Self {
            node_id,
            name: names[node_id].clone(),
            rack: rack.to_owned(),
            voters: voters.join(","),
            // All addresses: the pod's own differs from the one its name resolves to.
            bind: "0.0.0.0",
            ports: [CONTROLLER_PORT, REPLICATION_PORT, CLIENT_PORT],
            replication_factor: names.len(),
            directory,
        }
    }

    /// A cluster of one that nothing outside this machine can reach.
    pub(super) fn single_on_loopback(directory: &Path, ports: [u16; 3]) -> Self {
        Self {
            node_id: 0,
            name: "127.0.0.1".to_owned(),
            rack: "local".to_owned(),
            voters: format!("0@127.0.0.1:{}", ports[0]),
            bind: "127.0.0.1",
            ports,
            replication_factor: 1,
            directory: directory.to_owned(),
        }
    }

    pub(super) fn folders(&self) -> [PathBuf; 3] {
        let directory = &self.directory;
        [
            directory.clone(),
            directory.join("data"),
            directory.join("tmp"),
        ]
    }

    fn properties_file(&self) -> PathBuf {
        self.directory.join("server.properties")
    }

    fn logging_file(&self) -> PathBuf {
        self.directory.join("log4j2.properties")
    }

    fn to_properties(&self) -> String {
        let Self {
            node_id,
            name,
            rack,
            voters,
            bind,
            ports: [controller, replication, client],
            replication_factor,
            directory,
        } = self;
        let min_in_sync = replication_factor.div_ceil(2);
        let data = directory.join("data");
        let own = format!(
            "node.id={node_id}\n\
             broker.rack={rack}\n\
             controller.quorum.voters={voters}\n\
             listeners=CONTROLLER://{bind}:{controller},REPLICATION://{bind}:{replication},\
             PLAIN://{bind}:{client}\n\
             advertised.listeners=CONTROLLER://{name}:{controller},\
             REPLICATION://{name}:{replication},PLAIN://{name}:{client}\n\
             log.dirs={}\n\
             default.replication.factor={replication_factor}\n\
             min.insync.replicas={min_in_sync}\n",
            data.display()
        );
        let internal_topics = [
            "offsets.topic",
            "transaction.state.log",
            "share.coordinator.state.topic",
        ]
        .map(|topic| format!("{topic}.replication.factor={replication_factor}\n"))
        .concat();
        let min_isr = ["transaction.state.log", "share.coordinator.state.topic"]
            .map(|topic| format!("{topic}.min.isr={min_in_sync}\n"))
            .concat();
        own + &internal_topics + &min_isr + COMMON_SETTINGS
    }
}

/// Makes the broker's folders and writes its settings.
pub(super) fn write_files(settings: &BrokerSettings) -> Result<()> {
    for folder in settings.folders() {
        fs::create_dir_all(&folder).with_context(|| {
            format!("broker {}: cannot make {}", settings.name, folder.display())
        })?;
    }
    for (path, text) in [
        (settings.properties_file(), settings.to_properties()),
        (settings.logging_file(), LOGGING.to_owned()),
    ] {
        fs::write(&path, text).with_context(|| {
            format!("broker {}: cannot write {}", settings.name, path.display())
        })?;
    }
    Ok(())
}

/// Formats the broker's data folder and waits for it; `java` is a bare Java command.
pub(super) fn format(install: &Install, java: Command, settings: &BrokerSettings) -> Result<()> {
    start_format(install, java, settings)?.finish()
}

/// Starts the formatting, so that several brokers can be formatted at the same time.
pub(super) fn start_format(
    install: &Install,
    mut java: Command,
    settings: &BrokerSettings,
) -> Result<Formatting> {
    let log = settings.directory.join("format.log");
    let output = File::create(&log).with_context(|| log.display().to_string())?;
    add_jvm_arguments(&mut java, install, settings);
    java.args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"])
        .arg(settings.properties_file())
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output);
    let child = ManagedChild::spawn(&format!("{} (format)", settings.name), &mut java)?;
    Ok(Formatting { child, log })
}

/// A broker's data folder being formatted.
pub(super) struct Formatting {
    child: ManagedChild,
    log: PathBuf,
}

impl Formatting {
    pub(super) fn finish(mut self) -> Result<()> {
        let status = self.child.wait(Duration::from_secs(60))?;
        if !status.success() {
            bail!("{}: {status}; {}", self.child.name(), last_lines(&self.log));
        }
        Ok(())
    }
}

/// Adds everything that makes a bare Java command a broker.
pub(super) fn add_broker_arguments(
    java: &mut Command,
    install: &Install,
    settings: &BrokerSettings,
) {
    add_jvm_arguments(java, install, settings);
    java.arg("kafka.Kafka").arg(settings.properties_file());
}

/// Waits for the line that says the broker serves; `log` must be new for this start.
pub(super) fn wait_for_start(child: &mut ManagedChild, log: &Path, limit: Duration) -> Result<()> {
    let started = poll_until(limit, || {
        if let Some(status) = child.try_wait()? {
            bail!(
                "{}: ended with {status} while starting; {}",
                child.name(),
                last_lines(log)
            );
        }
        let text = fs::read_to_string(log).unwrap_or_default();
        Ok(text.contains(STARTED_LINE).then_some(()))
    })?;
    started.with_context(|| {
        format!(
            "{}: not started after {limit:?}; {}",
            child.name(),
            last_lines(log)
        )
    })
}

/// A new log file per start: in an old one a stale line would look like a broker that is ready.
pub(super) fn open_log(path: &Path, name: &str) -> Result<File> {
    let mut log = File::create(path)
        .with_context(|| format!("broker {name}: cannot write {}", path.display()))?;
    writeln!(log, "broker {name}")?;
    Ok(log)
}

fn add_jvm_arguments(java: &mut Command, install: &Install, settings: &BrokerSettings) {
    java.args([
        "-Xmx256m",
        "-Xms64m",
        "-XX:MaxDirectMemorySize=128m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        // Performance data would be left in /tmp by a broker that is killed.
        "-XX:-UsePerfData",
    ]);
    if let Some(archive) = install.archive() {
        java.arg(format!("-XX:SharedArchiveFile={}", archive.display()));
    }
    let temporary = settings.directory.join("tmp");
    java.arg(format!("-Djava.io.tmpdir={}", temporary.display()))
        .arg(format!(
            "-Dlog4j2.configurationFile={}",
            settings.logging_file().display()
        ))
        .arg("-cp")
        .arg(install.class_path());
}

fn last_lines(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(8)..].join("\n");
    format!("the end of {}:\n{tail}", log.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_binds_all_addresses_and_advertises_its_name() {
        let names = ["kafka-0", "kafka-1", "kafka-2"].map(str::to_owned);
        let settings = BrokerSettings::in_cluster(1, &names, "west", PathBuf::from("/run/k1"));
        let text = settings.to_properties();
        for line in [
            "node.id=1",
            "broker.rack=west",
            "controller.quorum.voters=0@kafka-0:9090,1@kafka-1:9090,2@kafka-2:9090",
            "listeners=CONTROLLER://0.0.0.0:9090,REPLICATION://0.0.0.0:9091,PLAIN://0.0.0.0:9092",
            "advertised.listeners=CONTROLLER://kafka-1:9090,REPLICATION://kafka-1:9091,\
             PLAIN://kafka-1:9092",
            "default.replication.factor=3",
            "min.insync.replicas=2",
            "offsets.topic.replication.factor=3",
            "log.dirs=/run/k1/data",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line:?} is not in\n{text}"
            );
        }
    }

    #[test]
    fn no_setting_is_given_twice() {
        let settings = BrokerSettings::single_on_loopback(Path::new("/run/one"), [1, 2, 3]);
        let text = settings.to_properties();
        let mut keys: Vec<&str> = text
            .lines()
            .filter_map(|line| line.split('=').next())
            .collect();
        let total = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), total);
        assert!(text.contains("min.insync.replicas=1\n"));
    }
}
