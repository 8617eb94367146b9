//! What is taken away while packets flow is gone at once.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::time::{ClockId, clock_gettime};
use slice_agent::apply::maps::Maps;
use slice_agent::image::Prefixed;
use slice_common::address::Address;
use slice_common::id::{NamespaceId, TableId};
use slice_common::layout::{LocalEndpoint, LocalKey, PolicyEntry, PolicyKey, Route, RouteKey};
use slice_tests::child::poll_until;
use slice_tests::findings::Findings;
use slice_tests::harness::{Scene, agent_file, say};
use slice_tests::lab::{Lab, Pod};
use slice_tests::live::{Books, Capture, QuietPods, Raw, maps_of, put_in_force};
use slice_tests::packet::{Checksum, Ipv4, Tcp, Udp};

pub(crate) const SCENES: &[Scene] = &[
    (
        "what_is_denied_under_load_stops_within_a_millisecond",
        flips,
    ),
    ("tables_replaced_under_load_lose_nothing", replaced_tables),
];

/// After the system call returned that put the change in force.
const GRACE_NS: u64 = 1_000_000;
/// A sender that the machine holds up between stamp and system call.
const HELD_UP_NS: u64 = 15_000_000;
const TOGGLES: usize = 6;
const EACH_WAY: Duration = Duration::from_millis(45);
const REPLACEMENTS: usize = 200;
const LIMIT: Duration = Duration::from_secs(10);
const STAMP: &[u8] = b"stamped:";
const STAMP_BYTES: usize = STAMP.len() + 8;
/// Between two packets of one sender: the queues are not the thing under test.
const REST: Duration = Duration::from_micros(20);
const KINDS: [&str; 3] = ["UDP", "TCP data", "new SYNs"];
/// Where a packet of each kind comes from; a SYN from a port of its own.
const PORTS: [u16; 3] = [7000, 40_000, 41_000];

type Change = Box<dyn Fn(&Maps) -> Result<()>>;

/// Something that can be taken away and given back, by one node's maps.
struct Flip {
    what: &'static str,
    node: &'static str,
    close: Change,
    open: Change,
    /// Who gets the packets instead.
    heir: Option<&'static str>,
}

fn flips(lab: &Lab) -> Result<()> {
    // An agent would put back what is taken away.
    lab.stop_agents()?;
    let played = play_flips(lab);
    lab.start_agents(&agent_file())?;
    let late = played?;
    Findings {
        wrong_deliveries: Some(late),
        ..Findings::default()
    }
    .report("flip")?;
    ensure!(late == 0, "{late} packets passed after their time");
    Ok(())
}

fn play_flips(lab: &Lab) -> Result<u64> {
    let [from, to, heir] = ["kafka-0", "kafka-1", "analytics-0"].map(|name| lab.pod(name));
    let (from, to, heir) = (from?, to?, heir?);
    let _quiet = QuietPods::of([to.netns.clone(), heir.netns.clone()])?;
    let mut late = 0;
    let nothing = Flip {
        what: "nothing at all",
        node: "east-1",
        close: Box::new(|_| Ok(())),
        open: Box::new(|_| Ok(())),
        heir: None,
    };
    let mut is_control = true;
    for flip in std::iter::once(nothing).chain(all_flips(lab, &to)?) {
        let maps = maps_of(lab, flip.node)?;
        let captures = [&to, &heir].map(|pod| Capture::of_arriving(&pod.netns, "eth0"));
        let [at_to, at_heir] = captures;
        let (at_to, at_heir) = (at_to?, at_heir?);
        let load = Load::of(&from, &to)?;
        let times = load.run(|load| toggle(&flip, &maps, load))?;
        let found = judge(&flip, &times, &at_to, &at_heir)?;
        if is_control {
            ensure!(found > 0, "not vacuous: what nobody takes away goes on");
            is_control = false;
        } else {
            late += found;
        }
    }
    Ok(late)
}

/// When what was flipped was closed.
struct Closed {
    /// From then on it was...
    from: u64,
    /// ...until then for sure, and not after...
    until: u64,
    /// ...then.
    reopened: u64,
}

fn toggle(flip: &Flip, maps: &Maps, load: &Load) -> Result<Vec<Closed>> {
    let mut closed = Vec::new();
    for _ in 0..TOGGLES {
        load.flow_on()?;
        (flip.close)(maps)?;
        put_in_force(maps)?;
        let from = now_ns()?;
        load.flow_on()?;
        // A packet that is held up after its stamp was taken may be decided when all is open again.
        let until = now_ns()? - HELD_UP_NS;
        (flip.open)(maps)?;
        put_in_force(maps)?;
        let reopened = now_ns()?;
        closed.push(Closed {
            from,
            until,
            reopened,
        });
    }
    load.flow_on()?;
    Ok(closed)
}

fn judge(flip: &Flip, closed: &[Closed], at_to: &Capture, at_heir: &Capture) -> Result<u64> {
    let during = |stamp: u64| {
        closed
            .iter()
            .find(|it| (it.from..it.until).contains(&stamp))
    };
    let (mut late, mut latest_ns) = (0, 0);
    let mut passed: BTreeMap<&str, u64> = BTreeMap::new();
    for frame in at_to.take()? {
        let Some((kind, stamp)) = stamp_of(&frame.bytes) else {
            continue;
        };
        match during(stamp) {
            Some(closed) => {
                let after = stamp - closed.from;
                latest_ns = latest_ns.max(after);
                late += u64::from(after > GRACE_NS);
            }
            None => *passed.entry(kind).or_default() += 1,
        }
    }
    let mut inherited = 0;
    for (_, stamp) in at_heir
        .take()?
        .iter()
        .filter_map(|frame| stamp_of(&frame.bytes))
    {
        let is_due = flip.heir.is_some() && during(stamp).is_some();
        inherited += u64::from(is_due);
        // One that was stamped before may be decided after the change, as late as its sender was held up.
        let is_of_the_edge = closed
            .iter()
            .any(|it| (it.from - HELD_UP_NS..it.reopened + GRACE_NS).contains(&stamp));
        late += u64::from(flip.heir.is_none() || !is_of_the_edge);
    }
    say(&format!(
        "{} at {}: passed {passed:?}, inherited {inherited}; {late} late, the latest sent {:.0} µs after",
        flip.what,
        flip.node,
        latest_ns as f64 / 1e3
    ));
    for kind in KINDS {
        ensure!(
            passed.contains_key(kind),
            "not vacuous: {}: {kind}",
            flip.what
        );
    }
    ensure!(
        flip.heir.is_none() || inherited > 0,
        "not vacuous: {}",
        flip.what
    );
    Ok(late)
}

fn all_flips(lab: &Lab, to: &Pod) -> Result<Vec<Flip>> {
    let mut flips = Vec::new();
    for node in ["east-1", "west-1"] {
        let policy = maps_of(lab, node)?.table::<PolicyKey, PolicyEntry>("POLICY")?;
        flips.push(Flip {
            what: "every rule taken away",
            node,
            close: Box::new(|maps| maps.swap::<PolicyKey, PolicyEntry>("POLICY", &BTreeMap::new())),
            open: Box::new(move |maps| maps.swap("POLICY", &policy)),
            heir: None,
        });
    }
    let address = Address::from_octets(to.slice_address.context("a member")?.octets());
    let routes = maps_of(lab, "east-1")?.table::<RouteKey, Route>("ROUTES")?;
    let moved = with_block_moved(&routes, address)?;
    flips.push(Flip {
        what: "a block moved to another namespace",
        node: "east-1",
        close: Box::new(move |maps| maps.swap("ROUTES", &moved)),
        open: Box::new(move |maps| maps.swap("ROUTES", &routes)),
        heir: None,
    });
    flips.push(address_given_away(lab, address)?);
    Ok(flips)
}

fn with_block_moved(
    routes: &BTreeMap<Prefixed<RouteKey>, Route>,
    of: Address,
) -> Result<BTreeMap<Prefixed<RouteKey>, Route>> {
    let mut moved = routes.clone();
    let octets = of.octets();
    let block = [octets[0], octets[1], octets[2], octets[3] & !7];
    let route = moved
        .iter_mut()
        .find(|(at, _)| at.key.address.octets() == block)
        .context("the pod's block")?
        .1;
    route.namespace = NamespaceId::from_name(&["kafka", "analytics"]).number();
    Ok(moved)
}

/// A pod is removed, and another of its namespace's node gets the address.
fn address_given_away(lab: &Lab, address: Address) -> Result<Flip> {
    let maps = maps_of(lab, "west-1")?;
    let heir = lab.pod("analytics-0")?;
    let of_heir = Address::from_octets(heir.slice_address.context("a member")?.octets());
    let key = |address| LocalKey {
        table: TableId::HUB.0,
        address,
    };
    let locals = maps.entries::<LocalKey, LocalEndpoint>("LOCAL")?;
    let (own, other) = (locals[&key(address)], locals[&key(of_heir)]);
    // Under the namespace that the rules speak of: this is about the pod, not about the rules.
    let given = LocalEndpoint {
        namespace: own.namespace,
        ..other
    };
    Ok(Flip {
        what: "a pod's address given to another pod",
        node: "west-1",
        close: Box::new(move |maps| maps.put("LOCAL", key(address), given)),
        open: Box::new(move |maps| maps.put("LOCAL", key(address), own)),
        heir: Some("analytics-0"),
    })
}

fn replaced_tables(lab: &Lab) -> Result<()> {
    lab.stop_agents()?;
    let played = replace_under_load(lab);
    lab.start_agents(&agent_file())?;
    played
}

fn replace_under_load(lab: &Lab) -> Result<()> {
    let (from, to) = (lab.pod("kafka-0")?, lab.pod("kafka-1")?);
    let _quiet = QuietPods::of([to.netns.clone()])?;
    let capture = Capture::of_arriving(&to.netns, "eth0")?;
    let books = Books::open(lab)?;
    let load = Load::of(&from, &to)?;
    let received = Cell::new(0);
    let count = || -> Result<()> {
        let frames = capture.take()?;
        let ours = frames.iter().filter_map(|it| stamp_of(&it.bytes));
        received.set(received.get() + ours.count() as u64);
        Ok(())
    };
    load.run(|load| {
        load.flow_on()?;
        for node in ["east-1", "west-1"] {
            let maps = maps_of(lab, node)?;
            let policy = maps.table::<PolicyKey, PolicyEntry>("POLICY")?;
            let routes = maps.table::<RouteKey, Route>("ROUTES")?;
            for _ in 0..REPLACEMENTS / 2 {
                maps.swap("ROUTES", &routes)?;
                maps.swap("POLICY", &policy)?;
                put_in_force(&maps)?;
                count()?;
            }
        }
        load.flow_on()
    })?;
    let sent = load.sent();
    let all = poll_until(LIMIT, || {
        count()?;
        Ok((received.get() >= sent).then_some(()))
    })?;
    let account = books.account(sent, received.get())?;
    say(&format!("{REPLACEMENTS} tables replaced: {account}"));
    Findings {
        packets_unaccounted: Some(account.unaccounted()),
        ..Findings::default()
    }
    .report("replaced-tables")?;
    ensure!(
        account.ours.is_empty() && account.unaccounted() == 0,
        "{account}"
    );
    ensure!(all.is_some() || !account.kernel.is_empty(), "{account}");
    Ok(())
}

/// One thread for each kind of packet, more than there are CPUs; each packet says when it was sent.
pub(crate) struct Load {
    raw: Raw,
    packets: [Vec<u8>; 3],
    sent: [AtomicU64; 3],
    stop: AtomicBool,
}

impl Load {
    pub(crate) fn of(from: &Pod, to: &Pod) -> Result<Self> {
        let to = to.slice_address.context("a member")?.octets();
        let base = || Ipv4::between(from.pod_address.octets(), to).identification(1);
        let payload = [STAMP, &[0; 8]].concat();
        let [udp, data, syn] = PORTS;
        // The stamp comes later; no stack looks at the checksum.
        let udp = Udp::new(udp, 7000)
            .checksum(Checksum::Absent)
            .data(payload.clone());
        let data = Tcp::new(data, 9092).ack().data(payload.clone());
        let syn = Tcp::new(syn, 9092).syn().data(payload);
        Ok(Self {
            raw: Raw::of(&from.netns)?,
            packets: [base().udp(udp), base().tcp(data), base().tcp(syn)].map(|it| it.build()),
            sent: Default::default(),
            stop: AtomicBool::new(false),
        })
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.iter().map(|it| it.load(Ordering::SeqCst)).sum()
    }

    /// Sends until `act` is done.
    pub(crate) fn run<T>(&self, act: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        std::thread::scope(|scope| {
            let send = |kind| move || self.send(kind);
            let threads: Vec<_> = (0..KINDS.len())
                .map(|kind| scope.spawn(send(kind)))
                .collect();
            let done = act(self);
            self.stop.store(true, Ordering::SeqCst);
            for thread in threads {
                thread.join().expect("no panic")?;
            }
            done
        })
    }

    fn send(&self, kind: usize) -> Result<()> {
        let mut packet = self.packets[kind].clone();
        let at = packet.len() - 8;
        let mut port = PORTS[2];
        while !self.stop.load(Ordering::SeqCst) {
            if kind == 2 {
                port = PORTS[2] + (port - PORTS[2] + 1) % 20_000;
                packet[20..22].copy_from_slice(&port.to_be_bytes());
            }
            packet[at..].copy_from_slice(&now_ns()?.to_be_bytes());
            self.raw.send(&packet)?;
            self.sent[kind].fetch_add(1, Ordering::SeqCst);
            let rested = Instant::now();
            while rested.elapsed() < REST {
                std::hint::spin_loop();
            }
        }
        Ok(())
    }

    /// Every kind of packet is sent for a while.
    pub(crate) fn flow_on(&self) -> Result<()> {
        const EACH: u64 = 30;
        let began = Instant::now();
        let wanted = self
            .sent
            .each_ref()
            .map(|it| it.load(Ordering::SeqCst) + EACH);
        let flowed = poll_until(LIMIT, || {
            let mut sent = self.sent.iter().zip(wanted);
            let is_enough = sent.all(|(sent, wanted)| sent.load(Ordering::SeqCst) >= wanted);
            Ok((is_enough && began.elapsed() >= EACH_WAY).then_some(()))
        })?;
        flowed.context("the senders stand still")
    }
}

/// The kind of a packet of the load, and when it was sent.
pub(crate) fn stamp_of(frame: &[u8]) -> Option<(&'static str, u64)> {
    let at = frame.len().checked_sub(STAMP_BYTES)?;
    if !frame[at..].starts_with(STAMP) {
        return None;
    }
    let stamp = frame[at + STAMP.len()..].try_into().ok()?;
    let kind = match (frame[23], frame[47] & 2) {
        (17, _) => 0,
        (_, 0) => 1,
        _ => 2,
    };
    Some((KINDS[kind], u64::from_be_bytes(stamp)))
}

fn now_ns() -> Result<u64> {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}
