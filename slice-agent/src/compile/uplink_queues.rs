//! What packets of slices wait in on each uplink, for people: what was chosen, why, and what was refused.

use std::fmt;

use slice_common::layout::{QueueClass, ShaperBackend};

use super::queues::{Choice, Ours, Reason, choose, shaped_uplinks};
use crate::image::{HostFacts, Interface, RootQueue};
use crate::model::{Shaper, Validated, ValidatedUplink};

/// What keeps packets to their time on an uplink that slices with a ceiling send by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UplinkQueue {
    /// As the node calls it.
    pub uplink: String,
    pub interface: String,
    pub backend: ShaperBackend,
    /// What stands at the root of the interface, as `tc` shows it; empty where the kernel chose.
    pub root: String,
    /// Who put it there: `kernel`, `agent` or `somebody`.
    pub owner: &'static str,
    /// What would be better, or was asked for, and cannot be had; empty where nothing was refused.
    pub refused: &'static str,
    /// Somebody asked for what was refused.
    pub is_against_wish: bool,
    /// Nothing waits at all.
    pub is_without: bool,
    /// In a sentence.
    pub why: String,
}

impl UplinkQueue {
    /// What `plan` and the log say, where packets do not wait as well as they might, or as was asked for.
    pub fn note(&self) -> Option<String> {
        let Self { interface, why, .. } = self;
        let what = if self.is_without { "NO QUEUE" } else { "QUEUE" };
        let is_refused = !self.refused.is_empty();
        is_refused.then(|| format!("{what}: on {interface}: {why}"))
    }
}

/// The line of `slice-agent status`.
impl fmt::Display for UplinkQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (uplink, interface) = (&self.uplink, &self.interface);
        write!(
            f,
            "uplink {uplink} on {interface}, {}",
            self.backend.label()
        )?;
        match self.refused {
            "" => write!(f, ": {}", self.why),
            refused => write!(f, " ({refused} refused): {}", self.why),
        }
    }
}

pub fn uplink_queues(configuration: &Validated, facts: &HostFacts) -> Vec<UplinkQueue> {
    let described = |(uplink, interface)| describe(uplink, interface, facts);
    shaped_uplinks(configuration, facts)
        .map(described)
        .collect()
}

fn describe(uplink: &ValidatedUplink, interface: &Interface, facts: &HostFacts) -> UplinkQueue {
    let choice = choose(uplink, interface, facts);
    let (root, owner) = shown(&interface.root_queue);
    let refused = match &choice.reason {
        None => "",
        Some(Reason::Configured) if uplink.shaper == Shaper::Htb => "htb",
        Some(Reason::Configured | Reason::NoFair(_)) => "fq",
        Some(Reason::Fair | Reason::NoTree(_)) => "htb",
        Some(Reason::Neither(..)) => "fq, htb",
    };
    UplinkQueue {
        uplink: uplink.name.clone(),
        interface: uplink.interface.clone(),
        backend: choice.backend,
        owner,
        refused,
        is_against_wish: !refused.is_empty() && uplink.shaper != Shaper::Auto,
        is_without: choice.ours.is_none(),
        why: match &choice.reason {
            Some(reason) => refusal(&uplink.interface, &root, reason, choice.ours.is_none()),
            None => as_it_is(uplink.shaper, &interface.root_queue, &root, &choice),
        },
        root,
    }
}

/// What stands there, and who put it there.
fn shown(root: &RootQueue) -> (String, &'static str) {
    let named = |kind: &str, handle: u16| format!("{kind} {handle:x}:");
    match root {
        RootQueue::Default { .. } => (String::new(), "kernel"),
        RootQueue::OurFair => (named("fq", QueueClass::TREE), "agent"),
        RootQueue::OurTree => (named("htb", QueueClass::TREE), "agent"),
        RootQueue::Fair { handle } => (named("fq", *handle), "somebody"),
        RootQueue::Configured { kind, handle } => (named(kind, *handle), "somebody"),
    }
}

const WITHOUT_QUEUE: &str = "what is early leaves at once, and what would wait too long is dropped";

/// Nothing was refused.
fn as_it_is(asked: Shaper, found: &RootQueue, root: &str, choice: &Choice) -> String {
    let wish = if asked == Shaper::Auto {
        ""
    } else {
        ", as asked for"
    };
    match (choice.backend, &choice.ours) {
        (ShaperBackend::Edt, _) => {
            let whose = if found.is_somebodys() {
                ", which somebody configured"
            } else {
                ""
            };
            format!("packets wait in {root}{whose}, until their departure{wish}")
        }
        (ShaperBackend::Htb, _) => format!("packets wait in classes of {root}{wish}"),
        (ShaperBackend::Vq, Some(Ours::Fair { .. })) => "fq is put there next".to_owned(),
        (ShaperBackend::Vq, Some(Ours::Tree)) => "htb is put there next".to_owned(),
        (ShaperBackend::Vq, None) if asked == Shaper::Vq => {
            format!("no queue{wish}; {WITHOUT_QUEUE}")
        }
        (ShaperBackend::Vq, None) => format!("{root} makes room for another queue next"),
    }
}

fn refusal(name: &str, root: &str, reason: &Reason, is_without: bool) -> String {
    let so = match is_without {
        true => WITHOUT_QUEUE,
        false => "packets wait in classes of htb",
    };
    match reason {
        Reason::Configured => format!(
            "somebody configured {root}, which stays; {so}; put fq there, or remove it \
             (`tc qdisc del dev {name} root`)"
        ),
        Reason::Fair => format!(
            "somebody configured {root}, which stays; {so}; ask for `shaper: Edt`, or remove it \
             (`tc qdisc del dev {name} root`)"
        ),
        Reason::NoFair(why) | Reason::NoTree(why) => format!("{why}; {so}"),
        Reason::Neither(fair, tree) => format!("{fair}, {tree}; {so}"),
    }
}
