//! What can be seen of a running lab: counters of agents and kernels, and reachability.

pub mod drops;
pub mod metrics;
pub mod ping;
