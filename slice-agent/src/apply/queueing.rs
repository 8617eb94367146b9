//! Queueing disciplines at the root of uplinks: `fq` keeps each packet until the moment that is written on it.
//!
//! The kernel's own choice may be replaced, and comes back when ours is removed. What somebody configured (it has a
//! handle) is never touched.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use futures_util::{StreamExt as _, TryStreamExt as _};
use rtnetlink::Handle;
use rtnetlink::packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};

use slice_common::layout::QueueClass;

use super::htb;
use super::netlink::{cause, is_absent};
use crate::image::{ClassTree, FairQueue, RootQueue};

/// Ours among the handles of disciplines; the kernel gives those that it chooses itself from 0x8000 on.
const OURS: u16 = QueueClass::TREE;
const FAIR: &str = "fq";
/// One queue for each of a device's.
const MULTI_QUEUE: &str = "mq";
/// No queue at all: what a device has that hands packets on at once.
const NO_QUEUE: &str = "noqueue";

// Attributes of `fq`, from linux/pkt_sched.h.
const FQ_PACKETS: u16 = 1;
const FQ_FLOW_PACKETS: u16 = 2;
const FQ_ORPHAN_MASK: u16 = 10;
const FQ_HORIZON: u16 = 14;
const FQ_HORIZON_DROP: u16 = 15;

/// A slice's packets are all late at once when it fills its ceiling: 50 ms of 25 Gbit/s in packets of 1,500 bytes.
const PACKETS_MAX: u32 = 100_000;
/// A flow may be all there is, and the horizon limits it anyway.
const FLOW_PACKETS_MAX: u32 = 10_000;
/// Packets that no socket knows of, as those that are passed on, are told apart by their hash, in so many flows.
const ORPHAN_MASK: u32 = 0xffff;
/// What its sender wants to leave later leaves then, and is not dropped: nobody fills the queue with packets of
/// next week, and TCP that paces itself slowly goes on.
const HORIZON_US: u32 = 100_000;

/// What is at the root of each interface, by number.
pub async fn roots(netlink: &Handle) -> Result<BTreeMap<u32, RootQueue>> {
    Ok(roots_of(&disciplines(netlink).await?))
}

pub(super) async fn disciplines(netlink: &Handle) -> Result<Vec<TcMessage>> {
    let listed = netlink.qdisc().get().execute().try_collect().await;
    listed
        .map_err(cause)
        .context("cannot list the queueing disciplines of this host")
}

fn roots_of(listed: &[TcMessage]) -> BTreeMap<u32, RootQueue> {
    let of_roots = listed
        .iter()
        .filter(|it| it.header.parent == TcHandle::ROOT);
    let root = |it: &TcMessage| (it.header.index.cast_unsigned(), root_queue(it, listed));
    of_roots.map(root).collect()
}

/// What of ours is at roots.
#[derive(Debug, Default)]
pub struct Ours {
    pub fair_queues: BTreeMap<u32, FairQueue>,
    pub trees: BTreeMap<u32, ClassTree>,
}

/// That of these interfaces, by number and name.
pub async fn ours(netlink: &Handle, interfaces: &BTreeSet<(u32, String)>) -> Result<Ours> {
    let listed = disciplines(netlink).await?;
    let roots = roots_of(&listed);
    let mut ours = Ours::default();
    for (ifindex, interface) in interfaces {
        match roots.get(ifindex) {
            Some(RootQueue::OurFair) => {
                let (interface, queues) = (interface.clone(), 1);
                let fair = FairQueue { interface, queues };
                ours.fair_queues.insert(*ifindex, fair);
            }
            Some(RootQueue::OurTree) => {
                let tree = htb::observe(netlink, (*ifindex, interface), &listed).await?;
                ours.trees.insert(*ifindex, tree);
            }
            _ => {}
        }
    }
    Ok(ours)
}

fn root_queue(root: &TcMessage, all: &[TcMessage]) -> RootQueue {
    let kind = kind(root);
    let is_ours = root.header.handle.major == OURS;
    let is_fair = match kind {
        FAIR => true,
        MULTI_QUEUE => {
            let mut leaves = leaves(root, all).peekable();
            leaves.peek().is_some() && leaves.all(|leaf| self::kind(leaf) == FAIR)
        }
        _ => false,
    };
    if is_ours && kind == htb::TREE && htb::is_ours(root) {
        return RootQueue::OurTree;
    }
    match (is_fair, is_ours, root.header.handle.major) {
        (true, true, _) => RootQueue::OurFair,
        // `fq` as the kernel's own choice has room for a hundred packets of a flow: ours takes its place.
        (true, false, handle @ 1..) => RootQueue::Fair { handle },
        (true, false, 0) => RootQueue::Default {
            queues: leaves(root, all).count().max(1) as u16,
        },
        // Ours that somebody took apart is put together again.
        (false, true, _) | (false, false, 0) => RootQueue::Default {
            queues: match kind {
                MULTI_QUEUE => leaves(root, all).count().max(1) as u16,
                _ => 1,
            },
        },
        (false, false, major) => RootQueue::Configured {
            kind: kind.to_owned(),
            handle: major,
        },
    }
}

fn leaves<'a>(root: &TcMessage, all: &'a [TcMessage]) -> impl Iterator<Item = &'a TcMessage> {
    let (index, major) = (root.header.index, root.header.handle.major);
    all.iter().filter(move |it| {
        let parent = it.header.parent;
        it.header.index == index
            && parent != TcHandle::ROOT
            && parent.major == major
            && parent.minor != 0
    })
}

pub(super) fn kind(message: &TcMessage) -> &str {
    let mut attributes = message.attributes.iter();
    let kind = attributes.find_map(|attribute| match attribute {
        TcAttribute::Kind(kind) => Some(kind.as_str()),
        _ => None,
    });
    kind.unwrap_or(NO_QUEUE)
}

/// Puts `fq` in the place of the kernel's own choice, on each of the device's queues. What waits in the old one is
/// lost, as whenever a discipline is replaced.
///
/// # Errors
/// Where the kernel has no `fq`, or somebody configured another one meanwhile. Then everything is as it was.
pub async fn make_fair(netlink: &Handle, ifindex: u32, queues: u16) -> Result<()> {
    check_unconfigured(netlink, ifindex).await?;
    let made = if queues > 1 {
        make_fair_leaves(netlink, ifindex, queues).await
    } else {
        put(netlink, fair(ifindex, TcHandle::ROOT, handle(0))).await
    };
    if made.is_err()
        && let Err(error) = remove(netlink, ifindex).await
    {
        tracing::warn!("a part of a discipline is left: {error:#}");
    }
    made
}

/// # Errors
/// Where somebody configured a discipline.
pub(super) async fn check_unconfigured(netlink: &Handle, ifindex: u32) -> Result<()> {
    if let Some(RootQueue::Configured { kind, handle }) = roots(netlink).await?.get(&ifindex) {
        bail!("somebody configured {kind} {handle:x}: at its root");
    }
    Ok(())
}

/// Why the kernel would refuse `fq` on an interface whose discipline it chose itself, if it has none.
///
/// Asks for one with an option that is too short, which nothing but `fq` itself can find out, so nothing changes. Under
/// our handle the kernel would only say that there is another kind already.
pub async fn refusal(netlink: &Handle, ifindex: u32) -> Option<String> {
    let mut message = discipline(ifindex, TcHandle::ROOT, TcHandle::UNSPEC, FAIR);
    let too_short = TcOption::Other(DefaultNla::new(FQ_PACKETS, vec![0]));
    message
        .attributes
        .push(TcAttribute::Options(vec![too_short]));
    let error = put(netlink, message).await.err()?;
    let cause = error.downcast_ref::<std::io::Error>()?;
    (cause.raw_os_error() == Some(libc::ENOENT)).then(|| "this kernel has no fq".to_owned())
}

async fn make_fair_leaves(netlink: &Handle, ifindex: u32, queues: u16) -> Result<()> {
    put(
        netlink,
        discipline(ifindex, TcHandle::ROOT, handle(0), MULTI_QUEUE),
    )
    .await?;
    for queue in 1..=queues {
        put(netlink, fair(ifindex, handle(queue), TcHandle::UNSPEC)).await?;
    }
    Ok(())
}

/// Takes our discipline off; the kernel puts its own choice there again.
pub async fn remove(netlink: &Handle, ifindex: u32) -> Result<()> {
    let listed: Vec<TcMessage> = netlink
        .qdisc()
        .get()
        .index(ifindex.cast_signed())
        .execute()
        .try_collect()
        .await
        .map_err(cause)?;
    let is_ours = |it: &TcMessage| {
        it.header.index == ifindex.cast_signed()
            && it.header.parent == TcHandle::ROOT
            && it.header.handle.major == OURS
    };
    if !listed.iter().any(is_ours) {
        return Ok(());
    }
    let mut request = netlink.qdisc().del(ifindex.cast_signed());
    request.message_mut().header.parent = TcHandle::ROOT;
    request.message_mut().header.handle = handle(0);
    match request.execute().await {
        Err(error) if !is_absent(&error) => Err(cause(error))
            .with_context(|| format!("cannot remove our discipline from interface #{ifindex}")),
        _ => Ok(()),
    }
}

pub(super) const fn handle(minor: u16) -> TcHandle {
    TcHandle { major: OURS, minor }
}

fn fair(ifindex: u32, parent: TcHandle, handle: TcHandle) -> TcMessage {
    let limits = [
        (FQ_PACKETS, PACKETS_MAX),
        (FQ_FLOW_PACKETS, FLOW_PACKETS_MAX),
        (FQ_ORPHAN_MASK, ORPHAN_MASK),
        (FQ_HORIZON, HORIZON_US),
    ];
    let option = |(number, value): (u16, u32)| {
        TcOption::Other(DefaultNla::new(number, value.to_ne_bytes().to_vec()))
    };
    let mut message = discipline(ifindex, parent, handle, FAIR);
    let mut options: Vec<TcOption> = limits.into_iter().map(option).collect();
    options.push(TcOption::Other(DefaultNla::new(FQ_HORIZON_DROP, vec![0])));
    message.attributes.push(TcAttribute::Options(options));
    message
}

pub(super) fn discipline(
    ifindex: u32,
    parent: TcHandle,
    handle: TcHandle,
    kind: &str,
) -> TcMessage {
    let mut message = TcMessage::with_index(ifindex.cast_signed());
    message.header.parent = parent;
    message.header.handle = handle;
    message.attributes.push(TcAttribute::Kind(kind.to_owned()));
    message
}

/// rtnetlink's own request takes no options.
pub(super) async fn put(netlink: &Handle, message: TcMessage) -> Result<()> {
    let ifindex = message.header.index;
    let kind = kind(&message).to_owned();
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewQueueDiscipline(message));
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
    let mut answers = netlink.clone().request(request).map_err(cause)?;
    while let Some(answer) = answers.next().await {
        if let NetlinkPayload::Error(error) = answer.payload
            && error.code.is_some()
        {
            return Err(cause(rtnetlink::Error::NetlinkError(error)))
                .with_context(|| format!("cannot put {kind} on interface #{ifindex}"));
        }
    }
    Ok(())
}
