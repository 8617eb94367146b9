//! Reads the node back from the kernel.

pub mod counters;
mod driver;
pub mod host;
pub mod marks;
pub mod path_mtu;
pub mod paths;
pub mod refusals;

use std::collections::BTreeSet;

use anyhow::Result;
use rtnetlink::Handle;
use slice_common::address::Address;
use slice_common::layout::Settings;

use crate::apply::maps::{Layout, Maps, check_layout};
use crate::apply::pins::Pins;
use crate::apply::programs::{self, Mechanism};
use crate::apply::{guards, ifindex, pod_routes, port_owner, queueing, tcx, ways_back};
use crate::image::{NodeImage, PortOwner, Program};

/// The state of this node. Maps that are absent or damaged count as empty, and nothing is changed.
pub async fn node_image(netlink: &Handle, pins: &Pins, mechanism: Mechanism) -> Result<NodeImage> {
    let mut image = match check_layout(pins)? {
        Layout::Right => maps(&Maps::new(pins.clone()))?,
        Layout::Absent | Layout::Wrong(_) => NodeImage::default(),
    };
    let interfaces = programs::interfaces()?;
    image.attachments = programs::attachments(mechanism, netlink, pins, &interfaces).await?;
    let ours = queueing::ours(netlink, &interfaces).await?;
    (image.fair_queues, image.trees) = (ours.fair_queues, ours.trees);
    image.guards = guards::observe(netlink).await?;
    image.pod_routes = pod_routes::observe(netlink).await?;
    image.pod_routes_in_force = pod_routes::is_in_force(netlink).await?;
    image.ways_back = ways_back::observe(netlink).await?;
    image.port_owner = port_owner::observe(netlink).await?;
    if let Some(settings) = &mut image.settings
        && ifindex(PortOwner::INTERFACE).is_ok_and(|owner| owner == settings.tunnel_ifindex)
    {
        settings.tunnel_ifindex = Settings::PORT_OWNERS;
    }
    Ok(image)
}

/// The interfaces with an `underlay_filter` of ours, also one that an agent of another layout put there.
pub fn filtered(pins: &Pins) -> Result<BTreeSet<u32>> {
    let mut dirs = vec![pins.clone()];
    dirs.extend(pins.others()?);
    let mut found = BTreeSet::new();
    for dir in dirs {
        for (pin, at) in dir.pinned_links()? {
            if let Some(at) = at
                && at.program == Program::UnderlayFilter
                && tcx::facts(&pin)?.is_some_and(|link| link.is_at(&at))
            {
                found.insert(at.ifindex);
            }
        }
    }
    Ok(found)
}

fn maps(maps: &Maps) -> Result<NodeImage> {
    let by_address = |word| Address::from_network_word(word);
    Ok(NodeImage {
        settings: settings(maps)?,
        paths: maps.entries("PATHS")?,
        path_groups: maps.entries("PATH_GROUPS")?,
        peers: maps
            .entries("PEERS")?
            .into_iter()
            .map(|(k, v)| (by_address(k), v))
            .collect(),
        slices: maps.entries("SLICES")?,
        local: maps.entries("LOCAL")?,
        endpoints: maps.entries("ENDPOINTS")?,
        node_addresses: maps
            .entries("NODE_ADDRESSES")?
            .into_iter()
            .map(|(k, v)| (by_address(k), v))
            .collect(),
        routes: maps.table("ROUTES")?,
        policy: maps.table("POLICY")?,
        classes: maps.table("CLASSES")?,
        outside: maps.table("OUTSIDE")?,
        rates: maps.table("SHAPER_TERMS")?,
        ..NodeImage::default()
    })
}

/// The settings; `None` before the first configuration, when the array holds zeros.
fn settings(maps: &Maps) -> Result<Option<Settings>> {
    let settings: Settings = maps.array("SETTINGS")?.get(&0, 0)?;
    Ok((settings.generation != 0).then_some(settings))
}
