//! The initial file system of a machine: our guest program as `/init`, what else the machine is for,
//! the libraries that all of it is linked to, and the kernel's modules.
//!
//! Programs are the ordinary release builds and not static ones: those would compile the whole
//! dependency tree a second time, and the libraries they need are three files.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use super::kernel::Kernel;
use crate::shell;

/// What a machine is for decides what it finds.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Programs and where they lie inside.
    pub(super) programs: Vec<(PathBuf, &'static str)>,
    /// Other files and where they lie inside.
    pub(super) files: Vec<(PathBuf, &'static str)>,
    /// Modules that are loaded; what they depend on follows by itself.
    pub(super) modules: Vec<&'static str>,
}

impl Contents {
    /// What the test-run suite, the attachment check and an agent need.
    pub(super) fn for_tests(object: &Path) -> Self {
        Self {
            programs: vec![(shell::release_binary("slice-agent"), "bin/slice-agent")],
            files: vec![(object.to_owned(), "slice-ebpf.o")],
            modules: vec![
                "veth",
                "sch_ingress",
                "cls_bpf",
                "sch_fq",
                "sch_htb",
                "vxlan",
                "virtio_net",
                "8021q",
            ],
        }
    }
}

/// The bus of the network cards: built in since 6.12, and newer packages have no list of what is. A
/// machine without it fails, for want of the cards.
const BUS_MODULE: &str = "virtio_pci";

/// Builds the image below `folder` and returns the file.
/// # Errors  when a module, a library or a program is missing.
pub(super) fn build(kernel: &Kernel, contents: &Contents, folder: &Path) -> Result<PathBuf> {
    let root = folder.join("root");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))?;
    }
    for part in ["proc", "sys", "dev", "run", "tmp", "modules"] {
        let part = root.join(part);
        fs::create_dir_all(&part).with_context(|| format!("cannot create {}", part.display()))?;
    }
    let guest = (shell::release_binary("slice-guest"), "init");
    for (program, place) in contents.programs.iter().chain([&guest]) {
        copy(program, &root.join(place))?;
        for library in shared_libraries(program)? {
            let inside = root.join(library.strip_prefix("/").unwrap_or(&library));
            copy(&library, &inside)?;
        }
    }
    for (file, place) in &contents.files {
        copy(file, &root.join(place))?;
    }
    add_modules(kernel, &contents.modules, &root.join("modules"))?;
    pack(&root, &folder.join("initramfs.cpio"))
}

/// Lists the files that the dynamic linker would load, itself included.
fn shared_libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let text = shell::output(Command::new("ldd").arg(program))?;
    let libraries = libraries_in(&text);
    if libraries.is_empty() {
        bail!("`ldd {}` names no library: {text}", program.display());
    }
    Ok(libraries)
}

/// Reads `libc.so.6 => /lib/libc.so.6 (0x..)` and `/lib64/ld-linux.so.2 (0x..)`; the kernel's own
/// library has no file.
fn libraries_in(ldd: &str) -> Vec<PathBuf> {
    ldd.split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

/// Decompresses the modules, because 6.1 cannot do it itself, and notes the order to load them in.
fn add_modules(kernel: &Kernel, modules: &[&str], folder: &Path) -> Result<()> {
    let mut order: Vec<String> = Vec::new();
    let mut files = module_files(kernel, BUS_MODULE).unwrap_or_default();
    for module in modules {
        files.extend(module_files(kernel, module)?);
    }
    for file in files {
        let name = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let plain = name.trim_end_matches(".xz").to_owned();
        if order.contains(&plain) {
            continue;
        }
        let target = folder.join(&plain);
        if name.ends_with(".xz") {
            decompress(&file, &target)?;
        } else {
            copy(&file, &target)?;
        }
        order.push(plain);
    }
    fs::write(folder.join("order"), order.join("\n")).context("cannot write the order of modules")
}

/// Lists a module and what it needs, dependencies first; nothing when it is built in.
fn module_files(kernel: &Kernel, module: &str) -> Result<Vec<PathBuf>> {
    let text = shell::output(
        Command::new("modprobe")
            .env("PATH", shell::search_path())
            .arg("--dirname")
            .arg(&kernel.base)
            .args(["--set-version", &kernel.release, "--show-depends", module]),
    )
    .with_context(|| format!("kernel {} has no module {module}", kernel.release))?;
    let files = text.lines().filter_map(|line| line.strip_prefix("insmod "));
    Ok(files.map(|file| PathBuf::from(file.trim())).collect())
}

fn decompress(from: &Path, to: &Path) -> Result<()> {
    let target = fs::File::create(to).with_context(|| format!("cannot create {}", to.display()))?;
    let status = Command::new("xz")
        .args(["--decompress", "--stdout"])
        .arg(from)
        .stdout(target)
        .status();
    shell::succeeded(
        &format!("xz -dc {}", from.display()),
        status.context("cannot start xz")?,
    )
}

/// Packs a folder as the kernel wants it: cpio, "newc", uncompressed (decompressing costs more under
/// emulation than reading), everything owned by root.
fn pack(root: &Path, image: &Path) -> Result<PathBuf> {
    let file =
        fs::File::create(image).with_context(|| format!("cannot create {}", image.display()))?;
    let mut find = Command::new("find")
        .args([".", "-mindepth", "1"])
        .current_dir(root)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start find")?;
    let names = find.stdout.take().context("find has no output")?;
    let status = Command::new("cpio")
        .args(["--create", "--format=newc", "--owner=0:0", "--quiet"])
        .current_dir(root)
        .stdin(names)
        .stdout(file)
        .status()
        .context("cannot start cpio")?;
    shell::succeeded("find", find.wait().context("cannot wait for find")?)?;
    shell::succeeded("cpio", status)?;
    Ok(image.to_owned())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)
            .with_context(|| format!("cannot create {}", parent.display()))?;
    }
    fs::copy(from, to)
        .map(drop)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_the_files_that_ldd_names() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\
            \tlibgcc_s.so.1 => /lib/x86_64-linux-gnu/libgcc_s.so.1 (0x00007f)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected = [
            "/lib/x86_64-linux-gnu/libgcc_s.so.1",
            "/lib64/ld-linux-x86-64.so.2",
        ]
        .map(PathBuf::from);
        assert_eq!(libraries_in(text), expected);
    }
}
