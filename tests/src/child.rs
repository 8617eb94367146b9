//! Child processes with a bounded end: stopped by pid, killed at a limit, never left behind.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How often a condition is looked at while waiting for it.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A running child that is killed when the value is dropped.
#[derive(Debug)]
pub struct ManagedChild {
    name: String,
    child: Child,
    ended: Option<ExitStatus>,
}

impl ManagedChild {
    /// Starts `command`; the kernel kills it if the thread that calls this ends first.
    pub fn spawn(name: &str, command: &mut Command) -> Result<Self> {
        // SAFETY: the closure makes one async-signal-safe system call.
        unsafe {
            command.pre_exec(|| {
                nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from)
            });
        }
        Self::spawn_unbound(name, command)
    }

    /// Starts `command` so that it survives this process if it is never stopped or dropped.
    pub fn spawn_unbound(name: &str, command: &mut Command) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let child = own_files_only(command)
            .spawn()
            .with_context(|| format!("{name}: cannot start {program}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            ended: None,
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The child itself, for its pipes.
    pub fn child_mut(&mut self) -> &mut Child {
        &mut self.child
    }

    /// The exit status if the child has ended.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self
                .child
                .try_wait()
                .with_context(|| format!("{}: cannot ask for its exit status", self.name))?;
        }
        Ok(self.ended)
    }

    /// Waits for the child to end by itself.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let status = poll_until(limit, || self.try_wait())?;
        status.with_context(|| format!("{}: still running after {limit:?}", self.name))
    }

    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.try_wait()?.is_some() {
            return Ok(());
        }
        kill(Pid::from_raw(self.pid().cast_signed()), signal)
            .with_context(|| format!("{}: cannot send {signal}", self.name))
    }

    /// SIGTERM, then SIGKILL at the limit; tells whether SIGKILL was needed.
    pub fn stop(&mut self, limit: Duration) -> Result<Stopped> {
        self.signal(Signal::SIGTERM)?;
        if poll_until(limit, || self.try_wait())?.is_some() {
            return Ok(Stopped::ByItself);
        }
        self.kill()?;
        Ok(Stopped::Killed)
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn kill(&mut self) -> Result<()> {
        if self.try_wait()?.is_none() {
            self.child
                .kill()
                .with_context(|| format!("{}: cannot kill", self.name))?;
            self.ended = Some(self.child.wait()?);
        }
        Ok(())
    }

    /// Gives the child up without stopping it; only sensible after [`ManagedChild::spawn_unbound`].
    pub fn leave_running(mut self) {
        // Any status stops Drop from killing; the child is not ours any more.
        self.ended = Some(ExitStatus::default());
    }
}

impl Drop for ManagedChild {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Starts a program that goes on after this one: its words go to `log`, and it keeps nothing of the caller's, neither
/// the terminal (Ctrl-C in front of a kept lab must not end its agents) nor files.
pub fn spawn_detached(command: &mut Command, log: File) -> io::Result<Child> {
    own_files_only(command)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
}

/// Gives a program no files of the caller's but the first three. Who waits for the end of a pipe that this program
/// was given (`lab up | cat`) would else wait for that one's end.
fn own_files_only(command: &mut Command) -> &mut Command {
    // SAFETY: the closure makes one async-signal-safe system call. It marks files rather than close them: one tells
    // us of a program that cannot be started.
    unsafe {
        command.pre_exec(|| {
            let (first, last) = (libc::STDERR_FILENO as u32 + 1, u32::MAX);
            let flags = libc::CLOSE_RANGE_CLOEXEC as libc::c_int;
            nix::errno::Errno::result(libc::close_range(first, last, flags))?;
            Ok(())
        })
    }
}

/// How a child ended when it was told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    ByItself,
    Killed,
}

/// Looks at `condition` until it gives a value or `limit` has passed (then `None`).
pub fn poll_until<T>(
    limit: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<Option<T>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition()? {
            return Ok(Some(value));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Waits until a socket in the child's network namespace listens on the TCP port.
///
/// A trial connection would use up servers that serve one client and end.
pub fn wait_for_listener(server: &mut ManagedChild, port: u16, limit: Duration) -> Result<()> {
    let net = format!("/proc/{}/net", server.pid());
    let listening = poll_until(limit, || {
        if let Some(status) = server.try_wait()? {
            bail!(
                "{}: ended with {status} before it listened on port {port}",
                server.name
            );
        }
        let found = ["tcp", "tcp6"].iter().any(|table| {
            fs::read_to_string(Path::new(&net).join(table))
                .is_ok_and(|text| listens_on(&text, port))
        });
        Ok(found.then_some(()))
    })?;
    listening.with_context(|| {
        format!(
            "{}: does not listen on TCP port {port} after {limit:?}",
            server.name
        )
    })
}

/// Reads the format of /proc/net/tcp: column 2 is ADDRESS:PORT in hex, column 4 the state.
fn listens_on(table: &str, port: u16) -> bool {
    const TCP_LISTEN: &str = "0A";
    table.lines().skip(1).any(|line| {
        let mut columns = line.split_whitespace().skip(1);
        let local_port = columns.next().and_then(|local| local.rsplit(':').next());
        let state = columns.nth(1);
        state == Some(TCP_LISTEN)
            && local_port.and_then(|hex| u16::from_str_radix(hex, 16).ok()) == Some(port)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_listening_socket_on_the_port_counts() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue\n   \
             0: 00000000:1451 00000000:0000 0A 00000000:00000000\n   \
             1: 0100007F:1F90 0100007F:A000 01 00000000:00000000\n";
        assert!(listens_on(table, 5201));
        assert!(!listens_on(table, 8080), "established, not listening");
        assert!(!listens_on(table, 80));
    }

    #[test]
    fn a_child_that_ignores_sigterm_is_killed_at_the_limit() {
        let mut command = Command::new("sh");
        // The shell says when its trap is set: before that, SIGTERM would end it.
        command
            .args([
                "-c",
                "trap '' TERM; echo ready; while :; do read line; done",
            ])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped());
        let mut child = ManagedChild::spawn("deaf", &mut command).unwrap();
        let mut ready = [0; 6];
        let stdout = child.child_mut().stdout.as_mut().unwrap();
        std::io::Read::read_exact(stdout, &mut ready).unwrap();
        assert_eq!(
            child.stop(Duration::from_millis(100)).unwrap(),
            Stopped::Killed
        );
        assert!(child.try_wait().unwrap().is_some());
    }

    #[test]
    fn a_child_that_ends_on_sigterm_is_not_killed() {
        let mut command = Command::new("sleep");
        let mut child = ManagedChild::spawn("sleeper", command.arg("60")).unwrap();
        assert_eq!(
            child.stop(Duration::from_secs(5)).unwrap(),
            Stopped::ByItself
        );
    }

    /// The end of a pipe that this program was given, as `lab up | cat` gives one, is not among its files.
    #[test]
    fn a_program_that_goes_on_keeps_no_files_of_the_callers() {
        use std::os::fd::AsRawFd as _;
        let (_reader, writer) = nix::unistd::pipe().unwrap();
        let file = |child: &Child| {
            let file = format!("/proc/{}/fd/{}", child.id(), writer.as_raw_fd());
            fs::read_link(file).ok()
        };
        let mut sleep = Command::new("sleep");
        let attached = sleep.arg("60").spawn().unwrap();
        assert!(file(&attached).is_some(), "not vacuous");

        let log = File::options().write(true).open("/dev/null").unwrap();
        let detached = spawn_detached(Command::new("sleep").arg("60"), log).unwrap();

        assert_eq!(file(&detached), None);
        let own = fs::read_link(format!("/proc/{}/fd/1", detached.id())).unwrap();
        assert_eq!(own, Path::new("/dev/null"));
        for mut child in [attached, detached] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
