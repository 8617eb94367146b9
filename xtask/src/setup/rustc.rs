//! Finds a compiler that can build `core` for the BPF target, with a shared LLVM library.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{linker::SUPPORTED_LLVM_MAJORS, packages};
use crate::shell;

/// The compiler of the object where the user's own compiler has an LLVM that bpf-linker cannot use.
const PINNED_TOOLCHAIN: &str = "1.95.0";
/// The oldest compiler that builds this workspace.
const MINIMUM_MINOR: u32 = 95;
/// A download by rustup that takes longer is stuck.
const RUSTUP_LIMIT_SECONDS: &str = "300";
const DISTRIBUTION_RUSTC: &str = "/usr/bin/rustc";

/// A compiler with the source of `core` and a shared LLVM library.
pub(crate) struct Compiler {
    pub(crate) rustc: PathBuf,
    pub(crate) release: String,
    pub(crate) llvm_version: String,
    pub(crate) llvm_library: PathBuf,
}

impl Compiler {
    /// Returns the first number of LLVM's version.
    pub(crate) fn llvm_major(&self) -> u32 {
        leading_number(&self.llvm_version)
    }
}

/// Finds a usable compiler: `SLICE_BPF_RUSTC`, the user's own, a pinned one by rustup, the
/// distribution's. Installs `rust-src` or one of the latter two where needed.
/// # Errors  when none can be had; the error says what to install.
pub(super) fn find_or_install() -> Result<Compiler> {
    if let Some(chosen) = std::env::var_os("SLICE_BPF_RUSTC") {
        let chosen = PathBuf::from(chosen);
        return usable(&chosen).with_context(|| {
            format!(
                "SLICE_BPF_RUSTC names `{}`, which cannot be used",
                chosen.display()
            )
        });
    }
    let mut reasons = Vec::new();
    for find in [own, pinned, distribution] {
        match find() {
            Ok(compiler) => return Ok(compiler),
            Err(reason) => reasons.push(format!("  {reason:#}")),
        }
    }
    bail!(
        "no compiler can build the eBPF object here:\n{}\ninstall one of these and try again:\n  \
         rustup toolchain install {PINNED_TOOLCHAIN} --component rust-src\n  \
         sudo apt-get install --no-install-recommends rustc-web rust-web-src",
        reasons.join("\n")
    )
}

/// Installs rustfmt and clippy where a minimal rustup installation left them out.
/// # Errors  when they are missing and rustup cannot add them.
pub(super) fn ensure_lints() -> Result<()> {
    for component in ["rustfmt", "clippy"] {
        let name = if component == "rustfmt" {
            "fmt"
        } else {
            component
        };
        if shell::output(shell::cargo().args([name, "--version"])).is_err() {
            eprintln!("setup: {component} is missing; rustup will add it");
            shell::run(rustup(&["component", "add", component]).current_dir(shell::repo_root()))?;
        }
    }
    Ok(())
}

fn own() -> Result<Compiler> {
    let rustc = sysroot(Path::new("rustc"))?.join("bin/rustc");
    let description = describe(&rustc)?;
    let major = leading_number(&description.llvm_version);
    if !SUPPORTED_LLVM_MAJORS.contains(&major) {
        bail!(
            "rustc {} has LLVM {major}, which bpf-linker cannot use",
            description.release
        );
    }
    if !has_core_source(&rustc)? {
        eprintln!("setup: the source of `core` is missing; rustup will add rust-src (a few MB)");
        shell::run(rustup(&["component", "add", "rust-src"]).current_dir(shell::repo_root()))?;
    }
    usable(&rustc)
}

fn pinned() -> Result<Compiler> {
    let which = ["which", "--toolchain", PINNED_TOOLCHAIN, "rustc"];
    if shell::output(&mut rustup(&which)).is_err() {
        eprintln!("setup: rustup will install Rust {PINNED_TOOLCHAIN} for the eBPF object alone");
    }
    // Also adds the component to a toolchain that is there; a no-op when nothing is missing.
    shell::run(&mut rustup(&[
        "toolchain",
        "install",
        PINNED_TOOLCHAIN,
        "--profile",
        "minimal",
        "--component",
        "rust-src",
        "--no-self-update",
    ]))?;
    usable(Path::new(shell::output(&mut rustup(&which))?.trim()))
}

fn distribution() -> Result<Compiler> {
    let rustc = Path::new(DISTRIBUTION_RUSTC);
    if let Ok(compiler) = usable(rustc) {
        return Ok(compiler);
    }
    packages::install_named(&["rustc-web", "rust-web-src"])?;
    usable(rustc)
}

/// Checks everything the build of the object asks of a compiler.
fn usable(rustc: &Path) -> Result<Compiler> {
    let description = describe(rustc)?;
    let minor = description
        .release
        .split('.')
        .nth(1)
        .map_or(0, leading_number);
    if minor < MINIMUM_MINOR {
        bail!(
            "rustc {} is older than 1.{MINIMUM_MINOR}",
            description.release
        );
    }
    if !has_core_source(rustc)? {
        bail!(
            "{} has no source of `core` (component rust-src)",
            rustc.display()
        );
    }
    let major = leading_number(&description.llvm_version);
    if !SUPPORTED_LLVM_MAJORS.contains(&major) {
        bail!(
            "rustc {} has LLVM {major}, which bpf-linker cannot use",
            description.release
        );
    }
    let llvm_library = llvm_library(rustc, major)?;
    Ok(Compiler {
        rustc: rustc.to_path_buf(),
        release: description.release,
        llvm_version: description.llvm_version,
        llvm_library,
    })
}

struct Description {
    release: String,
    llvm_version: String,
}

fn describe(rustc: &Path) -> Result<Description> {
    let text = shell::output(
        Command::new(rustc)
            .arg("-vV")
            .current_dir(shell::repo_root()),
    )?;
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(|value| value.trim().to_owned())
            .with_context(|| format!("`{} -vV` does not print `{name}`", rustc.display()))
    };
    Ok(Description {
        release: field("release:")?,
        llvm_version: field("LLVM version:")?,
    })
}

fn sysroot(rustc: &Path) -> Result<PathBuf> {
    let text = shell::output(
        Command::new(rustc)
            .args(["--print", "sysroot"])
            .current_dir(shell::repo_root()),
    )?;
    Ok(PathBuf::from(text.trim()))
}

fn has_core_source(rustc: &Path) -> Result<bool> {
    Ok(sysroot(rustc)?
        .join("lib/rustlib/src/rust/library/Cargo.lock")
        .is_file())
}

/// Finds the library that the compiler itself uses: beside it, else where the loader looks.
fn llvm_library(rustc: &Path, major: u32) -> Result<PathBuf> {
    let prefix = format!("libLLVM.so.{major}");
    let beside = sysroot(rustc)?.join("lib");
    let mut found: Vec<_> = std::fs::read_dir(&beside)
        .with_context(|| format!("cannot read {}", beside.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with(&prefix))
        })
        .collect();
    found.sort();
    if let Some(library) = found.into_iter().next() {
        return Ok(library);
    }
    let ldconfig = shell::find_program("ldconfig").context("there is no ldconfig")?;
    let known = shell::output(Command::new(ldconfig).arg("-p"))?;
    library_known_to_loader(&known, &prefix).with_context(|| {
        format!(
            "no {prefix} beside {} nor in `ldconfig -p`",
            rustc.display()
        )
    })
}

fn library_known_to_loader(ldconfig: &str, prefix: &str) -> Option<PathBuf> {
    let line = ldconfig
        .lines()
        .find(|line| line.trim_start().starts_with(prefix))?;
    Some(PathBuf::from(line.split("=> ").nth(1)?.trim()))
}

fn rustup(arguments: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command
        .args([RUSTUP_LIMIT_SECONDS, "rustup"])
        .args(arguments);
    command
}

fn leading_number(text: &str) -> u32 {
    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_up_to_its_first_dot() {
        assert_eq!(leading_number("22.1.2"), 22);
        assert_eq!(leading_number("97-nightly"), 97);
        assert_eq!(leading_number(""), 0);
    }

    #[test]
    fn the_loader_s_list_names_the_library_of_the_wanted_major_only() {
        let list = "\tlibLLVM-14.so.1 (libc6,x86-64) => /usr/lib/libLLVM-14.so.1\n\
                    \tlibLLVM.so.22.1 (libc6,x86-64) => /usr/lib/libLLVM.so.22.1\n";

        let library = library_known_to_loader(list, "libLLVM.so.22");

        assert_eq!(library, Some(PathBuf::from("/usr/lib/libLLVM.so.22.1")));
        assert_eq!(library_known_to_loader(list, "libLLVM.so.21"), None);
    }
}
