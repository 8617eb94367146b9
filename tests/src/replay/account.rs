//! What became of every frame of a replay, the kernel's own losses and the hosts' leftovers included.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Result, ensure};

use super::{Replay, Stage, Tally};
use crate::findings::Findings;
use crate::harness::say;
use crate::lab::{KernelDrops, overheard};
use crate::netns::NetNs;

/// Nothing is proved by frames that all end alike: one in so many ends in each way.
const SHARE_MIN: u64 = 20;

impl Stage {
    /// Replays so many frames, reports what was found under the name of the test, and insists that every
    /// frame went where the models say and nowhere else, or is accounted for.
    /// # Errors  with what happened instead.
    pub fn replay_and_account(&self, test: &str, seed: u64, frames: u64) -> Result<Tally> {
        let (before, heard) = (self.kernel_drops()?, self.overheard_from_pods()?);
        let began = Instant::now();
        let mut replay = Replay::new(self, seed)?;
        replay.run(frames)?;
        let took = began.elapsed();
        let tally = replay.tally.clone();
        drop(replay);
        let heard = self.overheard_from_pods()? - heard;
        let lost = lost_on_the_way(&self.kernel_drops()?.since(&before));
        say(&format!(
            "{test}, seed {seed}: {tally}; {heard} overheard by hosts; lost on the way: {lost:?}; {took:.1?}"
        ));
        let vanished = tally.unaccounted + tally.left_to_host.saturating_sub(heard);
        let unaccounted = vanished.saturating_sub(lost.values().sum());
        Findings {
            packets_unaccounted: Some(unaccounted),
            wrong_deliveries: Some(tally.wrong_deliveries),
            forged_accepted: Some(tally.forged_accepted),
        }
        .report(test)?;
        let is_right = tally.wrong_deliveries + tally.forged_accepted + tally.misjudged == 0;
        ensure!(is_right && unaccounted == 0, "{tally}; {lost:?}");
        let dropped: u64 = tally.dropped.values().sum();
        for (what, count) in [
            ("deliveries", tally.delivered),
            ("drops", dropped),
            ("frames left to hosts", tally.left_to_host),
        ] {
            ensure!(count * SHARE_MIN > frames, "too few {what}: {tally}");
        }
        Ok(tally)
    }

    fn kernel_drops(&self) -> Result<KernelDrops> {
        KernelDrops::of(&self.namespaces)
    }

    fn overheard_from_pods(&self) -> Result<u64> {
        let nodes: Vec<&NetNs> = self.nodes.iter().map(|node| &node.netns).collect();
        let is_pods = |device: &str| self.pods.iter().any(|pod| pod.host_interface == device);
        overheard(&nodes, is_pods)
    }
}

/// Drops of queues between the programs. What stacks say is not about that: pods' stacks come behind the
/// captures, and what hosts get has left the programs.
fn lost_on_the_way(drops: &KernelDrops) -> BTreeMap<String, u64> {
    let of_queues = ["/tx_drops", "/qdisc_drops", "/backlog_drops"];
    let is_of_queue = |name: &str| of_queues.iter().any(|source| name.ends_with(source));
    let kept = drops.counters.iter().filter(|(name, _)| is_of_queue(name));
    kept.map(|(name, count)| (name.clone(), *count)).collect()
}
