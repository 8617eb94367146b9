//! Carries a plan out: one change at a time, each of which may be repeated.

pub mod clsact;
pub mod guards;
pub mod htb;
pub mod lock;
pub mod maps;
pub mod netlink;
pub mod pins;
pub mod pod_routes;
pub mod port_owner;
pub mod programs;
pub mod queueing;
pub mod routing;
pub mod table;
pub mod tcx;
pub mod ways_back;

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};
use rtnetlink::Handle;
use slice_common::layout::Settings;

use crate::image::{Attachment, PortOwner, Program};
use crate::plan::Change;
use maps::{Layout, Maps, check_layout};
use pins::Pins;
use programs::{BpfLog, Mechanism, Programs};

/// The kernel objects of this node, ready to be changed.
pub struct Dataplane {
    netlink: Handle,
    pins: Pins,
    maps: Maps,
    programs: Programs,
}

impl Dataplane {
    /// Loads the programs, on the maps that are pinned if they are right, and gives every link that
    /// is pinned the new programs; traffic goes on meanwhile. Needs the lock of the node.
    ///
    /// Maps of another layout, or damaged ones, are not touched: the old programs keep using them
    /// until each link is taken over, and [`Dataplane::finish_takeover`] removes them.
    pub async fn start(
        netlink: Handle,
        bpffs: &Path,
        object: &[u8],
        mechanism: Mechanism,
        log: BpfLog,
    ) -> Result<Self> {
        let pins = Pins::current(bpffs);
        let layout = put_damage_aside(&pins)?;
        pins.create()?;
        let mut programs = Programs::load(object, &pins, mechanism, log)?;
        remove_vanished(&pins)?;
        // Fresh maps are empty: links are taken over one by one when they have been filled.
        let adopted = match layout {
            Layout::Right => programs.adopt(&netlink, &pins).await?,
            Layout::Absent | Layout::Wrong(_) => 0,
        };
        let maps = Maps::new(pins.clone());
        if adopted > 0 {
            // What the programs before these decided, by rules that may have been mended, is decided anew.
            forget_verdicts(&maps)?;
        }
        tracing::info!(
            attach = mechanism.name(),
            programs_replaced = adopted,
            pins = %pins.dir().display(),
            "kernel programs loaded"
        );
        Ok(Self {
            netlink,
            pins,
            maps,
            programs,
        })
    }

    pub fn netlink(&self) -> &Handle {
        &self.netlink
    }

    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    pub fn programs_mut(&mut self) -> &mut Programs {
        &mut self.programs
    }

    pub fn mechanism(&self) -> Mechanism {
        self.programs.mechanism()
    }

    /// Executes one change.
    pub async fn apply(&mut self, change: &Change) -> Result<()> {
        let (maps, netlink) = (&self.maps, &self.netlink);
        match change {
            Change::CreatePortOwner(owner) => port_owner::create(netlink, owner).await,
            Change::RemovePortOwner(owner) => port_owner::remove(netlink, &owner.interface)
                .await
                .map(drop),
            Change::PutPath(put) => {
                maps.forget_learnt(put.key)?;
                maps.put("PATHS", put.key, put.value)
            }
            Change::RemovePath(gone) => {
                maps.forget_learnt(gone.key)?;
                maps.remove::<u32, slice_common::layout::Path>("PATHS", gone.key)
            }
            Change::PutPathGroup(put) => maps.put("PATH_GROUPS", put.key, put.value),
            Change::RemovePathGroup(gone) => {
                maps.remove::<u32, slice_common::layout::PathGroup>("PATH_GROUPS", gone.key)
            }
            Change::PutPeer(put) => maps.put("PEERS", put.key.network_word(), put.value),
            Change::RemovePeer(gone) => {
                maps.remove::<u32, slice_common::layout::Peer>("PEERS", gone.key.network_word())
            }
            Change::PutSlice(put) => maps.put("SLICES", put.key, put.value),
            Change::RemoveSlice(gone) => {
                maps.remove::<u32, slice_common::layout::Slice>("SLICES", gone.key)
            }
            Change::PutLocal(put) => maps.put("LOCAL", put.key, put.value),
            Change::RemoveLocal(gone) => {
                maps.remove::<_, slice_common::layout::LocalEndpoint>("LOCAL", gone.key)
            }
            Change::PutEndpoint(put) => maps.put("ENDPOINTS", put.key, put.value),
            Change::RemoveEndpoint(gone) => {
                maps.remove::<u32, slice_common::layout::Endpoint>("ENDPOINTS", gone.key)
            }
            Change::PutNodeAddress(put) => {
                maps.put("NODE_ADDRESSES", put.key.network_word(), put.value)
            }
            Change::RemoveNodeAddress(gone) => {
                maps.remove::<u32, u32>("NODE_ADDRESSES", gone.key.network_word())
            }
            Change::SwapRoutes(swap) => maps.swap("ROUTES", &swap.table),
            Change::SwapPolicy(swap) => maps.swap("POLICY", &swap.table),
            Change::SwapClasses(swap) => maps.swap("CLASSES", &swap.table),
            Change::SwapOutside(swap) => maps.swap("OUTSIDE", &swap.table),
            Change::SwapRates(swap) => maps.swap("SHAPER_TERMS", &swap.table),
            Change::AddFairQueue(ifindex, queue) => {
                queueing::make_fair(netlink, *ifindex, queue.queues).await
            }
            Change::RemoveFairQueue(ifindex, _) | Change::RemoveTree(ifindex, _) => {
                queueing::remove(netlink, *ifindex).await
            }
            Change::BuildTree(ifindex, tree) => htb::build(netlink, *ifindex, tree).await,
            Change::MendTree(ifindex, mending) => {
                if let Some(frame_bytes) = mending.frame_bytes {
                    htb::put_frame(netlink, *ifindex, frame_bytes).await?;
                }
                for (minor, class) in &mending.classes {
                    htb::put_class(netlink, *ifindex, *minor, class).await?;
                }
                Ok(())
            }
            Change::TrimTree(ifindex, trimming) => {
                htb::trim(netlink, *ifindex, &trimming.classes).await
            }
            Change::AddGuard(prefix) => guards::add(netlink, *prefix).await,
            Change::RemoveGuard(prefix) => guards::remove(netlink, *prefix).await,
            Change::PutPodRoute(pod, route) => pod_routes::put(netlink, *pod, *route).await,
            Change::RemovePodRoute(pod) => pod_routes::remove(netlink, *pod).await,
            Change::EnforcePodRoutes => pod_routes::put_in_force(netlink).await,
            Change::ForgetPodRoutes => pod_routes::remove_everything(netlink).await.map(drop),
            Change::AddWayBack(way) => ways_back::add(netlink, *way).await,
            Change::RemoveWayBack(way) => ways_back::remove(netlink, *way).await,
            Change::Activate(settings) => self.activate(*settings),
            Change::Attach(at) => self.attach(at).await,
            Change::Detach(at) => self.programs.detach(netlink, &self.pins, at).await,
        }
    }

    /// Removes what agents of another layout, or damage, left: everything wanted runs on the new
    /// maps now. Call it only when the whole plan was carried out.
    pub async fn finish_takeover(&mut self) -> Result<()> {
        let interfaces = programs::interfaces()?;
        if self.mechanism() == Mechanism::Clsact {
            self.detach_strays(&interfaces).await?;
        }
        for other in self.pins.others()? {
            other.remove()?;
            tracing::info!(dir = %other.dir().display(), "removed pins that are no longer used");
        }
        Ok(())
    }

    /// Has everything decided anew that the flow cache remembers.
    pub fn forget_verdicts(&self) -> Result<()> {
        forget_verdicts(&self.maps)
    }

    /// Removes pins and marks of devices that are gone.
    pub fn forget_vanished(&self) -> Result<()> {
        remove_vanished(&self.pins)
    }

    /// Pins maps again whose pins somebody removed or replaced: the programs use them all the time,
    /// so traffic does not notice, but without pins nothing can be read or changed.
    pub fn restore_pins(&self) -> Result<()> {
        let restored = self.programs.restore_pins(&self.pins)?;
        if !restored.is_empty() {
            tracing::warn!(
                maps = %restored.join(", "),
                dir = %self.pins.maps().display(),
                "somebody removed or replaced pins of maps; they are pinned again"
            );
        }
        Ok(())
    }

    /// Puts our programs before those of others; a sentence for each hook where others stay in front.
    pub async fn stand_first(&mut self, attached: &BTreeSet<Attachment>) -> Vec<String> {
        let (netlink, pins) = (&self.netlink, &self.pins);
        self.programs.stand_first(netlink, pins, attached).await
    }

    /// The tunnel's device may have been created by the same plan.
    fn activate(&self, settings: Settings) -> Result<()> {
        let settings = Settings {
            tunnel_ifindex: ifindex(PortOwner::INTERFACE)?,
            ..settings
        };
        let mut map = self.maps.array("SETTINGS")?;
        map.set(0, settings, 0)
            .context("cannot write the map SETTINGS")
    }

    async fn attach(&mut self, at: &Attachment) -> Result<()> {
        let at = with_ifindex(at)?;
        self.programs.attach(&self.netlink, &self.pins, &at).await?;
        if at.program == Program::TunnelIngress && at.interface == PortOwner::INTERFACE {
            port_owner::set_up(&self.netlink, at.ifindex).await?;
        }
        Ok(())
    }

    async fn detach_strays(&self, interfaces: &BTreeSet<(u32, String)>) -> Result<()> {
        let (netlink, pins) = (&self.netlink, &self.pins);
        let mechanism = self.mechanism();
        let wanted = programs::attachments(mechanism, netlink, pins, interfaces).await?;
        for (ifindex, interface) in interfaces {
            for filter in clsact::filters(netlink, *ifindex).await? {
                let (ifindex, interface) = (*ifindex, interface.clone());
                let at = Attachment {
                    interface,
                    ifindex,
                    program: filter.program,
                };
                if !wanted.contains(&at) {
                    self.programs.detach(netlink, pins, &at).await?;
                }
            }
        }
        Ok(())
    }
}

fn forget_verdicts(maps: &Maps) -> Result<()> {
    let mut settings = maps.array::<Settings>("SETTINGS")?;
    let mut now = settings
        .get(&0, 0)
        .context("cannot read the map SETTINGS")?;
    if now.generation == 0 {
        return Ok(());
    }
    now.generation = now.next_generation();
    settings
        .set(0, now, 0)
        .context("cannot write the map SETTINGS")
}

/// The version is in the directory's name, so maps there that differ from the layout were damaged.
/// They may be in use, and recreating them in place would show running programs empty maps: the
/// directory is put aside as if it were another layout's.
fn put_damage_aside(pins: &Pins) -> Result<Layout> {
    let mut layout = check_layout(pins)?;
    if layout == Layout::Absent && !pins.pinned_links()?.is_empty() {
        layout = Layout::Wrong(vec!["links are pinned, but no map is".to_owned()]);
    }
    if let Layout::Wrong(wrong) = &layout {
        let aside = pins.put_aside()?;
        tracing::warn!(
            damage = %wrong.join("; "),
            put_aside = %aside.display(),
            "the pinned maps are not those of this layout; they are replaced while traffic runs, \
             and counters and remembered replies start anew"
        );
    }
    Ok(layout)
}

fn remove_vanished(pins: &Pins) -> Result<()> {
    let removed = tcx::remove_severed(pins)?;
    if removed > 0 {
        tracing::info!(
            links = removed,
            "removed the pins of links whose device is gone, or that are not ours"
        );
    }
    clsact::forget_vanished(pins, &programs::interfaces()?)
}

fn with_ifindex(at: &Attachment) -> Result<Attachment> {
    if at.ifindex != 0 {
        return Ok(at.clone());
    }
    Ok(Attachment {
        ifindex: ifindex(&at.interface)?,
        ..at.clone()
    })
}

/// The number of an interface of this host.
pub fn ifindex(interface: &str) -> Result<u32> {
    nix::net::if_::if_nametoindex(interface)
        .with_context(|| format!("there is no interface {interface}"))
}
