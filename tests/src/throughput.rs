//! Throughput and round-trip times by well-known programs, and fair comparisons of two routes.

use std::fmt;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::child::{ManagedChild, poll_until, wait_for_listener};
use crate::place::Place;

/// For a server to listen.
const START_LIMIT: Duration = Duration::from_secs(10);
/// Beyond the time that a measurement takes by itself.
const SLACK: Duration = Duration::from_secs(20);
const IPERF3_PORT: u16 = 5201;
const REDIS_PORT: u16 = 6379;

/// One of the addresses of a server, and so one of the routes to it.
#[derive(Clone, Debug)]
pub struct Target {
    /// What it is called in reports, for example `plain` or `slice`.
    pub name: String,
    pub address: Ipv4Addr,
    /// The client's own address; without it the kernel chooses by its routes.
    pub bind: Option<Ipv4Addr>,
}

/// One TCP flow.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Iperf3Result {
    /// As the receiver counted.
    pub received_bps: f64,
    pub retransmits: u64,
}

/// Sends one TCP flow for `seconds` from `client` to `server` at the target address.
pub fn iperf3(
    client: &Place,
    server: &Place,
    target: &Target,
    seconds: u32,
) -> Result<Iperf3Result> {
    let mut command = server.command("iperf3");
    command.args(["--server", "--one-off", "--port", &IPERF3_PORT.to_string()]);
    let mut listening = start_server("iperf3 server", server, &mut command, IPERF3_PORT)?;
    let mut command = client.command("iperf3");
    command.args(["--json", "--client", &target.address.to_string()]);
    command.args([
        "--port",
        &IPERF3_PORT.to_string(),
        "--time",
        &seconds.to_string(),
    ]);
    command.args(["--connect-timeout", &START_LIMIT.as_millis().to_string()]);
    if let Some(address) = target.bind {
        command.args(["--bind", &address.to_string()]);
    }
    let limit = Duration::from_secs(seconds.into()) + SLACK;
    let output = run(&format!("iperf3 to {}", target.name), &mut command, limit)?;
    listening.kill()?;
    parse_iperf3(&output)
}

/// A kind of request of redis-benchmark.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RedisResult {
    /// `SET` or `GET`.
    pub test: String,
    pub requests_per_second: f64,
    /// Redis before 6.2 does not tell.
    pub p50_latency_ms: Option<f64>,
    pub p99_latency_ms: Option<f64>,
}

/// What redis-benchmark does.
#[derive(Clone, Copy, Debug)]
pub struct RedisLoad {
    pub value_bytes: u32,
    /// Of each kind.
    pub requests: u32,
    pub connections: u32,
}

/// Runs SET and GET from `client` against a fresh server at the target address.
///
/// redis-benchmark cannot choose its own address: [`Target::bind`] has no effect here.
pub fn redis(
    client: &Place,
    server: &Place,
    target: &Target,
    load: &RedisLoad,
) -> Result<Vec<RedisResult>> {
    let (program, own_name) = redis_server_program()?;
    let folder = tempfile::tempdir()?;
    let mut command = server.command(program);
    command.arg0(own_name).current_dir(folder.path());
    command.args(["--port", &REDIS_PORT.to_string(), "--bind", "0.0.0.0"]);
    // Nothing is written to disk; the pod's namespace is the protection.
    command.args(["--save", "", "--appendonly", "no", "--protected-mode", "no"]);
    let mut listening = start_server("redis-server", server, &mut command, REDIS_PORT)?;
    let mut command = client.command("redis-benchmark");
    command.args(["--csv", "-t", "set,get", "-h", &target.address.to_string()]);
    command.args([
        "-p",
        &REDIS_PORT.to_string(),
        "-d",
        &load.value_bytes.to_string(),
    ]);
    command.args([
        "-n",
        &load.requests.to_string(),
        "-c",
        &load.connections.to_string(),
    ]);
    let output = run(
        &format!("redis-benchmark to {}", target.name),
        &mut command,
        3 * SLACK,
    )?;
    listening.stop(START_LIMIT)?;
    parse_redis_csv(&output)
}

/// Round-trip times of ICMP echo.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PingResult {
    pub sent: u32,
    pub received: u32,
    pub min_ms: f64,
    pub avg_ms: f64,
    pub max_ms: f64,
    /// Standard deviation.
    pub mdev_ms: f64,
}

/// Sends `count` echo requests, one each `interval` (whole milliseconds).
pub fn ping(client: &Place, target: &Target, count: u32, interval: Duration) -> Result<PingResult> {
    let mut command = client.command("ping");
    command.args(["-n", "-q", "-W", "2", "-c", &count.to_string()]);
    command.args(["-i", &format!("{:.3}", interval.as_secs_f64())]);
    if let Some(address) = target.bind {
        command.args(["-I", &address.to_string()]);
    }
    command.arg(target.address.to_string());
    // Its own words depend on the language; the C locale fixes them.
    command.env("LC_ALL", "C");
    let output = run(
        &format!("ping to {}", target.name),
        &mut command,
        interval * count + SLACK,
    )?;
    parse_ping(&output)
}

/// One quantity measured over two routes in turn.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Comparison {
    pub plain: Series,
    pub slice: Series,
    /// Median over slice divided by median over plain.
    pub ratio: f64,
    /// Smallest and largest ratio within one round.
    pub ratio_min: f64,
    pub ratio_max: f64,
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ratio, low, high) = (self.ratio, self.ratio_min, self.ratio_max);
        write!(f, "{ratio:.2} of plain routing ({low:.2} to {high:.2})")
    }
}

/// Values of one route, in the order of the rounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    pub values: Vec<f64>,
    pub median: f64,
}

/// Measures both routes in every round, and first the one, then the other: slow changes of the
/// machine hit both alike.
pub fn compare_interleaved(
    rounds: u32,
    plain: &Target,
    slice: &Target,
    mut measure: impl FnMut(&Target) -> Result<f64>,
) -> Result<Comparison> {
    let (mut plain_values, mut slice_values) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let mut order = [(plain, &mut plain_values), (slice, &mut slice_values)];
        if round % 2 == 1 {
            order.reverse();
        }
        for (target, values) in order {
            values.push(measure(target)?);
        }
    }
    comparison(plain_values, slice_values)
}

fn comparison(plain: Vec<f64>, slice: Vec<f64>) -> Result<Comparison> {
    ensure!(
        !plain.is_empty() && plain.iter().chain(&slice).all(|value| *value > 0.0),
        "comparison: {plain:?} with {slice:?}, expected at least one round and values above 0"
    );
    let ratios = || plain.iter().zip(&slice).map(|(plain, slice)| slice / plain);
    let (ratio_min, ratio_max) = (
        ratios().fold(f64::INFINITY, f64::min),
        ratios().fold(0.0, f64::max),
    );
    let [plain, slice] = [plain, slice].map(|values| Series {
        median: median(&values),
        values,
    });
    Ok(Comparison {
        ratio: slice.median / plain.median,
        ratio_min,
        ratio_max,
        plain,
        slice,
    })
}

/// Of an even number, the mean of the middle two.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        1 => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}

fn start_server(
    name: &str,
    place: &Place,
    command: &mut Command,
    port: u16,
) -> Result<ManagedChild> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut server = ManagedChild::spawn(&format!("{name} in {}", place.name), command)?;
    wait_for_listener(&mut server, port, START_LIMIT)?;
    Ok(server)
}

/// Runs to the end and returns stdout; programs report errors there too, so the status is left to
/// the parser unless there is nothing to parse.
fn run(name: &str, command: &mut Command, limit: Duration) -> Result<String> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = ManagedChild::spawn(name, command)?;
    let stdout = child
        .child_mut()
        .stdout
        .take()
        .context("stdout is a pipe")?;
    let stderr = child
        .child_mut()
        .stderr
        .take()
        .context("stderr is a pipe")?;
    let read = |pipe| std::thread::spawn(move || std::io::read_to_string(pipe).unwrap_or_default());
    let output = read(Box::new(stdout) as Box<dyn std::io::Read + Send>);
    let complaints = read(Box::new(stderr));
    let ended = poll_until(limit, || child.try_wait())?;
    child.kill()?;
    let output = output.join().unwrap_or_default();
    let complaints = complaints.join().unwrap_or_default();
    match ended {
        None => bail!("{name}: not done after {limit:?}, killed; it said: {complaints}"),
        Some(status) if output.trim().is_empty() => bail!("{name}: {status}; {complaints}"),
        Some(_) => Ok(output),
    }
}

/// The program, and the name it has to be started under.
fn redis_server_program() -> Result<(PathBuf, &'static str)> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    ["redis-server", "redis-check-rdb"]
        .iter()
        .flat_map(|name| std::env::split_paths(&path).map(move |folder| folder.join(name)))
        .find(|program| Path::is_file(program))
        .map(|program| (program, "redis-server"))
        .context("Redis: neither redis-server nor redis-check-rdb is in PATH; Debian and Ubuntu: apt install redis-tools")
}

fn parse_iperf3(json: &str) -> Result<Iperf3Result> {
    let report: serde_json::Value = serde_json::from_str(json).context("iperf3 report")?;
    if let Some(error) = report["error"].as_str() {
        bail!("iperf3: {error}");
    }
    let end = &report["end"];
    Ok(Iperf3Result {
        received_bps: end["sum_received"]["bits_per_second"]
            .as_f64()
            .context("iperf3 report: no end.sum_received.bits_per_second")?,
        retransmits: end["sum_sent"]["retransmits"].as_u64().unwrap_or(0),
    })
}

/// Since 6.2 there is a line of column names and there are latencies; before, only two columns.
fn parse_redis_csv(text: &str) -> Result<Vec<RedisResult>> {
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with('"'))
        .map(|line| {
            line.split(',')
                .map(|field| field.trim_matches('"'))
                .collect()
        })
        .collect();
    let header = rows.first().filter(|row| row[0] == "test");
    let results: Vec<RedisResult> = rows
        .iter()
        .skip(usize::from(header.is_some()))
        .filter_map(|row| {
            let named = |name| {
                let column = header?.iter().position(|column| *column == name)?;
                row.get(column)?.parse().ok()
            };
            Some(RedisResult {
                test: row[0].to_owned(),
                requests_per_second: row.get(1)?.parse().ok()?,
                p50_latency_ms: named("p50_latency_ms"),
                p99_latency_ms: named("p99_latency_ms"),
            })
        })
        .collect();
    ensure!(
        !results.is_empty(),
        "redis-benchmark: no result in {text:?}"
    );
    Ok(results)
}

fn parse_ping(text: &str) -> Result<PingResult> {
    let number_before = |word: &str| -> Option<u32> {
        let line = text
            .lines()
            .find(|line| line.contains("packets transmitted"))?;
        let part = line.split(", ").find(|part| part.contains(word))?;
        part.split(' ').next()?.parse().ok()
    };
    let sent = number_before("transmitted").with_context(|| format!("ping: {text:?}"))?;
    let received = number_before("received").with_context(|| format!("ping: {text:?}"))?;
    ensure!(
        received > 0,
        "ping: none of {sent} echo requests was answered"
    );
    let times = text
        .lines()
        .find_map(|line| {
            line.strip_prefix("rtt min/avg/max/mdev = ")?
                .split(' ')
                .next()
        })
        .with_context(|| format!("ping: no times in {text:?}"))?;
    let times: Vec<f64> = times
        .split('/')
        .filter_map(|time| time.parse().ok())
        .collect();
    let [min_ms, avg_ms, max_ms, mdev_ms] = times[..] else {
        bail!("ping: expected four times, found {times:?}");
    };
    Ok(PingResult {
        sent,
        received,
        min_ms,
        avg_ms,
        max_ms,
        mdev_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iperf3_counts_what_the_receiver_got_and_passes_its_error_on() {
        let report = r#"{"end": {"sum_sent": {"bits_per_second": 9e8, "retransmits": 3},
                                 "sum_received": {"bits_per_second": 8.5e8}}}"#;
        let expected = Iperf3Result {
            received_bps: 8.5e8,
            retransmits: 3,
        };
        assert_eq!(parse_iperf3(report).unwrap(), expected);
        let error = parse_iperf3(r#"{"end": {}, "error": "unable to connect"}"#).unwrap_err();
        assert_eq!(error.to_string(), "iperf3: unable to connect");
        assert!(parse_iperf3("{\"end\": {}}").is_err());
    }

    #[test]
    fn redis_results_are_read_in_both_forms() {
        let new = "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\
             \"p95_latency_ms\",\"p99_latency_ms\",\"max_latency_ms\"\n\
             \"SET\",\"58139.53\",\"0.089\",\"0.024\",\"0.087\",\"0.159\",\"0.231\",\"0.639\"\n";
        let found = parse_redis_csv(new).unwrap();
        assert_eq!(
            (found[0].test.as_str(), found[0].requests_per_second),
            ("SET", 58139.53)
        );
        assert_eq!(
            (found[0].p50_latency_ms, found[0].p99_latency_ms),
            (Some(0.087), Some(0.231))
        );
        let old = parse_redis_csv("\"SET\",\"100.5\"\n\"GET\",\"200\"\n").unwrap();
        assert_eq!(old.len(), 2);
        assert_eq!(
            (old[1].requests_per_second, old[1].p50_latency_ms),
            (200.0, None)
        );
        assert!(parse_redis_csv("Could not connect\n").is_err());
    }

    #[test]
    fn ping_times_are_read_and_silence_is_an_error() {
        let text = "PING 10.77.0.2 (10.77.0.2) 56(84) bytes of data.\n\n\
             --- 10.77.0.2 ping statistics ---\n\
             5 packets transmitted, 4 received, 20% packet loss, time 72ms\n\
             rtt min/avg/max/mdev = 20.034/20.062/20.141/0.040 ms\n";
        let found = parse_ping(text).unwrap();
        assert_eq!((found.sent, found.received), (5, 4));
        assert_eq!(
            (found.min_ms, found.avg_ms, found.max_ms, found.mdev_ms),
            (20.034, 20.062, 20.141, 0.040)
        );
        let lost = "2 packets transmitted, 0 received, +2 errors, 100% packet loss, time 13ms\n";
        assert_eq!(
            parse_ping(lost).unwrap_err().to_string(),
            "ping: none of 2 echo requests was answered"
        );
    }

    #[test]
    fn rounds_alternate_which_route_goes_first() {
        let target = |name: &str| Target {
            name: name.to_owned(),
            address: Ipv4Addr::LOCALHOST,
            bind: None,
        };
        let mut order = String::new();
        let compared = compare_interleaved(3, &target("plain"), &target("slice"), |target| {
            order += &target.name[..1];
            Ok(if target.name == "plain" {
                100.0
            } else {
                90.0 + order.len() as f64
            })
        })
        .unwrap();
        assert_eq!(order, "psspps");
        assert_eq!(compared.plain.median, 100.0);
        assert_eq!(compared.slice.values, [92.0, 93.0, 96.0]);
        assert_eq!(compared.to_string(), "0.93 of plain routing (0.92 to 0.96)");
    }

    #[test]
    fn a_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
    }

    #[test]
    fn a_route_that_carried_nothing_cannot_be_compared() {
        assert!(comparison(vec![0.0], vec![1.0]).is_err());
        assert!(comparison(vec![], vec![]).is_err());
    }
}
