//! TCP connections opened and closed, one after the other.

use std::io::{self, ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::{Readings, Run, STALL_LIMIT, ended, listen, pinned, server};
use crate::bench::bed::Bed;

const LOOK_UP_MS: i64 = 50;

/// Readings: `connects_per_second`, `connects`.
///
/// The server closes each connection as soon as it stands, by a reset: no port then has to wait for a
/// minute before its next use. The client opens the next one when it sees that.
pub fn measure(bed: &Bed, run: Run) -> Result<Readings> {
    let listener = listen(bed)?;
    setsockopt(
        &listener,
        sockopt::ReceiveTimeout,
        &TimeVal::milliseconds(LOOK_UP_MS),
    )?;
    let stop = AtomicBool::new(false);
    let (connects, elapsed) = thread::scope(|scope| {
        let closer = pinned(scope, run.cpu, || close_all(&listener, &stop));
        let opener = pinned(scope, run.cpu, || bed.pods[0].enter(|| open(bed, run))?);
        let counted = ended(opener);
        stop.store(true, Ordering::Relaxed);
        ended(closer)?;
        counted
    })?;
    Ok(Readings::from([
        (
            "connects_per_second",
            f64::from(connects) / elapsed.as_secs_f64(),
        ),
        ("connects", f64::from(connects)),
    ]))
}

fn open(bed: &Bed, run: Run) -> Result<(u32, Duration)> {
    let server = server(bed).into();
    let (began, mut connects) = (Instant::now(), 0);
    while began.elapsed() < run.duration {
        // A reset, also one before we looked: only who was connected can be reset, others are refused.
        match open_and_read(&server) {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => connects += 1,
            other => bail!("a connection ended by {other:?}, expected a reset"),
        }
    }
    Ok((connects, began.elapsed()))
}

fn open_and_read(server: &SocketAddr) -> io::Result<usize> {
    let mut stream = TcpStream::connect_timeout(server, STALL_LIMIT)?;
    stream.set_read_timeout(Some(STALL_LIMIT))?;
    stream.read(&mut [0])
}

fn close_all(listener: &TcpListener, stop: &AtomicBool) -> Result<()> {
    let at_once = linger {
        l_onoff: 1,
        l_linger: 0,
    };
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => setsockopt(&stream, sockopt::Linger, &at_once)?,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("accept a connection"),
        }
    }
    Ok(())
}
