//! One frame through `underlay_filter`, which runs before there is a packet (XDP).

use std::time::Duration;

use anyhow::{Context, Result, bail};
use aya::programs::Xdp;
use aya::{TestRun as _, TestRunOptions};

use super::exchange::Program;
use super::world::World;

/// How the program left the frame.
pub(crate) struct Passed {
    pub(crate) passed: bool,
    pub(crate) frame: Vec<u8>,
    pub(crate) took: Duration,
}

/// `struct xdp_md` (include/uapi/linux/bpf.h).
const CONTEXT_BYTES: usize = 24;
const DATA_END_OFFSET: usize = 4;
// `enum xdp_action`
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

/// Runs the program. `first_buffer_bytes` needs Linux 6.18: see [`takes_small_first_buffers`].
/// # Errors  when the kernel does not run it, or it answers what it never must.
pub(crate) fn run(
    world: &World,
    frame: &[u8],
    first_buffer_bytes: Option<usize>,
) -> Result<Passed> {
    let name = Program::UnderlayFilter.name();
    let program: &Xdp = world
        .object()
        .program(name)
        .with_context(|| format!("the object has no program {name}"))?
        .try_into()?;
    let mut frame_out = vec![0; frame.len() + 256];
    let mut context = [0; CONTEXT_BYTES];
    let context = first_buffer_bytes.map(|bytes| {
        let end = (bytes as u32).to_ne_bytes();
        context[DATA_END_OFFSET..DATA_END_OFFSET + 4].copy_from_slice(&end);
        &context[..]
    });
    let result = program.test_run(TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut frame_out),
        ctx_in: context,
        repeat: 1,
        ..TestRunOptions::new()
    })?;
    frame_out.truncate(result.data_size_out as usize);
    let passed = match result.return_value {
        XDP_PASS => true,
        XDP_DROP => false,
        other => bail!("{name} answers {other}, which is neither drop nor pass"),
    };
    Ok(Passed {
        passed,
        frame: frame_out,
        took: result.duration,
    })
}

/// Whether this kernel lets a test say how much of a frame lies in its first buffer.
pub(crate) fn takes_small_first_buffers(world: &World) -> bool {
    run(world, &[0; 100], Some(20)).is_ok()
}
