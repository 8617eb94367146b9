//! Datagrams in parts, in every order and shape, before a stack that puts them together; and datagrams
//! without a checksum.

use anyhow::{Context, Result, ensure};
use slice_tests::child::poll_until;
use slice_tests::harness::Scene;
use slice_tests::lab::Lab;
use slice_tests::live::{Mailbox, expect_drops, inject, without_offload};
use slice_tests::packet::{Checksum, Ipv4, Udp};

pub(crate) const SCENES: &[Scene] = &[
    (
        "parts_pass_behind_their_first_and_never_over_its_header",
        shapes,
    ),
    ("a_datagram_without_a_checksum_stays_without", no_checksum),
];

const PORT: u16 = 7000;
const UDP: u8 = 17;
const TCP: u8 = 6;
/// With the header of UDP.
const DATAGRAM_BYTES: usize = 48;

/// A part: where it begins, how long it is, and whether more follow.
type Part = (usize, usize, bool);

fn shapes(lab: &Lab) -> Result<()> {
    let (from, to) = (lab.pod("kafka-0")?, lab.pod("kafka-1")?);
    let address = to.slice_address.context("a member")?.octets();
    let mailbox = Mailbox::open(&to.netns, PORT)?;
    let datagram = datagram();
    let mut identification = 0x5100;
    let mut send = |protocol, parts: &[Part]| -> Result<()> {
        identification += 1;
        for (at, bytes, more) in parts {
            let part = Ipv4::between(from.pod_address.octets(), address)
                .identification(identification)
                .fragment(*at as u16, *more)
                .raw(protocol, datagram[*at..at + bytes].to_vec());
            inject(&from.netns, &part.build())?;
        }
        Ok(())
    };
    let lost = [("east-1", "kafka", "fragment", 1)];
    let two: [Part; 2] = [(0, 24, true), (24, 24, false)];
    expect_drops(lab, &[], || send(UDP, &two))?;
    ensure!(mailbox.receive()?.1 == datagram[8..], "in order");
    let three: [Part; 3] = [(0, 8, true), (8, 16, true), (24, 24, false)];
    expect_drops(lab, &[], || send(UDP, &three))?;
    ensure!(
        mailbox.receive()?.1 == datagram[8..],
        "a first of a header only"
    );
    // A part that overtakes the first is lost, and with it the datagram.
    expect_drops(lab, &lost, || send(UDP, &[two[1], two[0]]))?;
    expect_drops(lab, &lost, || send(UDP, &[two[1]])).context("without a first")?;
    let denied: [Part; 1] = [(0, 4, true)];
    let malformed = [("east-1", "kafka", "malformed", 1)];
    expect_drops(lab, &malformed, || send(UDP, &denied)).context("a first that is too short")?;
    expect_drops(lab, &malformed, || send(TCP, &[(0, 16, true)]))
        .context("TCP without its flags")?;
    // Parts that overlap the data are the stack's to refuse, and it does: they could say two things.
    let before = lab.kernel_drops()?;
    expect_drops(lab, &[], || {
        send(UDP, &[(0, 32, true), (16, 24, true), (40, 8, false)])
    })?;
    let refused = poll_until(std::time::Duration::from_secs(5), || {
        let drops = lab.kernel_drops()?.since(&before);
        let failed = drops.counters.get("sl-pod-kafka-1/Ip.ReasmFails");
        Ok(failed.copied())
    })?;
    ensure!(refused.is_some(), "parts that overlap were put together");
    ensure!(mailbox.is_empty()?, "what is not whole arrived");
    Ok(())
}

/// To port 7000; 40 bytes that differ.
fn datagram() -> Vec<u8> {
    let mut datagram = [PORT.to_be_bytes(), PORT.to_be_bytes()].concat();
    datagram.extend((DATAGRAM_BYTES as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend((0..40).map(|at| at + 1));
    datagram
}

fn no_checksum(lab: &Lab) -> Result<()> {
    without_offload(|| {
        for (from, to) in [
            ("kafka-0", "kafka-1"),
            ("kafka-2", "kafka-0"),
            ("kafka-0", "kafka-0"),
        ] {
            let (from, to) = (lab.pod(from)?, lab.pod(to)?);
            let address = to.slice_address.context("a member")?.octets();
            let mailbox = Mailbox::open(&to.netns, PORT)?;
            for (checksum, text) in [(Checksum::Absent, "without"), (Checksum::Right, "with")] {
                let datagram = Udp::new(7005, PORT).checksum(checksum).data(text);
                let packet = Ipv4::between(from.pod_address.octets(), address);
                inject(&from.netns, &packet.identification(1).udp(datagram).build())?;
                ensure!(mailbox.receive()?.1 == text.as_bytes(), "{text}");
            }
        }
        Ok(())
    })
}
