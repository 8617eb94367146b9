//! Named network namespaces and commands that run inside them.
//!
//! Only the network namespace is changed (`setns`), never the mount namespace as
//! `ip netns exec` does: that mounts a fresh /sys, which hides bpffs from the program.

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

const NETNS_DIR: &str = "/run/netns";

/// A named network namespace, visible to `ip netns` as /run/netns/NAME.
///
/// Dropping the value leaves the namespace in place; [`NetNs::delete`] removes it.
#[derive(Clone, Debug)]
pub struct NetNs {
    name: String,
    file: Arc<File>,
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl NetNs {
    /// Creates the namespace and brings its loopback up; a namespace of that name must not exist.
    pub fn create(name: &str) -> Result<Self> {
        let path = checked_path(name)?;
        prepare_netns_dir()?;
        File::options()
            .write(true)
            .create_new(true)
            .open(&path)
            .with_context(|| {
                format!(
                    "network namespace {name:?}: cannot create {}",
                    path.display()
                )
            })?;
        let made = on_fresh_thread(|| -> Result<()> {
            unshare(CloneFlags::CLONE_NEWNET).context("unshare(CLONE_NEWNET), needs root")?;
            bring_loopback_up().context("bring lo up")?;
            // The thread's own entry: /proc/self is the main thread, still in the old namespace.
            mount(
                Some("/proc/thread-self/ns/net"),
                &path,
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )
            .context("bind mount of the new namespace")
        });
        if let Err(error) = made.and_then(|inner| inner) {
            let _ = fs::remove_file(&path);
            return Err(error.context(format!("network namespace {name:?}")));
        }
        Self::open(name)
    }

    /// Opens a namespace that exists.
    pub fn open(name: &str) -> Result<Self> {
        let path = checked_path(name)?;
        let file = File::open(&path).with_context(|| {
            format!("network namespace {name:?}: cannot open {}", path.display())
        })?;
        Ok(Self {
            name: name.to_owned(),
            file: Arc::new(file),
        })
    }

    /// Removes the name; the kernel frees the namespace when its last process and socket are gone.
    pub fn delete(name: &str) -> Result<()> {
        let path = checked_path(name)?;
        // EINVAL: a run killed between creating the file and mounting over it.
        match umount2(&path, MntFlags::MNT_DETACH) {
            Ok(()) | Err(nix::errno::Errno::EINVAL) => {}
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("network namespace {name:?}: cannot unmount"));
            }
        }
        fs::remove_file(&path)
            .with_context(|| format!("network namespace {name:?}: cannot remove its file"))
    }

    /// Names of the existing namespaces that start with `prefix`, sorted.
    pub fn list(prefix: &str) -> Vec<String> {
        let entries = fs::read_dir(NETNS_DIR).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.starts_with(prefix))
            .collect();
        names.sort();
        names
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run inside the namespace.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let file = Arc::clone(&self.file);
        // SAFETY: the closure only makes one async-signal-safe system call.
        unsafe {
            command.pre_exec(move || enter_net(file.as_fd()));
        }
        command
    }

    /// Like [`NetNs::command`], in a private mount namespace where `hosts` covers /etc/hosts.
    pub fn command_with_hosts(&self, program: impl AsRef<OsStr>, hosts: &Path) -> Command {
        let mut command = self.command(program);
        let hosts = CString::new(hosts.as_os_str().as_bytes());
        // SAFETY: the closure only makes system calls and allocates nothing.
        unsafe {
            command.pre_exec(move || match &hosts {
                Ok(hosts) => cover_etc_hosts(hosts),
                Err(_) => Err(io::ErrorKind::InvalidInput.into()),
            });
        }
        command
    }

    /// Runs `f` on a fresh thread inside the namespace, so that the caller's thread stays outside.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        on_fresh_thread(|| {
            enter_net(self.file.as_fd())?;
            Ok(f())
        })?
        .map_err(|error: io::Error| {
            anyhow::Error::new(error).context(format!("cannot enter namespace {:?}", self.name))
        })
    }
}

fn checked_path(name: &str) -> Result<PathBuf> {
    if name.is_empty() || name.starts_with('.') || name.contains('/') {
        bail!("network namespace name {name:?}: expected a plain file name");
    }
    Ok(Path::new(NETNS_DIR).join(name))
}

/// Makes /run/netns as iproute2 does: a shared mount, so that an unmount reaches every mount
/// namespace that copied it; otherwise a copy keeps the name busy.
fn prepare_netns_dir() -> Result<()> {
    let dir = Path::new(NETNS_DIR);
    fs::create_dir_all(dir).with_context(|| format!("cannot create {NETNS_DIR}"))?;
    let share = || {
        mount(
            None::<&str>,
            dir,
            None::<&str>,
            MsFlags::MS_SHARED | MsFlags::MS_REC,
            None::<&str>,
        )
    };
    if share().is_ok() {
        return Ok(());
    }
    mount(
        Some(dir),
        dir,
        None::<&str>,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        None::<&str>,
    )
    .and_then(|()| share())
    .with_context(|| format!("cannot make {NETNS_DIR} a shared mount, needs root"))
}

fn enter_net(namespace: BorrowedFd<'_>) -> io::Result<()> {
    setns(namespace, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
}

fn cover_etc_hosts(hosts: &CString) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    // Slave, not private: an unmount outside still reaches this copy, so nothing stays pinned.
    mount(
        None::<&str>,
        c"/",
        None::<&str>,
        MsFlags::MS_SLAVE | MsFlags::MS_REC,
        None::<&str>,
    )?;
    mount(
        Some(hosts.as_c_str()),
        c"/etc/hosts",
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )?;
    Ok(())
}

fn bring_loopback_up() -> io::Result<()> {
    let socket = nix::sys::socket::socket(
        nix::sys::socket::AddressFamily::Inet,
        nix::sys::socket::SockType::Datagram,
        nix::sys::socket::SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (target, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *target = byte.cast_signed() as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    nix::errno::Errno::result(result)?;
    Ok(())
}

fn on_fresh_thread<T: Send>(f: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| match scope.spawn(f).join() {
        Ok(value) => Ok(value),
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_leave_the_directory_are_refused() {
        for name in ["", "..", "a/b", ".hidden"] {
            assert!(checked_path(name).is_err(), "{name:?}");
        }
        assert_eq!(
            checked_path("sl-east-1").unwrap(),
            Path::new("/run/netns/sl-east-1")
        );
    }
}
