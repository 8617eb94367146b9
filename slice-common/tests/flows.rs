//! The cache of flows: a record is read as it was written for the same flow, or not at all.

use proptest::prelude::*;
use slice_common::address::Address;
use slice_common::layout::{Class, Door, FLOW_WORDS, Flow, FlowKey, Path};
use slice_common::policy::{Ground, PacketKind};

fn key() -> impl Strategy<Value = FlowKey> {
    any::<[u32; 6]>().prop_map(|words| FlowKey {
        entrance: words[0],
        vni: words[1],
        source: Address::from_network_word(words[2]),
        destination: Address::from_network_word(words[3]),
        source_port: words[4] as u16,
        destination_port: (words[4] >> 16) as u16,
        protocol: words[5],
    })
}

fn decided() -> impl Strategy<Value = Flow> {
    any::<[u32; 9]>().prop_map(|words| Flow {
        generation: words[0],
        slice: words[1],
        cluster: words[2],
        class: Class {
            class: words[3] as u8,
            dscp: (words[3] >> 8) as u8,
            reserved: 0,
        },
        slice_source: Address::from_network_word(words[4]),
        path_group: words[5],
        ifindex: words[6],
        address: Address::from_network_word(words[7]),
        pod_mac: [words[8] as u8; 6],
        ..Flow::UNDECIDED
    })
}

/// The value as it lies in the map.
fn words_of(flow: &Flow) -> [u64; FLOW_WORDS] {
    // SAFETY: of the same size and without padding, as the layout asserts.
    unsafe { std::mem::transmute::<Flow, [u64; FLOW_WORDS]>(*flow) }
}

proptest! {
    #[test]
    fn what_was_kept_for_a_flow_is_read_for_it(key in key(), flow in decided()) {
        let sealed = flow.sealed(&key);
        let read = Flow::unsealed(words_of(&sealed), &key).map(|read| Flow { seal: 0, ..read });
        prop_assert_eq!(read, Some(flow));
    }

    #[test]
    fn what_was_kept_for_another_flow_is_not_read(
        key in key(), flow in decided(), bit in 0usize..192,
    ) {
        let mut other = key;
        let flip = 1u32 << (bit % 32);
        match bit / 32 {
            0 => other.entrance ^= flip,
            1 => other.vni ^= flip,
            2 => other.source = Address::from_network_word(key.source.network_word() ^ flip),
            3 => {
                let word = key.destination.network_word() ^ flip;
                other.destination = Address::from_network_word(word);
            }
            4 if bit % 32 < 16 => other.source_port ^= flip as u16,
            4 => other.destination_port ^= (flip >> 16) as u16,
            _ => other.protocol ^= flip,
        }
        prop_assert!(other != key);
        let words = words_of(&flow.sealed(&key));
        prop_assert_eq!(Flow::unsealed(words, &other), None);
    }

    /// The kernel writes an entry anew while a program reads it: what it reads begins with the new one
    /// and ends with the old one, or the other way round.
    #[test]
    fn a_mixture_of_two_records_is_not_read(
        keys in (key(), key()), flows in (decided(), decided()), cut in 1usize..FLOW_WORDS,
    ) {
        let (one, other) = (flows.0.sealed(&keys.0), flows.1.sealed(&keys.1));
        let mut mixed = words_of(&one);
        mixed[cut..].copy_from_slice(&words_of(&other)[cut..]);
        let differs = mixed != words_of(&one) && mixed != words_of(&other);
        prop_assume!(differs);
        prop_assert_eq!(Flow::unsealed(mixed, &keys.0), None);
        prop_assert_eq!(Flow::unsealed(mixed, &keys.1), None);
    }

    #[test]
    fn a_flow_leads_where_it_was_decided(
        flow in decided(), mac in any::<[u8; 6]>(), words in any::<[u32; 5]>(), mtu in 576u32..65_536,
    ) {
        let door = Door {
            ifindex: words[0],
            pod_address: Address::from_network_word(words[1]),
            pod_mac: mac,
            flags: words[4] as u16,
        };
        prop_assert_eq!(flow.to_pod(door).door(), door);
        let path = Path {
            local: Address::from_network_word(words[2]),
            remote: Address::from_network_word(words[3]),
            ifindex: words[0],
            mtu,
            encapsulation: 1,
            port: words[4] as u16,
            flags: 0,
            cluster: 0,
            reserved_32: 0,
        };
        let only = flow.by_path(7, &path);
        prop_assert_eq!((only.path_group, only.only_path()), (7, Some(path)));
        let several = Flow { mtu: 0, ..flow }.by_group(7);
        prop_assert_eq!((several.path_group, several.only_path()), (7, None));
    }
}

#[test]
fn only_verdicts_of_rules_on_packets_that_open_nothing_are_kept() {
    let kinds = [
        PacketKind::TcpOpen,
        PacketKind::TcpOther,
        PacketKind::Datagram,
        PacketKind::EchoRequest,
        PacketKind::EchoReply,
        PacketKind::Quoted,
        PacketKind::Error,
        PacketKind::LaterFragment,
    ];
    let grounds = [
        Ground::ForwardRule,
        Ground::MirroredRule,
        Ground::ReplyRecord,
        Ground::OwnRecord,
    ];
    let kept: Vec<_> = kinds
        .into_iter()
        .flat_map(|kind| grounds.map(|ground| (kind, ground)))
        .filter(|(kind, ground)| kind.may_rest_on(*ground) && kind.keeps_verdict(*ground))
        .collect();
    let expected = [
        (PacketKind::TcpOther, Ground::ForwardRule),
        (PacketKind::TcpOther, Ground::MirroredRule),
        (PacketKind::Datagram, Ground::ForwardRule),
    ];
    assert_eq!(kept, expected);
}
