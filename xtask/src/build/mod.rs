//! `cargo xtask build`: the eBPF object by an inner cargo, its check, and the binaries.

pub(crate) mod object_check;
mod stack;
mod strip;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result};

use self::object_check::ObjectReport;
use crate::{
    setup::{Needs, Toolchain},
    shell,
};

/// Where the target's name for a path of this repository begins, in the object's line information.
const REMAPPED_ROOT: &str = "/slice";

/// Names the object for the build of the agent, which embeds it, and for tests.
pub(crate) const OBJECT_VARIABLE: &str = "SLICE_EBPF_OBJ";

/// What a build made.
pub(crate) struct Built {
    pub(crate) report: ObjectReport,
    /// LLVM's version decides instruction counts: budgets hold for the one they were measured with.
    pub(crate) llvm_version: String,
}

/// Builds and checks the object, then builds the agent and the lab in release.
/// # Errors  when something does not build, or the object breaks a rule that every kernel enforces.
pub(crate) fn run(needs: Needs) -> Result<Built> {
    let toolchain = crate::setup::run(needs)?;
    let built = object(&toolchain)?;
    binaries()?;
    Ok(built)
}

/// Returns where the checked object is: stripped of DWARF, with BTF.
pub(crate) fn object_path() -> PathBuf {
    shell::target_dir().join("bpf/slice-ebpf.o")
}

/// Builds, strips and checks the object.
/// # Errors  as [`run`].
pub(crate) fn object(toolchain: &Toolchain) -> Result<Built> {
    let target_dir = shell::target_dir().join("bpf");
    compile(toolchain, &target_dir)?;
    let linked = target_dir.join("bpfel-unknown-none/release/slice-ebpf");
    let bytes = fs::read(&linked).with_context(|| format!("cannot read {}", linked.display()))?;
    let report = object_check::check(&bytes)
        .with_context(|| format!("the object {} is refused", linked.display()))?;
    let stripped = strip::debug_information(&bytes)?;
    object_check::check(&stripped).context("stripping the object damaged it")?;
    let path = object_path();
    write_if_changed(&path, &stripped)?;
    eprintln!("object: {} ({} bytes)", path.display(), stripped.len());
    eprint!("{report}");
    Ok(Built {
        report,
        llvm_version: toolchain.compiler.llvm_version.clone(),
    })
}

/// Builds what runs on a host: the agent with the object in it, and the lab.
fn binaries() -> Result<()> {
    let mut cargo = shell::cargo();
    let packages = ["-p", "slice-agent", "-p", "slice-tests"];
    cargo.args(["build", "--release", "--bins"]).args(packages);
    shell::run(cargo.env(OBJECT_VARIABLE, object_path()))
}

fn compile(toolchain: &Toolchain, target_dir: &Path) -> Result<()> {
    let rustc = &toolchain.compiler.rustc;
    let linker_folder = toolchain.linker.parent().unwrap_or(Path::new("."));
    let mut inner = inner_cargo(rustc);
    inner
        .args([
            "build",
            "-Z",
            "build-std=core",
            "--release",
            "--target",
            "bpfel-unknown-none",
        ])
        .args(["-p", "slice-ebpf", "--target-dir"])
        .arg(target_dir)
        .env("RUSTC", rustc)
        // `-Z build-std` is for nightly compilers; this stable one is told to be one. Never set it
        // for what runs on a host.
        .env("RUSTC_BOOTSTRAP", "1")
        .env(
            "PATH",
            format!("{}:{}", linker_folder.display(), shell::search_path()),
        )
        .env("CARGO_ENCODED_RUSTFLAGS", flags().join("\u{1f}"))
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER");
    shell::run(&mut inner)
}

/// Returns cargo of the compiler's own toolchain, without address-space randomisation where that
/// can be had: LLVM orders BTF types by heap address, so with it the object differs from run to
/// run.
fn inner_cargo(rustc: &Path) -> Command {
    let beside = rustc.with_file_name("cargo");
    let cargo = if beside.is_file() {
        beside.into_os_string()
    } else {
        std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
    };
    // Container runtimes commonly refuse the system call.
    let reproducible = Command::new("setarch")
        .args(["-R", "true"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    let mut command = if reproducible {
        let mut setarch = Command::new("setarch");
        setarch.arg("-R").arg(cargo);
        setarch
    } else {
        eprintln!("object: `setarch -R` is refused here, so the object is not bit-reproducible");
        Command::new(cargo)
    };
    command.current_dir(shell::repo_root());
    command
}

fn flags() -> Vec<String> {
    vec![
        format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH),
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        // Without it every copy of a struct is a byte-at-a-time loop that costs the verifier
        // hundreds of instructions.
        "-Clink-arg=--disable-expand-memcpy-in-order".to_owned(),
        "-Ctarget-cpu=v3".to_owned(),
        format!(
            "--remap-path-prefix={}={REMAPPED_ROOT}",
            shell::repo_root().display()
        ),
    ]
}

/// Leaves an unchanged file alone, so that nothing that embeds it is built again.
fn write_if_changed(path: &Path, content: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == content) {
        return Ok(());
    }
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}
