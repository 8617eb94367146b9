//! Routes and routing rules of ours, in tables of our own.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use futures_util::TryStreamExt as _;
use ipnet::Ipv4Net;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::{Handle, IpVersion, RouteMessageBuilder};

use super::netlink::{cause, errno, is_absent};
use super::{guards, pod_routes, ways_back};

/// Marks routes and rules as ours (`ip route show table 6085 proto 85`); others are never touched.
pub const PROTOCOL: RouteProtocol = RouteProtocol::Other(85);

/// Whether a route is ours, so no fact about the host.
pub fn is_ours(route: &RouteMessage) -> bool {
    let tables = [guards::TABLE, ways_back::TABLE, pod_routes::TABLE];
    route.header.protocol == PROTOCOL && tables.contains(&table(route))
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

pub(super) async fn our_routes(netlink: &Handle, in_table: u32) -> Result<Vec<RouteMessage>> {
    let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let routes: Vec<RouteMessage> = netlink
        .route()
        .get(all)
        .execute()
        .try_collect()
        .await
        .map_err(cause)
        .context("cannot list the routes of this host")?;
    let is_wanted = |route: &RouteMessage| is_ours(route) && table(route) == in_table;
    Ok(routes.into_iter().filter(is_wanted).collect())
}

pub(super) async fn our_rules(netlink: &Handle, to_table: u32) -> Result<Vec<RuleMessage>> {
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
            && rule.attributes.contains(&RuleAttribute::Table(to_table))
            && rule.attributes.contains(&RuleAttribute::Protocol(PROTOCOL))
    };
    Ok(rules.into_iter().filter(is_ours).collect())
}

/// Adds a route that is perhaps there already.
pub(super) async fn add_route(netlink: &Handle, route: RouteMessage) -> Result<()> {
    match netlink.route().add(route).execute().await {
        Err(error) if errno(&error) != Some(libc::EEXIST) => Err(cause(error)),
        _ => Ok(()),
    }
}

/// Whose packets a rule is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Senders<'a> {
    Everybody,
    From(Ipv4Addr),
    /// What the host received by this interface.
    ComingBy(&'a str),
}

/// Adds a rule that is perhaps there already.
pub(super) async fn add_rule(
    netlink: &Handle,
    to_table: u32,
    priority: u32,
    senders: Senders<'_>,
) -> Result<()> {
    let mut request = netlink
        .rule()
        .add()
        .v4()
        .priority(priority)
        .table_id(to_table)
        .action(RuleAction::ToTable);
    request = match senders {
        Senders::Everybody => request,
        Senders::From(address) => request.source_prefix(address, 32),
        Senders::ComingBy(interface) => request.input_interface(interface),
    };
    let attributes = &mut request.message_mut().attributes;
    attributes.push(RuleAttribute::Protocol(PROTOCOL));
    match request.execute().await {
        Err(error) if errno(&error) != Some(libc::EEXIST) => Err(cause(error)).with_context(|| {
            format!("cannot add the routing rule with priority {priority} to table {to_table}")
        }),
        _ => Ok(()),
    }
}

pub(super) async fn remove_routes(
    netlink: &Handle,
    routes: impl IntoIterator<Item = RouteMessage>,
) -> Result<()> {
    for route in routes {
        let (table, prefix) = (table(&route), destination(&route).unwrap_or_default());
        match netlink.route().del(route).execute().await {
            Err(error) if !is_absent(&error) => {
                return Err(cause(error)).with_context(|| {
                    format!("cannot remove the route {prefix} from table {table}")
                });
            }
            _ => {}
        }
    }
    Ok(())
}

pub(super) async fn remove_rules(
    netlink: &Handle,
    rules: impl IntoIterator<Item = RuleMessage>,
) -> Result<()> {
    for rule in rules {
        match netlink.rule().del(rule).execute().await {
            Err(error) if !is_absent(&error) => {
                return Err(cause(error)).context("cannot remove a routing rule of ours");
            }
            _ => {}
        }
    }
    Ok(())
}

/// Removes every route and rule of ours for a table; says whether there was any.
pub async fn remove_all(netlink: &Handle, table: u32) -> Result<bool> {
    let rules = our_rules(netlink, table).await?;
    let routes = our_routes(netlink, table).await?;
    let any = !rules.is_empty() || !routes.is_empty();
    remove_rules(netlink, rules).await?;
    remove_routes(netlink, routes).await?;
    Ok(any)
}
