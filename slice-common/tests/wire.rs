//! The wire format: what one node builds is what another reads, and what the RFCs say.

use proptest::prelude::*;
use slice_common::address::{Address, Port};
use slice_common::drop_reason::DropReason;
use slice_common::id::{SliceId, TrafficClass, Vni};
use slice_common::policy::PacketKind;
use slice_common::wire::frame;
use slice_common::wire::ipv4::Ipv4Header;
use slice_common::wire::mss::{self, OPTIONS_MAX, Search};
use slice_common::wire::transport::{TcpFlags, icmp_kind};
use slice_common::wire::vxlan::{self, Tunnel};

fn address() -> impl Strategy<Value = Address> {
    any::<[u8; 4]>().prop_map(Address::from_octets)
}

fn tunnel() -> impl Strategy<Value = Tunnel> {
    (
        address(),
        address(),
        any::<u16>(),
        any::<u16>(),
        1u32..=SliceId::MAX,
        0u8..8,
        any::<u8>(),
    )
        .prop_map(
            |(source, destination, from, to, slice, class, tos)| Tunnel {
                source,
                destination,
                source_port: Port::new(from),
                destination_port: Port::new(to),
                vni: Vni::new(
                    SliceId::new_checked(slice).expect("in range"),
                    TrafficClass::new_checked(class).expect("in range"),
                ),
                tos,
            },
        )
}

fn bytes_of(words: [u16; 25]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// The one's complement sum of RFC 1071, written the slow way.
fn internet_sum(bytes: &[u8]) -> u16 {
    let mut sum: u64 = 0;
    for pair in bytes.chunks(2) {
        sum += u64::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[test]
fn a_known_packet_has_these_fifty_bytes() {
    let header = vxlan::header(
        Tunnel {
            source: Address::from_octets([192, 0, 2, 11]),
            destination: Address::from_octets([192, 0, 2, 21]),
            source_port: Port::new(0xc123),
            destination_port: Port::new(6085),
            vni: Vni::new(
                SliceId::new_checked(7).expect("in range"),
                TrafficClass::new_checked(3).expect("in range"),
            ),
            tos: 0x2a,
        },
        60,
    );
    #[rustfmt::skip]
    let expected = [
        0x45, 0x2a, 0x00, 110, 0, 0, 0x40, 0, 64, 17, 0xb6, 0x34, 192, 0, 2, 11, 192, 0, 2, 21,
        0xc1, 0x23, 0x17, 0xc5, 0, 90, 0, 0,
        0x08, 0, 0, 0, 0, 0, 7 << 3 | 3, 0,
        0x02, 0x53, 0x4c, 0x50, 0, 2, 0x02, 0x53, 0x4c, 0x50, 0, 1, 0x08, 0x00,
    ];
    assert_eq!(bytes_of(header), expected);
}

proptest! {
    #[test]
    fn what_one_node_builds_another_reads(tunnel in tunnel(), inner_bytes in 20u32..65_486) {
        let bytes = bytes_of(vxlan::header(tunnel, inner_bytes));
        let outer = Ipv4Header::from_bytes(bytes[..20].try_into().expect("twenty"));
        prop_assert_eq!(outer.check(inner_bytes + 50), Ok(()));
        prop_assert_eq!(outer.total_bytes(), inner_bytes + 50);
        prop_assert_eq!((outer.source(), outer.destination()), (tunnel.source, tunnel.destination));
        prop_assert_eq!(outer.tos(), tunnel.tos);
        prop_assert_eq!(outer.protocol(), 17);
        prop_assert!(!outer.is_fragment());
        prop_assert_eq!(internet_sum(&bytes[..20]), 0xffff, "header checksum");
        let udp: Vec<u16> = bytes[20..28]
            .chunks(2)
            .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
            .collect();
        let ports = (tunnel.source_port.number(), tunnel.destination_port.number());
        prop_assert_eq!((udp[0], udp[1]), ports);
        prop_assert_eq!(u32::from(udp[2]), inner_bytes + 30);
        prop_assert_eq!(udp[3], 0, "no UDP checksum");
        let vni = vxlan::parse(bytes[28..36].try_into().expect("eight"));
        prop_assert_eq!(vni, Some(tunnel.vni));
        prop_assert_eq!(&bytes[48..50], &[0x08, 0x00]);
    }

    /// Both programs that look at what arrives go by these.
    #[test]
    fn only_whole_packets_like_ours_carry(
        tunnel in tunnel(),
        inner_bytes in 20u32..65_486,
        missing in 1u32..100,
        options in 6u8..16,
        part in 1u16..0x4000,
    ) {
        let bytes: [u8; 20] = bytes_of(vxlan::header(tunnel, inner_bytes))[..20]
            .try_into()
            .expect("twenty");
        let present = inner_bytes + 50;
        let carries = |bytes, present| vxlan::is_carrier(Ipv4Header::from_bytes(bytes), present);
        let port_at = |bytes| vxlan::destination_port_offset(Ipv4Header::from_bytes(bytes));
        prop_assert!(carries(bytes, present) && carries(bytes, present + missing));
        prop_assert!(!carries(bytes, present - missing));
        prop_assert_eq!(port_at(bytes), Some(22));

        let mut with_options = bytes;
        with_options[0] = 0x40 | options;
        prop_assert!(!carries(with_options, present));
        prop_assert_eq!(port_at(with_options), Some(u32::from(options) * 4 + 2));

        // "More to come" alone, or a place in the datagram.
        let mut of_parts = bytes;
        of_parts[6..8].copy_from_slice(&part.to_be_bytes());
        prop_assert!(!carries(of_parts, present));
        prop_assert_eq!(port_at(of_parts).is_none(), part & 0x1fff != 0);

        let mut of_tcp = bytes;
        of_tcp[9] = 6;
        prop_assert_eq!(port_at(of_tcp), None);
    }

    #[test]
    fn a_tunnel_packet_starts_with_both_headers_as_they_are(
        tunnel in tunnel(), inner in any::<[u8; 20]>(),
    ) {
        let ip = Ipv4Header::from_bytes(inner);
        let words = vxlan::encapsulated(tunnel, ip);
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        prop_assert_eq!(&bytes[..2], &[0x08, 0x00]);
        prop_assert_eq!(&bytes[2..52], bytes_of(vxlan::header(tunnel, ip.total_bytes())));
        prop_assert_eq!(&bytes[52..], inner);
    }

    #[test]
    fn a_frame_for_a_pod_starts_with_its_address_and_the_header(
        mac in any::<[u8; 6]>(), inner in any::<[u8; 20]>(),
    ) {
        let words = frame::start(mac, Ipv4Header::from_bytes(inner));
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        prop_assert_eq!(&bytes[..6], mac);
        prop_assert_eq!(&bytes[6..12], vxlan::INNER_SOURCE_MAC);
        prop_assert_eq!(&bytes[12..14], &[0x08, 0x00]);
        prop_assert_eq!(&bytes[14..frame::START_BYTES as usize], inner);
    }

    #[test]
    fn a_sound_header_stays_sound_under_another_name(
        mut bytes in any::<[u8; 20]>(), to in address(), tos in any::<u8>(),
    ) {
        bytes[10..12].fill(0);
        let checksum = !internet_sum(&bytes);
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        let was = Ipv4Header::from_bytes(bytes);
        for (is, offset, new) in [
            (was.with_source(to), 12, to.octets().to_vec()),
            (was.with_destination(to), 16, to.octets().to_vec()),
            (was.with_tos(tos), 1, vec![tos]),
        ] {
            let mut expected = bytes;
            expected[offset..offset + new.len()].copy_from_slice(&new);
            let got: Vec<u8> = is.halves().iter().flat_map(|half| half.to_ne_bytes()).collect();
            prop_assert_eq!(&got[..10], &expected[..10]);
            prop_assert_eq!(&got[12..], &expected[12..]);
            prop_assert_eq!(internet_sum(&got), 0xffff, "header checksum");
        }
    }

    #[test]
    fn a_header_with_any_other_reserved_bit_is_refused(
        tunnel in tunnel(),
        bit in (0usize..64).prop_filter("not of the VNI", |bit| !(32..56).contains(bit)),
    ) {
        let bytes = bytes_of(vxlan::header(tunnel, 100));
        let mut header: [u8; 8] = bytes[28..36].try_into().expect("eight");
        prop_assert!(vxlan::parse(header).is_some());
        header[bit / 8] ^= 0x80 >> (bit % 8);
        prop_assert_eq!(vxlan::parse(header), None);
    }

    #[test]
    fn slice_and_class_survive_the_vni(slice in 1u32..=SliceId::MAX, class in 0u8..8) {
        let vni = Vni::new(
            SliceId::new_checked(slice).expect("in range"),
            TrafficClass::new_checked(class).expect("in range"),
        );
        let wire = vni.number().to_be_bytes();
        let read = Vni::from_bytes([wire[1], wire[2], wire[3]]);
        prop_assert_eq!((read.slice_number(), read.class().number()), (slice, class));
        prop_assert_eq!(Vni::from_parts(slice, vni.class()), vni);
    }

    #[test]
    fn source_ports_stay_in_their_range_and_depend_on_the_flow_only(
        a in address(), b in address(), p in any::<u16>(), q in any::<u16>(),
    ) {
        let hash = vxlan::flow_hash(a, b, Port::new(p), Port::new(q));
        prop_assert_eq!(hash, vxlan::flow_hash(a, b, Port::new(p), Port::new(q)));
        prop_assert!(vxlan::source_port(hash).number() >= 0xc000);
    }

    #[test]
    fn a_header_is_sound_exactly_when_its_lengths_are(
        bytes in any::<[u8; 20]>(), available in 0u32..70_000,
    ) {
        let header = Ipv4Header::from_bytes(bytes);
        let header_bytes = u32::from(bytes[0] & 15) * 4;
        let total = u32::from(u16::from_be_bytes([bytes[2], bytes[3]]));
        let sound = bytes[0] >> 4 == 4
            && header_bytes >= 20
            && total >= header_bytes
            && total <= available;
        let expected = if sound { Ok(()) } else { Err(DropReason::Malformed) };
        prop_assert_eq!(header.check(available), expected);
        prop_assert_eq!(header.source().octets(), [bytes[12], bytes[13], bytes[14], bytes[15]]);
        let more_or_offset = u16::from_be_bytes([bytes[6], bytes[7]]) & 0x3fff;
        prop_assert_eq!(header.is_fragment(), more_or_offset != 0);
        prop_assert_eq!(header.is_later_fragment(), more_or_offset & 0x1fff != 0);
    }

    #[test]
    fn only_a_syn_without_ack_opens(flags in any::<u8>(), offset in any::<u8>()) {
        let tcp = TcpFlags::from_bytes([offset, flags]);
        let (syn, ack) = (flags & 2 != 0, flags & 16 != 0);
        prop_assert_eq!(tcp.kind() == PacketKind::TcpOpen, syn && !ack);
        prop_assert_eq!(tcp.negotiates(), syn);
        prop_assert_eq!(tcp.header_bytes(), u32::from(offset >> 4) * 4);
    }

    /// Searches random options as the kernel program does, and by the RFC's own words.
    #[test]
    fn a_search_finds_the_mss_that_a_plain_reader_finds(
        options in proptest::collection::vec(
            prop_oneof![Just(0u8), Just(1), Just(2), Just(4), any::<u8>()], 0..=40),
    ) {
        let mut search = Search::among(options.len() as u32);
        for _ in 0..OPTIONS_MAX {
            let at = search.at() as usize;
            prop_assert!(at <= 40, "the search left the options");
            let byte = |at: usize| options.get(at).copied().unwrap_or(0xee);
            search = search.look(byte(at), byte(at + 1)).as_any(0);
        }
        prop_assert_eq!(search.found().map(|at| at as usize), plainly_found_mss(&options));
    }

    #[test]
    fn a_clamped_segment_fits_the_path_and_a_small_one_is_left_alone(
        mss in any::<u16>(), mtu in 576u32..65_536,
    ) {
        let largest = mss::largest_for_path(mtu);
        match mss::clamped(mss, largest) {
            Some(new) => {
                prop_assert!(new < mss);
                prop_assert_eq!(u32::from(new) + 20 + 20 + 50, mtu);
            }
            None => prop_assert!(u32::from(mss) + 20 + 20 + 50 <= mtu),
        }
    }
}

fn plainly_found_mss(options: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at + 4 <= options.len() {
        match options[at] {
            0 => return None,
            1 => at += 1,
            2 if options[at + 1] == 4 => return Some(at + 2),
            _ if options[at + 1] < 2 => return None,
            _ => at += usize::from(options[at + 1]),
        }
    }
    None
}

#[test]
fn flows_spread_over_source_ports() {
    let mut ports = std::collections::BTreeSet::new();
    for client in 0..1000u16 {
        let hash = vxlan::flow_hash(
            Address::from_octets([10, 77, 0, 2]),
            Address::from_octets([10, 77, 1, 2]),
            Port::new(32_768 + client),
            Port::new(9092),
        );
        ports.insert(vxlan::source_port(hash).number());
    }
    assert!(
        ports.len() > 950,
        "1000 neighbouring flows use only {} ports",
        ports.len()
    );
}

#[test]
fn icmp_is_judged_by_type_and_code() {
    assert_eq!(icmp_kind(8, 0), Ok(PacketKind::EchoRequest));
    assert_eq!(icmp_kind(0, 0), Ok(PacketKind::EchoReply));
    for error in [3, 11, 12] {
        assert_eq!(icmp_kind(error, 1), Ok(PacketKind::Error));
    }
    for other in [
        (4, 0),
        (5, 1),
        (8, 1),
        (0, 9),
        (9, 0),
        (13, 0),
        (17, 0),
        (255, 255),
    ] {
        assert_eq!(
            icmp_kind(other.0, other.1),
            Err(DropReason::UnsupportedIcmp)
        );
    }
}
