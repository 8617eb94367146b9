//! Nodes that send for one slice by one link lend each other parts of its ceiling: asks the partners every second, and
//! answers them.

pub mod book;
pub mod ledger;
pub mod standing;
#[cfg(test)]
mod tests;
mod token;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use slice_common::layout::{ShaperCounts, ShaperKey, ShaperLoan, ShaperTerms};
use slice_common::shaper::Loan;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use self::book::{Answers, Book, Kernel, Lent, Questions};
use self::ledger::ASK_INTERVAL_NS;
use self::standing::UplinkLending;
use self::token::Token;
use crate::agent::status::Status;
use crate::apply::maps::Maps;
use crate::http;
use crate::model::{self, ValidatedUplink};
use crate::observe::counters;
use crate::observe::paths::kernel_now_ns;

const INTERVAL: Duration = Duration::from_nanos(ASK_INTERVAL_NS);
/// For the whole of a question to one partner; the others are asked at the same time.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
const LOANS: &str = "SHAPER_LOANS";

/// The handle on what is lent and borrowed.
#[derive(Clone)]
pub struct Lending {
    kernel: Arc<dyn Kernel>,
    status: Status,
    desk: Arc<Mutex<Desk>>,
}

#[derive(Debug, Default)]
struct Desk {
    book: Book,
    uplinks: BTreeMap<String, Uplink>,
    /// A configuration that was accepted since the tokens were read.
    fresh: Option<BTreeMap<String, model::Lending>>,
    is_reading: bool,
    /// The last failure of the kernel, so that it is reported once.
    failure: Option<String>,
}

/// An uplink whose nodes lend.
#[derive(Clone, Debug)]
struct Uplink {
    configured: model::Lending,
    token: Result<Token, String>,
    /// By partner: why it did not answer last.
    silent: BTreeMap<Ipv4Addr, String>,
}

/// One partner of one uplink.
#[derive(Clone, Debug)]
struct Partner {
    uplink: String,
    ifindex: u32,
    address: SocketAddrV4,
    token: Token,
}

impl Lending {
    pub fn new(maps: Maps, status: Status) -> Self {
        Self::with(Arc::new(InKernel(maps)), status)
    }

    fn with(kernel: Arc<dyn Kernel>, status: Status) -> Self {
        Self {
            kernel,
            status,
            desk: Arc::default(),
        }
    }

    /// Takes a configuration over that was accepted; its tokens are read in the next turn.
    pub fn arrange(&self, uplinks: &[ValidatedUplink]) {
        let lending = uplinks.iter().filter_map(|uplink| {
            let lending = uplink.lending.clone()?;
            Some((uplink.name.clone(), lending))
        });
        self.desk().fresh = Some(lending.collect());
    }

    /// Measures and asks, until it is aborted.
    pub async fn run(self) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.turn().await;
        }
    }

    async fn turn(&self) {
        // A file system that hangs keeps nobody else waiting.
        let lending = self.clone();
        let read = tokio::spawn(async move { lending.read_tokens().await });
        let _read_later = timeout(ANSWER_WITHIN, read).await;
        let looked = self.look();
        let partners = looked.unwrap_or_else(|error| {
            self.note_failure(Some(format!("{error:#}")));
            Vec::new()
        });
        self.ask_all(partners).await;
        self.tell();
    }

    /// Reads the tokens of a new configuration, and those that could not be read.
    async fn read_tokens(&self) {
        let wanted = {
            let mut desk = self.desk();
            if desk.is_reading {
                return;
            }
            let has_unread = desk.uplinks.values().any(|it| it.token.is_err());
            let known = || {
                let uplinks = desk.uplinks.iter();
                uplinks
                    .map(|(name, it)| (name.clone(), it.configured.clone()))
                    .collect()
            };
            let wanted = match desk.fresh.is_none() && has_unread {
                true => Some(known()),
                false => desk.fresh.take(),
            };
            desk.is_reading = wanted.is_some();
            wanted
        };
        let Some(wanted) = wanted else { return };
        let read = tokio::task::spawn_blocking(move || wanted.into_iter().map(opened).collect());
        let read = read.await;
        let mut desk = self.desk();
        desk.is_reading = false;
        let Ok(mut uplinks): Result<BTreeMap<String, Uplink>, _> = read else {
            return;
        };
        for (name, uplink) in &mut uplinks {
            let before = desk.uplinks.get(name);
            if let Err(why) = &uplink.token
                && before.is_none_or(|it| it.token != uplink.token)
            {
                tracing::warn!(uplink = %name, "nothing is lent or borrowed: {why}");
            }
            let partners = &uplink.configured.partners;
            let silent = before.into_iter().flat_map(|it| it.silent.clone());
            uplink.silent = silent
                .filter(|(silent, _)| partners.iter().any(|it| it.ip() == silent))
                .collect();
        }
        desk.uplinks = uplinks;
    }

    /// Brings book and kernel up to date; returns whom to ask.
    fn look(&self) -> Result<Vec<Partner>> {
        let (rates, names) = self
            .status
            .see(|state| (state.rates.clone(), state.names.uplinks.clone()));
        let now_ns = kernel_now_ns()?;
        let mut desk = self.desk();
        let open = |ifindex: &u32| {
            let name = names.get(ifindex)?;
            let uplink = desk.uplinks.get(name)?;
            let token = uplink.token.as_ref().ok()?;
            Some((name, uplink, token))
        };
        let lent = rates.iter().filter_map(|(key, terms)| {
            let (_, uplink, _) = open(&key.ifindex)?;
            lent(*key, terms, &uplink.configured)
        });
        let lent: Vec<Lent> = lent.collect();
        let partners = names
            .keys()
            .filter_map(|ifindex| Some((*ifindex, open(ifindex)?)));
        let partners = partners.flat_map(|(ifindex, (name, uplink, token))| {
            uplink
                .configured
                .partners
                .iter()
                .map(move |address| Partner {
                    uplink: name.clone(),
                    ifindex,
                    address: *address,
                    token: token.clone(),
                })
        });
        let partners = partners.collect();
        desk.book.turn(&lent, self.kernel.as_ref(), now_ns)?;
        drop(desk);
        self.note_failure(None);
        Ok(partners)
    }

    async fn ask_all(&self, partners: Vec<Partner>) {
        let mut asked = JoinSet::new();
        for partner in partners {
            let lending = self.clone();
            asked.spawn(async move {
                let answered = timeout(ANSWER_WITHIN, lending.ask(&partner)).await;
                let answered = answered
                    .unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {ANSWER_WITHIN:?}")));
                lending.note_answer(&partner, answered.err().map(|error| format!("{error:#}")));
            });
        }
        while asked.join_next().await.is_some() {}
    }

    /// Asks a partner; once more where it lends less than before, so that it hears that the rest is back.
    async fn ask(&self, partner: &Partner) -> Result<()> {
        while self.ask_once(partner).await? {}
        Ok(())
    }

    async fn ask_once(&self, partner: &Partner) -> Result<bool> {
        let asked_ns = kernel_now_ns()?;
        let place = (partner.ifindex, *partner.address.ip());
        let questions = self.desk().book.questions(place.0, place.1, asked_ns);
        if questions.slices.is_empty() {
            return Ok(false);
        }
        let text = serde_json::to_string(&questions)?;
        let address = SocketAddr::V4(partner.address);
        let path = format!("/lend/{}", partner.uplink);
        let answer = http::post_to(address, &path, &partner.token.header(), &text).await?;
        let answers: Answers = serde_json::from_str(&answer).map_err(|error| {
            // Its own words would have what was answered in them.
            let (line, column) = (error.line(), error.column());
            anyhow::anyhow!("these are no answers of this version (line {line}, column {column})")
        })?;
        let answers = answers.within(&questions);
        let kernel = (self.kernel.as_ref(), kernel_now_ns()?);
        self.desk().book.take(place, &answers, asked_ns, kernel)
    }

    /// Who asks, if it is a partner that knows the token.
    pub fn partner(&self, uplink: &str, remote: IpAddr, authorization: &[u8]) -> Option<Ipv4Addr> {
        let IpAddr::V4(remote) = remote.to_canonical() else {
            return None;
        };
        let desk = self.desk();
        let uplink = desk.uplinks.get(uplink)?;
        let is_listed = uplink
            .configured
            .partners
            .iter()
            .any(|it| *it.ip() == remote);
        let has_token = uplink
            .token
            .as_ref()
            .is_ok_and(|token| token.is_in(authorization));
        (is_listed && has_token).then_some(remote)
    }

    /// Lends a partner what can be spared.
    ///
    /// # Errors
    /// Where the kernel does not go by it: then nothing is lent.
    pub fn lend(&self, uplink: &str, partner: Ipv4Addr, questions: &Questions) -> Result<Answers> {
        let named = |state: &crate::agent::status::State| {
            let mut uplinks = state.names.uplinks.iter();
            let (ifindex, _) = uplinks.find(|(_, name)| *name == uplink)?;
            Some(*ifindex)
        };
        let Some(ifindex) = self.status.see(named) else {
            return Ok(Answers::default());
        };
        let mut desk = self.desk();
        let (place, now_ns) = ((ifindex, partner), kernel_now_ns()?);
        desk.book
            .lend(place, questions, self.kernel.as_ref(), now_ns)
    }

    fn note_answer(&self, partner: &Partner, why: Option<String>) {
        let Partner {
            uplink, address, ..
        } = partner;
        let mut desk = self.desk();
        let Some(known) = desk.uplinks.get_mut(uplink) else {
            return;
        };
        let before = known.silent.remove(address.ip());
        match why {
            Some(why) => {
                if before.is_none() {
                    tracing::warn!(%uplink, partner = %address, "the partner lends nothing: {why}");
                }
                known.silent.insert(*address.ip(), why);
            }
            None if before.is_some() => {
                tracing::info!(%uplink, partner = %address, "the partner answers again");
            }
            None => {}
        }
    }

    fn note_failure(&self, why: Option<String>) {
        let mut desk = self.desk();
        if let Some(why) = &why
            && desk.failure.as_ref() != Some(why)
        {
            tracing::warn!("what is lent and borrowed cannot be brought up to date: {why}");
        }
        desk.failure = why;
    }

    /// Shows how it is.
    fn tell(&self) {
        let Ok(now_ns) = kernel_now_ns() else { return };
        let desk = self.desk();
        let loans = desk.book.standings(now_ns);
        let uplinks = desk.uplinks.iter().map(|(name, uplink)| {
            let lending = UplinkLending {
                obstacle: uplink
                    .token
                    .as_ref()
                    .err()
                    .or(desk.failure.as_ref())
                    .cloned(),
                silent: uplink.silent.clone(),
            };
            (name.clone(), lending)
        });
        let uplinks = uplinks.collect();
        drop(desk);
        self.status.update(|state| {
            state.loans = loans;
            state.lending = uplinks;
        });
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        // Each change is whole or not made, so one that panicked elsewhere did no harm.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why this node would neither lend nor borrow: what is wrong with its token. One line for each uplink.
pub fn obstacles(uplinks: &[ValidatedUplink]) -> Vec<String> {
    let lending = uplinks
        .iter()
        .filter_map(|it| Some((&it.name, it.lending.as_ref()?)));
    let unread = lending.filter_map(|(name, lending)| {
        let error = Token::read(&lending.token_file).err()?;
        Some(format!("on uplink {name}: {error:#}"))
    });
    unread.collect()
}

fn opened((name, configured): (String, model::Lending)) -> (String, Uplink) {
    let token = Token::read(&configured.token_file).map_err(|error| format!("{error:#}"));
    let silent = BTreeMap::new();
    (
        name,
        Uplink {
            configured,
            token,
            silent,
        },
    )
}

/// Where the uplink's contract is watched, parts of the ceiling are not lent: a validated configuration has none of
/// these, but terms of an earlier one may still be in force.
fn lent(key: ShaperKey, terms: &ShaperTerms, configured: &model::Lending) -> Option<Lent> {
    terms.uplink().guarantee_bps().is_none().then(|| Lent {
        key,
        terms: *terms,
        partners: configured.partners.iter().map(|it| *it.ip()).collect(),
    })
}

/// The kernel's own tables.
struct InKernel(Maps);

impl Kernel for InKernel {
    fn loan(&self, place: u32) -> Result<Loan> {
        let loans = self.0.array::<ShaperLoan>(LOANS)?;
        let loan = loans
            .get(&place, 0)
            .context("cannot read the map SHAPER_LOANS")?;
        Ok(loan.loan())
    }

    fn set_loan(&self, place: u32, loan: Loan) -> Result<()> {
        let mut loans = self.0.array::<ShaperLoan>(LOANS)?;
        loans
            .set(place, ShaperLoan::new(loan), 0)
            .context("cannot write the map SHAPER_LOANS")
    }

    fn counts(&self, places: &[u32]) -> Result<BTreeMap<u32, ShaperCounts>> {
        counters::shaped(&self.0, places)
    }
}
