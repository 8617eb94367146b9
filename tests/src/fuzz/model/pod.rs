//! The pod's side: what it sends, and what reaches it from outside its slice.

use slice_common::address::{Address, Port};
use slice_common::drop_reason::DropReason;
use slice_common::layout::{Class, Direction, Endpoint, LocalEndpoint, OutsideWay, Path, Route};
use slice_common::wire::vxlan;

use super::conversation::{End, OUTSIDE, Talk, outside};
use super::read::{Ip, Kind, Quote, TCP, Transport, UDP};
use super::rewrite::{self, DESTINATION, SOURCE, Tunnel};
use super::underlay::is_by_stack;
use super::{Decision, Judgement, Model, Notes, has_room_for_tunnel};
use crate::fuzz::input::Input;
use crate::fuzz::tables::{HERE, VIA};
use crate::testrun::actors::PORT_OWNER;

const TUNNEL_BYTES: usize = 50;
/// What an answer repeats of the packet.
const QUOTED_BYTES: usize = 40;

/// Where a packet of a pod goes.
enum Target<'t> {
    Pod(&'t LocalEndpoint),
    Path(&'t Path, &'t Route),
}

/// A packet that a pod sent, read and found sound.
struct Sent<'a> {
    from: &'a Endpoint,
    to: &'a Route,
    ip: Ip<'a>,
    transport: Transport,
    quote: Option<Quote<'a>>,
    talk: Talk,
}

/// How a packet travels: its class, and the ports that choose its way over the underlay.
struct Travel {
    class: Class,
    ports: [u16; 2],
}

impl<'t> Model<'t> {
    pub(super) fn pod_egress(&mut self, input: &Input, notes: &mut Notes) -> Judgement {
        let tables = self.tables;
        let Some(pod) = tables.endpoint(input.device) else {
            return Ok(Decision::Untouched);
        };
        let Some(ip) = Ip::of_frame(&input.frame) else {
            return self.go_elsewhere(input, pod, notes);
        };
        let Some(route) = tables.route(pod.table, ip.destination()) else {
            self.may_leave(input, pod, ip, notes)?;
            self.ask_outside(input, pod, ip, notes);
            return Ok(Decision::Untouched);
        };
        notes.slice = pod.slice;
        if ip.source() != pod.pod_address.octets() {
            return Err(DropReason::SpoofedSource);
        }
        let transport = sound(ip, input.gso_bytes)?;
        let quote = quote(ip, transport)?;
        let target = self.target(pod, route, ip.destination())?;
        let sent = Sent {
            from: pod,
            to: route,
            ip,
            transport,
            quote,
            talk: talk(pod, route, ip, transport),
        };
        let travel = self.judge_sent(input, &sent, notes)?;
        match target {
            Target::Pod(to) => self.hand_over(input, &sent, travel, to, notes),
            Target::Path(path, route) => self.send_off(input, &sent, travel, (path, route), notes),
        }
    }

    /// A confined pod may ask who has an address, and nothing else that is no IPv4.
    fn go_elsewhere(&mut self, input: &Input, pod: &Endpoint, notes: &mut Notes) -> Judgement {
        if is_confined(pod) && input.frame[12..14] != ARP {
            notes.slice = pod.slice;
            return Err(DropReason::Confined);
        }
        Ok(Decision::Untouched)
    }

    /// Whether a confined pod may send this to the outside: to its node, as part of what others may
    /// begin, or to somebody named.
    fn may_leave(
        &mut self,
        input: &Input,
        pod: &Endpoint,
        ip: Ip,
        notes: &mut Notes,
    ) -> Result<(), DropReason> {
        if !is_confined(pod) || ip.fragment_offset() != 0 {
            return Ok(());
        }
        notes.slice = pod.slice;
        if !ip.is_whole() {
            return Err(DropReason::Malformed);
        }
        let transport = ip.transport().map_err(|_| DropReason::Confined)?;
        let to = ip.destination();
        let is_named = self.tables.names(
            pod.slice,
            OutsideWay::Out,
            transport.protocol,
            transport.ports[1],
            to,
        );
        let talk = outside(ip.source(), to, transport);
        let may_leave = self.tables.node_addresses.contains(&to)
            || match transport.kind {
                Kind::Segment | Kind::Complaint => true,
                Kind::Opening | Kind::Ping => is_named,
                Kind::Datagram => self.is_awaited(input, OUTSIDE, talk) || is_named,
                Kind::Pong => self.is_awaited(input, OUTSIDE, talk),
                Kind::LaterPart => false,
            };
        if may_leave {
            self.saw(input, "let out");
            Ok(())
        } else {
            Err(DropReason::Confined)
        }
    }

    /// Isolation lets answers in, so a pod's question to the outside is written down.
    fn ask_outside(&mut self, input: &Input, pod: &Endpoint, ip: Ip, notes: &mut Notes) {
        let is_own = ip.source() == pod.pod_address.octets();
        if !is_isolated(pod) || !is_own || ip.fragment_offset() != 0 || !ip.is_whole() {
            return;
        }
        if let Ok(transport) = ip.transport()
            && matches!(transport.kind, Kind::Datagram | Kind::Ping)
        {
            let talk = outside(ip.source(), ip.destination(), transport);
            self.note_question(input, OUTSIDE, talk, notes);
        }
    }

    fn target(
        &self,
        pod: &Endpoint,
        route: &'t Route,
        to: [u8; 4],
    ) -> Result<Target<'t>, DropReason> {
        if route.slice != pod.slice {
            return Err(DropReason::OtherSlice);
        }
        match route.kind {
            HERE => {
                let local = self.tables.local(pod.table, to);
                local.map(Target::Pod).ok_or(DropReason::NoEndpoint)
            }
            VIA => {
                let path = self.tables.path(route).ok_or(DropReason::NoPath)?;
                Ok(Target::Path(path, route))
            }
            _ => Err(DropReason::NoRoute),
        }
    }

    /// Whether the packet may go, and how. An error must be about a packet that its receiver sent to its
    /// sender, and goes where that was let pass, in its class. A later part follows the first.
    fn judge_sent(
        &mut self,
        input: &Input,
        sent: &Sent,
        notes: &mut Notes,
    ) -> Result<Travel, DropReason> {
        if sent.transport.kind == Kind::LaterPart {
            let first = self.first_part(input, sent.ip, sent.talk)?;
            return Ok(Travel {
                class: first.class,
                ports: [first.source_port, first.destination_port].map(u16::from_be),
            });
        }
        let to_itself = sent.talk.to.address == sent.from.slice_address.octets();
        let judged = match sent.quote {
            None => {
                if !to_itself {
                    self.may_talk(input, sent.talk, sent.transport.kind, notes)?;
                }
                sent.talk
            }
            Some(quote) => {
                check_quote(quote, sent.ip)?;
                let about = sent.talk.reversed(quote.protocol, quote.ports);
                if !to_itself {
                    self.may_be_told(input, about)?;
                }
                self.saw(input, "error told");
                about
            }
        };
        let class = self.class(input, judged, sent.from, sent.to);
        self.note_first_part(input, sent.ip, sent.talk, class, notes);
        Ok(Travel {
            class,
            ports: sent.transport.ports,
        })
    }

    /// To a pod on this node: both get the other's name at once.
    fn hand_over(
        &mut self,
        input: &Input,
        sent: &Sent,
        travel: Travel,
        to: &LocalEndpoint,
        notes: &mut Notes,
    ) -> Judgement {
        let own_name = sent.from.slice_address.octets();
        let mut frame = input.frame.clone();
        rewrite::map_address(&mut frame, 14, SOURCE, own_name);
        if let Some(quote) = sent.quote {
            let at = 14 + quote.offset;
            rewrite::map_quoted_address(&mut frame, at, DESTINATION, own_name);
            rewrite::map_quoted_address(&mut frame, at, SOURCE, to.pod_address.octets());
        }
        if is_by_stack(to) {
            rewrite::prove(&mut frame, sent.from.slice, travel.class.class);
            self.saw(input, "sent to the stack");
            return Ok(Decision::Redirected(frame));
        }
        rewrite::map_address(&mut frame, 14, DESTINATION, to.pod_address.octets());
        rewrite::address_frame(&mut frame, to.pod_mac);
        let bytes = sent.ip.total_bytes();
        notes.count(
            sent.from.cluster,
            travel.class.class,
            Direction::Local,
            bytes,
        );
        self.saw(input, "handed to a neighbour");
        Ok(Decision::Redirected(frame))
    }

    /// To another node: under the slice's name, of a size that fits, in the tunnel.
    fn send_off(
        &mut self,
        input: &Input,
        sent: &Sent,
        travel: Travel,
        (path, route): (&Path, &Route),
        notes: &mut Notes,
    ) -> Judgement {
        let class = travel.class;
        if !fits(sent.ip, input.gso_bytes, self.path_bytes(path)) {
            return self.too_big(input, sent, path);
        }
        has_room_for_tunnel(input)?;
        let own_name = sent.from.slice_address.octets();
        let mut frame = input.frame.clone();
        rewrite::map_address(&mut frame, 14, SOURCE, own_name);
        if let Some(quote) = sent.quote {
            rewrite::map_quoted_address(&mut frame, 14 + quote.offset, DESTINATION, own_name);
        }
        self.clamp(input, sent.ip, &mut frame, 14, path);
        let tunnel = Tunnel {
            from: path.local.octets(),
            to: path.remote.octets(),
            source_port: spread(own_name, sent.ip.destination(), travel.ports),
            destination_port: u16::from_be(path.port),
            tos: class.dscp << 2 | sent.ip.tos() & 3,
            slice: sent.from.slice,
            class: class.class,
        };
        let bytes = sent.ip.total_bytes();
        notes.count(route.cluster, class.class, Direction::Out, bytes);
        Ok(Decision::Tunnelled(rewrite::encapsulate(&frame, &tunnel)))
    }

    /// The sender is told which size fits, but nothing is said about an error or a later part (RFC 1122),
    /// nor to a pod that nothing can be delivered to yet.
    fn too_big(&mut self, input: &Input, sent: &Sent, path: &Path) -> Judgement {
        let reason = DropReason::TooBig;
        let own_name = sent.from.slice_address.octets();
        let Some(pod) = self.tables.local(sent.from.table, own_name) else {
            return Err(reason);
        };
        let is_silent = matches!(sent.transport.kind, Kind::Complaint | Kind::LaterPart);
        // Whoever says that so little will be cut says nothing that can be quoted.
        let is_short = sent.ip.present_bytes() < QUOTED_BYTES;
        if is_silent || is_short || sent.ip.has_options() {
            return Err(reason);
        }
        let mtu = self.path_bytes(path) - TUNNEL_BYTES;
        let mut answer = rewrite::too_big(&input.frame, sent.ip, mtu as u16);
        rewrite::address_frame(&mut answer, pod.pod_mac);
        self.saw(input, "told that it is too big");
        Ok(Decision::Answered(reason, answer))
    }

    /// A SYN, with or without ACK, must not ask for more than fits.
    pub(super) fn clamp(
        &mut self,
        input: &Input,
        ip: Ip,
        frame: &mut [u8],
        at: usize,
        path: &Path,
    ) {
        let largest = self.path_bytes(path) - TUNNEL_BYTES - 40;
        let tcp = at + ip.header_bytes();
        if ip.has_syn() && rewrite::lower_mss(frame, tcp, largest as u16) {
            self.saw(input, "largest segment lowered");
        }
    }

    pub(super) fn pod_ingress(&mut self, input: &Input, notes: &mut Notes) -> Judgement {
        let isolated = |pod: &&Endpoint| is_isolated(pod);
        let Some(pod) = self.tables.endpoint(input.device).filter(isolated) else {
            return Ok(Decision::Untouched);
        };
        if input.came_in_by == Some(PORT_OWNER) {
            self.saw(input, "of the slice");
            return Ok(Decision::Untouched);
        }
        notes.slice = pod.slice;
        match input.frame.get(12..14) {
            Some([0x81, 0x00] | [0x88, 0xa8]) => {
                self.saw(input, "tagged");
                return Err(DropReason::Isolated);
            }
            Some([0x08, 0x00]) => {}
            Some(ethertype) if is_confined(pod) && *ethertype != ARP => {
                return Err(DropReason::Isolated);
            }
            _ => return Ok(Decision::Untouched),
        }
        let ip = Ip::of_frame(&input.frame).ok_or(DropReason::Malformed)?;
        if !self.is_guarded(input, pod, ip) {
            return Ok(Decision::Untouched);
        }
        if !ip.is_whole() {
            return Err(DropReason::Malformed);
        }
        match ip.transport() {
            Ok(transport) if self.is_invited(input, pod, ip, transport) => Ok(Decision::Untouched),
            Ok(transport) if self.is_admitted(input, pod, ip, transport, notes) => {
                Ok(Decision::Untouched)
            }
            Err(DropReason::Malformed) => Err(DropReason::Malformed),
            Ok(_) | Err(_) => Err(DropReason::Isolated),
        }
    }

    /// Whatever is for the pod or for everybody, but not what the node itself made, and not parts of
    /// datagrams that are nothing without the first.
    fn is_guarded(&mut self, input: &Input, pod: &Endpoint, ip: Ip) -> bool {
        let is_for_a_group = input.frame[0] & 1 == 1;
        let is_for_the_pod = ip.destination() == pod.pod_address.octets();
        let is_from_the_node =
            input.came_in_by.is_none() && self.tables.node_addresses.contains(&ip.source());
        if is_for_the_pod && is_from_the_node {
            self.saw(input, "from the node");
        }
        let is_heard = is_for_a_group || is_taken_by(pod.pod_address.octets(), ip.destination());
        is_heard && ip.fragment_offset() == 0 && !is_from_the_node
    }

    /// Somebody who is named may begin; the pod's answer is written down.
    fn is_admitted(
        &mut self,
        input: &Input,
        pod: &Endpoint,
        ip: Ip,
        transport: Transport,
        notes: &mut Notes,
    ) -> bool {
        let begins = matches!(transport.kind, Kind::Opening | Kind::Datagram | Kind::Ping);
        let (protocol, port) = (transport.protocol, transport.ports[1]);
        let way = OutsideWay::In;
        let is_named = self
            .tables
            .names(pod.slice, way, protocol, port, ip.source());
        if !begins || !is_named {
            return false;
        }
        self.saw(input, "let in");
        if transport.kind != Kind::Opening {
            let talk = outside(ip.source(), ip.destination(), transport);
            self.note_question(input, OUTSIDE, talk, notes);
        }
        true
    }

    /// TCP without its SYN is harmless; the rest must answer the pod, or tell it what became of its own
    /// packet to the outside.
    fn is_invited(&mut self, input: &Input, pod: &Endpoint, ip: Ip, transport: Transport) -> bool {
        match transport.kind {
            Kind::Opening | Kind::Ping | Kind::LaterPart => false,
            Kind::Segment => true,
            Kind::Datagram | Kind::Pong => {
                let talk = outside(ip.source(), ip.destination(), transport);
                self.is_awaited(input, OUTSIDE, talk)
            }
            Kind::Complaint => {
                // Whatever else the quote is, the pod's stack will judge.
                let quoted = Ip::at(&input.frame, 14 + ip.header_bytes() + 8);
                let is_invited = quoted.is_some_and(|quoted| {
                    quoted.source() == pod.pod_address.octets()
                        && self.tables.route(pod.table, quoted.destination()).is_none()
                });
                if is_invited {
                    self.saw(input, "error heard");
                }
                is_invited
            }
        }
    }
}

/// Checks a packet that is to travel inside a slice.
pub(super) fn sound(ip: Ip, gso_bytes: u32) -> Result<Transport, DropReason> {
    // More than a header can say.
    if gso_bytes != 0 && ip.total_bytes() == 0 {
        return Err(DropReason::TooBig);
    }
    // What is cut into segments is cut by what is there.
    if !ip.is_whole() || gso_bytes != 0 && ip.total_bytes() != ip.present_bytes() {
        return Err(DropReason::Malformed);
    }
    let transport = if ip.fragment_offset() == 0 {
        ip.transport()?
    } else {
        Transport {
            protocol: ip.protocol(),
            kind: Kind::LaterPart,
            ports: [0, 0],
        }
    };
    if gso_bytes != 0 && (![TCP, UDP].contains(&transport.protocol) || ip.is_fragment()) {
        return Err(DropReason::GsoNotTcp);
    }
    Ok(transport)
}

/// An error is from the quoted packet's destination to its source, or made up.
pub(super) fn check_quote(quote: Quote, error: Ip) -> Result<(), DropReason> {
    let is_about_receiver = quote.ip.source() == error.destination();
    if is_about_receiver && quote.ip.destination() == error.source() {
        Ok(())
    } else {
        Err(DropReason::IcmpError)
    }
}

/// What the packet quotes, if it is an ICMP error.
pub(super) fn quote(ip: Ip<'_>, transport: Transport) -> Result<Option<Quote<'_>>, DropReason> {
    match transport.kind {
        Kind::Complaint => ip.quote().map(Some),
        _ => Ok(None),
    }
}

/// Whether a host takes a packet for itself: it is multicast, or for its address, or for the first or the
/// last address of any network that it may think it is in.
fn is_taken_by(own: [u8; 4], destination: [u8; 4]) -> bool {
    let (own, to) = (u32::from_be_bytes(own), u32::from_be_bytes(destination));
    let is_edge = |bits: u32| {
        let hosts = u32::MAX.checked_shr(bits).unwrap_or(0);
        to == own & !hosts || to == own | hosts
    };
    (224..240).contains(&destination[0]) || (0..=32).any(is_edge)
}

const ARP: [u8; 2] = [0x08, 0x06];

fn is_confined(pod: &Endpoint) -> bool {
    pod.flags & Endpoint::CONFINED != 0
}

fn is_isolated(pod: &Endpoint) -> bool {
    pod.flags & Endpoint::ISOLATED != 0
}

fn talk(pod: &Endpoint, route: &Route, ip: Ip, transport: Transport) -> Talk {
    Talk {
        slice: pod.slice,
        from: End {
            address: pod.slice_address.octets(),
            namespace: pod.namespace,
        },
        to: End {
            address: ip.destination(),
            namespace: route.namespace,
        },
        protocol: transport.protocol,
        ports: transport.ports,
    }
}

/// With the tunnel's headers on; of a segmentation-offload packet, its segments.
pub(super) fn fits(ip: Ip, gso_bytes: u32, path_bytes: usize) -> bool {
    let on_the_wire = if gso_bytes == 0 {
        ip.present_bytes()
    } else {
        let transport = match ip.protocol() {
            UDP => 8,
            _ => ip.tcp_header_bytes(),
        };
        ip.header_bytes() + transport + gso_bytes as usize
    };
    on_the_wire + TUNNEL_BYTES <= path_bytes
        && ip.present_bytes() + TUNNEL_BYTES <= usize::from(u16::MAX)
}

/// The tunnel's source port. A hash has no second truth; golden packets freeze it.
pub(super) fn spread(from: [u8; 4], to: [u8; 4], [own, other]: [u16; 2]) -> u16 {
    let address = Address::from_octets;
    let hash = vxlan::flow_hash(address(from), address(to), Port::new(own), Port::new(other));
    vxlan::source_port(hash).number()
}
