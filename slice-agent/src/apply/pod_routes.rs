//! By which interface the host's stack sends what it delivers for a slice. By the host's own routes and neighbours a
//! packet goes to whoever has the pod's address: another one behind a bridge that answers ARP in its name, or who
//! inherits the address. So what comes by the tunnel's device has a table of its own: pods of the model by their
//! interfaces, and nobody else.
//!
//! Routes and neighbours are the interface's own and go with it, whether an agent lives or not. A port of a bridge
//! hears no answers to ARP, because the bridge takes them; there the pod's link-layer address is written down.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};
use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteScope, RouteType};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::guards::RULE_PRIORITY;
use super::netlink::{cause, is_absent};
use super::routing::{
    PROTOCOL, Senders, add_route, add_rule, destination, our_routes, our_rules, remove_all,
    remove_routes,
};
use crate::image::{PodRoute, PortOwner};

/// Our third routing table.
pub const TABLE: u32 = 6087;
/// Before what the check of reverse paths is told, and before the guards.
const PRIORITY: u32 = RULE_PRIORITY - 2;

pub async fn observe(netlink: &Handle) -> Result<BTreeMap<Ipv4Addr, PodRoute>> {
    let neighbours = our_neighbours(netlink).await?;
    let routes = our_routes(netlink, TABLE).await?;
    let pods = routes.iter().filter_map(|route| {
        let prefix = destination(route).filter(|prefix| prefix.prefix_len() == 32)?;
        let ifindex = device(route)?;
        let mut its = neighbours.iter();
        let neighbour = its.find(|it| it.header.ifindex == ifindex && is_of(it, prefix.addr()));
        let neighbour = neighbour.and_then(link_layer_address);
        Some((prefix.addr(), PodRoute { ifindex, neighbour }))
    });
    Ok(pods.collect())
}

/// Whether what comes by the tunnel's device is sent to these routes, and to no others.
pub async fn is_in_force(netlink: &Handle) -> Result<bool> {
    let routes = our_routes(netlink, TABLE).await?;
    let ends = routes
        .iter()
        .any(|route| route.header.kind == RouteType::Unreachable);
    Ok(ends && !our_rules(netlink, TABLE).await?.is_empty())
}

pub async fn put(netlink: &Handle, pod: Ipv4Addr, route: PodRoute) -> Result<()> {
    let PodRoute { ifindex, neighbour } = route;
    if let Some(address) = neighbour {
        let mut request = netlink.neighbours().add(ifindex, IpAddr::V4(pod));
        let attributes = &mut request.message_mut().attributes;
        attributes.push(NeighbourAttribute::Protocol(PROTOCOL));
        request
            .state(NeighbourState::Permanent)
            .link_layer_address(&address)
            .replace()
            .execute()
            .await
            .map_err(cause)
            .with_context(|| format!("cannot write the neighbour {pod} of interface #{ifindex}"))?;
    }
    let message = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(pod, 32)
        .output_interface(ifindex)
        .scope(RouteScope::Link)
        .table_id(TABLE)
        .protocol(PROTOCOL)
        .build();
    let request = netlink.route().add(message).replace().execute();
    request.await.map_err(cause).with_context(|| {
        format!("cannot add the route to pod {pod} by interface #{ifindex} to table {TABLE}")
    })
}

pub async fn remove(netlink: &Handle, pod: Ipv4Addr) -> Result<()> {
    let routes = our_routes(netlink, TABLE).await?;
    let is_it = |route: &RouteMessage| {
        destination(route).is_some_and(|it| it.prefix_len() == 32 && it.addr() == pod)
    };
    remove_routes(netlink, routes.into_iter().filter(is_it)).await?;
    let neighbours = our_neighbours(netlink).await?;
    remove_neighbours(netlink, neighbours.into_iter().filter(|it| is_of(it, pod))).await
}

pub async fn put_in_force(netlink: &Handle) -> Result<()> {
    let nobody = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(Ipv4Addr::UNSPECIFIED, 0)
        .table_id(TABLE)
        .protocol(PROTOCOL)
        .kind(RouteType::Unreachable)
        .build();
    add_route(netlink, nobody).await?;
    if our_rules(netlink, TABLE).await?.is_empty() {
        let by_tunnel = Senders::ComingBy(PortOwner::INTERFACE);
        add_rule(netlink, TABLE, PRIORITY, by_tunnel).await?;
    }
    Ok(())
}

/// Removes all of it; says whether there was any.
pub async fn remove_everything(netlink: &Handle) -> Result<bool> {
    let any = remove_all(netlink, TABLE).await?;
    let neighbours = our_neighbours(netlink).await?;
    let any = any || !neighbours.is_empty();
    remove_neighbours(netlink, neighbours).await?;
    Ok(any)
}

async fn our_neighbours(netlink: &Handle) -> Result<Vec<NeighbourMessage>> {
    let request = netlink
        .neighbours()
        .get()
        .set_address_family(AddressFamily::Inet);
    let all: Vec<NeighbourMessage> = request
        .execute()
        .try_collect()
        .await
        .map_err(cause)
        .context("cannot list the neighbours of this host")?;
    let ours = NeighbourAttribute::Protocol(PROTOCOL);
    let is_ours = |it: &NeighbourMessage| {
        it.header.state == NeighbourState::Permanent && it.attributes.contains(&ours)
    };
    Ok(all.into_iter().filter(is_ours).collect())
}

async fn remove_neighbours(
    netlink: &Handle,
    neighbours: impl IntoIterator<Item = NeighbourMessage>,
) -> Result<()> {
    for neighbour in neighbours {
        match netlink.neighbours().del(neighbour).execute().await {
            Err(error) if !is_absent(&error) => {
                return Err(cause(error)).context("cannot remove a neighbour of ours");
            }
            _ => {}
        }
    }
    Ok(())
}

fn device(route: &RouteMessage) -> Option<u32> {
    route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Oif(ifindex) => Some(*ifindex),
            _ => None,
        })
}

fn is_of(neighbour: &NeighbourMessage, pod: Ipv4Addr) -> bool {
    let address = NeighbourAttribute::Destination(NeighbourAddress::Inet(pod));
    neighbour.attributes.contains(&address)
}

fn link_layer_address(neighbour: &NeighbourMessage) -> Option<[u8; 6]> {
    let mut attributes = neighbour.attributes.iter();
    attributes.find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok(),
        _ => None,
    })
}
