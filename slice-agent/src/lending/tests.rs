//! Agents that lend, over HTTP on loopback, with a kernel that is a table.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use slice_common::layout::{
    Counter, ShaperBackend, ShaperCounts, ShaperKey, ShaperPlace, ShaperTerms,
};
use slice_common::shaper::{
    Assured, ClassTerms, Loan, Patience, Rate, SliceTerms, UplinkTerms, WireBytes,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::book::{Book, Kernel, Lent, Questions};
use super::ledger::{LEASE_NS, MARGIN_NS, Question};
use super::*;
use crate::agent::status::Status;
use crate::apply::pins::Pins;
use crate::http::serve;

const KEY: ShaperKey = ShaperKey {
    ifindex: 2,
    slice: 7,
};
const PLACE: u32 = 3;
const OWN_BPS: u64 = 80_000_000;
const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const PARTNER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 12);
const SECOND: u64 = 1_000_000_000;
const WHOLE: u32 = Loan::WHOLE;
const LIMIT: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Table {
    loans: Mutex<BTreeMap<u32, Loan>>,
    sent_bytes: AtomicU64,
    dropped_bytes: AtomicU64,
    refuses: AtomicBool,
}

impl Table {
    fn at(&self, place: u32) -> Loan {
        let loans = self.loans.lock().unwrap();
        loans.get(&place).copied().unwrap_or(Loan::NONE)
    }
}

impl Kernel for Table {
    fn loan(&self, place: u32) -> Result<Loan> {
        Ok(self.at(place))
    }

    fn set_loan(&self, place: u32, loan: Loan) -> Result<()> {
        ensure!(!self.refuses.load(Ordering::Relaxed), "the kernel refuses");
        self.loans.lock().unwrap().insert(place, loan);
        Ok(())
    }

    fn counts(&self, places: &[u32]) -> Result<BTreeMap<u32, ShaperCounts>> {
        let none = Counter {
            packets: 0,
            bytes: 0,
        };
        let bytes = |of: &AtomicU64| Counter {
            packets: 1,
            bytes: of.load(Ordering::Relaxed),
        };
        let counts = ShaperCounts {
            guaranteed: bytes(&self.sent_bytes),
            borrowed: none,
            lane: none,
            over_horizon: bytes(&self.dropped_bytes),
            marked: 0,
            with_socket: 0,
            waited: Default::default(),
            latest_wait_ns: 0,
        };
        Ok(BTreeMap::from([(places[0], counts)]))
    }
}

fn terms(backend: ShaperBackend, place: u32, own_bps: u64) -> ShaperTerms {
    let rate = Rate::new_checked(own_bps).unwrap();
    let (frame, patience) = (WireBytes::new(1538), Patience::for_round_trip(20_000_000));
    let slice = SliceTerms::new(rate, Assured::new(rate, None), frame);
    let class = ClassTerms::new(rate, patience, frame);
    let place = ShaperPlace {
        uplink: 0,
        slice: place,
    };
    ShaperTerms::new(backend, place, &UplinkTerms::NONE, &slice, &class)
}

fn lent(terms: ShaperTerms) -> [Lent; 1] {
    [Lent {
        key: KEY,
        terms,
        partners: [PARTNER].into(),
    }]
}

/// That sends by the second what these rates are, dropped and not; after two turns a second apart.
fn measured(table: &Table, terms: ShaperTerms, rates: [u64; 2]) -> (Book, u64) {
    let mut book = Book::default();
    let now_ns = 100 * SECOND;
    book.turn(&lent(terms), table, now_ns).unwrap();
    table.sent_bytes.fetch_add(rates[0] / 8, Ordering::Relaxed);
    table
        .dropped_bytes
        .fetch_add(rates[1] / 8, Ordering::Relaxed);
    book.turn(&lent(terms), table, now_ns + SECOND).unwrap();
    (book, now_ns + SECOND)
}

fn edt() -> ShaperTerms {
    terms(ShaperBackend::Edt, PLACE, OWN_BPS)
}

fn wants(book: &Book, now_ns: u64) -> u32 {
    book.questions(2, PARTNER, now_ns).slices[&7].wanted_parts
}

fn asking(wanted_parts: u32, own_bps: u64) -> Questions {
    let question = Question {
        own_bps,
        wanted_parts,
        holds: 0,
    };
    Questions {
        slices: BTreeMap::from([(7, question)]),
    }
}

fn lends(book: &mut Book, table: &Table, own_bps: u64, now_ns: u64) -> Result<u32> {
    let questions = asking(10 * WHOLE, own_bps);
    let answers = book.lend((2, PARTNER), &questions, table, now_ns)?;
    Ok(answers.slices[&7].parts)
}

#[test]
fn what_was_sent_or_dropped_is_wanted_and_what_was_not_is_lent() {
    let table = Table::default();
    let (book, now_ns) = measured(&table, edt(), [OWN_BPS, 0]);
    assert_eq!(
        wants(&book, now_ns),
        WHOLE / 4,
        "a quarter more than was sent"
    );
    let (book, now_ns) = measured(&table, edt(), [OWN_BPS, OWN_BPS]);
    assert_eq!(wants(&book, now_ns), WHOLE * 3 / 2, "what was dropped too");
    let (mut book, now_ns) = measured(&table, edt(), [OWN_BPS / 2, 0]);
    assert_eq!(wants(&book, now_ns), 0);
    assert_eq!(
        lends(&mut book, &table, OWN_BPS, now_ns).unwrap(),
        WHOLE / 4
    );
    let loan = table.at(PLACE);
    assert_eq!(
        loan,
        Loan::having(WHOLE * 3 / 4, now_ns + LEASE_NS + MARGIN_NS)
    );
    assert_eq!(book.standings(now_ns)[&KEY].lent_parts(), WHOLE / 4);
}

#[test]
fn nothing_is_lent_without_a_measurement_nor_to_who_has_another_part() {
    let table = Table::default();
    let mut book = Book::default();
    book.turn(&lent(edt()), &table, SECOND).unwrap();
    assert_eq!(lends(&mut book, &table, OWN_BPS, SECOND).unwrap(), 0);
    let (mut book, now_ns) = measured(&table, edt(), [0, 0]);
    assert_eq!(lends(&mut book, &table, OWN_BPS / 2, now_ns).unwrap(), 0);
    let later_ns = now_ns + 3 * SECOND;
    assert_eq!(lends(&mut book, &table, OWN_BPS, later_ns).unwrap(), 0);
    assert!(
        lends(&mut book, &table, OWN_BPS, now_ns).unwrap() > 0,
        "vacuous"
    );
}

#[test]
fn nothing_is_lent_that_the_kernel_does_not_go_by() {
    let table = Table::default();
    let (mut book, now_ns) = measured(&table, edt(), [0, 0]);
    table.refuses.store(true, Ordering::Relaxed);
    let error = lends(&mut book, &table, OWN_BPS, now_ns).unwrap_err();
    assert_eq!(error.to_string(), "the kernel refuses");
    assert_eq!(book.standings(now_ns)[&KEY].lent_parts(), 0);
    assert_eq!(table.at(PLACE), Loan::NONE);
}

#[test]
fn classes_of_htb_lend_and_do_not_borrow() {
    let table = Table::default();
    let htb = terms(ShaperBackend::Htb, PLACE, OWN_BPS);
    let (book, now_ns) = measured(&table, htb, [OWN_BPS, 0]);
    assert_eq!(wants(&book, now_ns), 0);
    let (mut book, now_ns) = measured(&table, htb, [0, 0]);
    assert!(lends(&mut book, &table, OWN_BPS, now_ns).unwrap() > 0);
    assert!(book.standings(now_ns)[&KEY].only_lends);
}

fn borrowing(table: &Table) -> (Book, u64) {
    let (mut book, now_ns) = measured(table, edt(), [OWN_BPS, 0]);
    let answer = super::ledger::Answer {
        number: 5,
        parts: WHOLE / 2,
    };
    let answers = Answers {
        slices: BTreeMap::from([(7, answer)]),
    };
    let taken = book.take((2, PARTNER), &answers, now_ns, (table, now_ns));
    assert!(!taken.unwrap(), "it is not less than before");
    assert_eq!(
        table.at(PLACE),
        Loan::having(WHOLE * 3 / 2, now_ns + LEASE_NS)
    );
    (book, now_ns)
}

#[test]
fn what_is_borrowed_ends_with_the_rate_and_with_the_queue_that_it_was_borrowed_for() {
    for changed in [
        terms(ShaperBackend::Htb, PLACE, OWN_BPS),
        terms(ShaperBackend::Edt, PLACE, OWN_BPS / 2),
    ] {
        let table = Table::default();
        let (mut book, now_ns) = borrowing(&table);
        book.turn(&lent(edt()), &table, now_ns + SECOND / 2)
            .unwrap();
        assert_ne!(table.at(PLACE), Loan::NONE, "vacuous");
        book.turn(&lent(changed), &table, now_ns + SECOND).unwrap();
        assert_eq!(table.at(PLACE), Loan::NONE);
    }
}

#[test]
fn what_is_borrowed_ends_with_the_lending() {
    let table = Table::default();
    let (mut book, now_ns) = borrowing(&table);
    book.turn(&[], &table, now_ns + SECOND / 2).unwrap();
    assert_eq!(table.at(PLACE), Loan::NONE);
}

#[test]
fn what_was_lent_stays_lent_after_the_lending() {
    let table = Table::default();
    let (mut book, now_ns) = measured(&table, edt(), [0, 0]);
    assert!(lends(&mut book, &table, OWN_BPS, now_ns).unwrap() > 0);
    let loan = table.at(PLACE);
    book.turn(&[], &table, now_ns + SECOND / 2).unwrap();
    assert_eq!(table.at(PLACE), loan);
}

#[test]
fn nothing_is_taken_that_was_not_asked_for() {
    let answer = |parts| super::ledger::Answer { number: 5, parts };
    let answers = Answers {
        slices: BTreeMap::from([(7, answer(u32::MAX)), (9, answer(1))]),
    };
    let taken = answers.within(&asking(WHOLE / 8, OWN_BPS));
    assert_eq!(taken.slices, BTreeMap::from([(7, answer(WHOLE / 8))]));
}

#[test]
fn what_is_lent_stays_lent_where_the_slice_comes_back_at_another_place() {
    let table = Table::default();
    let (mut book, now_ns) = measured(&table, edt(), [0, 0]);
    assert!(lends(&mut book, &table, OWN_BPS, now_ns).unwrap() > 0);
    let loan = table.at(PLACE);
    book.turn(&[], &table, now_ns + SECOND).unwrap();
    assert!(
        book.questions(2, PARTNER, now_ns + SECOND)
            .slices
            .is_empty()
    );
    let elsewhere = terms(ShaperBackend::Edt, PLACE + 1, OWN_BPS);
    book.turn(&lent(elsewhere), &table, now_ns + 2 * SECOND)
        .unwrap();
    assert_eq!(table.at(PLACE + 1), loan);
}

#[test]
fn a_new_agent_waits_for_the_end_of_what_an_earlier_one_lent_and_no_longer() {
    let table = Table::default();
    let (mut book, now_ns) = measured(&table, edt(), [0, 0]);
    assert!(lends(&mut book, &table, OWN_BPS, now_ns).unwrap() > 0);
    let loan = table.at(PLACE);
    let mut book = Book::default();
    for second in 1..=3 {
        book.turn(&lent(edt()), &table, now_ns + second * SECOND)
            .unwrap();
        assert_eq!(
            lends(&mut book, &table, OWN_BPS, now_ns + second * SECOND).unwrap(),
            0
        );
        assert_eq!(table.at(PLACE), loan);
    }
    book.turn(&lent(edt()), &table, now_ns + 4 * SECOND)
        .unwrap();
    assert!(lends(&mut book, &table, OWN_BPS, now_ns + 4 * SECOND).unwrap() > 0);
}

/// An agent that lends, and answers on loopback.
struct Agent {
    lending: Lending,
    table: Arc<Table>,
    address: SocketAddrV4,
    _folder: tempfile::TempDir,
}

impl Agent {
    async fn start(partners: &[SocketAddrV4], token: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else {
            panic!("IPv4 was asked for");
        };
        let status = Status::new(Instant::now());
        status.update(|state| {
            state.rates = BTreeMap::from([(KEY, edt())]);
            state.names.uplinks = BTreeMap::from([(2, "wan".into())]);
        });
        let table = Arc::<Table>::default();
        let lending = Lending::with(table.clone(), status.clone());
        let maps = Maps::new(Pins::current(folder.path()));
        tokio::spawn(serve(listener, status, maps, lending.clone()));
        let agent = Self {
            lending,
            table,
            address,
            _folder: folder,
        };
        std::fs::write(agent.token_file(), token).unwrap();
        agent.has_partners(partners).await;
        agent
    }

    fn token_file(&self) -> PathBuf {
        self._folder.path().join("token")
    }

    async fn has_partners(&self, partners: &[SocketAddrV4]) {
        let configured = model::Lending {
            partners: partners.to_vec(),
            token_file: self.token_file(),
        };
        self.lending.desk().fresh = Some(BTreeMap::from([("wan".into(), configured)]));
        self.lending.read_tokens().await;
    }

    /// The first line of the answer, and all of it.
    async fn answer(&self, request: &str) -> (String, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.lines().next().unwrap_or_default().to_owned();
        let undated = answer.lines().filter(|line| !line.starts_with("date: "));
        (status, undated.collect::<Vec<_>>().join("\n"))
    }

    fn told(&self) -> UplinkLending {
        self.lending.status.read().lending["wan"].clone()
    }
}

fn request(path: &str, token: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.0\r\nauthorization: Bearer {token}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

const SOMEWHERE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);

#[tokio::test]
async fn strangers_get_what_an_unknown_page_gets() {
    let agent = Agent::start(&[SOMEWHERE], TOKEN).await;
    let questions = "{\"slices\":{}}";
    let right = agent.answer(&request("/lend/wan", TOKEN, questions)).await;
    assert_eq!(right.0, "HTTP/1.0 200 OK");
    assert!(right.1.ends_with("{\"slices\":{}}"), "{}", right.1);
    let unknown = agent.answer(&request("/nothing", TOKEN, questions)).await;
    assert_eq!(unknown.0, "HTTP/1.0 404 Not Found");
    let wrong = TOKEN.replace('0', "1");
    for (what, asked) in [
        ("a wrong token", request("/lend/wan", &wrong, questions)),
        (
            "a token too long",
            request("/lend/wan", &format!("{TOKEN}0"), questions),
        ),
        ("an empty token", request("/lend/wan", "", questions)),
        (
            "no token",
            "POST /lend/wan HTTP/1.0\r\ncontent-length: 0\r\n\r\n".into(),
        ),
        ("another uplink", request("/lend/other", TOKEN, questions)),
        ("no text", request("/lend/%ff", TOKEN, questions)),
        ("another method", "GET /lend/wan HTTP/1.0\r\n\r\n".into()),
        // Of which nothing is read.
        (
            "a huge body",
            format!(
                "POST /lend/wan HTTP/1.0\r\ncontent-length: {}\r\n\r\n",
                1u64 << 40
            ),
        ),
    ] {
        assert_eq!(agent.answer(&asked).await, unknown, "{what}");
    }
    let elsewhere = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 9), 1);
    agent.has_partners(&[elsewhere]).await;
    let from_elsewhere = agent.answer(&request("/lend/wan", TOKEN, questions)).await;
    assert_eq!(
        from_elsewhere, unknown,
        "the right token from a wrong address"
    );
}

#[tokio::test]
async fn a_partner_is_told_what_is_wrong_with_its_question() {
    let agent = Agent::start(&[SOMEWHERE], TOKEN).await;
    let status = async |body: &str| agent.answer(&request("/lend/wan", TOKEN, body)).await;
    let (code, text) = status("{\"slices\":{},\"more\":1}").await;
    assert_eq!(code, "HTTP/1.0 400 Bad Request");
    assert!(
        text.contains("these are no questions of this version: unknown field `more`"),
        "{text}"
    );
    let huge = "x".repeat(64 * 1024 + 1);
    assert_eq!(status(&huge).await.0, "HTTP/1.0 413 Payload Too Large");
    let began = Instant::now();
    let slow = format!(
        "POST /lend/wan HTTP/1.0\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: 10\r\n\r\n{{"
    );
    assert_eq!(agent.answer(&slow).await.0, "HTTP/1.0 408 Request Timeout");
    assert!(began.elapsed() < LIMIT);
}

#[tokio::test]
async fn a_busy_agent_borrows_from_an_idle_one_though_another_partner_is_silent() {
    let silent = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let SocketAddr::V4(silent_at) = silent.local_addr().unwrap() else {
        panic!("IPv4 was asked for");
    };
    let idle = Agent::start(&[SOMEWHERE], TOKEN).await;
    let busy = Agent::start(&[idle.address, silent_at], TOKEN).await;
    let began = Instant::now();
    while busy.table.at(PLACE).byte_parts >= WHOLE {
        assert!(
            began.elapsed() < LIMIT,
            "nothing is borrowed: {:?}",
            busy.told()
        );
        idle.lending.turn().await;
        // Far more than its part in any time. The turn lasts until the silent one is given up.
        busy.table.sent_bytes.fetch_add(OWN_BPS, Ordering::Relaxed);
        let turn = Instant::now();
        busy.lending.turn().await;
        assert!(
            turn.elapsed() < Duration::from_secs(3),
            "{:?}",
            turn.elapsed()
        );
    }
    assert!(
        idle.table.at(PLACE).byte_parts > WHOLE,
        "the other counts it as lent"
    );
    busy.lending.tell();
    let told = busy.told();
    assert_eq!(told.obstacle, None);
    let silent = BTreeMap::from([(*silent_at.ip(), "no answer within 500ms".to_owned())]);
    assert_eq!(told.silent, silent);
    let standing = &busy.lending.status.read().loans[&KEY];
    assert!(standing.partners[&Ipv4Addr::LOCALHOST].borrowed_parts > 0);
}

#[tokio::test]
async fn who_has_another_token_lends_nothing_and_both_ends_are_told_why() {
    let idle = Agent::start(&[SOMEWHERE], &TOKEN.replace('0', "1")).await;
    let busy = Agent::start(&[idle.address], TOKEN).await;
    busy.lending.turn().await;
    let why = "it does not take this node for a partner of the uplink: compare `lending` of both, and their tokens";
    assert_eq!(busy.told().silent[&Ipv4Addr::LOCALHOST], why);
}

#[tokio::test]
async fn what_a_partner_answers_is_not_repeated() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let SocketAddr::V4(address) = listener.local_addr().unwrap() else {
        panic!("IPv4 was asked for");
    };
    let agent = Agent::start(&[address], TOKEN).await;
    let no_answers = "these are no answers of this version (line 1, column 35)";
    let no_success =
        "it answers with HTTP status 500: is it an agent, and of the same version? See its log";
    for (answer, why) in [
        (format!("HTTP/1.0 500 {TOKEN}\r\n\r\n{TOKEN}"), no_success),
        (
            format!("HTTP/1.0 200 OK\r\n\r\n{{\"{TOKEN}\":1}}"),
            no_answers,
        ),
        (
            format!("HTTP/1.0 {TOKEN}\r\n\r\n"),
            "it does not speak HTTP",
        ),
    ] {
        let answering = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut question = [0; 4096];
            assert!(stream.read(&mut question).await.unwrap() > 0);
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        tokio::join!(answering, agent.lending.turn());
        assert_eq!(agent.told().silent[&Ipv4Addr::LOCALHOST], why);
    }
}

#[tokio::test]
async fn a_token_is_read_again_until_there_is_one_and_with_each_configuration() {
    let agent = Agent::start(&[SOMEWHERE], "short").await;
    agent.lending.turn().await;
    let why = agent.told().obstacle.expect("a token that is too short");
    assert!(
        why.ends_with(
            "has a token of 5 bytes; 16 to 1024 are wanted, as from `openssl rand -hex 32`"
        ),
        "{why}"
    );
    let asks = async |token: &str| {
        let asked = request("/lend/wan", token, "{\"slices\":{}}");
        agent.answer(&asked).await.0.contains("200")
    };
    assert!(!asks("short").await);
    write(&agent.token_file(), TOKEN);
    agent.lending.turn().await;
    assert!(asks(TOKEN).await);
    let next = TOKEN.replace('0', "1");
    write(&agent.token_file(), &next);
    agent.lending.turn().await;
    assert!(asks(TOKEN).await, "it is read with a configuration");
    agent.has_partners(&[SOMEWHERE]).await;
    assert!(asks(&next).await && !asks(TOKEN).await);
}

fn write(path: &Path, token: &str) {
    std::fs::write(path, token).unwrap();
}
