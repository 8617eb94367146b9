//! Two ends that talk, and what each saw of the other.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};

use crate::child::poll_until;
use crate::netns::NetNs;

/// Everything is on one machine: whoever needs longer does not answer.
const LIMIT: Duration = Duration::from_secs(3);

/// A UDP socket in a namespace, at all of its addresses.
#[derive(Debug)]
pub struct Mailbox {
    socket: UdpSocket,
    owner: String,
}

/// Each waits for an answer as long as a mailbox does.
const REFUSAL_QUESTIONS: usize = 3;

impl Mailbox {
    pub fn open(namespace: &NetNs, port: u16) -> Result<Self> {
        let socket = namespace
            .enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)))?
            .with_context(|| format!("{}: bind UDP port {port}", namespace.name()))?;
        socket.set_read_timeout(Some(LIMIT))?;
        Ok(Self {
            socket,
            owner: namespace.name().to_owned(),
        })
    }

    pub fn send(&self, to: (Ipv4Addr, u16), payload: &[u8]) -> Result<()> {
        self.socket
            .send_to(payload, to)
            .with_context(|| format!("{}: send to {}:{}", self.owner, to.0, to.1))?;
        Ok(())
    }

    /// The next datagram and who sent it.
    pub fn receive(&self) -> Result<(SocketAddrV4, Vec<u8>)> {
        let mut buffer = vec![0; 65_536];
        let (length, from) = self
            .socket
            .recv_from(&mut buffer)
            .with_context(|| format!("{}: nothing arrived within {LIMIT:?}", self.owner))?;
        buffer.truncate(length);
        match from {
            SocketAddr::V4(from) => Ok((from, buffer)),
            SocketAddr::V6(from) => bail!("{}: a datagram from {from}", self.owner),
        }
    }

    /// Whether nothing waits to be received.
    pub fn is_empty(&self) -> Result<bool> {
        self.socket.set_nonblocking(true)?;
        let looked = self.socket.peek_from(&mut [0; 1]);
        self.socket.set_nonblocking(false)?;
        match looked {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(true),
            Err(error) => Err(error).context("look into a socket"),
            Ok(_) => Ok(false),
        }
    }

    /// Sends to an address that the host says is unreachable; gives what it said. Linux says so a few
    /// times at once and then once a second, whoever asks, so one question may get no answer.
    pub fn refusal(&self, to: (Ipv4Addr, u16)) -> Result<Option<ErrorKind>> {
        // Otherwise Linux tells a UDP socket of a missing port only.
        setsockopt(&self.socket, sockopt::Ipv4RecvErr, &true)?;
        self.socket.connect(to)?;
        let mut said = None;
        for _ in 0..REFUSAL_QUESTIONS {
            // An error that is there already comes at once.
            if let Err(error) = self.socket.send(b"anyone?") {
                return Ok(Some(error.kind()));
            }
            said = self.socket.recv(&mut [0; 1]).err().map(|it| it.kind());
            if said != Some(ErrorKind::WouldBlock) {
                break;
            }
        }
        Ok(said)
    }
}

/// How a socket finds out what its datagrams' path carries: one of `IP_PMTUDISC_*`.
pub fn set_mtu_discovery(socket: &UdpSocket, how: libc::c_int) -> Result<()> {
    // SAFETY: the option is one integer, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            (&raw const how).cast(),
            size_of_val(&how) as libc::socklen_t,
        )
    };
    Errno::result(result).context("IP_MTU_DISCOVER")?;
    Ok(())
}

/// A stack remembers for ten minutes what it was told of paths' widths, and then sends nothing too big.
pub fn forget_widths(namespace: &NetNs) -> Result<()> {
    let flush = ["route", "flush", "cache"];
    let flushed = namespace.command("ip").args(flush).status()?.success();
    ensure!(flushed, "{}: ip route flush cache", namespace.name());
    Ok(())
}

/// What came of a TCP connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpMeeting {
    /// Whom the server saw.
    pub client: Ipv4Addr,
    /// Whom the client saw.
    pub server: Ipv4Addr,
}

/// Connects from `client` to `address` and passes a word each way; it must be `server` who answers.
/// # Errors  when nobody or somebody else does.
pub fn meet(client: &NetNs, server: &NetNs, address: (Ipv4Addr, u16)) -> Result<TcpMeeting> {
    let who = format!(
        "{} to {} at {}",
        client.name(),
        server.name(),
        SocketAddrV4::new(address.0, address.1)
    );
    let (listener, connected) = (
        server
            .enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.1)))?
            .with_context(|| format!("{who}: listen"))?,
        client.enter(|| TcpStream::connect_timeout(&SocketAddr::from(address), LIMIT)),
    );
    let mut near = connected?.with_context(|| format!("{who}: connect"))?;
    listener.set_nonblocking(true)?;
    let accepted = poll_until(LIMIT, || match listener.accept() {
        Ok(accepted) => Ok(Some(accepted)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error).context("accept"),
    })?;
    let (mut far, from) = accepted.with_context(|| format!("{who}: somebody else accepted"))?;
    far.set_nonblocking(false)?;
    pass_word(&mut near, &mut far).with_context(|| format!("{who}: there"))?;
    pass_word(&mut far, &mut near).with_context(|| format!("{who}: and back"))?;
    match (from, near.peer_addr()?) {
        (SocketAddr::V4(client), SocketAddr::V4(server)) => Ok(TcpMeeting {
            client: *client.ip(),
            server: *server.ip(),
        }),
        other => bail!("{who}: addresses {other:?}"),
    }
}

fn pass_word(from: &mut TcpStream, to: &mut TcpStream) -> Result<()> {
    const WORD: &[u8] = b"a word";
    from.write_all(WORD)?;
    to.set_read_timeout(Some(LIMIT))?;
    let mut heard = [0; WORD.len()];
    to.read_exact(&mut heard)?;
    if heard != WORD {
        bail!("sent {WORD:?}, heard {heard:?}");
    }
    Ok(())
}
