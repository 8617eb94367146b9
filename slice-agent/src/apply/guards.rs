//! `unreachable` routes for remote slice addresses, in a routing table of our own that an early rule
//! asks first: a slice packet that no program took dies in the host instead of leaving in clear.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use futures_util::TryStreamExt as _;
use ipnet::Ipv4Net;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType,
};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::{Handle, IpVersion, RouteMessageBuilder};

use super::netlink::{cause, errno, is_absent};

/// Our routing table.
pub const TABLE: u32 = 6085;
/// Marks routes and rules as ours (`ip route show table 6085 proto 85`); others are never touched.
pub const PROTOCOL: RouteProtocol = RouteProtocol::Other(85);
/// Before the main table (32766) and before what CNIs insert, after the local table (0).
pub const RULE_PRIORITY: u32 = 100;

/// The guarded prefixes. Without the rule none is: its routes guard nothing then.
pub async fn observe(netlink: &Handle) -> Result<BTreeSet<Ipv4Net>> {
    if our_rules(netlink).await?.is_empty() {
        return Ok(BTreeSet::new());
    }
    Ok(our_routes(netlink)
        .await?
        .iter()
        .filter_map(destination)
        .collect())
}

pub async fn add(netlink: &Handle, prefix: Ipv4Net) -> Result<()> {
    let what = || format!("cannot add the guard route unreachable {prefix} to table {TABLE}");
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(prefix.addr(), prefix.prefix_len())
        .table_id(TABLE)
        .protocol(PROTOCOL)
        .kind(RouteType::Unreachable)
        .build();
    match netlink.route().add(route).execute().await {
        Err(error) if errno(&error) != Some(libc::EEXIST) => {
            return Err(cause(error)).with_context(what);
        }
        _ => {}
    }
    add_rule(netlink).await
}

/// Removes the prefix, and with the last one the rule.
pub async fn remove(netlink: &Handle, prefix: Ipv4Net) -> Result<()> {
    for route in our_routes(netlink).await? {
        if destination(&route) == Some(prefix) {
            remove_route(netlink, route).await?;
        }
    }
    if our_routes(netlink).await?.is_empty() {
        remove_rules(netlink).await?;
    }
    Ok(())
}

/// Removes every route and rule of ours; says whether there was any.
pub async fn remove_all(netlink: &Handle) -> Result<bool> {
    let any_rule = remove_rules(netlink).await?;
    let routes = our_routes(netlink).await?;
    let any_route = !routes.is_empty();
    for route in routes {
        remove_route(netlink, route).await?;
    }
    Ok(any_rule || any_route)
}

/// Whether a route is ours, so no fact about the host.
pub fn is_ours(route: &RouteMessage) -> bool {
    route.header.protocol == PROTOCOL && table(route) == TABLE
}

/// The table of a route; numbers above 255 are in an attribute.
pub fn table(route: &RouteMessage) -> u32 {
    let wide = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Table(table) => Some(*table),
            _ => None,
        });
    wide.unwrap_or(u32::from(route.header.table))
}

/// The destination of an IPv4 route; the default route's has length 0.
pub fn destination(route: &RouteMessage) -> Option<Ipv4Net> {
    let address = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
            _ => None,
        });
    let address = address.unwrap_or(Ipv4Addr::UNSPECIFIED);
    Ipv4Net::new(address, route.header.destination_prefix_length).ok()
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

async fn remove_route(netlink: &Handle, route: RouteMessage) -> Result<()> {
    let text = destination(&route).map_or_else(String::new, |prefix| prefix.to_string());
    match netlink.route().del(route).execute().await {
        Err(error) if !is_absent(&error) => Err(cause(error))
            .with_context(|| format!("cannot remove the guard route {text} from table {TABLE}")),
        _ => Ok(()),
    }
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
    Ok(rules.into_iter().filter(is_our_rule).collect())
}

fn is_our_rule(rule: &RuleMessage) -> bool {
    rule.header.family == AddressFamily::Inet
        && rule.attributes.contains(&RuleAttribute::Table(TABLE))
        && rule.attributes.contains(&RuleAttribute::Protocol(PROTOCOL))
}

async fn add_rule(netlink: &Handle) -> Result<()> {
    if !our_rules(netlink).await?.is_empty() {
        return Ok(());
    }
    let mut request = netlink
        .rule()
        .add()
        .v4()
        .priority(RULE_PRIORITY)
        .table_id(TABLE)
        .action(RuleAction::ToTable);
    request
        .message_mut()
        .attributes
        .push(RuleAttribute::Protocol(PROTOCOL));
    match request.execute().await {
        Err(error) if errno(&error) != Some(libc::EEXIST) => Err(cause(error)).with_context(|| {
            format!("cannot add the routing rule with priority {RULE_PRIORITY} to table {TABLE}")
        }),
        _ => Ok(()),
    }
}

async fn remove_rules(netlink: &Handle) -> Result<bool> {
    let rules = our_rules(netlink).await?;
    let any = !rules.is_empty();
    for rule in rules {
        match netlink.rule().del(rule).execute().await {
            Err(error) if !is_absent(&error) => {
                return Err(cause(error))
                    .with_context(|| format!("cannot remove the routing rule to table {TABLE}"));
            }
            _ => {}
        }
    }
    Ok(any)
}
