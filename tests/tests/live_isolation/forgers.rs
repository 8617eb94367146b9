//! Packets that lie about who sent them.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use slice_tests::harness::Scene;
use slice_tests::lab::inventory::TUNNEL_PORT;
use slice_tests::lab::{Lab, Node, Pod};
use slice_tests::live::{
    Capture, Frame, LeftChecksum, Mailbox, Masquerade, expect_drops, inject, inject_frame, mac_of,
};
use slice_tests::netns::NetNs;
use slice_tests::packet::{Ipv4, Mac, Tcp, Udp, Vxlan};

use crate::{OPEN_PORT, ipv4, pods, same, slice_address};

pub(crate) const SCENES: &[Scene] = &[
    ("a_pod_does_not_speak_for_another", spoofed_source),
    (
        "a_node_does_not_speak_for_blocks_of_another",
        forged_by_peers,
    ),
    ("who_is_no_peer_delivers_nothing", no_peer),
    (
        "a_pod_does_not_deliver_tunnel_packets_to_its_node",
        forged_by_pods,
    ),
    (
        "a_pod_does_not_forge_tunnel_packets_under_its_nodes_address",
        forged_by_masquerade,
    ),
    ("a_tag_opens_no_way_in_or_out", tagged),
    ("drop_forged_checksum", drop_forged_checksum),
    (
        "what_goes_past_the_guard_routes_does_not_leave_bare",
        bare_slice_addresses,
    ),
];

const ETHERNET_BYTES: usize = 14;
const IPV4_AND_UDP_BYTES: usize = 28;
const KAFKA: u32 = 7;
const SHOP: u32 = 8;
/// Nobody's.
const OTHER: u32 = 9;

fn spoofed_source(lab: &Lab) -> Result<()> {
    let [kafka_0, audit_0, kafka_1] = pods(lab, ["kafka-0", "audit-0", "kafka-1"])?;
    let at_kafka_1 = Mailbox::open(&kafka_1.netns, OPEN_PORT)?;
    let target = slice_address(&kafka_1)?;
    let packet = |source: Ipv4Addr| datagram(source, target).build();

    expect_drops(lab, &[], || {
        inject(&kafka_0.netns, &packet(kafka_0.pod_address))?;
        let (sender, _) = at_kafka_1.receive()?;
        same("kafka-1 saw", sender.ip(), &slice_address(&kafka_0)?)
    })?;
    // Another pod's name, the same pod's slice name, nobody's name.
    let foreign = Ipv4Addr::new(192, 0, 2, 1);
    for source in [kafka_0.pod_address, slice_address(&kafka_0)?, foreign] {
        let spoofed = [("east-1", "kafka", "spoofed_source", 1)];
        expect_drops(lab, &spoofed, || inject(&audit_0.netns, &packet(source)))?;
    }
    let spoofed = [("east-1", "kafka", "spoofed_source", 1)];
    let own_slice_name = packet(slice_address(&kafka_0)?);
    expect_drops(lab, &spoofed, || inject(&kafka_0.netns, &own_slice_name))?;
    ensure!(at_kafka_1.is_empty()?, "a spoofed datagram came in");
    Ok(())
}

/// Where somebody who is no node can send under a node's address: its own guard lets nothing forged
/// leave.
fn beside(node: &Node) -> Result<NetNs> {
    NetNs::open(&node.spec.cluster().fabric_namespace())
}

/// A tunnel packet as it is forged on the underlay, under the name of a node.
struct Forgery {
    node: &'static str,
    slice: u32,
    from: &'static str,
    to: &'static str,
}

impl Forgery {
    fn send(&self, lab: &Lab) -> Result<()> {
        let [from, to] = pods(lab, [self.from, self.to])?;
        let (node, target) = (lab.node(self.node)?, lab.node(to.node)?.underlay);
        let inner = datagram(slice_address(&from)?, slice_address(&to)?);
        let packet = tunnelled(node.underlay, target, self.slice, &inner);
        inject(&beside(&node)?, &packet)
    }

    fn arrives(&self, lab: &Lab, mailbox: &Mailbox) -> Result<()> {
        expect_drops(lab, &[], || {
            self.send(lab)?;
            let (sender, _) = mailbox.receive()?;
            same("sender", sender.ip(), &slice_address(&lab.pod(self.from)?)?)
        })
        .with_context(|| format!("what {} may deliver for {}", self.node, self.from))
    }
}

fn forged_by_peers(lab: &Lab) -> Result<()> {
    let [kafka_0, web_0] = pods(lab, ["kafka-0", "web-0"])?;
    let at_kafka_0 = Mailbox::open(&kafka_0.netns, OPEN_PORT)?;
    let at_web_0 = Mailbox::open(&web_0.netns, OPEN_PORT)?;
    let forgery = |node, slice, from, to| Forgery {
        node,
        slice,
        from,
        to,
    };
    let right_kafka = forgery("west-1", KAFKA, "kafka-1", "kafka-0");
    let right_shop = forgery("west-2", SHOP, "web-2", "web-0");
    right_kafka.arrives(lab, &at_kafka_0)?;
    right_shop.arrives(lab, &at_web_0)?;

    // From node, VNI, inner source, inner destination; counted for slice, reason.
    let denied = [
        (
            ("west-2", KAFKA, "kafka-1", "kafka-0"),
            ("kafka", "wrong_peer"),
        ),
        (("west-1", SHOP, "web-2", "web-0"), ("shop", "wrong_peer")),
        // A pod of the very node that is deceived.
        (
            ("west-1", KAFKA, "audit-0", "kafka-0"),
            ("kafka", "wrong_peer"),
        ),
        (
            ("west-1", SHOP, "kafka-1", "kafka-0"),
            ("shop", "wrong_slice"),
        ),
        (
            ("west-1", KAFKA, "kafka-1", "web-0"),
            ("kafka", "wrong_slice"),
        ),
        (
            ("west-1", SHOP, "kafka-1", "web-0"),
            ("shop", "wrong_slice"),
        ),
        (
            ("west-1", OTHER, "kafka-1", "kafka-0"),
            ("0", "unknown_slice"),
        ),
    ];
    for (packet, (slice, reason)) in denied {
        let (node, vni, from, to) = packet;
        expect_drops(lab, &[("east-1", slice, reason, 1)], || {
            forgery(node, vni, from, to).send(lab)
        })
        .with_context(|| format!("{packet:?}"))?;
    }

    right_kafka.arrives(lab, &at_kafka_0)?;
    right_shop.arrives(lab, &at_web_0)?;
    ensure!(
        at_kafka_0.is_empty()? && at_web_0.is_empty()?,
        "a forged datagram came in"
    );
    Ok(())
}

fn no_peer(lab: &Lab) -> Result<()> {
    let [kafka_0, kafka_1] = pods(lab, ["kafka-0", "kafka-1"])?;
    let at_kafka_0 = Mailbox::open(&kafka_0.netns, OPEN_PORT)?;
    let (target, peer) = (lab.node("east-1")?.underlay, lab.node("west-1")?);
    let gateway = peer.spec.cluster().gateway();
    let fabric = beside(&peer)?;
    let inner = datagram(slice_address(&kafka_1)?, slice_address(&kafka_0)?);

    let right = tunnelled(peer.underlay, target, KAFKA, &inner);
    inject(&fabric, &right)?;
    at_kafka_0.receive().context("not vacuous")?;

    let forged = tunnelled(gateway, target, KAFKA, &inner);
    expect_drops(lab, &[("east-1", "0", "unknown_peer", 1)], || {
        inject(&fabric, &forged)
    })?;
    ensure!(at_kafka_0.is_empty()?, "a forged datagram came in");
    Ok(())
}

fn forged_by_pods(lab: &Lab) -> Result<()> {
    let [kafka_0, kafka_1, web_0] = pods(lab, ["kafka-0", "kafka-1", "web-0"])?;
    let [stranger] = pods(lab, ["stranger-0"])?;
    let at_kafka_0 = Mailbox::open(&kafka_0.netns, OPEN_PORT)?;
    let inner = datagram(slice_address(&kafka_1)?, slice_address(&kafka_0)?);
    let own_node = lab.node("east-1")?.underlay;
    let other_node = lab.node("east-2")?.underlay;
    for pod in [&stranger, &web_0] {
        let packet = |target| tunnelled(pod.pod_address, target, KAFKA, &inner);
        // Its own node's tunnel port, without passing the NIC; another node's, past its NIC.
        expect_drops(lab, &[("east-1", "0", "slow_path", 1)], || {
            inject(&pod.netns, &packet(own_node))
        })?;
        // The node's own device takes it out of the tunnel even under the name of the right peer: but
        // no program of the node has judged it.
        let in_peers_name = tunnelled(lab.node("west-1")?.underlay, own_node, KAFKA, &inner);
        expect_drops(lab, &[("east-1", "0", "slow_path", 1)], || {
            inject(&pod.netns, &in_peers_name)
        })?;
        expect_drops(lab, &[("east-1", "0", "forged_underlay", 1)], || {
            inject(&pod.netns, &packet(other_node))
        })?;
    }
    ensure!(at_kafka_0.is_empty()?, "a forged datagram came in");
    Ok(())
}

/// A priority tag says nothing about whom a frame is for; a tag that names a VLAN does.
fn tagged(lab: &Lab) -> Result<()> {
    let [kafka_0, kafka_1] = pods(lab, ["kafka-0", "kafka-1"])?;
    let at_kafka_0 = Mailbox::open(&kafka_0.netns, OPEN_PORT)?;
    let (node, peer) = (lab.node("east-1")?, lab.node("west-1")?);
    let inner = datagram(slice_address(&kafka_1)?, slice_address(&kafka_0)?);
    let tunnel = Vxlan::between(peer.underlay.octets(), node.underlay.octets())
        .slice(KAFKA, 0)
        .carry(&inner)
        .frame(mac_of(&node.netns, "nic0")?, [2, 0, 0, 0, 0, 1]);
    let fabric = beside(&node)?;
    let send = |tags: &[u8]| {
        let mut frame = tunnel.clone();
        frame.splice(12..12, tags.iter().copied());
        inject_frame(&fabric, "n-east-1", &frame, None)
    };
    const PRIORITY_7: [u8; 4] = [0x81, 0x00, 0xe0, 0x00];
    const VLAN_5: [u8; 4] = [0x81, 0x00, 0x00, 0x05];
    for (what, tags) in [("no tag", &[][..]), ("a priority tag", &PRIORITY_7)] {
        expect_drops(lab, &[], || {
            send(tags)?;
            same(
                "arrived",
                at_kafka_0.receive()?.0.ip(),
                &slice_address(&kafka_1)?,
            )
        })
        .context(what)?;
    }
    // Two priority tags are more than the program reads: the host takes them off and comes too late.
    expect_drops(lab, &[("east-1", "0", "slow_path", 1)], || {
        send(&[PRIORITY_7, PRIORITY_7].concat())
    })?;
    // Of another network than the node is in.
    expect_drops(lab, &[], || send(&VLAN_5))?;
    ensure!(at_kafka_0.is_empty()?, "a datagram of another VLAN came in");
    // What leaves is judged behind its tags.
    let frame = |tags: &[u8]| {
        let mut frame = Vxlan::between(node.underlay.octets(), peer.underlay.octets())
            .slice(KAFKA, 0)
            .carry(&inner)
            .frame([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]);
        frame.splice(12..12, tags.iter().copied());
        frame
    };
    for tags in [&[][..], &PRIORITY_7, &VLAN_5] {
        expect_drops(lab, &[("east-1", "0", "forged_underlay", 1)], || {
            // The sender may be told of the drop: no buffer space.
            let _told = inject_frame(&node.netns, "nic0", &frame(tags), None);
            Ok(())
        })
        .with_context(|| format!("tags {tags:02x?}"))?;
    }
    Ok(())
}

/// Under the address of their node, which is a peer of the others.
fn forged_by_masquerade(lab: &Lab) -> Result<()> {
    let [kafka_0, kafka_1] = pods(lab, ["kafka-0", "kafka-1"])?;
    let [stranger] = pods(lab, ["stranger-1"])?;
    let at_kafka_0 = Mailbox::open(&kafka_0.netns, OPEN_PORT)?;
    let (node, target) = (lab.node(stranger.node)?, lab.node("east-1")?);
    let _masquerade = Masquerade::of(lab.node(stranger.node)?)?;
    // Whatever the stranger sends to the other node comes from its own.
    let at_target = Mailbox::open(&target.netns, OPEN_PORT)?;
    let from_stranger = Mailbox::open(&stranger.netns, OPEN_PORT)?;
    from_stranger.send((target.underlay, OPEN_PORT), b"who am I?")?;
    same("east-1 saw", at_target.receive()?.0.ip(), &node.underlay)?;

    // What any pod can send by a plain socket; and what a process of the node can.
    let web_2 = lab.pod("web-2")?;
    let shop = datagram(slice_address(&web_2)?, slice_address(&lab.pod("web-0")?)?);
    let kafka = datagram(slice_address(&kafka_1)?, slice_address(&kafka_0)?);
    for (slice, inner) in [(SHOP, &shop), (KAFKA, &kafka)] {
        let payload =
            tunnelled(node.underlay, target.underlay, slice, inner).split_off(IPV4_AND_UDP_BYTES);
        for sender in [&stranger.netns, &node.netns] {
            let socket = Mailbox::open(sender, OPEN_PORT + 1)?;
            let forged = [(node.name, "0", "forged_underlay", 1)];
            expect_drops(lab, &forged, || {
                socket.send((target.underlay, TUNNEL_PORT), &payload)
            })?;
        }
    }
    ensure!(at_kafka_0.is_empty()?, "a forged datagram came in");
    Ok(())
}

/// A pod has its network card write a checksum over what was judged. On veth pairs nobody writes it, so
/// what passes is only looked at by its drop.
fn drop_forged_checksum(lab: &Lab) -> Result<()> {
    let [kafka_0, kafka_1] = pods(lab, ["kafka-0", "kafka-1"])?;
    let [stranger_0, stranger_1] = pods(lab, ["stranger-0", "stranger-1"])?;
    let east_1 = lab.node("east-1")?;
    let udp = |from: &Pod, to| {
        let datagram = Udp::new(OPEN_PORT, 7777).data([7; 32]);
        ipv4(from.pod_address, to).udp(datagram)
    };
    let ack = Tcp::new(40_000, 9092).ack();
    let to_kafka_0 = ipv4(stranger_0.pod_address, kafka_0.pod_address).tcp(ack.clone());
    let cases = [
        // A slice pod: its address, its ports, its flags.
        (
            &kafka_1,
            ipv4(kafka_1.pod_address, slice_address(&kafka_0)?).tcp(ack),
            "kafka",
            16,
            [(20, 8), (34, 0), (34, 12), (34, 14)],
        ),
        // A stranger, at its own node's guard: the port of the tunnel, the protocol, an address.
        (
            &stranger_1,
            udp(&stranger_1, east_1.underlay),
            "0",
            6,
            [(34, 2), (20, 2), (20, 10), (34, 4)],
        ),
        // A stranger, at the pod that is its neighbour.
        (
            &stranger_0,
            to_kafka_0,
            "kafka",
            16,
            [(36, 10), (34, 2), (20, 10), (34, 14)],
        ),
    ];
    for (pod, packet, slice, own_place, forged) in cases {
        let gateway = pod_gateway(pod)?;
        let frame = packet.frame(gateway, [0x0a, 0, 0, 0, 0, 1]);
        let send = |start, offset| {
            let checksum = LeftChecksum { start, offset };
            inject_frame(&pod.netns, "eth0", &frame, Some(checksum))
        };
        expect_drops(lab, &[], || send(34, own_place))?;
        for (start, offset) in forged {
            let dropped = [(pod.node, slice, "forged_checksum", 1)];
            expect_drops(lab, &dropped, || send(start, offset))
                .with_context(|| format!("{}: {start} + {offset}", pod.name))?;
        }
    }
    Ok(())
}

/// The link-layer address of the other end of the pod's veth.
fn pod_gateway(pod: &Pod) -> Result<Mac> {
    let node = NetNs::open(&pod.spec.node().namespace())?;
    mac_of(&node, &pod.spec.host_interface())
}

/// A route that is looked at before the guard routes, until this is dropped.
pub(crate) struct RouteFirst {
    namespace: NetNs,
    rule: String,
}

const BEFORE_THE_GUARDS: &str = "77";

impl RouteFirst {
    pub(crate) fn add(namespace: &NetNs, to: Ipv4Addr, gateway: Ipv4Addr) -> Result<Self> {
        let first = Self {
            namespace: namespace.clone(),
            rule: format!("pref 1 to {to} lookup {BEFORE_THE_GUARDS}"),
        };
        first.ip(&format!("rule add {}", first.rule))?;
        let table = BEFORE_THE_GUARDS;
        first.ip(&format!("route add {to} via {gateway} table {table}"))?;
        Ok(first)
    }

    fn ip(&self, arguments: &str) -> Result<()> {
        let mut command = self.namespace.command("ip");
        let output = command.args(arguments.split(' ')).output()?;
        ensure!(output.status.success(), "ip {arguments}: {output:?}");
        Ok(())
    }
}

impl Drop for RouteFirst {
    fn drop(&mut self) {
        let routes = format!("route flush table {BEFORE_THE_GUARDS}");
        for arguments in [routes, format!("rule delete {}", self.rule)] {
            if let Err(error) = self.ip(&arguments) {
                eprintln!("{error:#}");
            }
        }
    }
}

/// Where a CNI sends past the host's routing, the guard routes are not asked.
fn bare_slice_addresses(lab: &Lab) -> Result<()> {
    let [kafka_1, stranger] = pods(lab, ["kafka-1", "stranger-0"])?;
    let gateway = lab.node("east-1")?.spec.cluster().gateway();
    let node = lab.node("east-1")?;
    let capture = Capture::of(&beside(&node)?, "n-east-1")?;
    let _past_the_guards = RouteFirst::add(&node.netns, slice_address(&kafka_1)?, gateway)?;
    let packet = datagram(stranger.pod_address, slice_address(&kafka_1)?).build();
    expect_drops(lab, &[("east-1", "kafka", "bare_slice_address", 1)], || {
        inject(&stranger.netns, &packet)
    })?;
    // Not vacuous: the same packet to an address of no slice leaves.
    let outside = datagram(stranger.pod_address, gateway).build();
    inject(&stranger.netns, &outside)?;
    let is_from =
        |frame: &Frame| frame.bytes.get(26..30) == Some(&stranger.pod_address.octets()[..]);
    let left = capture
        .wait_for(is_from)?
        .context("nothing left the node")?;
    same(
        "left for",
        &left.bytes[30..34].to_vec(),
        &gateway.octets().to_vec(),
    )
}

pub(crate) fn datagram(from: Ipv4Addr, to: Ipv4Addr) -> Ipv4 {
    let datagram = Udp::new(OPEN_PORT, OPEN_PORT).data(*b"believe me");
    ipv4(from, to).identification(1).udp(datagram)
}

/// A tunnel packet from its outer IPv4 header on.
fn tunnelled(from: Ipv4Addr, to: Ipv4Addr, slice: u32, inner: &Ipv4) -> Vec<u8> {
    Vxlan::between(from.octets(), to.octets())
        .outer(|outer| outer.identification(1))
        .slice(slice, 0)
        .carry(inner)
        .frame([0; 6], [0; 6])
        .split_off(ETHERNET_BYTES)
}
