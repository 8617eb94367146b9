//! From a validated configuration and the facts of the host to the state of the kernel: a function,
//! the same result for the same input.

mod classes;
mod outside;
mod policy;
mod ports;
mod tables;

pub use tables::{asked_by, compile, pods_without_mac};
