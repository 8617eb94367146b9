//! A tunnel packet arrives. The node's underlay interface, TC ingress, after the kernel merged
//! segments (GRO).

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use slice_common::drop_reason::DropReason;
use slice_common::id::SliceId;
use slice_common::layout::{CalledProgram, Class, Direction, Flow, Settings};
use slice_common::policy::Ground;
use slice_common::wire::ipv4::Ipv4Header;

use crate::packet::Packet;
use crate::stage::parse::Headers;
use crate::stage::policy::Conversation;
use crate::stage::{
    count, deliver, detour, flow, fragment, icmp_error, identity, mapping, parse, path_mtu, policy,
    resolve, segment, tunnel,
};
use crate::verdict::{Trace, Verdict, finish};
use crate::{health, maps};

#[classifier]
pub fn underlay_ingress(context: TcContext) -> i32 {
    let mut trace = Trace::UNKNOWN;
    let result = try_underlay_ingress(Packet::new(&context), &mut trace);
    if let Ok(Verdict::CalledOn(program)) = result {
        // Does not come back, if the agent put the program there.
        maps::call(&context, program);
    }
    finish(&context, trace, result)
}

#[inline(always)]
fn try_underlay_ingress(packet: Packet, trace: &mut Trace) -> Result<Verdict, DropReason> {
    // IPv4 for this node's tunnel port; everything else is the host's, what routers say of our
    // packets too.
    let Some(outer) = parse::candidate_on_the_wire(packet) else {
        return Ok(Verdict::Untouched);
    };
    let Some(settings) = maps::settings() else {
        return Ok(Verdict::Untouched);
    };
    if !tunnel::is_ours(packet, &outer, &settings) {
        path_mtu::listen(packet, &outer, &settings);
        return Ok(Verdict::Untouched);
    }
    // A priority tag has told the switches what it had to.
    if packet.has_priority_tag() {
        packet.drop_tag()?;
    }
    // Of a flow whose way is known, as most packets are, or one to be judged.
    let (headers, tos, flow) = match recall(packet, &outer, &settings) {
        Some((headers, flow)) => {
            trace.slice = flow.slice;
            let tos = tunnel::tos_after_pop(&outer, &headers.ip)?;
            policy::expect_reply(flow.slice, flow.slice_source, &headers);
            health::note_heard(flow.proves());
            (headers, tos, flow)
        }
        None => {
            if let Some(program) = other_program(packet, &outer, &settings) {
                return Ok(Verdict::CalledOn(program));
            }
            judge(packet, &outer, &settings, trace)?
        }
    };
    hand_over(packet, &headers, tos, &flow)
}

/// Probes are for another program, and on a gateway packets for pods of other nodes; each asks all its
/// questions itself.
#[inline(always)]
fn other_program(packet: Packet, outer: &Ipv4Header, settings: &Settings) -> Option<CalledProgram> {
    let vni = tunnel::read(packet, outer).ok()?;
    if vni.slice_number() == SliceId::PROBES {
        return Some(CalledProgram::UnderlayProbe);
    }
    if settings.flags & Settings::GATEWAY == 0 {
        return None;
    }
    let slice = maps::slice(vni.slice_number())?;
    let ip = tunnel::inner(packet).ok()?;
    if resolve::is_elsewhere(slice.table, ip.destination()) {
        return Some(CalledProgram::UnderlayTransit);
    }
    None
}

#[inline(always)]
fn recall(packet: Packet, outer: &Ipv4Header, settings: &Settings) -> Option<(Headers, Flow)> {
    let vni = tunnel::read(packet, outer).ok()?;
    let ip = tunnel::inner(packet).ok()?;
    let headers = parse::follower(packet, ip, tunnel::INNER_OFFSET)?;
    let flow = flow::recall(&flow::from_peer(outer, vni, &headers), settings)?;
    Some((headers, flow))
}

/// Asks all questions about a tunnel packet.
#[inline(always)]
fn judge(
    packet: Packet,
    outer: &Ipv4Header,
    settings: &Settings,
    trace: &mut Trace,
) -> Result<(Headers, u8, Flow), DropReason> {
    // From a peer, with our header, for a slice that lives here.
    let peer = identity::peer(outer.source())?;
    let vni = tunnel::read(packet, outer)?;
    let slice = maps::slice(vni.slice_number()).ok_or(DropReason::UnknownSlice)?;
    trace.slice = vni.slice_number();
    // It carries a whole IPv4 packet of a kind that we carry.
    let ip = tunnel::inner(packet)?;
    let headers = parse::slice_packet(packet, ip, tunnel::INNER_OFFSET)?;
    let quote = parse::quote(packet, &headers)?;
    let tos = tunnel::tos_after_pop(outer, &ip)?;
    // The peer may speak for the inner source, in this slice.
    let from = identity::delivered_source(slice.table, ip.source(), vni.slice_number(), peer)?;
    let proves = health::watched_path(peer);
    health::note_heard(proves);
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
    let mut ground = None;
    if ip.is_later_fragment() {
        fragment::first_of(&conversation, &ip)?;
    } else {
        ground = Some(policy::judge(&judged)?);
        fragment::remember_first(&conversation, &ip, class);
    }
    if ground == Some(Ground::ForwardRule) {
        policy::expect_reply(vni.slice_number(), ip.source(), &headers);
    }
    if let Some(quote) = &quote {
        icmp_error::map_source(packet, quote, quote.ip_offset, pod.pod_address)?;
    }
    let flow = Flow {
        generation: settings.generation,
        slice: vni.slice_number(),
        cluster: from.cluster,
        class,
        slice_source: ip.source(),
        path_group: from.path_group,
        ..Flow::UNDECIDED.to_pod(pod.door()).proving(proves)
    };
    let key = flow::from_peer(outer, vni, &headers);
    flow::keep(&key, &headers, ground, &flow);
    Ok((headers, tos, flow))
}

/// Out of the tunnel, under the name the pod knows for itself.
#[inline(always)]
fn hand_over(
    packet: Packet,
    headers: &Headers,
    tos: u8,
    flow: &Flow,
) -> Result<Verdict, DropReason> {
    // The pod's answers go back by this group, and must fit its path.
    if headers.tcp.negotiates()
        && let Ok(path) = resolve::path_back(flow.path_group)
    {
        segment::clamp_mss(packet, headers, path_mtu::effective_bytes(path))?;
    }
    // Datagrams in segments, and what the host's stack delivers: the kernel's device takes them out, and
    // `tunnel_ingress` goes on.
    if headers.needs_detour() || flow.door().is_by_stack() {
        return detour::begin(packet, flow.slice, flow.class);
    }
    let mut headers = tunnel::pop(packet, headers, tos)?;
    headers.ip = mapping::map_destination(packet, &headers, flow.door().pod_address)?;
    let verdict = deliver::to_pod(packet, headers.ip, flow.door())?;
    let class = flow.class.class;
    count::traffic(&headers, flow.slice, flow.cluster, class, Direction::In);
    Ok(verdict)
}
