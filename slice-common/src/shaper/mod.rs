//! The shaper: which packet may leave when, so that a slice keeps to its ceiling on a paid link, each class
//! gets its guarantee, and short requests do not wait behind bulk. `docs/shaper.md` explains it to people,
//! with the bounds and where they come from.
//!
//! Pure arithmetic on words that processors share without a lock. Time is an argument, in nanoseconds of
//! the monotonic clock. The kernel program has the packet's departure honoured by `fq`, or its class by
//! `htb`, or marks and drops only.

mod behaviour;
mod clock;
mod cost;
mod decide;
mod delay;
mod entitlement;
mod leaf;
mod loan;
mod record;
mod terms;
mod wire;

pub use behaviour::{Behaviour, Stance};
pub use clock::{Charge, TRIES, Word, claim_departure};
pub use cost::{ByteCost, Rate, WireBytes};
pub use decide::{
    Arrival, Charges, Decision, FlowReadings, Mode, Readings, Terms, Verdict, decide,
};
pub use delay::{DELAY_BUCKETS, delay_bucket, delay_bucket_end_ns};
pub use entitlement::{
    Assured, CLASS_MIN_BPS, ClassShare, LANE_PARTS, Refusal, SPARE_PARTS, check_uplink,
};
pub use leaf::{
    Gone, Joining, Leaf, LeafReadings, LeafWords, Room, STAY_NS, Seat, charged_bytes,
    counted_bytes, is_urgent, join, leaf, served_bytes_per_s,
};
pub use loan::Loan;
pub use record::{
    Choice, FlowEnds, Holder, Owner, Record, RecordReadings, RecordWords, SILENCE_NS, choose, find,
};
pub use terms::{ClassTerms, Habits, Patience, SliceTerms, UplinkTerms};
pub use wire::{LINK_BYTES, Outgoing, segments, wire_bytes};

/// Clocks of an uplink, which its slices share. Each clock wants a cache line of its own.
#[derive(Clone, Copy, Debug)]
pub struct UplinkWords<W> {
    pub contract: W,
}

/// Clocks of a slice on an uplink.
#[derive(Clone, Copy, Debug)]
pub struct SliceWords<W> {
    pub uplink_guarantee: W,
    pub ceiling: W,
    pub lane: W,
}

/// Clocks of a class of a slice.
#[derive(Clone, Copy, Debug)]
pub struct ClassWords<W> {
    pub guarantee: W,
    pub front: W,
    pub back: W,
}

/// What is known of a flow, on one cache line.
#[derive(Clone, Copy, Debug)]
pub struct FlowWords<W> {
    pub departure: W,
    pub thin: W,
    pub pace: W,
    pub waited: W,
    pub stance: W,
}

/// All words that a packet is judged by and charged to.
#[derive(Debug)]
pub struct Words<'a, C, F> {
    pub uplink: &'a UplinkWords<C>,
    pub slice: &'a SliceWords<C>,
    pub class: &'a ClassWords<C>,
    pub flow: &'a FlowWords<F>,
}

impl<C: Word, F: Word> Words<'_, C, F> {
    #[inline(always)]
    fn read(&self) -> Readings {
        Readings {
            uplink_ns: self.uplink.contract.read(),
            uplink_guarantee_ns: self.slice.uplink_guarantee.read(),
            ceiling_ns: self.slice.ceiling.read(),
            lane_ns: self.slice.lane.read(),
            guarantee_ns: self.class.guarantee.read(),
            front_ns: self.class.front.read(),
            back_ns: self.class.back.read(),
            flow: FlowReadings {
                departure_ns: self.flow.departure.read(),
                thin_ns: self.flow.thin.read(),
                pace_ns: self.flow.pace.read(),
                waited_ns: self.flow.waited.read(),
                stance: self.flow.stance.read(),
            },
        }
    }

    #[inline(always)]
    fn charge(&self, charges: &Charges) {
        charges.uplink.charge(&self.uplink.contract);
        charges
            .uplink_guarantee
            .charge(&self.slice.uplink_guarantee);
        charges.ceiling.charge(&self.slice.ceiling);
        charges.lane.charge(&self.slice.lane);
        charges.guarantee.charge(&self.class.guarantee);
        charges.front.charge(&self.class.front);
        charges.back.charge(&self.class.back);
    }
}

/// Decides on one packet and charges it: what a program does with every packet. The result is final; its
/// departure may be later than decided, where another processor sent a packet of the flow meanwhile.
///
/// Twelve words are read, two to six clocks charged, five of the flow's written.
#[inline(always)]
pub fn shape<C: Word, F: Word>(
    arrival: Arrival,
    terms: Terms<'_>,
    words: &Words<'_, C, F>,
) -> Decision {
    let read = words.read();
    let mut decision = decide(arrival, terms, &read);
    let flow = decision.flow;
    words.flow.pace.write(flow.pace_ns);
    words.flow.waited.write(flow.waited_ns);
    words.flow.stance.write(flow.stance);
    if matches!(decision.verdict, Verdict::Drop) {
        return decision;
    }
    words.flow.thin.write(flow.thin_ns);
    words.charge(&decision.charges);
    let last_ns = read.flow.departure_ns;
    decision.departure_ns = claim_departure(&words.flow.departure, last_ns, decision.departure_ns);
    decision
}
