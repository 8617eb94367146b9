//! Kafka's jars: fetched by Maven, pinned, and verified before every use.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};
use thiserror::Error;

use super::java::{self, Java};

/// The pinned coordinates.
const POM: &str = include_str!("../../kafka/pom.xml");
/// `SHA-256  NAME` of every jar, transitive ones included, sorted by name.
const JAR_DIGESTS: &str = include_str!("../../kafka/jars.sha256");

/// A verified Kafka in a folder, ready to run.
#[derive(Clone, Debug)]
pub struct Install {
    dir: PathBuf,
    java: Java,
    jars: Vec<PathBuf>,
    archive: Option<PathBuf>,
}

/// Why Kafka cannot be had here.
#[derive(Debug, Error)]
pub enum InstallError {
    #[error(
        "Java: none found in JAVA_HOME or PATH; Kafka needs Java 17 or newer. \
         Debian and Ubuntu: apt install openjdk-17-jre-headless (or openjdk-21-jre-headless)"
    )]
    JavaMissing,
    #[error(
        "Java: {} says {found:?}, but Kafka needs Java 17 or newer. \
         Debian and Ubuntu: apt install openjdk-17-jre-headless (or openjdk-21-jre-headless)",
        program.display()
    )]
    JavaTooOld { program: PathBuf, found: String },
    #[error(
        "Maven: `mvn` is not in PATH; it fetches Kafka's jars. \
         Debian and Ubuntu: apt install maven"
    )]
    MavenMissing,
    #[error(
        "Maven could not fetch Kafka's jars ({status}); try again, its last lines were:\n{log}"
    )]
    MavenFailed { status: String, log: String },
    #[error(
        "Kafka jar {jar}: expected SHA-256 {expected}, found {found}; \
         delete {} and run again, it is fetched anew",
        path.display()
    )]
    JarMismatch {
        jar: String,
        path: PathBuf,
        expected: String,
        found: String,
    },
    #[error("Kafka class archive: {0:#}")]
    Archive(anyhow::Error),
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl InstallError {
    /// True if the machine lacks Java or Maven, so that a demo may go on without Kafka.
    pub fn is_missing_tool(&self) -> bool {
        matches!(
            self,
            Self::JavaMissing | Self::JavaTooOld { .. } | Self::MavenMissing
        )
    }
}

impl Install {
    /// Makes Kafka ready in `dir`: fetches what is missing, verifies all, builds the class archive.
    ///
    /// Idempotent: a second call only verifies. Files belong to the owner of the folder that `dir`
    /// is made in, also when root calls.
    pub fn prepare(dir: &Path) -> Result<Self, InstallError> {
        let java = Java::find()?;
        let dir = std::path::absolute(dir).map_err(|source| io_error(dir, source))?;
        create_owned_dir(&dir)?;
        // One spelling of the path: the class archive is bound to the text of the class path.
        let dir = dir
            .canonicalize()
            .map_err(|source| io_error(&dir, source))?;
        let _lock = lock(&dir)?;
        if jar_paths(&dir).iter().any(|jar| !jar.is_file()) {
            fetch(&dir)?;
        }
        let mut install = Self::verified(dir, java)?;
        if install.archive.is_none() {
            let archive = java::build_archive(&install).map_err(InstallError::Archive)?;
            install.archive = Some(archive);
        }
        Ok(install)
    }

    /// Verifies every jar again; each start of a broker does.
    pub fn verify(&self) -> Result<(), InstallError> {
        verify_jars(&self.dir)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The Java program that was found.
    pub fn java_program(&self) -> &Path {
        &self.java.program
    }

    pub(super) fn java(&self) -> &Java {
        &self.java
    }

    pub(super) fn jars(&self) -> &[PathBuf] {
        &self.jars
    }

    pub(super) fn archive(&self) -> Option<&Path> {
        self.archive.as_deref()
    }

    /// An explicit list in a fixed order: the class archive is only valid for that order.
    pub(super) fn class_path(&self) -> String {
        let jars: Vec<String> = self
            .jars
            .iter()
            .map(|jar| jar.display().to_string())
            .collect();
        jars.join(":")
    }

    fn verified(dir: PathBuf, java: Java) -> Result<Self, InstallError> {
        verify_jars(&dir)?;
        let jars = jar_paths(&dir);
        let mut install = Self {
            dir,
            java,
            jars,
            archive: None,
        };
        install.archive = java::valid_archive(&install);
        Ok(install)
    }
}

/// A command that runs as the owner of `dir`, so that root leaves no files that the owner of the
/// source tree cannot delete.
pub(super) fn run_as_owner_of(dir: &Path, program: &Path) -> Command {
    let mut command = Command::new(program);
    let owner = fs::metadata(dir).map(|metadata| (metadata.uid(), metadata.gid()));
    if let (true, Ok((uid, gid))) = (nix::unistd::geteuid().is_root(), owner)
        && uid != 0
    {
        command.uid(uid).gid(gid);
        if let Ok(Some(user)) = nix::unistd::User::from_uid(uid.into()) {
            command.env("HOME", user.dir).env("USER", user.name);
        }
    }
    command
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Held until dropped, so that two runs at the same time do not write over each other.
fn lock(dir: &Path) -> Result<File, InstallError> {
    let path = dir.join("lock");
    if !path.exists() {
        write_owned(&path, "")?;
    }
    let take = || {
        let file = File::open(&path)?;
        file.lock()?;
        Ok(file)
    };
    take().map_err(|source| io_error(&path, source))
}

/// Fetches all jars into DIR/libs, which gets its name only when all are there: a fetch that was
/// interrupted leaves no half jar that is found wrong later.
fn fetch(dir: &Path) -> Result<(), InstallError> {
    let pom = dir.join("pom.xml");
    write_owned(&pom, POM)?;
    let (libs, partial) = (dir.join("libs"), dir.join("libs.partial"));
    remove_folder(&partial)?;
    let output = run_as_owner_of(dir, Path::new("mvn"))
        .args(["--batch-mode", "--quiet", "dependency:copy-dependencies"])
        .arg("-DincludeScope=runtime")
        .arg(format!("-DoutputDirectory={}", partial.display()))
        .arg("--file")
        .arg(&pom)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => InstallError::MavenMissing,
            _ => io_error(Path::new("mvn"), source),
        })?;
    if output.status.success() {
        remove_folder(&libs)?;
        return fs::rename(&partial, &libs).map_err(|source| io_error(&partial, source));
    }
    let log = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = log.lines().collect();
    Err(InstallError::MavenFailed {
        status: output.status.to_string(),
        log: lines[lines.len().saturating_sub(15)..].join("\n"),
    })
}

fn remove_folder(folder: &Path) -> Result<(), InstallError> {
    match fs::remove_dir_all(folder) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(io_error(folder, source)),
        _ => Ok(()),
    }
}

fn verify_jars(dir: &Path) -> Result<(), InstallError> {
    for (expected, name) in pinned_jars() {
        let path = jar_path(dir, name);
        let found = sha256_of(&path).map_err(|source| io_error(&path, source))?;
        if found != expected {
            return Err(InstallError::JarMismatch {
                jar: name.to_owned(),
                path,
                expected: expected.to_owned(),
                found,
            });
        }
    }
    Ok(())
}

fn sha256_of(path: &Path) -> io::Result<String> {
    struct Hashing(Sha256);
    impl io::Write for Hashing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut hashing = Hashing(Sha256::new());
    io::copy(&mut File::open(path)?, &mut hashing)?;
    Ok(hex(&hashing.0.finalize()))
}

/// (SHA-256, name) of each pinned jar.
fn pinned_jars() -> impl Iterator<Item = (&'static str, &'static str)> {
    JAR_DIGESTS.lines().filter_map(|line| line.split_once("  "))
}

fn jar_paths(dir: &Path) -> Vec<PathBuf> {
    pinned_jars().map(|(_, name)| jar_path(dir, name)).collect()
}

fn jar_path(dir: &Path, name: &str) -> PathBuf {
    dir.join("libs").join(name)
}

/// Makes `dir` and its missing parents, owned as the nearest parent that exists.
pub(super) fn create_owned_dir(dir: &Path) -> Result<(), InstallError> {
    let missing: Vec<&Path> = dir.ancestors().take_while(|path| !path.exists()).collect();
    let Some(outermost) = missing.last() else {
        return Ok(());
    };
    let parent = outermost.parent().unwrap_or(Path::new("/"));
    let owner = fs::metadata(parent).map_err(|source| io_error(parent, source))?;
    fs::create_dir_all(dir).map_err(|source| io_error(dir, source))?;
    for made in missing {
        chown(made, Some(owner.uid()), Some(owner.gid()))
            .map_err(|source| io_error(made, source))?;
    }
    Ok(())
}

/// Writes a file that belongs to the owner of its folder, so that a later run as that user can too.
pub(super) fn write_owned(path: &Path, text: &str) -> Result<(), InstallError> {
    let write = || {
        fs::write(path, text)?;
        let folder = fs::metadata(path.parent().unwrap_or(Path::new("/")))?;
        chown(path, Some(folder.uid()), Some(folder.gid()))
    };
    write().map_err(|source| io_error(path, source))
}

fn io_error(path: &Path, source: io::Error) -> InstallError {
    InstallError::Io {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pinned_list_is_sorted_complete_and_of_one_kafka_version() {
        let names: Vec<&str> = pinned_jars().map(|(_, name)| name).collect();
        assert_eq!(
            names.len(),
            JAR_DIGESTS.lines().count(),
            "a line has another form"
        );
        assert!(
            names.is_sorted(),
            "the class path must not depend on the machine's locale"
        );
        let kafka: Vec<&&str> = names
            .iter()
            .filter(|name| name.starts_with("kafka"))
            .collect();
        assert!(kafka.len() > 10);
        assert!(
            kafka.iter().all(|name| name.ends_with("-4.3.1.jar")),
            "{kafka:?}"
        );
        assert!(POM.contains("<kafka.version>4.3.1</kafka.version>"));
        assert!(pinned_jars().all(|(digest, _)| digest.len() == 64));
    }

    #[test]
    fn a_changed_jar_is_named_with_both_digests() {
        let dir = tempfile::tempdir().unwrap();
        let (expected, name) = pinned_jars().next().unwrap();
        fs::create_dir(dir.path().join("libs")).unwrap();
        fs::write(jar_path(dir.path(), name), b"not the jar").unwrap();
        let message = verify_jars(dir.path()).unwrap_err().to_string();
        let found = hex(&Sha256::digest(b"not the jar"));
        for part in [name, expected, &found, "delete "] {
            assert!(message.contains(part), "{part:?} is not in {message:?}");
        }
    }

    #[test]
    fn only_a_missing_tool_lets_the_demo_go_on_without_kafka() {
        assert!(InstallError::JavaMissing.is_missing_tool());
        assert!(InstallError::MavenMissing.is_missing_tool());
        let io = io_error(Path::new("/x"), io::ErrorKind::PermissionDenied.into());
        assert!(!io.is_missing_tool());
    }
}
