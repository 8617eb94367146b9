//! The test-run scenes on this machine's kernel, in a network namespace of their own. Needs root and
//! the object (`target/bpf/slice-ebpf.o`, or the file that `SLICE_EBPF_OBJ` names).

use std::process::{Command, ExitCode};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, anyhow};
use libtest_mimic::{Arguments, Conclusion, Trial};
use slice_tests::harness::{self, Need, agent_file, object_file};
use slice_tests::testrun::{
    Scene, World, attach, in_own_network, play_on_htb, play_on_queues, play_with_agent, run_scene,
    scenes,
};

/// The scenes share one world, which belongs to one thread's network namespace.
fn main() -> ExitCode {
    let list = || trials(None);
    harness::main("the test-run scenes", Need::Object, list, |arguments| {
        in_own_network(|| run(arguments))
    })
}

fn run(arguments: &Arguments) -> Result<Conclusion> {
    let file = object_file();
    let object = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let world = Arc::new(Mutex::new(World::new(&object)?));
    Ok(libtest_mimic::run(arguments, trials(Some(&world))))
}

fn trials(world: Option<&Arc<Mutex<World>>>) -> Vec<Trial> {
    let mut trials: Vec<_> = scenes()
        .into_iter()
        .map(|scene| trial(world, scene))
        .collect();
    let world = world.cloned();
    trials.push(harness::trial(
        "a_program_attaches_to_an_interface",
        move || in_world(world.as_ref(), |world| attach(world).map(drop)),
    ));
    trials.push(harness::trial("uplinks_get_fq_and_lose_it", || {
        in_own_network(|| play_on_queues(kernel_has_fq()?))
    }));
    trials.push(harness::trial(
        "an_agent_puts_a_queue_on_an_uplink_changes_it_and_takes_it_off",
        || play_with_agent(&agent_file(), kernel_has_fq()?),
    ));
    trials.push(harness::trial(
        "packets_that_wait_in_htb_keep_their_order_when_rates_change",
        || play_on_htb(&std::fs::read(object_file())?),
    ));
    trials
}

/// As another tool finds out, on a device that nobody needs.
fn kernel_has_fq() -> Result<bool> {
    let added = Command::new("tc")
        .args("qdisc add dev lo root fq".split(' '))
        .output()
        .context("run tc")?;
    Ok(added.status.success())
}

fn trial(world: Option<&Arc<Mutex<World>>>, scene: Scene) -> Trial {
    let world = world.cloned();
    harness::trial(scene.name, move || {
        in_world(world.as_ref(), |world| run_scene(world, &scene))
    })
}

fn in_world(
    world: Option<&Arc<Mutex<World>>>,
    f: impl FnOnce(&mut World) -> Result<()>,
) -> Result<()> {
    let world = world.context("there is no world to run in")?;
    let mut world = world
        .lock()
        .map_err(|_| anyhow!("an earlier scene panicked"))?;
    f(&mut world)
}
