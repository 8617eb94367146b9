//! Connection tracking and the rules of a Kubernetes node with many services.
//!
//! The chains have the names, the order and the tests of kube-proxy's iptables mode, its default on
//! Linux: one list of services that a new connection walks through, a chain for each service that
//! chooses an endpoint at random, a chain for each endpoint that translates the address. They are
//! written for nft, which the kernel runs as it runs iptables' own (iptables-nft makes the same).

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail, ensure};

use super::Bed;
use crate::lab::network::batch;
use crate::netns::NetNs;

const SERVICES: u32 = 1000;
const ENDPOINTS: u32 = 3;
/// At the end of the list of services: who gets here has been compared with every one.
const END_OF_LIST: &str = "walked";
const MARK_MASQUERADE: u32 = 0x4000;

pub(super) fn set_up(bed: &Bed) -> Result<()> {
    let rules = rules(SERVICES);
    for node in &bed.nodes {
        batch("nft", &["-f", "-"], Some(node), &rules)?;
    }
    Ok(())
}

/// New connections that walked through the whole list on a node.
pub fn walked_packets(node: &NetNs) -> Result<u64> {
    let output = node
        .command("nft")
        .args(["-j", "list", "counter", "ip", "nat", END_OF_LIST])
        .output()
        .context("cannot run nft (package nftables)")?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("nft in {}: {}", node.name(), complaint.trim());
    }
    let listed: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let objects = listed["nftables"].as_array().context("nft: no objects")?;
    let counter = objects
        .iter()
        .find_map(|it| it["counter"]["packets"].as_u64());
    counter.context("nft: no counter")
}

/// Fails where the rules were not walked through: the variant would be `plain` by another name.
pub fn ensure_walked(bed: &Bed) -> Result<()> {
    for node in &bed.nodes {
        let packets = walked_packets(node)?;
        ensure!(
            packets > 0,
            "{}: no connection walked through the list of services",
            node.name()
        );
    }
    Ok(())
}

fn rules(services: u32) -> String {
    let mut chains = String::new();
    let mut list = String::new();
    for service in 0..services {
        let address = service_address(service);
        let _ = writeln!(
            list,
            "  ip daddr {address} tcp dport 9092 counter jump KUBE-SVC-{service}"
        );
        add_service(&mut chains, service);
    }
    format!(
        "table ip nat {{
 counter {END_OF_LIST} {{ }}
 chain KUBE-MARK-MASQ {{
  meta mark set meta mark or {MARK_MASQUERADE:#x}
 }}
{chains} chain KUBE-NODEPORTS {{
  counter name {END_OF_LIST}
 }}
 chain KUBE-SERVICES {{
{list}  fib daddr type local counter jump KUBE-NODEPORTS
  counter name {END_OF_LIST}
 }}
 chain KUBE-POSTROUTING {{
  meta mark and {MARK_MASQUERADE:#x} != {MARK_MASQUERADE:#x} counter return
  meta mark set meta mark xor {MARK_MASQUERADE:#x}
  counter masquerade fully-random
 }}
 chain PREROUTING {{
  type nat hook prerouting priority dstnat;
  counter jump KUBE-SERVICES
 }}
 chain OUTPUT {{
  type nat hook output priority -100;
  counter jump KUBE-SERVICES
 }}
 chain POSTROUTING {{
  type nat hook postrouting priority srcnat;
  counter jump KUBE-POSTROUTING
 }}
}}
table ip filter {{
 chain KUBE-FORWARD {{
  ct state invalid counter drop
  meta mark and {MARK_MASQUERADE:#x} == {MARK_MASQUERADE:#x} counter accept
  ct state related,established counter accept
 }}
 chain FORWARD {{
  type filter hook forward priority filter;
  counter jump KUBE-FORWARD
 }}
}}
"
    )
}

fn add_service(chains: &mut String, service: u32) {
    let mut choices = String::new();
    for endpoint in 0..ENDPOINTS {
        let address = endpoint_address(service, endpoint);
        let _ = write!(
            chains,
            " chain KUBE-SEP-{service}-{endpoint} {{
  ip saddr {address} counter jump KUBE-MARK-MASQ
  meta l4proto tcp counter dnat to {address}:9092
 }}\n"
        );
        let left = ENDPOINTS - endpoint;
        let chance = match left {
            1 => String::new(),
            left => format!("numgen random mod {left} == 0 "),
        };
        let _ = writeln!(
            choices,
            "  {chance}counter jump KUBE-SEP-{service}-{endpoint}"
        );
    }
    let _ = write!(chains, " chain KUBE-SVC-{service} {{\n{choices} }}\n");
}

fn service_address(service: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 0, 1)) + service)
}

fn endpoint_address(service: u32, endpoint: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 244, 0, 1)) + service * ENDPOINTS + endpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_is_in_the_list_and_chooses_among_its_endpoints() {
        let rules = rules(1000);
        assert_eq!(
            rules
                .matches("tcp dport 9092 counter jump KUBE-SVC-")
                .count(),
            1000
        );
        assert_eq!(rules.matches("dnat to").count(), 3000);
        let list = rules.split("chain KUBE-SERVICES {").nth(1).unwrap();
        assert!(
            list.find("KUBE-SVC-999") < list.find(END_OF_LIST),
            "the counter comes after the last service"
        );
    }

    #[test]
    fn a_service_gives_each_endpoint_the_same_chance() {
        let rules = rules(1);
        let service = rules.split("chain KUBE-SVC-0 {").nth(1).unwrap();
        let choices: Vec<&str> = service.lines().skip(1).take(3).map(str::trim).collect();
        assert_eq!(
            choices,
            [
                "numgen random mod 3 == 0 counter jump KUBE-SEP-0-0",
                "numgen random mod 2 == 0 counter jump KUBE-SEP-0-1",
                "counter jump KUBE-SEP-0-2",
            ]
        );
        assert!(rules.contains("ip daddr 10.96.0.1 tcp dport 9092"));
        assert!(rules.contains("dnat to 10.244.0.3:9092"));
    }
}
