//! Where a variant is measured: two pods, each behind its own node, and a link between the nodes.
//!
//! pod1 eth0 – pod0 node1 nic0 – nic0 node2 pod0 – eth0 pod2. Every variant has namespaces of its own
//! and the same names, addresses, MTU, queues and offloads in them; only the way from node to node
//! differs. So nothing is switched between two measurements.

pub mod agent;
pub mod ground;
pub mod service_rules;
mod slice;
mod vxlan;

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::lab::network::nic::{give_real_qdisc, set_offload, steer_receive_to};
use crate::lab::network::{Role, answer_for_gateway, configure, ip};
use crate::netns::NetNs;
use ground::{Ground, NAMESPACE_PREFIX, bench_path};

pub const MTU_BYTES: u32 = 1500;
/// The same segments for all: below what the smallest tunnel carries.
const MSS_BYTES: u32 = 1400;
/// Not the machine's own choice: some pace by timers, which measures the timers.
const CONGESTION_CONTROL: &str = "cubic";
const POD_ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 91, 1, 10), Ipv4Addr::new(10, 91, 2, 10)];
const NODE_ADDRESSES: [Ipv4Addr; 2] =
    [Ipv4Addr::new(172, 31, 91, 1), Ipv4Addr::new(172, 31, 91, 2)];
/// What a pod calls its gateway; the node's side of the veth answers for it by proxy ARP.
const POD_GATEWAY: &str = "169.254.1.1";

/// A way from node to node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Variant {
    /// Routed, without any tunnel.
    Plain,
    /// The same on nodes that track connections and carry the rules of 1,000 Kubernetes services.
    PlainConntrack,
    /// The kernel's VXLAN device, flow-based, by routes with tunnel attributes.
    Vxlan,
    /// A slice, as the agent sets it up.
    Ours,
    /// The same without the device that owns the tunnel's port: a negative control.
    OursWithoutPortOwner,
}

impl Variant {
    /// As in the JSON.
    pub fn key(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::PlainConntrack => "plain_conntrack",
            Self::Vxlan => "vxlan",
            Self::Ours => "ours",
            Self::OursWithoutPortOwner => "ours_without_port_owner",
        }
    }
}

/// A variant that is set up.
#[derive(Debug)]
pub struct Bed {
    pub variant: Variant,
    /// Client, server.
    pub pods: [NetNs; 2],
    /// The client's, the server's.
    pub nodes: [NetNs; 2],
    /// At which the client reaches the server.
    pub server_address: Ipv4Addr,
}

impl Bed {
    /// Builds the bed; what it makes lives as long as the ground.
    pub fn build(_ground: &Ground, variant: Variant, cpu: usize, agent: &Path) -> Result<Self> {
        let bed = Self::create(variant)?;
        let built = bed.connect(cpu).and_then(|()| match variant {
            Variant::Plain => Ok(()),
            Variant::PlainConntrack => service_rules::set_up(&bed),
            Variant::Vxlan => vxlan::set_up(&bed),
            Variant::Ours => slice::set_up(&bed, agent),
            Variant::OursWithoutPortOwner => {
                slice::set_up(&bed, agent).and_then(|()| slice::disown_port(&bed))
            }
        });
        built.with_context(|| format!("set up {}", variant.key()))?;
        Ok(bed)
    }

    fn create(variant: Variant) -> Result<Self> {
        let create =
            |role: &str| NetNs::create(&format!("{NAMESPACE_PREFIX}{}-{role}", variant.key()));
        Ok(Self {
            variant,
            pods: [create("pod1")?, create("pod2")?],
            nodes: [create("node1")?, create("node2")?],
            server_address: match variant {
                Variant::Ours | Variant::OursWithoutPortOwner => slice::SLICE_ADDRESSES[1],
                _ => POD_ADDRESSES[1],
            },
        })
    }

    /// All namespaces, in the order of a packet's way.
    pub fn namespaces(&self) -> [&NetNs; 4] {
        let ([pod1, pod2], [node1, node2]) = (&self.pods, &self.nodes);
        [pod1, node1, node2, pod2]
    }

    /// Where each node's programs are pinned, if the variant has any.
    pub fn bpffs(&self) -> Option<[PathBuf; 2]> {
        let is_ours = matches!(self.variant, Variant::Ours | Variant::OursWithoutPortOwner);
        is_ours.then(|| self.nodes.each_ref().map(agent::bpffs))
    }

    /// Wire mode: the NICs cut what they send to the link's size, as a NIC without offload for tunnels
    /// does, and merge what they receive (a veth merges only if its peer cannot segment).
    pub fn set_wire_mode(&self, on: bool) -> Result<()> {
        let segmentation = [("tso", !on), ("gso", !on), ("tx-udp-segmentation", !on)];
        self.nodes
            .iter()
            .try_for_each(|node| set_offload(node, "nic0", &segmentation))
    }

    /// Everything that all variants have.
    fn connect(&self, cpu: usize) -> Result<()> {
        let [node1, node2] = self.nodes.each_ref().map(NetNs::name);
        let mut links = format!(
            "link add nic0 netns {node1} mtu {MTU_BYTES} type veth \
             peer name nic0 netns {node2} mtu {MTU_BYTES}\n"
        );
        for (pod, node) in self.pods.iter().zip(&self.nodes) {
            let _ = writeln!(
                links,
                "link add eth0 netns {} mtu {MTU_BYTES} type veth \
                 peer name pod0 netns {} mtu {MTU_BYTES}",
                pod.name(),
                node.name(),
            );
        }
        ip(None, &links)?;
        for index in 0..2 {
            configure(&self.nodes[index], Role::Router, &node_script(index))?;
            configure(&self.pods[index], Role::Host, &pod_script(index))?;
            self.nodes[index].enter(|| answer_for_gateway("pod0"))??;
            give_real_qdisc(&self.nodes[index], &["nic0"])?;
            set_offload(&self.nodes[index], "nic0", &[("gro", true)])?;
        }
        let mask = single_cpu_mask(cpu);
        for namespace in self.nodes.iter().chain(&self.pods) {
            steer_receive_to(namespace, &mask, &bench_path("sys"))?;
        }
        Ok(())
    }
}

/// Proxy ARP answers for the pods' gateway only where there is a route to it: the default one.
fn node_script(index: usize) -> String {
    let (own, other) = (NODE_ADDRESSES[index], NODE_ADDRESSES[1 - index]);
    let (own_pod, other_pod) = (POD_ADDRESSES[index], POD_ADDRESSES[1 - index]);
    format!(
        "link set nic0 up\naddress add {own}/24 dev nic0\n\
         link set pod0 up\nroute add {own_pod}/32 dev pod0 src {own}\n\
         route add {other_pod}/32 via {other} dev nic0\n\
         route add default via {other} dev nic0\n"
    )
}

fn pod_script(index: usize) -> String {
    format!(
        "link set eth0 up\naddress add {address}/32 dev eth0\n\
         route add {POD_GATEWAY}/32 dev eth0 scope link\n\
         route add default via {POD_GATEWAY} dev eth0 src {address} advmss {MSS_BYTES} \
         congctl {CONGESTION_CONTROL}\n",
        address = POD_ADDRESSES[index],
    )
}

/// One CPU in the kernel's format: hexadecimal words of 32 bits, separated by commas.
fn single_cpu_mask(cpu: usize) -> String {
    let first_word = format!("{:x}", 1_u32 << (cpu % 32));
    let zero_words = std::iter::repeat_n(",00000000", cpu / 32);
    zero_words.fold(first_word, |mask, word| mask + word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_names_one_cpu() {
        assert_eq!(single_cpu_mask(0), "1");
        assert_eq!(single_cpu_mask(5), "20");
        assert_eq!(single_cpu_mask(33), "2,00000000");
    }
}
