//! The node agent as a library.

pub mod agent;
pub mod apply;
pub mod capability;
pub mod cli;
pub mod compile;
pub mod ebpf_object;
pub mod http;
pub mod image;
pub mod lending;
pub mod logging;
pub mod metrics;
pub mod model;
pub mod observe;
pub mod plan;
pub mod reference;
pub mod source;
