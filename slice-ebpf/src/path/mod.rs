//! The lives of packets, one file each.

pub mod pod_egress;
pub mod pod_ingress;
pub mod tunnel_ingress;
pub mod underlay_filter;
pub mod underlay_guard;
pub mod underlay_ingress;
pub mod underlay_probe;
pub mod underlay_transit;
pub mod wan_egress;
