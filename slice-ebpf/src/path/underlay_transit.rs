//! A tunnel packet arrives at a gateway and is for a pod of another node. `underlay_ingress` calls this
//! program in its own place, so that neither has to fit beside the other (see decision 012).
//!
//! The packet is never taken out of its tunnel: the outer header is written anew in place, so that what
//! the kernel knows about merged segments and checksums stays true.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use slice_common::drop_reason::DropReason;
use slice_common::id::Vni;
use slice_common::layout::{Class, Direction, Peer, Route, Settings};
use slice_common::wire::ipv4::Ipv4Header;

use crate::packet::Packet;
use crate::stage::answer::Message;
use crate::stage::parse::Headers;
use crate::stage::policy::Conversation;
use crate::stage::{
    answer, count, deliver, fragment, icmp_error, identity, parse, path_mtu, policy, resolve,
    segment, tunnel,
};
use crate::verdict::{Trace, Verdict, finish};
use crate::{health, maps};

#[classifier]
pub fn underlay_transit(context: TcContext) -> i32 {
    let mut trace = Trace::UNKNOWN;
    let result = try_underlay_transit(Packet::new(&context), &mut trace);
    finish(&context, trace, result)
}

#[inline(always)]
fn try_underlay_transit(packet: Packet, trace: &mut Trace) -> Result<Verdict, DropReason> {
    // From a peer, with our header, for a slice that lives here.
    let outer = parse::candidate(packet).ok_or(DropReason::BadTunnelHeader)?;
    let settings = maps::settings().ok_or(DropReason::NoPath)?;
    let peer = identity::peer(outer.source())?;
    let vni = tunnel::read(packet, &outer)?;
    let slice = maps::slice(vni.slice_number()).ok_or(DropReason::UnknownSlice)?;
    trace.slice = vni.slice_number();
    // It carries a whole IPv4 packet of a kind that we carry.
    let ip = tunnel::inner(packet)?;
    let headers = parse::slice_packet(packet, ip, tunnel::INNER_OFFSET)?;
    let quote = parse::quote(packet, &headers)?;
    // The peer may speak for the inner source, in this slice.
    let from = identity::delivered_source(slice.table, ip.source(), vni.slice_number(), peer)?;
    health::note_heard(health::watched_path(peer));
    // The inner destination is behind another node, in this slice.
    let route = resolve::onward(slice.table, ip.destination(), vni.slice_number())?;
    let conversation = Conversation {
        slice: vni.slice_number(),
        source: ip.source(),
        source_namespace: from.namespace,
        destination: ip.destination(),
        destination_namespace: route.namespace,
        transport: headers.transport,
    };
    // The two may talk, as far as one can tell who remembers nothing.
    let judged = match &quote {
        Some(quote) => {
            icmp_error::check(quote, ip.destination(), ip.source())?;
            conversation.reversed(quote.transport)
        }
        None => conversation,
    };
    if ip.is_later_fragment() {
        fragment::first_of(&conversation, &ip)?;
    } else {
        policy::judge_in_transit(&judged)?;
        fragment::remember_first(&conversation, &ip, Class::DEFAULT);
    }
    let arrived = Arrived {
        settings,
        peer,
        outer,
        vni,
        headers,
    };
    pass_on(packet, &arrived, route)
}

/// A tunnel packet that may go on.
struct Arrived<'a> {
    settings: Settings,
    peer: &'a Peer,
    outer: Ipv4Header,
    vni: Vni,
    headers: Headers,
}

/// Sends the packet on to where `route` leads.
#[inline(always)]
fn pass_on(packet: Packet, arrived: &Arrived, route: &Route) -> Result<Verdict, DropReason> {
    let Arrived { outer, headers, .. } = arrived;
    let path = resolve::path_on(route.path_group, arrived.peer)?;
    // Never back to where it came from, and not round for ever. Within the cluster only from a member to a
    // fellow, or from a fellow to a member.
    let is_one_side = path.is_to_fellow() == arrived.peer.is_fellow();
    if path.cluster == arrived.peer.cluster && is_one_side {
        return Err(DropReason::Loop);
    }
    if headers.ip.ttl() <= 1 {
        return tell(packet, arrived, DropReason::Ttl, Message::TimeExceeded);
    }
    // It fits the next path too, and so will the connection that it opens.
    let mtu_bytes = path_mtu::effective_bytes(path);
    if segment::check_size(headers, mtu_bytes).is_err() {
        let message = Message::fragmentation_needed(mtu_bytes);
        return tell(packet, arrived, DropReason::TooBig, message);
    }
    if headers.tcp.negotiates() {
        segment::clamp_mss(packet, headers, mtu_bytes)?;
    }
    tunnel::take_hop(packet, headers)?;
    tunnel::readdress(packet, outer, path)?;
    tunnel::mark(packet, &arrived.settings);
    let (slice, class) = (arrived.vni.slice_number(), arrived.vni.class().number());
    count::traffic(headers, slice, route.cluster, class, Direction::Transit);
    Ok(deliver::to_path(packet, path))
}

/// The pod that sent it is told, through the peer that it came from.
#[inline(always)]
fn tell(
    packet: Packet,
    arrived: &Arrived,
    reason: DropReason,
    message: Message,
) -> Result<Verdict, DropReason> {
    let Arrived { outer, headers, .. } = arrived;
    let port = arrived.settings.tunnel_port;
    answer::in_tunnel(packet, outer, (arrived.vni, port), headers, message).map_err(|_| reason)?;
    tunnel::mark(packet, &arrived.settings);
    Ok(Verdict::Answered(reason, deliver::back(packet)))
}
