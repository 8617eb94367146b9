//! Packets through the programs in the kernel.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use aya::maps::Array;
use aya::programs::SchedClassifier;
use aya::{TestRun as _, TestRunOptions};
use slice_common::layout::{
    FirstFragment, FlowClocks, FragmentKey, LearntMtu, NewExchangesKey, PathEnds, PathHealth,
    ReplyKey,
};

use super::input::Input;
use crate::testrun::exchange::{
    CONTEXT_BYTES, DROP, GSO_SEGMENTS_OFFSET, GSO_SIZE_OFFSET, IFINDEX_OFFSET,
    INGRESS_IFINDEX_OFFSET, MARK_OFFSET, NEXT, PRIORITY, PRIORITY_OFFSET, kernel_time_ns, word,
};
use crate::testrun::{Program, State, World, early};

/// What came back.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) code: i32,
    pub(super) frame: Vec<u8>,
    pub(super) mark: u32,
    pub(super) priority: u32,
}

/// Which of these flows have no record, although one of their two places is nobody else's.
pub(super) fn without_record(world: &World, records: &BTreeSet<u64>) -> Result<Option<String>> {
    let flows: Array<_, FlowClocks> = world
        .object()
        .map("FLOW_CLOCKS")
        .context("the object has no map FLOW_CLOCKS")?
        .try_into()?;
    for record in records {
        let place = (record >> 48) as u32;
        let owner = |place: u32| flows.get(&place, 0).context("FLOW_CLOCKS");
        let owners = [owner(place)?.owner, owner(place ^ 1)?.owner].map(|owner| owner / 2 * 2);
        if !owners.contains(record) && owners.contains(&0) {
            let text = format!("the record of {record:#x} at {place} or beside it: {owners:x?}\n");
            return Ok(Some(text));
        }
    }
    Ok(None)
}

/// How many bytes the kernel wants of such a frame before it takes it for a packet: an Ethernet header
/// and a byte, or the header that the EtherType promises (6.18, `bpf_prog_test_run_skb`).
pub(super) fn bytes_min(frame: &[u8]) -> usize {
    match frame.get(12..14) {
        Some([0x08, 0x00]) => 14 + 20,
        Some([0x86, 0xdd]) => 14 + 40,
        _ => 15,
    }
}

/// Runs one packet.
/// # Errors  when the kernel does not run it; what the program says is no error.
pub(super) fn run(world: &World, input: &Input) -> Result<Outcome> {
    if input.program == Program::UnderlayFilter {
        let ended = early::run(world, &input.frame, None)
            .with_context(|| format!("test run with {input:?}"))?;
        return Ok(Outcome {
            code: if ended.passed { NEXT } else { DROP },
            frame: ended.frame,
            mark: input.mark,
            priority: PRIORITY,
        });
    }
    let mut context_out = [0; CONTEXT_BYTES];
    // More than any program may add.
    let mut frame_out = vec![0; input.frame.len() + 128];
    let context_in = context(world, input)?;
    let program: &SchedClassifier = world
        .object()
        .program(input.program.name())
        .with_context(|| format!("the object has no program {}", input.program.name()))?
        .try_into()?;
    let result = program
        .test_run(TestRunOptions {
            data_in: Some(&input.frame),
            data_out: Some(&mut frame_out),
            ctx_in: Some(&context_in),
            ctx_out: Some(&mut context_out),
            repeat: 1,
            ..TestRunOptions::new()
        })
        .with_context(|| format!("test run of {} with {input:?}", input.program.name()))?;
    frame_out.truncate(result.data_size_out as usize);
    Ok(Outcome {
        code: result.return_value.cast_signed(),
        frame: frame_out,
        mark: word(&context_out, MARK_OFFSET),
        priority: word(&context_out, PRIORITY_OFFSET),
    })
}

fn context(world: &World, input: &Input) -> Result<[u8; CONTEXT_BYTES]> {
    let segments = match input.gso_bytes {
        0 => 0,
        bytes => (input.frame.len() as u32).div_ceil(bytes),
    };
    let came_in_by = match input.came_in_by {
        Some(device) => world.ifindex(device)?,
        None => 0,
    };
    let mut context = [0; CONTEXT_BYTES];
    for (offset, value) in [
        (MARK_OFFSET, input.mark),
        (PRIORITY_OFFSET, PRIORITY),
        (INGRESS_IFINDEX_OFFSET, came_in_by),
        (IFINDEX_OFFSET, world.ifindex(input.device)?),
        (GSO_SEGMENTS_OFFSET, segments),
        (GSO_SIZE_OFFSET, input.gso_bytes),
    ] {
        context[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
    }
    Ok(context)
}

/// Everything that the programs have written, and the kernel time at which it was read.
pub(super) fn state(world: &World) -> Result<(State, u64)> {
    Ok((State::read(world.object())?, kernel_time_ns()?))
}

/// Leaves these records of questions and no others, no first parts of datagrams, and nothing known of
/// paths.
pub(super) fn set_records(
    world: &mut World,
    present: &State,
    replies: &[(ReplyKey, u64)],
) -> Result<()> {
    for key in present.replies.keys() {
        world.remove::<ReplyKey, u64>("REPLIES", *key)?;
    }
    for key in present.new_exchanges.keys() {
        world.remove::<NewExchangesKey, u64>("NEW_EXCHANGES", *key)?;
    }
    for key in present.fragments.keys() {
        world.remove::<FragmentKey, FirstFragment>("FRAGMENTS", *key)?;
    }
    for key in present.path_mtu.keys() {
        world.remove::<PathEnds, LearntMtu>("PATH_MTU", *key)?;
    }
    world.set_mtus_hold_until(0)?;
    for path in present.health.keys() {
        world.remove::<u32, PathHealth>("PATH_HEALTH", *path)?;
    }
    for (key, until_ns) in replies {
        world.insert("REPLIES", *key, *until_ns)?;
    }
    Ok(())
}
