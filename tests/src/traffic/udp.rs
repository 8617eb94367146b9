//! Numbered UDP packets both ways at the same time, each one accounted for.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::sys::socket::{setsockopt, sockopt};
use serde::{Deserialize, Serialize};

use super::ledger::{Gap, Ledger};
use super::{
    LOOK_UP_INTERVAL, StopOnDrop, StopSign, milliseconds, now_ns, sleep_until_ns, socket_in,
};
use crate::place::Place;

/// Run id, then sequence number.
const HEADER_BYTES: usize = 16;
/// Holds more than 5 s at 5,000 packets/s, whatever the kernel charges for a packet.
const RECEIVE_BUFFER_BYTES: usize = 64 << 20;
/// A sender that was late sends so many at once, then rests: the receiver's queues are not the
/// thing under test.
const LARGEST_BURST: u64 = 32;
const REST_AFTER_BURST_NS: u64 = 1_000_000;
const GAPS_REPORTED: usize = 20;

/// How the packets are sent.
#[derive(Clone, Debug)]
pub struct UdpOptions {
    /// Both ends use this port, so that one flow carries both directions.
    pub port: u16,
    pub packets_per_second: u64,
    /// UDP payload, at least 16.
    pub payload_bytes: usize,
    /// The load stops by itself after so long.
    pub longest: Duration,
    /// After the senders have stopped, for packets that are still on their way.
    pub drain: Duration,
}

impl Default for UdpOptions {
    fn default() -> Self {
        Self {
            port: 7000,
            packets_per_second: 5000,
            payload_bytes: 200,
            longest: Duration::from_secs(180),
            drain: Duration::from_secs(3),
        }
    }
}

/// What became of both directions.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UdpReport {
    pub directions: [UdpDirection; 2],
    pub elapsed_ms: f64,
}

impl UdpReport {
    /// Packets that were sent and never received, both directions.
    pub fn lost(&self) -> u64 {
        self.directions.iter().map(|direction| direction.lost).sum()
    }

    /// Packets that were sent, both directions.
    pub fn sent(&self) -> u64 {
        self.directions.iter().map(|direction| direction.sent).sum()
    }
}

/// What became of the packets of one direction.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UdpDirection {
    pub from: String,
    pub to: String,
    pub sent: u64,
    pub received: u64,
    /// Sent, not received; includes packets that the sender's kernel refused.
    pub lost: u64,
    pub duplicates: u64,
    pub reordered: u64,
    /// Packets with another run id or form.
    pub foreign: u64,
    /// System calls that failed; their packets count as lost.
    pub send_errors: u64,
    /// Packets that the receiving namespace dropped because a socket buffer was full: lost, but
    /// not by the network.
    pub receive_buffer_errors: u64,
    /// The first gaps in the sequence.
    pub gaps: Vec<Gap>,
    pub longest_silence_ms: f64,
    /// How far the sender was behind its schedule; large values mean a busy machine.
    pub longest_sender_lateness_ms: f64,
}

/// A running load; [`UdpLoad::stop`] gives the report, dropping it only ends it.
#[derive(Debug)]
pub struct UdpLoad {
    stop: StopOnDrop,
    started: Instant,
    lanes: Vec<Lane>,
}

/// Starts sending both ways between two places, each at the other's [`Place::address`].
///
/// Counts from the first packet on: the places must reach each other before.
pub fn start(a: &Place, b: &Place, options: &UdpOptions) -> Result<UdpLoad> {
    let stop = StopSign::after(options.longest);
    let run = now_ns();
    let sockets = [bind(a, options.port)?, bind(b, options.port)?];
    let lanes = [(0, a, b), (1, b, a)].map(|(sender, from, to)| {
        Lane::start(
            from,
            to,
            [&sockets[sender], &sockets[1 - sender]],
            run,
            &stop,
            options,
        )
    });
    Ok(UdpLoad {
        stop: StopOnDrop(stop),
        started: Instant::now(),
        lanes: lanes.into_iter().collect::<Result<_>>()?,
    })
}

impl UdpLoad {
    /// Packets received so far, both directions.
    pub fn received(&self) -> u64 {
        self.lanes
            .iter()
            .map(|lane| lane.counts.received.load(Ordering::Relaxed))
            .sum()
    }

    /// Packets sent so far, both directions.
    pub fn sent(&self) -> u64 {
        self.lanes
            .iter()
            .map(|lane| lane.counts.sent.load(Ordering::Relaxed))
            .sum()
    }

    /// Stops the senders, waits for packets on their way, and accounts for all.
    pub fn stop(self) -> Result<UdpReport> {
        drop(self.stop);
        let mut directions = Vec::new();
        for lane in self.lanes {
            directions.push(lane.finish()?);
        }
        Ok(UdpReport {
            directions: directions
                .try_into()
                .map_err(|_| anyhow!("there are two directions"))?,
            elapsed_ms: milliseconds(self.started.elapsed().as_nanos() as u64),
        })
    }
}

/// One direction.
#[derive(Debug)]
struct Lane {
    from: String,
    to: Place,
    buffer_errors_before: u64,
    counts: Arc<Counts>,
    sender: JoinHandle<SenderResult>,
    receiver: JoinHandle<ReceiverResult>,
}

#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    received: AtomicU64,
}

#[derive(Debug)]
struct SenderResult {
    send_errors: u64,
    longest_lateness_ns: u64,
}

#[derive(Debug, Default)]
struct ReceiverResult {
    ledger: Ledger,
    foreign: u64,
    longest_silence_ns: u64,
}

impl Lane {
    fn start(
        from: &Place,
        to: &Place,
        [outgoing, incoming]: [&Arc<UdpSocket>; 2],
        run: u64,
        stop: &StopSign,
        options: &UdpOptions,
    ) -> Result<Self> {
        let counts = Arc::new(Counts::default());
        let receiver = Receiver {
            socket: Arc::clone(incoming),
            // Each direction has its own, so that an echo would not pass for a packet.
            run: run ^ u64::from(from.address.to_bits()),
            drain: options.drain,
            stop: stop.clone(),
            counts: Arc::clone(&counts),
        };
        let sender = Sender {
            socket: Arc::clone(outgoing),
            target: SocketAddrV4::new(to.address, options.port),
            run: receiver.run,
            options: options.clone(),
            stop: stop.clone(),
            counts: Arc::clone(&counts),
        };
        Ok(Self {
            from: from.name.clone(),
            to: to.clone(),
            buffer_errors_before: receive_buffer_errors(to)?,
            counts,
            receiver: std::thread::spawn(move || receiver.run()),
            sender: std::thread::spawn(move || sender.run()),
        })
    }

    fn finish(self) -> Result<UdpDirection> {
        let sender = self
            .sender
            .join()
            .map_err(|_| anyhow!("the UDP sender panicked"))?;
        let receiver = self
            .receiver
            .join()
            .map_err(|_| anyhow!("the UDP receiver panicked"))?;
        let sent = self.counts.sent.load(Ordering::Relaxed);
        let ledger = &receiver.ledger;
        Ok(UdpDirection {
            from: self.from,
            sent,
            received: ledger.unique(),
            lost: sent - ledger.unique(),
            duplicates: ledger.duplicates(),
            reordered: ledger.reordered(),
            foreign: receiver.foreign,
            send_errors: sender.send_errors,
            receive_buffer_errors: receive_buffer_errors(&self.to)? - self.buffer_errors_before,
            gaps: ledger.gaps(sent, GAPS_REPORTED),
            longest_silence_ms: milliseconds(receiver.longest_silence_ns),
            longest_sender_lateness_ms: milliseconds(sender.longest_lateness_ns),
            to: self.to.name,
        })
    }
}

struct Sender {
    socket: Arc<UdpSocket>,
    target: SocketAddrV4,
    run: u64,
    options: UdpOptions,
    stop: StopSign,
    counts: Arc<Counts>,
}

impl Sender {
    fn run(self) -> SenderResult {
        let mut payload = vec![0; self.options.payload_bytes.max(HEADER_BYTES)];
        payload[..8].copy_from_slice(&self.run.to_be_bytes());
        let start_ns = now_ns();
        let due_ns = |number: u64| {
            start_ns + number * 1_000_000_000 / self.options.packets_per_second.max(1)
        };
        let (mut next, mut in_burst) = (0, 0);
        let mut result = SenderResult {
            send_errors: 0,
            longest_lateness_ns: 0,
        };
        while !self.stop.is_set() {
            let now = now_ns();
            let due = due_ns(next);
            if due > now {
                in_burst = 0;
                sleep_until_ns(due);
                continue;
            }
            result.longest_lateness_ns = result.longest_lateness_ns.max(now - due);
            if in_burst == LARGEST_BURST {
                in_burst = 0;
                sleep_until_ns(now + REST_AFTER_BURST_NS);
                continue;
            }
            payload[8..HEADER_BYTES].copy_from_slice(&next.to_be_bytes());
            // Counted first: a receiver never sees a number that is not counted as sent.
            self.counts.sent.store(next + 1, Ordering::Relaxed);
            if self.socket.send_to(&payload, self.target).is_err() {
                result.send_errors += 1;
            }
            next += 1;
            in_burst += 1;
        }
        result
    }
}

struct Receiver {
    socket: Arc<UdpSocket>,
    run: u64,
    drain: Duration,
    stop: StopSign,
    counts: Arc<Counts>,
}

impl Receiver {
    fn run(self) -> ReceiverResult {
        let mut result = ReceiverResult::default();
        let mut buffer = vec![0; 65536];
        let mut last_ns = now_ns();
        let mut stopped_at = None;
        loop {
            let received = self.socket.recv_from(&mut buffer);
            let stopping = self.stop.is_set();
            if let Ok((length, _)) = received {
                let now = now_ns();
                self.note(&buffer[..length], &mut result);
                if !stopping {
                    result.longest_silence_ns = result.longest_silence_ns.max(now - last_ns);
                }
                last_ns = now;
            }
            if !stopping {
                continue;
            }
            let stopped_at = *stopped_at.get_or_insert_with(Instant::now);
            let quiet = received.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
            // The sender looks at the same sign; one interval later its last packet is counted.
            let settled = stopped_at.elapsed() > 2 * LOOK_UP_INTERVAL;
            let complete = result.ledger.unique() == self.counts.sent.load(Ordering::Relaxed);
            if (settled && quiet && complete) || stopped_at.elapsed() >= self.drain {
                return result;
            }
        }
    }

    fn note(&self, packet: &[u8], result: &mut ReceiverResult) {
        let own = packet.strip_prefix(&self.run.to_be_bytes());
        match own.and_then(|rest| rest.first_chunk::<8>()) {
            // Not below `sent`: a damaged number, which must not grow the ledger without bound.
            Some(bytes)
                if u64::from_be_bytes(*bytes) < self.counts.sent.load(Ordering::Relaxed) =>
            {
                result.ledger.arrived(u64::from_be_bytes(*bytes));
                self.counts
                    .received
                    .store(result.ledger.unique(), Ordering::Relaxed);
            }
            _ => result.foreign += 1,
        }
    }
}

fn bind(place: &Place, port: u16) -> Result<Arc<UdpSocket>> {
    socket_in(place, || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))
            .with_context(|| format!("UDP port {port}"))?;
        // FORCE passes the system's limit; needs root, as entering the namespace did.
        setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES)
            .context("a receive buffer of 64 MiB")?;
        socket.set_read_timeout(Some(LOOK_UP_INTERVAL))?;
        Ok(Arc::new(socket))
    })
}

/// The namespace's own count of UDP packets dropped at a full socket buffer.
fn receive_buffer_errors(place: &Place) -> Result<u64> {
    // The thread's entry: /proc/self would show the main thread's namespace.
    let text = place
        .netns
        .enter(|| fs::read_to_string("/proc/thread-self/net/snmp"))?;
    udp_counter(&text.context("/proc/thread-self/net/snmp")?, "RcvbufErrors")
        .context("/proc/thread-self/net/snmp: no Udp counter RcvbufErrors")
}

/// The file has a line of names and a line of values for each protocol.
fn udp_counter(snmp: &str, name: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let column = lines.next()?.split(' ').position(|column| column == name)?;
    lines.next()?.split(' ').nth(column)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_udp_counter_is_found_by_name_and_not_mixed_up_with_udplite() {
        let snmp = "Icmp: InMsgs\nIcmp: 4\nUdp: InDatagrams NoPorts InErrors OutDatagrams \
             RcvbufErrors\nUdp: 10 0 3 12 3\nUdpLite: InDatagrams RcvbufErrors\nUdpLite: 0 9\n";
        assert_eq!(udp_counter(snmp, "RcvbufErrors"), Some(3));
        assert_eq!(udp_counter(snmp, "NoSuchName"), None);
    }
}
