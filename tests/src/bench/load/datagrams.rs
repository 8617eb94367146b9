//! Small UDP packets as fast as they go, counted by who receives them.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{setsockopt, sockopt};

use super::{PORT, Readings, Run, SMALL_BYTES, ended, pinned, server};
use crate::bench::bed::Bed;

/// Holds what is sent in one run, so that a slow reader loses nothing.
const RECEIVE_BUFFER_BYTES: usize = 512 << 20;
/// After so much silence nothing more is on its way.
const SILENCE: Duration = Duration::from_millis(50);
const NOT_DONE: u64 = u64::MAX;

/// Readings: `received_per_second`, `received_packets`, `lost_packets`.
///
/// The time runs from the first packet sent to the last one received: work that is put off counts.
pub fn measure(bed: &Bed, run: Run) -> Result<Readings> {
    let receiver = bed.pods[1].enter(|| UdpSocket::bind(("0.0.0.0", PORT)))??;
    receiver.set_read_timeout(Some(SILENCE))?;
    setsockopt(&receiver, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES)?;
    let sender = bed.pods[0].enter(|| UdpSocket::bind(("0.0.0.0", 0)))??;
    sender.connect(server(bed))?;
    let sent = AtomicU64::new(NOT_DONE);
    let began = Instant::now();
    let (received, elapsed) = thread::scope(|scope| {
        let reader = pinned(scope, run.cpu, || receive(&receiver, &sent, began));
        let sending = ended(pinned(scope, run.cpu, || send(&sender, run.duration)));
        // The reader must end, however the sender did.
        sent.store(*sending.as_ref().unwrap_or(&0), Ordering::Release);
        let read = ended(reader)?;
        sending.and(anyhow::Ok(read))
    })?;
    let sent = sent.into_inner();
    ensure!(received > 0, "none of {sent} datagrams arrived");
    Ok(Readings::from([
        (
            "received_per_second",
            received as f64 / elapsed.as_secs_f64(),
        ),
        ("received_packets", received as f64),
        ("lost_packets", sent.saturating_sub(received) as f64),
    ]))
}

fn send(socket: &UdpSocket, duration: Duration) -> Result<u64> {
    let payload = [0x5a; SMALL_BYTES];
    let began = Instant::now();
    let mut sent = 0;
    while began.elapsed() < duration {
        match socket.send(&payload) {
            Ok(_) => sent += 1,
            // A full queue refuses; a packet that was never sent is not lost.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
            Err(error) => return Err(error).context("send a datagram"),
        }
    }
    Ok(sent)
}

fn receive(socket: &UdpSocket, sent: &AtomicU64, began: Instant) -> Result<(u64, Duration)> {
    let mut buffer = [0; 2 * SMALL_BYTES];
    let (mut received, mut last) = (0, began);
    loop {
        match socket.recv(&mut buffer) {
            Ok(_) => received += 1,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if sent.load(Ordering::Acquire) != NOT_DONE {
                    return Ok((received, last - began));
                }
                continue;
            }
            Err(error) => return Err(error).context("receive a datagram"),
        }
        last = Instant::now();
        if received == sent.load(Ordering::Acquire) {
            return Ok((received, last - began));
        }
    }
}
