//! The right to measure, one holder per machine, and the removal of what a run made.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::Signal;

use crate::child::poll_until;
use crate::lab::cleanup::{mounts_below, processes_in};
use crate::lab::state::Process;
use crate::netns::NetNs;

/// Every namespace of a bench starts so.
pub const NAMESPACE_PREFIX: &str = "sb-";
/// Everything of a bench that is a file lies below.
pub const BENCH_DIR: &str = "/run/sliceplane-bench";
/// Outside of the folder, so that removing the folder does not remove a held lock.
const LOCK_FILE: &str = "/run/sliceplane-bench.lock";
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// Held while a bench runs; when dropped, everything below it is removed.
#[derive(Debug)]
pub struct Ground {
    _lock: Flock<File>,
}

impl Ground {
    /// Takes the lock, waiting so long for another bench to end, and removes what a killed run left.
    /// # Errors  while another bench runs: two would measure each other.
    pub fn take(wait: Duration) -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            bail!("the bench makes network namespaces, which needs root: run it with sudo");
        }
        let ground = Self { _lock: lock(wait)? };
        remove_everything().context("remove what an earlier bench left")?;
        fs::create_dir_all(BENCH_DIR).with_context(|| format!("cannot create {BENCH_DIR}"))?;
        Ok(ground)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if let Err(error) = remove_everything() {
            eprintln!("bench: not everything could be removed: {error:#}");
        }
    }
}

/// A path below the bench's folder.
pub fn bench_path(relative: impl AsRef<Path>) -> PathBuf {
    Path::new(BENCH_DIR).join(relative)
}

fn lock(wait: Duration) -> Result<Flock<File>> {
    match poll_until(wait, try_lock)? {
        Some(lock) => Ok(lock),
        None => bail!(
            "{} runs a bench: two would measure each other; wait for it to end",
            fs::read_to_string(LOCK_FILE)?
        ),
    }
}

/// `None` while somebody else holds it.
fn try_lock() -> Result<Option<Flock<File>>> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(LOCK_FILE)
        .with_context(|| format!("cannot open {LOCK_FILE}"))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            lock.set_len(0)?;
            write!(lock, "process {}", std::process::id())?;
            Ok(Some(lock))
        }
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(error).with_context(|| format!("cannot lock {LOCK_FILE}")),
    }
}

fn remove_everything() -> Result<()> {
    let namespaces = NetNs::list(NAMESPACE_PREFIX);
    for pid in processes_in(&namespaces) {
        // Gone between listing and here: nothing to do.
        if let Ok(process) = Process::of("a process of a bench", pid.unsigned_abs()) {
            process.end(Signal::SIGKILL, KILL_LIMIT)?;
        }
    }
    for mount in &mounts_below(BENCH_DIR) {
        umount2(mount, MntFlags::MNT_DETACH)
            .with_context(|| format!("cannot unmount {}", mount.display()))?;
    }
    for namespace in &namespaces {
        NetNs::delete(namespace)?;
    }
    match fs::remove_dir_all(BENCH_DIR) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {BENCH_DIR}"))
        }
        _ => Ok(()),
    }
}
