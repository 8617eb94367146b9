//! `unreachable` routes for remote slice addresses, in a routing table of our own that an early rule
//! asks first: a slice packet that no program took dies in the host instead of leaving in clear.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use ipnet::Ipv4Net;
use rtnetlink::packet_route::route::RouteType;
use rtnetlink::{Handle, RouteMessageBuilder};

use super::routing::{
    PROTOCOL, Senders, add_route, add_rule, destination, our_routes, our_rules, remove_routes,
    remove_rules,
};

/// Our routing table.
pub const TABLE: u32 = 6085;
/// Before the main table (32766) and before what CNIs insert, after the local table (0).
pub const RULE_PRIORITY: u32 = 100;

/// The guarded prefixes. Without the rule none is: its routes guard nothing then.
pub async fn observe(netlink: &Handle) -> Result<BTreeSet<Ipv4Net>> {
    if our_rules(netlink, TABLE).await?.is_empty() {
        return Ok(BTreeSet::new());
    }
    let routes = our_routes(netlink, TABLE).await?;
    Ok(routes.iter().filter_map(destination).collect())
}

pub async fn add(netlink: &Handle, prefix: Ipv4Net) -> Result<()> {
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(prefix.addr(), prefix.prefix_len())
        .table_id(TABLE)
        .protocol(PROTOCOL)
        .kind(RouteType::Unreachable)
        .build();
    add_route(netlink, route).await.with_context(|| {
        format!("cannot add the guard route unreachable {prefix} to table {TABLE}")
    })?;
    if our_rules(netlink, TABLE).await?.is_empty() {
        add_rule(netlink, TABLE, RULE_PRIORITY, Senders::Everybody).await?;
    }
    Ok(())
}

/// Removes the prefix, and with the last one the rule.
pub async fn remove(netlink: &Handle, prefix: Ipv4Net) -> Result<()> {
    let routes = our_routes(netlink, TABLE).await?;
    let (gone, left): (Vec<_>, Vec<_>) = routes
        .into_iter()
        .partition(|route| destination(route) == Some(prefix));
    remove_routes(netlink, gone).await?;
    if left.is_empty() {
        remove_rules(netlink, our_rules(netlink, TABLE).await?).await?;
    }
    Ok(())
}
