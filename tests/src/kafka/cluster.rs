//! Brokers in several places that form one cluster.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;

use super::CLIENT_PORT;
use super::admin::{self, ClusterMetadata, TopicSpec};
use super::broker::{self, BrokerSettings};
use super::install::Install;
use crate::child::{ManagedChild, poll_until};
use crate::place::Place;

/// How a cluster is run.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// One folder per broker is made in it (settings, data, logs); removed at the end by the caller.
    pub run_dir: PathBuf,
    /// `broker.rack` of each place; if empty, the place's name.
    pub racks: Vec<String>,
    /// For the whole cluster to form, or one broker to come back.
    pub start_limit: Duration,
    /// Brokers survive this process: for a lab that is left up.
    pub outlive_us: bool,
}

impl ClusterOptions {
    pub fn in_dir(run_dir: &Path) -> Self {
        Self {
            run_dir: run_dir.to_owned(),
            racks: Vec::new(),
            start_limit: Duration::from_secs(90),
            outlive_us: false,
        }
    }
}

/// A running cluster; its brokers are killed when it is dropped.
///
/// Unless [`ClusterOptions::outlive_us`] is set, a broker also dies with the *thread* that started
/// it, so start and restart brokers from a thread that lives as long as the cluster.
#[derive(Debug)]
pub struct Cluster {
    install: Install,
    options: ClusterOptions,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    place: Place,
    settings: BrokerSettings,
    process: Option<ManagedChild>,
    starts: u32,
}

impl Cluster {
    /// Forms a new cluster, broker i in `places[i]` with node id i, and waits until it is ready.
    ///
    /// Each place's name must resolve, by its hosts file, to an address at which all brokers reach
    /// it. Jars are verified first.
    pub fn start(install: &Install, places: &[Place], options: &ClusterOptions) -> Result<Self> {
        install.verify()?;
        let mut cluster = Self {
            install: install.clone(),
            options: options.clone(),
            members: members(places, options)?,
        };
        cluster.format_all()?;
        let started = Instant::now();
        for index in 0..cluster.members.len() {
            cluster.launch(index)?;
        }
        for index in 0..cluster.members.len() {
            let left = options.start_limit.saturating_sub(started.elapsed());
            cluster.wait_for_log(index, left)?;
        }
        let left = options.start_limit.saturating_sub(started.elapsed());
        cluster.wait_until_whole(left)?;
        Ok(cluster)
    }

    /// `NAME:PORT` of all brokers, comma-separated, as clients take it.
    pub fn bootstrap(&self) -> String {
        let servers: Vec<String> = self
            .members
            .iter()
            .map(|member| format!("{}:{CLIENT_PORT}", member.place.name))
            .collect();
        servers.join(",")
    }

    /// Process id of a running broker.
    pub fn broker_pid(&self, index: usize) -> Option<u32> {
        self.members[index].process.as_ref().map(ManagedChild::pid)
    }

    /// Log of the broker's latest start.
    pub fn broker_log(&self, index: usize) -> PathBuf {
        self.members[index].log()
    }

    /// The cluster as broker `index` sees it, asked over its own loopback.
    pub fn metadata(&self, index: usize) -> Result<ClusterMetadata> {
        let place = &self.members[index].place;
        place.netns.enter(|| admin::metadata(CLIENT_PORT))?
    }

    /// Creates a topic and waits until every running broker sees all its replicas in sync.
    pub fn create_topic(&self, spec: &TopicSpec) -> Result<()> {
        let index = self
            .running()
            .next()
            .context("Kafka: no broker is running")?;
        let place = &self.members[index].place;
        place
            .netns
            .enter(|| admin::create_topic(CLIENT_PORT, spec))??;
        let found = poll_until(self.options.start_limit, || {
            let ready = self.running().all(|index| {
                self.metadata(index).is_ok_and(|metadata| {
                    let mut own = metadata.partitions.iter().filter(|p| p.topic == spec.name);
                    own.clone().next().is_some() && own.all(admin::PartitionState::is_whole)
                })
            });
            Ok(ready.then_some(()))
        })?;
        found.with_context(|| {
            format!(
                "Kafka topic {:?}: not in sync after {:?}",
                spec.name, self.options.start_limit
            )
        })
    }

    /// Waits until every broker runs and every replica of every topic is in sync.
    pub fn wait_until_whole(&self, limit: Duration) -> Result<()> {
        let mut last = String::new();
        let whole = poll_until(limit, || {
            last = self.what_is_missing();
            Ok(last.is_empty().then_some(()))
        })?;
        whole.with_context(|| format!("Kafka cluster: not whole after {limit:?}: {last}"))
    }

    /// SIGKILL: the broker has no time to hand its leaderships over.
    pub fn kill_broker(&mut self, index: usize) -> Result<()> {
        match self.members[index].process.take() {
            Some(mut process) => process.kill(),
            None => bail!(
                "Kafka broker {}: is not running",
                self.members[index].place.name
            ),
        }
    }

    /// Starts a broker that was killed, on its old data, and waits until the cluster is whole.
    pub fn restart_broker(&mut self, index: usize) -> Result<Duration> {
        ensure!(
            self.members[index].process.is_none(),
            "Kafka broker {}: is running already",
            self.members[index].place.name
        );
        self.install.verify()?;
        let started = Instant::now();
        self.launch(index)?;
        self.wait_for_log(index, self.options.start_limit)?;
        let left = self.options.start_limit.saturating_sub(started.elapsed());
        self.wait_until_whole(left)?;
        Ok(started.elapsed())
    }

    /// SIGTERM to all at once, SIGKILL at the limit; tells how many had to be killed.
    pub fn stop(mut self, limit: Duration) -> Result<usize> {
        let processes = self
            .members
            .iter_mut()
            .filter_map(|member| member.process.as_mut());
        for process in processes {
            process.signal(Signal::SIGTERM)?;
        }
        let deadline = Instant::now() + limit;
        let mut killed = 0;
        for member in &mut self.members {
            let Some(process) = &mut member.process else {
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if poll_until(left, || process.try_wait())?.is_none() {
                process.kill()?;
                killed += 1;
            }
        }
        Ok(killed)
    }

    /// Gives up control and leaves the brokers running; needs [`ClusterOptions::outlive_us`].
    pub fn leave_running(mut self) {
        for member in &mut self.members {
            if let Some(process) = member.process.take() {
                process.leave_running();
            }
        }
    }

    fn running(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.members.len()).filter(|&index| self.members[index].process.is_some())
    }

    /// All at the same time: each is a JVM start of about a second.
    fn format_all(&mut self) -> Result<()> {
        let mut formatting = Vec::new();
        for member in &self.members {
            if member.settings.directory.exists() {
                fs::remove_dir_all(&member.settings.directory)?;
            }
            broker::write_files(&member.settings)?;
            let java = Command::new(self.install.java_program());
            formatting.push(broker::start_format(&self.install, java, &member.settings)?);
        }
        formatting
            .into_iter()
            .try_for_each(broker::Formatting::finish)
    }

    fn launch(&mut self, index: usize) -> Result<()> {
        let member = &mut self.members[index];
        member.starts += 1;
        let log = broker::open_log(&member.log(), &member.place.name)?;
        let mut command = member.place.command(self.install.java_program());
        broker::add_broker_arguments(&mut command, &self.install, &member.settings);
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let name = format!("Kafka broker {}", member.place.name);
        let spawn = match self.options.outlive_us {
            true => ManagedChild::spawn_unbound,
            false => ManagedChild::spawn,
        };
        member.process = Some(spawn(&name, &mut command)?);
        Ok(())
    }

    fn wait_for_log(&mut self, index: usize, limit: Duration) -> Result<()> {
        let member = &mut self.members[index];
        let log = member.log();
        match &mut member.process {
            Some(process) => broker::wait_for_start(process, &log, limit),
            None => bail!("Kafka broker {}: is not running", member.place.name),
        }
    }

    /// Empty if nothing is.
    fn what_is_missing(&self) -> String {
        for (index, member) in self.members.iter().enumerate() {
            let name = &member.place.name;
            let metadata = match self.metadata(index) {
                Ok(metadata) => metadata,
                Err(error) => return format!("{name} does not answer: {error:#}"),
            };
            if metadata.brokers.len() < self.members.len() {
                return format!("{name} sees only the brokers {:?}", metadata.brokers);
            }
            if let Some(partition) = metadata.partitions.iter().find(|p| !p.is_whole()) {
                return format!("{name} sees {partition:?}");
            }
        }
        String::new()
    }
}

impl Member {
    fn log(&self) -> PathBuf {
        self.settings
            .directory
            .join(format!("broker-{}.log", self.starts))
    }
}

fn members(places: &[Place], options: &ClusterOptions) -> Result<Vec<Member>> {
    ensure!(
        options.racks.is_empty() || options.racks.len() == places.len(),
        "Kafka cluster: {} racks for {} places, expected none or one for each",
        options.racks.len(),
        places.len()
    );
    let names: Vec<String> = places.iter().map(|place| place.name.clone()).collect();
    let member = |(index, place): (usize, &Place)| {
        let rack = options.racks.get(index).unwrap_or(&place.name);
        let directory = options.run_dir.join(&place.name);
        Member {
            place: place.clone(),
            settings: BrokerSettings::in_cluster(index, &names, rack, directory),
            process: None,
            starts: 0,
        }
    };
    Ok(places.iter().enumerate().map(member).collect())
}
