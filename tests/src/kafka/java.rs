//! Finding a Java that can run the broker, and the class archive that makes it start faster.

use std::env;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::broker::{self, BrokerSettings};
use super::install::{Install, InstallError, create_owned_dir, hex, run_as_owner_of, write_owned};
use crate::child::{ManagedChild, Stopped};

/// The broker's classes are compiled for this version.
const OLDEST_JAVA: u32 = 17;
const START_LIMIT: Duration = Duration::from_secs(120);
/// The archive is written while the JVM exits, which takes seconds on a busy machine.
const ARCHIVE_LIMIT: Duration = Duration::from_secs(120);

/// A Java runtime that is new enough.
#[derive(Clone, Debug)]
pub(super) struct Java {
    pub(super) program: PathBuf,
    /// What `java -version` prints: part of the archive's stamp.
    version_text: String,
}

impl Java {
    /// Looks at `JAVA_HOME`, then at `PATH`.
    pub(super) fn find() -> Result<Self, InstallError> {
        let program = env::var_os("JAVA_HOME")
            .map(|home| Path::new(&home).join("bin/java"))
            .filter(|program| program.is_file())
            .unwrap_or_else(|| PathBuf::from("java"));
        let output = Command::new(&program)
            .arg("-version")
            .output()
            .map_err(|_| InstallError::JavaMissing)?;
        let version_text = String::from_utf8_lossy(&output.stderr).into_owned();
        match major_version(&version_text) {
            Some(major) if major >= OLDEST_JAVA => Ok(Self {
                program,
                version_text,
            }),
            _ => Err(InstallError::JavaTooOld {
                program,
                found: version_text.lines().next().unwrap_or("nothing").to_owned(),
            }),
        }
    }
}

/// The archive of loaded classes for this Java and these jars, or `None` if it has to be built.
pub(super) fn valid_archive(install: &Install) -> Option<PathBuf> {
    let archive = archive_path(install);
    let stamp = fs::read_to_string(stamp_path(install)).ok()?;
    (archive.is_file() && stamp == expected_stamp(install)?).then_some(archive)
}

/// Builds the archive: one broker on loopback starts, stops, and the JVM writes what it loaded.
pub(super) fn build_archive(install: &Install) -> Result<PathBuf> {
    let archive = archive_path(install);
    let scratch = install.dir().join("archive-run");
    remove_if_present(&archive)?;
    remove_if_present(&stamp_path(install))?;
    let _ = fs::remove_dir_all(&scratch);
    let ports = free_loopback_ports().context("three free ports on 127.0.0.1")?;
    let settings = BrokerSettings::single_on_loopback(&scratch, ports);
    for folder in settings.folders() {
        create_owned_dir(&folder)?;
    }
    broker::write_files(&settings)?;
    let format = run_as_owner_of(install.dir(), &install.java().program);
    broker::format(install, format, &settings)?;

    let log = scratch.join("broker.log");
    let mut command = run_as_owner_of(install.dir(), &install.java().program);
    command.arg(format!("-XX:ArchiveClassesAtExit={}", archive.display()));
    broker::add_broker_arguments(&mut command, install, &settings);
    let output = fs::File::create(&log)?;
    command
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output);
    let mut child = ManagedChild::spawn("kafka (class archive)", &mut command)?;
    broker::wait_for_start(&mut child, &log, START_LIMIT)?;
    if child.stop(ARCHIVE_LIMIT)? == Stopped::Killed || !archive.is_file() {
        bail!(
            "Kafka class archive {}: the JVM did not write it within {ARCHIVE_LIMIT:?}; its log is {}",
            archive.display(),
            log.display()
        );
    }
    fs::remove_dir_all(&scratch)?;
    let stamp = expected_stamp(install).context("jar times for the stamp")?;
    write_owned(&stamp_path(install), &stamp)?;
    Ok(archive)
}

fn archive_path(install: &Install) -> PathBuf {
    install.dir().join("kafka.jsa")
}

fn stamp_path(install: &Install) -> PathBuf {
    install.dir().join("kafka.jsa.stamp")
}

/// The JVM ignores a stale archive without a word, so everything it compares is in the stamp:
/// its own build, the class path as text, and each jar's modification time.
fn expected_stamp(install: &Install) -> Option<String> {
    let mut digest = Sha256::new();
    digest.update(&install.java().version_text);
    for jar in install.jars() {
        let modified = fs::metadata(jar).ok()?.modified().ok()?;
        digest.update(format!("{} {modified:?}\n", jar.display()));
    }
    Some(hex(&digest.finalize()))
}

fn remove_if_present(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Held at the same time, so that the three differ.
fn free_loopback_ports() -> Result<[u16; 3]> {
    let listeners = [0; 3].map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let mut ports = [0; 3];
    for (port, listener) in ports.iter_mut().zip(listeners) {
        *port = listener?.local_addr()?.port();
    }
    Ok(ports)
}

/// `openjdk version "17.0.15" …` gives 17; the old scheme `"1.8.0_402"` gives 8.
fn major_version(version_text: &str) -> Option<u32> {
    let quoted = version_text.split('"').nth(1)?;
    let mut numbers = quoted.split(['.', '-', '+', '_']);
    match numbers.next()?.parse().ok()? {
        1 => numbers.next()?.parse().ok(),
        major => Some(major),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn java_versions_are_read_in_the_old_and_the_new_scheme() {
        let cases = [
            ("openjdk version \"17.0.15\" 2025-04-15\nOpenJDK", Some(17)),
            ("openjdk version \"21\" 2023-09-19", Some(21)),
            ("java version \"1.8.0_402\"", Some(8)),
            ("openjdk version \"22-ea\" 2024-03-19", Some(22)),
            ("The program 'java' is not installed", None),
        ];
        for (text, expected) in cases {
            assert_eq!(major_version(text), expected, "{text}");
        }
    }
}
