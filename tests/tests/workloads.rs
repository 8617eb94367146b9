//! The workloads themselves, over plain namespaces on a bridge: a load that could not notice a
//! loss would prove nothing about the data plane.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use slice_tests::child::poll_until;
use slice_tests::debian::missing_program;
use slice_tests::harness::{self, Need};
use slice_tests::netns::NetNs;
use slice_tests::place::Place;
use slice_tests::throughput::{self, RedisLoad, Target};
use slice_tests::traffic::{tcp, udp};

/// Namespaces on one bridge, each with `eth0` and an address of 10.99.0.0/24, removed on drop.
struct Bed {
    switch: String,
    places: Vec<Place>,
    _files: tempfile::TempDir,
}

impl Bed {
    fn new(names: &[&str]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique = format!(
            "{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let switch = format!("wl-{unique}-switch");
        let files = tempfile::tempdir().unwrap();
        let mut bed = Self {
            switch,
            places: Vec::new(),
            _files: files,
        };
        NetNs::create(&bed.switch).unwrap();
        ip(&[
            "-n",
            &bed.switch,
            "link",
            "add",
            "br0",
            "up",
            "type",
            "bridge",
        ]);
        let hosts = bed._files.path().join("hosts");
        let address = |index: usize| Ipv4Addr::new(10, 99, 0, 10 + index as u8);
        let mut text = "127.0.0.1 localhost\n".to_owned();
        for (index, name) in names.iter().enumerate() {
            text += &format!("{} {name}\n", address(index));
        }
        fs::write(&hosts, text).unwrap();
        for (index, name) in names.iter().enumerate() {
            bed.add(&format!("wl-{unique}-{name}"), name, address(index), &hosts);
        }
        bed.wait_until_connected();
        bed
    }

    /// A port of a bridge forwards only some time after it is up; packets before that are lost.
    fn wait_until_connected(&self) {
        for from in &self.places {
            for to in &self.places {
                let target = SocketAddr::from((to.address, 9));
                let attempt = || TcpStream::connect_timeout(&target, Duration::from_millis(200));
                wait_for(&format!("{} to reach {}", from.name, to.name), || {
                    // Nothing listens there: the refusal proves that packets go both ways.
                    let refused = from.netns.enter(attempt).unwrap().unwrap_err();
                    refused.kind() == ErrorKind::ConnectionRefused
                });
            }
        }
    }

    fn add(&mut self, netns: &str, name: &str, address: Ipv4Addr, hosts: &Path) {
        let place = Place {
            name: name.to_owned(),
            address,
            netns: NetNs::create(netns).unwrap(),
            hosts: Some(hosts.to_owned()),
        };
        self.places.push(place);
        let port = format!("port{}", self.places.len());
        #[rustfmt::skip]
        ip(&["-n", &self.switch, "link", "add", &port, "up", "master", "br0", "type", "veth",
             "peer", "name", "eth0", "netns", netns]);
        ip(&[
            "-n",
            netns,
            "addr",
            "add",
            &format!("{address}/24"),
            "dev",
            "eth0",
        ]);
        ip(&["-n", netns, "link", "set", "eth0", "up"]);
    }

    /// Takes a place's port at the switch down or up; the place keeps its address and routes.
    fn set_port(&self, index: usize, state: &str) {
        ip(&[
            "-n",
            &self.switch,
            "link",
            "set",
            &format!("port{}", index + 1),
            state,
        ]);
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        for place in &self.places {
            let _ = NetNs::delete(place.netns.name());
        }
        let _ = NetNs::delete(&self.switch);
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .expect("iproute2 is installed");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "ip {}: {complaint}",
        arguments.join(" ")
    );
}

/// False, and said loudly, where a test has to be skipped; a failure where it must not be.
fn can_run(test: &str, missing: Option<String>) -> bool {
    if let Some(reason) = &missing {
        harness::skip(test, reason);
    }
    missing.is_none() && harness::can_run(test, Need::Root)
}

/// Polls until the condition holds; a load that never gets there is a failure.
fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let reached = poll_until(Duration::from_secs(20), || Ok(holds().then_some(())));
    assert!(reached.unwrap().is_some(), "still waiting for {what}");
}

#[test]
fn udp_both_ways_loses_nothing_on_a_sound_network() {
    if !can_run("udp on a sound network", None) {
        return;
    }
    let bed = Bed::new(&["alice", "bob"]);
    let load = udp::start(&bed.places[0], &bed.places[1], &udp::UdpOptions::default()).unwrap();
    wait_for("2 s of packets", || load.sent() > 20_000);
    let report = load.stop().unwrap();
    for direction in &report.directions {
        assert!(
            direction.sent > 9_000,
            "both ways at the same time: {direction:?}"
        );
        assert_eq!(direction.received, direction.sent, "{direction:?}");
        let wrong = (direction.lost, direction.duplicates, direction.foreign);
        assert_eq!(wrong, (0, 0, 0), "{direction:?}");
        assert_eq!(
            (direction.send_errors, direction.receive_buffer_errors),
            (0, 0)
        );
    }
}

#[test]
fn udp_names_the_packets_that_a_broken_link_swallowed() {
    if !can_run("udp over a broken link", None) {
        return;
    }
    let bed = Bed::new(&["alice", "bob"]);
    let options = udp::UdpOptions {
        drain: Duration::from_secs(1),
        ..udp::UdpOptions::default()
    };
    let load = udp::start(&bed.places[0], &bed.places[1], &options).unwrap();
    wait_for("packets before the break", || load.received() > 1000);
    // Bob's port of the switch: both ends go on sending, and only what goes to Bob is lost there.
    bed.set_port(1, "down");
    let (sent, received) = (load.sent(), load.received());
    wait_for("packets into the break", || load.sent() > sent + 1000);
    bed.set_port(1, "up");
    wait_for("packets after the break", || {
        load.received() > received + 1000
    });
    let report = load.stop().unwrap();
    let to_bob = &report.directions[0];
    assert!(to_bob.lost > 100, "{to_bob:?}");
    assert_eq!(to_bob.sent, to_bob.received + to_bob.lost);
    assert_eq!(
        to_bob.gaps.iter().map(|gap| gap.count).sum::<u64>(),
        to_bob.lost,
        "{to_bob:?}"
    );
    assert_eq!(
        to_bob.receive_buffer_errors, 0,
        "the network lost them, not the receiver"
    );
}

#[test]
fn a_tcp_stream_is_whole_on_a_sound_network() {
    if !can_run("tcp on a sound network", None) {
        return;
    }
    let bed = Bed::new(&["alice", "bob"]);
    let load = tcp::start(&bed.places[0], &bed.places[1], &tcp::TcpOptions::default()).unwrap();
    wait_for("5 MB", || load.verified_bytes() > 5_000_000);
    let report = load.stop().unwrap();
    assert!(report.is_whole(), "{report:?}");
    assert!(report.bytes_verified > 5_000_000);
}

#[test]
fn a_tcp_stream_notices_a_stall_and_a_reset() {
    if !can_run("tcp reset", None) {
        return;
    }
    let bed = Bed::new(&["alice", "bob"]);
    let load = tcp::start(&bed.places[0], &bed.places[1], &tcp::TcpOptions::default()).unwrap();
    wait_for("1 MB", || load.verified_bytes() > 1_000_000);
    // Bob's kernel forgets the connection and tells Alice so: a reset on both ends.
    let output = bed.places[1]
        .command("ss")
        .args(["-K", "sport", "=", ":7001"])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let before = load.verified_bytes();
    wait_for("the end of the stream", || load.has_ended());
    let report = load.stop().unwrap();
    assert!(report.resets >= 1, "{report:?}");
    assert!(!report.ended_in_order && !report.is_whole(), "{report:?}");
    assert!(report.bytes_verified >= before);
}

#[test]
fn iperf3_redis_and_ping_measure_both_routes_of_a_comparison() {
    if !can_run(
        "throughput",
        missing_program(&["iperf3", "redis-benchmark", "ping"]),
    ) {
        return;
    }
    let bed = Bed::new(&["alice", "bob"]);
    let (alice, bob) = (&bed.places[0], &bed.places[1]);
    let target = |name: &str| Target {
        name: name.to_owned(),
        address: bob.address,
        bind: Some(alice.address),
    };
    let compared =
        throughput::compare_interleaved(1, &target("plain"), &target("slice"), |target| {
            Ok(throughput::iperf3(alice, bob, target, 1)?.received_bps)
        })
        .unwrap();
    assert!(
        compared.plain.median > 1e7 && compared.slice.median > 1e7,
        "{compared:?}"
    );
    let load = RedisLoad {
        value_bytes: 16 << 10,
        requests: 2000,
        connections: 8,
    };
    let results = throughput::redis(alice, bob, &target("plain"), &load).unwrap();
    let tests: Vec<&str> = results.iter().map(|result| result.test.as_str()).collect();
    assert_eq!(tests, ["SET", "GET"]);
    assert!(
        results
            .iter()
            .all(|result| result.requests_per_second > 100.0),
        "{results:?}"
    );
    let echo = throughput::ping(alice, &target("plain"), 10, Duration::from_millis(10)).unwrap();
    assert_eq!((echo.sent, echo.received), (10, 10));
    assert!(echo.min_ms > 0.0 && echo.min_ms <= echo.max_ms, "{echo:?}");
}
