//! For the host's check of reverse paths (`rp_filter`): what its stack delivers for a slice comes in by
//! the tunnel's device, and the way back to its sender must lead there.
//!
//! The routes are in a table of their own, and only who asks for the way from a pod's address is sent
//! there. That is the check: the kernel asks as if the pod answered. It is also what such a pod sends and no
//! program took; it dies in the device, which sends nothing that has no tunnel's data with it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};
use futures_util::TryStreamExt as _;
use ipnet::Ipv4Net;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteScope};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::{Handle, IpVersion, RouteMessageBuilder};

use super::guards::{PROTOCOL, RULE_PRIORITY, destination, table};
use super::ifindex;
use super::netlink::{cause, errno, is_absent};
use crate::image::{PortOwner, WayBack};

/// Our second routing table.
pub const TABLE: u32 = 6086;
/// Before the guards, which say "unreachable".
const PRIORITY: u32 = RULE_PRIORITY - 1;

pub async fn observe(netlink: &Handle) -> Result<BTreeSet<WayBack>> {
    // A route that lost its device is gone; one by another device was not made by us.
    let device = ifindex(PortOwner::INTERFACE).unwrap_or_default();
    let routes = our_routes(netlink).await?;
    let routes = routes
        .iter()
        .filter(|route| route.attributes.contains(&RouteAttribute::Oif(device)));
    let rules = our_rules(netlink).await?;
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
            netlink.route().add(route).execute().await
        }
        WayBack::From(pod) => add_rule(netlink, pod).await,
    };
    match added {
        Err(error) if errno(&error) != Some(libc::EEXIST) => {
            Err(cause(error)).with_context(|| format!("cannot add {} to table {TABLE}", shown(way)))
        }
        _ => Ok(()),
    }
}

pub async fn remove(netlink: &Handle, way: WayBack) -> Result<()> {
    match way {
        WayBack::To(prefix) => {
            let routes = our_routes(netlink).await?;
            let routes = routes.into_iter();
            remove_routes(netlink, routes.filter(|it| destination(it) == Some(prefix))).await
        }
        WayBack::From(address) => {
            let rules = our_rules(netlink).await?;
            let rules = rules.into_iter();
            remove_rules(netlink, rules.filter(|it| pod(it) == Some(address))).await
        }
    }
}

/// Removes everything of ours; says whether there was any.
pub async fn remove_all(netlink: &Handle) -> Result<bool> {
    let (rules, routes) = (our_rules(netlink).await?, our_routes(netlink).await?);
    let any = !rules.is_empty() || !routes.is_empty();
    remove_rules(netlink, rules.into_iter()).await?;
    remove_routes(netlink, routes.into_iter()).await?;
    Ok(any)
}

/// Whether a route is one of these, so no fact about the host.
pub fn is_ours(route: &RouteMessage) -> bool {
    route.header.protocol == PROTOCOL && table(route) == TABLE
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

async fn add_rule(netlink: &Handle, pod: Ipv4Addr) -> Result<(), rtnetlink::Error> {
    let mut request = netlink
        .rule()
        .add()
        .v4()
        .source_prefix(pod, 32)
        .priority(PRIORITY)
        .table_id(TABLE)
        .action(RuleAction::ToTable);
    request
        .message_mut()
        .attributes
        .push(RuleAttribute::Protocol(PROTOCOL));
    request.execute().await
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

async fn our_rules(netlink: &Handle) -> Result<Vec<RuleMessage>> {
    let rules: Vec<RuleMessage> = netlink
        .rule()
        .get(IpVersion::V4)
        .execute()
        .try_collect()
        .await
        .map_err(cause)
        .context("cannot list the routing rules of this host")?;
    let is_ours = |rule: &RuleMessage| {
        rule.header.family == AddressFamily::Inet
            && rule.attributes.contains(&RuleAttribute::Table(TABLE))
            && rule.attributes.contains(&RuleAttribute::Protocol(PROTOCOL))
    };
    Ok(rules.into_iter().filter(is_ours).collect())
}

async fn our_routes(netlink: &Handle) -> Result<Vec<RouteMessage>> {
    let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let routes: Vec<RouteMessage> = netlink
        .route()
        .get(all)
        .execute()
        .try_collect()
        .await
        .map_err(cause)
        .context("cannot list the routes of this host")?;
    Ok(routes.into_iter().filter(is_ours).collect())
}

async fn remove_rules(netlink: &Handle, rules: impl Iterator<Item = RuleMessage>) -> Result<()> {
    for rule in rules {
        match netlink.rule().del(rule).execute().await {
            Err(error) if !is_absent(&error) => {
                return Err(cause(error))
                    .with_context(|| format!("cannot remove a routing rule to table {TABLE}"));
            }
            _ => {}
        }
    }
    Ok(())
}

async fn remove_routes(netlink: &Handle, routes: impl Iterator<Item = RouteMessage>) -> Result<()> {
    for route in routes {
        match netlink.route().del(route).execute().await {
            Err(error) if !is_absent(&error) => {
                return Err(cause(error))
                    .with_context(|| format!("cannot remove a route from table {TABLE}"));
            }
            _ => {}
        }
    }
    Ok(())
}
