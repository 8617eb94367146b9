//! Where does this address lead?

use slice_common::address::Address;
use slice_common::drop_reason::DropReason;
use slice_common::id::TableId;
use slice_common::layout::{Endpoint, LocalEndpoint, Path, Route, RouteKind};

use crate::maps;

/// Where a packet goes next.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    Pod(&'static LocalEndpoint),
    Path(&'static Path),
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
        RouteKind::Via => first_path(route.path_group).map(Target::Path),
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

/// The path back to a block that a packet came from, for its MTU; nothing when there is none.
#[inline(always)]
pub(crate) fn path_back(route: &Route) -> Option<&'static Path> {
    first_path(route.path_group).ok()
}

#[inline(always)]
fn first_path(path_group: u32) -> Result<&'static Path, DropReason> {
    let group = maps::path_group(path_group).ok_or(DropReason::NoPath)?;
    if group.count == 0 {
        return Err(DropReason::NoPath);
    }
    maps::path(group.paths[0]).ok_or(DropReason::NoPath)
}
