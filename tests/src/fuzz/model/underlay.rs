//! The underlay's side: what arrives in tunnels, and what leaves.

use slice_common::drop_reason::DropReason;
use slice_common::layout::{Class, Direction, LocalEndpoint, Peer, Route};

use super::conversation::{End, Talk};
use super::pod::{check_quote, quote, sound};
use super::probe::PROBES;
use super::read::{Ip, Kind, UDP, half};
use super::rewrite::{self, DESTINATION, SOURCE};
use super::transit::Passing;
use super::{Decision, Judgement, Model, Notes, has_room_for_tunnel};
use crate::fuzz::input::Input;
use crate::fuzz::tables::{HERE, VIA};
use crate::testrun::actors::{DETOUR_SECRET, NIC_MAC, TABLE};

pub(super) const VXLAN: usize = 42;
pub(super) const INNER_ETHERTYPE: usize = 62;
pub(super) const INNER: usize = 64;
const INNER_ETHERNET: usize = 50;

impl<'t> Model<'t> {
    pub(super) fn underlay_ingress(&mut self, input: &Input, notes: &mut Notes) -> Judgement {
        let Some(outer) = Ip::of_frame(&input.frame) else {
            return Ok(Decision::Untouched);
        };
        if !self.is_for_us(input, outer) {
            self.listen_to_routers(input, outer, notes);
            return Ok(Decision::Untouched);
        }
        let peer = self.tables.peer(outer.source());
        let peer = peer.ok_or(DropReason::UnknownPeer)?;
        let (slice, class) = network(&input.frame, outer)?;
        if slice == PROBES {
            return self.probe(input, outer, peer, notes);
        }
        let table = self.tables.slice(slice).ok_or(DropReason::UnknownSlice)?;
        let table = table.table;
        notes.slice = slice;
        let ip = inner(&input.frame)?;
        let onward = self.tables.route(table, ip.destination());
        if self.tables.settings.flags & 1 != 0 && onward.is_some_and(|it| it.kind == VIA) {
            let passing = Passing {
                peer,
                outer,
                ip,
                table,
                class,
            };
            return self.pass_on(input, &passing, notes);
        }
        let transport = sound(ip, input.gso_bytes)?;
        let quote = quote(ip, transport)?;
        let tos = tos_after(outer.tos(), ip.tos())?;
        let block = self.delivered_by(peer, table, slice, ip.source())?;
        let pod = self.local_pod(table, slice, ip.destination())?;
        let talk = Talk {
            slice,
            from: End {
                address: ip.source(),
                namespace: block.namespace,
            },
            to: End {
                address: ip.destination(),
                namespace: pod.namespace,
            },
            protocol: transport.protocol,
            ports: transport.ports,
        };
        match quote {
            _ if transport.kind == Kind::LaterPart => {
                self.first_part(input, ip, talk)?;
            }
            None => self.may_talk(input, talk, transport.kind, notes)?,
            Some(quote) => {
                check_quote(quote, ip)?;
                self.may_be_told(input, talk.reversed(quote.protocol, quote.ports))?;
                self.saw(input, "error heard");
            }
        }
        if transport.kind != Kind::LaterPart {
            let class = Class {
                class,
                dscp: 0,
                reserved: 0,
            };
            self.note_first_part(input, ip, talk, class, notes);
        }
        let mut frame = input.frame.clone();
        if let Some(path) = self.tables.path(block) {
            self.clamp(input, ip, &mut frame, INNER, path);
        }
        if let Some(quote) = quote {
            let at = INNER + quote.offset;
            rewrite::map_quoted_address(&mut frame, at, SOURCE, pod.pod_address.octets());
        }
        if is_by_stack(pod) || input.gso_bytes != 0 && ip.protocol() == UDP {
            rewrite::prove(&mut frame[INNER_ETHERNET..], slice, class);
            return Ok(Decision::LeftToHost(frame));
        }
        has_room_for_tunnel(input)?;
        let mut frame = rewrite::decapsulate(&frame);
        if tos != ip.tos() {
            self.saw(input, "congestion kept");
            rewrite::set_tos(&mut frame, 14, tos);
        }
        rewrite::map_address(&mut frame, 14, DESTINATION, pod.pod_address.octets());
        rewrite::address_frame(&mut frame, pod.pod_mac);
        notes.count(block.cluster, class, Direction::In, ip.total_bytes());
        Ok(Decision::Redirected(frame))
    }

    /// What this node judged, out of the kernel's device: known by a secret, and by nothing else.
    pub(super) fn tunnel_ingress(&mut self, input: &Input, notes: &mut Notes) -> Judgement {
        let Some(&[_, b, c, d]) = input
            .frame
            .strip_prefix(&DETOUR_SECRET)
            .and_then(|rest| rest.first_chunk())
        else {
            return Err(DropReason::SlowPath);
        };
        let vni = u32::from_be_bytes([0, b, c, d]);
        let (slice, class) = (vni >> 3, vni as u8 & 7);
        self.saw(input, "ours");
        let table = self.tables.slice(slice).ok_or(DropReason::UnknownSlice)?;
        let table = table.table;
        notes.slice = slice;
        let ip = Ip::of_frame(&input.frame).ok_or(DropReason::InnerNotIpv4)?;
        sound(ip, input.gso_bytes)?;
        let pod = self.local_pod(table, slice, ip.destination())?;
        let block = self.tables.route(table, ip.source());
        let block = block.ok_or(DropReason::WrongPeer)?;
        let mut frame = input.frame.clone();
        rewrite::map_address(&mut frame, 14, DESTINATION, pod.pod_address.octets());
        rewrite::address_frame(&mut frame, pod.pod_mac);
        let direction = if block.kind == HERE {
            self.saw(input, "from a neighbour");
            Direction::Local
        } else {
            Direction::In
        };
        notes.count(block.cluster, class, direction, ip.total_bytes());
        if is_by_stack(pod) {
            Ok(Decision::LeftToHost(frame))
        } else {
            Ok(Decision::Redirected(frame))
        }
    }

    /// The driver drops what is nothing but strangers' or noise; the rest is looked at later.
    pub(super) fn underlay_filter(&mut self, input: &Input) -> Judgement {
        let Some(outer) = Ip::of_frame(&input.frame).filter(|ip| self.is_for_us(input, *ip)) else {
            return Ok(Decision::Untouched);
        };
        if self.tables.peer(outer.source()).is_none() {
            return Err(DropReason::UnknownPeer);
        }
        match network(&input.frame, outer)?.0 {
            PROBES => self.saw(input, "probe"),
            slice if self.tables.slice(slice).is_some() => self.saw(input, "of a slice here"),
            _ => return Err(DropReason::UnknownSlice),
        }
        Ok(Decision::Untouched)
    }

    /// To this node's address and the tunnel's port, in a frame for this node.
    fn is_for_us(&self, input: &Input, outer: Ip) -> bool {
        outer.destination() == self.tables.settings.underlay_address.octets()
            && input.frame[..6] == NIC_MAC
            && self.is_for_a_tunnel(&input.frame, outer, 14)
    }

    /// UDP to the tunnel's port, as far as one look tells; later parts of datagrams have no ports.
    fn is_for_a_tunnel(&self, frame: &[u8], outer: Ip, offset: usize) -> bool {
        let port = offset + outer.header_bytes() + 2;
        outer.protocol() == UDP
            && outer.fragment_offset() == 0
            && frame.len() >= port + 2
            && half(frame, port) == u16::from_be(self.tables.settings.tunnel_port)
    }

    /// The block of an inner source, if this peer may speak for it in this slice.
    pub(super) fn delivered_by(
        &self,
        peer: &Peer,
        table: u32,
        slice: u32,
        source: [u8; 4],
    ) -> Result<&'t Route, DropReason> {
        let block = self.tables.route(table, source);
        let block = block.ok_or(DropReason::WrongPeer)?;
        if block.slice != slice {
            return Err(DropReason::WrongSlice);
        }
        let is_entitled = block.deliver_group == peer.group
            && block.deliver_members & peer.member != 0
            || peer.flags & Peer::FELLOW != 0 && block.kind == VIA;
        is_entitled.then_some(block).ok_or(DropReason::WrongPeer)
    }

    /// The pod that an inner destination belongs to, or why there is none.
    fn local_pod(
        &self,
        table: u32,
        slice: u32,
        destination: [u8; 4],
    ) -> Result<&'t LocalEndpoint, DropReason> {
        if let Some(pod) = self.tables.local(table, destination) {
            let is_in_slice = pod.slice == slice;
            return is_in_slice.then_some(pod).ok_or(DropReason::WrongSlice);
        }
        match self.tables.route(table, destination) {
            None => Err(DropReason::NoRoute),
            Some(block) if block.slice != slice => Err(DropReason::WrongSlice),
            Some(block) if block.kind == HERE => Err(DropReason::NoEndpoint),
            Some(block) if block.kind == VIA => Err(DropReason::NotLocal),
            Some(_) => Err(DropReason::NoRoute),
        }
    }

    /// Only our own packets leave for a tunnel, and nothing leaves bare for a slice address elsewhere.
    pub(super) fn underlay_guard(&mut self, input: &Input, notes: &mut Notes) -> Judgement {
        if input.mark == self.tables.settings.tunnel_mark {
            self.saw(input, "ours");
            self.wan_egress(input, notes);
            return Ok(Decision::Untouched);
        }
        let Some((ip, offset)) = Ip::behind_tags(&input.frame) else {
            return Ok(Decision::Untouched);
        };
        if offset > 14 {
            self.saw(input, "tagged");
        }
        if self.is_for_a_tunnel(&input.frame, ip, offset) {
            return self.own_probe(input, ip, offset);
        }
        match self.tables.route(TABLE, ip.destination()) {
            Some(route) if route.kind != HERE => {
                notes.slice = route.slice;
                Err(DropReason::BareSliceAddress)
            }
            Some(_) | None => Ok(Decision::Untouched),
        }
    }
}

/// Whether the host's stack delivers to a pod.
pub(super) fn is_by_stack(pod: &LocalEndpoint) -> bool {
    pod.flags & 1 != 0
}

/// Slice and class that the tunnel's headers name; they must be such as we write.
fn network(frame: &[u8], outer: Ip) -> Result<(u32, u8), DropReason> {
    let bad = DropReason::BadTunnelHeader;
    if !outer.is_whole() || outer.has_options() || outer.is_fragment() {
        return Err(bad);
    }
    match frame.get(VXLAN..VXLAN + 8) {
        Some(&[8, 0, 0, 0, a, b, c, 0]) => {
            let vni = u32::from_be_bytes([0, a, b, c]);
            Ok((vni >> 3, c & 7))
        }
        _ => Err(bad),
    }
}

/// The packet inside.
fn inner(frame: &[u8]) -> Result<Ip<'_>, DropReason> {
    match frame.get(INNER_ETHERTYPE..INNER) {
        Some([0x08, 0x00]) => Ip::at(frame, INNER).ok_or(DropReason::Malformed),
        Some(_) => Err(DropReason::InnerNotIpv4),
        None => Err(DropReason::BadTunnelHeader),
    }
}

/// The inner TOS after decapsulation (RFC 6040, figure 4).
fn tos_after(outer: u8, inner: u8) -> Result<u8, DropReason> {
    let ecn = match (inner & 3, outer & 3) {
        (0, 3) => return Err(DropReason::EcnNotCapable),
        (0, _) => 0,
        (_, 3) => 3,
        (2, 1) => 1,
        (own, _) => own,
    };
    Ok(inner & 0xfc | ecn)
}
