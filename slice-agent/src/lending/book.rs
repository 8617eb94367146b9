//! All ledgers of a node: for each slice on each uplink whose nodes lend. What changes a ledger is in the kernel
//! first; what the kernel refuses is not done.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use slice_common::layout::{ShaperBackend, ShaperCounts, ShaperKey, ShaperTerms};
use slice_common::shaper::Loan;

use super::ledger::{ASK_INTERVAL_NS, Answer, Ledger, Question};
use super::standing::{PartnerStanding, Standing};
use crate::metrics::rates::{ceiling_bytes_per_second, classes};

/// What a node asks a partner of one uplink, by slice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Questions {
    pub slices: BTreeMap<u32, Question>,
}

/// What the partner answers, of those slices that it lends parts of too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answers {
    pub slices: BTreeMap<u32, Answer>,
}

impl Answers {
    /// As far as they answer what was asked: nothing is taken that nobody wanted.
    pub fn within(mut self, questions: &Questions) -> Self {
        self.slices.retain(|slice, answer| {
            let question = questions.slices.get(slice);
            let wanted = question.map(|it| it.wanted_parts);
            answer.parts = answer.parts.min(wanted.unwrap_or(0));
            wanted.is_some()
        });
        self
    }
}

/// Where the kernel keeps loans.
pub trait Kernel: Send + Sync {
    fn loan(&self, place: u32) -> Result<Loan>;
    fn set_loan(&self, place: u32, loan: Loan) -> Result<()>;
    fn counts(&self, places: &[u32]) -> Result<BTreeMap<u32, ShaperCounts>>;
}

/// A slice on an uplink.
#[derive(Debug)]
struct Account {
    ledger: Ledger<Ipv4Addr>,
    /// `None` while the slice is not on the uplink: kept until its loans are over, in case it comes back.
    terms: Option<ShaperTerms>,
    partners: BTreeSet<Ipv4Addr>,
    /// What had been sent, and when.
    last: Option<(u64, u64)>,
}

impl Account {
    fn own_bps(&self) -> u64 {
        let terms = self.terms.as_ref();
        terms.map_or(0, |terms| 8 * ceiling_bytes_per_second(terms))
    }

    /// Changes the ledger and the kernel.
    fn change<T>(
        &mut self,
        kernel: &dyn Kernel,
        now_ns: u64,
        change: impl FnOnce(&mut Ledger<Ipv4Addr>) -> T,
    ) -> Result<T> {
        let place = self.terms.as_ref().map(|terms| terms.clocks);
        let write = |loan| match place {
            Some(place) => kernel.set_loan(place, loan),
            None => Ok(()),
        };
        self.ledger.change(now_ns, write, change)
    }
}

/// The slices of an uplink whose nodes lend.
#[derive(Clone, Debug)]
pub struct Lent {
    pub key: ShaperKey,
    pub terms: ShaperTerms,
    pub partners: BTreeSet<Ipv4Addr>,
}

#[derive(Debug, Default)]
pub struct Book {
    accounts: BTreeMap<ShaperKey, Account>,
}

impl Book {
    /// Takes over what slices may send and who the partners are, measures, and has the kernel go by what is lent now.
    ///
    /// # Errors
    /// Where the kernel cannot be read or written; all that can be done is done.
    pub fn turn(&mut self, lent: &[Lent], kernel: &dyn Kernel, now_ns: u64) -> Result<()> {
        let mut result = Ok(());
        let here: BTreeSet<ShaperKey> = lent.iter().map(|it| it.key).collect();
        for (_, account) in self
            .accounts
            .iter_mut()
            .filter(|(key, _)| !here.contains(key))
        {
            // What nodes have together may be shared by fewer now: a loan would be added to another part. What was lent
            // stays lent.
            result = result.and(account.change(kernel, now_ns, Ledger::give_up));
            (account.terms, account.last) = (None, None);
        }
        for it in lent {
            result = result.and(self.open(it, kernel, now_ns));
        }
        self.accounts.retain(|_, account| {
            let ledger = &account.ledger;
            let is_over = ledger.lent_parts(now_ns) == 0 && !ledger.waits(now_ns);
            account.terms.is_some() || !is_over
        });
        for account in self.accounts.values_mut() {
            result = result.and(measure(account, kernel, now_ns));
        }
        result
    }

    fn open(&mut self, lent: &Lent, kernel: &dyn Kernel, now_ns: u64) -> Result<()> {
        let account = match self.accounts.entry(lent.key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(Account {
                ledger: Ledger::new(kernel.loan(lent.terms.clocks)?, now_ns),
                terms: None,
                partners: BTreeSet::new(),
                last: None,
            }),
        };
        let is_other = account
            .terms
            .as_ref()
            .is_some_and(|it| it.clocks != lent.terms.clocks);
        if is_other {
            account.last = None;
        }
        let before_bps = account.own_bps();
        account.terms = Some(lent.terms);
        account.partners.clone_from(&lent.partners);
        // A part of another size was borrowed by another measure.
        if !may_borrow(&lent.terms) || before_bps != account.own_bps() {
            account.change(kernel, now_ns, Ledger::give_up)?;
        }
        Ok(())
    }

    /// What to ask a partner for, of all slices of an uplink.
    pub fn questions(&self, ifindex: u32, partner: Ipv4Addr, now_ns: u64) -> Questions {
        let of_uplink = self
            .accounts
            .iter()
            .filter(|(key, account)| key.ifindex == ifindex && account.partners.contains(&partner));
        let slices = of_uplink.filter_map(|(key, account)| {
            let terms = account.terms.as_ref()?;
            let mut question = account.ledger.question(&partner, account.own_bps(), now_ns);
            if !may_borrow(terms) {
                question.wanted_parts = 0;
            }
            Some((key.slice, question))
        });
        Questions {
            slices: slices.collect(),
        }
    }

    /// Lends what can be spared.
    ///
    /// # Errors
    /// Where the kernel cannot be written; what it does not go by is not lent.
    pub fn lend(
        &mut self,
        (ifindex, partner): (u32, Ipv4Addr),
        questions: &Questions,
        kernel: &dyn Kernel,
        now_ns: u64,
    ) -> Result<Answers> {
        let mut answers = Answers::default();
        for (slice, question) in &questions.slices {
            let key = ShaperKey {
                ifindex,
                slice: *slice,
            };
            let account = self.accounts.get_mut(&key);
            let Some(account) = account.filter(|it| it.terms.is_some()) else {
                continue;
            };
            if !account.partners.contains(&partner) {
                continue;
            }
            let own_bps = account.own_bps();
            let answer = account.change(kernel, now_ns, |ledger| {
                ledger.lend(&partner, *question, own_bps, now_ns)
            })?;
            answers.slices.insert(*slice, answer);
        }
        Ok(answers)
    }

    /// Takes what a partner lends. Returns whether it is less of some slice than before.
    ///
    /// # Errors
    /// Where the kernel cannot be written; what it does not go by is not taken.
    pub fn take(
        &mut self,
        (ifindex, partner): (u32, Ipv4Addr),
        answers: &Answers,
        asked_ns: u64,
        (kernel, now_ns): (&dyn Kernel, u64),
    ) -> Result<bool> {
        let mut is_less = false;
        for (slice, answer) in &answers.slices {
            let key = ShaperKey {
                ifindex,
                slice: *slice,
            };
            let account = self.accounts.get_mut(&key);
            let Some(account) = account.filter(|it| it.terms.as_ref().is_some_and(may_borrow))
            else {
                continue;
            };
            is_less |= account.change(kernel, now_ns, |ledger| {
                ledger.take(&partner, *answer, asked_ns, now_ns)
            })?;
        }
        Ok(is_less)
    }

    /// For people.
    pub fn standings(&self, now_ns: u64) -> BTreeMap<ShaperKey, Standing> {
        let open = self.accounts.iter().filter(|(_, it)| it.terms.is_some());
        let standing = |account: &Account| Standing {
            own_bps: account.own_bps(),
            partners: account
                .partners
                .iter()
                .map(|partner| {
                    let (lent_parts, borrowed_parts) = account.ledger.parts_with(partner, now_ns);
                    let standing = PartnerStanding {
                        lent_parts,
                        borrowed_parts,
                    };
                    (*partner, standing)
                })
                .collect(),
            only_lends: account
                .terms
                .as_ref()
                .is_some_and(|terms| !may_borrow(terms)),
        };
        open.map(|(key, account)| (*key, standing(account)))
            .collect()
    }
}

/// Where classes of the device keep rates of their own, what is let in beyond them would only wait.
fn may_borrow(terms: &ShaperTerms) -> bool {
    let backend = ShaperBackend::from_number(terms.backend);
    matches!(backend, Some(ShaperBackend::Edt | ShaperBackend::Vq))
}

/// Notes what the slice sent since the last time, and what was dropped because it was too much.
fn measure(account: &mut Account, kernel: &dyn Kernel, now_ns: u64) -> Result<()> {
    let Some(terms) = account.terms else {
        return Ok(());
    };
    let places: Vec<u32> = classes(&terms).map(|(_, place)| place).collect();
    let counts = kernel.counts(&places)?;
    let bytes = counts.values().map(wanted_bytes).fold(0, u64::wrapping_add);
    let before = account.last.replace((bytes, now_ns));
    let sent_parts = before.and_then(|(bytes_before, then_ns)| {
        // Looked at twice at once, or begun anew.
        let span_ns = now_ns
            .checked_sub(then_ns)
            .filter(|it| *it > ASK_INTERVAL_NS / 10)?;
        parts_of(account.own_bps(), bytes.checked_sub(bytes_before)?, span_ns)
    });
    account.change(kernel, now_ns, |ledger| {
        if let Some(parts) = sent_parts {
            ledger.measure(parts, now_ns);
        }
    })
}

fn wanted_bytes(counts: &ShaperCounts) -> u64 {
    let counters = [
        counts.guaranteed,
        counts.borrowed,
        counts.lane,
        counts.over_horizon,
    ];
    counters
        .iter()
        .fold(0, |sum, it| sum.wrapping_add(it.bytes))
}

/// A rate as parts of the own one.
fn parts_of(own_bps: u64, bytes: u64, span_ns: u64) -> Option<u32> {
    let own = u128::from(own_bps) * u128::from(span_ns);
    let sent = u128::from(bytes) * 8 * 1_000_000_000 * u128::from(Loan::WHOLE);
    Some(u32::try_from(sent.checked_div(own)?).unwrap_or(u32::MAX))
}
