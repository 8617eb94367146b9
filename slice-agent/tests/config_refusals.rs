//! Every way in which a configuration can be wrong, and what people are told.
//!
//! Each scene changes one thing in a right configuration; the message is compared as a whole,
//! because the message is what people work with.

mod config_support;

use config_support::{RIGHT, check_text, right_but};

#[test]
fn the_configuration_that_the_scenes_change_is_right() {
    check_text(RIGHT).expect("no mistake");
}

macro_rules! refused {
    ($($name:ident: $old:expr => $new:expr, $message:expr;)*) => {
        $(
            #[test]
            fn $name() {
                let text = right_but(&[($old, $new)]);
                let message = check_text(text).expect_err("a mistake that is noticed");
                assert_eq!(message.trim_end(), $message);
            }
        )*
    };
}

refused! {
    unknown_key:
        "underlay: {address"
        => "underlay: {adress",
        "node.yaml, document 1, line 4: underlay: unknown field `adress`, expected one of \
         `address`, `interface`, `port`, `earlyDrop`, `guarded`; see the configuration reference for the \
         fields and their types";

    unknown_early_drop:
        "underlay: {address"
        => "underlay: {earlyDrop: Always, address",
        "node.yaml, document 1, Node east/east-1, underlay.earlyDrop: `Always` is unknown; early \
         drop is Auto, Off or On";

    unknown_key_deep_inside:
        "dscp: 48}"
        => "dscp: 48, colour: red}",
        "node.yaml, document 2, line 35: spec.qos.classes[0]: unknown field `colour`, expected \
         one of `name`, `match`, `dscp`, `guaranteePercent`, `weight`, `favourInteractive`; see the configuration reference for the fields and \
         their types";

    key_of_a_later_release:
        "  qos:\n"
        => "  topology: {reach: Direct}\n  qos:\n",
        "node.yaml, document 2, line 33: `topology` is not supported yet, so nothing would \
         enforce it; remove it until a release does";

    missing_key:
        "cluster: east\n"
        => "",
        "node.yaml, document 1, line 1: missing field `cluster`; see the configuration \
         reference for the fields and their types";

    wrong_type:
        "id: 7"
        => "id: seven",
        "node.yaml, document 2, line 22: id: invalid type: string \"seven\", expected a whole \
         number, 0 or more; see the configuration reference for the fields and their types";

    negative_number:
        "dscp: 48"
        => "dscp: -1",
        "node.yaml, document 2, line 35: spec.qos.classes[0].dscp: invalid type: integer `-1`, \
         expected a whole number, 0 or more; see the configuration reference for the fields and \
         their types";

    key_given_twice:
        "cluster: east\n"
        => "cluster: east\ncluster: west\n",
        "node.yaml, document 1, line 1: duplicate entry with key \"cluster\"; remove one of the \
         two";

    broken_yaml:
        "underlay: {address: 172.20.1.11, interface: nic0}"
        => "underlay: {address: 172.20.1.11",
        "node.yaml, document 1, line 5: is not YAML: did not find expected ',' or '}' at line 5 \
         column 10, while parsing a flow mapping; check indentation, quotes and colons there";

    unknown_kind:
        "kind: Slice\nmetadata: {name: shop}"
        => "kind: Sliced\nmetadata: {name: shop}",
        "node.yaml, document 3: the kind `Sliced` is unknown; write `kind: Node` or `kind: \
         Slice`";

    no_kind:
        "kind: Slice\nmetadata: {name: shop}"
        => "metadata: {name: shop}",
        "node.yaml, document 3: the document has no `kind`; write `kind: Node` or `kind: Slice` \
         first";

    port_of_a_wrong_type:
        "{protocol: TCP, port: 9090}]"
        => "{protocol: TCP, port: [9090]}]",
        "node.yaml, document 2, line 35: spec.qos.classes[0].match[0]: a port is a number \
         (9092) or a range (9090-9092); see the configuration reference for the fields and \
         their types";

    two_nodes:
        "---\nkind: Slice\nmetadata: {name: kafka}"
        => "---\nkind: Node\ncluster: east\nname: east-2\nunderlay: {address: 172.20.1.12, \
            interface: nic0}\n---\nkind: Slice\nmetadata: {name: kafka}",
        "node.yaml, document 2, Node east/east-2: a second document of kind Node, the first is \
         node.yaml, document 1, Node east/east-1; keep the one of this host";

    slice_name_twice:
        "metadata: {name: shop}"
        => "metadata: {name: kafka}",
        "node.yaml, document 1, Node east/east-1, endpoints[1].slice: no document of kind Slice \
         has the name `shop`, which 3 places give, this one first; add it, or correct the name\nnode.yaml, document 3, Slice kafka, metadata.name: the slice name \
         `kafka` is already used at node.yaml, document 2, Slice kafka, metadata.name; each \
         needs its own";

    a_missing_slice_is_told_once:
        "metadata: {name: shop}"
        => "metadata: {name: shpo}",
        "node.yaml, document 1, Node east/east-1, endpoints[1].slice: no document of kind Slice \
         has the name `shop`, which 3 places give, this one first; add it, or correct the name";

    unknown_slice_of_an_endpoint:
        "- {slice: shop, namespace: web, name: web-0,\n   interface: p-web-0, address: \
         10.1.1.20, sliceAddress: 10.78.0.2}"
        => "- {slice: shpo, namespace: web, name: web-0,\n   interface: p-web-0, address: \
            10.1.1.20, sliceAddress: 10.78.0.2}",
        "node.yaml, document 1, Node east/east-1, endpoints[1].slice: no document of kind Slice \
         has the name `shpo`; add it, or correct the name";

    unknown_slice_of_a_peers_block:
        "[{slice: kafka, namespace: analytics"
        => "[{slice: kafak, namespace: analytics",
        "node.yaml, document 1, Node east/east-1, peers[0].blocks[0].slice: no document of kind \
         Slice has the name `kafak`; add it, or correct the name";

    bad_name:
        "cluster: east\n"
        => "cluster: East_1\n",
        "node.yaml, document 1, Node East_1/east-1, cluster: `East_1` is not a name: 1 to 63 of \
         a-z, 0-9, `-`, a letter or digit at both ends";

    bad_pod_name:
        "name: kafka-0,"
        => "name: 'kafka 0',",
        "node.yaml, document 1, Node east/east-1, endpoints[0].name: `kafka 0` is not a name: 1 \
         to 253 of a-z, 0-9, `-` and `.`, a letter or digit at both ends";

    bad_interface_name:
        "interface: p-kafka-0"
        => "interface: p-kafka-0-of-east",
        "node.yaml, document 1, Node east/east-1, endpoints[0].interface: `p-kafka-0-of-east` \
         is not an interface name: 1 to 15 bytes without blanks, `/` and `:`";

    bad_address:
        "address: 10.1.1.10"
        => "address: 10.1.1.300",
        "node.yaml, document 1, Node east/east-1, endpoints[0].address: `10.1.1.300` is not an \
         IPv4 address; write four numbers from 0 to 255, as in 10.77.0.2";

    address_of_no_host:
        "address: 10.1.1.10"
        => "address: 224.0.0.5",
        "node.yaml, document 1, Node east/east-1, endpoints[0].address: `224.0.0.5` is not the \
         address of one host; give a unicast address, as in 192.0.2.11";

    bad_prefix:
        "prefix: 10.77.0.0/29"
        => "prefix: 10.77.0.0",
        "node.yaml, document 1, Node east/east-1, blocks[0].prefix: `10.77.0.0` is not an IPv4 \
         prefix; write address/length, as in 10.77.0.0/29";

    host_bits:
        "prefix: 10.77.0.0/29"
        => "prefix: 10.77.0.1/29",
        "node.yaml, document 1, Node east/east-1, blocks[0].prefix: `10.77.0.1/29` has bits set \
         behind its length; write `10.77.0.0/29`";

    slice_id_of_zero:
        "id: 7"
        => "id: 0",
        "node.yaml, document 2, Slice kafka, id: `0` is out of range; a slice id is 1 to 2097150";

    slice_id_of_the_probes:
        "id: 7"
        => "id: 2097151",
        "node.yaml, document 2, Slice kafka, id: `2097151` is out of range; a slice id is 1 to \
         2097150";

    underlay_port_of_zero:
        "interface: nic0}"
        => "interface: nic0, port: 0}",
        "node.yaml, document 1, Node east/east-1, underlay.port: `0` is out of range; a UDP \
         port is 1 to 65535";

    path_mtu_too_small:
        "mtu: 1400"
        => "mtu: 575",
        "node.yaml, document 1, Node east/east-1, peers[1].mtu: `575` is out of range; a path's \
         MTU is 576 to 65535";

    path_mtu_too_large:
        "mtu: 1400"
        => "mtu: 65536",
        "node.yaml, document 1, Node east/east-1, peers[1].mtu: `65536` is out of range; a \
         path's MTU is 576 to 65535";

    dscp_above_63:
        "dscp: 48"
        => "dscp: 64",
        "node.yaml, document 2, Slice kafka, spec.qos.classes[0].dscp: `64` is out of range; a \
         DSCP is 0 to 63";

    port_of_zero:
        "{protocol: TCP, port: 9092}]}"
        => "{protocol: TCP, port: 0}]}",
        "node.yaml, document 2, Slice kafka, spec.policy.rules[1].ports[0].port: `0` is not a \
         port; write a number (9092) or a range (9090-9092), 1 to 65535";

    port_above_65535:
        "{protocol: TCP, port: 9092}]}"
        => "{protocol: TCP, port: 65536}]}",
        "node.yaml, document 2, Slice kafka, spec.policy.rules[1].ports[0].port: `65536` is not \
         a port; write a number (9092) or a range (9090-9092), 1 to 65535";

    port_that_is_no_number:
        "{protocol: TCP, port: 9092}]}"
        => "{protocol: TCP, port: kafka}]}",
        "node.yaml, document 2, Slice kafka, spec.policy.rules[1].ports[0].port: `kafka` is not \
         a port; write a number (9092) or a range (9090-9092), 1 to 65535";

    reversed_ports:
        "port: 9090-9092"
        => "port: 9092-9090",
        "node.yaml, document 2, Slice kafka, spec.policy.rules[0].ports[0].port: `9092-9090` \
         runs backwards; write `9090-9092`";

    unknown_protocol:
        "{protocol: ICMP}"
        => "{protocol: SCTP}",
        "node.yaml, document 2, Slice kafka, spec.policy.rules[0].ports[1].protocol: `SCTP` is \
         unknown; a protocol is TCP, UDP or ICMP";

    icmp_with_a_port:
        "{protocol: ICMP}"
        => "{protocol: ICMP, port: 8}",
        "node.yaml, document 2, Slice kafka, spec.policy.rules[0].ports[1].port: ICMP has no \
         ports, but `8` is given; remove `port`";

    unknown_action:
        "{name: clients, action: Allow"
        => "{name: clients, action: allow",
        "node.yaml, document 2, Slice kafka, spec.policy.rules[1].action: `allow` is unknown; \
         an action is Allow or Deny";

    unknown_default_action:
        "defaultAction: Deny"
        => "defaultAction: Drop",
        "node.yaml, document 2, Slice kafka, spec.policy.defaultAction: `Drop` is unknown; an \
         action is Allow or Deny";

    nobody_in_from:
        "from: [analytics]"
        => "from: []",
        "node.yaml, document 2, Slice kafka, spec.policy.rules[1].from: the list is empty; list \
         namespaces, or write [\"*\"] for every one";

    star_beside_names:
        "from: [analytics]"
        => "from: ['*', analytics]",
        "node.yaml, document 2, Slice kafka, spec.policy.rules[1].from: `*` already means every \
         namespace; write it alone, or list the namespaces";

    no_ports_in_ports:
        "ports: [{protocol: TCP, port: 9092}]"
        => "ports: []",
        "node.yaml, document 2, Slice kafka, spec.policy.rules[1].ports: the list is empty; \
         remove `ports` to mean every protocol, or list some";

    class_without_match:
        "match: [{protocol: TCP, port: 9090}]"
        => "match: []",
        "node.yaml, document 2, Slice kafka, spec.qos.classes[0].match: the list is empty; list \
         the ports or pods of the class, or remove the class from the end of the list";

    unknown_mode:
        "{mode: Mapped, ranges: [10.77.0.0/16]}"
        => "{mode: NAT}",
        "node.yaml, document 2, Slice kafka, spec.addressing.mode: `NAT` is unknown; mode is \
         Mapped or Native";

    mapped_without_ranges:
        "{mode: Mapped, ranges: [10.77.0.0/16]}"
        => "{mode: Mapped}",
        "node.yaml, document 2, Slice kafka, spec.addressing.ranges: mode Mapped needs the \
         slice's addresses; add `ranges`, as in [10.77.0.0/16]";

    native_with_ranges:
        "{mode: Mapped, ranges: [10.77.0.0/16]}"
        => "{mode: Native, ranges: [10.77.0.0/16]}",
        "node.yaml, document 2, Slice kafka, spec.addressing.ranges: mode Native uses the pods' \
         own addresses; remove `ranges`";

    range_of_everything:
        "ranges: [10.77.0.0/16]"
        => "ranges: [0.0.0.0/0]",
        "node.yaml, document 2, Slice kafka, spec.addressing.ranges[0]: `0.0.0.0/0` is no range \
         for a slice: length 8 to 30, and not in 0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16 or \
         224.0.0.0/3";

    names_outside_at_level_open:
        "level: Open"
        => "level: Open, fromOutside: [{addresses: [192.0.2.0/24]}]",
        "node.yaml, document 3, Slice shop, spec.isolation.fromOutside: nothing would enforce \
         this; write level Slice or Strict, or remove it: at level Open everybody may begin";

    names_to_the_outside_at_level_slice:
        "level: Slice"
        => "level: Slice, toOutside: [{addresses: [192.0.2.0/24]}]",
        "node.yaml, document 2, Slice kafka, spec.isolation.toOutside: nothing would enforce \
         this; write level Strict, or remove it: at other levels pods may begin anything";

    name_servers_at_level_slice:
        "level: Slice"
        => "level: Slice, dns: []",
        "node.yaml, document 2, Slice kafka, spec.isolation.dns: nothing would enforce this; \
         write level Strict, or remove it: at other levels pods may begin anything";

    nobody_named_outside:
        "level: Slice"
        => "level: Slice, fromOutside: [{addresses: []}]",
        "node.yaml, document 2, Slice kafka, spec.isolation.fromOutside[0].addresses: the list is \
         empty; list prefixes, or write [0.0.0.0/0] for everybody";

    unknown_isolation:
        "level: Slice"
        => "level: Closed",
        "node.yaml, document 2, Slice kafka, spec.isolation.level: `Closed` is unknown; the \
         level is Slice, Strict or Open";

    unknown_delivery:
        "  encryption: {mode: None}\n  acceptPlaintext: true\n---\nkind: Slice"
        => "  delivery: Host\n  encryption: {mode: None}\n  acceptPlaintext: true\n---\nkind: Slice",
        "node.yaml, document 2, Slice kafka, spec.delivery: `Host` is unknown; a delivery is Peer \
         or Stack";

    encryption_that_is_not_there:
        "  encryption: {mode: None}\n  acceptPlaintext: true\n---\nkind: Slice"
        => "  encryption: {mode: WireGuard}\n  acceptPlaintext: true\n---\nkind: Slice",
        "node.yaml, document 2, Slice kafka, spec.encryption.mode: no encryption is built yet, \
         so mode must be None, not `WireGuard`; write `encryption: {mode: None}` and \
         `acceptPlaintext: true` if clear text will do";

    encryption_absent:
        "  encryption: {mode: None}\n  acceptPlaintext: true\n---\nkind: Slice"
        => "  acceptPlaintext: true\n---\nkind: Slice",
        "node.yaml, document 2, Slice kafka, spec.encryption: nothing says whether traffic is \
         encrypted; write `encryption: {mode: None}`, the only mode yet, if clear text will do";

    plaintext_not_accepted:
        "  acceptPlaintext: true\n---\nkind: Slice"
        => "---\nkind: Slice",
        "node.yaml, document 2, Slice kafka, spec.acceptPlaintext: slice traffic is not \
         encrypted; write `acceptPlaintext: true` to accept that";

    plaintext_refused:
        "  acceptPlaintext: true\n---\nkind: Slice"
        => "  acceptPlaintext: false\n---\nkind: Slice",
        "node.yaml, document 2, Slice kafka, spec.acceptPlaintext: slice traffic is not \
         encrypted; write `acceptPlaintext: true` to accept that";

    eight_classes:
        "    - {name: control, match: [{protocol: TCP, port: 9090}], dscp: 48}\n"
        => "    - {name: control, match: [{protocol: TCP, port: 9090}], dscp: 48}\n    - {name: \
            c1, match: [{protocol: UDP, port: 1}]}\n    - {name: c2, match: [{protocol: UDP, \
            port: 2}]}\n    - {name: c3, match: [{protocol: UDP, port: 3}]}\n    - {name: c4, \
            match: [{protocol: UDP, port: 4}]}\n    - {name: c5, match: [{protocol: UDP, port: \
            5}]}\n    - {name: c6, match: [{protocol: UDP, port: 6}]}\n",
        "node.yaml, document 2, Slice kafka, spec.qos.classes: 8 classes, but at most 7 fit \
         beside the default class; remove some";

    overlapping_classes:
        "port: 9091-9092"
        => "port: 9090-9092",
        "node.yaml, document 2, Slice kafka, spec.qos.classes[1].match[0]: TCP 9090-9092 is \
         also matched at node.yaml, document 2, Slice kafka, spec.qos.classes[0].match[0]; a \
         packet is of one class, so remove one match";

    rule_name_twice:
        "{name: clients"
        => "{name: brokers",
        "node.yaml, document 2, Slice kafka, spec.policy.rules[1].name: the rule name `brokers` \
         is already used at node.yaml, document 2, Slice kafka, spec.policy.rules[0].name; each \
         needs its own";

    class_name_twice:
        "{name: client,"
        => "{name: control,",
        "node.yaml, document 2, Slice kafka, spec.qos.classes[1].name: the class name `control` \
         is already used at node.yaml, document 2, Slice kafka, spec.qos.classes[0].name; each \
         needs its own";

    slice_id_twice:
        "id: 8"
        => "id: 7",
        "node.yaml, document 3, Slice shop, id: the slice id `7` is already used at node.yaml, \
         document 2, Slice kafka, id; each needs its own";

    overlapping_ranges:
        "ranges: [10.78.0.0/16]"
        => "ranges: [10.78.0.0/16, 10.77.128.0/17]",
        "node.yaml, document 3, Slice shop, spec.addressing.ranges[1]: 10.77.128.0/17 of slice \
         shop overlaps 10.77.0.0/16 of slice kafka at node.yaml, document 2, Slice kafka, \
         spec.addressing.ranges[0]; give the slices disjoint ranges";

    endpoint_name_twice:
        "- {slice: shop, namespace: web, name: web-0,\n   interface: p-web-0, address: \
         10.1.1.20, sliceAddress: 10.78.0.2}"
        => "- {slice: shop, namespace: web, name: web-0,\n   interface: p-web-0, address: \
            10.1.1.20, sliceAddress: 10.78.0.2}\n- {slice: shop, namespace: web, name: web-0,\n  \
             interface: p-web-1, address: 10.1.1.21, sliceAddress: 10.78.0.3}",
        "node.yaml, document 1, Node east/east-1, endpoints[2].name: the endpoint name \
         `shop/web/web-0` is already used at node.yaml, document 1, Node east/east-1, \
         endpoints[1].name; each needs its own";

    interface_twice:
        "interface: p-web-0"
        => "interface: p-kafka-0",
        "node.yaml, document 1, Node east/east-1, endpoints[1].interface: the interface \
         `p-kafka-0` is already used at node.yaml, document 1, Node east/east-1, \
         endpoints[0].interface; each needs its own";

    pod_address_twice:
        "address: 10.1.1.20"
        => "address: 10.1.1.10",
        "node.yaml, document 1, Node east/east-1, endpoints[1].address: the address `10.1.1.10` \
         is already used at node.yaml, document 1, Node east/east-1, endpoints[0].address; each \
         needs its own";

    slice_address_twice:
        "- {slice: kafka, namespace: kafka, name: kafka-0,\n   interface: p-kafka-0, address: \
         10.1.1.10, sliceAddress: 10.77.0.2}"
        => "- {slice: kafka, namespace: kafka, name: kafka-0,\n   interface: p-kafka-0, \
            address: 10.1.1.10, sliceAddress: 10.77.0.2}\n- {slice: kafka, namespace: kafka, \
            name: kafka-1,\n   interface: p-kafka-1, address: 10.1.1.11, sliceAddress: \
            10.77.0.2}",
        "node.yaml, document 1, Node east/east-1, endpoints[1].sliceAddress: the sliceAddress \
         `10.77.0.2` is already used at node.yaml, document 1, Node east/east-1, \
         endpoints[0].sliceAddress; each needs its own";

    endpoint_on_the_underlay:
        "interface: p-web-0"
        => "interface: nic0",
        "node.yaml, document 1, Node east/east-1, endpoints[1].interface: `nic0` is the \
         underlay's interface; give the host side of the pod's veth pair";

    peer_name_twice:
        "name: west-2"
        => "name: west-1",
        "node.yaml, document 1, Node east/east-1, peers[1].name: the peer name `west/west-1` is \
         already used at node.yaml, document 1, Node east/east-1, peers[0].name; each needs its \
         own";

    peer_that_is_this_node:
        "{cluster: west, name: west-2"
        => "{cluster: east, name: east-1",
        "node.yaml, document 1, Node east/east-1, peers[1].name: `east/east-1` is this node's \
         own; a peer is another node";

    peer_with_our_address:
        "underlay: 172.20.2.12"
        => "underlay: 172.20.1.11",
        "node.yaml, document 1, Node east/east-1, peers[1].underlay: `172.20.1.11` is this \
         node's own; a peer is another node";

    peers_with_one_address:
        "underlay: 172.20.2.12"
        => "underlay: 172.20.2.11",
        "node.yaml, document 1, Node east/east-1, peers[1].underlay: the underlay address \
         `172.20.2.11` is already used at node.yaml, document 1, Node east/east-1, \
         peers[0].underlay; each needs its own";

    overlapping_blocks_of_two_nodes:
        "prefix: 10.77.64.0/29"
        => "prefix: 10.77.0.0/28",
        "node.yaml, document 1, Node east/east-1, blocks[0].prefix: 10.77.0.0/29 of kafka/kafka \
         on east/east-1 overlaps 10.77.0.0/28 of kafka/analytics on west/west-1 at node.yaml, \
         document 1, Node east/east-1, peers[0].blocks[0]; a block has one owner, so remove it \
         from one of them\nnode.yaml, document 1, Node east/east-1, blocks[1].prefix: \
         10.77.0.8/29 of kafka/audit on east/east-1 overlaps 10.77.0.0/28 of kafka/analytics on \
         west/west-1 at node.yaml, document 1, Node east/east-1, peers[0].blocks[0]; a block \
         has one owner, so remove it from one of them";

    same_block_twice:
        "prefix: 10.77.0.8/29"
        => "prefix: 10.77.0.0/29",
        "node.yaml, document 1, Node east/east-1, blocks[1].prefix: 10.77.0.0/29 of kafka/audit \
         on east/east-1 overlaps 10.77.0.0/29 of kafka/kafka on east/east-1 at node.yaml, \
         document 1, Node east/east-1, blocks[0]; a block has one owner, so remove it from one \
         of them";

    block_outside_the_ranges:
        "prefix: 10.77.64.0/29"
        => "prefix: 10.79.64.0/29",
        "node.yaml, document 1, Node east/east-1, peers[0].blocks[0].prefix: 10.79.64.0/29 lies \
         outside the ranges of slice kafka (10.77.0.0/16); cut it from one of them";

    address_outside_its_block:
        "sliceAddress: 10.77.0.2"
        => "sliceAddress: 10.77.0.9",
        "node.yaml, document 1, Node east/east-1, endpoints[0].sliceAddress: `10.77.0.9` lies \
         outside the blocks of kafka/kafka that this node has (10.77.0.0/29); take an address \
         from one of them";

    namespace_without_a_block:
        "{slice: kafka, namespace: kafka, name: kafka-0"
        => "{slice: kafka, namespace: brokers, name: kafka-0",
        "node.yaml, document 1, Node east/east-1, endpoints[0]: this node has no block of \
         kafka/brokers, so no address for this endpoint; add one to its `blocks`";

    node_inside_a_slice:
        "underlay: {address: 172.20.1.11"
        => "underlay: {address: 10.77.200.1",
        "node.yaml, document 1, Node east/east-1, underlay.address: `10.77.200.1` lies in \
         10.77.0.0/16 of slice kafka; the tunnel would run through itself, so give the slice \
         other addresses";

    peer_inside_a_slice:
        "underlay: 172.20.2.12"
        => "underlay: 10.78.200.1",
        "node.yaml, document 1, Node east/east-1, peers[1].underlay: `10.78.200.1` lies in \
         10.78.0.0/16 of slice shop; the tunnel would run through itself, so give the slice \
         other addresses";

    pod_address_inside_a_range:
        "address: 10.1.1.20"
        => "address: 10.77.1.20",
        "node.yaml, document 1, Node east/east-1, endpoints[1].address: `10.77.1.20` lies in \
         10.77.0.0/16 of slice kafka; pod addresses and slice addresses must differ in mode \
         Mapped";
}
