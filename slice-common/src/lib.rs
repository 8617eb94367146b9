//! What the kernel programs, the agent and the tests must agree on: identifiers, the wire format,
//! the layouts of the maps, the reasons of drops, and the pure decisions made for each packet.
//!
//! Nothing here knows a kernel, a map, a clock or a socket: everything is a function of values, so
//! the same code is property-tested on the host and inlined into the kernel programs. The kernel
//! side sets the limits: no panic, no allocation, no 128-bit or signed division, no float.
#![cfg_attr(not(test), no_std)]

pub mod address;
pub mod branchless;
pub mod drop_reason;
pub mod health;
pub mod id;
pub mod layout;
pub mod path_mtu;
pub mod policy;
pub mod reply;
pub mod shaper;
pub mod wire;
