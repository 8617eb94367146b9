//! A tunnel packet arrives. The node's underlay interface, TC ingress, after the kernel merged
//! segments (GRO).

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use slice_common::drop_reason::DropReason;
use slice_common::layout::{Class, Direction};
use slice_common::wire::vxlan;

use crate::maps;
use crate::packet::Packet;
use crate::stage::policy::Conversation;
use crate::stage::{
    count, deliver, fragment, icmp_error, identity, mapping, parse, policy, resolve, segment,
    tunnel,
};
use crate::verdict::{Trace, Verdict, finish};

#[classifier]
pub fn underlay_ingress(context: TcContext) -> i32 {
    let mut trace = Trace::UNKNOWN;
    let result = try_underlay_ingress(Packet::new(&context), &mut trace);
    finish(&context, trace, result)
}

#[inline(always)]
fn try_underlay_ingress(packet: Packet, trace: &mut Trace) -> Result<Verdict, DropReason> {
    // IPv4 for this node's tunnel port; everything else is the host's.
    let Some(outer) = parse::candidate(packet) else {
        return Ok(Verdict::Untouched);
    };
    let Some(settings) = maps::settings() else {
        return Ok(Verdict::Untouched);
    };
    if !tunnel::is_ours(packet, &outer, &settings) {
        return Ok(Verdict::Untouched);
    }
    // From a peer, with our header, for a slice that lives here.
    let peer = identity::peer(outer.source())?;
    let vni = tunnel::read(packet, &outer)?;
    let slice = maps::slice(vni.slice_number()).ok_or(DropReason::UnknownSlice)?;
    trace.slice = vni.slice_number();
    // It carries a whole IPv4 packet of a kind that we carry.
    let ip = tunnel::inner(packet)?;
    let headers = parse::slice_packet(packet, ip, tunnel::INNER_OFFSET)?;
    let quote = parse::quote(packet, &headers)?;
    let tos = tunnel::tos_after_pop(&outer, &ip)?;
    // The peer may speak for the inner source, in this slice.
    let from = identity::delivered_source(slice.table, ip.source(), vni.slice_number(), peer)?;
    // The inner destination is a pod of this node, in this slice.
    let pod = resolve::local_pod(slice.table, ip.destination(), vni.slice_number())?;
    let conversation = Conversation {
        slice: vni.slice_number(),
        source: ip.source(),
        source_namespace: from.namespace,
        destination: ip.destination(),
        destination_namespace: pod.namespace,
        transport: headers.transport,
    };
    // An error is judged as the packet that it quotes, which went the other way.
    let judged = match &quote {
        Some(quote) => {
            icmp_error::check(quote, ip.destination(), ip.source())?;
            conversation.reversed(quote.transport)
        }
        None => conversation,
    };
    // The two may talk: the far node asked the same question, and we do not rely on it.
    // A later fragment follows its first.
    let class = Class {
        class: vni.class().number(),
        ..Class::DEFAULT
    };
    if ip.is_later_fragment() {
        fragment::first_of(&conversation, &ip)?;
    } else {
        policy::judge(&judged)?;
        fragment::remember_first(&conversation, &ip, class);
    }
    // Out of the tunnel, under the name the pod knows for itself.
    let headers = tunnel::pop(packet, &headers, tos)?;
    if headers.tcp.negotiates()
        && let Some(path) = resolve::path_back(from)
    {
        segment::clamp_mss(packet, &headers, path)?;
    }
    mapping::map_destination(packet, &headers, pod.pod_address)?;
    if let Some(quote) = &quote {
        let ip_offset = quote.ip_offset - vxlan::OVERHEAD_BYTES;
        icmp_error::map_source(packet, quote, ip_offset, pod.pod_address)?;
    }
    let verdict = deliver::to_pod(packet, pod)?;
    let (slice, class) = (vni.slice_number(), class.class);
    count::traffic(&headers, slice, from.cluster, class, Direction::In);
    Ok(verdict)
}
