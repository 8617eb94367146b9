//! Probes: packets in the tunnel that ask the node at the other end of a path whether it is there.
//!
//! ```text
//! offset  bytes
//!      0     50  outer Ethernet, IPv4, UDP and VXLAN as of any tunnel packet; VNI = probes << 3
//!     50     14  inner Ethernet with an EtherType of its own, so that nothing merges or delivers it
//!     64      1  version
//!     65      1  kind
//!     66      2  zero
//!     68      8  nonce, drawn for this probe alone
//!     76         zeros, up to the size that is tried
//! ```

use super::{ETHERNET_BYTES, vxlan};
use crate::id::{SliceId, TrafficClass, Vni};

/// "IEEE Std 802 - Local Experimental EtherType 1", as a packet has it.
pub const ETHERTYPE: u16 = 0x88b5u16.to_be();
pub const ETHERTYPE_BYTES: [u8; 2] = [0x88, 0xb5];
pub const VNI: Vni = Vni::from_parts(SliceId::PROBES, TrafficClass::DEFAULT);

/// What is behind the inner Ethernet header at least.
pub const BODY_BYTES: u32 = 12;
/// The smallest probe, from the outer IPv4 header on.
pub const BYTES_MIN: u32 = vxlan::OVERHEAD_BYTES + BODY_BYTES;
/// Where version and kind stand in a probe, from the outer Ethernet header on.
pub const BODY_OFFSET: u32 = ETHERNET_BYTES + vxlan::OVERHEAD_BYTES;

const VERSION: u8 = 1;
const REQUEST: u8 = 1;
const ANSWER: u8 = 2;

/// What a probe wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Request,
    Answer,
}

/// The first bytes of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Body {
    pub kind: Kind,
    pub nonce: u64,
}

/// The half word with version and kind of an answer, in memory order: all that differs from its request.
pub const ANSWER_WORD: u16 = u16::from_ne_bytes([VERSION, ANSWER]);

/// Reads a body as three words in memory order.
#[inline(always)]
pub const fn parse(words: [u32; 3]) -> Option<Body> {
    let kind = match words[0].to_ne_bytes() {
        [VERSION, REQUEST, 0, 0] => Kind::Request,
        [VERSION, ANSWER, 0, 0] => Kind::Answer,
        _ => return None,
    };
    let (first, second) = (words[1].to_ne_bytes(), words[2].to_ne_bytes());
    let nonce = u64::from_ne_bytes([
        first[0], first[1], first[2], first[3], second[0], second[1], second[2], second[3],
    ]);
    Some(Body { kind, nonce })
}

/// The bytes of a request behind the UDP header, without the zeros that fill it up.
pub const fn request(nonce: u64) -> [u8; 34] {
    let header = vxlan::header_alone(VNI);
    let nonce = nonce.to_ne_bytes();
    let (to, from) = (vxlan::INNER_DESTINATION_MAC, vxlan::INNER_SOURCE_MAC);
    let mut bytes = [0; 34];
    let mut at = 0;
    while at < 8 {
        bytes[at] = header[at];
        bytes[26 + at] = nonce[at];
        at += 1;
    }
    let mut at = 0;
    while at < 6 {
        bytes[8 + at] = to[at];
        bytes[14 + at] = from[at];
        at += 1;
    }
    bytes[20] = ETHERTYPE_BYTES[0];
    bytes[21] = ETHERTYPE_BYTES[1];
    bytes[22] = VERSION;
    bytes[23] = REQUEST;
    bytes
}
