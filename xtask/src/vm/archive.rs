//! Debian's archive: files by checksum, and the newest package of a series from the signed lists.
//!
//! apt runs with its own sources, lists and cache below `target/vm`, so that the system's stay as
//! they are and nobody needs root.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::lock::{Lock, LockedKernel, LockedPackage};
use crate::shell;

/// Where each series lives. The stable suites and not their security updates: what a point release
/// brought stays until the next one, some months later.
const SERIES: [(&str, &str); 3] = [
    ("6.1", "bookworm"),
    ("6.12", "trixie"),
    ("newest", "trixie-backports"),
];
/// Depends on the current kernel of its suite. Cloud kernels: everything a virtual machine needs, and
/// a third of the size.
const META_PACKAGE: &str = "linux-image-cloud-amd64";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const APT_HELPER: &str = "/usr/lib/apt/apt-helper";

/// Looks up the newest kernel of every series.
/// # Errors  when the lists cannot be fetched or verified, or do not name a kernel.
pub(super) fn newest_of_every_series() -> Result<Lock> {
    let kernels = SERIES.iter().map(|(series, suite)| newest(series, suite));
    Ok(Lock {
        kernels: kernels.collect::<Result<_>>()?,
    })
}

/// Looks up the newest kernel of one series in lists that apt fetched and whose signature it checked.
/// # Errors  as [`newest_of_every_series`].
pub(super) fn newest(series: &str, suite: &str) -> Result<LockedKernel> {
    let lists = PackageLists::fetch(suite)?;
    let meta = lists.newest_stanza(META_PACKAGE)?;
    if !belongs_to(series, &meta.version) {
        bail!(
            "{suite} has {META_PACKAGE} {}, which is not {series}: adapt SERIES",
            meta.version
        );
    }
    let image = meta
        .depends_on("linux-image-")
        .with_context(|| format!("{META_PACKAGE} {} names no kernel image", meta.version))?;
    let release = image.trim_start_matches("linux-image-").to_owned();
    let image = lists.newest_stanza(&image)?;
    // Since 7.x the image package is empty and depends on one with the kernel and one with modules.
    let parts: Vec<_> = ["linux-binary-", "linux-modules-"]
        .iter()
        .filter_map(|prefix| image.depends_on(prefix))
        .map(|name| lists.newest_stanza(&name))
        .collect::<Result<_>>()?;
    let stanzas = if parts.is_empty() { vec![image] } else { parts };
    let packages = stanzas.into_iter().map(Stanza::locked).collect();
    Ok(LockedKernel {
        series: series.to_owned(),
        suite: suite.to_owned(),
        release,
        packages,
    })
}

/// Downloads a package to `target` and checks its SHA-256.
/// # Errors  when the archive no longer has it, or has something else under its name.
pub(super) fn download(package: &LockedPackage, target: &Path) -> Result<()> {
    let address = format!("{}/{}", mirror(), package.path);
    eprintln!("vm: downloading {} {}", package.name, package.version);
    // apt's own downloader compares the checksum before it puts the file in place.
    shell::output(
        Command::new(APT_HELPER)
            .arg("download-file")
            .arg(&address)
            .arg(target)
            .arg(format!("SHA256:{}", package.sha256)),
    )
    .map(drop)
    .with_context(|| format!("{} {} cannot be downloaded", package.name, package.version))
}

/// Returns the SHA-256 of a file, in hexadecimal.
/// # Errors  when the file cannot be read.
pub(super) fn sha256(file: &Path) -> Result<String> {
    let line = shell::output(Command::new("sha256sum").arg(file))?;
    Ok(line
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned())
}

/// The archive to ask; `SLICE_DEBIAN_MIRROR` names a nearer one.
fn mirror() -> String {
    let given = std::env::var("SLICE_DEBIAN_MIRROR").ok();
    let mirror = given.unwrap_or_else(|| "http://deb.debian.org/debian".to_owned());
    mirror.trim_end_matches('/').to_owned()
}

fn belongs_to(series: &str, version: &str) -> bool {
    series == "newest" || version.starts_with(&format!("{series}."))
}

/// The package lists of one suite, with a configuration of apt that knows nothing else.
struct PackageLists {
    configuration: PathBuf,
}

/// One package as the lists describe it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Stanza {
    package: String,
    version: String,
    depends: String,
    filename: String,
    sha256: String,
}

impl PackageLists {
    fn fetch(suite: &str) -> Result<Self> {
        if !Path::new(KEYRING).is_file() {
            bail!(
                "{KEYRING} is missing, so Debian's lists cannot be trusted: install the package \
                   debian-archive-keyring"
            );
        }
        let folder = shell::target_dir().join("vm/apt").join(suite);
        for part in [
            "lists/partial",
            "cache/archives/partial",
            "etc/apt.conf.d",
            "etc/preferences.d",
        ] {
            let part = folder.join(part);
            fs::create_dir_all(&part)
                .with_context(|| format!("cannot create {}", part.display()))?;
        }
        let sources = format!("deb [signed-by={KEYRING}] {} {suite} main\n", mirror());
        fs::write(folder.join("etc/sources.list"), sources).context("cannot write sources.list")?;
        let configuration = folder.join("apt.conf");
        fs::write(&configuration, apt_configuration(&folder)).context("cannot write apt.conf")?;
        let lists = Self { configuration };
        eprintln!("vm: fetching the package lists of {suite}");
        shell::output(
            lists
                .command("apt-get")
                .args(["--quiet", "--error-on=any", "update"]),
        )
        .with_context(|| format!("the package lists of Debian {suite} cannot be fetched"))?;
        Ok(lists)
    }

    /// A suite lists several builds of a kernel only under different names, so one name has one stanza,
    /// or the newest comes first.
    fn newest_stanza(&self, package: &str) -> Result<Stanza> {
        let text =
            shell::output(
                self.command("apt-cache")
                    .args(["show", "--no-all-versions", package]),
            )?;
        let stanza = parse_stanza(&text);
        if stanza.filename.is_empty() || stanza.sha256.len() != 64 {
            bail!("Debian's lists have no usable entry for {package}");
        }
        Ok(stanza)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("APT_CONFIG", &self.configuration)
            .env("LC_ALL", "C");
        command
    }
}

impl Stanza {
    fn depends_on(&self, prefix: &str) -> Option<String> {
        self.depends
            .split([',', '|'])
            .filter_map(|dependency| dependency.split_whitespace().next())
            .find(|name| name.starts_with(prefix))
            .map(str::to_owned)
    }

    fn locked(self) -> LockedPackage {
        let Self {
            package: name,
            version,
            filename: path,
            sha256,
            ..
        } = self;
        LockedPackage {
            name,
            version,
            path,
            sha256,
        }
    }
}

fn apt_configuration(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "Dir::Etc \"{folder}/etc\";\n\
         Dir::Etc::SourceList \"{folder}/etc/sources.list\";\n\
         Dir::Etc::SourceParts \"-\";\n\
         Dir::State \"{folder}\";\n\
         Dir::State::Lists \"{folder}/lists\";\n\
         Dir::State::Status \"/dev/null\";\n\
         Dir::Cache \"{folder}/cache\";\n\
         APT::Architecture \"amd64\";\n\
         APT::Architectures \"amd64\";\n\
         APT::Sandbox::User \"\";\n\
         Acquire::Languages \"none\";\n"
    )
}

fn parse_stanza(text: &str) -> Stanza {
    let mut stanza = Stanza::default();
    for line in text.lines().take_while(|line| !line.is_empty()) {
        let Some((name, value)) = line.split_once(": ") else {
            continue;
        };
        let field = match name {
            "Package" => &mut stanza.package,
            "Version" => &mut stanza.version,
            "Depends" => &mut stanza.depends,
            "Filename" => &mut stanza.filename,
            "SHA256" => &mut stanza.sha256,
            _ => continue,
        };
        value.clone_into(field);
    }
    stanza
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stanza_names_the_packages_that_hold_a_split_kernel() {
        let text = "Package: linux-image-7.3.4-cloud-amd64\nVersion: 7.3.4-1\n\
            Depends: dracut | initramfs-tools (>= 0.120), linux-binary-7.3.4-cloud-amd64 (= 7.3.4-1), \
            linux-modules-7.3.4-cloud-amd64 (= 7.3.4-1)\nFilename: pool/x.deb\nSHA256: 00\n\n\
            Package: linux-image-7.2.1-cloud-amd64\nVersion: 7.2.1-1\n";
        let stanza = parse_stanza(text);
        assert_eq!(stanza.version, "7.3.4-1");
        let binary = stanza.depends_on("linux-binary-");
        assert_eq!(binary.as_deref(), Some("linux-binary-7.3.4-cloud-amd64"));
        assert_eq!(stanza.depends_on("linux-image-"), None);
    }

    #[test]
    fn a_series_is_not_mistaken_for_one_that_begins_alike() {
        assert!(belongs_to("6.1", "6.1.176-1"));
        assert!(!belongs_to("6.1", "6.12.117-1"));
        assert!(belongs_to("newest", "7.3.4-1~bpo13+1"));
    }
}
