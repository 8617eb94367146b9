//! One real Kafka cluster over three clusters whose pods have the same addresses. Needs root, the
//! agent that `cargo xtask build` makes, Java and Maven.

use std::net::SocketAddrV4;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use slice_tests::child::poll_until;
use slice_tests::demo::kafka::{BROKERS, Prepared, Stretched, prepare};
use slice_tests::harness::{Need, agent_file, can_run, say, skip};
use slice_tests::kafka::CLIENT_PORT;
use slice_tests::lab::cleanup::Leftovers;
use slice_tests::lab::state::{LabLock, Process, State};
use slice_tests::lab::{Lab, LabOptions};
use slice_tests::probe::{Drops, Listener, Outcome, attempt};

const NAME: &str = "the stretched Kafka";
const FORMATION_LIMIT: Duration = Duration::from_secs(90);
const LIMIT: Duration = Duration::from_secs(90);
/// Lasts four seconds, so that a broker can die in the middle.
const RECORDS: u64 = 2000;
const RECORDS_PER_SECOND: u64 = 500;
const RECORDS_BEFORE_THE_DEATH: u64 = 500;
/// In `west`, on the node of the consumer.
const VICTIM: usize = 1;

#[test]
fn no_acknowledged_record_of_a_stretched_cluster_is_lost_when_a_broker_dies() {
    if !can_run(NAME, Need::Agent) {
        return;
    }
    let agent = agent_file();
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/kafka");
    let install = match prepare(&target).unwrap() {
        Prepared::Ready(install) => install,
        Prepared::Missing(why) => return skip(NAME, &why),
    };
    let lab = Lab::up(&LabOptions {
        lock_wait: Duration::from_secs(600),
        ..LabOptions::default()
    })
    .unwrap();
    let addresses = BROKERS.map(|name| lab.pod(name).unwrap().pod_address);
    assert_eq!(addresses, [addresses[0]; 3], "the brokers' pods overlap");
    assert_ne!(
        reach_a_broker(&lab),
        Outcome::Connected,
        "not vacuous: without agents the brokers do not reach each other"
    );
    lab.start_agents(&agent).unwrap();
    assert_eq!(reach_a_broker(&lab), Outcome::Connected);

    let run_dir = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let mut stretched = Stretched::form(&lab, &install, run_dir.path(), false)
        .unwrap()
        .with_program(env!("CARGO_BIN_EXE_slice-lab").into());
    let formed = began.elapsed();
    assert!(formed < FORMATION_LIMIT, "formed after {formed:?}");

    let began = Instant::now();
    let mut exchange = stretched
        .begin(&lab, Some(RECORDS), Some(RECORDS_PER_SECOND))
        .unwrap();
    exchange
        .wait_for_acknowledged(RECORDS_BEFORE_THE_DEATH, LIMIT)
        .unwrap();
    let acknowledged = exchange.acknowledged();
    assert!(acknowledged < RECORDS, "not vacuous: in the middle");
    let led = stretched.cluster().metadata(0).unwrap().partitions;
    let led = led
        .iter()
        .filter(|it| it.topic == exchange.topic() && it.leader == VICTIM as i32)
        .count();
    assert!(led > 0, "not vacuous: clients need the victim");
    stretched.cluster().kill_broker(VICTIM).unwrap();
    let (produced, consumed, delivery) = exchange.finish(LIMIT).unwrap();
    let ran = began.elapsed();

    let complete = (delivery.acked, produced.given_up);
    assert_eq!(complete, (RECORDS, 0), "{:?}", produced.errors);
    assert!(consumed.reached_end, "{:?}", consumed.errors);
    assert!(delivery.is_whole(), "{delivery:?}");

    let back = stretched.cluster().restart_broker(VICTIM).unwrap();
    let brokers = stretched.cluster().metadata(0).unwrap().brokers;
    assert_eq!(brokers.len(), BROKERS.len(), "{brokers:?}");
    say(&format!(
        "kafka: formed in {formed:.1?}; {} killed after {acknowledged} records; {delivery}, \
         {} retries, slowest acknowledgement {:.0} ms, in {ran:.1?}; whole again {back:.1?} \
         after its restart",
        BROKERS[VICTIM], produced.retries, produced.slowest_ack_ms
    ));
    stretched.stop().unwrap();
    lab.down().unwrap();
}

#[test]
fn a_demo_that_is_ended_while_kafka_starts_leaves_no_java_and_no_lab() {
    if !can_run(NAME, Need::Agent) {
        return;
    }
    let agent = agent_file();
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/kafka");
    if let Prepared::Missing(why) = prepare(&target).unwrap() {
        return skip(NAME, &why);
    }
    let figures = tempfile::tempdir().unwrap();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_slice-lab"))
        .args(["demo", "--keep", "--wait", "600"])
        .arg("--json")
        .arg(figures.path().join("demo.json"))
        .arg("--agent")
        .arg(&agent)
        .arg("--kafka-dir")
        .arg(&target)
        .spawn()
        .unwrap();
    let pid = demo.id().cast_signed();
    let is_ours = |state: &State| state.maker.as_ref().is_some_and(|it| it.process.pid == pid);
    let brokers = poll_until(Duration::from_secs(600) + LIMIT, || {
        assert_eq!(demo.try_wait()?, None, "ended before the brokers ran");
        let javas: Vec<Process> = Leftovers::find()
            .processes
            .into_iter()
            .filter(|pid| {
                std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|it| it == "java\n")
            })
            .filter_map(|pid| Process::of("broker", pid.unsigned_abs()).ok())
            .collect();
        let reached = State::load()?.is_some_and(|it| is_ours(&it)) && javas.len() == 3;
        Ok(reached.then_some(javas))
    });
    let brokers = brokers.unwrap().expect("three brokers");
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();

    let status = poll_until(LIMIT, || Ok(demo.try_wait()?)).unwrap();
    assert_eq!(status.expect("it ends after a signal").code(), Some(143));
    for broker in brokers {
        assert!(!broker.is_alive(), "{broker} is left");
    }
    // Under the lock, for nobody to build the next lab meanwhile.
    let _lock = LabLock::take(Duration::from_secs(600)).unwrap();
    let left = Leftovers::find();
    let somebody_elses = State::load().unwrap().is_some_and(|it| !is_ours(&it));
    assert!(left.is_empty() || somebody_elses, "{left:?}");
}

/// What becomes of a connection from `kafka-0` to Kafka's port of `kafka-1`.
fn reach_a_broker(lab: &Lab) -> Outcome {
    let [from, to] = [BROKERS[0], BROKERS[1]].map(|name| lab.pod(name).unwrap());
    let _listener = Listener::open(&to.netns, CLIENT_PORT).unwrap();
    let to = SocketAddrV4::new(to.slice_address.unwrap(), CLIENT_PORT);
    let limit = Duration::from_secs(2);
    attempt(&from.netns, to, limit, || Ok(Drops::new())).unwrap()
}
