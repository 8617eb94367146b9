//! What slices may send: rates, guarantees and uplinks, from text to the terms of the shaper.
//!
//! Each refusal changes one thing in a right configuration; the message is compared as a whole.

mod config_support;

use std::time::Instant;

use config_support::qos::{CEILING, CLASSES, UPLINKS, carried_out, image, shaped, shaped_but};
use config_support::{check_text, east_1};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use slice_agent::agent::status::Status;
use slice_agent::compile::{SharedCeiling, in_words, shaping, shared_ceilings, shares};
use slice_agent::image::{NodeImage, RootQueue};
use slice_agent::model::{Share, Validated, render};
use slice_agent::observe::host;
use slice_agent::plan::{self, Change, plan};
use slice_common::layout::{Settings, ShaperBackend, ShaperKey};
use slice_common::shaper::{
    Assured, ClassTerms, Patience, Rate, SliceTerms, UplinkTerms, WireBytes,
};

/// `shop` as the second slice that is shaped.
fn shop(qos: &str) -> (&'static str, String) {
    let open = "  isolation: {level: Open}\n";
    (open, format!("{open}  qos:\n{qos}"))
}

fn only_share(configuration: &Validated, slice: &str) -> Share {
    let uplink = &configuration.node().uplinks[0];
    let shares =
        shares(configuration, uplink).unwrap_or_else(|errors| panic!("{}", render(&errors)));
    let of_slice = shares.into_iter().find(|(it, _)| it.name == slice);
    of_slice.expect("a shaped slice").1
}

fn rates(text: &str) -> (u64, u64, u64, Vec<u64>) {
    let configuration = check_text(text).unwrap_or_else(|errors| panic!("{errors}"));
    let share = only_share(&configuration, "kafka");
    let entitlements = share.entitlements.iter().map(|rate| rate.bps()).collect();
    let bps = [share.contract, share.ceiling, share.guarantee].map(Rate::bps);
    (bps[0], bps[1], bps[2], entitlements)
}

const KAFKA: ShaperKey = ShaperKey {
    ifindex: 2,
    slice: 7,
};
const M: u64 = 1_000_000;

#[test]
fn a_class_counts_on_its_percentage_and_its_part_of_what_is_left() {
    // 200M less 20M and 80M, less 20M for thin flows: 80M, of which 1 + 1 + 3 + 1 parts are made.
    let sixth = 80 * M / 6;
    let entitlements = vec![sixth, 20 * M + sixth, 80 * M + 40 * M, sixth];
    assert_eq!(rates(&shaped()), (300 * M, 200 * M, 200 * M, entitlements));
}

#[test]
fn a_number_with_an_exponent_is_a_rate() {
    let text = shaped_but(&[("default: 200M", "default: 2e8")]);
    assert_eq!(rates(&text), rates(&shaped()));
}

#[test]
fn an_override_counts_where_its_name_says() {
    let ceiling_with = |overrides: &str| {
        let text = shaped_but(&[("{west: 50M}", overrides)]);
        rates(&text).1
    };
    assert_eq!(ceiling_with("{west: 50M}"), 200 * M, "of another cluster");
    assert_eq!(ceiling_with("{east: 50M}"), 50 * M, "of this one");
    assert_eq!(ceiling_with("{wan: 30M}"), 30 * M, "of the uplink");
    assert_eq!(
        ceiling_with("{east: 50M, wan: 30M}"),
        30 * M,
        "the uplink is closer"
    );
}

/// The slice's document is the same on all nodes.
#[test]
fn an_override_for_an_uplink_of_others_is_doubted_and_changes_nothing() {
    let doubts = |overrides: &str| {
        let text = shaped_but(&[("{west: 50M}", overrides)]);
        let configuration = check_text(&text).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(rates(&text).1, 200 * M);
        let told = render(configuration.doubts());
        let told = told.split_once(", document ").unwrap_or_default().1;
        told.trim_end().to_owned()
    };
    assert_eq!(doubts("{west: 50M}"), "");
    assert_eq!(
        doubts("{wets: 50M}"),
        "2, Slice kafka, spec.qos.ceiling.overrides.wets: `wets` is neither an uplink of this node nor a cluster that it \
         knows (wan, east, west), so this counts for others, if for anybody; correct the name, if it is to count here"
    );
}

#[test]
fn nodes_that_share_an_uplink_get_equal_parts() {
    let text = shaped_but(&[("rate: 300M", "rate: 300M, nodes: 3")]);
    let (contract, ceiling, guarantee, _) = rates(&text);
    assert_eq!(
        (contract, ceiling, guarantee),
        (100 * M, 66_666_666, 66_666_666)
    );
    let ceilings = |text: &str| shared_ceilings(&check_text(text).expect("right"), &east_1());
    let whole = SharedCeiling {
        bps: 200 * M,
        nodes: 3,
    };
    let key = ShaperKey {
        ifindex: 2,
        slice: 7,
    };
    assert_eq!(ceilings(&text), [(key, whole)].into());
    assert!(ceilings(&shaped()).is_empty(), "nobody has a part of it");
}

#[test]
fn a_gateway_without_pods_of_a_slice_only_forwards_it() {
    let forwarded = |image: &NodeImage| {
        let status = Status::new(Instant::now());
        status.update(|state| state.observed(image));
        status.read().only_forwarded
    };
    let (member, _) = image(&shaped(), &east_1());
    let mut gateway = member.clone();
    gateway.settings.as_mut().expect("settings").flags |= Settings::GATEWAY;
    assert_eq!(forwarded(&gateway), [].into());
    gateway.endpoints.retain(|_, pod| pod.slice != 7);
    assert_eq!(forwarded(&gateway), [7].into());
    gateway.settings = member.settings;
    assert_eq!(forwarded(&gateway), [].into());
}

#[test]
fn terms_are_those_of_the_shares() {
    let (open, with) = shop("    ceiling: {default: 150M}\n    sliceGuarantee: {default: 100M}\n");
    let configuration = check_text(shaped_but(&[(open, &with)])).expect("right");
    let mut facts = east_1();
    let nic = facts.interfaces.get_mut("nic0").expect("nic0");
    nic.root_queue = RootQueue::Fair { handle: 1 };
    let terms = shaping(&configuration, &facts).expect("terms");
    let keys: Vec<_> = terms.keys().cloned().collect();
    let key = |slice| ShaperKey { ifindex: 2, slice };
    assert_eq!(keys, [key(7), key(8)]);

    let rate = |bps| Rate::new_checked(bps).expect("in range");
    let (frame, patience) = (WireBytes::new(1538), Patience::for_round_trip(20_000_000));
    let kafka = &terms[&key(7)];
    let assured = Assured::new(rate(200 * M), None);
    assert_eq!(kafka.slice, SliceTerms::new(rate(200 * M), assured, frame));
    // 350M of ceilings on 300M: the uplink is watched.
    let uplink = |guarantee| UplinkTerms::new(rate(300 * M), rate(guarantee), patience, frame);
    assert_eq!(kafka.uplink, uplink(200 * M));
    assert_eq!(kafka.classes.len(), 4);
    let replication = ClassTerms::new(rate(120 * M), patience, frame);
    assert_eq!(kafka.classes[2], replication);
    let favoured: Vec<_> = kafka
        .classes
        .iter()
        .map(|class| class.favour_interactive)
        .collect();
    assert_eq!(favoured, [true, true, true, false]);

    let shop = &terms[&key(8)];
    assert_eq!(shop.uplink, uplink(100 * M));
    let assured = Assured::new(rate(150 * M), Some(rate(100 * M)));
    assert_eq!(shop.slice, SliceTerms::new(rate(150 * M), assured, frame));
    assert_eq!(
        shop.classes,
        [ClassTerms::new(rate(90 * M), patience, frame)]
    );

    // Where nothing can wait, less is let through ahead of time.
    let terms = shaping(&configuration, &east_1()).expect("terms");
    let replication = ClassTerms::new(rate(120 * M), Patience::WITHOUT_QUEUE, frame);
    assert_eq!(terms[&key(7)].classes[2], replication);
}

#[test]
fn people_see_what_each_class_can_count_on() {
    let text = shaped_but(&[("rate: 300M", "rate: 300M, nodes: 2")]);
    let configuration = check_text(text).expect("right");
    let uplink = &configuration.node().uplinks[0];
    let shares = shares(&configuration, uplink).expect("shares");
    let lines: Vec<_> = shares
        .iter()
        .map(|(slice, share)| in_words(uplink, slice, share))
        .collect();
    assert_eq!(
        lines,
        [
            "uplink wan: slice kafka sends 100M at most and is guaranteed 100M; when everybody sends: \
             default 6666666, control 16666666, replication 60M, client 6666666, thin flows 9M; this \
             node's part, one of 2"
        ]
    );
}

#[test]
fn an_uplink_that_all_ceilings_fit_into_is_not_watched() {
    let configuration = check_text(shaped()).expect("right");
    let terms = shaping(&configuration, &east_1()).expect("terms");
    assert_eq!(terms[&KAFKA].uplink, UplinkTerms::NONE);
}

#[test]
fn a_member_behind_gateways_needs_no_uplink() {
    let gateway = (
        "\n   blocks: [{slice: kafka, namespace: analytics, prefix: 10.77.64.0/29}]}",
        "}",
    );
    let other = (
        "cluster: west, name: west-1",
        "cluster: east, name: east-gw-1",
    );
    let last = "prefix: 10.78.64.0/29}]}\n";
    let remotes = format!(
        "{last}remotes:\n- {{cluster: north, gateways: [east/east-gw-1],\n   blocks: [{{slice: kafka, \
         namespace: analytics, prefix: 10.77.64.0/29}}]}}\n"
    );
    let text = shaped_but(&[gateway, other, (last, &remotes), (UPLINKS, "")]);
    check_text(text).unwrap_or_else(|errors| panic!("{errors}"));
}

macro_rules! refused {
    ($($name:ident: $($old:expr => $new:expr),+; $message:expr;)*) => {
        $(
            #[test]
            fn $name() {
                check_text(shaped()).expect("right without the change");
                let text = shaped_but(&[$(($old, $new)),+]);
                let message = check_text(text).expect_err("a mistake that is noticed");
                assert_eq!(message.trim_end(), $message);
            }
        )*
    };
}

refused! {
    guarantees_of_more_than_there_is:
        "favourInteractive: false" => "guaranteePercent: 45";
        "node.yaml, document 2, Slice kafka, spec.qos.classes: control 10 % + replication 40 % + client \
         45 % + lane of thin flows 10 % = 105 % of the ceiling of 200M; lower one by 5 %";

    a_percentage_above_100:
        "guaranteePercent: 40" => "guaranteePercent: 101";
        "node.yaml, document 2, Slice kafka, spec.qos.classes[1].guaranteePercent: `101` is out of range; \
         a percentage is 0 to 100";

    a_weight_of_zero:
        "weight: 3" => "weight: 0";
        "node.yaml, document 2, Slice kafka, spec.qos.classes[1].weight: `0` is out of range; a weight is \
         1 to 65535";

    guarantees_that_leave_nothing_for_what_has_none:
        "guaranteePercent: 40, weight: 3" => "guaranteePercent: 80";
        "node.yaml, document 2, Slice kafka, spec.qos.classes: what is of no class could starve: when all \
         classes send on uplink wan it has 0 + 1/4 of the 0 that nobody is guaranteed = 0, and 16k is the \
         least; lower a `guaranteePercent`, so that something is left";

    a_ceiling_too_low_for_its_classes:
        "rate: 300M" => "rate: 300M, nodes: 2",
        "{west: 50M}" => "{wan: 60k}";
        "node.yaml, document 2, Slice kafka, spec.qos.classes: what is of no class could starve: when all \
         classes send on uplink wan it has 0 + 1/6 of the 6700 that nobody is guaranteed = 1116 on each of 2 \
         nodes, and 16k is the least; lower a `guaranteePercent` or the `weight` of others, or raise the ceiling \
         (`sliceGuarantee`, where there is one)";

    a_ceiling_too_low_for_thin_flows_and_guarantees:
        "{west: 50M}" => "{wan: 16k}";
        "node.yaml, document 2, Slice kafka, spec.qos.ceiling: control 1600 + replication 6400 + the \
         least for thin flows 8160 = 16160 on uplink wan, where the slice is guaranteed 16k: 160 too much; \
         percentages are of the ceiling, so lower them, or raise `sliceGuarantee` or, where there is none, the \
         ceiling";

    a_slice_guarantee_that_parts_make_nothing_of:
        "rate: 300M" => "rate: 300M, nodes: 8",
        "{west: 50M}}" => "{west: 50M}}\n    sliceGuarantee: {default: 60k}";
        "node.yaml, document 2, Slice kafka, spec.qos.sliceGuarantee: 60k on uplink wan is 7500 on each of 8 \
         nodes, and 8k is the least; raise it";

    a_class_called_as_what_is_of_none:
        "name: control, match" => "name: default, match";
        "node.yaml, document 2, Slice kafka, spec.qos.classes[0].name: `default` is what metrics and `slice-agent \
         status` call packets of no class; give this class another name";

    a_ceiling_that_parts_make_nothing_of:
        "rate: 300M" => "rate: 300M, nodes: 8",
        "{west: 50M}" => "{wan: 60k}";
        "node.yaml, document 2, Slice kafka, spec.qos.ceiling: 60k on uplink wan is 7500 on each of 8 \
         nodes, and 8k is the least; raise it";

    a_ceiling_above_its_uplink:
        "rate: 300M" => "rate: 150M";
        "node.yaml, document 2, Slice kafka, spec.qos.ceiling: the ceiling of 200M is more than the 150M \
         of uplink wan; lower it, or for this node alone with `overrides: {wan: 150M}`";

    slices_that_are_guaranteed_more_than_the_uplink:
        shop("").0 => &shop("    ceiling: {default: 150M}\n").1;
        "node.yaml, document 1, Node east/east-1, uplinks[0].rate: kafka 200M + shop 150M = 350M on \
         uplink wan, which has 300M: 50M too much; lower ceilings, or give slices a `sliceGuarantee` \
         below their ceiling";

    a_guarantee_above_the_ceiling:
        "    classes:\n" => "    sliceGuarantee: {default: 250M}\n    classes:\n";
        "node.yaml, document 2, Slice kafka, spec.qos.sliceGuarantee: the slice is guaranteed 250M on \
         uplink wan, more than its ceiling of 200M lets it send there; lower the guarantee or raise the \
         ceiling";

    classes_that_are_guaranteed_more_than_their_slice:
        "    classes:\n" => "    sliceGuarantee: {default: 100M}\n    classes:\n";
        "node.yaml, document 2, Slice kafka, spec.qos.sliceGuarantee: control 20M + replication 80M + \
         1/10 for thin flows 10M = 110M on uplink wan, where the slice is guaranteed 100M: 10M too much; \
         percentages are of the ceiling, so lower them, or raise `sliceGuarantee` or, where there is none, the \
         ceiling";

    an_override_given_twice:
        "{west: 50M}" => "{west: 50M, west: 60M}";
        "node.yaml, document 2, line 35: spec.qos.ceiling.overrides: duplicate entry with key \"west\"; \
         remove one of the two";

    an_uplink_called_like_a_cluster:
        "name: wan" => "name: west";
        "node.yaml, document 1, Node east/east-1, uplinks[0].name: `west` is also a cluster's name, so an \
         override for it could mean either; rename the uplink";

    an_uplink_that_carries_nothing:
        "{name: wan, interface: nic0" => "{name: wan, interface: br0";
        "node.yaml, document 1, Node east/east-1, uplinks[0].interface: `br0` carries no tunnel packets, \
         they all leave by nic0 (`underlay.interface`); give that one";

    an_uplink_twice:
        "uplinks: [" => "uplinks: [{name: wan, interface: nic0, rate: 1G}, ";
        "node.yaml, document 1, Node east/east-1, uplinks[1].name: the uplink name `wan` is already used \
         at node.yaml, document 1, Node east/east-1, uplinks[0].name; each needs its own\nnode.yaml, \
         document 1, Node east/east-1, uplinks[1].interface: the uplink's interface `nic0` is already \
         used at node.yaml, document 1, Node east/east-1, uplinks[0].interface; each needs its own";

    an_uplink_of_no_nodes:
        "rate: 300M" => "rate: 300M, nodes: 0";
        "node.yaml, document 1, Node east/east-1, uplinks[0].nodes: `0` is out of range; a number of \
         nodes is 1 to 8192";

    no_uplink_where_packets_leave_the_cluster:
        UPLINKS => "";
        "node.yaml, document 2, Slice kafka, spec.qos.ceiling: this node itself sends the slice's packets \
         to another cluster (peer west/west-1), and no uplink says by what link; add `uplinks: [{name: \
         wan, interface: nic0, rate: 1G}]` to the Node document, with the rate that is paid for";

    parts_of_no_ceiling:
        CEILING => "    sliceGuarantee: {default: 100M}\n";
        "node.yaml, document 2, Slice kafka, spec.qos.sliceGuarantee: there is no ceiling that this could \
         be a part of; add one, as in `ceiling: {default: 200M}`, or remove this\nnode.yaml, document 2, \
         Slice kafka, spec.qos.classes[0].guaranteePercent: there is no ceiling that this could be a part \
         of; add one, as in `ceiling: {default: 200M}`, or remove this\nnode.yaml, document 2, Slice \
         kafka, spec.qos.classes[1].guaranteePercent: there is no ceiling that this could be a part of; \
         add one, as in `ceiling: {default: 200M}`, or remove this\nnode.yaml, document 2, Slice kafka, \
         spec.qos.classes[1].weight: there is no ceiling that this could be a part of; add one, as in \
         `ceiling: {default: 200M}`, or remove this\nnode.yaml, document 2, Slice kafka, \
         spec.qos.classes[2].favourInteractive: there is no ceiling that this could be a part of; add \
         one, as in `ceiling: {default: 200M}`, or remove this";

    a_rate_of_zero:
        "default: 200M" => "default: 0";
        "node.yaml, document 2, Slice kafka, spec.qos.ceiling.default: `0` is out of range; a rate is 8k \
         to 400G bits per second";

    a_rate_above_what_can_be_kept:
        "rate: 300M" => "rate: 1T";
        "node.yaml, document 1, Node east/east-1, uplinks[0].rate: `1T` is out of range; a rate is 8k to \
         400G bits per second";

    a_rate_in_another_unit:
        "default: 200M" => "default: 200Mbit";
        "node.yaml, document 2, Slice kafka, spec.qos.ceiling.default: `200Mbit` is no rate; write bits \
         per second as a quantity, as in 200M, 1.5G or 100Mi";

    a_rate_that_is_a_list:
        "default: 200M" => "default: [200M]";
        "node.yaml, document 2, line 35: spec.qos.ceiling: a rate is a quantity in bits per second \
         (200M, 1.5G, 100Mi); see the configuration reference for the fields and their types";

    a_negative_rate:
        "default: 200M" => "default: -5";
        "node.yaml, document 2, Slice kafka, spec.qos.ceiling.default: `-5` is no rate; write bits \
         per second as a quantity, as in 200M, 1.5G or 100Mi";

    a_rate_that_is_no_whole_number:
        "default: 200M" => "default: 1.5";
        "node.yaml, document 2, Slice kafka, spec.qos.ceiling.default: `1.5` is no whole number of bits \
         per second; round it";

    a_percentage_with_a_sign:
        "guaranteePercent: 40" => "guaranteePercent: 40%";
        "node.yaml, document 2, Slice kafka, spec.qos.classes[1].guaranteePercent: `40%` of class \
         replication is no percentage; write 40, without a sign or quotes";

    a_percentage_in_quotes:
        "guaranteePercent: 40" => "guaranteePercent: \"40\"";
        "node.yaml, document 2, Slice kafka, spec.qos.classes[1].guaranteePercent: `40` of class \
         replication is no percentage; write 40, without a sign or quotes";

    a_percentage_above_all:
        "guaranteePercent: 40" => "guaranteePercent: 140%";
        "node.yaml, document 2, Slice kafka, spec.qos.classes[1].guaranteePercent: `140%` of class \
         replication is no percentage; write a whole number from 0 to 100, as in 40";

    a_negative_percentage:
        "guaranteePercent: 40" => "guaranteePercent: -40";
        "node.yaml, document 2, Slice kafka, spec.qos.classes[1].guaranteePercent: `-40` of class \
         replication is no percentage; write a whole number from 0 to 100, as in 40";

    a_fraction_of_a_percent:
        "guaranteePercent: 40" => "guaranteePercent: 12.5";
        "node.yaml, document 2, Slice kafka, spec.qos.classes[1].guaranteePercent: `12.5` of class \
         replication is no percentage; write a whole number from 0 to 100, as in 40";

    a_class_that_is_a_name:
        "{name: control, match: [{protocol: TCP, port: 9090}], guaranteePercent: 10}" => "control";
        "node.yaml, document 2, line 37: spec.qos.classes[0]: invalid type: string \"control\", expected a map of \
         fields; see the configuration reference for the fields and their types";

    a_weight_that_is_a_list:
        "weight: 3" => "weight: []";
        "node.yaml, document 2, line 38: spec.qos.classes[1].weight: invalid type: list, expected a whole number, 0 or \
         more; see the configuration reference for the fields and their types";

    a_ceiling_that_is_a_rate:
        "ceiling: {default: 200M, overrides: {west: 50M}}" => "ceiling: 200M";
        "node.yaml, document 2, line 35: spec.qos.ceiling: invalid type: string \"200M\", expected a rate \
         for every cluster, and others for some, as in {default: 200M, overrides: {west: 50M}}; see the \
         configuration reference for the fields and their types";
}

#[test]
fn the_kernel_gets_the_terms_before_it_is_told_to_look_for_them() {
    let (wanted, names) = image(&shaped(), &east_1());
    let changes = plan(&NodeImage::default(), &wanted, &names);
    let text = plan::render(&changes);
    let rates = "~ rates: 1 added, 0 removed, 0 changed; 1 in all, swapped at once\n    + slice kafka by \
                 uplink wan, with drops: 200M at most; when everybody sends default 13.33M, control 33.33M, \
                 replication 120M, client 13.33M\n";
    let settings = "generation 1, with rates\n";
    let at = |what: &str| {
        text.find(what)
            .unwrap_or_else(|| panic!("no {what} in\n{text}"))
    };
    assert!(at(rates) < at(settings), "{text}");

    let there = carried_out(NodeImage::default(), &changes);
    assert_eq!(plan(&there, &wanted, &names), []);
    let configuration = check_text(shaped()).expect("right");
    let terms = &shaping(&configuration, &east_1()).expect("terms")[&KAFKA];
    let written = there.rates.values().next().expect("one slice");
    assert_eq!(
        (written.uplink(), written.slice()),
        (terms.uplink, terms.slice)
    );
    assert_eq!(written.backend, ShaperBackend::Vq.number());
    for (class, number) in written.classes[..4].iter().zip(0..) {
        // Nothing is marked without a queue.
        let mut expected = terms.classes[number];
        expected.mark_ns = u64::MAX;
        assert_eq!(class.terms(), expected, "class {number}");
    }
}

#[test]
fn a_new_rate_changes_the_terms_and_nothing_else() {
    let facts = east_1();
    let (before, names) = image(&shaped(), &facts);
    let there = carried_out(
        NodeImage::default(),
        &plan(&NodeImage::default(), &before, &names),
    );
    let (after, names) = image(&shaped_but(&[("default: 200M", "default: 100M")]), &facts);
    let changes = plan(&there, &after, &names);
    let [Change::SwapRates(_)] = changes.as_slice() else {
        panic!("more than the rates: {}", plan::render(&changes));
    };
    assert_eq!(plan(&carried_out(there, &changes), &after, &names), []);
}

#[test]
fn without_ceilings_nobody_looks_for_terms() {
    let facts = east_1();
    let (before, names) = image(&shaped(), &facts);
    let there = carried_out(
        NodeImage::default(),
        &plan(&NodeImage::default(), &before, &names),
    );
    let (after, names) = image(config_support::RIGHT, &facts);
    let there = carried_out(there.clone(), &plan(&there, &after, &names));
    assert!(there.rates.is_empty());
    assert_eq!(
        there.settings.expect("settings").flags & Settings::SHAPES,
        0
    );
}

#[test]
fn clocks_stay_where_they_are_when_another_slice_comes_first() {
    let mut facts = east_1();
    let (before, _) = image(&shaped(), &facts);
    let known = host::known_in(&before, &facts.interfaces);
    host::remember(&mut facts, &known);
    let (open, with) = shop("    ceiling: {default: 100M}\n");
    let text = shaped_but(&[("id: 8", "id: 3"), (open, &with)]);
    let (after, _) = image(&text, &facts);
    let place = |image: &NodeImage, slice| {
        let entry = image.rates.iter().find(|(at, _)| at.key.slice == slice);
        entry.map(|(_, terms)| (terms.uplink_clocks, terms.clocks))
    };
    assert_eq!((place(&before, 7), place(&before, 3)), (Some((0, 0)), None));
    assert_eq!(
        (place(&after, 7), place(&after, 3)),
        (Some((0, 0)), Some((0, 1)))
    );
}

/// Anything that could be written for one slice on one uplink, most of it wrong.
fn any_qos() -> impl Strategy<Value = String> {
    let rate = |suffixes: &'static [&'static str]| (1u64..=999, prop::sample::select(suffixes));
    let class = (0u64..=40, 1u64..=9);
    (
        rate(&["k", "M", "G"]),
        rate(&["k", "M"]),
        prop::option::of(rate(&["k", "M"])),
        1u64..=12,
        prop::collection::vec(class, 0..=5),
    )
        .prop_map(|(uplink, ceiling, guarantee, nodes, classes)| {
            let shown = |(number, suffix): (u64, &str)| format!("{number}{suffix}");
            let guarantee = guarantee.map_or_else(String::new, |rate| {
                format!("    sliceGuarantee: {{default: {}}}\n", shown(rate))
            });
            let lines = classes.iter().enumerate().map(|(at, (percent, weight))| {
                format!(
                    "    - {{name: c{at}, match: [{{protocol: TCP, port: {}}}], guaranteePercent: \
                     {percent}, weight: {weight}}}\n",
                    9000 + at
                )
            });
            let lines: String = lines.collect();
            let text = shaped_but(&[
                (
                    "rate: 300M",
                    &format!("rate: {}, nodes: {nodes}", shown(uplink)),
                ),
                ("default: 200M", &format!("default: {}", shown(ceiling))),
                ("    classes:\n", &format!("{guarantee}    classes:\n")),
            ]);
            match classes.is_empty() {
                true => text.replace(&format!("    classes:\n{CLASSES}"), ""),
                false => text.replace(CLASSES, &lines),
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn what_is_accepted_can_be_carried_out_and_is_never_more_than_there_is(text in any_qos()) {
        let Ok(configuration) = check_text(&text) else {
            return Ok(());
        };
        prop_assert!(shaping(&configuration, &east_1()).is_ok());
        let uplink = &configuration.node().uplinks[0];
        let share = only_share(&configuration, "kafka");
        let slice = configuration.slice("kafka").expect("it is there");
        let profile = slice.profile.as_ref().expect("a ceiling");
        let ceiling_bps = profile.ceiling.on("wan", "east").bps();
        let nodes = u64::from(uplink.nodes);
        prop_assert!(ceiling_bps <= uplink.rate.bps());
        prop_assert!(share.contract.bps() * nodes <= uplink.rate.bps());
        prop_assert!(share.ceiling.bps() * nodes <= ceiling_bps);
        prop_assert!(ceiling_bps - share.ceiling.bps() * nodes < nodes, "nothing is lost");
        prop_assert!(share.guarantee <= share.ceiling && share.ceiling <= share.contract);
        let lane_bps = Assured::new(share.ceiling, Some(share.guarantee)).lane_bps();
        let promised_bps: u64 = share.entitlements.iter().map(|rate| rate.bps()).sum();
        prop_assert!(promised_bps + lane_bps <= share.guarantee.bps());
        for (class, given) in slice.classes.iter().zip(&share.entitlements[1..]) {
            let guaranteed_bps = share.ceiling.bps() * u64::from(class.guarantee_percent) / 100;
            prop_assert!(given.bps() >= guaranteed_bps);
        }
    }
}

#[test]
fn the_generator_makes_right_configurations_too() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let right = (0..1000).filter(|_| {
        let tree = any_qos().new_tree(&mut runner).expect("a value");
        check_text(tree.current()).is_ok()
    });
    let right = right.count();
    assert!(right > 100, "{right} of 1000");
}
