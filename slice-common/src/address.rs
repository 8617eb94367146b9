//! IPv4 addresses, blocks and ports as they lie in packets and maps.

/// An IPv4 address whose bytes lie in memory in network order.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Address(u32);

impl Address {
    pub const UNSPECIFIED: Self = Self(0);

    #[inline(always)]
    pub const fn from_octets(octets: [u8; 4]) -> Self {
        Self(u32::from_ne_bytes(octets))
    }

    /// Takes a word as it was loaded from a packet: bytes in network order, no swap.
    #[inline(always)]
    pub const fn from_network_word(word: u32) -> Self {
        Self(word)
    }

    #[inline(always)]
    pub const fn octets(self) -> [u8; 4] {
        self.0.to_ne_bytes()
    }

    /// The word to store into a packet or to hand to a checksum helper.
    #[inline(always)]
    pub const fn network_word(self) -> u32 {
        self.0
    }

    /// Whether a host with this address, whatever its prefix length, takes a packet to `destination`
    /// for itself: its address, a broadcast of any network around it (the lowest address of a network
    /// is one to kernels before 5.14), or multicast.
    #[inline(always)]
    pub const fn takes(self, destination: Address) -> bool {
        let (own, to) = (u32::from_be(self.0), u32::from_be(destination.0));
        let differs = own ^ to;
        let trailing_ones = to & !to.wrapping_add(1);
        let trailing_zeros = !to & to.wrapping_sub(1);
        differs & !trailing_ones == 0 || differs & !trailing_zeros == 0 || to >> 28 == 0xe
    }
}

impl core::fmt::Debug for Address {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(self, f)
    }
}

impl core::fmt::Display for Address {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(&core::net::Ipv4Addr::from(self.octets()), f)
    }
}

impl From<core::net::Ipv4Addr> for Address {
    fn from(address: core::net::Ipv4Addr) -> Self {
        Self::from_octets(address.octets())
    }
}

impl From<Address> for core::net::Ipv4Addr {
    fn from(address: Address) -> Self {
        Self::from(address.octets())
    }
}

/// A port in network order.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Port(u16);

impl Port {
    #[inline(always)]
    pub const fn new(number: u16) -> Self {
        Self(number.to_be())
    }

    /// Takes a half word as it was loaded from a packet: no swap.
    #[inline(always)]
    pub const fn from_network_word(word: u16) -> Self {
        Self(word)
    }

    #[inline(always)]
    pub const fn number(self) -> u16 {
        u16::from_be(self.0)
    }

    #[inline(always)]
    pub const fn network_word(self) -> u16 {
        self.0
    }
}

impl core::fmt::Debug for Port {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(&self.number(), f)
    }
}

/// An aligned run of addresses, `prefix_len` 0..=32; a block of slice addresses or a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block {
    address: Address,
    prefix_len: u8,
}

impl Block {
    /// Returns `None` for a prefix length above 32 or an address with host bits set.
    pub const fn new_checked(address: Address, prefix_len: u8) -> Option<Self> {
        if prefix_len > 32 {
            return None;
        }
        let bits = u32::from_be_bytes(address.octets());
        if bits & !Self::mask(prefix_len) != 0 {
            return None;
        }
        Some(Self {
            address,
            prefix_len,
        })
    }

    pub const fn address(self) -> Address {
        self.address
    }

    pub const fn prefix_len(self) -> u8 {
        self.prefix_len
    }

    pub const fn contains(self, address: Address) -> bool {
        let (own, other) = (
            u32::from_be_bytes(self.address.octets()),
            u32::from_be_bytes(address.octets()),
        );
        (own ^ other) & Self::mask(self.prefix_len) == 0
    }

    pub const fn overlaps(self, other: Self) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }

    const fn mask(prefix_len: u8) -> u32 {
        if prefix_len == 0 {
            0
        } else {
            u32::MAX << (32 - prefix_len)
        }
    }
}

/// The two names of an endpoint: what its pod calls it and what the slice calls it.
///
/// The mapping is 1:1 and keeps no state, so it can be undone by anyone who knows the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressPair {
    pub pod: Address,
    pub slice: Address,
}

impl AddressPair {
    /// The source a packet of this endpoint carries inside the slice, or `None` when the packet
    /// does not come from the endpoint's own address.
    #[inline(always)]
    pub fn outbound_source(self, source: Address) -> Option<Address> {
        if source == self.pod {
            Some(self.slice)
        } else {
            None
        }
    }

    /// The destination a packet for this endpoint carries inside the pod, or `None` when it is for
    /// another address.
    #[inline(always)]
    pub fn inbound_destination(self, destination: Address) -> Option<Address> {
        if destination == self.slice {
            Some(self.pod)
        } else {
            None
        }
    }
}
