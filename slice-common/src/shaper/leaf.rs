//! Where a packet waits when the device has real queues (`htb`): each class has a front, from which everything
//! leaves at once, and a back, which gets what the front leaves of the class's rate and of what others lend.
//!
//! A flow's packets keep their order. It may go to the back at any time, since nothing waits at the front. It comes
//! forward only when nothing of it is left at the back. Nobody tells how far the device is, but no more waits at a back
//! than fits there, packets leave it in the order in which they came, and what the class is entitled to leaves in any
//! case. So the flow's last packet is gone once as much joined behind it as fits, or after the time that all of it
//! takes at that rate.
//!
//! When many flows begin at once, their packets have to leave before those of a flow that asks and answers, and at the
//! back it would stay until it makes a pause. A thin one stays at the front: what it so sends before its turn is bounded
//! by the rate of a thin flow.
//!
//! A flow that is to be of another class stays what it was, rates and all, until nothing of it is left at the old class's
//! back: so long it is judged and waits there. A flow that never pauses would stay for ever. It moves after
//! [`STAY_NS`], and may overtake itself that one time.

use super::clock::{Word, later};
use super::cost::{ByteCost, WireBytes};
use super::decide::{Arrival, Decision, Mode, Verdict};
use super::entitlement::SPARE_PARTS;
use super::terms::{ClassTerms, SliceTerms};
use super::{Behaviour, LINK_BYTES};

/// Network headers that each segment of a large packet is taken to have, TCP with its timestamps among them:
/// the tunnel's IPv4, UDP, VXLAN and Ethernet (50), IPv4 (20), TCP (32). Right for what fills links.
const SEGMENT_HEADER_BYTES: u32 = 102;
/// A packet in segments, as long as Linux makes them.
const LARGEST_BYTES: u64 = 65_536;
/// What a device that knows no more than its length counts for a packet: as many segments as fit into frames of
/// `frame` bytes on the link. `network_bytes`: from the network header on.
#[inline(always)]
pub const fn counted_bytes(network_bytes: u32, frame: WireBytes) -> WireBytes {
    let around = LINK_BYTES;
    let frame = frame.count();
    if network_bytes + around <= frame || frame <= around + 2 * SEGMENT_HEADER_BYTES {
        return WireBytes::new(network_bytes as u64 + around as u64);
    }
    let payload_bytes = network_bytes - SEGMENT_HEADER_BYTES;
    let segments = payload_bytes.div_ceil(frame - around - SEGMENT_HEADER_BYTES);
    let each = SEGMENT_HEADER_BYTES + around;
    WireBytes::new(payload_bytes as u64 + segments as u64 * each as u64)
}

/// What a packet is judged as that the link carries `carried` for, and the device counts as `counted`: not less
/// than either, or more would get in than out.
#[inline(always)]
pub const fn charged_bytes(carried: WireBytes, counted: WireBytes) -> WireBytes {
    if counted.count() > carried.count() {
        counted
    } else {
        carried
    }
}

/// At what rate the device serves what gets in at this one, in bytes per second; `None`: any. It makes up for what it
/// is late with half of what is kept spare; the other half is for what leaves early.
pub const fn served_bytes_per_s(cost: ByteCost) -> Option<u64> {
    match cost.bps() {
        Some(bps) => Some((bps + bps / (2 * SPARE_PARTS)) / 8),
        None => None,
    }
}

/// How much may wait at a back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// As time at the slice's ceiling.
    pub room_ns: u64,
    /// After so long nothing is left of what waited, whatever others send.
    pub drained_ns: u64,
}

impl Room {
    /// Before more than two horizons' worth and two packets wait, others are dropped. The device may be late by as
    /// much again.
    pub fn new(class: &ClassTerms, ceiling: ByteCost) -> Self {
        let late_ns = 2 * class.horizon_ns;
        let waits_ns = late_ns + ceiling.ns_of(WireBytes::new(2 * LARGEST_BYTES));
        let room_ns = waits_ns + late_ns;
        let product = u128::from(waits_ns) * u128::from(class.guarantee.word());
        let own_ns = product / u128::from(ceiling.word().max(1));
        let own_ns = u64::try_from(own_ns).unwrap_or(u64::MAX);
        Self {
            room_ns,
            drained_ns: own_ns.max(waits_ns).saturating_add(late_ns),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaf {
    Front,
    Back,
}

/// The words that say where a flow's packets wait.
#[derive(Clone, Copy, Debug)]
pub struct LeafWords<C, F> {
    /// All that ever joined the class's back, as time at the ceiling.
    pub back: C,
    /// What that was when the flow's last packet had joined it; 0: the flow is at the front.
    pub joined: F,
    /// [`Gone`]
    pub gone: F,
    /// Until when the flow has used the rate of a thin flow ([`super::FlowReadings`]).
    pub thin: F,
}

/// When a flow's last packet at a back will have left in any case, in steps of 16 ns, and whose back that is: bits 0
/// to 2 are the class. Bit 3: the flow is to be of another one, and the word `joined` says until when it stays.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone(u64);

impl Gone {
    const CLASS: u64 = 7;
    const STAYS: u64 = 8;
    const MOMENT: u64 = !0xf;

    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    #[inline(always)]
    const fn after(packet: &Joining) -> Self {
        // A step later, so that it is not before.
        let moment_ns = packet.now_ns.saturating_add(packet.room.drained_ns) | !Self::MOMENT;
        let stays = if packet.seat.until_ns == 0 {
            0
        } else {
            Self::STAYS
        };
        Self(moment_ns & Self::MOMENT | stays | packet.seat.class as u64 & Self::CLASS)
    }

    #[inline(always)]
    pub const fn moment_ns(self) -> u64 {
        self.0 | !Self::MOMENT
    }

    #[inline(always)]
    const fn class(self) -> u32 {
        (self.0 & Self::CLASS) as u32
    }

    #[inline(always)]
    const fn stays(self) -> bool {
        self.0 & Self::STAYS != 0
    }
}

/// The class that a packet is judged in, by its number in the slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    pub class: u32,
    /// It is not the packet's own, but that of those of its flow that wait: until then at most. 0: it is its own.
    pub until_ns: u64,
    /// The record is that of flows of two classes: it said that its flow is to be of another class, and here is a packet of
    /// the old one.
    pub is_of_two: bool,
}

/// So long a flow that never pauses stays of the class that it was of.
pub const STAY_NS: u64 = 10_000_000_000;

impl Seat {
    #[inline(always)]
    pub const fn own(class: u32) -> Self {
        Self {
            class,
            until_ns: 0,
            is_of_two: false,
        }
    }

    /// Of a packet of that class, by its flow's words. Of a record that flows share it is always the packet's own.
    #[inline(always)]
    pub const fn new(own: u32, now_ns: u64, joined_ns: u64, gone: u64) -> Self {
        let gone = Gone::from_word(gone);
        if joined_ns == 0 || now_ns >= gone.moment_ns() {
            return Self::own(own);
        }
        if gone.class() == own {
            return Self {
                is_of_two: gone.stays(),
                ..Self::own(own)
            };
        }
        let until_ns = if gone.stays() {
            joined_ns
        } else {
            now_ns.saturating_add(STAY_NS)
        };
        if now_ns >= until_ns {
            return Self::own(own);
        }
        Self {
            class: gone.class(),
            until_ns,
            is_of_two: false,
        }
    }
}

/// What a packet's leaf is decided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joining {
    pub now_ns: u64,
    /// The packet's time at the ceiling.
    pub cost_ns: u64,
    /// It may go before those of its class that are not.
    pub is_urgent: bool,
    /// [`LeafWords::thin_ns`]
    pub thin_ns: u64,
    pub seat: Seat,
    /// Of the seat's class.
    pub room: Room,
}

/// As read once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeafReadings {
    pub back_ns: u64,
    pub joined_ns: u64,
    pub gone: Gone,
}

/// Whether a packet may go before those that wait, if that keeps its flow in order: it has the lane, or it is of a
/// flow that asks and answers, and next to nothing has to leave before it.
#[inline(always)]
pub const fn is_urgent(decision: &Decision, now_ns: u64, class: &ClassTerms) -> bool {
    let is_early = decision.departure_ns <= now_ns.saturating_add(class.burst_ns);
    let is_interactive = matches!(decision.behaviour, Behaviour::Interactive);
    matches!(decision.verdict, Verdict::Send(Mode::Lane))
        || (class.favour_interactive && is_interactive && is_early)
}

/// Where the packet goes, unless it is one of a thin flow at the front.
#[inline(always)]
pub const fn leaf(packet: &Joining, read: &LeafReadings) -> Leaf {
    let is_at_front = read.joined_ns == 0;
    if packet.is_urgent && (is_at_front || has_left(packet, read)) {
        Leaf::Front
    } else {
        Leaf::Back
    }
}

/// Whether nothing of the flow is left at the back.
#[inline(always)]
const fn has_left(packet: &Joining, read: &LeafReadings) -> bool {
    let behind_ns = read.back_ns.saturating_sub(read.joined_ns);
    let room_ns = packet.room.room_ns;
    let is_of_this_back = read.gone.class() == packet.seat.class && !read.gone.stays();
    // The device counts a few bytes less for a packet.
    packet.now_ns >= read.gone.moment_ns()
        || (is_of_this_back && behind_ns >= room_ns + room_ns / 8)
}

impl<C: Word, F: Word> LeafWords<C, F> {
    /// Until when the flow uses the rate of a thin flow with this packet, if it is at the front and may stay there although the
    /// packet has to leave after others; else 0. What the flow is taken for makes no difference.
    #[inline(always)]
    pub fn thin_ns(&self, arrival: Arrival, slice: &SliceTerms, class: &ClassTerms) -> u64 {
        let Arrival { now_ns, bytes } = arrival;
        let used_ns = later(self.thin.read(), now_ns).saturating_add(slice.thin.ns_of(bytes));
        let is_thin = used_ns <= now_ns.saturating_add(slice.thin_burst_ns);
        if is_thin && class.favour_interactive && self.joined.read() == 0 {
            used_ns
        } else {
            0
        }
    }
}

/// Decides, and notes it.
#[inline(always)]
pub fn join<C: Word, F: Word>(packet: &Joining, words: &LeafWords<C, F>) -> Leaf {
    let read = LeafReadings {
        back_ns: words.back.read(),
        joined_ns: words.joined.read(),
        gone: Gone::from_word(words.gone.read()),
    };
    if !packet.is_urgent && packet.thin_ns != 0 {
        words.thin.write(packet.thin_ns);
        return Leaf::Front;
    }
    let leaf = leaf(packet, &read);
    match leaf {
        Leaf::Front if read.joined_ns != 0 => words.joined.write(0),
        Leaf::Front => {}
        Leaf::Back => {
            if packet.seat.until_ns == 0 {
                words.back.add(packet.cost_ns);
                // Also what others added meanwhile: rather more than joined before this packet. Never 0, since packets
                // take time.
                words.joined.write(words.back.read());
            } else {
                // What joins without being counted has others believe that less is behind them.
                words.joined.write(packet.seat.until_ns);
            }
            words.gone.write(Gone::after(packet).0);
        }
    }
    leaf
}
