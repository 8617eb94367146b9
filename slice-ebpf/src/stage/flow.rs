//! Was the same asked a moment ago?
//!
//! A flow's later packets get the answers of an earlier one from a cache. They are good while the
//! configuration's generation is the one that gave them. It is read before the first table is, and raised
//! after the last one is written, and once more after something was removed, so nothing that an old table said
//! counts for longer than a change takes.

use slice_common::id::Vni;
use slice_common::layout::{Flow, FlowKey, Settings};
use slice_common::policy::Ground;
use slice_common::wire::ipv4::Ipv4Header;
use slice_common::wire::vxlan;

use crate::maps;
use crate::packet::Packet;
use crate::stage::parse::Headers;

/// The key of what a pod sends.
#[inline(always)]
pub(crate) fn from_pod(packet: Packet, headers: &Headers) -> FlowKey {
    key(packet.ifindex(), 0, headers)
}

/// The key of what a peer delivers.
#[inline(always)]
pub(crate) fn from_peer(outer: &Ipv4Header, vni: Vni, headers: &Headers) -> FlowKey {
    key(outer.source().network_word(), vni.number(), headers)
}

/// What was decided for the flow.
#[inline(always)]
pub(crate) fn recall(key: &FlowKey, settings: &Settings) -> Option<Flow> {
    maps::flow(key).filter(|flow| flow.generation == settings.generation)
}

/// Keeps what was decided, if it may be and is worth it: from a flow's second packet on, so that those
/// who send one packet each push nobody out.
#[inline(always)]
pub(crate) fn keep(key: &FlowKey, headers: &Headers, ground: Option<Ground>, flow: &Flow) {
    let holds = ground.is_some_and(|ground| headers.transport.kind.keeps_verdict(ground));
    if !holds || headers.ip.is_fragment() {
        return;
    }
    let hash = vxlan::flow_hash(
        key.source,
        key.destination,
        headers.transport.source_port,
        headers.transport.destination_port,
    );
    if maps::was_sighted(key.sighting(hash)) {
        maps::set_flow(key, &flow.sealed(key));
    }
}

#[inline(always)]
fn key(entrance: u32, vni: u32, headers: &Headers) -> FlowKey {
    FlowKey {
        entrance,
        vni,
        source: headers.ip.source(),
        destination: headers.ip.destination(),
        source_port: headers.transport.source_port.network_word(),
        destination_port: headers.transport.destination_port.network_word(),
        protocol: headers.transport.protocol as u32,
    }
}
