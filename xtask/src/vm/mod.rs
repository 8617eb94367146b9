//! `cargo xtask vm`: the kernel matrix. Boots Debian kernels under qemu without hardware help, loads
//! every program and runs every scene of the test-run suite in each.
//!
//! The kernels are those of `tests/kernels.lock`, by SHA-256. Nothing here needs root and nothing
//! touches the system's package sources.

mod archive;
mod boot;
pub(crate) mod guest_lab;
mod image;
mod kernel;
mod lock;
mod report;

use std::{
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use self::lock::Lock;
pub(crate) use self::report::KernelReport;
use crate::setup::Needs;
use crate::{budgets, build, setup, shell};

/// The kernel matrix: every program loads and every test-run scene passes on each kernel.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Arguments {
    /// Only this kernel series of tests/kernels.lock (6.1, 6.12, newest); may be given repeatedly.
    #[arg(long = "kernel", value_name = "SERIES")]
    kernels: Vec<String>,
    /// Virtual time that follows executed instructions, so that durations do not depend on the host.
    #[arg(long)]
    icount: bool,
    /// Look up the newest package of each series, write tests/kernels.lock, and boot nothing.
    #[arg(long, conflicts_with_all = ["kernels", "icount"])]
    update_lock: bool,
    /// Another object than target/bpf/slice-ebpf.o.
    #[arg(long, value_name = "FILE")]
    ebpf_object: Option<PathBuf>,
    /// Write what was found on each kernel as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs the command and prints one paragraph per kernel.
/// # Errors  when a kernel cannot be had, does not boot, or fails a test.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if arguments.update_lock {
        let lock = archive::newest_of_every_series()?;
        return lock.save();
    }
    build::run(Needs::Build)?;
    let reports = matrix(arguments)?;
    for report in &reports {
        println!("{report}");
        if report.series == budgets::VERIFIED_SERIES && arguments.ebpf_object.is_none() {
            budgets::keep(&budgets::Measured::of(report))?;
        }
    }
    if let Some(file) = &arguments.json {
        let text = serde_json::to_string_pretty(&reports).context("cannot encode the reports")?;
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let failed: Vec<_> = reports
        .iter()
        .filter(|r| !r.succeeded())
        .map(|r| r.series.as_str())
        .collect();
    if !failed.is_empty() {
        bail!("the kernel matrix failed on: {}", failed.join(", "));
    }
    Ok(())
}

/// Boots the chosen kernels, two at a time, and returns one report each, in the lock's order. What is
/// booted must have been built.
/// # Errors  when something is missing before the first boot; what goes wrong in a machine is in its
/// report.
pub(crate) fn matrix(arguments: &Arguments) -> Result<Vec<KernelReport>> {
    check_architecture()?;
    let kernels = Lock::load()?.choose(&arguments.kernels)?;
    let object = arguments
        .ebpf_object
        .clone()
        .unwrap_or_else(|| shell::target_dir().join("bpf/slice-ebpf.o"));
    if !object.is_file() {
        bail!(
            "there is no object at {}; run `cargo xtask build` first",
            object.display()
        );
    }
    setup::install_vm_packages()?;
    // One after the other: the network is the bottleneck, and notes about it stay readable.
    let kernels = kernels
        .iter()
        .map(kernel::prepare)
        .collect::<Result<Vec<_>>>()?;
    boot_in_pairs(&kernels, &object, arguments.icount)
}

fn check_architecture() -> Result<()> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("machines boot x86-64 kernels with this host's programs: run it on x86-64");
    }
    Ok(())
}

/// Downloads and unpacks the locked kernels, so that a later run needs no network.
/// # Errors  when neither the locked package nor a newer one of its series can be had.
pub(crate) fn prefetch() -> Result<()> {
    setup::install_vm_packages()?;
    for locked in &Lock::load()?.kernels {
        kernel::prepare(locked)?;
    }
    Ok(())
}

/// Two machines keep two cores busy; a third would only make all of them slow.
const MACHINES_AT_ONCE: usize = 2;

fn boot_in_pairs(
    kernels: &[kernel::Kernel],
    object: &Path,
    icount: bool,
) -> Result<Vec<KernelReport>> {
    let next = Mutex::new(kernels.iter().enumerate());
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..MACHINES_AT_ONCE.min(kernels.len()) {
            scope.spawn(|| {
                loop {
                    let Some((at, kernel)) = next.lock().ok().and_then(|mut next| next.next())
                    else {
                        return;
                    };
                    let report = boot_one(kernel, object, icount);
                    if let Ok(mut done) = done.lock() {
                        done.push((at, report));
                    }
                }
            });
        }
    });
    let mut done = done
        .into_inner()
        .map_err(|_| anyhow::anyhow!("a machine's thread panicked"))?;
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, report)| report).collect()
}

fn boot_one(kernel: &kernel::Kernel, object: &Path, icount: bool) -> Result<KernelReport> {
    let folder = shell::target_dir().join("vm/run").join(&kernel.series);
    let image = image::build(kernel, &image::Contents::for_tests(object), &folder)?;
    // The budgets' kernel counts instructions, which is the same as time there.
    let counts = icount || kernel.series == budgets::VERIFIED_SERIES;
    let machine = boot::Machine {
        kernel,
        image: &image,
        folder: &folder,
        memory_mib: 768,
        icount_shift: counts.then_some(1),
    };
    machine.run(Duration::from_secs(300))
}
