//! A wide path dies, a narrow one takes over, and back.

use std::net::UdpSocket;

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{getsockopt, sockopt};
use slice_agent::observe::counters;
use slice_tests::bench::bed::ground::Ground;
use slice_tests::child::poll_until;
use slice_tests::gateways::{Gateways, Plan};
use slice_tests::harness::{agent_file, say};
use slice_tests::lab::KernelDrops;
use slice_tests::live::{Mailbox, forget_widths, set_mtu_discovery};
use slice_tests::place::Place;
use slice_tests::traffic::tcp::{self, TcpOptions};

use crate::{LIMIT, WAIT, meet};

const WIDE_BYTES: u32 = 9000;
const NARROW_BYTES: u32 = 1400;
const TUNNEL_BYTES: u32 = 50;
const IPV4_AND_UDP_BYTES: u32 = 28;
/// Of IPv4 and TCP, without options.
const HEADERS_BYTES: u32 = 40;
const UDP_PORT: u16 = 7003;
const TCP_PORT: u16 = 7004;
const ENOUGH_BYTES: u64 = 4 << 20;
/// Noticed after 0.3 s; what was under way is sent again, first too large, then as its sender was told.
const STALL_MS_MAX: f64 = 5000.0;
/// Behind the first, the member itself takes another path; behind the second its gateway does, of which the
/// member knows nothing.
const VICTIMS: [&str; 2] = ["east-gw-1", "west-gw-1"];

pub(crate) fn take_over() -> Result<()> {
    let ground = Ground::take(WAIT)?;
    let plan = Plan::wide_and_narrow(WIDE_BYTES, NARROW_BYTES);
    let gateways = Gateways::build(&ground, plan, &agent_file())?;
    gateways.wait_until_paths_are_steady()?;
    let [east, west] = ["east-1", "west-1"].map(|name| gateways.node(name)?.pod());
    let (east, west) = (east?, west?);
    meet(&east, &west)?;
    for victim in VICTIMS {
        for (from, to) in [(&east, &west), (&west, &east)] {
            fail_and_return(&gateways, victim, from, to)
                .with_context(|| format!("{victim} dies, {} sends", from.name))?;
        }
    }
    Ok(())
}

/// A machine that is busy for a third of a second sends traffic the narrow way for a second, and stacks remember that.
fn wait_until_wide(from: &Place, to: &Place) -> Result<()> {
    let wide = poll_until(3 * LIMIT, || {
        for pod in [from, to] {
            forget_widths(&pod.netns)?;
        }
        Ok(carries(from, to, WIDE_BYTES).is_ok().then_some(()))
    })?;
    wide.context("the wide path is not taken")
}

fn fail_and_return(gateways: &Gateways, victim: &str, from: &Place, to: &Place) -> Result<()> {
    let options = TcpOptions {
        port: TCP_PORT,
        rate_bps: Some(100_000_000),
        ..TcpOptions::default()
    };
    wait_until_wide(from, to)?;
    let stream = tcp::start(from, to, &options)?;
    stream
        .wait_for_more(ENOUGH_BYTES, LIMIT)
        .context("before")?;
    carries(from, to, WIDE_BYTES).context("before")?;
    sends_segments(from, |mss| mss > NARROW_BYTES).context("not vacuous")?;

    let router = gateways.router.namespace();
    let before = KernelDrops::of([router])?;
    gateways.node(victim)?.set_link(false)?;
    let narrow = stream
        .wait_for_more(ENOUGH_BYTES, LIMIT)
        .with_context(|| format!("over the narrow path; dropped: {:?}", dropped(gateways)))
        .and_then(|()| carries(from, to, NARROW_BYTES).context("over the narrow path"))
        .and_then(|()| {
            let fits = NARROW_BYTES - TUNNEL_BYTES - HEADERS_BYTES;
            sends_segments(from, |mss| mss <= fits)
        });
    let too_big = KernelDrops::of([router])?.since(&before);
    gateways.node(victim)?.set_link(true)?;
    let plan = gateways.plan.node(victim).context("the victim")?;
    gateways.router.wait_for(plan)?;
    gateways.wait_until_paths_are_steady()?;
    narrow?;
    let of_parts = |name: &&String| name.ends_with("/Ip.FragFails");
    ensure!(
        too_big.counters.keys().find(of_parts).is_none(),
        "the router got what does not fit: {too_big:?}"
    );

    // A stack remembers for ten minutes what it was told.
    [from, to]
        .iter()
        .try_for_each(|pod| forget_widths(&pod.netns))?;
    carries(from, to, WIDE_BYTES).context("afterwards")?;
    stream
        .wait_for_more(ENOUGH_BYTES, LIMIT)
        .context("afterwards")?;
    sends_segments(from, |mss| mss > NARROW_BYTES).context("afterwards")?;
    let report = stream.stop()?;
    say(&format!(
        "{victim} dies while {} sends: longest stall {:.0} ms",
        from.name, report.longest_stall_ms
    ));
    ensure!(report.is_whole(), "{report:?}");
    ensure!(report.longest_stall_ms < STALL_MS_MAX, "{report:?}");
    Ok(())
}

/// By node and reason, so far.
fn dropped(gateways: &Gateways) -> Result<Vec<(&str, u32, u64)>> {
    let mut all = Vec::new();
    for node in &gateways.nodes {
        let drops = counters::drops(&node.maps())?;
        all.extend(
            drops
                .iter()
                .map(|(key, count)| (node.name, key.reason, *count)),
        );
    }
    Ok(all)
}

/// Datagrams that must not be cut get through up to what a path of this width carries, and the sender of
/// a larger one is told.
fn carries(from: &Place, to: &Place, path_bytes: u32) -> Result<()> {
    let fits = path_bytes - TUNNEL_BYTES;
    let at_far = Mailbox::open(&to.netns, UDP_PORT)?;
    let socket = from.netns.enter(|| UdpSocket::bind("0.0.0.0:0"))??;
    set_mtu_discovery(&socket, libc::IP_PMTUDISC_DO)?;
    socket.connect((to.address, UDP_PORT))?;
    let larger = vec![0x11; (fits - IPV4_AND_UDP_BYTES + 1) as usize];
    let mut known = 0;
    let told = poll_until(LIMIT, || {
        // Refused by the pod's own stack, once that knows.
        let _refused = socket.send(&larger);
        known = getsockopt(&socket, sockopt::IpMtu)?.cast_unsigned();
        Ok((known == fits).then_some(()))
    })?;
    told.with_context(|| format!("the sender believes in {known} bytes, not {fits}"))?;
    let _told = socket.take_error()?;
    let refused = socket.send(&larger).map_err(|error| error.raw_os_error());
    ensure!(refused == Err(Some(libc::EMSGSIZE)), "{refused:?}");
    let largest = &larger[1..];
    let arrived = poll_until(LIMIT, || {
        // It may yet hear of an earlier one.
        let _sent = socket.send(largest);
        Ok((!at_far.is_empty()?).then_some(()))
    })?;
    arrived.with_context(|| format!("{} bytes do not arrive", largest.len()))?;
    let (_, payload) = at_far.receive()?;
    ensure!(payload == largest, "{} bytes arrived", payload.len());
    Ok(())
}

/// Waits until the stream's sender cuts its segments so, by its own stack.
fn sends_segments(from: &Place, fits: impl Fn(u32) -> bool) -> Result<()> {
    let mut seen = String::new();
    let cut = poll_until(LIMIT, || {
        let port = format!(":{TCP_PORT}");
        let mut command = from.netns.command("ss");
        command.args(["-tinH", "dport", "=", &port]);
        seen = String::from_utf8(command.output()?.stdout)?;
        let words = seen.split_whitespace();
        let mss = words.filter_map(|word| word.strip_prefix("mss:")?.parse().ok());
        Ok(mss.into_iter().any(&fits).then_some(()))
    })?;
    cut.with_context(|| format!("segments of another size: {seen}"))
}
