//! What the agent needs of its process and of the kernel, checked or probed and named.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use aya::maps::MapType;
use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported, is_map_supported, is_program_supported};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

/// A capability: its number in the kernel's bit set, its name, and what it is needed for.
struct Capability {
    bit: u32,
    name: &'static str,
    purpose: &'static str,
}

const SYS_ADMIN: u32 = 21;

const NEEDED: &[Capability] = &[
    Capability {
        bit: 12,
        name: "CAP_NET_ADMIN",
        purpose: "to attach programs and to create the tunnel device, routes and rules",
    },
    Capability {
        bit: SYS_ADMIN,
        name: "CAP_SYS_ADMIN",
        purpose: "to read back the tables that the kernel uses (the kernel asks for it to open a \
                  map by its number)",
    },
    Capability {
        bit: 38,
        name: "CAP_PERFMON",
        purpose: "to load programs that read packets",
    },
    Capability {
        bit: 39,
        name: "CAP_BPF",
        purpose: "to create maps and load programs",
    },
];

/// Refuses to go on without a needed capability, and names each that is missing.
pub fn check_capabilities() -> Result<()> {
    let status = fs::read_to_string("/proc/self/status")
        .context("cannot read the capabilities of this process from /proc/self/status")?;
    let effective = effective(&status)
        .context("/proc/self/status has no line CapEff with a hexadecimal number")?;
    let missing: Vec<String> = missing(effective)
        .iter()
        .map(|capability| format!("{} {}", capability.name, capability.purpose))
        .collect();
    if !missing.is_empty() {
        bail!(
            "this process lacks {}; run it as root (sudo), or grant the capability",
            missing.join("; ")
        );
    }
    Ok(())
}

fn effective(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// CAP_SYS_ADMIN includes what CAP_BPF and CAP_PERFMON were split off from (Linux 5.8).
fn missing(effective: u64) -> Vec<&'static Capability> {
    let has = |bit: u32| effective & (1 << bit) != 0;
    let implied = |bit: u32| bit > 37 && has(SYS_ADMIN);
    NEEDED
        .iter()
        .filter(|needed| !has(needed.bit) && !implied(needed.bit))
        .collect()
}

/// Refuses a directory that is no BPF file system: what is pinned elsewhere would not outlive us.
pub fn check_bpffs(bpffs: &Path) -> Result<()> {
    let shown = bpffs.display();
    let kind = statfs(bpffs).map(|statistics| statistics.filesystem_type());
    match kind {
        Ok(kind) if kind == BPF_FS_MAGIC => {}
        Ok(_) => bail!(
            "{shown} is not a BPF file system, so nothing pinned there would outlive the agent; \
             mount one: mount -t bpf bpf {shown}"
        ),
        Err(error) => bail!(
            "there is no BPF file system at {shown} ({}); mount one: mkdir -p {shown} && mount -t \
             bpf bpf {shown}",
            error.desc()
        ),
    }
    if !is_mounted_for_everyone(bpffs) {
        tracing::warn!(
            bpffs = %shown,
            "the BPF file system is mounted in this process's mount namespace only: pinned links \
             and maps end with it, and traffic with them; mount it in the host's namespace"
        );
    }
    Ok(())
}

/// Whether process 1 has the file system mounted as well; true where that cannot be seen.
fn is_mounted_for_everyone(bpffs: &Path) -> bool {
    let Ok(status) = nix::sys::stat::stat(bpffs) else {
        return true;
    };
    let Ok(mounts) = fs::read_to_string("/proc/1/mountinfo") else {
        return true;
    };
    let device = format!(
        "{}:{}",
        nix::sys::stat::major(status.st_dev),
        nix::sys::stat::minor(status.st_dev)
    );
    mounted_devices(&mounts).contains(device.as_str())
}

/// The third field of each line of mountinfo: `major:minor` (proc_pid_mountinfo(5)).
fn mounted_devices(mountinfo: &str) -> BTreeSet<&str> {
    mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(2))
        .collect()
}

/// Names the kernel features that the programs need and a probe does not find. Only asked when
/// loading failed: a probe may miss a feature that is there, so it explains, but never refuses.
pub fn missing_features() -> Vec<&'static str> {
    let program = ProgramType::SchedClassifier;
    let mut missing = Vec::new();
    if matches!(is_program_supported(program), Ok(false)) {
        missing.push("traffic-control programs (CONFIG_NET_CLS_BPF, BPF_PROG_TYPE_SCHED_CLS)");
    }
    let maps = [
        (
            MapType::LpmTrie,
            "longest-prefix maps (BPF_MAP_TYPE_LPM_TRIE)",
        ),
        (
            MapType::ArrayOfMaps,
            "maps in maps (BPF_MAP_TYPE_ARRAY_OF_MAPS)",
        ),
        (
            MapType::PerCpuHash,
            "per-CPU hash maps (BPF_MAP_TYPE_PERCPU_HASH)",
        ),
    ];
    for (map, name) in maps {
        if matches!(is_map_supported(map), Ok(false)) {
            missing.push(name);
        }
    }
    let helpers = [
        (
            BpfHelper::BPF_FUNC_redirect_peer,
            "the helper bpf_redirect_peer (Linux 5.10)",
        ),
        (
            BpfHelper::BPF_FUNC_redirect_neigh,
            "the helper bpf_redirect_neigh (Linux 5.10)",
        ),
        (
            BpfHelper::BPF_FUNC_skb_adjust_room,
            "the helper bpf_skb_adjust_room (Linux 4.13)",
        ),
        (
            BpfHelper::BPF_FUNC_csum_level,
            "the helper bpf_csum_level (Linux 5.9)",
        ),
    ];
    for (helper, name) in helpers {
        if matches!(is_helper_supported(program, helper), Ok(false)) {
            missing.push(name);
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(effective: u64) -> Vec<&'static str> {
        missing(effective)
            .iter()
            .map(|capability| capability.name)
            .collect()
    }

    #[test]
    fn each_missing_capability_is_named() {
        assert_eq!(
            names(0),
            ["CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_PERFMON", "CAP_BPF"]
        );
        assert_eq!(names(1 << 12 | 1 << 39), ["CAP_SYS_ADMIN", "CAP_PERFMON"]);
        assert_eq!(names(1 << 21), ["CAP_NET_ADMIN"]);
        assert_eq!(names(1 << 12 | 1 << 21), [""; 0]);
    }

    #[test]
    fn the_effective_set_is_read_from_the_status_file() {
        let status = "CapPrm:\t0000000000000000\nCapEff:\t000001ffffffffff\nCapBnd:\t0\n";
        assert_eq!(effective(status), Some(0x1ff_ffff_ffff));
        assert_eq!(effective("CapEff:\tzz\n"), None);
    }

    #[test]
    fn a_plain_directory_is_no_bpf_file_system_and_the_message_has_the_command() {
        let dir = tempfile::tempdir().unwrap();
        let message = check_bpffs(dir.path()).unwrap_err().to_string();
        assert!(
            message.contains(&format!("mount -t bpf bpf {}", dir.path().display())),
            "{message}"
        );
        let message = check_bpffs(&dir.path().join("absent"))
            .unwrap_err()
            .to_string();
        assert!(message.contains("mkdir -p"), "{message}");
    }

    #[test]
    fn mounts_are_found_by_their_device() {
        let mounts =
            "36 35 0:32 / /sys/fs/bpf rw - bpf bpf rw\n37 35 0:33 / /run rw - tmpfs t rw\n";
        assert_eq!(mounted_devices(mounts), BTreeSet::from(["0:32", "0:33"]));
    }
}
