//! Where everything is pinned: `<bpffs>/sliceplane/v<layout version>/{maps,links,clsact}`.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use slice_common::layout::LAYOUT_VERSION;

use crate::image::{Attachment, Program};

const ROOT: &str = "sliceplane";

/// The pin directory of one layout version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pins {
    root: PathBuf,
    dir: PathBuf,
}

impl Pins {
    /// The directory of this agent's layout on `bpffs`.
    pub fn current(bpffs: &Path) -> Self {
        let root = bpffs.join(ROOT);
        let dir = root.join(format!("v{LAYOUT_VERSION}"));
        Self { root, dir }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn maps(&self) -> PathBuf {
        self.dir.join("maps")
    }

    pub fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    pub fn links(&self) -> PathBuf {
        self.dir.join("links")
    }

    pub fn link(&self, at: &Attachment) -> PathBuf {
        self.links().join(link_file(at))
    }

    /// One empty directory for each interface that got its clsact qdisc from us: a mark with the
    /// same life as the filters, which files under `--state-dir` do not have.
    pub fn clsact(&self) -> PathBuf {
        self.root.join("clsact")
    }

    pub fn create(&self) -> Result<()> {
        for dir in [self.maps(), self.links(), self.clsact()] {
            fs::create_dir_all(&dir)
                .with_context(|| format!("cannot create the pin directory {}", dir.display()))?;
        }
        Ok(())
    }

    /// Directories left by agents of another layout, or put aside because of damage.
    pub fn others(&self) -> Result<Vec<Self>> {
        let mut others = Vec::new();
        for dir in entries(&self.root)? {
            if dir != self.dir && dir != self.clsact() {
                others.push(Self {
                    root: self.root.clone(),
                    dir,
                });
            }
        }
        Ok(others)
    }

    /// Renames the directory to a free name, from where its links are taken over one by one.
    pub fn put_aside(&self) -> Result<PathBuf> {
        let free = (1..)
            .map(|number| {
                self.root
                    .join(format!("v{LAYOUT_VERSION}-damaged-{number}"))
            })
            .find(|path| !path.exists())
            .unwrap_or_else(|| self.root.join("damaged"));
        fs::rename(&self.dir, &free).with_context(|| {
            format!("cannot rename {} to {}", self.dir.display(), free.display())
        })?;
        Ok(free)
    }

    /// The pinned links of this directory, and pins that are no link of ours.
    pub fn pinned_links(&self) -> Result<Vec<(PathBuf, Option<Attachment>)>> {
        Ok(entries(&self.links())?
            .into_iter()
            .map(|path| {
                let at = path
                    .file_name()
                    .and_then(|name| parse_link_file(&name.to_string_lossy()));
                (path, at)
            })
            .collect())
    }

    /// Removes the directory and every pin in it; what is not attached then ends.
    pub fn remove(&self) -> Result<()> {
        remove_tree(&self.dir)
    }
}

/// Removes a tree of pins; one that is not there is fine.
pub fn remove_tree(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove the pins in {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// Sorted paths in `dir`; none when there is no such directory.
pub fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let listing = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        listing => listing,
    };
    let mut paths = listing
        .and_then(|entries| {
            entries
                .map(|entry| Ok(entry?.path()))
                .collect::<Result<Vec<_>, _>>()
        })
        .with_context(|| format!("cannot list {}", dir.display()))?;
    paths.sort();
    Ok(paths)
}

/// bpffs reserves dots in names (kernel/bpf/inode.c, `bpf_lookup`), interface names do not.
pub fn escape(interface: &str) -> String {
    interface.replace('%', "%25").replace('.', "%2e")
}

pub fn unescape(file: &str) -> String {
    file.replace("%2e", ".").replace("%25", "%")
}

fn link_file(at: &Attachment) -> String {
    format!(
        "{}-{}-{}",
        at.ifindex,
        escape(&at.interface),
        at.program.name()
    )
}

fn parse_link_file(name: &str) -> Option<Attachment> {
    let (ifindex, rest) = name.split_once('-')?;
    let (interface, program) = rest.rsplit_once('-')?;
    let program = Program::ALL
        .into_iter()
        .find(|known| known.name() == program)?;
    Some(Attachment {
        interface: unescape(interface),
        ifindex: ifindex.parse().ok()?,
        program,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(interface: &str, ifindex: u32) -> Attachment {
        Attachment {
            interface: interface.into(),
            ifindex,
            program: Program::PodEgress,
        }
    }

    #[test]
    fn the_name_of_a_link_pin_leads_back_to_its_attachment() {
        for interface in ["p-kafka-0", "eth0.100", "50%.x", "nic0"] {
            let name = link_file(&at(interface, 12));
            assert!(!name.contains('.'), "{name}: bpffs refuses dots");
            assert_eq!(parse_link_file(&name), Some(at(interface, 12)));
        }
        assert_eq!(link_file(&at("p-kafka-0", 12)), "12-p-kafka-0-pod_egress");
    }

    #[test]
    fn a_name_that_is_not_ours_is_no_link() {
        for name in [
            "",
            "12",
            "12-nic0",
            "x-nic0-pod_egress",
            "12-nic0-pod_other",
        ] {
            assert_eq!(parse_link_file(name), None, "{name}");
        }
    }

    #[test]
    fn a_damaged_directory_is_put_aside_under_a_free_name_and_found_again() {
        let bpffs = tempfile::tempdir().unwrap();
        let pins = Pins::current(bpffs.path());
        pins.create().unwrap();
        assert_eq!(pins.others().unwrap(), []);
        let first = pins.put_aside().unwrap();
        pins.create().unwrap();
        let second = pins.put_aside().unwrap();
        pins.create().unwrap();
        let others: Vec<_> = pins
            .others()
            .unwrap()
            .iter()
            .map(|o| o.dir().to_owned())
            .collect();
        assert_eq!(others, [first, second]);
        for other in pins.others().unwrap() {
            other.remove().unwrap();
        }
        assert_eq!(pins.others().unwrap(), []);
    }
}
