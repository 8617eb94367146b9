//! Where does this address lead?

use slice_common::address::Address;
use slice_common::drop_reason::DropReason;
use slice_common::health::{GATEWAY_PATIENCE_NS, PATIENCE_NS};
use slice_common::id::TableId;
use slice_common::layout::{Endpoint, LocalEndpoint, Path, PathGroup, Peer, Route, RouteKind};

use crate::{health, maps};

/// Where a packet goes next.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    Pod(&'static LocalEndpoint),
    Group(u32, Paths),
}

/// The paths of a group.
#[derive(Clone, Copy)]
pub(crate) enum Paths {
    Only(&'static Path),
    /// Which one is decided for each packet.
    Several,
}

/// The route of a slice address; nothing when the address belongs to no slice of the table.
#[inline(always)]
pub(crate) fn route(table: u32, address: Address) -> Option<&'static Route> {
    maps::route(table, address)
}

/// The target of a packet that a pod of `slice` sends to an address behind `route`.
#[inline(always)]
pub(crate) fn target(
    table: u32,
    address: Address,
    slice: u32,
    route: &Route,
) -> Result<Target, DropReason> {
    if route.slice != slice {
        return Err(DropReason::OtherSlice);
    }
    match RouteKind::from_number(route.kind) {
        RouteKind::Local => match maps::local_endpoint(table, address) {
            Some(local) => Ok(Target::Pod(local)),
            None => Err(DropReason::NoEndpoint),
        },
        RouteKind::Via => Ok(Target::Group(route.path_group, paths(route.path_group)?)),
        RouteKind::Unreachable => Err(DropReason::NoRoute),
    }
}

/// The pod of this node that a tunnel packet of `slice` is for.
#[inline(always)]
pub(crate) fn local_pod(
    table: u32,
    address: Address,
    slice: u32,
) -> Result<&'static LocalEndpoint, DropReason> {
    if let Some(local) = maps::local_endpoint(table, address) {
        return if local.slice == slice {
            Ok(local)
        } else {
            Err(DropReason::WrongSlice)
        };
    }
    let route = maps::route(table, address).ok_or(DropReason::NoRoute)?;
    if route.slice != slice {
        return Err(DropReason::WrongSlice);
    }
    match RouteKind::from_number(route.kind) {
        RouteKind::Local => Err(DropReason::NoEndpoint),
        RouteKind::Via => Err(DropReason::NotLocal),
        RouteKind::Unreachable => Err(DropReason::NoRoute),
    }
}

/// Whether an address is behind another node, in whichever slice.
#[inline(always)]
pub(crate) fn is_elsewhere(table: u32, address: Address) -> bool {
    match maps::route(table, address) {
        Some(route) => matches!(RouteKind::from_number(route.kind), RouteKind::Via),
        None => false,
    }
}

/// The route that a tunnel packet of `slice` follows from a gateway.
#[inline(always)]
pub(crate) fn onward(
    table: u32,
    address: Address,
    slice: u32,
) -> Result<&'static Route, DropReason> {
    let route = maps::route(table, address).ok_or(DropReason::NoRoute)?;
    if route.slice == slice {
        Ok(route)
    } else {
        Err(DropReason::WrongSlice)
    }
}

/// The slice of an address that is not on this node.
#[inline(always)]
pub(crate) fn slice_elsewhere(address: Address) -> Option<u32> {
    let route = maps::route(TableId::HUB.0, address)?;
    match RouteKind::from_number(route.kind) {
        RouteKind::Local => None,
        RouteKind::Via | RouteKind::Unreachable => Some(route.slice),
    }
}

/// The pod that sends, as one to deliver to.
#[inline(always)]
pub(crate) fn pod_itself(endpoint: &Endpoint) -> Option<&'static LocalEndpoint> {
    maps::local_endpoint(endpoint.table, endpoint.slice_address)
}

/// The path of a group that a packet takes now.
#[inline(always)]
pub(crate) fn path_now(path_group: u32) -> Result<&'static Path, DropReason> {
    let group = group(path_group)?;
    path(health::choose(
        path_group,
        group,
        group.count as u32,
        PATIENCE_NS,
    ))
}

/// The path of a group on which a packet from `peer` goes on now. What a fellow brought never goes to a fellow:
/// it did so because its own ways are dead.
#[inline(always)]
pub(crate) fn path_on(path_group: u32, peer: &Peer) -> Result<&'static Path, DropReason> {
    let group = group(path_group)?;
    let count = if peer.is_fellow() {
        group.count.saturating_sub(group.fellows)
    } else {
        group.count
    };
    if count == 0 {
        return Err(DropReason::NoPath);
    }
    path(health::choose(
        path_group,
        group,
        count as u32,
        GATEWAY_PATIENCE_NS,
    ))
}

/// The first path of a group that answers take, for its MTU.
#[inline(always)]
pub(crate) fn path_back(path_group: u32) -> Result<&'static Path, DropReason> {
    path(group(path_group)?.paths[0])
}

/// The path that a packet to `path_group` takes now.
#[inline(always)]
fn paths(path_group: u32) -> Result<Paths, DropReason> {
    let group = group(path_group)?;
    if group.count > 1 {
        return Ok(Paths::Several);
    }
    path(group.paths[0]).map(Paths::Only)
}

#[inline(always)]
fn group(path_group: u32) -> Result<&'static PathGroup, DropReason> {
    let group = maps::path_group(path_group).ok_or(DropReason::NoPath)?;
    if group.count == 0 {
        return Err(DropReason::NoPath);
    }
    Ok(group)
}

#[inline(always)]
fn path(id: u32) -> Result<&'static Path, DropReason> {
    maps::path(id).ok_or(DropReason::NoPath)
}
