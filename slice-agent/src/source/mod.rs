//! Where configurations come from.

mod budget;
mod events;
pub mod file;
mod yaml;
