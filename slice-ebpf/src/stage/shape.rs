//! When may this tunnel packet leave?

use slice_common::drop_reason::DropReason;
use slice_common::id::Vni;
use slice_common::layout::{Counter, QueueClass, ShaperBackend, ShaperClass, ShaperTerms};
use slice_common::shaper::{
    Arrival, Joining, LINK_BYTES, Leaf, Mode, Outgoing, Seat, Terms, Verdict, WireBytes, Words,
    charged_bytes, counted_bytes, delay_bucket, is_urgent, join, shape, wire_bytes,
};
use slice_common::wire::transport::{TCP, TCP_OFFSET_FLAGS_OFFSET, TcpFlags, UDP_HEADER_BYTES};
use slice_common::wire::{ETHERNET_BYTES, ipv4, vxlan};

use crate::packet::{Packet, now_ns};
use crate::stage::tunnel::{self, Departing};
use crate::{clocks, maps};

/// What the slice of a tunnel packet may do on the device that it leaves by; nothing where it may do
/// what it likes.
#[inline(always)]
pub(crate) fn terms(packet: Packet, vni: Vni) -> Option<&'static ShaperTerms> {
    maps::shaper_terms(packet.ifindex(), vni.slice_number())
}

/// Whether the packet goes to a node of this cluster, by the same interface: nobody pays for that.
#[inline(always)]
pub(crate) fn stays_in_cluster(departing: &Departing) -> bool {
    match maps::peer(departing.destination) {
        Some(peer) => peer.is_of_same_cluster(),
        None => false,
    }
}

#[inline(always)]
fn class(terms: &'static ShaperTerms, number: u64) -> &'static ShaperClass {
    &terms.classes[number as usize & 7]
}

/// What the link carries for a tunnel packet.
#[inline(always)]
pub(crate) fn bytes_on_link(packet: Packet) -> WireBytes {
    let network_bytes = network_bytes(packet);
    let gso_bytes = packet.gso_bytes();
    if gso_bytes == 0 {
        return WireBytes::new(network_bytes as u64 + LINK_BYTES as u64);
    }
    let header_bytes = vxlan::OVERHEAD_BYTES + inner_header_bytes(packet);
    wire_bytes(Outgoing {
        header_bytes,
        payload_bytes: network_bytes.saturating_sub(header_bytes),
        gso_bytes,
        added_bytes: 0,
    })
}

#[inline(always)]
fn network_bytes(packet: Packet) -> u32 {
    packet.len().saturating_sub(ETHERNET_BYTES)
}

/// What each segment has a copy of, behind the tunnel's headers.
#[inline(always)]
fn inner_header_bytes(packet: Packet) -> u32 {
    let Some(ip) = packet.load::<ipv4::Ipv4Header>(tunnel::INNER_OFFSET) else {
        return 0;
    };
    if ip.protocol() != TCP {
        return ip.header_bytes() + UDP_HEADER_BYTES;
    }
    let at = tunnel::INNER_OFFSET + ip.header_bytes() + TCP_OFFSET_FLAGS_OFFSET;
    packet.make_readable(at + 2);
    match packet.load::<[u8; 2]>(at) {
        Some(bytes) => ip.header_bytes() + TcpFlags::from_bytes(bytes).header_bytes(),
        None => ip.header_bytes(),
    }
}

/// When a packet may leave.
pub(crate) struct Turn {
    class: &'static ShaperClass,
    bytes: WireBytes,
    verdict: Verdict,
    departure_ns: u64,
    delay_ns: u64,
    is_marked: bool,
    leaf: Leaf,
}

#[inline(always)]
fn waits_in_class(terms: &ShaperTerms) -> bool {
    terms.backend == ShaperBackend::Htb.number()
}

/// What a packet is charged as, and what the device counts.
#[inline(always)]
fn as_charged(packet: Packet, terms: &ShaperTerms, bytes: WireBytes) -> (WireBytes, WireBytes) {
    if !waits_in_class(terms) {
        return (bytes, bytes);
    }
    let counted = counted_bytes(network_bytes(packet), terms.frame());
    (charged_bytes(bytes, counted), counted)
}

#[inline(always)]
fn unlinked(bytes: WireBytes) -> WireBytes {
    WireBytes::new(clocks::unlinked(bytes.count() as u64))
}

/// Finds when the packet may leave, and charges it to whom it concerns. Nothing where the agent names
/// places that no map has.
#[inline(always)]
pub(crate) fn turn(
    packet: Packet,
    terms: &'static ShaperTerms,
    departing: &Departing,
    bytes: WireBytes,
) -> Option<Turn> {
    let now_ns = now_ns();
    let flow = departing.flow().owner(maps::settings()?.flow_secret);
    let record = clocks::of_flow(flow, now_ns)?;
    let own = class(terms, departing.vni.class().number() as u64).number();
    let seat = if waits_in_class(terms) {
        record.seat(own, now_ns)
    } else {
        Seat::own(own)
    };
    let class = class(terms, clocks::unlinked(seat.class as u64));
    let loan = maps::shaper_loan(terms.clocks)?.loan();
    let (charged, counted) = as_charged(packet, terms, bytes);
    // What the device counts stays as it is: its classes know of no loan. How the numbers came about makes no
    // difference to what follows.
    let [charged, counted] = [loan.counted(now_ns, charged), counted].map(unlinked);
    let clocks = clocks::of(terms, class, record)?;
    let words = Words {
        uplink: &clocks.uplink,
        slice: &clocks.slice,
        class: &clocks.class,
        flow: &clocks.flow,
    };
    let of_class = class.terms();
    let whole = Terms {
        uplink: &terms.uplink(),
        slice: &terms.slice(),
        class: &of_class,
    };
    let arrival = Arrival {
        now_ns,
        bytes: charged,
    };
    // Before the decision: after it there are many ways in which the verifier would look at it.
    let thin_ns = clocks::unlinked(clocks.leaf.thin_ns(arrival, whole.slice, &of_class));
    let decision = shape(arrival, whole, &words);
    let leaf = if waits_in_class(terms) && !matches!(decision.verdict, Verdict::Drop) {
        let joining = Joining {
            now_ns,
            cost_ns: whole.slice.ceiling.ns_of(counted),
            is_urgent: is_urgent(&decision, now_ns, &of_class),
            thin_ns,
            seat,
            room: class.room(),
        };
        join(&joining, &clocks.leaf)
    } else {
        Leaf::Front
    };
    Some(Turn {
        class,
        bytes,
        verdict: decision.verdict,
        departure_ns: decision.departure_ns,
        delay_ns: decision.departure_ns.saturating_sub(now_ns),
        is_marked: decision.is_marked,
        leaf,
    })
}

/// Tells the packet's sender that it waits long, if it does and the sender understands that.
#[inline(always)]
pub(crate) fn tell_congestion(packet: Packet, turn: &Turn) -> bool {
    turn.is_marked && packet.mark_congestion()
}

/// Counts the packet at its class.
/// # Errors  when it would have to wait too long.
#[inline(always)]
pub(crate) fn count(packet: Packet, turn: &Turn, is_marked: bool) -> Result<(), DropReason> {
    let Some(counts) = maps::shaper_counts(turn.class.clocks) else {
        return Ok(());
    };
    let mode = match turn.verdict {
        Verdict::Send(Mode::Guaranteed) => &mut counts.guaranteed,
        Verdict::Send(Mode::Borrowed) => &mut counts.borrowed,
        Verdict::Send(Mode::Lane) => &mut counts.lane,
        Verdict::Drop => {
            add(&mut counts.over_horizon, turn);
            return Err(DropReason::OverHorizon);
        }
    };
    add(mode, turn);
    counts.marked += is_marked as u64;
    counts.with_socket += packet.has_socket() as u64;
    counts.waited[delay_bucket(forgotten(&mut counts.latest_wait_ns, turn.delay_ns))] += 1;
    Ok(())
}

/// Leaves a value in a map and reads it back. What comes of it is used as an index, and of an index the verifier
/// follows the origin: each way on which it was computed, which are too many, would be a case of its own.
#[inline(always)]
fn forgotten(word: &mut u64, value: u64) -> u64 {
    let word: *mut u64 = word;
    // SAFETY: it is valid for both.
    unsafe {
        word.write_volatile(value);
        word.read_volatile()
    }
}

#[inline(always)]
fn add(counter: &mut Counter, turn: &Turn) {
    counter.packets += 1;
    counter.bytes += turn.bytes.count() as u64;
}

/// Makes the packet wait until it may leave, or for its turn, where the device can.
#[inline(always)]
pub(crate) fn keep_to_departure(packet: Packet, terms: &ShaperTerms, turn: &Turn) {
    let class = turn.class;
    if terms.backend == ShaperBackend::Edt.number() {
        let latest_ns = turn.departure_ns.wrapping_add(class.horizon_ns);
        packet.leave_at(turn.departure_ns, latest_ns);
    } else if waits_in_class(terms) {
        let queue = match turn.leaf {
            Leaf::Front => QueueClass::Front(class.queue as u32),
            Leaf::Back => QueueClass::Back(class.queue as u32),
        };
        packet.set_priority(queue.priority());
    }
}
