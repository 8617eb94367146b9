//! What did the first fragment of this datagram say?
//!
//! Later fragments have no ports. What is denied to the first is denied to all: without it nobody puts
//! them together, so nothing needs to be remembered of it.

use slice_common::address::Port;
use slice_common::drop_reason::DropReason;
use slice_common::layout::{Class, FirstFragment, FragmentKey};
use slice_common::wire::ipv4::Ipv4Header;

use crate::maps;
use crate::stage::parse::Headers;
use crate::stage::policy::Conversation;

/// Notes what a first fragment says that was let pass.
#[inline(always)]
pub(crate) fn remember_first(conversation: &Conversation, ip: &Ipv4Header, class: Class) {
    if !ip.is_fragment() {
        return;
    }
    let transport = &conversation.transport;
    let first = FirstFragment {
        source_port: transport.source_port.network_word(),
        destination_port: transport.destination_port.network_word(),
        class,
    };
    maps::set_first_fragment(&key(conversation, ip), first);
}

/// What the first fragment said, for a later one. One that begins in the header of TCP would overwrite
/// what was judged.
#[inline(always)]
pub(crate) fn first_of(
    conversation: &Conversation,
    ip: &Ipv4Header,
) -> Result<FirstFragment, DropReason> {
    if ip.begins_in_tcp_header() {
        return Err(DropReason::Fragment);
    }
    maps::first_fragment(&key(conversation, ip)).ok_or(DropReason::Fragment)
}

/// Gives a later fragment the ports of its first, so that the underlay sends both the same way.
#[inline(always)]
pub(crate) fn lend_ports(headers: &mut Headers, first: &FirstFragment) {
    headers.transport.source_port = Port::from_network_word(first.source_port);
    headers.transport.destination_port = Port::from_network_word(first.destination_port);
}

#[inline(always)]
fn key(conversation: &Conversation, ip: &Ipv4Header) -> FragmentKey {
    FragmentKey {
        slice: conversation.slice,
        source: conversation.source,
        destination: conversation.destination,
        identification: ip.identification(),
        protocol: ip.protocol(),
        reserved: 0,
    }
}
