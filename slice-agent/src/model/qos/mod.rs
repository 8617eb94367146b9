//! How slices share the links that their packets leave a cluster by: rates as written, and what can be
//! promised of them.

mod classes;
mod gateways;
mod lending;
mod pods;
mod problem;
mod rate;
mod share;
mod together;
mod uplinks;

pub(super) use classes::check as check_classes;
pub(super) use gateways::that_both_send as gateways_that_both_send;
pub(super) use lending::{
    check_partners, of_nothing as lending_of_nothing,
    that_send_elsewhere as partners_that_send_elsewhere,
};
pub use pods::PodMatch;
pub(crate) use pods::{KnownPod, class_of};
pub(super) use pods::{check_labels, check_pods, without_pods};
pub use problem::QosProblem;
pub use rate::BitRate;
pub(crate) use rate::shown;
pub use share::{Share, share};
pub(super) use together::{check as check_together, overrides_of_others};
pub(super) use uplinks::check as check_uplinks;
