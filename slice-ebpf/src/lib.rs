//! The kernel programs.
//!
//! | program | hook | question it answers |
//! |---|---|---|
//! | `pod_egress` | host side of a slice pod's veth, TC ingress | where does what the pod sends go? |
//! | `pod_ingress` | the same interface, TC egress | may this sender reach the pod by its pod address? |
//! | `underlay_ingress` | the node's underlay interface, TC ingress | whose tunnel packet is this, and for which pod? |
//! | `underlay_transit` | called by `underlay_ingress` on gateways | to which node does this tunnel packet go on? |
//! | `underlay_probe` | called by `underlay_ingress` | does a peer ask whether we are here, or answer? |
//! | `underlay_guard` | the same interface, TC egress | did our programs make this tunnel packet? |
//! | `wan_egress` | called by `underlay_guard` where slices share an uplink | when may this tunnel packet leave? |
//! | `underlay_filter` | the same interface, XDP, where its driver runs it | is it a tunnel packet that `underlay_ingress` would drop? |
//! | `tunnel_ingress` | the device that owns the tunnel's UDP port, TC ingress | which pod is this for, that our program let the kernel take out of the tunnel? |
//!
//! A packet's life is one file in `path/`, read from top to bottom: one step, one call. Steps live in
//! `stage/`, answer one question each and never call each other. Only `packet` (and `frame`, before there is
//! one) touches packet memory and only `verdict` ends a packet.
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics))]
#![cfg_attr(
    target_arch = "bpf",
    allow(
        internal_features,
        reason = "`core` has no atomic types for this target"
    )
)]
#![allow(
    unreachable_pub,
    reason = "entry points are exported to the object, not to Rust callers"
)]

mod clocks;
mod frame;
mod health;
mod maps;
mod packet;
pub mod path;
mod replies;
mod stage;
mod verdict;
