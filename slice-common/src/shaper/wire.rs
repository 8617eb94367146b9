//! How many bytes the link will carry for a packet that is still whole and not yet in its tunnel.

use super::WireBytes;

/// Ethernet around a packet: header 14, checksum 4, preamble 8, gap 12 (IEEE 802.3).
pub const LINK_BYTES: u32 = 38;

/// A packet as the shaper sees it. A packet in segments (GSO) is one of these until it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// From the network header to the payload: each segment has a copy.
    pub header_bytes: u32,
    /// After those headers, of all segments together.
    pub payload_bytes: u32,
    /// Payload of each segment but the last; 0: the packet is not in segments.
    pub gso_bytes: u32,
    /// What each segment will get in front that is not there yet: the tunnel's headers.
    pub added_bytes: u32,
}

/// Segments that the packet becomes, at least 1. From the lengths: the kernel's own count is 0 after
/// headers were pushed (`bpf_skb_adjust_room`). One 32-bit division.
#[inline(always)]
pub const fn segments(payload_bytes: u32, gso_bytes: u32) -> u32 {
    if gso_bytes == 0 || payload_bytes <= gso_bytes {
        1
    } else {
        payload_bytes.div_ceil(gso_bytes)
    }
}

/// What the link carries for it. No tunnel frame is shorter than Ethernet's least, so nothing is padded.
#[inline(always)]
pub const fn wire_bytes(packet: Outgoing) -> WireBytes {
    let around = packet.header_bytes as u64 + packet.added_bytes as u64 + LINK_BYTES as u64;
    // Lengths that no packet has must not overflow.
    let around = if around > 0xffff { 0xffff } else { around };
    let segments = segments(packet.payload_bytes, packet.gso_bytes) as u64;
    WireBytes::new(packet.payload_bytes as u64 + segments * around)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::vxlan;

    const ETHERNET_LEAST_BYTES: u32 = 64;

    /// Frame after frame, as the card cuts them.
    fn carried_bytes(packet: Outgoing) -> u64 {
        let mut left = packet.payload_bytes;
        let mut bytes = 0;
        loop {
            let part = if packet.gso_bytes == 0 {
                left
            } else {
                left.min(packet.gso_bytes)
            };
            let frame = 14 + packet.added_bytes + packet.header_bytes + part + 4;
            bytes += u64::from(8 + frame.max(ETHERNET_LEAST_BYTES) + 12);
            left -= part;
            if left == 0 {
                return bytes;
            }
        }
    }

    #[test]
    fn a_full_segment_in_the_tunnel_costs_1538_bytes_of_a_1500_byte_link() {
        let full = Outgoing {
            header_bytes: 40,
            payload_bytes: 1410,
            gso_bytes: 0,
            added_bytes: vxlan::OVERHEAD_BYTES,
        };
        assert_eq!(wire_bytes(full).count(), 1538);
        let merged = Outgoing {
            payload_bytes: 10 * 1410,
            gso_bytes: 1410,
            ..full
        };
        assert_eq!(wire_bytes(merged).count(), 10 * 1538);
        let pure_ack = Outgoing {
            payload_bytes: 0,
            ..full
        };
        assert_eq!(wire_bytes(pure_ack).count(), 128);
    }

    proptest! {
        #[test]
        fn it_is_what_the_link_carries(
            header_bytes in 28u32..=120,
            payload_bytes in 0u32..=65_535,
            gso_bytes in prop_oneof![Just(0u32), 48u32..=9000],
            added_bytes in 50u32..=80,
        ) {
            let packet = Outgoing { header_bytes, payload_bytes, gso_bytes, added_bytes };
            prop_assert_eq!(u64::from(wire_bytes(packet).count()), carried_bytes(packet));
        }

        #[test]
        fn lengths_that_no_packet_has_are_cut_off(
            header_bytes: u32, payload_bytes: u32, gso_bytes: u32, added_bytes: u32,
        ) {
            let packet = Outgoing { header_bytes, payload_bytes, gso_bytes, added_bytes };
            prop_assert!(wire_bytes(packet).count() <= WireBytes::MAX);
        }
    }
}
