//! Tricks with flags and ports, nodes whose neighbours change, hosts whose agents are dead.

use std::io::ErrorKind;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use slice_common::layout::{LocalEndpoint, LocalKey};
use slice_tests::child::poll_until;
use slice_tests::harness::{Scene, agent_file, say};
use slice_tests::lab::{Lab, Pod, overheard};
use slice_tests::live::{
    Books, Capture, Frame, Mailbox, QuietPods, expect_drops, inject, mac_of, maps_of, tunnel_frame,
};
use slice_tests::netns::NetNs;
use slice_tests::packet::{Checksum, Icmp, Ipv4, Ipv4Quote, Tcp, Udp};

use crate::flip::{Load, stamp_of};

pub(crate) const SCENES: &[Scene] = &[
    (
        "what_may_continue_a_connection_does_not_open_one",
        tricks_with_flags,
    ),
    (
        "neighbours_that_change_under_load_cost_nothing_uncounted",
        neighbours,
    ),
    ("nothing_leaves_bare_while_agents_are_dead", dead_agents),
];

const LIMIT: Duration = Duration::from_secs(10);
/// Linux drops what it has in hand for a neighbour that it is told to forget, and counts that nowhere
/// (6.18, `neigh_blackhole` and `neigh_invalidate`): one packet for each sender at most.
const IN_HAND_MAX: u64 = 3;
const CLIENT_PORT: u16 = 40_000;
const SERVER_PORT: u16 = 9092;

/// `analytics` may open connections to `kafka`, and `kafka` none to `analytics`.
fn tricks_with_flags(lab: &Lab) -> Result<()> {
    let (server, client) = (lab.pod("kafka-1")?, lab.pod("analytics-1")?);
    let _quiet = QuietPods::of([server.netns.clone(), client.netns.clone()])?;
    let at_client = Capture::of_arriving(&client.netns, "eth0")?;
    let to = client.slice_address.context("a member")?.octets();
    let base = || Ipv4::between(server.pod_address.octets(), to).identification(1);
    let segment = || Tcp::new(SERVER_PORT, CLIENT_PORT);
    let answer = |name: &str| -> Result<()> {
        let packet = base().tcp(segment().ack().data(name)).build();
        expect_drops(lab, &[], || inject(&server.netns, &packet))?;
        let came = at_client.wait_for(|frame| frame.bytes.ends_with(name.as_bytes()))?;
        came.map(drop)
            .with_context(|| format!("not vacuous: {name}"))
    };
    // So that the flow is known to both nodes.
    for _ in 0..4 {
        answer("an answer")?;
    }
    let udp = || Udp::new(7000, CLIENT_PORT).checksum(Checksum::Absent);
    let denied = [
        ("a SYN", base().tcp(segment().syn())),
        ("a SYN with data", base().tcp(segment().syn().data("open"))),
        ("a SYN with FIN", base().tcp(segment().syn().fin())),
        ("a SYN with RST", base().tcp(segment().syn().rst())),
        ("UDP from an allowed port", base().udp(udp())),
        (
            "an echo reply that nobody awaits",
            base().icmp(Icmp::echo_reply(7, 7)),
        ),
    ];
    for (what, packet) in denied {
        let dropped = [("west-1", "kafka", "policy_denied", 1)];
        expect_drops(lab, &dropped, || inject(&server.netns, &packet.build())).context(what)?;
        answer(what).with_context(|| format!("after {what}"))?;
    }
    let about = |from: [u8; 4]| {
        let quoted = Ipv4::between(from, server.pod_address.octets());
        Ipv4Quote::of(&quoted.tcp(Tcp::new(CLIENT_PORT, SERVER_PORT).ack()))
    };
    let error = |from| base().icmp(Icmp::port_unreachable(&about(from))).build();
    expect_drops(lab, &[], || inject(&server.netns, &error(to)))?;
    let forged = [("west-1", "kafka", "icmp_error", 1)];
    expect_drops(lab, &forged, || {
        inject(&server.netns, &error([10, 77, 0, 2]))
    })?;
    Ok(())
}

/// The first router is one neighbour, the far node's is another.
fn neighbours(lab: &Lab) -> Result<()> {
    let (from, to) = (lab.pod("kafka-0")?, lab.pod("kafka-1")?);
    let _quiet = QuietPods::of([to.netns.clone()])?;
    let (near, far) = (lab.node("east-1")?, lab.node("west-1")?);
    let fabric = NetNs::open(&far.spec.cluster().fabric_namespace())?;
    let own = mac_of(&far.netns, "nic0")?;
    let other = [0x02, 0, 0, 0, 0x99, own[5]];
    forget_neighbours(lab, &from, &to, "the near node's", || {
        forget_each_once(&near.netns, "nic0")
    })?;
    forget_neighbours(lab, &from, &to, "the far fabric's", || {
        forget_each_once(&fabric, "gw0")
    })?;
    for address in [other, own] {
        let text = address.map(|byte| format!("{byte:02x}")).join(":");
        forget_neighbours(lab, &from, &to, "another interface's", || {
            ip(&far.netns, &["link", "set", "nic0", "address", &text])?;
            // As the far node would ask of them by a gratuitous ARP.
            forget_each_once(&fabric, "gw0")
        })?;
    }
    Ok(())
}

/// Not `ip neigh flush`, which goes round until it finds none: under load it comes upon those that are being asked for
/// again, and each round costs what waits for the answer.
fn forget_each_once(namespace: &NetNs, device: &str) -> Result<()> {
    let mut show = namespace.command("ip");
    show.args(["neigh", "show", "dev", device]);
    for state in ["reachable", "stale", "delay", "probe"] {
        show.args(["nud", state]);
    }
    let known = String::from_utf8(show.output()?.stdout)?;
    let addresses = known
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    let mut forgotten = 0;
    for address in addresses {
        ip(namespace, &["neigh", "del", address, "dev", device])?;
        forgotten += 1;
    }
    ensure!(forgotten > 0, "vacuous: {device} knows no neighbour");
    Ok(())
}

fn forget_neighbours(
    lab: &Lab,
    from: &Pod,
    to: &Pod,
    whose: &str,
    act: impl Fn() -> Result<()>,
) -> Result<()> {
    let capture = Capture::of_arriving(&to.netns, "eth0")?;
    let (books, overheard) = (Books::open(lab)?, overheard_by_nodes(lab)?);
    let load = Load::of(from, to)?;
    let mut received = 0;
    load.run(|load| {
        load.flow_on()?;
        act()?;
        let before = load.sent();
        // They flow again: what is sent from now on arrives.
        let again = poll_until(LIMIT, || {
            let frames = capture.take()?;
            let ours = frames.iter().filter(|it| stamp_of(&it.bytes).is_some());
            received += ours.count() as u64;
            Ok((received > before).then_some(()))
        })?;
        again.context("packets stay away")
    })?;
    let sent = load.sent();
    let mut account = books.account(sent, received)?;
    poll_until(LIMIT, || {
        let frames = capture.take()?;
        let ours = frames.iter().filter(|it| stamp_of(&it.bytes).is_some());
        received += ours.count() as u64;
        // For a link-layer address that is no more, and nobody's.
        let missed = overheard_by_nodes(lab)? - overheard;
        account = books.account(sent, received + missed)?;
        Ok((account.unaccounted() <= IN_HAND_MAX).then_some(()))
    })?;
    say(&format!("{whose} neighbours forgotten: {account}"));
    ensure!(account.unaccounted() <= IN_HAND_MAX, "{account}");
    ensure!(account.ours.is_empty(), "{account}");
    Ok(())
}

fn overheard_by_nodes(lab: &Lab) -> Result<u64> {
    let nodes = lab.nodes()?;
    let nodes: Vec<_> = nodes.iter().map(|node| &node.netns).collect();
    overheard(&nodes, |device| device == "nic0")
}

/// A pod that came after the agent died, and the host itself.
fn dead_agents(lab: &Lab) -> Result<()> {
    lab.stop_agents()?;
    let played = send_past_dead_agents(lab);
    lab.start_agents(&agent_file())?;
    played
}

fn send_past_dead_agents(lab: &Lab) -> Result<()> {
    let (target, stranger, node) = (
        lab.pod("kafka-1")?,
        lab.pod("stranger-0")?,
        lab.node("east-1")?,
    );
    let address = (target.slice_address.context("a member")?, 7000);
    let fabric = NetNs::open(&node.spec.cluster().fabric_namespace())?;
    let wire = Capture::of(&fabric, &node.spec.fabric_port())?;
    for sender in [&stranger.netns, &node.netns] {
        let refused = match Mailbox::open(sender, 7005)?.refusal(address) {
            Ok(said) => said,
            // The host's own stack knows at once.
            Err(error) => error
                .downcast_ref::<std::io::Error>()
                .map(std::io::Error::kind),
        };
        ensure!(
            refused == Some(ErrorKind::HostUnreachable),
            "{} was told {refused:?}",
            sender.name()
        );
    }
    // A member goes on as before, in the tunnel only.
    let at_target = Mailbox::open(&target.netns, 7000)?;
    Mailbox::open(&lab.pod("kafka-0")?.netns, 7005)?.send(address, b"as before")?;
    ensure!(at_target.receive()?.1 == b"as before", "not vacuous");
    let frames = wire.take()?;
    let is_bare = |frame: &&Frame| {
        let to = frame.ipv4().map(|packet| packet[16..18] == [10, 77]);
        to.unwrap_or(false)
    };
    ensure!(
        frames.iter().any(|frame| tunnel_frame(frame).is_some()),
        "not vacuous"
    );
    ensure!(
        !frames.iter().any(|frame| is_bare(&frame)),
        "a bare slice address left"
    );
    Ok(())
}

fn ip(namespace: &NetNs, arguments: &[&str]) -> Result<()> {
    let output = namespace.command("ip").args(arguments).output()?;
    ensure!(
        output.status.success(),
        "ip {}: {output:?}",
        arguments.join(" ")
    );
    Ok(())
}

/// The last scene: it takes a pod's interface away for good.
pub(crate) const LAST_SCENES: &[Scene] = &[(
    "an_interface_with_a_removed_pods_number_gets_nothing_of_it",
    number_taken_over,
)];

const THIEF: &str = "p-thief";

fn number_taken_over(lab: &Lab) -> Result<()> {
    let (from, gone, thief) = (
        lab.pod("kafka-0")?,
        lab.pod("producer-0")?,
        lab.pod("stranger-2")?,
    );
    let node = lab.node(gone.node)?;
    let to = gone.slice_address.context("a member")?.octets();
    // An answer of a broker's, which a producer may get.
    let answer = Tcp::new(SERVER_PORT, CLIENT_PORT).ack().data("an answer");
    let packet = Ipv4::between(from.pod_address.octets(), to).identification(1);
    let packet = packet.tcp(answer).build();
    let is_answer = |frame: &Frame| frame.bytes.ends_with(b"an answer");
    let at_pod = Capture::of_arriving(&gone.netns, "eth0")?;
    inject(&from.netns, &packet)?;
    at_pod
        .wait_for(is_answer)?
        .context("not vacuous: the pod gets it")?;

    let interface = gone.spec.host_interface();
    let number = node
        .netns
        .enter(|| nix::net::if_::if_nametoindex(interface.as_str()))??;
    ip(&node.netns, &["link", "delete", &interface])?;
    let is_forgotten = poll_until(LIMIT, || {
        let locals = maps_of(lab, node.name)?.entries::<LocalKey, LocalEndpoint>("LOCAL")?;
        Ok(locals
            .values()
            .all(|pod| pod.ifindex != number)
            .then_some(()))
    })?;
    is_forgotten.context("the node still delivers to an interface that is gone")?;
    let number = number.to_string();
    let peer = thief.netns.name();
    ip(
        &node.netns,
        &[
            "link", "add", THIEF, "index", &number, "type", "veth", "peer", "name", "eth9",
            "netns", peer,
        ],
    )?;
    ip(&node.netns, &["link", "set", THIEF, "up"])?;
    ip(&thief.netns, &["link", "set", "eth9", "up"])?;
    let at_thief = Capture::of_arriving(&thief.netns, "eth9")?;
    expect_drops(lab, &[(node.name, "kafka", "no_endpoint", 1)], || {
        inject(&from.netns, &packet)
    })?;
    ensure!(
        !at_thief.take()?.iter().any(is_answer),
        "somebody else got it"
    );
    Ok(())
}
