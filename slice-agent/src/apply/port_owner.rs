//! The kernel VXLAN device that owns the tunnel's UDP port.

use anyhow::{Context, Result, bail};
use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVxlan};

use super::netlink::{cause, errno, is_absent};
use crate::image::PortOwner;

/// The largest a VXLAN device takes: what is too big is decided per path, not here. Other people's
/// devices have 1500 or less by default, so this is also a mark of ours.
const MTU_BYTES: u32 = 65_485;

/// A network device as far as it matters here.
struct Device {
    ifindex: u32,
    name: String,
    kind: Option<InfoKind>,
    up: bool,
    /// Of a VXLAN device.
    port: Option<u16>,
    external: bool,
    learning: bool,
    mtu_bytes: u32,
}

impl Device {
    fn is_ours(&self) -> bool {
        let kind = self.kind == Some(InfoKind::Vxlan) && self.external && !self.learning;
        kind && self.mtu_bytes == MTU_BYTES
    }
}

/// The port owner, if it is there and up; one that is down was not finished.
pub async fn observe(netlink: &Handle) -> Result<Option<PortOwner>> {
    let device = find(netlink, PortOwner::INTERFACE).await?;
    Ok(device
        .filter(|device| device.up && device.is_ours())
        .and_then(|device| {
            Some(PortOwner {
                interface: device.name.clone(),
                port: device.port?,
            })
        }))
}

/// Creates the device and leaves it down; keeps one that has the port already.
pub async fn create(netlink: &Handle, owner: &PortOwner) -> Result<()> {
    let (name, port) = (&owner.interface, owner.port);
    if let Some(device) = find(netlink, name).await? {
        if !device.is_ours() {
            bail!(
                "a device {name} exists that is not ours: no external VXLAN device without \
                 learning and with an MTU of {MTU_BYTES}; rename or remove it (ip link del {name})"
            );
        }
        if device.port == Some(port) {
            return Ok(());
        }
        delete(netlink, &device).await?;
    }
    for device in devices(netlink).await? {
        if device.port == Some(port) {
            bail!(
                "the VXLAN device {} already owns UDP port {port}; give the node another \
                 underlay.port, or remove that device",
                device.name.escape_debug()
            );
        }
    }
    let message = LinkMessageBuilder::<LinkVxlan>::new(name)
        .collect_metadata(true)
        .learning(false)
        .port(port)
        .udp_csum(false)
        .mtu(MTU_BYTES)
        .build();
    netlink
        .link()
        .add(message)
        .execute()
        .await
        .map_err(|error| taken(error, port))
        .with_context(|| format!("cannot create the device {name} that owns UDP port {port}"))
}

/// Sets the device up: from here on it takes what arrives at the port.
pub async fn set_up(netlink: &Handle, ifindex: u32) -> Result<()> {
    let port = devices(netlink)
        .await?
        .into_iter()
        .find(|device| device.ifindex == ifindex);
    let port = port.and_then(|device| device.port).unwrap_or_default();
    // The kernel ignores an alias when it creates a device (net/core/rtnetlink.c).
    let alias = format!("sliceplane: owns UDP port {port}");
    let message = LinkUnspec::new_with_index(ifindex)
        .alias(alias)
        .up()
        .build();
    netlink
        .link()
        .set(message)
        .execute()
        .await
        .map_err(|error| taken(error, port))
        .with_context(|| format!("cannot set the device {} up", PortOwner::INTERFACE))
}

/// Removes the device if it is one of ours; says whether it did.
pub async fn remove(netlink: &Handle, name: &str) -> Result<bool> {
    match find(netlink, name).await? {
        Some(device) if device.is_ours() => {
            delete(netlink, &device).await?;
            Ok(true)
        }
        Some(_) => {
            tracing::warn!("the device {name} stays, because it is not ours");
            Ok(false)
        }
        None => Ok(false),
    }
}

async fn delete(netlink: &Handle, device: &Device) -> Result<()> {
    match netlink.link().del(device.ifindex).execute().await {
        Err(error) if !is_absent(&error) => {
            Err(cause(error)).with_context(|| format!("cannot remove the device {}", device.name))
        }
        _ => Ok(()),
    }
}

fn taken(error: rtnetlink::Error, port: u16) -> anyhow::Error {
    match errno(&error) {
        Some(libc::EADDRINUSE | libc::EEXIST) => anyhow::anyhow!(
            "another program or device uses UDP port {port}; find it with `ss -lunp 'sport = \
             {port}'` and `ip -d link show type vxlan`, or give the node another underlay.port"
        ),
        Some(libc::EOPNOTSUPP) => anyhow::anyhow!(
            "this kernel has no VXLAN devices; load the module with `modprobe vxlan`"
        ),
        _ => cause(error),
    }
}

async fn find(netlink: &Handle, name: &str) -> Result<Option<Device>> {
    Ok(devices(netlink)
        .await?
        .into_iter()
        .find(|device| device.name == name))
}

async fn devices(netlink: &Handle) -> Result<Vec<Device>> {
    let links: Vec<LinkMessage> = netlink
        .link()
        .get()
        .execute()
        .try_collect()
        .await
        .map_err(cause)
        .context("cannot list the network devices of this host")?;
    Ok(links.iter().map(device).collect())
}

fn device(link: &LinkMessage) -> Device {
    let mut device = Device {
        ifindex: link.header.index,
        name: String::new(),
        kind: None,
        up: link.header.flags.contains(LinkFlags::Up),
        port: None,
        external: false,
        learning: false,
        mtu_bytes: 0,
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => device.name.clone_from(name),
            LinkAttribute::Mtu(mtu_bytes) => device.mtu_bytes = *mtu_bytes,
            LinkAttribute::LinkInfo(infos) => infos.iter().for_each(|info| match info {
                LinkInfo::Kind(kind) => device.kind = Some(kind.clone()),
                LinkInfo::Data(InfoData::Vxlan(values)) => vxlan(&mut device, values),
                _ => {}
            }),
            _ => {}
        }
    }
    device
}

fn vxlan(device: &mut Device, values: &[InfoVxlan]) {
    for value in values {
        match value {
            InfoVxlan::Port(port) => device.port = Some(*port),
            InfoVxlan::CollectMetadata(external) => device.external = *external,
            InfoVxlan::Learning(learning) => device.learning = *learning,
            _ => {}
        }
    }
}
