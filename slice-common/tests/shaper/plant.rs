//! What is under test: slices and classes on an uplink, in plain memory.

use std::cell::Cell;

use slice_common::shaper::{
    Arrival, Assured, ClassShare, ClassTerms, ClassWords, Decision, FlowWords, Loan, Patience,
    Rate, SliceTerms, SliceWords, Terms, UplinkTerms, UplinkWords, WireBytes, Word, Words, shape,
};

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const SECOND: u64 = 1000 * MS;
/// Simulations begin here, as clocks of hosts do: not at 0.
pub(crate) const START: u64 = 100 * SECOND;
/// A full packet on an Ethernet link of MTU 1500.
pub(crate) const FRAME: u64 = 1538;

/// A word that one processor uses.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plain(Cell<u64>);

impl Word for Plain {
    fn read(&self) -> u64 {
        self.0.get()
    }

    fn write(&self, value: u64) {
        self.0.set(value);
    }

    fn replace(&self, old: u64, new: u64) -> Result<(), u64> {
        let seen = self.0.get();
        if seen != old {
            return Err(seen);
        }
        self.0.set(new);
        Ok(())
    }

    fn add(&self, value: u64) {
        self.0.set(self.0.get() + value);
    }
}

pub(crate) fn uplink_words<W: Default>() -> UplinkWords<W> {
    UplinkWords {
        contract: W::default(),
    }
}

pub(crate) fn slice_words<W: Default>() -> SliceWords<W> {
    SliceWords {
        uplink_guarantee: W::default(),
        ceiling: W::default(),
        lane: W::default(),
    }
}

pub(crate) fn class_words<W: Default>() -> ClassWords<W> {
    ClassWords {
        guarantee: W::default(),
        front: W::default(),
        back: W::default(),
    }
}

pub(crate) fn flow_words<W: Default>() -> FlowWords<W> {
    FlowWords {
        departure: W::default(),
        thin: W::default(),
        pace: W::default(),
        waited: W::default(),
        stance: W::default(),
    }
}

pub(crate) fn rate(bps: u64) -> Rate {
    Rate::new_checked(bps).expect("a rate in range")
}

pub(crate) fn frames(count: u64) -> WireBytes {
    WireBytes::new(count * FRAME)
}

/// A slice as configured, on a path with this round trip.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    pub(crate) ceiling_bps: u64,
    pub(crate) rtt_ns: u64,
    pub(crate) classes: Vec<ClassShare>,
    /// Contract, and what this slice is guaranteed of it.
    pub(crate) uplink_bps: Option<(u64, u64)>,
}

impl Profile {
    /// With these guarantees in percent of the ceiling, and equal weights.
    pub(crate) fn new(ceiling_bps: u64, rtt_ms: u64, percents: &[u64]) -> Self {
        let classes = percents
            .iter()
            .map(|percent| ClassShare {
                guarantee_bps: ceiling_bps / 100 * percent,
                weight: 1,
            })
            .collect();
        Self {
            ceiling_bps,
            rtt_ns: rtt_ms * MS,
            classes,
            uplink_bps: None,
        }
    }

    pub(crate) fn weights(mut self, weights: &[u16]) -> Self {
        for (class, weight) in self.classes.iter_mut().zip(weights) {
            class.weight = *weight;
        }
        self
    }

    pub(crate) fn assured(&self) -> Assured {
        let guarantee = self.uplink_bps.map(|(_, guarantee)| rate(guarantee));
        Assured::new(rate(self.ceiling_bps), guarantee)
    }

    pub(crate) fn entitlement_bps(&self, class: usize) -> u64 {
        let entitlement = self.assured().entitlement(&self.classes, class);
        entitlement.expect("a profile that fits").bps()
    }

    pub(crate) fn patience(&self) -> Patience {
        Patience::for_round_trip(self.rtt_ns)
    }
}

#[derive(Debug)]
pub(crate) struct Class {
    pub(crate) terms: ClassTerms,
    words: ClassWords<Plain>,
}

#[derive(Debug)]
pub(crate) struct Slice {
    pub(crate) uplink: UplinkTerms,
    pub(crate) terms: SliceTerms,
    pub(crate) classes: Vec<Class>,
    pub(crate) words: SliceWords<Plain>,
}

/// Slices that leave by one uplink.
#[derive(Debug)]
pub(crate) struct Plant {
    pub(crate) slices: Vec<Slice>,
    /// What the node has of its slices' ceilings.
    pub(crate) loan: Loan,
    pub(crate) uplink: UplinkWords<Plain>,
}

impl Plant {
    pub(crate) fn new(profiles: &[Profile]) -> Self {
        Self {
            slices: profiles.iter().map(slice).collect(),
            loan: Loan::NONE,
            uplink: uplink_words(),
        }
    }

    /// Sends one packet of a flow.
    pub(crate) fn shape(
        &self,
        (slice, class): (usize, usize),
        flow: &FlowWords<Plain>,
        now_ns: u64,
        bytes: WireBytes,
    ) -> Decision {
        let slice = &self.slices[slice];
        let class = &slice.classes[class];
        let terms = Terms {
            uplink: &slice.uplink,
            slice: &slice.terms,
            class: &class.terms,
        };
        let words = Words {
            uplink: &self.uplink,
            slice: &slice.words,
            class: &class.words,
            flow,
        };
        let arrival = Arrival {
            now_ns,
            bytes: self.loan.counted(now_ns, bytes),
        };
        shape(arrival, terms, &words)
    }
}

fn slice(profile: &Profile) -> Slice {
    let patience = profile.patience();
    let uplink = profile
        .uplink_bps
        .map_or(UplinkTerms::NONE, |(contract, guarantee)| {
            UplinkTerms::new(rate(contract), rate(guarantee), patience, frames(1))
        });
    let class = |class| Class {
        terms: ClassTerms::new(rate(profile.entitlement_bps(class)), patience, frames(1)),
        words: class_words(),
    };
    Slice {
        uplink,
        terms: SliceTerms::new(rate(profile.ceiling_bps), profile.assured(), frames(1)),
        classes: (0..profile.classes.len()).map(class).collect(),
        words: slice_words(),
    }
}

/// What may be accepted in any window beyond the ceiling's bytes: `docs/shaper.md` derives it.
pub(crate) fn excess_bound_bytes(profile: &Profile, slice: &Slice, largest_packet: u64) -> u64 {
    let entitled_bps: u64 = (0..profile.classes.len())
        .map(|class| profile.entitlement_bps(class))
        .sum();
    let class = &slice.classes[0].terms;
    let wait_ns = slice.terms.burst_ns + class.horizon_ns;
    let own_ns = 2 * (class.burst_ns + class.horizon_ns);
    let packets = 1 + 3 * profile.classes.len() as u64;
    bytes_in(profile.ceiling_bps, wait_ns)
        + bytes_in(entitled_bps, own_ns)
        + packets * largest_packet
        + 16 * FRAME
}

pub(crate) fn bytes_in(bps: u64, time_ns: u64) -> u64 {
    (bps / 8 * (time_ns / 1000)).div_ceil(1_000_000)
}
