//! The lab library.

pub mod arguments;
pub mod bench;
pub mod chart;
pub mod child;
pub mod debian;
pub mod demo;
pub mod findings;
pub mod fuzz;
pub mod gateways;
pub mod guard;
pub mod harness;
pub mod json_file;
pub mod kafka;
pub mod lab;
pub mod live;
pub mod netns;
pub mod packet;
pub mod place;
pub mod probe;
pub mod relay;
pub mod replay;
pub mod testrun;
pub mod throughput;
pub mod traffic;
