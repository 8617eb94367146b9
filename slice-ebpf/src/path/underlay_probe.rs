//! A probe arrives: from a peer that asks whether we are here, or with its answer. `underlay_ingress` calls
//! this program in its own place (see decision 012).

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use slice_common::drop_reason::DropReason;
use slice_common::wire::probe::Kind;

use crate::packet::Packet;
use crate::stage::{deliver, identity, parse, probe, tunnel};
use crate::verdict::{Trace, Verdict, finish};
use crate::{health, maps};

#[classifier]
pub fn underlay_probe(context: TcContext) -> i32 {
    let result = try_underlay_probe(Packet::new(&context));
    finish(&context, Trace::UNKNOWN, result)
}

#[inline(always)]
fn try_underlay_probe(packet: Packet) -> Result<Verdict, DropReason> {
    let outer = parse::candidate(packet).ok_or(DropReason::BadTunnelHeader)?;
    // From a peer, with our header.
    let settings = maps::settings().ok_or(DropReason::NoPath)?;
    let peer = identity::peer(outer.source())?;
    tunnel::read(packet, &outer)?;
    let body = probe::read(packet)?;
    match body.kind {
        // It asks: it gets its own packet back, as large as it was, and not too often.
        Kind::Request => {
            if !health::may_reflect(peer) {
                return Err(DropReason::ProbeLimit);
            }
            health::note_heard(health::watched_path(peer));
            probe::answer(packet, &outer)?;
            tunnel::mark(packet, &settings);
            Ok(Verdict::Redirected(deliver::back(packet)))
        }
        // It answers what we asked lately: the path is proven. Nothing answers an answer.
        Kind::Answer => {
            if !health::note_answer(peer.path, body.nonce, outer.total_bytes()) {
                return Err(DropReason::BadProbe);
            }
            health::note_heard(health::watched_path(peer));
            Ok(Verdict::Taken)
        }
    }
}
