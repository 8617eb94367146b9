//! One long TCP stream whose every byte is known beforehand.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde::{Deserialize, Serialize};

use super::{
    LOOK_UP_INTERVAL, StopOnDrop, StopSign, milliseconds, now_ns, sleep_until_ns, socket_in,
};
use crate::child::poll_until;
use crate::place::Place;

const WORD_BYTES: usize = 8;
const CHUNK_BYTES: usize = 64 << 10;

/// How the stream is sent.
#[derive(Clone, Debug)]
pub struct TcpOptions {
    pub port: u16,
    /// `None`: as fast as it goes.
    pub rate_bps: Option<u64>,
    /// Seed of the byte pattern.
    pub seed: u64,
    pub connect_limit: Duration,
    /// The stream ends by itself after so long.
    pub longest: Duration,
    /// After the last byte was written, for the rest to arrive.
    pub drain: Duration,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self {
            port: 7001,
            rate_bps: Some(50_000_000),
            seed: 1,
            connect_limit: Duration::from_secs(10),
            longest: Duration::from_secs(180),
            drain: Duration::from_secs(30),
        }
    }
}

/// What became of the stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TcpReport {
    pub from: String,
    pub to: String,
    pub bytes_sent: u64,
    /// Bytes that arrived and were right.
    pub bytes_verified: u64,
    /// Position of the first wrong byte.
    pub corrupt_at: Option<u64>,
    /// Times that an end was told that the connection is gone.
    pub resets: u64,
    /// What the ends were told.
    pub errors: Vec<String>,
    /// True if the receiver saw the sender's orderly end.
    pub ended_in_order: bool,
    /// The longest time in which nothing arrived.
    pub longest_stall_ms: f64,
    pub elapsed_ms: f64,
}

impl TcpReport {
    /// True if every byte that was sent arrived, and the stream ended in order.
    pub fn is_whole(&self) -> bool {
        self.resets == 0
            && self.errors.is_empty()
            && self.ended_in_order
            && self.corrupt_at.is_none()
            && self.bytes_sent == self.bytes_verified
    }
}

/// A running stream; [`TcpLoad::stop`] gives the report, dropping it only ends it.
#[derive(Debug)]
pub struct TcpLoad {
    stop: StopOnDrop,
    started: Instant,
    names: [String; 2],
    verified: Arc<AtomicU64>,
    sender: JoinHandle<End>,
    receiver: JoinHandle<ReceiverEnd>,
}

/// Connects `from` to `to` at its [`Place::address`] and starts sending.
pub fn start(from: &Place, to: &Place, options: &TcpOptions) -> Result<TcpLoad> {
    let (outgoing, incoming) = connect(from, to, options)?;
    let stop = StopSign::after(options.longest);
    let verified = Arc::new(AtomicU64::new(0));
    let sender = Sender {
        stream: outgoing,
        stop: stop.clone(),
        options: options.clone(),
    };
    let receiver = Receiver {
        stream: incoming,
        stop: stop.clone(),
        seed: options.seed,
        drain: options.drain,
        verified: Arc::clone(&verified),
    };
    Ok(TcpLoad {
        stop: StopOnDrop(stop),
        started: Instant::now(),
        names: [from.name.clone(), to.name.clone()],
        verified,
        sender: std::thread::spawn(move || sender.run()),
        receiver: std::thread::spawn(move || receiver.run()),
    })
}

impl TcpLoad {
    /// Bytes that have arrived and were right so far.
    pub fn verified_bytes(&self) -> u64 {
        self.verified.load(Ordering::Relaxed)
    }

    /// Waits until so many more bytes arrive.
    /// # Errors  when they do not within the limit, or an end gives up.
    pub fn wait_for_more(&self, bytes: u64, limit: Duration) -> Result<()> {
        let wanted = self.verified_bytes() + bytes;
        let arrived = poll_until(limit, || {
            let is_enough = self.verified_bytes() >= wanted || self.has_ended();
            Ok(is_enough.then_some(()))
        })?;
        ensure!(
            arrived.is_some() && !self.has_ended(),
            "the stream stands at {} bytes, not {wanted}",
            self.verified_bytes()
        );
        Ok(())
    }

    /// True if an end has given up before the stream was told to stop.
    pub fn has_ended(&self) -> bool {
        self.sender.is_finished() || self.receiver.is_finished()
    }

    /// Ends the stream in order, waits for what is on its way, and reports.
    pub fn stop(self) -> Result<TcpReport> {
        drop(self.stop);
        let sender = self
            .sender
            .join()
            .map_err(|_| anyhow!("the TCP sender panicked"))?;
        let receiver = self
            .receiver
            .join()
            .map_err(|_| anyhow!("the TCP receiver panicked"))?;
        let [from, to] = self.names;
        let failures = [
            ("sender", sender.failure),
            ("receiver", receiver.end.failure),
        ];
        let failures = failures
            .into_iter()
            .filter_map(|(end, failure)| Some((end, failure?)));
        let (mut resets, mut errors) = (0, Vec::new());
        for (end, failure) in failures {
            resets += u64::from(is_reset(failure.kind()));
            errors.push(format!("{end}: {failure}"));
        }
        Ok(TcpReport {
            from,
            to,
            bytes_sent: sender.bytes,
            bytes_verified: receiver.end.bytes,
            corrupt_at: receiver.corrupt_at,
            resets,
            errors,
            ended_in_order: receiver.ended_in_order,
            longest_stall_ms: milliseconds(receiver.longest_stall_ns),
            elapsed_ms: milliseconds(self.started.elapsed().as_nanos() as u64),
        })
    }
}

/// What one end of the stream has to tell.
#[derive(Debug, Default)]
struct End {
    bytes: u64,
    failure: Option<std::io::Error>,
}

#[derive(Debug, Default)]
struct ReceiverEnd {
    end: End,
    corrupt_at: Option<u64>,
    ended_in_order: bool,
    longest_stall_ns: u64,
}

struct Sender {
    stream: TcpStream,
    stop: StopSign,
    options: TcpOptions,
}

impl Sender {
    fn run(mut self) -> End {
        let mut end = End::default();
        let mut chunk = vec![0; CHUNK_BYTES];
        let start_ns = now_ns();
        while !self.stop.is_set() {
            fill(&mut chunk, self.options.seed, end.bytes);
            if let Err(error) = self.write_chunk(&chunk, &mut end.bytes) {
                end.failure = Some(error);
                return end;
            }
            if let Some(rate_bps) = self.options.rate_bps {
                let due = u128::from(end.bytes) * 8 * 1_000_000_000 / u128::from(rate_bps.max(1));
                sleep_until_ns(start_ns + due as u64);
            }
        }
        end.failure = self.stream.shutdown(Shutdown::Write).err();
        end
    }

    /// Writes all of it, or as much as goes before the stream is told to stop.
    fn write_chunk(&mut self, chunk: &[u8], written: &mut u64) -> std::io::Result<()> {
        let mut rest = chunk;
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(count) => {
                    *written += count as u64;
                    rest = &rest[count..];
                }
                Err(error) if is_time_out(&error) => {
                    if self.stop.is_set() {
                        return Ok(());
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

struct Receiver {
    stream: TcpStream,
    stop: StopSign,
    seed: u64,
    drain: Duration,
    verified: Arc<AtomicU64>,
}

impl Receiver {
    fn run(mut self) -> ReceiverEnd {
        let mut result = ReceiverEnd::default();
        let (mut buffer, mut expected) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
        let mut last_ns = now_ns();
        let mut stopped_at = None;
        loop {
            if self.stop.is_set() {
                let since = *stopped_at.get_or_insert_with(Instant::now);
                if since.elapsed() >= self.drain {
                    return result;
                }
            }
            let count = match self.stream.read(&mut buffer) {
                Ok(0) => {
                    result.ended_in_order = true;
                    return result;
                }
                Ok(count) => count,
                // Also without data: a stream that stalls for good has a stall too.
                Err(error) if is_time_out(&error) => 0,
                Err(error) => {
                    result.end.failure = Some(error);
                    return result;
                }
            };
            let now = now_ns();
            result.longest_stall_ns = result.longest_stall_ns.max(now - last_ns);
            if count == 0 {
                continue;
            }
            last_ns = now;
            fill(&mut expected[..count], self.seed, result.end.bytes);
            let right = buffer[..count]
                .iter()
                .zip(&expected)
                .take_while(|(a, b)| a == b)
                .count();
            result.end.bytes += right as u64;
            self.verified.store(result.end.bytes, Ordering::Relaxed);
            if right < count {
                result.corrupt_at = Some(result.end.bytes);
                return result;
            }
        }
    }
}

fn connect(from: &Place, to: &Place, options: &TcpOptions) -> Result<(TcpStream, TcpStream)> {
    let port = options.port;
    let listener = socket_in(to, || {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
            .with_context(|| format!("TCP port {port}"))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    })?;
    let target = SocketAddr::from((to.address, port));
    let outgoing = socket_in(from, || {
        TcpStream::connect_timeout(&target, options.connect_limit)
            .with_context(|| format!("TCP connection to {} at {target}", to.name))
    })?;
    let (incoming, _) =
        crate::child::poll_until(options.connect_limit, || match listener.accept() {
            Ok(accepted) => Ok(Some(accepted)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error.into()),
        })?
        .with_context(|| format!("{}: nobody connected to TCP port {port}", to.name))?;
    incoming.set_nonblocking(false)?;
    incoming.set_read_timeout(Some(LOOK_UP_INTERVAL))?;
    outgoing.set_write_timeout(Some(LOOK_UP_INTERVAL))?;
    Ok((outgoing, incoming))
}

/// The bytes of the stream at `position`: each 8-byte word is a hash of the seed and its index.
fn fill(bytes: &mut [u8], seed: u64, position: u64) {
    let mut at = position;
    let mut rest = bytes;
    while !rest.is_empty() {
        let word = mix(seed ^ (at / WORD_BYTES as u64)).to_le_bytes();
        let offset = (at % WORD_BYTES as u64) as usize;
        let count = rest.len().min(WORD_BYTES - offset);
        let (now, later) = rest.split_at_mut(count);
        now.copy_from_slice(&word[offset..offset + count]);
        at += count as u64;
        rest = later;
    }
}

/// The finaliser of SplitMix64: neighbouring inputs give unrelated outputs.
fn mix(input: u64) -> u64 {
    let mut word = input.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

fn is_time_out(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
        // The kernel's own verdict that the peer is gone, not our short look-up interval.
        && error.raw_os_error() != Some(libc::ETIMEDOUT)
}

fn is_reset(kind: ErrorKind) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut};
    matches!(
        kind,
        ConnectionReset | ConnectionAborted | BrokenPipe | TimedOut
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_is_the_same_however_the_stream_is_cut() {
        let mut whole = vec![0; 1000];
        fill(&mut whole, 7, 0);
        let mut cut = vec![0; 1000];
        let mut position = 0;
        for length in [1, 7, 8, 9, 100, 875] {
            fill(&mut cut[position..position + length], 7, position as u64);
            position += length;
        }
        assert_eq!(position, 1000);
        assert_eq!(cut, whole);
    }

    #[test]
    fn shifted_bytes_or_another_seed_do_not_pass() {
        let piece = |seed, position| {
            let mut bytes = vec![0; 64];
            fill(&mut bytes, seed, position);
            bytes
        };
        assert_ne!(piece(7, 0), piece(7, 1));
        assert_ne!(piece(7, 0), piece(7, 8));
        assert_ne!(piece(7, 0), piece(8, 0));
    }

    #[test]
    fn a_peer_that_the_kernel_gave_up_is_a_reset_and_a_look_up_is_not() {
        let gone = std::io::Error::from_raw_os_error(libc::ETIMEDOUT);
        assert!(!is_time_out(&gone) && is_reset(gone.kind()));
        let look_up = std::io::Error::from_raw_os_error(libc::EAGAIN);
        assert!(is_time_out(&look_up) && !is_reset(look_up.kind()));
    }
}
