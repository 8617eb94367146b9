//! A tunnel packet got past the underlay interface's program and up into the device that owns the
//! tunnel's UDP port. The device is there for its receive offload; nothing may enter by it.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use slice_common::drop_reason::DropReason;

use crate::verdict::{Trace, finish};

#[classifier]
pub fn tunnel_ingress(context: TcContext) -> i32 {
    finish(&context, Trace::UNKNOWN, Err(DropReason::SlowPath))
}
