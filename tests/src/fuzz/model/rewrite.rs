//! How a packet looks afterwards.
//!
//! Checksums are changed, not computed anew, so a wrong one stays wrong by as much. A sum of ones'
//! complement has two zeros; which of them comes out is the kernel's arithmetic (`csum_replace4` and
//! `csum_replace2` of include/net/checksum.h), repeated here over big-endian words: the sum does not
//! care for the order of bytes (RFC 1071, section 2).

use super::read::{Ip, TCP, UDP, four, half};
use crate::testrun::actors::DETOUR_SECRET;

const INNER_SOURCE: [u8; 6] = [0x02, 0x53, 0x4c, 0x50, 0, 1];
const INNER_DESTINATION: [u8; 6] = [0x02, 0x53, 0x4c, 0x50, 0, 2];

/// There are no more options than bytes for them.
const OPTIONS_MAX: usize = 40;

/// The places of the two addresses in an IPv4 header.
pub(super) const SOURCE: usize = 12;
pub(super) const DESTINATION: usize = 16;

/// Replaces an address in the IPv4 header at `ip`, and in the checksums that cover it.
pub(super) fn map_address(frame: &mut [u8], ip: usize, field: usize, to: [u8; 4]) {
    let from = four(frame, ip + field);
    if from == to {
        return;
    }
    let transport = ip + usize::from(frame[ip] & 15) * 4;
    let is_later_part = half(frame, ip + 6) & 0x1fff != 0;
    match frame[ip + 9] {
        // The first part has the checksum of all.
        _ if is_later_part => {}
        TCP => replace_word(frame, transport + 16, from, to),
        // Zero says that there is none, and none comes to be (RFC 768).
        UDP if half(frame, transport + 6) != 0 => {
            replace_word(frame, transport + 6, from, to);
            if half(frame, transport + 6) == 0 {
                frame[transport + 6..transport + 8].fill(0xff);
            }
        }
        _ => {}
    }
    map_quoted_address(frame, ip, field, to);
}

/// Replaces an address in an IPv4 header that is only quoted: no transport checksum comes with it.
pub(super) fn map_quoted_address(frame: &mut [u8], ip: usize, field: usize, to: [u8; 4]) {
    let from = four(frame, ip + field);
    if from == to {
        return;
    }
    replace_word(frame, ip + 10, from, to);
    frame[ip + field..ip + field + 4].copy_from_slice(&to);
}

/// Replaces the TOS byte.
pub(super) fn set_tos(frame: &mut [u8], ip: usize, tos: u8) {
    if frame[ip + 1] != tos {
        set_half(frame, ip, 0, [frame[ip], tos]);
    }
}

/// Replaces two bytes of the IPv4 header at `ip`, and in its checksum.
pub(super) fn set_half(frame: &mut [u8], ip: usize, field: usize, to: [u8; 2]) {
    let old = half(frame, ip + field);
    frame[ip + field..ip + field + 2].copy_from_slice(&to);
    let new = half(frame, ip + field);
    let sum = !half(frame, ip + 10);
    let sum = !add_half(add_half(sum, !old), new);
    frame[ip + 10..ip + 12].copy_from_slice(&sum.to_be_bytes());
}

/// Lowers the MSS that the TCP header at `tcp` announces to `largest`. Tells whether it did.
pub(super) fn lower_mss(frame: &mut [u8], tcp: usize, largest: u16) -> bool {
    let header_bytes = usize::from(frame[tcp + 12] >> 4) * 4;
    let Some(at) = find_mss(&frame[tcp + 20..tcp + header_bytes]) else {
        return false;
    };
    let place = tcp + 20 + at;
    let old = half(frame, place);
    if old <= largest {
        return false;
    }
    let (mut from, mut to) = (old.to_be_bytes(), largest.to_be_bytes());
    frame[place..place + 2].copy_from_slice(&to);
    // At an odd place the two bytes belong to two words, each as its other half.
    if at % 2 == 1 {
        from.reverse();
        to.reverse();
    }
    replace_word(
        frame,
        tcp + 16,
        [from[0], from[1], 0, 0],
        [to[0], to[1], 0, 0],
    );
    true
}

/// The place of the MSS value among the options. An option that reaches beyond the others ends the
/// search.
fn find_mss(options: &[u8]) -> Option<usize> {
    let mut at = 0;
    for _ in 0..OPTIONS_MAX {
        // Whoever looks for an option of four bytes may stop where no four are left.
        if at + 4 > options.len() {
            return None;
        }
        match (options[at], usize::from(options[at + 1])) {
            (0, _) => return None,
            (1, _) => at += 1,
            (2, 4) => return Some(at + 2),
            (_, 0 | 1) => return None,
            (_, length) => at += length,
        }
    }
    None
}

/// What the tunnel's headers say.
pub(super) struct Tunnel {
    pub(super) from: [u8; 4],
    pub(super) to: [u8; 4],
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
    pub(super) tos: u8,
    pub(super) slice: u32,
    pub(super) class: u8,
}

/// Puts the tunnel's headers between the Ethernet header and the packet.
pub(super) fn encapsulate(frame: &[u8], tunnel: &Tunnel) -> Vec<u8> {
    let inner_bytes = half(frame, 16);
    let ip = ipv4(tunnel.from, tunnel.to, tunnel.tos, UDP, 50 + inner_bytes);
    let mut out = frame[..14].to_vec();
    out.extend(ip);
    out.extend(tunnel.source_port.to_be_bytes());
    out.extend(tunnel.destination_port.to_be_bytes());
    out.extend((30 + inner_bytes).to_be_bytes());
    out.extend([0, 0]);
    let vni = tunnel.slice << 3 | u32::from(tunnel.class & 7);
    out.extend([8, 0, 0, 0]);
    out.extend((vni << 8).to_be_bytes());
    out.extend(INNER_DESTINATION);
    out.extend(INNER_SOURCE);
    out.extend([0x08, 0x00]);
    out.extend(&frame[14..]);
    out
}

/// Takes the tunnel's headers off.
pub(super) fn decapsulate(frame: &[u8]) -> Vec<u8> {
    let mut out = frame[..14].to_vec();
    out.extend(&frame[64..]);
    out
}

/// Addresses the frame to a pod's interface.
pub(super) fn address_frame(frame: &mut [u8], to: [u8; 6]) {
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&INNER_SOURCE);
}

/// "Fragmentation needed" about the packet in the frame, from its destination to its source, quoting 40
/// bytes of it.
pub(super) fn too_big(frame: &[u8], about: Ip, mtu: u16) -> Vec<u8> {
    let [high, low] = mtu.to_be_bytes();
    message(&frame[..14], about, [3, 4, high, low], &frame[14..54])
}

/// An ICMP error about a packet, in a frame with this Ethernet header: type, code and the last two of the
/// four bytes behind the checksum, then the quote.
pub(super) fn message(
    ethernet: &[u8],
    about: Ip,
    [kind, code, high, low]: [u8; 4],
    quoted: &[u8],
) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0, 0, 0, high, low];
    message.extend(quoted);
    let sum = crate::packet::internet_checksum(&[&message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let total = 20 + message.len() as u16;
    let mut out = ethernet.to_vec();
    out.extend(ipv4(
        about.destination(),
        about.source(),
        0,
        super::read::ICMP,
        total,
    ));
    out.extend(message);
    out
}

/// A header as we write it: no options, DF, TTL 64, identification 0.
pub(super) fn ipv4(from: [u8; 4], to: [u8; 4], tos: u8, protocol: u8, total_bytes: u16) -> Vec<u8> {
    let mut header = vec![0x45, tos];
    header.extend(total_bytes.to_be_bytes());
    header.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    header.extend(from);
    header.extend(to);
    let sum = crate::packet::internet_checksum(&[&header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header
}

/// Changes the checksum at `at` by as much as a word under it changes.
fn replace_word(frame: &mut [u8], at: usize, from: [u8; 4], to: [u8; 4]) {
    let (from, to) = (u32::from_be_bytes(from), u32::from_be_bytes(to));
    let sum = add_word(!u32::from(half(frame, at)), !from);
    let sum = add_word(sum, to);
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    let checksum = !(folded as u16);
    frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

fn add_word(one: u32, other: u32) -> u32 {
    let (sum, carry) = one.overflowing_add(other);
    sum + u32::from(carry)
}

fn add_half(one: u16, other: u16) -> u16 {
    let (sum, carry) = one.overflowing_add(other);
    sum + u16::from(carry)
}

/// Writes the secret of the node, and which slice and class a packet is of, over the addresses of an
/// Ethernet header.
pub(super) fn prove(header: &mut [u8], slice: u32, class: u8) {
    header[..8].copy_from_slice(&DETOUR_SECRET);
    header[8..12].copy_from_slice(&(slice << 3 | u32::from(class)).to_be_bytes());
}
