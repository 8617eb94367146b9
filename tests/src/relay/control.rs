//! The relay's control socket: one JSON request per line, one JSON answer per line.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::settings::Settings;
use super::stats::RelayStats;

const ANSWER_LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Request {
    Get,
    Set(Box<Settings>),
    Stats,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    Settings(Box<Settings>),
    Stats(Box<RelayStats>),
    Error(String),
}

/// A running relay, as others see it.
#[derive(Clone, Debug)]
pub struct RelayClient {
    socket: PathBuf,
}

impl RelayClient {
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    pub fn settings(&self) -> Result<Settings> {
        self.expect_settings(&Request::Get)
    }

    /// Changes the WAN; in force when this returns.
    pub fn set(&self, settings: &Settings) -> Result<()> {
        self.expect_settings(&Request::Set(Box::new(settings.clone())))
            .map(|_| ())
    }

    pub fn stats(&self) -> Result<RelayStats> {
        match self.ask(&Request::Stats)? {
            Answer::Stats(stats) => Ok(*stats),
            other => bail!("the relay gave an answer that does not fit: {other:?}"),
        }
    }

    fn expect_settings(&self, request: &Request) -> Result<Settings> {
        match self.ask(request)? {
            Answer::Settings(settings) => Ok(*settings),
            other => bail!("the relay gave an answer that does not fit: {other:?}"),
        }
    }

    fn ask(&self, request: &Request) -> Result<Answer> {
        let mut stream = UnixStream::connect(&self.socket)
            .with_context(|| format!("no relay at {}", self.socket.display()))?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let mut answer = String::new();
        BufReader::new(stream)
            .read_line(&mut answer)
            .with_context(|| format!("the relay did not answer within {ANSWER_LIMIT:?}"))?;
        match serde_json::from_str(&answer).context("the relay's answer")? {
            Answer::Error(reason) => bail!("the relay refused: {reason}"),
            answer => Ok(answer),
        }
    }
}

/// Hands requests to the loop that owns the model, and wakes it.
pub(super) struct ControlServer {
    requests: Receiver<(Request, Sender<Answer>)>,
    wake: UnixStream,
}

impl ControlServer {
    /// Listens on `socket` in a thread of its own, so that a slow client never delays a packet.
    pub(super) fn start(socket: &Path) -> Result<Self> {
        let listener = UnixListener::bind(socket)
            .with_context(|| format!("cannot listen on {}", socket.display()))?;
        let (wake, waker) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        let (sender, requests) = channel();
        std::thread::Builder::new()
            .name("control".into())
            .spawn(move || {
                for stream in listener.incoming().flatten() {
                    // A client that goes away in between is its own problem.
                    let _ = serve(&stream, &sender, &waker);
                }
            })?;
        Ok(Self { requests, wake })
    }

    pub(super) fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Answers every waiting request.
    pub(super) fn answer_all(&self, mut answer: impl FnMut(Request) -> Answer) {
        // One byte per request; what stays wakes the loop once more.
        let _ = (&self.wake).read(&mut [0; 64]);
        while let Ok((request, reply)) = self.requests.try_recv() {
            let _ = reply.send(answer(request));
        }
    }
}

fn serve(
    stream: &UnixStream,
    requests: &Sender<(Request, Sender<Answer>)>,
    mut wake: &UnixStream,
) -> Result<()> {
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    let answer = match serde_json::from_str(&line) {
        Ok(request) => {
            let (reply, answer) = channel();
            requests.send((request, reply))?;
            wake.write_all(&[0])?;
            answer.recv_timeout(ANSWER_LIMIT)?
        }
        Err(error) => Answer::Error(error.to_string()),
    };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    let mut stream = stream;
    stream.write_all(&line)?;
    Ok(())
}
