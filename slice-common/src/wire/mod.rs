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

/// Four half words as one word of eight bytes, all in memory order. Headers are put together in registers
/// by it: in memory, each half word would wait for the one before to be stored.
#[inline(always)]
pub(crate) const fn word(first: u16, second: u16, third: u16, fourth: u16) -> u64 {
    let [first, second, third, fourth] = [first as u64, second as u64, third as u64, fourth as u64];
    if cfg!(target_endian = "little") {
        first | second << 16 | third << 32 | fourth << 48
    } else {
        fourth | third << 16 | second << 32 | first << 48
    }
}
