//! The demo: three clusters, a real Kafka over them, and proof in figures. Each act ends with one.

mod cost;
pub mod kafka;
pub mod matrix;
mod report;
mod screen;
pub mod survival;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

pub use report::Report;

use crate::lab::state::lab_path;
use crate::lab::{Lab, LabOptions, Wan, agents};
use crate::relay::Settings;
use kafka::{Prepared, Stretched};
use report::KAFKA_RECORDS;
use screen::Screen;

const WAN_ONE_WAY_DELAY: Duration = Duration::from_millis(10);
const AGENTS_DEAD_FOR: Duration = Duration::from_secs(10);
const RECORDS_LIMIT: Duration = Duration::from_secs(120);

/// Arguments of `slice-lab demo`.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// Write the figures to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Leave the lab up at the end
    #[arg(long)]
    keep: bool,
    /// Seconds to wait for another lab on this machine to go down
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    wait: u64,
    /// The agent to run on every node; looked for beside this program if absent
    #[arg(long)]
    agent: Option<PathBuf>,
    /// Where Kafka is fetched to; `kafka` beside the folder of this program if absent
    #[arg(long)]
    kafka_dir: Option<PathBuf>,
}

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
pub fn run(args: &DemoArgs) -> Result<u8> {
    let screen = Screen::new();
    let mut report = Report::default();
    let played = play(args, &screen, &mut report);
    if let Err(error) = &played {
        report.faults.push(format!("{error:#}"));
    }
    report.judge();
    report.seconds = screen.seconds();
    verdict(&report);
    if args.keep && played.is_ok() {
        hint_what_to_try();
    }
    if let Some(path) = &args.json {
        report.write_json(path)?;
    }
    Ok(report.exit_code())
}

fn play(args: &DemoArgs, screen: &Screen, report: &mut Report) -> Result<()> {
    screen.act(
        'a',
        "the lab: clusters east, west and edge, all with the same pod addresses",
    );
    let lab = Lab::up(&LabOptions {
        lock_wait: Duration::from_secs(args.wait),
        ..LabOptions::default()
    })?;
    let played = play_in(&lab, args, screen, report);
    if args.keep && played.is_ok() {
        return lab.leave_running();
    }
    let down = lab.down();
    played.and(down)
}

fn play_in(lab: &Lab, args: &DemoArgs, screen: &Screen, report: &mut Report) -> Result<()> {
    lab.start_agents(&args.agent()?)?;
    report.lab_up_seconds = Some(screen.seconds());
    screen.result(&format!(
        "5 nodes, 13 pods and 5 agents are up after {:.1} s; kafka-0, kafka-1 and kafka-2 all have \
         the pod address 10.1.1.10",
        screen.seconds()
    ));
    // In the lab's own folder, so that whatever removes the lab removes it too.
    let run_dir = lab_path("kafka");
    std::fs::create_dir_all(&run_dir)?;
    lab.set_wan(&Wan::relay(Settings::with_delay(WAN_ONE_WAY_DELAY)))?;
    let mut stretched = stretch_kafka(lab, args, screen, report, &run_dir)?;
    try_everybody(lab, screen, report)?;
    measure_cost(lab, screen, report)?;
    kill_the_agents(lab, args, screen, report, stretched.as_mut())?;
    if let Some(stretched) = stretched {
        if args.keep {
            stretched.leave_running();
        } else {
            stretched.stop()?;
        }
    }
    Ok(())
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
        "Kafka: one cluster, a broker in each of three clusters, 10 ms apart",
    );
    screen.step("making Kafka ready (fetched and checked the first time)");
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
        "three brokers are one cluster after {formed:.1} s"
    ));
    let began = screen.seconds();
    let exchange = stretched.begin(lab, Some(KAFKA_RECORDS), None)?;
    let (_, _, delivery) = exchange.finish(RECORDS_LIMIT)?;
    let took = screen.seconds() - began;
    report.kafka_seconds = Some(took);
    report.kafka_records_acked = Some(delivery.acked);
    report.kafka_records_lost = Some(delivery.lost);
    report.kafka_records_corrupt = Some(delivery.corrupt);
    report.kafka_records_duplicate = Some(delivery.duplicates);
    screen.result(&format!(
        "{delivery}: from producers in edge to analytics in west in {took:.1} s, each on three \
         brokers before it counted"
    ));
    Ok(Some(stretched))
}

fn try_everybody(lab: &Lab, screen: &Screen, report: &mut Report) -> Result<()> {
    screen.act(
        'c',
        "who may talk to whom: every pair of pods, with real packets",
    );
    let cells = matrix::cells();
    let matrix = matrix::run(lab, &cells, |done| {
        screen.passing(&format!("{done} of {} cells", cells.len()));
    })?;
    screen.settle();
    for surprise in &matrix.surprises {
        let cell = &surprise.cell;
        screen.step(&format!(
            "WRONG: {} to {} port {}: expected {:?}, found {}",
            cell.from.name, cell.to.name, cell.port, cell.expected, surprise.outcome
        ));
    }
    let stopped: Vec<_> = matrix
        .stopped_by
        .iter()
        .map(|(what, count)| format!("{what} {count}"))
        .collect();
    report.allowed_cells = Some(matrix.allowed);
    report.denied_cells = Some(matrix.denied);
    report.allowed_cells_wrong = Some(matrix.allowed_wrong());
    report.denied_cells_wrong = Some(matrix.denied_wrong());
    screen.result(&format!(
        "{} allowed cells, {} wrong; {} denied cells, {} wrong; stopped by: {}",
        matrix.allowed,
        matrix.allowed_wrong(),
        matrix.denied,
        matrix.denied_wrong(),
        stopped.join(", ")
    ));
    Ok(())
}

fn measure_cost(lab: &Lab, screen: &Screen, report: &mut Report) -> Result<()> {
    screen.act(
        'd',
        "what it costs, against plain routing between the same pods",
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
        "round trip over a WAN of 2 x {delay_ms:.0} ms: {:.2} ms in the slice, {:.2} ms plain",
        slice.avg_ms, plain.avg_ms
    ));
    lab.set_wan(&Wan::Router)?;
    let stream = pair.stream()?;
    screen.step(&format!(
        "one TCP stream (iperf3): {:.1} Gbit/s, {stream}",
        stream.slice.median / 1e9
    ));
    let redis = pair.redis()?;
    screen.step(&format!(
        "redis with 16 KiB values: {:.0} requests/s, {redis}",
        redis.slice.median
    ));
    report.stream_gso_ratio_vs_plain = Some(stream.ratio);
    report.redis_ratio_vs_plain = Some(redis.ratio);
    screen.result(&format!(
        "a slice adds {:.2} ms to a round trip and gives {:.2} of plain routing's stream",
        slice.avg_ms - plain.avg_ms,
        stream.ratio
    ));
    report.stream_gso = Some(stream);
    report.redis = Some(redis);
    Ok(())
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
        "every agent killed in mid-transfer, dead for 10 s, started again",
    );
    let survival = survival::run(lab, stretched, &args.agent()?, AGENTS_DEAD_FOR)?;
    let (udp, tcp) = (&survival.udp, &survival.tcp);
    let broken = tcp.resets + u64::from(!tcp.is_whole() && tcp.resets == 0);
    report.agent_dead_seconds = Some(survival.dead.as_secs_f64());
    report.udp_packets_sent_over_agent_kill = Some(udp.sent());
    report.packets_lost_over_agent_kill = Some(udp.lost());
    report.connections_reset = Some(broken);
    report.tcp_bytes_verified_over_agent_kill = Some(tcp.bytes_verified);
    if let Some(delivery) = &survival.kafka {
        report.kafka_records_acked_over_agent_kill = Some(delivery.acked);
        report.kafka_records_lost_over_agent_kill = Some(delivery.lost);
        screen.step(&format!("Kafka meanwhile: {delivery}"));
    }
    for direction in &udp.directions {
        screen.step(&format!(
            "UDP {} to {}: {} sent, {} lost ({} for want of room at the receiver), longest \
             silence {:.0} ms",
            direction.from,
            direction.to,
            direction.sent,
            direction.lost,
            direction.receive_buffer_errors,
            direction.longest_silence_ms
        ));
    }
    screen.result(&format!(
        "{} of {} packets lost, {broken} connections reset or broken, {:.0} MB of TCP verified; the \
         agents were dead for {:.1} s",
        udp.lost(),
        udp.sent(),
        tcp.bytes_verified as f64 / 1e6,
        survival.dead.as_secs_f64()
    ));
    Ok(())
}

fn hint_what_to_try() {
    println!(
        "\nThe lab stays up. Try:\n  cargo xtask lab status\n  cargo xtask lab exec kafka-0 -- ping -c 3 \
         kafka-2\n  cargo xtask lab exec audit-0 -- ping -c 1 kafka-0    # denied by policy\n  cargo \
         xtask lab down"
    );
}

fn verdict(report: &Report) {
    for fault in &report.faults {
        println!("FAULT: {fault}");
    }
    let verdict = match report.exit_code() {
        0 => "everything held".to_owned(),
        3 => format!(
            "everything that ran held; skipped: {}",
            report.skipped.join(", ")
        ),
        _ => format!("{} faults", report.faults.len()),
    };
    println!("\nVERDICT after {:.0} s: {verdict}", report.seconds);
}
