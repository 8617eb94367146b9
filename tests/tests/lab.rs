//! The lab itself, without any agent. Needs root.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use slice_tests::child::poll_until;
use slice_tests::harness::{self, Need};
use slice_tests::lab::cleanup::Leftovers;
use slice_tests::lab::state::State;
use slice_tests::lab::{Lab, LabOptions, Ping, PingReport, Pod, Wan};
use slice_tests::netns::NetNs;
use slice_tests::relay::Settings;

/// Above it the machine was too busy for the relay, and the run says nothing about it.
const TOLERATED_LATENESS_US: u64 = 2_000;
const ATTEMPTS: u32 = 5;

fn turn() -> Option<MutexGuard<'static, ()>> {
    harness::turn("the lab", Need::Root)
}

fn tool() -> PathBuf {
    env!("CARGO_BIN_EXE_slice-lab").into()
}

/// Waits for a lab that somebody else has up on this machine.
fn options(wan: Wan) -> LabOptions {
    let lock_wait = Duration::from_secs(240);
    LabOptions {
        wan,
        lock_wait,
        tool: Some(tool()),
        ..LabOptions::default()
    }
}

fn ping(from: &Pod, source: Ipv4Addr, to: Ipv4Addr) -> PingReport {
    let ping = Ping {
        count: 3,
        timeout: Duration::from_millis(300),
        ..Ping::default()
    };
    ping.run(&from.netns, Some(source), to).unwrap()
}

#[test]
fn a_namespace_has_its_own_network_and_its_own_hosts_file() {
    let Some(_turn) = turn() else { return };
    let name = format!("slt-{}", std::process::id());
    let namespace = NetNs::create(&name).unwrap();
    assert!(NetNs::create(&name).is_err(), "a second one of that name");
    let hosts = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(hosts.path(), "10.9.9.9 far\n").unwrap();

    let inside = namespace
        .enter(|| std::fs::read_to_string("/proc/thread-self/net/dev"))
        .unwrap();
    let cat = namespace
        .command_with_hosts("cat", hosts.path())
        .arg("/etc/hosts")
        .output()
        .unwrap();
    let outside = std::fs::read_to_string("/etc/hosts").unwrap();
    NetNs::delete(&name).unwrap();

    assert_eq!(
        inside.unwrap().lines().count(),
        3,
        "two heading lines and lo"
    );
    assert_eq!(String::from_utf8(cat.stdout).unwrap(), "10.9.9.9 far\n");
    assert!(
        !outside.contains("10.9.9.9"),
        "the machine's own file is untouched"
    );
    assert!(NetNs::open(&name).is_err());
}

#[test]
fn plain_addresses_reach_every_cluster_and_overlapping_ones_only_their_own() {
    let Some(_turn) = turn() else { return };
    let lab = Lab::up(&options(Wan::Router)).unwrap();
    let pod = |name| lab.pod(name).unwrap();
    let (kafka_0, kafka_1, analytics_1) = (pod("kafka-0"), pod("kafka-1"), pod("analytics-1"));
    let (web_2, kafka_2) = (pod("web-2"), pod("kafka-2"));

    for far in [&kafka_1, &web_2, &kafka_2, &analytics_1] {
        let report = ping(&kafka_0, kafka_0.plain_address, far.plain_address);
        assert_eq!(
            report.received(),
            3,
            "kafka-0 to {} by plain routing",
            far.name
        );
    }
    let same_cluster = ping(&kafka_0, kafka_0.pod_address, analytics_1.pod_address);
    assert_eq!(
        same_cluster.received(),
        3,
        "kafka-0 to analytics-1, both in east"
    );

    // web-1 (east) and web-2 (west) share 10.1.2.20. From edge, where nobody has it, it leads
    // nowhere; from east it leads to web-1, so nothing of it arrives in west.
    let before = lab.devices().unwrap();
    assert_eq!(
        ping(&kafka_2, kafka_2.pod_address, web_2.pod_address).received(),
        0
    );
    assert_eq!(
        ping(&kafka_0, kafka_0.pod_address, web_2.pod_address).received(),
        3
    );
    let after = lab.devices().unwrap();
    let received = |devices: &slice_tests::lab::Devices, pod: &Pod| {
        devices[&(pod.netns.name().to_owned(), "eth0".to_owned())].rx_packets
    };
    assert_eq!(
        received(&before, &web_2),
        received(&after, &web_2),
        "west saw nothing"
    );
    let web_1 = pod("web-1");
    assert!(
        received(&after, &web_1) >= received(&before, &web_1) + 3,
        "east's own pod answered"
    );

    // Fails if anything is left; to look again here would meet another process' next lab.
    assert_ne!(Leftovers::find(), Leftovers::default(), "not vacuous");
    lab.down().unwrap();
}

#[test]
fn the_nodes_own_bpffs_and_configuration_are_in_place() {
    let Some(_turn) = turn() else { return };
    let lab = Lab::up(&options(Wan::Router)).unwrap();
    for node in lab.nodes().unwrap() {
        std::fs::create_dir(node.bpffs.join("sliceplane")).unwrap();
        let kind = Command::new("stat")
            .args(["-f", "-c", "%T"])
            .arg(&node.bpffs)
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8(kind.stdout).unwrap().trim(),
            "bpf_fs",
            "{}",
            node.name
        );
        // The folder made outside is seen by a program inside: setns does not hide bpffs.
        let seen = node
            .netns
            .command("test")
            .arg("-d")
            .arg(node.bpffs.join("sliceplane"))
            .status();
        assert!(seen.unwrap().success(), "{}", node.name);
        assert!(
            std::fs::read_to_string(&node.config)
                .unwrap()
                .contains(node.name)
        );
    }
    let hosts = lab
        .pod("kafka-0")
        .unwrap()
        .command("cat")
        .arg("/etc/hosts")
        .output()
        .unwrap();
    assert!(
        String::from_utf8(hosts.stdout)
            .unwrap()
            .contains("10.77.128.2 kafka-2\n")
    );
}

#[test]
fn the_relay_delays_by_what_was_set_and_changes_live() {
    let Some(_turn) = turn() else { return };
    let start = Settings::with_delay(Duration::from_millis(10));
    let lab = Lab::up(&options(Wan::relay(start))).unwrap();
    for delay_ms in [10, 2] {
        lab.set_wan(&Wan::relay(Settings::with_delay(Duration::from_millis(
            delay_ms,
        ))))
        .unwrap();
        let median = trusted_run(&lab, || median_round_trip(&lab));
        let set = Duration::from_millis(2 * delay_ms);
        let excess = median.checked_sub(set);
        assert!(
            excess.is_some_and(|excess| excess < Duration::from_millis(1)),
            "round trip {median:?} with {delay_ms} ms one way"
        );
        eprintln!("relay: {delay_ms} ms one way, median round trip {median:?}");
    }
    lab.set_wan(&Wan::Router).unwrap();
    assert!(
        median_round_trip(&lab) < Duration::from_millis(2),
        "the plain router adds no delay"
    );
}

#[test]
fn the_relay_limits_the_rate_within_two_percent() {
    let Some(_turn) = turn() else { return };
    let lab = Lab::up(&options(Wan::Router)).unwrap();
    for rate_bps in [10_000_000, 100_000_000] {
        let settings = Settings::with_delay(Duration::from_millis(5)).with_rate(rate_bps);
        lab.set_wan(&Wan::relay(settings)).unwrap();
        let measured_bps = trusted_run(&lab, || overload(&lab, rate_bps));
        let error = measured_bps / rate_bps as f64 - 1.0;
        eprintln!(
            "relay: {rate_bps} bit/s set, {measured_bps:.0} measured, {:.2} %",
            error * 100.0
        );
        assert!(
            error.abs() < 0.02,
            "rate {rate_bps}: measured {measured_bps}"
        );
    }
}

#[test]
fn loss_and_a_black_hole_are_counted_by_direction() {
    let Some(_turn) = turn() else { return };
    let mut settings = Settings::default();
    settings.paths[0][1].loss = 1.0;
    settings.paths[0][2].mtu_bytes = 80;
    let lab = Lab::up(&options(Wan::relay(settings))).unwrap();
    let [kafka_0, kafka_1, kafka_2] =
        ["kafka-0", "kafka-1", "kafka-2"].map(|it| lab.pod(it).unwrap());

    assert_eq!(
        ping(&kafka_0, kafka_0.plain_address, kafka_1.plain_address).received(),
        0
    );
    assert_eq!(
        ping(&kafka_0, kafka_0.plain_address, kafka_2.plain_address).received(),
        0
    );
    assert_eq!(
        ping(&kafka_1, kafka_1.plain_address, kafka_2.plain_address).received(),
        3
    );

    let stats = lab.relay().unwrap().stats().unwrap();
    assert_eq!(stats.directions[0][1].drops_loss, 3);
    assert_eq!(
        stats.directions[0][2].drops_too_big, 3,
        "84 bytes do not fit into 80"
    );
    assert_eq!(stats.directions[1][2].packets_out, 3);
}

#[test]
fn wire_mode_cuts_at_the_sending_nic_and_merges_at_the_receiving_one() {
    let Some(_turn) = turn() else { return };
    let lab = Lab::up(&options(Wan::Router)).unwrap();
    let check = || {
        let before = lab.devices().unwrap();
        tcp_transfer(&lab, 64 << 20);
        let after = lab.devices().unwrap();
        lab.wire_check(&before, &after, "east-1", "kafka-1")
            .unwrap()
    };
    let uncut = check();
    assert!(!uncut.cut_at_sender(), "not vacuous: {uncut:?}");
    lab.set_wire_mode(true).unwrap();
    let wire = check();
    assert!(
        wire.cut_at_sender() && wire.merged_at_receiver(),
        "{wire:?}"
    );
    lab.set_wire_mode(false).unwrap();
    assert!(!check().cut_at_sender(), "and back");
}

#[test]
fn kernel_drops_name_the_place_where_a_packet_was_lost() {
    let Some(_turn) = turn() else { return };
    let lab = Lab::up(&options(Wan::Router)).unwrap();
    let kafka_0 = lab.pod("kafka-0").unwrap();
    let before = lab.kernel_drops().unwrap();
    let nowhere = Ipv4Addr::new(10, 77, 200, 1);
    assert_eq!(ping(&kafka_0, kafka_0.pod_address, nowhere).received(), 0);
    let added = lab.kernel_drops().unwrap().since(&before);
    assert_eq!(
        added.counters.get("sl-fabric-east/IpExt.InNoRoutes"),
        Some(&3),
        "{added:?}"
    );
}

#[test]
fn a_second_lab_is_refused_and_the_holder_named() {
    let Some(_turn) = turn() else { return };
    let lab = Lab::up(&options(Wan::Router)).unwrap();
    let second = Lab::up(&LabOptions::default()).unwrap_err().to_string();
    assert!(
        second.contains(&format!("process {}", std::process::id())),
        "{second}"
    );
    let down = Command::new(tool()).arg("down").output().unwrap();
    assert!(!down.status.success(), "not removed under its owner");
    assert!(lab.pod("kafka-0").is_ok());
}

#[test]
fn what_a_killed_up_left_is_cleaned_by_the_next() {
    let Some(_turn) = turn() else { return };
    let mut up = Command::new(tool())
        .args(["up", "--wait", "240", "--no-agents"])
        .spawn()
        .unwrap();
    let half_built = poll_until(Duration::from_secs(240), || {
        let ended = up.try_wait()?.is_some();
        // It may first have to wait for somebody else's lab to go down.
        let maker = State::load()?.and_then(|state| state.maker);
        let has_begun = maker.is_some_and(|it| it.process.pid == up.id().cast_signed())
            && Leftovers::find().namespaces.len() >= 5;
        Ok((ended || has_begun).then_some(!ended))
    });
    up.kill().unwrap();
    up.wait().unwrap();
    assert_eq!(
        half_built.unwrap(),
        Some(true),
        "killed while it was building"
    );
    assert!(
        !Leftovers::find().is_empty(),
        "not vacuous: the killed run left something"
    );

    let lab = Lab::up(&options(Wan::Router)).unwrap();
    let kafka_0 = lab.pod("kafka-0").unwrap();
    let far = lab.pod("kafka-1").unwrap().plain_address;
    assert_eq!(ping(&kafka_0, kafka_0.plain_address, far).received(), 3);
    // Fails if anything is left; to look again here would meet another process' next lab.
    assert_ne!(Leftovers::find(), Leftovers::default(), "not vacuous");
    lab.down().unwrap();
}

#[test]
fn a_kept_lab_is_shown_entered_degraded_and_removed_from_the_command_line() {
    let Some(_turn) = turn() else { return };
    let run = |arguments: &[&str]| {
        let output = Command::new(tool()).args(arguments).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let refused = run(&["up", "--delay", "5ms"]);
    assert!(refused.1.contains("add --wan relay"), "{refused:?}");
    assert_eq!(
        run(&[
            "up",
            "--no-agents",
            "--wait",
            "240",
            "--wan",
            "relay",
            "--delay",
            "5ms"
        ])
        .0,
        Some(0)
    );
    let again = run(&["up"]);
    assert!(again.1.contains("a lab is up already"), "{again:?}");

    let status = run(&["status"]).1;
    assert!(status.contains("east to west: delay 5 ms"), "{status}");
    assert!(
        status.contains("kafka-1      west-1  kafka/kafka      10.1.1.10"),
        "{status}"
    );
    assert_eq!(
        run(&["exec", "kafka-0", "--", "sh", "-c", "exit 7"]).0,
        Some(7)
    );
    let stranger = run(&["exec", "nobody", "--", "true"]);
    assert!(
        stranger.1.contains("no pod or node \"nobody\""),
        "{stranger:?}"
    );
    let degraded = run(&[
        "degrade", "--from", "east", "--to", "west", "--delay", "80ms",
    ])
    .1;
    assert!(degraded.contains("east to west: delay 80 ms"), "{degraded}");
    assert!(degraded.contains("west to east: delay 5 ms"), "{degraded}");

    // Left behind in a pod by a user; nobody recorded it.
    let lab = Lab::attach().unwrap();
    let mut left = lab
        .pod("kafka-0")
        .unwrap()
        .command("sleep")
        .arg("600")
        .spawn()
        .unwrap();
    assert_eq!(run(&["down"]).0, Some(0));
    assert!(left.wait().unwrap().code().is_none(), "ended by a signal");
}

/// Repeats a run that the relay was too late for, since it says nothing.
fn trusted_run<T>(lab: &Lab, mut run: impl FnMut() -> T) -> T {
    let relay = lab.relay().unwrap();
    for _ in 0..ATTEMPTS {
        let since_ms = relay.stats().unwrap().uptime_ms;
        let result = run();
        let (max_us, p99_us) = relay.stats().unwrap().worst_lateness_us(since_ms);
        eprintln!("relay lateness: worst {max_us} us, worst p99 of a second {p99_us} us");
        if p99_us <= TOLERATED_LATENESS_US {
            return result;
        }
    }
    panic!("the relay was late in each of {ATTEMPTS} runs: the machine is too busy");
}

fn median_round_trip(lab: &Lab) -> Duration {
    let (from, to) = (lab.pod("kafka-0").unwrap(), lab.pod("kafka-1").unwrap());
    let ping = Ping {
        count: 50,
        ..Ping::default()
    };
    let report = ping
        .run(&from.netns, Some(from.plain_address), to.plain_address)
        .unwrap();
    assert_eq!(report.received(), 50);
    report.median().unwrap()
}

/// Offers 1.3 times the rate and gives what arrived, in bits per second on the wire.
fn overload(lab: &Lab, rate_bps: u64) -> f64 {
    const PAYLOAD_BYTES: usize = 1200;
    const HEADER_BYTES: usize = 28;
    const WIRE_BITS: f64 = ((PAYLOAD_BYTES + HEADER_BYTES + 38) * 8) as f64;
    let (from, to) = (lab.pod("kafka-0").unwrap(), lab.pod("kafka-1").unwrap());
    let socket = |pod: &Pod| {
        pod.netns
            .enter(|| UdpSocket::bind((pod.plain_address, 7000)))
            .unwrap()
            .unwrap()
    };
    let (sender, receiver) = (socket(&from), socket(&to));
    receiver
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    std::thread::scope(|scope| {
        let arrivals = scope.spawn(move || {
            let mut buffer = [0; 2048];
            let mut arrivals = Vec::new();
            while receiver.recv(&mut buffer).is_ok() {
                arrivals.push(Instant::now());
            }
            arrivals
        });
        let started = Instant::now();
        let offered_per_second = 1.3 * rate_bps as f64 / WIRE_BITS;
        let mut sent = 0.0;
        while started.elapsed() < Duration::from_secs(2) {
            while sent < started.elapsed().as_secs_f64() * offered_per_second {
                sender
                    .send_to(&[0; PAYLOAD_BYTES], (to.plain_address, 7000))
                    .unwrap();
                sent += 1.0;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        let arrivals = arrivals.join().unwrap();
        let span = arrivals[arrivals.len() - 1] - arrivals[0];
        (arrivals.len() - 1) as f64 * WIRE_BITS / span.as_secs_f64()
    })
}

fn tcp_transfer(lab: &Lab, bytes: usize) {
    use std::io::{Read, Write};
    let (from, to) = (lab.pod("kafka-0").unwrap(), lab.pod("kafka-1").unwrap());
    let listen = || std::net::TcpListener::bind((to.plain_address, 7000));
    let listener = to.netns.enter(listen).unwrap().unwrap();
    let connect = || std::net::TcpStream::connect((to.plain_address, 7000));
    let mut stream = from.netns.enter(connect).unwrap().unwrap();
    std::thread::scope(|scope| {
        let received = scope.spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = vec![0; 1 << 18];
            let mut total = 0;
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                total += count;
            }
            total
        });
        stream.write_all(&vec![0; bytes]).unwrap();
        drop(stream);
        assert_eq!(received.join().unwrap(), bytes);
    });
}
