//! What the run loop tells to those who ask over HTTP.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use slice_common::layout::{Settings, ShaperKey, ShaperTerms};

use crate::compile::{SharedCeiling, UplinkQueue};
use crate::image::{Names, NodeImage, Program};
use crate::lending::standing::{Standing, UplinkLending};
use crate::metrics::usage::Usage;

/// The loop looks after everything several times a second; silent for this long, it hangs.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// The state of the agent, as of its last turn.
#[derive(Clone, Debug)]
pub struct State {
    /// Whether the configuration that is there now was accepted.
    pub config_valid: bool,
    /// Counts the configurations applied; 0 before the first.
    pub generation: u32,
    /// Changes that failed since the agent started.
    pub apply_errors: u64,
    /// Whether a configuration was applied completely since the agent started.
    pub ready: bool,
    /// Why the kernel is not as the configuration wants it, if it is not.
    pub degraded: Option<String>,
    /// In how much the host does not fit the configuration in force.
    pub host_mismatches: usize,
    pub endpoints_without_interface: usize,
    pub hooks_preceded: usize,
    /// Whether the underlay interface's driver drops strangers' packets.
    pub early_drop: bool,
    pub names: Names,
    /// What packets wait in on uplinks, and why not in something better.
    pub queues: Vec<UplinkQueue>,
    /// What slices may send by uplinks, as it is in force.
    pub rates: BTreeMap<ShaperKey, ShaperTerms>,
    /// Slices of which this node, a gateway, has no pods: it sends only what it passes on.
    pub only_forwarded: BTreeSet<u32>,
    /// The ceilings of which this node has a part.
    pub shared_ceilings: BTreeMap<ShaperKey, SharedCeiling>,
    /// How much of what this node may send was used lately.
    pub usage: Usage,
    /// What of it other nodes lend, and have.
    pub loans: BTreeMap<ShaperKey, Standing>,
    /// By name of the uplink, where its nodes lend.
    pub lending: BTreeMap<String, UplinkLending>,
    /// By path: the largest packet that a probe found it to carry.
    pub path_mtus: BTreeMap<u32, u32>,
    /// Entries of the maps that the agent writes.
    pub map_entries: BTreeMap<&'static str, usize>,
    last_turn: Instant,
}

impl State {
    /// Whether the loop still turns.
    pub fn is_alive(&self, now: Instant) -> bool {
        now.duration_since(self.last_turn) < SILENCE_MAX
    }

    /// Takes over what was read from the kernel.
    pub fn observed(&mut self, image: &NodeImage) {
        self.generation = image.settings.map_or(0, |settings| settings.generation);
        let mut attached = image.attachments.iter();
        self.early_drop = attached.any(|at| at.program == Program::UnderlayFilter);
        let rates = image.rates.iter();
        self.rates = rates.map(|(at, terms)| (at.key, *terms)).collect();
        let settings = image.settings.as_ref();
        let is_gateway = settings.is_some_and(|it| it.flags & Settings::GATEWAY != 0);
        let has_pods = |slice| image.endpoints.values().any(|pod| pod.slice == slice);
        let slices = self.rates.keys().map(|key| key.slice);
        self.only_forwarded = slices
            .filter(|slice| is_gateway && !has_pods(*slice))
            .collect();
        self.map_entries = BTreeMap::from([
            ("SETTINGS", usize::from(image.settings.is_some())),
            ("PATHS", image.paths.len()),
            ("PATH_GROUPS", image.path_groups.len()),
            ("PEERS", image.peers.len()),
            ("SLICES", image.slices.len()),
            ("LOCAL", image.local.len()),
            ("ENDPOINTS", image.endpoints.len()),
            ("NODE_ADDRESSES", image.node_addresses.len()),
            ("ROUTES", image.routes.len()),
            ("POLICY", image.policy.len()),
            ("CLASSES", image.classes.len()),
            ("OUTSIDE", image.outside.len()),
            ("SHAPER_TERMS", image.rates.len()),
        ]);
    }
}

/// The shared handle on the state.
#[derive(Clone, Debug)]
pub struct Status(Arc<Mutex<State>>);

impl Status {
    pub fn new(now: Instant) -> Self {
        Self(Arc::new(Mutex::new(State {
            config_valid: false,
            generation: 0,
            apply_errors: 0,
            ready: false,
            degraded: None,
            host_mismatches: 0,
            endpoints_without_interface: 0,
            hooks_preceded: 0,
            early_drop: false,
            names: Names::default(),
            queues: Vec::new(),
            rates: BTreeMap::new(),
            only_forwarded: BTreeSet::new(),
            shared_ceilings: BTreeMap::new(),
            usage: Usage::default(),
            loans: BTreeMap::new(),
            lending: BTreeMap::new(),
            path_mtus: BTreeMap::new(),
            map_entries: BTreeMap::new(),
            last_turn: now,
        })))
    }

    pub fn read(&self) -> State {
        self.lock().clone()
    }

    /// What is wanted of the state, without the rest.
    pub fn see<T>(&self, of: impl FnOnce(&State) -> T) -> T {
        of(&self.lock())
    }

    pub fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
    }

    pub fn turn(&self, now: Instant) {
        self.lock().last_turn = now;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each update leaves the state whole, so one that panicked elsewhere did no harm.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_stopped_turning_is_not_alive() {
        let start = Instant::now();
        let status = Status::new(start);
        assert!(status.read().is_alive(start + Duration::from_secs(29)));
        assert!(!status.read().is_alive(start + Duration::from_secs(31)));
        status.turn(start + Duration::from_secs(31));
        assert!(status.read().is_alive(start + Duration::from_secs(32)));
    }
}
