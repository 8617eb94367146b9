//! Flows have records, by which the shaper knows them.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use slice_common::id::TrafficClass;
use slice_common::layout::FlowClocks;
use slice_common::shaper::{ClassTerms, Owner};

use super::shaper::{FAST_BPS, SECOND_NS, class, leaving, patient, share, tunnel_of_class};
use crate::testrun::actors::*;
use crate::testrun::exchange::kernel_time_ns;
use crate::testrun::shaping::flow_of;
use crate::testrun::{Program, World};

/// Ports of flows that have the same two places.
fn meeting() -> Result<[u16; 3]> {
    let mut at: BTreeMap<u32, Vec<(Owner, u16)>> = BTreeMap::new();
    for port in 1024..u16::MAX {
        let owner = flow_of(&tunnel_of_class((0, 0), port));
        let here = at.entry(owner.place()).or_default();
        if here.iter().all(|(other, _)| *other != owner) {
            here.push((owner, port));
        }
        if let [(_, one), (_, other), (_, third)] = here[..] {
            return Ok([one, other, third]);
        }
    }
    None.context("no three flows meet")
}

fn departure_ns(world: &mut World, frame: &[u8]) -> Result<u64> {
    let sent = world
        .send("departure", Program::UnderlayGuard, NIC, frame)
        .marked_as_tunnelled();
    Ok(sent.departure()?.0)
}

/// Whoever has a record waits for nobody else. Only where there are none left two flows are one.
pub(super) fn flows_that_meet_have_records_of_their_own(world: &mut World) -> Result<()> {
    let number = |(class, _): (u8, u8)| TrafficClass::from_low_bits(u32::from(class));
    let fast = ClassTerms {
        horizon_ns: 60 * SECOND_NS,
        ..class(FAST_BPS)
    };
    let shared = patient()
        .with_class(number(CLIENT), &fast)
        .with_class(number(REPLICATION), &fast);
    share(world, shared)?;
    let [first, second, third] = meeting()?;
    let slow = leaving(world, (0, 0), first)?;
    // Those of another class: the first one has let the records be forgotten for all of them.
    let (fast, late) = (
        tunnel_of_class(CLIENT, second),
        tunnel_of_class(REPLICATION, third),
    );
    departure_ns(world, &slow)?;
    departure_ns(world, &slow)?;
    let waits_until_ns = departure_ns(world, &slow)?;
    let at_once = |world: &mut World, frame: &[u8]| -> Result<bool> {
        let left_ns = departure_ns(world, frame)?;
        Ok(left_ns <= kernel_time_ns()?)
    };
    ensure!(kernel_time_ns()? < waits_until_ns, "vacuous: nothing waits");
    ensure!(at_once(world, &fast)?, "it waits for another flow");
    ensure!(at_once(world, &fast)?, "it waits for another flow");
    ensure!(
        departure_ns(world, &late)? >= waits_until_ns,
        "three flows have two records"
    );
    // The other one is given up, and what shared a record goes on in it where it was.
    let fast = flow_of(&fast);
    let [first, second] = [fast.place(), fast.second_place()];
    let found = [
        world.flow_record(first)?.owner,
        world.flow_record(second)?.owner,
    ];
    let wanted = [flow_of(&slow).word() | 1, fast.word()];
    ensure!(found == wanted, "{found:x?}, not {wanted:x?}");
    world.set_flow_record(second, FlowClocks::NOTHING)?;
    ensure!(
        departure_ns(world, &late)? >= waits_until_ns,
        "it overtook itself"
    );
    let taken = world.flow_record(second)?;
    ensure!(taken.owner == flow_of(&late).word(), "{taken:?}");
    Ok(())
}

/// How often its flow failed to be taken for one that asks and answers.
fn failed(record: &FlowClocks) -> u64 {
    record.stance >> 1 & 7
}

/// By who was silent for a second, whatever it did before that; the newcomer is nobody's heir.
pub(super) fn a_record_is_given_up_when_its_flow_is_silent(world: &mut World) -> Result<()> {
    share(world, patient())?;
    let frame = leaving(world, (0, 0), 50_030)?;
    let me = flow_of(&frame);
    let now_ns = kernel_time_ns()?;
    let stranger = |last_ns: u64| FlowClocks {
        departure_ns: last_ns,
        pace_ns: last_ns,
        // It pushed, and failed six times to come back.
        stance: last_ns & !0xf | 6 << 1 | 1,
        owner: 0x1234 << 2 | 2,
        ..FlowClocks::NOTHING
    };
    let sent = |world: &mut World, records: [FlowClocks; 2]| {
        for (place, record) in [me.place(), me.second_place()].into_iter().zip(records) {
            world.set_flow_record(place, record)?;
        }
        departure_ns(world, &frame)?;
        anyhow::Ok([
            world.flow_record(me.place())?,
            world.flow_record(me.second_place())?,
        ])
    };
    let silent = stranger(now_ns - 2 * SECOND_NS);
    // Not even when this test has taken a minute.
    let active = stranger(now_ns + 60 * SECOND_NS);
    let staying = FlowClocks {
        joined_ns: 1,
        gone: now_ns + 60 * SECOND_NS,
        ..silent
    };
    let [first, second] = sent(world, [silent, silent])?;
    let begins = |record: &FlowClocks| record.owner == me.word() && failed(record) == 0;
    ensure!(begins(&first), "{first:?}");
    ensure!(second == silent, "{second:?}");
    for busy in [active, staying] {
        let [first, second] = sent(world, [busy, silent])?;
        ensure!(first == busy, "{first:?}");
        ensure!(begins(&second), "{second:?}");
    }
    let mine = FlowClocks {
        owner: me.word(),
        ..FlowClocks::NOTHING
    };
    let [first, second] = sent(world, [silent, mine])?;
    ensure!(
        first == silent && second.pace_ns > now_ns,
        "{first:?} {second:?}"
    );
    let [first, second] = sent(world, [active, staying])?;
    ensure!(first.owner == active.owner | 1, "{first:?}");
    ensure!(second == staying, "{second:?}");
    Ok(())
}
