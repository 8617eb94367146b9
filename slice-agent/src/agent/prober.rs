//! Probes the paths that packets choose between, and notes what it sent for the kernel programs, which
//! match the answers and choose. Nothing is lost with it: without it they go by what they hear.
//!
//! It has a thread of its own, so that no reconciliation keeps it waiting. Its packets pass
//! `underlay_guard` by their nonces, which nobody else knows; a mark would be seen by the host's own
//! firewall rules and policy routes, which use bits of it for themselves (kube-proxy drops one).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use aya::maps::{HashMap, MapData};
use nix::sys::socket::{setsockopt, sockopt};
use slice_common::health::{INTERVAL_NS, PATIENCE_NS};
use slice_common::layout::{PathHealth, Probes, SentProbe};
use slice_common::wire::probe::{self, BYTES_MIN};

use super::path_mtu::MtuSearch;
use super::status::Status;
use crate::apply::maps::Maps;
use crate::image::NodeImage;
use crate::observe::paths::kernel_now_ns;

const INTERVAL: Duration = Duration::from_nanos(INTERVAL_NS);
/// Every so many probes of a path one is as large as the path should carry.
const FULL_EVERY: u64 = 5;
/// IPv4 and UDP.
const HEADERS_BYTES: u32 = 28;
/// Before other threads of this process and most of the host: a late probe looks like a dead path.
const NICE: libc::c_int = -10;

/// A path to probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Target {
    local: Ipv4Addr,
    remote: Ipv4Addr,
    port: u16,
    ifindex: u32,
    mtu: u32,
}

type Targets = BTreeMap<u32, Target>;

/// The handle on the thread.
#[derive(Clone, Debug)]
pub(super) struct Prober {
    targets: Arc<Mutex<Targets>>,
}

impl Prober {
    /// Starts the thread, which ends with the process.
    pub(super) fn start(maps: Maps, status: Status) -> Result<Self> {
        let targets = Arc::<Mutex<Targets>>::default();
        let round = Round {
            maps,
            status,
            shared: targets.clone(),
            targets: Targets::new(),
            paths: BTreeMap::new(),
            tables: None,
            socket: None,
            complaint: String::new(),
        };
        thread::Builder::new()
            .name("prober".to_owned())
            .spawn(move || round.turn())
            .context("cannot start the prober's thread")?;
        Ok(Self { targets })
    }

    /// From now on the paths of this state are probed that packets choose between.
    pub(super) fn watch(&self, image: &NodeImage) {
        *lock(&self.targets) = targets(image);
    }
}

fn targets(image: &NodeImage) -> Targets {
    let groups = image.path_groups.values().filter(|group| group.count > 1);
    let chosen = groups.flat_map(|group| group.paths.iter().take(group.count as usize));
    let target = |number: &u32| {
        let path = image.paths.get(number)?;
        let target = Target {
            local: path.local.into(),
            remote: path.remote.into(),
            port: u16::from_be(path.port),
            ifindex: path.ifindex,
            mtu: path.mtu,
        };
        Some((*number, target))
    };
    chosen.filter_map(target).collect()
}

fn lock(targets: &Mutex<Targets>) -> MutexGuard<'_, Targets> {
    // Replaced as a whole, so one that panicked elsewhere did no harm.
    targets.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The maps, opened once; they outlive their pins.
struct Tables {
    probes: HashMap<MapData, u32, Probes>,
    health: HashMap<MapData, u32, PathHealth>,
}

/// What is known of a path that is probed.
struct Probed {
    sent: Probes,
    count: u64,
    search: MtuSearch,
    /// The large probe that was sent last: its size, and when.
    waiting: Option<(u32, u64)>,
    told_shortfall: Option<u32>,
}

/// The thread's own state.
struct Round {
    maps: Maps,
    status: Status,
    shared: Arc<Mutex<Targets>>,
    targets: Targets,
    paths: BTreeMap<u32, Probed>,
    tables: Option<Tables>,
    socket: Option<(Ipv4Addr, u32, UdpSocket)>,
    /// The last thing that failed, so that it is said once.
    complaint: String,
}

impl Round {
    fn turn(mut self) {
        // SAFETY: no pointers; 0 is the calling thread. Without the right to it the default stays.
        let _refused = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
        let mut next = Instant::now();
        loop {
            let complaint = match self.probe_all() {
                Ok(()) => String::new(),
                Err(error) => format!("{error:#}"),
            };
            if complaint != self.complaint && !complaint.is_empty() {
                tracing::warn!("paths are not probed as they should be: {complaint}");
            }
            self.complaint = complaint;
            next += INTERVAL;
            let now = Instant::now();
            // Who was kept waiting for long does not make up for it.
            next = next.max(now - INTERVAL);
            thread::sleep(next.saturating_duration_since(now));
        }
    }

    fn probe_all(&mut self) -> Result<()> {
        self.follow_targets()?;
        let mut first_failure = None;
        for number in self.targets.keys().copied().collect::<Vec<_>>() {
            if let Err(error) = self.probe(number) {
                first_failure.get_or_insert(error);
            }
        }
        first_failure.map_or(Ok(()), Err)
    }

    fn follow_targets(&mut self) -> Result<()> {
        let wanted = lock(&self.shared).clone();
        if wanted == self.targets {
            return Ok(());
        }
        let tables = Tables {
            probes: self.maps.hash("PROBES")?,
            health: self.maps.hash("PATH_HEALTH")?,
        };
        let tables = self.tables.insert(tables);
        let present: BTreeSet<u32> = tables.probes.keys().filter_map(Result::ok).collect();
        for gone in present.iter().filter(|path| !wanted.contains_key(path)) {
            tables
                .probes
                .remove(gone)
                .context("cannot remove from the map PROBES")?;
        }
        self.paths.retain(|path, _| wanted.contains_key(path));
        for (path, target) in &wanted {
            if self.targets.get(path) != Some(target) {
                self.paths.insert(*path, Probed::new(target.mtu));
            }
        }
        self.targets = wanted;
        Ok(())
    }

    fn probe(&mut self, number: u32) -> Result<()> {
        let (Some(target), Some(tables), Some(path)) = (
            self.targets.get(&number).copied(),
            self.tables.as_mut(),
            self.paths.get_mut(&number),
        ) else {
            return Ok(());
        };
        let now_ns = kernel_now_ns()?;
        let health = tables.health.get(&number, 0);
        path.learn(&health.unwrap_or(PathHealth::NOTHING), now_ns);
        tell(&self.status, number, path);
        let nonce = getrandom::u64().context("cannot draw a random number")?;
        path.note(nonce, now_ns);
        let bytes = path.next_size(now_ns);
        // Before it is sent: its answer may come at once.
        tables
            .probes
            .insert(number, path.sent, 0)
            .context("cannot write the map PROBES")?;
        let socket = socket(&mut self.socket, &target)?;
        let mut payload = vec![0; (bytes - HEADERS_BYTES) as usize];
        let request = probe::request(nonce);
        payload[..request.len()].copy_from_slice(&request);
        // Whatever keeps it from leaving is what the path suffers from: it counts as not answered.
        let _not_sent = socket.send_to(&payload, (target.remote, target.port));
        Ok(())
    }
}

impl Probed {
    fn new(mtu: u32) -> Self {
        Self {
            sent: Probes {
                newest_ns: 0,
                since_ns: 0,
                sent: [SentProbe {
                    nonce: 0,
                    sent_ns: 0,
                }; Probes::KEPT],
            },
            count: 0,
            search: MtuSearch::new(mtu),
            waiting: None,
            told_shortfall: None,
        }
    }

    fn note(&mut self, nonce: u64, now_ns: u64) {
        let was_away = now_ns.saturating_sub(self.sent.newest_ns) > PATIENCE_NS;
        if self.sent.since_ns == 0 || was_away {
            self.sent.since_ns = now_ns;
        }
        self.sent.newest_ns = now_ns;
        let place = self.count as usize % Probes::KEPT;
        self.sent.sent[place] = SentProbe {
            nonce,
            sent_ns: now_ns,
        };
        self.count += 1;
    }

    fn next_size(&mut self, now_ns: u64) -> u32 {
        if !self.count.is_multiple_of(FULL_EVERY) {
            return BYTES_MIN;
        }
        let bytes = self.search.next_size();
        self.waiting = Some((bytes, now_ns));
        bytes
    }

    /// Whether the last large probe was answered; silence counts only if small ones are answered.
    fn learn(&mut self, health: &PathHealth, now_ns: u64) {
        let Some((bytes, sent_ns)) = self.waiting else {
            return;
        };
        if health.full_ns >= sent_ns && health.full_bytes == u64::from(bytes) {
            self.search.was_answered(bytes);
            self.waiting = None;
        } else if now_ns >= sent_ns + PATIENCE_NS {
            if health.answered_sent_ns > sent_ns {
                self.search.was_silent(bytes);
            }
            self.waiting = None;
        }
    }
}

/// Tells what the path carries, and warns when that is less than it should.
fn tell(status: &Status, number: u32, path: &mut Probed) {
    let answered = path.search.answered();
    status.update(|state| {
        match answered {
            Some(bytes) => state.path_mtus.insert(number, bytes),
            None => state.path_mtus.remove(&number),
        };
    });
    let shortfall = path.search.shortfall();
    if shortfall != path.told_shortfall {
        let state = status.read();
        let name = state.names.paths.get(&number).cloned().unwrap_or_default();
        match shortfall {
            Some(bytes) => tracing::warn!(
                path = %name,
                configured = path.search.configured(),
                carried = bytes,
                "the path carries smaller packets than configured; give the peer `mtu: {bytes}`, or \
                 widen the underlay"
            ),
            None => tracing::info!(path = %name, "the path carries packets of the configured size"),
        }
        path.told_shortfall = shortfall;
    }
}

/// The socket that probes of this path leave by: it does not fragment, and has no checksum, as all tunnel
/// packets.
fn socket<'a>(
    kept: &'a mut Option<(Ipv4Addr, u32, UdpSocket)>,
    target: &Target,
) -> Result<&'a UdpSocket> {
    let is_right =
        |kept: &(Ipv4Addr, u32, UdpSocket)| kept.0 == target.local && kept.1 == target.ifindex;
    if !kept.as_ref().is_some_and(is_right) {
        let opened = open(target).with_context(|| {
            format!(
                "cannot open a socket at {} on interface #{}",
                target.local, target.ifindex
            )
        })?;
        *kept = Some((target.local, target.ifindex, opened));
    }
    let (_, _, socket) = kept.as_ref().context("a socket that was just opened")?;
    Ok(socket)
}

fn open(target: &Target) -> Result<UdpSocket> {
    let socket = UdpSocket::bind((target.local, 0))?;
    socket.set_nonblocking(true)?;
    let interface = nix::net::if_::if_indextoname(target.ifindex)?;
    let interface = OsString::from(interface.to_string_lossy().into_owned());
    setsockopt(&socket, sockopt::BindToDevice, &interface)?;
    for (level, option, value) in [
        (libc::SOL_SOCKET, libc::SO_NO_CHECK, 1),
        (
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            libc::IP_PMTUDISC_PROBE,
        ),
    ] {
        set_option(&socket, level, option, value)?;
    }
    Ok(socket)
}

fn set_option(
    socket: &UdpSocket,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> Result<()> {
    use std::os::fd::AsRawFd as _;
    let (at, bytes) = ((&raw const value).cast(), size_of::<libc::c_int>());
    // SAFETY: the kernel reads one integer, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            at,
            bytes as libc::socklen_t,
        )
    };
    nix::errno::Errno::result(result)?;
    Ok(())
}
