//! One number that changes when any layout does.

use super::*;

/// FNV-1a (64 bits) over every layout's shape and every map's name, sizes and capacity.
pub(super) const fn of_all_layouts() -> u64 {
    let shapes = [
        Endpoint::SHAPE,
        LocalKey::SHAPE,
        LocalEndpoint::SHAPE,
        RouteKey::SHAPE,
        Route::SHAPE,
        Slice::SHAPE,
        Settings::SHAPE,
        ReplyKey::SHAPE,
        Peer::SHAPE,
        PathGroup::SHAPE,
        Path::SHAPE,
        PolicyKey::SHAPE,
        PolicyEntry::SHAPE,
        ClassKey::SHAPE,
        Class::SHAPE,
        CounterKey::SHAPE,
        Counter::SHAPE,
        DropKey::SHAPE,
    ];
    let mut hash = 0xcbf2_9ce4_8422_2325;
    let mut i = 0;
    while i < shapes.len() {
        hash = numbers(hash, shapes[i]);
        i += 1;
    }
    let mut i = 0;
    while i < MAPS.len() {
        let map = &MAPS[i];
        hash = bytes(hash, map.name.as_bytes());
        hash = numbers(
            hash,
            &[
                map.kind as usize,
                map.key_bytes,
                map.value_bytes,
                map.capacity,
            ],
        );
        i += 1;
    }
    hash
}

const fn numbers(mut hash: u64, numbers: &[usize]) -> u64 {
    let mut i = 0;
    while i < numbers.len() {
        hash = bytes(hash, &(numbers[i] as u64).to_le_bytes());
        i += 1;
    }
    hash
}

const fn bytes(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        i += 1;
    }
    hash
}
