//! What was decided for a flow: a cache, which may forget anything at any time.

use super::layout;
use super::{Class, Encapsulation, LocalEndpoint, Path};
use crate::address::Address;

layout! {
    /// Key of `FLOWS`: the packets of one direction of a conversation, as one program sees them.
    /// Everything that a packet is judged by and that is not in the maps is in the key.
    pub struct FlowKey: 24 {
        /// Where they enter: the ifindex of the pod's interface, or the underlay address of the peer.
        pub entrance: u32,
        /// Of the tunnel; 0 where a pod sends, which no tunnel has.
        pub vni: u32,
        pub source: Address,
        pub destination: Address,
        /// Network order.
        pub source_port: u16,
        pub destination_port: u16,
        pub protocol: u32,
    }
}

impl FlowKey {
    /// Spreads flows over [`super::Capacity::FLOW_SIGHTINGS`]. Never 0.
    #[inline(always)]
    pub const fn sighting(&self, flow_hash: u32) -> u32 {
        let own = self.entrance.rotate_left(16) ^ self.vni ^ self.protocol;
        (flow_hash ^ own.wrapping_mul(0x9e37_79b1)) | 1
    }
}

layout! {
    /// Value of `FLOWS`: the answers of the tables to a packet that a rule let pass, good for every
    /// packet of the flow but those that open a connection.
    ///
    /// The kernel reuses the memory of an entry that it gives up at once, also under the eyes of a
    /// program that is reading it. So `seal` says of which flow the rest is, and that it is whole.
    pub struct Flow: 56 {
        /// The configuration that gave the answers; under another one they mean nothing.
        pub generation: u32,
        pub slice: u32,
        /// The cluster at the other end.
        pub cluster: u32,
        pub class: Class,
        /// The sender's name inside the slice.
        pub slice_source: Address,
        /// Where to send; 0: to a pod of this node.
        pub path_group: u32,
        /// Of the pod's interface, or of the one that the path leaves by.
        pub ifindex: u32,
        /// The pod's own, or the path's far end.
        pub address: Address,
        pub pod_mac: [u8; 6],
        /// The path's, network order. Of a flow to a pod: the flags of its [`Door`].
        pub port: u16,
        /// The path's near end.
        pub local: Address,
        /// The path's. 0: the group has several paths, and one is chosen for each packet. Of a flow to a pod:
        /// the path that it proves.
        pub mtu: u32,
        pub seal: u64,
    }
}

/// The way into a pod of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Door {
    /// Of the pod's interface on the host.
    pub ifindex: u32,
    pub pod_address: Address,
    pub pod_mac: [u8; 6],
    /// Those of [`LocalEndpoint`].
    pub flags: u16,
}

impl Door {
    /// Whether the host's stack opens it.
    #[inline(always)]
    pub const fn is_by_stack(&self) -> bool {
        self.flags & LocalEndpoint::BY_STACK != 0
    }
}

impl LocalEndpoint {
    #[inline(always)]
    pub const fn door(&self) -> Door {
        Door {
            ifindex: self.ifindex,
            pod_address: self.pod_address,
            pod_mac: self.pod_mac,
            flags: self.flags,
        }
    }
}

/// Words of a [`Flow`], the last of which is the seal.
pub const FLOW_WORDS: usize = size_of::<Flow>() / 8;

impl Flow {
    /// Nothing is known yet.
    pub const UNDECIDED: Self = Self {
        generation: 0,
        slice: 0,
        cluster: 0,
        class: Class::DEFAULT,
        slice_source: Address::UNSPECIFIED,
        path_group: 0,
        ifindex: 0,
        address: Address::UNSPECIFIED,
        pod_mac: [0; 6],
        port: 0,
        local: Address::UNSPECIFIED,
        mtu: 0,
        seal: 0,
    };

    /// To a pod of this node.
    #[inline(always)]
    pub const fn to_pod(self, door: Door) -> Self {
        Self {
            ifindex: door.ifindex,
            address: door.pod_address,
            pod_mac: door.pod_mac,
            port: door.flags,
            ..self
        }
    }

    /// Packets of the flow to a pod prove this path; 0: none that anybody chooses. Stands where a flow
    /// that leaves has its MTU.
    #[inline(always)]
    pub const fn proving(self, path: u32) -> Self {
        Self { mtu: path, ..self }
    }

    /// The path that packets of a flow to a pod prove.
    #[inline(always)]
    pub const fn proves(&self) -> u32 {
        self.mtu
    }

    /// The pod that a flow without a path group leads to.
    #[inline(always)]
    pub const fn door(&self) -> Door {
        Door {
            ifindex: self.ifindex,
            pod_address: self.address,
            pod_mac: self.pod_mac,
            flags: self.port,
        }
    }

    /// By the only path of a group.
    #[inline(always)]
    pub const fn by_path(self, path_group: u32, path: &Path) -> Self {
        Self {
            path_group,
            ifindex: path.ifindex,
            address: path.remote,
            port: path.port,
            local: path.local,
            mtu: path.mtu,
            ..self
        }
    }

    /// By a group of several paths: `mtu` is 0.
    #[inline(always)]
    pub const fn by_group(self, path_group: u32) -> Self {
        Self { path_group, ..self }
    }

    /// The only path of the group; nothing if there are several.
    #[inline(always)]
    pub const fn only_path(&self) -> Option<Path> {
        if self.mtu == 0 {
            return None;
        }
        Some(Path {
            local: self.local,
            remote: self.address,
            ifindex: self.ifindex,
            mtu: self.mtu,
            encapsulation: Encapsulation::Vxlan.number(),
            port: self.port,
            flags: 0,
            cluster: 0,
            reserved_32: 0,
        })
    }

    /// With every word mixed with `word`, which is 0 but need not be known to be.
    #[inline(always)]
    pub const fn as_any(&self, word: u32) -> Self {
        let mut words = self.words();
        let mut i = 0;
        while i < FLOW_WORDS - 1 {
            words[i] ^= (word as u64) << 32 | word as u64;
            i += 1;
        }
        // SAFETY: as in `unsealed`.
        unsafe { core::mem::transmute::<[u64; FLOW_WORDS], Self>(words) }
    }

    /// Sealed for the flow of `key`.
    #[inline(always)]
    pub const fn sealed(mut self, key: &FlowKey) -> Self {
        self.seal = seal(key, &self.words());
        self
    }

    /// Reads what was [`Flow::sealed`] for the same flow, and is whole.
    #[inline(always)]
    pub const fn unsealed(words: [u64; FLOW_WORDS], key: &FlowKey) -> Option<Self> {
        if words[FLOW_WORDS - 1] != seal(key, &words) {
            return None;
        }
        // SAFETY: of the same size, without padding, and every bit pattern is a value.
        Some(unsafe { core::mem::transmute::<[u64; FLOW_WORDS], Self>(words) })
    }

    #[inline(always)]
    const fn words(&self) -> [u64; FLOW_WORDS] {
        // SAFETY: as in `unsealed`.
        unsafe { core::mem::transmute::<Self, [u64; FLOW_WORDS]>(*self) }
    }
}

/// A multilinear hash of key and value: products that the processor computes side by side. The factors
/// are odd, so a change of one word always shows; they are the first bits of square roots.
#[inline(always)]
const fn seal(key: &FlowKey, words: &[u64; FLOW_WORDS]) -> u64 {
    const FACTORS: [u64; 9] = [
        0x6a09_e667_f3bc_c909,
        0xbb67_ae85_84ca_a73b,
        0x3c6e_f372_fe94_f82b,
        0xa54f_f53a_5f1d_36f1,
        0x510e_527f_ade6_82d1,
        0x9b05_688c_2b3e_6c1f,
        0x1f83_d9ab_fb41_bd6b,
        0x5be0_cd19_137e_2179,
        0xcbbb_9d5d_c105_9ed9,
    ];
    let ports = (key.source_port as u64) << 16 | key.destination_port as u64;
    let parts = [
        (key.entrance as u64) << 32 | key.vni as u64,
        (key.source.network_word() as u64) << 32 | key.destination.network_word() as u64,
        ports << 32 | key.protocol as u64,
    ];
    let mut sum = 1u64;
    let mut i = 0;
    while i < 3 {
        sum = sum.wrapping_add(parts[i].wrapping_mul(FACTORS[i]));
        i += 1;
    }
    let mut i = 0;
    while i < FLOW_WORDS - 1 {
        sum = sum.wrapping_add(words[i].wrapping_mul(FACTORS[3 + i]));
        i += 1;
    }
    sum
}
