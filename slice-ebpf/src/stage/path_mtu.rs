//! How large a packet does the way let through?

use slice_common::address::{Address, Port};
use slice_common::layout::{Path, PathEnds, Settings};
use slice_common::path_mtu;
use slice_common::wire::icmp;
use slice_common::wire::ipv4::{HEADER_BYTES, Ipv4Header};
use slice_common::wire::transport::{ICMP, ICMP_HEADER_BYTES, UDP};
use slice_common::wire::{ETHERNET_BYTES, vxlan};

use crate::maps;
use crate::packet::{Packet, now_ns};

/// The largest outer packet that fits the path now.
#[inline(always)]
pub(crate) fn effective_bytes(path: &Path) -> u32 {
    match maps::mtus_hold_until_ns() {
        0 => path.mtu,
        until_ns => lowered(path, until_ns),
    }
}

#[inline(always)]
fn lowered(path: &Path, until_ns: u64) -> u32 {
    let now_ns = now_ns();
    if now_ns >= until_ns {
        maps::set_mtus_hold_until_ns(0);
        return path.mtu;
    }
    match maps::learnt_mtu(&path.ends()) {
        Some(learnt) => path_mtu::effective_bytes(path.mtu, learnt, now_ns),
        None => path.mtu,
    }
}

/// Takes note when a router tells this node that a tunnel packet of its own was too big on the way to a
/// peer. The message itself goes on to the host.
#[inline(always)]
pub(crate) fn listen(packet: Packet, outer: &Ipv4Header, settings: &Settings) {
    let is_for_us = outer.protocol() == ICMP
        && outer.destination() == settings.underlay_address
        && packet.is_for_this_host()
        && !outer.is_fragment();
    if !is_for_us
        || outer
            .check(packet.len().saturating_sub(ETHERNET_BYTES))
            .is_err()
    {
        return;
    }
    let Some((said_bytes, quoted)) = complaint(packet, outer) else {
        return;
    };
    let now_ns = now_ns();
    let ends = PathEnds {
        local: settings.underlay_address,
        remote: quoted.remote,
    };
    if quoted.local != ends.local
        || quoted.port.network_word() != settings.tunnel_port
        || maps::peer(ends.remote).is_none()
    {
        return;
    }
    let known = maps::learnt_mtu(&ends);
    if let Some(news) = path_mtu::learn(known, said_bytes, quoted.total_bytes, now_ns) {
        maps::set_learnt_mtu(&ends, news);
        maps::set_mtus_hold_until_ns(path_mtu::holds_until_ns(now_ns));
    }
}

/// What a router quotes of a packet that looks like our tunnel's.
struct Quoted {
    local: Address,
    remote: Address,
    port: Port,
    total_bytes: u32,
}

/// The size that would have fit, and of which packet that is said.
#[inline(always)]
fn complaint(packet: Packet, outer: &Ipv4Header) -> Option<(u32, Quoted)> {
    let offset = ETHERNET_BYTES + outer.header_bytes();
    let quote_offset = offset + ICMP_HEADER_BYTES;
    packet.make_readable(quote_offset + HEADER_BYTES + 4);
    let said: [u16; 4] = packet.load(offset)?;
    if said[0].to_ne_bytes() != icmp::UNREACHABLE_FRAGMENTATION_NEEDED {
        return None;
    }
    let ip: Ipv4Header = packet.load(quote_offset)?;
    let ports: [u16; 2] = packet.load(quote_offset + HEADER_BYTES)?;
    let is_like_ours = ip.first_byte() == icmp::PLAIN_HEADER
        && ip.protocol() == UDP
        && !ip.is_fragment()
        && vxlan::is_source_port(Port::from_network_word(ports[0]));
    is_like_ours.then_some((
        u16::from_be(said[3]) as u32,
        Quoted {
            local: ip.source(),
            remote: ip.destination(),
            port: Port::from_network_word(ports[1]),
            total_bytes: ip.total_bytes(),
        },
    ))
}
