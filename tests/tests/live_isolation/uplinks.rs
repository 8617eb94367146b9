//! A second uplink of a node: what may not leave by the underlay leaves by none.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use slice_tests::harness::Scene;
use slice_tests::lab::{Lab, Node, Pod};
use slice_tests::live::{Capture, Frame, Mailbox, expect_drops, inject};
use slice_tests::netns::NetNs;

use crate::forgers::{RouteFirst, datagram};
use crate::reconfigure::{settled, with_configuration};
use crate::{OPEN_PORT, pods, same, slice_address};

pub(crate) const SCENES: &[Scene] = &[(
    "nothing_forged_or_bare_leaves_by_a_second_uplink",
    second_uplink,
)];

const TUNNEL_PORT: u16 = 6085;
const NEAR: &str = "192.168.77.1/24";
const FAR: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 2);
/// The far end's device.
const FAR_DEVICE: &str = "far0";

/// A node's second interface to the world, until this is dropped.
struct Uplink {
    far: NetNs,
}

impl Uplink {
    const NAMESPACE: &str = "sl-uplink";

    fn add(node: &Node) -> Result<Self> {
        let uplink = Self {
            far: NetNs::create(Self::NAMESPACE)?,
        };
        let peer = format!("peer name {FAR_DEVICE} netns {}", Self::NAMESPACE);
        ip(&node.netns, &format!("link add nic1 type veth {peer}"))?;
        ip(&node.netns, &format!("address add {NEAR} dev nic1"))?;
        ip(&node.netns, "link set nic1 up")?;
        ip(
            &uplink.far,
            &format!("address add {FAR}/24 dev {FAR_DEVICE}"),
        )?;
        ip(&uplink.far, &format!("link set {FAR_DEVICE} up"))?;
        Ok(uplink)
    }
}

impl Drop for Uplink {
    fn drop(&mut self) {
        // Its interface goes with it, and with that the other end.
        let removed = ip(&self.far, &format!("link delete {FAR_DEVICE}"));
        for result in [removed, NetNs::delete(Self::NAMESPACE)] {
            if let Err(error) = result {
                eprintln!("{error:#}");
            }
        }
    }
}

fn ip(namespace: &NetNs, arguments: &str) -> Result<()> {
    let mut command = namespace.command("ip");
    let output = command.args(arguments.split(' ')).output()?;
    ensure!(output.status.success(), "ip {arguments}: {output:?}");
    Ok(())
}

fn second_uplink(lab: &Lab) -> Result<()> {
    let [kafka_1, stranger] = pods(lab, ["kafka-1", "stranger-0"])?;
    let node = lab.node("east-1")?;
    let bare = slice_address(&kafka_1)?;
    {
        // It appears while the agent runs.
        let uplink = Uplink::add(&node)?;
        let alone = |text: &str| {
            let listed = "  interface: nic0\n  guarded: [nic0]\n";
            text.replacen("  interface: nic0\n", listed, 1)
        };
        with_configuration(lab, node.name, alone, || {
            forge(lab, &node, &stranger, &uplink, true)?;
            send_bare(lab, &node, &stranger, &uplink, (bare, true))
        })
        .context("not vacuous: with the underlay guarded alone")?;
        settled(&node)?;
        forge(lab, &node, &stranger, &uplink, false)?;
        send_bare(lab, &node, &stranger, &uplink, (bare, false))?;
    }
    settled(&node).context("after it went")
}

/// A process of the node and a pod write to somebody's tunnel port, and to another one.
fn forge(lab: &Lab, node: &Node, stranger: &Pod, uplink: &Uplink, may: bool) -> Result<()> {
    let forged = [(node.name, "0", "forged_underlay", 1)];
    for sender in [&node.netns, &stranger.netns] {
        let sends = Mailbox::open(sender, OPEN_PORT)?;
        for (port, passes) in [(OPEN_PORT, true), (TUNNEL_PORT, may)] {
            let at_far = Mailbox::open(&uplink.far, port)?;
            let drops: &[_] = if passes { &[] } else { &forged };
            expect_drops(lab, drops, || {
                sends.send((FAR, port), b"believe me")?;
                if passes {
                    at_far.receive()?;
                }
                Ok(())
            })
            .with_context(|| format!("{} to port {port}", sender.name()))?;
            ensure!(at_far.is_empty()?, "it left by the second uplink");
        }
    }
    Ok(())
}

/// A CNI sends past the host's routing, by the second uplink.
fn send_bare(
    lab: &Lab,
    node: &Node,
    stranger: &Pod,
    uplink: &Uplink,
    (to, may): (Ipv4Addr, bool),
) -> Result<()> {
    let capture = Capture::of(&uplink.far, FAR_DEVICE)?;
    let _past_the_guards = RouteFirst::add(&node.netns, to, FAR)?;
    let dropped = [(node.name, "kafka", "bare_slice_address", 1)];
    let drops: &[_] = if may { &[] } else { &dropped };
    expect_drops(lab, drops, || {
        inject(&stranger.netns, &datagram(stranger.pod_address, to).build())
    })?;
    // The same to an address of no slice leaves in any case, and after it.
    inject(
        &stranger.netns,
        &datagram(stranger.pod_address, FAR).build(),
    )?;
    let mut seen = Vec::new();
    let last = capture.wait_for(|frame: &Frame| {
        let is_strangers = frame.bytes.get(26..30) == Some(&stranger.pod_address.octets()[..]);
        if is_strangers {
            seen.push(frame.bytes[30..34].to_vec());
        }
        seen.last().is_some_and(|to| to[..] == FAR.octets())
    })?;
    last.context("nothing left by the second uplink")?;
    let bare = seen.contains(&to.octets().to_vec());
    same("left bare", &bare, &may)
}
