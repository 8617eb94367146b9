//! Installs bpf-linker against the very LLVM library that the compiler uses, so that the two never
//! disagree about bitcode, and without any distribution package.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::rustc::Compiler;
use crate::shell;

const VERSION: &str = "0.13.0";
/// The LLVM majors that this version of bpf-linker has a feature for.
pub(super) const SUPPORTED_LLVM_MAJORS: &[u32] = &[21, 22, 23];

/// What builds the object.
pub(crate) struct Toolchain {
    pub(crate) compiler: Compiler,
    pub(crate) linker: PathBuf,
    pub(crate) linker_version: String,
}

/// Finds a linker of our version: `SLICE_BPF_LINKER`, the one an earlier run made for this very
/// LLVM library, the user's own on PATH; else installs one.
/// # Errors  when it cannot be built.
pub(super) fn find_or_install(compiler: Compiler) -> Result<Toolchain> {
    let linker = match std::env::var_os("SLICE_BPF_LINKER") {
        Some(chosen) => PathBuf::from(chosen),
        None => own_or_installed(&compiler)?,
    };
    let linker_version = version_of(&linker)?;
    Ok(Toolchain {
        compiler,
        linker,
        linker_version,
    })
}

fn own_or_installed(compiler: &Compiler) -> Result<PathBuf> {
    let tools = shell::target_dir().join("tools");
    let ours = tools.join("bin/bpf-linker");
    let stamp_file = tools.join("bpf-linker.stamp");
    let wanted = stamp(compiler.llvm_major(), &compiler.llvm_library);
    let stamped = fs::read_to_string(&stamp_file).unwrap_or_default();
    if stamped == wanted && is_our_version(&ours) {
        return Ok(ours);
    }
    let users = std::env::var_os("PATH")
        .into_iter()
        .flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>())
        .map(|folder| folder.join("bpf-linker"))
        .find(|candidate| *candidate != ours && is_our_version(candidate));
    if let Some(users) = users {
        return Ok(users);
    }
    eprintln!(
        "setup: building bpf-linker {VERSION} for LLVM {} into {} (once; one to three minutes)",
        compiler.llvm_major(),
        tools.display()
    );
    install(compiler, &tools)?;
    if !is_our_version(&ours) {
        bail!(
            "{} was built but does not start; try again after removing it",
            ours.display()
        );
    }
    fs::write(&stamp_file, wanted).with_context(|| format!("cannot write {stamp_file:?}"))?;
    Ok(ours)
}

/// A linker is good for one LLVM library only: an upgrade of the compiler asks for a new one.
fn stamp(llvm_major: u32, llvm_library: &Path) -> String {
    format!(
        "bpf-linker {VERSION} llvm-{llvm_major} {}\n",
        llvm_library.display()
    )
}

fn install(compiler: &Compiler, tools: &Path) -> Result<()> {
    let prefix = tools.join("llvm");
    link_llvm(&compiler.llvm_library, &prefix.join("lib"))?;
    let build = tools.join("build");
    let mut cargo = shell::cargo();
    cargo
        .args([
            "install",
            "bpf-linker",
            "--version",
            VERSION,
            "--locked",
            "--force",
        ])
        .args([
            "--no-default-features",
            "--features",
            &format!("llvm-{}", compiler.llvm_major()),
        ])
        .arg("--root")
        .arg(tools)
        .arg("--target-dir")
        .arg(&build)
        .env("LLVM_PREFIX", &prefix)
        // Half the time and a tenth of the size; the linker's own speed does not matter here.
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
    shell::run(&mut cargo)?;
    fs::remove_dir_all(&build).with_context(|| format!("cannot remove {}", build.display()))
}

/// Makes the folder that bpf-linker is linked against and that its run path names: the library
/// under the name that `-lLLVM` asks for and under the one that the loader asks for.
fn link_llvm(library: &Path, folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let file_name = library
        .file_name()
        .context("the LLVM library has no file name")?;
    for name in [Path::new("libLLVM.so"), Path::new(file_name)] {
        let link = folder.join(name);
        symlink(library, &link).with_context(|| format!("cannot create {}", link.display()))?;
    }
    Ok(())
}

fn is_our_version(linker: &Path) -> bool {
    linker.is_file()
        && version_of(linker).is_ok_and(|version| version == format!("bpf-linker {VERSION}"))
}

fn version_of(linker: &Path) -> Result<String> {
    let text = shell::output(Command::new(linker).arg("--version"))?;
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_llvm_library_asks_for_another_linker() {
        let before = stamp(
            22,
            Path::new("/rust/1.95/lib/libLLVM.so.22.1-rust-1.95.0-stable"),
        );
        let after = stamp(
            22,
            Path::new("/rust/1.96/lib/libLLVM.so.22.1-rust-1.96.0-stable"),
        );

        assert_ne!(before, after);
        assert_eq!(before, before.clone());
    }

    #[test]
    fn the_library_is_found_by_both_names_and_an_older_one_is_gone() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("lib");
        let library = scratch.path().join("libLLVM.so.22.1-rust");
        fs::write(&library, "library").unwrap();
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("libLLVM.so.21.1"), "stale").unwrap();

        link_llvm(&library, &folder).unwrap();

        let mut names: Vec<_> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["libLLVM.so", "libLLVM.so.22.1-rust"]);
        assert_eq!(
            fs::read_to_string(folder.join("libLLVM.so")).unwrap(),
            "library"
        );
    }
}
