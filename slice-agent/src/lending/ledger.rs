//! Who lent how much of a slice's ceiling to whom: what one node knows of one slice on one uplink. Pure; times
//! are of the clock that the kernel programs read, and no node ever hears of another's.
//!
//! Every node that sends by the link has an equal part of the ceiling. One that needs more asks the others each
//! second; one that needs less answers with a lease of what it can spare. **What all nodes may send never sums to
//! more than the ceiling**, whatever messages are lost and whoever stops in the middle:
//!
//! - who lends counts its bytes as more *before* it answers, and until the lease is over for certain;
//! - who borrows counts from the moment at which it *asked*, and ends no later;
//! - both ends are in the kernel ([`Loan::until_ns`]): an agent that dies ends its loans by that.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use slice_common::shaper::Loan;

const MS: u64 = 1_000_000;
const WHOLE: u32 = Loan::WHOLE;

/// How long a node may keep what it borrowed, from when it asked. A node that needs its part again has it after
/// this time and [`MARGIN_NS`] at the latest; if the borrower's agent lives, after two questions.
pub const LEASE_NS: u64 = 3_000 * MS;
/// How often nodes measure what they send, and ask.
pub const ASK_INTERVAL_NS: u64 = 1_000 * MS;
/// Beyond the lease a lender leaves it lent: what the borrower let in still leaves, and clocks of nodes differ.
pub const MARGIN_NS: u64 = 500 * MS;
/// Whoever asked so long ago does not count among those who share what is to spare, and what was measured so long ago
/// says nothing.
const FORGOTTEN_NS: u64 = 3 * ASK_INTERVAL_NS;
/// A partner has some four answers that it may go by. One that asks far more often gets nothing for that.
const GIVEN_MAX: usize = 16;
/// Of what a node needed and needs no more it lets go one of so many parts in each [`ASK_INTERVAL_NS`]: who sends in
/// bursts would else give parts away and want them back all the time.
const LET_GO: u32 = 4;

/// What one node asks another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The node's own part: a node of which it is not the same has another configuration, and lends nothing.
    pub own_bps: u64,
    /// How many parts more it could use, in [`Loan::WHOLE`]ths of an own part; 0: it gives back.
    pub wanted_parts: u32,
    /// The newest answer that its kernel goes by. It will go by no older one.
    pub holds: u64,
}

/// What is lent, from when the question was asked, for [`LEASE_NS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// Greater than that of every answer before it.
    pub number: u64,
    pub parts: u32,
}

/// A lease that was given away.
#[derive(Clone, Copy, Debug)]
struct Given {
    number: u64,
    parts: u32,
    until_ns: u64,
}

/// The newest answer of a partner.
#[derive(Clone, Copy, Debug)]
struct Held {
    number: u64,
    parts: u32,
    until_ns: u64,
    /// Until then an older answer may still come. Later every such is over by its own lease.
    known_until_ns: u64,
}

/// A partner as a borrower.
#[derive(Clone, Debug, Default)]
struct Borrower {
    /// Those that it may still go by.
    given: Vec<Given>,
    asked_ns: u64,
    wanted_parts: u32,
}

impl Borrower {
    /// It goes by one of them; by which is not known.
    fn parts(&self, now_ns: u64) -> u32 {
        let valid = self.given.iter().filter(|it| it.until_ns > now_ns);
        valid.map(|it| it.parts).max().unwrap_or(0)
    }

    fn is_asking(&self, now_ns: u64) -> bool {
        self.wanted_parts > 0 && self.asked_ns + FORGOTTEN_NS > now_ns
    }
}

/// `P` names a partner.
#[derive(Clone, Debug)]
pub struct Ledger<P> {
    borrowers: BTreeMap<P, Borrower>,
    held: BTreeMap<P, Held>,
    last_number: u64,
    /// Until then the kernel goes by parts that an earlier agent lent to nobody knows whom: nothing is lent or borrowed.
    unknown_until_ns: u64,
    /// What it needs itself, as far as that is to be kept from others; `None` before anything was measured.
    kept_parts: Option<u32>,
    measured_ns: u64,
    /// What it could use beyond its own part.
    wanted_parts: u32,
}

impl<P: Ord + Clone> Ledger<P> {
    /// `in_kernel` is what an earlier agent left. What that had borrowed is given up. Numbers go on from `now_ns`, so
    /// they grow over restarts.
    pub fn new(in_kernel: Loan, now_ns: u64) -> Self {
        let longest_ns = now_ns + LEASE_NS + MARGIN_NS;
        Self {
            borrowers: BTreeMap::new(),
            held: BTreeMap::new(),
            last_number: now_ns,
            unknown_until_ns: match in_kernel.byte_parts > WHOLE {
                true => in_kernel.until_ns.min(longest_ns),
                false => now_ns,
            },
            kept_parts: None,
            measured_ns: 0,
            wanted_parts: 0,
        }
    }

    pub fn lent_parts(&self, now_ns: u64) -> u32 {
        self.borrowers.values().map(|it| it.parts(now_ns)).sum()
    }

    pub fn borrowed_parts(&self, now_ns: u64) -> u32 {
        let valid = self.held.values().filter(|it| it.until_ns > now_ns);
        valid.map(|it| it.parts).sum()
    }

    /// What is lent to a partner, and borrowed from it.
    pub fn parts_with(&self, partner: &P, now_ns: u64) -> (u32, u32) {
        let lent = self.borrowers.get(partner).map_or(0, |it| it.parts(now_ns));
        let held = self.held.get(partner).filter(|it| it.until_ns > now_ns);
        (lent, held.map_or(0, |it| it.parts))
    }

    /// Whether an earlier agent's loan must end before anything is lent or borrowed.
    pub fn waits(&self, now_ns: u64) -> bool {
        now_ns < self.unknown_until_ns
    }

    /// What the kernel should go by; `None`: leave what it goes by.
    pub fn loan(&self, now_ns: u64) -> Option<Loan> {
        if self.waits(now_ns) {
            return None;
        }
        let lent = self.lent_parts(now_ns);
        let given = self.borrowers.values().flat_map(|it| &it.given);
        let held = self.held.values();
        // Who lends and borrows at once, as may be while demand changes, only lends.
        let until_ns = match lent {
            0 => held
                .filter(|it| it.until_ns > now_ns && it.parts > 0)
                .map(|it| it.until_ns)
                .min(),
            _ => given.map(|it| it.until_ns).max(),
        };
        let parts = self.has_parts(now_ns);
        Some(until_ns.map_or(Loan::NONE, |until_ns| Loan::having(parts, until_ns)))
    }

    /// Makes a change that is in force in the kernel as soon as it is here, or is not made at all.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn change<T, E>(
        &mut self,
        now_ns: u64,
        write: impl FnOnce(Loan) -> Result<(), E>,
        change: impl FnOnce(&mut Self) -> T,
    ) -> Result<T, E> {
        let mut changed = self.clone();
        let result = change(&mut changed);
        if let Some(loan) = changed.loan(now_ns) {
            write(loan)?;
        }
        *self = changed;
        Ok(result)
    }

    /// Notes what was sent, and would have been but for the ceiling, in the last [`ASK_INTERVAL_NS`].
    ///
    /// It wants a quarter more than that, so that who needs more gets ever more, and keeps half of it more from
    /// others, so that little changes change nothing; all of the own part where what it has is used up.
    pub fn measure(&mut self, sent_parts: u32, now_ns: u64) {
        let is_used_up = u64::from(sent_parts) * 8 >= u64::from(self.has_parts(now_ns)) * 7;
        self.measured_ns = now_ns;
        let wanted = sent_parts.saturating_add(sent_parts / 4);
        self.wanted_parts = wanted.saturating_sub(WHOLE);
        let kept = match is_used_up {
            true => WHOLE,
            false => sent_parts.saturating_add(sent_parts / 2).min(WHOLE),
        };
        self.kept_parts = Some(match self.kept_parts {
            Some(before) if before > kept => before - (before - kept).div_ceil(LET_GO),
            _ => kept,
        });
    }

    fn has_parts(&self, now_ns: u64) -> u32 {
        match self.lent_parts(now_ns) {
            0 => WHOLE + self.borrowed_parts(now_ns),
            lent => WHOLE - lent.min(WHOLE),
        }
    }

    /// What to ask a partner for: all that is wanted. Where several lend it there is too much for a while, which idles
    /// where it would have idled anyway.
    pub fn question(&self, partner: &P, own_bps: u64, now_ns: u64) -> Question {
        Question {
            own_bps,
            wanted_parts: match self.waits(now_ns) {
                true => 0,
                false => self.wanted_parts,
            },
            holds: self.held.get(partner).map_or(0, |it| it.number),
        }
    }

    /// Lends what can be spared. The kernel must go by [`Ledger::loan`] before the partner is told.
    pub fn lend(&mut self, partner: &P, question: Question, own_bps: u64, now_ns: u64) -> Answer {
        let spare = match question.own_bps == own_bps {
            true => self.spare_parts(now_ns),
            false => 0,
        };
        let borrower = self.borrowers.entry(partner.clone()).or_default();
        (borrower.asked_ns, borrower.wanted_parts) = (now_ns, question.wanted_parts);
        // A number that this node never gave is of a life in which its clock had come further.
        let holds = match question.holds > self.last_number {
            true => 0,
            false => question.holds,
        };
        borrower
            .given
            .retain(|it| it.until_ns > now_ns && it.number >= holds);
        let of_others: u32 = self
            .borrowers
            .iter()
            .filter(|(it, _)| *it != partner)
            .map(|(_, it)| it.parts(now_ns))
            .sum();
        let free = spare.saturating_sub(of_others);
        let level = self.level(spare, now_ns);
        let mut parts = question.wanted_parts.min(level).min(free);
        self.last_number += 1;
        let given = Given {
            number: self.last_number,
            parts,
            until_ns: now_ns + LEASE_NS + MARGIN_NS,
        };
        match self.borrowers.get_mut(partner) {
            Some(borrower) if borrower.given.len() < GIVEN_MAX => borrower.given.push(given),
            _ => parts = 0,
        }
        Answer {
            number: given.number,
            parts,
        }
    }

    /// What it has beyond what it needs.
    fn spare_parts(&self, now_ns: u64) -> u32 {
        let is_known = now_ns < self.measured_ns + FORGOTTEN_NS && !self.waits(now_ns);
        match self.kept_parts {
            Some(kept) if is_known => WHOLE.saturating_sub(kept.max(Loan::LEAST)),
            _ => 0,
        }
    }

    /// What each of those who ask may have at most: equal parts, but what some do not want is for the others.
    fn level(&self, spare: u32, now_ns: u64) -> u32 {
        let asking = self.borrowers.values().filter(|it| it.is_asking(now_ns));
        let mut wanted: Vec<u32> = asking.map(|it| it.wanted_parts).collect();
        wanted.sort_unstable();
        let (mut left, mut asking) = (spare, wanted.len() as u32);
        for wanted in wanted {
            if wanted >= left / asking {
                return left / asking;
            }
            left -= wanted;
            asking -= 1;
        }
        // Everybody can have what it wants.
        spare
    }

    /// Takes what a partner lends, if it is its newest answer. Returns whether it is less than before: then the partner
    /// counts more as lent than is borrowed, until it is asked again.
    pub fn take(&mut self, partner: &P, answer: Answer, asked_ns: u64, now_ns: u64) -> bool {
        self.held.retain(|_, it| it.known_until_ns > now_ns);
        let before = self.held.get(partner);
        if before.is_some_and(|it| it.number >= answer.number) {
            return false;
        }
        let is_less = before.is_some_and(|it| it.until_ns > now_ns && it.parts > answer.parts);
        let held = Held {
            number: answer.number,
            parts: answer.parts.min(WHOLE - Loan::LEAST),
            until_ns: asked_ns + LEASE_NS,
            known_until_ns: now_ns + LEASE_NS,
        };
        self.held.insert(partner.clone(), held);
        is_less
    }

    /// Gives up what is borrowed. What is lent stays lent until its end.
    pub fn give_up(&mut self) {
        for held in self.held.values_mut() {
            held.parts = 0;
        }
        self.wanted_parts = 0;
    }
}
