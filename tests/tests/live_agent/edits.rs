//! Changes of a configuration, right and wrong.

use anyhow::Result;
use serde::Deserialize as _;
use serde_yaml_ng::Value;

pub(crate) type Edit = fn(&mut [Value]);
pub(crate) type Spoil = fn(&str) -> String;

pub(crate) const GOOD_EDITS: [(&str, Edit); 3] = [
    ("a new rule", allow_the_denied_port),
    ("a new block of a known peer", add_block),
    ("a new peer", add_peer),
];

/// Each is put behind or into a text that is right.
pub(crate) const FAULTS: [(&str, Spoil); 3] = [
    ("no YAML", |text| format!("{text}\nbroken: [")),
    ("a port that does not exist", |text| {
        text.replacen("port: 9092\n", "port: 70000\n", 1)
    }),
    ("a key that nobody knows", |text| {
        text.replacen("isolation:\n", "isolation:\n    colour: green\n", 1)
    }),
];

pub(crate) fn allow_the_denied_port(documents: &mut [Value]) {
    let rules = &mut documents[1]["spec"]["policy"]["rules"];
    push(
        rules,
        "{name: late, action: Allow, from: [kafka], to: [kafka], \
          ports: [{protocol: TCP, port: 8080}]}",
    );
}

pub(crate) fn add_peer(documents: &mut [Value]) {
    push(
        &mut documents[0]["peers"],
        "{cluster: west, name: west-9, underlay: 172.20.2.99, \
          blocks: [{slice: kafka, namespace: analytics, prefix: 10.77.120.0/29}]}",
    );
}

pub(crate) fn add_block(documents: &mut [Value]) {
    let block = "{slice: kafka, namespace: producers, prefix: 10.77.190.0/29}";
    let node = &mut documents[0];
    if node["name"] == "edge-1" {
        return push(&mut node["blocks"], block);
    }
    let peers = node["peers"].as_sequence_mut().expect("a list of peers");
    let edge = peers.iter_mut().find(|peer| peer["name"] == "edge-1");
    push(&mut edge.expect("edge-1 is a peer")["blocks"], block);
}

pub(crate) fn push(list: &mut Value, entry: &str) {
    let entry = serde_yaml_ng::from_str(entry).expect("YAML");
    list.as_sequence_mut().expect("a list").push(entry);
}

pub(crate) fn edited(text: &str, edit: Edit) -> Result<String> {
    let documents = serde_yaml_ng::Deserializer::from_str(text).map(Value::deserialize);
    let mut documents = documents.collect::<Result<Vec<_>, _>>()?;
    edit(&mut documents);
    let texts = documents.iter().map(serde_yaml_ng::to_string);
    Ok(texts.collect::<Result<Vec<_>, _>>()?.join("---\n"))
}
