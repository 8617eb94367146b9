//! A packet comes out of the kernel device that owns the tunnel's UDP port. That device, TC ingress.
//!
//! `underlay_ingress` judged what it sends this way, and it sends what it cannot take out of the tunnel
//! itself and what the host's stack is to deliver; `pod_egress` sends the latter too. Anything else that
//! got into the device goes nowhere.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use slice_common::drop_reason::DropReason;
use slice_common::layout::{Direction, RouteKind};
use slice_common::wire::ETHERNET_BYTES;

use crate::maps;
use crate::packet::Packet;
use crate::stage::{count, deliver, detour, mapping, parse, resolve};
use crate::verdict::{Trace, Verdict, finish};

#[classifier]
pub fn tunnel_ingress(context: TcContext) -> i32 {
    let mut trace = Trace::UNKNOWN;
    let result = try_tunnel_ingress(Packet::new(&context), &mut trace);
    finish(&context, trace, result)
}

#[inline(always)]
fn try_tunnel_ingress(packet: Packet, trace: &mut Trace) -> Result<Verdict, DropReason> {
    // Sent this way by our own program, which said in which slice, and asked who may talk.
    let vni = detour::end(packet)?;
    let slice = maps::slice(vni.slice_number()).ok_or(DropReason::UnknownSlice)?;
    trace.slice = vni.slice_number();
    let ip = parse::candidate(packet).ok_or(DropReason::InnerNotIpv4)?;
    let mut headers = parse::slice_packet(packet, ip, ETHERNET_BYTES)?;
    // To the pod, under the name that it knows for itself.
    let pod = resolve::local_pod(slice.table, ip.destination(), vni.slice_number())?;
    let from = resolve::route(slice.table, ip.source()).ok_or(DropReason::WrongPeer)?;
    headers.ip = mapping::map_destination(packet, &headers, pod.pod_address)?;
    let verdict = if pod.door().is_by_stack() {
        deliver::to_stack(packet, headers.ip, pod.door())?
    } else {
        deliver::to_pod(packet, headers.ip, pod.door())?
    };
    let direction = match RouteKind::from_number(from.kind) {
        RouteKind::Local => Direction::Local,
        RouteKind::Via | RouteKind::Unreachable => Direction::In,
    };
    let (slice, class) = (vni.slice_number(), vni.class().number());
    count::traffic(&headers, slice, from.cluster, class, direction);
    Ok(verdict)
}
