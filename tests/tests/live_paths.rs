//! Packets through gateways, with real agents: streams and datagrams, clusters behind clusters, loops,
//! forgers, agents that restart, paths that die and come back. Needs root and the agent that
//! `cargo xtask build` makes.

#[path = "live_paths/hostile.rs"]
mod hostile;
#[path = "live_paths/widths.rs"]
mod widths;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use slice_common::drop_reason::DropReason;
use slice_tests::bench::bed::ground::Ground;
use slice_tests::bench::failover::{self, FailoverArgs};
use slice_tests::child::poll_until;
use slice_tests::gateways::{Gateways, Plan};
use slice_tests::harness::{Need, agent_file, main_of_each, trial};
use slice_tests::live::{Mailbox, inject};
use slice_tests::packet::{Ipv4, Tcp, Vxlan};
use slice_tests::place::Place;
use slice_tests::traffic::udp::{self, UdpOptions};

/// Somebody may measure on this machine.
const WAIT: Duration = Duration::from_secs(1200);
/// For what takes milliseconds on an idle machine.
const LIMIT: Duration = Duration::from_secs(20);
const PORT: u16 = 7002;
const STREAM_BYTES: usize = 64 << 20;
const GATEWAYS: [&str; 4] = ["east-gw-1", "east-gw-2", "west-gw-1", "west-gw-2"];

/// They take turns on one ground.
fn main() -> ExitCode {
    main_of_each("the live paths", Need::Agent, || {
        vec![
            trial("streams_and_datagrams_pass_two_gateways", streams),
            trial("gateways_agents_restart_under_load", restarts),
            trial("all_paths_die_and_one_comes_back", all_paths_die),
            trial("a_gateway_delivers_only_what_lies_behind_it", wrong_peer),
            trial(
                "hostile_packets_among_gateways_go_where_the_model_says_and_nowhere_else",
                hostile::replay,
            ),
            trial(
                "strangers_prove_no_path_and_nothing_invalid_does",
                hostile::unproven,
            ),
            trial(
                "nothing_is_lost_for_good_when_a_narrow_path_takes_over_from_a_wide_one",
                widths::take_over,
            ),
            trial("a_narrow_path_is_measured", narrow_path),
            trial("clusters_behind_a_hub_reach_each_other", hub),
            trial("packets_of_a_loop_end_counted", configured_loop),
            trial(
                "traffic_moves_when_gateways_die_and_links_are_cut",
                failover,
            ),
        ]
    })
}

/// Two clusters with two gateways each, and the pods at both ends.
fn two_by_two(play: impl FnOnce(&mut Gateways, [Place; 2]) -> Result<()>) -> Result<()> {
    let ground = Ground::take(WAIT)?;
    let mut gateways = Gateways::build(&ground, Plan::two_by_two(), &agent_file())?;
    gateways.wait_until_paths_are_up()?;
    let pods = [
        gateways.node("east-1")?.pod()?,
        gateways.node("west-1")?.pod()?,
    ];
    play(&mut gateways, pods)
}

/// Segments stay merged on their way through, and nothing is dropped.
fn streams() -> Result<()> {
    two_by_two(|gateways, [east, west]| {
        meet(&east, &west)?;
        let before = transit(gateways)?;
        stream(&east, &west)?;
        stream(&west, &east)?;
        let packets = transit(gateways)? - before;
        // Each byte passes two gateways; acknowledgements are in it too.
        let bytes_of_each = 4 * STREAM_BYTES as u64 / packets;
        ensure!(
            bytes_of_each > 5_000,
            "packets of {bytes_of_each} bytes: segments did not stay merged"
        );
        let ping = east
            .netns
            .command("ping")
            .args([
                "-c",
                "20",
                "-i",
                "0.01",
                "-W",
                "2",
                &west.address.to_string(),
            ])
            .output()?;
        ensure!(
            String::from_utf8_lossy(&ping.stdout).contains(" 0% packet loss"),
            "{ping:?}"
        );
        for node in &gateways.nodes {
            for reason in [
                DropReason::Loop,
                DropReason::Ttl,
                DropReason::TooBig,
                DropReason::BadProbe,
            ] {
                let dropped = node.dropped(reason)?;
                ensure!(
                    dropped == 0,
                    "{}: {dropped} of {}",
                    node.name,
                    reason.label()
                );
            }
        }
        Ok(())
    })
}

fn restarts() -> Result<()> {
    two_by_two(|gateways, [east, west]| {
        meet(&east, &west)?;
        let options = UdpOptions {
            packets_per_second: 2000,
            ..UdpOptions::default()
        };
        let load = udp::start(&east, &west, &options)?;
        for name in GATEWAYS {
            gateways.node_mut(name)?.kill_agent()?;
            gateways.start_agents(&agent_file())?;
            let received = load.received();
            let goes_on = poll_until(LIMIT, || {
                Ok((load.received() > received + 400).then_some(()))
            })?;
            ensure!(
                goes_on.is_some(),
                "nothing arrives after the restart of {name}"
            );
        }
        let report = load.stop()?;
        let excused: u64 = report
            .directions
            .iter()
            .map(|it| it.receive_buffer_errors)
            .sum();
        ensure!(report.lost() == excused, "{report:#?}");
        Ok(())
    })
}

/// Without any path packets keep taking the last good one, counted; the first that works is found again.
fn all_paths_die() -> Result<()> {
    two_by_two(|gateways, [east, west]| {
        meet(&east, &west)?;
        let pairs: Vec<_> = gateways
            .plan
            .gateway_pairs()
            .into_iter()
            .map(|(from, to)| (from.clone(), to.clone()))
            .collect();
        for (from, to) in &pairs {
            gateways.router.cut(from, to)?;
        }
        let unproven = |gateways: &Gateways| -> Result<u64> {
            GATEWAYS
                .iter()
                .map(|name| gateways.node(name)?.unproven())
                .sum()
        };
        let before = unproven(gateways)?;
        let mailbox = Mailbox::open(&east.netns, PORT)?;
        let counted = poll_until(LIMIT, || {
            mailbox.send((west.address, PORT), b"lost")?;
            Ok((unproven(gateways)? > before).then_some(()))
        })?;
        ensure!(
            counted.is_some(),
            "packets on unproven paths are not counted"
        );
        drop(mailbox);
        // Only the two second gateways see each other again.
        for (from, to) in &pairs {
            if from.name.ends_with('2') && to.name.ends_with('2') {
                gateways.router.mend(from, to)?;
            }
        }
        // Members still prefer their first gateways, which answer them: their fellows take over.
        meet(&east, &west)?;
        let first = gateways.node("east-gw-1")?.passed_on()?;
        // Where much else goes on, a member may have heard nothing of its first gateway for a moment.
        let by_first = poll_until(LIMIT, || {
            meet(&east, &west)?;
            Ok((gateways.node("east-gw-1")?.passed_on()? > first).then_some(()))
        })?;
        ensure!(
            by_first.is_some(),
            "the member's packets did not go by its first gateway"
        );
        Ok(())
    })
}

/// West's gateway gets a packet under the address of east's, with an inner source of west.
fn wrong_peer() -> Result<()> {
    two_by_two(|gateways, [east, west]| {
        meet(&east, &west)?;
        let address = |name: &str| -> Result<[u8; 4]> {
            Ok(gateways.plan.node(name).context("a node")?.address.octets())
        };
        let (from, to) = (address("east-gw-1")?, address("west-gw-1")?);
        let node = gateways.node("west-gw-1")?;
        let tunnel = |source: Ipv4Addr| {
            let inner = Ipv4::between(source.octets(), west.address.octets())
                .tcp(Tcp::new(40_000, 7000).ack());
            Vxlan::between(from, to).slice(7, 0).carry(&inner)
        };
        let (wrong, passed) = (node.dropped(DropReason::WrongPeer)?, node.passed_on()?);
        let router = gateways.router.namespace();
        inject(router, &bare(&tunnel(east.address)))?;
        let is_passed = poll_until(LIMIT, || Ok((node.passed_on()? > passed).then_some(())))?;
        ensure!(
            is_passed.is_some(),
            "the same packet of east's is not passed on"
        );
        let elsewhere = Ipv4Addr::new(10, 92, 64, 3);
        inject(router, &bare(&tunnel(elsewhere)))?;
        let is_dropped = poll_until(LIMIT, || {
            Ok((node.dropped(DropReason::WrongPeer)? > wrong).then_some(()))
        })?;
        ensure!(is_dropped.is_some(), "a foreign source is not dropped");
        Ok(())
    })
}

/// Without the Ethernet header, which the router writes.
fn bare(tunnel: &Vxlan) -> Vec<u8> {
    tunnel.frame([0; 6], [0; 6])[14..].to_vec()
}

/// The router's link to a gateway narrows; probes find out by how much.
fn narrow_path() -> Result<()> {
    two_by_two(|gateways, _| {
        let node = gateways.node("east-gw-1")?;
        let wide = poll_until(LIMIT, || {
            Ok((node.path_mtu("west/west-gw-2")? == Some(1500)).then_some(()))
        })?;
        ensure!(wide.is_some(), "{:?}", node.path_mtu("west/west-gw-2")?);
        gateways.router.narrow("west-gw-2", &gateways.plan, 1400)?;
        // Halving 924 sizes takes ten probes, each three times where it fails, two a second.
        let limit = 3 * LIMIT;
        let narrow = poll_until(limit, || {
            Ok((node.path_mtu("west/west-gw-2")? == Some(1400)).then_some(()))
        })?;
        ensure!(narrow.is_some(), "{:?}", node.path_mtu("west/west-gw-2")?);
        ensure!(node.path_mtu("west/west-gw-1")? == Some(1500));
        Ok(())
    })
}

fn hub() -> Result<()> {
    let ground = Ground::take(WAIT)?;
    let gateways = Gateways::build(&ground, Plan::hub_and_spokes(), &agent_file())?;
    let (east, west) = (
        gateways.node("east-1")?.pod()?,
        gateways.node("west-1")?.pod()?,
    );
    meet(&east, &west)?;
    stream(&east, &west)?;
    for name in ["east-gw", "hub-gw", "west-gw"] {
        let passed = gateways.node(name)?.passed_on()?;
        ensure!(passed > 100, "{name} passed {passed} packets on");
    }
    Ok(())
}

fn configured_loop() -> Result<()> {
    let ground = Ground::take(WAIT)?;
    let gateways = Gateways::build(&ground, Plan::loop_of_two(), &agent_file())?;
    let east = gateways.node("east-1")?.pod()?;
    let south = gateways.node("south-1")?.pod()?.address;
    let west_gateway = gateways.node("west-gw")?;
    let before = west_gateway.dropped(DropReason::Loop)?;
    let mailbox = Mailbox::open(&east.netns, PORT)?;
    for _ in 0..10 {
        mailbox.send((south, PORT), b"round and round")?;
    }
    let all = poll_until(LIMIT, || {
        Ok((west_gateway.dropped(DropReason::Loop)? == before + 10).then_some(()))
    })?;
    ensure!(
        all.is_some(),
        "{} dropped",
        west_gateway.dropped(DropReason::Loop)?
    );
    ensure!(west_gateway.passed_on()? == 0 && gateways.node("east-gw")?.passed_on()? == 10);
    Ok(())
}

/// Few cuts of each kind: no figure, but every gap within the limits, and no connection lost.
fn failover() -> Result<()> {
    let report = failover::measure(&FailoverArgs {
        cuts: 2,
        agent: Some(agent_file()),
        wait: WAIT,
        ..FailoverArgs::default()
    })?;
    ensure!(report.exit_code() == 3, "{:#?}", report.lines());
    Ok(())
}

/// Waits until a datagram of each reaches the other.
fn meet(one: &Place, other: &Place) -> Result<()> {
    let here = Mailbox::open(&one.netns, PORT)?;
    let there = Mailbox::open(&other.netns, PORT)?;
    let both = poll_until(LIMIT, || {
        here.send((other.address, PORT), b"ping")?;
        there.send((one.address, PORT), b"pong")?;
        Ok((!here.is_empty()? && !there.is_empty()?).then_some(()))
    })?;
    both.with_context(|| format!("{} and {} do not hear each other", one.name, other.name))
}

fn stream(from: &Place, to: &Place) -> Result<()> {
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
    let listener = to.netns.enter(|| TcpListener::bind(address))??;
    let reader = thread::spawn(move || -> Result<usize> {
        let (mut stream, _) = listener.accept()?;
        let (mut buffer, mut received) = (vec![0; 1 << 18], 0);
        loop {
            match stream.read(&mut buffer)? {
                0 => return Ok(received),
                bytes => received += bytes,
            }
        }
    });
    let target = SocketAddr::from((to.address, PORT));
    let mut stream = from
        .netns
        .enter(|| TcpStream::connect_timeout(&target, LIMIT))??;
    stream.set_write_timeout(Some(LIMIT))?;
    let chunk = vec![7; 1 << 18];
    for _ in 0..STREAM_BYTES / chunk.len() {
        stream.write_all(&chunk)?;
    }
    drop(stream);
    let received = reader
        .join()
        .map_err(|_| anyhow::anyhow!("the reader panicked"))??;
    ensure!(
        received == STREAM_BYTES,
        "{received} of {STREAM_BYTES} bytes"
    );
    Ok(())
}

fn transit(gateways: &Gateways) -> Result<u64> {
    gateways.nodes.iter().map(|node| node.passed_on()).sum()
}
