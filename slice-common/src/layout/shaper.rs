//! What uplinks are shared by: the terms, which the agent writes, and the clocks, which packets move.
//!
//! The table of terms is swapped whole, so a packet is judged by the old terms or by the new ones. Clocks
//! stay where they are: a new rate changes what a byte costs, and nothing else. So the agent gives each
//! slice on an uplink a place among the clocks, and leaves it there for as long as both are configured.
//! A place may be taken over at once: the clocks of who was there lead by a horizon at most.

use super::{Capacity, Counter, layout};
use crate::id::TrafficClass;
use crate::shaper::{
    ByteCost, ClassTerms, DELAY_BUCKETS, Habits, Loan, Room, SliceTerms, UplinkTerms, WireBytes,
};

layout! {
    /// Key data of `SHAPER_TERMS`, never a prefix of one ([`ShaperKey::BITS`]).
    pub struct ShaperKey: 8 {
        /// The device that the slice's tunnel packets leave by.
        pub ifindex: u32,
        pub slice: u32,
    }
}

impl ShaperKey {
    pub const BITS: u32 = 64;
}

/// What makes packets keep to their departure, as numbers in [`ShaperTerms::backend`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShaperBackend {
    /// Nothing does: packets leave at once, and those that would wait too long are dropped (a virtual
    /// queue).
    Vq,
    /// The device's qdisc is `fq`, which keeps each packet until the moment written on it.
    Edt,
    /// The device's qdisc is `htb`, in a class of which the packet waits for its turn.
    Htb,
}

impl ShaperBackend {
    pub const ALL: [Self; 3] = [Self::Vq, Self::Edt, Self::Htb];

    #[inline(always)]
    pub const fn number(self) -> u32 {
        match self {
            Self::Vq => 1,
            Self::Edt => 2,
            Self::Htb => 3,
        }
    }

    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.number() == number)
    }

    /// As people see it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Vq => "vq",
            Self::Edt => "edt",
            Self::Htb => "htb",
        }
    }
}

layout! {
    /// A class in [`ShaperTerms`]: [`ClassTerms`] in words.
    pub struct ShaperClass: 120 {
        pub guarantee: u64,
        pub burst_ns: u64,
        pub horizon_ns: u64,
        pub borrowed_horizon_ns: u64,
        pub mark_ns: u64,
        pub front: u64,
        pub back: u64,
        pub pace: u64,
        pub pace_burst_ns: u64,
        pub standing_ns: u64,
        pub patience_ns: u64,
        pub calm_ns: u64,
        /// [`Room`]
        pub room_ns: u64,
        pub drained_ns: u64,
        /// 1: flows are told apart by what they do.
        pub favour_interactive: u16,
        /// The place by which its queues are named, where there are any ([`QueueClass`]).
        pub queue: u16,
        /// Its place in `CLASS_CLOCKS` and `SHAPER_COUNTS`.
        pub clocks: u32,
    }
}

layout! {
    /// Value of `SHAPER_TERMS`: what a slice may do on an uplink. Made by [`ShaperTerms::new`].
    pub struct ShaperTerms: 1056 {
        /// One of [`ShaperBackend`].
        pub backend: u32,
        /// The place in `SLICE_CLOCKS`.
        pub clocks: u32,
        /// The uplink's place in `UPLINK_CLOCKS`.
        pub uplink_clocks: u32,
        pub lane_packet_bytes: u32,
        pub contract: u64,
        pub uplink_guarantee: u64,
        pub contract_burst_ns: u64,
        pub uplink_guarantee_burst_ns: u64,
        pub ceiling: u64,
        pub burst_ns: u64,
        pub lane: u64,
        pub lane_burst_ns: u64,
        pub thin: u64,
        pub thin_burst_ns: u64,
        pub classes: [ShaperClass; TrafficClass::COUNT],
    }
}

/// Classes of `htb` on an uplink, as the lower half of their handles. The upper half of the tree's own, and of all
/// of its classes, is [`QueueClass::TREE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum QueueClass {
    /// All slices together: what is paid for.
    Uplink,
    /// Everything that is not ours.
    Others,
    OthersLeaf,
    /// By the place of its clocks, as all of the following.
    Slice(u32),
    Class(u32),
    /// Of a class: what waits for nothing.
    Front(u32),
    /// Of a class: what waits for its turn.
    Back(u32),
}

impl QueueClass {
    pub const TREE: u16 = 0x51ce;
    /// Of the numbers of a slice: its own, and three times those of its classes.
    const EACH: u32 = 4 * TrafficClass::COUNT as u32;

    #[inline(always)]
    pub const fn minor(self) -> u16 {
        let number = match self {
            Self::Uplink => 1,
            Self::Others => 2,
            Self::OthersLeaf => 3,
            Self::Slice(slice) => Self::EACH * (slice + 1),
            Self::Class(class) => Self::of_class(class, 1),
            Self::Front(class) => Self::of_class(class, 2),
            Self::Back(class) => Self::of_class(class, 3),
        };
        number as u16
    }

    #[inline(always)]
    const fn of_class(class: u32, part: u32) -> u32 {
        let classes = TrafficClass::COUNT as u32;
        Self::EACH * (class / classes + 1) + part * classes + class % classes
    }

    /// What a packet has as its priority to wait there.
    #[inline(always)]
    pub const fn priority(self) -> u32 {
        (Self::TREE as u32) << 16 | self.minor() as u32
    }
}

const _: () = assert!(TrafficClass::COUNT * Capacity::SLICE_CLOCKS <= u16::MAX as usize);
const _: () = assert!(QueueClass::EACH * (Capacity::SLICE_CLOCKS as u32 + 1) <= u16::MAX as u32);

/// Where the clocks of a slice on an uplink are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ShaperPlace {
    /// Of the uplink, `0..Capacity::UPLINK_CLOCKS`: slices share it.
    pub uplink: u32,
    /// Of the slice on it, `0..Capacity::SLICE_CLOCKS`: nobody shares it.
    pub slice: u32,
}

impl ShaperClass {
    fn new(terms: &ClassTerms, clocks: u32, backend: u32, ceiling: ByteCost) -> Self {
        let habits = &terms.habits;
        let room = Room::new(terms, ceiling);
        Self {
            guarantee: terms.guarantee.word(),
            burst_ns: terms.burst_ns,
            horizon_ns: terms.horizon_ns,
            borrowed_horizon_ns: terms.borrowed_horizon_ns,
            // What leaves at once comes in bursts that say nothing about a queue.
            mark_ns: if backend == ShaperBackend::Vq.number() {
                u64::MAX
            } else {
                terms.mark_ns
            },
            front: terms.front.word(),
            back: terms.back.word(),
            pace: habits.pace.word(),
            pace_burst_ns: habits.burst_ns,
            standing_ns: habits.standing_ns,
            patience_ns: habits.patience_ns,
            calm_ns: habits.calm_ns,
            room_ns: room.room_ns,
            drained_ns: room.drained_ns,
            favour_interactive: u16::from(terms.favour_interactive),
            queue: clocks as u16,
            clocks,
        }
    }

    #[inline(always)]
    pub const fn terms(&self) -> ClassTerms {
        ClassTerms {
            guarantee: ByteCost::from_word(self.guarantee),
            burst_ns: self.burst_ns,
            horizon_ns: self.horizon_ns,
            borrowed_horizon_ns: self.borrowed_horizon_ns,
            mark_ns: self.mark_ns,
            front: ByteCost::from_word(self.front),
            back: ByteCost::from_word(self.back),
            habits: Habits {
                pace: ByteCost::from_word(self.pace),
                burst_ns: self.pace_burst_ns,
                standing_ns: self.standing_ns,
                patience_ns: self.patience_ns,
                calm_ns: self.calm_ns,
            },
            favour_interactive: self.favour_interactive != 0,
        }
    }

    /// Of those that packets are charged to.
    #[inline(always)]
    pub const fn number(&self) -> u32 {
        self.clocks % TrafficClass::COUNT as u32
    }

    /// How much may wait at its back.
    #[inline(always)]
    pub const fn room(&self) -> Room {
        Room {
            room_ns: self.room_ns,
            drained_ns: self.drained_ns,
        }
    }
}

impl ShaperTerms {
    /// Of a slice of which nothing but the default class is configured: all classes are that one.
    pub fn new(
        backend: ShaperBackend,
        place: ShaperPlace,
        uplink: &UplinkTerms,
        slice: &SliceTerms,
        default: &ClassTerms,
    ) -> Self {
        let clocks = Self::class_clocks(place.slice, TrafficClass::DEFAULT);
        let backend = backend.number();
        Self {
            backend,
            clocks: place.slice,
            uplink_clocks: place.uplink,
            lane_packet_bytes: slice.lane_packet.count(),
            contract: uplink.contract.word(),
            uplink_guarantee: uplink.guarantee.word(),
            contract_burst_ns: uplink.burst_ns,
            uplink_guarantee_burst_ns: uplink.guarantee_burst_ns,
            ceiling: slice.ceiling.word(),
            burst_ns: slice.burst_ns,
            lane: slice.lane.word(),
            lane_burst_ns: slice.lane_burst_ns,
            thin: slice.thin.word(),
            thin_burst_ns: slice.thin_burst_ns,
            classes: [ShaperClass::new(default, clocks, backend, slice.ceiling);
                TrafficClass::COUNT],
        }
    }

    /// With a class of its own.
    #[must_use]
    pub fn with_class(mut self, class: TrafficClass, terms: &ClassTerms) -> Self {
        let clocks = Self::class_clocks(self.clocks, class);
        self.classes[class.number() as usize] = {
            let ceiling = ByteCost::from_word(self.ceiling);
            ShaperClass::new(terms, clocks, self.backend, ceiling)
        };
        self
    }

    /// With one that is configured no more, for flows of which something may wait there: they go on to wait there, under
    /// the default class's terms. `room`: of the class as it was.
    #[must_use]
    pub fn with_vacated(mut self, class: TrafficClass, room: Room) -> Self {
        let place = Self::class_clocks(self.clocks, class);
        let left = &mut self.classes[class.number() as usize];
        left.queue = place as u16;
        (left.room_ns, left.drained_ns) = (room.room_ns, room.drained_ns);
        self
    }

    /// Whether the class is configured no more, but flows may wait there.
    pub const fn is_vacated(&self, class: TrafficClass) -> bool {
        let queue = self.classes[class.number() as usize].queue;
        queue as u32 == Self::class_clocks(self.clocks, class) && !self.has_class(class)
    }

    /// Whether the class is configured, and not the default one under another number.
    pub const fn has_class(&self, class: TrafficClass) -> bool {
        let clocks = self.classes[class.number() as usize].clocks;
        clocks == Self::class_clocks(self.clocks, class)
    }

    /// Where the clocks are.
    pub const fn place(&self) -> ShaperPlace {
        ShaperPlace {
            uplink: self.uplink_clocks,
            slice: self.clocks,
        }
    }

    /// A full packet on the link: half of the largest that takes the lane.
    #[inline(always)]
    pub const fn frame(&self) -> WireBytes {
        WireBytes::new(self.lane_packet_bytes as u64 / 2)
    }

    /// The place of a class's clocks, by that of its slice.
    pub const fn class_clocks(slice: u32, class: TrafficClass) -> u32 {
        slice * TrafficClass::COUNT as u32 + class.number() as u32
    }

    #[inline(always)]
    pub const fn uplink(&self) -> UplinkTerms {
        UplinkTerms {
            contract: ByteCost::from_word(self.contract),
            guarantee: ByteCost::from_word(self.uplink_guarantee),
            burst_ns: self.contract_burst_ns,
            guarantee_burst_ns: self.uplink_guarantee_burst_ns,
        }
    }

    #[inline(always)]
    pub const fn slice(&self) -> SliceTerms {
        SliceTerms {
            ceiling: ByteCost::from_word(self.ceiling),
            burst_ns: self.burst_ns,
            lane: ByteCost::from_word(self.lane),
            lane_burst_ns: self.lane_burst_ns,
            thin: ByteCost::from_word(self.thin),
            thin_burst_ns: self.thin_burst_ns,
            lane_packet: WireBytes::new(self.lane_packet_bytes as u64),
        }
    }
}

layout! {
    /// Value of `UPLINK_CLOCKS`. Records of clocks are as long as a cache line, so that no two share one.
    pub struct UplinkClocks: 64 {
        pub contract_ns: u64,
        pub unused: [u64; 7],
    }
}

layout! {
    /// Value of `SLICE_CLOCKS`.
    pub struct SliceClocks: 64 {
        pub uplink_guarantee_ns: u64,
        pub ceiling_ns: u64,
        pub lane_ns: u64,
        pub unused: [u64; 5],
    }
}

layout! {
    /// Value of `SHAPER_LOANS`, by the place of a slice's clocks: a [`Loan`]. Zeros: none.
    pub struct ShaperLoan: 16 {
        pub until_ns: u64,
        pub byte_parts: u32,
        pub reserved: u32,
    }
}

impl ShaperLoan {
    pub const fn new(loan: Loan) -> Self {
        Self {
            until_ns: loan.until_ns,
            byte_parts: loan.byte_parts,
            reserved: 0,
        }
    }

    #[inline(always)]
    pub const fn loan(&self) -> Loan {
        Loan {
            until_ns: self.until_ns,
            byte_parts: self.byte_parts,
        }
    }
}

layout! {
    /// Value of `CLASS_CLOCKS`.
    pub struct ClassClocks: 64 {
        pub guarantee_ns: u64,
        pub front_ns: u64,
        pub back_ns: u64,
        /// [`crate::shaper::LeafWords::back`]
        pub joined_back_ns: u64,
        pub unused: [u64; 4],
    }
}

layout! {
    /// Value of `FLOW_CLOCKS`, a flow's record: [`crate::shaper::Record`].
    pub struct FlowClocks: 64 {
        pub departure_ns: u64,
        pub thin_ns: u64,
        pub pace_ns: u64,
        pub waited_ns: u64,
        /// A [`crate::shaper::Stance`].
        pub stance: u64,
        /// [`crate::shaper::LeafWords`]
        pub joined_ns: u64,
        pub gone: u64,
        /// A [`crate::shaper::Owner`], or 0.
        pub owner: u64,
    }
}

impl FlowClocks {
    /// Nobody's.
    pub const NOTHING: Self = Self {
        departure_ns: 0,
        thin_ns: 0,
        pace_ns: 0,
        waited_ns: 0,
        stance: 0,
        joined_ns: 0,
        gone: 0,
        owner: 0,
    };
}

layout! {
    /// Value of `SHAPER_COUNTS`, by the places of `CLASS_CLOCKS`: tunnel packets, and the bytes that the
    /// link carries for them. A segmentation-offload packet counts once, with the bytes of its segments.
    pub struct ShaperCounts: 216 {
        /// By [`crate::shaper::Mode`].
        pub guaranteed: Counter,
        pub borrowed: Counter,
        pub lane: Counter,
        /// Dropped, because they would have waited too long.
        pub over_horizon: Counter,
        /// Marked (CE), because they wait long.
        pub marked: u64,
        /// That their sender's socket still knows of, so that it sends no faster than they leave.
        pub with_socket: u64,
        /// Of those that left: by how long they had to wait ([`crate::shaper::delay_bucket`]).
        pub waited: [u64; DELAY_BUCKETS],
        /// By how long the latest one had to.
        pub latest_wait_ns: u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shaper::{Assured, Patience, Rate};

    const PLACE: ShaperPlace = ShaperPlace {
        uplink: 3,
        slice: 5,
    };

    fn terms() -> (UplinkTerms, SliceTerms, ClassTerms, ClassTerms) {
        let rate = |bps| Rate::new_checked(bps).expect("in range");
        let (frame, patience) = (WireBytes::new(1538), Patience::for_round_trip(10_000_000));
        let ceiling = rate(50_000_000);
        let mut replication = ClassTerms::new(rate(20_000_000), patience, frame);
        replication.favour_interactive = false;
        (
            UplinkTerms::new(rate(100_000_000), rate(60_000_000), patience, frame),
            SliceTerms::new(ceiling, Assured::new(ceiling, None), frame),
            ClassTerms::new(rate(25_000_000), patience, frame),
            replication,
        )
    }

    #[test]
    fn terms_come_back_as_they_were_written() {
        let (uplink, slice, default, replication) = terms();
        let class = TrafficClass::from_low_bits(2);
        let edt = ShaperBackend::Edt;
        let written =
            ShaperTerms::new(edt, PLACE, &uplink, &slice, &default).with_class(class, &replication);
        assert_eq!((written.uplink(), written.slice()), (uplink, slice));
        assert_eq!(written.classes[2].terms(), replication);
        for other in [0, 1, 3, 4, 5, 6, 7] {
            assert_eq!(written.classes[other].terms(), default);
            assert_eq!(
                written.classes[other].clocks, 40,
                "those of the default class"
            );
        }
        assert_eq!(written.classes[2].clocks, 42);
        assert_eq!((written.clocks, written.uplink_clocks), (5, 3));
        assert_eq!(written.place(), PLACE);
        let has = |number| written.has_class(TrafficClass::from_low_bits(number));
        assert_eq!([has(0), has(1), has(2), has(7)], [true, false, true, false]);
    }

    #[test]
    fn nothing_is_marked_where_nothing_queues() {
        let (uplink, slice, default, _) = terms();
        let vq = ShaperTerms::new(ShaperBackend::Vq, PLACE, &uplink, &slice, &default);
        let class = vq.classes[0].terms();
        assert_eq!(class.mark_ns, u64::MAX);
        assert_eq!(class.horizon_ns, default.horizon_ns);
    }
}
