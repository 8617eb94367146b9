//! Takes everything of ours out of the node.

use std::path::Path;

use anyhow::{Context, Result};
use rtnetlink::Handle;

use crate::apply::lock::{Lock, PinsLock};
use crate::apply::pins::{Pins, remove_tree};
use crate::apply::{
    clsact, guards, netlink, pod_routes, port_owner, programs, queueing, routing, ways_back,
};
use crate::capability;
use crate::image::{Attachment, PortOwner};

/// Removes programs, the tunnel device, guards, maps and the state directory. Running it again finds
/// nothing and is fine; it is refused while an agent runs, which would put everything back.
///
/// Guards go after the programs: a packet for a slice dies in the host rather than leave in clear
/// while its program is on the way out.
pub async fn uninstall(bpffs: &Path, state_dir: &Path) -> Result<()> {
    capability::check_capabilities()?;
    // Before anything is removed: with a wrong path the programs would stay and lose their guards.
    // Elsewhere a folder of that name is somebody else's.
    capability::check_bpffs(bpffs).context(
        "nothing was removed, because --bpffs must name the file system that the agent was given",
    )?;
    let lock = Lock::take(state_dir)?;
    let pins = Pins::current(bpffs);
    let pins_lock = match PinsLock::take(&pins) {
        Ok(taken) => taken,
        Err(refused) => {
            lock.remove()?;
            return Err(refused);
        }
    };
    let netlink = netlink::connect()?;
    remove_links(&pins)?;
    remove_filters(&netlink, &pins).await?;
    if port_owner::remove(&netlink, PortOwner::INTERFACE).await? {
        tracing::info!(device = PortOwner::INTERFACE, "removed the tunnel device");
    }
    if routing::remove_all(&netlink, guards::TABLE).await? {
        tracing::info!(
            table = guards::TABLE,
            "removed the guard routes and their rule"
        );
    }
    if pod_routes::remove_everything(&netlink).await? {
        tracing::info!(
            table = pod_routes::TABLE,
            "removed the routes by which the stack delivered for slices"
        );
    }
    if routing::remove_all(&netlink, ways_back::TABLE).await? {
        tracing::info!(
            table = ways_back::TABLE,
            "removed what the check of reverse paths was told"
        );
    }
    remove_tree(pins.root())?;
    drop(pins_lock);
    lock.remove()?;
    tracing::info!("nothing of sliceplane is left on this node");
    Ok(())
}

/// Removes the links of every layout; the kernel detaches the programs with them.
fn remove_links(pins: &Pins) -> Result<()> {
    let mut dirs = vec![pins.clone()];
    dirs.extend(pins.others()?);
    for dir in dirs {
        let links = dir.pinned_links()?.len();
        remove_tree(&dir.links())?;
        if links > 0 {
            tracing::info!(links, dir = %dir.links().display(), "removed the pinned links");
        }
    }
    Ok(())
}

async fn remove_filters(netlink: &Handle, pins: &Pins) -> Result<()> {
    for (ifindex, interface) in programs::interfaces()? {
        for filter in clsact::filters(netlink, ifindex).await? {
            let at = Attachment {
                interface: interface.clone(),
                ifindex,
                program: filter.program,
            };
            clsact::detach(netlink, pins, &at).await?;
            tracing::info!(interface, program = at.program.name(), "removed the filter");
        }
        clsact::remove_our_qdisc(netlink, pins, ifindex, &interface).await?;
        queueing::remove(netlink, ifindex).await?;
    }
    Ok(())
}
