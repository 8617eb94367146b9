//! The tables that rules and isolation become.

mod config_support;

use std::collections::BTreeMap;

use config_support::apply::compiled;
use config_support::{RIGHT, check_text, east_1, longest_match, right, right_but};
use proptest::prelude::*;
use slice_agent::compile::compile;
use slice_agent::image::NodeImage;
use slice_agent::model::render;
use slice_common::address::Port;
use slice_common::id::NamespaceId;
use slice_common::layout::{PolicyKey, PolicyVerdict};

fn allows(image: &NodeImage, slice: u32, from: &str, to: &str, protocol: u8, port: u16) -> bool {
    let slice_name = if slice == 7 { "kafka" } else { "shop" };
    let key = PolicyKey {
        slice,
        source_namespace: NamespaceId::from_name(&[slice_name, from]).number(),
        destination_namespace: NamespaceId::from_name(&[slice_name, to]).number(),
        protocol,
        reserved: 0,
        port: Port::new(port).network_word(),
    };
    let entry = longest_match(&image.policy, key);
    entry.is_some_and(|entry| entry.verdict == PolicyVerdict::Allow.number())
}

#[test]
fn rules_hold_for_the_pairs_and_ports_that_they_name() {
    let image = compiled(&right());
    let tcp = |from, to, port| allows(&image, 7, from, to, 6, port);
    assert!(tcp("kafka", "kafka", 9090) && tcp("kafka", "kafka", 9092));
    assert!(!tcp("kafka", "kafka", 9089) && !tcp("kafka", "kafka", 9093));
    assert!(tcp("analytics", "kafka", 9092) && !tcp("analytics", "kafka", 9091));
    assert!(!tcp("kafka", "analytics", 9092) && !tcp("audit", "kafka", 9092));
    assert!(allows(&image, 7, "kafka", "kafka", 1, 0));
    assert!(!allows(&image, 7, "analytics", "kafka", 1, 0));
    assert!(!allows(&image, 7, "kafka", "kafka", 17, 9092));
}

#[test]
fn two_names_with_one_hash_are_refused_together() {
    let mut seen: BTreeMap<u32, String> = BTreeMap::new();
    let (one, two) = (0..)
        .find_map(|number| {
            let name = format!("n{number}");
            let id = NamespaceId::from_name(&["kafka", &name]).number();
            seen.insert(id, name.clone()).map(|first| (first, name))
        })
        .expect("32 bits collide soon");
    let list = format!("from: [{one}, {two}]");
    let message = check_text(right_but(&[("from: [analytics]", &list)])).expect_err("a collision");
    let id = NamespaceId::from_name(&["kafka", &one]).number();
    let found = format!("hash to the same number {id}; rename one of them");
    assert!(message.contains(&format!("kafka/{one}`")), "{message}");
    assert!(message.contains(&format!("kafka/{two}`")), "{message}");
    assert!(
        message.contains(&found) && message.lines().count() == 1,
        "{message}"
    );
}

fn names(count: usize) -> String {
    (0..count)
        .map(|number| format!("n{number}"))
        .collect::<Vec<_>>()
        .join(", ")
}

fn refused_by_compile(text: String) -> String {
    let configuration = check_text(text).unwrap_or_else(|errors| panic!("{errors}"));
    let errors = compile(&configuration, &east_1()).expect_err("too large");
    let message = render(&errors);
    message[message.find("node.yaml").expect("a file")..]
        .trim_end()
        .to_owned()
}

#[test]
fn a_rule_with_too_many_pairs_is_named() {
    let all = names(300);
    let message = refused_by_compile(right_but(&[(
        "from: [analytics], to: [kafka]",
        &format!("from: [{all}], to: [{all}]"),
    )]));
    assert_eq!(
        message,
        "node.yaml, document 2, Slice kafka, spec.policy.rules[1]: the policy needs 90000 entries \
         and the limit is 65536; rule `clients` of slice kafka alone needs 90000: name fewer \
         namespaces or ports in it"
    );
}

#[test]
fn a_rule_with_too_many_port_prefixes_is_named() {
    let all = names(60);
    let message = refused_by_compile(right_but(&[
        (
            "from: [analytics], to: [kafka]",
            &format!("from: [{all}], to: [{all}]"),
        ),
        (
            "{protocol: TCP, port: 9092}]}\n",
            "{protocol: TCP, port: 1-65534}]}\n",
        ),
    ]));
    assert!(
        message.contains("the limit is 65536; rule `clients` of slice kafka alone"),
        "{message}"
    );
}

/// A rule of a random policy, as text and as a plain question.
#[derive(Clone, Debug)]
struct RandomRule {
    allow: bool,
    from: Vec<&'static str>,
    to: Vec<&'static str>,
    ports: Option<Vec<RandomTraffic>>,
}

/// A protocol, and the first and last of its ports; `None`: all.
type RandomTraffic = (u8, Option<(u16, u16)>);

impl RandomRule {
    fn text(&self, number: usize) -> String {
        let action = if self.allow { "Allow" } else { "Deny" };
        let list = |names: &[&str]| format!("['{}']", names.join("', '"));
        let ports = self.ports.as_ref().map_or(String::new(), |ports| {
            let one = |(protocol, range): &RandomTraffic| match (protocol, range) {
                (1, _) => "{protocol: ICMP}".to_owned(),
                (protocol, range) => {
                    let name = if *protocol == 6 { "TCP" } else { "UDP" };
                    let port = range.map_or(String::new(), |(a, b)| format!(", port: {a}-{b}"));
                    format!("{{protocol: {name}{port}}}")
                }
            };
            format!(
                ", ports: [{}]",
                ports.iter().map(one).collect::<Vec<_>>().join(", ")
            )
        });
        let (from, to) = (list(&self.from), list(&self.to));
        format!("    - {{name: r{number}, action: {action}, from: {from}, to: {to}{ports}}}\n")
    }

    fn matches(&self, from: &str, to: &str, protocol: u8, port: u16) -> bool {
        let holds = |names: &[&str], name| names.contains(&name) || names == ["*"];
        let port_matches = |range: &Option<(u16, u16)>| {
            protocol == 1 || range.is_none_or(|(first, last)| (first..=last).contains(&port))
        };
        let traffic = self.ports.as_ref().is_none_or(|ports| {
            ports
                .iter()
                .any(|(own, range)| *own == protocol && port_matches(range))
        });
        holds(&self.from, from) && holds(&self.to, to) && traffic
    }
}

fn random_rule() -> impl Strategy<Value = RandomRule> {
    let names = || {
        prop_oneof![
            Just(vec!["*"]),
            prop::sample::subsequence(vec!["kafka", "audit", "analytics"], 1..=3),
        ]
    };
    let port = prop_oneof![0u16..12, Just(9090), Just(65_535)].prop_map(|port| port.max(1));
    let range = (port.clone(), port).prop_map(|(a, b)| (a.min(b), a.max(b)));
    let traffic = (
        prop::sample::select(vec![1u8, 6, 17]),
        prop::option::of(range),
    );
    let ports = prop::option::of(prop::collection::vec(traffic, 1..4));
    (any::<bool>(), names(), names(), ports).prop_map(|(allow, from, to, ports)| RandomRule {
        allow,
        from,
        to,
        ports,
    })
}

fn policy_text(allow_by_default: bool, rules: &[RandomRule]) -> String {
    let default = if allow_by_default { "Allow" } else { "Deny" };
    let (head, rest) = RIGHT
        .split_once("    defaultAction: Deny\n    rules:\n")
        .expect("a policy");
    let tail = rest.split_once("  qos:").expect("classes").1;
    let rules: String = rules
        .iter()
        .enumerate()
        .map(|(at, rule)| rule.text(at))
        .collect();
    let rules = if rules.is_empty() {
        "    rules: []\n".to_owned()
    } else {
        format!("    rules:\n{rules}")
    };
    format!("{head}    defaultAction: {default}\n{rules}  qos:{tail}")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_policy_table_says_what_the_first_matching_rule_says(
        allow_by_default: bool,
        rules in prop::collection::vec(random_rule(), 0..7),
        ports in prop::collection::vec(prop_oneof![0u16..14, Just(9090), any::<u16>()], 6),
    ) {
        let text = policy_text(allow_by_default, &rules);
        let configuration = check_text(&text).map_err(TestCaseError::fail)?;
        let image = compiled(&configuration);
        let namespaces = ["kafka", "audit", "analytics"];
        for (from, to) in namespaces.iter().flat_map(|a| namespaces.iter().map(move |b| (a, b))) {
            let asked = ports.iter().flat_map(|port| [(6, *port), (17, *port), (1, 0)]);
            for (protocol, port) in asked {
                let first = rules.iter().find(|rule| rule.matches(from, to, protocol, port));
                let expected = first.map_or(allow_by_default, |rule| rule.allow);
                let found = allows(&image, 7, from, to, protocol, port);
                prop_assert_eq!(found, expected, "{} -> {}, {} {}", from, to, protocol, port);
            }
        }
    }
}

/// Of each entry: who begins, protocol, port, prefix.
fn outside_of(isolation: &str) -> BTreeMap<(u8, u8, u16, String), u32> {
    let text = RIGHT.replacen("{level: Slice}", isolation, 1);
    assert_ne!(text, RIGHT, "not vacuous");
    let configuration = check_text(&text).unwrap_or_else(|errors| panic!("{errors}"));
    let (image, _) = compile(&configuration, &east_1()).expect("fits the host");
    image
        .outside
        .iter()
        .map(|(at, value)| {
            let prefix = format!("{}/{}", at.key.address, at.prefix_bits - 64);
            let port = u16::from_be(at.key.port);
            ((at.key.way, at.key.protocol, port, prefix), value.may)
        })
        .collect()
}

#[test]
fn a_confined_slice_names_whom_it_may_call_and_name_servers() {
    let strict = "{level: Strict, toOutside: [{addresses: [192.0.2.0/24], \
                  ports: [{protocol: TCP, port: 443-445}, {protocol: UDP}]}]}";
    let entry = |way, protocol, port, prefix: &str| ((way, protocol, port, prefix.to_owned()), 1);
    let expected = [
        entry(2, 6, 443, "192.0.2.0/24"),
        entry(2, 6, 444, "192.0.2.0/24"),
        entry(2, 6, 445, "192.0.2.0/24"),
        entry(2, 17, 0, "192.0.2.0/24"),
        entry(2, 6, 53, "0.0.0.0/0"),
        entry(2, 17, 53, "0.0.0.0/0"),
    ];
    assert_eq!(outside_of(strict), BTreeMap::from(expected));
    let one_server = [
        entry(2, 6, 53, "10.96.0.10/32"),
        entry(2, 17, 53, "10.96.0.10/32"),
    ];
    let dns = "{level: Strict, dns: [10.96.0.10/32]}";
    assert_eq!(outside_of(dns), BTreeMap::from(one_server));
    assert_eq!(outside_of("{level: Strict, dns: []}"), BTreeMap::new());
}

#[test]
fn a_guarded_slice_names_who_may_call_it() {
    let from = "{level: Slice, fromOutside: [{addresses: [192.0.2.7/32, 198.51.100.0/24]}]}";
    let expected = ["192.0.2.7/32", "198.51.100.0/24"]
        .into_iter()
        .flat_map(|prefix| [1, 6, 17].map(|protocol| ((1, protocol, 0, prefix.to_owned()), 1)));
    assert_eq!(outside_of(from), expected.collect());
}

#[test]
fn too_many_named_outside_are_refused() {
    let text = "{level: Slice, fromOutside: [{addresses: [192.0.2.0/24], \
                ports: [{protocol: TCP, port: 1-20000}]}]}";
    let text = RIGHT.replacen("{level: Slice}", text, 1);
    let configuration = check_text(&text).unwrap_or_else(|errors| panic!("{errors}"));
    let errors = compile(&configuration, &east_1()).expect_err("too many");
    assert!(
        errors[0]
            .to_string()
            .contains("entries of fromOutside and toOutside")
    );
}
