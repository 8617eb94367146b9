//! One run of one virtual machine.

use std::{
    fs,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{kernel::Kernel, report::KernelReport};
use crate::shell;

/// `-icount shift=1`: each instruction takes two nanoseconds.
const NS_PER_INSTRUCTION: u64 = 2;

/// By these addresses the guest knows them (`NIC_MAC` and `ROUTER_MAC` of the scenes).
const CARDS: [&str; 2] = ["0a:00:00:00:00:01", "0a:00:00:00:00:fe"];

/// A machine and where its files go.
pub(super) struct Machine<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) image: &'a Path,
    pub(super) folder: &'a Path,
    pub(super) icount: bool,
}

impl Machine<'_> {
    /// Boots, waits until the machine switches itself off, and reads what it found.
    ///
    /// Results come over a second serial line, where no message of the kernel can get between them.
    /// # Errors  when qemu cannot be started; a machine that hangs or dies is a failed report.
    pub(super) fn run(&self, limit: Duration) -> Result<KernelReport> {
        let console = self.folder.join("console.log");
        let results = self.folder.join("results.jsonl");
        for file in [&console, &results] {
            fs::write(file, "").with_context(|| format!("cannot write {}", file.display()))?;
        }
        eprintln!(
            "vm: {}: booting {}",
            self.kernel.series, self.kernel.release
        );
        let started = Instant::now();
        let mut child = self
            .command(&console, &results)
            .spawn()
            .context("cannot start qemu")?;
        let ended = wait(&mut child, limit)?;
        let seconds = started.elapsed().as_secs_f64();
        let ns_per_instruction = self.icount.then_some(NS_PER_INSTRUCTION);
        let mut report = KernelReport::new(self.kernel, seconds, ns_per_instruction);
        let text =
            fs::read(&results).with_context(|| format!("cannot read {}", results.display()))?;
        report.read(&String::from_utf8_lossy(&text));
        match ended {
            None => report.fail(format!("switched off after {} s", limit.as_secs())),
            Some(status) if !status.success() => report.fail(format!("qemu ended with {status}")),
            Some(_) => {}
        }
        if !report.succeeded() {
            report.attach_console(&console);
        }
        Ok(report)
    }

    fn command(&self, console: &Path, results: &Path) -> Command {
        let mut command = Command::new("qemu-system-x86_64");
        command
            .env("PATH", shell::search_path())
            // No hardware help: test machines are virtual machines themselves, without nesting.
            .args(["-accel", "tcg", "-cpu", "max", "-m", "768", "-smp", "1"])
            .args([
                "-nodefaults",
                "-no-user-config",
                "-no-reboot",
                "-display",
                "none",
            ])
            .arg("-serial")
            .arg(format!("file:{}", console.display()))
            .arg("-serial")
            .arg(format!("file:{}", results.display()))
            .arg("-kernel")
            .arg(&self.kernel.vmlinuz)
            .arg("-initrd")
            .arg(self.image)
            .args(["-append", "console=ttyS0 quiet panic=-1 nokaslr"])
            .stdin(Stdio::null());
        // Two network cards on one hub, with nothing else on it; no firmware to boot from them.
        for (number, mac) in CARDS.iter().enumerate() {
            command
                .arg("-netdev")
                .arg(format!("hubport,id=n{number},hubid=0"));
            command.arg("-device").arg(format!(
                "virtio-net-pci,netdev=n{number},mac={mac},romfile="
            ));
        }
        if self.icount {
            command.args(["-icount", "shift=1,sleep=off", "-seed", "1"]);
            command.args(["-rtc", "clock=vm,base=2026-01-01"]);
        }
        command
    }
}

/// Waits for the end, or ends the machine at the limit and returns nothing.
fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().context("cannot wait for qemu")? {
            return Ok(Some(status));
        }
        thread::sleep(Duration::from_millis(50));
    }
    child.kill().context("cannot stop qemu")?;
    child.wait().context("cannot wait for qemu")?;
    Ok(None)
}
