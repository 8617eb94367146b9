//! From a validated configuration and the facts of the host to the state of the kernel: a function,
//! the same result for the same input.

mod classes;
mod clocks;
mod delivery;
mod early_drop;
mod guarded;
mod node_addresses;
mod outside;
mod policy;
mod ports;
mod queues;
mod shaping;
mod tables;
mod trees;
mod uplink_queues;
mod ways;

pub use early_drop::{Obstacle, early_drop};
pub use node_addresses::left_out;
pub use shaping::{
    SharedCeiling, SliceShaping, beside_fellows, in_words, lending_in_words, shaping,
    shared_ceilings, shares,
};
pub use tables::{asked_by, compile, pods_without_mac};
pub use trees::tree as class_tree;
pub use uplink_queues::{UplinkQueue, uplink_queues};
