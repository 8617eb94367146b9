//! A real Kafka cluster of three brokers, and clients that check every record.
//!
//! The order of use: [`Install::prepare`] fetches and verifies the jars, [`Cluster::start`] forms
//! the cluster in three places, [`Cluster::create_topic`] makes a topic, [`ClientProcess`] runs a
//! producer and a consumer as processes of their own in the pods that they belong to, and
//! [`compare`] says what became of every acknowledged record.

mod admin;
mod broker;
mod client;
mod cluster;
mod consume;
mod install;
mod java;
mod produce;
mod record;

pub use admin::{ClusterMetadata, PartitionState, TopicSpec};
pub use client::ClientProcess;
pub use cluster::{Cluster, ClusterOptions};
pub use consume::{ConsumeArgs, ConsumeReport};
pub use install::{Install, InstallError};
pub use produce::{ProduceArgs, ProduceReport};
pub use record::{Delivery, SequenceSet, Tally, compare};

/// The port of the KRaft controllers.
pub const CONTROLLER_PORT: u16 = 9090;
/// The port at which brokers fetch from each other.
pub const REPLICATION_PORT: u16 = 9091;
/// The port for producers and consumers.
pub const CLIENT_PORT: u16 = 9092;
