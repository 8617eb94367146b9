//! Whose record is it? A flow has two places to choose from, next to each other, and keeps the one that it found for as
//! long as it sends. Only where both are taken by others that send, it shares the first: those are one flow then.
//!
//! Records are found by a hash with a secret, so nobody can aim at another's by choosing ports. A record is taken over
//! once its flow was silent for a second and everything that it says lies in the past. Then it says of the newcomer what
//! is said of a flow that never sent: only its stance has to be forgotten. That is done first, and then the owner is
//! replaced, by compare and swap. So there is no half of a record at any time.

use super::clock::Word;
use super::{FlowWords, Gone, Seat};
use crate::address::Address;
use crate::layout::Capacity;

/// What a flow's tunnel packets have in common, whatever class they are of and whatever path they take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowEnds {
    pub slice: u32,
    /// Of the packet in the tunnel.
    pub source: Address,
    pub destination: Address,
    /// The tunnel's, as in memory: 14 bits of a hash of the packet's ports and addresses.
    pub source_port: u16,
}

/// A flow as records name it. Never 0, which is nobody, and bit 0 is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner(u64);

impl FlowEnds {
    /// Two flows have the same name by less than one in two thousand million of all secrets: the product of sums is a
    /// universal hash (NH), and what follows loses nothing but two bits.
    #[inline(always)]
    pub const fn owner(&self, secret: [u32; 2]) -> Owner {
        let source = self.source.network_word().wrapping_add(secret[0]);
        let destination = self.destination.network_word().wrapping_add(secret[1]);
        let rest = (self.slice as u64) << 16 | self.source_port as u64;
        let hash = (source as u64)
            .wrapping_mul(destination as u64)
            .wrapping_add(rest);
        let hash = (hash ^ hash >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Owner(hash & !3 | 2)
    }
}

impl Owner {
    /// In the word: others use the record too.
    const SHARED: u64 = 1;

    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// Its first place. The second one is beside it: [`Self::second_place`].
    #[inline(always)]
    pub const fn place(self) -> u32 {
        (self.0 >> (u64::BITS - Capacity::FLOW_CLOCKS.ilog2())) as u32
    }

    #[inline(always)]
    pub const fn second_place(self) -> u32 {
        self.place() ^ 1
    }

    #[inline(always)]
    const fn is_in(self, word: u64) -> bool {
        word & !Self::SHARED == self.0
    }
}

/// The words of a record, all on one cache line.
#[derive(Clone, Copy, Debug)]
pub struct RecordWords<W> {
    pub owner: W,
    pub flow: FlowWords<W>,
    /// [`super::LeafWords`]
    pub joined: W,
    pub gone: W,
}

/// Where a record is. Its words are all known by that, so it is what programs keep.
pub trait Record: Copy {
    type Word: Word;

    fn words(self) -> RecordWords<Self::Word>;
}

/// What a record says to somebody who looks for a place, as read once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordReadings {
    pub owner: u64,
    pub departure_ns: u64,
    pub thin_ns: u64,
    pub pace_ns: u64,
    pub waited_ns: u64,
    /// [`Gone`]
    pub gone: u64,
}

/// Who has been silent for so long gives its record up.
pub const SILENCE_NS: u64 = 1_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    Me,
    /// Nobody, or somebody who is not heard of any more.
    Nobody,
    Other,
}

impl RecordReadings {
    /// Who has it.
    #[inline(always)]
    pub const fn holder(&self, me: Owner, now_ns: u64) -> Holder {
        // Each packet leaves the pace, and what was sent its departure, not behind its own moment.
        let is_silent = self.pace_ns.saturating_add(SILENCE_NS) <= now_ns
            && self.departure_ns.saturating_add(SILENCE_NS) <= now_ns;
        let is_past = self.thin_ns <= now_ns
            && self.waited_ns <= now_ns
            && Gone::from_word(self.gone).moment_ns() <= now_ns;
        if me.is_in(self.owner) {
            Holder::Me
        } else if is_silent && is_past {
            Holder::Nobody
        } else {
            Holder::Other
        }
    }
}

/// What to do about two places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    First,
    Second,
    ClaimFirst,
    ClaimSecond,
    ShareFirst,
}

#[inline(always)]
pub const fn choose(first: Holder, second: Holder) -> Choice {
    match (first, second) {
        (Holder::Me, _) => Choice::First,
        (_, Holder::Me) => Choice::Second,
        (Holder::Nobody, _) => Choice::ClaimFirst,
        (_, Holder::Nobody) => Choice::ClaimSecond,
        (Holder::Other, Holder::Other) => Choice::ShareFirst,
    }
}

impl<W: Word> RecordWords<W> {
    #[inline(always)]
    fn is_of(&self, me: Owner) -> bool {
        me.is_in(self.owner.read())
    }

    /// What it says, and who has it.
    #[inline(always)]
    fn look(&self, me: Owner, now_ns: u64) -> (RecordReadings, Holder) {
        let read = RecordReadings {
            owner: self.owner.read(),
            departure_ns: self.flow.departure.read(),
            thin_ns: self.flow.thin.read(),
            pace_ns: self.flow.pace.read(),
            waited_ns: self.flow.waited.read(),
            gone: self.gone.read(),
        };
        // Another processor may have taken it since, for another packet of mine.
        let is_mine = self.is_of(me);
        let holder = if is_mine {
            Holder::Me
        } else {
            read.holder(me, now_ns)
        };
        (read, holder)
    }

    /// In which class a packet of its flow is judged where packets wait in classes.
    #[inline(always)]
    pub fn seat(&self, own: u32, now_ns: u64) -> Seat {
        let seat = Seat::new(own, now_ns, self.joined.read(), self.gone.read());
        let owner = self.owner.read();
        if owner & Owner::SHARED != 0 {
            return Seat::own(own);
        }
        if seat.is_of_two {
            // Somebody else took it, or noted it.
            let _changed = self.owner.replace(owner, owner | Owner::SHARED);
        }
        seat
    }

    /// Takes the record that was read like this. Whether it is mine now.
    #[inline(always)]
    fn claim(&self, me: Owner, read: &RecordReadings) -> bool {
        self.flow.stance.write(0);
        match self.owner.replace(read.owner, me.word()) {
            Ok(()) => true,
            Err(found) => me.is_in(found),
        }
    }

    /// Uses a record of somebody else, and leaves a note of it there.
    #[inline(always)]
    fn share(&self, read: &RecordReadings) {
        let noted = read.owner | Owner::SHARED;
        if noted != read.owner {
            // Somebody else took it, or noted it: either is told again with the next packet.
            let _changed = self.owner.replace(read.owner, noted);
        }
    }

    /// Whoever shared the other record may have packets of the future there.
    #[inline(always)]
    fn inherit(&self, other: &Self, read: &RecordReadings) {
        if read.owner & Owner::SHARED != 0 {
            self.flow.departure.write(read.departure_ns);
            self.joined.write(other.joined.read());
            self.gone.write(read.gone);
        }
    }
}

/// Finds the record of a flow with a packet at `now_ns`, by its first place and, where that is not its own, the second.
#[inline(always)]
pub fn find<R: Record>(
    me: Owner,
    now_ns: u64,
    first: R,
    second: impl FnOnce() -> Option<R>,
) -> Option<R> {
    if first.words().is_of(me) {
        return Some(first);
    }
    let second = second()?;
    if second.words().is_of(me) {
        return Some(second);
    }
    Some(
        if takes_second(me, now_ns, &first.words(), &second.words()) {
            second
        } else {
            first
        },
    )
}

/// Where a flow goes that has no record: whether to the second place.
#[inline(always)]
fn takes_second<W: Word>(
    me: Owner,
    now_ns: u64,
    first: &RecordWords<W>,
    second: &RecordWords<W>,
) -> bool {
    let (of_first, first_holder) = first.look(me, now_ns);
    let (of_second, second_holder) = second.look(me, now_ns);
    match choose(first_holder, second_holder) {
        Choice::First => return false,
        Choice::Second => return true,
        Choice::ClaimFirst if first.claim(me, &of_first) => return false,
        // Another processor's flow was faster.
        Choice::ClaimFirst | Choice::ClaimSecond | Choice::ShareFirst => {}
    }
    if matches!(second_holder, Holder::Nobody) {
        second.inherit(first, &of_first);
        if second.claim(me, &of_second) {
            return true;
        }
    }
    first.share(&of_first);
    false
}
