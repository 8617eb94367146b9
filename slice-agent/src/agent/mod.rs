//! The run loop: keeps the kernel as the configuration wants it.

pub mod config;
mod meter;
mod path_mtu;
mod prober;
mod reconcile;
pub mod schedule;
pub mod status;
pub mod uninstall;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::Receiver;
use tokio::time::{MissedTickBehavior, interval};

use crate::apply::lock::{Lock, PinsLock};
use crate::apply::maps::Maps;
use crate::apply::netlink::{self, Event};
use crate::apply::programs::{BpfLog, Mechanism};
use crate::apply::{Dataplane, pins::Pins};
use crate::lending::Lending;
use crate::{capability, ebpf_object, http, logging};
use meter::Meter;
use prober::Prober;
use reconcile::Reconciler;
use schedule::Look;
use status::Status;

/// A configuration that settled, and what is due, is looked for this often.
const TURN: Duration = Duration::from_millis(200);

/// How an agent runs.
#[derive(Clone, Debug)]
pub struct Options {
    pub config: PathBuf,
    pub bpffs: PathBuf,
    pub state_dir: PathBuf,
    pub listen: SocketAddr,
    pub ebpf_object: Option<PathBuf>,
    pub bpf_log: BpfLog,
}

/// Runs until SIGTERM or SIGINT, and then leaves everything in the kernel as it is: traffic goes on
/// without an agent.
pub async fn run(options: Options) -> Result<()> {
    capability::check_capabilities()?;
    let lock = Lock::take(&options.state_dir)?;
    capability::check_bpffs(&options.bpffs)?;
    let pins = Pins::current(&options.bpffs);
    let pins_lock = PinsLock::take(&pins)?;
    let object = ebpf_object::read(options.ebpf_object.as_deref())?;
    let listener = http::listen(options.listen).await?;
    let mut signals = Signals::new()?;
    // Before the first look, so that no change is missed between the two.
    let events = netlink::events()?;
    let handle = netlink::connect()?;
    let mut dataplane = Dataplane::start(
        handle,
        &options.bpffs,
        &object,
        Mechanism::probe(),
        options.bpf_log,
    )
    .await?;
    if options.bpf_log == BpfLog::Debug {
        logging::follow_programs(dataplane.programs_mut().ebpf_mut());
    }
    let status = Status::new(Instant::now());
    let maps = Maps::new(pins);
    let prober = Prober::start(maps.clone(), status.clone())?;
    let meter = Meter::new(maps.clone(), status.clone());
    let lending = Lending::new(maps.clone(), status.clone());
    let server = tokio::spawn(http::serve(listener, status.clone(), maps, lending.clone()));
    // Not in the loop below: partners are to be asked and answered while something is being changed.
    let lender = tokio::spawn(lending.clone().run());
    let reconciler = Reconciler::new(dataplane, &options.config, status, (prober, lending));
    turn(reconciler, meter, events, &mut signals).await;
    // What is lent and borrowed ends by itself.
    lender.abort();
    server.abort();
    drop(pins_lock);
    drop(lock);
    tracing::info!("the agent ends; programs, maps and links stay, and traffic goes on");
    Ok(())
}

async fn turn(
    mut reconciler: Reconciler,
    mut meter: Meter,
    mut events: Receiver<Event>,
    signals: &mut Signals,
) {
    let mut ticks = interval(TURN);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => return,
            _ = signals.interrupt.recv() => return,
            _ = signals.hang_up.recv() => {
                tracing::info!("SIGHUP: reading the configuration again");
                reconciler.reload();
            }
            Some(event) = events.recv() => {
                let look = match event {
                    Event::Host => Look::Host,
                    Event::Everything => Look::Everything,
                };
                reconciler.event(look);
            }
            _ = ticks.tick() => {
                reconciler.turn().await;
                meter.turn(Instant::now());
            }
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }
}
