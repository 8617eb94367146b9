//! A clock is one word: the moment until which what was sent so far keeps a rate busy. It may lag behind
//! now by a burst, which is credit, and lead it, which is a queue.
//!
//! Several processors move one clock without a lock. They read it, decide, and charge it by compare and
//! swap. Nothing that was charged is ever lost; what each knew when it decided may be old by the packets
//! that the others were deciding on at that moment.

/// A word that processors share: an element of a map in the kernel, an atomic in a test.
pub trait Word {
    fn read(&self) -> u64;
    /// Only where a lost update is harmless: in a flow's own record.
    fn write(&self, value: u64);
    /// Replaces `old`. `Err` has what was there instead, and nothing changed.
    fn replace(&self, old: u64, new: u64) -> Result<(), u64>;
    fn add(&self, value: u64);
}

impl<W: Word> Word for &W {
    #[inline(always)]
    fn read(&self) -> u64 {
        (**self).read()
    }

    #[inline(always)]
    fn write(&self, value: u64) {
        (**self).write(value);
    }

    #[inline(always)]
    fn replace(&self, old: u64, new: u64) -> Result<(), u64> {
        (**self).replace(old, new)
    }

    #[inline(always)]
    fn add(&self, value: u64) {
        (**self).add(value);
    }
}

/// Tries before whatever is there is added to: others got through each time, so it is up to date.
pub const TRIES: u32 = 4;

/// What a clock is charged for a packet; nothing when `add_ns` is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// Older credit than from here is forgotten.
    pub floor_ns: u64,
    pub add_ns: u64,
}

impl Charge {
    pub const NOTHING: Self = Self {
        floor_ns: 0,
        add_ns: 0,
    };

    /// Of `add_ns` if `is_due`.
    #[inline(always)]
    pub(super) const fn when(is_due: bool, floor_ns: u64, add_ns: u64) -> Self {
        let add_ns = if is_due { add_ns } else { 0 };
        Self { floor_ns, add_ns }
    }

    /// The clock after it.
    #[inline(always)]
    pub const fn applied(self, clock_ns: u64) -> u64 {
        later(clock_ns, self.floor_ns).saturating_add(self.add_ns)
    }

    /// Charges a shared clock.
    #[inline(always)]
    pub fn charge<W: Word>(self, clock: &W) {
        if self.add_ns == 0 {
            return;
        }
        let mut seen_ns = clock.read();
        let mut tries = 0;
        while tries < TRIES {
            match clock.replace(seen_ns, self.applied(seen_ns)) {
                Ok(()) => return,
                Err(other_ns) => seen_ns = other_ns,
            }
            tries += 1;
        }
        clock.add(self.add_ns);
    }
}

/// Lets a flow's next packet depart at `departure_ns`, or when another processor let one of its packets
/// depart meanwhile: the flow's departures never step back. Returns the moment. Only a processor that
/// others overtake [`TRIES`] times in a row may leave the record behind.
#[inline(always)]
pub fn claim_departure<W: Word>(last: &W, seen_ns: u64, departure_ns: u64) -> u64 {
    let mut seen_ns = seen_ns;
    let mut departure_ns = later(departure_ns, seen_ns);
    let mut tries = 0;
    while tries < TRIES {
        match last.replace(seen_ns, departure_ns) {
            Ok(()) => return departure_ns,
            Err(other_ns) => {
                seen_ns = other_ns;
                departure_ns = later(departure_ns, other_ns);
            }
        }
        tries += 1;
    }
    departure_ns
}

#[inline(always)]
pub(super) const fn later(one_ns: u64, other_ns: u64) -> u64 {
    if one_ns > other_ns { one_ns } else { other_ns }
}

#[inline(always)]
pub(super) const fn earlier(one_ns: u64, other_ns: u64) -> u64 {
    if one_ns < other_ns { one_ns } else { other_ns }
}
