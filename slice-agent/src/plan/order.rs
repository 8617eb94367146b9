//! The order of a change: what packets may be led to is there before anything leads to it.

use slice_common::layout::Settings;

use super::Change;
use super::devices::Devices;
use super::entries::Entries;
use super::handover::Meanwhile;
use super::trees;
use crate::image::{Names, NodeImage};

pub(super) fn plan(observed: &NodeImage, wanted: &NodeImage, names: &Names) -> Vec<Change> {
    let devices = Devices::compare(observed, wanted);
    let entries = Entries {
        was: observed,
        is: wanted,
        names,
    };
    let meanwhile = Meanwhile::between(observed, wanted);

    let mut closing = entries.routes(&observed.routes, &meanwhile.old_routes);
    closing.extend(entries.policy(&observed.policy, &meanwhile.policy));
    let mut additions = entries.nodes_written();
    // Pods that are confined from now on find those named that they may go to.
    additions.extend(entries.outside());
    additions.extend(entries.pods_written());
    additions.extend(entries.routes(&meanwhile.old_routes, &meanwhile.new_routes));
    // Pods leave after their addresses lead to where they are now, and before owners and rules are
    // in force that were not made for them.
    let departures = entries.pods_removed();
    let mut rules = entries.routes(&meanwhile.new_routes, &wanted.routes);
    rules.extend(entries.policy(&meanwhile.policy, &wanted.policy));
    rules.extend(entries.classes());
    rules.extend(entries.guards_added());
    // What is remembered of a flow does not depend on rates: they need no new generation.
    let rates = entries.rates();
    let removals = entries.nodes_removed();
    let written = [&closing, &additions, &departures, &rules, &removals];
    let activate = activate(
        observed,
        wanted,
        devices.creates_owner() || written.iter().any(|list| !list.is_empty()),
    );

    let mut changes = devices.port_owner_first();
    changes.extend(entries.ways_back_added(devices.creates_owner()));
    changes.extend(entries.pod_routes_put());
    changes.extend(closing);
    changes.extend(additions);
    changes.extend(devices.detach_pods());
    changes.extend(departures);
    changes.extend(rules);
    changes.extend(entries.fair_queues_added());
    changes.extend(trees::grown(observed, wanted));
    changes.extend(rates);
    changes.extend(trees::shrunk(observed, wanted));
    changes.extend(entries.fair_queues_removed());
    let again = activate_again(activate.as_ref(), &removals);
    changes.extend(activate);
    changes.extend(devices.attach());
    changes.extend(devices.detach_underlay());
    changes.extend(removals);
    changes.extend(again);
    changes.extend(entries.pod_routes_removed());
    changes.extend(entries.ways_back_removed());
    changes.extend(devices.port_owner_last());
    changes
}

/// One generation more, when something was removed: a packet that met it before that is remembered under
/// the generation that its removal belongs to.
fn activate_again(activate: Option<&Change>, removals: &[Change]) -> Option<Change> {
    match activate {
        Some(Change::Activate(settings)) if !removals.is_empty() => {
            let generation = settings.next_generation();
            Some(Change::Activate(Settings {
                generation,
                ..*settings
            }))
        }
        _ => None,
    }
}

/// The next generation, when anything that packets are judged by changes. A device that is created has a
/// number of its own, which nobody knows yet.
fn activate(observed: &NodeImage, wanted: &NodeImage, entries_change: bool) -> Option<Change> {
    let mut next = wanted.settings?;
    let generation = observed.settings.map_or(0, |settings| settings.generation);
    next.generation = generation;
    if observed.settings == Some(next) && !entries_change {
        return None;
    }
    next.generation = next.next_generation();
    Some(Change::Activate(next))
}
