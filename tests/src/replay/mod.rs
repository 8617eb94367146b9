//! Hostile packets, live: what the generator makes is sent into real interfaces between real agents'
//! programs, and judged by the model of each node that it passes.
//!
//! Whoever could get a packet listens: every pod, to every frame. A packet must arrive where the model
//! says, byte for byte, and nowhere else; one that does not arrive must be counted as the model says.
//! The model believes what the nodes' maps say, so this is about the programs and the kernel around
//! them, with what a test run cannot make: real redirects, devices, receive offload, checksum state.

mod account;
mod cast;
mod crew;
mod journey;
mod stage;
mod tables;
mod tally;
mod turn;

pub use stage::{Stage, StageNode};
pub use tally::Tally;
pub use turn::{Replay, Sender};
