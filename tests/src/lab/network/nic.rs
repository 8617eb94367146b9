//! Settings of the lab's network devices that make veth pairs behave like NICs.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::{WAN_NAMESPACE, batch, wan_port};
use crate::lab::inventory::{CLUSTERS, MTU_BYTES, NODES};
use crate::lab::state::lab_path;
use crate::netns::NetNs;

const ETHERNET_HEADER_BYTES: u64 = 14;

/// Puts a real queue on the devices.
///
/// A veth's receive ring has 256 slots and drops when full; since Linux 6.16 it exerts
/// back-pressure instead, but only on a sender that has a real qdisc.
pub(crate) fn give_real_qdisc(namespace: &NetNs, devices: &[&str]) -> Result<()> {
    let mut script = String::new();
    for device in devices {
        let _ = writeln!(script, "qdisc replace dev {device} root pfifo limit 1000");
    }
    batch("tc", &["-batch", "-"], Some(namespace), &script)
}

/// Switches receive packet steering on for every device of the namespace.
///
/// Without it two CPUs deliver one flow and reorder it, whatever routes the packets.
pub(in crate::lab) fn steer_receive(namespace: &NetNs) -> Result<()> {
    let mask = cpu_mask(std::thread::available_parallelism().map_or(1, usize::from));
    steer_receive_to(namespace, &mask, &lab_path("sys"))
}

/// Switches receive packet steering off: each CPU delivers what is sent on it, in order, whatever flow it
/// belongs to.
pub(in crate::lab) fn stop_steering(namespace: &NetNs) -> Result<()> {
    steer_receive_to(namespace, "0", &lab_path("sys"))
}

/// Steers what every device of the namespace receives to the CPUs of `mask`; sysfs gets mounted at
/// `mount_point`, for this alone.
pub(crate) fn steer_receive_to(namespace: &NetNs, mask: &str, mount_point: &Path) -> Result<()> {
    namespace
        .enter(|| with_own_sysfs(mount_point, |sysfs| steer_all(sysfs, mask)))?
        .with_context(|| format!("receive packet steering in {}", namespace.name()))
}

/// Sets offloads of a device, in the words of `ethtool -K`.
pub(crate) fn set_offload(
    namespace: &NetNs,
    device: &str,
    settings: &[(&str, bool)],
) -> Result<()> {
    let mut command = namespace.command("ethtool");
    command.args(["-K", device]);
    for (name, on) in settings {
        command.args([*name, if *on { "on" } else { "off" }]);
    }
    let output = command.output().context("cannot run ethtool")?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!(
            "ethtool -K {device} in {}: {}",
            namespace.name(),
            complaint.trim()
        );
    }
    Ok(())
}

/// Wire mode: every sending NIC cuts to MTU size, and each node's NIC merges what it receives.
///
/// That is what a NIC without tunnel offload does. The receiver's merging was on already: a veth
/// uses it only when its sending peer cannot segment.
pub(in crate::lab) fn set_wire_mode(on: bool, with_router: bool) -> Result<()> {
    let segmentation = [("tso", !on), ("gso", !on), ("tx-udp-segmentation", !on)];
    for node in &NODES {
        set_offload(&NetNs::open(&node.namespace())?, "nic0", &segmentation)?;
        let fabric = NetNs::open(&node.cluster().fabric_namespace())?;
        set_offload(&fabric, &node.fabric_port(), &segmentation)?;
    }
    if with_router {
        for cluster in &CLUSTERS {
            let fabric = NetNs::open(&cluster.fabric_namespace())?;
            set_offload(&fabric, "wan0", &segmentation)?;
            let wan = NetNs::open(WAN_NAMESPACE)?;
            set_offload(&wan, &wan_port(cluster), &segmentation)?;
        }
    }
    Ok(())
}

/// What a transfer did on the wire, from counters before and after it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WireCheck {
    /// Packets that the sending node's NIC sent.
    pub nic_packets: u64,
    /// Their mean length with the Ethernet header.
    pub nic_mean_bytes: f64,
    /// Packets that arrived in the receiving pod.
    pub pod_packets: u64,
}

impl WireCheck {
    /// Cut at the sender: no packet on the wire was larger than the MTU.
    pub fn cut_at_sender(&self) -> bool {
        self.nic_packets > 0
            && self.nic_mean_bytes <= (u64::from(MTU_BYTES) + ETHERNET_HEADER_BYTES) as f64
    }

    /// Merged at the receiver: fewer packets reached the pod than crossed the wire.
    pub fn merged_at_receiver(&self) -> bool {
        self.pod_packets * 2 < self.nic_packets
    }
}

fn steer_all(sysfs: &Path, mask: &str) -> Result<()> {
    for device in fs::read_dir(sysfs.join("class/net"))? {
        let queues = device?.path().join("queues");
        for queue in fs::read_dir(&queues)? {
            let file = queue?.path().join("rps_cpus");
            if file.exists() {
                fs::write(&file, mask)
                    .with_context(|| format!("cannot write {mask} to {}", file.display()))?;
            }
        }
    }
    Ok(())
}

/// Gives the calling thread, which must end afterwards, a sysfs of its network namespace: sysfs
/// shows the devices of the namespace it was mounted in, not of the one that reads it.
fn with_own_sysfs(dir: &Path, f: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    unshare(CloneFlags::CLONE_NEWNS).context("unshare(CLONE_NEWNS)")?;
    let slave = MsFlags::MS_SLAVE | MsFlags::MS_REC;
    mount(None::<&str>, "/", None::<&str>, slave, None::<&str>).context("make / a slave mount")?;
    mount(
        Some("sysfs"),
        dir,
        Some("sysfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .context("mount sysfs")?;
    f(dir)
}

/// All CPUs in the kernel's format: hexadecimal words of 32 bits, separated by commas.
fn cpu_mask(cpus: usize) -> String {
    let whole_words = cpus / 32;
    let rest = cpus % 32;
    let mut words = Vec::new();
    if rest > 0 {
        words.push(format!("{:x}", (1_u32 << rest) - 1));
    }
    words.extend(std::iter::repeat_n("ffffffff".to_owned(), whole_words));
    words.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_mask_covers_every_cpu_and_no_more() {
        assert_eq!(cpu_mask(1), "1");
        assert_eq!(cpu_mask(2), "3");
        assert_eq!(cpu_mask(32), "ffffffff");
        assert_eq!(cpu_mask(36), "f,ffffffff");
    }

    #[test]
    fn uncut_and_unmerged_transfers_are_told_apart() {
        let gso = WireCheck {
            nic_packets: 100,
            nic_mean_bytes: 40_000.0,
            pod_packets: 100,
        };
        let wire = WireCheck {
            nic_packets: 9000,
            nic_mean_bytes: 1514.0,
            pod_packets: 300,
        };
        assert!(!gso.cut_at_sender() && !gso.merged_at_receiver());
        assert!(wire.cut_at_sender() && wire.merged_at_receiver());
    }
}
