//! What a node has, and what the kernel has of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use slice_agent::apply::maps::Maps;
use slice_agent::apply::pins::Pins;
use slice_agent::apply::tcx::{self, LinkFacts};
use slice_common::layout::MAPS;
use slice_tests::lab::Node;

pub(crate) type Links = BTreeMap<PathBuf, LinkFacts>;
/// By node, then by part.
pub(crate) type Inventories = BTreeMap<&'static str, BTreeMap<&'static str, String>>;

pub(crate) fn inventory(node: &Node) -> Result<BTreeMap<&'static str, String>> {
    let commands: [(&str, &str, &[&str]); 6] = [
        ("link", "ip", &["-j", "link", "show"]),
        ("address", "ip", &["-4", "-j", "addr", "show"]),
        ("rule", "ip", &["-j", "rule", "show"]),
        ("rule of IPv6", "ip", &["-6", "-j", "rule", "show"]),
        ("route", "ip", &["-j", "route", "show", "table", "all"]),
        ("qdisc", "tc", &["-j", "qdisc", "show"]),
    ];
    let mut parts = BTreeMap::new();
    for (part, program, arguments) in commands {
        // A new bridge says UNKNOWN until its first port carries, some time after the lab is up.
        let shown = output(node, program, arguments)?.replace("\"UNKNOWN\"", "\"UP\"");
        parts.insert(part, shown);
    }
    parts.insert("pins", listing(&node.bpffs)?);
    parts.insert("state", listing(&node.state_dir)?);
    Ok(parts)
}

pub(crate) fn output(node: &Node, program: &str, arguments: &[&str]) -> Result<String> {
    let output = node.netns.command(program).args(arguments).output()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    let command = format!("{}: {program} {}", node.name, arguments.join(" "));
    ensure!(output.status.success(), "{command}: {complaint}");
    Ok(String::from_utf8(output.stdout)?)
}

/// Every path below a folder, sorted; a folder that does not exist has none.
pub(crate) fn listing(folder: &Path) -> Result<String> {
    let mut paths = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        if !folder.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            folders.push(path.clone());
            paths.insert(path.display().to_string());
        }
    }
    Ok(paths.into_iter().collect::<Vec<_>>().join("\n"))
}

/// Ids of what nodes have in the kernel. Ids, not names: others on this machine may have programs
/// of the same names loaded.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct KernelObjects {
    pub(crate) links: BTreeSet<u32>,
    pub(crate) programs: BTreeSet<u32>,
    pub(crate) maps: BTreeSet<u32>,
}

impl KernelObjects {
    pub(crate) fn of(nodes: &[Node]) -> Result<Self> {
        let mut objects = Self::default();
        for node in nodes {
            let pins = Pins::current(&node.bpffs);
            for (pin, _) in pins.pinned_links()? {
                let facts = tcx::facts(&pin)?.context("a pin of a link")?;
                objects.links.insert(facts.link_id);
                objects.programs.insert(facts.program_id);
            }
            let maps = Maps::new(pins).ids()?;
            assert!(maps.len() >= MAPS.len(), "{}: {maps:?}", node.name);
            objects.maps.extend(maps);
        }
        Ok(objects)
    }

    /// Those of them that are in the kernel now.
    pub(crate) fn loaded(&self) -> Result<Self> {
        let links = aya::programs::loaded_links().map(|it| Ok(it?.id()));
        let programs = aya::programs::loaded_programs().map(|it| Ok(it?.id()));
        let maps = aya::maps::loaded_maps().map(|it| Ok(it?.id()));
        Ok(Self {
            links: &links.collect::<Result<BTreeSet<u32>>>()? & &self.links,
            programs: &programs.collect::<Result<BTreeSet<u32>>>()? & &self.programs,
            maps: &maps.collect::<Result<BTreeSet<u32>>>()? & &self.maps,
        })
    }
}
