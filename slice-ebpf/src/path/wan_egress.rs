//! A tunnel packet of this node leaves by an uplink that slices share. `underlay_guard` calls this program
//! in its own place, where the agent says that there are terms.
//!
//! Probes have no slice: no terms are for them. Neither shaped nor charged, they must fit beside the contract: on
//! each path ten a second and as many answers, two of the ten as large as the path (docs/shaper.md).

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use slice_common::drop_reason::DropReason;

use crate::packet::Packet;
use crate::stage::{parse, shape, tunnel};
use crate::verdict::{Trace, Verdict, finish};

#[classifier]
pub fn wan_egress(context: TcContext) -> i32 {
    let mut trace = Trace::UNKNOWN;
    let result = try_wan_egress(Packet::new(&context), &mut trace);
    finish(&context, trace, result)
}

#[inline(always)]
fn try_wan_egress(packet: Packet, trace: &mut Trace) -> Result<Verdict, DropReason> {
    // A tunnel packet...
    let departing = match parse::candidate(packet) {
        Some(outer) => tunnel::departing(packet, &outer),
        None => None,
    };
    let Some(departing) = departing else {
        return Ok(Verdict::Untouched);
    };
    // ...of a slice that shares this uplink, to another cluster.
    let Some(terms) = shape::terms(packet, departing.vni) else {
        return Ok(Verdict::Untouched);
    };
    if shape::stays_in_cluster(&departing) {
        return Ok(Verdict::Untouched);
    }
    trace.slice = departing.vni.slice_number();
    // Its turn is known...
    let bytes = shape::bytes_on_link(packet);
    let Some(turn) = shape::turn(packet, terms, &departing, bytes) else {
        return Ok(Verdict::Untouched);
    };
    // ...and not too far away. Whoever sends too much is told, if it can be told.
    let is_marked = shape::tell_congestion(packet, &turn);
    shape::count(packet, &turn, is_marked)?;
    shape::keep_to_departure(packet, terms, &turn);
    Ok(Verdict::Untouched)
}
