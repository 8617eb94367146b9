//! The relay's TUN devices: whole IP packets, no header before them.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result};

use crate::netns::NetNs;

/// A TUN device in a network namespace; it is gone when this is dropped.
#[derive(Debug)]
pub(super) struct Tun {
    file: File,
}

impl Tun {
    pub(super) fn create(namespace: &NetNs, name: &str) -> Result<Self> {
        let file = namespace
            .enter(|| open(name))?
            .with_context(|| format!("cannot make TUN device {name} in {}", namespace.name()))?;
        Ok(Self { file })
    }

    /// The next packet that the kernel sends, or `None` if there is none now.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> std::io::Result<Option<usize>> {
        match (&self.file).read(buffer) {
            Ok(length) => Ok(Some(length)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn send(&self, packet: &[u8]) -> std::io::Result<()> {
        (&self.file).write_all(packet)
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn open(name: &str) -> Result<File> {
    let file = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")
        .context("cannot open /dev/net/tun (is the kernel's tun module loaded?)")?;
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    let room = request.ifr_name.len() - 1;
    for (target, byte) in request.ifr_name[..room].iter_mut().zip(name.bytes()) {
        *target = byte.cast_signed() as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which outlives the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    nix::errno::Errno::result(result).context("TUNSETIFF")?;
    Ok(file)
}
