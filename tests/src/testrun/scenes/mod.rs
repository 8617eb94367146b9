//! The scenes. Those named `drop_LABEL` are the one canonical test of the drop reason with that label.

mod classes;
mod detour;
mod drop_packet;
mod drop_place;
mod drop_tunnel;
mod errors;
mod fellows;
mod filter;
mod flows;
mod fragments;
mod golden;
mod guard;
mod leaves;
mod outside;
mod path_mtu;
mod paths;
mod receive;
mod records;
mod replies;
mod send;
mod shaper;
mod stack;
mod strict;
mod transit;
mod untouched;
mod waiting;

use anyhow::Result;
use slice_common::address::Port;
use slice_common::drop_reason::DropReason;
use slice_common::wire::vxlan;

use super::actors::*;
use super::exchange::{Expected, Program};
use super::world::World;
use crate::packet::{Ipv4, Mac, Vxlan};

/// One behaviour.
#[derive(Clone, Copy, Debug)]
pub struct Scene {
    pub name: &'static str,
    pub run: fn(&mut World) -> Result<()>,
}

macro_rules! list {
    ($($file:ident: $($name:ident)*;)*) => {
        vec![$($(Scene { name: stringify!($name), run: $file::$name },)*)*]
    };
}

pub use waiting::{play_on_fq, play_on_htb};

/// Every scene, in the order in which they run.
pub fn scenes() -> Vec<Scene> {
    list! {
        golden: golden_encapsulation golden_decapsulation;
        send: syn_to_a_remote_broker answer_of_a_broker_to_a_client data_of_an_open_connection
            datagram_without_checksum echo_to_a_remote_broker packet_with_ip_options
            largest_segment_size_at_an_odd_place largest_segment_size_of_a_narrow_path
            small_segment_size_is_left_alone outer_congestion_bits_are_the_inner_ones
            pod_to_pod_on_one_node pod_to_its_own_slice_address native_addresses_are_not_mapped;
        receive: syn_from_a_remote_broker all_sixteen_congestion_combinations
            class_is_counted_as_the_tunnel_says datagram_arrives_without_checksum
            outer_checksum_is_no_obstacle native_destination_is_not_mapped
            packet_with_ip_options_arrives;
        untouched: pod_to_the_internet other_protocols_of_a_pod pod_outside_every_slice
            underlay_traffic_of_others tunnel_port_of_another_address overheard_tunnel_packet
            node_without_configuration;
        replies: datagram_answer_needs_a_question echo_answer_needs_a_question
            echo_request_is_no_answer
            busy_exchange_is_noted_once answer_to_another_port_is_denied
            drop_too_many_exchanges others_may_begin_so_many_with_a_pod;
        outside: connection_begun_by_the_pod_is_answered node_may_reach_its_pods
            masqueraded_stranger_is_not_the_node question_in_anothers_name_is_not_noted
            neither_broadcast_nor_tag_gets_around_isolation
            error_about_slice_packet_comes_from_no_stranger
            datagram_from_outside_needs_a_question echo_from_outside_needs_a_question
            echo_request_from_outside_is_no_answer
            error_about_the_pods_own_packet open_slice_lets_strangers_in
            traffic_through_the_pod_is_not_judged later_fragments_from_outside;
        strict: drop_confined confined_pod_and_those_who_are_named confined_pod_answers_whom_it_must
            confined_pod_speaks_ipv4_only named_strangers_may_begin;
        errors: pod_tells_a_remote_sender pod_is_told_by_a_remote_receiver
            pod_tells_a_sender_on_its_node error_about_a_forbidden_packet error_about_an_answer
            error_about_what_was_never_sent
            forged_errors_from_a_peer;
        flows: known_flow_to_another_node known_flow_on_one_node known_flow_from_another_node
            syn_does_not_follow_a_known_flow known_datagrams_keep_their_answers_welcome
            known_flow_is_still_looked_at;
        classes: pods_have_classes_of_their_own ports_count_before_pods
            answers_are_of_their_questions_class errors_and_parts_are_of_their_pods_class
            known_flow_changes_its_class;
        fragments: parts_leave_alike parts_arrive parts_stay_on_their_node
            what_is_denied_to_the_first_is_denied_to_all;
        detour: datagrams_in_segments_take_the_detour datagrams_in_segments_on_one_node
            segments_of_datagrams_must_fit;
        stack: stack_gets_what_a_peer_sends stack_gets_what_a_pod_of_the_node_sends
            isolated_pod_gets_from_the_stack_what_its_slice_sent;
        path_mtu: router_narrows_a_path who_is_not_believed a_path_only_sinks
            a_narrow_path_is_wide_again_later;
        drop_packet: drop_malformed drop_fragment drop_unsupported_protocol drop_icmp_error
            drop_unsupported_icmp drop_gso_not_tcp drop_too_big too_big_without_a_word more_than_a_header_can_say every_lie_about_length_is_malformed;
        drop_place: drop_spoofed_source drop_no_route drop_other_slice drop_no_endpoint
            drop_policy_denied drop_isolated drop_no_path drop_helper_failed
            policy_is_judged_on_arrival_too no_rule_no_passage deny_wins_by_the_longer_prefix;
        drop_tunnel: drop_unknown_peer drop_bad_tunnel_header drop_unknown_slice drop_wrong_slice
            drop_wrong_peer drop_inner_not_ipv4 drop_ecn_not_capable drop_slow_path drop_not_local
            every_other_tunnel_header_is_bad arrival_for_nobody;
        filter: strangers_are_dropped_early what_is_not_the_tunnels_passes_early
            frame_in_several_buffers probes_pass_early;
        transit: stream_through_a_gateway outer_checksum_ends_at_a_gateway
            connection_through_a_gateway_fits_its_next_path merged_segments_through_a_gateway
            answers_pass_any_gateway parts_through_a_gateway what_a_gateway_does_not_pass_on
            drop_loop drop_ttl late_without_a_word;
        fellows: a_fellow_takes_over_where_no_way_is_proven
            what_a_fellow_brings_goes_out_by_own_ways
            a_fellow_speaks_for_pods_of_other_nodes_only;
        paths: probed_path_is_chosen_by_its_answers unprobed_path_is_chosen_by_what_is_heard
            arrival_proves_a_watched_path probe_is_answered drop_bad_probe drop_probe_limit
            only_the_probers_probes_leave;
        shaper: drop_over_horizon what_fits_the_ceiling_passes a_class_keeps_its_guarantee
            probes_and_strangers_are_not_shaped
            what_stays_in_the_cluster_is_not_shaped packets_are_given_a_departure
            a_loan_changes_what_bytes_count_until_it_is_over
            whoever_waits_long_is_told segments_are_counted_as_the_link_carries_them
            a_class_without_terms_is_the_default_one;
        leaves: packets_are_sent_to_classes
            a_flow_stays_at_the_back_while_packets_of_it_may_wait
            a_thin_flow_stays_at_the_front_of_a_crowd
            a_flow_of_another_class_stays_while_packets_of_it_may_wait
            flows_of_two_classes_with_one_record_keep_their_classes
            a_flow_of_a_vacated_class_stays_while_packets_of_it_may_wait;
        records: flows_that_meet_have_records_of_their_own
            a_record_is_given_up_when_its_flow_is_silent;
        guard: drop_forged_underlay drop_bare_slice_address what_others_send_leaves;
    }
}

const POD_SIDE: Mac = KAFKA_0.mac;
const HOST_SIDE: Mac = [0x0a, 0, 0, 0xff, 0, 0];

/// A frame as a pod sends it to its host.
pub(super) fn from_pod(packet: &Ipv4) -> Vec<u8> {
    packet.frame(HOST_SIDE, POD_SIDE)
}

/// A frame as it is handed to a pod of this node.
fn to_pod(pod: &Pod, packet: &Ipv4) -> Vec<u8> {
    packet.frame(pod.mac, [0x02, 0x53, 0x4c, 0x50, 0x00, 0x01])
}

/// A frame as the router hands it to this node.
pub(super) fn on_wire(tunnel: &Vxlan) -> Vec<u8> {
    tunnel.frame(NIC_MAC, ROUTER_MAC)
}

/// A tunnel packet as `east-1` sends it; the Ethernet addresses are those of the pod's frame until the
/// kernel's neighbour layer replaces them.
fn tunnel_out(
    to: Node,
    slice: u32,
    (class, dscp): (u8, u8),
    inner: &Ipv4,
    ports: [u16; 2],
) -> Vec<u8> {
    let bytes = inner.build();
    let address = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
    tunnel_between(EAST_1, to.address, slice, class)
        .source_port(flow_port(address(12), address(16), ports))
        .outer(|outer| outer.dscp(dscp).ecn(bytes[1]))
        .carry(inner)
        .frame(HOST_SIDE, POD_SIDE)
}

/// A tunnel packet as a peer sends it.
pub(super) fn tunnel_in(from: Node, slice: u32, class: u8, inner: &Ipv4) -> Vxlan {
    tunnel_between(from.address, EAST_1, slice, class).carry(inner)
}

fn tunnel_between(from: [u8; 4], to: [u8; 4], slice: u32, class: u8) -> Vxlan {
    Vxlan::between(from, to).slice(slice, class)
}

/// A tunnel packet with each fault that its headers can have before anybody looks inside.
fn bad_headers(good: &Vxlan) -> Vec<Vxlan> {
    let good = || good.clone();
    vec![
        good().flags(0),
        good().flags(0x88),
        // The bit of the Generic Protocol Extension.
        good().flags(0x0c),
        good().reserved([1, 0, 0]),
        good().reserved([0, 0, 1]),
        good().last(1),
        good().cut_to(0),
        good().cut_to(7),
        good().outer(|outer| outer.options(&[1, 1, 1, 1])),
        good().outer(|outer| outer.fragment(0, true)),
        good().outer(|outer| outer.total_bytes(19)),
        good().outer(|outer| outer.total_bytes(2000)),
    ]
}

/// The tunnel's source port. Taken from the code under test, because a hash has no second truth; the
/// golden packets freeze it.
fn flow_port(source: [u8; 4], destination: [u8; 4], [from, to]: [u16; 2]) -> u16 {
    let hash = vxlan::flow_hash(
        address(source),
        address(destination),
        Port::new(from),
        Port::new(to),
    );
    vxlan::source_port(hash).number()
}

/// A packet that `kafka-0` sends is let through; the same packet with a fault is dropped.
fn drops_from_pod(world: &mut World, reason: DropReason, good: &Ipv4, bad: &Ipv4) -> Result<()> {
    let scene = format!("drop {}", reason.label());
    world
        .send(&scene, Program::PodEgress, KAFKA_0.device, from_pod(good))
        .accepted()?;
    world
        .send(&scene, Program::PodEgress, KAFKA_0.device, from_pod(bad))
        .expect(Expected::dropped(KAFKA.id, reason))
}

/// A tunnel packet is let through; the same packet with a fault is dropped, counted for `slice`.
fn drops_from_wire(
    world: &mut World,
    slice: u32,
    reason: DropReason,
    good: &Vxlan,
    bad: &Vxlan,
) -> Result<()> {
    let scene = format!("drop {}", reason.label());
    world
        .send(&scene, Program::UnderlayIngress, NIC, on_wire(good))
        .accepted()?;
    world
        .send(&scene, Program::UnderlayIngress, NIC, on_wire(bad))
        .expect(Expected::dropped(slice, reason))
}

/// A frame as this node sends it to its router.
fn from_node(packet: &Ipv4) -> Vec<u8> {
    packet.frame(ROUTER_MAC, NIC_MAC)
}

/// The guard lets a frame pass that has the mark, and drops it, counted for `slice`, without.
fn drop_in_guard(world: &mut World, slice: u32, reason: DropReason, frame: &[u8]) -> Result<()> {
    let scene = format!("drop {}", reason.label());
    world
        .send(&scene, Program::UnderlayGuard, NIC, frame.to_vec())
        .marked_as_tunnelled()
        .expect(Expected::untouched(frame))?;
    world
        .send(&scene, Program::UnderlayGuard, NIC, frame.to_vec())
        .expect(Expected::dropped(slice, reason))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// A test run cannot leave a checksum to the network card.
    const PLAYED_LIVE: [&str; 1] = ["drop_forged_checksum"];

    #[test]
    fn every_drop_reason_has_one_scene_and_no_name_is_used_twice() {
        let all = scenes();
        let names: BTreeSet<_> = all.iter().map(|scene| scene.name.to_owned()).collect();
        assert_eq!(names.len(), all.len());
        let drops: BTreeSet<_> = names
            .into_iter()
            .filter(|name| name.starts_with("drop_"))
            .collect();
        let reasons: BTreeSet<_> = DropReason::ALL
            .iter()
            .map(|reason| format!("drop_{}", reason.label()))
            .filter(|name| !PLAYED_LIVE.contains(&name.as_str()))
            .collect();
        assert_eq!(drops, reasons);
    }
}
