//! `htb` at the root of an uplink: the classes in which packets of slices wait.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use futures_util::{StreamExt as _, TryStreamExt as _};
use rtnetlink::Handle;
use rtnetlink::packet_core::{
    DefaultNla, Emitable as _, NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload, Nla as _, NlasIterator,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption, TcStats2};
use slice_common::layout::QueueClass;
use slice_common::shaper::{WireBytes, counted_bytes};
use slice_common::wire::ETHERNET_BYTES;

use super::netlink::cause;
use super::queueing::{self, handle};
use crate::image::{ClassTree, TreeClass};

pub(super) const TREE: &str = "htb";
const BYTES: &str = "bfifo";

// Attributes, from linux/pkt_sched.h and linux/rtnetlink.h.
const OPTIONS: u16 = 2;
const STAB_BASE: u16 = 1;
const STAB_DATA: u16 = 2;
const HTB_PARMS: u16 = 1;
const HTB_INIT: u16 = 2;
const HTB_RATE64: u16 = 6;
const HTB_CEIL64: u16 = 7;
const HTB_VERSION: u32 = 3;
/// Rates are bytes as they are counted, without tables of the kernel's.
const LINKLAYER_ETHERNET: u8 = 1;

/// Whether it is a tree as we make them.
pub(super) fn is_ours(root: &TcMessage) -> bool {
    let init = options(root).and_then(|bytes| attribute(&bytes, HTB_INIT));
    let others = init.as_deref().and_then(|bytes| word(bytes, 2));
    others == Some(u32::from(QueueClass::OthersLeaf.minor()))
}

/// The tree on an interface, by all disciplines of the host.
pub(super) async fn observe(
    netlink: &Handle,
    (ifindex, interface): (u32, &str),
    disciplines: &[TcMessage],
) -> Result<ClassTree> {
    let listed: Vec<TcMessage> = netlink
        .traffic_class(ifindex.cast_signed())
        .get()
        .execute()
        .try_collect()
        .await
        .map_err(cause)
        .with_context(|| format!("cannot list the classes of {interface}"))?;
    let here = || {
        let all = disciplines.iter();
        all.filter(|it| it.header.index == ifindex.cast_signed())
    };
    let mut rooms = BTreeMap::new();
    for leaf in here().filter(|it| it.header.parent.major == QueueClass::TREE) {
        if queueing::kind(leaf) == BYTES
            && let Some(room) = options(leaf).and_then(|bytes| word(&bytes, 0))
        {
            rooms.insert(leaf.header.parent.minor, room);
        }
    }
    let frame_bytes = here()
        .find(|it| it.header.parent == TcHandle::ROOT)
        .and_then(frame_bytes);
    let class = |it: &TcMessage| {
        let minor = it.header.handle.minor;
        Some((minor, read_class(it, rooms.get(&minor).copied())?))
    };
    Ok(ClassTree {
        interface: interface.to_owned(),
        frame_bytes: frame_bytes.unwrap_or(0),
        classes: listed.iter().filter_map(class).collect(),
        waiting: waiting(ifindex, disciplines),
    })
}

/// The classes of ours in which packets wait, by all disciplines of the host.
fn waiting(ifindex: u32, disciplines: &[TcMessage]) -> BTreeSet<u16> {
    let leaves = disciplines.iter().filter(|it| {
        it.header.index == ifindex.cast_signed() && it.header.parent.major == QueueClass::TREE
    });
    let waiting = leaves.filter(|it| packets(it) > 0);
    waiting.map(|it| it.header.parent.minor).collect()
}

fn packets(leaf: &TcMessage) -> u32 {
    let known = leaf.attributes.iter().find_map(|it| match it {
        TcAttribute::Stats2(parts) => parts.iter().find_map(|it| match it {
            TcStats2::Queue(queue) => Some(queue.qlen),
            _ => None,
        }),
        _ => None,
    });
    known.unwrap_or(0)
}

fn read_class(message: &TcMessage, room_bytes: Option<u32>) -> Option<TreeClass> {
    let options = options(message)?;
    let parameters = attribute(&options, HTB_PARMS)?;
    let long = |number| {
        let bytes = attribute(&options, number)?;
        Some(u64::from_ne_bytes(bytes.get(..8)?.try_into().ok()?))
    };
    let rate = |at, kind| Some(long(kind).unwrap_or(u64::from(word(&parameters, at)?)));
    let parent = message.header.parent;
    Some(TreeClass {
        parent: if parent == TcHandle::ROOT {
            0
        } else {
            parent.minor
        },
        rate_bytes_per_s: rate(2, HTB_RATE64)?,
        ceiling_bytes_per_s: rate(5, HTB_CEIL64)?,
        burst_ticks: word(&parameters, 6)?,
        ceiling_burst_ticks: word(&parameters, 7)?,
        quantum_bytes: word(&parameters, 8)?,
        priority: word(&parameters, 10)?,
        room_bytes,
    })
}

/// Puts the tree in the place of what stands at the root.
///
/// # Errors
/// Where the kernel has no `htb`. Then everything is as it was.
pub async fn build(netlink: &Handle, ifindex: u32, tree: &ClassTree) -> Result<()> {
    queueing::check_unconfigured(netlink, ifindex).await?;
    // What is left of ours there cannot be made another one.
    queueing::remove(netlink, ifindex).await?;
    let made = build_all(netlink, ifindex, tree).await;
    if made.is_err()
        && let Err(error) = queueing::remove(netlink, ifindex).await
    {
        tracing::warn!("a part of a discipline is left: {error:#}");
    }
    made
}

async fn build_all(netlink: &Handle, ifindex: u32, tree: &ClassTree) -> Result<()> {
    let mut root = queueing::discipline(ifindex, TcHandle::ROOT, handle(0), TREE);
    root.attributes.push(size_table(tree.frame_bytes));
    root.attributes.push(init());
    queueing::put(netlink, root).await?;
    for (minor, class) in &tree.classes {
        put_class(netlink, ifindex, *minor, class).await?;
    }
    Ok(())
}

/// Why the kernel would refuse a tree, if it has none: asks for one that lacks what it needs, so nothing changes.
pub async fn refusal(netlink: &Handle, ifindex: u32) -> Option<String> {
    let message = queueing::discipline(ifindex, TcHandle::ROOT, TcHandle::UNSPEC, TREE);
    let error = queueing::put(netlink, message).await.err()?;
    let cause = error.downcast_ref::<std::io::Error>()?;
    (cause.raw_os_error() == Some(libc::ENOENT)).then(|| "this kernel has no htb".to_owned())
}

/// Has packets counted by another size of frames, while they wait.
pub async fn put_frame(netlink: &Handle, ifindex: u32, frame_bytes: u32) -> Result<()> {
    let mut root = queueing::discipline(ifindex, TcHandle::ROOT, handle(0), TREE);
    root.attributes.push(size_table(frame_bytes));
    let message = RouteNetlinkMessage::NewQueueDiscipline(root);
    asked(netlink, message, 0)
        .await
        .with_context(|| format!("cannot change htb on interface #{ifindex}"))
}

/// Makes a class, or changes one in which packets may wait.
pub async fn put_class(
    netlink: &Handle,
    ifindex: u32,
    minor: u16,
    class: &TreeClass,
) -> Result<()> {
    let parent = match class.parent {
        0 => TcHandle::ROOT,
        minor => handle(minor),
    };
    let mut message = queueing::discipline(ifindex, parent, handle(minor), TREE);
    message
        .attributes
        .push(TcAttribute::Options(parameters(class)));
    let message = RouteNetlinkMessage::NewTrafficClass(message);
    asked(netlink, message, NLM_F_CREATE)
        .await
        .with_context(|| format!("cannot make class {minor:x} of interface #{ifindex}"))?;
    if let Some(room_bytes) = class.room_bytes {
        let mut leaf = queueing::discipline(ifindex, handle(minor), TcHandle::UNSPEC, BYTES);
        let limit = DefaultNla::new(OPTIONS, room_bytes.to_ne_bytes().to_vec());
        leaf.attributes.push(TcAttribute::Other(limit));
        queueing::put(netlink, leaf).await?;
    }
    Ok(())
}

/// Removes classes in which nothing waits. Nothing is sent to them any more, so others can be removed at another look.
pub(super) async fn trim(netlink: &Handle, ifindex: u32, classes: &[u16]) -> Result<()> {
    let busy = waiting(ifindex, &queueing::disciplines(netlink).await?);
    for minor in classes.iter().filter(|minor| !busy.contains(minor)) {
        let removed = remove_class(netlink, ifindex, *minor).await;
        // It may be above one that was left.
        if busy.is_empty() {
            removed?;
        }
    }
    Ok(())
}

/// Removes a class, with what waits in it.
pub async fn remove_class(netlink: &Handle, ifindex: u32, minor: u16) -> Result<()> {
    let mut message = TcMessage::with_index(ifindex.cast_signed());
    message.header.handle = handle(minor);
    let removed = asked(netlink, RouteNetlinkMessage::DelTrafficClass(message), 0).await;
    match removed {
        Err(error) if !is_gone(&error) => {
            Err(error).with_context(|| format!("cannot remove class {minor:x} of #{ifindex}"))
        }
        _ => Ok(()),
    }
}

fn is_gone(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<std::io::Error>();
    cause.and_then(std::io::Error::raw_os_error) == Some(libc::ENOENT)
}

async fn asked(netlink: &Handle, message: RouteNetlinkMessage, flags: u16) -> Result<()> {
    let mut request = NetlinkMessage::from(message);
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    let mut answers = netlink.clone().request(request).map_err(cause)?;
    while let Some(answer) = answers.next().await {
        if let NetlinkPayload::Error(error) = answer.payload
            && error.code.is_some()
        {
            return Err(cause(rtnetlink::Error::NetlinkError(error)));
        }
    }
    Ok(())
}

fn init() -> TcAttribute {
    let others = u32::from(QueueClass::OthersLeaf.minor());
    // Version, rate to quantum, default class, debug, packets past all classes.
    let words = [HTB_VERSION, 10, others, 0, 0];
    let init = DefaultNla::new(HTB_INIT, words.map(u32::to_ne_bytes).concat());
    TcAttribute::Options(vec![TcOption::Other(init)])
}

fn parameters(class: &TreeClass) -> Vec<TcOption> {
    let rates = [class.rate_bytes_per_s, class.ceiling_bytes_per_s];
    let mut bytes = Vec::new();
    for rate in rates {
        let short = u32::try_from(rate).unwrap_or(u32::MAX);
        bytes.extend([0, LINKLAYER_ETHERNET, 0, 0, 0, 0, 0, 0]);
        bytes.extend(short.to_ne_bytes());
    }
    let (level, words) = (
        0,
        [
            class.burst_ticks,
            class.ceiling_burst_ticks,
            class.quantum_bytes,
        ],
    );
    bytes.extend(words.into_iter().flat_map(u32::to_ne_bytes));
    bytes.extend(
        [level, class.priority]
            .into_iter()
            .flat_map(u32::to_ne_bytes),
    );
    let mut options = vec![DefaultNla::new(HTB_PARMS, bytes)];
    for (kind, rate) in [HTB_RATE64, HTB_CEIL64].into_iter().zip(rates) {
        options.push(DefaultNla::new(kind, rate.to_ne_bytes().to_vec()));
    }
    options.into_iter().map(TcOption::Other).collect()
}

/// What packets of four lengths in a row are counted as, in pairs of bytes: the kernel counts a packet in segments
/// (GSO) as its length, and the link carries more.
const CELL_BITS: u8 = 2;
const PAIR_BITS: u8 = 1;
const CELLS: u32 = 1 << (16 - CELL_BITS);

/// By how much lengths are raised, so that a full frame is the first of its cell.
const fn cell_align(frame: WireBytes) -> u32 {
    let full = (frame.count() + ETHERNET_BYTES).saturating_sub(slice_common::shaper::LINK_BYTES);
    full.wrapping_neg() & ((1 << CELL_BITS) - 1)
}

/// Not more than the link carries.
fn cells(frame: WireBytes) -> impl Iterator<Item = u16> {
    let align = cell_align(frame);
    (0..CELLS).map(move |cell| {
        let shortest = (cell << CELL_BITS).saturating_sub(align);
        let network_bytes = shortest.saturating_sub(ETHERNET_BYTES);
        let bytes = counted_bytes(network_bytes, frame).count();
        u16::try_from(bytes >> PAIR_BITS).unwrap_or(u16::MAX)
    })
}

fn size_table(frame_bytes: u32) -> TcAttribute {
    let frame = WireBytes::new(u64::from(frame_bytes));
    let align = cell_align(frame) as i16;
    let mut base = vec![CELL_BITS, PAIR_BITS];
    base.extend(align.to_ne_bytes());
    // Overhead, link layer, least size, what the kernel keeps for us, cells.
    let words = [0, u32::from(LINKLAYER_ETHERNET), 0, frame_bytes, CELLS];
    base.extend(words.into_iter().flat_map(u32::to_ne_bytes));
    let data: Vec<u8> = cells(frame).flat_map(u16::to_ne_bytes).collect();
    let parts = [
        DefaultNla::new(STAB_BASE, base),
        DefaultNla::new(STAB_DATA, data),
    ];
    let mut bytes = Vec::new();
    for part in parts {
        let mut buffer = vec![0; part.buffer_len()];
        part.emit(&mut buffer);
        bytes.extend(buffer);
    }
    TcAttribute::Stab(bytes)
}

fn frame_bytes(root: &TcMessage) -> Option<u32> {
    let stab = root.attributes.iter().find_map(|it| match it {
        TcAttribute::Stab(bytes) => Some(bytes),
        _ => None,
    })?;
    word(&attribute(stab, STAB_BASE)?, 4)
}

/// What a discipline or class says of itself, as bytes: the library knows none of ours.
fn options(message: &TcMessage) -> Option<Vec<u8>> {
    message.attributes.iter().find_map(|it| match it {
        TcAttribute::Options(options) => match options.first() {
            Some(TcOption::Other(whole)) => {
                let mut bytes = vec![0; whole.value_len()];
                whole.emit_value(&mut bytes);
                Some(bytes)
            }
            _ => None,
        },
        _ => None,
    })
}

fn attribute(bytes: &[u8], kind: u16) -> Option<Vec<u8>> {
    let mut attributes = NlasIterator::new(bytes).filter_map(Result::ok);
    let found = attributes.find(|it| it.kind() == kind)?;
    Some(found.value().to_vec())
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(4 * at..4 * at + 4)?;
    Some(u32::from_ne_bytes(four.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As the kernel looks it up (`__qdisc_calculate_pkt_len`), beyond the last cell too.
    fn looked_up(cells: &[u16], frame: WireBytes, length: u32) -> u32 {
        let cell = ((length + cell_align(frame)) >> CELL_BITS) as usize;
        let of = |cell: usize| u32::from(cells[cell]);
        let last = cells.len() - 1;
        let counted = match cell <= last {
            true => of(cell),
            false => of(last) * (cell / cells.len()) as u32 + of(cell % cells.len()),
        };
        counted << PAIR_BITS
    }

    proptest! {
        /// Never more, and at most a cell and the headers of one segment less.
        #[test]
        fn the_table_has_what_the_shaper_counts(mtu in 1280u32..=9000, length in 64u32..=65_500) {
            let frame = WireBytes::new(u64::from(mtu + slice_common::shaper::LINK_BYTES));
            let cells: Vec<u16> = cells(frame).collect();
            let wanted = counted_bytes(length - ETHERNET_BYTES, frame).count();
            let found = looked_up(&cells, frame, length);
            prop_assert!(found <= wanted);
            // A cell may end in a segment more than it begins in.
            prop_assert!(wanted - found <= 5 + 140, "{found} of {wanted}");
        }
    }

    #[test]
    fn full_frames_are_counted_as_they_are() {
        let frame = WireBytes::new(1538);
        let cells: Vec<u16> = cells(frame).collect();
        assert_eq!(looked_up(&cells, frame, 1514), 1538);
        // Ten segments of 1398 bytes, as one packet: to a cell.
        let ten = looked_up(&cells, frame, 14 + 102 + 10 * 1398);
        assert!((15_376..=15_380).contains(&ten), "{ten}");
    }
}
