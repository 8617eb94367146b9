//! A pod sends. Host side of its veth, TC ingress.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use slice_common::drop_reason::DropReason;
use slice_common::layout::{Direction, Endpoint, Flow, NewExchangesKey, Settings};
use slice_common::policy::Ground;
use slice_common::wire::ETHERNET_BYTES;
use slice_common::wire::ipv4::Ipv4Header;

use crate::maps;
use crate::packet::{Packet, unknown_zero};
use crate::stage::parse::Headers;
use crate::stage::policy::Conversation;
use crate::stage::resolve::{Paths, Target};
use crate::stage::{
    answer, classify, count, deliver, detour, flow, fragment, icmp_error, identity, integrity,
    mapping, outside, parse, path_mtu, policy, resolve, segment, tunnel,
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
    // IPv4...
    let Some(ip) = parse::candidate(packet) else {
        return go_elsewhere(packet, trace);
    };
    let Some(settings) = maps::settings() else {
        return Ok(Verdict::Untouched);
    };
    // ...of a flow whose way is known, as most packets are, or one to be judged.
    let known = match recall(packet, ip, &settings) {
        Some((headers, flow)) => {
            trace.slice = flow.slice;
            integrity::check(packet, &ip, ETHERNET_BYTES)?;
            policy::begin_exchange(packet, flow.slice, flow.slice_source, &headers)?;
            Some((headers, flow))
        }
        None => judge(packet, ip, &settings, trace)?.map(|(headers, flow)| {
            let zero = unknown_zero(ip.identification() as u32);
            (headers.as_any(zero), flow.as_any(zero))
        }),
    };
    // It may go.
    match known {
        Some((headers, flow)) if flow.path_group == 0 => to_pod(packet, headers, &flow),
        Some((headers, flow)) => to_path(packet, headers, &flow, &settings),
        None => Ok(Verdict::Untouched),
    }
}

#[inline(always)]
fn recall(packet: Packet, ip: Ipv4Header, settings: &Settings) -> Option<(Headers, Flow)> {
    let headers = parse::follower(packet, ip, ETHERNET_BYTES)?;
    let flow = flow::recall(&flow::from_pod(packet, &headers), settings)?;
    Some((headers, flow))
}

/// Asks all questions about a packet; nothing when it is none of our business.
#[inline(always)]
fn judge(
    packet: Packet,
    ip: Ipv4Header,
    settings: &Settings,
    trace: &mut Trace,
) -> Result<Option<(Headers, Flow)>, DropReason> {
    // A slice pod sends...
    let Some(endpoint) = identity::pod_behind(packet.ifindex()) else {
        return Ok(None);
    };
    // ...to a slice address: else it is none of our business, but the answer may be.
    let Some(route) = resolve::route(endpoint.table, ip.destination()) else {
        go_outside(packet, endpoint, ip, trace)?;
        return Ok(None);
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
    let mut ground = None;
    let class = if ip.is_later_fragment() {
        // A later fragment follows its first.
        let first = fragment::first_of(&conversation, &ip)?;
        fragment::lend_ports(&mut headers, &first);
        first.class
    } else {
        // The two may talk; a pod may always talk to itself.
        if ip.destination() != endpoint.slice_address {
            ground = Some(policy::judge(&judged)?);
        }
        if ground == Some(Ground::ForwardRule) {
            policy::begin_exchange(packet, endpoint.slice, source, &headers)?;
        }
        let ends = [endpoint.class, route.class()];
        let class = classify::class(endpoint.slice, &judged.transport, ends);
        fragment::remember_first(&conversation, &ip, class);
        class
    };
    // What the pod quotes has a name of its own on the other side.
    if let Some(quote) = &quote {
        icmp_error::map_destination(packet, quote, quote.ip_offset, source)?;
        if let Target::Pod(pod) = target {
            icmp_error::map_source(packet, quote, quote.ip_offset, pod.pod_address)?;
        }
    }
    let flow = Flow {
        generation: settings.generation,
        slice: endpoint.slice,
        class,
        slice_source: source,
        ..Flow::UNDECIDED
    };
    let flow = match target {
        Target::Pod(pod) => Flow {
            cluster: endpoint.cluster,
            ..flow.to_pod(pod.door())
        },
        Target::Group(group, paths) => Flow {
            cluster: route.cluster,
            ..match paths {
                Paths::Only(path) => flow.by_path(group, path),
                Paths::Several => flow.by_group(group),
            }
        },
    };
    flow::keep(&flow::from_pod(packet, &headers), &headers, ground, &flow);
    Ok(Some((headers, flow)))
}

/// On this node: both names are mapped at once and no tunnel is needed.
#[inline(always)]
fn to_pod(packet: Packet, mut headers: Headers, flow: &Flow) -> Result<Verdict, DropReason> {
    headers.ip = mapping::map_source(packet, &headers, flow.slice_source)?;
    if flow.door().is_by_stack() {
        // As if it had come out of a tunnel.
        return detour::jump(packet, headers.ip, flow.slice, flow.class);
    }
    headers.ip = mapping::map_destination(packet, &headers, flow.door().pod_address)?;
    let verdict = deliver::to_pod(packet, headers.ip, flow.door())?;
    let class = flow.class.class;
    count::traffic(&headers, flow.slice, flow.cluster, class, Direction::Local);
    Ok(verdict)
}

/// On another node: sized, mapped, and put into the tunnel.
#[inline(always)]
fn to_path(
    packet: Packet,
    mut headers: Headers,
    flow: &Flow,
    settings: &Settings,
) -> Result<Verdict, DropReason> {
    let path = match flow.only_path() {
        Some(path) => path,
        None => *resolve::path_now(flow.path_group)?,
    };
    let mtu_bytes = path_mtu::effective_bytes(&path);
    if segment::check_size(&headers, mtu_bytes).is_err() {
        return tell_too_big(packet, &headers, mtu_bytes);
    }
    headers.ip = mapping::map_source(packet, &headers, flow.slice_source)?;
    if headers.tcp.negotiates() {
        segment::clamp_mss(packet, &headers, mtu_bytes)?;
    }
    tunnel::push(packet, &headers, flow.slice, flow.class, &path, settings)?;
    let class = flow.class.class;
    count::traffic(&headers, flow.slice, flow.cluster, class, Direction::Out);
    Ok(deliver::to_path(packet, &path))
}

/// Too big: the pod is told, as a router would tell it.
#[inline(always)]
fn tell_too_big(packet: Packet, headers: &Headers, mtu_bytes: u32) -> Result<Verdict, DropReason> {
    let endpoint = identity::pod_behind(packet.ifindex()).ok_or(DropReason::TooBig)?;
    let pod = resolve::pod_itself(endpoint).ok_or(DropReason::TooBig)?;
    let headers = parse::slice_packet(packet, headers.ip, ETHERNET_BYTES)?;
    answer::fragmentation_needed(packet, &headers, mtu_bytes)?;
    match deliver::as_written(packet, pod.door())? {
        Verdict::Redirected(code) => Ok(Verdict::Answered(DropReason::TooBig, code)),
        verdict => Ok(verdict),
    }
}

/// Not by IPv4: a slice has no say, but may confine the pod.
#[inline(always)]
fn go_elsewhere(packet: Packet, trace: &mut Trace) -> Result<Verdict, DropReason> {
    match identity::pod_behind(packet.ifindex()) {
        Some(pod) if outside::is_confined(pod) && !outside::is_address_resolution(packet) => {
            trace.slice = pod.slice;
            Err(DropReason::Confined)
        }
        _ => Ok(Verdict::Untouched),
    }
}

/// To somebody outside: a confined pod may do that only where something names them. Isolation lets answers
/// in, so the question is noted, if it is the pod's own. The packet itself is not touched.
#[inline(always)]
fn go_outside(
    packet: Packet,
    endpoint: &Endpoint,
    ip: Ipv4Header,
    trace: &mut Trace,
) -> Result<(), DropReason> {
    let is_confined = outside::is_confined(endpoint);
    let may_ask = outside::may_ask(packet, endpoint, &ip);
    if ip.is_later_fragment() || !is_confined && !may_ask {
        return Ok(());
    }
    trace.slice = endpoint.slice;
    if is_confined {
        ip.check(packet.len().saturating_sub(ETHERNET_BYTES))?;
        integrity::check(packet, &ip, ETHERNET_BYTES)?;
    }
    let headers = match parse::transport(packet, ip, ETHERNET_BYTES) {
        Ok(headers) => headers,
        Err(_) if is_confined => return Err(DropReason::Confined),
        Err(_) => return Ok(()),
    };
    if is_confined && !outside::may_leave(endpoint, &headers) {
        return Err(DropReason::Confined);
    }
    if may_ask {
        outside::remember_question(&headers, &NewExchangesKey::of(packet.ifindex()))?;
    }
    Ok(())
}
