//! What shares the link: streams that always have more to send, and questions on a fixed schedule whose
//! answers are waited for.
//!
//! As with Kafka, connections are opened by those who fetch, and what is sent to them comes from the
//! listener's port.

use std::ffi::OsString;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{getsockopt, setsockopt, sockopt};

use crate::arguments::CONGESTION_CONTROLS;
use crate::child::poll_until;
use crate::place::Place;
use crate::traffic::{be_punctual, now_ns, sleep_until_ns};

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long a socket call waits before it looks whether the load ended.
const LOOK_UP: Duration = Duration::from_millis(100);
const WRITE_BYTES: usize = 64 << 10;
const READ_BYTES: usize = 256 << 10;
/// What the link carries for a segment besides its payload: Ethernet with its gaps (38), the tunnel (50),
/// IPv4 (20) and TCP with timestamps (32).
const OVERHEAD_BYTES: u64 = 38 + 50 + 20 + 32;

/// By what senders find their rate, whatever the host's default is: a name that the kernel knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CongestionControl(&'static str);

impl CongestionControl {
    /// What nearly every host has.
    pub const CUBIC: Self = Self("cubic");
    /// Takes losses for no sign of a full link.
    pub const BBR: Self = Self("bbr");

    pub fn of_name(name: &str) -> Option<Self> {
        let known = CONGESTION_CONTROLS.iter().find(|it| **it == name);
        known.map(|name| Self(name))
    }
}

/// Streams of one class, from where the data lie to who fetches them.
#[derive(Clone, Copy, Debug)]
pub struct StreamSpec {
    /// Of the listener.
    pub port: u16,
    pub flows: usize,
    /// Send for so long, be silent for so long, and so on; `None`: without a pause.
    pub on_and_off: Option<Duration>,
    pub congestion_control: CongestionControl,
}

/// Questions and answers of one class, over one connection.
#[derive(Clone, Copy, Debug)]
pub struct ExchangeSpec {
    /// Of the listener, who answers.
    pub port: u16,
    pub interval: Duration,
    pub answer_bytes: usize,
}

/// Streams that run; see [`StreamSpec`].
#[derive(Debug)]
pub struct Streams {
    pub port: u16,
    received_bytes: Arc<AtomicU64>,
    /// Payload of a full segment.
    mss_bytes: u64,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Streams {
    /// Streams that are fetched.
    /// # Errors  when they cannot connect.
    pub fn start(data: &Place, fetcher: &Place, spec: StreamSpec) -> Result<Self> {
        let listener = listen(data, spec.port)?;
        Self::run(spec, || connection(&listener, data, fetcher, spec.port))
    }

    /// Streams that are opened by who sends, as a producer does.
    /// # Errors  when they cannot connect.
    pub fn produce(producer: &Place, broker: &Place, spec: StreamSpec) -> Result<Self> {
        let listener = listen(broker, spec.port)?;
        Self::run(spec, || {
            let [server, client] = connection(&listener, broker, producer, spec.port)?;
            Ok([client, server])
        })
    }

    /// `connect` gives the end that sends, and the one that receives.
    fn run(spec: StreamSpec, connect: impl Fn() -> Result<[TcpStream; 2]>) -> Result<Self> {
        let mut streams = Self {
            port: spec.port,
            received_bytes: Arc::default(),
            mss_bytes: 0,
            stop: Arc::default(),
            threads: Vec::new(),
        };
        for _ in 0..spec.flows {
            let [sender, receiver] = connect()?;
            let CongestionControl(name) = spec.congestion_control;
            setsockopt(&sender, sockopt::TcpCongestion, &OsString::from(name))
                .with_context(|| format!("this kernel has no congestion control {name}"))?;
            streams.mss_bytes = u64::from(getsockopt(&sender, sockopt::TcpMaxSeg)?);
            let stop = streams.stop.clone();
            let writer = move || write(sender, spec.on_and_off, &stop);
            let received = streams.received_bytes.clone();
            let reader = move || read(receiver, &received);
            streams.threads.push(thread::spawn(writer));
            streams.threads.push(thread::spawn(reader));
        }
        Ok(streams)
    }

    /// What the link carried for all that was received.
    pub fn wire_bytes(&self) -> u64 {
        let payload = self.received_bytes.load(Ordering::Relaxed);
        payload + payload * OVERHEAD_BYTES / self.mss_bytes.max(1)
    }

    /// Ends them. What is still under way is not waited for.
    pub fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().try_for_each(joined)
    }
}

fn write(mut stream: TcpStream, on_and_off: Option<Duration>, stop: &AtomicBool) -> Result<()> {
    let block = vec![0x5a; WRITE_BYTES];
    let began_ns = now_ns();
    while !stop.load(Ordering::Relaxed) {
        if let Some(end_ns) = on_and_off.and_then(|length| end_of_pause(began_ns, length)) {
            sleep_until_ns(end_ns);
            continue;
        }
        match stream.write(&block) {
            Ok(_) => {}
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error).context("write to a stream"),
        }
    }
    // What waits in the socket's buffer is of no use any more.
    stream.shutdown(std::net::Shutdown::Both)?;
    Ok(())
}

/// When the pause ends, if it is one: turns of sending and of silence are of the same length.
fn end_of_pause(began_ns: u64, length: Duration) -> Option<u64> {
    let length_ns = (length.as_nanos() as u64).max(1);
    let turn = (now_ns() - began_ns) / length_ns;
    (turn % 2 == 1).then_some(began_ns + (turn + 1) * length_ns)
}

fn read(mut stream: TcpStream, received: &AtomicU64) -> Result<()> {
    let mut block = vec![0; READ_BYTES];
    loop {
        match stream.read(&mut block) {
            Ok(0) => return Ok(()),
            Ok(bytes) => {
                received.fetch_add(bytes as u64, Ordering::Relaxed);
            }
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error).context("read from a stream"),
        }
    }
}

/// When a question was due, on the clock of [`now_ns`], and how long after that its answer was there: so that
/// waiting for one answer does not hide how long the next takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub due_ns: u64,
    pub took_ns: u64,
}

/// Questions that are asked on schedule; see [`ExchangeSpec`].
///
/// Who asks and who answers comes before who sends and who reads the link's counters, or on few CPUs an answer
/// waits for them.
#[derive(Debug)]
pub struct Exchanges {
    answers: Arc<Mutex<Vec<Answer>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

const QUESTION_BYTES: usize = 64;

impl Exchanges {
    /// # Errors  when they cannot connect, or nothing is answered.
    pub fn start(answerer: &Place, asker: &Place, spec: ExchangeSpec) -> Result<Self> {
        let listener = listen(answerer, spec.port)?;
        let [server, client] = connection(&listener, answerer, asker, spec.port)?;
        let (stop, answers) = (
            Arc::<AtomicBool>::default(),
            Arc::<Mutex<Vec<Answer>>>::default(),
        );
        let (asking, came) = (client.try_clone()?, answers.clone());
        let told = stop.clone();
        let threads = vec![
            thread::spawn(move || answer(server, spec.answer_bytes)),
            thread::spawn(move || ask(asking, spec.interval, &told)),
            thread::spawn(move || wait_for_answers(client, spec.answer_bytes, &came)),
        ];
        let exchanges = Self {
            answers,
            stop,
            threads,
        };
        let begun = poll_until(START_LIMIT, || Ok((exchanges.count() > 10).then_some(())))?;
        ensure!(begun.is_some(), "port {}: no answers", spec.port);
        Ok(exchanges)
    }

    fn count(&self) -> usize {
        self.answers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// Waits for the answers to all that was asked, and returns them.
    pub fn stop(self) -> Result<Vec<Answer>> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().try_for_each(joined)?;
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::take(&mut *answers))
    }
}

fn ask(mut client: TcpStream, interval: Duration, stop: &AtomicBool) -> Result<()> {
    be_punctual();
    let mut due_ns = now_ns();
    while !stop.load(Ordering::Relaxed) {
        sleep_until_ns(due_ns);
        let mut question = [0; QUESTION_BYTES];
        question[..8].copy_from_slice(&due_ns.to_be_bytes());
        write_all(&mut client, &question).context("ask")?;
        due_ns += interval.as_nanos() as u64;
    }
    // The answerer ends when it has answered everything, and closes.
    client.shutdown(std::net::Shutdown::Write)?;
    Ok(())
}

/// The first bytes of an answer are those of its question.
fn answer(mut server: TcpStream, answer_bytes: usize) -> Result<()> {
    be_punctual();
    let mut question = [0; QUESTION_BYTES];
    let mut text = vec![0; answer_bytes.max(8)];
    while read_all(&mut server, &mut question)? {
        text[..8].copy_from_slice(&question[..8]);
        write_all(&mut server, &text).context("answer")?;
    }
    Ok(())
}

fn wait_for_answers(
    mut client: TcpStream,
    answer_bytes: usize,
    answers: &Mutex<Vec<Answer>>,
) -> Result<()> {
    be_punctual();
    let mut text = vec![0; answer_bytes.max(8)];
    while read_all(&mut client, &mut text)? {
        let mut due = [0; 8];
        due.copy_from_slice(&text[..8]);
        let due_ns = u64::from_be_bytes(due);
        let took_ns = now_ns().saturating_sub(due_ns);
        answers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Answer { due_ns, took_ns });
    }
    Ok(())
}

/// Whether all of it came; false at the end of the connection.
fn read_all(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<bool> {
    let mut filled = 0;
    while filled < buffer.len() {
        match stream.read(&mut buffer[filled..]) {
            Ok(0) => return Ok(false),
            Ok(bytes) => filled += bytes,
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error).context("read an exchange"),
        }
    }
    Ok(true)
}

fn write_all(stream: &mut TcpStream, mut text: &[u8]) -> Result<()> {
    while !text.is_empty() {
        match stream.write(text) {
            Ok(bytes) => text = &text[bytes..],
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

fn listen(place: &Place, port: u16) -> Result<TcpListener> {
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let listener = place.netns.enter(|| TcpListener::bind(address))?;
    listener.with_context(|| format!("listen on port {port} in {}", place.name))
}

/// The listener's end, and the end of who connected.
fn connection(
    listener: &TcpListener,
    at: &Place,
    from: &Place,
    port: u16,
) -> Result<[TcpStream; 2]> {
    let to = SocketAddr::from((at.address, port));
    let client = from
        .netns
        .enter(|| TcpStream::connect_timeout(&to, CONNECT_LIMIT))?
        .with_context(|| format!("connect from {} to {}, port {port}", from.name, at.name))?;
    let (server, _) = listener.accept()?;
    for end in [&server, &client] {
        end.set_nodelay(true)?;
        end.set_read_timeout(Some(LOOK_UP))?;
        end.set_write_timeout(Some(LOOK_UP))?;
    }
    Ok([server, client])
}

fn joined(thread: JoinHandle<Result<()>>) -> Result<()> {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
