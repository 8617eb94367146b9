//! Sent = received + counted, over the whole lab.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use slice_tests::findings::Findings;
use slice_tests::harness::{Scene, say};
use slice_tests::lab::{Lab, Pod};
use slice_tests::live::{Account, Books, Capture, QuietPods, Raw};
use slice_tests::netns::NetNs;
use slice_tests::packet::{Icmp, Ipv4, Tcp, Udp, faults};

pub(crate) const SCENES: &[Scene] = &[
    ("a_packet_that_is_lost_in_silence_is_noticed", silent_loss),
    (
        "every_packet_of_a_mixed_load_is_received_or_counted",
        mixed_load,
    ),
];

const ROUNDS: u64 = 12;
const SENDERS: usize = 3;
/// For packets that are under way, on a busy machine.
const LIMIT: Duration = Duration::from_secs(10);
const OPEN_PORT: u16 = 7000;
const CLOSED_PORT: u16 = 8080;
const ICMP: u8 = 1;
const TAG: &[u8] = b"counted:";
const TAG_BYTES: usize = TAG.len() + 8;

/// A packet to send, by whom and to whom.
struct Sent {
    from: &'static str,
    /// Whose address it is for.
    to: &'static str,
    packet: Vec<u8>,
}

fn mixed_load(lab: &Lab) -> Result<()> {
    let pods = lab.pods()?;
    let load = load_of(&pods)?;
    let _quiet = QuietPods::of(lab.pods()?.into_iter().map(|pod| pod.netns))?;
    let started = Instant::now();
    let (account, wrong) = send_and_account(lab, &pods, &load)?;
    let took = started.elapsed();
    say(&format!(
        "mixed load: {account}; {} wrong; {took:.1?}",
        wrong.len()
    ));
    Findings {
        packets_unaccounted: Some(account.unaccounted()),
        wrong_deliveries: Some(wrong.len() as u64),
        forged_accepted: None,
    }
    .report("mixed-load")?;
    ensure!(wrong.is_empty(), "{:#?}", &wrong[..wrong.len().min(8)]);
    ensure!(
        account.unaccounted() == 0 && account.surplus() == 0,
        "{account}"
    );
    let stray = account
        .kernel
        .keys()
        .find(|place| place.ends_with("CsumErrors"));
    ensure!(stray.is_none(), "wrong checksums: {account}");
    let reasons: BTreeSet<&str> = account
        .ours
        .keys()
        .map(|(_, _, reason)| &reason[..])
        .collect();
    for reason in [
        "policy_denied",
        "other_slice",
        "isolated",
        "fragment",
        "too_big",
    ] {
        ensure!(reasons.contains(reason), "not vacuous: {reason}: {account}");
    }
    ensure!(
        account.received * 4 > account.sent,
        "not vacuous: {account}"
    );
    let refused = account.kernel.contains_key("machine/rt_cache/in_no_route");
    ensure!(refused, "not vacuous: {account}");
    Ok(())
}

fn silent_loss(lab: &Lab) -> Result<()> {
    const SILENT: &str = "table ip silent { chain everything { type filter hook forward priority 0; \
         udp dport 6085 drop; }; }";
    let pods = lab.pods()?;
    let mut load = load_of(&pods)?;
    load.truncate(load.len() / ROUNDS as usize);
    let _quiet = QuietPods::of(lab.pods()?.into_iter().map(|pod| pod.netns))?;
    let wan = NetNs::open("sl-wan")?;
    // Dropped by the packet filter of a router on the way, which counts nowhere.
    let nft = |script: &str| -> Result<()> {
        let output = wan.command("nft").arg(script).output().context("nft")?;
        ensure!(output.status.success(), "nft: {output:?}");
        Ok(())
    };
    nft(SILENT)?;
    let result = send_and_account(lab, &pods, &load);
    nft("delete table ip silent")?;
    let (account, _) = result?;
    ensure!(account.unaccounted() > 0, "{account}");
    Ok(())
}

/// Sends by several threads at once, and waits until all is accounted for. Returns what arrived where it
/// should not, or not sound.
fn send_and_account(lab: &Lab, pods: &[Pod], load: &[Sent]) -> Result<(Account, Vec<String>)> {
    let captures: Vec<(&'static str, Capture)> = pods
        .iter()
        .map(|pod| Ok((pod.name, Capture::of_arriving(&pod.netns, "eth0")?)))
        .collect::<Result<_>>()?;
    let raw: BTreeMap<&str, Raw> = pods
        .iter()
        .map(|pod| Ok((pod.name, Raw::of(&pod.netns)?)))
        .collect::<Result<_>>()?;
    let books = Books::open(lab)?;
    std::thread::scope(|scope| {
        let share = load.len().div_ceil(SENDERS);
        let send = |part: &[Sent]| {
            let mut all = part.iter();
            all.try_for_each(|sent| raw[sent.from].send(&sent.packet).context(sent.from))
        };
        let threads: Vec<_> = load
            .chunks(share)
            .map(|part| scope.spawn(move || send(part)))
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("no panic"))
    })?;
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    let deadline = Instant::now() + LIMIT;
    loop {
        for (pod, capture) in &captures {
            for frame in capture.take()? {
                look_at(pod, &frame.bytes, load, &mut seen, &mut wrong);
            }
        }
        let account = books.account(load.len() as u64, seen.len() as u64)?;
        if account.unaccounted() == 0 || Instant::now() > deadline {
            return Ok((account, wrong));
        }
    }
}

fn look_at(
    pod: &str,
    frame: &[u8],
    load: &[Sent],
    seen: &mut BTreeSet<usize>,
    wrong: &mut Vec<String>,
) {
    let Some(number) = tag_of(frame) else {
        return;
    };
    let faults = faults(frame);
    let sent = &load[number];
    if sent.to != pod || !faults.is_empty() || !seen.insert(number) {
        wrong.push(format!(
            "{pod} got {number} from {} to {}: {faults:?}",
            sent.from, sent.to
        ));
    }
}

/// The number of a packet of the load; errors that quote one have none.
fn tag_of(frame: &[u8]) -> Option<usize> {
    let is_error = frame.get(23) == Some(&ICMP) && matches!(frame.get(34), Some(3 | 11 | 12));
    let at = frame.windows(TAG.len()).rposition(|window| window == TAG)?;
    let number = frame.get(at + TAG.len()..at + TAG_BYTES)?;
    let number = u64::from_be_bytes(number.try_into().ok()?);
    (!is_error).then_some(number as usize)
}

/// Every pod to every other that it has a way to: by slice address, in its slice and in others, and in
/// its cluster by pod address; each in every manner.
fn load_of(pods: &[Pod]) -> Result<Vec<Sent>> {
    let mut load: Vec<Sent> = Vec::new();
    for _ in 0..ROUNDS {
        for from in pods {
            for to in pods {
                let has_way = from.cluster == to.cluster && from.pod_address != to.pod_address;
                let by_pod_address = has_way.then_some(to.pod_address);
                for address in to.slice_address.into_iter().chain(by_pod_address) {
                    add_all_manners(&mut load, from, to.name, address);
                }
            }
        }
    }
    ensure!(load.len() > 10_000, "not vacuous: {} packets", load.len());
    Ok(load)
}

fn add_all_manners(load: &mut Vec<Sent>, from: &Pod, to: &'static str, address: Ipv4Addr) {
    let tag = |number: usize, bytes: usize| {
        let mut payload = vec![0x2e; bytes];
        payload.extend(TAG);
        payload.extend((number as u64).to_be_bytes());
        payload
    };
    // None is 0, which the kernel would replace.
    let identification = (load.len() % 60_000) as u16 + 1;
    let base = || {
        Ipv4::between(from.pod_address.octets(), address.octets()).identification(identification)
    };
    let first = load.len();
    let udp = |at: usize, port: u16, bytes: usize| {
        let number = first + at;
        base().udp(Udp::new(OPEN_PORT, port).data(tag(number, bytes)))
    };
    let tcp = |at: usize, segment: Tcp| base().tcp(segment.data(tag(first + at, 0)));
    let packets = [
        udp(0, OPEN_PORT, 0),
        udp(1, CLOSED_PORT, 33),
        // No path between nodes carries it with the tunnel's headers on.
        udp(2, OPEN_PORT, 1430),
        tcp(3, Tcp::new(40_000, 9092).syn()),
        tcp(4, Tcp::new(40_000, 9092).ack()),
        tcp(5, Tcp::new(40_000, CLOSED_PORT).ack()),
        tcp(6, Tcp::new(9092, 40_000).syn().ack()),
        base().icmp(Icmp::echo_request(9, 1).data(tag(first + 7, 5))),
        base().icmp(Icmp::echo_reply(10, 1).data(tag(first + 8, 5))),
        // In two parts, and a part without its first.
        base()
            .fragment(0, true)
            .raw(17, first_part(tag(first + 9, 0))),
        base().fragment(24, false).raw(17, tag(first + 10, 1)),
        base()
            .identification(identification.wrapping_add(1) | 0x8000)
            .fragment(48, false)
            .raw(6, tag(first + 11, 2)),
    ];
    load.extend(packets.iter().map(|packet| Sent {
        from: from.name,
        to,
        packet: packet.build(),
    }));
}

/// A UDP header of 41 bytes in all, without a checksum, and the first 16 of them behind it.
fn first_part(tag: Vec<u8>) -> Vec<u8> {
    let mut part = [OPEN_PORT.to_be_bytes(), OPEN_PORT.to_be_bytes()].concat();
    part.extend([0, 41, 0, 0]);
    part.extend(tag);
    part
}
