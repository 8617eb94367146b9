//! A configuration that is right, for tests that change one thing in it.
#![allow(dead_code, reason = "each test file uses a part")]

pub(crate) mod apply;
pub(crate) mod qos;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use slice_agent::image::{HostFacts, Interface, LinkLayer, Prefixed, Secrets, TrieKey};
use slice_agent::model::{self, Validated};
use slice_agent::source::file::Source;

/// Node east-1 with kafka-0 and web-0, two peers in west, slices kafka and shop.
pub(crate) const RIGHT: &str = "\
kind: Node
cluster: east
name: east-1
underlay: {address: 172.20.1.11, interface: nic0}
endpoints:
- {slice: kafka, namespace: kafka, name: kafka-0,
   interface: p-kafka-0, address: 10.1.1.10, sliceAddress: 10.77.0.2}
- {slice: shop, namespace: web, name: web-0,
   interface: p-web-0, address: 10.1.1.20, sliceAddress: 10.78.0.2}
blocks:
- {slice: kafka, namespace: kafka, prefix: 10.77.0.0/29}
- {slice: kafka, namespace: audit, prefix: 10.77.0.8/29}
- {slice: shop, namespace: web, prefix: 10.78.0.0/29}
peers:
- {cluster: west, name: west-1, underlay: 172.20.2.11,
   blocks: [{slice: kafka, namespace: analytics, prefix: 10.77.64.0/29}]}
- {cluster: west, name: west-2, underlay: 172.20.2.12, mtu: 1400,
   blocks: [{slice: shop, namespace: web, prefix: 10.78.64.0/29}]}
---
kind: Slice
metadata: {name: kafka}
id: 7
spec:
  addressing: {mode: Mapped, ranges: [10.77.0.0/16]}
  isolation: {level: Slice}
  policy:
    defaultAction: Deny
    rules:
    - {name: brokers, action: Allow, from: [kafka], to: [kafka],
       ports: [{protocol: TCP, port: 9090-9092}, {protocol: ICMP}]}
    - {name: clients, action: Allow, from: [analytics], to: [kafka],
       ports: [{protocol: TCP, port: 9092}]}
  qos:
    classes:
    - {name: control, match: [{protocol: TCP, port: 9090}], dscp: 48}
    - {name: client, match: [{protocol: TCP, port: 9091-9092}], dscp: 18}
  encryption: {mode: None}
  acceptPlaintext: true
---
kind: Slice
metadata: {name: shop}
id: 8
spec:
  addressing: {mode: Mapped, ranges: [10.78.0.0/16]}
  isolation: {level: Open}
  encryption: {mode: None}
  acceptPlaintext: true
";

/// A folder with one file `node.yaml`.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn with(text: impl AsRef<[u8]>) -> Self {
        let folder = Self(tempfile::tempdir().expect("a temporary folder"));
        folder.write("node.yaml", text);
        folder
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.0.path().join(name), text).expect("a written file");
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.0.path().join("node.yaml")
    }
}

/// Reads and validates; errors as `check` prints them, without the folder's name.
pub(crate) fn check(path: &Path) -> Result<Validated, String> {
    let folder = if path.is_dir() {
        path
    } else {
        path.parent().expect("a folder")
    };
    let result = Source::new(path)
        .read()
        .and_then(|texts| texts.parse())
        .and_then(|documents| model::validate(&documents));
    result.map_err(|errors| model::render(&errors).replace(&format!("{}/", folder.display()), ""))
}

pub(crate) fn check_text(text: impl AsRef<[u8]>) -> Result<Validated, String> {
    check(&Folder::with(text).file())
}

/// `RIGHT` with some of its text replaced, each of which must be there exactly once.
pub(crate) fn right_but(changes: &[(&str, &str)]) -> String {
    let mut text = RIGHT.to_owned();
    for (old, new) in changes {
        assert_eq!(text.matches(old).count(), 1, "`{old}` must occur once");
        text = text.replace(old, new);
    }
    text
}

pub(crate) fn right() -> Validated {
    check_text(RIGHT).expect("a right configuration")
}

/// The host that `RIGHT` is for.
pub(crate) fn east_1() -> HostFacts {
    let mut facts = HostFacts {
        secrets: Secrets {
            tunnel_mark: 0x7a3c_19e5,
            detour: [1, 2, 3, 4],
            flows: [5, 6],
        },
        ..HostFacts::default()
    };
    for (ifindex, name, kind, address) in [
        (1, "lo", "", "127.0.0.1/8"),
        (2, "nic0", "veth", "172.20.1.11/24"),
        (3, "p-kafka-0", "veth", "169.254.1.1/32"),
        (4, "p-web-0", "veth", "169.254.1.1/32"),
        (5, "br0", "bridge", "192.168.9.1/24"),
    ] {
        let interface = Interface {
            ifindex,
            mtu_bytes: 1500,
            mac: [2, 0, 0, 0, 0, ifindex as u8],
            controller_ifindex: 0,
            addresses: BTreeSet::from([address.parse().expect("a network")]),
            kind: kind.to_owned(),
            link_layer: if name == "lo" {
                LinkLayer::Loopback
            } else {
                LinkLayer::Ethernet
            },
            ..Interface::default()
        };
        facts.interfaces.insert(name.to_owned(), interface);
    }
    for network in [
        "172.20.1.0/24",
        "10.1.1.10/32",
        "10.1.1.20/32",
        "192.168.9.0/24",
    ] {
        facts
            .local_networks
            .insert(network.parse().expect("a network"));
    }
    let kafka_0 = std::net::Ipv4Addr::new(10, 1, 1, 10);
    let web_0 = std::net::Ipv4Addr::new(10, 1, 1, 20);
    facts
        .neighbours
        .insert((3, kafka_0.into()), [2, 0, 0, 0, 1, 10]);
    facts
        .neighbours
        .insert((4, web_0.into()), [2, 0, 0, 0, 1, 20]);
    facts
}

/// A longest-prefix lookup as slow and plain as can be: every entry is compared bit by bit.
pub(crate) fn longest_match<K: TrieKey, V: Copy>(
    table: &BTreeMap<Prefixed<K>, V>,
    key: K,
) -> Option<V> {
    let agrees = |entry: &Prefixed<K>| {
        let bit = |bits: u128, at: u32| bits >> (127 - at) & 1;
        let (own, other) = (entry.key.trie_bits(), key.trie_bits());
        (0..entry.prefix_bits).all(|at| bit(own, at) == bit(other, at))
    };
    let matching = table.iter().filter(|(entry, _)| agrees(entry));
    matching
        .max_by_key(|(entry, _)| entry.prefix_bits)
        .map(|(_, value)| *value)
}
