//! A real agent on a real kernel: what it puts at the root of an uplink's queues, changes there, and takes off again.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::TryStreamExt as _;
use nix::net::if_::if_nametoindex;
use rtnetlink::packet_route::neighbour::NeighbourState;
use rtnetlink::packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcStats2};
use rtnetlink::{Handle, RouteMessageBuilder};
use slice_agent::apply::queueing::{ours, roots};
use slice_agent::image::{ClassTree, RootQueue};
use slice_common::layout::QueueClass;

use super::actors::*;
use super::card::with_netlink;
use super::devices::Devices;
use super::vlan::{give_pod_its_end, set_up_pod};
use crate::bench::bed::agent::{self, METRICS_PORT};
use crate::bench::bed::ground::Ground;
use crate::child::poll_until;
use crate::lab::agents::http_get;
use crate::netns::NetNs;

/// Patient with an emulated processor, and with others who measure.
const LIMIT: Duration = Duration::from_secs(120);
/// So few that none of them is too early for the slower rate.
const PACKETS: u64 = 20;
/// Of no class, and open to everybody in the slice.
const PORT: u16 = 9;
const SLICE_CLASS: QueueClass = QueueClass::Slice(0);

/// Plays everything. `agent` is the program.
/// # Errors  what was not as it should be.
pub fn play_with_agent(agent: &Path, kernel_has_fq: bool) -> Result<()> {
    let ground = Ground::take(LIMIT)?;
    let (node, pod) = (NetNs::create("sb-node")?, NetNs::create("sb-pod")?);
    node.enter(|| {
        Devices::create()?;
        with_netlink(async |netlink| set_up_node(netlink, &pod).await)
    })??;
    pod.enter(|| with_netlink(set_up_pod))??;
    agent::prepare(&node, &documents("Auto", "20M"))?;
    let mut running = agent::start(&node, agent)?;
    agent::wait_until_ready(&mut running, &node)?;
    let best = match kernel_has_fq {
        true => RootQueue::OurFair,
        false => RootQueue::OurTree,
    };
    until(&node, &best, if kernel_has_fq { "edt" } else { "htb" }).context("by itself")?;
    agent::configure(&node, &documents("Htb", "20M"))?;
    until(&node, &RootQueue::OurTree, "htb").context("as asked for")?;
    packets_go_through_classes(&node, &pod)?;
    rates_change_in_place(&node)?;
    running.stop(LIMIT)?;
    expect_root(&node, &RootQueue::OurTree).context("without an agent")?;
    agent::uninstall(&node, agent)?;
    expect_root(&node, &RootQueue::Default { queues: 1 }).context("uninstalled")?;
    drop(ground);
    Ok(())
}

fn packets_go_through_classes(node: &NetNs, pod: &NetNs) -> Result<()> {
    let front = QueueClass::Front(0);
    let before = went_through(node, front)?;
    pod.enter(|| -> Result<()> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        for _ in 0..PACKETS {
            socket.send_to(b"now", (Ipv4Addr::from(KAFKA_1), PORT))?;
        }
        Ok(())
    })??;
    let mut more = 0;
    let all = poll_until(LIMIT, || {
        more = went_through(node, front)? - before;
        Ok((more >= PACKETS).then_some(()))
    })?;
    all.with_context(|| format!("{more} of {PACKETS} went by the front"))
}

/// The same disciplines stay, with what they counted: packets that wait in them do too.
fn rates_change_in_place(node: &NetNs) -> Result<()> {
    let ceiling = |tree: &ClassTree| {
        let slice = tree.classes.get(&SLICE_CLASS.minor());
        slice.map(|class| class.ceiling_bytes_per_s)
    };
    let (slow, leaves) = (tree(node)?, leaves(node)?);
    let front = QueueClass::Front(0);
    let counted = went_through(node, front)?;
    ensure!(
        leaves.len() == 3,
        "a leaf for others, a front and a back: {leaves:?}"
    );
    agent::configure(node, &documents("Htb", "40M"))?;
    let faster = poll_until(LIMIT, || {
        let now = tree(node)?;
        Ok((ceiling(&now) > ceiling(&slow)).then_some(now))
    })?;
    let fast = faster.context("the rate did not change")?;
    let [slow, fast] = [slow, fast].map(|tree| ceiling(&tree).unwrap_or(0));
    ensure!(fast.abs_diff(2 * slow) < slow / 100, "{slow} and {fast}");
    ensure!(leaves == self::leaves(node)?, "not the same: {leaves:?}");
    ensure!(went_through(node, front)? >= counted, "counted anew");
    Ok(())
}

/// Until this is there, and packets are told so.
fn until(node: &NetNs, root: &RootQueue, backend: &str) -> Result<()> {
    let info =
        format!("sliceplane_shaper_info{{uplink=\"wan\",slice=\"kafka\",backend=\"{backend}\"}} 1");
    let mut seen = String::new();
    let found = poll_until(LIMIT, || {
        let page = http_get(node, METRICS_PORT, "/metrics");
        let is_told = page.is_ok_and(|page| page.body.contains(&info));
        let now = root_of(node)?;
        seen = format!("{now:?}, told: {is_told}");
        Ok((is_told && now == *root).then_some(()))
    })?;
    found.with_context(|| format!("not {root:?} and {backend}, but {seen}"))
}

fn expect_root(node: &NetNs, expected: &RootQueue) -> Result<()> {
    let found = root_of(node)?;
    ensure!(found == *expected, "found {found:?}, not {expected:?}");
    Ok(())
}

fn root_of(node: &NetNs) -> Result<RootQueue> {
    on_uplink(node, async |netlink, uplink| {
        let root = roots(netlink).await?.remove(&uplink);
        root.context("the device has no root")
    })
}

fn tree(node: &NetNs) -> Result<ClassTree> {
    on_uplink(node, async |netlink, uplink| {
        let mut ours = ours(netlink, &[(uplink, NIC.to_owned())].into()).await?;
        ours.trees.remove(&uplink).context("no tree")
    })
}

/// The disciplines in which packets wait, by their numbers: others in their place have others.
fn leaves(node: &NetNs) -> Result<Vec<(TcHandle, TcHandle)>> {
    on_uplink(node, async |netlink, uplink| {
        let listed = netlink.qdisc().get().index(uplink.cast_signed()).execute();
        let listed: Vec<TcMessage> = listed.try_collect().await?;
        let leaves = listed.iter().map(|it| &it.header).filter(|header| {
            let is_here = header.index == uplink.cast_signed();
            is_here && header.parent.major == QueueClass::TREE
        });
        Ok(leaves
            .map(|header| (header.parent, header.handle))
            .collect())
    })
}

/// Packets that left a class.
fn went_through(node: &NetNs, class: QueueClass) -> Result<u64> {
    on_uplink(node, async |netlink, uplink| {
        let listed = netlink.traffic_class(uplink.cast_signed()).get().execute();
        let listed: Vec<TcMessage> = listed.try_collect().await?;
        let found = listed
            .iter()
            .find(|it| it.header.handle.minor == class.minor());
        let found = found.with_context(|| format!("no {class:?}"))?;
        let counts = found.attributes.iter().find_map(|it| match it {
            TcAttribute::Stats2(all) => all.iter().find_map(|it| match it {
                TcStats2::Basic(basic) => Some(u64::from(basic.packets)),
                _ => None,
            }),
            _ => None,
        });
        counts.context("nothing is counted")
    })
}

fn on_uplink<T: Send>(
    node: &NetNs,
    ask: impl AsyncFnOnce(&Handle, u32) -> Result<T> + Send,
) -> Result<T> {
    node.enter(|| {
        let uplink = if_nametoindex(NIC)?;
        with_netlink(async |netlink| ask(netlink, uplink).await)
    })?
}

async fn set_up_node(netlink: &Handle, pod: &NetNs) -> Result<()> {
    give_pod_its_end(netlink, pod).await?;
    let (uplink, to_pod) = (if_nametoindex(NIC)?, if_nametoindex(KAFKA_0.device)?);
    let own = netlink
        .address()
        .add(uplink, Ipv4Addr::from(EAST_1).into(), 12);
    own.execute().await?;
    let neighbour = netlink
        .neighbours()
        .add(uplink, Ipv4Addr::from(WEST_1.address).into())
        .link_layer_address(&ROUTER_MAC)
        .state(NeighbourState::Permanent);
    neighbour.execute().await?;
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(KAFKA_0.pod_address.into(), 32)
        .output_interface(to_pod)
        .build();
    Ok(netlink.route().add(route).execute().await?)
}

/// The node's configuration: one pod, one peer, one slice under a ceiling.
fn documents(shaper: &str, ceiling: &str) -> String {
    let address = |bytes: [u8; 4]| Ipv4Addr::from(bytes);
    format!(
        "kind: Node\ncluster: {EAST}\nname: east-1\n\
         underlay: {{address: {}, interface: {NIC}}}\n\
         uplinks: [{{name: wan, interface: {NIC}, rate: 100M, shaper: {shaper}}}]\n\
         endpoints:\n- {{slice: kafka, namespace: kafka, name: kafka-0, interface: {}, address: {}, \
         sliceAddress: {}}}\n\
         blocks:\n- {{slice: kafka, namespace: kafka, prefix: {}/29}}\n\
         peers:\n- {{cluster: {}, name: {}, underlay: {}, blocks: \
         [{{slice: kafka, namespace: kafka, prefix: {}/32}}]}}\n---\n\
         kind: Slice\nmetadata: {{name: kafka}}\nid: {}\nspec:\n  \
         addressing: {{mode: Mapped, ranges: [{}/16]}}\n  isolation: {{level: Slice}}\n  \
         policy: {{defaultAction: Allow}}\n  qos: {{ceiling: {{default: {ceiling}}}}}\n  \
         encryption: {{mode: None}}\n  acceptPlaintext: true\n",
        address(EAST_1),
        KAFKA_0.device,
        address(KAFKA_0.pod_address),
        address(KAFKA_0.slice_address),
        address(KAFKA.range),
        WEST_1.cluster,
        WEST_1.name,
        address(WEST_1.address),
        address(KAFKA_1),
        KAFKA.id,
        address(KAFKA.range),
    )
}
