//! The one exit of every program: counts what was dropped and picks the return code.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::tcx_action_base::{TCX_DROP, TCX_NEXT, TCX_PASS, TCX_REDIRECT};
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::programs::{TcContext, XdpContext};
use aya_log_ebpf::debug;
use slice_common::drop_reason::DropReason;
use slice_common::layout::{CalledProgram, DropKey};

use crate::maps;
use crate::packet::Refused;

/// What a path decided.
#[derive(Clone, Copy)]
#[must_use]
pub(crate) enum Verdict {
    /// Not ours: the next program and the stack see the packet as it came.
    Untouched,
    /// The packet is judged, and the host's stack carries on with it.
    ToHost,
    /// It was for the programs themselves, and ends here.
    Taken,
    /// Another program of ours goes on; if it was not there, the packet ends.
    CalledOn(CalledProgram),
    /// A redirect helper's answer: the packet is on its way, or the helper refused.
    Redirected(i32),
    /// The packet was dropped for this reason, and became an answer to its sender that is on its way
    /// as above.
    Answered(DropReason, i32),
}

/// What was learnt before a packet ended: the slice that the drop is counted for.
#[derive(Clone, Copy)]
pub(crate) struct Trace {
    pub(crate) slice: u32,
}

impl Trace {
    pub(crate) const UNKNOWN: Self = Self { slice: 0 };
}

impl From<Refused> for DropReason {
    #[inline(always)]
    fn from(_: Refused) -> Self {
        DropReason::HelperFailed
    }
}

/// Ends a packet.
#[inline(always)]
pub(crate) fn finish(
    context: &TcContext,
    trace: Trace,
    result: Result<Verdict, DropReason>,
) -> i32 {
    let (reason, code) = match result {
        Ok(Verdict::Untouched) => return TCX_NEXT,
        Ok(Verdict::ToHost) => return TCX_PASS,
        Ok(Verdict::Taken) => return TCX_DROP,
        Ok(Verdict::Redirected(TCX_REDIRECT)) => return TCX_REDIRECT,
        Ok(Verdict::CalledOn(_)) => (DropReason::HelperFailed, TCX_DROP),
        Ok(Verdict::Redirected(_)) => (DropReason::HelperFailed, TCX_DROP),
        Ok(Verdict::Answered(reason, TCX_REDIRECT)) => (reason, TCX_REDIRECT),
        Ok(Verdict::Answered(reason, _)) | Err(reason) => (reason, TCX_DROP),
    };
    count(context, trace, reason);
    code
}

/// Ends a frame that the kernel has not yet made a packet of: dropped, or as it came.
#[inline(always)]
pub(crate) fn finish_frame(context: &XdpContext, result: Result<(), DropReason>) -> u32 {
    match result {
        Ok(()) => XDP_PASS,
        Err(reason) => {
            count(context, Trace::UNKNOWN, reason);
            XDP_DROP
        }
    }
}

#[inline(always)]
fn count(context: &impl EbpfContext, trace: Trace, reason: DropReason) {
    maps::count_drop(DropKey {
        slice: trace.slice,
        reason: reason.number() as u32,
    });
    debug!(
        context,
        "drop: slice {} reason {}",
        trace.slice,
        reason.number()
    );
}
