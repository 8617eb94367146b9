//! For the host's check of reverse paths (`rp_filter`): what its stack delivers for a slice comes in by
//! the tunnel's device, and the way back to its sender must lead there.
//!
//! The routes are in a table of their own, and only who asks for the way from a pod's address is sent
//! there. That is the check: the kernel asks as if the pod answered. It is also what such a pod sends and no
//! program took; it dies in the device, which sends nothing that has no tunnel's data with it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};
use ipnet::Ipv4Net;
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteScope};
use rtnetlink::packet_route::rule::{RuleAttribute, RuleMessage};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::guards::RULE_PRIORITY;
use super::ifindex;
use super::routing::{
    PROTOCOL, Senders, add_route, add_rule, destination, our_routes, our_rules, remove_routes,
    remove_rules,
};
use crate::image::{PortOwner, WayBack};

/// Our second routing table.
pub const TABLE: u32 = 6086;
/// Before the guards, which say "unreachable".
const PRIORITY: u32 = RULE_PRIORITY - 1;

pub async fn observe(netlink: &Handle) -> Result<BTreeSet<WayBack>> {
    // A route that lost its device is gone; one by another device was not made by us.
    let device = ifindex(PortOwner::INTERFACE).unwrap_or_default();
    let routes = our_routes(netlink, TABLE).await?;
    let routes = routes
        .iter()
        .filter(|route| route.attributes.contains(&RouteAttribute::Oif(device)));
    let rules = our_rules(netlink, TABLE).await?;
    Ok(routes
        .filter_map(destination)
        .map(WayBack::To)
        .chain(rules.iter().filter_map(pod).map(WayBack::From))
        .collect())
}

pub async fn add(netlink: &Handle, way: WayBack) -> Result<()> {
    let added = match way {
        WayBack::To(prefix) => {
            let route = route(prefix, ifindex(PortOwner::INTERFACE)?);
            add_route(netlink, route).await
        }
        WayBack::From(pod) => add_rule(netlink, TABLE, PRIORITY, Senders::From(pod)).await,
    };
    added.with_context(|| format!("cannot add {} to table {TABLE}", shown(way)))
}

pub async fn remove(netlink: &Handle, way: WayBack) -> Result<()> {
    match way {
        WayBack::To(prefix) => {
            let routes = our_routes(netlink, TABLE).await?;
            let is_it = |route: &RouteMessage| destination(route) == Some(prefix);
            remove_routes(netlink, routes.into_iter().filter(is_it)).await
        }
        WayBack::From(address) => {
            let rules = our_rules(netlink, TABLE).await?;
            let is_it = |rule: &RuleMessage| pod(rule) == Some(address);
            remove_rules(netlink, rules.into_iter().filter(is_it)).await
        }
    }
}

fn shown(way: WayBack) -> String {
    match way {
        WayBack::To(prefix) => format!("the route to {prefix} by {}", PortOwner::INTERFACE),
        WayBack::From(pod) => format!("the routing rule from {pod}"),
    }
}

fn route(prefix: Ipv4Net, device: u32) -> RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(prefix.addr(), prefix.prefix_len())
        .output_interface(device)
        .scope(RouteScope::Link)
        .table_id(TABLE)
        .protocol(PROTOCOL)
        .build()
}

/// The pod that a rule of ours is for.
fn pod(rule: &RuleMessage) -> Option<Ipv4Addr> {
    rule.attributes
        .iter()
        .find_map(|attribute| match attribute {
            RuleAttribute::Source(IpAddr::V4(pod)) if rule.header.src_len == 32 => Some(*pod),
            _ => None,
        })
}
