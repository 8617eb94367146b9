//! From a configuration to an image, and from one image to another.

use slice_agent::compile::compile;
use slice_agent::image::{Names, NodeImage};
use slice_agent::model::{Validated, render};
use slice_agent::plan::Change;

use super::{check_text, east_1};

/// What an apply does, on a value.
pub(crate) fn apply(image: &mut NodeImage, change: &Change) {
    match change.clone() {
        Change::CreatePortOwner(owner) => image.port_owner = Some(owner),
        Change::RemovePortOwner(_) => image.port_owner = None,
        Change::PutPath(put) => drop(image.paths.insert(put.key, put.value)),
        Change::RemovePath(remove) => drop(image.paths.remove(&remove.key)),
        Change::PutPathGroup(put) => drop(image.path_groups.insert(put.key, put.value)),
        Change::RemovePathGroup(remove) => drop(image.path_groups.remove(&remove.key)),
        Change::PutPeer(put) => drop(image.peers.insert(put.key, put.value)),
        Change::RemovePeer(remove) => drop(image.peers.remove(&remove.key)),
        Change::PutSlice(put) => drop(image.slices.insert(put.key, put.value)),
        Change::RemoveSlice(remove) => drop(image.slices.remove(&remove.key)),
        Change::PutLocal(put) => drop(image.local.insert(put.key, put.value)),
        Change::RemoveLocal(remove) => drop(image.local.remove(&remove.key)),
        Change::PutEndpoint(put) => drop(image.endpoints.insert(put.key, put.value)),
        Change::RemoveEndpoint(remove) => drop(image.endpoints.remove(&remove.key)),
        Change::PutNodeAddress(put) => drop(image.node_addresses.insert(put.key, put.value)),
        Change::RemoveNodeAddress(remove) => drop(image.node_addresses.remove(&remove.key)),
        Change::SwapRoutes(swap) => image.routes = swap.table,
        Change::SwapPolicy(swap) => image.policy = swap.table,
        Change::SwapClasses(swap) => image.classes = swap.table,
        Change::SwapOutside(swap) => image.outside = swap.table,
        Change::SwapRates(swap) => image.rates = swap.table,
        Change::AddFairQueue(ifindex, queue) => {
            image.fair_queues.insert(ifindex, queue);
        }
        Change::RemoveFairQueue(ifindex, _) => {
            image.fair_queues.remove(&ifindex);
        }
        Change::BuildTree(ifindex, tree) => drop(image.trees.insert(ifindex, tree)),
        Change::MendTree(ifindex, mending) => {
            let tree = image.trees.get_mut(&ifindex).expect("a tree to mend");
            tree.frame_bytes = mending.frame_bytes.unwrap_or(tree.frame_bytes);
            tree.classes.extend(mending.classes);
        }
        Change::TrimTree(ifindex, trimming) => {
            let tree = image.trees.get_mut(&ifindex).expect("a tree to trim");
            for minor in trimming.classes {
                tree.classes.remove(&minor);
            }
        }
        Change::RemoveTree(ifindex, _) => drop(image.trees.remove(&ifindex)),
        Change::AddGuard(prefix) => drop(image.guards.insert(prefix)),
        Change::RemoveGuard(prefix) => drop(image.guards.remove(&prefix)),
        Change::PutPodRoute(pod, route) => drop(image.pod_routes.insert(pod, route)),
        Change::RemovePodRoute(pod) => drop(image.pod_routes.remove(&pod)),
        Change::EnforcePodRoutes => image.pod_routes_in_force = true,
        Change::ForgetPodRoutes => image.pod_routes_in_force = false,
        Change::AddWayBack(way) => drop(image.ways_back.insert(way)),
        Change::RemoveWayBack(way) => drop(image.ways_back.remove(&way)),
        Change::Activate(settings) => image.settings = Some(settings),
        Change::Attach(at) => drop(image.attachments.insert(at)),
        Change::Detach(at) => drop(image.attachments.remove(&at)),
    }
}

pub(crate) fn image_of(text: &str) -> (NodeImage, Names) {
    let configuration = check_text(text).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    compile(&configuration, &east_1()).expect("fits the host")
}

pub(crate) fn compiled(configuration: &Validated) -> NodeImage {
    let compiled = compile(configuration, &east_1());
    compiled
        .unwrap_or_else(|errors| panic!("{}", render(&errors)))
        .0
}
