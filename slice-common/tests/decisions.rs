//! Addresses, identifiers, verdicts and reply records.

use proptest::prelude::*;
use slice_common::address::{Address, AddressPair, Block, Port};
use slice_common::id::{NamespaceId, SliceId, TrafficClass};
use slice_common::layout::PolicyVerdict;
use slice_common::policy::{Ground, PacketKind, allows};
use slice_common::reply;
use slice_common::wire::transport::{ICMP, Transport, UDP};

fn address() -> impl Strategy<Value = Address> {
    any::<[u8; 4]>().prop_map(Address::from_octets)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// However new exchanges are spread, no window has more than what may begin at once and the pace allow;
    /// whoever keeps to the pace is never refused.
    #[test]
    fn new_exchanges_keep_to_their_share(
        start_ns in 0u64..1 << 60, gaps_ns in prop::collection::vec(0u64..20_000, 40_000),
        even_ns in 1_000_000_000 / reply::NEW_PER_SECOND..1 << 40,
    ) {
        let (mut due_ns, mut now_ns, mut begun) = (0, start_ns, Vec::new());
        for gap_ns in &gaps_ns {
            now_ns += gap_ns;
            if let Some(next_ns) = reply::begun(due_ns, now_ns) {
                due_ns = next_ns;
                begun.push(now_ns);
            }
        }
        prop_assert!(begun.len() as u64 >= reply::NEW_AT_ONCE, "the burst is there");
        for (at, from_ns) in begun.iter().enumerate().step_by(97) {
            let window_ns = begun[begun.len() - 1] - from_ns;
            let most = reply::NEW_AT_ONCE + window_ns * reply::NEW_PER_SECOND / 1_000_000_000 + 1;
            prop_assert!((begun.len() - at) as u64 <= most);
        }
        for _ in 0..100 {
            now_ns = now_ns.max(due_ns) + even_ns;
            due_ns = reply::begun(due_ns, now_ns).expect("at an even pace");
        }
    }
}

proptest! {
    #[test]
    fn mapping_out_and_back_in_is_the_identity(pod in address(), slice in address()) {
        let pair = AddressPair { pod, slice };
        let outside = pair.outbound_source(pod);
        prop_assert_eq!(outside, Some(slice));
        prop_assert_eq!(pair.inbound_destination(slice), Some(pod));
    }

    #[test]
    fn a_foreign_address_is_never_mapped(pod in address(), slice in address(), other in address()) {
        let pair = AddressPair { pod, slice };
        prop_assert_eq!(pair.outbound_source(other).is_some(), other == pod);
        prop_assert_eq!(pair.inbound_destination(other).is_some(), other == slice);
    }

    #[test]
    fn a_block_contains_the_addresses_that_share_its_prefix(
        base in any::<u32>(), prefix_len in 0u8..=32, probe in any::<u32>(),
    ) {
        let mask = if prefix_len == 0 { 0 } else { u32::MAX << (32 - prefix_len) };
        let address = Address::from_octets((base & mask).to_be_bytes());
        let block = Block::new_checked(address, prefix_len).expect("no host bits");
        let inside = probe & mask == base & mask;
        prop_assert_eq!(block.contains(Address::from_octets(probe.to_be_bytes())), inside);
        if base & !mask != 0 {
            let crooked = Address::from_octets(base.to_be_bytes());
            prop_assert_eq!(Block::new_checked(crooked, prefix_len), None);
        }
    }

    #[test]
    fn blocks_overlap_exactly_when_they_share_an_address(
        a in any::<u8>(), a_len in 24u8..=32, b in any::<u8>(), b_len in 24u8..=32,
    ) {
        let block = |last: u8, len: u8| {
            let mask = (u32::MAX << (32 - len)) as u8;
            Block::new_checked(Address::from_octets([10, 0, 0, last & mask]), len)
                .expect("no host bits")
        };
        let (first, second) = (block(a, a_len), block(b, b_len));
        let shared = (0..=255u8).map(|last| Address::from_octets([10, 0, 0, last]))
            .any(|address| first.contains(address) && second.contains(address));
        prop_assert_eq!(first.overlaps(second), shared);
    }

    #[test]
    fn the_answer_to_an_answer_is_the_question(
        source in address(), destination in address(), from in any::<u16>(), to in any::<u16>(),
    ) {
        let question = Transport {
            protocol: UDP,
            kind: PacketKind::Datagram,
            source_port: Port::new(from),
            destination_port: Port::new(to),
        };
        let answer = Transport {
            source_port: question.destination_port,
            destination_port: question.source_port,
            ..question
        };
        let expected = reply::key_of_answer(7, source, destination, &question);
        prop_assert_eq!(reply::key_of(7, destination, source, &answer), expected);
        let back = reply::key_of_answer(7, destination, source, &answer);
        prop_assert_eq!(back, reply::key_of(7, source, destination, &question));
    }

    #[test]
    fn a_record_is_fresh_for_its_lifetime_and_renewed_before_it_ends(
        written_ns in 0u64..1 << 60, age_ns in 0u64..2 * reply::LIFETIME_NS,
    ) {
        let expiry_ns = reply::expiry_ns(written_ns);
        let now_ns = written_ns + age_ns;
        prop_assert_eq!(reply::is_fresh(expiry_ns, now_ns), age_ns < reply::LIFETIME_NS);
        let due = reply::wants_refresh(expiry_ns, now_ns);
        prop_assert_eq!(due, age_ns > reply::REFRESH_AFTER_NS);
    }

    #[test]
    fn ids_stay_with_their_names(slice in "[a-z]{1,12}", namespace in "[a-z]{1,12}") {
        let id = NamespaceId::from_name(&[&slice, &namespace]);
        prop_assert_eq!(id, NamespaceId::from_name(&[&slice, &namespace]));
        prop_assert_ne!(id.number(), 0);
        let moved = NamespaceId::from_name(&[&format!("{slice}{namespace}")]);
        prop_assert_ne!(id, moved, "the border between the parts counts");
    }
}

#[test]
fn an_echo_keeps_its_identifier_both_ways() {
    let (client, server) = (
        Address::from_octets([10, 77, 0, 2]),
        Address::from_octets([10, 77, 0, 3]),
    );
    let echo = Transport {
        protocol: ICMP,
        kind: PacketKind::EchoRequest,
        source_port: Port::new(4711),
        destination_port: Port::new(0),
    };
    let answer = Transport {
        kind: PacketKind::EchoReply,
        ..echo
    };
    assert_eq!(
        reply::key_of(7, server, client, &answer),
        reply::key_of_answer(7, client, server, &echo)
    );
}

#[test]
fn slice_ids_and_classes_have_their_limits() {
    for (number, legal) in [(0, false), (1, true), (0x1f_fffe, true), (0x1f_ffff, false)] {
        assert_eq!(SliceId::new_checked(number).is_some(), legal, "{number:#x}");
    }
    assert!(TrafficClass::new_checked(7).is_some());
    assert!(TrafficClass::new_checked(8).is_none());
}

#[test]
fn a_host_takes_broadcasts_of_every_network_around_it() {
    let own = Address::from_octets([10, 1, 1, 10]);
    for taken in [
        [10, 1, 1, 10],
        [10, 1, 1, 11],
        [10, 1, 1, 255],
        [10, 1, 1, 0],
        [10, 1, 255, 255],
        [10, 255, 255, 255],
        [255; 4],
        [0; 4],
        [224, 0, 0, 1],
        [239, 255, 1, 2],
    ] {
        assert!(own.takes(Address::from_octets(taken)), "{taken:?}");
    }
    for foreign in [
        [10, 1, 1, 12],
        [10, 201, 1, 10],
        [198, 51, 100, 7],
        [10, 1, 2, 10],
    ] {
        assert!(!own.takes(Address::from_octets(foreign)), "{foreign:?}");
    }
}

/// The whole table: what each kind of packet may rest on.
#[test]
fn each_kind_of_packet_rests_on_its_own_grounds() {
    use Ground::*;
    use PacketKind::*;
    let table = [
        (TcpOpen, [true, false, false, false]),
        (TcpOther, [true, true, false, false]),
        (Datagram, [true, false, true, false]),
        (EchoRequest, [true, false, false, false]),
        (EchoReply, [false, false, true, false]),
        (Quoted, [false, false, true, true]),
        (Error, [false; 4]),
        (LaterFragment, [false; 4]),
    ];
    for (kind, expected) in table {
        let grounds = [ForwardRule, MirroredRule, ReplyRecord, OwnRecord];
        let now = grounds.map(|ground| kind.may_rest_on(ground));
        assert_eq!(now, expected, "{kind:?}");
        assert_eq!(
            kind.leaves_reply_record(),
            matches!(kind, Datagram | EchoRequest)
        );
    }
}

#[test]
fn no_rule_and_unknown_verdicts_deny() {
    assert!(allows(Some(PolicyVerdict::Allow.number())));
    for denied in [None, Some(PolicyVerdict::Deny.number()), Some(0), Some(77)] {
        assert!(!allows(denied), "{denied:?}");
    }
}
