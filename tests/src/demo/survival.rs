//! Every agent dies in mid-transfer and comes back.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::kafka::{Exchange, Stretched};
use crate::kafka::Delivery;
use crate::lab::Lab;
use crate::traffic::tcp::{TcpOptions, TcpReport};
use crate::traffic::udp::{UdpOptions, UdpReport};
use crate::traffic::{tcp, udp};

/// What must be under way before the agents die.
const WARM_UP_PACKETS: u64 = 10_000;
const WARM_UP_BYTES: u64 = 1_000_000;
const WARM_UP_RECORDS: u64 = 200;
const RECORDS_PER_SECOND: u64 = 500;
const LIMIT: Duration = Duration::from_secs(60);

/// What ran while the agents were dead.
pub struct Survival {
    pub dead: Duration,
    pub udp: UdpReport,
    pub tcp: TcpReport,
    pub kafka: Option<Delivery>,
}

/// Kills every agent with SIGKILL, leaves them dead for `dead_for`, starts them again; meanwhile UDP
/// both ways between two clusters, a TCP stream between two others, and Kafka if it runs.
pub fn run(
    lab: &Lab,
    mut stretched: Option<&mut Stretched>,
    agent: &Path,
    dead_for: Duration,
) -> Result<Survival> {
    let exchange = match stretched.as_mut() {
        Some(stretched) => Some(stretched.begin(lab, None, Some(RECORDS_PER_SECOND))?),
        None => None,
    };
    let udp_options = UdpOptions {
        packets_per_second: 5000,
        ..UdpOptions::default()
    };
    let udp = udp::start(
        &lab.pod("kafka-0")?.place()?,
        &lab.pod("kafka-1")?.place()?,
        &udp_options,
    )?;
    let tcp_options = TcpOptions::default();
    let tcp = tcp::start(
        &lab.pod("kafka-2")?.place()?,
        &lab.pod("kafka-0")?.place()?,
        &tcp_options,
    )?;
    let mut loads = Loads { udp, tcp, exchange };
    loads.wait_until_they_flow()?;

    lab.kill_agents()?;
    let died = Instant::now();
    loads.wait_out(died + dead_for)?;
    lab.start_agents(agent)?;
    let dead = died.elapsed();
    // What the new agents do to traffic, they do now.
    let marks = loads.marks();
    loads.wait_until_beyond(marks)?;
    loads.stop(dead)
}

struct Loads {
    udp: udp::UdpLoad,
    tcp: tcp::TcpLoad,
    exchange: Option<Exchange>,
}

impl Loads {
    fn marks(&self) -> [u64; 3] {
        let records = self.exchange.as_ref().map_or(0, Exchange::acknowledged);
        [self.udp.received(), self.tcp.verified_bytes(), records]
    }

    fn wait_until_they_flow(&mut self) -> Result<()> {
        self.wait_until_beyond([0, 0, 0])
    }

    /// Each load has done its warm-up's worth since `marks`.
    fn wait_until_beyond(&mut self, marks: [u64; 3]) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let now = self.marks();
            let kafka = self.exchange.is_none() || now[2] >= marks[2] + WARM_UP_RECORDS;
            let flows =
                now[0] >= marks[0] + WARM_UP_PACKETS && now[1] >= marks[1] + WARM_UP_BYTES && kafka;
            if flows {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "traffic stalls: {} packets, {} bytes, {} records, after {marks:?}",
                now[0],
                now[1],
                now[2]
            );
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// Time itself is the condition here: the agents have to be dead for so long.
    fn wait_out(&self, until: Instant) -> Result<()> {
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            std::thread::park_timeout(left.min(Duration::from_millis(100)));
            ensure!(
                !self.tcp.has_ended(),
                "the TCP stream broke while the agents were dead"
            );
        }
        Ok(())
    }

    fn stop(self, dead: Duration) -> Result<Survival> {
        let kafka = match self.exchange {
            Some(exchange) => Some(exchange.stop(LIMIT)?.2),
            None => None,
        };
        Ok(Survival {
            dead,
            udp: self.udp.stop()?,
            tcp: self.tcp.stop()?,
            kafka,
        })
    }
}
