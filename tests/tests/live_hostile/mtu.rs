//! Pods and underlays of all widths: streams complete, datagrams arrive or their senders learn why not.

use std::net::{SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nix::sys::socket::{getsockopt, sockopt};
use slice_common::layout::Path;
use slice_tests::child::poll_until;
use slice_tests::harness::{Scene, agent_file, say};
use slice_tests::lab::inventory::CLUSTERS;
use slice_tests::lab::{Lab, Pod};
use slice_tests::live::{Mailbox, forget_widths, maps_of, set_mtu_discovery, without_offload};
use slice_tests::netns::NetNs;
use slice_tests::traffic::tcp::{self, TcpOptions};

pub(crate) const SCENES: &[Scene] = &[(
    "pods_and_underlays_of_all_widths_leave_no_black_hole",
    all_widths,
)];

const WIDTHS: [u32; 5] = [1400, 1450, 1500, 4000, 9000];
const WIDEST: u32 = 9000;
/// What the lab has from the start.
const USUAL: u32 = 1500;
const TUNNEL_BYTES: u32 = 50;
const IPV4_AND_UDP_BYTES: u32 = 28;
const NODES: [&str; 2] = ["east-1", "west-1"];
const STREAM_BYTES: u64 = 400_000;
const STREAM_PORT: u16 = 7001;
const PORT: u16 = 7000;
const LIMIT: Duration = Duration::from_secs(20);

fn all_widths(lab: &Lab) -> Result<()> {
    let played = widen(lab, WIDEST).and_then(|()| play(lab));
    set_underlay(lab, USUAL)?;
    widen(lab, USUAL)?;
    played
}

fn play(lab: &Lab) -> Result<()> {
    let began = Instant::now();
    let mut met = 0;
    for underlay in WIDTHS {
        set_underlay(lab, underlay)?;
        let alike = WIDTHS.map(|width| [width, width]);
        for pods in alike.into_iter().chain([[1400, 9000], [9000, 1400]]) {
            meet(lab, underlay, pods)?;
            met += 1;
        }
        // Where stacks look at every checksum, segments are cut by them too.
        for pods in [[underlay, underlay], [9000, 1400]] {
            without_offload(|| meet(lab, underlay, pods)).context("without offload")?;
            met += 1;
        }
    }
    for (pod, _) in ends(lab)? {
        set_pod(&pod, USUAL)?;
    }
    say(&format!("{met} pairs of widths in {:.1?}", began.elapsed()));
    Ok(())
}

fn meet(lab: &Lab, underlay: u32, widths: [u32; 2]) -> Result<()> {
    let [(near, _), (far, _)] = ends(lab)?;
    for (pod, width) in [(&near, widths[0]), (&far, widths[1])] {
        set_pod(pod, width)?;
    }
    for (from, to, width) in [(&near, &far, widths[0]), (&far, &near, widths[1])] {
        let what = || {
            format!(
                "{} ({width}) to {}, underlay {underlay}",
                from.name, to.name
            )
        };
        let fits = width.min(underlay - TUNNEL_BYTES);
        stream(from, to).with_context(what)?;
        never_in_parts(from, to, width, fits).with_context(what)?;
        in_parts(from, to, fits).with_context(what)?;
    }
    Ok(())
}

fn stream(from: &Pod, to: &Pod) -> Result<()> {
    let options = TcpOptions {
        port: STREAM_PORT,
        rate_bps: None,
        ..TcpOptions::default()
    };
    let load = tcp::start(&from.place()?, &to.place()?, &options)?;
    let arrived = poll_until(LIMIT, || {
        let is_enough = load.verified_bytes() >= STREAM_BYTES || load.has_ended();
        Ok(is_enough.then_some(()))
    })?;
    let report = load.stop()?;
    ensure!(arrived.is_some() && report.is_whole(), "{report:?}");
    ensure!(report.bytes_verified >= STREAM_BYTES, "{report:?}");
    Ok(())
}

/// A datagram of the interface's size, and of the size that its sender is told.
fn never_in_parts(from: &Pod, to: &Pod, width: u32, fits: u32) -> Result<()> {
    let at_to = Mailbox::open(&to.netns, PORT)?;
    let socket = socket_of(from, to, libc::IP_PMTUDISC_DO)?;
    let first = vec![0x11; (width - IPV4_AND_UDP_BYTES) as usize];
    socket.send(&first).context("the first datagram")?;
    if width > fits {
        let learnt = poll_until(LIMIT, || {
            let mtu_bytes = getsockopt(&socket, sockopt::IpMtu)?;
            Ok((mtu_bytes.cast_unsigned() == fits).then_some(()))
        })?;
        ensure!(learnt.is_some(), "nobody said that {fits} is the size");
        let told = socket.take_error()?.and_then(|error| error.raw_os_error());
        ensure!(told == Some(libc::EMSGSIZE), "the socket was told {told:?}");
        let refused = socket.send(&vec![0x22; (fits - IPV4_AND_UDP_BYTES + 1) as usize]);
        let refused = refused.map_err(|error| error.raw_os_error());
        ensure!(refused == Err(Some(libc::EMSGSIZE)), "{refused:?}");
        let largest = vec![0x33; (fits - IPV4_AND_UDP_BYTES) as usize];
        socket.send(&largest)?;
        ensure!(at_to.receive()?.1 == largest, "not the largest that fits");
    } else {
        ensure!(at_to.receive()?.1 == first, "not the first");
    }
    ensure!(at_to.is_empty()?, "what is too big arrived");
    Ok(())
}

/// A datagram that may be cut, by a sender who knows nothing yet.
fn in_parts(from: &Pod, to: &Pod, fits: u32) -> Result<()> {
    forget_widths(&from.netns)?;
    let at_to = Mailbox::open(&to.netns, PORT)?;
    let socket = socket_of(from, to, libc::IP_PMTUDISC_DONT)?;
    let datagram: Vec<u8> = (0..2 * fits + 100).map(|at| (at % 251) as u8).collect();
    let arrived = poll_until(LIMIT, || {
        // One that is too big for the path is lost; its sender cuts the next one smaller.
        socket.send(&datagram)?;
        let arrived = poll_until(Duration::from_millis(20), || {
            Ok((!at_to.is_empty()?).then_some(()))
        })?;
        Ok(arrived)
    })?;
    ensure!(
        arrived.is_some(),
        "{} bytes in parts never arrive",
        datagram.len()
    );
    ensure!(at_to.receive()?.1 == datagram, "other bytes arrived");
    Ok(())
}

fn socket_of(from: &Pod, to: &Pod, discovery: libc::c_int) -> Result<UdpSocket> {
    let to = to.slice_address.context("a member")?;
    let socket = from.netns.enter(|| UdpSocket::bind("0.0.0.0:0"))??;
    set_mtu_discovery(&socket, discovery)?;
    socket.connect(SocketAddrV4::new(to, PORT))?;
    Ok(socket)
}

/// The two pods, each with its node's name.
fn ends(lab: &Lab) -> Result<[(Pod, &'static str); 2]> {
    Ok([
        (lab.pod("kafka-0")?, NODES[0]),
        (lab.pod("kafka-1")?, NODES[1]),
    ])
}

/// Both ends of the pod's cable, and nothing known of paths.
fn set_pod(pod: &Pod, width: u32) -> Result<()> {
    let node = NetNs::open(&pod.spec.node().namespace())?;
    set(&node, &pod.spec.host_interface(), width)?;
    set(&pod.netns, "eth0", width)?;
    forget_widths(&pod.netns)
}

/// Both nodes' interfaces, and their agents' idea of them.
fn set_underlay(lab: &Lab, width: u32) -> Result<()> {
    for name in NODES {
        let node = lab.node(name)?;
        let fabric = NetNs::open(&node.spec.cluster().fabric_namespace())?;
        set(&node.netns, "nic0", width)?;
        set(&fabric, &node.spec.fabric_port(), width)?;
        lab.end_agent(name, Signal::SIGTERM)?;
        lab.start_agent(name, &agent_file())?;
        let paths = || maps_of(lab, name)?.entries::<u32, Path>("PATHS");
        let known = poll_until(LIMIT, || {
            let is_known = paths()?.values().all(|path| path.mtu == width);
            Ok(is_known.then_some(()))
        })?;
        known.with_context(|| format!("{name}: paths are not {width} wide: {:?}", paths()))?;
    }
    Ok(())
}

/// All that the two nodes' networks are joined by.
fn widen(lab: &Lab, width: u32) -> Result<()> {
    let wan = NetNs::open("sl-wan")?;
    for cluster in &CLUSTERS {
        let fabric = NetNs::open(&cluster.fabric_namespace())?;
        for device in ["gw0", "gw-port", "wan0", "br0"] {
            set(&fabric, device, width)?;
        }
        set(&wan, &format!("w-{}", cluster.name), width)?;
    }
    for name in NODES {
        let node = lab.node(name)?;
        let fabric = NetNs::open(&node.spec.cluster().fabric_namespace())?;
        set(&fabric, &node.spec.fabric_port(), width)?;
    }
    Ok(())
}

fn set(namespace: &NetNs, device: &str, width: u32) -> Result<()> {
    ip(
        namespace,
        &["link", "set", device, "mtu", &width.to_string()],
    )
}

fn ip(namespace: &NetNs, arguments: &[&str]) -> Result<()> {
    let output = namespace.command("ip").args(arguments).output()?;
    ensure!(
        output.status.success(),
        "ip {} in {}: {}",
        arguments.join(" "),
        namespace.name(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
