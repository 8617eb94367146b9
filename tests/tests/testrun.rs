//! The test-run scenes on this machine's kernel, in a network namespace of their own. Needs root and
//! the object (`target/bpf/slice-ebpf.o`, or the file that `SLICE_EBPF_OBJ` names).

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, anyhow};
use libtest_mimic::{Arguments, Failed, Trial};
use slice_tests::testrun::{Scene, World, attach, in_own_network, run_scene, scenes};

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // The scenes share one world, which belongs to one thread's network namespace.
    arguments.test_threads = Some(1);
    if arguments.list {
        return libtest_mimic::run(&arguments, trials(None)).exit_code();
    }
    if let Some(reason) = reason_to_skip() {
        return skip(&reason);
    }
    match in_own_network(|| run(&arguments)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    let file = object_file();
    let object = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let world = Arc::new(Mutex::new(World::new(&object)?));
    Ok(libtest_mimic::run(arguments, trials(Some(&world))).exit_code())
}

fn trials(world: Option<&Arc<Mutex<World>>>) -> Vec<Trial> {
    let mut trials: Vec<_> = scenes()
        .into_iter()
        .map(|scene| trial(world, scene))
        .collect();
    let world = world.cloned();
    trials.push(Trial::test(
        "a_program_attaches_to_an_interface",
        move || in_world(world.as_ref(), |world| attach(world).map(drop)),
    ));
    trials
}

fn trial(world: Option<&Arc<Mutex<World>>>, scene: Scene) -> Trial {
    let world = world.cloned();
    Trial::test(scene.name, move || {
        in_world(world.as_ref(), |world| run_scene(world, &scene))
    })
}

fn in_world(
    world: Option<&Arc<Mutex<World>>>,
    f: impl FnOnce(&mut World) -> Result<()>,
) -> Result<(), Failed> {
    let world = world.ok_or_else(|| Failed::from("there is no world to run in"))?;
    let mut world = world
        .lock()
        .map_err(|_| anyhow!("an earlier scene panicked"))
        .map_err(failed)?;
    f(&mut world).map_err(failed)
}

fn failed(error: anyhow::Error) -> Failed {
    Failed::from(format!("{error:#}"))
}

fn object_file() -> PathBuf {
    match std::env::var_os("SLICE_EBPF_OBJ").filter(|name| !name.is_empty()) {
        Some(file) => file.into(),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/slice-ebpf.o"),
    }
}

fn reason_to_skip() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("loading programs needs root".to_owned());
    }
    let file = object_file();
    let missing = !file.is_file();
    missing.then(|| {
        format!(
            "there is no object {}; `cargo xtask build` makes it",
            file.display()
        )
    })
}

fn skip(reason: &str) -> ExitCode {
    eprintln!("SKIPPED: the test-run scenes: {reason}");
    let required = std::env::var_os("SLICE_TESTS_REQUIRED").is_some_and(|value| value == "1");
    if required {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
