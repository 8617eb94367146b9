//! Attaching by TCX links, pinned one by one. A link is replaced in place, so no packet sees the
//! hook empty, and it stays when the agent ends.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::{LinkOrder, MultiProgLink as _, ProgramError, ProgramInfo, SchedClassifier};

use super::clsact::direction;
use super::pins::Pins;
use crate::image::{Attachment, Hook};

/// A link as the kernel describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkFacts {
    pub link_id: u32,
    pub program_id: u32,
    /// 0 when the device is gone.
    pub ifindex: u32,
    pub hook: Hook,
}

impl LinkFacts {
    /// Whether the link is where the attachment should be; says nothing about its program.
    pub fn is_at(&self, at: &Attachment) -> bool {
        self.ifindex == at.ifindex && self.hook == at.program.hook()
    }
}

/// Reads the pinned link, or `None` when there is no such pin or it is no TCX link.
pub fn facts(pin: &Path) -> Result<Option<LinkFacts>> {
    match open(pin)? {
        Some(link) => Ok(Some(info(link.fd()?)?)),
        None => Ok(None),
    }
}

/// Attaches the program and pins the link. A link that is already there, under whichever name or
/// in a directory put aside, gets the new program instead.
pub fn attach(classifier: &mut SchedClassifier, pins: &Pins, at: &Attachment) -> Result<()> {
    let pin = pins.link(at);
    for old in candidates(pins, at)? {
        let in_place = facts(&old)?.is_some_and(|link| link.is_at(at));
        if in_place && replace(classifier, &old)? {
            if old != pin {
                fs::rename(&old, &pin).with_context(|| {
                    format!(
                        "cannot rename the pin {} to {}",
                        old.display(),
                        pin.display()
                    )
                })?;
            }
            return Ok(());
        }
    }
    // What has the name is no link of ours.
    remove(&pin)?;
    attach_anew(classifier, at, &pin)
}

/// Gives the pinned link the new program. False when there is no link to keep: the pin of one whose
/// device is gone is removed.
pub fn replace(classifier: &mut SchedClassifier, pin: &Path) -> Result<bool> {
    let Some(link) = open(pin)? else {
        return Ok(false);
    };
    let id = match classifier.attach_to_link(link) {
        Ok(id) => id,
        // The device behind the link was deleted; the pin outlives it.
        Err(error) if errno(&error) == Some(libc::ENOLINK) => {
            remove(pin)?;
            return Ok(false);
        }
        Err(error) => {
            return Err(anyhow!(error))
                .with_context(|| format!("cannot replace the program of {}", pin.display()));
        }
    };
    // Closes a file descriptor; the pin holds the link.
    drop(classifier.take_link(id)?);
    Ok(true)
}

/// The programs that see packets on this hook before ours, each in words; none where ours is not.
pub fn before(pins: &Pins, at: &Attachment) -> Result<Vec<String>> {
    let Some(ours) = facts(&pins.link(at))? else {
        return Ok(Vec::new());
    };
    let hook = direction(at.program.hook());
    let (_, programs) = SchedClassifier::query_tcx(&at.interface, hook)?;
    let place = programs
        .iter()
        .position(|program| program.id() == ours.program_id);
    let before = &programs[..place.unwrap_or(0)];
    Ok(before.iter().map(in_words).collect())
}

/// Puts the program before all others, and then takes the older link away: no packet sees none, and
/// some see ours twice, which changes nothing. The kernel takes a program only once per hook, so it
/// has to be loaded anew.
pub fn move_first(classifier: &mut SchedClassifier, pins: &Pins, at: &Attachment) -> Result<()> {
    // Not the name of an attachment, so the next look removes it if this is interrupted.
    let fresh = pins.links().join("moving");
    remove(&fresh)?;
    attach_anew(classifier, at, &fresh)?;
    let pin = pins.link(at);
    fs::rename(&fresh, &pin).with_context(|| format!("cannot replace the pin {}", pin.display()))
}

fn in_words(program: &ProgramInfo) -> String {
    let name = String::from_utf8_lossy(program.name());
    format!("program {} #{}", name.escape_debug(), program.id())
}

/// Removes a pin, and with it the link; one that is gone is fine.
pub fn remove(pin: &Path) -> Result<()> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove the pin {}", pin.display()))
        }
        _ => Ok(()),
    }
}

/// Removes pins whose device is gone, or that are elsewhere than their names say; returns how many.
pub fn remove_severed(pins: &Pins) -> Result<usize> {
    let mut removed = 0;
    for (pin, at) in pins.pinned_links()? {
        let facts = facts(&pin)?;
        let alive = at.zip(facts).is_some_and(|(at, facts)| facts.is_at(&at));
        if !alive {
            remove(&pin)?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Pins of links on the same device and hook: first the one with the right name.
fn candidates(pins: &Pins, at: &Attachment) -> Result<Vec<PathBuf>> {
    let mut found = vec![pins.link(at)];
    let mut dirs = vec![pins.clone()];
    dirs.extend(pins.others()?);
    for dir in dirs {
        let same = dir.pinned_links()?.into_iter().filter(|(_, other)| {
            other
                .as_ref()
                .is_some_and(|other| other.ifindex == at.ifindex && other.program == at.program)
        });
        found.extend(same.map(|(path, _)| path));
    }
    Ok(found)
}

fn attach_anew(classifier: &mut SchedClassifier, at: &Attachment, pin: &Path) -> Result<()> {
    let hook = direction(at.program.hook());
    // First: what others attach later sees only what we leave alone.
    let order = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = classifier.attach_with_options(&at.interface, hook, order)?;
    let link = classifier.take_link(id)?;
    let attached = info(link.fd()?)?.ifindex;
    if attached != at.ifindex {
        // Dropping the link, which is not pinned, detaches it.
        bail!(
            "the interface changed while the program was attached: expected #{}, found \
             #{attached}",
            at.ifindex
        );
    }
    let link = FdLink::try_from(link)?;
    drop(
        link.pin(pin)
            .with_context(|| format!("cannot pin the link as {}", pin.display()))?,
    );
    Ok(())
}

fn open(pin: &Path) -> Result<Option<SchedClassifierLink>> {
    let pinned = match PinnedLink::from_pin(pin) {
        Ok(pinned) => pinned,
        Err(LinkError::SyscallError(error)) if error.io_error.kind() == ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(error) => {
            return Err(error).with_context(|| format!("cannot open the pin {}", pin.display()));
        }
    };
    Ok(SchedClassifierLink::try_from(FdLink::from(pinned)).ok())
}

fn errno(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    }
}

/// The part of the kernel's `bpf_link_info` that TCX links fill (include/uapi/linux/bpf.h).
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program_id: u32,
    padding: u32,
    ifindex: u32,
    attach_type: u32,
}

/// The arguments of `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct InfoByFd {
    fd: u32,
    info_bytes: u32,
    info: u64,
}

/// `enum bpf_attach_type` (include/uapi/linux/bpf.h).
const BPF_TCX_EGRESS: u32 = 47;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;

/// aya 0.14 does not tell a link's device.
fn info(link: BorrowedFd<'_>) -> Result<LinkFacts> {
    let mut info = LinkInfo::default();
    let arguments = InfoByFd {
        fd: link.as_fd().as_raw_fd().cast_unsigned(),
        info_bytes: size_of::<LinkInfo>() as u32,
        info: (&raw mut info).expose_provenance() as u64,
    };
    // SAFETY: both structures outlive the call, and their sizes are those that the kernel is told.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_OBJ_GET_INFO_BY_FD,
            &raw const arguments,
            size_of::<InfoByFd>(),
        )
    };
    if result < 0 {
        return Err(std::io::Error::last_os_error()).context("cannot read what a link is");
    }
    Ok(LinkFacts {
        link_id: info.id,
        program_id: info.program_id,
        ifindex: info.ifindex,
        hook: match info.attach_type {
            BPF_TCX_EGRESS => Hook::Egress,
            _ => Hook::Ingress,
        },
    })
}
