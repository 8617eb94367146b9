//! Which class does this packet travel in?

use slice_common::address::Port;
use slice_common::layout::{Class, ClassKey};
use slice_common::wire::transport::Transport;

use crate::maps;

/// By its ports, else by who its ends are, whichever of them sends. Both ports count: bulk answers leave with
/// the listener's port as their source.
#[inline(always)]
pub(crate) fn class(slice: u32, transport: &Transport, ends: [Class; 2]) -> Class {
    by_port(slice, transport.protocol, transport.destination_port)
        .or_else(|| by_port(slice, transport.protocol, transport.source_port))
        .unwrap_or(Class::between(ends[0], ends[1]))
}

#[inline(always)]
fn by_port(slice: u32, protocol: u8, port: Port) -> Option<Class> {
    maps::class(ClassKey {
        slice,
        protocol,
        reserved: 0,
        port: port.network_word(),
    })
}
