//! What the agent needs to know of the host: devices, addresses, networks, neighbours.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};
use futures_util::TryStreamExt as _;
use ipnet::Ipv4Net;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkInfo, LinkLayerType, LinkMessage, LinkXdp};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{RouteMessage, RouteType};
use rtnetlink::packet_route::rule::RuleMessage;
use rtnetlink::{Handle, IpVersion, RouteMessageBuilder};
use slice_common::address::Address;
use slice_common::id::TrafficClass;
use slice_common::layout::{QueueClass, ShaperKey, ShaperTerms};
use slice_common::shaper::Room;
use slice_common::wire::vxlan::INNER_DESTINATION_MAC;

use super::{driver, marks, refusals};
use crate::apply::netlink::cause;
use crate::apply::{queueing, routing};
use crate::compile;
use crate::image::{HostFacts, Interface, LinkLayer, MarkRule, NodeImage, Secrets};

/// The kernel's table of local and broadcast addresses (RT_TABLE_LOCAL): no networks.
const LOCAL_TABLE: u32 = 255;

/// Reads the facts of the calling thread's network namespace.
pub async fn facts(netlink: &Handle) -> Result<HostFacts> {
    let mark_rules: BTreeSet<_> = rules(netlink)
        .await?
        .iter()
        .filter_map(marks::mark_rule)
        .collect();
    let mut facts = HostFacts {
        secrets: draw_secrets(&mark_rules)?,
        mark_rules,
        ..HostFacts::default()
    };
    let mut names = BTreeMap::new();
    let mut root_queues = queueing::roots(netlink).await?;
    for link in links(netlink).await? {
        let (name, mut interface) = interface(&link);
        interface.root_queue = root_queues.remove(&interface.ifindex).unwrap_or_default();
        interface.peer_mac = peer_mac(netlink, &link).await;
        names.insert(interface.ifindex, name.clone());
        facts.interfaces.insert(name, interface);
    }
    // Only early drop needs to know.
    if let Err(error) = driver::ask_all(&mut facts.interfaces) {
        tracing::debug!("what the drivers of this host can is not known: {error:#}");
    }
    for address in addresses(netlink).await? {
        let interface = names.get(&address.header.index);
        let interface = interface.and_then(|name| facts.interfaces.get_mut(name));
        if let (Some(interface), Some(network)) = (interface, network(&address)) {
            interface.addresses.insert(network);
        }
    }
    for route in routes(netlink).await? {
        facts.local_networks.extend(local_network(&route));
    }
    for neighbour in neighbours(netlink).await? {
        facts.neighbours.extend(link_layer_address(&neighbour));
    }
    Ok(facts)
}

/// The second one stands in Ethernet addresses: of single stations, locally administered.
fn draw_secrets(mark_rules: &BTreeSet<MarkRule>) -> Result<Secrets> {
    let tunnel_mark =
        marks::draw(getrandom::u32, mark_rules).context("cannot draw a random number")?;
    let mut detour = [0; 8];
    getrandom::fill(&mut detour).context("cannot draw a random number")?;
    for first in [0, 6] {
        detour[first] = detour[first] & 0xfc | 0x02;
    }
    let flow = || getrandom::u32().context("cannot draw a random number");
    Ok(Secrets {
        tunnel_mark,
        flows: [flow()?, flow()?],
        detour: [0, 2, 4, 6].map(|at| u16::from_ne_bytes([detour[at], detour[at + 1]])),
    })
}

/// Keeps what was known before: the host forgets neighbours that it does not talk to, but a pod's
/// address stays while its interface does; secrets are drawn once, unless the host's rules forbid; and clocks stay
/// where they are.
pub fn remember(facts: &mut HostFacts, before: &HostFacts) {
    let present: Vec<u32> = facts.interfaces.values().map(|at| at.ifindex).collect();
    for (at, address) in &before.neighbours {
        if present.contains(&at.0) {
            facts.neighbours.entry(*at).or_insert(*address);
        }
    }
    if before.secrets != Secrets::default() {
        let drawn = facts.secrets.tunnel_mark;
        facts.secrets = before.secrets;
        // The host has a rule since that takes what has this mark. Packets that are between two of our programs at
        // this moment are lost with it; with the old one all are that are routed.
        let is_fit = |mark| marks::fits_no_rule(mark, &facts.mark_rules);
        if !is_fit(before.secrets.tunnel_mark) && is_fit(drawn) {
            facts.secrets.tunnel_mark = drawn;
        }
    }
    facts.clocks.clone_from(&before.clocks);
    facts.backs.clone_from(&before.backs);
    let still = |ifindex: &&u32| present.contains(ifindex);
    facts.filtered.extend(before.filtered.iter().filter(still));
    refusals::remember(facts, before);
}

/// Makes the host ask for a pod's link-layer address (`ip neigh ... use`); the answer is an event.
pub async fn ask_neighbour(netlink: &Handle, ifindex: u32, address: Ipv4Addr) -> Result<()> {
    let request = netlink
        .neighbours()
        .add(ifindex, IpAddr::V4(address))
        .state(NeighbourState::None)
        .flags(NeighbourFlags::Use)
        .replace();
    request
        .execute()
        .await
        .map_err(cause)
        .with_context(|| format!("cannot ask interface #{ifindex} who has {address}"))
}

/// What an earlier agent knew, from the maps that it left, of a host with these interfaces.
pub fn known_in(image: &NodeImage, interfaces: &BTreeMap<String, Interface>) -> HostFacts {
    let known = image
        .local
        .values()
        .filter(|pod| pod.pod_mac != INNER_DESTINATION_MAC);
    // Of a pod behind a bridge the bridge knows it.
    let asked_by = |ifindex| {
        let mut interfaces = interfaces.values();
        let interface = interfaces.find(|interface| interface.ifindex == ifindex);
        interface.map_or(ifindex, compile::asked_by)
    };
    HostFacts {
        secrets: image
            .settings
            .map_or_else(Secrets::default, |settings| Secrets {
                tunnel_mark: settings.tunnel_mark,
                detour: settings.detour_secret,
                flows: settings.flow_secret,
            }),
        neighbours: known
            .map(|pod| ((asked_by(pod.ifindex), pod.pod_address), pod.pod_mac))
            .collect(),
        clocks: image
            .rates
            .iter()
            .map(|(at, terms)| (at.key, terms.place()))
            .collect(),
        backs: backs(image),
        ..HostFacts::default()
    }
}

/// At whose backs packets may wait: of classes that they are sent to, and of those that they were sent to before, as long as
/// some are there.
fn backs(image: &NodeImage) -> BTreeMap<(ShaperKey, TrafficClass), Room> {
    let mut backs = BTreeMap::new();
    for (at, terms) in &image.rates {
        let Some(tree) = image.trees.get(&at.key.ifindex) else {
            continue;
        };
        for class in TrafficClass::all() {
            let back = QueueClass::Back(ShaperTerms::class_clocks(terms.clocks, class)).minor();
            let is_there = tree.classes.contains_key(&back);
            if is_there && (terms.has_class(class) || tree.waiting.contains(&back)) {
                let room = terms.classes[usize::from(class.number())].room();
                backs.insert((at.key, class), room);
            }
        }
    }
    backs
}

async fn links(netlink: &Handle) -> Result<Vec<LinkMessage>> {
    let listed = netlink.link().get().execute().try_collect().await;
    listed
        .map_err(cause)
        .context("cannot list the interfaces of this host")
}

/// The link-layer address of a veth's other end, asked for in the namespace that it is in. Only where the host's
/// stack delivers it matters, so what cannot be read is not known.
async fn peer_mac(netlink: &Handle, link: &LinkMessage) -> Option<[u8; 6]> {
    let (mut peer, mut namespace) = (None, None);
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Link(ifindex) => peer = Some(*ifindex),
            LinkAttribute::LinkNetNsId(id) if *id >= 0 => namespace = Some(*id),
            _ => {}
        }
    }
    let mut request = netlink.link().get().match_index(peer?);
    let attributes = &mut request.message_mut().attributes;
    attributes.push(LinkAttribute::IfNetnsId(namespace?));
    let answer = request.execute().try_next().await.ok()??;
    interface(&answer)
        .1
        .mac
        .iter()
        .any(|byte| *byte != 0)
        .then_some(interface(&answer).1.mac)
}

async fn addresses(netlink: &Handle) -> Result<Vec<AddressMessage>> {
    let listed = netlink.address().get().execute().try_collect().await;
    listed
        .map_err(cause)
        .context("cannot list the addresses of this host")
}

async fn routes(netlink: &Handle) -> Result<Vec<RouteMessage>> {
    let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let listed = netlink.route().get(all).execute().try_collect().await;
    listed
        .map_err(cause)
        .context("cannot list the routes of this host")
}

async fn rules(netlink: &Handle) -> Result<Vec<RuleMessage>> {
    let listed = netlink.rule().get(IpVersion::V4).execute().try_collect();
    listed
        .await
        .map_err(cause)
        .context("cannot list the routing rules of this host")
}

async fn neighbours(netlink: &Handle) -> Result<Vec<NeighbourMessage>> {
    let request = netlink
        .neighbours()
        .get()
        .set_address_family(AddressFamily::Inet);
    let listed = request.execute().try_collect().await;
    listed
        .map_err(cause)
        .context("cannot list the neighbours of this host")
}

fn interface(link: &LinkMessage) -> (String, Interface) {
    let mut name = String::new();
    let mut interface = Interface {
        ifindex: link.header.index,
        link_layer: match link.header.link_layer_type {
            LinkLayerType::Ether => LinkLayer::Ethernet,
            LinkLayerType::Loopback => LinkLayer::Loopback,
            _ => LinkLayer::Other,
        },
        ..Interface::default()
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name.clone_from(text),
            LinkAttribute::Mtu(mtu_bytes) => interface.mtu_bytes = *mtu_bytes,
            LinkAttribute::Address(bytes) => {
                interface.mac = bytes.as_slice().try_into().unwrap_or_default();
            }
            LinkAttribute::Controller(ifindex) => interface.controller_ifindex = *ifindex,
            LinkAttribute::Link(ifindex) => interface.lower_ifindex = *ifindex,
            LinkAttribute::Xdp(facts) => interface.xdp_program = xdp_program(facts),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    if let LinkInfo::Kind(kind) = info {
                        interface.kind = kind.to_string();
                    }
                }
            }
            _ => {}
        }
    }
    (name, interface)
}

/// With programs in several modes the kernel tells one number for each, and no common one.
fn xdp_program(facts: &[LinkXdp]) -> u32 {
    let numbers = facts.iter().map(|fact| match fact {
        LinkXdp::ProgId(id)
        | LinkXdp::DrvProgId(id)
        | LinkXdp::SkbProgId(id)
        | LinkXdp::HwProgId(id) => *id,
        _ => 0,
    });
    numbers.max().unwrap_or(0)
}

/// The interface's own IPv4 address with its network's length.
fn network(message: &AddressMessage) -> Option<Ipv4Net> {
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            // On a point-to-point link `Address` is the other end.
            AddressAttribute::Local(IpAddr::V4(local)) => address = Some(*local),
            AddressAttribute::Address(IpAddr::V4(any)) => address = address.or(Some(*any)),
            _ => {}
        }
    }
    Ipv4Net::new(address?, message.header.prefix_len).ok()
}

/// The destination of a route that is neither a default route, nor an address, nor ours.
fn local_network(route: &RouteMessage) -> Option<Ipv4Net> {
    if routing::is_ours(route) || routing::table(route) == LOCAL_TABLE {
        return None;
    }
    match route.header.kind {
        RouteType::Unicast
        | RouteType::BlackHole
        | RouteType::Unreachable
        | RouteType::Prohibit => routing::destination(route).filter(|net| net.prefix_len() > 0),
        _ => None,
    }
}

fn link_layer_address(message: &NeighbourMessage) -> Option<((u32, Address), [u8; 6])> {
    let usable = !matches!(
        message.header.state,
        NeighbourState::Failed | NeighbourState::Incomplete | NeighbourState::None
    );
    if message.header.family != AddressFamily::Inet || !usable {
        return None;
    }
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(inet)) => address = Some(*inet),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
            _ => {}
        }
    }
    Some(((message.header.ifindex, Address::from(address?)), mac?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use slice_common::layout::{LocalEndpoint, LocalKey};

    #[test]
    fn a_neighbour_that_the_host_forgot_is_remembered_while_its_interface_is_there() {
        let at = |ifindex| (ifindex, Address::from(Ipv4Addr::new(10, 1, 1, 10)));
        let before = HostFacts {
            neighbours: BTreeMap::from([(at(5), [5; 6]), (at(6), [6; 6])]),
            ..HostFacts::default()
        };
        let mut now = HostFacts::default();
        now.interfaces.insert(
            "p-a".into(),
            Interface {
                ifindex: 5,
                ..Interface::default()
            },
        );
        remember(&mut now, &before);
        assert_eq!(now.neighbours, BTreeMap::from([(at(5), [5; 6])]));

        now.neighbours.insert(at(5), [7; 6]);
        remember(&mut now, &before);
        assert_eq!(
            now.neighbours[&at(5)],
            [7; 6],
            "what the host says now wins"
        );
    }

    #[test]
    fn a_mark_is_kept_until_a_rule_notices_it_and_another_one_is_there() {
        let with_mark = |tunnel_mark| HostFacts {
            secrets: Secrets {
                tunnel_mark,
                detour: [tunnel_mark as u16; 4],
                flows: [tunnel_mark; 2],
            },
            ..HostFacts::default()
        };
        let kept = |rules: &[MarkRule]| {
            let mut now = with_mark(0x21);
            now.mark_rules.extend(rules);
            remember(&mut now, &with_mark(0x12));
            assert_eq!(now.secrets.detour, [0x12; 4]);
            assert_eq!(now.secrets.flows, [0x12; 2]);
            now.secrets.tunnel_mark
        };
        let rule = |mark, mask| MarkRule {
            priority: 9,
            mark,
            mask,
        };
        assert_eq!(kept(&[]), 0x12);
        assert_eq!(kept(&[rule(0x30, 0xf0)]), 0x12);
        assert_eq!(kept(&[rule(0x10, 0xf0)]), 0x21, "drawn anew");
        assert_eq!(kept(&[rule(0, 0xff)]), 0x12, "no better than before");
    }

    #[test]
    fn what_an_earlier_agent_knew_of_a_pod_behind_a_bridge_is_known_of_the_bridge() {
        let pod_address = Address::from(Ipv4Addr::new(10, 1, 1, 10));
        let key = LocalKey {
            table: 1,
            address: pod_address,
        };
        let pod = LocalEndpoint {
            ifindex: 5,
            slice: 7,
            namespace: 9,
            pod_address,
            pod_mac: [2, 0, 0, 0, 0, 8],
            flags: 0,
        };
        let mut image = NodeImage::default();
        image.local.insert(key, pod);
        let known = |controller_ifindex| {
            let interface = Interface {
                ifindex: 5,
                controller_ifindex,
                ..Interface::default()
            };
            let interfaces = BTreeMap::from([("p-a".to_owned(), interface)]);
            let known = known_in(&image, &interfaces).neighbours;
            known.into_keys().collect::<Vec<_>>()
        };
        assert_eq!(known(0), [(5, pod_address)]);
        assert_eq!(known(9), [(9, pod_address)]);
    }
}
