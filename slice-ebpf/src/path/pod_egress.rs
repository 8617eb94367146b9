//! A pod sends. Host side of its veth, TC ingress.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use slice_common::drop_reason::DropReason;
use slice_common::layout::{Class, Direction, Endpoint, LocalEndpoint, Path, Route};
use slice_common::wire::ETHERNET_BYTES;
use slice_common::wire::ipv4::Ipv4Header;

use crate::packet::Packet;
use crate::stage::parse::Headers;
use crate::stage::policy::Conversation;
use crate::stage::resolve::Target;
use crate::stage::{
    answer, classify, count, deliver, fragment, icmp_error, identity, integrity, mapping, outside,
    parse, policy, resolve, segment, tunnel,
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
    // It stays as it is, is whole, and of a kind that we carry.
    integrity::check(packet, &ip, ETHERNET_BYTES)?;
    let mut headers = parse::slice_packet(packet, ip, ETHERNET_BYTES)?;
    let quote = parse::quote(packet, &headers)?;
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
    // An error is judged as the packet that it quotes, which came the other way.
    let judged = match &quote {
        Some(quote) => {
            icmp_error::check(quote, ip.destination(), endpoint.pod_address)?;
            conversation.reversed(quote.transport)
        }
        None => conversation,
    };
    let class = if ip.is_later_fragment() {
        // A later fragment follows its first.
        let first = fragment::first_of(&conversation, &ip)?;
        fragment::lend_ports(&mut headers, &first);
        first.class
    } else {
        // The two may talk; a pod may always talk to itself.
        if ip.destination() != endpoint.slice_address {
            policy::judge(&judged)?;
        }
        let class = classify::class(endpoint.slice, &judged.transport);
        fragment::remember_first(&conversation, &ip, class);
        class
    };
    // What the pod quotes has a name of its own on the other side.
    if let Some(quote) = &quote {
        icmp_error::map_destination(packet, quote, quote.ip_offset, source)?;
    }
    let sent = Sent {
        endpoint,
        conversation,
        class,
        headers,
    };
    match target {
        Target::Pod(pod) => {
            if let Some(quote) = &quote {
                icmp_error::map_source(packet, quote, quote.ip_offset, pod.pod_address)?;
            }
            to_pod(packet, &sent, pod)
        }
        Target::Path(path) => to_path(packet, &sent, route, path),
    }
}

/// A packet that may go.
struct Sent<'a> {
    endpoint: &'a Endpoint,
    conversation: Conversation,
    class: Class,
    headers: Headers,
}

/// On this node: both names are mapped at once and no tunnel is needed.
#[inline(always)]
fn to_pod(packet: Packet, sent: &Sent, pod: &LocalEndpoint) -> Result<Verdict, DropReason> {
    let Sent { headers, .. } = sent;
    mapping::map_source(packet, headers, sent.conversation.source)?;
    mapping::map_destination(packet, headers, pod.pod_address)?;
    let verdict = deliver::to_pod(packet, pod)?;
    let endpoint = sent.endpoint;
    let (class, direction) = (sent.class.class, Direction::Local);
    count::traffic(headers, endpoint.slice, endpoint.cluster, class, direction);
    Ok(verdict)
}

/// On another node: mapped, sized, and put into the tunnel.
#[inline(always)]
fn to_path(packet: Packet, sent: &Sent, route: &Route, path: &Path) -> Result<Verdict, DropReason> {
    let Sent { headers, class, .. } = sent;
    let (slice, source) = (sent.conversation.slice, sent.conversation.source);
    if segment::check_size(headers, path).is_err() {
        return tell_too_big(packet, sent.endpoint, headers, path);
    }
    mapping::map_source(packet, headers, source)?;
    if headers.tcp.negotiates() {
        segment::clamp_mss(packet, headers, path)?;
    }
    tunnel::push(packet, headers, source, slice, *class, path)?;
    count::traffic(headers, slice, route.cluster, class.class, Direction::Out);
    Ok(deliver::to_path(packet, path))
}

/// Too big: the pod is told, as a router would tell it.
#[inline(always)]
fn tell_too_big(
    packet: Packet,
    endpoint: &Endpoint,
    headers: &Headers,
    path: &Path,
) -> Result<Verdict, DropReason> {
    let pod = resolve::pod_itself(endpoint).ok_or(DropReason::TooBig)?;
    answer::fragmentation_needed(packet, headers, path)?;
    match deliver::to_pod(packet, pod)? {
        Verdict::Redirected(code) => Ok(Verdict::Answered(DropReason::TooBig, code)),
        verdict => Ok(verdict),
    }
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
