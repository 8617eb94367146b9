//! One agent per node: an advisory lock on a file that holds the owner's process id, and one on the
//! directory of the pins, which agents with different state directories share.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::pins::Pins;

const FILE: &str = "agent.lock";

/// Held while the agent runs; the kernel frees it with the process, however that ends.
#[derive(Debug)]
pub struct Lock {
    file: Flock<File>,
    dir: PathBuf,
}

impl Lock {
    /// Takes the lock in `state_dir`; the error names the process that has it.
    pub fn take(state_dir: &Path) -> Result<Self> {
        fs::create_dir_all(state_dir).with_context(|| {
            format!(
                "cannot create the state directory {} (--state-dir)",
                state_dir.display()
            )
        })?;
        let path = state_dir.join(FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            // A link would make us write where it leads.
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .with_context(|| format!("cannot open the lock file {}", path.display()))?;
        let regular = file.metadata().is_ok_and(|metadata| metadata.is_file());
        if !regular {
            bail!(
                "{} is no file; remove it, it is the lock's place",
                path.display()
            );
        }
        let holder = holder(&mut file)
            .with_context(|| format!("cannot read the lock file {}", path.display()))?;
        let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((_, Errno::EWOULDBLOCK)) => bail!(
                "another agent runs on this node as {holder}; stop it first (lock file {})",
                path.display()
            ),
            Err((_, error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        };
        // Only for the message above: a full disk must not keep an agent from its node.
        let noted = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        if let Err(error) = noted {
            tracing::warn!(
                "cannot write into the lock file {}: {error}",
                path.display()
            );
        }
        Ok(Self {
            file,
            dir: state_dir.to_owned(),
        })
    }

    /// Removes the lock file, and the state directory if that leaves it empty.
    pub fn remove(self) -> Result<()> {
        let path = self.dir.join(FILE);
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        // Not ours to remove when somebody keeps other files there.
        let _not_empty = fs::remove_dir(&self.dir);
        drop(self.file);
        Ok(())
    }
}

/// Held while an agent or an uninstall works on the pins; the kernel frees it with the process.
#[derive(Debug)]
pub struct PinsLock {
    _dir: Flock<File>,
}

impl PinsLock {
    /// Takes the lock on the directory of all pins, which is made if it is not there; refused while
    /// another process has it, whatever its state directory.
    pub fn take(pins: &Pins) -> Result<Self> {
        let root = pins.root();
        fs::create_dir_all(root)
            .with_context(|| format!("cannot create the pin directory {}", root.display()))?;
        let dir = File::open(root)
            .with_context(|| format!("cannot open {} to lock it", root.display()))?;
        let dir = match Flock::lock(dir, FlockArg::LockExclusiveNonblock) {
            Ok(dir) => dir,
            Err((_, Errno::EWOULDBLOCK)) => return Err(in_use(root)),
            Err((_, error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", root.display()));
            }
        };
        // An uninstall may have removed the directory after it was opened: that lock keeps nobody out.
        let locked = dir.metadata().map(|metadata| metadata.ino());
        let named = fs::metadata(root).map(|metadata| metadata.ino());
        match (locked, named) {
            (Ok(locked), Ok(named)) if locked == named => Ok(Self { _dir: dir }),
            _ => Err(in_use(root)),
        }
    }
}

/// Who the file says has the lock; anybody may have written anything there.
fn holder(file: &mut File) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    file.take(32).read_to_end(&mut bytes)?;
    let number = String::from_utf8_lossy(&bytes).trim().parse::<u32>();
    Ok(number.map_or_else(
        |_| "a process unknown".to_owned(),
        |id| format!("process {id}"),
    ))
}

fn in_use(root: &Path) -> anyhow::Error {
    anyhow!(
        "another agent or uninstall uses {}, with another --state-dir; stop it first, or give \
         another BPF file system with --bpffs",
        root.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pins_belong_to_one_process_at_a_time() {
        let bpffs = tempfile::tempdir().unwrap();
        let pins = Pins::current(bpffs.path());
        let first = PinsLock::take(&pins).unwrap();
        let message = format!("{:#}", PinsLock::take(&pins).unwrap_err());
        let expected = format!("another agent or uninstall uses {}", pins.root().display());
        assert!(message.contains(&expected), "{message}");
        drop(first);
        PinsLock::take(&pins).unwrap();
    }

    #[test]
    fn what_is_written_in_the_lock_file_does_not_keep_the_refusal_from_being_told() {
        let dir = tempfile::tempdir().unwrap();
        let _first = Lock::take(dir.path()).unwrap();
        for garbage in [&b"\xff\x1b[31m"[..], b"", b"somebody"] {
            fs::write(dir.path().join(FILE), garbage).unwrap();
            let message = format!("{:#}", Lock::take(dir.path()).unwrap_err());
            let told = "another agent runs on this node as a process unknown; stop it first";
            assert!(message.contains(told), "{message}");
        }
    }

    #[test]
    fn a_link_or_a_pipe_in_the_lock_files_place_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("precious");
        fs::write(&target, "precious").unwrap();
        let place = dir.path().join(FILE);
        std::os::unix::fs::symlink(&target, &place).unwrap();
        let message = format!("{:#}", Lock::take(dir.path()).unwrap_err());
        assert!(message.contains("cannot open the lock file"), "{message}");
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious");

        fs::remove_file(&place).unwrap();
        nix::unistd::mkfifo(&place, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let message = format!("{:#}", Lock::take(dir.path()).unwrap_err());
        assert!(message.contains("is no file"), "{message}");
    }

    #[test]
    fn a_second_agent_is_refused_with_the_first_ones_process_id() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path()).unwrap();
        let message = format!("{:#}", Lock::take(dir.path()).unwrap_err());
        assert!(
            message.contains(&format!("process {};", std::process::id())),
            "{message}"
        );
        drop(first);
        Lock::take(dir.path()).unwrap().remove().unwrap();
        assert!(!dir.path().exists());
    }
}
