//! Where strangers' packets are dropped by the driver already, and what is said where they are not.

mod config_support;

use config_support::{check_text, east_1, right_but};
use slice_agent::compile::{self, Obstacle};
use slice_agent::image::{HostFacts, Interface, Program};
use slice_agent::model::Validated;

fn configured(early_drop: &str) -> Validated {
    let change = format!("underlay: {{earlyDrop: {early_drop}, address");
    check_text(right_but(&[("underlay: {address", &change)])).expect("a right configuration")
}

/// `east-1` with a network card whose driver runs XDP programs.
fn with_card(change: impl FnOnce(&mut Interface)) -> HostFacts {
    let mut facts = east_1();
    let nic = facts.interfaces.get_mut("nic0").expect("the interface");
    nic.kind.clear();
    nic.native_xdp = Some(true);
    change(nic);
    facts
}

/// The decision, which is what the node then gets.
fn decided(early_drop: &str, facts: &HostFacts) -> Result<bool, Obstacle> {
    let configuration = configured(early_drop);
    let decided = compile::early_drop(&configuration, facts);
    let (image, _) = compile::compile(&configuration, facts).expect("a configuration that fits");
    let mut attached = image.attachments.iter();
    let is_attached = attached.any(|at| at.program == Program::UnderlayFilter && at.ifindex == 2);
    assert_eq!(is_attached, decided == Ok(true));
    decided
}

#[test]
fn a_card_that_can_has_it_unless_switched_off() {
    let card = with_card(|_| {});
    assert_eq!(decided("Auto", &card), Ok(true));
    assert_eq!(decided("On", &card), Ok(true));
    assert_eq!(decided("Off", &card), Ok(false));
    let (image, _) = compile::compile(&config_support::right(), &card).expect("it fits");
    assert_eq!(image.attachments.len(), 8, "Auto is what absence means");
}

#[test]
fn what_is_no_hardware_has_it_only_when_asked_for() {
    let mut veth = east_1();
    assert_eq!(decided("Auto", &veth), Ok(false));
    assert_eq!(
        decided("On", &veth),
        Ok(true),
        "an old kernel does not tell: try"
    );
    veth.interfaces.get_mut("nic0").expect("it").native_xdp = Some(false);
    assert_eq!(decided("On", &veth), Err(Obstacle::NotNative));
}

#[test]
fn nothing_is_given_up_for_it_unasked() {
    let merging = with_card(|nic| nic.merges = true);
    assert_eq!(decided("Auto", &merging), Err(Obstacle::Merges));
    assert_eq!(decided("On", &merging), Ok(true));
    let old_kernel = with_card(|nic| nic.native_xdp = None);
    assert_eq!(decided("Auto", &old_kernel), Err(Obstacle::Untold));
    assert_eq!(decided("On", &old_kernel), Ok(true));
    let other_driver = with_card(|nic| nic.native_xdp = Some(false));
    assert_eq!(decided("Auto", &other_driver), Err(Obstacle::NotNative));
}

#[test]
fn programs_of_others_are_left_alone_and_our_own_is_none_of_them() {
    let mut occupied = with_card(|nic| nic.xdp_program = 12);
    for early_drop in ["Auto", "On"] {
        assert_eq!(decided(early_drop, &occupied), Err(Obstacle::Occupied(12)));
    }
    occupied.filtered.insert(2);
    assert_eq!(decided("Auto", &occupied), Ok(true));
}

/// Cards take tags off; the frames of the VLAN would look like those of the underlay.
#[test]
fn an_interface_with_vlans_on_it_stays_without() {
    let mut stacked = with_card(|_| {});
    let vlan = |lower_ifindex| Interface {
        ifindex: 9,
        kind: "vlan".to_owned(),
        lower_ifindex,
        ..Interface::default()
    };
    stacked.interfaces.insert("nic0.5".to_owned(), vlan(2));
    let tagged = Err(Obstacle::Tagged("nic0.5".to_owned()));
    assert_eq!(decided("Auto", &stacked), tagged);
    assert_eq!(decided("On", &stacked), tagged);
    stacked.interfaces.insert("nic0.5".to_owned(), vlan(5));
    assert_eq!(decided("On", &stacked), Ok(true));
}

#[test]
fn what_a_driver_refused_is_not_tried_again() {
    let mut refusing = with_card(|_| {});
    refusing.filter_refused.insert(2, "no queues".to_owned());
    let refused = Err(Obstacle::Refused("no queues".to_owned()));
    assert_eq!(decided("On", &refusing), refused);
    assert_eq!(decided("Off", &refusing), Ok(false));
}

#[test]
fn each_obstacle_says_what_to_do() {
    let text = |obstacle: Obstacle| obstacle.to_string();
    assert!(text(Obstacle::Occupied(12)).starts_with("XDP program #12 of somebody else is on it;"));
    for obstacle in [
        Obstacle::Occupied(12),
        Obstacle::Tagged("nic0.5".to_owned()),
        Obstacle::NotNative,
        Obstacle::Untold,
        Obstacle::Merges,
    ] {
        let said = text(obstacle);
        assert!(said.contains("`earlyDrop: O"), "{said}");
    }
}
