//! How long programs run for a packet, by the kernel's own clock, less an empty program's time.
//!
//! The kernel reads its clock before and after each run, which costs more than a small program does. So
//! an empty program sits on the same hooks of the plain variant, under the same load in the same round.

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType};
use nix::net::if_::{Interface, if_nameindex, if_nametoindex};

use super::bed::Bed;
use super::load::{Readings, Run, SMALL_BYTES, ended, pinned, round_trip};
use crate::netns::NetNs;

/// Ports that the slice's policy allows.
const PORTS: std::ops::Range<u16> = 7000..7010;
const FIRST_SOURCE_PORT: u16 = 10_000;
/// Below it a mean says nothing.
const FEWEST_RUNS: u64 = 100;

/// Readings: `pod_egress_ns` and `underlay_ingress_ns`, over both nodes, while the same few packets go
/// back and forth. At a plain variant they are the empty programs'.
pub fn hit(bed: &Bed, run: Run) -> Result<Readings> {
    times(bed, &[0, 1], &[0, 1], || {
        round_trip::measure(bed, run).map(drop)
    })
}

/// The same with a new flow for every packet: at the sender's node and the receiver's.
pub fn miss(bed: &Bed, run: Run) -> Result<Readings> {
    times(bed, &[0], &[1], || send_new_flows(bed, run))
}

/// Programs at the hooks of a node's devices, a line each.
pub fn describe(node: &NetNs) -> Result<Vec<String>> {
    let devices = node.enter(|| -> io::Result<Vec<String>> {
        let name = |device: &Interface| device.name().to_string_lossy().into_owned();
        Ok(if_nameindex()?.iter().map(name).collect())
    })??;
    let mut lines = Vec::new();
    for device in devices {
        for (direction, hook) in [
            ("ingress", TcAttachType::Ingress),
            ("egress", TcAttachType::Egress),
        ] {
            for program in at(node, &device, hook)? {
                let name = program.name_as_str().unwrap_or_default().to_owned();
                lines.push(format!("{device} {direction}: {name}"));
            }
        }
    }
    Ok(lines)
}

/// An empty program at the hooks of a plain variant's nodes, until this is dropped.
#[derive(Debug)]
pub struct EmptyPrograms {
    _links: Vec<OwnedFd>,
}

impl EmptyPrograms {
    pub fn attach(bed: &Bed) -> Result<Self> {
        let mut links = Vec::new();
        for node in &bed.nodes {
            for device in ["pod0", "nic0"] {
                // One for each hook: the kernel keeps the time by program.
                let program = load_empty().context("load an empty program")?;
                let link = node.enter(|| attach_to(&program, device))?;
                links.push(link.with_context(|| format!("attach to {device}"))?);
            }
        }
        Ok(Self { _links: links })
    }
}

/// Runs a load and reads what one run of each program took meanwhile.
fn times(
    bed: &Bed,
    senders: &[usize],
    receivers: &[usize],
    load: impl FnOnce() -> Result<()>,
) -> Result<Readings> {
    let read = || -> Result<[Spent; 2]> {
        Ok([
            Spent::at(bed, senders, "pod0")?,
            Spent::at(bed, receivers, "nic0")?,
        ])
    };
    let before = read()?;
    load()?;
    let [egress, ingress] = read()?;
    Ok(Readings::from([
        ("pod_egress_ns", egress.mean_ns_since(&before[0])?),
        ("underlay_ingress_ns", ingress.mean_ns_since(&before[1])?),
    ]))
}

/// What the first program of a hook has run so far.
#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    run_ns: u128,
    runs: u64,
}

impl Spent {
    fn at(bed: &Bed, nodes: &[usize], device: &str) -> Result<Self> {
        let mut spent = Self::default();
        for node in nodes {
            let programs = at(&bed.nodes[*node], device, TcAttachType::Ingress)?;
            let program = programs.first();
            let program = program.with_context(|| format!("no program at {device}"))?;
            spent.run_ns += program.run_time().as_nanos();
            spent.runs += program.run_count();
        }
        Ok(spent)
    }

    fn mean_ns_since(&self, earlier: &Self) -> Result<f64> {
        let runs = self.runs - earlier.runs;
        ensure!(
            runs >= FEWEST_RUNS,
            "a program ran {runs} times under a load"
        );
        Ok((self.run_ns - earlier.run_ns) as f64 / runs as f64)
    }
}

fn at(node: &NetNs, device: &str, hook: TcAttachType) -> Result<Vec<ProgramInfo>> {
    let (_, programs) = node
        .enter(|| SchedClassifier::query_tcx(device, hook))?
        .with_context(|| format!("programs of {device} (needs Linux 6.6 or newer)"))?;
    Ok(programs)
}

/// Every packet has a pair of ports that no packet of this process had before.
fn send_new_flows(bed: &Bed, run: Run) -> Result<()> {
    // Nobody reads: full buffers drop without an answer, which closed ports would give.
    let _receivers = bed.pods[1].enter(|| {
        let sockets = PORTS.map(|port| UdpSocket::bind(("0.0.0.0", port)));
        sockets.collect::<io::Result<Vec<_>>>()
    })??;
    thread::scope(|scope| {
        ended(pinned(scope, run.cpu, || {
            bed.pods[0].enter(|| {
                let began = Instant::now();
                while began.elapsed() < run.duration {
                    send_new_flow(bed)?;
                }
                anyhow::Ok(())
            })?
        }))
    })
}

fn send_new_flow(bed: &Bed) -> Result<()> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let source_ports = u32::from(u16::MAX - FIRST_SOURCE_PORT);
    let flow = NEXT.fetch_add(1, Ordering::Relaxed);
    let source = FIRST_SOURCE_PORT + (flow % source_ports) as u16;
    let Some(destination) = PORTS
        .clone()
        .nth((flow / source_ports) as usize % PORTS.len())
    else {
        bail!("no port left");
    };
    let socket = UdpSocket::bind(("0.0.0.0", source))?;
    socket.send_to(&[0x5a; SMALL_BYTES], (bed.server_address, destination))?;
    Ok(())
}

// linux/bpf.h
const PROG_LOAD: libc::c_long = 5;
const LINK_CREATE: libc::c_long = 28;
const SCHED_CLS: u32 = 3;
const TCX_INGRESS: u32 = 46;
/// `r0 = -1` (go on to the next program), `exit`.
const EMPTY: [u64; 2] = [0xffff_ffff_0000_00b7, 0x0000_0000_0000_0095];

/// The part of `union bpf_attr` for `BPF_PROG_LOAD` that has no default of zero, and what lies between.
#[repr(C)]
struct LoadProgram {
    program_type: u32,
    instructions: u32,
    instruction_pointer: u64,
    license_pointer: u64,
    log: [u64; 3],
    name: [u8; 16],
}

/// The part of `union bpf_attr` for `BPF_LINK_CREATE` with a TCX hook.
#[repr(C)]
struct CreateLink {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
    relative: u64,
    revision: u64,
}

fn load_empty() -> io::Result<OwnedFd> {
    let mut name = [0; 16];
    name[..8].copy_from_slice(b"sb_empty");
    let request = LoadProgram {
        program_type: SCHED_CLS,
        instructions: EMPTY.len() as u32,
        instruction_pointer: EMPTY.as_ptr().addr() as u64,
        license_pointer: c"GPL".as_ptr().addr() as u64,
        log: [0; 3],
        name,
    };
    bpf(PROG_LOAD, &request)
}

fn attach_to(program: &OwnedFd, device: &str) -> io::Result<OwnedFd> {
    let ifindex = if_nametoindex(device)?;
    let request = CreateLink {
        program: program.as_raw_fd().cast_unsigned(),
        ifindex,
        attach_type: TCX_INGRESS,
        flags: 0,
        relative: 0,
        revision: 0,
    };
    bpf(LINK_CREATE, &request)
}

fn bpf<T>(command: libc::c_long, request: &T) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes of a request that outlives the call, and what its
    // pointers lead to is static.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *request, size_of::<T>()) };
    let fd = nix::errno::Errno::result(result)?;
    // SAFETY: both commands return a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_that_of_the_runs_in_between() {
        let spent = |run_ns, runs| Spent { run_ns, runs };
        let mean = |runs: u64| spent(5000 + 150 * 200, 10 + runs).mean_ns_since(&spent(5000, 10));
        assert_eq!(mean(200).unwrap(), 150.0);
        assert!(mean(0).is_err(), "a program that did not run has no time");
    }
}
