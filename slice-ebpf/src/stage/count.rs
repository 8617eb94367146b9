//! How much went where?

use slice_common::layout::{CounterKey, Direction};

use crate::maps;
use crate::stage::parse::Headers;

/// Counts the inner packet.
#[inline(always)]
pub(crate) fn traffic(
    headers: &Headers,
    slice: u32,
    cluster: u32,
    class: u8,
    direction: Direction,
) {
    let key = CounterKey {
        slice,
        cluster,
        class,
        direction: direction.number(),
        reserved: 0,
    };
    maps::count_traffic(key, headers.ip.total_bytes());
}
