//! Who sent this?

use slice_common::address::{Address, AddressPair};
use slice_common::drop_reason::DropReason;
use slice_common::layout::{Endpoint, Peer, Route, RouteKind};

use crate::maps;

/// The pod behind an interface of this host.
#[inline(always)]
pub(crate) fn pod_behind(ifindex: u32) -> Option<&'static Endpoint> {
    maps::endpoint(ifindex)
}

/// The slice address of a pod's packet; a pod may only send from its own address.
#[inline(always)]
pub(crate) fn slice_source(endpoint: &Endpoint, source: Address) -> Result<Address, DropReason> {
    AddressPair {
        pod: endpoint.pod_address,
        slice: endpoint.slice_address,
    }
    .outbound_source(source)
    .ok_or(DropReason::SpoofedSource)
}

/// The peer that a tunnel packet came from.
#[inline(always)]
pub(crate) fn peer(underlay_source: Address) -> Result<&'static Peer, DropReason> {
    maps::peer(underlay_source).ok_or(DropReason::UnknownPeer)
}

/// The block that an inner source lies in, when `peer` may deliver packets of that block and the
/// block belongs to the slice that the VNI names. A fellow gateway may deliver of all that lies elsewhere.
#[inline(always)]
pub(crate) fn delivered_source(
    table: u32,
    source: Address,
    slice: u32,
    peer: &Peer,
) -> Result<&'static Route, DropReason> {
    let route = maps::route(table, source).ok_or(DropReason::WrongPeer)?;
    if route.slice != slice {
        return Err(DropReason::WrongSlice);
    }
    let is_listed = route.deliver_group == peer.group && route.deliver_members & peer.member != 0;
    let is_elsewhere = matches!(RouteKind::from_number(route.kind), RouteKind::Via);
    if is_listed || peer.is_fellow() && is_elsewhere {
        Ok(route)
    } else {
        Err(DropReason::WrongPeer)
    }
}
