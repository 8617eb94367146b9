//! Builds the lab's networks: fabrics, nodes and pods, without any agent.
//!
//! pod eth0 – p-POD node nic0 – n-NODE fabric (bridge br0) gw-port – gw0 router wan0 – WAN.
//!
//! The fabric's router stands behind a veth and not on the bridge device itself: that device cannot
//! send tunnel packets with segmentation left to do (its `hw_enc_features` are empty), so everything
//! routed to a node would be cut there, and only for tunnels.

pub(crate) mod nic;

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::inventory::{
    CLUSTERS, ClusterSpec, MTU_BYTES, NODES, NodeSpec, PODS, PodNetwork, PodSpec,
};
use crate::netns::NetNs;

pub(super) const WAN_NAMESPACE: &str = "sl-wan";
/// What a pod calls its gateway; the node's side of the veth answers for it by proxy ARP.
const POD_GATEWAY: &str = "169.254.1.1";
/// The bridge of a node's pods, where the cluster has one.
const POD_BRIDGE: &str = "cni0";
/// The bridge's port towards the fabric's router.
const GATEWAY_PORT: &str = "gw-port";
/// The relay writes bursts; its device must hold what the kernel sends meanwhile.
const TUN_QUEUE_PACKETS: u32 = 5000;

/// Makes every namespace and device but the WAN's.
pub(super) fn build() -> Result<()> {
    for name in namespace_names() {
        NetNs::create(&name)?;
    }
    ip(None, &links())?;
    for cluster in &CLUSTERS {
        configure_fabric(cluster)?;
    }
    for node in &NODES {
        configure_node(node)?;
    }
    for pod in &PODS {
        configure_pod(pod)?;
    }
    configure(
        &NetNs::open(WAN_NAMESPACE)?,
        Role::Router,
        "link set lo up\n",
    )?;
    Ok(())
}

pub(super) fn namespace_names() -> Vec<String> {
    let fabrics = CLUSTERS.iter().map(ClusterSpec::fabric_namespace);
    let nodes = NODES.iter().map(NodeSpec::namespace);
    let pods = PODS.iter().map(PodSpec::namespace);
    fabrics
        .chain(nodes)
        .chain(pods)
        .chain([WAN_NAMESPACE.to_owned()])
        .collect()
}

/// Joins the fabrics by a router without any impairment.
pub(super) fn connect_router() -> Result<()> {
    let mut links = String::new();
    for cluster in &CLUSTERS {
        let _ = writeln!(
            links,
            "link add wan0 netns {} mtu {MTU_BYTES} type veth peer name {} netns {WAN_NAMESPACE} \
             mtu {MTU_BYTES}",
            cluster.fabric_namespace(),
            wan_port(cluster),
        );
    }
    ip(None, &links)?;
    let wan = NetNs::open(WAN_NAMESPACE)?;
    let mut script = String::new();
    for cluster in &CLUSTERS {
        let port = wan_port(cluster);
        let [fabric_side, wan_side] = link_addresses(cluster);
        let _ = write!(
            script,
            "link set {port} up\naddress add {wan_side}/30 dev {port}\n\
             route add {}/24 via {fabric_side} dev {port}\n\
             route add {}/16 via {fabric_side} dev {port}\n",
            cluster.underlay_network(),
            cluster.plain_network(),
        );
        let fabric = NetNs::open(&cluster.fabric_namespace())?;
        let up = format!("link set wan0 up\naddress add {fabric_side}/30 dev wan0\n");
        ip(
            Some(&fabric),
            &(up + &wan_routes(cluster, &format!("via {wan_side} dev wan0"))),
        )?;
        nic::give_real_qdisc(&fabric, &["wan0"])?;
        nic::steer_receive(&fabric)?;
    }
    ip(Some(&wan), &script)?;
    let ports = CLUSTERS.map(|cluster| wan_port(&cluster));
    nic::give_real_qdisc(&wan, &ports.each_ref().map(String::as_str))?;
    nic::steer_receive(&wan)
}

/// Sets the MTU of a cluster's own end of its way out.
pub(super) fn set_wan_mtu(cluster: &str, mtu_bytes: u32) -> Result<()> {
    let known = CLUSTERS.iter().find(|known| known.name == cluster);
    let cluster = known.with_context(|| format!("no cluster {cluster:?} in the lab"))?;
    let fabric = NetNs::open(&cluster.fabric_namespace())?;
    ip(Some(&fabric), &format!("link set wan0 mtu {mtu_bytes}\n"))
}

/// Removes the router's links and with them the routes over them.
pub(super) fn disconnect_router() -> Result<()> {
    let links: String = CLUSTERS
        .iter()
        .map(|cluster| format!("link delete {}\n", wan_port(cluster)))
        .collect();
    ip(Some(&NetNs::open(WAN_NAMESPACE)?), &links)
}

/// Brings up the relay's devices, which exist as long as the relay runs.
pub(super) fn connect_relay() -> Result<()> {
    for cluster in &CLUSTERS {
        let fabric = NetNs::open(&cluster.fabric_namespace())?;
        let up = format!("link set wan0 mtu {MTU_BYTES} txqueuelen {TUN_QUEUE_PACKETS} up\n");
        ip(Some(&fabric), &(up + &wan_routes(cluster, "dev wan0")))?;
        nic::steer_receive(&fabric)?;
    }
    Ok(())
}

pub(super) fn wan_port(cluster: &ClusterSpec) -> String {
    format!("w-{}", cluster.name)
}

fn wan_routes(cluster: &ClusterSpec, next_hop: &str) -> String {
    // Underlay and plain addresses only: an overlapping pod address means nothing outside.
    let others = CLUSTERS.iter().filter(|other| other.name != cluster.name);
    others
        .map(|other| {
            let (underlay, plain) = (other.underlay_network(), other.plain_network());
            format!("route add {underlay}/24 {next_hop}\nroute add {plain}/16 {next_hop}\n")
        })
        .collect()
}

fn link_addresses(cluster: &ClusterSpec) -> [String; 2] {
    [1, 2].map(|host| format!("172.20.{}.{host}", 250 + cluster.number))
}

fn links() -> String {
    let mut script = String::new();
    for node in &NODES {
        let _ = writeln!(
            script,
            "link add nic0 netns {} mtu {MTU_BYTES} type veth peer name {} netns {} \
             mtu {MTU_BYTES}",
            node.namespace(),
            node.fabric_port(),
            node.cluster().fabric_namespace(),
        );
    }
    for pod in &PODS {
        let _ = writeln!(
            script,
            "link add eth0 netns {} mtu {MTU_BYTES} type veth peer name {} netns {} \
             mtu {MTU_BYTES}",
            pod.namespace(),
            pod.host_interface(),
            pod.node().namespace(),
        );
    }
    script
}

fn configure_fabric(cluster: &ClusterSpec) -> Result<()> {
    let fabric = NetNs::open(&cluster.fabric_namespace())?;
    let mut script = format!(
        "link add br0 mtu {MTU_BYTES} type bridge stp_state 0 forward_delay 0\nlink set br0 up\n\
         link add gw0 mtu {MTU_BYTES} type veth peer name {GATEWAY_PORT} mtu {MTU_BYTES}\n\
         link set {GATEWAY_PORT} master br0 up\n\
         address add {}/24 dev gw0\nlink set gw0 up\n",
        cluster.gateway()
    );
    let mut ports = vec!["gw0".to_owned(), GATEWAY_PORT.to_owned()];
    for node in cluster.nodes() {
        let port = node.fabric_port();
        let _ = write!(
            script,
            "link set {port} master br0 up\nroute add {}/24 via {} dev gw0\n",
            node.plain_network(),
            node.underlay()
        );
        ports.push(port);
    }
    configure(&fabric, Role::Router, &script)?;
    nic::give_real_qdisc(
        &fabric,
        &ports.iter().map(String::as_str).collect::<Vec<_>>(),
    )
}

fn configure_node(node: &NodeSpec) -> Result<()> {
    let namespace = NetNs::open(&node.namespace())?;
    let underlay = node.underlay();
    let mut script = format!(
        "link set nic0 up\naddress add {underlay}/24 dev nic0\n\
         route add default via {} dev nic0\n",
        node.cluster().gateway()
    );
    for neighbour in node
        .cluster()
        .nodes()
        .filter(|other| other.name != node.name)
    {
        for network in [neighbour.pod_network(), neighbour.plain_network()] {
            let next_hop = neighbour.underlay();
            let _ = writeln!(script, "route add {network}/24 via {next_hop} dev nic0");
        }
    }
    let interfaces: Vec<String> = node.pods().map(PodSpec::host_interface).collect();
    let gateways = match node.cluster().pod_network {
        PodNetwork::Routes => {
            script += &routes_to_pods(node);
            interfaces
        }
        PodNetwork::Bridge => {
            script += &bridge_of_pods(node, &interfaces);
            vec![POD_BRIDGE.to_owned()]
        }
    };
    configure(&namespace, Role::Router, &script)?;
    namespace.enter(|| {
        gateways
            .iter()
            .try_for_each(|name| answer_for_gateway(name))
    })??;
    nic::give_real_qdisc(&namespace, &["nic0"])?;
    nic::steer_receive(&namespace)?;
    nic::set_offload(&namespace, "nic0", &[("gro", true)])
}

fn routes_to_pods(node: &NodeSpec) -> String {
    let underlay = node.underlay();
    let mut script = String::new();
    for pod in node.pods() {
        let interface = pod.host_interface();
        let _ = writeln!(script, "link set {interface} up");
        for address in [pod.pod_address(), pod.plain_address()] {
            let _ = writeln!(
                script,
                "route add {address}/32 dev {interface} src {underlay}"
            );
        }
    }
    script
}

fn bridge_of_pods(node: &NodeSpec, interfaces: &[String]) -> String {
    let mut script = format!(
        "link add {POD_BRIDGE} mtu {MTU_BYTES} type bridge stp_state 0 forward_delay 0\n\
         link set {POD_BRIDGE} up\n"
    );
    for network in [node.pod_network(), node.plain_network()] {
        let underlay = node.underlay();
        let _ = writeln!(
            script,
            "route add {network}/24 dev {POD_BRIDGE} src {underlay}"
        );
    }
    for interface in interfaces {
        let _ = writeln!(script, "link set {interface} master {POD_BRIDGE} up");
    }
    script
}

fn configure_pod(pod: &PodSpec) -> Result<()> {
    let namespace = NetNs::open(&pod.namespace())?;
    let (pod_address, plain_address) = (pod.pod_address(), pod.plain_address());
    let prefix_length = match pod.node().cluster().pod_network {
        PodNetwork::Routes => 32,
        // Pods of one node see each other on the bridge.
        PodNetwork::Bridge => 24,
    };
    // The pod's own address is the source it sends from; the plain one only answers.
    let script = format!(
        "link set eth0 up\naddress add {pod_address}/{prefix_length} dev eth0\n\
         address add {plain_address}/{prefix_length} dev eth0\n\
         route add {POD_GATEWAY}/32 dev eth0 scope link\n\
         route add 10.200.0.0/14 via {POD_GATEWAY} dev eth0 src {plain_address}\n\
         route add default via {POD_GATEWAY} dev eth0 src {pod_address}\n"
    );
    configure(&namespace, Role::Host, &script)?;
    nic::steer_receive(&namespace)
}

/// What a namespace does with packets of others.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Router,
    Host,
}

/// Gives a namespace the stack options of its role and runs the `ip -batch` script in it.
pub(crate) fn configure(namespace: &NetNs, role: Role, script: &str) -> Result<()> {
    namespace.enter(|| set_stack_options(role))??;
    ip(Some(namespace), script)
}

fn set_stack_options(role: Role) -> Result<()> {
    // IPv4 only, so that neighbour discovery does not appear in the counters.
    sysctl("ipv6/conf/all/disable_ipv6", "1")?;
    sysctl("ipv6/conf/default/disable_ipv6", "1")?;
    // Nothing but our programs may stop a forged source, or tests about it would prove nothing.
    sysctl("ipv4/conf/all/rp_filter", "0")?;
    sysctl("ipv4/conf/default/rp_filter", "0")?;
    if role == Role::Router {
        sysctl("ipv4/conf/all/send_redirects", "0")?;
        sysctl("ipv4/conf/default/send_redirects", "0")?;
        sysctl("ipv4/ip_forward", "1")?;
        // A guard route's "unreachable" must answer every packet, not six in a burst.
        sysctl("ipv4/icmp_ratelimit", "0")?;
    }
    Ok(())
}

/// Lets an interface of the calling thread's namespace answer for every address.
pub(crate) fn answer_for_gateway(interface: &str) -> Result<()> {
    sysctl(&format!("ipv4/conf/{interface}/proxy_arp"), "1")?;
    // Without it the kernel delays each answer by up to 0.8 s.
    sysctl(&format!("ipv4/neigh/{interface}/proxy_delay"), "0")
}

/// Sets a /proc/sys/net value of the calling thread's network namespace.
fn sysctl(name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/{name}");
    match fs::write(&path, value) {
        // A kernel without IPv6 has none of its settings.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && name.starts_with("ipv6") => {
            Ok(())
        }
        result => result.with_context(|| format!("cannot write {value} to {path}")),
    }
}

/// Runs `ip -batch` on the script, inside the namespace or outside of all.
pub(crate) fn ip(namespace: Option<&NetNs>, script: &str) -> Result<()> {
    batch("ip", &["-batch", "-"], namespace, script)
}

/// Runs a program of iproute2 over many commands at once: a process per command is what makes
/// building a lab slow.
pub(crate) fn batch(
    program: &str,
    arguments: &[&str],
    namespace: Option<&NetNs>,
    script: &str,
) -> Result<()> {
    let mut command = match namespace {
        Some(namespace) => namespace.command(program),
        None => Command::new(program),
    };
    let place = namespace.map_or("the machine's own namespace", NetNs::name);
    let mut child = command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {program} in {place}"))?;
    let mut stdin = child.stdin.take().context("stdin was piped")?;
    stdin.write_all(script.as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{program} in {place}: {}\nscript:\n{script}",
            complaint.trim()
        );
    }
    Ok(())
}
