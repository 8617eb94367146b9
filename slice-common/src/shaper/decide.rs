//! The decision about one packet: when it departs, whether it is marked or dropped, and what it is charged
//! to. A function of values; nothing is changed here.
//!
//! Each clock offers the packet a slot: the moment until which its rate is busy. The class's own slot is
//! taken if it is free now or comes before what the levels above have to lend; else the packet borrows
//! their slot, and the class keeps its credit. Whatever is sent is charged to the ceiling and the uplink.

use super::behaviour::{Ahead, Behaviour, Stance, pace_after, waited_after};
use super::clock::{Charge, earlier, later};
use super::cost::WireBytes;
use super::terms::{ClassTerms, SliceTerms, UplinkTerms};

/// A packet that wants to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Of the monotonic clock, which `fq` compares departures with.
    pub now_ns: u64,
    /// What the link carries for it; or what that counts while nodes lend ([`super::Loan`]).
    pub bytes: WireBytes,
}

#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    pub uplink: &'a UplinkTerms,
    pub slice: &'a SliceTerms,
    pub class: &'a ClassTerms,
}

/// The words that a decision rests on, as read once. All are 0 in the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readings {
    /// The uplink's contract. Shared by its slices.
    pub uplink_ns: u64,
    /// What the slice is guaranteed of the uplink.
    pub uplink_guarantee_ns: u64,
    /// The slice's ceiling. Shared by its classes.
    pub ceiling_ns: u64,
    /// The slice's lane.
    pub lane_ns: u64,
    /// The class's guarantee.
    pub guarantee_ns: u64,
    /// The part of it that interactive flows have ahead of backlogged ones.
    pub front_ns: u64,
    /// The part that backlogged flows have, whatever the interactive ones do.
    pub back_ns: u64,
    pub flow: FlowReadings,
}

/// What is known of a flow. Flows that share a record are one flow here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowReadings {
    /// Of its last packet.
    pub departure_ns: u64,
    /// Until when it has used the rate of a thin flow, by the lane.
    pub thin_ns: u64,
    /// Until when it has used its class's pace.
    pub pace_ns: u64,
    /// Until when it has used the rate of a thin flow, by what had to wait.
    pub waited_ns: u64,
    /// [`Stance`]
    pub stance: u64,
}

/// Whose rate a packet uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The class's own.
    Guaranteed,
    /// What others leave.
    Borrowed,
    /// The thin flows'.
    Lane,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Send(Mode),
    /// It would wait longer than the horizon, or is more than can be charged.
    Drop,
}

/// What each clock is charged; nothing for a packet that is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charges {
    pub uplink: Charge,
    pub uplink_guarantee: Charge,
    pub ceiling: Charge,
    pub lane: Charge,
    pub guarantee: Charge,
    pub front: Charge,
    pub back: Charge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    pub verdict: Verdict,
    /// Never before now, nor before the flow's last one. Of a dropped packet: when it would have departed.
    pub departure_ns: u64,
    /// It waits so long that its sender should be told (CE, if it understands that).
    pub is_marked: bool,
    /// Of its flow, this packet included.
    pub behaviour: Behaviour,
    pub charges: Charges,
    /// The flow's record after it, but for the departure.
    pub flow: FlowReadings,
}

/// A slot that a clock offers, and from where its credit counts.
#[derive(Clone, Copy)]
struct Slot {
    at_ns: u64,
    floor_ns: u64,
}

#[inline(always)]
const fn slot(clock_ns: u64, now_ns: u64, burst_ns: u64) -> Slot {
    let floor_ns = now_ns.saturating_sub(burst_ns);
    Slot {
        at_ns: later(clock_ns, floor_ns),
        floor_ns,
    }
}

/// What the levels above the class have to lend.
#[derive(Clone, Copy)]
struct Above {
    contract: Slot,
    share: Slot,
    ceiling: Slot,
    /// The slice is within what it is guaranteed of the uplink, or nobody else wants it.
    is_in_share: bool,
    lent_ns: u64,
}

#[inline(always)]
const fn above(now_ns: u64, uplink: &UplinkTerms, slice: &SliceTerms, read: &Readings) -> Above {
    let contract = slot(read.uplink_ns, now_ns, uplink.burst_ns);
    let share = slot(read.uplink_guarantee_ns, now_ns, uplink.guarantee_burst_ns);
    let ceiling = slot(read.ceiling_ns, now_ns, slice.burst_ns);
    Above {
        contract,
        share,
        ceiling,
        is_in_share: share.at_ns <= now_ns || share.at_ns <= contract.at_ns,
        lent_ns: later(ceiling.at_ns, earlier(share.at_ns, contract.at_ns)),
    }
}

/// What a flow does, and its record after the packet as far as that goes.
#[derive(Clone, Copy)]
struct Conduct {
    stance: Stance,
    is_front: bool,
    pace_ns: u64,
    waited_ns: u64,
}

#[inline(always)]
const fn conduct(arrival: Arrival, class: &ClassTerms, flow: &FlowReadings) -> Conduct {
    let Arrival { now_ns, bytes } = arrival;
    let pace_ns = pace_after(flow.pace_ns, now_ns, bytes, &class.habits);
    let before = Stance::from_word(flow.stance);
    let ahead = Ahead {
        pace_ns: pace_ns.saturating_sub(now_ns),
        waited_ns: flow.waited_ns.saturating_sub(now_ns),
        has_waiting: flow.departure_ns > now_ns,
    };
    let stance = before.after(now_ns, ahead, &class.habits);
    let is_front = matches!(stance.behaviour(), Behaviour::Interactive);
    // Who comes back is not judged by what it waited at the back.
    let comes_back = is_front && matches!(before.behaviour(), Behaviour::Backlogged);
    Conduct {
        stance,
        is_front,
        pace_ns,
        waited_ns: if comes_back { 0 } else { flow.waited_ns },
    }
}

/// What the class has itself.
#[derive(Clone, Copy)]
struct Own {
    guarantee: Slot,
    side: Slot,
    /// The flow's side of the class has its slot before the class as a whole.
    is_by_side: bool,
    at_ns: u64,
}

#[inline(always)]
const fn own(now_ns: u64, class: &ClassTerms, read: &Readings, is_front: bool) -> Own {
    let guarantee = slot(read.guarantee_ns, now_ns, class.burst_ns);
    let side_ns = if is_front {
        read.front_ns
    } else {
        read.back_ns
    };
    let side = slot(side_ns, now_ns, class.burst_ns);
    let is_by_side = class.favour_interactive && side.at_ns < guarantee.at_ns;
    let at_ns = if is_by_side {
        side.at_ns
    } else {
        guarantee.at_ns
    };
    Own {
        guarantee,
        side,
        is_by_side,
        at_ns,
    }
}

/// Whether a thin flow that has nothing waiting may pass, and what that costs.
#[derive(Clone, Copy)]
struct Lane {
    is_open: bool,
    cost_ns: u64,
    thin_cost_ns: u64,
    /// The flow's record, if it takes the lane.
    thin_ns: u64,
}

#[inline(always)]
const fn lane(arrival: Arrival, slice: &SliceTerms, read: &Readings) -> Lane {
    let Arrival { now_ns, bytes } = arrival;
    let thin_cost_ns = slice.thin.ns_of(bytes);
    let thin_ns = later(read.flow.thin_ns, now_ns).saturating_add(thin_cost_ns);
    let cost_ns = slice.lane.ns_of(bytes);
    let lane_ns = later(read.lane_ns, now_ns).saturating_add(cost_ns);
    Lane {
        is_open: read.flow.departure_ns <= now_ns
            && bytes.count() <= slice.lane_packet.count()
            && thin_ns <= now_ns.saturating_add(slice.thin_burst_ns)
            && lane_ns <= now_ns.saturating_add(slice.lane_burst_ns),
        cost_ns,
        thin_cost_ns,
        thin_ns,
    }
}

/// Decides on one packet: some thirty comparisons and nine multiplications; no division, no loop.
#[inline(always)]
pub const fn decide(arrival: Arrival, terms: Terms<'_>, read: &Readings) -> Decision {
    let Arrival { now_ns, bytes } = arrival;
    let class = terms.class;
    let above = above(now_ns, terms.uplink, terms.slice, read);
    let conduct = conduct(arrival, class, &read.flow);
    let own = own(now_ns, class, read, conduct.is_front);
    let is_own = own.at_ns <= now_ns || own.at_ns <= above.lent_ns;
    let slot_ns = if is_own { own.at_ns } else { above.lent_ns };
    let lane = lane(arrival, terms.slice, read);
    // For a packet that would wait.
    let is_lane = lane.is_open && slot_ns > now_ns;
    let slot_ns = if is_lane { now_ns } else { slot_ns };
    let departure_ns = later(later(slot_ns, now_ns), read.flow.departure_ns);
    let delay_ns = departure_ns - now_ns;
    let horizon_ns = if is_lane || is_own {
        class.horizon_ns
    } else {
        class.borrowed_horizon_ns
    };
    // More than can be charged is never let through: somebody made it by hand.
    let is_in_time = delay_ns <= horizon_ns && bytes.count() < WireBytes::MAX;
    let verdict = match (is_in_time, is_lane, is_own) {
        (false, _, _) => Verdict::Drop,
        (true, true, _) => Verdict::Send(Mode::Lane),
        (true, false, true) => Verdict::Send(Mode::Guaranteed),
        (true, false, false) => Verdict::Send(Mode::Borrowed),
    };
    let is_sent = !matches!(verdict, Verdict::Drop);
    let (waited_ns, habits) = (conduct.waited_ns, &class.habits);
    Decision {
        verdict,
        departure_ns,
        is_marked: is_sent && delay_ns > class.mark_ns,
        behaviour: conduct.stance.behaviour(),
        charges: Charges {
            lane: Charge::when(is_sent && is_lane, now_ns, lane.cost_ns),
            ..charges(verdict, bytes, terms, &above, (&own, conduct.is_front))
        },
        flow: FlowReadings {
            departure_ns: read.flow.departure_ns,
            thin_ns: if is_lane {
                lane.thin_ns
            } else {
                read.flow.thin_ns
            },
            pace_ns: conduct.pace_ns,
            waited_ns: if is_sent {
                waited_after(waited_ns, now_ns, delay_ns, lane.thin_cost_ns, habits)
            } else {
                waited_ns
            },
            stance: conduct.stance.word(),
        },
    }
}

/// Whatever is sent counts at the ceiling and the uplink; at the class only what used its own slot.
#[inline(always)]
const fn charges(
    verdict: Verdict,
    bytes: WireBytes,
    terms: Terms<'_>,
    above: &Above,
    (own, is_front): (&Own, bool),
) -> Charges {
    let (uplink, slice, class) = (terms.uplink, terms.slice, terms.class);
    let is_sent = !matches!(verdict, Verdict::Drop);
    let is_guaranteed = matches!(verdict, Verdict::Send(Mode::Guaranteed));
    let is_by_side = is_guaranteed && own.is_by_side;
    let side_ns = own.side.floor_ns;
    Charges {
        uplink: Charge::when(
            is_sent,
            above.contract.floor_ns,
            uplink.contract.ns_of(bytes),
        ),
        uplink_guarantee: Charge::when(
            is_sent && above.is_in_share,
            above.share.floor_ns,
            uplink.guarantee.ns_of(bytes),
        ),
        ceiling: Charge::when(is_sent, above.ceiling.floor_ns, slice.ceiling.ns_of(bytes)),
        lane: Charge::NOTHING,
        guarantee: Charge::when(
            is_guaranteed,
            own.guarantee.floor_ns,
            class.guarantee.ns_of(bytes),
        ),
        front: Charge::when(is_by_side && is_front, side_ns, class.front.ns_of(bytes)),
        back: Charge::when(is_by_side && !is_front, side_ns, class.back.ns_of(bytes)),
    }
}
