//! `cargo xtask setup`: installs what is missing, and says so before it does.

mod linker;
mod packages;
mod rustc;

use std::time::Instant;

use anyhow::Result;

pub(crate) use self::{linker::Toolchain, packages::missing_programs};

/// Which set of programs a command needs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Needs {
    /// What builds the object.
    Build,
    /// And what the lab and the demo run.
    Lab,
    /// And the lints that `test` runs.
    Test,
}

/// Installs what `needs` lacks and returns the toolchain of the object.
/// # Errors  when something is missing that cannot be installed here; it says what to install.
pub(crate) fn run(needs: Needs) -> Result<Toolchain> {
    let started = Instant::now();
    let toolchain = toolchain()?;
    if needs >= Needs::Lab {
        packages::install(packages::LAB)?;
        packages::link_redis_server()?;
    }
    if needs >= Needs::Test {
        rustc::ensure_lints()?;
    }
    eprintln!("setup: ready in {:.1} s", started.elapsed().as_secs_f64());
    Ok(toolchain)
}

/// Installs the packages that the virtual machines of the kernel matrix need.
/// # Errors  as [`run`].
pub(crate) fn install_vm_packages() -> Result<()> {
    packages::install(packages::VM)
}

/// Returns the compiler, LLVM library and linker of the object, installed where they were missing.
/// # Errors  as [`run`].
fn toolchain() -> Result<Toolchain> {
    let compiler = rustc::find_or_install()?;
    eprintln!(
        "setup: rustc   {} ({})",
        compiler.release,
        compiler.rustc.display()
    );
    eprintln!(
        "setup: LLVM    {} ({})",
        compiler.llvm_version,
        compiler.llvm_library.display()
    );
    let toolchain = linker::find_or_install(compiler)?;
    eprintln!(
        "setup: linker  {} ({})",
        toolchain.linker_version,
        toolchain.linker.display()
    );
    Ok(toolchain)
}
