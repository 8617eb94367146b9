//! The WAN between the clusters as a program: packets enter and leave by TUN devices and pass a
//! queue model in between. It needs no queueing discipline of the kernel, so it runs anywhere.

mod control;
mod model;
mod order;
mod settings;
mod stats;
mod tun;

use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use crate::lab::inventory::{CLUSTERS, cluster_of};
use crate::netns::NetNs;
use crate::traffic::{be_punctual, now_ns};
use control::{Answer, ControlServer, Request};
use model::WanModel;
use order::{Order, OrderMeter};
use stats::LatenessMeter;
use tun::Tun;

pub use control::RelayClient;
pub use settings::{PathSettings, Rate, SITES, Settings, UplinkSettings, WanFlags};
pub use stats::{DirectionStats, RelayStats, SecondStats};

/// Packets taken from one device before the others and the due ones get their turn.
const RECEIVE_BATCH: usize = 64;
const LARGEST_PACKET_BYTES: usize = 65_536;
const SHORTEST_IPV4_BYTES: usize = 20;
const SECOND: Duration = Duration::from_secs(1);

/// Carries packets between the fabrics until it is ended
#[derive(Clone, Debug, clap::Args)]
pub struct RelayArgs {
    /// Where to listen for changes and questions
    #[arg(long, value_name = "PATH")]
    pub socket: PathBuf,
    #[command(flatten)]
    pub wan: WanFlags,
}

/// Runs the relay in the calling thread; it ends with the process.
pub fn run(args: &RelayArgs) -> Result<()> {
    let mut settings = Settings::default();
    args.wan.apply(&mut settings, None, None);
    let open = |namespace: String| Tun::create(&NetNs::open(&namespace)?, "wan0");
    let tuns: Vec<Tun> = CLUSTERS
        .iter()
        .map(|cluster| open(cluster.fabric_namespace()))
        .collect::<Result<_>>()?;
    // The control thread starts first, so that it stays at ordinary priority.
    let control = ControlServer::start(&args.socket)?;
    let mut relay = Relay::new(tuns, settings);
    relay.stats.realtime = be_punctual();
    relay.run(&control)
}

struct Relay {
    tuns: Vec<Tun>,
    model: WanModel,
    settings: Settings,
    stats: RelayStats,
    lateness: LatenessMeter,
    order: OrderMeter,
    started: Instant,
    second_ends_ns: u64,
    buffer: Vec<u8>,
}

impl Relay {
    fn new(tuns: Vec<Tun>, settings: Settings) -> Self {
        Self {
            tuns,
            model: WanModel::new(settings.clone()),
            settings,
            stats: RelayStats::default(),
            lateness: LatenessMeter::default(),
            order: OrderMeter::default(),
            started: Instant::now(),
            second_ends_ns: SECOND.as_nanos() as u64,
            buffer: vec![0; LARGEST_PACKET_BYTES],
        }
    }

    fn run(&mut self, control: &ControlServer) -> Result<()> {
        loop {
            let ready = self.wait(control)?;
            if ready.control {
                control.answer_all(|request| self.answer(request));
            }
            for site in 0..self.tuns.len() {
                if ready.sites[site] {
                    self.receive_from(site)?;
                }
                // Between the devices, so that a busy one does not make the others' packets late.
                self.send_due();
            }
            self.close_second();
        }
    }

    /// Sleeps until a packet comes, one is due, someone asks, or the second is over.
    fn wait(&self, control: &ControlServer) -> Result<Ready> {
        let next_ns = self
            .model
            .next_due_ns()
            .unwrap_or(u64::MAX)
            .min(self.second_ends_ns);
        let timeout = Duration::from_nanos(next_ns.saturating_sub(self.now_ns()));
        let wake = control.wake_fd();
        let mut polled: Vec<PollFd<'_>> = self
            .tuns
            .iter()
            .map(|tun| PollFd::new(tun.as_fd(), PollFlags::POLLIN))
            .collect();
        polled.push(PollFd::new(wake.as_fd(), PollFlags::POLLIN));
        match ppoll(&mut polled, Some(TimeSpec::from_duration(timeout)), None) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error).context("ppoll"),
        }
        let is_ready = |it: &PollFd<'_>| it.any().unwrap_or(false);
        let mut ready = Ready {
            control: is_ready(&polled[self.tuns.len()]),
            sites: [false; SITES],
        };
        for (site, polled) in ready.sites.iter_mut().zip(&polled) {
            *site = is_ready(polled);
        }
        Ok(ready)
    }

    fn receive_from(&mut self, from: usize) -> Result<()> {
        for _ in 0..RECEIVE_BATCH {
            let received = self.tuns[from].receive(&mut self.buffer);
            let site = CLUSTERS[from].name;
            let Some(length) = received.with_context(|| format!("read from {site}'s wan0"))? else {
                break;
            };
            let packet = &self.buffer[..length];
            let Some(to) = destination(packet) else {
                self.stats.drops_no_destination += 1;
                continue;
            };
            let direction = &mut self.stats.directions[from][to];
            direction.packets_in += 1;
            if let Some(order) = self.order.judge(packet) {
                direction.tcp_packets += 1;
                direction.tcp_overtaken += u64::from(order == Order::Overtaken);
            }
            let now_ns = self.now_ns();
            if let Err(reason) = self.model.arrive(now_ns, from, to, packet.to_vec()) {
                self.stats.count_drop([from, to], length, reason);
            }
        }
        Ok(())
    }

    fn send_due(&mut self) {
        while let Some(departure) = self.model.depart(self.now_ns()) {
            if self.tuns[departure.to].send(&departure.packet).is_err() {
                self.stats.drops_write_failed += 1;
                continue;
            }
            self.lateness
                .add(self.now_ns().saturating_sub(departure.due_ns));
            let direction = &mut self.stats.directions[departure.from][departure.to];
            direction.packets_out += 1;
            direction.bytes_out += departure.packet.len() as u64;
        }
    }

    fn close_second(&mut self) {
        let now_ns = self.now_ns();
        if now_ns >= self.second_ends_ns {
            self.lateness
                .end_second(now_ns / 1_000_000, &mut self.stats.seconds);
            self.second_ends_ns = now_ns + SECOND.as_nanos() as u64;
        }
    }

    fn answer(&mut self, request: Request) -> Answer {
        match request {
            Request::Get => {}
            Request::Set(settings) => {
                self.settings = *settings;
                self.model.reconfigure(self.settings.clone());
            }
            Request::Stats => {
                // The current second counts as well: a short run may lie within it.
                self.second_ends_ns = self.now_ns();
                self.close_second();
                self.stats.uptime_ms = self.now_ns() / 1_000_000;
                self.stats.at_ns = now_ns();
                return Answer::Stats(Box::new(self.stats.clone()));
            }
        }
        Answer::Settings(Box::new(self.settings.clone()))
    }

    fn now_ns(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }
}

struct Ready {
    control: bool,
    sites: [bool; SITES],
}

/// The site that an IPv4 packet's destination address belongs to.
fn destination(packet: &[u8]) -> Option<usize> {
    if packet.len() < SHORTEST_IPV4_BYTES || packet[0] >> 4 != 4 {
        return None;
    }
    let octets: [u8; 4] = packet[16..20].try_into().ok()?;
    cluster_of(Ipv4Addr::from(octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ipv4_to_a_known_site_is_carried() {
        let mut packet = vec![0; 20];
        packet[0] = 0x45;
        packet[16..].copy_from_slice(&[172, 20, 2, 11]);
        assert_eq!(destination(&packet), Some(1));
        packet[16..].copy_from_slice(&[10, 1, 1, 10]);
        assert_eq!(destination(&packet), None, "overlapping: nobody's");
        packet[16..].copy_from_slice(&[10, 203, 1, 10]);
        assert_eq!(destination(&packet), Some(2));
        packet[0] = 0x60;
        assert_eq!(destination(&packet), None, "IPv6");
        assert_eq!(destination(&packet[..19]), None, "cut");
    }
}
