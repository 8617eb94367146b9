//! What is known of the paths: noted by packets, asked by packets that have a choice.

use slice_common::health::{self, Moment};
use slice_common::layout::{PathGroup, Peer};
use slice_common::wire::probe::BYTES_MIN;

use crate::maps;
use crate::packet::now_ns;

macro_rules! read {
    ($slot:expr, $field:ident) => {
        // SAFETY: the slot is a map's value, alive during this run; one aligned 64-bit load.
        unsafe { (&raw const (*$slot).$field).read_volatile() }
    };
}

macro_rules! write {
    ($slot:expr, $field:ident, $value:expr) => {
        // SAFETY: as for reading; a lost race is made up for by the next packet.
        unsafe { (&raw mut (*$slot).$field).write_volatile($value) }
    };
}

/// Which of the first `count` paths of a group a packet takes now. One is no choice, and costs nothing here.
/// `patience_ns` is that of a [`Moment`].
#[inline(always)]
pub(crate) fn choose(id: u32, group: &PathGroup, count: u32, patience_ns: u64) -> u32 {
    if count == 1 {
        return group.paths[0];
    }
    let now = now_ns();
    let moment = Moment::at(now, patience_ns);
    let (mut chosen, mut best, mut silent) = (group.paths[0], health::NO_PATH, 0);
    // To the end, whatever is found: the verifier walks all that follows once for every way out.
    for place in 0..PathGroup::PATHS_MAX {
        if place as u32 >= count {
            continue;
        }
        let path = group.paths[place];
        let preference = preference(path, place as u32, moment);
        silent = health::if_silent(preference, path, silent, moment);
        (chosen, best) = health::better((path, preference), (chosen, best), moment);
    }
    if !health::is_proven(best) {
        maps::count_unproven(id);
        if silent != 0 && !health::is_silent(best) {
            note_left(silent, now);
        }
    }
    note_sent(chosen, now);
    chosen
}

#[inline(always)]
fn preference(path: u32, place: u32, moment: Moment) -> u64 {
    let probes = match maps::probes(path) {
        Some(probes) => (probes.newest_ns, probes.since_ns),
        None => (0, 0),
    };
    health::preference(maps::path_health(path), probes, place, moment)
}

#[inline(always)]
fn note_sent(path: u32, now: u64) {
    let Some(slot) = maps::path_health_slot(path) else {
        return;
    };
    let (sent, since) = (read!(slot, sent_ns), read!(slot, sent_since_ns));
    if let Some((sent, since)) = health::renewed(sent, since, health::IDLE_NS, now) {
        let heard = read!(slot, heard_ns);
        write!(slot, sent_ns, sent);
        write!(
            slot,
            sent_since_ns,
            health::sending_since(heard, since, now)
        );
    }
}

/// A silent path is left for one that is worth a try.
#[inline(always)]
fn note_left(path: u32, now: u64) {
    let Some(slot) = maps::path_health_slot(path) else {
        return;
    };
    if let Some(sent) = health::left(read!(slot, sent_ns), now) {
        write!(slot, sent_ns, sent);
    }
}

/// The path that packets of this peer prove; 0: nobody chooses it.
#[inline(always)]
pub(crate) fn watched_path(peer: &Peer) -> u32 {
    if peer.flags & Peer::WATCHED == 0 {
        0
    } else {
        peer.path
    }
}

/// A valid packet came by the path, or by one that nobody chooses (0).
#[inline(always)]
pub(crate) fn note_heard(path: u32) {
    if path == 0 {
        return;
    }
    let Some(slot) = maps::path_health_slot(path) else {
        return;
    };
    let (heard, since) = (read!(slot, heard_ns), read!(slot, heard_since_ns));
    let renewed = health::renewed(heard, since, health::PATIENCE_NS, now_ns());
    if let Some((heard, since)) = renewed {
        write!(slot, heard_since_ns, since);
        write!(slot, heard_ns, heard);
    }
}

/// Whether an answer of this many bytes is one that the path waits for. Then the path is proven.
#[inline(always)]
pub(crate) fn note_answer(path: u32, nonce: u64, bytes: u32) -> bool {
    let (Some(probes), Some(slot)) = (maps::probes(path), maps::path_health_slot(path)) else {
        return false;
    };
    let answered = read!(slot, answered_sent_ns);
    let Some(sent_ns) = health::answered_probe(probes, nonce, answered) else {
        return false;
    };
    let now = now_ns();
    let (last, since) = (read!(slot, answered_ns), read!(slot, answered_since_ns));
    write!(
        slot,
        answered_since_ns,
        health::proven_since(last, since, now)
    );
    write!(slot, answered_ns, now);
    write!(slot, answered_sent_ns, sent_ns);
    write!(slot, rtt_ns, now.saturating_sub(sent_ns));
    if bytes > BYTES_MIN {
        write!(slot, full_bytes, bytes as u64);
        write!(slot, full_ns, now);
    }
    true
}

/// Whether a probe with this nonce was sent into the path lately.
#[inline(always)]
pub(crate) fn is_own_probe(path: u32, nonce: u64) -> bool {
    match maps::probes(path) {
        Some(probes) => health::answered_probe(probes, nonce, 0).is_some(),
        None => false,
    }
}

/// Whether one more probe of the peer may be answered in this second.
#[inline(always)]
pub(crate) fn may_reflect(peer: &Peer) -> bool {
    let Some(slot) = maps::path_health_slot(peer.path) else {
        return false;
    };
    let (second, count) = (read!(slot, reflected_second_ns), read!(slot, reflected));
    match health::reflected(second, count, now_ns()) {
        Some((second, count)) => {
            write!(slot, reflected_second_ns, second);
            write!(slot, reflected, count);
            true
        }
        None => false,
    }
}
