//! One run of one virtual machine.

use std::{
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{kernel::Kernel, report::KernelReport};
use crate::shell;

/// By these addresses the guest knows them (`NIC_MAC` and `ROUTER_MAC` of the scenes).
const CARDS: [&str; 2] = ["0a:00:00:00:00:01", "0a:00:00:00:00:fe"];

/// A machine and where its files go.
pub(super) struct Machine<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) image: &'a Path,
    pub(super) folder: &'a Path,
    pub(super) memory_mib: u32,
    /// Virtual time that follows instructions: each takes two to this power, in nanoseconds.
    pub(super) icount_shift: Option<u32>,
}

/// A machine that ended by itself or was ended.
pub(super) struct Ended {
    pub(super) seconds: f64,
    /// All that it wrote to its second serial line.
    pub(super) results: String,
    /// Why it is no good whatever it wrote.
    pub(super) fault: Option<String>,
}

impl Machine<'_> {
    /// Boots, waits until the machine switches itself off, and reads what it found.
    /// # Errors  when qemu cannot be started; a machine that hangs or dies is a failed report.
    pub(super) fn run(&self, limit: Duration) -> Result<KernelReport> {
        let ended = self.boot(limit, |_| {})?;
        let ns_per_instruction = self.icount_shift.map(|shift| 1 << shift);
        let mut report = KernelReport::new(self.kernel, ended.seconds, ns_per_instruction);
        report.read(&ended.results);
        if let Some(fault) = ended.fault {
            report.fail(fault);
        }
        if !report.succeeded() {
            report.attach_console(&self.console());
        }
        Ok(report)
    }

    /// Boots and waits until the machine switches itself off; each line of results is handed over as it
    /// comes.
    ///
    /// Results come over a second serial line, where no message of the kernel can get between them.
    /// # Errors  when qemu cannot be started.
    pub(super) fn boot(&self, limit: Duration, on_line: impl FnMut(&str)) -> Result<Ended> {
        let (console, results) = (self.console(), self.folder.join("results.jsonl"));
        for file in [&console, &results] {
            fs::write(file, "").with_context(|| format!("cannot write {}", file.display()))?;
        }
        eprintln!(
            "vm: {}: booting {}",
            self.kernel.series, self.kernel.release
        );
        let started = Instant::now();
        let child = self
            .command(&console, &results)
            .spawn()
            .context("cannot start qemu")?;
        let mut lines = Lines::of(&results, on_line)?;
        let ended = wait(child, limit, || lines.take())?;
        Ok(Ended {
            seconds: started.elapsed().as_secs_f64(),
            results: lines.all()?,
            fault: match ended {
                None => Some(format!("switched off after {} s", limit.as_secs())),
                Some(status) if !status.success() => Some(format!("qemu ended with {status}")),
                Some(_) => None,
            },
        })
    }

    /// Where what the kernel says goes.
    pub(super) fn console(&self) -> PathBuf {
        self.folder.join("console.log")
    }

    fn command(&self, console: &Path, results: &Path) -> Command {
        let mut command = Command::new("qemu-system-x86_64");
        command
            .env("PATH", shell::search_path())
            // No hardware help: test machines are virtual machines themselves, without nesting.
            .args(["-accel", "tcg", "-cpu", "max", "-smp", "1", "-m"])
            .arg(self.memory_mib.to_string())
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
        if let Some(shift) = self.icount_shift {
            let icount = format!("shift={shift},sleep=off");
            command.args(["-icount", &icount, "-seed", "1"]);
            command.args(["-rtc", "clock=vm,base=2026-01-01"]);
        }
        command
    }
}

/// Lines of a file that another process writes.
struct Lines<F> {
    file: File,
    text: Vec<u8>,
    handed_over: usize,
    on_line: F,
}

impl<F: FnMut(&str)> Lines<F> {
    fn of(path: &Path, on_line: F) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self {
            file,
            text: Vec::new(),
            handed_over: 0,
            on_line,
        })
    }

    /// Hands over the lines that are whole by now.
    fn take(&mut self) -> Result<()> {
        self.file
            .read_to_end(&mut self.text)
            .context("cannot read what the machine writes")?;
        while let Some(length) = self.text[self.handed_over..]
            .iter()
            .position(|byte| *byte == b'\n')
        {
            let line = &self.text[self.handed_over..self.handed_over + length];
            (self.on_line)(String::from_utf8_lossy(line).trim());
            self.handed_over += length + 1;
        }
        Ok(())
    }

    fn all(mut self) -> Result<String> {
        self.take()?;
        Ok(String::from_utf8_lossy(&self.text).into_owned())
    }
}

/// Waits for the end, or ends the machine at the limit and returns nothing.
fn wait(
    mut child: Child,
    limit: Duration,
    mut meanwhile: impl FnMut() -> Result<()>,
) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().context("cannot wait for qemu")? {
            return Ok(Some(status));
        }
        meanwhile()?;
        thread::sleep(Duration::from_millis(50));
    }
    child.kill().context("cannot stop qemu")?;
    child.wait().context("cannot wait for qemu")?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_line_is_handed_over_once_and_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.jsonl");
        let mut writer = File::create(&path).unwrap();
        let mut seen = Vec::new();
        let mut lines = Lines::of(&path, |line| seen.push(line.to_owned())).unwrap();
        writer.write_all(b"one\r\ntw").unwrap();
        lines.take().unwrap();
        writer.write_all(b"o\nthree").unwrap();
        lines.take().unwrap();
        assert_eq!(lines.all().unwrap(), "one\r\ntwo\nthree");
        assert_eq!(seen, ["one", "two"]);
    }
}
