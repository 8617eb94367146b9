//! What each field of the configuration means, for the reference.

/// The fields of one object.
#[derive(Clone, Copy, Debug)]
pub struct Object {
    /// The type in `unchecked`.
    pub type_name: &'static str,
    /// Where it stands, for a person.
    pub title: &'static str,
    pub fields: &'static [Field],
}

/// One field.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    pub name: &'static str,
    /// `required`, or what absence means.
    pub default: &'static str,
    pub text: &'static str,
}

const REQUIRED: &str = "required";

const fn field(name: &'static str, default: &'static str, text: &'static str) -> Field {
    Field {
        name,
        default,
        text,
    }
}

/// Every object that a document can hold, outermost first.
pub const OBJECTS: &[Object] = &[
    Object {
        type_name: "NodeDocument",
        title: "Node: this host",
        fields: &[
            field("kind", REQUIRED, "`Node`."),
            field(
                "cluster",
                REQUIRED,
                "Name of the cluster that this host belongs to.",
            ),
            field(
                "name",
                REQUIRED,
                "Name of this host, unique in its cluster.",
            ),
            field("underlay", REQUIRED, "How other nodes reach this one."),
            field(
                "endpoints",
                "none",
                "Pods of this host that belong to a slice.",
            ),
            field(
                "blocks",
                "none",
                "Blocks of slice addresses that this node owns.",
            ),
            field(
                "peers",
                "none",
                "Other nodes, of the same cluster or of another one.",
            ),
            field(
                "gateway",
                "`false`",
                "`true`: this node passes slice packets on between other nodes.",
            ),
            field(
                "remotes",
                "none",
                "Other clusters, as far as they are reached through gateways.",
            ),
            field(
                "uplinks",
                "none",
                "Links by which packets leave the cluster, as far as slices have a ceiling there.",
            ),
        ],
    },
    Object {
        type_name: "UnderlayFields",
        title: "Node: `underlay`",
        fields: &[
            field(
                "address",
                REQUIRED,
                "IPv4 address of this node; it must be on `interface`.",
            ),
            field(
                "interface",
                REQUIRED,
                "Interface that tunnel packets leave and enter by.",
            ),
            field(
                "port",
                "6085",
                "UDP port of the tunnel, the same on every node.",
            ),
            field(
                "earlyDrop",
                "Auto",
                "Whether the interface's driver drops the tunnel packets of strangers (`underlay_filter`, XDP \
                 in native mode). `Auto`: on hardware that can and gives up no receive offload for it. `On`: \
                 wherever it can be done, veth included, and the node is degraded where it cannot. `Off`: \
                 never. A driver may pause for a moment when the program comes or goes.",
            ),
            field(
                "guarded",
                "every one that leads out",
                "The interfaces, beside `interface`, by which nothing leaves for a tunnel's port or, bare, \
                 for a slice address (`underlay_guard`). When absent: hardware, VLANs, bonds, teams, \
                 macvlans and ipvlans, and veths that have the address of a network and are no pod's. One that is \
                 not there yet is guarded when it appears.",
            ),
        ],
    },
    Object {
        type_name: "EndpointFields",
        title: "Node: `endpoints[]`",
        fields: &[
            field("slice", REQUIRED, "Name of a Slice document."),
            field(
                "namespace",
                REQUIRED,
                "Namespace of the pod; rules name it.",
            ),
            field("name", REQUIRED, "Name of the pod."),
            field("interface", REQUIRED, "Host side of the pod's veth pair."),
            field("address", REQUIRED, "The pod's own IPv4 address."),
            field(
                "sliceAddress",
                REQUIRED,
                "Its address inside the slice, from a block of this node for that slice and \
                 namespace. Mode Native: the same as `address`.",
            ),
            field(
                "labels",
                "none",
                "The pod's labels, by which classes know it (`podLabels`).",
            ),
        ],
    },
    Object {
        type_name: "ElsewhereFields",
        title: "Node: `peers[].endpoints[]` and `remotes[].endpoints[]`",
        fields: &[
            field("slice", REQUIRED, "Name of a Slice document."),
            field("namespace", REQUIRED, "Namespace of the pod."),
            field("name", REQUIRED, "Name of the pod."),
            field(
                "sliceAddress",
                REQUIRED,
                "Its address inside the slice, from a block of the same `peers` or `remotes` entry.",
            ),
            field(
                "labels",
                "none",
                "The pod's labels, by which classes know it (`podLabels`).",
            ),
        ],
    },
    Object {
        type_name: "BlockFields",
        title: "Node: `blocks[]`, `peers[].blocks[]` and `remotes[].blocks[]`",
        fields: &[
            field("slice", REQUIRED, "Name of a Slice document."),
            field(
                "namespace",
                REQUIRED,
                "Namespace that the addresses belong to.",
            ),
            field(
                "prefix",
                REQUIRED,
                "IPv4 prefix inside the slice's ranges that no other block overlaps. Mode Native: \
                 one pod's address with length 32.",
            ),
        ],
    },
    Object {
        type_name: "PeerFields",
        title: "Node: `peers[]`",
        fields: &[
            field("cluster", REQUIRED, "Name of the peer's cluster."),
            field("name", REQUIRED, "Name of the peer, unique in its cluster."),
            field("underlay", REQUIRED, "The peer's underlay address."),
            field(
                "mtu",
                "MTU of the underlay interface",
                "Largest IPv4 packet in bytes on the way to the peer, 576 to 65535.",
            ),
            field(
                "blocks",
                "none",
                "Blocks of slice addresses that the peer owns.",
            ),
            field(
                "endpoints",
                "none",
                "Pods in these blocks. Needed only of those whose labels put them into a class.",
            ),
            field(
                "fellow",
                "false",
                "The peer is another gateway of this gateway's cluster: it gets what this one has no way for.",
            ),
        ],
    },
    Object {
        type_name: "RemoteFields",
        title: "Node: `remotes[]`",
        fields: &[
            field(
                "cluster",
                REQUIRED,
                "Name of a cluster that this node does not belong to.",
            ),
            field(
                "gateways",
                REQUIRED,
                "The peers that lead there, as `cluster/name`, in order of preference; 1 to 7 of \
                 one cluster. A member names the gateways of its own cluster, a gateway those of \
                 the other cluster, or of one between the two. They alone may deliver packets from \
                 these blocks.",
            ),
            field(
                "blocks",
                "none",
                "Blocks of slice addresses behind them; those that a peer owns stay with the peer.",
            ),
            field(
                "endpoints",
                "none",
                "Pods in these blocks. Needed only of those whose labels put them into a class.",
            ),
        ],
    },
    Object {
        type_name: "UplinkFields",
        title: "Node: `uplinks[]`",
        fields: &[
            field(
                "name",
                REQUIRED,
                "Name of the link; overrides of rates name it, and no cluster is called so.",
            ),
            field(
                "interface",
                REQUIRED,
                "The interface that leads to it: the underlay's.",
            ),
            field(
                "rate",
                REQUIRED,
                "What is paid for, in bits per second, as a Kubernetes quantity: `200M`, `1.5G`, `100Mi`; \
                 8k to 400G. It counts everything that an Ethernet link carries, gaps between frames too.",
            ),
            field(
                "nodes",
                "1",
                "How many nodes send by this link to other clusters, this one among them. Each may send an \
                 equal part of `rate` and of the slices' rates. Gateways that only stand in for each other \
                 count as one, if every node names the same one first and they have no pods of these slices.",
            ),
            field(
                "shaper",
                "`Auto`",
                "What keeps packets to their time: `Edt` (`fq` holds each until its departure), `Htb` (classes \
                 of `htb` hold what is not urgent), `Vq` (nothing: what would wait too long is dropped). `Auto` is the \
                 first of these that kernel and device have. What somebody configured at the interface's root stays; \
                 where what is asked for cannot be had, packets go as with `Vq`, and the agent says so.",
            ),
            field(
                "lending",
                "nothing is lent",
                "The nodes that send by this link lend each other what they do not use of their parts, never more than \
                 the ceiling in sum.",
            ),
        ],
    },
    Object {
        type_name: "LendingFields",
        title: "Node: `uplinks[].lending`",
        fields: &[
            field(
                "partners",
                REQUIRED,
                "Where the agents of other nodes that send by the link listen (`--listen`), as `192.0.2.12:9464`; at most \
                 `nodes` less one, and each lists this node too, by the address that it asks from.",
            ),
            field(
                "tokenFile",
                REQUIRED,
                "A file on this host with a secret of 16 to 1024 visible characters, the same on all of these nodes. It is \
                 read with each configuration (SIGHUP too), and should be readable by root only.",
            ),
        ],
    },
    Object {
        type_name: "SliceDocument",
        title: "Slice",
        fields: &[
            field("kind", REQUIRED, "`Slice`."),
            field("metadata", REQUIRED, "Its name."),
            field(
                "id",
                REQUIRED,
                "Number on the wire, 1 to 2097150, the same on every node.",
            ),
            field("spec", REQUIRED, "What the slice is."),
        ],
    },
    Object {
        type_name: "MetadataFields",
        title: "Slice: `metadata`",
        fields: &[field("name", REQUIRED, "Name of the slice.")],
    },
    Object {
        type_name: "SpecFields",
        title: "Slice: `spec`",
        fields: &[
            field("addressing", REQUIRED, "Where slice addresses come from."),
            field(
                "isolation",
                "`{level: Slice}`",
                "Who outside the slice reaches its pods.",
            ),
            field(
                "policy",
                "everything denied",
                "Who inside the slice may talk to whom.",
            ),
            field(
                "qos",
                "one class",
                "Traffic classes, and what they may send.",
            ),
            field(
                "encryption",
                REQUIRED,
                "`{mode: None}`: there is no other mode yet.",
            ),
            field(
                "acceptPlaintext",
                REQUIRED,
                "`true`: traffic is not encrypted, and you know.",
            ),
            field(
                "delivery",
                "`Peer`",
                "How packets of the slice get into the pods of this node. `Peer`: straight to the pod's \
                 end of its veth, past the host's stack. `Stack`: the host's stack routes them, as if \
                 they came in by the device `sliceplane0`, from the sender's slice address to the pod's \
                 own; so its firewall sees them, and one that tracks connections must be told: see \
                 [decision 015](../decisions/015-delivery-by-the-stack.md). What pods send never passes \
                 the stack.",
            ),
        ],
    },
    Object {
        type_name: "AddressingFields",
        title: "Slice: `spec.addressing`",
        fields: &[
            field(
                "mode",
                REQUIRED,
                "`Mapped`: pods get addresses from `ranges` inside the slice, so pod networks of \
                 clusters may overlap. `Native`: pods keep their own addresses.",
            ),
            field(
                "ranges",
                "none",
                "Mode Mapped: IPv4 prefixes that belong to this slice alone and that no network of \
                 any node overlaps. Mode Native: must be absent.",
            ),
        ],
    },
    Object {
        type_name: "IsolationFields",
        title: "Slice: `spec.isolation`",
        fields: &[
            field(
                "level",
                REQUIRED,
                "`Slice`: others cannot open connections to the slice's pods by their pod \
                 addresses; the node itself can. `Open`: they can. `Strict`: as `Slice`, and the \
                 pods themselves may begin nothing outside but with their node, `dns` and \
                 `toOutside`, and nothing at all but by IPv4.",
            ),
            field(
                "fromOutside",
                "none",
                "Levels Slice and Strict: who outside may begin all the same.",
            ),
            field(
                "toOutside",
                "none",
                "Level Strict: whom outside the pods may begin with, as their packets name them \
                 (a service's own address, not its pods').",
            ),
            field(
                "dns",
                "`[0.0.0.0/0]`",
                "Level Strict: name servers that the pods may ask, by UDP and TCP port 53; `[]` for \
                 none.",
            ),
        ],
    },
    Object {
        type_name: "OutsideFields",
        title: "Slice: `spec.isolation.fromOutside[]`, `spec.isolation.toOutside[]`",
        fields: &[
            field("addresses", REQUIRED, "IPv4 prefixes of those outside."),
            field(
                "ports",
                "TCP, UDP and ICMP",
                "Protocols and ports that are called; a range counts as many entries as it has \
                 ports.",
            ),
        ],
    },
    Object {
        type_name: "PolicyFields",
        title: "Slice: `spec.policy`",
        fields: &[
            field(
                "defaultAction",
                "`Deny`",
                "`Allow` or `Deny` for what no rule matches.",
            ),
            field("rules", "none", "Rules; the first that matches decides."),
        ],
    },
    Object {
        type_name: "RuleFields",
        title: "Slice: `spec.policy.rules[]`",
        fields: &[
            field("name", REQUIRED, "Name of the rule, unique in the slice."),
            field("action", REQUIRED, "`Allow` or `Deny`."),
            field(
                "from",
                REQUIRED,
                "Namespaces that open the conversation, or `[\"*\"]`.",
            ),
            field("to", REQUIRED, "Namespaces that are called, or `[\"*\"]`."),
            field(
                "ports",
                "every protocol",
                "Protocols and ports that are called.",
            ),
        ],
    },
    Object {
        type_name: "TrafficFields",
        title: "Slice: `ports[]` of a rule",
        fields: &[
            field("protocol", REQUIRED, "`TCP`, `UDP` or `ICMP` (echo)."),
            field("port", "all ports", "`9092` or `9090-9092`; not with ICMP."),
        ],
    },
    Object {
        type_name: "QosFields",
        title: "Slice: `spec.qos`",
        fields: &[
            field(
                "ceiling",
                "not shaped",
                "What the slice sends to other clusters by one uplink, at most; what goes to nodes of the own \
                 cluster does not count. Nodes that send to other clusters themselves need `uplinks`.",
            ),
            field(
                "sliceGuarantee",
                "as `ceiling`",
                "What the slice can send by one uplink whatever other slices send. All slices of an uplink \
                 together are guaranteed no more than its rate.",
            ),
            field(
                "classes",
                "none",
                "At most 7. A class's number on the wire is its position, so append only. Packets of none \
                 are a class too, with nothing guaranteed and weight 1.",
            ),
        ],
    },
    Object {
        type_name: "RatesFields",
        title: "Slice: `spec.qos.ceiling`, `spec.qos.sliceGuarantee`",
        fields: &[
            field(
                "default",
                REQUIRED,
                "Bits per second as a Kubernetes quantity (`200M`).",
            ),
            field(
                "overrides",
                "none",
                "Other rates by name of the sending node's cluster or uplink (`{edge: 18M}`); an uplink's \
                 counts before its cluster's. A name that a node does not know counts for others; it is \
                 doubted there.",
            ),
        ],
    },
    Object {
        type_name: "ClassFields",
        title: "Slice: `spec.qos.classes[]`",
        fields: &[
            field("name", REQUIRED, "Name of the class, unique in the slice."),
            field(
                "match",
                REQUIRED,
                "Ports of the class, or pods, as either end of a conversation; classes may not overlap. A packet \
                 is of the class that has its destination's port, else its source's, else of the class of its pods: \
                 by labels, else by namespace, and between pods of two classes of the one listed first.",
            ),
            field("dscp", "0", "DSCP of the tunnel packets, 0 to 63."),
            field(
                "guaranteePercent",
                "0",
                "Part of the ceiling that the class can send whatever others do. All of them and 10 % for \
                 thin flows are at most 100, and leave every class something.",
            ),
            field(
                "weight",
                "1",
                "Part of what nobody is guaranteed, 1 to 65535.",
            ),
            field(
                "favourInteractive",
                "`true`",
                "Flows of request and answer go before flows that always have more to send.",
            ),
        ],
    },
    Object {
        type_name: "MatchFields",
        title: "Slice: `spec.qos.classes[].match[]`",
        fields: &[
            field(
                "protocol",
                "not by ports",
                "`TCP`, `UDP` or `ICMP` (echo), whichever pod sends.",
            ),
            field("port", "all ports", "`9092` or `9090-9092`; not with ICMP."),
            field(
                "namespaces",
                "every one",
                "Whatever pods of these namespaces send and get; not with ports.",
            ),
            field(
                "podLabels",
                "whatever labels",
                "Whatever pods with all of these labels send and get, of `namespaces` if that is given; not with \
                 ports.",
            ),
        ],
    },
    Object {
        type_name: "EncryptionFields",
        title: "Slice: `spec.encryption`",
        fields: &[field("mode", REQUIRED, "`None`.")],
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde::de::value::Error;
    use serde::de::{Deserializer, Error as _, Visitor};

    use super::*;
    use crate::model::unchecked::*;

    /// Asks a type for the fields it would read, and gives it nothing.
    struct Fields<'a>(&'a mut BTreeMap<String, Vec<&'static str>>);

    impl<'de> Deserializer<'de> for Fields<'_> {
        type Error = Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
            Err(Error::custom("not a struct"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            name: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Error> {
            self.0.insert(name.to_owned(), fields.to_vec());
            Err(Error::custom("seen"))
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    #[test]
    fn every_field_that_is_read_is_described_and_no_other() {
        let mut read = BTreeMap::new();
        macro_rules! see {
            ($($name:ident)*) => {
                $($name::deserialize(Fields(&mut read)).expect_err("nothing was given");)*
            };
        }
        see!(NodeDocument UnderlayFields EndpointFields BlockFields PeerFields RemoteFields);
        see!(UplinkFields LendingFields RatesFields);
        see!(SliceDocument MetadataFields SpecFields AddressingFields IsolationFields);
        see!(PolicyFields RuleFields OutsideFields TrafficFields QosFields ClassFields);
        see!(ElsewhereFields MatchFields);
        see!(EncryptionFields);
        // A type that is missing above is missed here.
        let source = include_str!("unchecked.rs");
        assert_eq!(source.matches("deny_unknown_fields").count(), read.len());

        let described: BTreeMap<String, Vec<&str>> = OBJECTS
            .iter()
            .map(|object| {
                let names = object.fields.iter().map(|field| field.name).collect();
                (object.type_name.to_owned(), names)
            })
            .collect();
        assert_eq!(described, read);
    }
}
