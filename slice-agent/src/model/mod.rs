//! The desired state of one node as plain values, independent of where it came from: as written
//! (`unchecked`), and checked (`Validated`, made by [`validate`] only).

mod blocks;
mod doubts;
mod error;
pub mod fields;
mod host;
mod isolation;
mod node;
mod qos;
mod remotes;
mod scalar;
mod slice;
pub mod unchecked;
mod validate;
mod validated;

pub use error::{ConfigError, Overlap, Place, Problem, render};
pub(crate) use host::{MTU_BYTES_MIN, ethernet, listed, pods_interface};
pub use host::{mismatches, unserved, validate_against};
pub(crate) use qos::shown as shown_rate;
pub use qos::{BitRate, PodMatch, QosProblem, Share, share};
pub(crate) use qos::{KnownPod, class_of};
pub(crate) use slice::{namespaces, sources};
pub use validate::validate;
pub use validated::{
    Action, Addressing, Delivery, EarlyDrop, Isolation, IsolationLevel, Labels, Lending,
    Namespaces, OutsideRule, Protocol, QosProfile, Rates, Rule, Shaper, Traffic, TrafficClassRule,
    Underlay, Validated, ValidatedBlock, ValidatedElsewhere, ValidatedEndpoint, ValidatedNode,
    ValidatedPeer, ValidatedRemote, ValidatedSlice, ValidatedUplink,
};
