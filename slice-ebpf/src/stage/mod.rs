//! One file, one question. Stages never call each other: a path calls them in a packet's order.

pub(crate) mod answer;
pub(crate) mod arrival;
pub(crate) mod classify;
pub(crate) mod count;
pub(crate) mod deliver;
pub(crate) mod detour;
pub(crate) mod flow;
pub(crate) mod fragment;
pub(crate) mod icmp_error;
pub(crate) mod identity;
pub(crate) mod integrity;
pub(crate) mod mapping;
pub(crate) mod outside;
pub(crate) mod parse;
pub(crate) mod path_mtu;
pub(crate) mod policy;
pub(crate) mod probe;
pub(crate) mod resolve;
pub(crate) mod segment;
pub(crate) mod shape;
pub(crate) mod tunnel;
