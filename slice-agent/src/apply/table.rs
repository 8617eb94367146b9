//! Tables that take the place of others in a map of maps.
//!
//! The kernel compares a new inner map with the one that the object was loaded with. On 6.1 that
//! comparison also sees whether the maps have type information (an inner map without it has an
//! "invalid" place for a timer, one with it has "none", and the two differ), so a table made by
//! `LpmTrie::create` is refused there with EINVAL; 6.12 takes it. This one comes with types: structs
//! of the right sizes.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};
use aya::Pod;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Map, MapData};

/// Creates an empty longest-prefix table that can replace one of the object.
/// # Errors  when the kernel refuses the types or the map.
pub fn create_trie<K: Pod, V: Pod>(capacity: u32) -> Result<LpmTrie<MapData, K, V>> {
    let (key_bytes, value_bytes) = (size_of::<Key<K>>() as u32, size_of::<V>() as u32);
    let types =
        load_types(&types(key_bytes, value_bytes)).context("cannot load type information")?;
    let request = CreateMap {
        map_type: LPM_TRIE,
        key_bytes,
        value_bytes,
        capacity,
        // Tries allocate as they grow; the kernel insists on the flag.
        flags: NO_PREALLOCATION,
        types: types.as_raw_fd().cast_unsigned(),
        key_type: KEY_TYPE,
        value_type: VALUE_TYPE,
        ..CreateMap::default()
    };
    let map = bpf(MAP_CREATE, &request).context("cannot create a longest-prefix table")?;
    let map = Map::LpmTrie(MapData::from_fd(map)?);
    Ok(LpmTrie::try_from(map)?)
}

// linux/bpf.h
const MAP_CREATE: libc::c_long = 0;
const BTF_LOAD: libc::c_long = 18;
const LPM_TRIE: u32 = 11;
const NO_PREALLOCATION: u32 = 1;

/// The part of `union bpf_attr` for `BPF_MAP_CREATE` up to the types.
#[repr(C)]
#[derive(Default)]
struct CreateMap {
    map_type: u32,
    key_bytes: u32,
    value_bytes: u32,
    capacity: u32,
    flags: u32,
    inner_map: u32,
    numa_node: u32,
    name: [u8; 16],
    ifindex: u32,
    types: u32,
    key_type: u32,
    value_type: u32,
}

/// The part of `union bpf_attr` for `BPF_BTF_LOAD`.
#[repr(C)]
#[derive(Default)]
struct LoadTypes {
    types: u64,
    log: u64,
    types_bytes: u32,
    log_bytes: u32,
    log_level: u32,
    reserved: u32,
}

fn load_types(blob: &[u8]) -> io::Result<OwnedFd> {
    let types = blob.as_ptr().addr() as u64;
    bpf(
        BTF_LOAD,
        &LoadTypes {
            types,
            types_bytes: blob.len() as u32,
            ..LoadTypes::default()
        },
    )
}

fn bpf<T>(command: libc::c_long, request: &T) -> io::Result<OwnedFd> {
    let (pointer, bytes) = ((&raw const *request), size_of::<T>());
    // SAFETY: the kernel reads `bytes` bytes of a request that outlives the call, and for BTF_LOAD the
    // blob that it points to, which its caller holds.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, pointer, bytes) };
    let fd = nix::errno::Errno::result(result).map_err(io::Error::from)?;
    // SAFETY: both commands return a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}

// Documentation/bpf/btf.rst: types are numbered from 1 in the order in which they are written.
const BYTE_TYPE: u32 = 1;
const KEY_TYPE: u32 = 3;
const VALUE_TYPE: u32 = 5;
const KIND_INTEGER: u32 = 1 << 24;
const KIND_ARRAY: u32 = 3 << 24;
const KIND_STRUCT: u32 = 4 << 24;

/// Type information with two structs: of `key_bytes` and of `value_bytes` bytes.
fn types(key_bytes: u32, value_bytes: u32) -> Vec<u8> {
    const NAMES: &[u8] = b"\0byte\0bytes\0key\0value\0";
    let [byte, bytes, key, value] = [1, 6, 12, 16];
    let mut words = vec![byte, KIND_INTEGER, 1, 8];
    for (name, size, array) in [
        (key, key_bytes, KEY_TYPE - 1),
        (value, value_bytes, VALUE_TYPE - 1),
    ] {
        words.extend([0, KIND_ARRAY, 0, BYTE_TYPE, BYTE_TYPE, size]);
        words.extend([name, KIND_STRUCT | 1, size, bytes, array, 0]);
    }
    let types_bytes = 4 * words.len() as u32;
    // Magic 0xeb9f, version 1, no flags; then where types and names are, from the header's end on.
    let header = [
        0x0001_eb9f,
        24,
        0,
        types_bytes,
        types_bytes,
        NAMES.len() as u32,
    ];
    let words = header.into_iter().chain(words);
    words
        .flat_map(u32::to_ne_bytes)
        .chain(NAMES.iter().copied())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_where_the_types_say() {
        let blob = types(12, 32);
        let names = &blob[24 + 4 * (4 + 2 * 12)..];
        let name = |at: usize| names[at..].split(|byte| *byte == 0).next().unwrap();
        assert_eq!(
            [name(1), name(6), name(12), name(16)],
            [&b"byte"[..], b"bytes", b"key", b"value"]
        );
    }
}
