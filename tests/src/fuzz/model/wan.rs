//! What is counted of a tunnel packet that leaves by an uplink which slices share.
//!
//! The rates are such that nothing ever waits, because a model that knows when a packet came would be the
//! clock of the kernel. So this covers which packets are charged, to whom and for how many bytes; what waits
//! and what is too late is for the scenes, and for the simulator of the shaper's arithmetic.

use slice_common::layout::Peer;

use super::read::{Ip, TCP, UDP};
use super::underlay::{INNER, VXLAN};
use super::{Model, Notes};
use crate::fuzz::input::Input;

/// Ethernet's header, checksum, preamble and gap.
const AROUND_FRAME_BYTES: usize = 38;
/// Where the destination of the outer header stands.
const DESTINATION: usize = 30;
/// IPv4, UDP, VXLAN and Ethernet.
const TUNNEL_BYTES: usize = 50;

impl Model<'_> {
    pub(super) fn wan_egress(&mut self, input: &Input, notes: &mut Notes) {
        let Some((slice, class)) = departing(&input.frame) else {
            return self.saw(input, "ours and no tunnel packet");
        };
        let Some(terms) = self.tables.shaper_terms(input.device, slice) else {
            return self.saw(input, "shared by others");
        };
        let destination = &input.frame[DESTINATION..DESTINATION + 4];
        let of_same_cluster = |it: &&([u8; 4], Peer)| it.1.flags & Peer::SAME_CLUSTER != 0;
        let mut nearby = self.tables.peers.iter().filter(of_same_cluster);
        if nearby.any(|(underlay, _)| underlay == destination) {
            return self.saw(input, "shared, but not by what stays in the cluster");
        }
        let place = terms.classes[usize::from(class)].clocks;
        let bytes = bytes_on_link(&input.frame, input.gso_bytes as usize);
        if input.gso_bytes != 0 {
            self.saw(input, "shaped in segments");
        }
        self.saw(input, "shaped");
        notes.shaped = Some((place, bytes as u64));
        notes.record = Some(owner(&input.frame, slice, self.tables.settings.flow_secret));
        // By the place of the class, those of a slice are eight: what nothing keeps waiting is at its front.
        notes.queue = Some(0x51ce_0000 + 32 * (place / 8 + 1) + 16 + place % 8);
    }
}

/// Slice and class of a tunnel packet of ours, whatever is inside.
fn departing(frame: &[u8]) -> Option<(u32, u8)> {
    let outer = Ip::of_frame(frame)?;
    if outer.protocol() != UDP || outer.header_bytes() != 20 {
        return None;
    }
    match frame.get(VXLAN..VXLAN + 8) {
        Some(&[8, 0, 0, 0, a, b, c, 0]) => Some((u32::from_be_bytes([0, a, b, c]) >> 3, c & 7)),
        _ => None,
    }
}

/// Whom the flow's record is of. Its upper half word is the first of its two places.
fn owner(frame: &[u8], slice: u32, secret: [u32; 2]) -> u64 {
    let word = |at: usize| match frame.get(INNER + 12..INNER + 20) {
        Some(addresses) => u32::from_ne_bytes([0, 1, 2, 3].map(|byte| addresses[at + byte])),
        None => 0,
    };
    let sums = [(0, secret[0]), (4, secret[1])].map(|(at, part)| {
        let sum = u64::from(word(at)) + u64::from(part);
        u128::from(sum % (1 << 32))
    });
    let port = u16::from_ne_bytes([frame[34], frame[35]]);
    let rest = u128::from(slice) * (1 << 16) + u128::from(port);
    let hash = (sums[0] * sums[1] + rest) % (1 << 64);
    let hash = (hash ^ (hash / (1 << 32))) * 0x9e37_79b9_7f4a_7c15 % (1 << 64);
    hash as u64 / 4 * 4 + 2
}

/// Frame by frame, as the card cuts them.
fn bytes_on_link(frame: &[u8], gso_bytes: usize) -> usize {
    let network_bytes = frame.len() - 14;
    if gso_bytes == 0 {
        return network_bytes + AROUND_FRAME_BYTES;
    }
    let header_bytes = TUNNEL_BYTES + inner_header_bytes(frame);
    let mut left = network_bytes.saturating_sub(header_bytes);
    let mut bytes = 0;
    loop {
        let payload_bytes = left.min(gso_bytes);
        bytes += header_bytes + payload_bytes + AROUND_FRAME_BYTES;
        left -= payload_bytes;
        if left == 0 {
            return bytes;
        }
    }
}

fn inner_header_bytes(frame: &[u8]) -> usize {
    let Some(inner) = Ip::at(frame, INNER) else {
        return 0;
    };
    if inner.protocol() != TCP {
        return inner.header_bytes() + 8;
    }
    let offset = INNER + inner.header_bytes() + 12;
    match frame.get(offset..offset + 2) {
        Some(bytes) => inner.header_bytes() + usize::from(bytes[0] >> 4) * 4,
        None => inner.header_bytes(),
    }
}
