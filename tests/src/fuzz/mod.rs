//! Hostile packets: random and mutated ones through every program, judged by a model of what the
//! programs should do ([`model`]): verdict, bytes, and what changed in the maps.
//!
//! Everything follows from a seed. A packet that is judged otherwise than the model says ends the run:
//! it is cut down to what matters, shown, and kept in the corpus, which every run replays first.

pub mod campaign;
mod command;
pub mod corpus;
pub mod coverage;
mod early_drop;
pub(crate) mod generate;
pub mod input;
mod kernel;
mod minimize;
pub mod model;
pub(crate) mod places;
pub mod random;
pub mod tables;

pub use campaign::{Campaign, Mismatch};
pub use command::FuzzArgs;
pub use tables::Tables;
