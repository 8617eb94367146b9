//! The node agent as a library.

pub mod apply;
pub mod capability;
pub mod cli;
pub mod compile;
pub mod ebpf_object;
pub mod image;
pub mod model;
pub mod observe;
pub mod plan;
pub mod reference;
pub mod source;
