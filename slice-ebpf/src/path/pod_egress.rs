//! A pod sends. Host side of its veth, TC ingress.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use slice_common::drop_reason::DropReason;
use slice_common::layout::{Direction, Endpoint, LocalEndpoint, Path, Route};
use slice_common::wire::ETHERNET_BYTES;
use slice_common::wire::ipv4::Ipv4Header;

use crate::packet::Packet;
use crate::stage::policy::Conversation;
use crate::stage::resolve::Target;
use crate::stage::{
    classify, count, deliver, identity, mapping, outside, parse, policy, resolve, segment, tunnel,
};
use crate::verdict::{Trace, Verdict, finish};

#[classifier]
pub fn pod_egress(context: TcContext) -> i32 {
    let mut trace = Trace::UNKNOWN;
    let result = try_pod_egress(Packet::new(&context), &mut trace);
    finish(&context, trace, result)
}

#[inline(always)]
fn try_pod_egress(packet: Packet, trace: &mut Trace) -> Result<Verdict, DropReason> {
    // A slice pod sends...
    let Some(endpoint) = identity::pod_behind(packet.ifindex()) else {
        return Ok(Verdict::Untouched);
    };
    // ...IPv4...
    let Some(ip) = parse::candidate(packet) else {
        return Ok(Verdict::Untouched);
    };
    // ...to a slice address: else it is none of our business, but the answer may be.
    let Some(route) = resolve::route(endpoint.table, ip.destination()) else {
        remember_question(packet, endpoint, ip);
        return Ok(Verdict::Untouched);
    };
    trace.slice = endpoint.slice;
    // It is who it says.
    let source = identity::slice_source(endpoint, ip.source())?;
    // It is whole, and of a kind that we carry.
    let headers = parse::slice_packet(packet, ip, ETHERNET_BYTES)?;
    let conversation = Conversation {
        slice: endpoint.slice,
        source,
        source_namespace: endpoint.namespace,
        destination: ip.destination(),
        destination_namespace: route.namespace,
        transport: headers.transport,
    };
    // Its destination is in the same slice, and somewhere.
    let target = resolve::target(endpoint.table, ip.destination(), endpoint.slice, route)?;
    // The two may talk; a pod may always talk to itself.
    if ip.destination() != endpoint.slice_address {
        policy::judge(&conversation)?;
    }
    match target {
        Target::Pod(pod) => to_pod(packet, endpoint, &conversation, &headers, pod),
        Target::Path(path) => to_path(packet, &conversation, &headers, route, path),
    }
}

/// On this node: both names are mapped at once and no tunnel is needed.
#[inline(always)]
fn to_pod(
    packet: Packet,
    endpoint: &Endpoint,
    conversation: &Conversation,
    headers: &parse::Headers,
    pod: &LocalEndpoint,
) -> Result<Verdict, DropReason> {
    let class = classify::class(conversation.slice, &headers.transport);
    mapping::map_source(packet, headers, conversation.source)?;
    mapping::map_destination(packet, headers, pod.pod_address)?;
    count::traffic(
        headers,
        conversation.slice,
        endpoint.cluster,
        class.class,
        Direction::Local,
    );
    deliver::to_pod(packet, pod)
}

/// On another node: mapped, sized, and put into the tunnel.
#[inline(always)]
fn to_path(
    packet: Packet,
    conversation: &Conversation,
    headers: &parse::Headers,
    route: &Route,
    path: &Path,
) -> Result<Verdict, DropReason> {
    let class = classify::class(conversation.slice, &headers.transport);
    segment::check_size(headers, path)?;
    mapping::map_source(packet, headers, conversation.source)?;
    segment::clamp_mss(packet, headers, path)?;
    tunnel::push(
        packet,
        headers,
        conversation.source,
        conversation.slice,
        class,
        path,
    )?;
    count::traffic(
        headers,
        conversation.slice,
        route.cluster,
        class.class,
        Direction::Out,
    );
    Ok(deliver::to_path(packet, path))
}

/// Isolation lets answers in, so the question is noted, if it is the pod's own. The packet itself is not
/// touched.
#[inline(always)]
fn remember_question(packet: Packet, endpoint: &Endpoint, ip: Ipv4Header) {
    if !outside::may_ask(packet, endpoint, &ip) {
        return;
    }
    if let Ok(headers) = parse::transport(packet, ip, ETHERNET_BYTES) {
        outside::remember_question(&headers);
    }
}
