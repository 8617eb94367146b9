//! The packet's memory and the fields of its `__sk_buff`: the only file that touches either.
//!
//! Everything is inlined: a function of its own that took the context would have packet pointers
//! turned into 32-bit numbers by LLVM's argument promotion, and the verifier refuses those.
//! Context fields are read and written volatile, else LLVM merges neighbours into one 64-bit access,
//! which the verifier refuses as well.

use aya_ebpf::bindings::{
    __sk_buff, BPF_ADJ_ROOM_ENCAP_L2_SHIFT, BPF_CSUM_LEVEL_DEC, BPF_F_ADJ_ROOM_ENCAP_L2_ETH,
    BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L4_UDP, BPF_F_ADJ_ROOM_FIXED_GSO,
    BPF_F_ADJ_ROOM_NO_CSUM_RESET, BPF_F_INGRESS, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR,
    BPF_F_RECOMPUTE_CSUM, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
};
use aya_ebpf::helpers::generated::{
    bpf_csum_level, bpf_ktime_get_ns, bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_redirect,
    bpf_redirect_neigh, bpf_redirect_peer, bpf_skb_adjust_room, bpf_skb_change_tail,
    bpf_skb_change_type, bpf_skb_ecn_set_ce, bpf_skb_pull_data, bpf_skb_store_bytes,
    bpf_skb_vlan_pop,
};
use aya_ebpf::programs::TcContext;
use slice_common::wire::{ETHERNET_BYTES, vxlan};

/// linux/if_packet.h
const PACKET_HOST: u32 = 0;

/// The kernel refused an operation on the packet.
#[derive(Clone, Copy)]
pub(crate) struct Refused;

/// One packet.
#[derive(Clone, Copy)]
pub(crate) struct Packet {
    skb: *mut __sk_buff,
}

macro_rules! field {
    ($packet:expr, $field:ident) => {
        // SAFETY: the kernel gives a valid context; the verifier checks field and width.
        unsafe { (&raw const (*$packet.skb).$field).read_volatile() }
    };
}

impl Packet {
    #[inline(always)]
    pub(crate) fn new(context: &TcContext) -> Self {
        Self {
            skb: context.skb.skb,
        }
    }

    /// Length in bytes from the Ethernet header on.
    #[inline(always)]
    pub(crate) fn len(self) -> u32 {
        field!(self, len)
    }

    #[inline(always)]
    pub(crate) fn ifindex(self) -> u32 {
        field!(self, ifindex)
    }

    /// The EtherType after VLAN tags, in network order.
    #[inline(always)]
    pub(crate) fn ethertype(self) -> u16 {
        field!(self, protocol) as u16
    }

    /// Whether the frame was sent to this host, not overheard or broadcast.
    #[inline(always)]
    pub(crate) fn is_for_this_host(self) -> bool {
        field!(self, pkt_type) == PACKET_HOST
    }

    /// Whether the frame carries a VLAN tag that the kernel has taken off already.
    #[inline(always)]
    pub(crate) fn has_vlan(self) -> bool {
        field!(self, vlan_present) != 0
    }

    /// Whether that tag names no VLAN and only says how urgent the frame is.
    #[inline(always)]
    pub(crate) fn has_priority_tag(self) -> bool {
        const VLAN_BITS: u32 = 0x0fff;
        self.has_vlan() && field!(self, vlan_tci) & VLAN_BITS == 0
    }

    /// Forgets the tag that the kernel has taken off.
    #[inline(always)]
    pub(crate) fn drop_tag(self) -> Result<(), Refused> {
        // SAFETY: no packet pointer is kept across it.
        check(unsafe { bpf_skb_vlan_pop(self.skb) })
    }

    /// Makes a packet that was overheard (a bridge forwards frames for its own address) one for the
    /// host it is handed to: kernels before 6.15 do not, and IP would drop it there.
    #[inline(always)]
    pub(crate) fn address_to_receiver(self) {
        if !self.is_for_this_host() {
            // SAFETY: the helper takes any legal type. It can only refuse illegal ones.
            let _never_refused = unsafe { bpf_skb_change_type(self.skb, PACKET_HOST) };
        }
    }

    /// Whether this host made the packet itself: one that it forwards, be it under the host's own
    /// address (masqueraded), came in by a device.
    #[inline(always)]
    pub(crate) fn is_made_by_this_host(self) -> bool {
        self.arrived_by() == 0
    }

    /// The device by which the packet came into this host's stack; 0 if the host made it.
    #[inline(always)]
    pub(crate) fn arrived_by(self) -> u32 {
        field!(self, ingress_ifindex)
    }

    /// Payload bytes of each segment of a segmentation-offload packet; 0 for others.
    #[inline(always)]
    pub(crate) fn gso_bytes(self) -> u32 {
        field!(self, gso_size)
    }

    /// The mark that travels with the packet through this node's stack.
    #[inline(always)]
    pub(crate) fn mark(self) -> u32 {
        field!(self, mark)
    }

    #[inline(always)]
    pub(crate) fn set_mark(self, mark: u32) {
        // SAFETY: the field is writable in TC programs.
        unsafe { (&raw mut (*self.skb).mark).write_volatile(mark) };
    }

    /// Whether the packet still belongs to the socket that made it, which counts what has not left yet.
    #[inline(always)]
    pub(crate) fn has_socket(self) -> bool {
        // SAFETY: the verifier knows the field as a socket or nothing.
        let socket = unsafe { (&raw const (*self.skb).__bindgen_anon_2.sk).read_volatile() };
        !socket.is_null()
    }

    /// Makes `fq` keep the packet until a moment of the monotonic clock, or until when its sender wants it
    /// to leave, if that is later, but not later than `latest_ns`: a queue is for all, and nobody may fill it with
    /// what leaves in seconds. Of packets that are wanted later than that none leaves before one that came
    /// earlier. Who wants to leave in minutes goes by another clock.
    #[inline(always)]
    pub(crate) fn leave_at(self, moment_ns: u64, latest_ns: u64) {
        const ANOTHER_CLOCK_NS: u64 = 1000 * 1_000_000_000;
        let wanted_ns = field!(self, tstamp);
        let is_of_another_clock = wanted_ns > moment_ns.saturating_add(ANOTHER_CLOCK_NS);
        let leaves_ns = if wanted_ns < moment_ns || is_of_another_clock {
            moment_ns
        } else if wanted_ns > latest_ns {
            latest_ns
        } else {
            return;
        };
        // SAFETY: the field is writable in TC programs.
        unsafe { (&raw mut (*self.skb).tstamp).write_volatile(leaves_ns) };
    }

    /// Has `htb` keep the packet in the class of this handle.
    #[inline(always)]
    pub(crate) fn set_priority(self, handle: u32) {
        // SAFETY: the field is writable in TC programs.
        unsafe { (&raw mut (*self.skb).priority).write_volatile(handle) };
    }

    /// Marks congestion (CE) in the packet's first IP header, if its sender is one that understands it.
    #[inline(always)]
    pub(crate) fn mark_congestion(self) -> bool {
        // SAFETY: the helper checks the header; no packet pointer is kept across it.
        unsafe { bpf_skb_ecn_set_ce(self.skb) == 1 }
    }

    /// Whether the packet is still owned by the IPv4 or IPv6 socket that made it.
    #[inline(always)]
    pub(crate) fn is_owned_by_internet_socket(self) -> bool {
        const AF_INET: u32 = 2;
        const AF_INET6: u32 = 10;
        // SAFETY: the verifier knows the field as a socket or nothing, and checks what is read of it.
        let family = unsafe {
            let socket = (&raw const (*self.skb).__bindgen_anon_2.sk).read_volatile();
            if socket.is_null() {
                return false;
            }
            (&raw const (*socket).family).read_volatile()
        };
        family == AF_INET || family == AF_INET6
    }

    /// Makes the first `bytes` of the packet readable where they are not yet (headers of packets
    /// from real network cards may lie in page fragments).
    #[inline(always)]
    pub(crate) fn make_readable(self, bytes: u32) {
        if self.data() + bytes as usize > self.data_end() {
            let present = self.len();
            let wanted = if bytes < present { bytes } else { present };
            // SAFETY: any length is legal; on failure later loads simply find nothing.
            unsafe { bpf_skb_pull_data(self.skb, wanted) };
        }
    }

    /// Loads `T` at `offset`, or nothing when the packet ends before.
    ///
    /// `T` is made of integers without padding. The verifier needs `offset` bounded: it comes from
    /// constants and a header length of four bits.
    #[inline(always)]
    pub(crate) fn load<T: Copy>(self, offset: u32) -> Option<T> {
        // SAFETY: the kernel gives the bounds of this packet.
        unsafe { load_within(self.data(), self.data_end(), offset) }
    }

    /// Overwrites bytes without touching any checksum.
    #[inline(always)]
    pub(crate) fn store<T: Copy>(self, offset: u32, value: &T) -> Result<(), Refused> {
        let from = (&raw const *value).cast();
        // SAFETY: `from` points to `size_of::<T>()` initialised bytes; the helper checks the range.
        check(unsafe { bpf_skb_store_bytes(self.skb, offset, from, size_of::<T>() as u32, 0) })
    }

    /// Overwrites bytes, and adjusts the sum over the packet that a network card gave (CHECKSUM_COMPLETE):
    /// for a change that no checksum in the packet makes up for.
    #[inline(always)]
    pub(crate) fn store_summed<T: Copy>(self, offset: u32, value: &T) -> Result<(), Refused> {
        let from = (&raw const *value).cast();
        let flags = BPF_F_RECOMPUTE_CSUM as u64;
        // SAFETY: as for `store`.
        check(unsafe { bpf_skb_store_bytes(self.skb, offset, from, size_of::<T>() as u32, flags) })
    }

    /// Overwrites `bytes` bytes with the first ones of `value`.
    #[inline(always)]
    pub(crate) fn store_first<T: Copy>(
        self,
        offset: u32,
        value: &T,
        bytes: u32,
    ) -> Result<(), Refused> {
        if bytes as usize > size_of::<T>() {
            return Err(Refused);
        }
        let from = (&raw const *value).cast();
        // SAFETY: `from` points to at least `bytes` initialised bytes; the helper checks the range.
        check(unsafe { bpf_skb_store_bytes(self.skb, offset, from, bytes, 0) })
    }

    /// Overwrites bytes and keeps what the network card summed up of the packet in step with them.
    #[inline(always)]
    pub(crate) fn replace_bytes<T: Copy>(self, offset: u32, value: &T) -> Result<(), Refused> {
        let from = (&raw const *value).cast();
        let flags = BPF_F_RECOMPUTE_CSUM as u64;
        // SAFETY: as for `store`.
        check(unsafe { bpf_skb_store_bytes(self.skb, offset, from, size_of::<T>() as u32, flags) })
    }

    /// Adjusts the IPv4 header checksum at `offset` for a word that changes; `bytes` is 2 or 4.
    #[inline(always)]
    pub(crate) fn replace_header_checksum(
        self,
        offset: u32,
        from: u32,
        to: u32,
        bytes: u64,
    ) -> Result<(), Refused> {
        // SAFETY: the helper checks the range.
        check(unsafe { bpf_l3_csum_replace(self.skb, offset, from as u64, to as u64, bytes) })
    }

    /// Adjusts a transport checksum at `offset`. The kernel's helper knows whether the field holds a
    /// full sum or the start that a network card completes; arithmetic on the bytes would not.
    #[inline(always)]
    pub(crate) fn replace_transport_checksum(
        self,
        offset: u32,
        from: u32,
        to: u32,
        change: ChecksumChange,
    ) -> Result<(), Refused> {
        let flags = match change {
            ChecksumChange::TcpAddress => BPF_F_PSEUDO_HDR as u64 | 4,
            ChecksumChange::UdpAddress => BPF_F_PSEUDO_HDR as u64 | BPF_F_MARK_MANGLED_0 as u64 | 4,
            ChecksumChange::HalfWord => 2,
        };
        // SAFETY: the helper checks the range.
        check(unsafe { bpf_l4_csum_replace(self.skb, offset, from as u64, to as u64, flags) })
    }

    /// Whether a checksum is still to be written into the packet by whoever sends it (CHECKSUM_PARTIAL).
    /// `at` is any half word of the packet, which stays as it is.
    ///
    /// No field of the context tells. But the kernel's helper changes a checksum outside of the
    /// pseudo header in all packets except these (`inet_proto_csum_replace2`).
    #[inline(always)]
    pub(crate) fn awaits_checksum(self, at: u32) -> Result<bool, Refused> {
        let Some(before) = self.load::<u16>(at) else {
            return Err(Refused);
        };
        // SAFETY: the helper checks the range.
        check(unsafe { bpf_l4_csum_replace(self.skb, at, 0, 1, 2) })?;
        let awaits = self.load::<u16>(at) == Some(before);
        if !awaits {
            self.store(at, &before)?;
        }
        Ok(awaits)
    }

    /// Whether the checksum that a packet awaits will be written at `at` or behind it. The kernel
    /// refuses to cut a packet before that field's end; where it does not, the packet is spoilt.
    #[inline(always)]
    pub(crate) fn checksum_stands_from(self, at: u32) -> bool {
        const EINVAL: i64 = -22;
        // SAFETY: the helper checks the length; no packet pointer is kept across it.
        let cut = unsafe { bpf_skb_change_tail(self.skb, at + 1, 0) };
        cut == EINVAL
    }

    /// Makes room for the tunnel headers behind the Ethernet header. Segment sizes stay: the sender's
    /// MSS already leaves the room.
    #[inline(always)]
    pub(crate) fn push_tunnel(self) -> Result<(), Refused> {
        let flags = BPF_F_ADJ_ROOM_FIXED_GSO as u64
            | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 as u64
            | BPF_F_ADJ_ROOM_ENCAP_L4_UDP as u64
            | BPF_F_ADJ_ROOM_ENCAP_L2_ETH as u64
            | (ETHERNET_BYTES as u64) << BPF_ADJ_ROOM_ENCAP_L2_SHIFT;
        self.adjust_room(vxlan::OVERHEAD_BYTES as i32, flags)
    }

    /// Cuts the packet to `bytes` from the Ethernet header on.
    #[inline(always)]
    pub(crate) fn cut(self, bytes: u32) -> Result<(), Refused> {
        // SAFETY: the helper checks the length; no packet pointer is kept across it.
        check(unsafe { bpf_skb_change_tail(self.skb, bytes, 0) })
    }

    /// Makes room behind the Ethernet header.
    #[inline(always)]
    pub(crate) fn make_room(self, bytes: u32) -> Result<(), Refused> {
        self.adjust_room(bytes as i32, 0)
    }

    /// Removes the tunnel headers behind the Ethernet header, and keeps what the network card said
    /// about the inner checksum (one level less: the outer one is gone).
    #[inline(always)]
    pub(crate) fn pop_tunnel(self) -> Result<(), Refused> {
        let flags = BPF_F_ADJ_ROOM_FIXED_GSO as u64 | BPF_F_ADJ_ROOM_NO_CSUM_RESET as u64;
        self.adjust_room(-(vxlan::OVERHEAD_BYTES as i32), flags)?;
        // SAFETY: touches only the packet's own checksum state. An error means that there was no
        // verified checksum to lower.
        let _nothing_verified = unsafe { bpf_csum_level(self.skb, BPF_CSUM_LEVEL_DEC as u64) };
        Ok(())
    }

    /// Sends the packet out of a device; the kernel routes it by its IPv4 destination and writes the
    /// Ethernet header.
    #[inline(always)]
    pub(crate) fn redirect_to_neighbour(self, ifindex: u32) -> i32 {
        self.reset_queue_mapping();
        // SAFETY: no parameters to point to.
        unsafe { bpf_redirect_neigh(ifindex, core::ptr::null_mut(), 0, 0) as i32 }
    }

    /// Hands the packet to the other end of a veth, in its network namespace.
    #[inline(always)]
    pub(crate) fn redirect_to_peer(self, ifindex: u32) -> i32 {
        self.reset_queue_mapping();
        // SAFETY: the helper checks the device when the redirect is carried out.
        unsafe { bpf_redirect_peer(ifindex, 0) as i32 }
    }

    /// Makes the packet arrive at another device of this host.
    #[inline(always)]
    pub(crate) fn redirect_into(self, ifindex: u32) -> i32 {
        self.reset_queue_mapping();
        // SAFETY: the helper checks the device when the redirect is carried out.
        unsafe { bpf_redirect(ifindex, BPF_F_INGRESS as u64) as i32 }
    }

    /// A queue number of the pod's veth means nothing on another device, and may not exist there.
    #[inline(always)]
    fn reset_queue_mapping(self) {
        // SAFETY: the field is writable in TC programs.
        unsafe { (&raw mut (*self.skb).queue_mapping).write_volatile(0) };
    }

    #[inline(always)]
    fn adjust_room(self, bytes: i32, flags: u64) -> Result<(), Refused> {
        // SAFETY: the helper checks lengths; no packet pointer is kept across it.
        check(unsafe { bpf_skb_adjust_room(self.skb, bytes, BPF_ADJ_ROOM_MAC, flags) })
    }

    #[inline(always)]
    fn data(self) -> usize {
        field!(self, data) as usize
    }

    #[inline(always)]
    fn data_end(self) -> usize {
        field!(self, data_end) as usize
    }
}

/// What changes under a transport checksum.
#[derive(Clone, Copy)]
pub(crate) enum ChecksumChange {
    /// An address in the pseudo header.
    TcpAddress,
    /// The same for UDP, where 0 means "no checksum" and must stay, and must not come to be.
    UdpAddress,
    /// Two bytes of the segment itself.
    HalfWord,
}

/// A zero that neither LLVM nor the verifier knows to be one. The verifier follows every way to a place
/// for itself as long as it knows of other values there; to those that are mixed with this all ways lead
/// to the same.
#[inline(always)]
pub(crate) fn unknown_zero(any: u32) -> u32 {
    core::hint::black_box(any) ^ core::hint::black_box(any)
}

/// Monotonic kernel time.
#[inline(always)]
pub(crate) fn now_ns() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_ns() }
}

#[inline(always)]
fn check(result: i64) -> Result<(), Refused> {
    if result == 0 { Ok(()) } else { Err(Refused) }
}

/// Loads `T` at `offset` of the memory between two addresses, or nothing when that ends before.
///
/// # Safety
/// The kernel must have given both addresses as the bounds of one packet, and `T` must be made of integers
/// without padding.
#[inline(always)]
pub(crate) unsafe fn load_within<T: Copy>(data: usize, data_end: usize, offset: u32) -> Option<T> {
    let start = data + offset as usize;
    if start + size_of::<T>() > data_end {
        return None;
    }
    // SAFETY: within the packet, checked above in the form that the verifier follows. Packet
    // memory may be unaligned for `T`: every kernel on x86-64 and arm64 allows that for packets.
    Some(unsafe { (start as *const T).read_volatile() })
}
