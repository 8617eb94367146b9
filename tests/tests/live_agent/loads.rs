//! Traffic of every kind while something is done to the nodes.

use anyhow::{Context, Result};
use slice_tests::child::poll_until;
use slice_tests::harness::say;
use slice_tests::lab::{KernelDrops, Lab};
use slice_tests::traffic::{tcp, udp};

use super::LIMIT;

const PACKETS_PER_SECOND: u64 = 5000;
/// A second's worth of both directions.
const PACKETS_BETWEEN_STEPS: u64 = 2 * PACKETS_PER_SECOND;
const BYTES_BETWEEN_STEPS: u64 = 1_000_000;

/// UDP both ways between `kafka-0` in east and `kafka-1` in west, TCP from `kafka-2` in edge.
pub(crate) struct Loads<'a> {
    lab: &'a Lab,
    drops: KernelDrops,
    udp: udp::UdpLoad,
    tcp: tcp::TcpLoad,
}

impl<'a> Loads<'a> {
    pub(crate) fn start(lab: &'a Lab) -> Result<Self> {
        let place = |name| lab.pod(name)?.place();
        let options = udp::UdpOptions {
            packets_per_second: PACKETS_PER_SECOND,
            ..udp::UdpOptions::default()
        };
        Ok(Self {
            lab,
            drops: lab.kernel_drops()?,
            udp: udp::start(&place("kafka-0")?, &place("kafka-1")?, &options)?,
            tcp: tcp::start(
                &place("kafka-2")?,
                &place("kafka-0")?,
                &tcp::TcpOptions::default(),
            )?,
        })
    }

    /// What was just done to the nodes meets so many more packets and bytes.
    pub(crate) fn flow_on(&self) -> Result<()> {
        let packets = self.udp.received() + PACKETS_BETWEEN_STEPS;
        let bytes = self.tcp.verified_bytes() + BYTES_BETWEEN_STEPS;
        let flowed = poll_until(LIMIT, || {
            let now = (self.udp.received(), self.tcp.verified_bytes());
            Ok((now.0 >= packets && now.1 >= bytes).then_some(()))
        })?;
        flowed.context("traffic stalls")
    }

    pub(crate) fn end_unharmed(self, scene: &str) -> Result<()> {
        let (udp, tcp) = (self.udp.stop()?, self.tcp.stop()?);
        judge(scene, self.lab, &self.drops, &udp, &tcp)
    }
}

pub(crate) fn judge(
    scene: &str,
    lab: &Lab,
    before: &KernelDrops,
    udp: &udp::UdpReport,
    tcp: &tcp::TcpReport,
) -> Result<()> {
    let silence = udp.directions.iter().map(|it| it.longest_silence_ms);
    say(&format!(
        "{scene}: {} of {} packets lost in {:.1} s, longest silence {:.0} ms; TCP {} bytes, \
         {} resets, longest stall {:.0} ms",
        udp.lost(),
        udp.sent(),
        udp.elapsed_ms / 1e3,
        silence.fold(0.0, f64::max),
        tcp.bytes_verified,
        tcp.resets,
        tcp.longest_stall_ms
    ));
    let drops = lab.kernel_drops()?.since(before);
    assert_eq!(udp.lost(), 0, "{udp:#?}\nthe kernels' own drops: {drops:?}");
    let duplicates = udp.directions.iter().map(|it| it.duplicates);
    assert_eq!(duplicates.sum::<u64>(), 0, "{udp:#?}");
    assert!(
        tcp.is_whole(),
        "{tcp:#?}\nthe kernels' own drops: {drops:?}"
    );
    Ok(())
}
