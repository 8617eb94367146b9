//! `delivery: Stack`: the host's stack delivers, whatever it thinks of reverse paths; its firewall sees
//! what comes, and one that tracks connections must be told.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use slice_tests::child::poll_until;
use slice_tests::harness::Scene;
use slice_tests::lab::{Lab, Node, Pod};
use slice_tests::live::{Mailbox, PacketFilter, StackSetting, expect_drops, meet};
use slice_tests::netns::NetNs;

use crate::reconfigure::with_configuration;
use crate::segments::{exchange, stream_until};
use crate::{OPEN_PORT, echo, pods, same, slice_address};

pub(crate) const SCENES: &[Scene] = &[
    ("the_stack_delivers_what_its_slice_sends", delivered),
    (
        "without_a_way_back_reverse_path_filtering_loses_everything",
        without_a_way_back,
    ),
    (
        "a_firewall_of_the_node_judges_what_the_stack_delivers",
        filtered,
    ),
    ("connection_tracking_sees_one_way_only", tracked),
    (
        "a_neighbour_that_answers_in_a_pods_name_gets_nothing_of_what_the_stack_delivers",
        in_a_pods_name,
    ),
];

/// One whose node routes to its pods and one whose node has them on a bridge, and a neighbour of each.
const RECEIVERS: [(&str, [&str; 2]); 2] = [
    ("kafka-0", ["kafka-1", "kafka-0"]),
    ("kafka-2", ["kafka-0", "producer-0"]),
];
const BROKER_PORT: u16 = 9092;
const LIMIT: Duration = Duration::from_secs(10);
/// More than fits one packet.
const LONG_DATAGRAM_BYTES: usize = 9_000;

fn by_stack(text: &str) -> String {
    let (before, kafka) = text.split_once("name: kafka\n").unwrap_or((text, ""));
    let kafka = kafka.replacen("spec:\n", "spec:\n  delivery: Stack\n", 1);
    format!("{before}name: kafka\n{kafka}")
}

/// Plays while the stack of the pod's node delivers for the pod's slice.
fn while_by_stack(
    lab: &Lab,
    pod: &str,
    play: impl FnOnce(&Pod, &Node) -> Result<()>,
) -> Result<()> {
    let pod = lab.pod(pod)?;
    let node = lab.node(pod.node)?;
    with_configuration(lab, pod.node, by_stack, || play(&pod, &node))
}

fn delivered(lab: &Lab) -> Result<()> {
    for (receiver, senders) in RECEIVERS {
        while_by_stack(lab, receiver, |pod, node| {
            for rp_filter in ["0", "1", "2"] {
                let _strict = match rp_filter {
                    "0" => None,
                    value => Some(reverse_path_filter(node, value)?),
                };
                for sender in senders {
                    let sender = lab.pod(sender)?;
                    talk(lab, &sender, pod).with_context(|| {
                        format!("{} to {}, rp_filter {rp_filter}", sender.name, pod.name)
                    })?;
                }
            }
            Ok(())
        })?;
    }
    // In bulk, merged and cut.
    while_by_stack(lab, "kafka-0", |pod, _| {
        exchange(lab, "kafka-1", "kafka-0")?;
        stream_until(&lab.pod("kafka-1")?, pod, || Ok(true))?;
        stream_until(pod, &lab.pod("kafka-1")?, || Ok(true))
    })
}

/// `all` counts for every interface, the strictest of both; so it is strict at pods and underlay too.
fn reverse_path_filter(node: &Node, value: &str) -> Result<StackSetting> {
    StackSetting::set(&node.netns, "ipv4/conf/all/rp_filter", value)
}

/// TCP from both sides, datagrams small and in parts, echo; the stack of the receiver's node sees all that
/// comes, from the sender's name to the pod's address.
fn talk(lab: &Lab, from: &Pod, to: &Pod) -> Result<()> {
    let node = lab.node(to.node)?;
    let (near, far) = (slice_address(from)?, slice_address(to)?);
    learn_size(from, to)?;
    let seen = PacketFilter::of(&node.netns, &counting("seen", near, to.pod_address, ""))?;
    expect_drops(lab, &[], || {
        let meeting = meet(&from.netns, &to.netns, (far, BROKER_PORT))?;
        let own = if from.name == to.name { far } else { near };
        same("client", &meeting.client, &own)?;
        same("echo", &echo(from, far)?, &1)?;
        let begins = |port| meet(&to.netns, &from.netns, (near, port));
        if from.name.starts_with("kafka") {
            begins(BROKER_PORT)?;
            letters(from, to, far)?;
        }
        Ok(())
    })?;
    let packets = seen.packets("seen")?;
    ensure!(packets >= 5, "the stack saw {packets} packets only");
    Ok(())
}

/// The first datagram that is too long for the path to another node is lost, and its sender told what fits:
/// a socket that is still there to hear it.
fn learn_size(from: &Pod, to: &Pod) -> Result<()> {
    if from.node == to.node {
        return Ok(());
    }
    let far = slice_address(to)?;
    let mailbox = Mailbox::open(&from.netns, OPEN_PORT + 2)?;
    mailbox.send((far, OPEN_PORT + 2), &[7; LONG_DATAGRAM_BYTES])?;
    let learnt = poll_until(LIMIT, || {
        let mut command = from.netns.command("ip");
        let route = command.args(["route", "get", &far.to_string()]).output()?;
        let route = String::from_utf8_lossy(&route.stdout).into_owned();
        Ok(route.contains("mtu 1450").then_some(()))
    })?;
    learnt.context("nobody said what fits")
}

fn letters(from: &Pod, to: &Pod, far: Ipv4Addr) -> Result<()> {
    let at_pod = Mailbox::open(&to.netns, OPEN_PORT)?;
    let asks = Mailbox::open(&from.netns, OPEN_PORT + 1)?;
    for bytes in [10, LONG_DATAGRAM_BYTES] {
        let letter = vec![7; bytes];
        asks.send((far, OPEN_PORT), &letter)?;
        let (sender, arrived) = at_pod.receive()?;
        same("letter", &(arrived == letter), &true)?;
        at_pod.send((*sender.ip(), sender.port()), b"an answer")?;
        same("answer", &asks.receive()?.1, &b"an answer".to_vec())?;
    }
    Ok(())
}

/// Rules that count what is forwarded from one address to another by the tunnel's device, after `also`.
fn counting(counter: &str, from: Ipv4Addr, to: Ipv4Addr, also: &str) -> String {
    format!(
        "counter {counter} {{ }}; chain forward {{ type filter hook forward priority 0; \
         iifname \"sliceplane0\" ip saddr {from} ip daddr {to} counter name \"{counter}\" {also}; }}"
    )
}

/// What the agent tells the host is what makes the difference.
fn without_a_way_back(lab: &Lab) -> Result<()> {
    let [kafka_1] = pods(lab, ["kafka-1"])?;
    while_by_stack(lab, "kafka-0", |pod, node| {
        let _strict = reverse_path_filter(node, "1")?;
        let far = slice_address(pod)?;
        same("with a way back", &echo(&kafka_1, far)?, &1)?;
        {
            // Whoever asks for the way from a pod's address is told what everybody else is: that slice addresses
            // lead nowhere. The agent would put back what was taken away.
            let _first = Rule::add(node, &format!("from {}/32 lookup 6085", pod.pod_address))?;
            same("without", &echo(&kafka_1, far)?, &0)?;
        }
        same("with it again", &echo(&kafka_1, far)?, &1)
    })
}

/// A rule of the host's that pods' programs go past, unless the stack delivers.
fn filtered(lab: &Lab) -> Result<()> {
    let [kafka_0, kafka_1] = pods(lab, ["kafka-0", "kafka-1"])?;
    let node = lab.node(kafka_0.node)?;
    let (near, far) = (slice_address(&kafka_1)?, slice_address(&kafka_0)?);
    let refusing = "drop";
    let rules = counting("refused", near, kafka_0.pod_address, refusing);
    {
        let filter = PacketFilter::of(&node.netns, &rules)?;
        meet(&kafka_1.netns, &kafka_0.netns, (far, BROKER_PORT)).context("past the stack")?;
        same("refused", &filter.packets("refused")?, &0)?;
    }
    while_by_stack(lab, "kafka-0", |_, node| {
        same("not vacuous", &echo(&kafka_1, far)?, &1)?;
        let filter = PacketFilter::of(&node.netns, &rules)?;
        same("echo", &echo(&kafka_1, far)?, &0)?;
        same("refused", &filter.packets("refused")?, &1)
    })
}

/// Measured rather than guessed: what connection tracking makes of traffic whose answers it never sees.
fn tracked(lab: &Lab) -> Result<()> {
    const DROPS_INVALID: &str = "counter invalid { }; chain forward { type filter hook forward \
        priority 0; ct state invalid counter name \"invalid\" drop; }";
    const UNTRACKED: &str = "chain first { type filter hook prerouting priority raw; iifname \"sliceplane0\" notrack; }";
    let [kafka_1] = pods(lab, ["kafka-1"])?;
    let near = slice_address(&kafka_1)?;
    while_by_stack(lab, "kafka-0", |pod, node| {
        let far = slice_address(pod)?;
        let comes = || meet(&kafka_1.netns, &pod.netns, (far, BROKER_PORT));
        let goes = || meet(&pod.netns, &kafka_1.netns, (near, BROKER_PORT));
        {
            let filter = PacketFilter::of(&node.netns, DROPS_INVALID)?;
            learn_size(&kafka_1, pod)?;
            letters(&kafka_1, pod, far).context("datagrams are never invalid")?;
            same("echo", &echo(&kafka_1, far)?, &1)?;
            same("invalid", &filter.packets("invalid")?, &0)?;
            ensure!(comes().is_err(), "a connection from the peer stands");
            let after_one = filter.packets("invalid")?;
            ensure!(after_one > 0, "nothing was invalid");
            ensure!(goes().is_err(), "a connection to the peer stands");
            ensure!(
                filter.packets("invalid")? > after_one,
                "nothing was invalid"
            );
        }
        let filter = PacketFilter::of(&node.netns, &format!("{DROPS_INVALID}; {UNTRACKED}"))?;
        comes().context("from the peer, untracked")?;
        goes().context("to the peer, untracked")?;
        same("invalid", &filter.packets("invalid")?, &0)
    })
}

/// A stranger behind the same bridge has kafka-2's address too, and the host heard it answer ARP for it.
fn in_a_pods_name(lab: &Lab) -> Result<()> {
    let [kafka_0, thief] = pods(lab, ["kafka-0", "stranger-2"])?;
    while_by_stack(lab, "kafka-2", |pod, node| {
        let far = slice_address(pod)?;
        let _answers = InItsName::take(node, &thief, pod)?;
        let at_pod = Mailbox::open(&pod.netns, OPEN_PORT)?;
        let at_thief = Mailbox::open(&thief.netns, OPEN_PORT)?;
        let asks = Mailbox::open(&kafka_0.netns, OPEN_PORT + 1)?;
        let send = |letter: &[u8]| asks.send((far, OPEN_PORT), letter);
        {
            // By the host's own routes and neighbours, as everything else for that address goes.
            let _by_address = Rule::add(node, "iif sliceplane0 lookup main")?;
            send(b"by address")?;
            let (_, stolen) = at_thief.receive().context("not vacuous")?;
            same("stolen", &stolen, &b"by address".to_vec())?;
        }
        send(b"by interface")?;
        same("got", &at_pod.receive()?.1, &b"by interface".to_vec())?;
        same("nothing else for the thief", &at_thief.is_empty()?, &true)?;
        same("known", &is_neighbour_known(pod, node)?, &true)
    })?;
    let pod = lab.pod("kafka-2")?;
    let node = lab.node(pod.node)?;
    same("forgotten", &is_neighbour_known(&pod, &node)?, &false)
}

/// Whether the pod's link-layer address is written down at its own interface.
fn is_neighbour_known(pod: &Pod, node: &Node) -> Result<bool> {
    let shown = run(&node.netns, &format!("neigh show dev p-{}", pod.name))?;
    Ok(shown.contains("PERMANENT"))
}

struct InItsName<'a> {
    node: &'a Node,
    thief: &'a Pod,
    pod: &'a Pod,
}

impl<'a> InItsName<'a> {
    fn take(node: &'a Node, thief: &'a Pod, pod: &'a Pod) -> Result<Self> {
        let address = pod.pod_address;
        run(&thief.netns, &format!("address add {address}/32 dev eth0"))?;
        let taken = Self { node, thief, pod };
        taken.answers(thief)?;
        Ok(taken)
    }

    /// What the host takes from an answer to ARP.
    fn answers(&self, who: &Pod) -> Result<()> {
        let link = run(&who.netns, "-br link show dev eth0")?;
        let own = link.split_whitespace().nth(2).context("no link address")?;
        let address = self.pod.pod_address;
        let heard = format!("neigh replace {address} lladdr {own} dev cni0 nud reachable");
        run(&self.node.netns, &heard).map(drop)
    }
}

impl Drop for InItsName<'_> {
    fn drop(&mut self) {
        let address = self.pod.pod_address;
        let given_back = format!("address del {address}/32 dev eth0");
        let given_back = run(&self.thief.netns, &given_back).map(drop);
        if let Err(error) = given_back.and(self.answers(self.pod)) {
            eprintln!("{error:#}");
        }
    }
}

/// A routing rule before all of ours.
struct Rule<'a> {
    node: &'a Node,
    rule: String,
}

impl<'a> Rule<'a> {
    fn add(node: &'a Node, rule: &str) -> Result<Self> {
        let rule = format!("priority 50 {rule}");
        run(&node.netns, &format!("rule add {rule}"))?;
        Ok(Self { node, rule })
    }
}

impl Drop for Rule<'_> {
    fn drop(&mut self) {
        if let Err(error) = run(&self.node.netns, &format!("rule del {}", self.rule)) {
            eprintln!("{error:#}");
        }
    }
}

fn run(netns: &NetNs, arguments: &str) -> Result<String> {
    let mut command = netns.command("ip");
    let output = command.args(arguments.split(' ')).output()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {arguments}: {complaint}");
    Ok(String::from_utf8(output.stdout)?)
}
