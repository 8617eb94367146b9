//! Does it fit the path?

use slice_common::drop_reason::DropReason;
use slice_common::wire::mss::{self, Search};
use slice_common::wire::transport::{TCP_CHECKSUM_OFFSET, TCP_HEADER_BYTES};
use slice_common::wire::vxlan;

use crate::packet::{ChecksumChange, Packet, unknown_zero};
use crate::stage::parse::Headers;

/// An IPv4 packet cannot say more, whatever carries it.
const OUTER_BYTES_MAX: u32 = 65_535;

/// Refuses a packet that will not fit a path of `mtu_bytes` once the tunnel headers are on. A segmentation-offload
/// packet is judged by its segments.
#[inline(always)]
pub(crate) fn check_size(headers: &Headers, mtu_bytes: u32) -> Result<(), DropReason> {
    let whole = headers.present_bytes;
    let largest = match headers.gso_bytes {
        0 => whole,
        gso_bytes => headers.segment_header_bytes() + gso_bytes,
    };
    let fits = largest + vxlan::OVERHEAD_BYTES <= mtu_bytes
        && whole + vxlan::OVERHEAD_BYTES <= OUTER_BYTES_MAX;
    if fits {
        Ok(())
    } else {
        Err(DropReason::TooBig)
    }
}

/// Lowers the MSS that a SYN or SYN+ACK announces to what fits a path of `mtu_bytes`.
#[inline(always)]
pub(crate) fn clamp_mss(
    packet: Packet,
    headers: &Headers,
    mtu_bytes: u32,
) -> Result<(), DropReason> {
    let Some(offset) = find_mss(packet, headers) else {
        return Ok(());
    };
    let Some(old) = packet.load::<u16>(offset) else {
        return Ok(());
    };
    let Some(new) = mss::clamped(u16::from_be(old), mss::largest_for_path(mtu_bytes)) else {
        return Ok(());
    };
    // The value may stand at an odd offset of the segment; the checksum then sees its bytes swapped.
    let odd = (offset - headers.transport_offset) & 1 == 1;
    let (from, to) = (old, new.to_be());
    let (sum_from, sum_to) = if odd {
        (from.swap_bytes(), to.swap_bytes())
    } else {
        (from, to)
    };
    packet.replace_transport_checksum(
        headers.transport_offset + TCP_CHECKSUM_OFFSET,
        sum_from as u32,
        sum_to as u32,
        ChecksumChange::HalfWord,
    )?;
    packet.store(offset, &to)?;
    Ok(())
}

/// The packet offset of the MSS value.
///
/// # Verifier
/// Options have variable lengths, so the offset after `n` steps has as many values as there are ways
/// to step there, and the verifier would walk them all. After each step it knows of "0..=63" only: one
/// state per step.
#[inline(always)]
fn find_mss(packet: Packet, headers: &Headers) -> Option<u32> {
    let options_bytes = headers.tcp.header_bytes().saturating_sub(TCP_HEADER_BYTES);
    // Linux 6.1 forgets the bound of what the compiler puts on the stack and loads back with its neighbour.
    let offset = core::hint::black_box(headers.transport_offset) & TRANSPORT_OFFSET_BITS;
    let start = offset + TCP_HEADER_BYTES;
    packet.make_readable(start + mss::OPTIONS_MAX);
    let zero = unknown_zero(options_bytes);
    let mut search = Search::among(options_bytes);
    for _ in 0..mss::STEPS_MAX {
        search = search.as_any(zero);
        let [kind, length] = packet.load(start + search.at()).unwrap_or([0, 0]);
        search = search.look(kind, length);
    }
    search.as_any(zero).found().map(|at| start + at)
}

/// A transport header begins at 124 at most: Ethernet, the tunnel's headers, and the longest of IPv4.
const TRANSPORT_OFFSET_BITS: u32 = 127;
