//! A frame arrives at the node's underlay interface. XDP, run by the driver before the kernel makes a
//! packet of it.
//!
//! It only saves work: whatever it drops, `underlay_ingress` would drop, for the same reason. So it
//! asks the first of that program's questions, in the same order, and leaves everything else to it.

use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use slice_common::drop_reason::DropReason;

use crate::frame::Frame;
use crate::maps;
use crate::stage::{arrival, identity};
use crate::verdict::finish_frame;

// `frags`: drivers that spread large frames over several buffers take no other program.
#[xdp(frags)]
pub fn underlay_filter(context: XdpContext) -> u32 {
    let result = try_underlay_filter(Frame::new(&context));
    finish_frame(&context, result)
}

#[inline(always)]
fn try_underlay_filter(frame: Frame) -> Result<(), DropReason> {
    let Some(settings) = maps::settings() else {
        return Ok(());
    };
    // IPv4 for this node's tunnel port; everything else is the host's.
    let Some(outer) = arrival::for_tunnel(frame, &settings) else {
        return Ok(());
    };
    // From a peer, with our header.
    identity::peer(outer.source())?;
    let vni = arrival::read(frame, &outer)?;
    // Probes belong to no slice; the rest to one that lives here.
    if !vni.is_of_probes() {
        maps::slice(vni.slice_number()).ok_or(DropReason::UnknownSlice)?;
    }
    Ok(())
}
