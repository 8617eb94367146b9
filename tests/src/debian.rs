//! The programs that the workloads start, and where Debian and Ubuntu have them.

use std::env;

/// A program that the workloads start, and the Debian or Ubuntu packages that provide it.
#[derive(Clone, Copy, Debug)]
pub struct DebianPackage {
    pub binary: &'static str,
    /// The first that the release has is the right one.
    pub packages: &'static [&'static str],
    pub needed_for: &'static str,
}

/// Everything that the workloads start.
///
/// Redis comes from `redis-tools` alone: its `redis-check-rdb` is the server under another name,
/// and the package `redis-server` would start a service on the machine.
pub const DEBIAN_PACKAGES: &[DebianPackage] = &[
    DebianPackage {
        binary: "ip",
        packages: &["iproute2"],
        needed_for: "network namespaces",
    },
    DebianPackage {
        binary: "ping",
        packages: &["iputils-ping"],
        needed_for: "round-trip times",
    },
    DebianPackage {
        binary: "iperf3",
        packages: &["iperf3"],
        needed_for: "throughput of one TCP flow",
    },
    DebianPackage {
        binary: "redis-benchmark",
        packages: &["redis-tools"],
        needed_for: "throughput of requests and answers",
    },
    DebianPackage {
        binary: "java",
        packages: &[
            "openjdk-17-jre-headless",
            "openjdk-21-jre-headless",
            "default-jre-headless",
        ],
        needed_for: "Kafka",
    },
    DebianPackage {
        binary: "mvn",
        packages: &["maven"],
        needed_for: "fetching Kafka",
    },
];

/// The first of `programs` that is not in PATH, with the command that installs it.
pub fn missing_program(programs: &[&str]) -> Option<String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = |name: &str| env::split_paths(&path).any(|folder| folder.join(name).is_file());
    let missing = programs.iter().find(|program| !found(program))?;
    let known = DEBIAN_PACKAGES
        .iter()
        .find(|package| package.binary == *missing);
    let packages = known.map_or((*missing).to_owned(), |known| known.packages.join(" or "));
    Some(format!(
        "{missing} is not in PATH; Debian and Ubuntu: apt install {packages}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_its_packages() {
        assert_eq!(missing_program(&["sh"]), None);
        assert_eq!(
            missing_program(&["sh", "no-such-program"]).unwrap(),
            "no-such-program is not in PATH; Debian and Ubuntu: apt install no-such-program"
        );
    }

    #[test]
    fn every_program_is_listed_once_with_a_package() {
        let mut binaries: Vec<&str> = DEBIAN_PACKAGES.iter().map(|known| known.binary).collect();
        binaries.sort_unstable();
        binaries.dedup();
        assert_eq!(binaries.len(), DEBIAN_PACKAGES.len());
        assert!(
            DEBIAN_PACKAGES
                .iter()
                .all(|known| !known.packages.is_empty())
        );
    }
}
