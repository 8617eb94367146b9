//! Attaching by links of the kernel (TCX, and XDP in native mode), pinned one by one. A link is replaced
//! in place, so no packet sees the hook empty, and it stays when the agent ends.

use std::ffi::CString;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, ProgramError, ProgramInfo, SchedClassifier, Xdp, XdpMode};

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

/// A program that goes onto its hook by a link.
pub trait Linked {
    /// Attaches the program; the link is detached when it is dropped.
    fn link(&mut self, at: &Attachment) -> Result<FdLink>;

    /// Gives the link this program in place of the one that it has.
    fn take_over(&mut self, link: FdLink) -> Result<()>;
}

impl Linked for SchedClassifier {
    fn link(&mut self, at: &Attachment) -> Result<FdLink> {
        let hook = direction(at.program.hook());
        // First: what others attach later sees only what we leave alone.
        let order = TcAttachOptions::TcxOrder(LinkOrder::first());
        let id = self.attach_with_options(&at.interface, hook, order)?;
        Ok(FdLink::try_from(self.take_link(id)?)?)
    }

    fn take_over(&mut self, link: FdLink) -> Result<()> {
        let id = self.attach_to_link(link.try_into()?)?;
        // Closes a file descriptor; the pin holds the link.
        drop(self.take_link(id)?);
        Ok(())
    }
}

impl Linked for Xdp {
    fn link(&mut self, at: &Attachment) -> Result<FdLink> {
        // Never generic: that would be a second stop in the kernel, and not an earlier one.
        let id = self.attach_to_if_index(at.ifindex, XdpMode::Driver)?;
        Ok(FdLink::try_from(self.take_link(id)?)?)
    }

    fn take_over(&mut self, link: FdLink) -> Result<()> {
        let id = self.attach_to_link(link.try_into()?)?;
        drop(self.take_link(id)?);
        Ok(())
    }
}

/// Reads the pinned link, or `None` when there is no such pin or it is no link of a kind of ours.
pub fn facts(pin: &Path) -> Result<Option<LinkFacts>> {
    match pinned(pin)? {
        Some(link) => info(link.as_fd()),
        None => Ok(None),
    }
}

/// Attaches the program and pins the link. A link that is already there, under whichever name or
/// in a directory put aside, gets the new program instead.
pub fn attach(program: &mut impl Linked, pins: &Pins, at: &Attachment) -> Result<()> {
    let pin = pins.link(at);
    for old in candidates(pins, at)? {
        let in_place = facts(&old)?.is_some_and(|link| link.is_at(at));
        if in_place && replace(program, &old)? {
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
    attach_anew(program, at, &pin)
}

/// Gives the pinned link the new program. False when there is no link to keep: the pin of one whose
/// device is gone is removed.
pub fn replace(program: &mut impl Linked, pin: &Path) -> Result<bool> {
    let Some(link) = open(pin)? else {
        return Ok(false);
    };
    match program.take_over(link) {
        Ok(()) => Ok(true),
        // The device behind the link was deleted; the pin outlives it.
        Err(error) if errno(&error) == Some(libc::ENOLINK) => {
            remove(pin)?;
            Ok(false)
        }
        Err(error) => {
            Err(error.context(format!("cannot replace the program of {}", pin.display())))
        }
    }
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

fn attach_anew(program: &mut impl Linked, at: &Attachment, pin: &Path) -> Result<()> {
    let link = program.link(at)?;
    drop(
        link.pin(pin)
            .with_context(|| format!("cannot pin the link as {}", pin.display()))?,
    );
    let attached = facts(pin)?.map_or(0, |link| link.ifindex);
    if attached != at.ifindex {
        remove(pin)?;
        bail!(
            "the interface changed while the program was attached: expected #{}, found \
             #{attached}",
            at.ifindex
        );
    }
    Ok(())
}

fn open(pin: &Path) -> Result<Option<FdLink>> {
    match PinnedLink::from_pin(pin) {
        Ok(pinned) => Ok(Some(pinned.into())),
        Err(LinkError::SyscallError(error)) if error.io_error.kind() == ErrorKind::NotFound => {
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| format!("cannot open the pin {}", pin.display())),
    }
}

fn errno(error: &anyhow::Error) -> Option<i32> {
    match error.downcast_ref() {
        Some(ProgramError::SyscallError(error)) => error.io_error.raw_os_error(),
        _ => None,
    }
}

/// The part of the kernel's `bpf_link_info` that TCX links fill, and XDP links but for the last field
/// (include/uapi/linux/bpf.h).
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

/// `enum bpf_link_type` (include/uapi/linux/bpf.h).
const BPF_LINK_TYPE_XDP: u32 = 6;
const BPF_LINK_TYPE_TCX: u32 = 11;
/// `enum bpf_attach_type` (include/uapi/linux/bpf.h).
const BPF_TCX_EGRESS: u32 = 47;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;

/// The arguments of `BPF_OBJ_GET`.
#[repr(C)]
struct ObjectByPath {
    path: u64,
    fd: u32,
    flags: u32,
}

/// The object behind a pin. aya 0.14 opens links, but does not give their file descriptors away.
fn pinned(pin: &Path) -> Result<Option<OwnedFd>> {
    let path = CString::new(pin.as_os_str().as_bytes())
        .with_context(|| format!("{} is no path", pin.display()))?;
    let arguments = ObjectByPath {
        path: path.as_ptr().expose_provenance() as u64,
        fd: 0,
        flags: 0,
    };
    // SAFETY: the path and the structure outlive the call, and the size is that of the structure.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_OBJ_GET,
            &raw const arguments,
            size_of::<ObjectByPath>(),
        )
    };
    if let Ok(fd) = RawFd::try_from(result)
        && fd >= 0
    {
        // SAFETY: the kernel made this descriptor for us just now.
        return Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }));
    }
    let error = std::io::Error::last_os_error();
    if error.kind() == ErrorKind::NotFound {
        return Ok(None);
    }
    Err(error).with_context(|| format!("cannot open the pin {}", pin.display()))
}

/// aya 0.14 does not tell a link's device. `None` for a link of another kind.
fn info(link: BorrowedFd<'_>) -> Result<Option<LinkFacts>> {
    let mut info = LinkInfo::default();
    let arguments = InfoByFd {
        fd: link.as_raw_fd().cast_unsigned(),
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
    let hook = match (info.kind, info.attach_type) {
        (BPF_LINK_TYPE_TCX, BPF_TCX_EGRESS) => Hook::Egress,
        (BPF_LINK_TYPE_TCX, _) => Hook::Ingress,
        (BPF_LINK_TYPE_XDP, _) => Hook::Driver,
        _ => return Ok(None),
    };
    Ok(Some(LinkFacts {
        link_id: info.id,
        program_id: info.program_id,
        ifindex: info.ifindex,
        hook,
    }))
}
