//! What slice pods may exchange with the world outside of any slice.

use super::layout;
use crate::address::Address;

layout! {
    /// Key data of `OUTSIDE`; a prefix ends inside the address (64 + n bits).
    pub struct OutsideKey: 12 {
        pub slice: u32,
        /// One of [`OutsideWay`].
        pub way: u8,
        pub protocol: u8,
        /// At the end that is called, network order; 0: any, and ICMP's.
        pub port: u16,
        /// Of the other end.
        pub address: Address,
    }
}

layout! {
    /// Value of `OUTSIDE`: what has an entry may. A structure, because kernels before 6.12 replace no
    /// table of plain numbers by one that was made elsewhere.
    pub struct OutsideEntry: 4 {
        /// 1.
        pub may: u32,
    }
}

impl OutsideEntry {
    pub const NAMED: Self = Self { may: 1 };
}

impl OutsideKey {
    pub const BITS_BEFORE_ADDRESS: u32 = 64;
    pub const BITS: u32 = 96;
}

/// Who begins, as numbers in [`OutsideKey::way`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OutsideWay {
    /// Somebody outside.
    In,
    /// The pod.
    Out,
}

impl OutsideWay {
    pub const fn number(self) -> u8 {
        match self {
            Self::In => 1,
            Self::Out => 2,
        }
    }
}
