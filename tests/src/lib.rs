//! The lab library.

pub mod child;
pub mod kafka;
pub mod netns;
pub mod packet;
pub mod place;
pub mod testrun;
pub mod throughput;
pub mod traffic;
