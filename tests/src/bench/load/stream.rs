//! TCP streams: as many bytes as go, counted by who reads them.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{getsockopt, sockopt};

use super::{Readings, Run, connection, ended, listen, pinned};
use crate::bench::bed::Bed;
use crate::bench::counters::Snapshot;

const WRITE_BYTES: usize = 128 << 10;
const READ_BYTES: usize = 256 << 10;
/// For the congestion window to open; not counted.
const WARM_UP: Duration = Duration::from_millis(100);

/// One stream; see [`measure`].
pub fn one(bed: &Bed, run: Run) -> Result<Readings> {
    measure(bed, run, 1)
}

/// Four streams side by side; see [`measure`].
pub fn four(bed: &Bed, run: Run) -> Result<Readings> {
    measure(bed, run, 4)
}

/// Readings: `received_bps` of payload after a warm-up; from the first byte to the last, the packets on
/// the link and in the receiving pod, and retransmitted segments by cause.
fn measure(bed: &Bed, run: Run, flows: usize) -> Result<Readings> {
    let before = Snapshot::of(bed)?;
    let listener = listen(bed)?;
    let connections = (0..flows).map(|_| connection(bed, &listener));
    let connections = connections.collect::<Result<Vec<_>>>()?;
    let mss_bytes = getsockopt(&connections[0][0], sockopt::TcpMaxSeg)?;
    let (received_bps, bytes) = transfer(connections, run)?;
    let delta = Snapshot::of(bed)?.since(&before);
    let causes = delta.causes();
    let link_packets = delta.link_packets as f64;
    Ok(Readings::from([
        ("received_bps", received_bps),
        ("mss_bytes", f64::from(mss_bytes)),
        ("link_packets", link_packets),
        ("pod_packets", delta.pod_packets as f64),
        (
            "link_segments_per_packet",
            bytes as f64 / link_packets / f64::from(mss_bytes),
        ),
        (
            "link_packets_per_pod_packet",
            link_packets / delta.pod_packets.max(1) as f64,
        ),
        (
            "retransmitted_segments",
            delta.retransmitted_segments as f64,
        ),
        ("retransmitted_ring_segments", causes.ring as f64),
        ("retransmitted_drop_segments", causes.drop as f64),
        ("retransmitted_reorder_segments", causes.reorder as f64),
        ("retransmitted_late_segments", causes.late as f64),
        (
            "retransmitted_unexplained_segments",
            causes.unexplained as f64,
        ),
        ("ring_drop_packets", delta.ring_drops as f64),
        ("other_drop_packets", delta.other_drops as f64),
    ]))
}

/// The rate in the measured time, and the bytes of the whole transfer.
fn transfer(connections: Vec<[TcpStream; 2]>, run: Run) -> Result<(f64, u64)> {
    let (stop, received) = (AtomicBool::new(false), AtomicU64::new(0));
    let (stop, received) = (&stop, &received);
    let received_bps = thread::scope(|scope| {
        let start = |[client, server]: [TcpStream; 2]| {
            let reader = pinned(scope, run.cpu, move || read(server, received));
            [reader, pinned(scope, run.cpu, move || write(client, stop))]
        };
        let threads: Vec<_> = connections.into_iter().flat_map(start).collect();
        // This thread is not pinned, or it would wait for the load to look away.
        thread::sleep(WARM_UP);
        let (began, bytes_before) = (Instant::now(), received.load(Ordering::Relaxed));
        thread::sleep(run.duration);
        let (elapsed, bytes) = (began.elapsed(), received.load(Ordering::Relaxed));
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().try_for_each(ended)?;
        anyhow::Ok((bytes - bytes_before) as f64 * 8.0 / elapsed.as_secs_f64())
    })?;
    ensure!(received_bps > 0.0, "nothing arrived while it was measured");
    Ok((received_bps, received.load(Ordering::Relaxed)))
}

fn write(mut stream: TcpStream, stop: &AtomicBool) -> Result<()> {
    let block = vec![0x5a; WRITE_BYTES];
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(&block).context("write to the stream")?;
    }
    Ok(())
}

/// To the end, so that sender and receiver agree on the bytes.
fn read(mut stream: TcpStream, received: &AtomicU64) -> Result<()> {
    let mut block = vec![0; READ_BYTES];
    loop {
        match stream.read(&mut block) {
            Ok(0) => return Ok(()),
            Ok(bytes) => received.fetch_add(bytes as u64, Ordering::Relaxed),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).context("read from the stream"),
        };
    }
}
