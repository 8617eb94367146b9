//! Removes a lab, whole or as a killed run left it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::Signal;

use super::state::{LAB_DIR, Process, State};
use crate::netns::NetNs;

/// Every namespace of the lab starts so.
pub const NAMESPACE_PREFIX: &str = "sl-";
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// What of a lab exists on this machine.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    pub namespaces: Vec<String>,
    /// Deepest first.
    pub mounts: Vec<PathBuf>,
    /// Ids of the processes that live in a namespace of the lab.
    pub processes: Vec<i32>,
    pub folder: bool,
}

impl Leftovers {
    pub fn find() -> Self {
        let namespaces = NetNs::list(NAMESPACE_PREFIX);
        Self {
            mounts: mounts_below(LAB_DIR),
            processes: processes_in(&namespaces),
            folder: Path::new(LAB_DIR).exists(),
            namespaces,
        }
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Ends the lab's processes and removes its namespaces, mounts and files, as far as they exist.
///
/// The caller holds the lab's lock.
pub fn remove_everything() -> Result<()> {
    // An unreadable state file must not keep the rest from being cleaned.
    let mut state = State::load().ok().flatten();
    if let Some(state) = state.as_mut().filter(|state| state.ready) {
        // From here on it is no lab any more, also if this is ended in the middle.
        state.ready = false;
        state.save()?;
    }
    let recorded = state.unwrap_or_default().processes;
    for process in &recorded {
        process.end(Signal::SIGKILL, KILL_LIMIT)?;
    }
    let found = Leftovers::find();
    for pid in found.processes {
        // Gone between listing and here: nothing to do.
        if let Ok(process) = Process::of("a process in a lab namespace", pid.unsigned_abs()) {
            process.end(Signal::SIGKILL, KILL_LIMIT)?;
        }
    }
    for mount in &found.mounts {
        umount2(mount, MntFlags::MNT_DETACH)
            .with_context(|| format!("cannot unmount {}", mount.display()))?;
    }
    for namespace in &found.namespaces {
        NetNs::delete(namespace)?;
    }
    match fs::remove_dir_all(LAB_DIR) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {LAB_DIR}"));
        }
        _ => {}
    }
    // Looked at here, under the lock: a moment later the next lab may be coming up.
    let left = Leftovers::find();
    if !left.is_empty() {
        bail!("the lab did not go down whole, run `cargo xtask lab down` again; left are {left:?}");
    }
    Ok(())
}

pub(crate) fn mounts_below(dir: &str) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut mounts: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .filter(|mount| mount.starts_with(dir))
        .collect();
    mounts.sort_by_key(|mount| std::cmp::Reverse(mount.components().count()));
    mounts
}

/// A namespace of the lab is ours, and so is whatever runs in it: no name is looked at.
pub(crate) fn processes_in(namespaces: &[String]) -> Vec<i32> {
    let inodes: BTreeSet<(u64, u64)> = namespaces
        .iter()
        .filter_map(|name| inode(&Path::new("/run/netns").join(name)))
        .collect();
    let own = std::process::id().cast_signed();
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != own)
        .filter(|pid| {
            inode(Path::new(&format!("/proc/{pid}/ns/net"))).is_some_and(|it| inodes.contains(&it))
        })
        .collect()
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}
