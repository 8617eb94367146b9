//! One attempt to talk: a TCP connection from one pod to an address, and what became of it.
//!
//! Denied packets are dropped without an answer, so nothing tells the sender. What tells is the
//! kernel's counter: an attempt is over as soon as the connection stands or a drop is counted.

use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, getsockopt, socket, sockopt,
};
use slice_agent::apply::maps::Maps;
use slice_agent::apply::pins::Pins;
use slice_agent::observe::counters;
use slice_common::drop_reason::DropReason;

use crate::lab::Lab;
use crate::lab::inventory::SLICES;
use crate::netns::NetNs;

/// How often drop counters are looked at while a connection hangs: most drops are counted at once.
const LOOK_FIRST_MS: u16 = 1;
const LOOK_MAX_MS: u16 = 20;

/// Drops by (node, slice, reason).
pub type Drops = BTreeMap<(String, String, String), u64>;

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Connected,
    /// The kernel counted drops for these reasons meanwhile: (node, slice, reason).
    Dropped(Vec<(String, String, String)>),
    /// The host answered that there is no way.
    Unreachable,
    /// The other side answered that nobody listens.
    Refused,
    /// Nothing happened within the limit.
    Silence,
}

impl Outcome {
    /// Whether drops were counted, and all of them for `reason`.
    pub fn is_drop_for(&self, reason: &str) -> bool {
        match self {
            Self::Dropped(drops) => drops.iter().all(|(_, _, counted)| counted == reason),
            _ => false,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected => write!(f, "connected"),
            Self::Dropped(drops) => {
                let reasons: Vec<_> = drops
                    .iter()
                    .map(|(node, slice, reason)| format!("{reason} at {node} for slice {slice}"))
                    .collect();
                write!(f, "dropped: {}", reasons.join(", "))
            }
            Self::Unreachable => write!(f, "unreachable"),
            Self::Refused => write!(f, "refused by the other side"),
            Self::Silence => write!(f, "silence"),
        }
    }
}

/// A listener in a pod; somebody else's on the same port will do as well.
pub struct Listener {
    _socket: Option<TcpListener>,
}

impl Listener {
    /// Listens at every address of the namespace. The kernel completes connections by itself.
    pub fn open(namespace: &NetNs, port: u16) -> Result<Self> {
        let bound = namespace
            .enter(|| TcpListener::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port)))?;
        match bound {
            Ok(socket) => Ok(Self {
                _socket: Some(socket),
            }),
            Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(Self { _socket: None }),
            Err(error) => {
                Err(error).with_context(|| format!("{}: cannot listen on {port}", namespace.name()))
            }
        }
    }
}

/// The drops that these nodes' kernels have counted, read from their maps: a page of metrics takes
/// thousands of times as long.
pub fn drops_at(lab: &Lab, nodes: &[&str]) -> Result<Drops> {
    let mut drops = Drops::new();
    for node in nodes {
        let maps = Maps::new(Pins::current(&lab.node(node)?.bpffs));
        for (key, count) in counters::drops(&maps)? {
            let slice = slice_name(key.slice);
            let reason = u8::try_from(key.reason)
                .ok()
                .and_then(DropReason::from_number);
            let reason = reason.map_or_else(|| key.reason.to_string(), |it| it.label().to_owned());
            drops.insert(((*node).to_owned(), slice, reason), count);
        }
    }
    Ok(drops)
}

fn slice_name(number: u32) -> String {
    let slice = SLICES.iter().find(|slice| slice.id == number);
    slice.map_or_else(|| number.to_string(), |slice| slice.name.to_owned())
}

/// Tries to connect from a namespace. `drops` reads the counters of the nodes that may drop.
pub fn attempt(
    from: &NetNs,
    to: SocketAddrV4,
    limit: Duration,
    drops: impl Fn() -> Result<Drops>,
) -> Result<Outcome> {
    attempt_as(from, Ipv4Addr::UNSPECIFIED, to, limit, drops)
}

/// As [`attempt`], from this one of the namespace's addresses.
pub fn attempt_as(
    from: &NetNs,
    source: Ipv4Addr,
    to: SocketAddrV4,
    limit: Duration,
    drops: impl Fn() -> Result<Drops>,
) -> Result<Outcome> {
    let before = drops()?;
    let connection = from.enter(|| begin(source, to))??;
    let Begun::Waiting(connection) = connection else {
        return Ok(Outcome::Unreachable);
    };
    let deadline = Instant::now() + limit;
    let mut wait_ms = LOOK_FIRST_MS;
    while Instant::now() < deadline {
        if let Some(outcome) = answered(&connection, wait_ms)? {
            return Ok(outcome);
        }
        wait_ms = (2 * wait_ms).min(LOOK_MAX_MS);
        let counted = increased(&before, &drops()?);
        if !counted.is_empty() {
            return Ok(Outcome::Dropped(counted));
        }
    }
    Ok(Outcome::Silence)
}

/// Which counters grew.
pub fn increased(before: &Drops, after: &Drops) -> Vec<(String, String, String)> {
    after
        .iter()
        .filter(|(key, count)| **count > before.get(*key).copied().unwrap_or(0))
        .map(|(key, _)| key.clone())
        .collect()
}

enum Begun {
    Waiting(OwnedFd),
    Unreachable,
}

fn begin(source: Ipv4Addr, to: SocketAddrV4) -> Result<Begun> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
    bind(
        fd.as_raw_fd(),
        &SockaddrIn::from(SocketAddrV4::new(source, 0)),
    )
    .with_context(|| format!("cannot send from {source}"))?;
    match connect(fd.as_raw_fd(), &SockaddrIn::from(to)) {
        Ok(()) | Err(nix::errno::Errno::EINPROGRESS) => Ok(Begun::Waiting(fd)),
        Err(nix::errno::Errno::ENETUNREACH | nix::errno::Errno::EHOSTUNREACH) => {
            Ok(Begun::Unreachable)
        }
        Err(errno) => Err(errno).with_context(|| format!("cannot connect to {to}")),
    }
}

fn answered(connection: &OwnedFd, wait_ms: u16) -> Result<Option<Outcome>> {
    let mut waiting = [PollFd::new(connection.as_fd(), PollFlags::POLLOUT)];
    if poll(&mut waiting, PollTimeout::from(wait_ms))? == 0 {
        return Ok(None);
    }
    Ok(Some(match getsockopt(connection, sockopt::SocketError)? {
        0 => Outcome::Connected,
        libc::ECONNREFUSED => Outcome::Refused,
        libc::ENETUNREACH | libc::EHOSTUNREACH => Outcome::Unreachable,
        other => anyhow::bail!(
            "the connection ended with {}",
            std::io::Error::from_raw_os_error(other)
        ),
    }))
}
