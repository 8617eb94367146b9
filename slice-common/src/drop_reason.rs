//! Why a packet was dropped: one number, one label, one sentence and one hint each.
//!
//! Numbers are part of the map layout and of what people have in their dashboards: they are never
//! reused. A reason that is no longer given keeps its number.

macro_rules! drop_reasons {
    ($($(#[$group:meta])* $number:literal $name:ident $label:literal: $sentence:literal; $hint:literal;)*) => {
        /// Why a packet was dropped.
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum DropReason {
            $($(#[$group])* $name = $number,)*
        }

        impl DropReason {
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            pub const fn from_number(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The metric label.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }

            /// What happened, for a person.
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$name => $sentence,)* }
            }

            /// What to look at next.
            pub const fn hint(self) -> &'static str {
                match self { $(Self::$name => $hint,)* }
            }
        }
    };
}

impl DropReason {
    #[inline(always)]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

drop_reasons! {
    1 Malformed "malformed":
        "The IPv4 or transport header is shorter than it says or than its protocol needs.";
        "Capture on the sending pod's interface; something builds packets by hand.";
    2 Fragment "fragment":
        "A fragment came before the first one of its datagram, or tries to overwrite its header.";
        "The underlay reorders or loses packets; send datagrams that fit the path.";
    3 UnsupportedProtocol "unsupported_protocol":
        "The transport protocol is none of TCP, UDP and ICMP.";
        "Only TCP, UDP and ICMP echo travel between slice pods.";
    4 IcmpError "icmp_error":
        "An ICMP error quotes no packet that its receiver could have sent to its sender.";
        "Something builds ICMP errors by hand, or quotes less than eight bytes of the transport header.";
    5 UnsupportedIcmp "unsupported_icmp":
        "The ICMP message is neither an echo request, an echo reply nor an error.";
        "Only echo (ping) travels between slice pods.";
    6 GsoNotTcp "gso_not_tcp":
        "A segmentation-offload packet that is neither TCP nor UDP, or in parts.";
        "Something builds packets by hand (AF_PACKET with PACKET_VNET_HDR); find out which.";
    7 TooBig "too_big":
        "The packet does not fit the path's MTU once 50 bytes of tunnel headers are added.";
        "Lower the pod's MTU to the underlay's MTU less 50, or raise the underlay's MTU.";
    8 ForgedChecksum "forged_checksum":
        "The sender left a checksum to the network card that would be written over the headers.";
        "A pod builds packets by hand (AF_PACKET with PACKET_VNET_HDR); find out which.";
    20 SpoofedSource "spoofed_source":
        "The pod sent to a slice address from a source that is not its own address.";
        "The pod forwards for others or forges packets; only its own address may enter a slice.";
    21 NoRoute "no_route":
        "The destination lies in a slice's range, but no node owns a block with it.";
        "Check the address; the pod may be gone, or its node not yet announced.";
    22 OtherSlice "other_slice":
        "The destination belongs to another slice.";
        "Slices are isolated from each other; put both namespaces into one slice.";
    23 NoEndpoint "no_endpoint":
        "The destination lies in a block of this node, but no pod has that address.";
        "The pod is gone or not attached yet; look at the agent's endpoints on that node.";
    24 NotLocal "not_local":
        "A peer sent a packet whose destination is on another node, and this node is no gateway.";
        "The peer's routes are stale or wrong, or this node lacks `gateway: true`.";
    25 Loop "loop":
        "A gateway's route leads back to the cluster that the packet came from.";
        "Two gateways name each other for the same blocks; compare their remotes.";
    26 Ttl "ttl":
        "The packet passed more gateways than its time to live allows; its sender is told where possible.";
        "Gateways name each other in a circle, or a pod sends with a small TTL (traceroute does).";
    30 PolicyDenied "policy_denied":
        "No rule of the slice's policy allows the packet, or one denies it.";
        "Add a rule from the source namespace to the destination namespace and port.";
    31 Isolated "isolated":
        "Somebody but the node tried to reach a guarded slice pod by its pod address.";
        "Members use slice addresses; strangers stay out at isolation level Slice.";
    32 BareSliceAddress "bare_slice_address":
        "A packet to a slice address was about to leave the node outside of the tunnel.";
        "A pod that is in no slice sent it, or one whose interface has no program (yet).";
    33 Confined "confined":
        "A pod at isolation level Strict tried to reach somebody outside whom nothing names.";
        "Name them in isolation.toOutside or isolation.dns, or find out what the pod wants there.";
    34 TooManyExchanges "too_many_exchanges":
        "A pod began more new UDP or echo exchanges than its node remembers for one: 8,192 in a second.";
        "Something scans or floods, or asks from a new port each time; reuse sockets, or find out which.";
    40 UnknownPeer "unknown_peer":
        "A tunnel packet came from an underlay address that is no configured peer.";
        "Add the node as a peer, or find out who sends to the tunnel port.";
    41 BadTunnelHeader "bad_tunnel_header":
        "The outer IPv4, UDP or VXLAN header is not one that a peer builds.";
        "Another tunnel may use our UDP port, or a middlebox changes packets.";
    42 UnknownSlice "unknown_slice":
        "The VNI names a slice that this node does not take part in.";
        "The peer's configuration has a slice that this node's lacks.";
    43 WrongSlice "wrong_slice":
        "The VNI names another slice than the inner source or destination belongs to.";
        "The peer's slice ids differ from this node's, or the packet is forged.";
    44 WrongPeer "wrong_peer":
        "The inner source lies in no block that this peer may deliver.";
        "The peer's blocks differ from this node's view, or the packet is forged.";
    45 InnerNotIpv4 "inner_not_ipv4":
        "The tunnelled frame does not carry IPv4.";
        "Slices carry IPv4 only.";
    46 EcnNotCapable "ecn_not_capable":
        "The underlay marked congestion on a packet whose sender cannot understand it (RFC 6040).";
        "The underlay marks packets that are not ECN-capable; tell its operator.";
    47 SlowPath "slow_path":
        "A tunnel packet got past the interface's program and reached the port-owner device.";
        "A pod sent to its own node's tunnel port, or the underlay interface's program is gone.";
    48 ForgedUnderlay "forged_underlay":
        "A packet to the tunnel's port that our programs did not make was about to leave the node.";
        "A pod or process on this node forges tunnel packets; find out which.";
    50 NoPath "no_path":
        "The destination's node is known, but no path to it is.";
        "The configuration is being replaced, or a peer lost its underlay address.";
    54 BadProbe "bad_probe":
        "A probe that no prober builds, or an answer to one that this node does not wait for.";
        "The path takes longer than 0.4 s to answer, or somebody forges or repeats probes.";
    55 ProbeLimit "probe_limit":
        "A peer sent more than 1,000 probes in a second; the rest is not answered.";
        "Find out who sends under that peer's address.";
    56 OverHorizon "over_horizon":
        "The packet would have waited longer for its turn on a shared uplink than its class allows.";
        "Its senders ignore marks and losses, or the class's guarantee or the slice's ceiling is too small.";
    60 HelperFailed "helper_failed":
        "The kernel refused to change or redirect the packet.";
        "The packet already is a tunnel packet: a tunnel inside the pod sends offloaded packets.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_reason_has_its_own_number_label_and_sentence() {
        let all = DropReason::ALL;
        let numbers: BTreeSet<_> = all.iter().map(|r| r.number()).collect();
        let labels: BTreeSet<_> = all.iter().map(|r| r.label()).collect();
        let sentences: BTreeSet<_> = all.iter().map(|r| r.sentence()).collect();
        let hints: BTreeSet<_> = all.iter().map(|r| r.hint()).collect();
        assert_eq!(
            [numbers.len(), labels.len(), sentences.len(), hints.len()],
            [all.len(); 4]
        );
        assert!(!numbers.contains(&0), "0 means no drop");
    }

    #[test]
    fn numbers_lead_back_to_their_reason_and_others_to_none() {
        for number in 0..=u8::MAX {
            match DropReason::from_number(number) {
                Some(reason) => assert_eq!(reason.number(), number),
                None => assert!(DropReason::ALL.iter().all(|r| r.number() != number)),
            }
        }
    }

    #[test]
    fn numbers_are_frozen() {
        let frozen: &[(u8, &str)] = &[
            (1, "malformed"),
            (2, "fragment"),
            (3, "unsupported_protocol"),
            (4, "icmp_error"),
            (5, "unsupported_icmp"),
            (6, "gso_not_tcp"),
            (7, "too_big"),
            (8, "forged_checksum"),
            (20, "spoofed_source"),
            (21, "no_route"),
            (22, "other_slice"),
            (23, "no_endpoint"),
            (24, "not_local"),
            (25, "loop"),
            (26, "ttl"),
            (30, "policy_denied"),
            (31, "isolated"),
            (32, "bare_slice_address"),
            (33, "confined"),
            (34, "too_many_exchanges"),
            (40, "unknown_peer"),
            (41, "bad_tunnel_header"),
            (42, "unknown_slice"),
            (43, "wrong_slice"),
            (44, "wrong_peer"),
            (45, "inner_not_ipv4"),
            (46, "ecn_not_capable"),
            (47, "slow_path"),
            (48, "forged_underlay"),
            (50, "no_path"),
            (54, "bad_probe"),
            (55, "probe_limit"),
            (56, "over_horizon"),
            (60, "helper_failed"),
        ];
        let now: Vec<_> = DropReason::ALL
            .iter()
            .map(|r| (r.number(), r.label()))
            .collect();
        assert_eq!(now, frozen);
    }
}
