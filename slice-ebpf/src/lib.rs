//! The kernel programs.
#![no_std]
#![allow(unreachable_pub, reason = "entry points are exported to the object, not to Rust callers")]

use aya_ebpf::{bindings::TC_ACT_UNSPEC, macros::classifier, programs::TcContext};

/// Leaves the packet to the next program.
#[classifier]
pub fn pod_egress(_ctx: TcContext) -> i32 {
    TC_ACT_UNSPEC
}
