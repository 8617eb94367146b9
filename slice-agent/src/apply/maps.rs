//! The pinned maps: compared with the layout before use, opened with their types, read and written.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use aya::Pod;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{
    Array, ArrayOfMaps, HashMap, Map, MapData, MapError, MapInfo, MapType, PerCpuArray,
    PerCpuHashMap,
};
use slice_common::layout::{self, LearntMtu, MAPS, MapKind, MapSpec, PathEnds};

use super::pins::Pins;
use super::table::create_trie;
use crate::image::Prefixed;

/// What is pinned, compared with the layout.
#[derive(Debug, PartialEq, Eq)]
pub enum Layout {
    /// No map is pinned.
    Absent,
    /// Every map is there and is what the layout says.
    Right,
    /// Some are not; one sentence each.
    Wrong(Vec<String>),
}

/// Compares every pinned map with the layout: type, key, value and capacity. aya 0.14 does not, and
/// a wrong size would corrupt this process's memory.
pub fn check_layout(pins: &Pins) -> Result<Layout> {
    let (mut present, mut wrong) = (0, Vec::new());
    for spec in MAPS {
        let path = pins.map(spec.name);
        match pinned_info(&path)? {
            Some(info) => {
                present += 1;
                wrong.extend(difference(spec, &info, &path)?);
            }
            None => wrong.push(format!("{} is not pinned", spec.name)),
        }
    }
    Ok(match (present, wrong.is_empty()) {
        (0, _) => Layout::Absent,
        (_, true) => Layout::Right,
        (_, false) => Layout::Wrong(wrong),
    })
}

pub(super) fn pinned_info(path: &Path) -> Result<Option<MapInfo>> {
    match MapInfo::from_pin(path) {
        Ok(info) => Ok(Some(info)),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == ErrorKind::NotFound => {
            Ok(None)
        }
        Err(error) => {
            Err(error).with_context(|| format!("cannot open the pinned map {}", path.display()))
        }
    }
}

fn difference(spec: &MapSpec, info: &MapInfo, path: &Path) -> Result<Option<String>> {
    let prefix_bytes = size_of::<u32>();
    let table = (
        MapType::LpmTrie,
        spec.key_bytes + prefix_bytes,
        spec.value_bytes,
        spec.capacity,
    );
    let wanted = match spec.kind {
        MapKind::Array => (
            MapType::Array,
            spec.key_bytes,
            spec.value_bytes,
            spec.capacity,
        ),
        MapKind::Hash => (
            MapType::Hash,
            spec.key_bytes,
            spec.value_bytes,
            spec.capacity,
        ),
        MapKind::LruHash => (
            MapType::LruHash,
            spec.key_bytes,
            spec.value_bytes,
            spec.capacity,
        ),
        MapKind::PerCpuHash => (
            MapType::PerCpuHash,
            spec.key_bytes,
            spec.value_bytes,
            spec.capacity,
        ),
        MapKind::PerCpuArray => (
            MapType::PerCpuArray,
            spec.key_bytes,
            spec.value_bytes,
            spec.capacity,
        ),
        MapKind::Programs => (
            MapType::ProgramArray,
            spec.key_bytes,
            spec.value_bytes,
            spec.capacity,
        ),
        MapKind::SwappedLpmTrie => (MapType::ArrayOfMaps, 4, 4, 1),
    };
    if let Some(text) = compare(spec.name, wanted, info)? {
        return Ok(Some(text));
    }
    if spec.kind == MapKind::SwappedLpmTrie
        && let Some(inner) = inner_table(path)?
    {
        return compare(&format!("the table in {}", spec.name), table, &inner);
    }
    Ok(None)
}

type Shape = (MapType, usize, usize, usize);

fn compare(name: &str, wanted: Shape, info: &MapInfo) -> Result<Option<String>> {
    let found = (
        info.map_type()?,
        info.key_size() as usize,
        info.value_size() as usize,
        info.max_entries() as usize,
    );
    let text = |(kind, key, value, entries): Shape| {
        format!("{kind:?} with {key}-byte keys, {value}-byte values and {entries} entries")
    };
    Ok((found != wanted)
        .then(|| format!("{name} is a {}, expected a {}", text(found), text(wanted))))
}

/// The table that a swapped map holds; `None` before the first swap.
fn inner_table(path: &Path) -> Result<Option<MapInfo>> {
    let outer: ArrayOfMaps<MapData> =
        ArrayOfMaps::try_from(Map::ArrayOfMaps(MapData::from_pin(path)?))?;
    match outer.get(&0, 0) {
        Ok(inner) => Ok(Some(inner.info()?)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// The pinned maps, opened on each use: a reader never keeps a table that was swapped out.
#[derive(Clone, Debug)]
pub struct Maps {
    pins: Pins,
}

impl Maps {
    /// Maps whose layout was found right by [`check_layout`].
    pub fn new(pins: Pins) -> Self {
        Self { pins }
    }

    /// The kernel's numbers of the pinned maps.
    pub fn ids(&self) -> Result<Vec<u32>> {
        let infos = MAPS
            .iter()
            .map(|spec| pinned_info(&self.pins.map(spec.name)));
        let infos = infos.collect::<Result<Vec<_>>>()?;
        Ok(infos.into_iter().flatten().map(|info| info.id()).collect())
    }

    pub fn array<V: Pod>(&self, name: &str) -> Result<Array<MapData, V>> {
        Ok(Array::try_from(Map::Array(self.open(name)?))?)
    }

    pub fn hash<K: Pod, V: Pod>(&self, name: &str) -> Result<HashMap<MapData, K, V>> {
        Ok(HashMap::try_from(Map::HashMap(self.open(name)?))?)
    }

    pub fn per_cpu_hash<K: Pod, V: Pod>(&self, name: &str) -> Result<PerCpuHashMap<MapData, K, V>> {
        Ok(PerCpuHashMap::try_from(Map::PerCpuHashMap(
            self.open(name)?,
        ))?)
    }

    pub fn per_cpu_array<V: Pod>(&self, name: &str) -> Result<PerCpuArray<MapData, V>> {
        Ok(PerCpuArray::try_from(Map::PerCpuArray(self.open(name)?))?)
    }

    /// Writes one entry; an error says which map is full or refused it.
    pub fn put<K: Pod, V: Pod>(&self, name: &str, key: K, value: V) -> Result<()> {
        self.hash(name)?
            .insert(key, value, 0)
            .map_err(|error| explain(name, error))
    }

    /// Removes one entry; one that is gone is fine.
    pub fn remove<K: Pod, V: Pod>(&self, name: &str, key: K) -> Result<()> {
        match self.hash::<K, V>(name)?.remove(&key) {
            Err(error) if !is_absent(&error) => Err(explain(name, error)),
            _ => Ok(()),
        }
    }

    /// Forgets what routers said of a path that is about to change or to go.
    pub fn forget_learnt(&self, path: u32) -> Result<()> {
        match self.hash::<u32, layout::Path>("PATHS")?.get(&path, 0) {
            Ok(path) => self.remove::<PathEnds, LearntMtu>("PATH_MTU", path.ends()),
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(error).context("cannot read the map PATHS"),
        }
    }

    /// Every entry of a map that the programs write seldom, if at all.
    pub fn entries<K: Pod + Ord, V: Pod>(&self, name: &str) -> Result<BTreeMap<K, V>> {
        self.hash(name)?
            .iter()
            .collect::<Result<_, _>>()
            .with_context(|| format!("cannot read the map {name}"))
    }

    /// Every entry of the table in force; none before the first swap.
    pub fn table<K: Pod + Ord, V: Pod>(&self, name: &str) -> Result<BTreeMap<Prefixed<K>, V>> {
        let what = || format!("cannot read the map {name}");
        let table: LpmTrie<MapData, K, V> = match self.tables(name)?.get(&0, 0) {
            Ok(table) => table,
            Err(MapError::KeyNotFound) => return Ok(BTreeMap::new()),
            Err(error) => return Err(error).with_context(what),
        };
        let mut entries = BTreeMap::new();
        for entry in table.iter() {
            let (key, value) = entry.with_context(what)?;
            entries.insert(
                Prefixed {
                    key: key.data(),
                    prefix_bits: key.prefix_len(),
                },
                value,
            );
        }
        Ok(entries)
    }

    /// Fills a new table and puts it in the old one's place at once.
    pub fn swap<K: Pod, V: Pod>(&self, name: &str, table: &BTreeMap<Prefixed<K>, V>) -> Result<()> {
        let spec = spec(name)?;
        let mut fresh: LpmTrie<MapData, K, V> = create_trie(spec.capacity as u32)
            .with_context(|| format!("cannot create a table for {name}"))?;
        for (at, value) in table {
            fresh
                .insert(&Key::new(at.prefix_bits, at.key), *value, 0)
                .map_err(|error| explain(name, error))?;
        }
        self.tables::<K, V>(name)?
            .set(0, &fresh, 0)
            .map_err(|error| explain(name, error))
    }

    fn tables<K: Pod, V: Pod>(
        &self,
        name: &str,
    ) -> Result<ArrayOfMaps<MapData, LpmTrie<MapData, K, V>>> {
        Ok(ArrayOfMaps::try_from(Map::ArrayOfMaps(self.open(name)?))?)
    }

    fn open(&self, name: &str) -> Result<MapData> {
        let path = self.pins.map(name);
        MapData::from_pin(&path)
            .with_context(|| format!("cannot open the pinned map {}", path.display()))
    }
}

/// The map's line in the layout.
pub fn spec(name: &str) -> Result<&'static MapSpec> {
    match MAPS.iter().find(|spec| spec.name == name) {
        Some(spec) => Ok(spec),
        None => bail!("the layout has no map {name}"),
    }
}

fn is_absent(error: &MapError) -> bool {
    match error {
        MapError::KeyNotFound | MapError::ElementNotFound => true,
        MapError::SyscallError(error) => error.io_error.kind() == ErrorKind::NotFound,
        _ => false,
    }
}

fn explain(name: &str, error: MapError) -> anyhow::Error {
    let full = matches!(&error, MapError::SyscallError(error)
        if matches!(error.io_error.raw_os_error(), Some(libc::E2BIG | libc::ENOSPC)));
    match spec(name) {
        Ok(spec) if full => anyhow!(
            "the map {name} is full: it holds {} entries; {}",
            spec.capacity,
            spec.when_full
        ),
        _ => anyhow!(error).context(format!("cannot write the map {name}")),
    }
}
