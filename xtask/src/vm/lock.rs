//! `tests/kernels.lock`: which kernels, by which packages, with which checksums.

use std::{fmt::Write as _, fs, path::PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::shell;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Lock {
    #[serde(rename = "kernel")]
    pub(super) kernels: Vec<LockedKernel>,
}

/// One kernel of the matrix.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LockedKernel {
    /// `6.1`, `6.12` or `newest`: what stays when the packages change.
    pub(super) series: String,
    /// The Debian suite that carries the series.
    pub(super) suite: String,
    /// What `uname -r` says.
    pub(super) release: String,
    #[serde(rename = "package")]
    pub(super) packages: Vec<LockedPackage>,
}

/// One package file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LockedPackage {
    pub(super) name: String,
    pub(super) version: String,
    /// Below the archive's root.
    pub(super) path: String,
    pub(super) sha256: String,
}

const HEAD: &str = "\
# The kernels that `cargo xtask vm` boots. Written by `cargo xtask vm --update-lock`.
# Debian removes superseded packages: when one is gone, the run takes the newest of the same series
# and says so; then renew this file.
";

impl Lock {
    /// Reads the committed file.
    /// # Errors  when it is missing or not what `--update-lock` writes.
    pub(super) fn load() -> Result<Self> {
        let file = Self::file();
        let text = fs::read_to_string(&file).with_context(|| {
            format!(
                "cannot read {}; write it with `cargo xtask vm --update-lock`",
                file.display()
            )
        })?;
        toml::from_str(&text).with_context(|| {
            format!(
                "{} is damaged; write it anew with `cargo xtask vm --update-lock`",
                file.display()
            )
        })
    }

    /// Writes the committed file and prints what it names.
    /// # Errors  when it cannot be written.
    pub(super) fn save(&self) -> Result<()> {
        let file = Self::file();
        fs::write(&file, self.text())
            .with_context(|| format!("cannot write {}", file.display()))?;
        for kernel in &self.kernels {
            println!(
                "{}: {} from {}",
                kernel.series, kernel.release, kernel.suite
            );
        }
        println!(
            "wrote {}; run `cargo xtask vm` before committing it",
            file.display()
        );
        Ok(())
    }

    /// Returns the named series, or all when none is named.
    /// # Errors  for a name that is not in the file.
    pub(super) fn choose(self, series: &[String]) -> Result<Vec<LockedKernel>> {
        let known: Vec<_> = self
            .kernels
            .iter()
            .map(|kernel| kernel.series.clone())
            .collect();
        if let Some(unknown) = series.iter().find(|name| !known.contains(name)) {
            bail!(
                "--kernel {unknown}: tests/kernels.lock has {}",
                known.join(", ")
            );
        }
        let wanted = |kernel: &LockedKernel| series.is_empty() || series.contains(&kernel.series);
        Ok(self.kernels.into_iter().filter(wanted).collect())
    }

    fn text(&self) -> String {
        let mut text = HEAD.to_owned();
        for kernel in &self.kernels {
            let LockedKernel {
                series,
                suite,
                release,
                packages,
            } = kernel;
            let _ = write!(
                text,
                "\n[[kernel]]\nseries = \"{series}\"\nsuite = \"{suite}\"\nrelease = \"{release}\"\n"
            );
            for LockedPackage {
                name,
                version,
                path,
                sha256,
            } in packages
            {
                let _ = write!(
                    text,
                    "\n[[kernel.package]]\nname = \"{name}\"\nversion = \"{version}\"\n\
                     path = \"{path}\"\nsha256 = \"{sha256}\"\n"
                );
            }
        }
        text
    }

    fn file() -> PathBuf {
        shell::repo_root().join("tests/kernels.lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(series: &str) -> LockedKernel {
        LockedKernel {
            series: series.to_owned(),
            suite: "trixie".to_owned(),
            release: "6.12.117+deb13-cloud-amd64".to_owned(),
            packages: vec![LockedPackage {
                name: "linux-image-6.12.117+deb13-cloud-amd64".to_owned(),
                version: "6.12.117-1".to_owned(),
                path: "pool/main/l/linux/x.deb".to_owned(),
                sha256: "ab".repeat(32),
            }],
        }
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let lock = Lock {
            kernels: vec![kernel("6.1"), kernel("newest")],
        };
        let read: Lock = toml::from_str(&lock.text()).unwrap();
        assert_eq!(read.kernels, lock.kernels);
    }

    #[test]
    fn an_unknown_series_is_named_with_those_there_are() {
        let lock = Lock {
            kernels: vec![kernel("6.1"), kernel("newest")],
        };
        let error = lock.choose(&["5.4".to_owned()]).unwrap_err().to_string();
        assert!(
            error.contains("5.4") && error.contains("6.1, newest"),
            "{error}"
        );
    }

    #[test]
    fn the_committed_file_names_the_three_kernels() {
        let series: Vec<_> = Lock::load()
            .unwrap()
            .kernels
            .into_iter()
            .map(|k| k.series)
            .collect();
        assert_eq!(series, ["6.1", "6.12", "newest"]);
    }
}
