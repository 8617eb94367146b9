//! A packet leaves the node. The node's underlay interface and every other one that leads out, TC egress.
//!
//! A pod's plain UDP packet to a peer's tunnel port gets the node's own address from the CNI's
//! masquerade, and the peer would take it for ours.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use slice_common::drop_reason::DropReason;
use slice_common::layout::CalledProgram;

use crate::maps;
use crate::packet::Packet;
use crate::stage::{integrity, parse, probe, resolve, tunnel};
use crate::verdict::{Trace, Verdict, finish};

#[classifier]
pub fn underlay_guard(context: TcContext) -> i32 {
    let mut trace = Trace::UNKNOWN;
    let result = try_underlay_guard(Packet::new(&context), &mut trace);
    if let Ok(Verdict::CalledOn(program)) = result {
        // Comes back where the program is missing: nobody keeps the ceiling then, but the packet is ours.
        maps::call(&context, program);
        return finish(&context, trace, Ok(Verdict::Untouched));
    }
    finish(&context, trace, result)
}

#[inline(always)]
fn try_underlay_guard(packet: Packet, trace: &mut Trace) -> Result<Verdict, DropReason> {
    let Some(settings) = maps::settings() else {
        return Ok(Verdict::Untouched);
    };
    // What the programs of this node put into the tunnel, when it is its turn...
    if tunnel::is_marked(packet, &settings) {
        return Ok(match settings.shapes() {
            true => Verdict::CalledOn(CalledProgram::WanEgress),
            false => Verdict::Untouched,
        });
    }
    // ...and what is no IPv4 may leave. Somebody else may take tags off.
    let Some((ip, offset)) = parse::behind_tags(packet) else {
        return Ok(Verdict::Untouched);
    };
    // Nobody else speaks to a tunnel, but the prober, by what nobody else can know.
    if tunnel::is_to_tunnel_port(packet, &ip, offset, &settings) {
        probe::check_own(packet, &ip, offset, &settings)?;
        return Ok(Verdict::Untouched);
    }
    // Nor does a packet become one behind us that only passes through this node, whatever it looks like now.
    if !packet.is_made_by_this_host() {
        integrity::check(packet, &ip, offset)?;
    }
    // Slice addresses are for the tunnel. The host's guard routes say so to what the host routes;
    // some CNIs send past its routing.
    if let Some(slice) = resolve::slice_elsewhere(ip.destination()) {
        trace.slice = slice;
        return Err(DropReason::BareSliceAddress);
    }
    Ok(Verdict::Untouched)
}
