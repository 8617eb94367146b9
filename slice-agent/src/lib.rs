//! The node agent as a library.

pub mod image;
pub mod plan;
