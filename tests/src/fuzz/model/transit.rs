//! What a gateway passes on between other nodes.

use slice_common::drop_reason::DropReason;
use slice_common::layout::{Class, Direction, Path, Peer};

use super::conversation::{End, Talk};
use super::pod::{check_quote, fits, quote, sound, spread};
use super::read::{Ip, Kind};
use super::rewrite::{self, Tunnel};
use super::underlay::INNER;
use super::{Decision, Judgement, Model, Notes};
use crate::fuzz::input::Input;

/// Of a packet that an answer is about.
const QUOTED_BYTES: usize = 40;

/// A tunnel packet on its way through.
pub(super) struct Passing<'a> {
    pub(super) peer: &'a Peer,
    pub(super) outer: Ip<'a>,
    pub(super) ip: Ip<'a>,
    pub(super) table: u32,
    pub(super) class: u8,
}

impl Model<'_> {
    pub(super) fn pass_on(
        &mut self,
        input: &Input,
        passing: &Passing,
        notes: &mut Notes,
    ) -> Judgement {
        let (ip, slice) = (passing.ip, notes.slice);
        let transport = sound(ip, input.gso_bytes)?;
        let quote = quote(ip, transport)?;
        let block = self.delivered_by(passing.peer, passing.table, slice, ip.source())?;
        let route = self.tables.route(passing.table, ip.destination());
        let route = route.ok_or(DropReason::NoRoute)?;
        if route.slice != slice {
            return Err(DropReason::WrongSlice);
        }
        let talk = Talk {
            slice,
            from: End {
                address: ip.source(),
                namespace: block.namespace,
            },
            to: End {
                address: ip.destination(),
                namespace: route.namespace,
            },
            protocol: transport.protocol,
            ports: transport.ports,
        };
        match quote {
            _ if transport.kind == Kind::LaterPart => drop(self.first_part(input, ip, talk)?),
            None => self.may_pass(talk, transport.kind)?,
            Some(quote) => {
                check_quote(quote, ip)?;
                let about = talk.reversed(quote.protocol, quote.ports);
                self.may_pass(about, Kind::Segment)?;
            }
        }
        if transport.kind != Kind::LaterPart {
            let class = Class {
                class: 0,
                dscp: 0,
                reserved: 0,
            };
            self.note_first_part(input, ip, talk, class, notes);
        }
        let path = self.tables.path(route).ok_or(DropReason::NoPath)?;
        let from_fellow = passing.peer.flags & Peer::FELLOW != 0;
        let to_fellow = path.flags & Path::TO_FELLOW != 0;
        if path.cluster == passing.peer.cluster && from_fellow == to_fellow {
            return Err(DropReason::Loop);
        }
        let told = |message| self::answer(input, self, passing, transport.kind, message);
        if ip.ttl() <= 1 {
            return told((DropReason::Ttl, [11, 0, 0, 0]));
        }
        let path_bytes = self.path_bytes(path);
        if !fits(ip, input.gso_bytes, path_bytes) {
            let mtu = (path_bytes as u16 - 50).to_be_bytes();
            return told((DropReason::TooBig, [3, 4, mtu[0], mtu[1]]));
        }
        let mut frame = input.frame.clone();
        self.clamp(input, ip, &mut frame, INNER, path);
        let hop = [ip.ttl() - 1, ip.protocol()];
        rewrite::set_half(&mut frame, INNER, 8, hop);
        readdress(&mut frame, passing.outer, path);
        let bytes = ip.total_bytes();
        notes.count(route.cluster, passing.class, Direction::Transit, bytes);
        self.saw(input, "passed on");
        Ok(Decision::Tunnelled(frame))
    }

    /// A gateway has no records: what opens an exchange needs its rule, and anything else a rule for
    /// either way.
    fn may_pass(&self, talk: Talk, kind: Kind) -> Result<(), DropReason> {
        let opens = matches!(kind, Kind::Opening | Kind::Ping);
        if self.has_rule(talk) || !opens && self.has_rule_for_other_way(talk) {
            Ok(())
        } else {
            Err(DropReason::PolicyDenied)
        }
    }
}

/// What the gateway tells the sender, back through the peer: type, code and the last two of four bytes.
/// Nothing about errors, later parts, packets with options and such as are shorter than a quote.
fn answer(
    input: &Input,
    model: &Model,
    passing: &Passing,
    kind: Kind,
    (reason, message): (DropReason, [u8; 4]),
) -> Judgement {
    let (outer, ip) = (passing.outer, passing.ip);
    let quoted = input.frame.get(INNER..INNER + QUOTED_BYTES);
    let Some(quoted) = quoted.filter(|_| !ip.has_options()) else {
        return Err(reason);
    };
    if matches!(kind, Kind::Complaint | Kind::LaterPart) {
        return Err(reason);
    }
    let vni = [input.frame[46], input.frame[47], input.frame[48]];
    let number = u32::from_be_bytes([0, vni[0], vni[1], vni[2]]);
    let tunnel = Tunnel {
        from: outer.destination(),
        to: outer.source(),
        source_port: spread(ip.destination(), ip.source(), [0, 0]),
        destination_port: u16::from_be(model.tables.settings.tunnel_port),
        tos: outer.tos() & 0xfc,
        slice: number >> 3,
        class: vni[2] & 7,
    };
    let told = rewrite::message(&input.frame[..14], ip, message, quoted);
    Ok(Decision::ToldInTunnel(
        reason,
        rewrite::encapsulate(&told, &tunnel),
    ))
}

/// A new outer header, and no checksum over the old one.
fn readdress(frame: &mut [u8], outer: Ip, path: &Path) {
    let (from, to) = (path.local.octets(), path.remote.octets());
    let total = outer.total_bytes() as u16;
    let header = rewrite::ipv4(from, to, outer.tos(), super::read::UDP, total);
    frame[14..34].copy_from_slice(&header);
    frame[40..42].fill(0);
}
