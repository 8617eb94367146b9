//! The configuration as people write it: shapes only, no meaning. Values that can be wrong in a way
//! worth explaining stay text or plain numbers here, so that all mistakes are reported at once.
//!
//! Each field is described in `fields`; a test compares the two.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

/// One YAML document and where it was.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    pub file: Arc<str>,
    /// Counts from 1 within its file.
    pub number: usize,
    pub content: Content,
}

/// What the `kind` of a document may be.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    Node(NodeDocument),
    Slice(SliceDocument),
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeDocument {
    pub kind: String,
    pub cluster: String,
    pub name: String,
    pub underlay: UnderlayFields,
    #[serde(default)]
    pub endpoints: Vec<EndpointFields>,
    #[serde(default)]
    pub blocks: Vec<BlockFields>,
    #[serde(default)]
    pub peers: Vec<PeerFields>,
    pub gateway: Option<bool>,
    #[serde(default)]
    pub remotes: Vec<RemoteFields>,
    #[serde(default)]
    pub uplinks: Vec<UplinkFields>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UnderlayFields {
    pub address: String,
    pub interface: String,
    pub port: Option<u64>,
    pub early_drop: Option<String>,
    pub guarded: Option<Vec<String>>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EndpointFields {
    pub slice: String,
    pub namespace: String,
    pub name: String,
    pub interface: String,
    pub address: String,
    pub slice_address: String,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// A pod of another node.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ElsewhereFields {
    pub slice: String,
    pub namespace: String,
    pub name: String,
    pub slice_address: String,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BlockFields {
    pub slice: String,
    pub namespace: String,
    pub prefix: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PeerFields {
    pub cluster: String,
    pub name: String,
    pub underlay: String,
    pub mtu: Option<u64>,
    #[serde(default)]
    pub blocks: Vec<BlockFields>,
    #[serde(default)]
    pub endpoints: Vec<ElsewhereFields>,
    pub fellow: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RemoteFields {
    pub cluster: String,
    pub gateways: Vec<String>,
    #[serde(default)]
    pub blocks: Vec<BlockFields>,
    #[serde(default)]
    pub endpoints: Vec<ElsewhereFields>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UplinkFields {
    pub name: String,
    pub interface: String,
    pub rate: RateText,
    pub nodes: Option<u64>,
    pub shaper: Option<String>,
    pub lending: Option<LendingFields>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LendingFields {
    pub partners: Vec<String>,
    pub token_file: String,
}

/// `200M`, or bits per second as a number.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(
    untagged,
    expecting = "a rate is a quantity in bits per second (200M, 1.5G, 100Mi)"
)]
pub enum RateText {
    Number(u64),
    /// `2e8`, and what is wrong but can be shown: negative, or a fraction of a bit.
    Other(f64),
    Text(String),
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SliceDocument {
    pub kind: String,
    pub metadata: MetadataFields,
    pub id: u64,
    pub spec: SpecFields,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MetadataFields {
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SpecFields {
    pub addressing: AddressingFields,
    pub isolation: Option<IsolationFields>,
    pub policy: Option<PolicyFields>,
    pub qos: Option<QosFields>,
    pub encryption: Option<EncryptionFields>,
    pub accept_plaintext: Option<bool>,
    pub delivery: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AddressingFields {
    pub mode: String,
    #[serde(default)]
    pub ranges: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IsolationFields {
    pub level: String,
    #[serde(default)]
    pub from_outside: Vec<OutsideFields>,
    #[serde(default)]
    pub to_outside: Vec<OutsideFields>,
    pub dns: Option<Vec<String>>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OutsideFields {
    pub addresses: Vec<String>,
    pub ports: Option<Vec<TrafficFields>>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyFields {
    pub default_action: Option<String>,
    #[serde(default)]
    pub rules: Vec<RuleFields>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuleFields {
    pub name: String,
    pub action: String,
    pub from: Vec<String>,
    pub to: Vec<String>,
    pub ports: Option<Vec<TrafficFields>>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrafficFields {
    pub protocol: String,
    pub port: Option<PortText>,
}

/// `9092` or `9090-9092`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(
    untagged,
    expecting = "a port is a number (9092) or a range (9090-9092)"
)]
pub enum PortText {
    Number(i64),
    Text(String),
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QosFields {
    pub ceiling: Option<RatesFields>,
    pub slice_guarantee: Option<RatesFields>,
    #[serde(default)]
    pub classes: Vec<ClassFields>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a rate for every cluster, and others for some, as in {default: 200M, overrides: {west: 50M}}"
)]
pub struct RatesFields {
    pub default: RateText,
    #[serde(default)]
    pub overrides: BTreeMap<String, RateText>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClassFields {
    pub name: String,
    #[serde(rename = "match")]
    pub matches: Vec<MatchFields>,
    pub dscp: Option<u64>,
    pub guarantee_percent: Option<PercentText>,
    pub weight: Option<u64>,
    pub favour_interactive: Option<bool>,
}

/// `40`; what else people write (`40%`) is kept to be shown.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged, expecting = "a percentage is a number without a sign (40)")]
pub enum PercentText {
    Number(u64),
    Other(f64),
    Text(String),
}

/// Ports, or pods.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MatchFields {
    pub protocol: Option<String>,
    pub port: Option<PortText>,
    pub namespaces: Option<Vec<String>>,
    pub pod_labels: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EncryptionFields {
    pub mode: String,
}
