//! The node's underlay on an 802.1Q device: `card0.7` on one of the two virtio cards that a virtual
//! machine has. Behind the other card the kernel's own VXLAN device, on a VLAN device too, is the peer.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::net::if_::if_nametoindex;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::neighbour::NeighbourState;
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{Handle, LinkUnspec, LinkVlan, LinkVxlan, RouteMessageBuilder};
use slice_common::drop_reason::DropReason;
use slice_common::layout::{Direction, DropKey};
use slice_common::wire::vxlan::INNER_DESTINATION_MAC;

use super::actors::*;
use super::card::{CARD, OTHER, attach_by_filter, find_card, stream_passes, with_netlink};
use super::exchange::Program;
use super::state::State;
use super::world::{World, standard_path};
use crate::netns::NetNs;
use crate::packet::Mac;

const VLAN: u16 = 7;
const NODE_UNDERLAY: &str = "card0.7";
const FAR_UNDERLAY: &str = "card1.7";
const FAR_TUNNEL: &str = "tunnel";
const TUNNEL_PORT: u16 = 6085;
/// Of brokers, without a class, so that both ways have one network number.
const PORT: u16 = 9090;
/// Nothing answers, however slow the machine is.
const SILENCE: Duration = Duration::from_secs(3);

/// Plays everything, on the cards that [`super::card::play_on_cards`] gave these namespaces.
/// # Errors  what was not as it should be.
pub fn play_on_vlan(object: &[u8]) -> Result<()> {
    let (node, far) = (NetNs::create("vlan-node")?, NetNs::create("vlan-far")?);
    let pod = NetNs::create("vlan-pod")?;
    for (mac, from, to) in [(NIC_MAC, "node", &node), (ROUTER_MAC, "far", &far)] {
        let from = NetNs::open(from)?;
        from.enter(|| with_netlink(async |netlink| move_card(netlink, mac, to).await))??;
    }
    far.enter(|| {
        // Its questions about neighbours would be drops of ours. A kernel without IPv6 has no such file.
        let _without = fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
        with_netlink(set_up_far)
    })?
    .context("the far node")?;
    node.enter(|| play(object, &node, &far, &pod))?
}

fn play(object: &[u8], node: &NetNs, far: &NetNs, pod: &NetNs) -> Result<()> {
    let mut world = World::new(object)?;
    with_netlink(async |netlink| set_up_node(netlink, pod).await).context("the node")?;
    pod.enter(|| with_netlink(set_up_pod))?.context("the pod")?;
    lead_by_vlan(&mut world)?;
    attach_by_filter(&mut world, Program::PodEgress, KAFKA_0.device)?;
    // One behind the other, as an agent has them: what the first lets out the second does too.
    for device in [NODE_UNDERLAY, CARD] {
        attach_by_filter(&mut world, Program::UnderlayGuard, device)?;
    }
    // At the card itself the frames have a tag: they are another network's, and go up to it as they came.
    attach_by_filter(&mut world, Program::UnderlayIngress, CARD)?;
    nothing_is_taken_at_the_card(&world, far).context("with programs at the card alone")?;
    attach_by_filter(&mut world, Program::UnderlayIngress, NODE_UNDERLAY)?;
    both_ways(&world, far, pod).context("with programs at the VLAN device")?;
    forgers_are_stopped(&world, node, far).context("the guard of the VLAN device")
}

fn nothing_is_taken_at_the_card(world: &World, far: &NetNs) -> Result<()> {
    let before = State::read(world.object())?;
    let to = SocketAddr::from((Ipv4Addr::from(KAFKA_0.slice_address), PORT));
    let connected = far.enter(|| TcpStream::connect_timeout(&to, SILENCE))?;
    ensure!(connected.is_err(), "a connection stands");
    let after = State::read(world.object())?;
    ensure!(
        (&after.drops, &after.counters) == (&before.drops, &before.counters),
        "a program took tagged frames: {:?} {:?}",
        after.drops,
        after.counters
    );
    Ok(())
}

/// Connections begun by the pod and by the peer, each with as much as fills many packets.
fn both_ways(world: &World, far: &NetNs, pod: &NetNs) -> Result<()> {
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
    let called = |address: [u8; 4]| SocketAddr::from((Ipv4Addr::from(address), PORT));
    let streams = [
        ("begun by the pod", far, pod, KAFKA_1),
        ("begun by the peer", pod, far, KAFKA_0.slice_address),
    ];
    for (what, server, client, address) in streams {
        let passed = stream_passes(server, any, client, called(address));
        let state = State::read(world.object())?;
        passed.with_context(|| format!("{what}: {:?} {:?}", state.counters, state.drops))?;
    }
    let state = State::read(world.object())?;
    for direction in [Direction::Out, Direction::In] {
        let of_it = state.counters.iter();
        let of_it = of_it.filter(|(key, _)| key.direction == direction.number());
        let bytes: u64 = of_it.map(|(_, counter)| counter.bytes).sum();
        ensure!(
            bytes > 1 << 20,
            "{direction:?}: {bytes} bytes by our programs"
        );
    }
    ensure!(state.drops.is_empty(), "drops: {:?}", state.drops);
    Ok(())
}

/// What a process of the node sends to a tunnel does not leave; to another port it does.
fn forgers_are_stopped(world: &World, node: &NetNs, far: &NetNs) -> Result<()> {
    let at_far = far.enter(|| UdpSocket::bind((Ipv4Addr::from(WEST_1.address), 6086)))??;
    at_far.set_read_timeout(Some(SILENCE * 20))?;
    let forger = node.enter(|| UdpSocket::bind((Ipv4Addr::from(EAST_1), 0)))??;
    let to = |port: u16| (Ipv4Addr::from(WEST_1.address), port);
    // The host says that it is not permitted, or nothing.
    let _refused = forger.send_to(b"forged", to(TUNNEL_PORT));
    forger.send_to(b"honest", to(6086))?;
    let mut arrived = [0; 6];
    at_far.recv_from(&mut arrived).context("nothing arrived")?;
    ensure!(&arrived == b"honest", "not what was sent");
    let forged = DropKey {
        slice: 0,
        reason: DropReason::ForgedUnderlay.number().into(),
    };
    let drops = State::read(world.object())?.drops;
    ensure!(drops.get(&forged) == Some(&1), "drops: {drops:?}");
    Ok(())
}

/// The path to the peer is by the VLAN device.
fn lead_by_vlan(world: &mut World) -> Result<()> {
    let path = standard_path(&WEST_1, if_nametoindex(NODE_UNDERLAY)?);
    world.insert("PATHS", WEST_1.path(), path)
}

async fn move_card(netlink: &Handle, mac: Mac, to: &NetNs) -> Result<()> {
    let card = find_card(netlink, mac).await?.header.index;
    let to = to.as_fd().as_raw_fd();
    let moved = LinkUnspec::new_with_index(card).setns_by_fd(to).build();
    Ok(netlink.link().set(moved).execute().await?)
}

async fn set_up_node(netlink: &Handle, pod: &NetNs) -> Result<()> {
    add_vlan(netlink, CARD, NODE_UNDERLAY, EAST_1).await?;
    give_pod_its_end(netlink, pod).await
}

/// Puts the other end of `kafka-0`'s interface into the pod.
pub(super) async fn give_pod_its_end(netlink: &Handle, pod: &NetNs) -> Result<()> {
    let host_side = if_nametoindex(KAFKA_0.device)?;
    let mut found = netlink.link().get().match_index(host_side).execute();
    let link = futures_util::TryStreamExt::try_next(&mut found).await?;
    let attributes = link.context("the pod's interface")?.attributes;
    let peer = attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Link(peer) => Some(*peer),
        _ => None,
    });
    let moved = LinkUnspec::new_with_index(peer.context("the other end")?)
        .name("eth0".to_owned())
        .address(KAFKA_0.mac.to_vec())
        .down()
        .setns_by_fd(pod.as_fd().as_raw_fd())
        .build();
    Ok(netlink.link().set(moved).execute().await?)
}

/// As the host's other end knows it, with the slice behind it.
pub(super) async fn set_up_pod(netlink: &Handle) -> Result<()> {
    // As `Devices` numbers them.
    const HOST_SIDE: Mac = [0x0a, 0, 0, 0xff, 0, 3];
    let index = if_nametoindex("eth0")?;
    let up = LinkUnspec::new_with_index(index).up().build();
    netlink.link().set(up).execute().await?;
    lead_by(netlink, index, KAFKA_0.pod_address, (KAFKA_1, HOST_SIDE)).await
}

async fn set_up_far(netlink: &Handle) -> Result<()> {
    add_vlan(netlink, OTHER, FAR_UNDERLAY, WEST_1.address).await?;
    let tunnel = LinkVxlan::new(FAR_TUNNEL, KAFKA.id << 3)
        .dev(if_nametoindex(FAR_UNDERLAY)?)
        .local(WEST_1.address.into())
        .remote(EAST_1.into())
        .port(TUNNEL_PORT)
        .learning(false)
        .udp_csum(false)
        .address(INNER_DESTINATION_MAC.to_vec())
        .up()
        .build();
    netlink.link().add(tunnel).execute().await?;
    let index = if_nametoindex(FAR_TUNNEL)?;
    let neighbour = (KAFKA_0.slice_address, INNER_DESTINATION_MAC);
    lead_by(netlink, index, KAFKA_1, neighbour).await
}

async fn add_vlan(netlink: &Handle, card: &str, name: &str, own: [u8; 4]) -> Result<()> {
    let card = if_nametoindex(card)?;
    let up = LinkUnspec::new_with_index(card).up().build();
    netlink.link().set(up).execute().await?;
    let vlan = LinkVlan::new(name, card, VLAN).up().build();
    netlink.link().add(vlan).execute().await?;
    let index = if_nametoindex(name)?;
    let added = netlink.address().add(index, Ipv4Addr::from(own).into(), 12);
    Ok(added.execute().await?)
}

/// An address, and all of the slice by this interface, where somebody's link-layer address is known.
async fn lead_by(
    netlink: &Handle,
    index: u32,
    own: [u8; 4],
    (other, mac): ([u8; 4], Mac),
) -> Result<()> {
    let added = netlink.address().add(index, Ipv4Addr::from(own).into(), 32);
    added.execute().await?;
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(KAFKA.range.into(), 16)
        .output_interface(index)
        .scope(RouteScope::Link)
        .build();
    netlink.route().add(route).execute().await?;
    let neighbour = netlink
        .neighbours()
        .add(index, Ipv4Addr::from(other).into())
        .link_layer_address(&mac)
        .state(NeighbourState::Permanent);
    Ok(neighbour.execute().await?)
}
