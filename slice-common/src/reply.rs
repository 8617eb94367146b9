//! Which UDP or ICMP packet answers which, and how long an answer is welcome. Time is kernel time in
//! nanoseconds and an argument.

use crate::address::Address;
use crate::layout::ReplyKey;
use crate::wire::transport::{ICMP, Transport};

/// A reply is welcome this long after the last packet it answers.
pub const LIFETIME_NS: u64 = 60_000_000_000;

/// A record is written again only when this much of its life is gone, so that a busy flow costs a
/// lookup and not a write per packet.
pub const REFRESH_AFTER_NS: u64 = 5_000_000_000;

/// New exchanges that may begin at a pod in a second, in the long run: a sixteenth of what a node remembers.
pub const NEW_PER_SECOND: u64 = 8192;
/// New exchanges that may begin at once, after two seconds of none.
pub const NEW_AT_ONCE: u64 = 16_384;
const NEW_EVERY_NS: u64 = 1_000_000_000 / NEW_PER_SECOND;
const AHEAD_NS: u64 = (NEW_AT_ONCE - 1) * NEW_EVERY_NS;

/// Counts one more new exchange: when the next would be due at an even pace, or `None` if this one came too
/// early. `due_ns` is what the last one returned, 0 before the first.
#[inline(always)]
pub const fn begun(due_ns: u64, now_ns: u64) -> Option<u64> {
    if due_ns > now_ns.wrapping_add(AHEAD_NS) {
        return None;
    }
    let from_ns = if due_ns > now_ns { due_ns } else { now_ns };
    Some(from_ns.wrapping_add(NEW_EVERY_NS))
}

#[inline(always)]
pub const fn expiry_ns(now_ns: u64) -> u64 {
    now_ns.wrapping_add(LIFETIME_NS)
}

#[inline(always)]
pub const fn is_fresh(expiry_ns: u64, now_ns: u64) -> bool {
    now_ns < expiry_ns
}

/// Whether a record that expires at `expiry_ns` should be written again at `now_ns`.
#[inline(always)]
pub const fn wants_refresh(expiry_ns: u64, now_ns: u64) -> bool {
    expiry_ns < now_ns.wrapping_add(LIFETIME_NS - REFRESH_AFTER_NS)
}

/// The record that would let this packet pass as a reply.
#[inline(always)]
pub const fn key_of(
    scope: u32,
    source: Address,
    destination: Address,
    transport: &Transport,
) -> ReplyKey {
    ReplyKey {
        scope,
        source,
        destination,
        source_port: transport.source_port.network_word(),
        destination_port: transport.destination_port.network_word(),
        protocol: transport.protocol as u32,
    }
}

/// The record that lets the reply to this packet pass. An echo keeps its identifier both ways.
#[inline(always)]
pub const fn key_of_answer(
    scope: u32,
    source: Address,
    destination: Address,
    transport: &Transport,
) -> ReplyKey {
    let mut answer = *transport;
    if transport.protocol != ICMP {
        answer.source_port = transport.destination_port;
        answer.destination_port = transport.source_port;
    }
    key_of(scope, destination, source, &answer)
}
