//! A slice under a ceiling, for tests that change one thing in it.

use slice_agent::compile::compile;
use slice_agent::image::{HostFacts, Names, NodeImage};
use slice_agent::model::render;
use slice_agent::plan::Change;

use super::apply::apply;
use super::{check_text, right_but};

pub(crate) const UPLINKS: &str = "uplinks: [{name: wan, interface: nic0, rate: 300M}]\n";
pub(crate) const CEILING: &str = "    ceiling: {default: 200M, overrides: {west: 50M}}\n";
pub(crate) const CLASSES: &str = concat!(
    "    - {name: control, match: [{protocol: TCP, port: 9090}], guaranteePercent: 10}\n",
    "    - {name: replication, match: [{protocol: TCP, port: 9091}], guaranteePercent: 40, weight: 3}\n",
    "    - {name: client, match: [{protocol: TCP, port: 9092}], favourInteractive: false}\n",
);

/// Slice kafka may send 200M by the uplink wan of 300M; slice shop is not shaped.
pub(crate) fn shaped() -> String {
    let right = right_but(&[
        (
            "interface: nic0}\n",
            &format!("interface: nic0}}\n{UPLINKS}"),
        ),
        ("  qos:\n", &format!("  qos:\n{CEILING}")),
    ]);
    let (head, classes) = right.split_once("    classes:\n").expect("classes");
    let (_, tail) = classes
        .split_once("  encryption:")
        .expect("what comes behind");
    format!("{head}    classes:\n{CLASSES}  encryption:{tail}")
}

pub(crate) fn shaped_but(changes: &[(&str, &str)]) -> String {
    let mut text = shaped();
    for (old, new) in changes {
        assert_eq!(text.matches(old).count(), 1, "`{old}` must occur once");
        text = text.replace(old, new);
    }
    text
}

pub(crate) fn image(text: &str, facts: &HostFacts) -> (NodeImage, Names) {
    let configuration = check_text(text).unwrap_or_else(|errors| panic!("{errors}"));
    compile(&configuration, facts).unwrap_or_else(|errors| panic!("{}", render(&errors)))
}

pub(crate) fn carried_out(mut image: NodeImage, changes: &[Change]) -> NodeImage {
    for change in changes {
        apply(&mut image, change);
    }
    image
}
