//! Who may talk to whom, and in which class.

use super::layout;
use crate::address::Address;

layout! {
    /// Key data of `POLICY`, from the widest to the narrowest; a prefix ends after the slice (32 bits),
    /// the namespaces (96), the protocol (104; the padding is part of the port's prefix: 112 + n).
    pub struct PolicyKey: 16 {
        pub slice: u32,
        pub source_namespace: u32,
        pub destination_namespace: u32,
        pub protocol: u8,
        pub reserved: u8,
        /// Destination port, network order; 0 for ICMP.
        pub port: u16,
    }
}

impl PolicyKey {
    pub const BITS_SLICE: u32 = 32;
    pub const BITS_NAMESPACES: u32 = 96;
    pub const BITS_PROTOCOL: u32 = 104;
    /// Add the bits of the port's prefix, 0..=16.
    pub const BITS_BEFORE_PORT: u32 = 112;
    pub const BITS: u32 = 128;
}

layout! {
    /// Value of `POLICY`.
    pub struct PolicyEntry: 8 {
        /// One of [`PolicyVerdict`].
        pub verdict: u32,
        pub rule: u32,
    }
}

/// The verdicts, as numbers in [`PolicyEntry::verdict`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyVerdict {
    Allow,
    Deny,
}

impl PolicyVerdict {
    pub const fn number(self) -> u32 {
        match self {
            Self::Allow => 1,
            Self::Deny => 2,
        }
    }

    /// Anything unknown denies.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Allow,
            _ => Self::Deny,
        }
    }
}

layout! {
    /// Key of `FRAGMENTS`: a datagram in parts between two slice addresses.
    pub struct FragmentKey: 16 {
        pub slice: u32,
        pub source: Address,
        pub destination: Address,
        /// As in the packet.
        pub identification: u16,
        pub protocol: u8,
        pub reserved: u8,
    }
}

layout! {
    /// Value of `FRAGMENTS`: what the later parts do not say. A datagram is here when its first part was
    /// let pass.
    pub struct FirstFragment: 8 {
        /// Network order; an echo's identifier for ICMP.
        pub source_port: u16,
        /// Network order; 0 for ICMP.
        pub destination_port: u16,
        pub class: Class,
    }
}

layout! {
    /// Key data of `CLASSES`; a prefix ends after the protocol (40 bits) or inside the port (48 + n).
    pub struct ClassKey: 8 {
        pub slice: u32,
        pub protocol: u8,
        pub reserved: u8,
        /// Network order.
        pub port: u16,
    }
}

impl ClassKey {
    pub const BITS_SLICE: u32 = 32;
    pub const BITS_PROTOCOL: u32 = 40;
    /// Add the bits of the port's prefix, 0..=16.
    pub const BITS_BEFORE_PORT: u32 = 48;
    pub const BITS: u32 = 64;
}

layout! {
    /// Value of `CLASSES`.
    pub struct Class: 4 {
        /// 0..=7.
        pub class: u8,
        /// Outer DSCP, 0..=63.
        pub dscp: u8,
        pub reserved: u16,
    }
}

impl Class {
    /// Of packets that no rule of a slice puts into another.
    pub const DEFAULT: Self = Self {
        class: 0,
        dscp: 0,
        reserved: 0,
    };

    /// Of a packet between two pods, each of a class of its own or of none: the one that the slice lists
    /// first. Whose is whose does not matter, so question and answer are of the same class.
    #[inline(always)]
    pub const fn between(one: Self, other: Self) -> Self {
        // None is behind all.
        if one.class.wrapping_sub(1) <= other.class.wrapping_sub(1) {
            one
        } else {
            other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(class: u8) -> Class {
        Class {
            class,
            dscp: class * 8,
            reserved: 0,
        }
    }

    #[test]
    fn between_two_pods_the_class_that_is_listed_first_counts_both_ways() {
        for one in 0..8 {
            for other in 0..8 {
                let there = Class::between(class(one), class(other));
                assert_eq!(there, Class::between(class(other), class(one)));
                let named = [one, other].into_iter().filter(|it| *it != 0);
                assert_eq!(there, class(named.min().unwrap_or(0)), "{one} and {other}");
            }
        }
    }
}
