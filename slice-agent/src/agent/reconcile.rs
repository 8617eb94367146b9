//! One look after another: facts, wanted state, observed state, plan, changes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use super::config::{self, Wanted, Watched};
use super::prober::Prober;
use super::schedule::{Look, Schedule};
use super::status::Status;
use crate::apply::Dataplane;
use crate::compile::{self, UplinkQueue};
use crate::image::{Attachment, HostFacts, Names, NodeImage, Program};
use crate::lending::Lending;
use crate::model::{self, ConfigError, EarlyDrop, Validated};
use crate::observe::{self, host, refusals};
use crate::plan::{Change, plan};

/// A plan that is not empty after two rounds is being undone by somebody else.
const ROUNDS_MAX: usize = 2;

/// Keeps the kernel as the configuration wants it.
pub(super) struct Reconciler {
    dataplane: Dataplane,
    watched: Watched,
    /// The configuration in force: the last one that was right.
    accepted: Option<Validated>,
    /// Right by itself, but not yet found to fit this host.
    candidate: Option<Validated>,
    facts: HostFacts,
    schedule: Schedule,
    status: Status,
    prober: Prober,
    lending: Lending,
    /// Whether the last plan was carried out and nothing is left to do.
    converged: bool,
    /// Whether a plan broke off: what flows remember may belong to tables that are gone, and a plan that takes
    /// back, or repeats, what was done finds nothing that would tell them.
    broke_off: bool,
    /// Why the candidate was refused last, so that it is reported once.
    reported: Vec<ConfigError>,
    /// In what the host does not fit the configuration in force.
    mismatches: Vec<ConfigError>,
    /// The interfaces of endpoints that are not there or will not do, with the pods' names.
    missing: BTreeMap<String, String>,
    /// The hooks where programs of others run before ours.
    preceded: Vec<String>,
    /// What packets of slices wait in on uplinks.
    queues: Vec<UplinkQueue>,
    /// Why strangers' packets are not dropped early, where they would be.
    no_early_drop: Option<compile::Obstacle>,
}

impl Reconciler {
    pub(super) fn new(
        dataplane: Dataplane,
        config: &Path,
        status: Status,
        (prober, lending): (Prober, Lending),
    ) -> Self {
        Self {
            dataplane,
            watched: Watched::new(config),
            accepted: None,
            candidate: None,
            facts: HostFacts::default(),
            schedule: Schedule::new(Instant::now()),
            status,
            prober,
            lending,
            converged: false,
            broke_off: false,
            reported: Vec::new(),
            mismatches: Vec::new(),
            missing: BTreeMap::new(),
            preceded: Vec::new(),
            queues: Vec::new(),
            no_early_drop: None,
        }
    }

    pub(super) fn reload(&mut self) {
        self.watched.forget();
    }

    pub(super) fn event(&mut self, look: Look) {
        self.schedule.event(look, Instant::now());
    }

    /// Reads the configuration and does what is due.
    pub(super) async fn turn(&mut self) {
        let now = Instant::now();
        self.status.turn(now);
        let look = match self.watched.poll() {
            Some(Ok(configuration)) => {
                self.candidate = Some(configuration);
                // Also what a driver refused is tried again.
                self.facts.filter_refused.clear();
                self.facts.fair_refused.clear();
                self.facts.tree_refused.clear();
                self.reported.clear();
                Some(Look::Everything)
            }
            Some(Err(errors)) => {
                // What was not yet accepted is gone from the source now.
                self.candidate = None;
                self.refuse(&errors);
                // What an earlier agent left is looked at without one.
                self.accepted.is_none().then_some(Look::Everything)
            }
            None => None,
        };
        let due = self.schedule.due(now);
        if let Some(look) = look.max(due)
            && let Err(error) = self.look(look).await
        {
            self.fail(&format!("{error:#}"));
        }
    }

    async fn look(&mut self, look: Look) -> Result<()> {
        let mut facts = host::facts(self.dataplane.netlink()).await?;
        host::remember(&mut facts, &self.facts);
        if look == Look::Periodic {
            refusals::forget(&mut facts);
        }
        if look == Look::Host && facts == self.facts {
            self.ask_neighbours().await;
            self.settle();
            return Ok(());
        }
        self.dataplane.restore_pins()?;
        self.dataplane.forget_vanished()?;
        if self.broke_off {
            self.dataplane.forget_verdicts()?;
            self.broke_off = false;
        }
        let observed = self.observe().await?;
        let known = host::known_in(&observed, &facts.interfaces);
        host::remember(&mut facts, &known);
        facts.filtered = observe::filtered(self.dataplane.pins())?;
        if let Some(configuration) = self.candidate.as_ref().or(self.accepted.as_ref()) {
            let uplinks = &configuration.node().uplinks;
            refusals::ask_for_queues(self.dataplane.netlink(), uplinks, &mut facts).await;
        }
        self.facts = facts;
        self.note_new_mark(&observed);
        let wanted = self.wanted(&observed);
        self.note_missing();
        self.ask_neighbours().await;
        let Some(Wanted { image, names, .. }) = wanted else {
            self.remove_vanished(&observed).await;
            return Ok(());
        };
        self.converge(observed, &image, &names).await?;
        if self.converged {
            self.prober.watch(&image);
        }
        Ok(())
    }

    /// What an earlier agent left is kept while there is no configuration that is right, but for pods that are
    /// gone: somebody else may get their interface's number, or their address.
    async fn remove_vanished(&mut self, observed: &NodeImage) {
        let left = observed.without_vanished(&self.facts);
        let changes = plan(observed, &left, &Names::default());
        if !changes.is_empty() && self.carry_out(&changes).await.is_empty() {
            tracing::info!("removed pods whose interfaces are gone");
        }
    }

    /// Some sandboxes take only frames with their own link-layer address: asks for those that are
    /// not known.
    async fn ask_neighbours(&mut self) {
        let mut unknown = 0;
        if let Some(configuration) = &self.accepted {
            for pod in compile::pods_without_mac(configuration, &self.facts) {
                let Some(interface) = self.facts.interfaces.get(&pod.interface) else {
                    continue;
                };
                unknown += 1;
                let asked_by = compile::asked_by(interface);
                let netlink = self.dataplane.netlink();
                let asked = host::ask_neighbour(netlink, asked_by, pod.address).await;
                if let Err(error) = asked {
                    tracing::warn!(pod = %pod.name, interface = %pod.interface, "{error:#}");
                }
            }
        }
        self.schedule.asked(unknown > 0, Instant::now());
        if unknown > 0 {
            tracing::debug!(
                pods = unknown,
                "asking for the link-layer addresses of pods"
            );
        }
    }

    /// The state to reach: that of the newest configuration which fits the host, or once did.
    fn wanted(&mut self, observed: &NodeImage) -> Option<Wanted> {
        if let Some(candidate) = &self.candidate {
            match config::wanted(candidate, &self.facts, observed) {
                Ok(wanted) => {
                    for doubt in candidate.doubts() {
                        tracing::warn!("{doubt}");
                    }
                    self.lending.arrange(&candidate.node().uplinks);
                    self.accepted = self.candidate.take();
                    self.reported.clear();
                    self.status.update(|state| state.config_valid = true);
                    self.note_mismatches(&wanted.mismatches);
                    return Some(wanted);
                }
                Err(errors) if errors != self.reported => {
                    self.refuse(&errors);
                    self.reported = errors;
                }
                Err(_) => {}
            }
        }
        match config::still_wanted(self.accepted.as_ref()?, &self.facts) {
            Ok(wanted) => {
                self.note_mismatches(&wanted.mismatches);
                Some(wanted)
            }
            Err(errors) => {
                self.fail(&model::render(&errors));
                None
            }
        }
    }

    /// Says that tunnel packets get another mark, and why.
    fn note_new_mark(&self, observed: &NodeImage) {
        let Some(old) = observed.settings.map(|settings| settings.tunnel_mark) else {
            return;
        };
        if old != self.facts.secrets.tunnel_mark {
            let noticed = self.facts.mark_rules.iter();
            let noticed = noticed.filter(|rule| !rule.is_blind_to(old));
            let rules = model::listed(noticed.map(ToString::to_string));
            tracing::warn!(
                %rules,
                "routing rules of this host notice the mark of our tunnel packets, which get another one"
            );
        }
    }

    /// Says in what the host does not fit (any more), or fits again.
    fn note_mismatches(&mut self, now: &[ConfigError]) {
        for error in now.iter().filter(|it| !self.mismatches.contains(it)) {
            tracing::warn!("the host does not fit the configuration that is in force: {error}");
        }
        for error in self.mismatches.iter().filter(|it| !now.contains(it)) {
            tracing::info!("no longer so: {error}");
        }
        self.mismatches = now.to_vec();
        self.status
            .update(|state| state.host_mismatches = now.len());
    }

    /// Says which interfaces of endpoints vanished, and which came (back).
    fn note_missing(&mut self) {
        let Some(configuration) = &self.accepted else {
            return;
        };
        let before = std::mem::take(&mut self.missing);
        for (endpoint, error) in model::unserved(configuration, &self.facts) {
            if !before.contains_key(&endpoint.interface) {
                tracing::warn!(pod = %endpoint.name, "not served until its interface is there: {error}");
            }
            let pod = endpoint.name.clone();
            self.missing.insert(endpoint.interface.clone(), pod);
        }
        for (interface, pod) in before {
            if self.facts.interfaces.contains_key(&interface) {
                tracing::info!(%pod, %interface, "the interface of the pod is there");
            }
        }
        let count = self.missing.len();
        self.status
            .update(|state| state.endpoints_without_interface = count);
    }

    /// Says when something (else) stands in the way of early drop.
    fn note_early_drop(&mut self) {
        let Some(configuration) = &self.accepted else {
            return;
        };
        let now = compile::early_drop(configuration, &self.facts).err();
        if let Some(obstacle) = &now
            && self.no_early_drop != now
        {
            let interface = &configuration.node().underlay.interface;
            tracing::info!(%interface, "no early drop of strangers' packets: {obstacle}");
        }
        self.no_early_drop = now;
    }

    /// Says what packets of slices wait in, when that changes, and of what this node has a part.
    fn note_uplinks(&mut self) {
        let Some(configuration) = &self.accepted else {
            return;
        };
        let now = compile::uplink_queues(configuration, &self.facts);
        for queue in now.iter().filter(|it| !self.queues.contains(it)) {
            match queue.note() {
                Some(note) => tracing::info!("{note}"),
                None => tracing::info!("{queue}"),
            }
        }
        let shared_ceilings = compile::shared_ceilings(configuration, &self.facts);
        self.status.update(|state| {
            state.queues.clone_from(&now);
            state.shared_ceilings = shared_ceilings;
        });
        self.queues = now;
    }

    async fn converge(
        &mut self,
        mut observed: NodeImage,
        wanted: &NodeImage,
        names: &Names,
    ) -> Result<()> {
        self.status.update(|state| state.names = names.clone());
        let mut wanted = wanted.clone();
        for _ in 0..ROUNDS_MAX {
            let changes = plan(&observed, &wanted, names);
            self.status.update(|state| state.observed(&observed));
            if changes.is_empty() {
                return self.converged(&observed.attachments).await;
            }
            let failures = self.carry_out(&changes).await;
            if let Some(first) = failures.first() {
                self.fail(first);
                return Ok(());
            }
            tracing::info!(changes = changes.len(), "applied the configuration");
            let refused = &self.facts.filter_refused;
            wanted.attachments.retain(|at| {
                at.program != Program::UnderlayFilter || !refused.contains_key(&at.ifindex)
            });
            let refused = &self.facts.fair_refused;
            wanted
                .fair_queues
                .retain(|ifindex, _| !refused.contains_key(ifindex));
            let refused = &self.facts.tree_refused;
            wanted
                .trees
                .retain(|ifindex, _| !refused.contains_key(ifindex));
            // Departures are written where packets wait for them, so only now.
            if changes
                .iter()
                .any(|it| matches!(it, Change::AddFairQueue(..) | Change::BuildTree(..)))
            {
                self.schedule.event(Look::Everything, Instant::now());
            }
            observed = self.observe().await?;
        }
        let left = plan(&observed, &wanted, names);
        self.status.update(|state| state.observed(&observed));
        match left.first() {
            None => self.converged(&observed.attachments).await,
            Some(change) => {
                let text = format!(
                    "{} changes do not last, the first is: {change}; something else on this host \
                     undoes them",
                    left.len()
                );
                self.fail(&text);
                Ok(())
            }
        }
    }

    async fn converged(&mut self, attached: &BTreeSet<Attachment>) -> Result<()> {
        self.dataplane.finish_takeover().await?;
        self.preceded = self.dataplane.stand_first(attached).await;
        let count = self.preceded.len();
        self.status.update(|state| state.hooks_preceded = count);
        self.note_early_drop();
        self.note_uplinks();
        self.schedule.succeeded();
        self.converged = true;
        self.settle();
        Ok(())
    }

    /// Says when the node became ready, or is no longer degraded.
    fn settle(&mut self) {
        let before = self.status.read();
        if !self.converged {
            return;
        }
        let degraded = self.shortcomings();
        match (before.ready, &before.degraded, &degraded) {
            (false, _, None) => tracing::info!(
                generation = before.generation,
                "ready: the node is as configured"
            ),
            (false, _, Some(why)) => {
                tracing::warn!(generation = before.generation, "ready, but degraded: {why}")
            }
            (true, was, Some(why)) if was.as_ref() != Some(why) => {
                tracing::warn!("degraded: {why}");
            }
            (true, Some(_), None) => {
                tracing::info!("no longer degraded: the node is as configured");
            }
            (true, ..) => {}
        }
        self.status.update(|state| {
            state.ready = true;
            state.degraded = degraded;
        });
    }

    /// What harms single pods or hooks on a node that is otherwise as configured.
    fn shortcomings(&self) -> Option<String> {
        let mut found = Vec::new();
        let mismatches = self.mismatches.iter().map(ToString::to_string);
        found.extend(mismatches);
        if !self.missing.is_empty() {
            found.push(format!(
                "endpoints without an interface on this host: {} ({})",
                self.missing.len(),
                model::listed(self.missing.keys().cloned())
            ));
        }
        if !self.preceded.is_empty() {
            found.push(format!(
                "programs that are not ours come before: {} ({}); they may take slice packets, so \
                 have them attach after ours",
                self.preceded.len(),
                model::listed(self.preceded.iter().cloned())
            ));
        }
        let refused = self.queues.iter().filter(|queue| queue.is_against_wish);
        found.extend(refused.filter_map(UplinkQueue::note));
        let underlay = self.accepted.as_ref().map(|good| &good.node().underlay);
        if let Some(underlay) = underlay.filter(|asked| asked.early_drop == EarlyDrop::On)
            && let Some(obstacle) = &self.no_early_drop
        {
            found.push(format!(
                "no early drop on {}: {obstacle}",
                underlay.interface
            ));
        }
        (!found.is_empty()).then(|| found.join("; "))
    }

    /// Executes the changes in order, and returns a sentence for each that failed. A pod whose
    /// interface makes trouble does not keep the others waiting; but after a table that could not be
    /// written nothing that relies on it is.
    async fn carry_out(&mut self, changes: &[Change]) -> Vec<String> {
        let mut failures = Vec::new();
        for change in changes {
            tracing::debug!(%change, "applying");
            let Err(error) = self.dataplane.apply(change).await else {
                continue;
            };
            // Everything works without it.
            if let Change::Attach(at) = change
                && at.program == Program::UnderlayFilter
            {
                let refused = &mut self.facts.filter_refused;
                refused.insert(at.ifindex, format!("{error:#}"));
                continue;
            }
            if let Change::AddFairQueue(ifindex, _) = change {
                let refused = &mut self.facts.fair_refused;
                refused.insert(*ifindex, format!("{error:#}"));
                continue;
            }
            if let Change::BuildTree(ifindex, _) = change {
                let refused = &mut self.facts.tree_refused;
                refused.insert(*ifindex, format!("{error:#}"));
                continue;
            }
            tracing::error!("{change}: {error:#}");
            self.broke_off = true;
            failures.push(format!("{change}: {error:#}"));
            self.status.update(|state| state.apply_errors += 1);
            let is_of_one_pod = matches!(
                change,
                Change::Attach(_) | Change::Detach(_) | Change::PutPodRoute(..)
            );
            if !is_of_one_pod {
                break;
            }
        }
        failures
    }

    async fn observe(&self) -> Result<NodeImage> {
        let (netlink, pins) = (self.dataplane.netlink(), self.dataplane.pins());
        observe::node_image(netlink, pins, self.dataplane.mechanism()).await
    }

    fn refuse(&mut self, errors: &[ConfigError]) {
        report(errors);
        tracing::error!(
            errors = errors.len(),
            "the configuration is refused; the last good one stays in force"
        );
        self.status.update(|state| state.config_valid = false);
    }

    fn fail(&mut self, why: &str) {
        self.converged = false;
        let delay = self.schedule.failed(Instant::now());
        tracing::error!(retry_s = delay.as_secs(), "degraded: {why}");
        self.status
            .update(|state| state.degraded = Some(why.to_owned()));
    }
}

fn report(errors: &[ConfigError]) {
    for error in errors {
        tracing::error!("{error}");
    }
}
