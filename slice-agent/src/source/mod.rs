//! Where configurations come from.

mod budget;
mod events;
pub mod file;
pub mod settle;
mod yaml;
