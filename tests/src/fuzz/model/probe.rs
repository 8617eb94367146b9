//! Probes: what peers ask and answer, and what the node's own prober sends.

use slice_common::drop_reason::DropReason;
use slice_common::layout::Peer;

use super::read::{Ip, UDP};
use super::rewrite;
use super::underlay::{INNER, INNER_ETHERTYPE, VXLAN};
use super::{Decision, Judgement, Model, Notes};
use crate::fuzz::input::Input;
use crate::testrun::state::PathNote;

/// The slice number that no slice has.
pub(super) const PROBES: u32 = 0x1f_ffff;
const REQUEST: u8 = 1;
const ANSWER: u8 = 2;

impl Model<'_> {
    /// A probe of a peer, with headers as we write them.
    pub(super) fn probe(
        &mut self,
        input: &Input,
        outer: Ip,
        peer: &Peer,
        notes: &mut Notes,
    ) -> Judgement {
        let (kind, nonce) = body(input)?;
        if kind == REQUEST {
            notes.path = Some((peer.path, PathNote::Reflected));
            self.saw(input, "probe answered");
            return Ok(Decision::Tunnelled(answer(&input.frame, outer)));
        }
        let answered = self.answered.get(&peer.path).copied().unwrap_or(0);
        let sent = self.sent_at(peer.path, nonce);
        let Some(sent) = sent.filter(|sent| *sent > answered) else {
            return Err(DropReason::BadProbe);
        };
        self.answered.insert(peer.path, sent);
        notes.path = Some((peer.path, PathNote::Answered));
        self.saw(input, "probe came back");
        Ok(Decision::Taken)
    }

    /// Whether an unmarked packet to a tunnel is the prober's own.
    pub(super) fn own_probe(&mut self, input: &Input, outer: Ip, offset: usize) -> Judgement {
        let is_ours = offset == 14
            && !outer.has_options()
            && outer.header_bytes() == 20
            && !outer.is_fragment()
            && outer.source() == self.tables.settings.underlay_address.octets();
        let is_probe = match input.frame.get(VXLAN..VXLAN + 8) {
            Some(&[8, 0, 0, 0, a, b, c, 0]) => u32::from_be_bytes([0, a, b, c]) >> 3 == PROBES,
            _ => false,
        };
        if !is_ours || !is_probe {
            return Err(DropReason::ForgedUnderlay);
        }
        let (kind, nonce) = body(input)?;
        let peer = self.tables.peer(outer.destination());
        let is_sent = peer.is_some_and(|peer| self.sent_at(peer.path, nonce).is_some());
        if kind == REQUEST && is_sent {
            self.saw(input, "own probe");
            Ok(Decision::Untouched)
        } else {
            Err(DropReason::BadProbe)
        }
    }

    /// When the probe with this nonce was sent into a path.
    fn sent_at(&self, path: u32, nonce: u64) -> Option<u64> {
        let (_, probes) = self.tables.probes.iter().find(|(of, _)| *of == path)?;
        let sent = probes.sent.iter().find(|sent| sent.nonce == nonce)?;
        Some(sent.sent_ns)
    }
}

/// Kind and nonce.
fn body(input: &Input) -> Result<(u8, u64), DropReason> {
    let frame = &input.frame;
    if input.gso_bytes != 0 || frame.get(INNER_ETHERTYPE..INNER) != Some(&[0x88, 0xb5]) {
        return Err(DropReason::BadProbe);
    }
    match frame.get(INNER..INNER + 12) {
        Some(&[1, kind @ (REQUEST | ANSWER), 0, 0, a, b, c, d, e, f, g, h]) => {
            Ok((kind, u64::from_ne_bytes([a, b, c, d, e, f, g, h])))
        }
        _ => Err(DropReason::BadProbe),
    }
}

/// The same packet on its way back.
fn answer(frame: &[u8], outer: Ip) -> Vec<u8> {
    let (from, to) = (outer.destination(), outer.source());
    let total = outer.total_bytes() as u16;
    let mut out = frame.to_vec();
    out[14..34].copy_from_slice(&rewrite::ipv4(from, to, outer.tos(), UDP, total));
    out[40..42].fill(0);
    out[INNER + 1] = ANSWER;
    out
}
