//! `underlay_filter` on a network card whose driver really runs it: two virtio cards that a virtual
//! machine has on one hub. What the one sends the other receives.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::programs::tc::{NlOptions, TcAttachOptions, qdisc_add_clsact};
use aya::programs::xdp::XdpLink;
use aya::programs::{SchedClassifier, TcAttachType, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader, TestRun as _, TestRunAttrs, TestRunOptions};
use futures_util::TryStreamExt as _;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt};
use nix::sys::time::TimeVal;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage, LinkXdp, XdpAttached};
use rtnetlink::{Handle, LinkUnspec};
use slice_common::drop_reason::DropReason;
use slice_common::layout::DropKey;

use super::actors::*;
use super::exchange::Program;
use super::scenes::{on_wire, tunnel_in};
use super::state::State;
use super::world::World;
use crate::live::Capture;
use crate::netns::NetNs;
use crate::packet::{Ipv4, Mac, Tcp, Udp};

/// The node's own card has [`NIC_MAC`], the other one [`ROUTER_MAC`].
pub(super) const CARD: &str = "card0";
pub(super) const OTHER: &str = "card1";
/// Patient with an emulated processor.
const LIMIT: Duration = Duration::from_secs(60);
/// Of each kind of packet.
const PACKETS: u64 = 50;
const FLOOD_PACKETS: u32 = 20_000;
const STREAM_BYTES: usize = 1 << 20;

/// What a packet of a stranger costs the kernel behind the driver, by who drops it. Nanoseconds of the
/// machine; where its time follows executed instructions they say how many those were.
#[derive(Clone, Copy, Debug)]
pub struct FloodCost {
    pub by_filter_ns: u64,
    pub by_ingress_ns: u64,
}

/// Plays everything.
/// # Errors  what was not as it should be.
pub fn play_on_cards(object: &[u8]) -> Result<FloodCost> {
    let (node, far) = (NetNs::create("node")?, NetNs::create("far")?);
    take_cards(&node, &far)?;
    node.enter(|| play(object, &node, &far))?
}

fn play(object: &[u8], node: &NetNs, far: &NetNs) -> Result<FloodCost> {
    let mut world = World::new(object)?;
    let link = attach_filter(&mut world)?;
    only_strangers_are_dropped(&world, node, far).context("packets of all kinds")?;
    streams_pass(node, far).context("TCP under the filter")?;
    drop(link);
    flood_cost(object, &mut world).context("a flood of strangers' packets")
}

fn attach_filter(world: &mut World) -> Result<XdpLink> {
    let program = filter_of(world.object_mut())?;
    let id = program
        .attach(CARD, XdpMode::Driver)
        .context("the driver does not take underlay_filter")?;
    let link = program.take_link(id)?;
    let mode = with_netlink(async |netlink| Ok(xdp_mode(&find_card(netlink, NIC_MAC).await?)))?;
    ensure!(
        mode == Some(XdpAttached::Driver),
        "the program runs in mode {mode:?}, and not in the driver"
    );
    Ok(link)
}

fn filter_of(object: &mut Ebpf) -> Result<&mut Xdp> {
    let program = object.program_mut(Program::UnderlayFilter.name());
    Ok(program.context("no underlay_filter")?.try_into()?)
}

/// Attaches a program by a filter, which every kernel can.
pub(super) fn attach_by_filter(world: &mut World, program: Program, device: &str) -> Result<()> {
    let hook = match program {
        Program::PodIngress | Program::UnderlayGuard => TcAttachType::Egress,
        _ => TcAttachType::Ingress,
    };
    let name = program.name();
    let program = world.object_mut().program_mut(name);
    let program: &mut SchedClassifier = program.context(name)?.try_into()?;
    // Refused where there is one already; without any the filter is.
    let _there_already = qdisc_add_clsact(device);
    let filter = TcAttachOptions::Netlink(NlOptions {
        priority: 1,
        ..NlOptions::default()
    });
    program
        .attach_with_options(device, hook, filter)
        .with_context(|| format!("{name} on {device}"))?;
    Ok(())
}

fn stranger() -> Vec<u8> {
    let tunnel = good_tunnel(60).outer(|outer| outer.source(NOBODY));
    on_wire(&tunnel)
}

fn good_tunnel(bytes: usize) -> crate::packet::Vxlan {
    let inner = Ipv4::between(KAFKA_1, KAFKA_0.slice_address)
        .tcp(Tcp::new(40_000, 9092).ack().data(vec![7; bytes]));
    tunnel_in(WEST_1, KAFKA.id, 3, &inner)
}

fn only_strangers_are_dropped(world: &World, node: &NetNs, far: &NetNs) -> Result<()> {
    let dropped = [
        (stranger(), DropReason::UnknownPeer),
        (
            on_wire(&good_tunnel(60).flags(0x0c)),
            DropReason::BadTunnelHeader,
        ),
        (
            on_wire(&good_tunnel(60).slice(99, 0)),
            DropReason::UnknownSlice,
        ),
    ];
    let passed = [
        on_wire(&good_tunnel(60)),
        // As long as the link allows.
        on_wire(&good_tunnel(1410)),
        Ipv4::between(NOBODY, EAST_1)
            .udp(Udp::new(6085, 6086).data(vec![8; 60]))
            .frame(NIC_MAC, ROUTER_MAC),
    ];
    let before = State::read(world.object())?.drops;
    let capture = Capture::of_arriving(node, CARD)?;
    let kinds = dropped.iter().map(|(frame, _)| frame).chain(&passed);
    let frames: Vec<_> = kinds.cloned().collect();
    let last = passed.last().context("something passes")?;
    let mut seen = Vec::new();
    for _ in 0..PACKETS {
        // One round after the other: the sending card's queue drops what waits too long.
        send(far, &frames)?;
        let arrived = capture.wait_for(|frame| {
            seen.push(frame.bytes.clone());
            frame.bytes == *last
        })?;
        arrived.context("not every packet arrived")?;
    }
    let counted = |reason: DropReason| -> Result<u64> {
        let key = DropKey {
            slice: 0,
            reason: reason.number().into(),
        };
        let of = |drops: &std::collections::BTreeMap<DropKey, u64>| {
            drops.get(&key).copied().unwrap_or(0)
        };
        Ok(of(&State::read(world.object())?.drops) - of(&before))
    };
    for (frame, reason) in &dropped {
        ensure!(
            counted(*reason)? == PACKETS,
            "{} of {PACKETS} packets were dropped as {}",
            counted(*reason)?,
            reason.label()
        );
        ensure!(!seen.contains(frame), "one got past: {}", reason.label());
    }
    for frame in &passed {
        let times = seen.iter().filter(|one| *one == frame).count() as u64;
        ensure!(
            times == PACKETS,
            "of {PACKETS} packets of {} bytes {times} arrived",
            frame.len()
        );
    }
    Ok(())
}

/// A megabyte there and back, by the stack's own connections over the two cards.
fn streams_pass(node: &NetNs, far: &NetNs) -> Result<()> {
    let address = SocketAddr::from((Ipv4Addr::from(EAST_1), 7000));
    stream_passes(node, address, far, address)
}

/// A megabyte from `client` to `called`, where `server` listens at `bound`, and back.
pub(super) fn stream_passes(
    server: &NetNs,
    bound: SocketAddr,
    client: &NetNs,
    called: SocketAddr,
) -> Result<()> {
    let listener = server.enter(|| TcpListener::bind(bound))??;
    let limit = TimeVal::new(LIMIT.as_secs().cast_signed(), 0);
    setsockopt(&listener, sockopt::ReceiveTimeout, &limit)?;
    let data: Vec<u8> = (0..STREAM_BYTES).map(|n| (n % 251) as u8).collect();
    std::thread::scope(|scope| {
        let echo = scope.spawn(|| -> Result<()> {
            let (mut stream, _) = listener.accept()?;
            stream.set_read_timeout(Some(LIMIT))?;
            let mut all = Vec::new();
            stream.read_to_end(&mut all)?;
            stream.write_all(&all)?;
            Ok(())
        });
        let back = client.enter(|| -> Result<Vec<u8>> {
            let mut stream = TcpStream::connect_timeout(&called, LIMIT)?;
            stream.set_read_timeout(Some(LIMIT))?;
            stream.write_all(&data)?;
            stream.shutdown(Shutdown::Write)?;
            let mut back = Vec::new();
            stream.read_to_end(&mut back)?;
            Ok(back)
        })??;
        let echoed = echo
            .join()
            .map_err(|_| anyhow::anyhow!("the echo panicked"))?;
        echoed?;
        ensure!(
            back == data,
            "{} bytes came back, or other ones",
            back.len()
        );
        Ok(())
    })
}

/// How long the kernel takes for a packet of a stranger, from where a driver has it in memory until it is
/// dropped. The driver's own part, and the network's, are in neither of the two.
fn flood_cost(object: &[u8], world: &mut World) -> Result<FloodCost> {
    let by_filter = dropped_by(world, |world| live_run(world.object()))?;
    // A program whose maps are empty lets everything pass.
    let mut passing = EbpfLoader::new().load(object).context("load again")?;
    filter_of(&mut passing)?.load()?;
    attach_by_filter(world, Program::UnderlayIngress, CARD)?;
    let by_ingress = dropped_by(world, |_| live_run(&passing))?;
    Ok(FloodCost {
        by_filter_ns: u64::try_from(by_filter.as_nanos())?,
        by_ingress_ns: u64::try_from(by_ingress.as_nanos())?,
    })
}

/// Runs and makes sure that every packet was dropped and counted.
fn dropped_by(world: &World, run: impl FnOnce(&World) -> Result<Duration>) -> Result<Duration> {
    let total = || -> Result<u64> { Ok(State::read(world.object())?.drops.values().sum()) };
    let before = total()?;
    let took = run(world)?;
    let dropped = total()? - before;
    ensure!(
        dropped == u64::from(FLOOD_PACKETS),
        "of {FLOOD_PACKETS} packets {dropped} were dropped and counted"
    );
    Ok(took)
}

/// Frames that are really handled as they say, as if the card had received them; the time for one.
fn live_run(object: &Ebpf) -> Result<Duration> {
    let name = Program::UnderlayFilter.name();
    let program: &Xdp = object.program(name).context("no filter")?.try_into()?;
    let frame = stranger();
    // `struct xdp_md`: where the frame ends, and the card that it came by.
    let mut context = [0; 24];
    context[4..8].copy_from_slice(&u32::try_from(frame.len())?.to_ne_bytes());
    context[12..16].copy_from_slice(&if_nametoindex(CARD)?.to_ne_bytes());
    let result = program.test_run(TestRunOptions {
        data_in: Some(&frame),
        ctx_in: Some(&context),
        repeat: FLOOD_PACKETS,
        attrs: TestRunAttrs::new().xdp_live_frames(64),
        ..TestRunOptions::new()
    })?;
    Ok(result.duration)
}

/// Sends each of the frames by the other card past the stack.
fn send(far: &NetNs, frames: &[Vec<u8>]) -> Result<()> {
    far.enter(|| -> Result<()> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        // SAFETY: all-zero is a valid sockaddr_ll.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = if_nametoindex(OTHER)?.cast_signed();
        for frame in frames {
            // SAFETY: frame and address are readable for the lengths given and outlive the call.
            let sent = unsafe {
                libc::sendto(
                    socket.as_raw_fd(),
                    frame.as_ptr().cast(),
                    frame.len(),
                    0,
                    (&raw const to).cast(),
                    size_of_val(&to) as libc::socklen_t,
                )
            };
            nix::errno::Errno::result(sent).context("cannot send a frame")?;
        }
        Ok(())
    })?
}

/// Gives each card its namespace, name and address.
fn take_cards(node: &NetNs, far: &NetNs) -> Result<()> {
    for (mac, namespace) in [(NIC_MAC, node), (ROUTER_MAC, far)] {
        with_netlink(async |netlink| {
            let card = find_card(netlink, mac).await?;
            let moved = LinkUnspec::new_with_index(card.header.index)
                .setns_by_fd(namespace.as_fd().as_raw_fd())
                .build();
            Ok(netlink.link().set(moved).execute().await?)
        })
        .with_context(|| format!("cannot move the card {mac:02x?}"))?;
    }
    let ends = [
        (NIC_MAC, node, CARD, EAST_1),
        (ROUTER_MAC, far, OTHER, NOBODY),
    ];
    for (mac, namespace, name, address) in ends {
        namespace.enter(|| set_up(mac, name, address))??;
    }
    Ok(())
}

fn set_up(mac: Mac, name: &str, address: [u8; 4]) -> Result<()> {
    with_netlink(async |netlink| {
        let index = find_card(netlink, mac).await?.header.index;
        let named = LinkUnspec::new_with_index(index)
            .name(name.to_owned())
            .build();
        netlink.link().set(named).execute().await?;
        let added = netlink
            .address()
            .add(index, Ipv4Addr::from(address).into(), 12);
        added.execute().await?;
        let up = LinkUnspec::new_with_index(index).up().build();
        Ok(netlink.link().set(up).execute().await?)
    })
    .with_context(|| format!("cannot set up {name}"))
}

pub(super) async fn find_card(netlink: &Handle, mac: Mac) -> Result<LinkMessage> {
    let links: Vec<LinkMessage> = netlink.link().get().execute().try_collect().await?;
    let has_mac = |link: &LinkMessage| {
        let mut attributes = link.attributes.iter();
        attributes.any(|one| matches!(one, LinkAttribute::Address(bytes) if bytes[..] == mac))
    };
    // A scene's device has the same address; a card is of no kind.
    let is_card = |link: &LinkMessage| {
        let mut attributes = link.attributes.iter();
        !attributes.any(|one| matches!(one, LinkAttribute::LinkInfo(_)))
    };
    let mut found = links
        .into_iter()
        .filter(|link| has_mac(link) && is_card(link));
    found
        .next()
        .with_context(|| format!("there is no card {mac:02x?}"))
}

fn xdp_mode(card: &LinkMessage) -> Option<XdpAttached> {
    card.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Xdp(facts) => facts.iter().find_map(|fact| match fact {
                LinkXdp::Attached(mode) => Some(*mode),
                _ => None,
            }),
            _ => None,
        })
}

/// Talks to the kernel in the calling thread's network namespace.
pub(super) fn with_netlink<T>(talk: impl AsyncFnOnce(&Handle) -> Result<T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (connection, netlink, _) = rtnetlink::new_connection()?;
        let connection = tokio::spawn(connection);
        let result = talk(&netlink).await;
        connection.abort();
        result
    })
}
