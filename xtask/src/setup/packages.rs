//! Distribution packages: only when a program is missing, and only then does root come in.

use std::{fs, os::unix::fs::symlink, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};

use crate::shell;

/// A program that something of ours runs, and who has it.
pub(crate) struct Program {
    /// The file's name on PATH.
    name: &'static str,
    /// Debian's and Ubuntu's packages, best first: the first that the system knows is installed.
    packages: &'static [&'static str],
    /// What is lost without it, when we can go on.
    optional: Option<&'static str>,
}

/// What the lab and the demo run.
pub(super) const LAB: &[Program] = &[
    required("ip", &["iproute2"]),
    required("tc", &["iproute2"]),
    required("ethtool", &["ethtool"]),
    required("ping", &["iputils-ping"]),
    required("nft", &["nftables"]),
    required("tcpdump", &["tcpdump"]),
    required("iperf3", &["iperf3"]),
    required("redis-cli", &["redis-tools"]),
    for_kafka("java", JAVA_PACKAGES),
    for_kafka("mvn", &["maven"]),
];

/// What the virtual machines of the kernel matrix need.
pub(super) const VM: &[Program] = &[
    required("qemu-system-x86_64", &["qemu-system-x86"]),
    required("cpio", &["cpio"]),
    required("depmod", &["kmod"]),
    required("xz", &["xz-utils"]),
];

const JAVA_PACKAGES: &[&str] = &[
    "openjdk-17-jre-headless",
    "openjdk-21-jre-headless",
    "openjdk-25-jre-headless",
];
/// Kafka 4 brokers refuse older ones.
const JAVA_MINIMUM: u32 = 17;

/// Installs the packages of the programs that are missing.
/// # Errors  when a required program is still missing afterwards; it says what to install.
pub(super) fn install(programs: &[Program]) -> Result<()> {
    let missing: Vec<_> = programs
        .iter()
        .filter(|program| !program.is_present())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|program| program.name).collect();
    eprintln!("setup: missing programs: {}", names.join(" "));
    let installed = choose_and_install(&missing);
    if let Err(error) = &installed {
        eprintln!("setup: {error:#}");
    }
    let still_missing: Vec<_> = missing
        .into_iter()
        .filter(|program| !program.is_present())
        .collect();
    for program in &still_missing {
        if let Some(loss) = program.optional {
            eprintln!(
                "setup: WARNING: `{}` is still missing: {loss}",
                program.name
            );
        }
    }
    let required: Vec<_> = still_missing
        .iter()
        .filter(|program| program.optional.is_none())
        .map(|program| {
            format!(
                "  {} (Debian, Ubuntu: {})",
                program.name, program.packages[0]
            )
        })
        .collect();
    if required.is_empty() {
        return Ok(());
    }
    bail!(
        "install these programs with your system's packages and try again:\n{}",
        required.join("\n")
    )
}

/// Installs packages by name, with the lists fetched first when the system does not know them.
/// # Errors  without apt-get, and when apt-get fails.
pub(super) fn install_named(packages: &[&str]) -> Result<()> {
    if shell::find_program("apt-get").is_none() {
        bail!(
            "this system has no apt-get; install what offers {}",
            packages.join(", ")
        );
    }
    eprintln!("setup: apt-get will install {}", packages.join(" "));
    let mut install = apt_get(&["install", "--yes", "--no-install-recommends"])?;
    if shell::run(install.args(packages)).is_ok() {
        return Ok(());
    }
    // Most often the lists are older than the archive.
    shell::run(&mut apt_get(&["update"])?)?;
    let mut again = apt_get(&["install", "--yes", "--no-install-recommends"])?;
    shell::run(again.args(packages))
}

/// Offers `redis-server` from the client's package: Debian ships one file for both, which looks at
/// its own name. The server's package would add nothing but a service that starts at boot.
/// # Errors  when that file is not a server after all.
pub(super) fn link_redis_server() -> Result<()> {
    if shell::find_program("redis-server").is_some() {
        return Ok(());
    }
    let both = shell::find_program("redis-check-rdb")
        .context("install a Redis server (no `redis-server`, no `redis-check-rdb` on PATH)")?;
    let folder = shell::tools_bin();
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let link = folder.join("redis-server");
    // A dangling link of an earlier installation is not found above, but is in the way.
    let _ = fs::remove_file(&link);
    symlink(&both, &link).with_context(|| format!("cannot create {}", link.display()))?;
    let version = shell::output(Command::new(&link).arg("--version"))?;
    if !version.starts_with("Redis server") {
        bail!(
            "{} is no Redis server; install one and try again",
            both.display()
        );
    }
    Ok(())
}

/// Names the programs of the lab that are not there, for a command that can do without some.
pub(crate) fn missing_programs() -> Vec<&'static str> {
    LAB.iter()
        .filter(|program| !program.is_present())
        .map(|program| program.name)
        .collect()
}

const fn required(name: &'static str, packages: &'static [&'static str]) -> Program {
    Program {
        name,
        packages,
        optional: None,
    }
}

const fn for_kafka(name: &'static str, packages: &'static [&'static str]) -> Program {
    Program {
        name,
        packages,
        optional: Some("everything with Kafka will be skipped"),
    }
}

impl Program {
    fn is_present(&self) -> bool {
        match shell::find_program(self.name) {
            None => false,
            Some(java) if self.name == "java" => java_is_new_enough(java),
            Some(_) => true,
        }
    }
}

fn java_is_new_enough(java: PathBuf) -> bool {
    Command::new(java)
        .arg("-version")
        .output()
        .is_ok_and(|output| {
            java_major(&String::from_utf8_lossy(&output.stderr)).is_some_and(|m| m >= JAVA_MINIMUM)
        })
}

/// Reads `openjdk version "17.0.15" 2025-04-15`; old ones call themselves 1.8.
fn java_major(version: &str) -> Option<u32> {
    let number = version.split('"').nth(1)?;
    number
        .split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

fn choose_and_install(missing: &[&Program]) -> Result<()> {
    if shell::find_program("apt-get").is_none() {
        bail!("this system has no apt-get, so nothing was installed");
    }
    let known = |name: &str| {
        shell::output(Command::new("apt-cache").args(["policy", name]))
            .is_ok_and(|policy| has_candidate(&policy))
    };
    if missing
        .iter()
        .any(|program| !program.packages.iter().any(|name| known(name)))
    {
        eprintln!("setup: the package lists lack something; apt-get will fetch them");
        shell::run(&mut apt_get(&["update"])?)?;
    }
    let mut chosen: Vec<_> = missing
        .iter()
        .filter_map(|program| program.packages.iter().copied().find(|name| known(name)))
        .collect();
    chosen.sort_unstable();
    chosen.dedup();
    if chosen.is_empty() {
        bail!("the package lists know none of the missing programs");
    }
    install_named(&chosen)
}

/// Tells whether `apt-cache policy` names a version that could be installed.
fn has_candidate(policy: &str) -> bool {
    policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate:"))
        .is_some_and(|candidate| candidate.trim() != "(none)")
}

fn apt_get(arguments: &[&str]) -> Result<Command> {
    let quiet = [("DEBIAN_FRONTEND", "noninteractive".to_owned())];
    let mut command = shell::as_root("installing packages changes the system", "apt-get", &quiet)?;
    command
        .args(["--quiet", "-o", "Dpkg::Use-Pty=0"])
        .args(arguments);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_counts_as_known_only_with_a_version_to_install() {
        assert!(has_candidate(
            "redis-tools:\n  Installed: (none)\n  Candidate: 5:7.0.15-1\n"
        ));
        assert!(!has_candidate(
            "openjdk-17-jre-headless:\n  Candidate: (none)\n"
        ));
        assert!(!has_candidate(""));
    }

    #[test]
    fn the_age_of_a_java_is_read_from_its_own_words() {
        assert_eq!(
            java_major("openjdk version \"17.0.15\" 2025-04-15\n"),
            Some(17)
        );
        assert_eq!(java_major("java version \"1.8.0_292\"\n"), Some(1));
        assert_eq!(
            java_major("openjdk version \"25-ea\" 2025-09-16\n"),
            Some(25)
        );
        assert_eq!(java_major("no java here"), None);
    }
}
