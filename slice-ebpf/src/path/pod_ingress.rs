//! Something reaches a pod by its pod address. Host side of its veth, TC egress.
//!
//! Slice traffic comes this way only where the host's stack delivers it, and is known by the device that
//! it came from; else it is handed to the other end of the veth. So whoever else is seen here is outside
//! the slice.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use slice_common::drop_reason::DropReason;
use slice_common::layout::NewExchangesKey;
use slice_common::wire::ETHERNET_BYTES;

use crate::packet::Packet;
use crate::stage::{identity, integrity, outside, parse};
use crate::verdict::{Trace, Verdict, finish};

#[classifier]
pub fn pod_ingress(context: TcContext) -> i32 {
    let mut trace = Trace::UNKNOWN;
    let result = try_pod_ingress(Packet::new(&context), &mut trace);
    finish(&context, trace, result)
}

#[inline(always)]
fn try_pod_ingress(packet: Packet, trace: &mut Trace) -> Result<Verdict, DropReason> {
    // For a slice pod that its slice guards...
    let Some(endpoint) = identity::pod_behind(packet.ifindex()) else {
        return Ok(Verdict::Untouched);
    };
    if !outside::is_isolated(endpoint) {
        return Ok(Verdict::Untouched);
    }
    // (What the stack delivers for the slice was judged before it got it.)
    if outside::is_from_the_slice(packet) {
        return Ok(Verdict::Untouched);
    }
    trace.slice = endpoint.slice;
    // ...by IPv4; a tagged frame may hide it: the pod's stack takes priority tags off.
    if parse::is_tagged(packet) {
        return Err(DropReason::Isolated);
    }
    if !parse::is_untagged_ipv4(packet) {
        let may_enter = !outside::is_confined(endpoint) || outside::is_address_resolution(packet);
        return if may_enter {
            Ok(Verdict::Untouched)
        } else {
            Err(DropReason::Isolated)
        };
    }
    let ip = parse::header(packet, ETHERNET_BYTES).ok_or(DropReason::Malformed)?;
    // From anyone but the node itself (kubelet probes).
    if !outside::is_guarded(packet, endpoint, &ip) {
        return Ok(Verdict::Untouched);
    }
    ip.check(packet.len().saturating_sub(ETHERNET_BYTES))?;
    integrity::check(packet, &ip, ETHERNET_BYTES)?;
    // It answers the pod, is named as one who may begin, or tells what became of the pod's own packet.
    match parse::transport(packet, ip, ETHERNET_BYTES) {
        Ok(headers) if outside::is_invited(&headers) => Ok(Verdict::Untouched),
        Ok(headers) if outside::is_admitted(endpoint, &headers) => {
            outside::remember_question(&headers, &NewExchangesKey::at(packet.ifindex()))?;
            Ok(Verdict::Untouched)
        }
        Ok(headers) if outside::is_error(&headers) => {
            outside::check_error_quotes_pod(packet, &ip, ETHERNET_BYTES, endpoint)?;
            Ok(Verdict::Untouched)
        }
        Err(DropReason::Malformed) => Err(DropReason::Malformed),
        Ok(_) | Err(_) => Err(DropReason::Isolated),
    }
}
