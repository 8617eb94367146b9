//! What runs while paths are cut: numbered datagrams both ways, and connections that go to and fro. Every
//! arrival is noted with its time.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::child::poll_until;
use crate::place::Place;

const UDP_PORT: u16 = 7000;
const TCP_PORT: u16 = 7001;
const UDP_INTERVAL: Duration = Duration::from_millis(1);
const UDP_PAYLOAD_BYTES: usize = 200;
pub const CONNECTIONS: usize = 4;
/// Between an answer and the next question of a connection.
const TCP_PAUSE: Duration = Duration::from_millis(2);
/// A connection that gets nowhere for so long is lost.
const TCP_LIMIT: Duration = Duration::from_secs(20);
const LOOK_UP: Duration = Duration::from_millis(100);
const START_LIMIT: Duration = Duration::from_secs(30);

/// When things arrived, in order.
#[derive(Clone, Debug, Default)]
pub struct Arrivals(Arc<Mutex<Vec<Instant>>>);

impl Arrivals {
    fn note(&self, at: Instant) {
        self.list().push(at);
    }

    fn list(&self) -> MutexGuard<'_, Vec<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn count(&self) -> usize {
        self.list().len()
    }

    pub fn last(&self) -> Option<Instant> {
        self.list().last().copied()
    }

    /// The longest time without an arrival of which a part lies between two moments.
    pub fn longest_silence(&self, from: Instant, until: Instant) -> Duration {
        longest_silence(&self.list(), from, until)
    }
}

fn longest_silence(arrivals: &[Instant], from: Instant, until: Instant) -> Duration {
    let first = arrivals.partition_point(|at| *at < from);
    let behind = arrivals.partition_point(|at| *at <= until);
    let mut last = match first {
        0 => from,
        n => arrivals[n - 1],
    };
    let mut longest = Duration::ZERO;
    for at in arrivals[first..behind].iter().copied().chain([until]) {
        longest = longest.max(at.saturating_duration_since(last));
        last = at;
    }
    longest
}

/// A running load.
#[derive(Debug)]
pub struct Load {
    /// Datagrams of each direction: at the second place, at the first.
    pub datagrams: [Arrivals; 2],
    /// Answers, of each connection.
    pub answers: Vec<Arrivals>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
    connections: Vec<JoinHandle<Result<()>>>,
}

impl Load {
    /// Starts everything between two places, and waits until all of it arrives.
    pub fn start(a: &Place, b: &Place) -> Result<Self> {
        let mut load = Self {
            datagrams: Default::default(),
            answers: Vec::new(),
            stop: Arc::default(),
            threads: Vec::new(),
            connections: Vec::new(),
        };
        load.start_datagrams(a, b)?;
        load.start_connections(a, b)?;
        let lanes = load.datagrams.iter().chain(&load.answers);
        for lane in lanes {
            let begun = poll_until(START_LIMIT, || Ok((lane.count() > 10).then_some(())))?;
            ensure!(begun.is_some(), "nothing arrives before any path is cut");
        }
        Ok(load)
    }

    /// Ends the load. Returns how many connections were lost, each with why.
    pub fn stop(self) -> Result<Vec<String>> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            joined(thread)?;
        }
        let mut lost = Vec::new();
        for connection in self.connections {
            if let Err(error) = joined(connection) {
                lost.push(format!("{error:#}"));
            }
        }
        Ok(lost)
    }

    fn start_datagrams(&mut self, a: &Place, b: &Place) -> Result<()> {
        let sockets = [socket(a)?, socket(b)?];
        for (index, to) in [b, a].into_iter().enumerate() {
            let (sender, receiver) = (sockets[index].try_clone()?, sockets[1 - index].try_clone()?);
            let (stop, to) = (self.stop.clone(), (to.address, UDP_PORT));
            self.threads
                .push(thread::spawn(move || send(&sender, to, &stop)));
            let (stop, arrivals) = (self.stop.clone(), self.datagrams[index].clone());
            self.threads
                .push(thread::spawn(move || receive(&receiver, &arrivals, &stop)));
        }
        Ok(())
    }

    fn start_connections(&mut self, a: &Place, b: &Place) -> Result<()> {
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, TCP_PORT));
        let listener = b.netns.enter(|| TcpListener::bind(address))??;
        for _ in 0..CONNECTIONS {
            let to = SocketAddr::from((b.address, TCP_PORT));
            let client = a
                .netns
                .enter(|| TcpStream::connect_timeout(&to, START_LIMIT))?
                .context("connect before any path is cut")?;
            let (server, _) = listener.accept()?;
            for end in [&client, &server] {
                end.set_nodelay(true)?;
                end.set_read_timeout(Some(TCP_LIMIT))?;
                end.set_write_timeout(Some(TCP_LIMIT))?;
            }
            self.threads.push(thread::spawn(move || answer(server)));
            let (stop, arrivals) = (self.stop.clone(), Arrivals::default());
            self.answers.push(arrivals.clone());
            self.connections
                .push(thread::spawn(move || ask(client, &arrivals, &stop)));
        }
        Ok(())
    }
}

fn joined(thread: JoinHandle<Result<()>>) -> Result<()> {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn socket(place: &Place) -> Result<UdpSocket> {
    let socket = place
        .netns
        .enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, UDP_PORT)))??;
    socket.set_read_timeout(Some(LOOK_UP))?;
    Ok(socket)
}

/// A send that fails is a datagram that does not arrive, and that is what is measured.
fn send(socket: &UdpSocket, to: (Ipv4Addr, u16), stop: &AtomicBool) -> Result<()> {
    let mut payload = [0; UDP_PAYLOAD_BYTES];
    let mut next = Instant::now();
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        payload[..8].copy_from_slice(&number.to_be_bytes());
        number += 1;
        let _not_sent = socket.send_to(&payload, to);
        next += UDP_INTERVAL;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

fn receive(socket: &UdpSocket, arrivals: &Arrivals, stop: &AtomicBool) -> Result<()> {
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        match socket.recv_from(&mut buffer) {
            Ok(_) => arrivals.note(Instant::now()),
            // An ICMP error about an earlier datagram, or nothing for a while.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock
                        | ErrorKind::TimedOut
                        | ErrorKind::ConnectionRefused
                        | ErrorKind::HostUnreachable
                        | ErrorKind::NetworkUnreachable
                ) => {}
            Err(error) => return Err(error).context("receive datagrams"),
        }
    }
    Ok(())
}

/// The client's end decides whether the connection is lost.
fn answer(mut server: TcpStream) -> Result<()> {
    let mut message = [0; 64];
    while server.read_exact(&mut message).is_ok() && server.write_all(&message).is_ok() {}
    Ok(())
}

fn ask(mut client: TcpStream, arrivals: &Arrivals, stop: &AtomicBool) -> Result<()> {
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let mut message = [0; 64];
        message[..8].copy_from_slice(&number.to_be_bytes());
        client.write_all(&message).context("a question")?;
        let mut answer = [0; 64];
        client.read_exact(&mut answer).context("an answer")?;
        ensure!(answer == message, "an answer to another question");
        arrivals.note(Instant::now());
        number += 1;
        thread::sleep(TCP_PAUSE);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_measured_beyond_both_ends_of_the_window() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let arrivals: Vec<_> = [0, 10, 20, 320, 330, 900].map(at).to_vec();
        let silence = |from, until| longest_silence(&arrivals, at(from), at(until)).as_millis();
        assert_eq!(silence(25, 340), 300, "began before the window");
        assert_eq!(silence(321, 600), 270, "still lasts");
        assert_eq!(silence(0, 20), 10);
        assert_eq!(longest_silence(&[], at(5), at(9)).as_millis(), 4);
    }
}
