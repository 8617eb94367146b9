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
