//! A kernel ready to boot: downloaded, checked and unpacked below `target/vm`.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{
    archive,
    lock::{LockedKernel, LockedPackage},
};
use crate::shell;

/// An unpacked kernel.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) series: String,
    pub(super) release: String,
    /// Whether this is another build than the lock names.
    pub(super) is_substitute: bool,
    pub(super) vmlinuz: PathBuf,
    /// The folder with `lib/modules/RELEASE` in it.
    pub(super) base: PathBuf,
}

/// Makes the locked kernel ready, or the newest of its series when Debian has removed that one.
///
/// A lock that can no longer be fetched must not make the project untestable, so the substitute is
/// allowed; it is said loudly, it is of the same series, and apt has verified its signature.
/// # Errors  when neither can be had.
pub(super) fn prepare(locked: &LockedKernel) -> Result<Kernel> {
    let gone = match unpack(locked) {
        Ok(base) => return Kernel::found(locked, base, false),
        Err(error) => error,
    };
    eprintln!(
        "vm: WARNING: the locked kernel {} ({}) cannot be had: {gone:#}",
        locked.release, locked.series
    );
    let substitute = archive::newest(&locked.series, &locked.suite).with_context(|| {
        format!(
            "kernel {}: neither the locked package nor a newer one of {} can be had; with a working \
             network, `cargo xtask vm --update-lock` renews tests/kernels.lock",
            locked.series, locked.suite
        )
    })?;
    eprintln!(
        "vm: WARNING: testing {} in place of the locked {}; renew tests/kernels.lock with \
         `cargo xtask vm --update-lock`",
        substitute.release, locked.release
    );
    let base = unpack(&substitute)?;
    Kernel::found(&substitute, base, true)
}

impl Kernel {
    fn found(locked: &LockedKernel, base: PathBuf, is_substitute: bool) -> Result<Self> {
        let release = &locked.release;
        let places = [
            format!("boot/vmlinuz-{release}"),
            format!("usr/lib/modules/{release}/vmlinuz"),
        ];
        let vmlinuz = places
            .iter()
            .map(|place| base.join(place))
            .find(|file| file.is_file())
            .with_context(|| {
                format!("the packages of {release} have no {}", places.join(" or "))
            })?;
        Ok(Self {
            series: locked.series.clone(),
            release: release.clone(),
            is_substitute,
            vmlinuz,
            base,
        })
    }
}

/// Returns the folder with the kernel's files; unpacked once per set of checksums.
fn unpack(locked: &LockedKernel) -> Result<PathBuf> {
    let base = shell::target_dir().join("vm/kernels").join(&locked.release);
    let stamp_file = base.join(".unpacked");
    let stamp: String = locked
        .packages
        .iter()
        .map(|package| format!("{}\n", package.sha256))
        .collect();
    if fs::read_to_string(&stamp_file).is_ok_and(|found| found == stamp) {
        return Ok(base);
    }
    let files = locked
        .packages
        .iter()
        .map(package_file)
        .collect::<Result<Vec<_>>>()?;
    if base.exists() {
        fs::remove_dir_all(&base).with_context(|| format!("cannot remove {}", base.display()))?;
    }
    fs::create_dir_all(&base).with_context(|| format!("cannot create {}", base.display()))?;
    for file in &files {
        shell::output(Command::new("dpkg").arg("-x").arg(file).arg(&base))?;
    }
    link_module_folder(&base)?;
    // Unpacking runs no package script, so the module dependencies are not there yet.
    shell::output(
        Command::new("depmod")
            .env("PATH", shell::search_path())
            .arg("-b")
            .arg(&base)
            .arg(&locked.release),
    )?;
    fs::write(&stamp_file, stamp)
        .with_context(|| format!("cannot write {}", stamp_file.display()))?;
    Ok(base)
}

/// kmod looks in `lib/modules`; newer packages have their modules in `usr/lib/modules` alone.
fn link_module_folder(base: &Path) -> Result<()> {
    if base.join("lib").exists() {
        return Ok(());
    }
    if !base.join("usr/lib/modules").is_dir() {
        bail!(
            "the packages unpacked to {} have no modules",
            base.display()
        );
    }
    symlink("usr/lib", base.join("lib")).context("cannot link lib to usr/lib")
}

/// Returns the package's file with the right checksum, from the cache or from the archive.
fn package_file(package: &LockedPackage) -> Result<PathBuf> {
    let folder = shell::target_dir().join("vm/packages");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let name = package.path.rsplit('/').next().unwrap_or(&package.path);
    let file = folder.join(name);
    if !file.is_file() {
        archive::download(package, &file)?;
    }
    let found = archive::sha256(&file)?;
    if found != package.sha256 {
        fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
        bail!(
            "{name} has SHA-256 {found}, expected {}; it was removed, try again",
            package.sha256
        );
    }
    Ok(file)
}
