//! What can be wrong with rates and what is promised of them. Each sum is shown, so that nobody has to
//! work out what to change.

use slice_common::shaper::Rate;
use thiserror::Error;

use super::rate::shown;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum QosProblem {
    // Single rates.
    #[error("`{0}` is no rate; write bits per second as a quantity, as in 200M, 1.5G or 100Mi")]
    NotARate(String),
    #[error("`{0}m` is {0} thousandths of a bit per second; write `{0}M` for megabits")]
    Thousandths(String),
    #[error("`{0}` is no whole number of bits per second; round it")]
    NotWhole(String),
    #[error("`{value}` is out of range; a rate is {least} to {most} bits per second")]
    RateOutOfRange {
        value: String,
        least: String,
        most: String,
    },

    // One slice.
    #[error(
        "there is no ceiling that this could be a part of; add one, as in `ceiling: {{default: 200M}}`, or \
         remove this"
    )]
    NoCeiling,
    #[error("{sum} = {total} % of the ceiling of {ceiling}; lower one by {excess} %")]
    GuaranteesAboveCeiling {
        sum: String,
        total: u64,
        ceiling: String,
        excess: u64,
    },

    // A class.
    #[error("`{value}` of class {class} is no percentage; write {remedy}")]
    NotAPercentage {
        value: String,
        class: String,
        remedy: String,
    },
    #[error(
        "`default` is what metrics and `slice-agent status` call packets of no class; give this class another name"
    )]
    NameOfNoClass,
    #[error("the match names nothing; give `protocol` (and `port`), `namespaces` or `podLabels`")]
    EmptyMatch,
    #[error("`port: {port}` is of no protocol; add `protocol: TCP` or `protocol: UDP`")]
    PortOfNoProtocol { port: String },
    #[error(
        "a match names ports or pods, not both: ports count whoever sends, and what a pod is counts for what no port \
         decides; make two matches of it, or take the ports out"
    )]
    PortsAndPods,
    #[error(
        "pod {pod} is of {one} and of {other}; a pod is of one class, so change its labels or one of the matches"
    )]
    TwoClasses {
        pod: String,
        one: String,
        other: String,
    },
    #[error(
        "no pod of slice {slice} that this node knows is {wanted}, so nothing is of class {class} by that here; correct \
         the match, or give the pods their labels in `endpoints` (of this node, of `peers` and of `remotes`)"
    )]
    NoSuchPod {
        slice: String,
        wanted: String,
        class: String,
    },

    // Slices and uplinks.
    #[error(
        "`{name}` is neither an uplink of this node nor a cluster that it knows ({known}), so this counts for others, \
         if for anybody; correct the name, if it is to count here"
    )]
    UnknownOverride { name: String, known: String },
    #[error(
        "`{0}` is also a cluster's name, so an override for it could mean either; rename the uplink"
    )]
    UplinkIsCluster(String),
    #[error(
        "`{interface}` carries no tunnel packets, they all leave by {underlay} (`underlay.interface`); \
         give that one"
    )]
    UplinkElsewhere { interface: String, underlay: String },
    #[error(
        "this node itself sends the slice's packets to another cluster (peer {peer}), and no uplink says \
         by what link; add `uplinks: [{{name: wan, interface: {interface}, rate: 1G}}]` to the Node \
         document, with the rate that is paid for"
    )]
    NoUplink { peer: String, interface: String },
    #[error(
        "the ceiling of {ceiling} is more than the {rate} of uplink {uplink}; lower it, or for this node \
         alone with `overrides: {{{uplink}: {rate}}}`"
    )]
    CeilingAboveUplink {
        ceiling: String,
        rate: String,
        uplink: String,
    },
    #[error(
        "the slice is guaranteed {guarantee} on uplink {uplink}, more than its ceiling of {ceiling} lets \
         it send there; lower the guarantee or raise the ceiling"
    )]
    GuaranteeAboveCeiling {
        guarantee: String,
        ceiling: String,
        uplink: String,
    },
    #[error(
        "{sum} = {total} on uplink {uplink}, which has {rate}: {excess} too much; lower ceilings, or give \
         slices a `sliceGuarantee` below their ceiling"
    )]
    UplinkOversold {
        sum: String,
        total: String,
        rate: String,
        uplink: String,
        excess: String,
    },
    #[error(
        "{sum} = {total} on uplink {uplink}, where the slice is guaranteed {available}: {excess} too much; \
         percentages are of the ceiling, so lower them, or raise `sliceGuarantee` or, where there is none, the ceiling"
    )]
    GuaranteesAboveSliceGuarantee {
        sum: String,
        total: String,
        available: String,
        uplink: String,
        excess: String,
    },
    #[error(
        "{class} could starve: when all classes send on uplink {uplink} it has {sum}, and {least} is the \
         least; {remedy}"
    )]
    Starved {
        class: String,
        uplink: String,
        sum: String,
        least: String,
        remedy: &'static str,
    },
    // Lending.
    #[error(
        "`{0}` is no place where an agent listens; write the partner's address and the port of its `--listen`, as in \
         192.0.2.12:9464"
    )]
    NotAPartner(String),
    #[error(
        "no slice here has a ceiling, so there is nothing to lend or borrow on uplink {0}; add one to a Slice, as in \
         `qos: {{ceiling: {{default: 200M}}}}`, or remove this"
    )]
    LendingOfNothing(String),
    #[error(
        "{address} is {whose}: a partner is a node, and whoever answers there gets to know the token; give the node's own \
         address"
    )]
    PartnerIsPod {
        address: std::net::Ipv4Addr,
        whose: String,
    },
    #[error("{0} is this node itself; a partner is another node that sends by the link")]
    PartnerOfItself(std::net::Ipv4Addr),
    #[error(
        "{address} is {peer}, of another cluster: what it sends leaves by a link of its own as a rule, and what it lends \
         would be sent by this one on top of the ceiling; remove it, unless it sends by this link too"
    )]
    PartnerElsewhere {
        address: std::net::Ipv4Addr,
        peer: String,
    },
    #[error("{0} is a partner already; a partner is known by its address, so list each once")]
    PartnerTwice(std::net::Ipv4Addr),
    #[error(
        "lists {partners} of {others} others: of the nodes that send by the link (`nodes: {nodes}`) this is one; list one \
         at least of the others, or correct `nodes`", others = nodes.saturating_sub(1)
    )]
    NumberOfPartners { partners: usize, nodes: u64 },
    #[error(
        "`{0}` is no path of a file from the root on; write it as in /etc/sliceplane/lending.token"
    )]
    NotAFile(String),
    #[error(
        "{sum} = {total} on uplink {uplink}, which has {rate}: slices have guaranteed parts of it then, and nodes cannot \
         lend those; lower ceilings by {excess}, or remove `lending`"
    )]
    LendingOversold {
        sum: String,
        total: String,
        rate: String,
        uplink: String,
        excess: String,
    },
    #[error(
        "this gateway has pods of slice {slice}, and so has its fellow {fellows}: what they send leaves by their own \
         gateway, whichever one members choose, so each sends by uplink {uplink} up to {sum}; write `nodes: {senders}` on \
         all of them, unless each has a link of its own"
    )]
    GatewaysWithPods {
        slice: String,
        fellows: String,
        uplink: String,
        sum: String,
        senders: u64,
    },
    #[error(
        "packets of slice {slice} are sent to {other}, and to {one}: the first gateways \
         send at the same time, each up to the whole ceiling of {ceiling} where its `uplinks[].nodes` is 1, together {together}; \
         name the same one first, or write `nodes: 2` on both, unless each has a link of its own"
    )]
    GatewaysInTwoOrders {
        slice: String,
        one: String,
        other: String,
        ceiling: String,
        together: String,
    },
    #[error(
        "{rate} on uplink {uplink} is {part} on each of {nodes} nodes, and {least} is the least; raise it"
    )]
    PartTooSmall {
        rate: String,
        uplink: String,
        part: String,
        nodes: u32,
        least: String,
    },
}

impl QosProblem {
    pub(super) fn out_of_range(value: &str) -> Self {
        Self::RateOutOfRange {
            value: value.to_owned(),
            least: shown(Rate::MIN_BPS),
            most: shown(Rate::MAX_BPS),
        }
    }
}
