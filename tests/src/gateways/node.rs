//! A node: its link, its pod, its agent.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use slice_agent::apply::maps::Maps;
use slice_agent::apply::pins::Pins;
use slice_agent::observe::counters;
use slice_common::drop_reason::DropReason;
use slice_common::layout::Direction;

use super::plan::{NodePlan, Plan};
use super::{Router, namespace, router};
use crate::bench::bed::agent::{self, METRICS_PORT};
use crate::child::ManagedChild;
use crate::lab::agents::http_get;
use crate::lab::network::nic::give_real_qdisc;
use crate::lab::network::{Role, answer_for_gateway, configure, ip};
use crate::netns::NetNs;
use crate::place::Place;

/// The same on every node: nobody looks at it.
pub(super) const POD_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 91, 1, 10);

const STRANGER_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 91, 1, 11);

/// A pod of a node.
#[derive(Clone, Debug)]
pub struct NodePod {
    pub name: &'static str,
    pub netns: NetNs,
    /// The node's end of its link.
    pub host_interface: &'static str,
    pub address: Ipv4Addr,
    /// `None`: it is in no slice.
    pub slice_address: Option<Ipv4Addr>,
}

/// A node that is set up.
#[derive(Debug)]
pub struct GatewayNode {
    pub name: &'static str,
    pub namespace: NetNs,
    /// First the one in the slice.
    pub pods: Vec<NodePod>,
    agent: Option<ManagedChild>,
}

impl GatewayNode {
    pub(super) fn create(plan: &Plan, index: usize, router: &Router) -> Result<Self> {
        let node = &plan.nodes[index];
        let own = namespace(node.name)?;
        let link = Router::link_to(index);
        let mtu_bytes = node.mtu_bytes;
        ip(
            None,
            &format!(
                "link add nic0 netns {} mtu {mtu_bytes} type veth peer name {link} netns {} mtu \
                 {mtu_bytes}\n",
                own.name(),
                router.namespace.name(),
            ),
        )?;
        let (address, gateway) = (node.address, router::ADDRESS);
        ip(
            Some(&router.namespace),
            &format!(
                "address add {gateway}/32 dev {link}\nlink set {link} up\n\
                 route add {address}/32 dev {link}\n"
            ),
        )?;
        configure(&own, Role::Router, &host_behind_router("nic0", address))?;
        give_real_qdisc(&own, &["nic0"])?;
        give_real_qdisc(&router.namespace, &[&link])?;
        let mut pods = Vec::new();
        if node.pod.is_some() {
            pods.push(NodePod::create(
                node,
                &own,
                (node.name, "pod0", POD_ADDRESS),
            )?);
        }
        if let Some(stranger) = node.stranger {
            pods.push(NodePod::create(
                node,
                &own,
                (stranger, "out0", STRANGER_ADDRESS),
            )?);
        }
        agent::prepare(&own, &plan.documents(node))?;
        Ok(Self {
            name: node.name,
            namespace: own,
            pods,
            agent: None,
        })
    }

    /// The pod, by its slice address; every node that a load runs on has one.
    pub fn pod(&self) -> Result<Place> {
        let pods = self.pods.iter();
        let mut places = pods.filter_map(|pod| {
            Some(Place {
                name: pod.netns.name().to_owned(),
                address: pod.slice_address?,
                netns: pod.netns.clone(),
                hosts: None,
            })
        });
        let place = places.next();
        place.with_context(|| format!("{} has no pod", self.name))
    }

    pub fn start_agent(&mut self, binary: &Path) -> Result<()> {
        if self.agent.is_none() {
            self.agent = Some(agent::start(&self.namespace, binary)?);
        }
        Ok(())
    }

    pub fn wait_until_ready(&mut self) -> Result<()> {
        let agent = self.agent.as_mut();
        let agent = agent.with_context(|| format!("{} has no agent", self.name))?;
        agent::wait_until_ready(agent, &self.namespace)
    }

    pub fn kill_agent(&mut self) -> Result<()> {
        match self.agent.take() {
            Some(mut agent) => agent.kill(),
            None => Ok(()),
        }
    }

    /// Takes the node's only link down, or up again with the routes that went with it.
    pub fn set_link(&self, is_up: bool) -> Result<()> {
        if !is_up {
            return ip(Some(&self.namespace), "link set nic0 down\n");
        }
        let gateway = router::ADDRESS;
        let script = format!(
            "link set nic0 up\nroute replace {gateway}/32 dev nic0 scope link\n\
             route replace default via {gateway} dev nic0\n"
        );
        ip(Some(&self.namespace), &script)
    }

    /// Packets that the node passed on between others so far.
    pub fn passed_on(&self) -> Result<u64> {
        let counters = counters::read(&self.maps())?;
        let in_transit = counters
            .traffic
            .iter()
            .filter(|(key, _)| key.direction == Direction::Transit.number());
        Ok(in_transit.map(|(_, counter)| counter.packets).sum())
    }

    /// Packets that the node dropped for this reason so far.
    pub fn dropped(&self, reason: DropReason) -> Result<u64> {
        let drops = counters::drops(&self.maps())?;
        let of_reason = drops
            .iter()
            .filter(|(key, _)| key.reason == u32::from(reason.number()));
        Ok(of_reason.map(|(_, packets)| packets).sum())
    }

    /// Packets that took a path which nobody could vouch for.
    pub fn unproven(&self) -> Result<u64> {
        Ok(counters::unproven(&self.maps())?.values().sum())
    }

    /// The paths that the agent says are down.
    pub fn paths_down(&self) -> Result<Vec<String>> {
        let page = http_get(&self.namespace, METRICS_PORT, "/metrics")?.body;
        let down = page
            .lines()
            .filter(|line| line.starts_with("sliceplane_path_up{") && line.ends_with(" 0"));
        Ok(down.map(str::to_owned).collect())
    }

    /// The largest packet that a path was found to carry.
    pub fn path_mtu(&self, path: &str) -> Result<Option<u32>> {
        let page = http_get(&self.namespace, METRICS_PORT, "/metrics")?.body;
        let start = format!("sliceplane_path_probed_bytes{{path=\"{path}\"}} ");
        let value = page.lines().find_map(|line| line.strip_prefix(&start));
        Ok(value.map(str::parse).transpose()?)
    }

    pub fn maps(&self) -> Maps {
        Maps::new(self.pins())
    }

    pub fn pins(&self) -> Pins {
        Pins::current(&self.bpffs())
    }

    fn bpffs(&self) -> PathBuf {
        agent::bpffs(&self.namespace)
    }
}

impl NodePod {
    /// With this name, end of its link at the node, and address.
    fn create(
        node: &NodePlan,
        own: &NetNs,
        (name, host_interface, address): (&'static str, &'static str, Ipv4Addr),
    ) -> Result<Self> {
        let pod = namespace(&format!("{name}-pod"))?;
        let mtu_bytes = node.mtu_bytes;
        ip(
            None,
            &format!(
                "link add eth0 netns {} mtu {mtu_bytes} type veth peer name {host_interface} netns \
                 {} mtu {mtu_bytes}\n",
                pod.name(),
                own.name()
            ),
        )?;
        let node_address = node.address;
        configure(
            own,
            Role::Router,
            &format!(
                "link set {host_interface} up\n\
                 route add {address}/32 dev {host_interface} src {node_address}\n"
            ),
        )?;
        own.enter(|| answer_for_gateway(host_interface))??;
        configure(&pod, Role::Host, &host_behind_router("eth0", address))?;
        Ok(Self {
            name,
            netns: pod,
            host_interface,
            address,
            slice_address: node.pod.filter(|_| address == POD_ADDRESS),
        })
    }
}

/// One interface with a lone address, and everybody behind the router.
fn host_behind_router(interface: &str, address: Ipv4Addr) -> String {
    let gateway = router::ADDRESS;
    format!(
        "link set lo up\nlink set {interface} up\naddress add {address}/32 dev {interface}\n\
         route add {gateway}/32 dev {interface} scope link\n\
         route add default via {gateway} dev {interface} src {address}\n"
    )
}
