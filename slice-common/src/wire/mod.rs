//! What lies in packets. A tunnel packet on the underlay:
//!
//! ```text
//! offset  bytes
//!      0     14  outer Ethernet (written by the kernel's neighbour layer)
//!     14     20  outer IPv4: DF, TTL 64, DSCP of the class, ECN by RFC 6040
//!     34      8  UDP: source = 0xC000 | 14 bits of the inner flow's hash, checksum 0
//!     42      8  VXLAN (RFC 7348): flags 0x08, VNI = slice << 3 | class
//!     50     14  inner Ethernet with fixed locally administered addresses
//!     64         inner IPv4
//! ```

pub mod checksum;
pub mod detour;
pub mod ecn;
pub mod frame;
pub mod icmp;
pub mod ipv4;
pub mod mss;
pub mod probe;
pub mod transport;
pub mod vxlan;

pub const ETHERNET_BYTES: u32 = 14;
/// The EtherType of IPv4 as a packet has it.
pub const ETHERTYPE_ARP: u16 = 0x0806u16.to_be();
pub const ETHERTYPE_IPV4: u16 = 0x0800u16.to_be();
pub const ETHERTYPE_IPV4_BYTES: [u8; 2] = [0x08, 0x00];

/// Half words as eight-byte words, all in memory order; what is missing at the end is 0. A copy of the
/// result reads what was written in the same widths, which processors forward without waiting.
#[inline(always)]
pub(crate) const fn joined<const HALVES: usize, const WORDS: usize>(
    halves: [u16; HALVES],
) -> [u64; WORDS] {
    let mut words = [0; WORDS];
    let mut i = 0;
    while i < HALVES {
        let half = halves[i] as u64;
        let place = if cfg!(target_endian = "little") {
            i % 4
        } else {
            3 - i % 4
        };
        words[i / 4] |= half << (16 * place);
        i += 1;
    }
    words
}
