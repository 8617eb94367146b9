//! Packets are sent to the front or back of a class (`htb`).

use anyhow::{Result, ensure};
use slice_common::id::TrafficClass;
use slice_common::layout::{FlowClocks, QueueClass, ShaperBackend, ShaperTerms};
use slice_common::shaper::{
    Assured, ClassTerms, Habits, STAY_NS, SliceTerms, UplinkTerms, WireBytes,
};

use super::shaper::{
    DEFAULT_PLACE, FAST_BPS, PLACE, REPLICATION_PLACE, SECOND_NS, SLOW_BPS, class, leaving, rate,
    share, terms, tunnel_of, tunnel_of_class,
};
use crate::testrun::actors::*;
use crate::testrun::exchange::kernel_time_ns;
use crate::testrun::shaping::{counts, flow_of};
use crate::testrun::{Expected, Program, World};

/// Who asks and answers goes before who pushes, the more so through the lane.
pub(super) fn packets_are_sent_to_classes(world: &mut World) -> Result<()> {
    let favoured = ClassTerms {
        favour_interactive: true,
        ..class(FAST_BPS)
    };
    let shared = terms(ShaperBackend::Htb, FAST_BPS, &class(FAST_BPS))
        .with_class(number(REPLICATION), &favoured);
    share(world, shared)?;
    for (class, queue) in [
        ((0, 0), QueueClass::Back(DEFAULT_PLACE)),
        (REPLICATION, QueueClass::Front(REPLICATION_PLACE)),
    ] {
        let frame = leaving(world, class, 50_013)?;
        for _ in 0..3 {
            goes_to(world, &frame, queue)?;
        }
    }
    // What nobody judges keeps what it has.
    world.set_shaper_terms(&[])?;
    let frame = leaving(world, REPLICATION, 50_013)?;
    world
        .send("no terms", Program::UnderlayGuard, NIC, frame.clone())
        .marked_as_tunnelled()
        .expect(Expected::untouched(&frame))
}

pub(super) fn a_flow_stays_at_the_back_while_packets_of_it_may_wait(
    world: &mut World,
) -> Result<()> {
    let [front, back] = [
        QueueClass::Front(DEFAULT_PLACE),
        QueueClass::Back(DEFAULT_PLACE),
    ];
    let slow = terms(ShaperBackend::Htb, SLOW_BPS, &patient(SLOW_BPS));
    share(world, slow)?;
    let frame = leaving(world, (0, 0), 50_014)?;
    // The class has a slot now, and its front another one.
    goes_to(world, &frame, front)?;
    goes_to(world, &frame, front)?;
    goes_to(world, &frame, back)?;
    // When everything has time at once, only who has nothing at the back comes to the front.
    world.reset()?;
    let fast = terms(ShaperBackend::Htb, FAST_BPS, &patient(FAST_BPS));
    share(world, fast)?;
    let other = tunnel_of(50_015);
    world.forget_shaped_flow(&other)?;
    goes_to(world, &frame, back)?;
    goes_to(world, &other, front)
}

/// It may be two full frames ahead of a thin flow's rate, so with three packets of these.
pub(super) fn a_thin_flow_stays_at_the_front_of_a_crowd(world: &mut World) -> Result<()> {
    let ceiling = rate(SLOW_BPS);
    let slice = SliceTerms {
        burst_ns: 0,
        // The crowd fills the lane.
        lane_burst_ns: 0,
        ..SliceTerms::new(ceiling, Assured::new(ceiling, None), WireBytes::new(1538))
    };
    let class = patient(SLOW_BPS);
    let slow = ShaperTerms::new(
        ShaperBackend::Htb,
        PLACE,
        &UplinkTerms::NONE,
        &slice,
        &class,
    );
    share(world, slow)?;
    // The class has a slot now, and its front another one.
    let crowd = leaving(world, (0, 0), 50_016)?;
    let thin = leaving(world, (0, 0), 50_017)?;
    for (frame, at_front) in [(&crowd, 2 + 3), (&thin, 3)] {
        for _ in 0..at_front {
            goes_to(world, frame, QueueClass::Front(DEFAULT_PLACE))?;
        }
        goes_to(world, frame, BACK)?;
    }
    Ok(())
}

/// Of a class that lets everybody wait, and judges nobody.
fn patient(bps: u64) -> ClassTerms {
    ClassTerms {
        burst_ns: 0,
        horizon_ns: 60 * SECOND_NS,
        favour_interactive: true,
        habits: Habits {
            burst_ns: 60 * SECOND_NS,
            patience_ns: 60 * SECOND_NS,
            ..class(bps).habits
        },
        ..class(bps)
    }
}

fn goes_to(world: &mut World, frame: &[u8], queue: QueueClass) -> Result<()> {
    let found = world
        .send("queue", Program::UnderlayGuard, NIC, frame)
        .marked_as_tunnelled()
        .queue()?;
    let wanted = queue.priority();
    ensure!(found == wanted, "{found:#x}, not {queue:?} {wanted:#x}");
    Ok(())
}

pub(super) fn number((class, _): (u8, u8)) -> TrafficClass {
    TrafficClass::from_low_bits(u32::from(class))
}

/// Two classes with a back only, and the flow's frames in either.
fn two_classes(world: &mut World, port: u16) -> Result<[Vec<u8>; 2]> {
    let terms = terms(ShaperBackend::Htb, FAST_BPS, &class(FAST_BPS))
        .with_class(number(REPLICATION), &class(FAST_BPS));
    share(world, terms)?;
    Ok([
        leaving(world, (0, 0), port)?,
        tunnel_of_class(REPLICATION, port),
    ])
}

const BACK: QueueClass = QueueClass::Back(DEFAULT_PLACE);
const OTHER_BACK: QueueClass = QueueClass::Back(REPLICATION_PLACE);

/// A flow that is to be of another class goes where its packets wait, until none can be left there or it stayed for long.
pub(super) fn a_flow_of_another_class_stays_while_packets_of_it_may_wait(
    world: &mut World,
) -> Result<()> {
    let [before, after] = two_classes(world, 50_016)?;
    let place = flow_of(&before).place();
    // Who has nothing there goes to its class.
    goes_to(world, &after, OTHER_BACK)?;
    world.forget_shaped_flow(&before)?;
    goes_to(world, &before, BACK)?;
    goes_to(world, &after, BACK)?;
    goes_to(world, &after, BACK)?;
    let stays = world.flow_record(place)?;
    let until_ns = kernel_time_ns()? + STAY_NS;
    ensure!(
        stays.joined_ns <= until_ns && until_ns < stays.joined_ns + SECOND_NS,
        "{stays:?}"
    );
    // What it sent last is gone; or it stayed for long.
    let gone = FlowClocks {
        gone: stays.gone & 0xf,
        ..stays
    };
    let late = FlowClocks {
        joined_ns: 1,
        ..stays
    };
    for record in [gone, late] {
        world.set_flow_record(place, stays)?;
        goes_to(world, &after, BACK)?;
        world.set_flow_record(place, record)?;
        goes_to(world, &after, OTHER_BACK)?;
        goes_to(world, &after, OTHER_BACK)?;
    }
    Ok(())
}

/// Two flows that are one to the shaper are not taken for one of which the class was changed.
pub(super) fn flows_of_two_classes_with_one_record_keep_their_classes(
    world: &mut World,
) -> Result<()> {
    let [one, other] = two_classes(world, 50_017)?;
    goes_to(world, &one, BACK)?;
    // It may be the same flow, until the first one is heard of again.
    goes_to(world, &other, BACK)?;
    goes_to(world, &one, BACK)?;
    for _ in 0..3 {
        goes_to(world, &other, OTHER_BACK)?;
        goes_to(world, &one, BACK)?;
    }
    Ok(())
}

/// A class that is configured no more has a back as long as something may wait there.
pub(super) fn a_flow_of_a_vacated_class_stays_while_packets_of_it_may_wait(
    world: &mut World,
) -> Result<()> {
    let [default, frame] = two_classes(world, 50_018)?;
    goes_to(world, &frame, OTHER_BACK)?;
    let gone = terms(ShaperBackend::Htb, FAST_BPS, &class(FAST_BPS));
    let room = gone.classes[0].room();
    share(world, gone.with_vacated(number(REPLICATION), room))?;
    let judged_as_default = |world: &World| -> Result<u64> {
        let counts = counts(world.object())?;
        Ok(counts
            .get(&DEFAULT_PLACE)
            .map_or(0, |it| it.guaranteed.packets))
    };
    let before = judged_as_default(world)?;
    for frame in [&frame, &default] {
        goes_to(world, frame, OTHER_BACK)?;
    }
    ensure!(
        judged_as_default(world)? == before + 2,
        "it is judged elsewhere"
    );
    // Whoever comes anew is of the default class.
    let other = leaving(world, REPLICATION, 50_019)?;
    goes_to(world, &other, BACK)?;
    share(world, gone)?;
    goes_to(world, &frame, BACK)
}
