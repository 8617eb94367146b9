//! Attaching by netlink filters, for kernels without TCX: a `clsact` qdisc with one filter of ours
//! per direction. Filters live by themselves, so priority and handle are what finds ours again.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result};
use aya::programs::tc::SchedClassifierLink;
use aya::programs::tc::{NlOptions, TcAttachOptions, TcHandle, qdisc_add_clsact};
use aya::programs::{Link as _, SchedClassifier, TcAttachType, TcError};
use futures_util::TryStreamExt as _;
use rtnetlink::Handle;
use rtnetlink::packet_route::tc::{
    TcAttribute, TcFilterBpfOption, TcHandle as PacketHandle, TcMessage, TcOption,
};

use super::netlink::{cause, is_absent};
use super::pins::{Pins, entries, escape, unescape};
use crate::image::{Attachment, Hook, Program};

/// Before every filter that leaves its priority to the kernel.
const PRIORITY: u16 = 1;
/// Ours among the filters of that priority.
const HANDLE: u32 = 0x51ce;

/// One of our filters.
#[derive(Debug)]
pub struct Filter {
    pub program: Program,
    pub program_id: u32,
}

/// Our filters on a device, in both directions.
pub async fn filters(netlink: &Handle, ifindex: u32) -> Result<Vec<Filter>> {
    let mut found = Vec::new();
    for message in all_filters(netlink, ifindex).await? {
        if is_ours(&message) {
            found.extend(parse(&message));
        }
    }
    Ok(found)
}

/// The filters that see packets on this hook before ours, each in words; none where ours is not.
/// The kernel lists filters in the order in which they run.
pub async fn before(netlink: &Handle, at: &Attachment) -> Result<Vec<String>> {
    let mut all = filters_on(netlink, at.ifindex, at.program.hook()).await?;
    all.retain(|message| !is_in_other_chain(message));
    let place = all.iter().position(is_ours);
    let before = &all[..place.unwrap_or(0)];
    Ok(before.iter().map(in_words).collect())
}

fn in_words(message: &TcMessage) -> String {
    let (mut kind, mut name) = (String::new(), String::new());
    for attribute in &message.attributes {
        match attribute {
            TcAttribute::Kind(text) => kind = text.escape_debug().to_string(),
            TcAttribute::Options(options) => {
                for option in options {
                    if let TcOption::Bpf(TcFilterBpfOption::ProgName(text)) = option {
                        name = format!(" {}", text.escape_debug());
                    }
                }
            }
            _ => {}
        }
    }
    let priority = message.header.info >> 16;
    format!("{kind} filter{name} of priority {priority}")
}

/// Only a filter of chain 0 can lead to another chain.
fn is_in_other_chain(message: &TcMessage) -> bool {
    let mut attributes = message.attributes.iter();
    attributes.any(|attribute| matches!(attribute, TcAttribute::Chain(chain) if *chain != 0))
}

/// Puts the program there, in place of the one it had if there is one: no packet sees none.
pub async fn attach(
    netlink: &Handle,
    pins: &Pins,
    classifier: &mut SchedClassifier,
    at: &Attachment,
) -> Result<()> {
    add_qdisc(pins, at)?;
    let present = filters(netlink, at.ifindex).await?;
    let direction = direction(at.program.hook());
    let link = if present.iter().any(|filter| filter.program == at.program) {
        classifier.attach_to_link(handle_of(at)?)
    } else {
        let options = NlOptions {
            priority: PRIORITY,
            handle: TcHandle::from(HANDLE),
            classid: None,
        };
        classifier.attach_with_options(&at.interface, direction, TcAttachOptions::Netlink(options))
    }?;
    // Dropping the link would remove the filter.
    std::mem::forget(classifier.take_link(link)?);
    Ok(())
}

/// Removes the filter, and with our last one the qdisc if it came from us and is empty.
pub async fn detach(netlink: &Handle, pins: &Pins, at: &Attachment) -> Result<()> {
    let present = filters(netlink, at.ifindex).await?;
    if present.iter().any(|filter| filter.program == at.program) {
        handle_of(at)?.detach()?;
    }
    remove_our_qdisc(netlink, pins, at.ifindex, &at.interface).await
}

/// Removes the qdisc if it came from us and has no filter any more.
pub async fn remove_our_qdisc(
    netlink: &Handle,
    pins: &Pins,
    ifindex: u32,
    interface: &str,
) -> Result<()> {
    let mark = mark(pins, ifindex, interface);
    if !mark.exists() || !all_filters(netlink, ifindex).await?.is_empty() {
        return Ok(());
    }
    let mut request = netlink.qdisc().del(ifindex.cast_signed());
    request.message_mut().header.parent = PacketHandle::CLSACT;
    match request.execute().await {
        Err(error) if !is_absent(&error) => {
            return Err(cause(error))
                .with_context(|| format!("cannot remove the clsact qdisc of {interface}"));
        }
        _ => {}
    }
    fs::remove_dir(&mark).with_context(|| format!("cannot remove the mark {}", mark.display()))
}

/// Removes the marks of devices that are gone.
pub fn forget_vanished(pins: &Pins, present: &BTreeSet<(u32, String)>) -> Result<()> {
    for (path, device) in marks(pins)? {
        if !present.contains(&device) {
            fs::remove_dir(&path)
                .with_context(|| format!("cannot remove the mark {}", path.display()))?;
        }
    }
    Ok(())
}

fn marks(pins: &Pins) -> Result<Vec<(std::path::PathBuf, (u32, String))>> {
    let mut marks = Vec::new();
    for path in entries(&pins.clsact())? {
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let parsed = name.as_deref().and_then(|name| name.split_once('-'));
        if let Some((ifindex, interface)) = parsed
            && let Ok(ifindex) = ifindex.parse()
        {
            marks.push((path.clone(), (ifindex, unescape(interface))));
        }
    }
    Ok(marks)
}

fn mark(pins: &Pins, ifindex: u32, interface: &str) -> std::path::PathBuf {
    pins.clsact()
        .join(format!("{ifindex}-{}", escape(interface)))
}

fn add_qdisc(pins: &Pins, at: &Attachment) -> Result<()> {
    match qdisc_add_clsact(&at.interface) {
        Ok(()) => {
            let path = mark(pins, at.ifindex, &at.interface);
            fs::create_dir_all(&path)
                .with_context(|| format!("cannot create the mark {}", path.display()))
        }
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        Err(error) => {
            Err(error).with_context(|| format!("cannot add a clsact qdisc to {}", at.interface))
        }
    }
}

fn handle_of(at: &Attachment) -> Result<SchedClassifierLink> {
    let direction = direction(at.program.hook());
    SchedClassifierLink::attached(
        &at.interface,
        direction,
        PRIORITY,
        TcHandle::from(HANDLE),
        None,
    )
    .with_context(|| format!("there is no interface {}", at.interface))
}

/// A driver's hook is not one of traffic control, but only receives as well.
pub fn direction(hook: Hook) -> TcAttachType {
    match hook {
        Hook::Ingress | Hook::Driver => TcAttachType::Ingress,
        Hook::Egress => TcAttachType::Egress,
    }
}

async fn all_filters(netlink: &Handle, ifindex: u32) -> Result<Vec<TcMessage>> {
    let mut found = filters_on(netlink, ifindex, Hook::Ingress).await?;
    found.extend(filters_on(netlink, ifindex, Hook::Egress).await?);
    Ok(found)
}

async fn filters_on(netlink: &Handle, ifindex: u32, hook: Hook) -> Result<Vec<TcMessage>> {
    let mut handle = netlink.traffic_filter(ifindex.cast_signed());
    let request = match hook {
        Hook::Ingress | Hook::Driver => handle.get().ingress(),
        Hook::Egress => handle.get().egress(),
    };
    let listed: Result<Vec<TcMessage>, _> = request.execute().try_collect().await;
    let mut found = match listed {
        Ok(messages) => messages,
        // No such device, or no clsact qdisc on it: no filters.
        Err(error) if is_absent(&error) || super::netlink::errno(&error) == Some(libc::EINVAL) => {
            Vec::new()
        }
        Err(error) => {
            return Err(cause(error))
                .with_context(|| format!("cannot list the filters of interface #{ifindex}"));
        }
    };
    // The kernel also lists one message per priority, without a filter in it.
    found.retain(|message| u32::from(message.header.handle) != 0);
    Ok(found)
}

fn is_ours(message: &TcMessage) -> bool {
    u32::from(message.header.handle) == HANDLE && message.header.info >> 16 == u32::from(PRIORITY)
}

fn parse(message: &TcMessage) -> Option<Filter> {
    let (mut program, mut program_id) = (None, None);
    for attribute in &message.attributes {
        let TcAttribute::Options(options) = attribute else {
            continue;
        };
        for option in options {
            match option {
                TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => {
                    program = Program::ALL.into_iter().find(|known| known.name() == name);
                }
                TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => program_id = Some(*id),
                _ => {}
            }
        }
    }
    Some(Filter {
        program: program?,
        program_id: program_id?,
    })
}
