//! The demo: three clusters, a real Kafka over them, and proof in figures. Each act ends with one.

mod cost;
pub mod kafka;
pub mod matrix;
mod qos;
mod report;
mod screen;
pub mod survival;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use slice_common::drop_reason::DropReason;

pub use report::Report;

use crate::arguments::DemoArgs;
use crate::debian;
use crate::json_file::JsonFile;
use crate::lab::inventory::{NODES, PODS};
use crate::lab::state::lab_path;
use crate::lab::{Lab, LabOptions, Wan, agents};
use crate::relay::Settings;
use crate::throughput::Comparison;
use kafka::{Prepared, Stretched};
use matrix::Group;
use report::KAFKA_RECORDS;
use screen::{Screen, hint_what_to_try, verdict};

const WAN_ONE_WAY_DELAY: Duration = Duration::from_millis(10);
const AGENTS_DEAD_FOR: Duration = Duration::from_secs(10);
const RECORDS_LIMIT: Duration = Duration::from_secs(120);
/// Between the best and the worst round's ratio: more is not the slice's doing.
const WIDE_SPREAD: f64 = 0.3;
/// What the acts run; Java and Maven may be missing.
const PROGRAMS: &[&str] = &["ping", "iperf3", "redis-benchmark"];

impl DemoArgs {
    fn agent(&self) -> Result<PathBuf> {
        agents::binary(self.agent.as_deref())
    }

    fn kafka_dir(&self) -> Result<PathBuf> {
        match &self.kafka_dir {
            Some(dir) => Ok(std::path::absolute(dir)?),
            None => Ok(own_folder()?.with_file_name("kafka")),
        }
    }
}

/// Where this program lies: `target/release` when it was built by `cargo xtask build`.
fn own_folder() -> Result<PathBuf> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let folder = program.parent().context("this program lies in no folder")?;
    Ok(folder.to_owned())
}

/// Plays all acts and returns the exit code: 0 when every promise held, 3 when an act was skipped and
/// the others held, 1 otherwise. The figures that there are get written in any case.
/// # Errors  when it cannot even begin.
pub fn run(args: &DemoArgs) -> Result<u8> {
    let mut report = Report {
        file: args.json.as_deref().map(JsonFile::checked).transpose()?,
        ..Report::default()
    };
    args.agent()?;
    if let Some(missing) = debian::missing_program(PROGRAMS) {
        bail!("the demo cannot run: {missing}");
    }
    let lab = Lab::up(&LabOptions {
        lock_wait: Duration::from_secs(args.wait),
        ..LabOptions::default()
    });
    if let Err(error) = &lab {
        report.faults.push(format!("{error:#}"));
        report.keep()?;
    }
    let lab = lab?;
    let screen = Screen::since(lab.began());
    let played = play(lab, args, &screen, &mut report);
    if let Err(error) = &played {
        report.faults.push(format!("{error:#}"));
    }
    report.judge();
    report.seconds = screen.seconds();
    report.finished = true;
    verdict(&report);
    if args.keep && played.is_ok() {
        hint_what_to_try(&report);
    }
    report.keep()?;
    Ok(report.exit_code())
}

fn play(lab: Lab, args: &DemoArgs, screen: &Screen, report: &mut Report) -> Result<()> {
    let played = play_in(&lab, args, screen, report);
    if args.keep && played.is_ok() {
        return lab.leave_running();
    }
    let down = lab.down();
    played.and(down)
}

fn play_in(lab: &Lab, args: &DemoArgs, screen: &Screen, report: &mut Report) -> Result<()> {
    screen.act(
        'a',
        "the lab: three clusters on this machine, east, west and edge, made of network namespaces",
    );
    lab.start_agents(&args.agent()?)?;
    report.lab_up_seconds = Some(screen.seconds());
    screen.result(&format!(
        "{} nodes, {} pods and an agent on every node are up after {:.1} s. All three clusters use \
         the same pod addresses: kafka-0, kafka-1 and kafka-2 each have 10.1.1.10",
        NODES.len(),
        PODS.len(),
        screen.seconds()
    ));
    report.keep()?;
    // In the lab's own folder, so that whatever removes the lab removes it too.
    let run_dir = lab_path("kafka");
    std::fs::create_dir_all(&run_dir)?;
    lab.set_wan(&Wan::relay(Settings::with_delay(WAN_ONE_WAY_DELAY)))?;
    let mut stretched = stretch_kafka(lab, args, screen, report, &run_dir)?;
    report.keep()?;
    try_everybody(lab, screen, report)?;
    report.keep()?;
    measure_cost(lab, screen, report)?;
    report.keep()?;
    kill_the_agents(lab, args, screen, report, stretched.as_mut())?;
    if let Some(stretched) = stretched {
        if args.keep {
            stretched.leave_running();
        } else {
            stretched.stop()?;
        }
    }
    report.keep()?;
    let picture = report.file.as_ref().and_then(|it| it.beside("qos.svg"));
    qos::play(lab, screen, report, picture)
}

fn stretch_kafka(
    lab: &Lab,
    args: &DemoArgs,
    screen: &Screen,
    report: &mut Report,
    run_dir: &Path,
) -> Result<Option<Stretched>> {
    screen.act(
        'b',
        "Kafka: three real brokers, one in each cluster and 10 ms apart, form one Kafka cluster",
    );
    screen
        .step("making Kafka ready (the first time it is fetched, which may take a minute or two)");
    let install = match kafka::prepare(&args.kafka_dir()?)? {
        Prepared::Ready(install) => install,
        Prepared::Missing(why) => {
            report.skipped.push("kafka".to_owned());
            screen.result(&format!("SKIPPED: {why}"));
            return Ok(None);
        }
    };
    let began = screen.seconds();
    let mut stretched = Stretched::form(lab, &install, run_dir, args.keep)?;
    let formed = screen.seconds() - began;
    report.kafka_formation_seconds = Some(formed);
    screen.step(&format!(
        "the brokers found each other through the slice and are one cluster after {formed:.1} s"
    ));
    let began = screen.seconds();
    let exchange = stretched.begin(lab, Some(KAFKA_RECORDS), None)?;
    screen.step("a producer in edge writes, a consumer in west reads and checks every record");
    let (_, _, delivery) = exchange.finish(RECORDS_LIMIT)?;
    let took = screen.seconds() - began;
    report.kafka_seconds = Some(took);
    report.kafka_records_acked = Some(delivery.acked);
    report.kafka_records_lost = Some(delivery.lost);
    report.kafka_records_corrupt = Some(delivery.corrupt);
    report.kafka_records_duplicate = Some(delivery.duplicates);
    screen.judged(
        delivery.is_whole() && delivery.acked >= KAFKA_RECORDS,
        &format!(
            "{} records written and acknowledged (acks=all) in {took:.1} s; of those {} lost, {} \
             damaged, {} read twice",
            delivery.acked, delivery.lost, delivery.corrupt, delivery.duplicates
        ),
    );
    Ok(Some(stretched))
}

fn try_everybody(lab: &Lab, screen: &Screen, report: &mut Report) -> Result<()> {
    screen.act(
        'c',
        "who may talk to whom: every pod tries to connect to every other, and to itself",
    );
    let cells = matrix::cells();
    let matrix = matrix::run(lab, &cells, |done| {
        screen.passing(&format!("{done} of {} connections tried", cells.len()));
    })?;
    screen.settle();
    for surprise in &matrix.surprises {
        let expected = &surprise.cell.expected;
        screen.step(&format!(
            "WRONG: {}: expected {expected:?}, found {}",
            surprise.cell, surprise.outcome
        ));
    }
    show_group(screen, "connected, as a rule allows", &matrix.connected);
    for (what, group) in &matrix.stopped_by {
        show_group(screen, &format!("refused, {}", plainly(what)), group);
    }
    report.allowed_cells = Some(matrix.allowed);
    report.denied_cells = Some(matrix.denied);
    report.allowed_cells_wrong = Some(matrix.allowed_wrong());
    report.denied_cells_wrong = Some(matrix.denied_wrong());
    screen.judged(
        matrix.surprises.is_empty(),
        &format!(
            "{} of {} allowed connections stood, and {} of {} others were refused for the reason that \
             they should be",
            matrix.allowed - matrix.allowed_wrong(),
            matrix.allowed,
            matrix.denied - matrix.denied_wrong(),
            matrix.denied,
        ),
    );
    Ok(())
}

fn show_group(screen: &Screen, what: &str, group: &Group) {
    if let Some(example) = &group.example {
        screen.step(&format!("{:3} {what}; one of them:", group.cells));
        screen.step(&format!("        {example}"));
    }
}

/// What stopped a connection, for somebody who has not read the list of drop reasons.
fn plainly(stopped_by: &str) -> String {
    let known = DropReason::ALL.iter().find(|it| it.label() == stopped_by);
    match (stopped_by, known) {
        (matrix::GUARD_ROUTE, _) => {
            "the sender is in no slice: its node answers \"unreachable\"".to_owned()
        }
        (_, Some(reason)) => {
            let sentence = reason.sentence().trim_end_matches('.');
            format!("counted in the kernel as {stopped_by}: {sentence}")
        }
        (other, None) => other.to_owned(),
    }
}

fn measure_cost(lab: &Lab, screen: &Screen, report: &mut Report) -> Result<()> {
    screen.act(
        'd',
        "what a slice costs: the same two pods, through the slice and by plain routing in turn",
    );
    let pair = cost::Pair::new(lab)?;
    let delay_ms = WAN_ONE_WAY_DELAY.as_secs_f64() * 1e3;
    let since_ms = lab.relay()?.stats()?.uptime_ms;
    let [plain, slice] = pair.round_trips()?;
    let (late_max_us, _) = lab.relay()?.stats()?.worst_lateness_us(since_ms);
    report.wan_one_way_delay_ms = Some(delay_ms);
    report.rtt_plain_ms_avg = Some(plain.avg_ms);
    report.rtt_slice_ms_avg = Some(slice.avg_ms);
    report.wan_relay_lateness_ms_max = Some(late_max_us as f64 / 1e3);
    screen.step(&format!(
        "round trip over a WAN of {delay_ms:.0} ms each way: {:.2} ms through the slice, {:.2} ms \
         plain",
        slice.avg_ms, plain.avg_ms
    ));
    lab.set_wan(&Wan::Router)?;
    screen.step("from here on without the delay, as fast as this machine can");
    let stream = pair.stream()?;
    screen.step(&format!(
        "one TCP stream (iperf3): {:.1} Gbit/s through the slice, {:.1} plain",
        stream.slice.median / 1e9,
        stream.plain.median / 1e9
    ));
    let redis = pair.redis()?;
    screen.step(&format!(
        "redis with values of 16 KiB: {:.0} requests/s through the slice, {:.0} plain",
        redis.slice.median, redis.plain.median
    ));
    report.stream_gso_ratio_vs_plain = Some(stream.ratio);
    report.redis_ratio_vs_plain = Some(redis.ratio);
    screen.step(
        "1.00 of plain routing is as fast as without a slice; in brackets, the slowest and the fastest \
         round",
    );
    if spread(&stream).max(spread(&redis)) > WIDE_SPREAD {
        screen.step(
            "the rounds differ a lot, so something else uses this machine: measure again when it is idle",
        );
    }
    screen.result(&format!(
        "through the slice a round trip takes {:+.2} ms, the stream runs at {stream}, redis at {redis}",
        slice.avg_ms - plain.avg_ms,
    ));
    report.stream_gso = Some(stream);
    report.redis = Some(redis);
    Ok(())
}

fn spread(comparison: &Comparison) -> f64 {
    comparison.ratio_max - comparison.ratio_min
}

fn kill_the_agents(
    lab: &Lab,
    args: &DemoArgs,
    screen: &Screen,
    report: &mut Report,
    stretched: Option<&mut Stretched>,
) -> Result<()> {
    screen.act(
        'e',
        "the agents die: all five killed (kill -9) in the middle of traffic, started again 10 s later",
    );
    let survival = survival::run(lab, stretched, &args.agent()?, AGENTS_DEAD_FOR)?;
    let (udp, tcp) = (&survival.udp, &survival.tcp);
    let broken = tcp.resets + u64::from(!tcp.is_whole() && tcp.resets == 0);
    report.agent_dead_seconds = Some(survival.dead.as_secs_f64());
    report.udp_packets_sent_over_agent_kill = Some(udp.sent());
    report.packets_lost_over_agent_kill = Some(udp.lost());
    report.connections_reset = Some(broken);
    report.tcp_bytes_verified_over_agent_kill = Some(tcp.bytes_verified);
    for direction in &udp.directions {
        screen.step(&format!(
            "numbered UDP packets, {} to {}: {} sent, {} lost, longest gap between two {:.0} ms{}",
            direction.from,
            direction.to,
            direction.sent,
            direction.lost,
            direction.longest_silence_ms,
            match direction.receive_buffer_errors {
                0 => String::new(),
                late => format!("; {late} arrived, but the receiver was too slow to take them"),
            }
        ));
    }
    screen.step(&format!(
        "one TCP connection, kafka-2 to kafka-0: {:.0} MB, every byte checked, {}",
        tcp.bytes_verified as f64 / 1e6,
        match broken {
            0 => "never reset",
            _ => "RESET OR BROKEN",
        }
    ));
    let mut kafka_lost = 0;
    if let Some(delivery) = &survival.kafka {
        report.kafka_records_acked_over_agent_kill = Some(delivery.acked);
        report.kafka_records_lost_over_agent_kill = Some(delivery.lost);
        kafka_lost = delivery.lost;
        screen.step(&format!("Kafka meanwhile: {delivery}"));
    }
    screen.judged(
        udp.lost() == 0 && broken == 0 && kafka_lost == 0,
        &format!(
            "with no agent alive for {:.1} s, {} of {} packets were lost and {broken} connections \
             broke. A loss would mean that traffic needs the agents: it needs the kernel programs \
             alone, which stay",
            survival.dead.as_secs_f64(),
            udp.lost(),
            udp.sent(),
        ),
    );
    Ok(())
}
