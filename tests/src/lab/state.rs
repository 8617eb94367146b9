//! What a lab leaves on disk so that a later command can find it, or clean up after it.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::child::poll_until;
use crate::guard;
use crate::relay::Settings;

/// Everything of the lab that is a file lies below.
pub const LAB_DIR: &str = "/run/sliceplane-lab";
/// Outside of the folder, so that removing the folder does not remove a held lock.
const LOCK_FILE: &str = "/run/sliceplane-lab.lock";

/// A path below the lab's folder.
pub fn lab_path(relative: impl AsRef<Path>) -> PathBuf {
    Path::new(LAB_DIR).join(relative)
}

/// The state file: which processes belong to the lab and what its WAN is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct State {
    /// False while the lab is being built: what a killed `up` leaves is never taken for a lab.
    pub ready: bool,
    /// Made by a command that has ended; without it the lab lives as long as its owner.
    pub unowned: bool,
    pub maker: Option<Holder>,
    pub wire_mode: bool,
    /// `None` is the plain router.
    pub relay: Option<Settings>,
    pub processes: Vec<Process>,
}

/// A process of the lab; the start time tells it from a later process with the same id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The node's name for an agent, `relay` for the relay.
    pub role: String,
    pub pid: i32,
    pub start_ticks: u64,
}

impl State {
    /// The state of the lab on this machine, if there is one.
    pub fn load() -> Result<Option<Self>> {
        let path = lab_path("state.json");
        match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text)
                .map(Some)
                .with_context(|| format!("{}: not a lab state file", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Written aside and renamed, so that a killed writer leaves the old state whole.
    pub fn save(&self) -> Result<()> {
        let aside = lab_path("state.json.new");
        fs::write(&aside, serde_json::to_vec_pretty(self)?)
            .and_then(|()| fs::rename(&aside, lab_path("state.json")))
            .with_context(|| format!("cannot write the state file in {LAB_DIR}"))
    }

    pub fn process(&self, role: &str) -> Option<&Process> {
        self.processes.iter().find(|process| process.role == role)
    }

    pub fn set_process(&mut self, process: Process) {
        self.remove_process(&process.role);
        self.processes.push(process);
    }

    pub fn remove_process(&mut self, role: &str) {
        self.processes.retain(|process| process.role != role);
    }
}

impl Process {
    /// Records a process that was just started.
    pub fn of(role: &str, pid: u32) -> Result<Self> {
        let pid = i32::try_from(pid).context("process id")?;
        let stat = stat_of(pid).with_context(|| format!("{role}: process {pid} ended at once"))?;
        Ok(Self {
            role: role.to_owned(),
            pid,
            start_ticks: stat.start_ticks,
        })
    }

    /// Whether it still runs; a dead process that nobody waited for does not.
    pub fn is_alive(&self) -> bool {
        // Reaps it if it is our own child, so that its entry does not stay; else an error.
        let _ = waitpid(Pid::from_raw(self.pid), Some(WaitPidFlag::WNOHANG));
        stat_of(self.pid).is_some_and(|stat| {
            let is_same = stat.start_ticks == self.start_ticks;
            is_same && (!stat.is_zombie || has_other_threads(self.pid))
        })
    }

    /// Sends `signal` and waits until the process is gone; nothing if it is gone already.
    pub fn end(&self, signal: Signal, limit: Duration) -> Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        match kill(Pid::from_raw(self.pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot send {signal} to {self}"));
            }
        }
        let gone = poll_until(limit, || Ok((!self.is_alive()).then_some(())))?;
        gone.with_context(|| format!("{self} is still there {limit:?} after {signal}"))
    }
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (process {})", self.role, self.pid)
    }
}

/// Who makes, uses or made the lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its role is what was typed.
    pub process: Process,
    pub since_unix_seconds: u64,
}

impl Holder {
    /// This process, or the one that watches over it: the one to send a signal to.
    pub fn this() -> Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        Ok(Self {
            process: Process::of(&own_command(), guard::responsible_pid())?,
            since_unix_seconds: now.as_secs(),
        })
    }

    /// When, as a person would say it.
    pub fn since(&self) -> String {
        let since = UNIX_EPOCH + Duration::from_secs(self.since_unix_seconds);
        let ago = SystemTime::now().duration_since(since).unwrap_or_default();
        let seconds = i64::try_from(self.since_unix_seconds).unwrap_or(i64::MAX);
        let clock = chrono::DateTime::from_timestamp(seconds, 0)
            .map_or_else(String::new, |it| format!("{} UTC", it.time()));
        match ago.as_secs() {
            seconds @ ..120 => format!("since {clock} ({seconds} s ago)"),
            seconds @ 120..7200 => format!("since {clock} ({} min ago)", seconds / 60),
            seconds => format!("since {clock} ({} h ago)", seconds / 3600),
        }
    }
}

/// The right to make or unmake the lab; one holder per machine, given back when it ends.
#[derive(Debug)]
pub struct LabLock {
    _file: Flock<File>,
}

impl LabLock {
    /// Takes the lock, waiting up to `limit` for another holder to end.
    pub fn take(limit: Duration) -> Result<Self> {
        let deadline = Instant::now() + limit;
        loop {
            let mut file = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(LOCK_FILE)
                .with_context(|| format!("cannot open {LOCK_FILE}"))?;
            match Flock::lock(file.try_clone()?, FlockArg::LockExclusiveNonblock) {
                Ok(mut lock) => {
                    lock.set_len(0)?;
                    lock.rewind()?;
                    lock.write_all(&serde_json::to_vec(&Holder::this()?)?)?;
                    return Ok(Self { _file: lock });
                }
                Err((_, Errno::EWOULDBLOCK)) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err((_, Errno::EWOULDBLOCK)) => {
                    let mut holder = String::new();
                    let _ = file.read_to_string(&mut holder);
                    return Err(in_use(&holder));
                }
                Err((_, error)) => {
                    return Err(error).with_context(|| format!("cannot lock {LOCK_FILE}"));
                }
            }
        }
    }
}

fn in_use(holder: &str) -> anyhow::Error {
    match serde_json::from_str::<Holder>(holder) {
        Ok(holder) => anyhow!(
            "process {pid} (`{command}`) has the lab {since}; there is one lab per machine: wait for \
             it to end, or end it by `kill {pid}`, it then removes its lab",
            pid = holder.process.pid,
            command = holder.process.role,
            since = holder.since(),
        ),
        // It has the lock, but has not yet said who it is.
        Err(_) => {
            anyhow!("another process has just begun to use the lab: wait for it to end")
        }
    }
}

/// What was typed, without the program's folder.
fn own_command() -> String {
    let mut words: Vec<String> = std::env::args_os()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    if let Some(program) = words.first_mut() {
        *program = program.rsplit('/').next().unwrap_or_default().to_owned();
    }
    words.join(" ")
}

/// The first thread of a killed process may be dead while others still hold its files.
fn has_other_threads(pid: i32) -> bool {
    fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|threads| threads.count() > 1)
}

struct Stat {
    start_ticks: u64,
    is_zombie: bool,
}

fn stat_of(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The command name may hold spaces and parentheses, so counting starts after the last one.
fn parse_stat(text: &str) -> Option<Stat> {
    const START_TIME_AFTER_NAME: usize = 19;
    let after_name = text.rsplit_once(')')?.1;
    let mut fields = after_name.split_whitespace();
    let is_zombie = matches!(fields.next()?, "Z" | "X");
    let start_ticks = fields.nth(START_TIME_AFTER_NAME - 1)?.parse().ok()?;
    Some(Stat {
        start_ticks,
        is_zombie,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_command_name_with_parentheses_does_not_shift_the_fields() {
        let text = "7 (a) b (c)) Z 1 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
        let stat = parse_stat(text).unwrap();
        assert_eq!((stat.start_ticks, stat.is_zombie), (4242, true));
    }

    #[test]
    fn a_later_process_with_the_same_id_is_left_alone() {
        let mut sleeper = Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::of("sleeper", sleeper.id()).unwrap();
        let namesake = Process {
            start_ticks: process.start_ticks + 1,
            ..process.clone()
        };

        namesake
            .end(Signal::SIGKILL, Duration::from_secs(5))
            .unwrap();
        assert!(process.is_alive(), "the signal was not for this one");
        process
            .end(Signal::SIGKILL, Duration::from_secs(5))
            .unwrap();
        assert!(!process.is_alive());
        let _ = sleeper.wait();
    }
}
