//! Loads of a fraction of a second, made in this process, so that variants can take turns quickly.
//!
//! Sockets are made inside the pods' namespaces, which they keep; the threads that use them are pinned.

pub mod connects;
pub mod datagrams;
pub mod round_trip;
pub mod stream;

use std::collections::BTreeMap;
use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::bed::Bed;

/// What a measurement read; every name ends with its unit.
pub type Readings = BTreeMap<&'static str, f64>;

/// Which port the server's end has.
pub const PORT: u16 = 7000;
/// Payload of the small messages.
pub const SMALL_BYTES: usize = 64;
/// A system call that is not done by then never will be.
const STALL_LIMIT: Duration = Duration::from_secs(5);

/// How a load runs.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Both ends run here, and with them all packets in between.
    pub cpu: usize,
    pub duration: Duration,
}

/// Starts `f` on a thread that runs on `cpu` only.
pub(super) fn pinned<'scope, 'env, T: Send + 'scope>(
    scope: &'scope Scope<'scope, 'env>,
    cpu: usize,
    f: impl FnOnce() -> Result<T> + Send + 'scope,
) -> ScopedJoinHandle<'scope, Result<T>> {
    scope.spawn(move || {
        let mut cpus = CpuSet::new();
        cpus.set(cpu)?;
        sched_setaffinity(Pid::from_raw(0), &cpus)
            .with_context(|| format!("cannot run on CPU {cpu}"))?;
        f()
    })
}

/// Waits for a thread, and makes a panic of it an error.
pub(super) fn ended<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread
        .join()
        .unwrap_or_else(|_| Err(anyhow!("a load's thread panicked")))
}

/// A listening socket in the server's pod.
fn listen(bed: &Bed) -> Result<TcpListener> {
    let listener = bed.pods[1].enter(|| TcpListener::bind(("0.0.0.0", PORT)))?;
    listener.with_context(|| format!("listen in {}", bed.pods[1].name()))
}

/// A connection from the client's pod: client's end, server's end.
fn connection(bed: &Bed, listener: &TcpListener) -> Result<[TcpStream; 2]> {
    let server = SocketAddr::V4(server(bed));
    let client = bed.pods[0]
        .enter(|| TcpStream::connect_timeout(&server, STALL_LIMIT))?
        .with_context(|| format!("connect from {} to {server}", bed.pods[0].name()))?;
    let (accepted, _) = listener.accept().context("accept a connection")?;
    for end in [&client, &accepted] {
        end.set_read_timeout(Some(STALL_LIMIT))?;
        end.set_write_timeout(Some(STALL_LIMIT))?;
    }
    Ok([client, accepted])
}

fn server(bed: &Bed) -> SocketAddrV4 {
    SocketAddrV4::new(bed.server_address, PORT)
}
