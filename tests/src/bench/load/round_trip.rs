//! TCP ping-pong: one small message there, one back, over and over.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Readings, Run, SMALL_BYTES, connection, ended, listen, pinned};
use crate::bench::bed::Bed;
use crate::bench::statistics::percentile;

/// The first trips fill caches and are not counted.
const WARM_UP_TRIPS: usize = 50;

/// Readings: `p50_us`, `p99_us`, `trips`.
pub fn measure(bed: &Bed, run: Run) -> Result<Readings> {
    let listener = listen(bed)?;
    let [client, server] = connection(bed, &listener)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let mut trips_ns = thread::scope(|scope| {
        let echo = pinned(scope, run.cpu, || echo(server));
        let trips = ended(pinned(scope, run.cpu, || ping(client, run.duration)));
        ended(echo)?;
        trips
    })?;
    trips_ns.sort_unstable();
    let at = |percent| {
        let trip_ns = percentile(&trips_ns, percent).context("no round trip was made")?;
        anyhow::Ok(trip_ns as f64 / 1e3)
    };
    Ok(Readings::from([
        ("p50_us", at(50.0)?),
        ("p99_us", at(99.0)?),
        ("trips", trips_ns.len() as f64),
    ]))
}

fn ping(mut stream: TcpStream, duration: Duration) -> Result<Vec<u64>> {
    let mut message = [0x5a; SMALL_BYTES];
    let mut trip = || -> Result<()> {
        stream.write_all(&message)?;
        stream.read_exact(&mut message).context("no answer")
    };
    for _ in 0..WARM_UP_TRIPS {
        trip()?;
    }
    let mut trips_ns = Vec::with_capacity(1 << 16);
    let began = Instant::now();
    let mut last = began;
    while last - began < duration {
        trip()?;
        let now = Instant::now();
        trips_ns.push(u64::try_from((now - last).as_nanos())?);
        last = now;
    }
    Ok(trips_ns)
}

fn echo(mut stream: TcpStream) -> Result<()> {
    let mut message = [0; SMALL_BYTES];
    loop {
        match stream.read(&mut message)? {
            0 => return Ok(()),
            bytes => stream.write_all(&message[..bytes])?,
        }
    }
}
