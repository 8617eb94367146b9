//! An underlay that turns out to be narrower than anybody configured.

use std::fs;
use std::net::{SocketAddrV4, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{getsockopt, sockopt};
use slice_tests::child::poll_until;
use slice_tests::harness::Scene;
use slice_tests::lab::{Lab, Pod};
use slice_tests::live::{Mailbox, expect_drops, forget_widths, set_mtu_discovery, without_offload};
use slice_tests::traffic::tcp::{self, TcpOptions};

use crate::{OPEN_PORT, pods, same, slice_address};

pub(crate) const SCENES: &[Scene] = &[(
    "streams_go_on_and_senders_are_told_when_the_underlay_narrows",
    narrow_underlay,
)];

const WIDE_BYTES: u32 = 1500;
const NARROW_BYTES: u32 = 1400;
const ENOUGH_BYTES: u64 = 2 << 20;
const LIMIT: Duration = Duration::from_secs(20);

fn narrow_underlay(lab: &Lab) -> Result<()> {
    narrow_and_widen(lab).context("with offload")?;
    without_offload(|| narrow_and_widen(lab)).context("without offload")
}

fn narrow_and_widen(lab: &Lab) -> Result<()> {
    let [kafka_0, kafka_1] = pods(lab, ["kafka-0", "kafka-1"])?;
    forget_widths(&kafka_0.netns)?;
    let options = TcpOptions {
        port: OPEN_PORT + 1,
        rate_bps: Some(100_000_000),
        ..TcpOptions::default()
    };
    let stream = tcp::start(&kafka_0.place()?, &kafka_1.place()?, &options)?;
    stream
        .wait_for_more(ENOUGH_BYTES, LIMIT)
        .context("before")?;
    lab.set_wan_mtu("east", NARROW_BYTES)?;
    let narrow = stream
        .wait_for_more(ENOUGH_BYTES, LIMIT)
        .context("the stream over the narrow underlay")
        .and_then(|()| path_is(lab, NARROW_BYTES))
        .and_then(|()| datagram_sender_is_told(lab, &kafka_0, &kafka_1));
    lab.set_wan_mtu("east", WIDE_BYTES)?;
    narrow?;
    forget(lab)?;
    stream
        .wait_for_more(ENOUGH_BYTES, LIMIT)
        .context("afterwards")?;
    let report = stream.stop()?;
    ensure!(report.is_whole(), "{report:?}");
    Ok(())
}

/// One byte less than 1400 bytes and the tunnel's 50 is told by our node, not by the router.
fn datagram_sender_is_told(lab: &Lab, from: &Pod, to: &Pod) -> Result<()> {
    let at_far = Mailbox::open(&to.netns, OPEN_PORT)?;
    let socket = from.netns.enter(|| UdpSocket::bind("0.0.0.0:0"))??;
    set_mtu_discovery(&socket, libc::IP_PMTUDISC_DO)?;
    socket.connect(SocketAddrV4::new(slice_address(to)?, OPEN_PORT))?;
    // The stream has told the pod already: its stack refuses by itself.
    let told = poll_until(LIMIT, || {
        let _refused_or_answered = socket.send(&[0x5a; 1323]);
        let mtu_bytes = getsockopt(&socket, sockopt::IpMtu)?;
        Ok((mtu_bytes == 1350).then_some(()))
    })?;
    ensure!(
        told.is_some(),
        "path MTU of the socket: {}",
        getsockopt(&socket, sockopt::IpMtu)?
    );
    let _told = socket.take_error()?;
    expect_drops(lab, &[], || {
        socket.send(&[0x5a; 1322])?;
        same("arrived", &at_far.receive()?.1.len(), &1322)
    })
}

/// A change of the path's configuration ends what was learnt of it.
fn forget(lab: &Lab) -> Result<()> {
    let node = lab.node("east-1")?;
    let first = fs::read_to_string(&node.config)?;
    let replace = |text: &str| -> Result<()> {
        let aside = node.config.with_extension("next");
        fs::write(&aside, text)?;
        Ok(fs::rename(aside, &node.config)?)
    };
    let changed = first.replacen("name: west-1\n", "name: west-1\n  mtu: 1499\n", 1);
    ensure!(changed != first, "not vacuous: the path changes");
    replace(&changed)?;
    let changed = path_is(lab, WIDE_BYTES - 1);
    replace(&first)?;
    changed?;
    path_is(lab, WIDE_BYTES)
}

fn path_is(lab: &Lab, bytes: u32) -> Result<()> {
    let labels = [("node", "east-1"), ("path", "west/west-1")];
    let mut last = 0.0;
    let done = poll_until(LIMIT, || {
        last = lab.counters()?.sum("sliceplane_path_mtu_bytes", &labels);
        Ok((last == f64::from(bytes)).then_some(()))
    })?;
    done.with_context(|| format!("the path from east-1 to west-1 takes {last} bytes, not {bytes}"))
}
